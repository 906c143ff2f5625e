/* SPDX-License-Identifier: Apache-2.0
 *
 * Binary translation with two vCPUs on two threads that share translations: locked instructions,
 * code of the other changed while it runs, a code cache that is thrown away all the time.
 */
// LAYERS: engine/bt engine cpu mem state base
#include "support/test.h"

#include <pthread.h>
#include <string.h>

#include "base/bits.h"
#include "support/vm.h"

#define CODE(name, text)                                                                           \
    __asm__(".pushsection .rodata\n" #name "_code:\n" text "\n" #name "_code_end:\n"               \
            ".code64\n.popsection\n");                                                             \
    extern const uint8_t name##_code[], name##_code_end[]
#define LOAD(vm, at, name) vm_poke(vm, at, name##_code, (size_t)(name##_code_end - name##_code))

static int set_up(void **state)
{
    *state = vm_new(2, &bt_engine);
    return 0;
}

static int set_up_tiny(void **state)
{
    *state = vm_new_config(2, &bt_engine, &(struct engine_config){ .code_cache_bytes = MIB(1) });
    return 0;
}

static int tear_down(void **state)
{
    vm_free(*state);
    return 0;
}

struct runner {
    struct vm *vm;
    unsigned index;
    pthread_t thread;
    enum engine_exit exit;
};

static void *run_vcpu(void *arg)
{
    struct runner *r = arg;
    r->exit = vm_run(r->vm, r->index);
    return NULL;
}

static void run_both(struct vm *vm)
{
    struct runner r[2] = { { .vm = vm, .index = 0 }, { .vm = vm, .index = 1 } };
    for (unsigned i = 0; i < 2; i++) {
        pthread_create(&r[i].thread, NULL, run_vcpu, &r[i]);
    }
    for (unsigned i = 0; i < 2; i++) {
        pthread_join(r[i].thread, NULL);
        assert_int_equal(r[i].exit, ENGINE_EXIT_HALT);
        assert_int_equal(vm_vector(vm, i), -1);
    }
}

/* -- Locked instructions ----------------------------------------------------------------------- */
CODE(counting, "mov $200000, %ecx\n 1: lock incq (%rsi)\n lock xadd %rax, 8(%rsi)\n"
               "2: mov (%rdi), %rax\n lea 1(%rax), %rdx\n lock cmpxchg %rdx, (%rdi)\n jnz 2b\n"
               "mov $1, %eax\n dec %ecx\n jnz 1b\n hlt");

static void count_at(struct vm *vm, uint64_t at)
{
    uint64_t v[3] = { 0 };
    vm_poke(vm, at, v, 8);
    vm_poke(vm, 0x210000, v, 24);
    for (unsigned i = 0; i < 2; i++) {
        vm_mode(vm, i, 64);
        vm->cpu[i]->gpr[R_SI] = 0x210000;
        vm->cpu[i]->gpr[R_DI] = at;
        vm->cpu[i]->gpr[R_AX] = 1;
    }
    LOAD(vm, VM_CODE, counting);
    run_both(vm);
    memcpy(v, vm->ram + 0x210000, 16);
    memcpy(v + 2, vm->ram + at, 8);
    assert_int_equal(v[0], 400000);
    assert_int_equal(v[1], 400000);
    assert_int_equal(v[2], 400000);
}

static void atomics(void **state) { count_at(*state, 0x220000); }
static void atomics_over_lines(void **state) { count_at(*state, 0x22003c); }

/* Across pages: one vCPU alone at a time; less often, for it is slow. */
CODE(crossing, "mov $3000, %ecx\n 1: lock incq 0x220ffc\n dec %ecx\n jnz 1b\n hlt");

static void atomics_over_pages(void **state)
{
    struct vm *vm = *state;
    uint64_t v = 0;
    vm_poke(vm, 0x220ffc, &v, 8);
    vm_mode(vm, 0, 64);
    vm_mode(vm, 1, 64);
    LOAD(vm, VM_CODE, crossing);
    run_both(vm);
    memcpy(&v, vm->ram + 0x220ffc, 8);
    assert_int_equal(v, 6000);
}

/* -- Code of the other ------------------------------------------------------------------------- */
CODE(waiting, "1: mov $0, %eax\n test %eax, %eax\n jz 1b\n hlt");
CODE(patching, "mov $3000000, %ecx\n 1: dec %ecx\n jnz 1b\n movl $0x1234, 0x10001\n hlt");

static void cross_modifies(void **state)
{
    struct vm *vm = *state;
    for (unsigned i = 0; i < 10; i++) {
        vm_mode(vm, 0, 64);
        vm_mode(vm, 1, 64);
        LOAD(vm, VM_CODE, waiting);
        LOAD(vm, 0x20000, patching);
        vm->cpu[1]->rip = 0x20000;
        if (i & 1) { /* have it writable in the TLB of vCPU 1 already */
            cpu_write(vm->cpu[1], SEG_DS, 0x10800, 4, 0);
        }
        run_both(vm);
        assert_int_equal(vm->cpu[0]->gpr[R_AX], 0x1234);
    }
}

/* vCPU 1 raises the constant that vCPU 0 returns, thousands of times: vCPU 0 never sees it fall,
 * and sees the last one. vCPU 1 waits until each was seen every now and then. */
CODE(
    watcher,
    "xor %ebx, %ebx\n mov $0x30000, %edx\n 1: call *%rdx\n cmp %ebx, %eax\n jb 9f\n"
    "mov %eax, %ebx\n"
    "mov %ebx, 0x210000\n cmp $20000, %eax\n jb 1b\n hlt\n 9: ud2");
CODE(raiser, "xor %ecx, %ecx\n 1: inc %ecx\n mov %ecx, 0x30001\n test $127, %ecx\n jnz 3f\n"
             "2: pause\n cmp %ecx, 0x210000\n jne 2b\n 3: cmp $20000, %ecx\n jb 1b\n hlt");
CODE(constant, "mov $0, %eax\n ret");

static void storm(void **state)
{
    struct vm *vm = *state;
    uint64_t zero = 0;
    for (unsigned i = 0; i < 2; i++) {
        vm_mode(vm, i, 64);
        vm->cpu[i]->gpr[R_SP] = VM_STACK - 0x4000 * i;
    }
    vm_poke(vm, 0x210000, &zero, 8);
    LOAD(vm, VM_CODE, watcher);
    LOAD(vm, 0x20000, raiser);
    LOAD(vm, 0x30000, constant);
    vm->cpu[1]->rip = 0x20000;
    run_both(vm);
    assert_int_equal(vm->cpu[0]->gpr[R_AX], 20000);
}

/* -- A code cache too small for what runs ------------------------------------------------------ */
#define CHAIN 0x100000u
#define CHAIN_BLOCKS (0x180000u / 64)

/* Calls, an addition that crosses a page (helped, one vCPU alone) here and there, jumps on. */
static void build_chain(struct vm *vm)
{
    for (unsigned i = 0; i < CHAIN_BLOCKS; i++) {
        uint8_t code[64] = { 0xff, 0xd3, 0x49, 0xff, 0xc0 }; /* call rbx; inc r8 */
        unsigned n = 5;
        if (i % 64 == 7) { /* lock incl (rsi) */
            memcpy(code + n, "\xf0\xff\x06", 3);
            n += 3;
        }
        code[n] = 0xeb;
        code[n + 1] = (uint8_t)(64 - n - 2);
        vm_poke(vm, CHAIN + 64 * i, code, sizeof code);
    }
    uint8_t end[] = { 0xff, 0xc9, 0x0f, 0x85, 0, 0, 0, 0, 0xf4 }; /* dec ecx; jnz; hlt */
    int32_t rel = -(int32_t)(64 * CHAIN_BLOCKS) - 8;
    memcpy(end + 4, &rel, 4);
    vm_poke(vm, CHAIN + 64 * CHAIN_BLOCKS, end, sizeof end);
}

CODE(add_one, "inc %rax\n ret");

static void tiny_cache(void **state)
{
    struct vm *vm = *state;
    uint32_t v = 0;
    build_chain(vm);
    LOAD(vm, VM_CODE, add_one);
    vm_poke(vm, 0x2ffffe, &v, 4);
    for (unsigned i = 0; i < 2; i++) {
        struct cpu *c = vm->cpu[i];
        vm_mode(vm, i, 64);
        c->rip = CHAIN + 64 * (i * CHAIN_BLOCKS / 2);
        c->gpr[R_BX] = VM_CODE;
        c->gpr[R_SI] = 0x2ffffe;
        c->gpr[R_SP] = VM_STACK - 0x4000 * i;
        c->gpr[R_CX] = 4;
    }
    run_both(vm);
    unsigned locked = (CHAIN_BLOCKS - 7 + 63) / 64;
    for (unsigned i = 0; i < 2; i++) {
        uint64_t want = 4 * CHAIN_BLOCKS - i * CHAIN_BLOCKS / 2;
        assert_int_equal(vm->cpu[i]->gpr[R_AX], want);
        assert_int_equal(vm->cpu[i]->gpr[8], want);
    }
    memcpy(&v, vm->ram + 0x2ffffe, 4);
    assert_int_equal(v, 4 * locked + 3 * locked + locked / 2);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(atomics),
        TEST(atomics_over_lines),
        TEST(atomics_over_pages),
        TEST(cross_modifies),
        TEST(storm),
        cmocka_unit_test_setup_teardown(tiny_cache, set_up_tiny, tear_down),
        cmocka_unit_test_setup_teardown(storm, set_up_tiny, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
