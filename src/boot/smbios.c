/* SPDX-License-Identifier: Apache-2.0
 *
 * What the machine is called (DSP0134 3.0): structures of types 0, 1, 3, 4, 16, 17, 19, 32, 127,
 * found by both entry points.
 */
#include "boot/smbios.h"

#include <assert.h>
#include <stdbool.h>
#include <string.h>

#include "base/bits.h"
#include "base/bytes.h"
#include "boot/internal.h"
#include "boot/layout.h"

enum {
    ENTRY2_BYTES = 31,
    ENTRY3_BYTES = 24,
    ROOM = 2048, /* for all structures; a serial number is cut to 64 bytes */
    SERIAL_MAX = 64,
    STRINGS_MAX = 6,

    HANDLE_CHASSIS = 0x300,
    HANDLE_CPU = 0x400,
    HANDLE_ARRAY = 0x1000,
    HANDLE_MEMORY = 0x1100,
    NONE = 0xfffe, /* no handle of error information */
    UNKNOWN = 2,
    SAFE = 3,
};

struct writer {
    uint8_t *data;
    size_t len;
    size_t largest;
    unsigned count;
    /* The structure being written: */
    size_t start;
    const char *strings[STRINGS_MAX];
    unsigned string_count;
};

static uint8_t *begin(struct writer *w, unsigned type, unsigned len, unsigned handle)
{
    assert(w->len + len <= ROOM);
    uint8_t *p = w->data + w->len;
    w->start = w->len;
    w->len += len;
    w->string_count = 0;
    p[0] = (uint8_t)type;
    p[1] = (uint8_t)len;
    store_le16(p + 2, (uint16_t)handle);
    return p;
}

/* The number that the formatted part knows it by; an empty string is none. */
static uint8_t string(struct writer *w, const char *s)
{
    if (s == NULL || *s == '\0') {
        return 0;
    }
    assert(w->string_count < STRINGS_MAX);
    w->strings[w->string_count++] = s;
    return (uint8_t)w->string_count;
}

static void end(struct writer *w)
{
    for (unsigned i = 0; i < w->string_count; i++) {
        size_t n = strnlen(w->strings[i], SERIAL_MAX);
        assert(w->len + n + 3 <= ROOM);
        memcpy(w->data + w->len, w->strings[i], n);
        w->len += n + 1;
    }
    w->len += w->string_count == 0 ? 2 : 1;
    assert(w->len <= ROOM);
    w->count++;
    if (w->len - w->start > w->largest) {
        w->largest = w->len - w->start;
    }
}

static void identity(struct writer *w, const struct boot_machine *m)
{
    uint8_t *p = begin(w, 0, 0x18, 0); /* BIOS */
    p[4] = string(w, BOOT_NAME);
    p[5] = string(w, "1");
    p[8] = string(w, "01/01/2026");
    store_le16(p + 6, 0xe000);
    store_le64(p + 0xa, BIT(3)); /* characteristics are not supported */
    p[0x13] = 0x10;              /* a virtual machine */
    p[0x14] = 1;
    p[0x16] = p[0x17] = 0xff; /* no embedded controller */
    end(w);

    p = begin(w, 1, 0x1b, 0x100); /* system */
    p[4] = string(w, BOOT_NAME);
    p[5] = string(w, "PC (i440FX)");
    p[6] = string(w, "1");
    p[7] = string(w, m->serial_number);
    memcpy(p + 8, m->uuid, sizeof m->uuid);
    p[0x18] = 6; /* woken by the power switch */
    end(w);

    p = begin(w, 3, 0x16, HANDLE_CHASSIS);
    p[4] = string(w, BOOT_NAME);
    p[5] = 1; /* other */
    p[9] = p[0xa] = p[0xb] = SAFE;
    p[0xc] = UNKNOWN;
    end(w);
}

static void processor(struct writer *w, const struct boot_machine *m)
{
    uint8_t *p = begin(w, 4, 0x30, HANDLE_CPU);
    unsigned few = m->cpus < 0xff ? m->cpus : 0xff;
    p[4] = string(w, "CPU 0");
    p[5] = 3; /* central processor */
    p[6] = 1; /* family: other */
    p[7] = string(w, BOOT_NAME);
    p[0x18] = 0x41; /* populated, enabled */
    p[0x19] = 1;
    store_le16(p + 0x1a, 0xffff); /* no cache information */
    store_le16(p + 0x1c, 0xffff);
    store_le16(p + 0x1e, 0xffff);
    p[0x23] = p[0x24] = p[0x25] = (uint8_t)few; /* cores, enabled, threads */
    store_le16(p + 0x26, UNKNOWN);
    store_le16(p + 0x28, 1);
    store_le16(p + 0x2a, (uint16_t)m->cpus);
    store_le16(p + 0x2c, (uint16_t)m->cpus);
    store_le16(p + 0x2e, (uint16_t)m->cpus);
    end(w);
}

static void mapped(struct writer *w, unsigned handle, uint64_t start, uint64_t last)
{
    uint8_t *p = begin(w, 19, 0x1f, handle);
    bool wide = last / 1024 >= UINT32_MAX;
    store_le32(p + 4, wide ? UINT32_MAX : (uint32_t)(start / 1024));
    store_le32(p + 8, wide ? UINT32_MAX : (uint32_t)(last / 1024));
    store_le16(p + 0xc, HANDLE_ARRAY);
    p[0xe] = 1;
    store_le64(p + 0xf, wide ? start : 0);
    store_le64(p + 0x17, wide ? last : 0);
    end(w);
}

static void memory(struct writer *w, uint64_t low, uint64_t ram)
{
    uint64_t kib = ram / 1024, mib = ram / MIB(1);
    uint8_t *p = begin(w, 16, 0x17, HANDLE_ARRAY);
    p[4] = 3; /* on the system board, for the system */
    p[5] = 3;
    p[6] = SAFE;
    bool wide = kib >= BIT(31);
    store_le32(p + 7, wide ? 0x80000000u : (uint32_t)kib);
    store_le16(p + 0xb, NONE);
    store_le16(p + 0xd, 1);
    store_le64(p + 0xf, wide ? ram : 0);
    end(w);

    p = begin(w, 17, 0x28, HANDLE_MEMORY);
    store_le16(p + 4, HANDLE_ARRAY);
    store_le16(p + 6, NONE);
    store_le16(p + 8, 0xffff); /* widths unknown */
    store_le16(p + 0xa, 0xffff);
    store_le16(p + 0xc, mib < 0x7fff ? (uint16_t)mib : 0x7fff);
    p[0xe] = 9; /* DIMM */
    p[0x10] = string(w, "DIMM 0");
    p[0x12] = 7; /* RAM */
    store_le16(p + 0x13, 2);
    p[0x17] = string(w, BOOT_NAME);
    store_le32(p + 0x1c, mib < 0x7fff ? 0 : (uint32_t)mib);
    end(w);

    mapped(w, 0x1300, 0, low - 1);
    if (ram > low) {
        mapped(w, 0x1301, LAYOUT_4G, LAYOUT_4G + (ram - low) - 1);
    }
}

/* 5.2.1 and 5.2.2 */
static void entry_points(uint8_t *v2, uint8_t *v3, const struct writer *w, uint64_t at)
{
    memcpy(v2, "_SM_", 4);
    v2[5] = ENTRY2_BYTES;
    v2[6] = 2;
    v2[7] = 8;
    store_le16(v2 + 8, (uint16_t)w->largest);
    memcpy(v2 + 16, "_DMI_", 5);
    store_le16(v2 + 22, (uint16_t)w->len);
    store_le32(v2 + 24, (uint32_t)at);
    store_le16(v2 + 28, (uint16_t)w->count);
    v2[30] = 0x28;
    v2[21] = table_checksum(v2 + 16, 15);
    v2[4] = table_checksum(v2, ENTRY2_BYTES);

    memcpy(v3, "_SM3_", 5);
    v3[6] = ENTRY3_BYTES;
    v3[7] = 3;
    v3[10] = 1;
    store_le32(v3 + 12, (uint32_t)w->len);
    store_le64(v3 + 16, at);
    v3[5] = table_checksum(v3, ENTRY3_BYTES);
}

void smbios_build(struct tablebuf *t, const struct boot_machine *m, uint64_t ram_below_4g,
                  uint64_t ram)
{
    uint64_t v2_at, v3_at, at;
    uint8_t *v2 = tablebuf_take(t, ENTRY2_BYTES, 16, &v2_at);
    uint8_t *v3 = tablebuf_take(t, ENTRY3_BYTES, 16, &v3_at);
    struct writer w = { .data = tablebuf_take(t, ROOM, 16, &at) };
    identity(&w, m);
    processor(&w, m);
    memory(&w, ram_below_4g, ram);
    begin(&w, 32, 0xb, 0x2000); /* boot: no errors detected */
    end(&w);
    begin(&w, 127, 4, 0x7f00);
    end(&w);
    entry_points(v2, v3, &w, at);
}
