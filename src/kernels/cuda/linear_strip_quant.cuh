// kernels/cuda/linear_strip_quant.cuh - quantised weights of linear_strip.cu: rings of a warp's
// own, from there to registers as operands, and the products. Two ways: scales applied to the sums
// of a group (to weights where that is exact), or integers, where x is digits (EW_DIGITS).
#ifndef EW_KERNELS_CUDA_LINEAR_STRIP_QUANT_CUH
#define EW_KERNELS_CUDA_LINEAR_STRIP_QUANT_CUH

#include "linear_strip.cuh"

#if EW_WGMMA
// What a lane copies next, and to where in the ring of its warp.
struct stream {
    const char *panel;          // the lane's part of the first block
    const char *scales, *zeros; // and of the first unit
    uint32_t left;              // stages of all strips
    uint32_t strip, block;      // the block is within the panel
    uint32_t to, first, end;    // shared addresses: of the lane's codes, of the ring
};

// The compiler shall not work addresses out again and again to save registers.
template <class T> EW_DEV void keep(T *&p)
{
    asm volatile("" : "+l"(p));
}

EW_DEV void keep(uint32_t &v)
{
    asm volatile("" : "+r"(v));
}

EW_DEV void stream_panel(struct stream &s, const ew_args &a, uint32_t warp, uint32_t lane)
{
    const char *panel = ew_panel_at(a, s.strip * WARPS + warp);

    s.panel = panel + lane * 16;
    s.scales = panel + (a.scales_at + (lane / 4 * SCALE_BYTES & ~3u));
    s.zeros = panel + (a.zeros_at + (lane / 4 * ZERO_BYTES & ~3u));
    keep(s.panel);
    keep(s.scales);
    keep(s.zeros);
}

// Scales or zero points of a unit, in fours.
template <int BYTES> EW_DEV void copy_unit(uint32_t to, const char *from, uint32_t unit)
{
    from += (uint64_t)unit * (8 * BYTES);
#    pragma unroll
    for (int j = 0; j < BYTES; j += 16)
        ew_cp_async<(BYTES <= 4 ? 4 : BYTES > 16 ? 16 : BYTES)>(to + j, from + j);
}

EW_DEV void stream_next(struct stream &s, const ew_args &a, const struct work &w, uint32_t warp,
                        uint32_t lane)
{
    if (s.left) {
        const char *codes = s.panel + (uint64_t)s.block * 512;
        const uint32_t units = s.to + BLOCKS * 512 - lane * 16;

        ew_cp_async16(s.to, codes, 16);
#    pragma unroll
        for (int i = 1; i < BLOCKS; i++) // what is behind the last block is zero
            ew_cp_async16(s.to + i * 512, codes + i * 512, s.block + i < a.k_blocks ? 16 : 0);
#    pragma unroll
        for (int u = 0; u < UNITS; u++) {
            const uint32_t at = units + u * UNIT_BYTES;
            uint32_t unit = EW_GROUPED ? s.block * EW_BLOCK_COLS / UNIT_COLS + u : 0;

            if (u > 0) {
                const uint32_t last = (a.k_blocks - 1) * EW_BLOCK_COLS / UNIT_COLS;
                unit = unit < last ? unit : last;
            }
            if (SCALE_BYTES)
                copy_unit<SCALE_BYTES>(at + lane * COPIED(SCALE_BYTES), s.scales, unit);
            if (ZERO_BYTES)
                copy_unit<ZERO_BYTES>(at + 32 * COPIED(SCALE_BYTES) + lane * COPIED(ZERO_BYTES),
                                      s.zeros, unit);
        }
        s.left--;
        s.block += BLOCKS;
        if (EW_MANY && s.block == (w.begin + w.stages) * BLOCKS) {
            s.block = w.begin * BLOCKS;
            s.strip += w.stride;
            stream_panel(s, a, warp, lane);
        }
    }
    ew_cp_async_commit();
    s.to += SLOT;
    s.to = s.to == s.end ? s.first : s.to;
}

// And fills the ring but for a slot.
EW_DEV void stream_begin(struct stream &s, const ew_args &a, const struct work &w, uint32_t warp,
                         uint32_t lane)
{
    const uint32_t strips =
        w.strip < a.tiles_n ? (a.tiles_n - w.strip + w.stride - 1) / w.stride : 0;

    s.left = strips * w.stages;
    s.strip = w.strip;
    stream_panel(s, a, warp, lane);
    s.block = w.begin * BLOCKS;
    s.first = s.to = ew_shared(dynamic) + RINGS_AT + warp * (EW_SLOTS * SLOT) + lane * 16;
    s.end = s.first + EW_SLOTS * SLOT;
    keep(s.first);
    keep(s.end);
#    pragma unroll 1
    for (int i = 0; i < EW_SLOTS - 1; i++)
        stream_next(s, a, w, warp, lane);
}

// A of a stage.
#    define WORDS (EW_DIGITS ? TILES * 2 : TILES * 4)
struct fragments {
    uint32_t f[WORDS];
    struct ew_groups o[UNITS];
};

EW_DEV uint4 load16(uint32_t from)
{
    uint4 v;
    asm volatile("ld.shared.v4.u32 {%0,%1,%2,%3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "r"(from)
                 : "memory");
    return v;
}

// What a lane copied, from shared address `from` on.
template <int BYTES> EW_DEV void load_copied(uint32_t *to, uint32_t from, uint32_t lane)
{
    if (BYTES == 2) { // one of the two neighbours
        asm volatile("{\n.reg .u16 h;\nld.shared.u16 h, [%1];\ncvt.u32.u16 %0, h;\n}"
                     : "=r"(to[0])
                     : "r"(from + lane / 4 % 2 * 2)
                     : "memory");
    } else if (BYTES == 4) {
        asm volatile("ld.shared.u32 %0, [%1];" : "=r"(to[0]) : "r"(from) : "memory");
    } else if (BYTES == 8) {
        asm volatile("ld.shared.v2.u32 {%0,%1}, [%2];"
                     : "=r"(to[0]), "=r"(to[BYTES >= 8 ? 1 : 0])
                     : "r"(from)
                     : "memory");
    } else {
#    pragma unroll
        for (int i = 0; i < BYTES / 4; i += 4) {
            const uint4 v = load16(from + i * 4);
            to[i] = v.x, to[i + (BYTES >= 16 ? 1 : 0)] = v.y;
            to[i + (BYTES >= 16 ? 2 : 0)] = v.z, to[i + (BYTES >= 16 ? 3 : 0)] = v.w;
        }
    }
}

#    if EW_DIGITS
// Eight codes, stored as code + 8, of rows g and g + 8: sixteen times each as bytes with their
// sign.
EW_DEV void split(uint32_t to[2], uint32_t word)
{
    asm("lop3.b32 %0, %1, %2, 0x80808080, 0x6a;" : "=r"(to[0]) : "r"(word << 4), "r"(0xf0f0f0f0u));
    asm("lop3.b32 %0, %1, %2, 0x80808080, 0x6a;" : "=r"(to[1]) : "r"(word), "r"(0xf0f0f0f0u));
}
#    endif

// slot: shared address of the lane's codes.
EW_DEV void dequant(struct fragments &f, uint32_t slot, uint32_t lane)
{
    const uint32_t units = slot - lane * 16 + BLOCKS * 512;

#    pragma unroll
    for (int u = 0; u < UNITS; u++) {
        const uint32_t at = units + u * UNIT_BYTES;

        if (SCALE_BYTES)
            load_copied<SCALE_BYTES>(f.o[u].scales, at + lane * COPIED(SCALE_BYTES), lane);
        if (ZERO_BYTES)
            load_copied<ZERO_BYTES>(
                f.o[u].zeros, at + 32 * COPIED(SCALE_BYTES) + lane * COPIED(ZERO_BYTES), lane);
    }
#    pragma unroll
    for (int i = 0; i < BLOCKS; i++) {
        const uint4 w = load16(slot + i * 512);
        const struct ew_groups &o = f.o[i / UNIT_BLOCKS];

#    if EW_DIGITS
        split(f.f + i * 8, w.x), split(f.f + i * 8 + 2, w.y);
        split(f.f + i * 8 + 4, w.z), split(f.f + i * 8 + 6, w.w);
#    else
#        pragma unroll
        for (int j = 0; j < EW_TILES; j++) {
            uint32_t *to = f.f + (i * EW_TILES + j) * 4;
            const int sub = j / EW_GROUP_TILES;

            ew_dequant_64th(to, w, j, ew_offset_64th(o, sub, 0), ew_offset_64th(o, sub, 1));
            if (EW_SHORT_SCALE && EW_GROUPED)
                ew_scale_fragment(to, o, sub);
        }
        (void)o;
#    endif
    }
    // all of it before the first product, or the compiler makes every product wait for its own
#    pragma unroll
    for (int i = 0; i < WORDS; i++)
        asm volatile("" : "+r"(f.f[i])::"memory");
}

// ---- products ----

#    if EW_DIGITS
// Adds the sums of a stage. Lane 4g + t has both digits of rows 8j + 2t and 8j + 2t + 1 of x, and
// their scales.
EW_DEV void promote(float *acc, const int *part, const struct ew_groups &o, const float2 *x)
{
    const float s[2] = { ew_scale(o, 0, 0), ew_scale(o, 0, 1) };

#        pragma unroll
    for (int j = 0; j < EW_N / 8; j++)
#        pragma unroll
        for (int i = 0; i < 4; i++) {
            const int *d = part + j * 8 + i % 2 * 4 + i / 2 * 2;
            const float z = (float)(d[0] * 256 + d[1]);

            acc[j * 4 + i] = fmaf(z, s[i / 2] * (i % 2 ? x[j].y : x[j].x), acc[j * 4 + i]);
        }
}

EW_DEV void load_scales(float2 *x, const float *scales, uint32_t lane)
{
#        pragma unroll
    for (int j = 0; j < EW_N / 8; j++)
        x[j] = *(const float2 *)(scales + j * 8 + lane % 4 * 2);
}

EW_DEV void multiply(int *part, const struct fragments &f, uint32_t tile)
{
    ew_wg_fence();
#        pragma unroll
    for (int j = 0; j < 4; j++)
        ew_wg_s8<X_ROWS>::rs(part, f.f + j * 4, tile + j * 2, j > 0);
    ew_wg_commit();
}

EW_DEV void touch(int *part)
{
#        pragma unroll
    for (int i = 0; i < EW_N; i++)
        asm volatile("" : "+r"(part[i])::"memory");
}
#    else
EW_DEV void promote(float *acc, float *part, const struct fragments &f, int tile)
{
    const struct ew_groups &o = f.o[tile / (TILES / UNITS)];
    const int sub = tile % EW_TILES / EW_GROUP_TILES;
    const float s0 = ew_scale(o, EW_SUB > 1 ? sub : 0, 0),
                s1 = ew_scale(o, EW_SUB > 1 ? sub : 0, 1);

#        pragma unroll
    for (int i = 0; i < EW_N / 2; i++)
        acc[i] = fmaf(part[i], i % 4 < 2 ? s0 : s1, acc[i]);
}

// Starts the products of a stage, x at `tile`; sums of groups shorter than that are also finished.
EW_DEV void multiply(float *acc, float *part, const struct fragments &f, uint32_t tile, bool keep)
{
    ew_wg_fence();
#        pragma unroll
    for (int j = 0; j < TILES; j++) {
        ew_wg<EW_N>::rs(PROMOTE ? part : acc, f.f + j * 4, tile + j / 4 * (X_SUB / 16) + j % 4 * 2,
                        PROMOTE ? (j % GROUP_TILES > 0 || (GROUP_TILES == TILES && keep)) : 1);
        if (PROMOTE && GROUP_TILES < TILES && (j + 1) % GROUP_TILES == 0) {
            ew_wg_commit();
            ew_wg_wait<0>();
            ew_wg_touch<EW_N>(PROMOTE ? part : acc);
            promote(acc, part, f, j);
            if (j + 1 < TILES)
                ew_wg_fence();
        }
    }
    ew_wg_commit();
}
#    endif

struct reader {
    uint32_t slot; // shared address of the lane's codes
    uint32_t at;   // stages of x so far
};

// One register for the whole warp: descriptors are built without its lanes.
EW_DEV uint32_t tile_of(uint32_t stage)
{
    return __shfl_sync(~0u, ew_wg_tile_low(ew_shared(dynamic) + stage * X_STAGE), 0);
}

EW_DEV void dequant_next(struct fragments &f, struct reader &r, const struct stream &s,
                         uint32_t lane)
{
    ew_cp_async_wait<EW_SLOTS - 2>();
    dequant(f, r.slot, lane);
    r.slot += SLOT;
    r.slot = r.slot == s.end ? s.first : r.slot;
}

#    if EW_DIGITS
// What travels from stage to stage of digits.
struct digits {
    int part[EW_N];
    float2 x[EW_N / 8]; // scales of x
    struct fragments f;
};

EW_DEV void start(struct digits &d, struct fixed &fixed, uint32_t n, uint32_t lane)
{
    const uint32_t at = n % EW_X_STAGES, tile = tile_of(at);

    ew_mbar_wait(ew_shared(&fixed.full[at]), n / EW_X_STAGES % 2);
    multiply(d.part, d.f, tile);
    load_scales(d.x, fixed.scales[at], lane);
}

// Sums of a stage are added one stage later, so that nobody waits for the tensor cores: the
// products of stage n with d start, those of the stage before are added up.
EW_DEV void turn(const ew_args &a, const struct work &w, float *acc, struct fixed &fixed,
                 struct reader &r, struct stream &stream, struct digits &d, struct digits &before,
                 bool more, uint32_t warp, uint32_t lane)
{
    start(d, fixed, r.at, lane);
    ew_wg_wait<1>();
    touch(before.part);
    if (lane == 0)
        ew_mbar_arrive(ew_shared(&fixed.empty[(r.at - 1) % EW_X_STAGES]));
    r.at++;

    const struct ew_groups o = before.f.o[0];

    stream_next(stream, a, w, warp, lane); // into the slot read last
    if (more)
        dequant_next(before.f, r, stream, lane);
    promote(acc, before.part, o, before.x);
}

EW_DEV void consume(const ew_args &a, const struct work &w, float *acc, struct fixed &fixed,
                    struct reader &r, struct stream &stream, uint32_t warp, uint32_t lane)
{
    struct digits d0, d1;
    uint32_t i = 1;

#        pragma unroll
    for (int j = 0; j < EW_N / 2; j++)
        acc[j] = 0.0f;
    if (w.stages == 0)
        return;
    dequant_next(d0.f, r, stream, lane);
    start(d0, fixed, r.at++, lane);
    stream_next(stream, a, w, warp, lane);
    if (w.stages > 1)
        dequant_next(d1.f, r, stream, lane);
    for (; i + 1 < w.stages; i += 2) {
        turn(a, w, acc, fixed, r, stream, d1, d0, true, warp, lane);
        turn(a, w, acc, fixed, r, stream, d0, d1, i + 2 < w.stages, warp, lane);
    }
    if (i < w.stages) {
        turn(a, w, acc, fixed, r, stream, d1, d0, false, warp, lane);
        ew_wg_wait<0>();
        touch(d1.part);
        promote(acc, d1.part, d1.f.o[0], d1.x);
    } else {
        ew_wg_wait<0>();
        touch(d0.part);
        promote(acc, d0.part, d0.f.o[0], d0.x);
    }
    if (lane == 0)
        ew_mbar_arrive(ew_shared(&fixed.empty[(r.at - 1) % EW_X_STAGES]));
#        pragma unroll
    for (int j = 0; j < EW_N / 2; j++)
        acc[j] *= 0.0625f; // codes were sixteen times themselves
}
#    else
EW_DEV void consume(const ew_args &a, const struct work &w, float *acc, struct fixed &fixed,
                    struct reader &r, struct stream &stream, uint32_t warp, uint32_t lane)
{
    float part[PROMOTE ? EW_N / 2 : 1];
    struct fragments f[2];
    bool keep = false;

#        pragma unroll
    for (int i = 0; i < EW_N / 2; i++)
        acc[i] = 0.0f;
    if (w.stages == 0)
        return;
    dequant_next(f[0], r, stream, lane);
    for (uint32_t i = 0; i < w.stages; i += 2)
#        pragma unroll
        for (int h = 0; h < 2; h++) {
            const uint32_t at = r.at % EW_X_STAGES, next = i + h + 1;

            if (i + h >= w.stages)
                break;
            const uint32_t tile = tile_of(at);
            ew_mbar_wait(ew_shared(&fixed.full[at]), r.at / EW_X_STAGES % 2);
            multiply(acc, part, f[h], tile, keep);
            r.at++;
            stream_next(stream, a, w, warp, lane); // into the slot read last
            if (next < w.stages)
                dequant_next(f[1 - h], r, stream, lane);
            ew_wg_wait<0>();
            ew_wg_touch<EW_N>(PROMOTE ? part : acc);
            if (lane == 0)
                ew_mbar_arrive(ew_shared(&fixed.empty[at]));
            keep = true;
            if (PROMOTE && GROUP_TILES == TILES &&
                (EW_GROUP <= STAGE_COLS || next == w.stages ||
                 next * STAGE_COLS % UNIT_COLS == 0)) {
                promote(acc, part, f[h], 0);
                keep = false;
            }
        }
#        pragma unroll
    for (int i = 0; i < EW_N / 2; i++)
        acc[i] *= EW_CODE_UNIT;
}
#    endif
#endif

#endif
