/* kernels/cuda/attention_wgmma.cu - flash attention for sm_90: one warp group brings tiles of the
 * cache, two multiply, 64 rows each. Rows and bits: attention_flash.cu's rules.
 *
 * Whole tiles come in boxes by the copy engine. A tile with slots that may not be read comes by
 * plain asynchronous copies, which fill those with zeros; its readers fence before the matrix unit,
 * which reads through another door, looks at what arrived. f16 or bf16 caches, heads of 64 or 128.
 *
 * A unit of work is 128 rows of a kv head. Blocks stay and take several units, the ones that see
 * most first; the next unit's tiles are on their way while this one's rows are put out. grid
 * (blocks), block 384. Macros: attn_flash.cuh's. */
#define TILE    128
#define N_TILES (EW_D / 8)

#include "attn_flash.cuh"

#if EW_WGMMA
#    include "attn_wgmma.cuh"

#    define STAGES     2
#    define GROUP_ROWS 64
#    define BLOCK_ROWS (2 * GROUP_ROWS)
#    define COLUMNS    (EW_D / 64) /* of 64 elements */
#    define Q_BYTES    (GROUP_ROWS * EW_D * 2)
#    define TILE_BYTES (TILE * EW_D * 2)
#    define CHUNKS     (EW_D / 8) /* of 16 bytes, of a row */

namespace
{

struct barriers {
    unsigned long long full_k[STAGES], full_v[STAGES], free_k[STAGES], free_v[STAGES];
    unsigned long long full_q, free_q;
};

/* Byte of a 16-byte chunk of a row, in columns of n_rows rows. */
EW_DEV unsigned place(unsigned row, unsigned chunk, unsigned n_rows)
{
    return (chunk / 8 * n_rows + row) * 128 + ((chunk % 8) ^ (row % 8)) * 16;
}

EW_DEV void arrive_when_copied(unsigned bar)
{
    asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(bar) : "memory");
}

/* One tile by 128 threads: thread i takes chunk i % CHUNKS of every (128 / CHUNKS)th row. */
EW_DEV void copy_tile(unsigned dst, const unsigned char *head, unsigned slot,
                      const struct readable &which, unsigned i)
{
    const unsigned chunk = i % CHUNKS;

#    pragma unroll 4 /* few registers */
    for (unsigned r = i / CHUNKS; r < TILE; r += 128 / CHUNKS) {
        const bool take = is_readable(which, slot + r);

        cp_async(dst + place(r, chunk, TILE),
                 head + (unsigned long long)(take ? slot + r : 0) * EW_ROW_BYTES + chunk * 16,
                 take);
    }
}

/* A tile into its stage; `bar` completes when it is there. row: of the head's slot 0 in the map. */
EW_DEV void bring(const void *map, unsigned dst, const unsigned char *head, unsigned row,
                  unsigned slot, const struct readable &which, unsigned i, unsigned bar)
{
    if (slot + TILE > which.end || (which.pos && slot + TILE > which.prefix)) {
        copy_tile(dst, head, slot, which, i);
        arrive_when_copied(bar);
    } else if (i == 0) {
        ew_mbar_expect(bar, TILE_BYTES);
        for (unsigned c = 0; c < COLUMNS; c++)
            ew_box_load(dst + c * (TILE * 128), map, c * 64, row + slot, bar);
    } else {
        ew_mbar_arrive(bar);
    }
}

struct unit {
    unsigned b, h, r0;       /* first row */
    unsigned begin, n_tiles; /* first slot; tiles that any of its rows sees */
    unsigned end;
};

/* Unit i of this block, forwards and backwards by turns: what a block has more in one turn it has
 * less in the next. */
EW_DEV unsigned unit_index(unsigned i)
{
    return i * gridDim.x + (i % 2 ? gridDim.x - 1 - blockIdx.x : blockIdx.x);
}

EW_DEV unsigned n_units(const ew_cuda_attn_args &a)
{
    return (a.s * EW_G + BLOCK_ROWS - 1) / BLOCK_ROWS * a.b * a.hkv;
}

EW_DEV struct unit unit_find(const ew_cuda_attn_args &a, unsigned i)
{
    const unsigned heads = a.b * a.hkv, blocks = (a.s * EW_G + BLOCK_ROWS - 1) / BLOCK_ROWS;
    struct unit u;

    u.b = i % heads / a.hkv;
    u.h = i % heads % a.hkv;
    u.r0 = (blocks - 1 - i / heads) * BLOCK_ROWS;
    range_of_rows(a, u.b, u.r0, BLOCK_ROWS, &u.begin, &u.end);
    u.n_tiles = u.end > u.begin ? (u.end - u.begin + TILE - 1) / TILE : 0;
    return u;
}

/* The queries of a unit, by 128 threads. */
EW_DEV void bring_queries(const ew_cuda_attn_args &a, const struct unit &u, unsigned dst,
                          unsigned i, unsigned bar)
{
    const unsigned last = a.s * EW_G - 1, chunk = i % CHUNKS;

#    pragma unroll 4
    for (unsigned r = i / CHUNKS; r < BLOCK_ROWS; r += 128 / CHUNKS)
        cp_async(dst + r / GROUP_ROWS * Q_BYTES + place(r % GROUP_ROWS, chunk, GROUP_ROWS),
                 query_at(a, a.q_hi, u.b, u.h, min(u.r0 + r, last)) + chunk * 8, true);
    arrive_when_copied(bar);
}

EW_DEV void produce(const ew_cuda_attn_args &a, const void *map, unsigned queries, unsigned tiles,
                    struct barriers *bar)
{
    const unsigned i = threadIdx.x % 128;
    unsigned k = 0; /* tiles so far */

    for (unsigned w = 0; unit_index(w) < n_units(a); w++) {
        const struct unit u = unit_find(a, unit_index(w));
        const struct readable which = readable_find(a, u.b, 0, u.end);
        const unsigned row_k = (u.b * 2 * a.hkv + u.h) * a.cap, row_v = row_k + a.hkv * a.cap;

        ew_mbar_wait(ew_shared(&bar->free_q), (w & 1u) ^ 1u);
        bring_queries(a, u, queries, i, ew_shared(&bar->full_q));
        for (unsigned t = 0; t < u.n_tiles; t++, k++) {
            const unsigned s = k % STAGES, turn = k / STAGES & 1u, slot = u.begin + t * TILE;

            ew_mbar_wait(ew_shared(&bar->free_k[s]), turn ^ 1u);
            bring(map, tiles + s * TILE_BYTES, kv_row(a, u.b, 0, u.h, 0), row_k, slot, which, i,
                  ew_shared(&bar->full_k[s]));
            ew_mbar_wait(ew_shared(&bar->free_v[s]), turn ^ 1u);
            bring(map, tiles + (STAGES + s) * TILE_BYTES, kv_row(a, u.b, 1, u.h, 0), row_v, slot,
                  which, i, ew_shared(&bar->full_v[s]));
        }
    }
    ew_cp_async_wait<0>();
}

/* The two warp groups start their products by turns, so that one has its softmax while the other's
 * run. */
EW_DEV void turn_wait(void)
{
    asm volatile("bar.sync %0, 256;" ::"r"(1 + threadIdx.x / 128) : "memory");
}

EW_DEV void turn_pass(void)
{
    asm volatile("bar.arrive %0, 256;" ::"r"(2 - threadIdx.x / 128) : "memory");
}

/* is_copied: what comes was not brought by the copy engine. */
EW_DEV void wait_full(unsigned long long *bar, unsigned turn, bool is_copied)
{
    ew_mbar_wait(ew_shared(bar), turn);
    if (is_copied)
        asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

EW_DEV void release(unsigned long long *bar)
{
    __syncwarp();
    if (threadIdx.x % 32 == 0)
        ew_mbar_arrive(ew_shared(bar));
}

/* p = q k^T of 64 rows and a tile, started. */
EW_DEV void start_scores(unsigned q, unsigned keys, float p[TILE / 8][4])
{
    ew_wg_fence();
#    pragma unroll
    for (int ks = 0; ks < EW_D / 16; ks++)
        wgmma_n128_ss(p, wgmma_rows(q + ks / 4 * (GROUP_ROWS * 128) + ks % 4 * 32),
                      wgmma_rows(keys + ks / 4 * (TILE * 128) + ks % 4 * 32), ks != 0);
    ew_wg_commit();
}

/* o += f v, started. */
EW_DEV void start_values(const unsigned f[TILE / 16][4], unsigned values, float o[N_TILES][4])
{
    ew_wg_fence();
#    pragma unroll
    for (int ks = 0; ks < TILE / 16; ks++)
#    if EW_D == 128
        wgmma_n128_rs(o, f[ks], wgmma_columns(values + ks * 2048, TILE * 128));
#    else
        wgmma_n64_rs(o, f[ks], wgmma_columns(values + ks * 2048, TILE * 128));
#    endif
    ew_wg_commit();
}

/* What a product that was started writes is not there for the compiler before its wait. */
template <int N> EW_DEV void settle(float (*x)[4])
{
#    pragma unroll
    for (int i = 0; i < N; i++)
#    pragma unroll
        for (int e = 0; e < 4; e++)
            asm volatile("" : "+f"(x[i][e])::"memory");
}

EW_DEV void pack(const float p[TILE / 8][4], unsigned f[TILE / 16][4])
{
#    pragma unroll
    for (int ks = 0; ks < TILE / 16; ks++)
#    pragma unroll
        for (int j = 0; j < 4; j++)
            f[ks][j] =
                pack2(p[2 * ks + (j >> 1)][2 * (j & 1)], p[2 * ks + (j >> 1)][2 * (j & 1) + 1]);
}

/* A tile that this warp group sees nothing of. */
EW_DEV void skip(struct barriers *bar, unsigned k)
{
    const unsigned s = k % STAGES, turn = k / STAGES & 1u;

    turn_wait();
    turn_pass();
    ew_mbar_wait(ew_shared(&bar->full_k[s]), turn);
    release(&bar->free_k[s]);
    ew_mbar_wait(ew_shared(&bar->full_v[s]), turn);
    release(&bar->free_v[s]);
}

/* The rows of a warp as bf16, through its part of `stage`: whole lines to memory. */
EW_DEV void put_short(const ew_cuda_attn_args &a, const struct rows *v, unsigned b, unsigned h,
                      unsigned row0, struct state *st, unsigned char *stage)
{
    const unsigned lane = threadIdx.x % 32, warp = threadIdx.x % 128 / 32, at = warp * 16;
    const unsigned mine = at + lane % 8 + (lane / 8 % 2) * 8; /* row whose address this lane says */
    float inv[2];

#    pragma unroll
    for (int r = 0; r < 2; r++) {
        st->l[r] += __shfl_xor_sync(0xffffffffu, st->l[r], 1);
        st->l[r] += __shfl_xor_sync(0xffffffffu, st->l[r], 2);
        inv[r] = v->hi[r] == 0 || st->l[r] == 0.0f ? 0.0f : kv_head_scale(a, 1, h) / st->l[r];
    }
    const bool none[2] = { inv[0] == 0.0f, inv[1] == 0.0f };
#    pragma unroll
    for (int j = 0; j < N_TILES; j += 2) {
        unsigned f[4];

#    pragma unroll
        for (int i = 0; i < 4; i++) {
            const float *const o = &st->o[j + i / 2][i % 2 * 2];

            f[i] = none[i % 2] ? 0u : ew_bf16x2(o[0] * inv[i % 2], o[1] * inv[i % 2]);
        }
        asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(
                         ew_shared(stage) + place(mine, j + lane / 16, GROUP_ROWS)),
                     "r"(f[0]), "r"(f[1]), "r"(f[2]), "r"(f[3])
                     : "memory");
    }
    __syncwarp();
#    pragma unroll
    for (unsigned i = lane; i < 16 * CHUNKS; i += 32) {
        const unsigned r = i / CHUNKS, c = i % CHUNKS, row = row0 + r;
        const unsigned long long tok = b * a.s + row / EW_G, head = h * EW_G + row % EW_G;

        if (row < a.s * EW_G)
            *(uint4 *)((unsigned short *)a.out_bf16 + (tok * a.hq + head) * EW_D + c * 8) =
                *(const uint4 *)(stage + place(at + r, c, GROUP_ROWS));
    }
    __syncwarp(); /* the next unit's rows go there */
}

/* One unit, this warp group's 64 rows of it; k0: tiles before it, n: units. Per tile, its scores
 * and the values of the tile before are started together; the softmax runs while the values are
 * multiplied.
 */
EW_DEV void consume(const ew_cuda_attn_args &a, const struct unit &u, unsigned k0, unsigned n,
                    unsigned q, unsigned tiles, unsigned char *stage, struct barriers *bar)
{
    const unsigned r0 = u.r0 + threadIdx.x / 128 * GROUP_ROWS;
    const unsigned row0 = r0 + threadIdx.x % 128 / 32 * 16;
    unsigned group_begin, group_end, f[TILE / 16][4];
    float p[TILE / 8][4], keep[2];
    struct rows v;
    struct state st;

    rows_find(a, u.b, row0, &v);
    range_of_rows(a, u.b, r0, GROUP_ROWS, &group_begin, &group_end);
    const unsigned first = min((max(group_begin, u.begin) - u.begin) / TILE, u.n_tiles);
    const unsigned last =
        group_end > u.begin ? min((group_end - u.begin + TILE - 1) / TILE, u.n_tiles) : 0;
    const unsigned whole_hi = __reduce_min_sync(0xffffffffu, min(v.hi[0], v.hi[1]));
    const unsigned whole_lo = __reduce_max_sync(0xffffffffu, max(v.lo[0], v.lo[1]));

#    pragma unroll
    for (int j = 0; j < N_TILES; j++)
#    pragma unroll
        for (int e = 0; e < 4; e++)
            st.o[j][e] = 0;
    st.m[0] = st.m[1] = -EW_INFINITY;
    st.l[0] = st.l[1] = 0;
    wait_full(&bar->full_q, n & 1u, true);
    for (unsigned t = 0; t < min(first, last); t++)
        skip(bar, k0 + t);
    for (unsigned t = first; t < last; t++) {
        const unsigned k = k0 + t, s = k % STAGES, before = (k - 1) % STAGES;
        const unsigned slot = u.begin + t * TILE;
        const bool is_whole = tile_is_whole(a, v.row[0].prefix, slot, whole_lo, whole_hi);

        wait_full(&bar->full_k[s], k / STAGES & 1u, EW_TREE || slot + TILE > u.end);
        turn_wait();
        start_scores(q, tiles + s * TILE_BYTES, p);
        if (t > first) {
            wait_full(&bar->full_v[before], (k - 1) / STAGES & 1u, EW_TREE || slot > u.end);
            start_values(f, tiles + (STAGES + before) * TILE_BYTES, st.o);
            turn_pass();
            ew_wg_wait<1>();
        } else {
            turn_pass();
            ew_wg_wait<0>();
        }
        settle<TILE / 8>(p);
        release(&bar->free_k[s]);
        if (t + 1 == last)
            release(&bar->free_q);
        if (!is_whole || EW_CAP)
            shape_scores(a, &v, u.b, 0, slot, 1.0f, is_whole, p);
        soften(p, &st, keep);
        ew_wg_wait<0>();
        settle<N_TILES>(st.o);
        if (t > first)
            release(&bar->free_v[before]);
        if (__any_sync(0xffffffffu, keep[0] != 1.0f || keep[1] != 1.0f))
            rescale(&st, keep);
        pack(p, f);
    }
    if (first < last) {
        const unsigned k = k0 + last - 1, s = k % STAGES;

        wait_full(&bar->full_v[s], k / STAGES & 1u, true);
        start_values(f, tiles + (STAGES + s) * TILE_BYTES, st.o);
        ew_wg_wait<0>();
        settle<N_TILES>(st.o);
        release(&bar->free_v[s]);
    }
    if (first >= last)
        release(&bar->free_q);
    for (unsigned t = last; t < u.n_tiles; t++)
        skip(bar, k0 + t);
    if (a.out)
        put_out(a, &v, u.b, u.h, row0, &st);
    else
        put_short(a, &v, u.b, u.h, row0, &st, stage);
}

} // namespace
#endif

extern "C" __global__ void __launch_bounds__(384)
    ew_attention_wgmma(const __grid_constant__ ew_cuda_attn_map_args args)
{
#if EW_WGMMA
    const ew_cuda_attn_args &a = args.a;
    extern __shared__ __align__(1024) unsigned char raw[];
    __shared__ __align__(8) struct barriers bar;
    const unsigned group = threadIdx.x / 128;
    unsigned char *const mem = raw + (1024 - ew_shared(raw) % 1024) % 1024;
    const unsigned queries = ew_shared(mem), tiles = queries + 4 * Q_BYTES;

    if (threadIdx.x == 0) {
        for (int s = 0; s < STAGES; s++) {
            ew_mbar_init(ew_shared(&bar.full_k[s]), 128);
            ew_mbar_init(ew_shared(&bar.full_v[s]), 128);
            ew_mbar_init(ew_shared(&bar.free_k[s]), 8);
            ew_mbar_init(ew_shared(&bar.free_v[s]), 8);
        }
        ew_mbar_init(ew_shared(&bar.full_q), 128);
        ew_mbar_init(ew_shared(&bar.free_q), 8);
        ew_mbar_init_fence();
    }
    __syncthreads();
    ew_grid_release();
    ew_grid_wait();
    if (group == 2) {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 40;");
        produce(a, args.map, queries, tiles, &bar);
    } else {
        unsigned k = 0;

        asm volatile("setmaxnreg.inc.sync.aligned.u32 232;");
        if (group == 1)
            turn_pass(); /* group 0 begins */
        for (unsigned w = 0; unit_index(w) < n_units(a); w++) {
            const struct unit u = unit_find(a, unit_index(w));

            consume(a, u, k, w, queries + group * Q_BYTES, tiles, mem + (2 + group) * Q_BYTES,
                    &bar);
            k += u.n_tiles;
        }
    }
#endif
}
