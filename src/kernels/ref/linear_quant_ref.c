/* kernels/ref/linear_quant_ref.c - the judge of quantised linear kernels: any format, x as it is,
 * sums in double. Clear, not fast; compact, so that it also keeps tables that are only looked up.
 *
 * Packed row: row_scale f32 | scales [groups] in the format's dtype | zeros i16 [groups] | codes,
 * 4-bit ones two a byte, low nibble first. Rows are multiples of 4 bytes, in the order of the
 * parts. */
#include <math.h>
#include <string.h>

#include "kernels/linear.h"
#include "kernels/linear_pack.h"
#include "kernels/ref/linear_act.h"
#include "tensor/tensor.h"

struct layout {
    size_t groups, scales, zeros, codes, bytes; /* offsets in a row, and its size */
};

static struct layout layout_of(const struct ew_quant_format *f, size_t k)
{
    struct layout l = { .groups = ew_quant_groups(f, k), .scales = 4 };

    l.zeros = l.scales;
    if (f->scale != EW_DTYPE_NONE)
        l.zeros += l.groups * (ew_dtype_bits(f->scale) / 8);
    l.zeros = (l.zeros + 1) & ~(size_t)1;
    l.codes = l.zeros + (f->zero ? 2 * l.groups : 0);
    l.bytes = (l.codes + (k * ew_quant_code_bits(f->code) + 7) / 8 + 3) & ~(size_t)3;
    return l;
}

static bool takes(const struct ew_quant_format *f, size_t k)
{
    return ew_quant_format_ok(f) && k > 0;
}

static size_t packed_bytes(const struct ew_quant_format *f, size_t n, size_t k, bool glu)
{
    (void)glu;
    return n * layout_of(f, k).bytes;
}

static size_t pack_scratch_bytes(const struct ew_quant_format *f, size_t k)
{
    return ew_quant_rows_bytes(f, 1, k);
}

static void pack_row(uint8_t *dst, const struct ew_pack_args *a, size_t row)
{
    const struct ew_quant_format *f = a->format;
    const struct layout l = layout_of(f, a->k);
    const struct ew_quant_rows r = ew_quant_rows_carve(f, 1, a->k, a->scratch);

    ew_weight_parts_read(a, row, 1, &r);
    memset(dst, 0, l.bytes);
    memcpy(dst, r.row_scale, 4);
    for (size_t g = 0; g < l.groups && f->scale != EW_DTYPE_NONE; g++) {
        uint32_t elem = 0;
        const size_t bytes = ew_dtype_bits(f->scale) / 8;

        ew_elem_set_f64(&elem, f->scale, 0, (double)r.scales[g]);
        memcpy(dst + l.scales + g * bytes, &elem, bytes);
    }
    if (f->zero)
        memcpy(dst + l.zeros, r.zeros, 2 * l.groups);
    if (ew_quant_code_bits(f->code) == 8) {
        memcpy(dst + l.codes, r.codes, a->k);
        return;
    }
    for (size_t i = 0; i < a->k; i++)
        dst[l.codes + i / 2] |= (uint8_t)((r.codes[i] & 0xfu) << (i % 2 * 4));
}

static void pack(void *dst, const struct ew_pack_args *a, size_t begin, size_t end)
{
    const size_t bytes = layout_of(a->format, a->k).bytes;

    for (size_t u = begin; u < end; u++) {
        pack_row((uint8_t *)dst + u * bytes * (a->glu ? 2 : 1), a, u);
        if (a->glu)
            pack_row((uint8_t *)dst + (2 * u + 1) * bytes, a, a->n / 2 + u);
    }
}

/* Value of column i of a packed row. */
static double value_at(const struct ew_quant_format *f, const struct layout *l, const uint8_t *row,
                       size_t i)
{
    const size_t g = f->group ? i / f->group : 0;
    double scale = 1.0, zero = 0.0;
    float row_scale;
    int16_t z;
    uint8_t code;

    memcpy(&row_scale, row, 4);
    if (f->scale != EW_DTYPE_NONE) {
        const size_t bytes = ew_dtype_bits(f->scale) / 8;
        uint32_t elem = 0;

        memcpy(&elem, row + l->scales + g * bytes, bytes);
        scale = ew_elem_get_f64(&elem, f->scale, 0);
    }
    if (f->zero) {
        memcpy(&z, row + l->zeros + 2 * g, 2);
        zero = z;
    }
    if (ew_quant_code_bits(f->code) == 8) {
        code = row[l->codes + i];
    } else {
        code = (uint8_t)(row[l->codes + i / 2] >> (i % 2 * 4) & 0xfu);
        if (f->code == EW_DTYPE_I4)
            code = (uint8_t)((code ^ 8u) - 8u);
    }
    return ((double)ew_quant_code(f->code, code) - zero) * scale * (double)row_scale;
}

/* Where row n of W lies: gate and up rows of a glu weight are neighbours. */
static const uint8_t *row_at(const struct ew_linear_args *a, size_t bytes, size_t n)
{
    const size_t half = a->n / 2;
    const size_t at = !a->glu ? n : n < half ? 2 * n : 2 * (n - half) + 1;

    return (const uint8_t *)a->w + at * bytes;
}

static void unpack_row(float *dst, const void *packed, const struct ew_quant_format *f, size_t n,
                       size_t k, size_t row)
{
    const struct layout l = layout_of(f, k);

    (void)n;
    for (size_t i = 0; i < k; i++)
        dst[i] = (float)value_at(f, &l, (const uint8_t *)packed + row * l.bytes, i);
}

static double dot_row(const struct ew_linear_args *a, const struct layout *l, const float *x,
                      size_t n)
{
    const uint8_t *row = row_at(a, l->bytes, n);
    double z = 0;

    for (size_t i = 0; i < a->k; i++)
        z += (double)x[i] * value_at(a->format, l, row, i);
    return ew_ref_finish(a, z, n);
}

static void run(const struct ew_linear_args *a, size_t begin, size_t end, void *scratch)
{
    const struct layout l = layout_of(a->format, a->k);

    (void)scratch;
    for (size_t m = 0; m < a->m; m++) {
        const float *x = a->x + m * a->x_stride;

        for (size_t n = begin; n < end; n++) {
            double y = ew_ref_act(a->act, dot_row(a, &l, x, n));

            if (a->glu)
                y *= dot_row(a, &l, x, n + a->n / 2);
            if (a->residual)
                y += (double)a->residual[m * a->residual_stride + n];
            a->y[m * a->y_stride + n] = (float)y;
        }
    }
}

extern const struct ew_linear_kernel ew_linear_quant__ref;
const struct ew_linear_kernel ew_linear_quant__ref = {
    .name = "linear_quant__ref",
    .takes = takes,
    .panel = 1,
    .packed_bytes = packed_bytes,
    .pack_scratch_bytes = pack_scratch_bytes,
    .pack = pack,
    .unpack_row = unpack_row,
    .n_units = ew_ref_units,
    .scratch_bytes = ew_ref_no_scratch,
    .run = run,
};
