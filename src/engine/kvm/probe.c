/* SPDX-License-Identifier: Apache-2.0
 *
 * What Linux KVM offers here, and what is missing and how to get it.
 */
#include <cpuid.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/bits.h"
#include "engine/kvm/kvm.h"

#define CPUID_1_ECX_VMX (1u << 5)
#define CPUID_1_ECX_HYPERVISOR (1u << 31)
#define CPUID_80000001_ECX_SVM (1u << 2)

/* Linux 5.14 has them all. */
static const struct {
    unsigned cap;
    const char *name;
} required[] = {
    { KVM_CAP_USER_MEMORY, "KVM_CAP_USER_MEMORY" },
    { KVM_CAP_READONLY_MEM, "KVM_CAP_READONLY_MEM" },
    { KVM_CAP_IMMEDIATE_EXIT, "KVM_CAP_IMMEDIATE_EXIT" },
    { KVM_CAP_SET_TSS_ADDR, "KVM_CAP_SET_TSS_ADDR" },
    { KVM_CAP_SET_IDENTITY_MAP_ADDR, "KVM_CAP_SET_IDENTITY_MAP_ADDR" },
    { KVM_CAP_EXT_CPUID, "KVM_CAP_EXT_CPUID" },
    { KVM_CAP_VCPU_EVENTS, "KVM_CAP_VCPU_EVENTS" },
    { KVM_CAP_DEBUGREGS, "KVM_CAP_DEBUGREGS" },
    { KVM_CAP_XSAVE, "KVM_CAP_XSAVE" },
    { KVM_CAP_XCRS, "KVM_CAP_XCRS" },
    { KVM_CAP_SREGS2, "KVM_CAP_SREGS2" },
    { KVM_CAP_X86_USER_SPACE_MSR, "KVM_CAP_X86_USER_SPACE_MSR" },
    { KVM_CAP_X86_MSR_FILTER, "KVM_CAP_X86_MSR_FILTER" },
};

/* Does the processor have what KVM needs, or is the device a software one (a host that is a guest
 * of an emulating hypervisor, where unmodified guests crawl)? */
bool kvm_hardware(void)
{
    unsigned a = 0, b = 0, c = 0, d = 0;
    if (__get_cpuid(1, &a, &b, &c, &d) && (c & CPUID_1_ECX_VMX)) {
        return true;
    }
    return __get_cpuid(0x80000001, &a, &b, &c, &d) && (c & CPUID_80000001_ECX_SVM);
}

static bool nested(void)
{
    unsigned a = 0, b = 0, c = 0, d = 0;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & CPUID_1_ECX_HYPERVISOR);
}

static int open_device(struct err *e)
{
    int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (fd >= 0) {
        return fd;
    }
    int r = -errno;
    if (r == -ENOENT || r == -ENXIO || r == -ENODEV) {
        return err_set(e, r, "there is no /dev/kvm: %s",
                       kvm_hardware() ? "load kvm_intel or kvm_amd, or pass the device in"
                       : nested()     ? "this host is a virtual machine without nested "
                                        "virtualization: have it switched on outside"
                                      : "this processor shows neither VT-x nor SVM: switch it on "
                                        "in the firmware");
    }
    return err_set(e, r, "/dev/kvm cannot be opened: %s%s", strerror(-r),
                   r == -EACCES ? " (be a member of its group, usually kvm)" : "");
}

static int check(int fd, struct kvm_caps *caps, struct err *e)
{
    int version = ioctl(fd, KVM_GET_API_VERSION, 0);
    if (version != KVM_API_VERSION) {
        return err_set(e, -ENOTSUP, "/dev/kvm speaks API version %d, not %d", version,
                       KVM_API_VERSION);
    }
    for (unsigned i = 0; i < ARRAY_LEN(required); i++) {
        if (ioctl(fd, KVM_CHECK_EXTENSION, (unsigned long)required[i].cap) <= 0) {
            return err_set(e, -ENOTSUP, "/dev/kvm lacks %s: take a kernel from Linux 5.14 on",
                           required[i].name);
        }
    }
    int run_bytes = ioctl(fd, KVM_GET_VCPU_MMAP_SIZE, 0);
    int xsave = ioctl(fd, KVM_CHECK_EXTENSION, (unsigned long)KVM_CAP_XSAVE2);
    int page = ioctl(fd, KVM_CHECK_EXTENSION, (unsigned long)KVM_CAP_COALESCED_MMIO);
    if (run_bytes < (int)sizeof(struct kvm_run)) {
        return err_set(e, -ENOTSUP, "/dev/kvm: kvm_run of %d bytes", run_bytes);
    }
    /* More only with AMX, which a process must ask for, and this one does not. */
    if (xsave > (int)KVM_XSAVE_BYTES) {
        return err_set(e, -ENOTSUP, "/dev/kvm: vector state of %d bytes", xsave);
    }
    caps->coalesced_ports =
        ioctl(fd, KVM_CHECK_EXTENSION, (unsigned long)KVM_CAP_COALESCED_PIO) > 0;
    caps->run_bytes = (size_t)run_bytes;
    caps->xsave_bytes = xsave > 0 ? (size_t)xsave : 0;
    caps->coalesced_page = page > 0 ? (unsigned)page : 0;
    return 0;
}

int kvm_open(int *dev_fd, struct kvm_caps *caps, struct err *e)
{
    int fd = open_device(e);
    if (fd < 0) {
        return fd;
    }
    int r = check(fd, caps, e);
    if (r < 0) {
        close(fd);
        return r;
    }
    *dev_fd = fd;
    return 0;
}

void kvm_engine_probe(struct engine_probe *out)
{
    struct kvm_caps caps;
    struct err e;
    int fd;
    out->usable = kvm_open(&fd, &caps, &e) == 0;
    out->slow = false;
    out->unsure = true;
    if (!out->usable) {
        snprintf(out->text, sizeof out->text, "%.255s", e.msg);
        return;
    }
    close(fd);
    out->slow = !kvm_hardware();
    snprintf(out->text, sizeof out->text, "%s",
             out->slow ? "/dev/kvm is there, but the processor shows neither VT-x nor SVM: guest "
                         "code is emulated one instruction at a time"
             : nested() ? "Linux KVM, nested: this host is a virtual machine itself"
                        : "Linux KVM on this processor");
}
