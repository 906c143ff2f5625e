/* SPDX-License-Identifier: Apache-2.0 */
#include "machine/config.h"

#include <errno.h>

#include "mem/gmem.h"

int machine_config_check(const struct machine_config *c, struct err *e)
{
    if (c->cpus < 1 || c->cpus > MACHINE_MAX_CPUS) {
        return err_set(e, -EINVAL, "%u processors: 1 to %u are possible", c->cpus,
                       MACHINE_MAX_CPUS);
    }
    if (c->memory_bytes < MACHINE_MIN_MEMORY) {
        return err_set(e, -EINVAL, "%llu bytes of memory: 1M is the least",
                       (unsigned long long)c->memory_bytes);
    }
    if (c->memory_bytes > GMEM_RAM_MAX) {
        return err_set(e, -EINVAL, "%llu bytes of memory: %lluG is the most",
                       (unsigned long long)c->memory_bytes, GMEM_RAM_MAX >> 30);
    }
    if (c->memory_bytes % GMEM_PAGE_SIZE != 0) {
        return err_set(e, -EINVAL, "%llu bytes of memory: not a multiple of 4096",
                       (unsigned long long)c->memory_bytes);
    }
    if (c->exit_port < -1 || c->exit_port > 0xfffc) {
        return err_set(e, -EINVAL, "exit port %#x: 0 to 0xfffc are possible",
                       (unsigned)c->exit_port);
    }
    if (c->kernel == NULL && c->initrd != NULL) {
        return err_set(e, -EINVAL, "an initrd goes with a kernel, and there is none");
    }
    if (c->disk_count > MACHINE_DISKS_MAX) {
        return err_set(e, -EINVAL, "%u disks: %u are possible", c->disk_count, MACHINE_DISKS_MAX);
    }
    if (c->nic_count > MACHINE_NICS_MAX) {
        return err_set(e, -EINVAL, "%u network cards: %u are possible", c->nic_count,
                       MACHINE_NICS_MAX);
    }
    if (c->console_count > MACHINE_CONSOLES_MAX) {
        return err_set(e, -EINVAL, "%u consoles: %u are possible", c->console_count,
                       MACHINE_CONSOLES_MAX);
    }
    if (c->vsock != NULL && c->vsock_cid < 3) {
        return err_set(e, -EINVAL, "vsock: CIDs of guests begin at 3");
    }
    for (unsigned i = 0; i < MACHINE_SERIAL_PORTS; i++) {
        enum serial_kind kind = c->serial[i].kind;
        if ((kind == SERIAL_FILE || kind == SERIAL_UNIX) && c->serial[i].path == NULL) {
            return err_set(e, -EINVAL, "serial port %u: no path", i);
        }
        if (kind > SERIAL_PTY) {
            return err_set(e, -EINVAL, "serial port %u: unknown kind", i);
        }
    }
    return 0;
}
