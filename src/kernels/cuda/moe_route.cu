/* kernels/cuda/moe_route.cu - what surrounds the products of Moe: the router's choice, the order of
 * places by expert, and the sum over a row's experts. EW_E: experts; EW_PREPARE: see ew_moe_group. */
#include "moe_args.cuh"
#include "reduce.cuh"

#define PER_LANE ((EW_E + 31) / 32)
#ifndef EW_PREPARE
#    define EW_PREPARE 0
#endif

/* Soft maximum over all experts, top k, lower index on ties; a warp a row. */
extern "C" __global__ void __launch_bounds__(128) ew_moe_route(const ew_cuda_moe_args a)
{
    const unsigned r = blockIdx.x * 4 + threadIdx.x / 32, lane = threadIdx.x % 32;
    float x[PER_LANE], m = -EW_INFINITY, sum = 0, top = 0;
    unsigned taken = 0; /* of this lane's */

    ew_grid_release();
    ew_grid_wait();
    if (r >= a.rows)
        return;
#pragma unroll
    for (int j = 0; j < PER_LANE; j++) {
        const unsigned i = lane + 32 * j;

        x[j] = i < EW_E ? ((const float *)a.logits)[(uint64_t)r * EW_E + i] : -EW_INFINITY;
        m = fmaxf(m, x[j]);
    }
    m = ew_warp_max(m);
#pragma unroll
    for (int j = 0; j < PER_LANE; j++)
        sum += lane + 32 * j < EW_E ? expf(x[j] - m) : 0.0f;
    sum = ew_warp_sum(sum);
    for (unsigned c = 0; c < a.top_k; c++) {
        float best = -EW_INFINITY;
        unsigned at = EW_E; /* none */

#pragma unroll
        for (int j = 0; j < PER_LANE; j++) {
            const unsigned i = lane + 32 * j;

            if (i < EW_E && !(taken >> j & 1u) && (at == EW_E || x[j] > best)) {
                best = x[j];
                at = i;
            }
        }
#pragma unroll
        for (int o = 16; o > 0; o >>= 1) {
            const float v = __shfl_xor_sync(0xffffffffu, best, o);
            const unsigned i = __shfl_xor_sync(0xffffffffu, at, o);
            const bool wins = i < EW_E && (at == EW_E || v > best || (!(best > v) && i < at));

            best = wins ? v : best;
            at = wins ? i : at;
        }
        at = __shfl_sync(0xffffffffu, at, 0); /* NaN may leave lanes of two minds */
        best = __shfl_sync(0xffffffffu, best, 0);
        if (at % 32 == lane)
            taken |= 1u << (at / 32);
        const float p = expf(best - m) / sum;

        top += p;
        if (lane == 0) {
            ((int *)a.idx)[r * a.top_k + c] = (int)at;
            ((float *)a.prob)[r * a.top_k + c] = p;
        }
    }
    __syncwarp();
    for (unsigned c = lane; c < a.top_k && a.norm_topk; c += 32)
        ((float *)a.prob)[r * a.top_k + c] /= top;
}

/* Row r of x in 16 bits. */
EW_DEV void prepare(const ew_cuda_moe_args &a, unsigned r)
{
    const float4 *const x = (const float4 *)((const float *)a.x + (uint64_t)r * a.k);
    uint2 *const to = (uint2 *)((uint16_t *)a.prepared + (uint64_t)r * a.k);

    for (unsigned i = threadIdx.x; i < a.k / 4; i += 1024) {
        const float4 v = x[i];

        to[i] = EW_PREPARE == 2 ? make_uint2(ew_f16x2(v.x, v.y), ew_f16x2(v.z, v.w))
                                : make_uint2(ew_bf16x2(v.x, v.y), ew_bf16x2(v.z, v.w));
    }
}

/* Places by expert, and the list of tiles; one block of 1024, and with EW_PREPARE (1 bf16, 2 f16)
 * another for every row of x, which it rounds for the products. Which of an expert's places a row
 * gets is by chance: no result depends on it. */
extern "C" __global__ void __launch_bounds__(1024) ew_moe_group(const ew_cuda_moe_args a)
{
    __shared__ unsigned count[EW_E], first[EW_E], first_tile[EW_E];
    const unsigned n = a.rows * a.top_k;

    ew_grid_release();
    ew_grid_wait();
    if (EW_PREPARE && blockIdx.x > 0) {
        prepare(a, blockIdx.x - 1);
        return;
    }
    for (unsigned i = threadIdx.x; i < EW_E; i += 1024)
        count[i] = 0;
    __syncthreads();
    for (unsigned i = threadIdx.x; i < n; i += 1024)
        atomicAdd(&count[((const int *)a.idx)[i]], 1u);
    __syncthreads();
    if (threadIdx.x < 32) { /* running sums, 32 experts at a time */
        unsigned places = 0, tiles = 0;

        for (unsigned e0 = 0; e0 < EW_E; e0 += 32) {
            const unsigned i = e0 + threadIdx.x, c = i < EW_E ? count[i] : 0;
            const unsigned t = (c + a.tile_rows - 1) / a.tile_rows;
            unsigned pc = c, pt = t;

#pragma unroll
            for (int o = 1; o < 32; o <<= 1) {
                const unsigned uc = __shfl_up_sync(0xffffffffu, pc, o);
                const unsigned ut = __shfl_up_sync(0xffffffffu, pt, o);

                pc += threadIdx.x >= o ? uc : 0;
                pt += threadIdx.x >= o ? ut : 0;
            }
            if (i < EW_E) {
                first[i] = places + pc - c;
                first_tile[i] = tiles + pt - t;
            }
            places += __shfl_sync(0xffffffffu, pc, 31);
            tiles += __shfl_sync(0xffffffffu, pt, 31);
        }
        if (threadIdx.x == 0)
            *(unsigned *)a.n_tiles = tiles;
    }
    __syncthreads();
    for (unsigned i = threadIdx.x; i < EW_E; i += 1024)
        for (unsigned at = 0; at < count[i]; at += a.tile_rows)
            ((int4 *)a.tiles)[first_tile[i] + at / a.tile_rows] =
                make_int4((int)i, (int)(first[i] + at), (int)min(count[i] - at, a.tile_rows), 0);
    __syncthreads();
    for (unsigned i = threadIdx.x; i < n; i += 1024) {
        const unsigned place = atomicAdd(&first[((const int *)a.idx)[i]], 1u);

        ((int *)a.slot)[i] = (int)place;
        ((int *)a.row)[place] = (int)(i / a.top_k);
    }
}

/* y[r] = sum over a row's choices, in their order, of prob * x[place]. */
extern "C" __global__ void __launch_bounds__(256) ew_moe_add(const ew_cuda_moe_args a)
{
    const unsigned r = blockIdx.y, c = blockIdx.x * 256 + threadIdx.x;
    float y = 0;

    ew_grid_release();
    ew_grid_wait();
    if (c >= a.n)
        return;
    for (unsigned j = 0; j < a.top_k; j++)
        y += ((const float *)a.prob)[r * a.top_k + j] *
             ((const float *)a.x)[(uint64_t)((const int *)a.slot)[r * a.top_k + j] * a.n + c];
    ((float *)a.y)[(uint64_t)r * a.n + c] = y;
}
