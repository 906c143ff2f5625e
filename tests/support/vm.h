/* SPDX-License-Identifier: Apache-2.0
 *
 * A small machine for tests of the CPU and of engines: RAM, up to four vCPUs, no devices but a page
 * range of MMIO that remembers what was asked of it.
 *
 * Memory: VM_RAM bytes of RAM at 0, nothing above. vm_mode(64) builds identity page tables of 2 MiB
 * user pages over the first 16 MiB, an IDT whose vector v ends at HLT in VM_HANDLERS + 16 v, and a
 * page table for 4 KiB pages at VM_PAGES.
 */
#ifndef SOSIA_TESTS_SUPPORT_VM_H
#define SOSIA_TESTS_SUPPORT_VM_H

#include "cpu/access.h"
#include "cpu/cpu.h"
#include "cpu/model.h"
#include "engine/engine.h"

#define VM_RAM 0x800000u
#define VM_MMIO 0xa00000u     /* guest-physical, identity-mapped */
#define VM_PML4 0x1000u
#define VM_PT 0x4000u         /* of VM_PAGES: 512 entries */
#define VM_PML4_OTHER 0x5000u /* the same mappings but for VM_PAGES: its table is VM_PT_OTHER */
#define VM_PT_OTHER 0x8000u
#define VM_PD_PAGES 0x9000u
#define VM_PD_PAGES_OTHER 0xa000u
#define VM_IDT 0xb000u
#define VM_GDT 0xc000u
#define VM_HANDLERS 0xd000u
#define VM_PAGES 0x40000000ull
#define VM_CODE 0x10000u
#define VM_STACK 0x80000u
#define VM_CPUS 4

struct vm_mmio {
    gpa_t gpa;
    unsigned size;
    bool write;
    uint64_t value;
};

struct vm {
    struct gmem *mem;
    uint8_t *ram;
    struct cpu_world world;
    struct cpu_model model;
    struct cpu *cpu[VM_CPUS];
    unsigned cpus;
    struct engine *engine;
    const struct engine_class *cls;
    struct vm_mmio mmio[16]; /* the first accesses since mmio_count was cleared */
    unsigned mmio_count;
    unsigned code_writes;    /* calls of world.code_written */
};

struct vm *vm_new(unsigned cpus, const struct engine_class *cls); /* cls NULL: no engine */
/* The same with what else the configuration says. */
struct vm *vm_new_config(unsigned cpus, const struct engine_class *cls,
                         const struct engine_config *extra);
void vm_free(struct vm *vm);
/* Put a vCPU into flat 16-, 32- or 64-bit code at CPL 0, rip VM_CODE, rsp VM_STACK, flags clear. */
void vm_mode(struct vm *vm, unsigned index, unsigned bits);
void vm_poke(struct vm *vm, gpa_t gpa, const void *bytes, size_t len); /* announced as written */
void vm_poke64(struct vm *vm, gpa_t gpa, uint64_t v);
uint64_t vm_peek64(const struct vm *vm, gpa_t gpa);
uint64_t vm_counter(struct vm *vm, const char *name);                   /* of the engine's stats */
void vm_map(struct vm *vm, unsigned page, uint64_t pte);               /* VM_PAGES + page * 4096 */
void vm_map_other(struct vm *vm, unsigned page, uint64_t pte);
enum engine_exit vm_run(struct vm *vm, unsigned index); /* clears a former halt */
/* Vector whose handler's HLT stopped the vCPU; -1 if none did. */
int vm_vector(const struct vm *vm, unsigned index);

#endif
