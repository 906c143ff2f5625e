/* SPDX-License-Identifier: Apache-2.0
 *
 * Making and freeing a machine.
 */
#include "machine/machine.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/log.h"
#include "display/vnc.h"
#include "machine/debug.h"
#include "machine/pc.h"
#include "machine/vmconfig.h"
#include "machine/vtime.h"

/* Virtual time: the same run every time. Engines that can have no limits of their own. */
static void without_chance(struct cpu_features *f)
{
    cpu_features_clear(f, CPU_FEATURE_RDRAND);
    cpu_features_clear(f, CPU_FEATURE_RDSEED);
}

static int make_cpus(struct machine *m, const struct machine_config *c, struct err *e)
{
    int r = cpu_model_parse(&m->model, c->cpu_model != NULL ? c->cpu_model : "", c->cpus,
                            m->time.tsc_khz,
                            m->virtual_time ? without_chance : m->engine_class->limit, e);
    if (r < 0) {
        return r;
    }
    m->cpus = xcalloc(c->cpus, sizeof(struct cpu *));
    m->vcpus = xcalloc(c->cpus, sizeof *m->vcpus);
    for (unsigned i = 0; i < c->cpus; i++) {
        struct cpu *cpu = NULL;
        if (posix_memalign((void **)&cpu, _Alignof(struct cpu), sizeof *cpu) != 0) {
            return err_set(e, -ENOMEM, "no memory for %u processors", c->cpus);
        }
        r = cpu_init(cpu, i, &m->model, &m->world, m->mem, e);
        if (r < 0) {
            free(cpu);
            return r;
        }
        m->cpus[i] = cpu;
        m->vcpus[i].machine = m;
        m->vcpus[i].cpu = cpu;
        m->cpu_count = i + 1;
    }
    return 0;
}

static int make_engine(struct machine *m, const struct machine_config *c, struct err *e)
{
    const struct engine_config config = {
        .mem = m->mem,
        .cpus = m->cpus,
        .cpu_count = m->cpu_count,
        .virtual_time = m->virtual_time,
        .irqchip = m->irqchip,
        .code_cache_bytes = c->code_cache_bytes,
        .dump_path = c->dump_code,
        .dump_first = c->dump_first,
        .dump_last = c->dump_last,
        .perf_map = c->perf_map,
    };
    int r = m->engine_class->create(&m->engine, &config, e);
    if (r < 0) {
        return err_prefix(e, r, "engine %s", m->engine_class->name);
    }
    for (unsigned i = 0; i < m->cpu_count; i++) {
        m->cpus[i]->wake_ctx = &m->vcpus[i];
        m->cpus[i]->wake = machine_wake;
    }
    gmem_set_code_hook(m->mem, machine_code_written, m);
    gmem_set_map_hook(m->mem, machine_map_changed, m);
    return 0;
}

static int build(struct machine *m, const struct machine_config *c, struct err *e)
{
    int r = machine_config_check(c, e);
    if (r == 0) {
        r = machine_choose_engine(&m->engine_class, &m->irqchip, c->engine, e);
    }
    if (r == 0) {
        r = machine_open_boot_files(m, c, e);
        if (r < 0 && c->restoring) {
            log_info("%s; a reset will find nothing to boot", e->msg);
            machine_close_boot_files(m);
            r = 0;
        }
    }
    if (r == 0) {
        r = gmem_new(&m->mem, c->memory_bytes, MACHINE_PCI_HOLE, e);
    }
    if (r < 0) {
        return r;
    }
    m->bus = bus_new(m->mem);
    m->clock = c->virtual_time ? machine_vtime_clock(m) : clock_new(NULL, NULL);
    clock_pause(m->clock);
    machine_time_init(&m->time, m->clock, c->virtual_time);
    machine_fill_world(m);
    r = loop_new(&m->loop, c->virtual_time ? NULL : m->clock, bus_lock_of(m->bus));
    if (r < 0) {
        return err_set(e, r, "no event loop: %s", strerror(-r));
    }
    r = make_cpus(m, c, e);
    if (r < 0) {
        return r;
    }
    m->pc = xzalloc(sizeof *m->pc);
    bus_lock(m->bus);
    r = pc_init(m->pc, m, c, e);
    bus_unlock(m->bus);
    if (r == 0) {
        r = make_engine(m, c, e); /* it may ask processors' local APICs */
    }
    if (r == 0 && m->virtual_time) {
        machine_vtime_start(m);
    }
    if (r < 0) {
        return r;
    }
    bus_lock(m->bus);
    bus_reset(m->bus);
    r = c->restoring ? 0 : machine_boot(m, e);
    bus_unlock(m->bus);
    if (r == 0) {
        r = machine_threads_start(m, e);
    }
    if (r == 0 && c->display.kind == DISPLAY_VNC) {
        r = machine_start_vnc(m, &c->display, e);
    }
    return r;
}

int machine_new(struct machine **out, const struct machine_config *c, struct err *e)
{
    struct machine *m = xzalloc(sizeof *m);
    m->callbacks = c->callbacks;
    m->no_reboot = c->no_reboot;
    m->virtual_time = c->virtual_time;
    m->kernel.fd = -1;
    pthread_mutex_init(&m->control, NULL);
    pthread_mutex_init(&m->run_lock, NULL);
    pthread_cond_init(&m->run_changed, NULL);
    pthread_mutex_init(&m->listen_lock, NULL);
    m->hold_bits = HOLD_PAUSE | (c->incoming ? (uint32_t)HOLD_ELSEWHERE : 0);
    atomic_store(&m->hold, m->hold_bits);
    int r = build(m, c, e);
    if (r < 0) {
        machine_free(m);
        return r;
    }
    *out = m;
    return 0;
}

void machine_free(struct machine *m)
{
    if (m == NULL) {
        return;
    }
    vnc_free(m->vnc);
    machine_threads_stop(m);
    machine_debug_detach(m);
    if (m->mem != NULL) {
        gmem_set_code_hook(m->mem, NULL, NULL);
        gmem_set_map_hook(m->mem, NULL, NULL);
    }
    if (m->pc != NULL) {
        bus_lock(m->bus);
        pc_fini(m->pc);
        bus_unlock(m->bus);
        free(m->pc);
    }
    if (m->engine != NULL) {
        m->engine_class->destroy(m->engine);
    }
    for (unsigned i = 0; i < m->cpu_count; i++) {
        cpu_fini(m->cpus[i]);
        free(m->cpus[i]);
    }
    free(m->cpus);
    free(m->vcpus);
    vmconfig_free(m->config);
    if (m->loop != NULL) {
        loop_free(m->loop);
    }
    if (m->clock != NULL) {
        clock_free(m->clock);
    }
    if (m->bus != NULL) {
        bus_free(m->bus);
    }
    if (m->mem != NULL) {
        gmem_free(m->mem);
    }
    machine_close_boot_files(m);
    pthread_mutex_destroy(&m->control);
    pthread_mutex_destroy(&m->run_lock);
    pthread_cond_destroy(&m->run_changed);
    pthread_mutex_destroy(&m->listen_lock);
    free(m);
}
