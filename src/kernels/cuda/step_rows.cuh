/* kernels/cuda/step_rows.cuh - how the vectors of several sequences pass between the blocks of
 * step_rows.cu. Device only.
 *
 * Eight times as many numbers make eight times as many packets: half of what is read would be
 * sequences. So words carry numbers alone, and 0 says that a word is not there yet (a zero is sent
 * as minus zero). Every vector of a step has words of its own, twice: while one step fills one set,
 * who writes a word clears the same word of the other, which the step before this one filled and
 * the one after it will fill. Kernels end between, so that no block reads what another clears.
 *
 *   pairs    what a linear reads: [k / 32][8 sequences][32] of 16-bit floats, two a word: a warp's
 *            load of 512 bytes is a B operand of mma
 *            load of 512 bytes is a B operand of mma. For panels of codes (EW_STEP_PANELS) bf16
 *            and, of 32 columns, in the order 2t, 2t+1, 2t+8, 2t+9, then those of the other 16
 *   squares  f32 [sequences][n]: behind a norm panels want sums of squares: of pairs, or of the 8
 *            outputs that a warp makes of panels
 *   singles  what attention reads and what a residual adds: f32 [sequences][n] */
#ifndef EW_KERNELS_CUDA_STEP_ROWS_CUH
#define EW_KERNELS_CUDA_STEP_ROWS_CUH

#include "step_dev.cuh"

#define STEP_QUANTS (1 << EW_STEP_Q4 | 1 << EW_STEP_Q8)
#define STEP_LARGE  __uint_as_float(0x71800000u) /* 2^100: step_linear_rows_quant.cuh says why */

/* The set of this step. */
EW_DEV uint64_t words_now(const struct step *s)
{
    return s->a->workspace + (s->odd ? s->a->turn * 8 : 0);
}
/* The same word of the other set. */
EW_DEV uint64_t words_other(const struct step *s, uint64_t at)
{
    return s->odd ? at - s->a->turn * 8 : at + s->a->turn * 8;
}
EW_DEV uint2 words_load2(uint64_t at)
{
    uint2 v;

    asm volatile("ld.relaxed.gpu.global.v2.u32 {%0,%1}, [%2];" : "=r"(v.x), "=r"(v.y) : "l"(at));
    return v;
}
/* v: what is at `at`, if `ask`. */
EW_DEV void words_load_if(uint4 *v, uint64_t at, bool ask)
{
    asm volatile("{ .reg .pred p; setp.ne.u32 p, %5, 0; "
                 "@p ld.relaxed.gpu.global.v4.u32 {%0,%1,%2,%3}, [%4]; }"
                 : "+r"(v->x), "+r"(v->y), "+r"(v->z), "+r"(v->w)
                 : "l"(at), "r"((uint32_t)ask));
}
EW_DEV bool word_is_there(uint32_t v)
{
    return EW_STEP_BOUND & 1 || v;
}
/* 0: one of them is not there. */
EW_DEV uint32_t words_least(uint4 v)
{
    return min(min(v.x, v.y), min(v.z, v.w));
}
/* Sends words at `at` of the set of this step, and clears them in the other one. */
EW_DEV void word_store(const struct step *s, uint32_t at, uint32_t v)
{
    const uint64_t to = words_now(s) + at;

    asm volatile("st.relaxed.gpu.global.u32 [%0], %1;" ::"l"(to), "r"(v));
    asm volatile("st.relaxed.gpu.global.u32 [%0], %1;" ::"l"(words_other(s, to)), "r"(0u));
}
EW_DEV void words_store2(const struct step *s, uint32_t at, uint32_t v, uint32_t w)
{
    const uint64_t to = words_now(s) + at;

    asm volatile("st.relaxed.gpu.global.v2.u32 [%0], {%1,%2};" ::"l"(to), "r"(v), "r"(w));
    asm volatile("st.relaxed.gpu.global.v2.u32 [%0], {%1,%1};" ::"l"(words_other(s, to)), "r"(0u));
}
/* Whether panels read pairs, of which flags (enum ew_step_flags) tell. */
EW_DEV bool words_are_panels(uint32_t flags)
{
    return EW_STEP_KINDS & STEP_QUANTS &&
           (!(EW_STEP_KINDS & 1 << EW_STEP_PLAIN16) || flags & EW_STEP_PANELS);
}
/* Numbers i and i + 1 of a sequence, i even, of the pairs at `at` (in units of 8 bytes). */
EW_DEV void words_put_pair(const struct step *s, uint32_t at, uint32_t flags, uint32_t row,
                           uint32_t i, float v, float w)
{
    uint32_t u, place = i % 32 * 2;

    if (words_are_panels(flags)) {
        u = bf16x2_of(v * STEP_LARGE, w * STEP_LARGE);
        place = i % 8 * 8 + i % 16 / 8 * 4 + i % 32 / 16 * 8;
    } else {
        u = half2_of<EW_STEP_PAIR_F16>(v, w);
    }
    word_store(s, at * 8 + i / 32 * 512 + row * 64 + place, u ? u : 0x80008000u);
}
EW_DEV uint32_t word_of(float v)
{
    const uint32_t u = __float_as_uint(v);

    return u ? u : 0x80000000u;
}
/* Numbers i and i + 1, i even, of the singles at `at` (in units of 8 bytes). */
EW_DEV void words_put(const struct step *s, uint32_t at, uint32_t i, float v, float w)
{
    words_store2(s, at * 8 + i * 4, word_of(v), word_of(w));
}
/* The sum of squares i of n, of the `row`th sequence, of those at `at`. */
EW_DEV void words_put_square(const struct step *s, uint32_t at, uint32_t row, uint32_t n,
                             uint32_t i, float v)
{
    word_store(s, at * 8 + (row * n + i) * 4, word_of(v));
}
/* Two words, waiting for them; v is what was read of them so far. */
EW_DEV float2 words_wait2(const struct step *s, uint64_t at, uint2 v)
{
    uint32_t n = 0;

    while (!word_is_there(v.x) || !word_is_there(v.y)) {
        v = words_load2(at);
        if (++n > EW_STEP_POLL_LIMIT)
            step_gave_up(s);
    }
    return make_float2(f32_of(v.x), f32_of(v.y));
}

#endif
