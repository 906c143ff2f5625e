/* SPDX-License-Identifier: Apache-2.0
 *
 * Message-signalled interrupts: MSI with 64-bit addresses and per-vector masking (PCI 3.0 6.8.1),
 * MSI-X (6.8.2).
 */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/bits.h"
#include "base/bytes.h"
#include "bus/pci.h"
#include "bus/pci_internal.h"

enum msi_reg {
    MSI_CONTROL = 2,
    MSI_ADDRESS = 4,
    MSI_DATA = 12,
    MSI_MASK = 16,
    MSI_PENDING = 20,
    MSI_SIZE = 24,
};
#define MSI_ENABLE 0x0001u
#define MSI_CAPABLE_SHIFT 1
#define MSI_ENABLED_SHIFT 4
#define MSI_64BIT 0x0080u
#define MSI_MASKING 0x0100u

enum msix_reg { MSIX_CONTROL = 2, MSIX_TABLE = 4, MSIX_PBA = 8, MSIX_SIZE = 12 };
#define MSIX_ENABLE 0x8000u
#define MSIX_FUNC_MASK 0x4000u
#define MSIX_ENTRY_BYTES 16u
#define MSIX_ENTRY_MASKED 1u
#define MSIX_BAR_MIN KIB(4)

/* -- MSI --------------------------------------------------------------------------------------- */
void pci_add_msi(struct pci_func *f, unsigned vectors)
{
    assert(is_pow2(vectors) && vectors <= 32 && f->msi_cap == 0);
    unsigned log2 = (unsigned)__builtin_ctz(vectors);
    uint8_t at = pci_add_cap(f, PCI_CAP_MSI, MSI_SIZE);
    f->msi_cap = at;
    store_le16(f->config + at + MSI_CONTROL,
               (uint16_t)(log2 << MSI_CAPABLE_SHIFT | MSI_64BIT | MSI_MASKING));
    store_le16(f->writable + at + MSI_CONTROL, MSI_ENABLE | 7u << MSI_ENABLED_SHIFT);
    store_le64(f->writable + at + MSI_ADDRESS, ~3ull);
    store_le16(f->writable + at + MSI_DATA, 0xffff);
    store_le32(f->writable + at + MSI_MASK, (uint32_t)MASK64(vectors));
}

bool pci_msi_enabled(const struct pci_func *f)
{
    return f->msi_cap != 0 && (f->config[f->msi_cap + MSI_CONTROL] & MSI_ENABLE);
}

/* log2 of the vectors that the guest allotted, never more than the function asked for. */
static unsigned msi_allotted(const struct pci_func *f)
{
    unsigned control = load_le16(f->config + f->msi_cap + MSI_CONTROL);
    unsigned capable = control >> MSI_CAPABLE_SHIFT & 7;
    unsigned enabled = control >> MSI_ENABLED_SHIFT & 7;
    unsigned log2 = enabled < capable ? enabled : capable;
    return log2 < 5 ? log2 : 5;
}

static void msi_send(struct pci_func *f, unsigned vector)
{
    const uint8_t *cap = f->config + f->msi_cap;
    uint32_t data = load_le16(cap + MSI_DATA);
    data = (data & ~(uint32_t)MASK64(msi_allotted(f))) | vector;
    pci_send_msi(f, load_le64(cap + MSI_ADDRESS), data);
}

void pci_msi_notify(struct pci_func *f, unsigned vector)
{
    if (!pci_msi_enabled(f)) {
        return;
    }
    vector &= (uint32_t)MASK64(msi_allotted(f)); /* fewer allotted: they share */
    uint8_t *cap = f->config + f->msi_cap;
    if (load_le32(cap + MSI_MASK) >> vector & 1) {
        store_le32(cap + MSI_PENDING, load_le32(cap + MSI_PENDING) | 1u << vector);
    } else {
        msi_send(f, vector);
    }
}

static void msi_deliver_pending(struct pci_func *f)
{
    uint8_t *cap = f->config + f->msi_cap;
    uint32_t ready = load_le32(cap + MSI_PENDING) & ~load_le32(cap + MSI_MASK);
    ready &= (uint32_t)MASK64(1u << msi_allotted(f));
    if (!pci_msi_enabled(f) || ready == 0) {
        return;
    }
    store_le32(cap + MSI_PENDING, load_le32(cap + MSI_PENDING) & ~ready);
    for (; ready != 0; ready &= ready - 1) {
        msi_send(f, (unsigned)__builtin_ctz(ready));
    }
}

/* -- MSI-X ------------------------------------------------------------------------------------- */
static unsigned msix_control(const struct pci_msix *x)
{
    return load_le16(x->func->config + x->cap + MSIX_CONTROL);
}

bool pci_msix_enabled(const struct pci_func *f)
{
    return f->msix != NULL && (msix_control(f->msix) & MSIX_ENABLE);
}

static bool msix_masked(const struct pci_msix *x, unsigned vector)
{
    return (msix_control(x) & MSIX_FUNC_MASK) || (x->table[4 * vector + 3] & MSIX_ENTRY_MASKED);
}

static void msix_send(struct pci_msix *x, unsigned vector)
{
    const uint32_t *entry = &x->table[4 * vector];
    pci_send_msi(x->func, (uint64_t)entry[1] << 32 | entry[0], entry[2]);
}

void pci_msix_notify(struct pci_func *f, unsigned vector)
{
    struct pci_msix *x = f->msix;
    if (!pci_msix_enabled(f) || vector >= x->vectors) {
        return;
    }
    if (msix_masked(x, vector)) {
        x->pending[vector / 64] |= BIT(vector % 64);
    } else {
        msix_send(x, vector);
    }
}

static void msix_deliver(struct pci_msix *x, unsigned vector)
{
    uint64_t bit = BIT(vector % 64);
    if ((x->pending[vector / 64] & bit) && pci_msix_enabled(x->func) && !msix_masked(x, vector)) {
        x->pending[vector / 64] &= ~bit;
        msix_send(x, vector);
    }
}

uint32_t pci_msix_table_read(const struct pci_msix *x, uint64_t offset)
{
    return offset < (uint64_t)x->vectors * MSIX_ENTRY_BYTES ? x->table[offset / 4] : 0;
}

void pci_msix_table_write(struct pci_msix *x, uint64_t offset, uint32_t value)
{
    if (offset >= (uint64_t)x->vectors * MSIX_ENTRY_BYTES) {
        return;
    }
    unsigned word = (unsigned)(offset / 4);
    switch (word % 4) {
    case 0:
        value &= ~3u; /* the address is a dword's */
        break;
    case 3:
        value &= MSIX_ENTRY_MASKED;
        break;
    default:
        break;
    }
    x->table[word] = value;
    msix_deliver(x, word / 4);
}

uint32_t pci_msix_pba_read(const struct pci_msix *x, uint64_t offset)
{
    if (offset >= sizeof x->pending) {
        return 0;
    }
    return (uint32_t)(x->pending[offset / 8] >> 8 * (offset & 4));
}

/* The BAR of a function that has it for MSI-X alone. */
static uint32_t own_bar_pba_offset(const struct pci_msix *x)
{
    return (uint32_t)align_up(x->vectors * MSIX_ENTRY_BYTES, 8);
}

static uint64_t own_bar_read(void *dev, uint64_t offset, unsigned size)
{
    const struct pci_msix *x = dev;
    (void)size;
    uint32_t pba = own_bar_pba_offset(x);
    return offset < pba ? pci_msix_table_read(x, offset) : pci_msix_pba_read(x, offset - pba);
}

static void own_bar_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
    (void)size;
    pci_msix_table_write(dev, offset, (uint32_t)value);
}

static const struct region_ops own_bar_ops = {
    .read = own_bar_read,
    .write = own_bar_write,
    .sizes = ACCESS_4,
};

static void msix_reset(struct pci_msix *x)
{
    memset(x->table, 0, sizeof x->table);
    memset(x->pending, 0, sizeof x->pending);
    for (unsigned v = 0; v < PCI_MSIX_MAX; v++) {
        x->table[4 * v + 3] = MSIX_ENTRY_MASKED;
    }
}

void pci_add_msix_shared(struct pci_func *f, struct pci_msix *x, unsigned vectors, unsigned n,
                         uint32_t table_offset, uint32_t pba_offset)
{
    assert(f->msix == NULL && vectors >= 1 && vectors <= PCI_MSIX_MAX);
    assert(n < PCI_BAR_COUNT && table_offset % 8 == 0 && pba_offset % 8 == 0);
    x->func = f;
    x->vectors = (uint16_t)vectors;
    x->cap = pci_add_cap(f, PCI_CAP_MSIX, MSIX_SIZE);
    store_le16(f->config + x->cap + MSIX_CONTROL, (uint16_t)(vectors - 1));
    store_le16(f->writable + x->cap + MSIX_CONTROL, MSIX_ENABLE | MSIX_FUNC_MASK);
    store_le32(f->config + x->cap + MSIX_TABLE, table_offset | n);
    store_le32(f->config + x->cap + MSIX_PBA, pba_offset | n);
    msix_reset(x);
    f->msix = x;
}

void pci_add_msix(struct pci_func *f, struct pci_msix *x, unsigned vectors, unsigned n)
{
    x->vectors = (uint16_t)vectors;
    uint32_t pba = own_bar_pba_offset(x);
    pci_add_msix_shared(f, x, vectors, n, 0, pba);
    uint64_t size = MSIX_BAR_MIN;
    while (size < pba + sizeof x->pending) {
        size *= 2;
    }
    pci_add_bar(f, n, PCI_BAR_MEM32, size, &own_bar_ops, x);
}

const struct state_field pci_msix_state[] = {
    STATE_ARRAY(struct pci_msix, table),
    STATE_ARRAY(struct pci_msix, pending),
    STATE_END,
};

/* -- Both -------------------------------------------------------------------------------------- */
bool pci_notify(struct pci_func *f, unsigned vector)
{
    if (pci_msix_enabled(f)) {
        pci_msix_notify(f, vector);
        return true;
    }
    if (pci_msi_enabled(f)) {
        pci_msi_notify(f, vector);
        return true;
    }
    return false;
}

static bool touches(unsigned offset, unsigned size, unsigned reg, unsigned reg_size)
{
    return offset < reg + reg_size && reg < offset + size;
}

void pci_msi_config_written(struct pci_func *f, unsigned offset, unsigned size)
{
    if (f->msi_cap != 0 && touches(offset, size, f->msi_cap, MSI_SIZE)) {
        msi_deliver_pending(f);
    }
    struct pci_msix *x = f->msix;
    if (x != NULL && touches(offset, size, x->cap, MSIX_SIZE)) {
        for (unsigned v = 0; v < x->vectors; v++) {
            msix_deliver(x, v);
        }
    }
}

void pci_msi_reset(struct pci_func *f)
{
    if (f->msi_cap != 0) {
        store_le32(f->config + f->msi_cap + MSI_PENDING, 0);
    }
    if (f->msix != NULL) {
        msix_reset(f->msix);
    }
}

int pci_msi_post_load(struct pci_func *f, struct err *e)
{
    const struct pci_msix *x = f->msix;
    if (x == NULL) {
        return 0;
    }
    if ((msix_control(x) & 0x7ff) + 1u != x->vectors) {
        return err_set(e, -EINVAL, "state has another number of MSI-X vectors than %u", x->vectors);
    }
    for (unsigned v = 0; v < PCI_MSIX_MAX; v++) {
        if ((x->table[4 * v] & 3) != 0 || x->table[4 * v + 3] > MSIX_ENTRY_MASKED) {
            return err_set(e, -EINVAL, "state has a malformed MSI-X entry %u", v);
        }
        if (v >= x->vectors && (x->pending[v / 64] & BIT(v % 64))) {
            return err_set(e, -EINVAL, "state has a pending MSI-X vector %u of %u", v, x->vectors);
        }
    }
    return 0;
}
