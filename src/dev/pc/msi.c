/* SPDX-License-Identifier: Apache-2.0
 *
 * Address and data of an MSI, SDM 3 11.11.1 and 11.11.2. The destination mode counts whether or not
 * the redirection hint is set, as in chipsets.
 */
#include "dev/pc/msi.h"

#include "base/bits.h"
#include "base/log.h"
#include "dev/pc/apic_bus.h"

#define MSI_BASE 0xfee00000u
#define MSI_BASE_MASK 0xfffffffffff00000ull

enum msi_address { MSI_LOGICAL = 1u << 2, MSI_REDIRECT = 1u << 3 };
enum msi_data { MSI_ASSERT = 1u << 14, MSI_LEVEL = 1u << 15 };

void msi_send(void *ctx, uint64_t address, uint32_t data)
{
    struct apic_bus *a = ctx;
    if ((address & MSI_BASE_MASK) != MSI_BASE) {
        log_guest("msi", "address %#llx is no interrupt", (unsigned long long)address);
        return;
    }
    if ((data & MSI_LEVEL) && !(data & MSI_ASSERT)) {
        return; /* the end of a level: there is nothing to take back */
    }
    struct apic_msg m = {
        .delivery = data >> 8 & 7,
        .vector = (uint8_t)data,
        .level = data & MSI_LEVEL,
    };
    apic_msg_set_dest8(&m, (uint8_t)(address >> 12), address & MSI_LOGICAL);
    if (m.delivery == APIC_FIXED && (address & MSI_LOGICAL) && (address & MSI_REDIRECT)) {
        m.delivery = APIC_LOWEST;
    }
    if (m.delivery == APIC_SIPI || m.delivery == 3) {
        log_guest("msi", "reserved delivery mode %u", m.delivery);
        return;
    }
    apic_bus_deliver(a, &m, NULL);
}

void msi_compose(const struct apic_msg *m, uint64_t *address, uint32_t *data)
{
    uint32_t dest = m->broadcast ? 0xff : m->dest;
    *address = MSI_BASE | (uint64_t)(dest & 0xff) << 12 | (uint64_t)(dest >> 8) << 40 |
               (m->logical ? MSI_LOGICAL : 0) | (m->delivery == APIC_LOWEST ? MSI_REDIRECT : 0);
    *data = m->vector | (uint32_t)m->delivery << 8 | MSI_ASSERT | (m->level ? MSI_LEVEL : 0);
}
