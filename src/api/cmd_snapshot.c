/* SPDX-License-Identifier: Apache-2.0 -- commands of the control socket: snapshots */
#include <fcntl.h>
#include <unistd.h>

#include "api/command.h"
#include "snapshot/snapshot.h"

/* Only what is in memory, as descriptors that /proc shows are: nobody's files are written. */
static int open_translations(const char *path)
{
    int fd = path != NULL ? open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK) : -1;
    if (fd >= 0 && fcntl(fd, F_GET_SEALS) < 0) {
        close(fd);
        return -1;
    }
    return fd;
}

static int save(struct api_call *c)
{
    int translations = open_translations(api_string(c, "translations"));
    const struct snapshot_save how = {
        .path = api_string(c, "file"),
        .parent = api_string(c, "parent"),
        .compress = api_flag(c, "compress", false),
        .scratch = api_flag(c, "scratch", false),
        .translations = translations,
    };
    struct snapshot_result did = { 0 };
    int r = snapshot_save(c->machine, &how, &did, &c->e);
    if (r == 0) {
        c->result = json_pack("{s:I, s:I, s:I, s:I}", "bytes", (json_int_t)did.bytes, "memory",
                              (json_int_t)did.memory, "total-time",
                              (json_int_t)(did.total_ns / 1000000), "pause-us",
                              (json_int_t)(did.pause_ns / 1000));
    }
    if (translations >= 0) {
        close(translations);
    }
    return r;
}

const struct api_command api_snapshot_commands[] = {
    { "x-sosia-snapshot", save,
      "file:str ?parent:str ?compress:bool ?scratch:bool ?translations:str" },
    { NULL, NULL, NULL },
};
