/* SPDX-License-Identifier: Apache-2.0 */
#include "display/vnc_listen.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/tcpsock.h"

int vnc_listen(const struct vnc_config *c, char where[VNC_WHERE_BYTES], struct err *e)
{
    const char *text = c->address != NULL ? c->address : "127.0.0.1";
    struct tcp_bound bound;
    bool loopback;
    int r = tcp_is_loopback(text, &loopback, e);
    if (r == 0 && !loopback && c->password_file == NULL) {
        return err_set(e, -EACCES, "vnc: others can reach %s: give password=FILE, too", text);
    }
    int fd = r == 0 ? tcp_listen(text, c->port, 8, &bound, e) : r;
    if (fd < 0) {
        return err_prefix(e, fd, "vnc");
    }
    memcpy(where, bound.where, sizeof bound.where);
    return fd;
}

int vnc_read_password(const char *path, char out[VNC_PASSWORD_MAX + 1], struct err *e)
{
    char line[64] = "";
    FILE *f = fopen(path, "re");
    if (f == NULL) {
        return err_set(e, -errno, "vnc: %s: %s", path, strerror(errno));
    }
    bool read = fgets(line, sizeof line, f) != NULL;
    fclose(f);
    line[strcspn(line, "\r\n")] = '\0';
    if (!read || line[0] == '\0') {
        return err_set(e, -EINVAL, "vnc: %s: no password in its first line", path);
    }
    if (strlen(line) > VNC_PASSWORD_MAX) {
        return err_set(e, -EINVAL, "vnc: %s: VNC's passwords have at most %u characters", path,
                       VNC_PASSWORD_MAX);
    }
    memcpy(out, line, strlen(line) + 1);
    return 0;
}
