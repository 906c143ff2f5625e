/* SPDX-License-Identifier: Apache-2.0
 *
 * The GDB stub without sockets: framing, what packets do to a machine that stands, and packets that
 * no debugger sends.
 */
#include <errno.h>
#include <stdio.h>

#include "api/gdb_session.h"
#include "machine/vm.h"
#include "machine/vmtest.h"

struct talk {
    struct vmtest vm;
    struct machine *machine;
    struct gdb_session *session;
    char said[8 * GDB_PACKET_MAX];
    size_t said_len;
    enum gdb_next next; /* of the last byte that was more than GDB_STAY */
};

static char *kernel;

static void take(void *ctx, const char *data, size_t len)
{
    struct talk *t = ctx;
    assert_true(len < sizeof t->said - t->said_len);
    memcpy(t->said + t->said_len, data, len);
    t->said_len += len;
    t->said[t->said_len] = '\0';
}

static void bytes(struct talk *t, const void *data, size_t len)
{
    const uint8_t *p = data;
    t->said_len = 0;
    t->said[0] = '\0';
    t->next = GDB_STAY;
    for (size_t i = 0; i < len; i++) {
        enum gdb_next next = gdb_session_byte(t->session, p[i]);
        if (next != GDB_STAY) {
            t->next = next;
        }
    }
}

/* A packet; what is said to it, without frame. */
static const char *ask_bytes(struct talk *t, const void *data, size_t len)
{
    static char frame[2 * GDB_PACKET_MAX + 16];
    uint8_t sum = 0;
    frame[0] = '$';
    memcpy(frame + 1, data, len);
    for (size_t i = 0; i < len; i++) {
        sum = (uint8_t)(sum + ((const uint8_t *)data)[i]);
    }
    snprintf(frame + 1 + len, 4, "#%02x", sum);
    bytes(t, frame, len + 4);
    char *said = t->said + (t->said[0] == '+');
    if (said[0] == '$') {
        said[strlen(said) - 3] = '\0';
        said++;
    }
    return said;
}

static const char *ask(struct talk *t, const char *packet)
{
    return ask_bytes(t, packet, strlen(packet));
}

static struct talk *begin(unsigned cpus)
{
    static struct talk t;
    struct sosia_config c;
    memset(&t, 0, sizeof t);
    vmtest_config(&t.vm, &c, kernel, "interp");
    c.cpus = cpus;
    vmtest_make(&t.vm, &c);
    t.machine = sosia_vm_machine(t.vm.vm);
    assert_int_equal(machine_debug_attach(t.machine), 0);
    machine_debug_stop(t.machine);
    t.session = gdb_session_new(t.machine, GDB_AMD64, take, &t);
    return &t;
}

static void end(struct talk *t)
{
    gdb_session_free(t->session);
    machine_debug_detach(t->machine);
    sosia_vm_free(t->vm.vm);
}

static void framing(void **state)
{
    (void)state;
    struct talk *t = begin(1);
    assert_string_equal(ask(t, "qC"), "QC1");
    assert_string_equal(t->said, "+$QC1");
    bytes(t, "$qC#00", 6);
    assert_string_equal(t->said, "-");
    bytes(t, "-", 1); /* the last one again */
    assert_string_equal(t->said, "$QC1#c5");
    bytes(t, "$qAtt$qC#b4", 11); /* its end was lost */
    assert_string_equal(t->said, "+$QC1#c5");
    assert_string_equal(ask(t, "QStartNoAckMode"), "OK");
    ask(t, "qC");
    assert_int_equal(t->said[0], '$');
    bytes(t, "\x03", 1); /* it stands already */
    assert_int_equal(t->next, GDB_STAY);
    bytes(t, "POST / HTTP/1.1\r\n", 17);
    assert_int_equal(t->next, GDB_CLOSE);
    static char longest[GDB_PACKET_MAX + 2];
    memset(longest, 'a', sizeof longest);
    assert_string_equal(ask_bytes(t, longest, sizeof longest), "");
    assert_string_equal(ask_bytes(t, longest, GDB_PACKET_MAX), "");
    end(t);
}

static void registers(void **state)
{
    (void)state;
    struct talk *t = begin(1);
    struct cpu *cpu = t->machine->cpus[0];
    assert_string_equal(ask(t, "P0=8877665544332211"), "OK"); /* 32-bit code: half of it */
    assert_int_equal(cpu->gpr[R_AX], 0x55667788);
    assert_string_equal(ask(t, "p0"), "8877665500000000");
    assert_string_equal(ask(t, "P10=0010000000000000"), "OK");
    assert_int_equal(cpu->rip, 0x1000);
    uint64_t cr0 = cpu->cr0;
    char text[64];
    unsigned n = 0;
    while (strcmp(t->session->regs.reg[n].name, "cr0") != 0) {
        n++;
    }
    snprintf(text, sizeof text, "P%x=0000000000000000", n);
    assert_string_equal(ask(t, text), "E01");
    assert_int_equal(cpu->cr0, cr0);
    /* All, and back again: nothing changes. */
    static char all[8192];
    snprintf(all, sizeof all, "G%s", ask(t, "g"));
    assert_string_equal(ask(t, all), "OK");
    assert_string_equal(ask(t, "g"), all + 1);
    assert_string_equal(ask(t, "pffff"), "E16");
    assert_string_equal(ask(t, "P0=12"), "E16");
    assert_non_null(strstr(ask(t, "qXfer:features:read:target.xml:0,4000"), "i386:x86-64"));
    assert_string_equal(ask(t, "qXfer:features:read:target.xml:ffffffffffffffff,1"), "E00");
    end(t);
}

static void memory(void **state)
{
    (void)state;
    struct talk *t = begin(1);
    assert_string_equal(ask(t, "M2000,4:01020304"), "OK");
    assert_string_equal(ask(t, "m2001,2"), "0203");
    assert_string_equal(ask_bytes(t, "X2000,3:\0}\x03z", 12), "OK"); /* an escaped '#' */
    assert_string_equal(ask(t, "m2000,4"), "00237a04");
    assert_string_equal(ask_bytes(t, "X2000,3:\0z", 10), "E16");
    assert_string_equal(ask(t, "mf0000000,4"), "E0e");
    assert_string_equal(ask(t, "m1000000000,4"), "00000000"); /* 32-bit: wraps */
    assert_string_equal(ask(t, "mfffffe,4"), "0000");         /* the end of RAM */
    assert_string_equal(ask(t, "m0,ffffffffffffffff"), "E16");
    assert_string_equal(ask(t, "m,"), "E16");
    end(t);
}

/* Until it stopped, which is told as it is by the stub's thread. */
static void go(struct talk *t)
{
    assert_int_equal(t->next, GDB_GO);
    struct machine_stop stop = { 0 };
    machine_debug_go(t->machine, t->session->how);
    for (unsigned i = 0; i < 100000; i++) {
        usleep(100);
        machine_debug_stop(t->machine);
        if (machine_debug_next(t->machine, &stop)) {
            break;
        }
        machine_debug_go(t->machine, t->session->how);
    }
    t->said_len = 0;
    gdb_session_stopped(t->session, &stop);
}

static void stops(void **state)
{
    (void)state;
    struct talk *t = begin(2);
    struct cpu *cpu = t->machine->cpus[0];
    char text[64];
    unsigned long long start = cpu->rip;
    ask(t, "qSupported:swbreak+;hwbreak+");
    ask(t, "vCont;s:1");
    go(t);
    assert_non_null(strstr(t->said, "$T05thread:1;#"));
    assert_int_equal(cpu->rip, start + 4); /* mov dx, 0x3f8 */
    snprintf(text, sizeof text, "Z0,%llx,1", start + 7);
    assert_string_equal(ask(t, text), "OK");
    assert_string_equal(ask(t, text), "OK");
    assert_int_equal(t->session->points, 1);
    ask(t, "c");
    go(t);
    assert_non_null(strstr(t->said, "$T05thread:1;swbreak:;#"));
    assert_int_equal(cpu->rip, start + 7);
    /* Over it with it in place, and on: the loop polls the UART. */
    ask(t, "s");
    go(t);
    assert_int_equal(cpu->rip, start + 11);
    snprintf(text, sizeof text, "z0,%llx,1", start + 7);
    assert_string_equal(ask(t, text), "OK");
    snprintf(text, sizeof text, "Z1,%llx,1", start + 14);
    ask(t, text);
    ask(t, "vCont;c:1");
    go(t);
    assert_non_null(strstr(t->said, "hwbreak:;"));
    assert_int_equal(cpu->rip, start + 14);
    assert_string_equal(ask(t, "Z5,0,1"), "E16");
    assert_string_equal(ask(t, "Z2,0,0"), "E16");
    assert_string_equal(ask(t, "Z2,ffffffffffffffff,2"), "E16");
    assert_string_equal(ask(t, "vCont;s:3"), "E16");
    assert_string_equal(ask(t, "vCont;x"), "E16");
    assert_string_equal(ask(t, "vCont;"), "E16");
    assert_string_equal(ask(t, "Hg2"), "OK");
    assert_string_equal(ask(t, "Hg3"), "E03");
    assert_string_equal(ask(t, "T2"), "OK");
    assert_string_equal(ask(t, "qfThreadInfo"), "m1,2");
    assert_string_equal(ask(t, "D"), "OK");
    assert_int_equal(t->next, GDB_DETACH);
    ask(t, "k");
    assert_int_equal(t->next, GDB_KILL);
    end(t);
}

static void many_points(void **state)
{
    (void)state;
    struct talk *t = begin(1);
    struct gdb_point p = { .kind = GDB_SOFT_BREAK };
    for (unsigned i = 0; i < GDB_POINTS_MAX; i++) {
        p.va = (i * 7919u) % GDB_POINTS_MAX; /* each once, in no order */
        assert_int_equal(gdb_points_add(t->session, &p), 0);
    }
    p.va = GDB_POINTS_MAX;
    assert_int_equal(gdb_points_add(t->session, &p), -ENOSPC);
    gdb_points_commit(t->session);
    assert_int_equal(t->machine->cpus[0]->stops->break_count, GDB_POINTS_MAX);
    assert_true(cpu_break_in(t->machine->cpus[0]->stops, 12345, 1));
    assert_false(cpu_break_in(t->machine->cpus[0]->stops, GDB_POINTS_MAX, 100));
    end(t);
}

static int set_up(void **state)
{
    (void)state;
    kernel = vmtest_kernel(vmtest_echo, sizeof vmtest_echo);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    unlink(kernel);
    free(kernel);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(framing), cmocka_unit_test(registers),   cmocka_unit_test(memory),
        cmocka_unit_test(stops),   cmocka_unit_test(many_points),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
