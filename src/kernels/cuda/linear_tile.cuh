// kernels/cuda/linear_tile.cuh - from a warp's accumulators (a panel of 16 rows of W by rows of x,
// as mma leaves them) to y: through a buffer in shared memory, so that stores are wide and the code
// of the epilogue stands once and not once per accumulator (straight-line code of a whole tile does
// not fit the instruction cache).
#ifndef EW_KERNELS_CUDA_LINEAR_TILE_CUH
#define EW_KERNELS_CUDA_LINEAR_TILE_CUH

#include "copy.cuh"
#include "linear_epilogue.cuh"

#define EW_TILE_ROWS  32                                 // rows of x at a time
#define EW_TILE_PITCH 20                                 // floats
#define EW_TILE_BYTES (EW_TILE_ROWS * EW_TILE_PITCH * 4) // of a warp

// Whether y (and residual) can be read and written by fours at columns that are multiples of 4.
EW_DEV bool ew_wide(const ew_args &a)
{
    return (EW_SHORT ? (a.y | a.y_stride * 2) % 8 == 0 : (a.y | a.y_stride * 4) % 16 == 0) &&
           (!a.residual || ((a.residual | a.residual_stride * 4) & 15) == 0);
}

// What ew_store4 adds, asked for ahead.
EW_DEV float4 ew_residual4(const ew_args &a, uint32_t m, uint32_t n, bool wide)
{
    if (!a.residual || !wide || n + 4 > a.n_out || m >= a.m)
        return make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    return *(const float4 *)((const float *)a.residual + m * a.residual_stride + n);
}

EW_DEV void ew_store4(const ew_args &a, const float z[4], float4 r, uint32_t m, uint32_t n,
                      bool wide)
{
    if (wide && n + 4 <= a.n_out) {
        const float4 y = make_float4(z[0] + r.x, z[1] + r.y, z[2] + r.z, z[3] + r.w);
#if EW_SHORT
        *(uint2 *)((uint16_t *)a.y + m * a.y_stride + n) =
            make_uint2(ew_short2(y.x, y.y), ew_short2(y.z, y.w));
#else
        *(float4 *)((float *)a.y + m * a.y_stride + n) = y;
#endif
        return;
    }
#pragma unroll
    for (int i = 0; i < 4; i++)
        if (n + i < a.n_out)
            ew_store(a, z[i], m, n + i);
}

// Four outputs from column n on; gate and up: their sums, up with glu alone; r: ew_residual4.
EW_DEV void ew_finish4(const ew_args &a, const float gate[4], const float up[4], float4 r,
                       uint32_t m, uint32_t n, bool wide)
{
    float y[4];

#pragma unroll
    for (int i = 0; i < 4; i++) {
        const uint32_t at = n + i < a.n_out ? n + i : a.n_out - 1;
        y[i] = ew_act(ew_finish(a, gate[i], at));
        if (EW_GLU)
            y[i] *= ew_finish(a, up[i], at + a.n_out);
    }
    ew_store4(a, y, r, m, n, wide);
}

// Accumulators of EW_TILE_ROWS rows of x into the warp's buffer.
EW_DEV void ew_tile_put(float *buffer, const float acc[EW_TILE_ROWS / 2], uint32_t lane)
{
    const uint32_t g = lane / 4, t = lane % 4;

#pragma unroll
    for (int i = 0; i < EW_TILE_ROWS / 2; i++)
        buffer[(i / 4 * 8 + t * 2 + i % 2) * EW_TILE_PITCH + g + (i % 4 < 2 ? 0 : 8)] = acc[i];
}

#define EW_TILE_LANES  (EW_GLU ? 2 : 4)                    // of a row of x
#define EW_TILE_PASSES (EW_TILE_ROWS * EW_TILE_LANES / 32) // of the warp over the buffer

// What the next ew_tile_store adds.
EW_DEV void ew_tile_residual(const ew_args &a, float4 r[EW_TILE_PASSES], uint32_t panel,
                             uint32_t m0, uint32_t lane, bool wide)
{
    const uint32_t n = panel * (EW_GLU ? 8 : 16) + lane % EW_TILE_LANES * 4;

#pragma unroll
    for (int i = 0; i < EW_TILE_PASSES; i++)
        r[i] = ew_residual4(a, m0 + lane / EW_TILE_LANES + i * (32 / EW_TILE_LANES), n, wide);
}

// The buffer to y. scales: the panel's row scales, or NULL.
EW_DEV void ew_tile_store(const ew_args &a, const float *buffer, const float *scales,
                          const float4 residual[EW_TILE_PASSES], uint32_t panel, uint32_t m0,
                          uint32_t lane, bool wide)
{
    const int lanes = EW_TILE_LANES;
    const uint32_t q = lane % lanes * 4, n = panel * (EW_GLU ? 8 : 16) + q;
    float s[4] = { 1.0f, 1.0f, 1.0f, 1.0f }, up[4] = { 1.0f, 1.0f, 1.0f, 1.0f };

    if (scales) {
        const float4 v = *(const float4 *)(scales + q);
        s[0] = v.x, s[1] = v.y, s[2] = v.z, s[3] = v.w;
        if (EW_GLU) {
            const float4 u = *(const float4 *)(scales + 8 + q);
            up[0] = u.x, up[1] = u.y, up[2] = u.z, up[3] = u.w;
        }
    }
    if (n >= a.n_out)
        return;
#pragma unroll
    for (int i = 0; i < EW_TILE_PASSES; i++) {
        const uint32_t r = lane / lanes + i * (32 / lanes);

        if (m0 + r >= a.m)
            break;
        const float4 v = *(const float4 *)(buffer + r * EW_TILE_PITCH + q);
        const float z[4] = { v.x * s[0], v.y * s[1], v.z * s[2], v.w * s[3] };
        float w[4] = { 0.0f, 0.0f, 0.0f, 0.0f };

        if (EW_GLU) {
            const float4 u = *(const float4 *)(buffer + r * EW_TILE_PITCH + 8 + q);
            w[0] = u.x * up[0], w[1] = u.y * up[1], w[2] = u.z * up[2], w[3] = u.w * up[3];
        }
        ew_finish4(a, z, w, residual[i], m0 + r, n, wide);
    }
}

#endif
