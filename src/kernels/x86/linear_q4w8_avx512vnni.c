/* kernels/x86/linear_q4w8_avx512vnni.c - 4-bit weights as 8-bit integers at this level:
 * linear_q4w8.inc with its vectors, and with matrix tiles for many rows. */
#include "kernels/x86/vecq_avx512.h"

#include "cpu/cpu.h"
#include "kernels/simd/vmath.inc"
#include "kernels/simd/linear_q4w8.inc"

/* ---- matrix tiles ---- */

#include "kernels/x86/linear_amx_rows.inc"

#define AMX_MIN_ROWS 13 /* below, the vector kernel is as fast: docs/perf-log.md */

static void run_amx(const struct ew_linear_args *a, size_t begin, size_t end, void *scratch)
{
    const struct w8_job j = job_make(a);
    const struct amx_rows rows = { .a = a,
                                   .x = row_of(&j, 0),
                                   .x_stride = j.x_stride,
                                   .x_scale = j.k + 4,
                                   .k_tiles = j.k / TILE_K,
                                   .scales = a->w,
                                   .scales_apart = j.map.panel_bytes };
    const size_t step = PANELS / j.per_unit;

    if (a->m < AMX_MIN_ROWS) {
        run(a, begin, end, scratch);
        return;
    }
    for (size_t u = begin; u < end; u += step) {
        const size_t us[2] = { u, end - u < step ? end : u + step };

        expand_units(&j, us, 0, scratch);
        amx_rows_units(&rows, us, scratch, j.k * P);
    }
    amx_release();
}

#define VNNI_NEED (EW_CPU_AVX2 | EW_CPU_AVX512 | EW_CPU_AVX512VNNI)
W8_KERNEL(avx512vnni_p32, VNNI_NEED, run)
W8_KERNEL(amx_p32, (VNNI_NEED | EW_CPU_AMX), run_amx)
