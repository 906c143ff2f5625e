/* SPDX-License-Identifier: Apache-2.0
 *
 * Ports: IN OUT INS OUTS, and who may (SDM 1 18.5). */
#include "cpu/debug.h"
#include "cpu/eflags.h"
#include "cpu/opnd.h"
#include "cpu/seg.h"
#include "cpu/sem_decls.h"

#define TSS_IO_MAP 0x66u
#define CHUNK_ELEMENTS 1024u

/* The TSS' bit map is asked beyond IOPL, and always in virtual-8086 mode. Two bytes of it are
 * read, so that one beyond the last must exist. */
static void check_io(struct cpu *cpu, uint16_t port, unsigned size)
{
    if (!cpu_protected(cpu) || (!cpu_v86(cpu) && cpu->cpl <= eflags_iopl(cpu))) {
        return;
    }
    if (!(seg_type(&cpu->tr) & 8) || cpu->tr.limit < TSS_IO_MAP + 1) {
        cpu_raise_error(cpu, EXC_GP, 0);
    }
    uint64_t map = cpu_sys_read(cpu, cpu->tr.base + TSS_IO_MAP, 2);
    uint64_t at = map + port / 8;
    if (at + 1 > cpu->tr.limit) {
        cpu_raise_error(cpu, EXC_GP, 0);
    }
    uint64_t bits = cpu_sys_read(cpu, cpu->tr.base + at, 2) >> (port % 8);
    if (bits & MASK64(size)) {
        cpu_raise_error(cpu, EXC_GP, 0);
    }
}

static uint32_t port_in(struct cpu *cpu, uint16_t port, unsigned size)
{
    uint32_t v = cpu->world->port_in(cpu->world->ctx, cpu, port, size);
    cpu_watch_port(cpu, port, size);
    return v;
}

static void port_out(struct cpu *cpu, uint16_t port, unsigned size, uint32_t v)
{
    cpu->world->port_out(cpu->world->ctx, cpu, port, size, v);
    cpu_watch_port(cpu, port, size);
}

static uint16_t port_of(const struct cpu *cpu, const struct insn *in, unsigned i)
{
    return in->opnd[i].kind == OPND_IMM ? (uint8_t)in->imm : (uint16_t)cpu->gpr[R_DX];
}

void sem_in(struct cpu *cpu, const struct insn *in)
{
    unsigned size = in->opnd[0].size;
    uint16_t port = port_of(cpu, in, 1);
    check_io(cpu, port, size);
    gpr_write(cpu, R_AX, size, port_in(cpu, port, size));
}

void sem_out(struct cpu *cpu, const struct insn *in)
{
    unsigned size = in->opnd[1].size;
    uint16_t port = port_of(cpu, in, 0);
    check_io(cpu, port, size);
    port_out(cpu, port, size, (uint32_t)gpr_read(cpu, R_AX, size));
}

/* -- Strings
 * ------------------------------------------------------------------------------------------------
 */
enum direction { FROM_PORT, TO_PORT };

static void one(struct cpu *cpu, const struct insn *in, unsigned size, enum direction dir)
{
    uint16_t port = (uint16_t)cpu->gpr[R_DX];
    unsigned reg = dir == FROM_PORT ? R_DI : R_SI;
    uint64_t off = gpr_read(cpu, reg, in->adsize);
    if (dir == FROM_PORT) {
        cpu_probe_write(cpu, SEG_ES, off, size); /* a device must not be read in vain */
        cpu_write(cpu, SEG_ES, off, size, port_in(cpu, port, size));
    } else {
        port_out(cpu, port, size, (uint32_t)cpu_read(cpu, in->mem.seg, off, size));
    }
    uint64_t step = cpu->rflags & FLAG_DF ? 0ull - size : size;
    gpr_write(cpu, reg, in->adsize, off + step);
}

static void string(struct cpu *cpu, const struct insn *in, unsigned size, enum direction dir)
{
    check_io(cpu, (uint16_t)cpu->gpr[R_DX], size);
    if (!(in->flags & (INSN_REP | INSN_REPNE))) {
        one(cpu, in, size, dir);
        return;
    }
    uint64_t count = gpr_read(cpu, R_CX, in->adsize);
    for (unsigned done = 0; count != 0; done++) {
        if (done == CHUNK_ELEMENTS || (done != 0 && access_must_poll(cpu))) {
            cpu->rip = cpu->insn_ip;
            cpu->rflags |= FLAG_RF; /* between iterations (SDM 3 17.3.1.1) */
            return;
        }
        one(cpu, in, size, dir);
        gpr_write(cpu, R_CX, in->adsize, --count);
    }
    cpu->rflags &= ~FLAG_RF;
}

void sem_ins(struct cpu *cpu, const struct insn *in)
{
    string(cpu, in, in->opnd[0].size, FROM_PORT);
}
void sem_outs(struct cpu *cpu, const struct insn *in)
{
    string(cpu, in, in->opnd[1].size, TO_PORT);
}
