/* SPDX-License-Identifier: Apache-2.0
 *
 * The decoded form of one x86 instruction, and the decoder that makes it.
 *
 * One text table, src/cpu/insns.txt, has one row per encoding (SDM vol. 2 letters). tools/geninsn
 * turns it into the decoder's tables, enum insn_op, the per-row facts below, the disassembler's
 * names and the tests' list. The interpreter and the translator share this form: same ISA on both
 * sides, so the decoded list is the intermediate representation.
 *
 * Nothing here touches guest state: a decode is a pure function of bytes, mode and feature set.
 * Thread: [any].
 */
#ifndef SOSIA_CPU_INSN_H
#define SOSIA_CPU_INSN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cpu/features.h"
#include "cpu/insn_ops.h" /* generated: enum insn_op { OP_INVALID, OP_ADD, ... OP_COUNT } */

#define INSN_MAX_LEN 15u

/* Default operand and address size of the code segment (CS.L, CS.D). */
enum insn_mode { INSN_MODE_16, INSN_MODE_32, INSN_MODE_64 };

enum opnd_kind {
    OPND_NONE,
    OPND_GPR,  /* reg 0..15; with size 1, 16..19 are AH CH DH BH */
    OPND_MEM,  /* insn.mem; one per instruction, but see the notes on string instructions */
    OPND_IMM,  /* insn.imm, sign- or zero-extended as the row says; imm2 for ENTER and ptr16:xx */
    OPND_REL,  /* insn.imm is the displacement from the next instruction */
    OPND_SREG, /* ES CS SS DS FS GS = 0..5 */
    OPND_CREG,
    OPND_DREG,
    OPND_ST,  /* x87 ST(i) */
    OPND_MM,  /* 64-bit MMX */
    OPND_VEC, /* XMM, YMM, ZMM by size: reg 0..31 */
    OPND_K,   /* AVX-512 opmask */
    OPND_BND,
    OPND_FAR, /* ptr16:16 or ptr16:32: offset in imm, selector in imm2 */
};

enum opnd_access { OPND_R = 1, OPND_W = 2, OPND_RW = 3 };

struct opnd {
    uint8_t kind;   /* enum opnd_kind */
    uint8_t reg;    /* register number, see the kinds */
    uint8_t access; /* enum opnd_access; 0 for address-only (LEA, INVLPG, NOP) */
    uint8_t size;   /* bytes: 1 2 4 8 10 16 28 32 64 94..., 0 when it varies (FXSAVE area is 0) */
};

/* Notes on operands.
 * Sizes: IMM and REL have the size of the encoded field; FAR offset + selector; vector registers
 * 16, 32 or 64 whatever part is used, memory operands exactly the bytes accessed.
 * String instructions: each memory side is an OPND_MEM; insn.mem is the rSI side (segment
 * overridable) for MOVS CMPS LODS OUTS, the ES:rDI side for STOS SCAS INS. MASKMOVQ and MASKMOVDQU
 * have their rDI operand as opnd[2], XLAT its rBX as opnd[0], MONITOR its rAX (address only).
 * BT BTS BTR BTC with a register bit offset and memory may reach outside opnd[0] (SDM 2, BT).
 * VSIB memory operands have the size of one element. */
#define INSN_NO_REG 0xffu
#define INSN_REG_RIP 16u /* as mem.base: RIP-relative; disp is from the next instruction */

struct insn_mem {
    uint8_t base;  /* 0..15, INSN_REG_RIP or INSN_NO_REG */
    uint8_t index; /* 0..15 or INSN_NO_REG; VSIB: vector register number */
    uint8_t scale; /* shift count 0..3 */
    uint8_t seg;   /* effective segment, overrides applied: 0..5 (ES CS SS DS FS GS) */
    int64_t disp;  /* sign-extended; EVEX disp8*N already scaled; moffs: zero-extended */
};

enum insn_flag {
    INSN_LOCK = 1u << 0,
    INSN_REP = 1u << 1,      /* F3 present (REP/REPE, XRELEASE hint...) and not part of opcode */
    INSN_REPNE = 1u << 2,    /* F2 likewise */
    INSN_OPSIZE = 1u << 3,   /* 66 present */
    INSN_ADSIZE = 1u << 4,   /* 67 present */
    INSN_SEG_OVR = 1u << 5,  /* a segment prefix took effect (ES CS SS DS have none in 64-bit) */
    INSN_REX = 1u << 6,      /* a REX prefix took effect (SPL.. instead of AH..) */
    INSN_HAS_MODRM = 1u << 7,
    INSN_VEX = 1u << 8,
    INSN_EVEX = 1u << 9,
    INSN_VEX_L = 1u << 10,   /* 256-bit */
    INSN_W = 1u << 11,       /* REX.W / VEX.W */
};

struct insn {
    uint16_t op;      /* enum insn_op: which operation; one semantic helper each */
    uint16_t row;     /* index into insn_info[]: which encoding */
    uint16_t flags;   /* enum insn_flag */
    uint8_t len;      /* bytes, 1..15 */
    uint8_t opsize;   /* effective operand size in bytes: 2, 4, 8 (byte forms: see opnd.size) */
    uint8_t adsize;   /* effective address size in bytes: 2, 4, 8 */
    uint8_t modrm;    /* raw ModRM byte when INSN_HAS_MODRM */
    uint8_t opcode;   /* last opcode byte */
    uint8_t map;      /* 0 one-byte, 1 0F, 2 0F38, 3 0F3A (VEX/EVEX mmmmm likewise) */
    uint8_t vvvv;     /* VEX/EVEX register, already un-inverted */
    uint8_t cc;       /* condition code 0..15 of Jcc SETcc CMOVcc */
    uint8_t modrm_off; /* offset of ModRM in bytes[], for re-emission */
    uint8_t nopnd;    /* operands used */
    struct opnd opnd[4];  /* in Intel order, destination first; implied ones included by the row */
    struct insn_mem mem;
    int64_t imm;
    uint16_t imm2;
    uint8_t bytes[INSN_MAX_LEN + 1]; /* the encoding as fetched */
    uint8_t evex_aaa; /* opmask register, 0 none */
    uint8_t evex_b_z_ll; /* b=bit 0, z=bit 1, L'L=bits 2..3 */
    uint8_t evex_elem;   /* bytes of the memory operand that a bit of the opmask selects; 0: none */
    uint8_t evex_bits;   /* and how many bits do; bit i selects element i modulo their number */
    bool evex_packed;    /* expand, compress: as many elements as bits are set, from the first */
    bool evex_whole;     /* all elements must be accessible, though not all are stored */
};

/* What kind of control flow ends here. */
enum insn_branch {
    BR_NONE,
    BR_JMP,      /* direct near */
    BR_JCC,      /* conditional near: Jcc, JCXZ, LOOPcc */
    BR_CALL,     /* direct near */
    BR_RET,      /* near */
    BR_JMP_IND,
    BR_CALL_IND,
    BR_FAR,      /* far JMP CALL RET, IRET, SYSCALL..., INT n, INT3, INTO: may change CS or mode */
};

enum insn_attr {
    IA_LOCKABLE = 1u << 0,  /* LOCK allowed with a memory destination */
    IA_PRIV = 1u << 1,      /* CPL 0 only (#GP), beyond what the helper checks itself */
    IA_ENDS_BLOCK = 1u << 2,/* mode, mapping or interrupt state may change: MOV CR, STI, POPF */
    IA_STRING = 1u << 3,    /* takes REP */
    IA_X87 = 1u << 4,       /* CR0.EM/TS -> #NM; waiting forms check FSW.ES -> #MF */
    IA_MMX = 1u << 5,
    IA_SSE = 1u << 6,       /* CR4.OSFXSR, CR0.EM/TS rules (legacy SSE) */
    IA_AVX = 1u << 7,       /* CR4.OSXSAVE, XCR0, CR0.TS rules (VEX/EVEX) */
    IA_ALIGN = 1u << 8,     /* 16/32/64-byte operand must be aligned (#GP) */
    IA_FP_EXC = 1u << 9,    /* can raise SIMD FP exceptions: reads and writes MXCSR */
    IA_X87_NOWAIT = 1u << 10, /* FNxxx: no pending-exception check */
    IA_HOST = 1u << 11,     /* user-mode instruction whose semantics are the host CPU's own: the
                               helper executes the same encoding with redirected operands */
    IA_VSIB = 1u << 12,
    IA_NOMEM = 1u << 13,    /* memory operand is address-only, never accessed */
    IA_DEF64 = 1u << 14,    /* 64-bit operand size by default in 64-bit mode */
    IA_RIPEND = 1u << 15,   /* reserved for the engines */
    IA_AVX512 = 1u << 16,   /* EVEX or opmask: XCR0 opmask and ZMM state */
};

/* Flag masks use the RFLAGS bit positions (CF 1, PF 4, AF 0x10, ZF 0x40, SF 0x80, OF 0x800). */
struct insn_info {
    const char *mnemonic;
    const char *encoding;     /* the row's own encoding column, for messages and tests */
    uint32_t flags_read;
    uint32_t flags_written;   /* defined result */
    uint32_t flags_undefined; /* left undefined by the manual (host decides) */
    uint32_t attr;            /* enum insn_attr */
    uint16_t op;
    uint8_t branch;           /* enum insn_branch */
    uint8_t feature;          /* enum cpu_feature, CPU_FEATURE_NONE when always there */
};
extern const struct insn_info insn_info[];
extern const unsigned insn_info_count;
extern const char *const insn_op_name[OP_COUNT];

/* Flags this very instruction may read, and those it surely writes: insn_info[] refined by
 * condition code, REP and shift count. A shift whose count may be 0 reads what it may keep. */
uint32_t insn_flags_read(const struct insn *in);
uint32_t insn_flags_written(const struct insn *in); /* undefined ones included */

enum insn_status {
    INSN_OK = 0,
    INSN_NEED_MORE = -1, /* avail bytes are a valid beginning; fetch further (or fault there) */
    INSN_UD = -2,        /* #UD; out->len says how many bytes were looked at */
    INSN_TOO_LONG = -3,  /* more than 15 bytes: #GP(0) */
};

/* Decode one instruction from bytes[0..avail). avail may be less than 15.
 * INSN_UD covers what the encoding alone decides: undefined opcode, LOCK where not allowed,
 * invalid in this mode, feature absent from f. Checks that need CPU state (CR0.TS, CPL, XCR0,
 * protected-mode-only instructions in real mode) are the helper's.   Thread: [any]. */
enum insn_status insn_decode(struct insn *out, const uint8_t *bytes, size_t avail,
                             enum insn_mode mode, const struct cpu_features *f);

/* Intel syntax into buf; returns the length that a large enough buffer would have had.
 * ip: address of the instruction, for relative targets. */
size_t insn_format(char *buf, size_t size, const struct insn *in, uint64_t ip);

/* A random valid encoding of insn_info[row] for mode into out, for tests and fuzzers. rng: xorshift
 * state, not 0. Returns the length; 0 when the row has no encoding in that mode. */
size_t insn_sample(unsigned row, enum insn_mode mode, uint64_t *rng, uint8_t out[INSN_MAX_LEN]);

#endif
