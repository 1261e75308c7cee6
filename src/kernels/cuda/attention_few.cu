/* kernels/cuda/attention_few.cu - KvAttention of few tokens in one launch: norm and RoPE, new keys
 * and values into the cache, attention, and the sum of chunks where the cache is long.
 *
 * Row r of a kv head is query head r % EW_G of its group, token r / EW_G; a block has 16 of them.
 * Where there is much to see, up to n_split blocks share the positions that 16 rows see: what the
 * lengths say decides, on the device, so that one launch holds for all of them. A block prepares
 * its queries and every new key and value that they see by itself; of the blocks that prepare one,
 * the one with the first row of its token and the newest positions stores it. Nobody reads new
 * slots from the cache.
 *
 * What a block sees is cut into panels of EW_PANEL slots, counted from the newest down, so that new
 * ones lie in the first; a ring of EW_STAGES panels is filled by asynchronous copies. All warps
 * work on one panel: scores by tiles of 16 slots, then probabilities through shared memory, then
 * sums by columns of the head. Queries and probabilities are multiplied as hi + lo.
 *
 * grid (blocks, hkv, b). Macros: attn_cache.cuh's (EW_NORM 0 or 1), EW_G, EW_CAP (1: there is a
 * softcap), EW_DECODE (1: one token a batch row), EW_TREE (1: a tree; both 0: PREFILL, CHUNKED),
 * EW_WARPS, EW_PANEL, EW_STAGES, EW_WIDE (1: heads turn whole or
 * not at all, of 64 or 128, addresses are multiples of 16), EW_ROPE (of those: they turn),
 * EW_HEADS and EW_VALUES (asked for at once by a warp), EW_BLOCKS (of a multiprocessor). Dynamic
 * shared memory: the ring, then struct few. */
#include "attn_few_heads.cuh"
#include "attn_few_panel.cuh"

namespace
{

/* Two neighbours of a row of the output, in either form. */
struct place {
    float *f32;
    unsigned short *bf16;
};

EW_DEV struct place place_find(const ew_cuda_attn_args &a, const struct share &w, unsigned row)
{
    const unsigned long long tok = w.b * a.s + row / EW_G;
    const unsigned at = (w.h * EW_G + row % EW_G) * EW_D;

    return { a.out ? (float *)a.out + tok * a.out_stride + at : 0,
             a.out_bf16 ? (unsigned short *)a.out_bf16 + tok * a.hq * EW_D + at : 0 };
}

EW_DEV void put2(const struct place &p, unsigned c, float x, float y)
{
    if (p.f32) {
        p.f32[c] = x;
        p.f32[c + 1] = y;
    }
    if (p.bf16)
        *(unsigned *)(p.bf16 + c) = ew_bf16x2(x, y);
}

/* Rows from chunk to chunk, and where this block's rows of chunk 0 begin. */
EW_DEV unsigned long long part_row(const ew_cuda_attn_args &a, const struct share &w,
                                   unsigned *each)
{
    *each = (a.s * EW_G + ROWS - 1) / ROWS * ROWS;
    return (unsigned long long)(w.b * a.hkv + w.h) * a.n_split * *each + w.r0;
}

/* Rows of this warp, to the output or, of one chunk among others, to where all are added up. */
EW_DEV void hand_over(const ew_cuda_attn_args &a, const struct share &w, const struct few *f,
                      const struct sums &st)
{
    const unsigned lane = threadIdx.x % 32, g = lane >> 2, t = lane & 3u;
    const unsigned turn = (unsigned)max(w.last - w.first, 0) & 1u;
    const float v_scale = kv_head_scale(a, 1, w.h);

#pragma unroll
    for (int r = 0; r < 2; r++) {
        const unsigned at = g + 8 * r;
        const bool is_none = st.l[r] == 0.0f;
        float by = __fdividef(v_scale, st.l[r]);
        struct place p = place_find(a, w, w.r0 + at);

        if (at >= w.n_rows)
            break;
        if (w.n_chunks > 1) {
            unsigned each;
            unsigned long long part = part_row(a, w, &each) + at;

            part += w.chunk * each;
            if (threadIdx.x < 32 && t == 0)
                ((float2 *)a.part_ml)[part] = make_float2(f->m[turn][at], st.l[r]);
            p = { (float *)a.part_o + part * EW_D, 0 };
            by = 1.0f;
        }
#pragma unroll
        for (int c = 0; c < V_TILES; c++)
#pragma unroll
            for (int n = 0; n < 2; n++)
                if (v_column(c) < COLUMNS)
                    put2(p, v_column(c) * 16 + n * 8 + t * 2,
                         is_none ? 0.0f : st.o[c][n][2 * r] * by,
                         is_none ? 0.0f : st.o[c][n][2 * r + 1] * by);
    }
}

/* Whether this block is the last of its rows to come here. */
EW_DEV bool comes_last(const ew_cuda_attn_args &a, const struct share &w)
{
    __shared__ unsigned is_last;

    __syncthreads();
    if (threadIdx.x == 0) { /* for all: what they wrote comes before, what they read behind */
        unsigned *const counter = (unsigned *)a.counters +
                                  (w.b * a.hkv + w.h) * (a.s == 1 ? 4u : EW_ATTN_FEW_BLOCKS) +
                                  w.block;
        unsigned before;

        asm volatile("atom.add.acq_rel.gpu.global.u32 %0, [%1], 1;"
                     : "=r"(before)
                     : "l"(counter)
                     : "memory");
        is_last = before == w.n_chunks - 1;
        if (is_last)
            *counter = 0;
    }
    __syncthreads();
    return is_last;
}

/* All chunks of the block's rows, in their order; four columns a thread. */
EW_DEV void add_chunks(const ew_cuda_attn_args &a, const struct share &w)
{
    const float v_scale = kv_head_scale(a, 1, w.h);

    for (unsigned u = threadIdx.x; u < w.n_rows * (EW_D / 4); u += WARPS * 32) {
        const unsigned row = u / (EW_D / 4), c = u % (EW_D / 4) * 4;
        unsigned each;
        const unsigned long long at = part_row(a, w, &each) + row;
        const float2 *const ml_at = (const float2 *)a.part_ml + at;
        const float *const o_at = (const float *)a.part_o + at * EW_D + c;
        float m = -EW_INFINITY, l = 0;
        float4 o = make_float4(0, 0, 0, 0), x[MAX_CHUNKS];
        float2 ml[MAX_CHUNKS];

#pragma unroll
        for (int k = 0; k < MAX_CHUNKS; k++) {
            ml[k] = make_float2(-EW_INFINITY, 0.0f);
            x[k] = o;
            if (k < w.n_chunks) {
                ml[k] = __ldcg(ml_at + k * each);
                x[k] = __ldcg((const float4 *)(o_at + k * each * EW_D));
            }
        }
#pragma unroll
        for (int k = 0; k < MAX_CHUNKS; k++)
            m = fmaxf(m, ml[k].x);
#pragma unroll
        for (int k = 0; k < MAX_CHUNKS; k++) {
            const float by = k < w.n_chunks ? weight(ml[k].x, m) : 0.0f;

            l += by * ml[k].y;
            o.x += by * x[k].x;
            o.y += by * x[k].y;
            o.z += by * x[k].z;
            o.w += by * x[k].w;
        }
        const float by = l == 0.0f ? 0.0f : __fdividef(v_scale, l);
        const struct place p = place_find(a, w, w.r0 + row);

        put2(p, c, o.x * by, o.y * by);
        put2(p, c + 2, o.z * by, o.w * by);
    }
}

} // namespace

extern "C" __global__ void __launch_bounds__(WARPS * 32, EW_BLOCKS)
    ew_attention_few(const __grid_constant__ ew_cuda_attn_args a)
{
    extern __shared__ __align__(16) unsigned char mem[];
    struct few *const f = (struct few *)(mem + EW_STAGES * 2 * PLANE);
    struct share w;
    struct sums st = {};
    struct seen v;

    ew_grid_release();
    if (!share_find(a, &w))
        return;
#pragma unroll 1
    for (int i = 0; i < EW_STAGES; i++)
        fetch(w, ew_shared(mem), w.first + i);
    if (threadIdx.x < ROWS)
        f->m[0][threadIdx.x] = -EW_INFINITY;
    clear_rest(w, mem);
    seen_find(a, w, &v);
    prepare(a, w, f, mem);
    run_panels(a, w, v, mem, f, &st);
    hand_over(a, w, f, st);
    ew_cp_async_wait<0>();
    if (w.n_chunks > 1 && comes_last(a, w))
        add_chunks(a, w);
}
