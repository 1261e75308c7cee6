/* kernels/cuda/sample_argmax.cu - ew_argmax of rows: parts of a row by blocks, the last block of a
 * row takes the best of the parts. grid (parts, rows), block 256. */
#include "reduce.cuh"
#include "sample_args.cuh"

namespace
{

struct best { /* at < 0: nothing above -inf yet */
    float v;
    int at;
};

EW_DEV struct best better(struct best a, struct best b)
{
    return b.at >= 0 && (a.at < 0 || b.v > a.v || (b.v == a.v && b.at < a.at)) ? b : a;
}

EW_DEV struct best block_best(struct best x, bool *has_nan)
{
    __shared__ struct best part[8];

#pragma unroll
    for (int o = 16; o > 0; o >>= 1) {
        const struct best other = { __shfl_xor_sync(0xffffffffu, x.v, o),
                                    __shfl_xor_sync(0xffffffffu, x.at, o) };
        x = better(x, other);
    }
    *has_nan = __syncthreads_or(*has_nan);
    if (threadIdx.x % 32 == 0)
        part[threadIdx.x / 32] = x;
    __syncthreads();
    for (int w = 0; w < 8; w++)
        x = better(x, part[w]);
    __syncthreads();
    return x;
}

EW_DEV void look(struct best *x, bool *has_nan, float v, int at)
{
    *has_nan |= v != v;
    if (v > x->v) {
        x->v = v;
        x->at = at;
    }
}

} // namespace

extern "C" __global__ void __launch_bounds__(256) ew_sample_argmax(const ew_cuda_argmax_args a)
{
    __shared__ bool is_last;
    const float *const x = (const float *)a.logits + blockIdx.y * a.stride;
    struct best b = { -EW_INFINITY, -1 };
    int4 *const parts = (int4 *)a.work + (unsigned long long)blockIdx.y * gridDim.x;
    bool has_nan = false;
    const unsigned per = ((a.n + gridDim.x - 1) / gridDim.x + 3) & ~3u;
    const unsigned begin = min(blockIdx.x * per, a.n), end = min(begin + per, a.n);

    ew_grid_release();
    ew_grid_wait();
    if ((a.logits | a.stride * 4) % 16 == 0) {
        const unsigned whole = begin + (end - begin) / 4 * 4;

#pragma unroll 4
        for (unsigned i = begin + threadIdx.x * 4; i < whole; i += 1024) {
            const float4 v = *(const float4 *)(x + i);

            look(&b, &has_nan, v.x, (int)i);
            look(&b, &has_nan, v.y, (int)i + 1);
            look(&b, &has_nan, v.z, (int)i + 2);
            look(&b, &has_nan, v.w, (int)i + 3);
        }
        if (whole + threadIdx.x < end)
            look(&b, &has_nan, x[whole + threadIdx.x], (int)(whole + threadIdx.x));
    } else {
        for (unsigned i = begin + threadIdx.x; i < end; i += 256)
            look(&b, &has_nan, x[i], (int)i);
    }
    b = block_best(b, &has_nan);
    if (threadIdx.x == 0) {
        parts[blockIdx.x] = make_int4(__float_as_int(b.v), b.at, has_nan, 0);
        __threadfence();
        is_last = atomicAdd((unsigned *)a.counters + blockIdx.y, 1) == gridDim.x - 1;
    }
    __syncthreads();
    if (!is_last)
        return;
    __threadfence();
    b.v = -EW_INFINITY;
    b.at = -1;
    has_nan = false;
    for (unsigned i = threadIdx.x; i < gridDim.x; i += 256) {
        const int4 p = __ldcg(&parts[i]);
        const struct best other = { __int_as_float(p.x), p.y };

        has_nan |= p.z != 0;
        b = better(b, other);
    }
    b = block_best(b, &has_nan);
    if (threadIdx.x == 0) {
        ((int *)a.token)[blockIdx.y] = has_nan || b.v == EW_INFINITY ? -1 : b.at;
        if (a.value)
            ((float *)a.value)[blockIdx.y] = b.v;
        ((unsigned *)a.counters)[blockIdx.y] = 0;
    }
}
