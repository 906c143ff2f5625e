/* SPDX-License-Identifier: Apache-2.0
 *
 * Between native.c, which decides where the operands of an instruction go, and encode.c, which
 * makes its bytes.
 */
#ifndef SOSIA_ENGINE_BT_ENCODE_H
#define SOSIA_ENGINE_BT_ENCODE_H

#include "engine/bt/translate.h"

/* Where the operands of one instruction end up. */
struct bt_plan {
    const struct insn_row *row;
    bool mode64;
    bool is4;          /* the last immediate byte names a register */
    unsigned reg_host; /* ModRM.reg; opcode extension when not an operand */
    unsigned rm_host;  /* register form */
    unsigned vvvv_host;
    unsigned z_host; /* register in the opcode, H_NONE when not used */
    unsigned imm_bytes;
    bool rex_needed; /* SPL.. style byte register */
    bool high_byte;  /* AH.. : no REX allowed */
    int mem_opnd;    /* index, -1 none */
    struct {
        uint8_t host;
        uint8_t guest;
    } store[2]; /* temporaries to write back */
    unsigned stores;
    struct {
        uint8_t host;
        uint8_t guest;
    } load[2];
    unsigned loads;
    uint8_t temps; /* scratch registers in use: bit 0 T0, bit 1 T1 */
};

/* The instruction with its operands where the plan says. mem: the host operand, when it has one. */
void bt_encode(struct emit *e, const struct insn *in, const struct bt_plan *p, struct host_mem mem);

#endif
