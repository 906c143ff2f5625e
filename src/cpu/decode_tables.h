/* SPDX-License-Identifier: Apache-2.0
 *
 * Shape of the tables that tools/geninsn makes of src/cpu/insns.txt; for the decoder, the
 * formatter and the sample encoder only.
 */
#ifndef SOSIA_CPU_DECODE_TABLES_H
#define SOSIA_CPU_DECODE_TABLES_H

#include <stdint.h>

#include "cpu/insn.h"

/* How an operand is addressed: the letters of insns.txt. */
enum opnd_how {
    OH_E = 1, OH_G, OH_R, OH_M, OH_Z, OH_B, OH_I, OH_IS, OH_J, OH_O, OH_A, OH_X, OH_Y,
    OH_S, OH_C, OH_D, OH_T, OH_P, OH_Q, OH_N, OH_V, OH_W, OH_U, OH_H, OH_L, OH_K, OH_KE, OH_KH,
    OH_FIX_GPR, OH_FIX_SREG, OH_FIX_ST, OH_FIX_VEC, OH_ONE,
    OH_MEM_BX, OH_MEM_DI, OH_MEM_AX, /* implied memory: XLAT, MASKMOV, MONITOR */
};

enum opnd_sz {
    SZ_0, SZ_B, SZ_W, SZ_D, SZ_Q, SZ_DQ, SZ_QQ, SZ_OQ, SZ_V, SZ_Z, SZ_Y, SZ_N, SZ_X, SZ_H, SZ_F,
    SZ_E, SZ_P, SZ_S, SZ_A, SZ_T, SZ_ENV, SZ_ST,
    SZ_COUNT
};

struct opnd_spec {
    uint8_t how;
    uint8_t reg;   /* fixed operands: which */
    uint8_t size;  /* enum opnd_sz of the register form */
    uint8_t msize; /* of the memory form */
    uint8_t access;
};

enum row_flag {
    RD_MODRM = 1u << 0,
    RD_D64 = 1u << 1,       /* operand size 64 by default in 64-bit mode */
    RD_F64 = 1u << 2,       /* always */
    RD_PFX = 1u << 3,       /* F3 or F2 is part of the opcode */
    RD_NO_VVVV = 1u << 4,   /* VEX.vvvv must be 1111b */
    RD_CC = 1u << 5,
    RD_VSIB = 1u << 6,
    RD_LOCK = 1u << 7,
    RD_MOV_CR = 1u << 8,    /* ModRM.mod ignored, reserved registers #UD */
    RD_EVEX_ER = 1u << 9,   /* EVEX.b on registers is static rounding */
    RD_EVEX_SAE = 1u << 10, /* or suppresses exceptions */
    RD_EVEX_K = 1u << 11,   /* takes an opmask */
    RD_EVEX_Z = 1u << 12,   /* may zero */
    RD_EVEX_KREQ = 1u << 13, /* opmask other than k0 required: gathers, scatters */
    RD_EVEX_T1S = 1u << 14, /* expand, compress: disp8 counts elements */
    RD_EVEX_NF = 1u << 15,  /* all of a memory operand is accessed whatever the opmask says */
};

struct insn_row {
    uint16_t op;
    uint16_t flags; /* enum row_flag */
    uint8_t nopnd;
    uint8_t bcst;   /* EVEX broadcast element size, 0 none */
    uint8_t elem;   /* bytes of memory that an opmask bit selects, 0: all is accessed */
    struct opnd_spec opnd[4];
};

/* The encoding space of a row: what the sample encoder and the tests need. Sets are bit masks of
 * allowed values, 0xff when not constrained. */
struct insn_enc {
    uint8_t space; /* enum insn_space */
    uint8_t map;
    uint8_t opcode;
    uint8_t count; /* consecutive opcodes */
    uint8_t pfx;   /* none 66 F3 F2 */
    uint8_t m64;
    uint8_t mod;   /* memory, register */
    uint8_t reg;
    uint8_t rm;
    uint8_t w;
    uint8_t l;
};

enum insn_space { SPACE_LEGACY, SPACE_VEX, SPACE_EVEX };

/* Decision tree. A reference is 0 (undefined), row + 1, or 0x8000 | index of a node; a node is a
 * head (enum tree_dim | feature << 8) and one reference per value. */
enum tree_dim {
    DIM_PFX, DIM_M64, DIM_W, DIM_REXB, DIM_EVB, DIM_FEAT,
    DIM_NEEDS_MODRM,
    DIM_L = DIM_NEEDS_MODRM, /* EVEX: register forms with rounding have no length */
    DIM_MOD, DIM_REG, DIM_RM
};
#define TREE_NODE 0x8000u
#define INSN_ROOTS 12 /* space * 4 + map */

extern const struct insn_row insn_row[];
extern const struct insn_enc insn_enc[];
extern const uint16_t insn_root[INSN_ROOTS][256];
extern const uint16_t insn_node[];

#endif
