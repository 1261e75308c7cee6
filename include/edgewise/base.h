/* edgewise/base.h - what every other public header needs: status, error text, dtypes, strings.
 *
 *   ew_status  what kind of thing went wrong (0 = nothing)
 *   ew_error   caller-owned text: file, object, both values; never allocated, NULL allowed
 *   ew_dtype   element types of tensors
 *
 * Thread safety: everything here is immutable or caller-owned. */
#ifndef EW_BASE_H
#define EW_BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "edgewise/version.h"

#if defined(__GNUC__)
#    define EW_API                __attribute__((visibility("default")))
#    define EW_PRINTF(fmt, first) __attribute__((format(printf, fmt, first)))
#    define EW_MUST_USE           __attribute__((warn_unused_result))
#else
#    define EW_API
#    define EW_PRINTF(fmt, first)
#    define EW_MUST_USE
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* Append-only; numbers are part of the ABI. */
/* clang-format off */
#define EW_STATUS_MAP(X)                                                        \
    X(OK,          0, "ok")                                                     \
    X(INVALID_ARG, 1, "invalid argument")       /* the caller's mistake      */ \
    X(NO_MEMORY,   2, "out of memory")                                          \
    X(IO,          3, "input/output error")                                     \
    X(MALFORMED,   4, "malformed input")        /* untrusted bytes           */ \
    X(UNSUPPORTED, 5, "not supported")          /* well-formed, refused      */ \
    X(MISMATCH,    6, "mismatch")               /* fine alone, wrong together */ \
    X(BUSY,        7, "busy")                                                   \
    X(DEVICE,      8, "device error")                                           \
    X(CANCELLED,   9, "cancelled")                                              \
    X(NOT_FOUND,  10, "not found")                                              \
    X(LIMIT,      11, "limit exceeded")         /* a named cap was hit       */
/* clang-format on */

typedef enum ew_status {
#define EW_STATUS_ENUM(name, number, text) EW_STATUS_##name = number,
    EW_STATUS_MAP(EW_STATUS_ENUM)
#undef EW_STATUS_ENUM
        EW_STATUS_FORCE32 = 0x7fffffff
} ew_status;

/* Static text of a status; never NULL. */
EW_API const char *ew_status_text(ew_status status);

/* Caller-owned error text. Functions that take `ew_error *err` accept NULL; the first failure
 * wins and callers up the stack prepend where they were. */
typedef struct ew_error {
    ew_status status;
    char text[1020];
} ew_error;

/* Sets *err (if given) to `s` and the formatted text; returns `s`. Control characters in the
 * result are replaced by '?', so that untrusted names cannot forge log lines. */
EW_API ew_status ew_fail(ew_error *err, ew_status s, const char *fmt, ...) EW_PRINTF(3, 4);
/* Prepends "<formatted>: " to a text that is already there. */
EW_API void ew_error_within(ew_error *err, const char *fmt, ...) EW_PRINTF(2, 3);

/* Element types. Numbers are part of the engine file format; append only. */
/* clang-format off */
#define EW_DTYPE_MAP(X)          /* name, number, text, bits */ \
    X(NONE,   0, "none",   0)                                  \
    X(F32,    1, "f32",   32)                                  \
    X(F16,    2, "f16",   16)                                  \
    X(BF16,   3, "bf16",  16)                                  \
    X(F64,    4, "f64",   64)                                  \
    X(I8,     5, "i8",     8)                                  \
    X(U8,     6, "u8",     8)                                  \
    X(I16,    7, "i16",   16)                                  \
    X(U16,    8, "u16",   16)                                  \
    X(I32,    9, "i32",   32)                                  \
    X(U32,   10, "u32",   32)                                  \
    X(I64,   11, "i64",   64)                                  \
    X(U64,   12, "u64",   64)                                  \
    X(BOOL,  13, "bool",   8)   /* one byte, 0 or 1 */         \
    X(F8E4M3, 14, "f8e4m3",   8) /* OCP e4m3fn */              \
    X(F8E5M2, 15, "f8e5m2",   8)                               \
    X(F4E2M1, 16, "f4e2m1",   4)                               \
    X(I4,    17, "i4",     4)                                  \
    X(U4,    18, "u4",     4)                                  \
    X(F8E8M0, 19, "f8e8m0",   8)                               \
    X(F8E4M3FNUZ, 20, "f8e4m3fnuz", 8)                         \
    X(F8E5M2FNUZ, 21, "f8e5m2fnuz", 8)
/* clang-format on */

typedef enum ew_dtype {
#define EW_DTYPE_ENUM(name, number, text, bits) EW_DTYPE_##name = number,
    EW_DTYPE_MAP(EW_DTYPE_ENUM)
#undef EW_DTYPE_ENUM
        EW_DTYPE_COUNT,
    EW_DTYPE_FORCE32 = 0x7fffffff
} ew_dtype;

/* "f32"...; "?" for a number out of range. */
EW_API const char *ew_dtype_text(ew_dtype dtype);
/* Bits of one element; 0 for NONE and numbers out of range. */
EW_API unsigned ew_dtype_bits(ew_dtype dtype);
/* Inverse of ew_dtype_text; NONE if unknown. */
EW_API ew_dtype ew_dtype_find(const char *text);

/* Severity of a log line. */
typedef enum ew_log_level {
    EW_LOG_ERROR = 0,
    EW_LOG_WARN = 1,
    EW_LOG_INFO = 2,
    EW_LOG_DEBUG = 3,
    EW_LOG_FORCE32 = 0x7fffffff
} ew_log_level;

/* The library never prints. Whoever wants its words passes one of these (borrowed for the life of
 * the object it is given to). `line` has no newline. May be called from any thread. */
typedef struct ew_logger {
    void *ctx;
    void (*log)(void *ctx, ew_log_level level, const char *line);
} ew_logger;

/* Progress of something a person waits for. `stage` is a short static name ("pack weights"),
 * `done` of `total` units (total 0: unknown). Returning false cancels: the operation stops with
 * EW_STATUS_CANCELLED and leaves nothing behind. Called from the thread that started the work. */
typedef struct ew_progress {
    void *ctx;
    bool (*step)(void *ctx, const char *stage, uint64_t done, uint64_t total);
} ew_progress;

#ifdef __cplusplus
}
#endif
#endif
