/* base/error.c - error text and the names of statuses and dtypes. Owns no state. */
#include "base/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

const char *ew_status_text(ew_status status)
{
    switch (status) {
#define CASE(name, number, text)                                                                   \
    case EW_STATUS_##name:                                                                         \
        return text;
        EW_STATUS_MAP(CASE)
#undef CASE
    case EW_STATUS_FORCE32:
        break;
    }
    return "unknown status";
}

/* Names come from untrusted files: no control characters reach a terminal or a log. */
static void neutralise(char *text)
{
    for (char *p = text; *p; p++)
        if ((unsigned char)*p < 0x20 || *p == 0x7f)
            *p = '?';
}

ew_status ew_fail(ew_error *err, ew_status s, const char *fmt, ...)
{
    va_list args;

    if (!err)
        return s;
    err->status = s;
    va_start(args, fmt);
    vsnprintf(err->text, sizeof(err->text), fmt, args);
    va_end(args);
    neutralise(err->text);
    return s;
}

void ew_error_within(ew_error *err, const char *fmt, ...)
{
    char where[256];
    char old[sizeof(err->text)];
    va_list args;

    if (!err)
        return;
    va_start(args, fmt);
    vsnprintf(where, sizeof(where), fmt, args);
    va_end(args);
    memcpy(old, err->text, sizeof(old));
    snprintf(err->text, sizeof(err->text), "%s: %.*s", where,
             (int)(sizeof(old) - sizeof(where) - 4), old);
    neutralise(err->text);
}

const char *ew_dtype_text(ew_dtype dtype)
{
    static const char *const names[] = {
#define NAME(name, number, text, bits) [number] = text,
        EW_DTYPE_MAP(NAME)
#undef NAME
    };
    const unsigned i = (unsigned)dtype;

    return i < EW_DTYPE_COUNT ? names[i] : "?";
}

unsigned ew_dtype_bits(ew_dtype dtype)
{
    static const unsigned char widths[] = {
#define WIDTH(name, number, text, bits) [number] = bits,
        EW_DTYPE_MAP(WIDTH)
#undef WIDTH
    };
    const unsigned i = (unsigned)dtype;

    return i < EW_DTYPE_COUNT ? widths[i] : 0;
}

ew_dtype ew_dtype_find(const char *text)
{
    for (unsigned i = 1; i < EW_DTYPE_COUNT; i++)
        if (strcmp(text, ew_dtype_text((ew_dtype)i)) == 0)
            return (ew_dtype)i;
    return EW_DTYPE_NONE;
}
