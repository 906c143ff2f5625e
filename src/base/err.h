/* SPDX-License-Identifier: Apache-2.0
 *
 * An error that a person will read: one line, outermost context first. Low layers return 0 or
 * -errno and fill a struct err where the failure is the user's business (config, image, snapshot).
 */
#ifndef SOSIA_BASE_ERR_H
#define SOSIA_BASE_ERR_H

#define MUST_CHECK __attribute__((warn_unused_result))
#define PRINTF_LIKE(fmt, args) __attribute__((format(printf, fmt, args)))

struct err {
    char msg[512]; /* "" when nothing failed */
};

/* Replace the message and return code (negative errno), so that `return err_set(...)` reads well.
 * e may be NULL. Thread: [any]. */
int err_set(struct err *e, int code, const char *fmt, ...) PRINTF_LIKE(3, 4);

/* Put context in front: "context: old message". Returns code. */
int err_prefix(struct err *e, int code, const char *fmt, ...) PRINTF_LIKE(3, 4);

#endif
