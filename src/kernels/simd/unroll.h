/* kernels/simd/unroll.h - how loops over registers are written: shared by all instruction sets. */
#ifndef EW_KERNELS_UNROLL_H
#define EW_KERNELS_UNROLL_H

/* Sanitizers make each unrolled step many times larger: there a loop stays a loop. */
#if defined(__has_feature)
#    if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#        define UNROLL
#    endif
#endif
#if defined(UNROLL)
#elif defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#    define UNROLL
#elif defined(__clang__)
#    define UNROLL _Pragma("clang loop unroll(full)")
#else
#    define UNROLL _Pragma("GCC unroll 16")
#endif
/* The same for a loop whose count is a constant at some of its uses alone: clang takes UNROLL for a
 * promise and complains of the others. */
#if defined(__clang__)
#    define UNROLL_MAYBE
#else
#    define UNROLL_MAYBE UNROLL
#endif
#define ALWAYS static inline __attribute__((always_inline))

#endif
