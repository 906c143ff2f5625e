/* SPDX-License-Identifier: Apache-2.0
 *
 * Messages to the person who runs the VM: stderr (or a sink that the embedding program sets), one
 * line, lower case, subject first, no full stop. Guests can provoke some of these, so guest_error
 * style messages go through log_guest, which counts and rate-limits per topic.  Thread: [any].
 */
#ifndef SOSIA_BASE_LOG_H
#define SOSIA_BASE_LOG_H

#include "base/err.h"

enum log_level { LOG_ERR, LOG_WARN, LOG_INFO, LOG_DEBUG };

/* The level and sink are process-wide presentation, not VM state. */
void log_set_level(enum log_level level);
void log_set_sink(void (*sink)(void *ctx, enum log_level level, const char *line), void *ctx);
enum log_level log_get_level(void);

void log_err(const char *fmt, ...) PRINTF_LIKE(1, 2);
void log_warn(const char *fmt, ...) PRINTF_LIKE(1, 2);
void log_info(const char *fmt, ...) PRINTF_LIKE(1, 2);
void log_dbg(const char *topic, const char *fmt, ...) PRINTF_LIKE(2, 3);

/* The guest did something a datasheet forbids: LOG_DEBUG only, at most 10 lines a second */
void log_guest(const char *device, const char *fmt, ...) PRINTF_LIKE(2, 3);

#endif
