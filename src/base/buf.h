/* base/buf.h - string views and growable byte buffers with a hard cap.
 *
 * A buffer that failed to grow stays failed (`failed` set, content unchanged), so that a chain of
 * appends is checked once at the end. data is NUL-terminated whenever it is not NULL. */
#ifndef EW_BASE_BUF_H
#define EW_BASE_BUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/mem.h"

struct ew_str { /* a view: not owned, not terminated */
    const char *at;
    size_t len;
};

static inline struct ew_str ew_str_from(const char *text)
{
    return (struct ew_str){ text, strlen(text) };
}

static inline bool ew_str_equal(struct ew_str a, struct ew_str b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.at, b.at, a.len) == 0);
}

static inline bool ew_str_is(struct ew_str a, const char *text)
{
    return ew_str_equal(a, ew_str_from(text));
}

struct ew_buf {
    char *data;
    size_t len;
    size_t cap;
    size_t max_len; /* refuse to grow past this */
    bool failed;    /* out of memory, or over max_len */
    enum ew_mem_tag tag;
};

void ew_buf_init(struct ew_buf *b, enum ew_mem_tag tag, size_t max_len);
void ew_buf_deinit(struct ew_buf *b);
void ew_buf_reset(struct ew_buf *b); /* empties, keeps capacity, clears failed */
bool ew_buf_append(struct ew_buf *b, const void *bytes, size_t len);
bool ew_buf_puts(struct ew_buf *b, const char *text);
bool ew_buf_putc(struct ew_buf *b, char c);
bool ew_buf_printf(struct ew_buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
bool ew_buf_reserve(struct ew_buf *b, size_t extra);
/* Ownership moves to the caller (ew_mem_free); the buffer is empty again. NULL if failed. */
char *ew_buf_take(struct ew_buf *b);

#endif
