/* SPDX-License-Identifier: Apache-2.0
 *
 * What is said of a processor on which the kernel gave up, and the engine's counters.
 */
#include <inttypes.h>
#include <stdio.h>

#include "base/log.h"
#include "cpu/access.h"
#include "cpu/step.h"
#include "engine/kvm/kvm.h"

/* Code at rip as far as it can be fetched, as text. */
static void code_text(struct cpu *cpu, char *text, size_t size)
{
    uint8_t bytes[INSN_MAX_LEN];
    struct insn in;
    if (setjmp(cpu->unwind) != 0) {
        cpu->exc_pending = false; /* a look, no access of the guest's */
        snprintf(text, size, "cannot be read");
        return;
    }
    unsigned n = cpu_fetch(cpu, cpu_begin_instruction(cpu), bytes, sizeof bytes);
    size_t at = 0;
    for (unsigned i = 0; i < n && at < size; i++) {
        at += (size_t)snprintf(text + at, size - at, "%02x ", bytes[i]);
    }
    if (at < size &&
        insn_decode(&in, bytes, n, (enum insn_mode)cpu->mode, &cpu->features) == INSN_OK) {
        insn_format(text + at, size - at, &in, cpu->rip);
    }
}

void kvm_dump(struct kvm_vcpu *v)
{
    static const char *const gpr[16] = { "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                                         "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15" };
    static const char *const seg[SEG_COUNT] = { "es", "cs", "ss", "ds", "fs", "gs" };
    struct cpu *cpu = v->cpu;
    char code[256] = "";
    if (kvm_pull(v) < 0) {
        return; /* logged */
    }
    for (unsigned i = 0; i < 16; i += 4) {
        const uint64_t *g = &cpu->gpr[i];
        log_err("kvm: cpu %u: %s %016" PRIx64 "  %s %016" PRIx64 "  %s %016" PRIx64
                "  %s %016" PRIx64,
                cpu->index, gpr[i], g[0], gpr[i + 1], g[1], gpr[i + 2], g[2], gpr[i + 3], g[3]);
    }
    log_err("kvm: cpu %u: rip %016" PRIx64 "  rflags %08" PRIx64 "  cr0 %08" PRIx64
            "  cr2 %016" PRIx64 "  cr3 %016" PRIx64 "  cr4 %08" PRIx64 "  efer %04" PRIx64,
            cpu->index, cpu->rip, cpu->rflags, cpu->cr0, cpu->cr2, cpu->cr3, cpu->cr4, cpu->efer);
    for (unsigned i = 0; i < SEG_COUNT; i++) {
        log_err("kvm: cpu %u: %s %04x  base %016" PRIx64 "  limit %08x  attributes %05x",
                cpu->index, seg[i], cpu->seg[i].sel, cpu->seg[i].base, cpu->seg[i].limit,
                cpu->seg[i].attr);
    }
    code_text(cpu, code, sizeof code);
    log_err("kvm: cpu %u: code at rip: %s", cpu->index, code);
}

/* -- Counters ---------------------------------------------------------------------------------- */

struct text {
    char *buf;
    size_t size;
    size_t len; /* of what there would be, had buf room */
};

static void line(struct text *t, const char *name, uint64_t value)
{
    bool room = t->len < t->size;
    int n = snprintf(room ? t->buf + t->len : NULL, room ? t->size - t->len : 0,
                     "kvm.%s %" PRIu64 "\n", name, value);
    t->len += n > 0 ? (size_t)n : 0;
}

size_t kvm_engine_stats(struct engine *en, char *buf, size_t size)
{
    const struct kvm *kvm = (const struct kvm *)en;
    struct text t = { .buf = buf, .size = size };
    struct kvm_stats sum = { 0 };
    for (unsigned i = 0; i < kvm->config.cpu_count; i++) {
        const struct kvm_stats *s = &kvm->vcpus[i].stats;
        for (unsigned n = 0; n < KVM_EXIT_REASONS; n++) {
            sum.exits[n] += s->exits[n];
        }
        sum.other_exits += s->other_exits;
        sum.entries += s->entries;
        sum.kicks += s->kicks;
        sum.interrupts += s->interrupts;
        sum.nmis += s->nmis;
        sum.pulls += s->pulls;
        sum.pushes += s->pushes;
        sum.software += s->software;
        sum.unemulated += s->unemulated;
        sum.slot_updates += s->slot_updates;
    }
    line(&t, "entries", sum.entries);
    for (unsigned n = 0; n < KVM_EXIT_REASONS; n++) {
        if (sum.exits[n] != 0) {
            char name[32];
            const char *known = kvm_exit_name(n);
            snprintf(name, sizeof name, "exit.%s", known != NULL ? known : "not_known");
            line(&t, name, sum.exits[n]);
        }
    }
    line(&t, "exit.beyond", sum.other_exits);
    line(&t, "kicks", sum.kicks);
    line(&t, "interrupts", sum.interrupts);
    line(&t, "nmis", sum.nmis);
    line(&t, "state_to_kernel", sum.pushes);
    line(&t, "state_from_kernel", sum.pulls);
    line(&t, "unemulated", sum.unemulated);
    line(&t, "software_instructions", sum.software);
    line(&t, "slot_updates", sum.slot_updates);
    return t.len;
}
