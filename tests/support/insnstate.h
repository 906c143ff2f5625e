/* SPDX-License-Identifier: Apache-2.0
 *
 * What the instruction tests compare: the user-visible registers before and after some code, the
 * memory that code can reach, and how it ended. The same layout of virtual addresses exists on the
 * host (hostrun.h) and in a small guest (guestrun.h).
 */
#ifndef SOSIA_TESTS_SUPPORT_INSNSTATE_H
#define SOSIA_TESTS_SUPPORT_INSNSTATE_H

#include <stdbool.h>
#include <stdint.h>

/* Virtual addresses, all below 2 GiB so that disp32 and 32-bit code reach them. Around each region
 * nothing is mapped. */
#define IS_CODE 0x10000000u
#define IS_CODE_SIZE 0x2000u
#define IS_DATA 0x20000000u /* two writable pages, an absent one, a read-only one */
#define IS_DATA_PAGES 4u
#define IS_DATA_ABSENT 0x20002000u
#define IS_DATA_RDONLY 0x20003000u
#define IS_STACK 0x30000000u /* one writable page */
#define IS_STACK_SIZE 0x1000u
/* Contents of what is mapped: pages 0, 1 and 3 of the data, the stack page. */
#define IS_MEM_SIZE 0x4000u

enum is_mode { IS_MODE_64, IS_MODE_32, IS_MODE_16, IS_MODES };

/* 16-bit code runs in segments of the LDT: code and data regions from their beginnings, the data
 * and the stack with limits within them. */
#define IS_SEL_CS16 0x07u
#define IS_SEL_DS16 0x0fu
#define IS_SEL_SS16 0x17u
#define IS_LIMIT_CS16 0xffffu
#define IS_LIMIT_DS16 0x3bffu
#define IS_LIMIT_SS16 0x0effu

struct insn_state {
    uint64_t gpr[16];
    uint64_t rip;
    uint64_t rflags;
    _Alignas(64) uint8_t zmm[32][64]; /* what the host does not have is 0 */
    uint64_t k[8];
    uint8_t fx[160]; /* x87 and MXCSR as FXSAVE64 lays them out */
};

/* How it ended: always by an exception, an INT3 at the end if nothing else. */
struct insn_outcome {
    unsigned vector;
    uint32_t error;
    uint64_t cr2; /* of a page fault, else 0 */
    bool timeout; /* never ended; state is not valid */
    struct insn_state state;
};

/* Above this the host's process has memory of its own (ASan's shadow, then the kernel's half),
 * where a fault may be one of protection. */
#ifdef __SANITIZE_ADDRESS__
#define IS_HOST_OWN 0x7fff7000ull
#define IS_WILD_READS false /* gathers with any index would find memory there */
#else
#define IS_HOST_OWN 0x7ffffffff000ull
#define IS_WILD_READS true
#endif

/* RIP of the first byte of the code region. */
static inline uint64_t is_code_base(enum is_mode mode) { return mode == IS_MODE_16 ? 0 : IS_CODE; }

/* Where in the 16 KiB image an address lies, or -1. */
static inline int is_image_offset(uint64_t va)
{
    if (va >= IS_DATA && va < IS_DATA_ABSENT)
        return (int)(va - IS_DATA);
    if (va >= IS_DATA_RDONLY && va < IS_DATA_RDONLY + 0x1000)
        return (int)(va - IS_DATA_RDONLY + 0x2000);
    if (va >= IS_STACK && va < IS_STACK + IS_STACK_SIZE)
        return (int)(va - IS_STACK + 0x3000);
    return -1;
}

#endif
