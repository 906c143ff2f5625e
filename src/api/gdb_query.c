/* SPDX-License-Identifier: Apache-2.0
 *
 * General queries (GDB manual, appendix E.4): what the stub can, the target description, threads,
 * and `monitor` commands.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/gdb_session.h"
#include "base/alloc.h"
#include "base/bits.h"

#define MONITOR_CHUNK 4096u

static void q_supported(struct gdb_session *s, const char *p)
{
    char text[160];
    s->soft_break_known = strstr(p, "swbreak+") != NULL;
    s->hard_break_known = strstr(p, "hwbreak+") != NULL;
    snprintf(text, sizeof text,
             "PacketSize=%x;QStartNoAckMode+;qXfer:features:read+;qXfer:threads:read+;"
             "vContSupported+;swbreak+;hwbreak+",
             GDB_PACKET_MAX);
    gdb_reply(s, text);
}

static void q_start_no_ack_mode(struct gdb_session *s, const char *p)
{
    (void)p;
    gdb_reply(s, "OK"); /* the peer acknowledges this once more */
    s->no_ack = true;
}

/* OFFSET,LENGTH of a document. */
static void read_part(struct gdb_session *s, const char *p, const char *text, size_t len)
{
    uint64_t offset, want;
    if (text == NULL || !gdb_take_number(&p, &offset) || !gdb_take(&p, ",") ||
        !gdb_take_number(&p, &want) || offset > len) {
        gdb_reply(s, "E00");
        return;
    }
    size_t left = len - (size_t)offset;
    size_t n = want < left ? (size_t)want : left;
    n = n < GDB_PACKET_MAX / 2 ? n : GDB_PACKET_MAX / 2;
    gdb_out_begin(&s->link);
    gdb_out_text(&s->link, n == left ? "l" : "m");
    gdb_out_binary(&s->link, text + offset, n);
    gdb_out_end(&s->link);
    gdb_send(s);
}

static void q_features(struct gdb_session *s, const char *p)
{
    size_t len = 0;
    char *text = gdb_regs_describe(&s->regs, &len);
    read_part(s, p, text, len);
    free(text);
}

static void q_threads(struct gdb_session *s, const char *p)
{
    static const char *const activity[] = { "runs", "halted", "waits for SIPI", "shut down" };
    char *text = NULL;
    size_t len = 0;
    FILE *f = open_memstream(&text, &len);
    if (f != NULL) {
        fprintf(f, "<?xml version=\"1.0\"?>\n<threads>\n");
        for (unsigned i = 0; i < s->machine->cpu_count; i++) {
            fprintf(f, "<thread id=\"%x\" core=\"%u\" name=\"cpu%u\">%s</thread>\n", i + 1, i, i,
                    activity[s->machine->cpus[i]->activity & 3]);
        }
        fprintf(f, "</threads>\n");
        fclose(f);
    }
    read_part(s, p, text, len);
    free(text);
}

static void q_first_threads(struct gdb_session *s, const char *p)
{
    (void)p;
    gdb_out_begin(&s->link);
    for (unsigned i = 0; i < s->machine->cpu_count; i++) {
        char id[16];
        snprintf(id, sizeof id, "%c%x", i == 0 ? 'm' : ',', i + 1);
        gdb_out_text(&s->link, id);
    }
    gdb_out_end(&s->link);
    gdb_send(s);
}

static void q_more_threads(struct gdb_session *s, const char *p)
{
    (void)p;
    gdb_reply(s, "l");
}

static void q_current(struct gdb_session *s, const char *p)
{
    (void)p;
    char id[16];
    snprintf(id, sizeof id, "QC%x", s->cpu + 1);
    gdb_reply(s, id);
}

/* The machine was there before: on its way out GDB detaches instead of killing. */
static void q_attached(struct gdb_session *s, const char *p)
{
    (void)p;
    gdb_reply(s, "1");
}

static void q_get_physical(struct gdb_session *s, const char *p)
{
    (void)p;
    gdb_reply(s, s->physical ? "1" : "0");
}

static void q_set_physical(struct gdb_session *s, const char *p)
{
    s->physical = *p == '1';
    gdb_reply(s, "OK");
}

/* -- monitor ----------------------------------------------------------------------------------- */

/* Shown by GDB as it comes, before the reply. */
static void print(struct gdb_session *s, const char *text, size_t len)
{
    for (size_t at = 0; at < len; at += MONITOR_CHUNK) {
        size_t n = len - at < MONITOR_CHUNK ? len - at : MONITOR_CHUNK;
        gdb_out_begin(&s->link);
        gdb_out_text(&s->link, "O");
        gdb_out_hex(&s->link, text + at, n);
        gdb_out_end(&s->link);
        gdb_send(s);
    }
}

static void monitor_info(struct gdb_session *s, const char *topic)
{
    static const char none[] = "info: registers, devices, memory, engine or screen\n";
    long len = machine_info(s->machine, topic, NULL, 0);
    if (len < 0) {
        print(s, none, sizeof none - 1);
        return;
    }
    char *text = xzalloc((size_t)len + 1);
    len = machine_info(s->machine, topic, text, (size_t)len + 1);
    print(s, text, strlen(text));
    free(text);
}

static void q_monitor(struct gdb_session *s, const char *p)
{
    static const char help[] = "info TOPIC   registers, devices, memory, engine, screen\n"
                               "reset        press the reset button\n"
                               "quit         end the machine\n";
    char line[64] = "";
    size_t n = strlen(p) / 2;
    if (n >= sizeof line || !gdb_take_hex(&p, (uint8_t *)line, n)) {
        gdb_reply_error(s, -EINVAL);
        return;
    }
    const char *arg = line;
    if (gdb_take(&arg, "info ")) {
        monitor_info(s, arg);
    } else if (strcmp(line, "reset") == 0) {
        machine_request_reset(s->machine);
        machine_debug_stop(s->machine); /* returns when it is reset */
    } else if (strcmp(line, "quit") == 0) {
        machine_request_end(s->machine, MACHINE_STOPPED, 0, "stopped");
    } else {
        print(s, help, sizeof help - 1);
    }
    gdb_reply(s, "OK");
}

bool gdb_query(struct gdb_session *s, const char *p)
{
    static const struct {
        const char *name;
        void (*fn)(struct gdb_session *s, const char *p); /* p: what follows the name */
    } queries[] = {
        { "qSupported", q_supported },
        { "QStartNoAckMode", q_start_no_ack_mode },
        { "qXfer:features:read:target.xml:", q_features },
        { "qXfer:threads:read::", q_threads },
        { "qfThreadInfo", q_first_threads },
        { "qsThreadInfo", q_more_threads },
        { "qC", q_current },
        { "qAttached", q_attached },
        { "qRcmd,", q_monitor },
        { "qqemu.PhyMemMode", q_get_physical },
        { "Qqemu.PhyMemMode:", q_set_physical },
    };
    for (size_t i = 0; i < ARRAY_LEN(queries); i++) {
        const char *rest = p;
        if (gdb_take(&rest, queries[i].name)) {
            queries[i].fn(s, rest);
            return true;
        }
    }
    return false;
}
