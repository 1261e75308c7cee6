// kernels/cuda/linear_strip_x.cuh - how x comes into the shared memory of linear_strip.cu: rounded
// on its way by a warpgroup, as boxes of what was rounded before, or as boxes of digits with their
// scales.
#ifndef EW_KERNELS_CUDA_LINEAR_STRIP_X_CUH
#define EW_KERNELS_CUDA_LINEAR_STRIP_X_CUH

#include "linear_strip.cuh"

#if EW_WGMMA
#    if EW_ROUND
#        define PIECES ((EW_N + 7) / 8) // of 8 columns a thread and stage: rows r and r + 8
#        define ASKED  (PIECES + (EW_NORM ? 1 : 0)) // and of the norm's weights
#        if EW_F16
#            define SHORT2 ew_f16x2
#        else
#            define SHORT2 ew_bf16x2
#        endif

// What a thread reads of a stage, and from where. Few instructions: one warp a scheduler does this.
struct pieces {
    float4 v[ASKED][2];
};

struct source {
    const float *at[ASKED]; // the thread's columns of stage 0; 0: no such row
};

EW_DEV void load_pieces(struct pieces &to, const struct source &from, uint32_t col, bool lo,
                        bool hi)
{
#        pragma unroll
    for (int i = 0; i < ASKED; i++) {
        to.v[i][0] = to.v[i][1] = make_float4(0, 0, 0, 0);
        if (from.at[i] && lo)
            to.v[i][0] = *(const float4 *)(from.at[i] + col);
        if (from.at[i] && hi)
            to.v[i][1] = *(const float4 *)(from.at[i] + col + 4);
    }
}

// Rounds them; to: the thread's place in row r of a stage (rows r and r + 8 are swizzled alike).
EW_DEV void put_pieces(const struct pieces &p, char *to, float squares[PIECES])
{
#        pragma unroll
    for (int i = 0; i < PIECES; i++) {
        float4 u = p.v[i][0], w = p.v[i][1];
#        if EW_NORM
        const float4 n0 = p.v[PIECES][0], n1 = p.v[PIECES][1];
        float q = squares[i];
        q = fmaf(u.x, u.x, q), q = fmaf(u.y, u.y, q), q = fmaf(u.z, u.z, q), q = fmaf(u.w, u.w, q);
        q = fmaf(w.x, w.x, q), q = fmaf(w.y, w.y, q), q = fmaf(w.z, w.z, q), q = fmaf(w.w, w.w, q);
        squares[i] = q;
        u.x *= n0.x, u.y *= n0.y, u.z *= n0.z, u.w *= n0.w;
        w.x *= n1.x, w.y *= n1.y, w.z *= n1.z, w.w *= n1.w;
#        endif
        *(uint4 *)(to + i * 1024) =
            make_uint4(SHORT2(u.x, u.y), SHORT2(u.z, u.w), SHORT2(w.x, w.y), SHORT2(w.z, w.w));
    }
}

// Sums of squares of the rows, where every thread has a part of two of them.
EW_DEV void join_squares(struct fixed &f, float squares[PIECES], uint32_t t)
{
#        pragma unroll
    for (int i = 0; i < PIECES; i++) {
#        pragma unroll
        for (int o = 8; o > 0; o /= 2)
            squares[i] += __shfl_xor_sync(~0u, squares[i], o);
        if (t % 16 == 0)
            f.squares[t / 16 + i * 8] = squares[i];
    }
    __syncwarp();
    if (t % 32 == 0)
        ew_mbar_arrive(ew_shared(&f.normed));
}

EW_DEV void produce(const struct ew_cuda_linear_map_args &p, const struct work &w, struct fixed &f)
{
    const ew_args &a = p.a;
    const uint32_t t = threadIdx.x - WARPS * 32, c = t % 16, r = t / 16;
    const uint32_t strips =
        w.strip < a.tiles_n ? (a.tiles_n - w.strip + w.stride - 1) / w.stride : 0;
    const uint32_t all = strips * w.stages, end = (w.begin + w.stages) * STAGE_COLS;
    char *const to = dynamic + c / 8 * X_SUB + r * 128 + ((c % 8) ^ r) * 16;
    struct pieces x[EW_AHEAD];
    struct source from;
    float squares[PIECES];
    uint32_t at = 0, phase = 1, next = w.begin * STAGE_COLS; // next: column of the next load

#        pragma unroll
    for (int i = 0; i < PIECES; i++) {
        from.at[i] = r + i * 8 < a.m ? (const float *)a.x + (r + i * 8) * a.x_stride + c * 8
                                     : (const float *)0;
        squares[i] = 0.0f;
    }
    if (EW_NORM)
        from.at[ASKED - 1] = (const float *)a.norm_weight + c * 8;
    ew_grid_wait();
    // loads run EW_AHEAD stages before what is rounded
    for (int i = -EW_AHEAD; i < (int)all; i += EW_AHEAD)
#        pragma unroll
        for (int d = 0; d < EW_AHEAD; d++) {
            const int n = i + d;

            if (n >= (int)all)
                break;
            if (n >= 0) {
                ew_mbar_wait(ew_shared(&f.empty[at]), phase);
                put_pieces(x[d], to + at * X_STAGE, squares);
                ew_async_fence();
                __syncwarp();
                if (t % 32 == 0)
                    ew_mbar_arrive(ew_shared(&f.full[at]));
                if (++at == EW_X_STAGES) {
                    at = 0;
                    phase ^= 1;
                }
                if (EW_NORM && n + 1 == (int)w.stages)
                    join_squares(f, squares, t);
            }
            if (n + EW_AHEAD < (int)all) {
                load_pieces(x[d], from, next, next + c * 8 < a.k, next + c * 8 + 4 < a.k);
                next += STAGE_COLS;
                if (next == end)
                    next = w.begin * STAGE_COLS;
            }
        }
}
#    else
// One lane.
EW_DEV void produce(const struct ew_cuda_linear_map_args &p, const struct work &w, struct fixed &f)
{
    uint32_t at = 0, phase = 1;
#        if EW_DIGITS
    const uint32_t rows = (p.a.m + 7) / 8 * 8; // and behind the digits their scales
    const char *const scales = (const char *)p.a.prepared + rows * 4 * p.a.prepared_stride;
#        endif

    ew_grid_wait();
    for (uint32_t strip = w.strip; strip < p.a.tiles_n; strip += w.stride)
        for (uint32_t i = 0; i < w.stages; i++) {
            const uint32_t full = ew_shared(&f.full[at]), to = ew_shared(dynamic) + at * X_STAGE;
            const uint32_t stage = w.begin + i; // past the last column come zeros

            ew_mbar_wait(ew_shared(&f.empty[at]), phase);
#        if EW_DIGITS
            ew_mbar_expect(full, X_STAGE + rows * 4);
            ew_box_load(to, p.map_x, stage * 64, 0, full);
            ew_bulk_load(ew_shared(f.scales[at]), scales + (uint64_t)stage * rows * 4, rows * 4,
                         full);
#        else
            ew_mbar_expect(full, X_STAGE);
            ew_box_load(to, p.map_x, stage * STAGE_COLS, 0, full);
            ew_box_load(to + X_SUB, p.map_x, stage * STAGE_COLS + 64, 0, full);
#        endif
            if (++at == EW_X_STAGES) {
                at = 0;
                phase ^= 1;
            }
        }
}
#    endif

// All that this block reads was asked for: now what the next launch reads first. One lane.
EW_DEV void read_ahead(const struct ew_cuda_ahead &n)
{
    if (n.bytes)
        for (uint32_t i = blockIdx.x; i < n.rows * n.parts; i += gridDim.x)
            ew_bulk_ahead((const char *)n.w + i / n.parts * n.pitch + i % n.parts * n.part_pitch,
                          n.bytes);
}
#endif

#endif
