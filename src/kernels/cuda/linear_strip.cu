// kernels/cuda/linear_strip.cu - y = x W^T on the tensor cores of sm_90a for 2 to 64 rows of x,
// where reading the weights should be all that takes time. Contract in linear.h.
//
// A block has a strip of EW_GROUPS * 64 rows of W, a warpgroup 64 of them: as many rows as are a
// multiprocessor's share of the matrix, so that every multiprocessor reads x once (tiles of 128
// rows read more of x than of 4-bit W). x is the B operand (128-byte swizzle): EW_X_STAGES stages
// of 128 columns filled by a warpgroup that rounds x on its way (EW_ROUND; with the norm, whose
// factor is a part of the epilogue), boxes of rows rounded before, or boxes of digits (EW_DIGITS,
// linear_prepare_digits.cu), which integer codes are multiplied by as they are. Plain weights are
// the A operand in shared memory, EW_SLOTS stages of boxes. Quantised ones go by cp.async into a
// ring of EW_SLOTS slots that a warp has for itself and its panel, every lane reading back what it
// copied, then to registers: the next stage is dequantised while the tensor cores work on this one.
// EW_CLUSTER blocks of a cluster share the columns of a strip and add up through each other's
// shared memory, in order.
//
// Macros: EW_CODE 0: plain (EW_F16), else those of linear_dequant.cuh (EW_GROUP 0, 16, 32, 64 or a
// multiple of 128); EW_N (8 to 64; 8 or 16 with EW_ROUND), EW_GROUPS (1 to 3), EW_SLOTS (2 and
// more), EW_X_STAGES, EW_CLUSTER, EW_ROUND, EW_AHEAD (stages of x read before they are rounded),
// EW_NORM, EW_DIGITS, EW_MANY (a block may have several strips), EW_GLU. args.tiles_n: strips.
#include "linear_strip.cuh"
#include "linear_strip_x.cuh"
#if EW_CODE
#    include "linear_strip_quant.cuh"
#endif

#if EW_WGMMA
#    if !EW_CODE
// Boxes of plain weights, which depend on no launch before. One lane.
EW_DEV void load_weights(const struct ew_cuda_linear_map_args &p, const struct work &w,
                         struct fixed &f)
{
    uint32_t at = 0, phase = 1;

    for (uint32_t strip = w.strip; strip < p.a.tiles_n; strip += w.stride)
        for (uint32_t i = 0; i < w.stages; i++) {
            const uint32_t full = ew_shared(&f.w_full[at]);

            ew_mbar_wait(ew_shared(&f.w_empty[at]), phase);
            ew_mbar_expect(full, 2 * W_SUB);
#        pragma unroll
            for (int s = 0; s < 2; s++) {
                const uint32_t to = ew_shared(dynamic) + RINGS_AT + (at * 2 + s) * W_SUB;
                const uint32_t col = (w.begin + i) * STAGE_COLS + s * 64;

                if (EW_GLU) // panels of 8 gate rows and their 8 up rows
                    ew_box_load4(to, p.map_w, col, 0, 0, strip * WARPS, full);
                else
                    ew_box_load(to, p.map_w, col, strip * ROWS, full);
            }
            if (++at == EW_SLOTS) {
                at = 0;
                phase ^= 1;
            }
        }
}

struct reader {
    uint32_t at, phase, w_at, w_phase; // stages of x and of weights
};

EW_DEV void release(struct fixed &f, uint32_t at, uint32_t w_at, uint32_t lane)
{
    if (lane == 0) {
        ew_mbar_arrive(ew_shared(&f.empty[at]));
        ew_mbar_arrive(ew_shared(&f.w_empty[w_at]));
    }
}

EW_DEV void consume(const struct work &w, float *acc, struct fixed &f, struct reader &r,
                    uint32_t warp, uint32_t lane)
{
    uint32_t at = 0, w_at = 0;

#        pragma unroll
    for (int i = 0; i < EW_N / 2; i++)
        acc[i] = 0.0f;
    for (uint32_t c = 0; c < w.stages; c++) {
        const uint32_t x = ew_shared(dynamic) + r.at * X_STAGE;
        const uint32_t rows = ew_shared(dynamic) + RINGS_AT + r.w_at * 2 * W_SUB + warp / 4 * 8192;

        ew_mbar_wait(ew_shared(&f.w_full[r.w_at]), r.w_phase);
        ew_mbar_wait(ew_shared(&f.full[r.at]), r.phase);
        ew_wg_fence();
#        pragma unroll
        for (int j = 0; j < 8; j++)
            ew_wg<EW_N>::ss(acc, ew_wg_tile(rows + j / 4 * W_SUB) + j % 4 * 2,
                            ew_wg_tile(x + j / 4 * X_SUB) + j % 4 * 2, 1);
        ew_wg_commit();
        ew_wg_wait<1>();
        if (c)
            release(f, at, w_at, lane);
        at = r.at, w_at = r.w_at;
        if (++r.at == EW_X_STAGES) {
            r.at = 0;
            r.phase ^= 1;
        }
        if (++r.w_at == EW_SLOTS) {
            r.w_at = 0;
            r.w_phase ^= 1;
        }
    }
    ew_wg_wait<0>();
    ew_wg_touch<EW_N>(acc);
    if (w.stages)
        release(f, at, w_at, lane);
}
#    endif

// ---- epilogue ----

EW_DEV float rms_scale(const ew_args &a, struct fixed &f, uint32_t m)
{
    float sum = 0.0f;

#    pragma unroll
    for (int r = 0; r < EW_CLUSTER; r++)
        sum += EW_CLUSTER > 1 ? ew_cluster_load(ew_shared(&f.squares[m]), r) : f.squares[m];
    return rsqrtf(sum / (float)a.k + a.norm_eps);
}

// Row scales of panel p of the strip; 0: plain weights have none.
EW_DEV const float *scales_of(const ew_args &a, const struct fixed &f, uint32_t strip, uint32_t p)
{
    return KEEPS_SCALES ? f.row_scales[p] : ew_panel_scales(a, strip * WARPS + p);
}

#    if EW_CODE
EW_DEV void keep_scales(const ew_args &a, struct fixed &f, uint32_t strip, uint32_t warp,
                        uint32_t lane)
{
    if (KEEPS_SCALES && lane < 4)
        ew_cp_async<16>(ew_shared(&f.row_scales[warp][lane * 4]),
                        (const char *)ew_panel_scales(a, strip * WARPS + warp) + lane * 16);
}
#    endif

#    if EW_CLUSTER == 1 && (EW_N >= 32 || EW_MANY)
EW_DEV void store(const ew_args &a, const float *acc, struct fixed &f, uint32_t strip,
                  uint32_t warp, uint32_t lane)
{
    const float *scales = scales_of(a, f, strip, warp);
    const uint32_t panel = strip * WARPS + warp;

#        if EW_CODE
    if (KEEPS_SCALES) {
        ew_cp_async_wait<0>();
        __syncwarp();
    }
#        endif
#        if EW_N >= 32
    float *buffer = (float *)(dynamic + TILE_AT + warp * EW_TILE_BYTES);
    const bool wide = ew_wide(a);

#            pragma unroll
    for (int i = 0; i < EW_N / EW_TILE_ROWS; i++) {
        ew_tile_put(buffer, acc + i * (EW_TILE_ROWS / 2), lane);
        __syncwarp();
        if (i * EW_TILE_ROWS < a.m) {
            float4 r[EW_TILE_PASSES];

            ew_tile_residual(a, r, panel, i * EW_TILE_ROWS, lane, wide);
            ew_tile_store(a, buffer, scales, r, panel, i * EW_TILE_ROWS, lane, wide);
        }
        __syncwarp();
    }
#        else
    const uint32_t g = lane / 4, t = lane % 4, n = panel * (EW_GLU ? 8 : 16) + g;
    const float s0 = scales ? scales[g] : 1.0f, s1 = scales ? scales[g + 8] : 1.0f;

    if (EW_NORM)
        ew_mbar_wait(ew_shared(&f.normed), 0);
#            pragma unroll
    for (int i = 0; i < EW_N / 2; i += 4)
#            pragma unroll
        for (int h = 0; h < 2; h++) {
            const uint32_t m = i * 2 + t * 2 + h;

            if (m >= a.m || n >= a.n_out)
                continue;
            const float s = EW_NORM ? rms_scale(a, f, m) : 1.0f;
            if (EW_GLU) {
                ew_store_glu(a, acc[i + h] * s0 * s, acc[i + 2 + h] * s1 * s, m, n);
            } else {
                ew_store_plain(a, acc[i + h] * s0 * s, m, n);
                if (n + 8 < a.n_out)
                    ew_store_plain(a, acc[i + 2 + h] * s1 * s, m, n + 8);
            }
        }
#        endif
}
#    else
// Sums of four rows of W over the blocks of the cluster, in their order.
EW_DEV void gather(float z[4], const float *at, const float *scales, float s)
{
    z[0] = z[1] = z[2] = z[3] = 0.0f;
#        pragma unroll
    for (int r = 0; r < EW_CLUSTER; r++) {
        const float4 v =
            EW_CLUSTER > 1 ? ew_cluster_load4(ew_shared(at), r) : *(const float4 *)at;
        z[0] += v.x, z[1] += v.y, z[2] += v.z, z[3] += v.w;
    }
#        pragma unroll
    for (int i = 0; i < 4; i++)
        z[i] *= scales ? scales[i] * s : s;
}

// Four outputs of a row of x.
struct quad {
    uint32_t m, n, p, q; // row, column, panel of the strip and column in it
};

EW_DEV struct quad quad_of(uint32_t i, uint32_t strip)
{
    const uint32_t quads = EW_GLU ? 2 : 4;
    struct quad at;

    at.q = i % quads * 4;
    at.p = i / quads % WARPS;
    at.m = i / (quads * WARPS);
    at.n = (strip * WARPS + at.p) * (EW_GLU ? 8 : 16) + at.q;
    return at;
}

// Through shared memory, where the rings were: blocks of the cluster share out fours of rows.
EW_DEV void store(const ew_args &a, const float *acc, struct fixed &f, uint32_t strip,
                  uint32_t warp, uint32_t lane)
{
    float *sums = (float *)dynamic; // [rows of x][PITCH]
    const uint32_t g = lane / 4, t = lane % 4, all = WARPS * (EW_GLU ? 2 : 4) * a.m;
    const bool wide = ew_wide(a);
    uint32_t i = ew_cluster_rank() * (WARPS * 32) + threadIdx.x;
    struct quad at = quad_of(i, strip);
    float4 r = ew_residual4(a, at.m, at.n, wide); // asked for before everybody waits

    // every stage and every copy was waited for by who reads it, so that nothing is written here
    // any more once all warps are done
#        if EW_CODE
    ew_cp_async_wait<0>();
#        endif
    asm volatile("bar.sync 1, %0;" ::"n"(WARPS * 32) : "memory");
#        pragma unroll
    for (int j = 0; j < EW_N / 2; j++)
        sums[(j / 4 * 8 + t * 2 + j % 2) * PITCH + warp * 16 + g + (j % 4 < 2 ? 0 : 8)] = acc[j];
    if (EW_CLUSTER > 1)
        ew_cluster_sync();
    else
        asm volatile("bar.sync 1, %0;" ::"n"(WARPS * 32) : "memory");
    if (EW_NORM && EW_CLUSTER == 1)
        ew_mbar_wait(ew_shared(&f.normed), 0);
#        pragma unroll 1
    while (i < all) {
        if (at.n < a.n_out) {
            const float *from = &sums[at.m * PITCH + at.p * 16 + at.q];
            const float *scales = scales_of(a, f, strip, at.p);
            const float s = EW_NORM ? rms_scale(a, f, at.m) : 1.0f;
            float z[4], up[4] = { 0.0f, 0.0f, 0.0f, 0.0f };

            gather(z, from, scales ? scales + at.q : 0, s);
            if (EW_GLU)
                gather(up, from + 8, scales ? scales + at.q + 8 : 0, s);
            ew_finish4(a, z, up, r, at.m, at.n, wide);
        }
        i += EW_CLUSTER * WARPS * 32;
        at = quad_of(i, strip);
        r = ew_residual4(a, at.m, at.n, wide);
    }
}
#    endif
#endif

extern "C" __global__ void __launch_bounds__(THREADS, 1)
    ew_linear_strip(const __grid_constant__ struct ew_cuda_linear_map_args p)
{
#if EW_WGMMA
    struct fixed &f = *(struct fixed *)(dynamic + FIXED_AT);
    const ew_args &a = p.a;
    const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const struct work w = work_of(a);

    ew_grid_release();
    if (!EW_ROUND && threadIdx.x == WARPS * 32)
        ew_map_ahead(p.map_x);
    if (EW_ROUND && threadIdx.x < EW_N)
        f.squares[threadIdx.x] = 0.0f;
    if (threadIdx.x == 0) {
        for (int i = 0; i < EW_X_STAGES; i++) {
            ew_mbar_init(ew_shared(&f.full[i]), EW_ROUND ? 4 : 1);
            ew_mbar_init(ew_shared(&f.empty[i]), WARPS);
        }
        for (int i = 0; !EW_CODE && i < EW_SLOTS; i++) {
            ew_mbar_init(ew_shared(&f.w_full[i]), 1);
            ew_mbar_init(ew_shared(&f.w_empty[i]), WARPS);
        }
        ew_mbar_init(ew_shared(&f.normed), 4);
        ew_mbar_init_fence();
    }
    __syncthreads();
    if (warp >= WARPS) {
        if (!EW_ROUND && EW_GROUPS > 1)
            asm volatile("setmaxnreg.dec.sync.aligned.u32 32;");
        if (EW_ROUND ? warp < WARPS + 4 : warp == WARPS && lane == 0)
            produce(p, w, f);
#    if !EW_CODE
        if (warp == W_WARP && lane == 0)
            load_weights(p, w, f);
#    endif
        __syncwarp();
        if (EW_CLUSTER > 1)
            ew_cluster_arrive(); // the sync in store(), which need not wait for what is asked now
        if (warp == WARPS && lane == 0)
            read_ahead(p.ahead);
        __syncwarp();
        if (EW_CLUSTER > 1)
            ew_cluster_wait(); // at the last one nobody waits for who has left
    } else {
        struct reader r = { 0 };
        float acc[EW_N / 2];

        if (!EW_ROUND && EW_GROUPS == 2)
            asm volatile("setmaxnreg.inc.sync.aligned.u32 232;");
        if (!EW_ROUND && EW_GROUPS == 3)
            asm volatile("setmaxnreg.inc.sync.aligned.u32 160;");
#    if EW_CODE
        struct stream stream;

        keep_scales(a, f, w.strip, warp, lane);
        stream_begin(stream, a, w, warp, lane); // weights depend on no launch before
        r.slot = stream.first;
#    endif
        ew_grid_wait();
        for (uint32_t strip = w.strip; strip < a.tiles_n; strip += w.stride) {
#    if EW_CODE
            consume(a, w, acc, f, r, stream, warp, lane);
#    else
            consume(w, acc, f, r, warp, lane);
#    endif
            store(a, acc, f, strip, warp, lane);
        }
    }
    if (EW_CLUSTER > 1 && warp < WARPS)
        ew_cluster_sync(); // nobody leaves while its sums are read
#endif
}
