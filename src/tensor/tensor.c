/* tensor/tensor.c - types, sizes and element access. */
#include "tensor/tensor.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/half.h"
#include "base/size.h"

struct ew_type ew_type_make(ew_dtype dtype, int n_dims, const int64_t *dims)
{
    struct ew_type t = { .dtype = dtype, .n_dims = n_dims };

    for (int i = 0; i < n_dims && i < EW_MAX_DIMS; i++)
        t.dim[i] = dims[i];
    return t;
}

bool ew_type_is_concrete(const struct ew_type *t)
{
    for (int i = 0; i < t->n_dims; i++)
        if (t->dim[i] < 0)
            return false;
    return true;
}

/* A product with a zero in it is zero, however large the other dims: overflow is judged on the
 * non-zero ones too, so that [0, 2^62, 2^62] is refused like its neighbours. */
bool ew_type_count(const struct ew_type *t, size_t *n)
{
    size_t count = 1;
    bool empty = false;

    for (int i = 0; i < t->n_dims; i++) {
        if (t->dim[i] < 0)
            return false;
        if (t->dim[i] == 0)
            empty = true;
        else if (!ew_size_mul(count, (size_t)t->dim[i], &count))
            return false;
    }
    if (count > (size_t)INT64_MAX)
        return false;
    *n = empty ? 0 : count;
    return true;
}

bool ew_type_bytes(const struct ew_type *t, size_t *bytes)
{
    const size_t bits = ew_dtype_bits(t->dtype);
    size_t n, total;

    if (!ew_type_count(t, &n) || !ew_size_mul(n, bits, &total) || !ew_size_add(total, 7, &total))
        return false;
    *bytes = total / 8;
    return true;
}

bool ew_type_equal(const struct ew_type *a, const struct ew_type *b)
{
    if (a->dtype != b->dtype || a->n_dims != b->n_dims)
        return false;
    for (int i = 0; i < a->n_dims; i++)
        if (a->dim[i] != b->dim[i])
            return false;
    return true;
}

void ew_type_text(const struct ew_type *t, char *out, size_t cap)
{
    size_t len = (size_t)snprintf(out, cap, "%s[", ew_dtype_text(t->dtype));

    for (int i = 0; i < t->n_dims && len < cap; i++) {
        const char *const comma = i ? "," : "";
        if (t->dim[i] < 0)
            len += (size_t)snprintf(out + len, cap - len, "%s?", comma);
        else
            len += (size_t)snprintf(out + len, cap - len, "%s%lld", comma, (long long)t->dim[i]);
    }
    if (len < cap)
        snprintf(out + len, cap - len, "]");
}

bool ew_dtype_is_float(ew_dtype d)
{
    switch (d) {
    case EW_DTYPE_F32:
    case EW_DTYPE_F16:
    case EW_DTYPE_BF16:
    case EW_DTYPE_F64:
    case EW_DTYPE_F8E4M3:
    case EW_DTYPE_F8E5M2:
    case EW_DTYPE_F4E2M1:
    case EW_DTYPE_F8E8M0:
    case EW_DTYPE_F8E4M3FNUZ:
    case EW_DTYPE_F8E5M2FNUZ:
        return true;
    default:
        return false;
    }
}

bool ew_dtype_is_int(ew_dtype d)
{
    return d != EW_DTYPE_NONE && d != EW_DTYPE_BOOL && d < EW_DTYPE_COUNT && !ew_dtype_is_float(d);
}

bool ew_dtype_is_signed(ew_dtype d)
{
    return ew_dtype_is_float(d) || d == EW_DTYPE_I8 || d == EW_DTYPE_I16 || d == EW_DTYPE_I32 ||
           d == EW_DTYPE_I64 || d == EW_DTYPE_I4;
}

static unsigned nibble_get(const void *data, size_t i)
{
    return (((const uint8_t *)data)[i / 2] >> (i % 2 * 4)) & 0xfu;
}

static void nibble_set(void *data, size_t i, unsigned v)
{
    uint8_t *const p = (uint8_t *)data + i / 2;
    const unsigned shift = (unsigned)(i % 2) * 4;

    *p = (uint8_t)((*p & ~(0xfu << shift)) | (v & 0xfu) << shift);
}

static const float e2m1_values[8] = { 0.0f, 0.5f, 1.0f, 1.5f, 2.0f, 3.0f, 4.0f, 6.0f };

/* fnuz: bias one larger, no inf, no -0; 0x80 is NaN. */
static double fnuz_get(uint8_t b, int man_bits, int bias)
{
    const int man = b & ((1 << man_bits) - 1);
    const int exp = (b & 0x7f) >> man_bits;
    double mag;

    if (b == 0x80)
        return (double)NAN;
    mag = exp ? ldexp((double)((1 << man_bits) + man), exp - bias - man_bits)
              : ldexp((double)man, 1 - bias - man_bits);
    return b & 0x80 ? -mag : mag;
}

static uint8_t e2m1_from(double v)
{
    const double mag = fabs(v);
    unsigned code = 0;

    /* halfway points go to the even code */
    static const double mid[7] = { 0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0 };
    for (unsigned i = 0; i < 7; i++)
        if (mag > mid[i] || (mag == mid[i] && (i & 1u)))
            code = i + 1;
    if (isnan(v))
        code = 7; /* no NaN in e2m1: ONNX saturates */
    return (uint8_t)(code | (signbit(v) ? 8u : 0u));
}

static uint8_t fnuz_from(double v, int man_bits, int bias, int max_code)
{
    int exp;
    const double mag = fabs(v);

    if (isnan(v))
        return 0x80;
    if (mag == 0)
        return 0;
    uint32_t code;
    if (isinf(v)) {
        code = (uint32_t)max_code;
    } else {
        frexp(mag, &exp); /* mag = f * 2^exp, f in [0.5, 1) */
        const int e = exp - 1 + bias > 1 ? exp - 1 + bias : 1;
        const double units = nearbyint(ldexp(mag, bias - e + man_bits));
        code = (uint32_t)((e - 1) << man_bits) + (uint32_t)units;
        if (code > (uint32_t)max_code)
            code = (uint32_t)max_code;
    }
    return (uint8_t)(code == 0 ? 0 : code | (v < 0 ? 0x80u : 0u));
}

static double float_get(const void *data, ew_dtype d, size_t i)
{
    switch (d) {
    case EW_DTYPE_F32:
        return (double)((const float *)data)[i];
    case EW_DTYPE_F64:
        return ((const double *)data)[i];
    case EW_DTYPE_F16:
        return (double)ew_f16_to_f32(((const uint16_t *)data)[i]);
    case EW_DTYPE_BF16:
        return (double)ew_bf16_to_f32(((const uint16_t *)data)[i]);
    case EW_DTYPE_F8E4M3:
        return (double)ew_f8e4m3_to_f32(((const uint8_t *)data)[i]);
    case EW_DTYPE_F8E5M2:
        return (double)ew_f8e5m2_to_f32(((const uint8_t *)data)[i]);
    case EW_DTYPE_F8E4M3FNUZ:
        return fnuz_get(((const uint8_t *)data)[i], 3, 8);
    case EW_DTYPE_F8E5M2FNUZ:
        return fnuz_get(((const uint8_t *)data)[i], 2, 16);
    case EW_DTYPE_F8E8M0: {
        const uint8_t b = ((const uint8_t *)data)[i];
        return b == 255 ? (double)NAN : ldexp(1.0, (int)b - 127);
    }
    default: {
        const unsigned n = nibble_get(data, i);
        const double mag = (double)e2m1_values[n & 7u];
        return n & 8u ? -mag : mag;
    }
    }
}

static int64_t int_get(const void *data, ew_dtype d, size_t i)
{
    switch (d) {
    case EW_DTYPE_I8:
        return ((const int8_t *)data)[i];
    case EW_DTYPE_U8:
        return ((const uint8_t *)data)[i];
    case EW_DTYPE_BOOL:
        return ((const uint8_t *)data)[i] != 0;
    case EW_DTYPE_I16:
        return ((const int16_t *)data)[i];
    case EW_DTYPE_U16:
        return ((const uint16_t *)data)[i];
    case EW_DTYPE_I32:
        return ((const int32_t *)data)[i];
    case EW_DTYPE_U32:
        return ((const uint32_t *)data)[i];
    case EW_DTYPE_I64:
        return ((const int64_t *)data)[i];
    case EW_DTYPE_U64:
        return (int64_t)((const uint64_t *)data)[i];
    case EW_DTYPE_I4:
        return (int64_t)(nibble_get(data, i) ^ 8u) - 8;
    case EW_DTYPE_U4:
        return (int64_t)nibble_get(data, i);
    default:
        return 0;
    }
}

double ew_elem_get_f64(const void *data, ew_dtype d, size_t i)
{
    if (ew_dtype_is_float(d))
        return float_get(data, d, i);
    if (d == EW_DTYPE_U64)
        return (double)((const uint64_t *)data)[i];
    return (double)int_get(data, d, i);
}

static int64_t truncate_f64(double v)
{
    if (isnan(v))
        return 0;
    if (v >= 0x1p63)
        return INT64_MAX;
    return v <= -0x1p63 ? INT64_MIN : (int64_t)v;
}

int64_t ew_elem_get_i64(const void *data, ew_dtype d, size_t i)
{
    return ew_dtype_is_float(d) ? truncate_f64(float_get(data, d, i)) : int_get(data, d, i);
}

/* f64 -> short floats go through f32 rounded to odd, so that two roundings equal one. */
static float f64_to_f32_odd(double v)
{
    float f = (float)v;

    if (isnan(v) || isinf(f) || (double)f == v)
        return f;
    if (fabs((double)f) > fabs(v))
        f = nextafterf(f, 0.0f);
    return ew_f32_from_bits(ew_f32_bits(f) | 1u);
}

static void float_set(void *data, ew_dtype d, size_t i, double v)
{
    switch (d) {
    case EW_DTYPE_F32:
        ((float *)data)[i] = (float)v;
        return;
    case EW_DTYPE_F64:
        ((double *)data)[i] = v;
        return;
    case EW_DTYPE_F16:
        ((uint16_t *)data)[i] = ew_f32_to_f16(f64_to_f32_odd(v));
        return;
    case EW_DTYPE_BF16:
        ((uint16_t *)data)[i] = ew_f32_to_bf16(f64_to_f32_odd(v));
        return;
    case EW_DTYPE_F8E4M3:
        ((uint8_t *)data)[i] = ew_f32_to_f8e4m3(f64_to_f32_odd(v), 1);
        return;
    case EW_DTYPE_F8E5M2:
        ((uint8_t *)data)[i] = ew_f32_to_f8e5m2(f64_to_f32_odd(v), 1);
        return;
    case EW_DTYPE_F8E4M3FNUZ:
        ((uint8_t *)data)[i] = fnuz_from(v, 3, 8, 0x7f);
        return;
    case EW_DTYPE_F8E5M2FNUZ:
        ((uint8_t *)data)[i] = fnuz_from(v, 2, 16, 0x7f);
        return;
    case EW_DTYPE_F8E8M0: {
        int exp;
        const double f = frexp(v, &exp); /* 2^(exp-1) <= v; nearest, ties up */
        const int e = exp - 1 + (f >= 0.75) + 127;
        ((uint8_t *)data)[i] = (uint8_t)(isnan(v) || v < 0 ? 255
                                         : v == 0 || e < 0 ? 0
                                         : e > 254         ? 254
                                                           : e);
        return;
    }
    default:
        nibble_set(data, i, e2m1_from(v));
        return;
    }
}

static void int_set(void *data, ew_dtype d, size_t i, int64_t v)
{
    switch (d) {
    case EW_DTYPE_I8:
    case EW_DTYPE_U8:
        ((uint8_t *)data)[i] = (uint8_t)v;
        return;
    case EW_DTYPE_BOOL:
        ((uint8_t *)data)[i] = v != 0;
        return;
    case EW_DTYPE_I16:
    case EW_DTYPE_U16:
        ((uint16_t *)data)[i] = (uint16_t)v;
        return;
    case EW_DTYPE_I32:
    case EW_DTYPE_U32:
        ((uint32_t *)data)[i] = (uint32_t)v;
        return;
    case EW_DTYPE_I64:
    case EW_DTYPE_U64:
        ((uint64_t *)data)[i] = (uint64_t)v;
        return;
    case EW_DTYPE_I4:
    case EW_DTYPE_U4:
        nibble_set(data, i, (unsigned)v & 0xfu);
        return;
    default:
        return;
    }
}

void ew_elem_set_f64(void *data, ew_dtype d, size_t i, double v)
{
    if (ew_dtype_is_float(d))
        float_set(data, d, i, v);
    else if (d == EW_DTYPE_BOOL)
        ((uint8_t *)data)[i] = v != 0 || isnan(v);
    else if (d == EW_DTYPE_U64 && v >= 0x1p63)
        ((uint64_t *)data)[i] = v >= 0x1p64 ? UINT64_MAX : (uint64_t)v;
    else
        int_set(data, d, i, truncate_f64(v));
}

void ew_elem_set_i64(void *data, ew_dtype d, size_t i, int64_t v)
{
    if (ew_dtype_is_float(d))
        float_set(data, d, i, (double)v);
    else
        int_set(data, d, i, v);
}

void ew_convert_floats(void *dst, ew_dtype dst_dtype, const void *src, ew_dtype src_dtype, size_t n)
{
    size_t bytes;
    const struct ew_type t = { .dtype = dst_dtype, .n_dims = 1, .dim = { (int64_t)n } };

    if (dst_dtype == src_dtype) {
        if (ew_type_bytes(&t, &bytes) && bytes)
            memcpy(dst, src, bytes);
        return;
    }
    if (dst_dtype == EW_DTYPE_F32 && src_dtype == EW_DTYPE_BF16) {
        for (size_t i = 0; i < n; i++)
            ((float *)dst)[i] = ew_bf16_to_f32(((const uint16_t *)src)[i]);
        return;
    }
    if (dst_dtype == EW_DTYPE_F32 && src_dtype == EW_DTYPE_F16) {
        for (size_t i = 0; i < n; i++)
            ((float *)dst)[i] = ew_f16_to_f32(((const uint16_t *)src)[i]);
        return;
    }
    for (size_t i = 0; i < n; i++)
        ew_elem_set_f64(dst, dst_dtype, i, ew_elem_get_f64(src, src_dtype, i));
}
