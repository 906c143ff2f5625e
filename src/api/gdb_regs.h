/* SPDX-License-Identifier: Apache-2.0
 *
 * The registers as GDB sees them: a list made for the processors' features, the target description
 * that tells GDB about it (GDB manual, appendix G), and their values in struct cpu.
 *
 * GDB takes one description for a connection, and expects registers of that size in every mode: of
 * a processor in 16- or 32-bit code it gets the general registers and the instruction pointer as 64
 * bits with the upper half 0. A 32-bit kernel's symbols go with the i386 description alone.
 */
#ifndef SOSIA_API_GDB_REGS_H
#define SOSIA_API_GDB_REGS_H

#include "cpu/cpu.h"

#define GDB_REG_BYTES_MAX 16u
#define GDB_REGS_MAX 160u

enum gdb_arch { GDB_AMD64, GDB_I386 };

struct gdb_reg {
    char name[16];
    uint16_t bits;
    uint8_t kind;     /* gdb_regs.c */
    uint8_t index;    /* which of its kind */
    const char *type; /* of the target description */
    const char *feature;
};

struct gdb_regs {
    enum gdb_arch arch;
    struct gdb_reg reg[GDB_REGS_MAX];
    unsigned count;
};

void gdb_regs_init(struct gdb_regs *r, const struct cpu *cpu, enum gdb_arch arch);
/* The target description; free() it. */
char *gdb_regs_describe(const struct gdb_regs *r, size_t *len);
/* Little-endian, bits / 8 bytes. */
void gdb_reg_read(const struct gdb_regs *r, unsigned n, struct cpu *cpu,
                  uint8_t out[GDB_REG_BYTES_MAX]);
/* False: this one cannot be changed so. What a change of the mode would take, and what the
 * processor would refuse, cannot. */
bool gdb_reg_write(const struct gdb_regs *r, unsigned n, struct cpu *cpu,
                   const uint8_t in[GDB_REG_BYTES_MAX]);

#endif
