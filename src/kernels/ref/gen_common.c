/* kernels/ref/gen_common.c - block loads and stores, broadcasting loops and strided copies of the
 * general operators (gen_common.h). No op lives here. */
#include "kernels/ref/gen_common.h"

#include <math.h>
#include <string.h>

#include "base/half.h"

enum ew_gen_class ew_gen_class_of(ew_dtype d)
{
    if (d == EW_DTYPE_F64)
        return EW_GEN_F64;
    if (d == EW_DTYPE_F32 || d == EW_DTYPE_F16 || d == EW_DTYPE_BF16 || ew_gen_is_mini(d))
        return EW_GEN_F32;
    switch (d) {
    case EW_DTYPE_I4:
    case EW_DTYPE_I8:
    case EW_DTYPE_I16:
    case EW_DTYPE_I32:
    case EW_DTYPE_I64:
        return EW_GEN_I64;
    default:
        return EW_GEN_U64;
    }
}

size_t ew_gen_class_bytes(enum ew_gen_class c)
{
    return c == EW_GEN_F32 ? 4 : 8;
}

static uint8_t nibble_get(const uint8_t *p, ptrdiff_t i)
{
    return (uint8_t)((p[i >> 1] >> ((i & 1) * 4)) & 15);
}

static void nibble_set(uint8_t *p, ptrdiff_t i, uint8_t v)
{
    const int shift = (int)(i & 1) * 4;

    p[i >> 1] = (uint8_t)((p[i >> 1] & ~(15 << shift)) | ((v & 15) << shift));
}

/* Truncation toward zero that saturates; NaN gives 0. */
static int64_t f64_to_i64(double v, double lo, double hi)
{
    if (!(v == v))
        return 0;
    if (v <= lo)
        return lo <= -0x1p63 ? INT64_MIN : (int64_t)lo;
    if (v >= hi)
        return hi >= 0x1p63 ? INT64_MAX : (int64_t)hi;
    return (int64_t)v;
}

static uint64_t f64_to_u64(double v)
{
    if (!(v > 0))
        return 0;
    return v >= 0x1p64 ? UINT64_MAX : (uint64_t)v;
}

/* Rounds to odd, so that a second rounding to fewer bits is as good as one. */
static float f64_to_f32_odd(double v)
{
    const float f = (float)v;
    uint32_t u = ew_f32_bits(f);

    if ((double)f == v || v != v || isinf(f))
        return f;
    if ((u & 1u) == 0)
        u = (fabs((double)f) > fabs(v)) ? u - 1 : u + 1;
    return ew_f32_from_bits(u);
}

/* ---- loads ---- */

#define LOAD_AS(dst_t, value)                                                                      \
    do {                                                                                           \
        dst_t *const o = dst;                                                                      \
        for (size_t i = 0; i < n; i++) {                                                           \
            const ptrdiff_t k = at + (ptrdiff_t)i * stride;                                        \
            o[i] = (dst_t)(value);                                                                 \
        }                                                                                          \
    } while (0)

#define LOAD_INT(src_t)                                                                            \
    do {                                                                                           \
        const src_t *const s = data;                                                               \
        if (c == EW_GEN_I64)                                                                       \
            LOAD_AS(int64_t, s[k]);                                                                \
        else if (c == EW_GEN_U64)                                                                  \
            LOAD_AS(uint64_t, s[k]);                                                               \
        else if (c == EW_GEN_F64)                                                                  \
            LOAD_AS(double, s[k]);                                                                 \
        else                                                                                       \
            LOAD_AS(float, s[k]);                                                                  \
    } while (0)

#define LOAD_FLOAT(src_t, value)                                                                   \
    do {                                                                                           \
        const src_t *const s = data;                                                               \
        if (c == EW_GEN_F64)                                                                       \
            LOAD_AS(double, value);                                                                \
        else                                                                                       \
            LOAD_AS(float, value);                                                                 \
    } while (0)

static void load_float(void *dst, enum ew_gen_class c, const void *data, ew_dtype d, ptrdiff_t at,
                       ptrdiff_t stride, size_t n)
{
    switch (d) {
    case EW_DTYPE_F32:
        LOAD_FLOAT(float, s[k]);
        return;
    case EW_DTYPE_F64:
        LOAD_FLOAT(double, s[k]);
        return;
    case EW_DTYPE_F16:
        LOAD_FLOAT(uint16_t, ew_f16_to_f32(s[k]));
        return;
    case EW_DTYPE_BF16:
        LOAD_FLOAT(uint16_t, ew_bf16_to_f32(s[k]));
        return;
    case EW_DTYPE_F4E2M1:
        LOAD_FLOAT(uint8_t, ew_gen_mini_decode(d, nibble_get(s, k)));
        return;
    default:
        LOAD_FLOAT(uint8_t, ew_gen_mini_decode(d, s[k]));
        return;
    }
}

static void load_nibble(void *dst, enum ew_gen_class c, const void *data, ew_dtype d, ptrdiff_t at,
                        ptrdiff_t stride, size_t n)
{
    const int flip = d == EW_DTYPE_I4 ? 8 : 0; /* (x ^ 8) - 8 extends the sign */

    for (size_t i = 0; i < n; i++) {
        const int v = (nibble_get(data, at + (ptrdiff_t)i * stride) ^ flip) - flip;

        if (c == EW_GEN_I64)
            ((int64_t *)dst)[i] = v;
        else if (c == EW_GEN_U64)
            ((uint64_t *)dst)[i] = (uint64_t)(int64_t)v;
        else if (c == EW_GEN_F64)
            ((double *)dst)[i] = v;
        else
            ((float *)dst)[i] = (float)v;
    }
}

void ew_gen_load(void *dst, enum ew_gen_class c, const void *data, ew_dtype d, ptrdiff_t at,
                 ptrdiff_t stride, size_t n)
{
    switch (d) {
    case EW_DTYPE_I8:
        LOAD_INT(int8_t);
        return;
    case EW_DTYPE_BOOL:
    case EW_DTYPE_U8:
        LOAD_INT(uint8_t);
        return;
    case EW_DTYPE_I16:
        LOAD_INT(int16_t);
        return;
    case EW_DTYPE_U16:
        LOAD_INT(uint16_t);
        return;
    case EW_DTYPE_I32:
        LOAD_INT(int32_t);
        return;
    case EW_DTYPE_U32:
        LOAD_INT(uint32_t);
        return;
    case EW_DTYPE_I64:
        LOAD_INT(int64_t);
        return;
    case EW_DTYPE_U64:
        LOAD_INT(uint64_t);
        return;
    case EW_DTYPE_I4:
    case EW_DTYPE_U4:
        load_nibble(dst, c, data, d, at, stride, n);
        return;
    default:
        if (stride == 1 && c == EW_GEN_F32 && (d == EW_DTYPE_F16 || d == EW_DTYPE_BF16))
            ew_convert_floats(dst, EW_DTYPE_F32, (const uint16_t *)data + at, d, n);
        else
            load_float(dst, c, data, d, at, stride, n);
        return;
    }
}

/* ---- stores ---- */

#define STORE_AS(dst_t, src_t, value)                                                              \
    do {                                                                                           \
        dst_t *const o = data;                                                                     \
        const src_t *const s = src;                                                                \
        for (size_t i = 0; i < n; i++) {                                                           \
            const src_t v = s[i];                                                                  \
            o[at + (ptrdiff_t)i * stride] = (dst_t)(value);                                        \
        }                                                                                          \
    } while (0)

#define STORE_INT(dst_t, lo, hi)                                                                   \
    do {                                                                                           \
        if (c == EW_GEN_I64 || c == EW_GEN_U64)                                                    \
            STORE_AS(dst_t, uint64_t, v);                                                          \
        else if (c == EW_GEN_F64)                                                                  \
            STORE_AS(dst_t, double, f64_to_i64(v, lo, hi));                                        \
        else                                                                                       \
            STORE_AS(dst_t, float, f64_to_i64(v, lo, hi));                                         \
    } while (0)

#define STORE_FLOAT(dst_t, from_f32, from_f64, from_i64, from_u64)                                 \
    do {                                                                                           \
        if (c == EW_GEN_F32)                                                                       \
            STORE_AS(dst_t, float, from_f32);                                                      \
        else if (c == EW_GEN_F64)                                                                  \
            STORE_AS(dst_t, double, from_f64);                                                     \
        else if (c == EW_GEN_I64)                                                                  \
            STORE_AS(dst_t, int64_t, from_i64);                                                    \
        else                                                                                       \
            STORE_AS(dst_t, uint64_t, from_u64);                                                   \
    } while (0)

static void store_float(void *data, ew_dtype d, ptrdiff_t at, ptrdiff_t stride, const void *src,
                        enum ew_gen_class c, size_t n)
{
    switch (d) {
    case EW_DTYPE_F32:
        STORE_FLOAT(float, v, v, v, v);
        return;
    case EW_DTYPE_F64:
        STORE_FLOAT(double, v, v, v, v);
        return;
    case EW_DTYPE_F16:
        STORE_FLOAT(uint16_t, ew_f32_to_f16(v), ew_f32_to_f16(f64_to_f32_odd(v)),
                    ew_f32_to_f16((float)v), ew_f32_to_f16((float)v));
        return;
    case EW_DTYPE_BF16:
        STORE_FLOAT(uint16_t, ew_f32_to_bf16(v), ew_f32_to_bf16(f64_to_f32_odd(v)),
                    ew_f32_to_bf16((float)v), ew_f32_to_bf16((float)v));
        return;
    default:
        STORE_FLOAT(uint8_t, ew_gen_mini_encode(d, v, true, EW_ROUND_UP),
                    ew_gen_mini_encode(d, v, true, EW_ROUND_UP),
                    ew_gen_mini_encode(d, (double)v, true, EW_ROUND_UP),
                    ew_gen_mini_encode(d, (double)v, true, EW_ROUND_UP));
        return;
    }
}

static void store_nibble(void *data, ew_dtype d, ptrdiff_t at, ptrdiff_t stride, const void *src,
                         enum ew_gen_class c, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const bool is_int = c == EW_GEN_I64 || c == EW_GEN_U64;
        uint64_t bits = is_int ? ((const uint64_t *)src)[i] : 0;

        if (!is_int) {
            const double v =
                c == EW_GEN_F64 ? ((const double *)src)[i] : (double)((const float *)src)[i];

            bits = d == EW_DTYPE_F4E2M1 ? ew_gen_mini_encode(d, v, true, EW_ROUND_UP)
                                        : (uint64_t)f64_to_i64(v, INT32_MIN, INT32_MAX);
        } else if (d == EW_DTYPE_F4E2M1) {
            const double v = c == EW_GEN_I64 ? (double)(int64_t)bits : (double)bits;

            bits = ew_gen_mini_encode(d, v, true, EW_ROUND_UP);
        }
        nibble_set(data, at + (ptrdiff_t)i * stride, (uint8_t)(bits & 15));
    }
}

static void store_u64(void *data, ptrdiff_t at, ptrdiff_t stride, const void *src,
                      enum ew_gen_class c, size_t n)
{
    if (c == EW_GEN_F64)
        STORE_AS(uint64_t, double, f64_to_u64(v));
    else if (c == EW_GEN_F32)
        STORE_AS(uint64_t, float, f64_to_u64(v));
    else
        STORE_AS(uint64_t, uint64_t, v);
}

static void store_bool(void *data, ptrdiff_t at, ptrdiff_t stride, const void *src,
                       enum ew_gen_class c, size_t n)
{
    if (c == EW_GEN_F64)
        STORE_AS(uint8_t, double, v != 0);
    else if (c == EW_GEN_F32)
        STORE_AS(uint8_t, float, v != 0);
    else
        STORE_AS(uint8_t, uint64_t, v != 0);
}

void ew_gen_store(void *data, ew_dtype d, ptrdiff_t at, ptrdiff_t stride, const void *src,
                  enum ew_gen_class c, size_t n)
{
    switch (d) {
    case EW_DTYPE_I8:
        STORE_INT(int8_t, INT32_MIN, INT32_MAX);
        return;
    case EW_DTYPE_U8:
        STORE_INT(uint8_t, INT32_MIN, INT32_MAX);
        return;
    case EW_DTYPE_I16:
        STORE_INT(int16_t, INT32_MIN, INT32_MAX);
        return;
    case EW_DTYPE_U16:
        STORE_INT(uint16_t, INT32_MIN, INT32_MAX);
        return;
    case EW_DTYPE_I32:
        STORE_INT(int32_t, INT32_MIN, INT32_MAX);
        return;
    case EW_DTYPE_U32:
        STORE_INT(uint32_t, 0, UINT32_MAX);
        return;
    case EW_DTYPE_I64:
        STORE_INT(int64_t, -0x1p63, 0x1p63);
        return;
    case EW_DTYPE_U64:
        store_u64(data, at, stride, src, c, n);
        return;
    case EW_DTYPE_BOOL:
        store_bool(data, at, stride, src, c, n);
        return;
    case EW_DTYPE_I4:
    case EW_DTYPE_U4:
    case EW_DTYPE_F4E2M1:
        store_nibble(data, d, at, stride, src, c, n);
        return;
    default:
        if (stride == 1 && c == EW_GEN_F32 && (d == EW_DTYPE_F16 || d == EW_DTYPE_BF16))
            ew_convert_floats((uint16_t *)data + at, d, src, EW_DTYPE_F32, n);
        else
            store_float(data, d, at, stride, src, c, n);
        return;
    }
}

void *ew_gen_direct(void *data, ew_dtype d, enum ew_gen_class c, ptrdiff_t at)
{
    const bool same =
        (d == EW_DTYPE_F32 && c == EW_GEN_F32) || (d == EW_DTYPE_F64 && c == EW_GEN_F64) ||
        (d == EW_DTYPE_I64 && c == EW_GEN_I64) || (d == EW_DTYPE_U64 && c == EW_GEN_U64);

    if (!same)
        return NULL;
    return (char *)data + at * (ptrdiff_t)ew_gen_class_bytes(c);
}

/* ---- loops ---- */

static bool can_merge(const struct ew_gen_loop *l, int a, int64_t dim,
                      const ptrdiff_t (*stride)[EW_GEN_MAX_DIMS], int d)
{
    for (int k = 0; k < l->n_ops; k++)
        if (l->stride[k][a] != stride[k][d] * dim)
            return false;
    return true;
}

void ew_gen_loop_init(struct ew_gen_loop *l, int n_ops, int n_dims, const int64_t *dim,
                      const ptrdiff_t (*stride)[EW_GEN_MAX_DIMS])
{
    memset(l, 0, sizeof(*l));
    l->n_ops = n_ops;
    for (int d = 0; d < n_dims; d++) {
        const int last = l->n_dims - 1;

        l->empty = l->empty || dim[d] == 0;
        if (dim[d] == 1)
            continue;
        if (last >= 0 && can_merge(l, last, dim[d], stride, d)) {
            l->dim[last] *= dim[d];
            for (int k = 0; k < n_ops; k++)
                l->stride[k][last] = stride[k][d];
            continue;
        }
        l->dim[l->n_dims] = dim[d];
        for (int k = 0; k < n_ops; k++)
            l->stride[k][l->n_dims] = stride[k][d];
        l->n_dims++;
    }
    l->inner = 1;
    for (int k = 0; k < n_ops; k++)
        l->step[k] = 1;
    if (l->n_dims > 0) {
        l->n_dims--;
        l->inner = (size_t)l->dim[l->n_dims];
        for (int k = 0; k < n_ops; k++)
            l->step[k] = l->stride[k][l->n_dims];
    }
}

bool ew_gen_loop_init_broadcast(struct ew_gen_loop *l, const struct ew_type *out, int n_types,
                                const struct ew_type *const *types)
{
    ptrdiff_t stride[EW_GEN_MAX_OPS][EW_GEN_MAX_DIMS] = { { 0 } };

    ew_gen_strides(out->n_dims, out->dim, stride[0]);
    for (int k = 0; k < n_types; k++) {
        const struct ew_type *const t = types[k];
        const int shift = out->n_dims - t->n_dims;
        ptrdiff_t own[EW_GEN_MAX_DIMS];

        if (shift < 0)
            return false;
        ew_gen_strides(t->n_dims, t->dim, own);
        for (int d = 0; d < t->n_dims; d++) {
            if (t->dim[d] != 1 && t->dim[d] != out->dim[d + shift])
                return false;
            stride[k + 1][d + shift] = t->dim[d] == 1 ? 0 : own[d];
        }
    }
    ew_gen_loop_init(l, n_types + 1, out->n_dims, out->dim,
                     (const ptrdiff_t(*)[EW_GEN_MAX_DIMS])stride);
    return true;
}

bool ew_gen_loop_next(struct ew_gen_loop *l)
{
    for (int d = l->n_dims - 1; d >= 0; d--) {
        if (++l->index[d] < l->dim[d]) {
            for (int k = 0; k < l->n_ops; k++)
                l->at[k] += l->stride[k][d];
            return true;
        }
        l->index[d] = 0;
        for (int k = 0; k < l->n_ops; k++)
            l->at[k] -= l->stride[k][d] * (l->dim[d] - 1);
    }
    return false;
}

/* ---- copies ---- */

void ew_gen_strides(int n_dims, const int64_t *dim, ptrdiff_t *stride)
{
    ptrdiff_t at = 1;

    for (int d = n_dims - 1; d >= 0; d--) {
        stride[d] = at;
        at *= dim[d];
    }
}

void ew_gen_copy_flat(void *dst, ptrdiff_t dst_at, const void *src, ptrdiff_t src_at, size_t n,
                      ew_dtype dtype)
{
    const size_t bytes = ew_dtype_bits(dtype) / 8;

    if (n == 0)
        return;
    if (bytes > 0) {
        memcpy((char *)dst + dst_at * (ptrdiff_t)bytes,
               (const char *)src + src_at * (ptrdiff_t)bytes, n * bytes);
        return;
    }
    if (((dst_at | src_at) & 1) == 0) {
        memcpy((char *)dst + dst_at / 2, (const char *)src + src_at / 2, n / 2);
        if (n & 1)
            nibble_set(dst, dst_at + (ptrdiff_t)n - 1, nibble_get(src, src_at + (ptrdiff_t)n - 1));
        return;
    }
    for (ptrdiff_t i = 0; i < (ptrdiff_t)n; i++)
        nibble_set(dst, dst_at + i, nibble_get(src, src_at + i));
}

#define COPY_STEP(type)                                                                            \
    do {                                                                                           \
        type *const o = (type *)dst + dst_at;                                                      \
        const type *const s = (const type *)src + src_at;                                          \
        for (ptrdiff_t i = 0; i < (ptrdiff_t)n; i++)                                               \
            o[i * dst_step] = s[i * src_step];                                                     \
    } while (0)

void ew_gen_copy_step(void *dst, ptrdiff_t dst_at, ptrdiff_t dst_step, const void *src,
                      ptrdiff_t src_at, ptrdiff_t src_step, size_t n, ew_dtype dtype)
{
    if (n == 0)
        return;
    if (dst_step == 1 && src_step == 1) {
        ew_gen_copy_flat(dst, dst_at, src, src_at, n, dtype);
        return;
    }
    switch (ew_dtype_bits(dtype)) {
    case 8:
        COPY_STEP(uint8_t);
        return;
    case 16:
        COPY_STEP(uint16_t);
        return;
    case 32:
        COPY_STEP(uint32_t);
        return;
    case 64:
        COPY_STEP(uint64_t);
        return;
    default:
        for (ptrdiff_t i = 0; i < (ptrdiff_t)n; i++)
            nibble_set(dst, dst_at + i * dst_step, nibble_get(src, src_at + i * src_step));
        return;
    }
}

void ew_gen_copy_run(const struct ew_gen_copy *c, void *dst, ptrdiff_t dst_at, const void *src,
                     ptrdiff_t src_at, ew_dtype dtype)
{
    ptrdiff_t stride[2][EW_GEN_MAX_DIMS];
    struct ew_gen_loop l;

    memcpy(stride[0], c->dst_stride, sizeof(stride[0]));
    memcpy(stride[1], c->src_stride, sizeof(stride[1]));
    ew_gen_loop_init(&l, 2, c->n_dims, c->dim, (const ptrdiff_t(*)[EW_GEN_MAX_DIMS])stride);
    for (bool more = !l.empty; more; more = ew_gen_loop_next(&l))
        ew_gen_copy_step(dst, dst_at + l.at[0], l.step[0], src, src_at + l.at[1], l.step[1],
                         l.inner, dtype);
}

/* ---- small things ---- */

size_t ew_gen_count(const struct ew_type *t)
{
    return (size_t)ew_gen_product(t, 0, t->n_dims);
}

int64_t ew_gen_product(const struct ew_type *t, int begin, int end)
{
    int64_t n = 1;

    for (int d = begin; d < end; d++)
        n *= t->dim[d];
    return n;
}

void ew_gen_clear_spare(struct ew_view *y)
{
    const size_t n = ew_gen_count(&y->type);

    if (ew_dtype_bits(y->type.dtype) == 4 && (n & 1))
        ((uint8_t *)y->data)[n / 2] = 0;
}

int64_t ew_gen_int_at(const struct ew_view *v, size_t i)
{
    int64_t value = 0;

    ew_gen_load(&value, EW_GEN_I64, v->data, v->type.dtype, (ptrdiff_t)i, 1, 1);
    return value;
}

int ew_gen_axis(int64_t axis, int rank)
{
    return (int)(axis < 0 ? axis + rank : axis);
}

ew_status ew_gen_refuse(const struct ew_general_args *a, ew_dtype d)
{
    return ew_fail(a->err, EW_STATUS_UNSUPPORTED, "%s: no kernel for dtype %s",
                   ew_op_get(a->op)->name, ew_dtype_text(d));
}
