/* SPDX-License-Identifier: Apache-2.0 -- the commands of GDB's remote serial protocol */
#include "api/gdb_session.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/bits.h"
#include "cpu/mmu.h"

/* As GDB numbers signals, whatever the host does. */
#define SIGNAL_INT 2u
#define SIGNAL_TRAP 5u

/* -- Replies ----------------------------------------------------------------------------------- */

void gdb_send(struct gdb_session *s) { s->send(s->ctx, s->link.out, s->link.out_len); }

void gdb_reply(struct gdb_session *s, const char *text)
{
    gdb_out_begin(&s->link);
    gdb_out_text(&s->link, text);
    gdb_out_end(&s->link);
    gdb_send(s);
}

void gdb_reply_error(struct gdb_session *s, int error)
{
    char text[8];
    snprintf(text, sizeof text, "E%02x", (unsigned)-error & 0xff);
    gdb_reply(s, text);
}

static enum gdb_next ok(struct gdb_session *s)
{
    gdb_reply(s, "OK");
    return GDB_STAY;
}

static enum gdb_next fail(struct gdb_session *s, int error)
{
    gdb_reply_error(s, error);
    return GDB_STAY;
}

static struct cpu *cpu_of(struct gdb_session *s) { return s->machine->cpus[s->cpu]; }

/* -- Why it stands ----------------------------------------------------------------------------- */

static void reason(const struct gdb_session *s, char *out, size_t size)
{
    const char *name = NULL;
    gva_t va = s->last.va;
    out[0] = '\0';
    switch (s->last.why) {
    case CPU_STOP_BREAK:
        /* GDB takes back a byte of the instruction pointer unless it is told this. */
        if (s->soft_break_known && gdb_points_has(s, va, GDB_SOFT_BREAK)) {
            snprintf(out, size, "swbreak:;");
        } else if (s->hard_break_known && gdb_points_has(s, va, GDB_HARD_BREAK)) {
            snprintf(out, size, "hwbreak:;");
        }
        return;
    case CPU_STOP_WRITE:
        name = "watch";
        break;
    case CPU_STOP_READ:
        name = "rwatch";
        break;
    case CPU_STOP_ACCESS:
        name = "awatch";
        break;
    default:
        return;
    }
    snprintf(out, size, "%s:%llx;", name, (unsigned long long)va);
}

static enum gdb_next say_why(struct gdb_session *s, const char *p)
{
    (void)p;
    char text[64], why[32];
    reason(s, why, sizeof why);
    snprintf(text, sizeof text, "T%02xthread:%x;%s", s->last_signal, s->last.cpu + 1, why);
    gdb_reply(s, text);
    return GDB_STAY;
}

void gdb_session_stopped(struct gdb_session *s, const struct machine_stop *stop)
{
    s->stands = true;
    s->last = stop != NULL ? *stop : (struct machine_stop){ .cpu = s->go_cpu };
    s->last_signal = stop != NULL ? SIGNAL_TRAP : SIGNAL_INT;
    s->cpu = s->go_cpu = s->last.cpu;
    say_why(s, "");
}

void gdb_session_ended(struct gdb_session *s, int status)
{
    char text[8];
    snprintf(text, sizeof text, "W%02x", (unsigned)status & 0xff);
    gdb_reply(s, text);
}

/* -- Registers --------------------------------------------------------------------------------- */

static enum gdb_next read_registers(struct gdb_session *s, const char *p)
{
    (void)p;
    gdb_out_begin(&s->link);
    for (unsigned n = 0; n < s->regs.count; n++) {
        uint8_t value[GDB_REG_BYTES_MAX];
        gdb_reg_read(&s->regs, n, cpu_of(s), value);
        gdb_out_hex(&s->link, value, s->regs.reg[n].bits / 8);
    }
    gdb_out_end(&s->link);
    gdb_send(s);
    return GDB_STAY;
}

/* GDB sends all to change one: what cannot be changed keeps its value. */
static enum gdb_next write_registers(struct gdb_session *s, const char *p)
{
    for (unsigned n = 0; n < s->regs.count && *p != '\0'; n++) {
        uint8_t value[GDB_REG_BYTES_MAX] = { 0 };
        if (!gdb_take_hex(&p, value, s->regs.reg[n].bits / 8)) {
            return fail(s, -EINVAL);
        }
        (void)gdb_reg_write(&s->regs, n, cpu_of(s), value);
    }
    return ok(s);
}

static enum gdb_next read_register(struct gdb_session *s, const char *p)
{
    uint64_t n;
    uint8_t value[GDB_REG_BYTES_MAX];
    if (!gdb_take_number(&p, &n) || n >= s->regs.count) {
        return fail(s, -EINVAL);
    }
    gdb_reg_read(&s->regs, (unsigned)n, cpu_of(s), value);
    gdb_out_begin(&s->link);
    gdb_out_hex(&s->link, value, s->regs.reg[n].bits / 8);
    gdb_out_end(&s->link);
    gdb_send(s);
    return GDB_STAY;
}

static enum gdb_next write_register(struct gdb_session *s, const char *p)
{
    uint64_t n;
    uint8_t value[GDB_REG_BYTES_MAX] = { 0 };
    if (!gdb_take_number(&p, &n) || !gdb_take(&p, "=") || n >= s->regs.count ||
        !gdb_take_hex(&p, value, s->regs.reg[n].bits / 8)) {
        return fail(s, -EINVAL);
    }
    return gdb_reg_write(&s->regs, (unsigned)n, cpu_of(s), value) ? ok(s) : fail(s, -EPERM);
}

/* -- Memory ------------------------------------------------------------------------------------ */

static bool translate(struct gdb_session *s, gva_t va, gpa_t *gpa)
{
    struct cpu *cpu = cpu_of(s);
    *gpa = va;
    if (s->physical) {
        return true;
    }
    if (!cpu_long_mode(cpu)) {
        va = (uint32_t)va;
    }
    return (!cpu_long_mode(cpu) || mmu_canonical(cpu, va)) && mmu_peek(cpu, va, gpa) == 0;
}

/* RAM and ROM; devices are left alone, whose registers change when they are read. Returns how many
 * bytes, from the first on, could be had. */
static size_t transfer(struct gdb_session *s, gva_t va, uint8_t *buf, size_t len, bool write)
{
    size_t done = 0;
    while (done < len) {
        gpa_t gpa;
        size_t in_page = GMEM_PAGE_SIZE - (size_t)((va + done) % GMEM_PAGE_SIZE);
        size_t n = len - done < in_page ? len - done : in_page;
        if (!translate(s, va + done, &gpa) ||
            (write ? gmem_write(s->machine->mem, gpa, buf + done, n)
                   : gmem_read(s->machine->mem, gpa, buf + done, n)) < 0) {
            break;
        }
        done += n;
    }
    return done;
}

/* ADDRESS,LENGTH */
static bool take_range(const char **p, gva_t *va, size_t *len)
{
    uint64_t n;
    if (!gdb_take_number(p, va) || !gdb_take(p, ",") || !gdb_take_number(p, &n) ||
        n > GDB_PACKET_MAX / 2) {
        return false;
    }
    *len = (size_t)n;
    return true;
}

static enum gdb_next read_memory(struct gdb_session *s, const char *p)
{
    static _Thread_local uint8_t buf[GDB_PACKET_MAX / 2];
    gva_t va;
    size_t len;
    if (!take_range(&p, &va, &len)) {
        return fail(s, -EINVAL);
    }
    size_t n = transfer(s, va, buf, len, false);
    if (n == 0 && len != 0) {
        return fail(s, -EFAULT);
    }
    gdb_out_begin(&s->link);
    gdb_out_hex(&s->link, buf, n);
    gdb_out_end(&s->link);
    gdb_send(s);
    return GDB_STAY;
}

static enum gdb_next write_bytes(struct gdb_session *s, gva_t va, uint8_t *buf, size_t len)
{
    return transfer(s, va, buf, len, true) == len ? ok(s) : fail(s, -EFAULT);
}

static enum gdb_next write_memory(struct gdb_session *s, const char *p)
{
    static _Thread_local uint8_t buf[GDB_PACKET_MAX / 2];
    gva_t va;
    size_t len;
    if (!take_range(&p, &va, &len) || !gdb_take(&p, ":") || !gdb_take_hex(&p, buf, len)) {
        return fail(s, -EINVAL);
    }
    return write_bytes(s, va, buf, len);
}

/* The data are as they are, zeroes included. */
static enum gdb_next write_memory_binary(struct gdb_session *s, const char *p)
{
    gva_t va;
    size_t len;
    if (!take_range(&p, &va, &len) || !gdb_take(&p, ":")) {
        return fail(s, -EINVAL);
    }
    uint8_t *data = (uint8_t *)(uintptr_t)p;
    if ((size_t)(s->link.in + s->link.len - data) != len) {
        return fail(s, -EINVAL);
    }
    return write_bytes(s, va, data, len);
}

/* -- Breakpoints and watchpoints --------------------------------------------------------------- */

/* KIND,ADDRESS,LENGTH, and conditions that we do not take. */
static bool take_point(const char *p, struct gdb_point *out)
{
    uint64_t kind, va, len;
    if (!gdb_take_number(&p, &kind) || !gdb_take(&p, ",") || !gdb_take_number(&p, &va) ||
        !gdb_take(&p, ",") || !gdb_take_number(&p, &len) || *p != '\0' || kind > GDB_ACCESS) {
        return false;
    }
    bool is_break = kind <= GDB_HARD_BREAK;
    if (!is_break && (len == 0 || len > UINT64_MAX - va)) {
        return false;
    }
    /* Of a breakpoint the length says how long the instruction is that would be written. */
    *out = (struct gdb_point){ va, is_break ? 0 : len, (enum gdb_point_kind)kind };
    return true;
}

static enum gdb_next insert_point(struct gdb_session *s, const char *p)
{
    struct gdb_point point;
    if (!take_point(p, &point)) {
        return fail(s, -EINVAL);
    }
    int r = gdb_points_add(s, &point);
    return r < 0 ? fail(s, r) : ok(s);
}

static enum gdb_next remove_point(struct gdb_session *s, const char *p)
{
    struct gdb_point point;
    if (!take_point(p, &point)) {
        return fail(s, -EINVAL);
    }
    gdb_points_remove(s, &point);
    return ok(s);
}

/* -- Threads and going on ---------------------------------------------------------------------- */

/* 0 is any, -1 all: then *all. False: there is no such processor. */
static bool take_thread(const struct gdb_session *s, const char **p, unsigned *cpu, bool *all)
{
    uint64_t id;
    *all = gdb_take(p, "-1");
    if (*all) {
        return true;
    }
    if (!gdb_take_number(p, &id) || id > s->machine->cpu_count) {
        return false;
    }
    *all = id == 0;
    *cpu = *all ? 0 : (unsigned)id - 1;
    return true;
}

static enum gdb_next set_thread(struct gdb_session *s, const char *p)
{
    bool for_go = *p == 'c';
    unsigned cpu;
    bool all;
    if (!for_go && *p != 'g') {
        return fail(s, -EINVAL);
    }
    p++;
    if (!take_thread(s, &p, &cpu, &all)) {
        return fail(s, -ESRCH);
    }
    if (all) {
        cpu = s->last.cpu;
    }
    if (for_go) {
        s->go_cpu = cpu;
    } else {
        s->cpu = cpu;
    }
    return ok(s);
}

static enum gdb_next thread_alive(struct gdb_session *s, const char *p)
{
    unsigned cpu;
    bool all;
    return take_thread(s, &p, &cpu, &all) ? ok(s) : fail(s, -ESRCH);
}

/* s->how is filled in. A step alone needs no new breakpoints, and mostly goes over one that was
 * taken out for it. */
static enum gdb_next go(struct gdb_session *s)
{
    bool some_run = false;
    for (unsigned i = 0; i < s->machine->cpu_count; i++) {
        some_run |= s->how[i] == MACHINE_GO_RUN;
    }
    if (s->watches_changed || (s->breaks_changed && some_run)) {
        gdb_points_commit(s);
    }
    s->stands = false;
    return GDB_GO;
}

/* `c` and `s` of old: the address to go on from may follow. C and S have a signal, which processors
 * do not know. */
static enum gdb_next go_plainly(struct gdb_session *s, const char *p, bool step)
{
    if (*p != '\0') {
        return fail(s, -EINVAL); /* GDB sets the register instead */
    }
    for (unsigned i = 0; i < s->machine->cpu_count; i++) {
        s->how[i] = step ? MACHINE_GO_STAND : MACHINE_GO_RUN;
    }
    if (step) {
        s->how[s->go_cpu] = MACHINE_GO_STEP;
    }
    return go(s);
}

static enum gdb_next run_on(struct gdb_session *s, const char *p)
{
    return go_plainly(s, p, false);
}

static enum gdb_next step(struct gdb_session *s, const char *p) { return go_plainly(s, p, true); }

static enum gdb_next can_continue(struct gdb_session *s, const char *p)
{
    (void)p;
    gdb_reply(s, "vCont;c;C;s;S");
    return GDB_STAY;
}

/* ACTION[:THREAD];... : of those that fit a processor the first counts. */
static enum gdb_next vcont(struct gdb_session *s, const char *p)
{
    bool done[MACHINE_MAX_CPUS] = { false };
    bool some = false;
    for (unsigned i = 0; i < s->machine->cpu_count; i++) {
        s->how[i] = MACHINE_GO_STAND;
    }
    do {
        char action = *p != '\0' ? *p++ : '\0';
        uint64_t signal;
        bool with_signal = action == 'C' || action == 'S';
        bool all = true;
        unsigned cpu = 0;
        if ((action != 'c' && action != 's' && !with_signal) ||
            (with_signal && !gdb_take_number(&p, &signal)) ||
            (gdb_take(&p, ":") && !take_thread(s, &p, &cpu, &all))) {
            return fail(s, -EINVAL);
        }
        for (unsigned i = 0; i < s->machine->cpu_count; i++) {
            if (!done[i] && (all || i == cpu)) {
                bool steps = action == 's' || action == 'S';
                s->how[i] = steps ? MACHINE_GO_STEP : MACHINE_GO_RUN;
                done[i] = some = true;
            }
        }
    } while (gdb_take(&p, ";"));
    return *p == '\0' && some ? go(s) : fail(s, -EINVAL);
}

static enum gdb_next detach(struct gdb_session *s, const char *p)
{
    (void)p;
    gdb_reply(s, "OK");
    return GDB_DETACH;
}

static enum gdb_next kill_politely(struct gdb_session *s, const char *p)
{
    (void)p;
    gdb_reply(s, "OK");
    return GDB_KILL;
}

static enum gdb_next kill_machine(struct gdb_session *s, const char *p)
{
    (void)s;
    (void)p;
    return GDB_KILL;
}

static enum gdb_next query(struct gdb_session *s, const char *p)
{
    if (!gdb_query(s, p - 1)) {
        gdb_reply(s, "");
    }
    return GDB_STAY;
}

/* -- Packets ----------------------------------------------------------------------------------- */

static enum gdb_next command(struct gdb_session *s)
{
    static const struct {
        const char *name;
        enum gdb_next (*fn)(struct gdb_session *s, const char *p); /* p: what follows the name */
    } commands[] = {
        { "?", say_why },
        { "g", read_registers },
        { "G", write_registers },
        { "p", read_register },
        { "P", write_register },
        { "m", read_memory },
        { "M", write_memory },
        { "X", write_memory_binary },
        { "Z", insert_point },
        { "z", remove_point },
        { "H", set_thread },
        { "T", thread_alive },
        { "c", run_on },
        { "s", step },
        { "vCont?", can_continue },
        { "vCont;", vcont },
        { "vKill", kill_politely },
        { "k", kill_machine },
        { "D", detach },
        { "q", query },
        { "Q", query },
    };
    const char *packet = (const char *)s->link.in;
    for (size_t i = 0; i < ARRAY_LEN(commands); i++) {
        const char *rest = packet;
        if (gdb_take(&rest, commands[i].name)) {
            return commands[i].fn(s, rest);
        }
    }
    gdb_reply(s, ""); /* not known here */
    return GDB_STAY;
}

enum gdb_next gdb_session_byte(struct gdb_session *s, uint8_t byte)
{
    switch (gdb_link_byte(&s->link, byte)) {
    case GDB_GOT_PACKET:
        if (!s->no_ack) {
            s->send(s->ctx, "+", 1);
        }
        return s->stands ? command(s) : GDB_STAY;
    case GDB_GOT_DAMAGED:
        if (!s->no_ack) {
            s->send(s->ctx, "-", 1);
        }
        return GDB_STAY;
    case GDB_GOT_NAK:
        gdb_send(s);
        return GDB_STAY;
    case GDB_GOT_BREAK:
        return s->stands ? GDB_STAY : GDB_STOP;
    case GDB_GOT_STRANGE:
        return GDB_CLOSE;
    default:
        return GDB_STAY;
    }
}

struct gdb_session *gdb_session_new(struct machine *m, enum gdb_arch arch,
                                    void (*send)(void *ctx, const char *data, size_t len),
                                    void *ctx)
{
    struct gdb_session *s = xzalloc(sizeof *s);
    s->machine = m;
    s->send = send;
    s->ctx = ctx;
    s->stands = true;
    s->last_signal = SIGNAL_TRAP;
    gdb_regs_init(&s->regs, m->cpus[0], arch);
    return s;
}

void gdb_session_free(struct gdb_session *s)
{
    if (s != NULL) {
        free(s->point);
        free(s);
    }
}
