/* SPDX-License-Identifier: Apache-2.0
 *
 * Segment descriptors and segment registers (SDM 3 chapters 3 and 5), shared by far transfers,
 * interrupt delivery, task switches and the instructions that load them.  Thread: [vcpu].
 */
#ifndef SOSIA_CPU_SEG_H
#define SOSIA_CPU_SEG_H

#include "cpu/cpu.h"

/* Type of a system descriptor (SDM 3 table 3-2); code and data types by bits. */
enum seg_sys_type {
    SEG_TSS16 = 1,
    SEG_LDT = 2,
    SEG_TSS16_BUSY = 3,
    SEG_CALL16 = 4,
    SEG_TASK_GATE = 5,
    SEG_INT16 = 6,
    SEG_TRAP16 = 7,
    SEG_TSS32 = 9,
    SEG_TSS32_BUSY = 11,
    SEG_CALL32 = 12,
    SEG_INT32 = 14,
    SEG_TRAP32 = 15,
};
#define SEG_TYPE_ACCESSED 1u
#define SEG_TYPE_RW 2u /* data: writable, code: readable */
#define SEG_TYPE_EXPAND_DOWN 4u
#define SEG_TYPE_CONFORMING 4u
#define SEG_TYPE_CODE 8u

/* Access rights of a virtual-8086 segment: present, DPL 3, writable accessed data. */
#define SEG_ATTR_V86 0xf3u
/* The same of a real-mode one. */
#define SEG_ATTR_REAL 0x93u

#define SEL_RPL 3u
#define SEL_TI 4u

/* A descriptor as it lies in memory. */
struct seg_desc {
    gva_t addr; /* linear, of its first byte */
    uint64_t lo;
    uint64_t hi; /* second half of a 16-byte system descriptor in long mode */
};

static inline unsigned desc_type(const struct seg_desc *d) { return d->lo >> 40 & 0xf; }
static inline bool desc_is_segment(const struct seg_desc *d) { return d->lo >> 44 & 1; }
static inline bool desc_is_code(const struct seg_desc *d) { return (d->lo >> 40 & 0x18) == 0x18; }
static inline bool desc_conforming(const struct seg_desc *d)
{
    return (d->lo >> 40 & 0x1c) == 0x1c;
}
static inline bool desc_writable_data(const struct seg_desc *d)
{
    return (d->lo >> 40 & 0x1a) == 0x12;
}
static inline unsigned desc_dpl(const struct seg_desc *d) { return d->lo >> 45 & 3; }
static inline bool desc_present(const struct seg_desc *d) { return d->lo >> 47 & 1; }
static inline bool desc_l(const struct seg_desc *d) { return d->lo >> 53 & 1; }
static inline bool desc_db(const struct seg_desc *d) { return d->lo >> 54 & 1; }
/* Gates */
static inline uint16_t gate_selector(const struct seg_desc *d) { return (uint16_t)(d->lo >> 16); }
static inline uint32_t gate_offset(const struct seg_desc *d)
{
    return (uint32_t)((d->lo & 0xffff) | (d->lo >> 32 & 0xffff0000));
}
static inline uint64_t gate_offset64(const struct seg_desc *d)
{
    return gate_offset(d) | d->hi << 32;
}

static inline unsigned seg_type(const struct cpu_seg *s) { return s->attr & 0xf; }
static inline unsigned seg_dpl(const struct cpu_seg *s)
{
    return s->attr >> SEG_ATTR_DPL_SHIFT & 3;
}
static inline bool sel_is_null(uint16_t sel) { return (sel & ~SEL_RPL) == 0; }

/* Fault with a selector as its error code; EXT is added while an event is being delivered. */
_Noreturn void seg_fault(struct cpu *cpu, enum cpu_vector vector, uint16_t sel);

/* Read the descriptor that sel (not null) names; false: beyond its table. */
bool seg_read(struct cpu *cpu, uint16_t sel, struct seg_desc *out);
/* The same, or raise vector(sel). */
void seg_read_or_raise(struct cpu *cpu, uint16_t sel, struct seg_desc *out, enum cpu_vector vector);
/* Second half of a system descriptor, in long mode; its type field must be 0. */
void seg_read_upper(struct cpu *cpu, uint16_t sel, struct seg_desc *d, enum cpu_vector vector);
/* Set the accessed bit in memory and in *d. */
void seg_set_accessed(struct cpu *cpu, struct seg_desc *d);
/* Set or clear the busy bit of a TSS descriptor in memory and in *d. */
void seg_set_busy(struct cpu *cpu, struct seg_desc *d, bool busy);

struct cpu_seg seg_make(uint16_t sel, const struct seg_desc *d);
/* LDTR or TR; base of 64 bits in long mode. */
struct cpu_seg seg_make_system(const struct cpu *cpu, uint16_t sel, const struct seg_desc *d);

/* Real and virtual-8086 mode. */
void seg_load_real(struct cpu *cpu, unsigned seg, uint16_t sel);
void seg_set_v86(struct cpu *cpu, unsigned seg, uint16_t sel);
/* A null selector, unusable; dpl is kept as the CPL when seg is SS. */
void seg_set_null(struct cpu *cpu, unsigned seg, uint16_t sel, unsigned dpl);

/* What MOV, POP, LDS... do, in every mode: check and load ES SS DS FS GS. */
void seg_load(struct cpu *cpu, unsigned seg, uint16_t sel);
/* Descriptor for SS at privilege cpl; faults with `vector` (#GP for MOV, #TS for stack switches),
 * #SS when not present. Sets the accessed bit. */
struct cpu_seg seg_check_stack(struct cpu *cpu, uint16_t sel, unsigned cpl, enum cpu_vector vector);
/* After a return to an outer level: data segments that it must not see become null. */
void seg_drop_inner(struct cpu *cpu);

/* CS becomes sel:descriptor with RPL = cpl, and CPL with it (SS must follow). */
void seg_set_cs(struct cpu *cpu, uint16_t sel, const struct seg_desc *d, unsigned cpl);

/* In protected mode, not virtual-8086; else #UD (instructions that know selectors only). */
void seg_need_protected(struct cpu *cpu);
/* CPL 0, else #GP(0). */
void cpu_need_cpl0(struct cpu *cpu);

#endif
