/* SPDX-License-Identifier: Apache-2.0
 *
 * The engines that are built in, best first.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/bits.h"
#include "base/log.h"
#include "machine/machine.h"

static const struct engine_class *const engines[] = {&kvm_engine, &bt_engine, &interp_engine};

const struct engine_class *machine_engine(unsigned n)
{
    return n < ARRAY_LEN(engines) ? engines[n] : NULL;
}

/* Rounds of a two-instruction loop in a second. Emulation of every instruction does not come near,
 * hardware does many times as much. */
#define AUTO_LEAST_ROUNDS 50e6

bool machine_describe_engine(const struct engine_class *cls, char *text, size_t size)
{
    struct engine_probe probe = { 0 };
    struct err e = { 0 };
    double rounds = 0;
    cls->probe(&probe);
    if (!probe.usable) {
        snprintf(text, size, "%s", probe.text);
        return false;
    }
    if (machine_try_engine(cls, &rounds, &e) < 0) {
        snprintf(text, size, "%s; but a trial fails: %s", probe.text, e.msg);
        return false;
    }
    snprintf(text, size, "%s; %.*f million rounds of a loop a second", probe.text,
             rounds < 10e6 ? 2 : 0, rounds / 1e6);
    return true;
}

/* Is it one that `auto` takes? why: what it is, or lacks. */
static bool good_for_auto(const struct engine_class *cls, const struct engine_probe *probe,
                          struct err *why)
{
    double rounds = 0;
    snprintf(why->msg, sizeof why->msg, "%s", probe->text);
    if (!probe->usable || probe->slow) {
        return false;
    }
    if (!probe->unsure) {
        return true;
    }
    if (machine_try_engine(cls, &rounds, why) < 0) {
        return false;
    }
    snprintf(why->msg, sizeof why->msg, "%s; %.2f million rounds of a loop a second", probe->text,
             rounds / 1e6);
    return rounds >= AUTO_LEAST_ROUNDS;
}

static int choose_best(const struct engine_class **out, struct err *e)
{
    for (size_t i = 0; i < ARRAY_LEN(engines); i++) {
        struct engine_probe probe = { 0 };
        struct err why;
        engines[i]->probe(&probe);
        if (good_for_auto(engines[i], &probe, &why)) {
            log_info("engine %s: %s", engines[i]->name, why.msg);
            *out = engines[i];
            return 0;
        }
        log_info("engine %s not taken: %s", engines[i]->name, why.msg);
    }
    return err_set(e, -ENODEV, "no engine can run on this host");
}

/* "NAME" or "NAME,irqchip=..." */
static int parse_options(const char *name, size_t *len, enum engine_irqchip *irqchip, struct err *e)
{
    static const struct {
        const char *text;
        enum engine_irqchip kind;
    } kinds[] = { { "none", ENGINE_IRQCHIP_NONE },
                  { "split", ENGINE_IRQCHIP_SPLIT },
                  { "full", ENGINE_IRQCHIP_FULL } };
    static const char option[] = ",irqchip=";
    const char *rest = name + strcspn(name, ",");
    *len = (size_t)(rest - name);
    *irqchip = ENGINE_IRQCHIP_AUTO;
    if (*rest == '\0') {
        return 0;
    }
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
        if (strncmp(rest, option, strlen(option)) == 0 &&
            strcmp(rest + strlen(option), kinds[i].text) == 0) {
            *irqchip = kinds[i].kind;
            return 0;
        }
    }
    return err_set(e, -EINVAL, "engine '%s': its option is irqchip=none, split or full", name);
}

int machine_choose_engine(const struct engine_class **out, enum engine_irqchip *irqchip,
                          const char *name, struct err *e)
{
    size_t len;
    int r = parse_options(name != NULL ? name : "auto", &len, irqchip, e);
    if (r < 0) {
        return r;
    }
    if (name == NULL || strcmp(name, "auto") == 0) {
        return choose_best(out, e);
    }
    for (size_t i = 0; i < ARRAY_LEN(engines); i++) {
        struct engine_probe probe = { 0 };
        if (strlen(engines[i]->name) != len || strncmp(engines[i]->name, name, len) != 0) {
            continue;
        }
        if (*irqchip >= ENGINE_IRQCHIP_SPLIT && engines[i]->chips == NULL) {
            return err_set(e, -EINVAL, "engine %s has no interrupt controllers of its own",
                           engines[i]->name);
        }
        engines[i]->probe(&probe);
        if (!probe.usable) {
            return err_set(e, -ENODEV, "engine %s cannot run here: %s", engines[i]->name,
                           probe.text);
        }
        log_info("engine %s: %s", engines[i]->name, probe.text);
        *out = engines[i];
        return 0;
    }
    return err_set(e, -EINVAL, "unknown engine '%s' (auto, bt, kvm, interp)", name);
}
