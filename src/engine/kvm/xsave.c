/* SPDX-License-Identifier: Apache-2.0
 *
 * x87 and vector registers between struct cpu and the image of KVM_GET_XSAVE: XSAVE's
 * standard format (SDM 1 13.4.2). A component whose bit in XSTATE_BV is clear is in its initial
 * state, whatever the bytes say.
 */
#include <string.h>

#include "cpu/fpu.h"
#include "cpu/model.h"
#include "engine/kvm/kvm.h"

#define XMM_OFFSET 160u
#define XSTATE_BV_OFFSET 512u
#define X87_BYTES 160u
#define MXCSR_BYTES 8u /* with its mask */

/* The registers that a component holds a part of. */
struct part {
    unsigned component; /* 1: XMM, in the legacy region */
    unsigned first, count;
    unsigned from, bytes; /* of each register */
};
static const struct part parts[] = {
    { 1, 0, 16, 0, 16 },
    { 2, 0, 16, 16, 16 },
    { 6, 0, 16, 32, 32 },
    { 7, 16, 16, 0, 64 },
};
#define OPMASK 5u
#define PKRU 9u

static uint32_t offset_of(unsigned component)
{
    uint32_t offset = XMM_OFFSET;
    uint32_t size = 0;
    if (component > 1) {
        (void)cpu_xsave_component(component, &offset, &size);
    }
    return offset;
}

static bool has(const struct cpu *cpu, unsigned component)
{
    return component == 1 || (cpu->model->xcr0_mask >> component & 1);
}

static void get_legacy(struct cpu *cpu, const uint8_t *image, uint64_t present)
{
    if (present & XCOMP_X87) {
        memcpy(cpu->fpu.fx, image, FX_MXCSR);
        memcpy(cpu->fpu.fx + FX_ST, image + FX_ST, X87_BYTES - FX_ST);
    } else {
        memset(cpu->fpu.fx, 0, X87_BYTES);
        fpu_init_x87(cpu);
    }
    memcpy(cpu->fpu.fx + FX_MXCSR, image + FX_MXCSR, MXCSR_BYTES);
}

void kvm_xsave_get(struct cpu *cpu, const uint8_t *image)
{
    uint64_t present;
    memcpy(&present, image + XSTATE_BV_OFFSET, sizeof present);
    get_legacy(cpu, image, present);
    for (unsigned i = 0; i < ARRAY_LEN(parts); i++) {
        const struct part *p = &parts[i];
        const uint8_t *from = image + offset_of(p->component);
        bool zero = !has(cpu, p->component) || !(present >> p->component & 1);
        for (unsigned n = 0; n < p->count; n++) {
            uint8_t *to = cpu->fpu.zmm[p->first + n].u8 + p->from;
            if (zero) {
                memset(to, 0, p->bytes);
            } else {
                memcpy(to, from + n * p->bytes, p->bytes);
            }
        }
    }
    memset(cpu->fpu.k, 0, sizeof cpu->fpu.k);
    if (has(cpu, OPMASK) && (present >> OPMASK & 1)) {
        memcpy(cpu->fpu.k, image + offset_of(OPMASK), sizeof cpu->fpu.k);
    }
    cpu->pkru = 0;
    if (has(cpu, PKRU) && (present >> PKRU & 1)) {
        memcpy(&cpu->pkru, image + offset_of(PKRU), sizeof cpu->pkru);
    }
}

void kvm_xsave_put(const struct cpu *cpu, uint8_t *image)
{
    uint64_t present = XCOMP_X87 | XCOMP_SSE | (cpu->model->xcr0_mask & ~(XCOMP_X87 | XCOMP_SSE));
    memset(image, 0, KVM_XSAVE_BYTES);
    memcpy(image, cpu->fpu.fx, X87_BYTES);
    memcpy(image + XSTATE_BV_OFFSET, &present, sizeof present);
    for (unsigned i = 0; i < ARRAY_LEN(parts); i++) {
        const struct part *p = &parts[i];
        uint8_t *to = image + offset_of(p->component);
        for (unsigned n = 0; n < p->count && has(cpu, p->component); n++) {
            memcpy(to + n * p->bytes, cpu->fpu.zmm[p->first + n].u8 + p->from, p->bytes);
        }
    }
    if (has(cpu, OPMASK)) {
        memcpy(image + offset_of(OPMASK), cpu->fpu.k, sizeof cpu->fpu.k);
    }
    if (has(cpu, PKRU)) {
        memcpy(image + offset_of(PKRU), &cpu->pkru, sizeof cpu->pkru);
    }
}
