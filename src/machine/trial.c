/* SPDX-License-Identifier: Apache-2.0
 *
 * A few guest instructions on an engine, to see that it runs guests at all and how fast: a timed
 * loop, CPUID, and a change of the page tables, in 64-bit mode with paging.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "cpu/access.h"
#include "machine/machine.h"

#define RAM_BYTES 0x200000u
#define TABLES 0x1000u /* PML4, page directory pointers, page directory, page table */
#define CODE 0x8000u
#define PAGE_A 0x10000u
#define PAGE_B 0x11000u
#define RESULTS 0x20000u
#define WINDOW 0x100000u /* linear: first PAGE_A, then PAGE_B */
#define WINDOW_ENTRY (TABLES + 0x3000u + WINDOW / 4096u * 8u)
#define PORT 0xf4u /* none that an engine may collect writes to */
#define ROUNDS_FIRST 2000u
#define ROUNDS_MORE 5000000u
#define MEASURE_NS 20000000u /* as long as this, if ROUNDS_MORE are enough */
#define PATIENCE_NS 10000000000ull

/* What the code says through the port. */
enum { SAYS_LOOP = 1, SAYS_REST = 2, SAYS_END = 3 };

/* rdi: rounds */
static const uint8_t code[] = {
    0xb0, SAYS_LOOP, 0xe6, PORT,                        /* mov al, 1; out 0xf4, al */
    0x48, 0xff, 0xcf, 0x75, 0xfb,                       /* again: dec rdi; jnz again */
    0xb0, SAYS_REST, 0xe6, PORT,                        /* mov al, 2; out 0xf4, al */
    0x31, 0xc0, 0x0f, 0xa2,                             /* xor eax, eax; cpuid */
    0x89, 0x1c, 0x25, 0x00, 0x00, 0x02, 0x00,           /* mov [RESULTS], ebx */
    0x89, 0x14, 0x25, 0x04, 0x00, 0x02, 0x00,           /* mov [RESULTS + 4], edx */
    0x89, 0x0c, 0x25, 0x08, 0x00, 0x02, 0x00,           /* mov [RESULTS + 8], ecx */
    0x8b, 0x04, 0x25, 0x00, 0x00, 0x10, 0x00,           /* mov eax, [WINDOW] */
    0x89, 0x04, 0x25, 0x0c, 0x00, 0x02, 0x00,           /* mov [RESULTS + 12], eax */
    0x81, 0x04, 0x25, 0x00, 0x48, 0x00, 0x00, 0x00, 0x10, 0x00, 0x00, /* add [entry], 4096 */
    0x0f, 0x01, 0x3c, 0x25, 0x00, 0x00, 0x10, 0x00,     /* invlpg [WINDOW] */
    0x8b, 0x04, 0x25, 0x00, 0x00, 0x10, 0x00,           /* mov eax, [WINDOW] */
    0x89, 0x04, 0x25, 0x10, 0x00, 0x02, 0x00,           /* mov [RESULTS + 16], eax */
    0xb0, SAYS_END, 0xe6, PORT,                         /* mov al, 3; out 0xf4, al */
    0xf4, 0xeb, 0xfd,                                   /* hlt; jmp $-1 */
};
_Static_assert(WINDOW_ENTRY == 0x4800, "the address in `add`");

struct trial {
    const struct engine_class *cls;
    struct engine *engine;
    struct gmem *mem;
    struct cpu *cpu;
    struct cpu_model model;
    struct cpu_world world;
    uint64_t said_ns[SAYS_END + 1];
    pthread_mutex_t lock; /* guards done */
    pthread_cond_t changed;
    bool done;
};

/* Processor time of this thread: others that use the host do not count. */
static uint64_t used_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* -- A world with one port --------------------------------------------------------------------- */

static uint32_t port_in(void *ctx, struct cpu *cpu, uint16_t port, unsigned size)
{
    (void)ctx, (void)cpu, (void)port, (void)size;
    return UINT32_MAX;
}

static void port_out(void *ctx, struct cpu *cpu, uint16_t port, unsigned size, uint32_t value)
{
    struct trial *t = ctx;
    (void)size;
    if (port == PORT && value <= SAYS_END) {
        t->said_ns[value] = used_ns();
    }
    if (value == SAYS_END) {
        cpu_raise_event(cpu, CPU_EV_KICK);
    }
}

static uint64_t mmio_read(void *ctx, struct cpu *cpu, gpa_t gpa, unsigned size)
{
    (void)ctx, (void)cpu, (void)gpa, (void)size;
    return UINT64_MAX;
}

static void mmio_write(void *ctx, struct cpu *cpu, gpa_t gpa, unsigned size, uint64_t value)
{
    (void)ctx, (void)cpu, (void)gpa, (void)size, (void)value;
}

static int irq_ack(void *ctx, struct cpu *cpu)
{
    (void)ctx, (void)cpu;
    return -1;
}

static bool apic_msr_read(void *ctx, struct cpu *cpu, uint32_t msr, uint64_t *value)
{
    (void)ctx, (void)cpu, (void)msr;
    *value = 0;
    return false;
}

static bool apic_msr_write(void *ctx, struct cpu *cpu, uint32_t msr, uint64_t value)
{
    (void)ctx, (void)cpu, (void)msr, (void)value;
    return false;
}

static uint8_t cr8_get(void *ctx, struct cpu *cpu)
{
    (void)ctx, (void)cpu;
    return 0;
}

static void cr8_set(void *ctx, struct cpu *cpu, uint8_t tpr) { (void)ctx, (void)cpu, (void)tpr; }
static uint64_t counter(void *ctx)
{
    (void)ctx;
    return used_ns();
}

static void code_written(void *ctx, struct cpu *by, gpa_t gpa, uint64_t len)
{
    struct trial *t = ctx;
    (void)by;
    t->cls->invalidate(t->engine, gpa, len);
}

static void wake(void *ctx, struct cpu *cpu)
{
    struct trial *t = ctx;
    if (t->engine != NULL) {
        t->cls->kick(t->engine, cpu);
    }
}

/* -- The guest --------------------------------------------------------------------------------- */

static void put64(struct gmem *mem, gpa_t gpa, uint64_t value)
{
    uint8_t bytes[8];
    store_le64(bytes, value);
    (void)!gmem_write(mem, gpa, bytes, sizeof bytes);
}

static void fill_memory(struct gmem *mem)
{
    for (unsigned i = 0; i < 3; i++) {
        put64(mem, TABLES + i * 0x1000u, (TABLES + (i + 1) * 0x1000u) | 3);
    }
    for (unsigned i = 0; i < 512; i++) {
        put64(mem, TABLES + 0x3000u + i * 8, (uint64_t)i * 4096 | 3);
    }
    put64(mem, WINDOW_ENTRY, PAGE_A | 3);
    put64(mem, PAGE_A, PAGE_A);
    put64(mem, PAGE_B, PAGE_B);
    (void)!gmem_write(mem, CODE, code, sizeof code);
}

static void start(struct cpu *cpu, uint64_t rounds)
{
    const struct cpu_seg data = { .limit = 0xffffffff, .attr = 0xc093, .sel = 0x10 };
    cpu_reset(cpu);
    for (unsigned i = 0; i < SEG_COUNT; i++) {
        cpu->seg[i] = data;
    }
    cpu->seg[SEG_CS] = (struct cpu_seg){ .limit = 0xffffffff, .attr = 0xa09b, .sel = 8 };
    cpu->efer = EFER_LME | EFER_LMA;
    cpu->cr0 = CR0_PE | CR0_PG | CR0_ET | CR0_NE;
    cpu->cr3 = TABLES;
    cpu->cr4 = CR4_PAE;
    cpu->rip = cpu->insn_ip = CODE;
    cpu->gpr[R_DI] = rounds;
    tlb_flush_all(cpu);
    cpu_update_mode(cpu);
}

/* An engine that hangs is told to leave. */
static void *watch(void *arg)
{
    struct trial *t = arg;
    struct timespec end;
    clock_gettime(CLOCK_REALTIME, &end);
    end.tv_sec += (time_t)(PATIENCE_NS / 1000000000u);
    pthread_mutex_lock(&t->lock);
    while (!t->done && pthread_cond_timedwait(&t->changed, &t->lock, &end) == 0) {
    }
    bool late = !t->done;
    pthread_mutex_unlock(&t->lock);
    if (late) {
        cpu_raise_event(t->cpu, CPU_EV_KICK);
    }
    return NULL;
}

static void run(struct trial *t, uint64_t rounds)
{
    pthread_t watcher;
    t->cls->sync(t->engine, t->cpu, CPU_GROUP_ALL, true);
    fill_memory(t->mem);
    start(t->cpu, rounds);
    cpu_clear_event(t->cpu, CPU_EV_KICK);
    memset(t->said_ns, 0, sizeof t->said_ns);
    t->done = false;
    bool watched = pthread_create(&watcher, NULL, watch, t) == 0;
    (void)t->cls->run(t->engine, t->cpu);
    pthread_mutex_lock(&t->lock);
    t->done = true;
    pthread_cond_signal(&t->changed);
    pthread_mutex_unlock(&t->lock);
    if (watched) {
        pthread_join(watcher, NULL);
    }
}

static bool check(const struct trial *t, const char **wrong)
{
    uint8_t r[20] = { 0 };
    char vendor[12];
    (void)!gmem_read(t->mem, RESULTS, r, sizeof r);
    memcpy(vendor, r, sizeof vendor);
    *wrong = t->said_ns[SAYS_REST] == 0                     ? "a loop does not come to its end"
             : t->said_ns[SAYS_END] == 0                    ? "instructions behind a loop hang"
             : memcmp(vendor, t->model.vendor, 12) != 0     ? "CPUID names another vendor"
             : load_le32(r + 12) != PAGE_A                  ? "a page is not where it is mapped"
             : load_le32(r + 16) != PAGE_B                  ? "a changed page table is not seen"
                                                            : NULL;
    return *wrong == NULL;
}

static int make(struct trial *t, struct err *e)
{
    int r = gmem_new(&t->mem, RAM_BYTES, MACHINE_PCI_HOLE, e);
    if (r == 0) {
        r = cpu_model_parse(&t->model, "", 1, 1000000, t->cls->limit, e);
    }
    if (r == 0 && posix_memalign((void **)&t->cpu, _Alignof(struct cpu), sizeof *t->cpu) != 0) {
        t->cpu = NULL;
        r = err_set(e, -ENOMEM, "no memory");
    }
    if (r == 0) {
        memset(t->cpu, 0, sizeof *t->cpu);
        r = cpu_init(t->cpu, 0, &t->model, &t->world, t->mem, e);
    }
    if (r == 0) {
        const struct engine_config config = { .mem = t->mem, .cpus = &t->cpu, .cpu_count = 1 };
        r = t->cls->create(&t->engine, &config, e);
    }
    return r;
}

int machine_try_engine(const struct engine_class *cls, double *rounds_per_s, struct err *e)
{
    struct trial t = {
        .cls = cls,
        .world = { .port_in = port_in,
                   .port_out = port_out,
                   .mmio_read = mmio_read,
                   .mmio_write = mmio_write,
                   .irq_ack = irq_ack,
                   .apic_msr_read = apic_msr_read,
                   .apic_msr_write = apic_msr_write,
                   .cr8_get = cr8_get,
                   .cr8_set = cr8_set,
                   .tsc = counter,
                   .wall_ns = counter,
                   .now_ns = counter,
                   .code_written = code_written },
    };
    const char *wrong;
    t.world.ctx = &t;
    pthread_mutex_init(&t.lock, NULL);
    pthread_cond_init(&t.changed, NULL);
    int r = make(&t, e);
    if (r == 0) {
        uint64_t rounds = ROUNDS_FIRST;
        t.cpu->wake = wake;
        t.cpu->wake_ctx = &t;
        run(&t, rounds);
        uint64_t first = t.said_ns[SAYS_REST] - t.said_ns[SAYS_LOOP];
        if (check(&t, &wrong) && first < MEASURE_NS) {
            rounds = first != 0 ? ROUNDS_FIRST * (MEASURE_NS / first) : ROUNDS_MORE;
            rounds = rounds < ROUNDS_MORE ? rounds : ROUNDS_MORE;
            run(&t, rounds);
        }
        if (!check(&t, &wrong)) {
            r = err_set(e, -EIO, "guest code goes wrong: %s", wrong);
        }
        uint64_t took = t.said_ns[SAYS_REST] - t.said_ns[SAYS_LOOP];
        *rounds_per_s = (double)rounds * 1e9 / (double)(took != 0 ? took : 1);
    }
    if (t.engine != NULL) {
        cls->destroy(t.engine);
    }
    if (t.cpu != NULL) {
        cpu_fini(t.cpu);
        free(t.cpu);
    }
    if (t.mem != NULL) {
        gmem_free(t.mem);
    }
    pthread_cond_destroy(&t.changed);
    pthread_mutex_destroy(&t.lock);
    return r;
}
