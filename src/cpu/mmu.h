/* SPDX-License-Identifier: Apache-2.0
 *
 * Paging: linear to guest-physical, with permissions, A/D bits and fault codes (SDM 3 chapter 4).
 * Thread: [vcpu].
 */
#ifndef SOSIA_CPU_MMU_H
#define SOSIA_CPU_MMU_H

#include "cpu/cpu.h"

enum mmu_access { MMU_READ, MMU_WRITE, MMU_EXEC };

/* Page-fault error code bits (SDM 3 4.7) */
#define PF_P 0x1u
#define PF_W 0x2u
#define PF_U 0x4u
#define PF_RSVD 0x8u
#define PF_I 0x10u
#define PF_PK 0x20u

/* Paging-structure entries (SDM 3 4.3 to 4.5) */
#define PTE_P 0x1ull
#define PTE_W 0x2ull
#define PTE_U 0x4ull
#define PTE_PWT 0x8ull
#define PTE_PCD 0x10ull
#define PTE_A 0x20ull
#define PTE_D 0x40ull
#define PTE_PS 0x80ull
#define PTE_G 0x100ull
#define PTE_NX (1ull << 63)
#define PTE_ADDR 0x000ffffffffff000ull

/* One translated 4 KiB page, with what else is allowed there, so that a TLB entry can be filled. */
struct mmu_page {
    gpa_t gpa;              /* of the page's first byte, A20 applied */
    uint64_t span;          /* bytes of the mapping it comes from: 4 KiB, 2/4 MiB, 1 GiB */
    bool read, write, exec; /* allowed in this view; write false also while D is clear */
    bool global;
    bool user;
};

/* Walk for an access in `view`; sets A (and D for writes) as the hardware does. 0, or -EFAULT with
 * *error the #PF error code. Never raises. */
MUST_CHECK int mmu_translate(struct cpu *cpu, gva_t va, enum mmu_access access, enum tlb_view view,
                             struct mmu_page *out, uint32_t *error);
/* For debuggers: no A/D, no permissions, no fault. */
MUST_CHECK int mmu_peek(struct cpu *cpu, gva_t va, gpa_t *gpa);

/* Load cpu->pdpte[] from a PAE page-directory-pointer table (SDM 3 4.4.1). false, with nothing
 * changed: a present entry has reserved bits set, which is a #GP of the MOV to CR3 or CR0. */
MUST_CHECK bool mmu_load_pdptes(struct cpu *cpu, uint64_t cr3);

static inline bool mmu_pae_paging(const struct cpu *cpu)
{
    return (cpu->cr0 & CR0_PG) && (cpu->cr4 & CR4_PAE) && !(cpu->efer & EFER_LMA);
}

/* As paging is now, 48 or 57 bits. */
bool mmu_canonical(const struct cpu *cpu, gva_t va);
/* For addresses in MSRs and descriptor-table registers: as many bits as the processor has. */
bool mmu_canonical_reg(const struct cpu *cpu, uint64_t va);

#endif
