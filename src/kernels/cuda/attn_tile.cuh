/* kernels/cuda/attn_tile.cuh - tiles of the cache in shared memory and the tensor core products on
 * them, for the attention kernels.
 *
 * A tile holds raw rows of the cache, EW_TILE_STRIDE bytes apart: 16 more than their own length, so
 * that eight rows begin in different banks. Elements become bf16 (f16 for an f16 cache) on their
 * way into a fragment; an f32 cache becomes two bf16, hi + lo. Products are m16n8k16 with the
 * fragment layouts of the PTX manual: lane = 4 g + t. */
#ifndef EW_KERNELS_CUDA_ATTN_TILE_CUH
#define EW_KERNELS_CUDA_ATTN_TILE_CUH

#include "attn_cache.cuh"
#include "mma.cuh"

#define EW_TILE_STRIDE (EW_KV == 4 ? EW_D + 16 : EW_ROW_BYTES + 16)
#define EW_PLANES      (EW_KV == 0 ? 2 : 1)
#define EW_CP_BYTES    (EW_KV == 4 ? 4 : 16)

/* 16 (4) bytes from device to shared memory, zeros when `take` is false. */
EW_DEV void cp_async(unsigned dst, const void *src, bool take)
{
#if EW_CP_BYTES == 16
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(dst), "l"(src),
                 "r"(take ? 16 : 0)
                 : "memory");
#else
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(dst), "l"(src),
                 "r"(take ? 4 : 0)
                 : "memory");
#endif
}

/* Which slots of a head may be read: those in [lo, end), in a tree without its padding rows (`pos`
 * belongs to slot `prefix` and on, NULL where there is no tree). The others become zeros: what was
 * never written may be NaN, and 0 * NaN is no 0. */
struct readable {
    unsigned lo, end, prefix;
    const int *pos;
};

EW_DEV bool is_readable(const struct readable &r, unsigned slot)
{
    return slot >= r.lo && slot < r.end &&
           (!r.pos || slot < r.prefix || r.pos[slot - r.prefix] >= 0);
}

EW_DEV struct readable readable_find(const ew_cuda_attn_args &a, unsigned b, unsigned lo,
                                     unsigned end)
{
    struct readable r = { lo, end, 0, 0 };

    if (IS_MODE(ATTN_TREE)) {
        const int s0 = a.start_index ? ((const int *)a.start_index)[b] : 0;

        r.prefix = s0 < 0 ? 0 : (unsigned)s0;
        r.pos = (const int *)a.pos_id + (unsigned long long)b * a.s;
    }
    return r;
}

/* Thread `i` of `n` copies its part of rows [slot, slot + N_ROWS) of one head. */
template <int N_ROWS>
EW_DEV void tile_load(unsigned dst, const unsigned char *head, unsigned slot,
                      const struct readable &which, unsigned i, unsigned n)
{
    constexpr unsigned PER_ROW = EW_ROW_BYTES / EW_CP_BYTES;

#pragma unroll 4
    for (unsigned u = i; u < N_ROWS * PER_ROW; u += n) {
        const unsigned r = u / PER_ROW, c = u % PER_ROW * EW_CP_BYTES;
        const bool take = is_readable(which, slot + r);

        cp_async(dst + r * EW_TILE_STRIDE + c,
                 head + (unsigned long long)(take ? slot + r : 0) * EW_ROW_BYTES + c, take);
    }
}

EW_DEV void ldmatrix_x4_trans(unsigned r[4], unsigned addr)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(addr)
                 : "memory");
}

EW_DEV void mma(float c[4], const unsigned a[4], unsigned b0, unsigned b1)
{
#if EW_KV == 1
    ew_mma_f16(c, a, b0, b1);
#else
    ew_mma_bf16(c, a, b0, b1);
#endif
}

/* Two floats as two short ones of the tile's kind, x in the low half. NaN and inf stay so. */
EW_DEV unsigned pack2(float x, float y)
{
#if EW_KV == 1
    return ew_f16x2(x, y);
#else
    return ew_bf16x2(x, y);
#endif
}

/* What pack2 left over of x and y. */
EW_DEV unsigned pack2_rest(float x, float y, unsigned hi)
{
#if EW_KV == 1
    return pack2(x - ew_f16_f32(hi & 0xffffu), y - ew_f16_f32(hi >> 16));
#else
    return pack2(x - __uint_as_float(hi << 16), y - __uint_as_float(hi & 0xffff0000u));
#endif
}

EW_DEV float tile_get(const unsigned char *tile, unsigned row, unsigned col)
{
    return kv_get(tile + row * EW_TILE_STRIDE, col);
}

/* Keys as B of a 16-column step of the head, slots [n0, n0 + 16): b[plane] = {n0..7 low k, high k,
 * n0+8.. low k, high k}. */
EW_DEV void key_frag(unsigned b[EW_PLANES][4], const unsigned char *tile, unsigned n0, unsigned k0)
{
    const unsigned lane = threadIdx.x % 32;

#if EW_KV == 1 || EW_KV == 2
    const unsigned row = n0 + (lane & 7u) + (lane >> 4 << 3), col = k0 + (lane >> 3 & 1u) * 8;

    ew_ldmatrix4(b[0], ew_shared(tile) + row * EW_TILE_STRIDE + col * 2);
#else
#    pragma unroll
    for (int j = 0; j < 4; j++) {
        const unsigned row = n0 + (lane >> 2) + (j >> 1) * 8,
                       col = k0 + (lane & 3u) * 2 + (j & 1) * 8;
        const float x = tile_get(tile, row, col), y = tile_get(tile, row, col + 1);

        b[0][j] = pack2(x, y);
#    if EW_KV == 0
        b[EW_PLANES - 1][j] = pack2_rest(x, y, b[0][j]);
#    endif
    }
#endif
}

/* Values as B of a step over slots [k0, k0 + 16), columns [n0, n0 + 16): the same order. */
EW_DEV void value_frag(unsigned b[EW_PLANES][4], const unsigned char *tile, unsigned k0,
                       unsigned n0)
{
    const unsigned lane = threadIdx.x % 32;

#if EW_KV == 1 || EW_KV == 2
    const unsigned row = k0 + (lane & 15u), col = n0 + (lane >> 4) * 8;

    ldmatrix_x4_trans(b[0], ew_shared(tile) + row * EW_TILE_STRIDE + col * 2);
#else
#    pragma unroll
    for (int j = 0; j < 4; j++) {
        const unsigned row = k0 + (lane & 3u) * 2 + (j & 1) * 8,
                       col = n0 + (lane >> 2) + (j >> 1) * 8;
        const float x = tile_get(tile, row, col), y = tile_get(tile, row + 1, col);

        b[0][j] = pack2(x, y);
#    if EW_KV == 0
        b[EW_PLANES - 1][j] = pack2_rest(x, y, b[0][j]);
#    endif
    }
#endif
}

EW_DEV float exp2_fast(float x)
{
    float y;

    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/* A product of a query and a stored key as a score: scales, and softcap where there is one. */
EW_DEV float shape_score(const ew_cuda_attn_args &a, float s, const unsigned char *key,
                         float k_scale)
{
#if EW_KV == 4
    s *= i8_row_scale(key);
#elif EW_KV == 3
    s *= k_scale;
#endif
#if EW_CAP
    s = a.softcap * EW_LOG2E * tanhf(s / a.softcap);
#endif
    return s;
}

#endif
