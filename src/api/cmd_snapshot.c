/* SPDX-License-Identifier: Apache-2.0 -- commands of the control socket: snapshots */
#include "api/command.h"
#include "snapshot/snapshot.h"

static int save(struct api_call *c)
{
    const struct snapshot_save how = {
        .path = api_string(c, "file"),
        .parent = api_string(c, "parent"),
        .compress = api_flag(c, "compress", false),
        .scratch = api_flag(c, "scratch", false),
    };
    struct snapshot_result did = { 0 };
    int r = snapshot_save(c->machine, &how, &did, &c->e);
    if (r == 0) {
        c->result = json_pack("{s:I, s:I, s:I, s:I}", "bytes", (json_int_t)did.bytes, "memory",
                              (json_int_t)did.memory, "total-time",
                              (json_int_t)(did.total_ns / 1000000), "pause-us",
                              (json_int_t)(did.pause_ns / 1000));
    }
    return r;
}

const struct api_command api_snapshot_commands[] = {
    { "x-sosia-snapshot", save, "file:str ?parent:str ?compress:bool ?scratch:bool" },
    { NULL, NULL, NULL },
};
