/* SPDX-License-Identifier: Apache-2.0
 *
 * The state of a whole machine as one stream: processors, devices, time and, when asked, RAM.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "cpu/msr.h"
#include "machine/machine.h"
#include "machine/pc.h"
#include "machine/vtime.h"
#include "state/state.h"

#define MACHINE_STATE_VERSION 3
#define TSC_KHZ_MIN 1000u
#define TSC_KHZ_MAX 100000000u

/* What belongs to no device. */
struct machine_state {
    uint64_t ram_bytes;
    uint64_t clock_ns;
    uint64_t tsc;
    uint32_t tsc_khz;
    uint32_t cpus;
    uint32_t card[CARDS_SLOTS]; /* PCI device and vendor by slot, 0: none */
    struct vtime_turn turn;
};

static const struct state_field machine_state[] = {
    STATE(struct machine_state, ram_bytes),
    STATE(struct machine_state, clock_ns),
    STATE(struct machine_state, tsc),
    STATE(struct machine_state, tsc_khz),
    STATE(struct machine_state, cpus),
    STATE_ARRAY_SINCE(2, struct machine_state, card),
    STATE_SINCE(3, struct machine_state, turn.cpu),
    STATE_SINCE(3, struct machine_state, turn.left),
    STATE_END,
};

static void fill_cards(const struct machine *m, uint32_t card[CARDS_SLOTS])
{
    const struct cards *k = &m->pc->cards;
    for (unsigned slot = CARDS_FIRST_SLOT; slot < CARDS_SLOTS; slot++) {
        const struct pci_func *f = pci_func_at(k->pci, PCI_DEVFN(slot, 0));
        card[slot] = f != NULL ? f->id : 0;
    }
}

/* Who the guest believes that its processor is. What that one can do is the configuration's. */
#define IDENTITY_VERSION 1
static const struct state_field identity_state[] = {
    STATE_BYTES(struct cpu_model, vendor),
    STATE_BYTES(struct cpu_model, brand),
    STATE(struct cpu_model, family),
    STATE(struct cpu_model, model),
    STATE(struct cpu_model, stepping),
    STATE(struct cpu_model, phys_bits),
    STATE_END,
};

static void cpu_name(char out[24], unsigned n) { snprintf(out, 24, "cpu.%u", n); }

void machine_save_state(struct machine *m, struct state_out *o)
{
    bus_quiesce(m->bus);
    struct machine_state s = {
        .ram_bytes = gmem_ram_size(m->mem),
        .clock_ns = clock_now_ns(m->clock),
        .tsc = machine_tsc(&m->time),
        .tsc_khz = m->time.tsc_khz,
        .cpus = m->cpu_count,
    };
    fill_cards(m, s.card);
    machine_vtime_save(m, &s.turn);
    state_save(o, "machine", MACHINE_STATE_VERSION, machine_state, &s);
    for (unsigned i = 0; i < m->cpu_count; i++) {
        char name[24];
        cpu_name(name, i);
        m->engine_class->sync(m->engine, m->cpus[i], CPU_GROUP_ALL, false);
        cpu_pre_save(m->cpus[i]);
        state_save(o, name, CPU_STATE_VERSION, cpu_state, m->cpus[i]);
    }
    state_save(o, "identity", IDENTITY_VERSION, identity_state, &m->model);
    bus_save(m->bus, o);
}

int machine_save(struct machine *m, bool ram, void **data, size_t *len, struct err *e)
{
    if (!machine_paused(m)) {
        return err_set(e, -EBUSY, "the machine is running");
    }
    struct state_out *o = state_out_new();
    bus_lock(m->bus);
    machine_save_state(m, o);
    if (ram) {
        state_save_blob(o, "ram", gmem_ram_host(m->mem), gmem_ram_size(m->mem));
        if (m->pc->has_vga) {
            state_save_blob(o, "vram", vga_ram(&m->pc->vga), VGA_RAM_BYTES);
        }
    }
    bus_unlock(m->bus);
    size_t size;
    const uint8_t *bytes = state_out_data(o, &size);
    void *copy = try_alloc(1, size);
    if (copy != NULL) {
        memcpy(copy, bytes, size);
        *data = copy;
        *len = size;
    }
    state_out_free(o);
    return copy != NULL ? 0 : err_set(e, -ENOMEM, "no memory for %zu bytes of state", size);
}

static const char *describe_card(char out[24], uint32_t id)
{
    if (id != 0) {
        snprintf(out, 24, "a card %04x:%04x", id & 0xffff, id >> 16);
    } else {
        strcpy(out, "none");
    }
    return out;
}

/* Cards may have come and gone since the machines were made: each slot must hold the same. */
static int check_cards(const struct machine *m, const struct machine_state *s, struct err *e)
{
    uint32_t card[CARDS_SLOTS] = { 0 };
    char had[24], has[24];
    fill_cards(m, card);
    for (unsigned slot = CARDS_FIRST_SLOT; slot < CARDS_SLOTS; slot++) {
        if (s->card[slot] != card[slot]) {
            return err_set(e, -EINVAL,
                           "the state is of a machine with %s in PCI slot %u, this one has %s: "
                           "give it the same disks and networks",
                           describe_card(had, s->card[slot]), slot, describe_card(has, card[slot]));
        }
    }
    return 0;
}

void machine_cpu_spec(const struct machine *m, char out[MACHINE_CPU_SPEC_MAX])
{
    cpu_model_spec(&m->model, out);
}

static int check(const struct machine *m, const struct machine_state *s, struct err *e)
{
    if (s->ram_bytes != gmem_ram_size(m->mem)) {
        return err_set(e, -EINVAL, "the state is of a machine with %llu bytes of memory",
                       (unsigned long long)s->ram_bytes);
    }
    if (s->cpus != m->cpu_count) {
        return err_set(e, -EINVAL, "the state is of a machine with %u processors", s->cpus);
    }
    if (s->tsc_khz < TSC_KHZ_MIN || s->tsc_khz > TSC_KHZ_MAX) {
        return err_set(e, -EINVAL, "a time stamp counter of %u kHz", s->tsc_khz);
    }
    return check_cards(m, s, e);
}

static int load_ram(struct machine *m, struct state_in *in, struct err *e)
{
    const uint8_t *data;
    size_t len;
    int r = state_load_blob(in, "ram", &data, &len, e);
    if (r == -ENOENT) {
        return 0;
    }
    if (r == 0 && len != gmem_ram_size(m->mem)) {
        r = err_set(e, -EINVAL, "%zu bytes of RAM", len);
    }
    if (r == 0) {
        memcpy(gmem_ram_host(m->mem), data, len);
    }
    return r;
}

static int load_vram(struct machine *m, struct state_in *in, struct err *e)
{
    const uint8_t *data;
    size_t len;
    int r = m->pc->has_vga ? state_load_blob(in, "vram", &data, &len, e) : -ENOENT;
    if (r == 0 && len == VGA_RAM_BYTES) {
        memcpy(vga_ram(&m->pc->vga), data, len);
    } else if (r == 0) {
        r = err_set(e, -EINVAL, "%zu bytes of video memory", len);
    }
    return r == -ENOENT ? 0 : r;
}

/* A processor of another make has other rules at the edges, which no engine here hides. Streams
 * from before there was this section have none. */
static int load_identity(struct machine *m, struct state_in *in, struct err *e)
{
    struct cpu_model saved = m->model;
    int r = state_load(in, "identity", IDENTITY_VERSION, identity_state, &saved, sizeof saved, e);
    if (r < 0) {
        return r == -ENOENT ? 0 : r;
    }
    saved.vendor[sizeof saved.vendor - 1] = saved.brand[sizeof saved.brand - 1] = '\0';
    if (strcmp(saved.vendor, m->model.vendor) != 0) {
        return err_set(e, -ENOTSUP, "the state is of a processor by %.12s, this host's is by %s",
                       saved.vendor, m->model.vendor);
    }
    if (saved.phys_bits != m->model.phys_bits) {
        return err_set(e, -ENOTSUP, "the state is of a processor with %u address bits, not %u",
                       saved.phys_bits, m->model.phys_bits);
    }
    m->model = saved;
    return 0;
}

int machine_load_state(struct machine *m, struct state_in *in, struct err *e)
{
    struct machine_state s = { 0 };
    fill_cards(m, s.card); /* of an older stream it is not known */
    int r = state_load(in, "machine", MACHINE_STATE_VERSION, machine_state, &s, sizeof s, e);
    if (r == 0) {
        r = check(m, &s, e);
    }
    if (r == 0) {
        r = load_identity(m, in, e);
    }
    if (r < 0) {
        return r;
    }
    if (m->engine_class->set_tsc_khz != NULL) {
        r = m->engine_class->set_tsc_khz(m->engine, s.tsc_khz, e);
        if (r < 0) {
            return r;
        }
    }
    clock_set_now(m->clock, s.clock_ns);
    machine_time_set_tsc(&m->time, s.tsc);
    machine_time_set_rate(&m->time, s.tsc_khz);
    m->model.tsc_khz = s.tsc_khz;
    for (unsigned i = 0; i < m->cpu_count && r == 0; i++) {
        char name[24];
        cpu_name(name, i);
        m->engine_class->sync(m->engine, m->cpus[i], CPU_GROUP_ALL, true);
        r = state_load(in, name, CPU_STATE_VERSION, cpu_state, m->cpus[i], sizeof *m->cpus[i], e);
        if (r == 0) {
            r = cpu_post_load(m->cpus[i], e);
        }
    }
    if (r == 0) {
        r = bus_load(m->bus, in, e);
    }
    machine_smm_recount(m);
    if (r == 0) {
        r = machine_vtime_load(m, &s.turn, e); /* after the processors' counts */
    }
    return r;
}

void machine_step_time(struct machine *m, uint64_t ns)
{
    uint64_t ticks = (uint64_t)((unsigned __int128)ns * m->time.tsc_khz / 1000000u);
    machine_time_set_tsc(&m->time, machine_tsc(&m->time) + ticks);
    clock_set_now(m->clock, clock_now_ns(m->clock) + ns);
    for (unsigned i = 0; i < m->cpu_count; i++) {
        kvmclock_note_stop(m->cpus[i]);
    }
}

int machine_load(struct machine *m, const void *data, size_t len, struct err *e)
{
    if (!machine_paused(m)) {
        return err_set(e, -EBUSY, "the machine is running");
    }
    struct state_in *in;
    int r = state_in_new(&in, data, len, e);
    if (r < 0) {
        return r;
    }
    bus_lock(m->bus);
    bus_quiesce(m->bus); /* nothing of the old life comes to its end in the new one */
    r = load_ram(m, in, e);
    if (r == 0) {
        r = load_vram(m, in, e);
    }
    if (r == 0) {
        r = machine_load_state(m, in, e);
    }
    machine_memory_changed(m);
    bus_unlock(m->bus);
    state_in_free(in);
    return r;
}

void machine_memory_changed(struct machine *m)
{
    /* Whatever was decoded or translated belongs to the old RAM. */
    struct gmem_range range;
    for (gpa_t at = 0; gmem_find_next(m->mem, at, &range); at = range.gpa + range.size) {
        m->engine_class->invalidate(m->engine, range.gpa, range.size);
    }
    machine_map_changed(m);
}
