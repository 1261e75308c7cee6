/* base/size.h - the one place where sizes that come from outside are added and multiplied. */
#ifndef EW_BASE_SIZE_H
#define EW_BASE_SIZE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

static inline bool ew_size_add(size_t a, size_t b, size_t *out)
{
    return !__builtin_add_overflow(a, b, out);
}

static inline bool ew_size_mul(size_t a, size_t b, size_t *out)
{
    return !__builtin_mul_overflow(a, b, out);
}

static inline bool ew_i64_add(int64_t a, int64_t b, int64_t *out)
{
    return !__builtin_add_overflow(a, b, out);
}

static inline bool ew_i64_mul(int64_t a, int64_t b, int64_t *out)
{
    return !__builtin_mul_overflow(a, b, out);
}

/* Rounds up to a power of two; the caller knows that it cannot overflow. */
static inline size_t ew_align_up(size_t n, size_t align)
{
    return (n + align - 1) & ~(align - 1);
}

#define EW_COUNT(array) (sizeof(array) / sizeof((array)[0]))

#endif
