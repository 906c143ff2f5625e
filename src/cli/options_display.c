/* SPDX-License-Identifier: Apache-2.0 -- --display */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cli/options.h"

#define DEFAULT_PORT 5900

/* PORT, :PORT, ADDRESS, ADDRESS:PORT, [IPV6] or [IPV6]:PORT */
static int parse_where(struct sosia_display *d, char *text, struct err *e)
{
    char *port = strrchr(text, ':');
    char *bracket = strchr(text, ']');
    if (text[0] == '[' && bracket != NULL) {
        port = bracket[1] == ':' ? bracket + 1 : NULL;
        *bracket = '\0';
        text++;
    } else if (port == NULL && strchr(text, '.') == NULL) {
        port = text; /* a number alone */
    }
    if (port != NULL) {
        const char *digits = *port == ':' ? port + 1 : port;
        char *end;
        unsigned long n = strtoul(digits, &end, 10);
        if (*digits < '0' || *digits > '9' || *end != '\0' || n > UINT16_MAX) {
            return err_set(e, -EINVAL, "--display: '%s' is no port number", digits);
        }
        d->port = (uint16_t)n;
    }
    if (port != text) {
        if (port != NULL && *port == ':') {
            *port = '\0';
        }
        d->address = *text != '\0' ? text : NULL;
    }
    return 0;
}

int options_display(struct run_options *o, char *text, struct err *e)
{
    struct sosia_display *d = &o->config.display;
    *d = (struct sosia_display){ .kind = SOSIA_DISPLAY_NONE };
    if (strcmp(text, "none") == 0) {
        return 0;
    }
    char *password = strstr(text, ",password=");
    if (password != NULL) {
        *password = '\0';
        d->password_file = password + strlen(",password=");
    }
    char *where = strchr(text, '=');
    if (where != NULL) {
        *where++ = '\0';
    }
    if (strcmp(text, "web") == 0 || strcmp(text, "window") == 0) {
        return err_set(e, -ENOTSUP, "--display %s is not built yet", text);
    }
    if (strcmp(text, "vnc") != 0) {
        return err_set(e, -EINVAL, "--display: '%s' is not none or vnc[=[ADDRESS:]PORT]"
                                   "[,password=FILE]", text);
    }
    d->kind = SOSIA_DISPLAY_VNC;
    o->config.tablet = true; /* viewers have a pointer of their own: the guest's is to be there */
    d->port = DEFAULT_PORT;
    return where != NULL ? parse_where(d, where, e) : 0;
}
