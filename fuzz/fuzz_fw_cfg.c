/* SPDX-License-Identifier: Apache-2.0
 *
 * Fuzz target: fw_cfg in a machine with little memory: ports, and DMA requests that the guest
 * writes where it likes. The first byte of what is left of the input says what to do next.
 */
// LAYERS: dev/pc bus mem state base
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/bytes.h"
#include "bus/bus.h"
#include "dev/pc/fw_cfg.h"

#define RAM KIB(64)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(int r)
{
    if (r < 0) {
        abort();
    }
}

static void request(struct bus *b, struct gmem *mem, const uint8_t *d)
{
    uint64_t at = load_le64(d) >> (d[7] & 63);
    uint8_t rq[16];
    memcpy(rq, d + 8, sizeof rq);
    rq[0] &= 0x80; /* keys that exist */
    rq[1] &= 0x3f;
    if (d[6] & 1) {
        store_be64(rq + 8, load_be64(rq + 8) >> (d[5] & 63)); /* and addresses */
    }
    int r = gmem_write(mem, at, rq, sizeof rq);
    (void)r; /* a request outside RAM is what it is */
    bus_port_write(b, 0x514, 4, __builtin_bswap32((uint32_t)(at >> 32)));
    bus_port_write(b, 0x518, 4, __builtin_bswap32((uint32_t)at));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct gmem *mem;
    struct fw_cfg cfg;
    struct err e;
    check(gmem_new(&mem, RAM, 0xc0000000, &e));
    struct bus *b = bus_new(mem);
    fw_cfg_init(&cfg, b);
    fw_cfg_set_u16(&cfg, FW_CFG_NB_CPUS, 1);
    check(fw_cfg_add_file(&cfg, "etc/read", "0123456789", 10));
    check(fw_cfg_add_writable(&cfg, "etc/write", NULL, 100));
    check(fw_cfg_add_writable(&cfg, "etc/write2", NULL, 8));
    for (; size >= 25; data += 25, size -= 25) {
        switch (data[0] & 3) {
        case 0:
            bus_port_write(b, 0x510, 2, load_le16(data + 1));
            break;
        case 1:
            bus_port_read(b, (uint16_t)(0x510 + data[1] % 12), 1u << data[2] % 3);
            break;
        case 2:
            bus_port_write(b, (uint16_t)(0x510 + data[1] % 12), 1u << data[2] % 3,
                           load_le32(data + 3));
            break;
        default:
            request(b, mem, data + 1);
            break;
        }
    }
    fw_cfg_fini(&cfg);
    bus_free(b);
    gmem_free(mem);
    return 0;
}
