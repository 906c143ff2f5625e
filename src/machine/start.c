/* SPDX-License-Identifier: Apache-2.0
 *
 * Boot without firmware: the kernel and its modules into RAM, the first processor to its entry.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "cpu/access.h"
#include "cpu/except.h"
#include "cpu/model.h"
#include "machine/firmware.h"
#include "machine/machine.h"
#include "machine/pc.h"

/* -- Files ------------------------------------------------------------------------------------- */

static int add_module(struct machine *m, const char *path, const char *args, struct err *e)
{
    if (m->module_count == BOOT_MAX_MODULES) {
        return err_set(e, -E2BIG, "more than %u modules", BOOT_MAX_MODULES);
    }
    struct boot_file *f = &m->module_files[m->module_count];
    int r = boot_file_open(f, path, e);
    if (r < 0) {
        return err_prefix(e, r, "initrd");
    }
    m->modules[m->module_count] = (struct boot_module){ .file = f, .args = args };
    m->module_count++;
    return 0;
}

/* "FILE ARGUMENTS,FILE ARGUMENTS"; two commas are one that separates nothing. */
static int add_module_list(struct machine *m, const char *list, struct err *e)
{
    /* Each module's text and its path apart: at most twice the bytes. */
    char *out = m->module_text = xzalloc(2 * strlen(list) + 2 * BOOT_MAX_MODULES + 2);
    const char *at = list;
    int r = 0;
    while (*at != '\0' && r == 0) {
        char *args = out;
        for (; *at != '\0' && (*at != ',' || at[1] == ','); at++) {
            if (*at == ',') {
                at++;
            }
            *out++ = *at;
        }
        *out++ = '\0';
        if (*at == ',') {
            at++;
        }
        char *path = out;
        size_t len = strcspn(args, " ");
        memcpy(path, args, len);
        path[len] = '\0';
        out += len + 1;
        if (len == 0) {
            r = err_set(e, -EINVAL, "initrd: a module without a name in '%s'", list);
        } else {
            r = add_module(m, path, args, e);
        }
        if (m->module_count == BOOT_MAX_MODULES && *at != '\0' && r == 0) {
            r = err_set(e, -E2BIG, "initrd: more than %u modules", BOOT_MAX_MODULES);
        }
    }
    return r;
}

int machine_open_boot_files(struct machine *m, const struct machine_config *c, struct err *e)
{
    enum boot_kind kind;
    m->append = c->append != NULL ? xstrdup(c->append) : NULL;
    if (c->kernel == NULL) {
        return 0;
    }
    int r = boot_file_open(&m->kernel, c->kernel, e);
    if (r == 0) {
        r = boot_recognise(&m->kernel, &kind, e);
        if (r == 0 && kind == BOOT_UNKNOWN) {
            r = -ENOEXEC;
        }
    }
    if (r < 0) {
        return err_prefix(e, r, "kernel");
    }
    if (c->initrd == NULL) {
        return 0;
    }
    m->module_files = xcalloc(BOOT_MAX_MODULES, sizeof *m->module_files);
    m->modules = xcalloc(BOOT_MAX_MODULES, sizeof *m->modules);
    return kind == BOOT_MULTIBOOT ? add_module_list(m, c->initrd, e)
                                  : add_module(m, c->initrd, NULL, e);
}

void machine_close_boot_files(struct machine *m)
{
    boot_file_close(&m->kernel);
    for (size_t i = 0; i < m->module_count; i++) {
        boot_file_close(&m->module_files[i]);
    }
    free(m->module_files);
    free(m->modules);
    free(m->module_text);
    free(m->append);
    m->module_count = 0;
    m->module_files = NULL;
    m->modules = NULL;
    m->module_text = m->append = NULL;
}

/* -- Processor 0 ------------------------------------------------------------------------------- */

/* What firmware leaves in every processor: MTRRs on, no ranges, write-back (SDM 3 12.11.2.1). */
#define MTRR_WRITE_BACK 0x806u

static struct cpu_seg seg_of(const struct boot_segment *s)
{
    return (
        struct cpu_seg){ .base = s->base, .limit = s->limit, .attr = s->attr, .sel = s->selector };
}

static void start_processor(struct cpu *cpu, const struct boot_cpu *b)
{
    memcpy(cpu->gpr, b->gpr, sizeof cpu->gpr);
    cpu->rip = cpu->insn_ip = b->rip;
    cpu->rflags = b->rflags | FLAG_FIXED;
    cpu->seg[SEG_CS] = seg_of(&b->cs);
    for (unsigned i = 0; i < SEG_COUNT; i++) {
        if (i != SEG_CS) {
            cpu->seg[i] = seg_of(&b->data);
        }
    }
    cpu->tr = seg_of(&b->tr);
    cpu->gdtr.base = b->gdt_base;
    cpu->gdtr.limit = b->gdt_limit;
    cpu->cr0 = b->cr0;
    cpu->cr3 = b->cr3;
    cpu->cr4 = b->cr4;
    cpu->efer = b->efer;
    cpu->activity = CPU_ACTIVE;
    tlb_flush_all(cpu);
    cpu_update_mode(cpu);
}

int machine_boot(struct machine *m, struct err *e)
{
    if (m->pc->has_firmware) {
        return 0; /* the processors are at the reset vector */
    }
    if (m->kernel.fd < 0) { /* restored without */
        return err_set(e, -ENOENT, "the kernel that was booted once is not there any more");
    }
    uint32_t ids[MACHINE_MAX_CPUS];
    struct boot_machine board = { .cpus = m->cpu_count, .apic_ids = ids };
    for (unsigned i = 0; i < m->cpu_count; i++) {
        ids[i] = m->cpus[i]->apic_id;
        m->cpus[i]->mtrr_def_type = MTRR_WRITE_BACK;
    }
    pc_firmware_setup(m->pc);
    pc_describe(m->pc, &board);
    struct boot_params params = {
        .kernel = &m->kernel,
        .modules = m->modules,
        .module_count = m->module_count,
        .cmdline = m->append,
        .no_long_mode = !cpu_has(&m->model.features, CPU_FEATURE_LM),
        .machine = &board,
    };
    int r = boot_wanted_screen(&m->kernel, &params.screen, e);
    if (r < 0) {
        return r;
    }
    firmware_set_screen(m->pc, r > 0, &params.screen);
    struct boot_cpu start = { 0 };
    r = boot_load(m->mem, &params, &start, e);
    if (r < 0) {
        return r;
    }
    start_processor(m->cpus[0], &start);
    return 0;
}
