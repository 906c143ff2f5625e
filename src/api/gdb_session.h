/* SPDX-License-Identifier: Apache-2.0
 *
 * A debugger's conversation with a machine that stands: the commands of GDB's remote serial
 * protocol (GDB manual, appendix E), whatever carries the bytes. Threads are processors, numbered
 * from 1.
 *
 * Everything that arrives is hostile. Thread: one, which may call machine/debug.h.
 */
#ifndef SOSIA_API_GDB_SESSION_H
#define SOSIA_API_GDB_SESSION_H

#include "api/gdb_packet.h"
#include "api/gdb_regs.h"
#include "machine/debug.h"

#define GDB_POINTS_MAX 16384u

/* What the peer wants of who carries the bytes. */
enum gdb_next {
    GDB_STAY,
    GDB_GO,     /* machine_debug_go(session.how) */
    GDB_STOP,   /* it runs: machine_debug_stop */
    GDB_DETACH, /* it says good-bye, the machine goes on */
    GDB_KILL,   /* end the machine */
    GDB_CLOSE,  /* this is no debugger */
};

/* Z packets' types. */
enum gdb_point_kind { GDB_SOFT_BREAK, GDB_HARD_BREAK, GDB_WRITE, GDB_READ, GDB_ACCESS };

struct gdb_point {
    gva_t va;
    uint64_t len;
    enum gdb_point_kind kind;
};

struct gdb_session {
    struct machine *machine; /* borrowed */
    void (*send)(void *ctx, const char *data, size_t len);
    void *ctx;
    struct gdb_link link;
    struct gdb_regs regs;
    bool stands; /* the machine does; packets are answered only then */
    bool no_ack;
    bool soft_break_known, hard_break_known; /* the peer understands these stop reasons */
    bool physical;                           /* memory is read and written by physical address */
    unsigned cpu;                            /* that registers and memory are seen through */
    unsigned go_cpu;                         /* that `s` steps */
    struct machine_stop last;
    uint8_t last_signal;
    struct gdb_point *point; /* owned; by address, then kind */
    size_t points, points_cap;
    bool breaks_changed, watches_changed; /* since the machine was told */
    enum machine_go how[MACHINE_MAX_CPUS];
};

/* The machine stands, with a debugger attached. */
struct gdb_session *gdb_session_new(struct machine *m, enum gdb_arch arch,
                                    void (*send)(void *ctx, const char *data, size_t len),
                                    void *ctx);
void gdb_session_free(struct gdb_session *s);
enum gdb_next gdb_session_byte(struct gdb_session *s, uint8_t byte);
/* The machine stands again: say why. stop: NULL, it was asked to. */
void gdb_session_stopped(struct gdb_session *s, const struct machine_stop *stop);
/* It came to its end. */
void gdb_session_ended(struct gdb_session *s, int status);

/* -- gdb_points.c: what GDB has inserted. */
MUST_CHECK int gdb_points_add(struct gdb_session *s, const struct gdb_point *p);
void gdb_points_remove(struct gdb_session *s, const struct gdb_point *p);
/* Is a breakpoint of this kind at the address? */
bool gdb_points_has(const struct gdb_session *s, gva_t va, enum gdb_point_kind kind);
/* Tell the machine. */
void gdb_points_commit(struct gdb_session *s);

/* -- gdb_query.c: the `q` and `Q` packets. False: not known, which is answered by silence. */
bool gdb_query(struct gdb_session *s, const char *p);

/* -- Replies. */
void gdb_reply(struct gdb_session *s, const char *text);
void gdb_reply_error(struct gdb_session *s, int error); /* negative errno */
void gdb_send(struct gdb_session *s);                   /* after gdb_out_end */

#endif
