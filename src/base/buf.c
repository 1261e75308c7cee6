/* base/buf.c - growable byte buffer with a hard cap. */
#include "base/buf.h"

#include <stdarg.h>
#include <stdio.h>

#include "base/size.h"

void ew_buf_init(struct ew_buf *b, enum ew_mem_tag tag, size_t max_len)
{
    *b = (struct ew_buf){ .max_len = max_len, .tag = tag };
}

void ew_buf_deinit(struct ew_buf *b)
{
    ew_mem_free(b->data);
    b->data = NULL;
    b->len = b->cap = 0;
}

void ew_buf_reset(struct ew_buf *b)
{
    b->len = 0;
    b->failed = false;
    if (b->data)
        b->data[0] = '\0';
}

bool ew_buf_reserve(struct ew_buf *b, size_t extra)
{
    size_t need, cap;
    char *data;

    if (b->failed)
        return false;
    if (!ew_size_add(b->len, extra, &need) || need > b->max_len || need == SIZE_MAX) {
        b->failed = true;
        return false;
    }
    if (need < b->cap)
        return true;
    cap = b->cap ? b->cap : 64;
    while (cap <= need)
        cap = cap > SIZE_MAX / 2 ? need + 1 : cap * 2;
    data = ew_mem_resize(b->tag, b->data, cap, 1);
    if (!data) {
        b->failed = true;
        return false;
    }
    b->data = data;
    b->cap = cap;
    data[b->len] = '\0'; /* a reserved buffer is an empty string too */
    return true;
}

bool ew_buf_append(struct ew_buf *b, const void *bytes, size_t len)
{
    if (!ew_buf_reserve(b, len))
        return false;
    if (len)
        memcpy(b->data + b->len, bytes, len);
    b->len += len;
    b->data[b->len] = '\0';
    return true;
}

bool ew_buf_puts(struct ew_buf *b, const char *text)
{
    return ew_buf_append(b, text, strlen(text));
}

bool ew_buf_putc(struct ew_buf *b, char c)
{
    return ew_buf_append(b, &c, 1);
}

bool ew_buf_printf(struct ew_buf *b, const char *fmt, ...)
{
    va_list args;
    va_list again;
    bool ok = false;

    va_start(args, fmt);
    va_copy(again, args);
    const int len = vsnprintf(NULL, 0, fmt, args);
    if (len >= 0 && ew_buf_reserve(b, (size_t)len)) {
        vsnprintf(b->data + b->len, (size_t)len + 1, fmt, again);
        b->len += (size_t)len;
        ok = true;
    }
    va_end(again);
    va_end(args);
    return ok;
}

char *ew_buf_take(struct ew_buf *b)
{
    char *data;

    if (b->failed || (!b->data && !ew_buf_append(b, "", 0))) {
        ew_buf_deinit(b);
        return NULL;
    }
    data = b->data;
    b->data = NULL;
    b->len = b->cap = 0;
    return data;
}
