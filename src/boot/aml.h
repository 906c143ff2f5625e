/* SPDX-License-Identifier: Apache-2.0
 *
 * Writing ACPI machine language (ACPI 5.0 chapter 20) and resource templates (6.4). Terms are
 * emitted in the order of their encoding; what has a package length is opened, filled and closed:
 *
 *     aml_device(a, "PCI0");
 *     aml_name(a, "_HID"), aml_eisaid(a, "PNP0A03");
 *     aml_close(a);
 *
 * Names and nesting come from our own code: misuse is an assertion.
 */
#ifndef SOSIA_BOOT_AML_H
#define SOSIA_BOOT_AML_H

#include <stddef.h>
#include <stdint.h>

#define AML_DEPTH 16u

struct aml {
    uint8_t *data; /* owned */
    size_t len;
    size_t cap;
    size_t open[AML_DEPTH]; /* where the package length of each open term goes */
    unsigned depth;
};

void aml_init(struct aml *a);
void aml_fini(struct aml *a);

void aml_bytes(struct aml *a, const void *data, size_t len);

/* -- Terms that stay open until aml_close ------------------------------------------------------ */
void aml_scope(struct aml *a, const char *path);
void aml_device(struct aml *a, const char *name);
void aml_method(struct aml *a, const char *name, unsigned args);
void aml_package(struct aml *a, unsigned elements);
void aml_if(struct aml *a); /* the condition follows, then the terms */
enum aml_access { AML_ACCESS_BYTE = 1, AML_ACCESS_DWORD = 3 };
void aml_field(struct aml *a, const char *region, enum aml_access access);
void aml_close(struct aml *a);

/* -- Terms that are complete, or take the terms that follow as operands ------------------------ */
enum aml_op {
    AML_LOCAL0 = 0x60,
    AML_STORE = 0x70, /* source, target */
    AML_AND = 0x7b,   /* operand, operand, target */
    AML_OR = 0x7d,
    AML_NOTIFY = 0x86, /* object, value */
    AML_LESS = 0x95,
    AML_EQUAL = 0x93,
    AML_RETURN = 0xa4,
    AML_ARG0 = 0x68,
    AML_NULL_TARGET = 0x00,
    AML_CREATE_DWORD_FIELD = 0x8a, /* buffer, then aml_field_place */
};
void aml_op(struct aml *a, enum aml_op op);
void aml_integer(struct aml *a, uint64_t value);
void aml_string(struct aml *a, const char *s);
void aml_buffer(struct aml *a, const void *data, size_t len);
void aml_eisaid(struct aml *a, const char *id); /* "PNP0A03" */
void aml_path(struct aml *a, const char *path); /* "\\_SB.PCI0", "^X", "X" */
void aml_name(struct aml *a, const char *name); /* its object follows */
enum aml_space { AML_SPACE_IO = 1, AML_SPACE_PCI = 2 };
void aml_region(struct aml *a, const char *name, enum aml_space space, uint64_t offset,
                uint64_t len);
void aml_field_unit(struct aml *a, const char *name, unsigned bits);
/* What follows the buffer of a CreateDWordField: byte offset and name. */
void aml_field_place(struct aml *a, unsigned offset, const char *name);

/* -- Resource templates: a buffer object ------------------------------------------------------- */
struct aml_resources {
    uint8_t data[256];
    size_t len;
};
void aml_res_io(struct aml_resources *r, uint16_t base, unsigned len);
void aml_res_dma(struct aml_resources *r, unsigned channel); /* compatible, bytes */
void aml_res_irq(struct aml_resources *r, unsigned irq); /* ISA: edge, active high, exclusive */
/* Extended interrupt, level, active high, shared; count of irqs. */
void aml_res_interrupts(struct aml_resources *r, const uint32_t *irqs, unsigned count);
void aml_res_memory(struct aml_resources *r, uint32_t base, uint32_t len); /* fixed, writable */
/* What a bridge produces: */
void aml_res_bus_window(struct aml_resources *r, unsigned first, unsigned last);
void aml_res_io_window(struct aml_resources *r, unsigned first, unsigned last);
enum aml_caching { AML_UNCACHED = 0, AML_CACHED = 1 };
void aml_res_memory_window(struct aml_resources *r, enum aml_caching caching, uint32_t first,
                           uint32_t last);
void aml_res_memory_window64(struct aml_resources *r, uint64_t first, uint64_t last);
/* Ends the template and emits it; r may be used again. */
void aml_resources(struct aml *a, struct aml_resources *r);

#endif
