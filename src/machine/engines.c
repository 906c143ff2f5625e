/* SPDX-License-Identifier: Apache-2.0
 *
 * The engines that are built in, best first.
 */
#include <errno.h>
#include <string.h>

#include "base/bits.h"
#include "base/log.h"
#include "machine/machine.h"

static const struct engine_class *const engines[] = {&kvm_engine, &bt_engine, &interp_engine};

const struct engine_class *machine_engine(unsigned n)
{
    return n < ARRAY_LEN(engines) ? engines[n] : NULL;
}

int machine_choose_engine(const struct engine_class **out, const char *name, struct err *e)
{
    bool any = name == NULL || strcmp(name, "auto") == 0;
    struct engine_probe probe = {0};
    for (size_t i = 0; i < ARRAY_LEN(engines); i++) {
        if (!any && strcmp(engines[i]->name, name) != 0) {
            continue;
        }
        engines[i]->probe(&probe);
        if (probe.usable) {
            log_info("engine %s: %s", engines[i]->name, probe.text);
            *out = engines[i];
            return 0;
        }
        if (!any) {
            return err_set(e, -ENODEV, "engine %s cannot run here: %s", name, probe.text);
        }
        log_info("engine %s not taken: %s", engines[i]->name, probe.text);
    }
    if (any) {
        return err_set(e, -ENODEV, "no engine can run on this host");
    }
    return err_set(e, -EINVAL, "unknown engine '%s' (auto, bt, kvm, interp)", name);
}
