/* SPDX-License-Identifier: Apache-2.0
 *
 * The kvm engine, as far as it is built: it looks what Linux KVM offers here and says so. Running
 * guests comes later, and until then it is never usable.
 */
#include <cpuid.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "engine/engine.h"

#define CPUID_1_ECX_VMX (1u << 5)
#define CPUID_80000001_ECX_SVM (1u << 2)

/* Does the processor have what KVM needs, or is the device a software one (a host that is a guest
 * of an emulating hypervisor, where unmodified guests crawl)? */
static bool hardware_behind(void)
{
    unsigned a = 0, b = 0, c = 0, d = 0;
    if (__get_cpuid(1, &a, &b, &c, &d) && (c & CPUID_1_ECX_VMX)) {
        return true;
    }
    return __get_cpuid(0x80000001, &a, &b, &c, &d) && (c & CPUID_80000001_ECX_SVM);
}

static void describe(char *text, size_t size)
{
    int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT) {
        snprintf(text, size, "there is no /dev/kvm: %s",
                 hardware_behind()
                     ? "load kvm_intel or kvm_amd, or pass the device in"
                     : "this processor shows neither VT-x nor SVM (a virtual machine without "
                       "nested virtualization, or switched off in the firmware)");
        return;
    }
    if (fd < 0) {
        snprintf(text, size, "/dev/kvm cannot be opened: %s%s", strerror(errno),
                 errno == EACCES ? " (be a member of its group, usually kvm)" : "");
        return;
    }
    int version = ioctl(fd, KVM_GET_API_VERSION, 0);
    close(fd);
    if (version != KVM_API_VERSION) {
        snprintf(text, size, "/dev/kvm speaks API version %d, not %d", version, KVM_API_VERSION);
    } else if (!hardware_behind()) {
        snprintf(text, size,
                 "/dev/kvm is there, but the processor shows neither VT-x nor SVM: guest code "
                 "would be emulated one instruction at a time");
    } else {
        snprintf(text, size, "the hardware is there; running guests on it is not built yet");
    }
}

static void kvm_probe(struct engine_probe *out)
{
    out->usable = false;
    describe(out->text, sizeof out->text);
}

const struct engine_class kvm_engine = {
    .name = "kvm",
    .probe = kvm_probe,
};
