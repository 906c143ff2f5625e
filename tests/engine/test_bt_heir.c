/* SPDX-License-Identifier: Apache-2.0
 *
 * Translations that VMs share (src/engine/bt/heir.c): a machine does some work, others with the
 * same memory take up what it made of the code, do the same work without translating, and change
 * code each for itself.
 */
// LAYERS: engine/bt engine cpu mem state base
#include "support/test.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/bits.h"
#include "support/vm.h"

#define BLOCKS 4000
#define CHAIN 0x100000u
#define STEP 64u
#define FUNCTION 0x80000u
#define SEALS (F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW)

static struct vm *machine(uint64_t cache)
{
    struct vm *vm = vm_new_config(1, &bt_engine,
                                  &(struct engine_config){ .code_cache_bytes = cache });
    vm_mode(vm, 0, 64);
    return vm;
}

/* A chain of small blocks in many pages: call rbx; inc r8; jmp next; and at the end: dec ecx; jnz
 * to the first; hlt. The function is: inc r9; ret. */
static void lay_out(struct vm *vm)
{
    uint8_t end[] = { 0xff, 0xc9, 0x0f, 0x85, 0, 0, 0, 0, 0xf4 };
    int32_t rel = -(int32_t)(STEP * BLOCKS) - 8;
    for (unsigned i = 0; i < BLOCKS; i++) {
        const uint8_t code[] = { 0xff, 0xd3, 0x49, 0xff, 0xc0, 0xeb, STEP - 7 };
        vm_poke(vm, CHAIN + STEP * i, code, sizeof code);
    }
    memcpy(end + 4, &rel, 4);
    vm_poke(vm, CHAIN + STEP * BLOCKS, end, sizeof end);
    vm_poke(vm, FUNCTION, "\x49\xff\xc1\xc3", 4);
}

/* Block i adds -1 from now on. */
static void change(struct vm *vm, unsigned i)
{
    vm_poke(vm, CHAIN + STEP * i + 2, "\x49\xff\xc8", 3);
}

/* So many rounds over the chain; each adds `sum`. */
static void work(struct vm *vm, unsigned rounds, int sum)
{
    struct cpu *c = vm->cpu[0];
    c->rip = CHAIN;
    c->gpr[R_BX] = FUNCTION;
    c->gpr[R_CX] = rounds;
    c->gpr[8] = c->gpr[9] = 0;
    assert_int_equal(vm_run(vm, 0), ENGINE_EXIT_HALT);
    assert_int_equal(vm_vector(vm, 0), -1);
    assert_int_equal(c->gpr[8], (int64_t)rounds * sum);
    assert_int_equal(c->gpr[9], (uint64_t)rounds * BLOCKS);
}

/* Memory files with what a machine bequeaths, sealed so that it can be taken up. */
static int will_of(struct vm *vm, unsigned seals)
{
    struct err e;
    int fd = memfd_create("will", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    assert_true(fd >= 0);
    assert_int_equal(vm->cls->bequeath(vm->engine, fd, &e), 0);
    assert_int_equal(fcntl(fd, F_ADD_SEALS, seals), 0);
    return fd;
}

static struct vm *heir(const struct vm *of, int fd, uint64_t cache)
{
    struct vm *vm = machine(cache);
    memcpy(vm->ram, of->ram, VM_RAM);
    assert_true(vm->cls->inherit(vm->engine, fd));
    return vm;
}

static struct vm *worker(void)
{
    struct vm *vm = machine(0);
    lay_out(vm);
    work(vm, 1, BLOCKS);
    return vm;
}

static void nothing_is_translated_twice(void **state)
{
    struct vm *a = worker();
    int fd = will_of(a, SEALS);
    struct vm *b = heir(a, fd, 0);
    (void)state;
    close(fd);
    assert_int_equal(vm_counter(b, "bt.inherited_blocks"), vm_counter(a, "bt.blocks"));
    work(b, 1, BLOCKS);
    assert_int_equal(vm_counter(b, "bt.blocks"), 0);
    work(b, 3, BLOCKS); /* the jump back is linked now */
    assert_int_equal(vm_counter(b, "bt.blocks"), 0);
    assert_true(vm_counter(b, "bt.inherited_pages_changed") >= 1);
    work(a, 3, BLOCKS);
    vm_free(a);
    work(b, 2, BLOCKS);
    vm_free(b);
}

/* An heir's heir has both what was inherited and what came to it. */
static void third_generation(void **state)
{
    struct vm *a = worker();
    int first = will_of(a, SEALS);
    struct vm *b = heir(a, first, 0);
    (void)state;
    vm_free(a);
    close(first);
    change(b, 17);
    work(b, 2, BLOCKS - 2);
    uint64_t made = vm_counter(b, "bt.blocks");
    assert_true(made >= 1);
    int second = will_of(b, SEALS);
    struct vm *c = heir(b, second, 0);
    close(second);
    work(c, 2, BLOCKS - 2);
    assert_int_equal(vm_counter(c, "bt.blocks"), 0);
    change(c, 18);
    work(c, 1, BLOCKS - 4);
    work(b, 1, BLOCKS - 2);
    vm_free(b);
    vm_free(c);
}

/* A few blocks, then some in every page: more than half of the pages are an heir's own then, and it
 * takes all. Neither the other heir nor the first machine notices. */
static void code_changes(void **state)
{
    struct vm *a = worker();
    int fd = will_of(a, SEALS);
    struct vm *b = heir(a, fd, 0), *c = heir(a, fd, 0);
    (void)state;
    close(fd);
    work(b, 1, BLOCKS);
    for (unsigned i = 0; i < 3; i++) {
        change(b, 100 * i);
    }
    work(b, 2, BLOCKS - 6);
    for (unsigned i = 1; i < BLOCKS; i += 2) {
        change(b, i);
    }
    work(b, 2, BLOCKS - 6 - BLOCKS);
    work(c, 2, BLOCKS);
    work(a, 2, BLOCKS);
    change(b, 2);
    work(b, 1, BLOCKS - 8 - BLOCKS);
    vm_free(a);
    vm_free(b);
    vm_free(c);
}

/* Nothing of the heritage is left after a full cache was emptied. */
static void full_cache(void **state)
{
    struct vm *a = machine(MIB(1));
    (void)state;
    lay_out(a);
    work(a, 1, BLOCKS);
    int fd = will_of(a, SEALS);
    struct vm *b = heir(a, fd, MIB(1));
    close(fd);
    work(b, 3, BLOCKS);
    assert_true(vm_counter(b, "bt.cache_flushes") >= 2);
    change(b, 5);
    work(b, 2, BLOCKS - 2);
    vm_free(a);
    work(b, 1, BLOCKS - 2);
    vm_free(b);
}

static bool takes(struct vm *vm, int fd)
{
    bool taken = vm->cls->inherit(vm->engine, fd);
    if (!taken) { /* and is none the worse for it */
        lay_out(vm);
        work(vm, 2, BLOCKS);
    }
    vm_free(vm);
    return taken;
}

static void what_does_not_fit(void **state)
{
    struct vm *a = worker();
    int unsealed = will_of(a, F_SEAL_SHRINK | F_SEAL_GROW);
    int file = will_of(a, SEALS);
    int pipe_ends[2];
    (void)state;
    assert_false(takes(machine(0), unsealed));
    assert_false(takes(machine(MIB(2)), file));
    assert_false(takes(machine(0), -1));
    assert_int_equal(pipe(pipe_ends), 0);
    assert_false(takes(machine(0), pipe_ends[0]));
    assert_false(a->cls->inherit(a->engine, file)); /* it has translated already */
    struct vm *two = vm_new(2, &bt_engine);
    assert_false(two->cls->inherit(two->engine, file));
    vm_free(two);
    /* Cut off, or with another byte in its first page or its counts. */
    static const size_t places[] = { 0, 8, 60, 200 };
    for (unsigned i = 0; i <= ARRAY_LEN(places); i++) {
        int fd = will_of(a, 0);
        uint8_t byte;
        if (i == ARRAY_LEN(places)) {
            assert_int_equal(ftruncate(fd, lseek(fd, 0, SEEK_END) - 1), 0);
        } else {
            assert_int_equal(pread(fd, &byte, 1, (off_t)places[i]), 1);
            byte ^= 0x40;
            assert_int_equal(pwrite(fd, &byte, 1, (off_t)places[i]), 1);
        }
        assert_int_equal(fcntl(fd, F_ADD_SEALS, SEALS), 0);
        assert_false(takes(machine(0), fd));
        close(fd);
    }
    assert_int_equal(takes(machine(0), file), true);
    close(pipe_ends[0]);
    close(pipe_ends[1]);
    close(unsealed);
    close(file);
    vm_free(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_translated_twice),
        cmocka_unit_test(third_generation),
        cmocka_unit_test(code_changes),
        cmocka_unit_test(full_cache),
        cmocka_unit_test(what_does_not_fit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
