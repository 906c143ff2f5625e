/* SPDX-License-Identifier: Apache-2.0
 *
 * Guest-virtual memory as instructions see it: segmentation, then the software TLB, then RAM or the
 * bus. Every function raises the architectural fault (and so does not return) when the access is
 * not allowed. Size-generic forms take 1, 2, 4 or 8.  Thread: [vcpu].
 */
#ifndef SOSIA_CPU_ACCESS_H
#define SOSIA_CPU_ACCESS_H

#include "cpu/cpu.h"
#include "cpu/insn.h"
#include "cpu/mmu.h"

/* Effective address of in->mem, truncated to the address size (offset in its segment). */
uint64_t cpu_effective_address(const struct cpu *cpu, const struct insn *in);

/* Offset to linear: limit, type, null and canonical checks for [off, off+size); #GP or #SS. */
gva_t cpu_linear(struct cpu *cpu, unsigned seg, uint64_t off, unsigned size,
                 enum mmu_access access);

/* Ordinary data accesses at seg:off with the current privilege. */
uint64_t cpu_read(struct cpu *cpu, unsigned seg, uint64_t off, unsigned size);
void cpu_write(struct cpu *cpu, unsigned seg, uint64_t off, unsigned size, uint64_t value);
/* Up to 4096 bytes; a write touches nothing unless all of it is allowed. */
void cpu_read_bytes(struct cpu *cpu, unsigned seg, uint64_t off, void *buf, unsigned len);
void cpu_write_bytes(struct cpu *cpu, unsigned seg, uint64_t off, const void *buf, unsigned len);
/* Would [off, off+len) be writable? Raises if not. */
void cpu_probe_write(struct cpu *cpu, unsigned seg, uint64_t off, unsigned len);
/* Host address of a RAM operand that does not cross a page, for atomic read-modify-write: checked
 * for writing, marked written; NULL: MMIO or crossing, use cpu_exclusive + cpu_read/cpu_write. */
void *cpu_host_rmw(struct cpu *cpu, unsigned seg, uint64_t off, unsigned size);

/* Implicit supervisor accesses (descriptor tables, TSS, interrupt stacks) at linear addresses. */
uint64_t cpu_sys_read(struct cpu *cpu, gva_t va, unsigned size);
void cpu_sys_write(struct cpu *cpu, gva_t va, unsigned size, uint64_t value);
/* A linear address with the rights of a view that need not be the current one: stacks of another
 * privilege level, while the switch to it may still fault. */
uint64_t cpu_view_read(struct cpu *cpu, enum tlb_view view, gva_t va, unsigned size);
void cpu_view_write(struct cpu *cpu, enum tlb_view view, gva_t va, unsigned size, uint64_t value);

/* Slow paths of cpu/access_fast.h: va is linear, already through cpu_linear or flat 64-bit; seg
 * says which fault a non-canonical va is. */
uint64_t access_read_slow(struct cpu *cpu, gva_t va, unsigned size, unsigned seg);
void access_write_slow(struct cpu *cpu, gva_t va, unsigned size, uint64_t value, unsigned seg);
void *access_rmw_slow(struct cpu *cpu, gva_t va, unsigned size, unsigned seg);

/* Alone among the vCPUs until cpu_exclusive_end: for locked accesses the host cannot do
 * atomically. */
void cpu_exclusive_begin(struct cpu *cpu);
void cpu_exclusive_end(struct cpu *cpu);

/* Instruction bytes at linear va with fetch permissions: up to `want` (<= 15, stops at the page's
 * end if the next page faults); returns the count, raises only if the first byte faults. */
unsigned cpu_fetch(struct cpu *cpu, gva_t va, uint8_t *buf, unsigned want);
/* The same for one page: host pointer to va's byte and RAM page number, NULL if not RAM/ROM. */
const uint8_t *cpu_fetch_page(struct cpu *cpu, gva_t va, gpa_t *gpa);

/* -- TLB maintenance (cpu/tlb.c) */
void tlb_flush_all(struct cpu *cpu);                 /* every ASID, global pages too */
void tlb_flush_local(struct cpu *cpu);               /* current ASID, not global pages */
void tlb_flush_asid(struct cpu *cpu, uint16_t pcid); /* INVPCID 1, CR3 load without no-flush */
/* INVLPG: all pages' entries of va, global too */
void tlb_flush_page(struct cpu *cpu, gva_t va);
void tlb_flush_page_pcid(struct cpu *cpu, gva_t va, uint16_t pcid); /* INVPCID 0 */
/* CR3, PCID, view or AC changed: select tables; makes them first */
void tlb_switch(struct cpu *cpu);
void tlb_fini(struct cpu *cpu);
/* The RAM page at gpa now holds code (its flag is set): our stores there must take the slow path.
 * */
void tlb_protect_code(struct cpu *cpu, gpa_t gpa);
/* Fill the current view's entry; false when it faults or there is no table yet. Never raises, keeps
 * off the vector registers and off libc (translated code calls it with the guest's in place). */
bool tlb_fill_quiet(struct cpu *cpu, gva_t va, enum mmu_access access);
/* Is the exec entry of va, just used, a global mapping? */
bool tlb_page_global(const struct cpu *cpu, gva_t va);
/* Where instructions at va come from, if the TLB has the page for execution; else NULL. */
const uint8_t *tlb_code_at(const struct cpu *cpu, gva_t va, gpa_t *gpa);
/* Bytes of the mapping that it is part of: 4 KiB, or a large page's. */
uint64_t tlb_page_span(const struct cpu *cpu, gva_t va);

#endif
