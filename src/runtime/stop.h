/* runtime/stop.h - stop strings in a growing text: where one begins, and how much of the end could
 * still become one. */
#ifndef EW_RUNTIME_STOP_H
#define EW_RUNTIME_STOP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct ew_stop { /* borrowed strings */
    const char *const *strings;
    uint32_t n;
};

/* Where the earliest stop string begins, of those that end after byte `seen` (what an earlier call
 * looked at). */
bool ew_stop_find(const struct ew_stop *s, const char *text, size_t len, size_t seen, size_t *at);
/* Bytes at the end that are the beginning of a stop string: not to be shown yet. */
size_t ew_stop_held(const struct ew_stop *s, const char *text, size_t len);

#endif
