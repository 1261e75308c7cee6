// kernels/cuda/linear_gemv.cu - y = x W^T for a few rows of x and plain weights; exact: x is
// multiplied as it is. Contract in linear.h. A warp owns EW_ROWS rows of W and reads them by 16
// bytes a lane, EW_DEPTH steps ahead of the sums; the first reads start before the launch before
// this one ends.
//
// Macros: EW_TYPE (0 f32, 1 f16, 2 bf16), EW_M rows of x (1, 2, 4, 8), EW_ROWS, EW_DEPTH,
// EW_WARPS_K (warps that share rows, each with every EW_WARPS_K-th step), EW_GLU, EW_NORM.
//
// Sums: a lane takes its columns in ascending order, then lanes are added in a tree, then warps in
// order. Neither EW_M nor EW_ROWS changes that, so a row has the same bits in any batch.
#include "copy.cuh"
#include "linear_epilogue.cuh"

#define WARPS 8
#if EW_TYPE == 0
#    define ELEMS 4
#else
#    define ELEMS 8
#endif
#define STEP    (32 * ELEMS) // columns
#define WARPS_N (WARPS / EW_WARPS_K)
#define VALUES  (EW_M * EW_ROWS)

EW_DEV void load_x8(float v[ELEMS], const float *x, uint32_t col, uint32_t k, bool vec)
{
    if (vec && col + ELEMS <= k) {
#pragma unroll
        for (int i = 0; i < ELEMS; i += 4) {
            const float4 t = *(const float4 *)(x + col + i);
            v[i] = t.x, v[i + 1] = t.y, v[i + 2] = t.z, v[i + 3] = t.w;
        }
    } else {
#pragma unroll
        for (int i = 0; i < ELEMS; i++)
            v[i] = col + i < k ? x[col + i] : 0.0f;
    }
}

EW_DEV float weight(const uint32_t w[4], int i)
{
    const uint32_t word = w[ELEMS == 4 ? i : i / 2];
#if EW_TYPE == 0
    return __uint_as_float(word);
#elif EW_TYPE == 1
    return i % 2 ? ew_f16_hi(word) : ew_f16_lo(word);
#else
    return i % 2 ? ew_bf16_hi(word) : ew_bf16_lo(word);
#endif
}

// Row r of the warp's group g: index in W; past the end the last row, whose sum is dropped.
EW_DEV uint32_t row_of(const ew_args &a, uint32_t group, int r)
{
#if EW_GLU
    const uint32_t j = group * (EW_ROWS / 2) + r % (EW_ROWS / 2);
    return (j < a.n_out ? j : a.n_out - 1) + (r < EW_ROWS / 2 ? 0 : a.n_out);
#else
    const uint32_t j = group * EW_ROWS + r;
    return j < a.n ? j : a.n - 1;
#endif
}

EW_DEV void load_w(uint4 w[EW_ROWS], const ew_args &a, uint32_t group, uint32_t col)
{
#pragma unroll
    for (int r = 0; r < EW_ROWS; r++) {
        const char *at = (const char *)a.w + row_of(a, group, r) * a.row_bytes;
        w[r] = col < a.k ? ew_load_stream(at + (size_t)col * (16 / ELEMS)) : make_uint4(0, 0, 0, 0);
    }
}

// Sum of each of N values over the lanes; lane l gets value l / (32 / N).
template <int C, int O> struct tree {
    static __device__ __forceinline__ float sum(float *v, uint32_t lane)
    {
        const bool up = lane & O;
#pragma unroll
        for (int i = 0; i < C / 2; i++) {
            const float low = v[i], high = v[i + C / 2];
            v[i] = (up ? high : low) + __shfl_xor_sync(~0u, up ? low : high, O);
        }
        return tree<C / 2, O / 2>::sum(v, lane);
    }
};
template <int O> struct tree<1, O> {
    static __device__ __forceinline__ float sum(float *v, uint32_t lane)
    {
        v[0] += __shfl_xor_sync(~0u, v[0], O);
        return tree<1, O / 2>::sum(v, lane);
    }
};
template <> struct tree<1, 0> {
    static __device__ __forceinline__ float sum(float *v, uint32_t)
    {
        return v[0];
    }
};
template <int N> EW_DEV float reduce(float *v, uint32_t lane)
{
    return tree<N, 16>::sum(v, lane);
}

// Value i of a group is row i % EW_ROWS and row i / EW_ROWS of x, so that a lane that has one finds
// its glu partner EW_ROWS / 2 values further.
EW_DEV void finish(const ew_args &a, float v, uint32_t i, uint32_t group, uint32_t m0,
                   float partner)
{
    const uint32_t m = m0 + i / EW_ROWS, r = i % EW_ROWS;
#if EW_GLU
    const uint32_t n = group * (EW_ROWS / 2) + r;
    if (r < EW_ROWS / 2 && m < a.m && n < a.n_out)
        ew_store_glu(a, v, partner, m, n);
#else
    const uint32_t n = group * EW_ROWS + r;
    if (m < a.m && n < a.n)
        ew_store_plain(a, v, m, n);
#endif
}

struct sums {
    float acc[VALUES];
    float squares[EW_M];
};

EW_DEV void accumulate(sums &s, const ew_args &a, const uint4 w[EW_ROWS], uint32_t m0, uint32_t col,
                       bool vec)
{
#if EW_NORM
    float g[ELEMS];
    load_x8(g, (const float *)a.norm_weight, col, a.k, true);
#endif
#pragma unroll
    for (int m = 0; m < EW_M; m++) {
        const uint32_t row = m0 + m < a.m ? m0 + m : a.m - 1;
        float x[ELEMS];

        load_x8(x, (const float *)a.x + row * a.x_stride, col, a.k, vec);
#if EW_NORM
#    pragma unroll
        for (int i = 0; i < ELEMS; i++) {
            s.squares[m] = fmaf(x[i], x[i], s.squares[m]);
            x[i] *= g[i];
        }
#endif
#pragma unroll
        for (int r = 0; r < EW_ROWS; r++) {
            const uint32_t words[4] = { w[r].x, w[r].y, w[r].z, w[r].w };
#pragma unroll
            for (int i = 0; i < ELEMS; i++)
                s.acc[m * EW_ROWS + r] = fmaf(weight(words, i), x[i], s.acc[m * EW_ROWS + r]);
        }
    }
}

EW_DEV void clear(sums &s)
{
#pragma unroll
    for (int i = 0; i < VALUES; i++)
        s.acc[i] = 0.0f;
#pragma unroll
    for (int i = 0; i < EW_M; i++)
        s.squares[i] = 0.0f;
}

EW_DEV float rms_scale(const ew_args &a, float squares)
{
    return rsqrtf(squares / (float)a.k + a.norm_eps);
}

#if EW_WARPS_K == 1
// Warps walk over groups of rows without meeting each other.
EW_DEV void finish_group(sums &s, const ew_args &a, uint32_t group, uint32_t m0, uint32_t lane)
{
#    if EW_NORM
#        pragma unroll
    for (int m = 0; m < EW_M; m++) {
        float q = s.squares[m];
#        pragma unroll
        for (int o = 16; o > 0; o /= 2)
            q += __shfl_xor_sync(~0u, q, o);
        q = rms_scale(a, q);
#        pragma unroll
        for (int r = 0; r < EW_ROWS; r++)
            s.acc[m * EW_ROWS + r] *= q;
    }
#    endif
    const float v = reduce<VALUES>(s.acc, lane);
    const float partner = __shfl_down_sync(~0u, v, (EW_ROWS / 2) * (32 / VALUES));
    if (lane % (32 / VALUES) == 0)
        finish(a, v, lane / (32 / VALUES), group, m0, partner);
}
#else
// The warps of a group add up through shared memory; a block has one turn.
EW_DEV void finish_block(sums &s, const ew_args &a, uint32_t group, uint32_t m0, uint32_t lane,
                         uint32_t warp)
{
    __shared__ float part[WARPS][VALUES];
    __shared__ float squares[WARPS][EW_M];
    const float v = reduce<VALUES>(s.acc, lane);

    if (lane % (32 / VALUES) == 0)
        part[warp][lane / (32 / VALUES)] = v;
#    if EW_NORM
    const float q = reduce<EW_M>(s.squares, lane);
    if (lane % (32 / EW_M) == 0)
        squares[warp][lane / (32 / EW_M)] = q;
#    endif
    __syncthreads();
    if (warp % EW_WARPS_K != 0)
        return;
    float sum = 0.0f, scale = 0.0f;
    const uint32_t i = lane < VALUES ? lane : 0;
#    pragma unroll
    for (int j = 0; j < EW_WARPS_K; j++) {
        sum += part[warp + j][i];
        if (EW_NORM)
            scale += squares[warp + j][i / EW_ROWS];
    }
    if (EW_NORM)
        sum *= rms_scale(a, scale);
    const float partner = __shfl_down_sync(~0u, sum, EW_ROWS / 2);
    if (lane < VALUES)
        finish(a, sum, lane, group, m0, partner);
}
#endif

extern "C" __global__ void __launch_bounds__(WARPS * 32, EW_MIN_BLOCKS)
    ew_linear_gemv(const struct ew_cuda_linear_args a)
{
    const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const uint32_t warp_k = warp % EW_WARPS_K, m0 = blockIdx.y * EW_M;
    const uint32_t per_group = EW_GLU ? EW_ROWS / 2 : EW_ROWS;
    const uint32_t groups = (a.n_out + per_group - 1) / per_group;
    const uint32_t stride = gridDim.x * WARPS_N;
    const uint32_t steps = ((a.k + STEP - 1) / STEP + EW_WARPS_K - 1) / EW_WARPS_K;
    const uint32_t first = lane * ELEMS + warp_k * STEP;
    const bool vec = ((a.x | (a.x_stride * 4)) & 15) == 0;
    uint32_t group = blockIdx.x * WARPS_N + warp / EW_WARPS_K;
    uint32_t ahead_group = group, ahead = 0, step = 0;
    uint4 w[EW_DEPTH][EW_ROWS];
    sums s;

    ew_grid_release();
#if EW_WARPS_K == 1
    if (group >= groups)
        return ew_grid_wait();
#else
    if (group >= groups)
        group = ahead_group = groups - 1;
    const bool live = blockIdx.x * WARPS_N + warp / EW_WARPS_K < groups;
#endif
#pragma unroll
    for (int d = 0; d < EW_DEPTH; d++) {
        load_w(w[d], a, ahead_group < groups ? ahead_group : group,
               ahead_group < groups ? first + ahead * STEP * EW_WARPS_K : a.k);
        if (++ahead == steps) {
            ahead = 0;
            ahead_group += stride;
        }
    }
    ew_grid_wait();
    clear(s);
    bool more = true;
    while (more) {
#pragma unroll
        for (int d = 0; d < EW_DEPTH; d++) {
            if (!more)
                break;
            accumulate(s, a, w[d], m0, first + step * STEP * EW_WARPS_K, vec);
            if (ahead_group < groups) {
                load_w(w[d], a, ahead_group, first + ahead * STEP * EW_WARPS_K);
                if (++ahead == steps) {
                    ahead = 0;
                    ahead_group += stride;
                }
            }
            if (++step < steps)
                continue;
#if EW_WARPS_K == 1
            finish_group(s, a, group, m0, lane);
            step = 0;
            clear(s);
            group += stride;
            more = group < groups;
#else
            more = false;
#endif
        }
    }
#if EW_WARPS_K > 1
    if (!live)
        group = 0xffffffffu / per_group - 1; // rows past the end: nothing is stored
    finish_block(s, a, group, m0, lane, warp);
#endif
}
