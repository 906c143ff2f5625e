/* SPDX-License-Identifier: Apache-2.0
 *
 * Host code, byte by byte. Functions are named by operand shape: rr register-register, rm
 * register-memory, ri register-immediate, g: memory of struct cpu, which the stack pointer points
 * into (reg.h).
 *
 * A struct emit writes through the writable view; addresses that code refers to are those of the
 * executable view.
 */
#ifndef SOSIA_ENGINE_BT_EMIT_H
#define SOSIA_ENGINE_BT_EMIT_H

#include <assert.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

struct emit {
    uint8_t *p; /* writable view */
    uint8_t *end;
    int64_t delta; /* executable view minus writable view */
};

enum host_reg {
    H_AX,
    H_CX,
    H_DX,
    H_BX,
    H_SP,
    H_BP,
    H_SI,
    H_DI,
    H_8,
    H_9,
    H_10,
    H_11,
    H_12,
    H_13,
    H_14,
    H_15
};
/* Scratch registers; everything else holds guest state. */
#define T0 H_14
#define T1 H_15
#define H_NONE 0xffu

/* A host memory operand: [base + index * 2^scale + disp]; base or index may be H_NONE. */
struct host_mem {
    uint8_t base;
    uint8_t index;
    uint8_t scale;
    int32_t disp;
};

static inline const uint8_t *emit_here(const struct emit *e) { return e->p + e->delta; }
static inline void emit1(struct emit *e, uint8_t b) { *e->p++ = b; }
static inline void emit2(struct emit *e, uint16_t v)
{
    memcpy(e->p, &v, 2);
    e->p += 2;
}
static inline void emit4(struct emit *e, uint32_t v)
{
    memcpy(e->p, &v, 4);
    e->p += 4;
}
static inline void emit8(struct emit *e, uint64_t v)
{
    memcpy(e->p, &v, 8);
    e->p += 8;
}
static inline void emit_bytes(struct emit *e, const uint8_t *b, unsigned n)
{
    memcpy(e->p, b, n);
    e->p += n;
}

/* ModRM (and SIB, displacement) for reg, [m]; mod 0, 1, 2: no, 8-bit, 32-bit displacement. */
static inline void emit_modrm_mod(struct emit *e, unsigned reg, struct host_mem m, unsigned mod)
{
    reg = (reg & 7) << 3;
    if (m.base == H_NONE) {
        if (m.index == H_NONE) { /* absolute disp32: SIB without base and index */
            emit1(e, (uint8_t)(0x04 | reg));
            emit1(e, 0x25);
        } else {
            emit1(e, (uint8_t)(0x04 | reg));
            emit1(e, (uint8_t)(m.scale << 6 | (m.index & 7) << 3 | 5));
        }
        emit4(e, (uint32_t)m.disp);
        return;
    }
    if (m.index != H_NONE || (m.base & 7) == 4) {
        unsigned index = m.index == H_NONE ? 4 : m.index & 7u;
        emit1(e, (uint8_t)(mod << 6 | reg | 4));
        emit1(e, (uint8_t)(m.scale << 6 | index << 3 | (m.base & 7)));
    } else {
        emit1(e, (uint8_t)(mod << 6 | reg | (m.base & 7)));
    }
    if (mod == 1)
        emit1(e, (uint8_t)m.disp);
    else if (mod == 2)
        emit4(e, (uint32_t)m.disp);
}

static inline void emit_modrm_mem(struct emit *e, unsigned reg, struct host_mem m)
{
    unsigned mod = m.disp == 0 && (m.base & 7) != 5 ? 0 : m.disp == (int8_t)m.disp ? 1 : 2;
    emit_modrm_mod(e, reg, m, mod);
}

static inline void emit_rex(struct emit *e, bool w, unsigned reg, unsigned index, unsigned base)
{
    uint8_t rex = (uint8_t)(w << 3 | (reg >> 3 & 1) << 2 | (index >> 3 & 1) << 1 | (base >> 3 & 1));
    if (rex)
        emit1(e, 0x40 | rex);
}

static inline void emit_rex_mem(struct emit *e, bool w, unsigned reg, struct host_mem m)
{
    emit_rex(e, w, reg, m.index == H_NONE ? 0 : m.index, m.base == H_NONE ? 0 : m.base);
}

/* op r/m, r (or r, r/m: the opcode says) with 64- or 32-bit operands */
static inline void emit_rr(struct emit *e, uint8_t op, bool w, unsigned reg, unsigned rm)
{
    emit_rex(e, w, reg, 0, rm);
    emit1(e, op);
    emit1(e, (uint8_t)(0xc0 | (reg & 7) << 3 | (rm & 7)));
}

static inline void emit_rm(struct emit *e, uint8_t op, bool w, unsigned reg, struct host_mem m)
{
    emit_rex_mem(e, w, reg, m);
    emit1(e, op);
    emit_modrm_mem(e, reg, m);
}

/* A field of struct cpu, by its place from the stack pointer. */
static inline struct host_mem cpu_mem(int32_t at)
{
    return (struct host_mem){ H_SP, H_NONE, 0, at };
}

/* op reg, field */
static inline void emit_rg(struct emit *e, uint8_t op, bool w, unsigned reg, int32_t at)
{
    emit_rm(e, op, w, reg, cpu_mem(at));
}

/* op field with an opcode extension and neither REX nor prefix; an immediate may follow */
static inline void emit_xg(struct emit *e, uint8_t op, unsigned ext, int32_t at)
{
    emit1(e, op);
    emit_modrm_mem(e, ext, cpu_mem(at));
}

/* op group /ext with an immediate: 81/83 forms */
static inline void emit_ri(struct emit *e, unsigned ext, bool w, unsigned rm, int32_t imm)
{
    bool small = imm == (int8_t)imm;
    emit_rr(e, small ? 0x83 : 0x81, w, ext, rm);
    if (small)
        emit1(e, (uint8_t)imm);
    else
        emit4(e, (uint32_t)imm);
}

static inline void emit_mov_rr(struct emit *e, bool w, unsigned dst, unsigned src)
{
    emit_rr(e, 0x89, w, src, dst);
}

/* Shortest move of a constant; leaves flags alone. */
static inline void emit_mov_imm(struct emit *e, unsigned reg, uint64_t v)
{
    if (v == (uint32_t)v) {
        emit_rex(e, false, 0, 0, reg);
        emit1(e, (uint8_t)(0xb8 | (reg & 7)));
        emit4(e, (uint32_t)v);
    } else if ((int64_t)v == (int32_t)v) {
        emit_rr(e, 0xc7, true, 0, reg);
        emit4(e, (uint32_t)v);
    } else {
        emit_rex(e, true, 0, 0, reg);
        emit1(e, (uint8_t)(0xb8 | (reg & 7)));
        emit8(e, v);
    }
}

static inline void emit_lea(struct emit *e, bool w, unsigned reg, struct host_mem m)
{
    emit_rm(e, 0x8d, w, reg, m);
}

/* rorx dst, src, n (BMI2): leaves flags alone, as MOV and SHR would not */
static inline void emit_rorx(struct emit *e, unsigned dst, unsigned src, uint8_t n)
{
    emit1(e, 0xc4);
    emit1(e, (uint8_t)((dst & 8 ? 0 : 0x80) | 0x40 | (src & 8 ? 0 : 0x20) | 3));
    emit1(e, 0xfb);
    emit1(e, 0xf0);
    emit1(e, (uint8_t)(0xc0 | (dst & 7) << 3 | (src & 7)));
    emit1(e, n);
}

static inline void emit_rel32_to(struct emit *e, const uint8_t *target)
{
    int64_t rel = target - (emit_here(e) + 4);
    assert(rel == (int32_t)rel);
    emit4(e, (uint32_t)rel);
}

static inline void emit_jmp(struct emit *e, const uint8_t *target)
{
    emit1(e, 0xe9);
    emit_rel32_to(e, target);
}

static inline void emit_call(struct emit *e, const uint8_t *target)
{
    emit1(e, 0xe8);
    emit_rel32_to(e, target);
}

static inline void emit_jcc(struct emit *e, unsigned cc, const uint8_t *target)
{
    emit1(e, 0x0f);
    emit1(e, (uint8_t)(0x80 | cc));
    emit_rel32_to(e, target);
}

/* A forward jump to be bound later: returns where its rel32 is (writable view). */
static inline uint8_t *emit_jcc_fwd(struct emit *e, unsigned cc)
{
    emit1(e, 0x0f);
    emit1(e, (uint8_t)(0x80 | cc));
    emit4(e, 0);
    return e->p - 4;
}

static inline uint8_t *emit_jmp_fwd(struct emit *e)
{
    emit1(e, 0xe9);
    emit4(e, 0);
    return e->p - 4;
}

static inline void emit_bind(struct emit *e, uint8_t *rel32)
{
    int32_t rel = (int32_t)(e->p - (rel32 + 4));
    memcpy(rel32, &rel, 4);
}

/* op reg, [rip -> target] */
static inline void emit_r_rip(struct emit *e, uint8_t op, bool w, unsigned reg, const void *target)
{
    emit_rex(e, w, reg, 0, 0);
    emit1(e, op);
    emit1(e, (uint8_t)(0x05 | (reg & 7) << 3));
    emit_rel32_to(e, target);
}

#define CC_O 0x0u
#define CC_B 0x2u
#define CC_AE 0x3u
#define CC_E 0x4u
#define CC_NE 0x5u
#define CC_BE 0x6u
#define CC_A 0x7u

#endif
