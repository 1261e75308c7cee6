/* kernels/cuda/gather_panels.cu - rows of a quantised layout (linear.h) by index, as f32: the
 * embedding lookup where a tied head has packed the table.
 *
 * grid (n_idx). A thread turns four columns of a tile of 16 at a time into floats: 2t, 2t+1, 2t+8,
 * 2t+9, what a lane of the layout has of one row. Macros: those of ew_cuda_quant_defines. */
#include "copy.cuh"
#include "rows_args.cuh"

#define WIDE       (EW_CODE >= 4)
#define BLOCK_COLS (WIDE ? 32 : 64)
#define SUB        (EW_GROUP > 0 && EW_GROUP < BLOCK_COLS ? BLOCK_COLS / EW_GROUP : 1)

EW_DEV float code_value(uint32_t c)
{
#if EW_CODE == 1
    return (float)((int)c - 8);
#elif EW_CODE == 3 /* e2m1: exponent and mantissa in place, then times 2^126 */
    return __uint_as_float((c & 8) << 28 | (c & 7) << 22) * 0x1p126f;
#elif EW_CODE == 4
    return (float)(signed char)c;
#elif EW_CODE == 6
    return ew_e4m3_f32(c);
#elif EW_CODE == 7
    return ew_e5m2_f32(c);
#else
    return (float)c;
#endif
}

EW_DEV float scale_at(const char *scales, uint32_t i)
{
#if EW_SCALE == 1
    return ((const float *)scales)[i];
#elif EW_SCALE == 2
    return ew_f16_f32(((const uint16_t *)scales)[i]);
#elif EW_SCALE == 3
    return ew_bf16_f32(((const uint16_t *)scales)[i]);
#elif EW_SCALE == 4
    return ew_e4m3_f32(((const uint8_t *)scales)[i]);
#elif EW_SCALE == 5
    return ew_e8m0_f32(((const uint8_t *)scales)[i]);
#else
    return 1.0f;
#endif
}

EW_DEV float zero_at(const char *zeros, uint32_t i)
{
#if !EW_ZERO
    return 0.0f;
#elif WIDE
    return (float)((const short *)zeros)[i];
#else
    return (float)((const uint8_t *)zeros)[i];
#endif
}

extern "C" __global__ void __launch_bounds__(256)
    ew_gather_panels(const struct ew_cuda_gather_panels_args a)
{
    ew_grid_release();
    ew_grid_wait();
    const int id = ((const int *)a.idx)[blockIdx.x];
    const bool is_in = id >= 0 && (uint64_t)id < a.n_rows;
    const uint32_t row = is_in ? (uint32_t)id % 16 : 0, g = row % 8, h = row / 8;
    const char *const panel =
        (const char *)a.src + (is_in ? (uint64_t)id / 16 : 0) * (uint64_t)a.panel_bytes;
    const float row_scale = ((const float *)(panel + a.row_scales_at))[row];
    float *const dst = (float *)a.dst + (uint64_t)blockIdx.x * a.k;

    for (uint32_t i = threadIdx.x; i < (a.k + 15) / 16 * 4; i += blockDim.x) {
        const uint32_t tile = i / 4, t = i % 4, per = BLOCK_COLS / 16;
        const uint32_t group = EW_GROUP ? tile * 16 / (EW_GROUP ? EW_GROUP : 1) : 0;
        const uint32_t at = ((group / SUB * 8 + g) * SUB + group % SUB) * 2 + h;
        const char *const codes = panel + tile / per * 512 + (4 * g + t) * 16;
        const float scale = scale_at(panel + a.scales_at, at), zero = zero_at(panel + a.zeros_at, at);

#pragma unroll
        for (uint32_t c = 0; c < 4; c++) {
            const uint32_t col = tile * 16 + 2 * t + c % 2 + c / 2 * 8;
#if WIDE
            const uint32_t code = ((const uint8_t *)codes)[tile % per * 8 + c / 2 * 4 + c % 2 * 2 + h];
#else
            const uint32_t word = ((const uint32_t *)codes)[tile % per];
            const uint32_t code = word >> (c % 2 * 16 + c / 2 * 8 + h * 4) & 15u;
#endif
            const float v = (code_value(code) - zero) * scale * row_scale * a.scale;

            if (col < a.k)
                dst[col] = is_in ? v : __uint_as_float(0x7fc00000u);
        }
    }
}
