/* kernels/x86/linear_q4w8_avx512vnni.c - y = x W^T for 4-bit W taken as 8-bit integers with one
 * scale a row, and rows of x rounded to int8 (EW_XQ_INT8_W8, kernels/linear_w8.h).
 *
 *   z[m][n] = x_scale[m] * w_scale[n] * sum over k of xq[m][k] * w8[n][k]
 *
 * The sum is one exact integer: it may be made in any order, by any instruction, and is the same
 * for any number of rows. Few rows meet the codes as they come from memory, looked up in the table
 * of their group; for many, panels become bytes in scratch once, for VNNI or matrix tiles.
 *
 * A prepared row of x: codes i8 [k in whole tiles], zeros behind k; their sum i32; its scale f32;
 * an odd multiple of 64 bytes. Packed weights: linear_q4w8_pack.inc. */
#include "kernels/x86/vecq_avx512.h"

#include "cpu/cpu.h"
#include "kernels/simd/vmath.inc"
#include "kernels/simd/linear_finish.inc"
#include "kernels/simd/linear_int8_x.inc"
#include "kernels/x86/linear_q4w8_pack.inc"

#define TILE_K   ((size_t)64) /* columns of a matrix tile */
#define MAX_K    65536        /* columns whose sum of products of 127 and 255 is below 2^31 */
#define FEW_ROWS 12           /* that meet packed codes */
#define AHEAD    8192         /* bytes of weights on their way */
#define PANELS   4            /* in scratch at once */
#define EXPANDED (4 * P)      /* bytes of four columns of a panel in scratch */
#define RAISED   128          /* what VNNI's operand without a sign has more than a code */
#define ZS       (2 * P)      /* from one row of sums to the next: two panels side by side */

/* ---- x ---- */

static size_t whole_tiles(size_t k)
{
    return (k + TILE_K - 1) / TILE_K * TILE_K;
}

static size_t prepared_row_bytes(const struct ew_quant_format *f, size_t k)
{
    (void)f;
    return ((whole_tiles(k) + 8 + 63) / 64 | 1) * 64;
}

static void prepare(const struct ew_linear_args *a, size_t begin, size_t end, void *prepared)
{
    const size_t bytes = prepared_row_bytes(NULL, a->k), codes = whole_tiles(a->k);

    for (size_t m = begin; m < end; m++) {
        unsigned char *to = (unsigned char *)prepared + m * bytes;
        const float *x = a->x + m * a->x_stride;
        const float scale = max_abs(x, a->k) / 127.0f;
        const size_t all[2] = { 0, a->k };
        int32_t sum;

        if (!(scale > 0.0f) || scale > FLT_MAX) {
            memset(to, 0, bytes);
            continue;
        }
        memset(to + a->k, 0, codes - a->k);
        sum = round_columns((int8_t *)to, x, all, v_set1(scale));
        memcpy(to + codes, &sum, sizeof(sum));
        memcpy(to + codes + 4, &scale, sizeof(scale));
    }
}

/* ---- tables ---- */

enum { W8_I4, W8_U4, W8_U4_ZERO };

/* The integers of four outputs' codes, 16 in each 128-bit lane. head: of the group; q: which four.
 */
ALWAYS veci load_table(int kind, const unsigned char *head, size_t q)
{
    const veci low = _mm512_broadcast_i32x4(_mm_setr_epi16(0, 16, 32, 48, 64, 80, 96, 112));
    const veci high =
        kind == W8_I4
            ? _mm512_broadcast_i32x4(_mm_setr_epi16(-128, -112, -96, -80, -64, -48, -32, -16))
            : _mm512_broadcast_i32x4(_mm_setr_epi16(128, 144, 160, 176, 192, 208, 224, 240));
    const veci lane =
        _mm512_set_epi32(0x07060706, 0x07060706, 0x07060706, 0x07060706, 0x05040504, 0x05040504,
                         0x05040504, 0x05040504, 0x03020302, 0x03020302, 0x03020302, 0x03020302,
                         0x01000100, 0x01000100, 0x01000100, 0x01000100);
    veci a = low, b = high;
    uint64_t four;

    memcpy(&four, head + q * 8, 8);
    const veci factor = _mm512_shuffle_epi8(_mm512_set1_epi64((long long)four), lane);
    if (kind == W8_U4_ZERO) {
        const veci byte =
            _mm512_set_epi32((int)0x80038003, (int)0x80038003, (int)0x80038003, (int)0x80038003,
                             (int)0x80028002, (int)0x80028002, (int)0x80028002, (int)0x80028002,
                             (int)0x80018001, (int)0x80018001, (int)0x80018001, (int)0x80018001,
                             (int)0x80008000, (int)0x80008000, (int)0x80008000, (int)0x80008000);
        int32_t zeros;

        memcpy(&zeros, head + 64 + q * 4, 4);
        const veci z = _mm512_slli_epi16(_mm512_shuffle_epi8(_mm512_set1_epi32(zeros), byte), 4);
        a = _mm512_sub_epi16(a, z);
        b = _mm512_sub_epi16(b, z);
    }
    return _mm512_packs_epi16(_mm512_mulhrs_epi16(a, factor), _mm512_mulhrs_epi16(b, factor));
}

/* ---- few rows ---- */

struct w8_tile {
    const unsigned char *x; /* prepared rows */
    size_t x_stride;
    const unsigned char *w; /* panel */
    const struct w8_map *map;
    int kind; /* what codes are */
};

/* 16 columns of a row in every 128-bit lane. */
ALWAYS veci load_x16(const unsigned char *x)
{
    return _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)(const void *)x));
}

/* Sums of two vectors' lanes -> in each lane two halves of either, in turn. */
ALWAYS veci add_pair(veci a, veci b)
{
    return _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
}

/* Sums of four vectors in two such pairs -> 16 outputs in order. */
ALWAYS veci add_pairs(veci a, veci b)
{
    return _mm512_add_epi32(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b));
}

/* One row: vectors come as they lie, and two sums for each keep the instructions from waiting. kind
 * is a constant where this is inlined. */
ALWAYS void one_row(int kind, const struct w8_tile *t, int32_t *z)
{
    const struct w8_map *m = t->map;
    const veci nibble = vi_set1_8(0x0f), flip = vi_set1_8(0x80);
    const unsigned char *group = t->w + P * sizeof(float), *x = t->x;
    veci acc[8], more[8];

    UNROLL
    for (int q = 0; q < 8; q++)
        acc[q] = more[q] = vi_set1(0);
    for (size_t g = 0; g < m->n_groups; g++, group += m->group_bytes, x += m->group) {
        const size_t chunks = w8_chunks(m, g);
        const unsigned char *w = group + m->head;
        UNROLL
        for (int q = 0; q < 8; q++) {
            const veci table = vi_xor(load_table(kind, group, (size_t)q), flip);
            const unsigned char *at = x;
            for (const unsigned char *end = w + chunks * 64; w < end; w += 64, at += CHUNK) {
                const veci raw = vi_load(w);
                const veci lo = vi_shuffle8(table, vi_and(raw, nibble));
                const veci hi = vi_shuffle8(table, vi_and(vi_srl(raw, 4), nibble));

                v_prefetch(w + AHEAD);
                acc[q] = _mm512_dpbusd_epi32(acc[q], lo, load_x16(at));
                more[q] = _mm512_dpbusd_epi32(more[q], hi, load_x16(at + 16));
            }
        }
    }
    UNROLL
    for (int q = 0; q < 8; q++)
        acc[q] = vi_add(acc[q], more[q]);
    UNROLL
    for (int h = 0; h < 2; h++) {
        const veci *a = acc + 4 * h;
        vi_store(z + h * VL, add_pairs(add_pair(a[0], a[1]), add_pair(a[2], a[3])));
    }
}

/* More rows: `quads` vectors from number `first` on meet all of them together. All counts are
 * constants where this is inlined. */
ALWAYS void few_wide(int kind, int rows, int quads, int first, const struct w8_tile *t,
                     veci (*sums)[FEW_ROWS])
{
    const struct w8_map *m = t->map;
    const size_t ahead = (AHEAD + m->group_bytes - 1) / m->group_bytes * m->group_bytes;
    const veci nibble = vi_set1_8(0x0f), flip = vi_set1_8(0x80);
    const unsigned char *group = t->w + P * sizeof(float), *x = t->x;
    veci acc[FEW_ROWS][4];

    UNROLL
    for (int r = 0; r < rows; r++) {
        UNROLL
        for (int q = 0; q < quads; q++)
            acc[r][q] = vi_set1(0);
    }
    for (size_t g = 0; g < m->n_groups; g++, group += m->group_bytes, x += m->group) {
        const size_t apart = w8_chunks(m, g) * 64;
        const unsigned char *w = group + m->head + (size_t)first * apart;
        const unsigned char *at = x;
        veci table[4];

        UNROLL
        for (int q = 0; q < quads; q++)
            table[q] = vi_xor(load_table(kind, group, (size_t)(first + q)), flip);
        for (const unsigned char *end = w + apart; w < end; w += 64, at += CHUNK) {
            UNROLL
            for (int half = 0; half < 2; half++) {
                veci u[4];
                UNROLL
                for (int q = 0; q < quads; q++) {
                    const veci raw = vi_load(w + (size_t)q * apart);
                    if (!half)
                        v_prefetch(w + (size_t)q * apart + ahead);
                    u[q] = vi_shuffle8(table[q], vi_and(half ? vi_srl(raw, 4) : raw, nibble));
                }
                UNROLL
                for (int r = 0; r < rows; r++) {
                    const veci some = load_x16(at + (size_t)r * t->x_stride + (size_t)half * 16);
                    UNROLL
                    for (int q = 0; q < quads; q++)
                        acc[r][q] = _mm512_dpbusd_epi32(acc[r][q], u[q], some);
                }
            }
        }
    }
    UNROLL
    for (int r = 0; r < rows; r++) {
        UNROLL
        for (int q = 0; q < quads; q++)
            sums[first + q][r] = acc[r][q];
    }
}

/* As many vectors at once as leave room for the codes and one row's columns. */
ALWAYS void few_panel(int kind, int rows, const struct w8_tile *t, int32_t *z)
{
    veci sums[8][FEW_ROWS];

    if (rows == 1) {
        one_row(kind, t, z);
        return;
    }
    if (rows <= 6) {
        few_wide(kind, rows, 4, 0, t, sums);
        few_wide(kind, rows, 4, 4, t, sums);
    } else if (rows <= 8) {
        few_wide(kind, rows, 3, 0, t, sums);
        few_wide(kind, rows, 3, 3, t, sums);
        few_wide(kind, rows, 2, 6, t, sums);
    } else {
        few_wide(kind, rows, 2, 0, t, sums);
        few_wide(kind, rows, 2, 2, t, sums);
        few_wide(kind, rows, 2, 4, t, sums);
        few_wide(kind, rows, 2, 6, t, sums);
    }
    for (int r = 0; r < rows; r++) {
        for (int h = 0; h < 2; h++) {
            const veci a = add_pair(sums[4 * h][r], sums[4 * h + 1][r]);
            const veci b = add_pair(sums[4 * h + 2][r], sums[4 * h + 3][r]);
            vi_store(z + (size_t)r * ZS + h * VL, add_pairs(a, b));
        }
    }
}

typedef void few_fn(const struct w8_tile *t, int32_t *z);

#define FEW(kind, r)                                                                               \
    static void few_##kind##_##r(const struct w8_tile *t, int32_t *z)                              \
    {                                                                                              \
        few_panel(kind, r, t, z);                                                                  \
    }
#define FEW_NAME(kind, r) few_##kind##_##r,
#define EACH_FEW(X, kind)                                                                          \
    X(kind, 1)                                                                                     \
    X(kind, 2)                                                                                     \
    X(kind, 3)                                                                                     \
    X(kind, 4)                                                                                     \
    X(kind, 5) X(kind, 6) X(kind, 7) X(kind, 8) X(kind, 9) X(kind, 10) X(kind, 11) X(kind, 12)
EACH_FEW(FEW, W8_I4)
EACH_FEW(FEW, W8_U4)
EACH_FEW(FEW, W8_U4_ZERO)
static few_fn *const few[3][FEW_ROWS] = { { EACH_FEW(FEW_NAME, W8_I4) },
                                          { EACH_FEW(FEW_NAME, W8_U4) },
                                          { EACH_FEW(FEW_NAME, W8_U4_ZERO) } };

/* ---- many rows ---- */

/* Four vectors of four outputs by 16 columns -> 16 outputs for four columns after four columns. */
ALWAYS void store_columns(unsigned char *to, const veci u[4])
{
    const veci a = _mm512_unpacklo_epi32(u[0], u[1]), b = _mm512_unpackhi_epi32(u[0], u[1]);
    const veci c = _mm512_unpacklo_epi32(u[2], u[3]), d = _mm512_unpackhi_epi32(u[2], u[3]);

    vi_store(to, _mm512_unpacklo_epi64(a, c));
    vi_store(to + EXPANDED, _mm512_unpackhi_epi64(a, c));
    vi_store(to + 2 * EXPANDED, _mm512_unpacklo_epi64(b, d));
    vi_store(to + 3 * EXPANDED, _mm512_unpackhi_epi64(b, d));
}

/* Half h of a group: 16 outputs. to: their place in the first four columns. */
ALWAYS void expand_half(int kind, const unsigned char *group, const struct w8_map *m, size_t chunks,
                        size_t h, veci up, unsigned char *to)
{
    const unsigned char *codes = group + m->head + 4 * h * chunks * 64;
    const veci nibble = vi_set1_8(0x0f);
    veci table[4], lo[4], hi[4];

    UNROLL
    for (size_t v = 0; v < 4; v++)
        table[v] = vi_xor(load_table(kind, group, 4 * h + v), up);
    for (size_t c = 0; c < chunks; c++, codes += 64, to += 8 * EXPANDED) {
        UNROLL
        for (size_t v = 0; v < 4; v++) {
            const veci raw = vi_load(codes + v * chunks * 64);

            v_prefetch(codes + v * chunks * 64 + AHEAD);
            lo[v] = vi_shuffle8(table[v], vi_and(raw, nibble));
            hi[v] = vi_shuffle8(table[v], vi_and(vi_srl(raw, 4), nibble));
        }
        store_columns(to, lo);
        store_columns(to + 4 * EXPANDED, hi);
    }
}

/* A panel as bytes: for four columns after four columns [P outputs][4], k in whole tiles. flip: 128
 * more, without a sign. kind is a constant where this is inlined. */
ALWAYS void expand_kind(int kind, const struct w8_tile *t, bool flip, size_t k, unsigned char *dst)
{
    const struct w8_map *m = t->map;
    const veci up = vi_set1_8(flip ? 0x80 : 0);
    const unsigned char *group = t->w + P * sizeof(float);

    for (size_t g = 0; g < m->n_groups; g++, group += m->group_bytes) {
        const size_t chunks = w8_chunks(m, g);

        expand_half(kind, group, m, chunks, 0, up, dst);
        expand_half(kind, group, m, chunks, 1, up, dst + 64);
        dst += chunks * 8 * EXPANDED;
    }
    memset(dst, 0, (k - m->k) * P);
}

static void expand_panel(const struct w8_tile *t, bool flip, size_t k, unsigned char *dst)
{
    if (t->kind == W8_I4)
        expand_kind(W8_I4, t, flip, k, dst);
    else if (t->kind == W8_U4)
        expand_kind(W8_U4, t, flip, k, dst);
    else
        expand_kind(W8_U4_ZERO, t, flip, k, dst);
}

/* What a tile fetches while it multiplies: a line at every four columns, `step` bytes apart. */
struct w8_next {
    const unsigned char *at;
    size_t step;
};

/* rows x P sums of bytes raised by 128 and x. rows is a constant where this is inlined. */
ALWAYS void many_tile(int rows, const unsigned char *x, size_t x_stride, const unsigned char *w,
                      size_t k, struct w8_next next, int32_t *z)
{
    veci acc[V_MR][2];

    UNROLL
    for (int r = 0; r < rows; r++)
        acc[r][0] = acc[r][1] = vi_set1(0);
    for (size_t i = 0; i < k; i += 4, w += EXPANDED, x += 4, next.at += next.step) {
        const veci w0 = vi_load(w), w1 = vi_load(w + 64);

        v_prefetch(next.at);
        UNROLL
        for (int r = 0; r < rows; r++) {
            int32_t four;
            memcpy(&four, x + (size_t)r * x_stride, 4);
            acc[r][0] = _mm512_dpbusd_epi32(acc[r][0], w0, vi_set1(four));
            acc[r][1] = _mm512_dpbusd_epi32(acc[r][1], w1, vi_set1(four));
        }
    }
    UNROLL
    for (int r = 0; r < rows; r++) {
        vi_store(z + (size_t)r * ZS, acc[r][0]);
        vi_store(z + (size_t)r * ZS + VL, acc[r][1]);
    }
}

typedef void many_fn(const unsigned char *x, size_t x_stride, const unsigned char *w, size_t k,
                     struct w8_next next, int32_t *z);
#define MANY(r)                                                                                    \
    static void many_##r(const unsigned char *x, size_t x_stride, const unsigned char *w,          \
                         size_t k, struct w8_next next, int32_t *z)                                \
    {                                                                                              \
        many_tile(r, x, x_stride, w, k, next, z);                                                  \
    }
#define MANY_NAME(r) many_##r,
#define EACH_MANY(X) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12)
EACH_MANY(MANY)
static many_fn *const many[V_MR] = { EACH_MANY(MANY_NAME) };

/* ---- running ---- */

struct w8_job {
    const struct ew_linear_args *a;
    struct w8_map map;
    size_t k, x_stride, per_unit; /* k in whole tiles */
    int kind;                     /* what codes are */
};

static struct w8_job job_make(const struct ew_linear_args *a)
{
    return (struct w8_job){ .a = a,
                            .map = w8_map_of(a->format, a->k),
                            .k = whole_tiles(a->k),
                            .x_stride = prepared_row_bytes(NULL, a->k),
                            .per_unit = a->glu ? 2 : 1,
                            .kind = a->format->code == EW_DTYPE_I4 ? W8_I4
                                    : a->format->zero              ? W8_U4_ZERO
                                                                   : W8_U4 };
}

static const unsigned char *row_of(const struct w8_job *j, size_t m)
{
    return (const unsigned char *)j->a->prepared + m * j->x_stride;
}

static struct w8_tile tile_of(const struct w8_job *j, size_t m, size_t panel)
{
    return (struct w8_tile){ .x = row_of(j, m),
                             .x_stride = j->x_stride,
                             .w = (const unsigned char *)j->a->w + panel * j->map.panel_bytes,
                             .map = &j->map,
                             .kind = j->kind };
}

/* Sums of one unit and rows [m, m + rows), [rows][ZS], of raised codes -> y. */
static void finish_sums(const struct w8_job *j, size_t m, size_t rows, size_t u, int32_t *z)
{
    float *sums = (float *)(void *)z;

    for (size_t p = 0; p < j->per_unit; p++) {
        const float *scales = (const float *)(const void *)tile_of(j, m, u * j->per_unit + p).w;
        const vec w0 = v_load(scales), w1 = v_load(scales + VL);
        const unsigned char *x = row_of(j, m) + j->k;

        for (size_t r = 0; r < rows; r++, x += j->x_stride) {
            float *to = sums + r * ZS + p * P;
            int32_t sum;
            float scale;

            memcpy(&sum, x, sizeof(sum));
            memcpy(&scale, x + 4, sizeof(scale));
            const veci less = vi_set1(-RAISED * sum);
            const vec s = v_set1(scale);
            v_store(to, v_mul(v_mul(vi_to_float(vi_add(vi_load(to), less)), s), w0));
            v_store(to + VL, v_mul(v_mul(vi_to_float(vi_add(vi_load(to + VL), less)), s), w1));
        }
    }
    finish_rows(j->a, sums, ZS, m, rows, u);
}

/* All rows, at most FEW_ROWS. */
static void run_few(const struct w8_job *j, size_t begin, size_t end)
{
    _Alignas(64) int32_t z[FEW_ROWS * ZS];

    for (size_t u = begin; u < end; u++) {
        for (size_t p = 0; p < j->per_unit; p++) {
            const struct w8_tile t = tile_of(j, 0, u * j->per_unit + p);

            few[j->kind][j->a->m - 1](&t, z + p * P);
        }
        finish_sums(j, 0, j->a->m, u, z);
    }
}

/* Panels of units [us[0], us[1]) as bytes, one after the other. */
static void expand_units(const struct w8_job *j, const size_t us[2], bool flip, unsigned char *dst)
{
    for (size_t p = us[0] * j->per_unit; p < us[1] * j->per_unit; p++, dst += j->k * P) {
        const struct w8_tile t = tile_of(j, 0, p);

        expand_panel(&t, flip, j->k, dst);
    }
}

static void run(const struct ew_linear_args *a, size_t begin, size_t end, void *scratch)
{
    const struct w8_job j = job_make(a);
    const size_t n_tiles = (a->m + V_MR - 1) / V_MR, step = 2 / j.per_unit;
    _Alignas(64) int32_t z[V_MR * ZS];

    if (a->m <= FEW_ROWS) {
        run_few(&j, begin, end);
        return;
    }
    for (size_t u = begin; u < end; u += step) {
        const size_t us[2] = { u, end - u < step ? end : u + step };

        expand_units(&j, us, true, scratch);
        for (size_t i = 0; i < n_tiles; i++) {
            const size_t m0 = a->m * i / n_tiles, rows = a->m * (i + 1) / n_tiles - m0;
            const unsigned char *w = scratch;

            for (size_t at = us[0]; at < us[1]; at++) {
                for (size_t p = 0; p < j.per_unit; p++, w += j.k * P) {
                    /* the panel that comes to this place of scratch next */
                    const struct w8_next next = { tile_of(&j, 0, at * j.per_unit + p + 2).w,
                                                  i ? 0 : 64 };
                    many[rows - 1](row_of(&j, m0), j.x_stride, w, j.k, next, z + p * P);
                }
                finish_sums(&j, m0, rows, at, z);
            }
        }
    }
}

static size_t scratch_bytes(const struct ew_quant_format *f, size_t m, size_t n, size_t k)
{
    (void)f;
    (void)n;
    return m <= FEW_ROWS ? 0 : PANELS * P * whole_tiles(k) + 64;
}

/* ---- matrix tiles ---- */

#include "kernels/x86/linear_amx_rows.inc"

#define AMX_MIN_ROWS 13 /* below, the vector kernel is as fast: docs/perf-log.md */

static void run_amx(const struct ew_linear_args *a, size_t begin, size_t end, void *scratch)
{
    const struct w8_job j = job_make(a);
    const struct amx_rows rows = { .a = a,
                                   .x = row_of(&j, 0),
                                   .x_stride = j.x_stride,
                                   .x_scale = j.k + 4,
                                   .k_tiles = j.k / TILE_K,
                                   .scales = a->w,
                                   .scales_apart = j.map.panel_bytes };
    const size_t step = PANELS / j.per_unit;

    if (a->m < AMX_MIN_ROWS) {
        run(a, begin, end, scratch);
        return;
    }
    for (size_t u = begin; u < end; u += step) {
        const size_t us[2] = { u, end - u < step ? end : u + step };

        expand_units(&j, us, false, scratch);
        amx_rows_units(&rows, us, scratch, j.k * P);
    }
    amx_release();
}

static bool takes(const struct ew_quant_format *f, size_t k)
{
    return k > 0 && k <= MAX_K && ew_quant_format_ok(f) && f->group % CHUNK == 0 &&
           (f->code == EW_DTYPE_I4 || f->code == EW_DTYPE_U4);
}

#define W8_KERNEL(isa, need, run_fn)                                                               \
    extern const struct ew_linear_kernel ew_linear_q4w8__##isa;                                    \
    const struct ew_linear_kernel ew_linear_q4w8__##isa = {                                        \
        .name = "linear_q4w8__" #isa,                                                              \
        .cpu_need = need,                                                                          \
        .x_quant = EW_XQ_INT8_W8,                                                                  \
        .takes = takes,                                                                            \
        .panel = 2 * VL,                                                                           \
        .packed_bytes = packed_bytes,                                                              \
        .pack_scratch_bytes = pack_scratch_bytes,                                                  \
        .pack = pack,                                                                              \
        .unpack_row = unpack_row,                                                                  \
        .prepared_row_bytes = prepared_row_bytes,                                                  \
        .prepare = prepare,                                                                        \
        .n_units = n_units,                                                                        \
        .scratch_bytes = scratch_bytes,                                                            \
        .run = run_fn,                                                                             \
    };
#define VNNI_NEED (EW_CPU_AVX2 | EW_CPU_AVX512 | EW_CPU_AVX512VNNI)
W8_KERNEL(avx512vnni_p32, VNNI_NEED, run)
W8_KERNEL(amx_p32, (VNNI_NEED | EW_CPU_AMX), run_amx)
