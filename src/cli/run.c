/* SPDX-License-Identifier: Apache-2.0
 *
 * `sosia run`: one VM, the terminal in front of it. The main thread waits for keys, signals and the
 * end of the VM; signals arrive as file descriptor events, so that nothing happens in handlers.
 */
#include "cli/run.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

#include "base/alloc.h"
#include "cli/console.h"
#include "cli/options.h"
#include "cli/output.h"
#include "cli/term.h"

#define RETRY_MS 10      /* until the guest is asked again to take keys */
#define PATIENCE_MS 2000 /* for a reader of our output that stands still */

struct run {
    struct run_options options;
    const struct run_hooks *hooks; /* or NULL */
    bool started;
    struct sosia_vm *vm;
    struct sosia_api *api; /* or NULL */
    struct sosia_gdb *gdb; /* or NULL */
    struct console console;
    struct output output;
    int event_fd; /* the VM ended, or the output failed */
    int signal_fd;
    sigset_t signals; /* blocked before we looked at them */
    bool input_open;
    int signal; /* that ended us, 0: none */
};

static int fail(const char *text)
{
    fprintf(stderr, "sosia: %s\n", text);
    return 1;
}

/* -- Callbacks of the VM, on its threads ------------------------------------------------------- */

static void on_output(void *ctx, unsigned port, const void *data, size_t len)
{
    struct run *r = ctx;
    if ((int)port == r->options.stdio_port) {
        output_put(&r->output, data, len);
    }
}

static void on_debug(void *ctx, const void *data, size_t len)
{
    struct run *r = ctx;
    if (r->options.verbose > 0) {
        fwrite(data, 1, len, stderr);
    }
}

static void on_end(void *ctx)
{
    struct run *r = ctx;
    const uint64_t one = 1;
    ssize_t n = write(r->event_fd, &one, sizeof one);
    (void)n;
}

/* -- The main thread --------------------------------------------------------------------------- */

static int open_signals(sigset_t *old)
{
    static const int handled[] = { SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP, SIGCONT };
    sigset_t set;
    sigemptyset(&set);
    for (size_t i = 0; i < sizeof handled / sizeof handled[0]; i++) {
        struct sigaction act;
        /* nohup and shells without job control have said that these are not for us. */
        if (sigaction(handled[i], NULL, &act) == 0 && act.sa_handler != SIG_IGN) {
            sigaddset(&set, handled[i]);
        }
    }
    signal(SIGPIPE, SIG_IGN);
    pthread_sigmask(SIG_BLOCK, &set, old);
    return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

static void handle_signal(struct run *r)
{
    struct signalfd_siginfo s;
    while (read(r->signal_fd, &s, sizeof s) == (ssize_t)sizeof s) {
        switch (s.ssi_signo) {
        case SIGTSTP:
            term_suspend();
            break;
        case SIGCONT: /* stopped by SIGSTOP, which nobody sees coming, and now back */
            if (r->options.stdio_port >= 0) {
                term_raw();
            }
            break;
        default:
            r->signal = (int)s.ssi_signo;
        }
    }
}

static void handle_keys(struct run *r)
{
    uint8_t keys[1024];
    size_t room = console_room(&r->console);
    ssize_t n = read(STDIN_FILENO, keys, room < sizeof keys ? room : sizeof keys);
    if (n > 0) {
        console_keys(&r->console, keys, (size_t)n);
    } else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
        r->input_open = false; /* the guest goes on without */
    }
}

/* Until the VM ended, or somebody wants it to. */
static void wait_for_end(struct run *r)
{
    struct sosia_end end;
    r->input_open = r->options.stdio_port >= 0;
    while (r->signal == 0 && !r->console.quit && output_error(&r->output) == 0 &&
           sosia_vm_end(r->vm, &end) < 0) {
        bool flushed = console_flush(&r->console);
        struct pollfd fds[] = {
            { .fd = r->event_fd, .events = POLLIN },
            { .fd = r->signal_fd, .events = POLLIN },
            { .fd = r->input_open && console_room(&r->console) != 0 ? STDIN_FILENO : -1,
              .events = POLLIN },
        };
        if (poll(fds, 3, flushed ? -1 : RETRY_MS) < 0 && errno != EINTR) {
            return;
        }
        if (fds[1].revents != 0) {
            handle_signal(r);
        }
        if (fds[2].revents != 0) {
            handle_keys(r);
        }
    }
}

static void say_how_it_went(struct run *r, const struct timespec *from)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    double s = (double)(now.tv_sec - from->tv_sec) + (double)(now.tv_nsec - from->tv_nsec) / 1e9;
    double m = (double)sosia_vm_instructions(r->vm) / 1e6;
    fprintf(stderr, "sosia: %.1f million instructions in %.2f s, %.1f MIPS, engine %s\n", m, s,
            m / s, sosia_vm_engine(r->vm));
}

/* The engine's counters, one "name value" line each. */
static void say_counters(struct run *r)
{
    char text[8192];
    if (sosia_vm_info(r->vm, "engine", text, sizeof text) > 0) {
        fputs(text, stderr);
    }
}

static int status_of(struct run *r)
{
    struct sosia_end end;
    int error = output_error(&r->output);
    if (sosia_vm_end(r->vm, &end) < 0) {
        if (error != 0) {
            fprintf(stderr, "sosia: standard output: %s\n", strerror(error));
            return 1;
        }
        sosia_vm_stop(r->vm); /* a person or a signal ended it */
        return 0;
    }
    bool trouble = end.reason == SOSIA_END_FAILURE || end.reason == SOSIA_END_SHUTDOWN;
    if (trouble || r->options.verbose > 0) {
        fprintf(stderr, "sosia: %s\n", end.text);
    }
    return end.status;
}

static void say_ptys(struct run *r)
{
    for (unsigned i = 0; i < SOSIA_SERIAL_PORTS + SOSIA_CONSOLES_MAX; i++) {
        const char *name = sosia_vm_serial_name(r->vm, i);
        if (name != NULL) {
            fprintf(stderr, "sosia: serial port %u is %s\n", i, name);
        }
    }
}

static void say_display(struct run *r)
{
    const char *where = sosia_vm_display(r->vm);
    if (where != NULL) {
        fprintf(stderr, "sosia: the screen is at vnc://%s\n", where);
    }
}

static int write_text(struct run *r, const char *path, char *error)
{
    static char text[1 << 16];
    FILE *f = fopen(path, "we");
    if (f == NULL) {
        snprintf(error, SOSIA_ERROR_BYTES, "%s: %s", path, strerror(errno));
        return -errno;
    }
    sosia_vm_info(r->vm, "screen", text, sizeof text);
    fputs(text, f);
    return fclose(f);
}

/* A name that ends in .txt asks for the characters of a text mode, else it is a picture. */
static void take_screenshot(struct run *r)
{
    char error[SOSIA_ERROR_BYTES] = "";
    const char *path = r->options.screenshot;
    size_t len = path != NULL ? strlen(path) : 0;
    if (path == NULL) {
        return;
    }
    bool text = len > 4 && strcmp(path + len - 4, ".txt") == 0;
    int result = text ? write_text(r, path, error) : sosia_vm_screenshot(r->vm, path, error);
    if (result < 0) {
        fprintf(stderr, "sosia: --screenshot: %s\n", error);
    }
}

/* From the first instruction to the last; the exit status. */
static int live(struct run *r)
{
    struct timespec from;
    console_init(&r->console, r->vm, r->options.stdio_port);
    if (r->options.stdio_port >= 0) {
        term_raw();
    }
    clock_gettime(CLOCK_MONOTONIC, &from);
    if (!r->options.paused) {
        sosia_vm_start(r->vm);
        if (r->options.verbose > 0) {
            fputs("sosia: the guest runs\n", stderr);
        }
    }
    wait_for_end(r);
    /* The guest's last words, unless the person has no more patience. */
    if (!r->console.quit && r->signal == 0) {
        output_drain(&r->output, PATIENCE_MS);
    }
    int status = status_of(r);
    if (r->options.verbose > 0) {
        say_how_it_went(r, &from);
        say_counters(r);
    }
    take_screenshot(r);
    return status;
}

/* Also to the source of a VM that was to come. */
static int fail_vm(struct run *r, const char *text)
{
    sosia_incoming_close(r->options.incoming, text);
    r->options.incoming = NULL;
    return fail(text);
}

/* Signals end us as any program: until the VM is here there is nothing to do about it first. */
static int receive(struct run *r, char *error)
{
    sigset_t blocked;
    bool paused = false;
    pthread_sigmask(SIG_SETMASK, &r->signals, &blocked);
    int result = sosia_vm_receive(r->vm, r->options.incoming, &paused, error);
    pthread_sigmask(SIG_SETMASK, &blocked, NULL);
    if (result == 0) {
        r->options.paused |= paused;
        sosia_incoming_close(r->options.incoming, NULL);
        r->options.incoming = NULL;
    }
    return result;
}

static int run_vm(struct run *r)
{
    char error[SOSIA_ERROR_BYTES];
    r->options.config.ctx = r;
    r->options.config.serial_output = on_output;
    r->options.config.debug_output = on_debug;
    r->options.config.ended = on_end;
    if (sosia_vm_new(&r->vm, &r->options.config, error) < 0) {
        return fail_vm(r, error);
    }
    const struct run_options *o = &r->options;
    if (o->snapshot != NULL && sosia_vm_restore(r->vm, o->snapshot, error) < 0) {
        sosia_vm_free(r->vm);
        return fail(error);
    }
    if ((o->name != NULL || o->api != NULL) &&
        sosia_api_new(&r->api, r->vm, o->name, o->api, error) < 0) {
        sosia_vm_free(r->vm);
        return fail_vm(r, error);
    }
    if (o->gdb != NULL && sosia_gdb_new(&r->gdb, r->vm, o->gdb, error) < 0) {
        sosia_api_free(r->api);
        sosia_vm_free(r->vm);
        return fail_vm(r, error);
    }
    if (o->gdb != NULL) {
        fprintf(stderr, "sosia: gdb: target remote %s\n", sosia_gdb_where(r->gdb));
    }
    say_ptys(r);
    say_display(r);
    int status = 1;
    r->started = r->hooks == NULL || r->hooks->go(r->hooks->ctx);
    if (o->incoming != NULL && receive(r, error) < 0) {
        r->started = false;
        fail_vm(r, error);
    }
    if (r->started) {
        status = live(r);
    }
    sosia_gdb_free(r->gdb);
    sosia_api_free(r->api);
    sosia_vm_free(r->vm);
    term_restore();
    return status;
}

/* On the terminal, with signals and output set up and taken down around it. */
static int run_with_output(struct run *r, bool *done)
{
    struct err e = { 0 };
    sigset_t old;
    r->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    r->signal_fd = open_signals(&old);
    r->signals = old;
    if (r->event_fd < 0 || r->signal_fd < 0) {
        return fail(strerror(errno));
    }
    if (output_init(&r->output, r->event_fd, &e) < 0) {
        return fail(e.msg);
    }
    int status = run_vm(r);
    *done = output_fini(&r->output);
    if (r->signal != 0) {
        /* As the signal would have ended us, so that a shell sees what happened. */
        signal(r->signal, SIG_DFL);
        pthread_sigmask(SIG_SETMASK, &old, NULL);
        raise(r->signal);
    }
    return status;
}

static int parse(struct run *r, int argc, char **argv, struct err *e)
{
    struct run_options *o = &r->options;
    int result = options_parse(o, argc, argv, e);
    const char *prefix = o->snapshot_path;
    if (result == 0 && r->hooks != NULL) {
        result = r->hooks->prepare(r->hooks->ctx, o, &prefix, e);
    }
    if (result == 0 && o->snapshot != NULL && !o->help) {
        result = options_keep_disks(o, prefix, e);
    }
    return result;
}

int run_main(int argc, char **argv) { return run_hooked(argc, argv, NULL); }

int run_hooked(int argc, char **argv, const struct run_hooks *hooks)
{
    struct run *r = xzalloc(sizeof *r);
    r->hooks = hooks;
    struct err e = { 0 };
    bool done = true; /* else the output thread outlives us, stuck in a write, and needs r */
    int status = 0;
    if (parse(r, argc, argv, &e) < 0) {
        status = fail_vm(r, e.msg);
    } else if (r->options.help) {
        run_help();
    } else {
        sosia_log_level(1 + r->options.verbose);
        status = run_with_output(r, &done);
    }
    if (r->options.snapshot != NULL && !r->started) {
        sosia_snapshot_drop_disks(r->options.snapshot);
    }
    sosia_snapshot_close(r->options.snapshot);
    if (done) {
        free(r);
    }
    return status;
}
