/* SPDX-License-Identifier: Apache-2.0
 *
 * Decimal adjustments, not valid in 64-bit mode, so the host cannot do them for us: SDM 2's own
 * pseudocode; flags that it leaves undefined as the vendor's processors give them. */
#include "cpu/opnd.h"
#include "cpu/sem_decls.h"

static void set_result_flags(struct cpu *cpu, uint8_t al, uint64_t others)
{
    uint32_t fl = 0;
    alu_test_8(al, al, &fl); /* SF ZF PF of al, the rest 0 */
    cpu->rflags = alu_merge(cpu->rflags, fl) | others;
}

static void decimal_adjust(struct cpu *cpu, int sign)
{
    uint8_t al = (uint8_t)cpu->gpr[R_AX];
    uint8_t old = al;
    bool old_cf = cpu->rflags & FLAG_CF;
    uint64_t set = 0;
    if ((al & 0xf) > 9 || (cpu->rflags & FLAG_AF)) {
        set |= FLAG_AF | (old_cf || (sign < 0 ? al < 6 : al > 0xf9) ? FLAG_CF : 0);
        al = (uint8_t)(al + sign * 6);
    }
    if (old > 0x99 || old_cf) {
        al = (uint8_t)(al + sign * 0x60);
        set |= FLAG_CF;
    } else if (sign > 0) {
        set &= ~FLAG_CF; /* DAA: the second test alone decides */
    }
    gpr_write(cpu, R_AX, 1, al);
    if (cpu_is_amd(cpu)) { /* OF of the whole adjustment as one addition or subtraction */
        uint8_t by = (uint8_t)(sign * (al - old));
        uint8_t signs = sign > 0 ? (uint8_t)(~(old ^ by) & (old ^ al)) : (old ^ by) & (old ^ al);
        set |= signs & 0x80 ? FLAG_OF : 0;
    }
    set_result_flags(cpu, al, set);
}

void sem_daa(struct cpu *cpu, const struct insn *in)
{
    (void)in;
    decimal_adjust(cpu, 1);
}

void sem_das(struct cpu *cpu, const struct insn *in)
{
    (void)in;
    decimal_adjust(cpu, -1);
}

static void ascii_adjust(struct cpu *cpu, int sign)
{
    uint16_t old = (uint16_t)cpu->gpr[R_AX];
    bool adjust = (old & 0xf) > 9 || (cpu->rflags & FLAG_AF);
    uint16_t by = adjust ? 0x106 : 0;
    uint32_t fl = 0;
    uint16_t ax = sign > 0 ? alu_add_16(old, by, &fl) : alu_sub_16(old, by, &fl);
    gpr_write(cpu, R_AX, 2, ax & 0xff0f);
    if (!cpu_is_amd(cpu)) { /* of AL as it is now; AMD: of AX before the high digit goes */
        alu_test_8(ax & 0xf, ax & 0xf, &fl);
    }
    cpu->rflags = alu_merge(cpu->rflags, fl) & ~(FLAG_AF | FLAG_CF);
    cpu->rflags |= adjust ? FLAG_AF | FLAG_CF : 0;
}

void sem_aaa(struct cpu *cpu, const struct insn *in)
{
    (void)in;
    ascii_adjust(cpu, 1);
}

void sem_aas(struct cpu *cpu, const struct insn *in)
{
    (void)in;
    ascii_adjust(cpu, -1);
}

void sem_aam(struct cpu *cpu, const struct insn *in)
{
    uint8_t base = (uint8_t)in->imm;
    uint8_t al = (uint8_t)cpu->gpr[R_AX];
    if (base == 0) {
        cpu_raise(cpu, EXC_DE);
    }
    gpr_write(cpu, R_AX, 2, (uint64_t)(al / base) << 8 | al % base);
    set_result_flags(cpu, al % base, 0);
}

void sem_aad(struct cpu *cpu, const struct insn *in)
{
    uint16_t ax = (uint16_t)cpu->gpr[R_AX];
    uint32_t fl = 0;
    uint8_t al = alu_add_8((uint8_t)ax, (uint8_t)((ax >> 8) * (uint8_t)in->imm), &fl);
    gpr_write(cpu, R_AX, 2, al);
    cpu->rflags = alu_merge(cpu->rflags, fl); /* OF AF CF: undefined, those of the addition */
}
