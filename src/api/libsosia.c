/* SPDX-License-Identifier: Apache-2.0 -- include/sosia.h over the control socket */
#include <stdio.h>

#include "api/api.h"
#include "machine/vm.h"
#include "sosia.h"

/* A struct sosia_api is a struct api under its public name. */

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
