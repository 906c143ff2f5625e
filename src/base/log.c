/* SPDX-License-Identifier: Apache-2.0 */
#include "base/log.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <time.h>

#define LINE_MAX_BYTES 1024
#define GUEST_LINES_PER_SECOND 10u
#define GUEST_TOPICS 64u

/* Presentation of the whole process, as the header says; the only mutable statics in base/. */
static _Atomic int log_level_now = LOG_WARN;
static pthread_mutex_t sink_lock = PTHREAD_MUTEX_INITIALIZER; /* guards sink and its ctx */
static void (*sink_fn)(void *ctx, enum log_level level, const char *line);
static void *sink_ctx;

/* One slot per hash of the device's name: the second (upper half) and the lines in it. Two devices
 * that share a slot share a budget, which is good enough to stop a flood. */
static _Atomic uint64_t guest_budget[GUEST_TOPICS];

void log_set_level(enum log_level level) { atomic_store(&log_level_now, level); }
enum log_level log_get_level(void) { return atomic_load(&log_level_now); }

void log_set_sink(void (*sink)(void *ctx, enum log_level level, const char *line), void *ctx)
{
    pthread_mutex_lock(&sink_lock);
    sink_fn = sink;
    sink_ctx = ctx;
    pthread_mutex_unlock(&sink_lock);
}

static void emit(enum log_level level, const char *topic, const char *fmt, va_list ap)
    __attribute__((format(printf, 3, 0)));

static void emit(enum log_level level, const char *topic, const char *fmt, va_list ap)
{
    if (atomic_load_explicit(&log_level_now, memory_order_relaxed) < (int)level) {
        return;
    }
    char line[LINE_MAX_BYTES];
    int n = 0;
    if (topic != NULL) {
        n = snprintf(line, sizeof line, "%s: ", topic);
    }
    if (n >= 0 && (size_t)n < sizeof line) {
        vsnprintf(line + n, sizeof line - (size_t)n, fmt, ap);
    }
    /* One message, one line, and no terminal escapes: text may come from a file or a guest. */
    for (char *c = line; *c != '\0'; c++) {
        if ((unsigned char)*c < 0x20 || *c == 0x7f) {
            *c = ' ';
        }
    }
    pthread_mutex_lock(&sink_lock);
    if (sink_fn != NULL) {
        sink_fn(sink_ctx, level, line);
    } else {
        fprintf(stderr, "sosia: %s\n", line);
    }
    pthread_mutex_unlock(&sink_lock);
}

void log_err(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    emit(LOG_ERR, NULL, fmt, ap);
    va_end(ap);
}

void log_warn(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    emit(LOG_WARN, NULL, fmt, ap);
    va_end(ap);
}

void log_info(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    emit(LOG_INFO, NULL, fmt, ap);
    va_end(ap);
}

void log_dbg(const char *topic, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    emit(LOG_DEBUG, topic, fmt, ap);
    va_end(ap);
}

/* True while the topic has lines left in this second. */
static bool guest_may_log(const char *device)
{
    uint32_t hash = 5381;
    for (const char *c = device; *c != '\0'; c++) {
        hash = hash * 33 + (unsigned char)*c;
    }
    _Atomic uint64_t *slot = &guest_budget[hash % GUEST_TOPICS];

    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    uint32_t second = (uint32_t)ts.tv_sec;

    uint64_t old = atomic_load_explicit(slot, memory_order_relaxed);
    for (;;) {
        uint32_t used = (uint32_t)(old >> 32) == second ? (uint32_t)old : 0;
        if (used >= GUEST_LINES_PER_SECOND) {
            return false;
        }
        uint64_t fresh = (uint64_t)second << 32 | (used + 1);
        if (atomic_compare_exchange_weak_explicit(slot, &old, fresh, memory_order_relaxed,
                                                  memory_order_relaxed)) {
            return true;
        }
    }
}

void log_guest(const char *device, const char *fmt, ...)
{
    if (atomic_load_explicit(&log_level_now, memory_order_relaxed) < LOG_DEBUG ||
        !guest_may_log(device)) {
        return;
    }
    va_list ap;
    va_start(ap, fmt);
    emit(LOG_DEBUG, device, fmt, ap);
    va_end(ap);
}
