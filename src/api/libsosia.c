/* SPDX-License-Identifier: Apache-2.0 -- include/sosia.h over control socket and GDB stub */
#include <stdio.h>

#include "api/api.h"
#include "api/gdb.h"
#include "machine/vm.h"
#include "sosia.h"

/* A struct sosia_api is a struct api under its public name, a struct sosia_gdb a struct gdb. */

int sosia_api_new(struct sosia_api **out, struct sosia_vm *vm, const char *name, const char *path,
                  char *error)
{
    struct err e = { 0 };
    struct api *api;
    const struct api_config config = { .name = name, .path = path };
    int r = api_new(&api, sosia_vm_machine(vm), &config, &e);
    if (r == 0) {
        *out = (struct sosia_api *)api;
    } else if (error != NULL) {
        snprintf(error, SOSIA_ERROR_BYTES, "%s", e.msg);
    }
    return r;
}

void sosia_api_free(struct sosia_api *api) { api_free((struct api *)api); }

int sosia_gdb_new(struct sosia_gdb **out, struct sosia_vm *vm, const char *address, char *error)
{
    struct err e = { 0 };
    struct gdb *gdb;
    int r = gdb_new(&gdb, sosia_vm_machine(vm), address, &e);
    if (r == 0) {
        *out = (struct sosia_gdb *)gdb;
    } else if (error != NULL) {
        snprintf(error, SOSIA_ERROR_BYTES, "%s", e.msg);
    }
    return r;
}

void sosia_gdb_free(struct sosia_gdb *gdb) { gdb_free((struct gdb *)gdb); }

const char *sosia_gdb_where(const struct sosia_gdb *gdb)
{
    return gdb_where((const struct gdb *)gdb);
}
