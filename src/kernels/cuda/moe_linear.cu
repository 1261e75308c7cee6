/* kernels/cuda/moe_linear.cu - one product of Moe for the experts that have rows: a block takes a
 * tile of places of one expert and a range of outputs; a warp multiplies OUTS rows of the weight at
 * a time with all rows of the tile, in f32.
 *
 * grid (outputs / (8 OUTS), tiles at most). Macros: EW_W (0 f32, 1 f16, 2 bf16), EW_R (places of a
 * tile), EW_GLU (1: rows n and n + a.n of the weight are gate and up, x is by row; 0: x is by
 * place). */
#include "moe_args.cuh"
#include "reduce.cuh"

#define OUTS  (EW_GLU ? 2 : 4)
#define WROWS 4 /* rows of the weight in hand */

namespace
{

struct eight {
    float v[8];
};

EW_DEV struct eight weights(const char *row, unsigned i)
{
    struct eight r;

#if EW_W == 0
    const float4 a = __ldg((const float4 *)row + 2 * i), b = __ldg((const float4 *)row + 2 * i + 1);

    r = { { a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w } };
#else
    const uint4 u = ew_load_stream((const uint4 *)row + i);
    const uint32_t w[4] = { u.x, u.y, u.z, u.w };

#    pragma unroll
    for (int j = 0; j < 4; j++) {
        r.v[2 * j] = EW_W == 1 ? ew_f16_lo(w[j]) : ew_bf16_lo(w[j]);
        r.v[2 * j + 1] = EW_W == 1 ? ew_f16_hi(w[j]) : ew_bf16_hi(w[j]);
    }
#endif
    return r;
}

EW_DEV float activate(int act, float x)
{
    switch (act) { /* enum ew_act */
    case 1:
        return x / (1.0f + expf(-x));
    case 2:
        return 0.5f * x * (1.0f + tanhf(0.79788456080286535588f * (x + 0.044715f * x * x * x)));
    case 3:
        return 0.5f * x * (1.0f + erff(x * 0.70710678118654752440f));
    case 4:
        return x > 0 || isnan(x) ? x : 0.0f;
    case 5:
        return x > 0 || isnan(x) ? x * x : 0.0f;
    default:
        return x;
    }
}

} // namespace

extern "C" __global__ void __launch_bounds__(256)
    ew_moe_linear(const __grid_constant__ ew_cuda_moe_args a)
{
    const unsigned lane = threadIdx.x % 32;
    const unsigned n0 = (blockIdx.x * 8 + threadIdx.x / 32) * OUTS;
    const float *x[EW_R];
    const char *w[WROWS];
    float acc[WROWS][EW_R] = { { 0 } };

    ew_grid_release();
    ew_grid_wait();
    if (blockIdx.y >= *(const unsigned *)a.n_tiles || n0 >= a.n)
        return;
    const int4 tile = ((const int4 *)a.tiles)[blockIdx.y];

#pragma unroll
    for (int r = 0; r < EW_R; r++) {
        const unsigned place = tile.y + min(r, tile.z - 1);
        const unsigned row = EW_GLU ? ((const int *)a.row)[place] : place;

        x[r] = (const float *)a.x + (uint64_t)row * a.k;
    }
#pragma unroll
    for (int j = 0; j < WROWS; j++) {
        const unsigned n = min(n0 + j % OUTS, a.n - 1) + (EW_GLU && j >= OUTS ? a.n : 0);

        w[j] =
            (const char *)a.w + tile.x * a.expert_stride + (uint64_t)n * a.ld * (EW_W == 0 ? 4 : 2);
    }
#pragma unroll 2
    for (unsigned i = lane; i < a.k / 8; i += 32) {
        struct eight v[WROWS];

#pragma unroll
        for (int j = 0; j < WROWS; j++)
            v[j] = weights(w[j], i);
#pragma unroll
        for (int r = 0; r < EW_R; r++) {
            const float4 lo = ((const float4 *)x[r])[2 * i], hi = ((const float4 *)x[r])[2 * i + 1];
            const float u[8] = { lo.x, lo.y, lo.z, lo.w, hi.x, hi.y, hi.z, hi.w };

#pragma unroll
            for (int j = 0; j < WROWS; j++)
#pragma unroll
                for (int c = 0; c < 8; c++)
                    acc[j][r] = fmaf(v[j].v[c], u[c], acc[j][r]);
        }
    }
#pragma unroll
    for (int r = 0; r < EW_R; r++) {
#pragma unroll
        for (int j = 0; j < WROWS; j++)
            acc[j][r] = ew_warp_sum(acc[j][r]);
        if (r >= tile.z || lane != 0)
            continue;
        float *const y = (float *)a.y + (uint64_t)(tile.y + r) * a.n;
#pragma unroll
        for (int j = 0; j < OUTS; j++)
            if (n0 + j < a.n)
                y[n0 + j] =
                    EW_GLU ? activate(a.act, acc[j][r]) * acc[j + OUTS % WROWS][r] : acc[j][r];
    }
}
