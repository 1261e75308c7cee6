/* kernels/cuda/linear_layout.c - packing weights for a GPU and reading rows back
 * (kernels/cuda/linear.h draws the layouts). Owns no arithmetic of products. */
#include <string.h>

#include "base/half.h"
#include "kernels/cuda/linear.h"
#include "kernels/linear_pack.h"
#include "tensor/tensor.h"

#define PANEL 16u

/* Plain: rows as they are. */

static size_t elem_bytes(ew_dtype d)
{
    return d == EW_DTYPE_F32 ? 4 : 2;
}

static size_t plain_row_bytes(ew_dtype d, size_t k)
{
    return (k * elem_bytes(d) + 15) & ~(size_t)15;
}

static void pack_plain_row(unsigned char *dst, const struct ew_pack_args *a, ew_dtype d, size_t row)
{
    const size_t bytes = elem_bytes(d);
    ptrdiff_t col_bytes;
    const unsigned char *src = ew_weight_parts_row(a->parts, a->n_parts, row, bytes, &col_bytes);
    unsigned char *at = dst + row * plain_row_bytes(d, a->k);

    memset(at + a->k * bytes, 0, plain_row_bytes(d, a->k) - a->k * bytes);
    if (!src)
        memset(at, 0, a->k * bytes);
    else if (col_bytes == (ptrdiff_t)bytes)
        memcpy(at, src, a->k * bytes);
    else
        for (size_t i = 0; i < a->k; i++)
            memcpy(at + i * bytes, src + (ptrdiff_t)i * col_bytes, bytes);
}

static void pack_plain(void *dst, const struct ew_pack_args *a, ew_dtype d, size_t begin,
                       size_t end)
{
    for (size_t u = begin; u < end; u++)
        pack_plain_row(dst, a, d, u);
}

static void unpack_plain(float *dst, const void *packed, ew_dtype d, size_t k, size_t row)
{
    const unsigned char *at = (const unsigned char *)packed + row * plain_row_bytes(d, k);

    for (size_t i = 0; i < k; i++) {
        uint16_t h;

        if (d == EW_DTYPE_F32) {
            memcpy(&dst[i], at + 4 * i, 4);
            continue;
        }
        memcpy(&h, at + 2 * i, 2);
        dst[i] = d == EW_DTYPE_BF16 ? ew_bf16_to_f32(h) : ew_f16_to_f32(h);
    }
}

/* A row, also of gate and up: builders pack ranges of units that lie side by side. */
static size_t plain_units(size_t n, bool glu)
{
    (void)glu;
    return n;
}

static size_t no_scratch(const struct ew_quant_format *f, size_t m, size_t n, size_t k)
{
    (void)f;
    (void)m;
    (void)n;
    (void)k;
    return 0;
}

/* Quantised: panels of 16 rows. */

static size_t round16(size_t bytes)
{
    return (bytes + 15) & ~(size_t)15;
}

struct ew_cuda_panel ew_cuda_panel_of(const struct ew_quant_format *f, size_t k)
{
    const bool wide = ew_quant_code_bits(f->code) == 8;
    const size_t groups = ew_quant_groups(f, k);
    struct ew_cuda_panel p = { .block_cols = wide ? 32 : 64, .sub = 1 };
    size_t scale_bytes = 0, zero_bytes = 0;

    p.k_blocks = (k + p.block_cols - 1) / p.block_cols;
    if (groups > 1 && f->group < p.block_cols) {
        p.sub = p.block_cols / f->group;
        p.units = p.k_blocks;
    } else if (groups > 1 || f->zero) {
        p.units = groups;
    }
    if (groups > 1 && f->scale != EW_DTYPE_NONE)
        scale_bytes = p.units * PANEL * p.sub * (ew_dtype_bits(f->scale) / 8);
    if (f->zero)
        zero_bytes = p.units * PANEL * p.sub * (wide ? 2 : 1);
    p.scales_at = p.k_blocks * 512;
    p.zeros_at = p.scales_at + round16(scale_bytes);
    p.row_scales_at = p.zeros_at + round16(zero_bytes);
    p.bytes = (p.row_scales_at + PANEL * 4 + 127) & ~(size_t)127;
    return p;
}

static bool takes(const struct ew_quant_format *f, size_t k, unsigned bits)
{
    const size_t block = bits == 8 ? 32 : 64;

    if (!ew_quant_format_ok(f) || k == 0 || k > UINT32_MAX / 2 ||
        ew_quant_code_bits(f->code) != bits)
        return false;
    if (f->group == 0 || f->group >= k)
        return true;
    if (f->scale == EW_DTYPE_NONE)
        return !f->zero;
    return f->group < block ? f->group % 16 == 0 && block % f->group == 0 : f->group % block == 0;
}

static bool takes_q4(const struct ew_quant_format *f, size_t k)
{
    return takes(f, k, 4);
}

static bool takes_q8(const struct ew_quant_format *f, size_t k)
{
    return takes(f, k, 8);
}

static size_t n_panels(size_t n, bool glu)
{
    return glu ? (n / 2 + 7) / 8 : (n + 15) / 16;
}

static size_t packed_bytes(const struct ew_quant_format *f, size_t n, size_t k, bool glu)
{
    return n_panels(n, glu) * ew_cuda_panel_of(f, k).bytes;
}

static size_t pack_scratch_bytes(const struct ew_quant_format *f, size_t k)
{
    return ew_quant_rows_bytes(f, PANEL, k);
}

/* Place of a code in its panel: byte, and for 4 bits the shift. */
static size_t code_place(bool wide, size_t row, size_t col, unsigned *shift)
{
    const size_t block = col / (wide ? 32 : 64), tile = col / 16 % (wide ? 2 : 4), c = col % 16;
    const size_t lane = row % 8 * 4 + c % 8 / 2;
    const size_t e = c % 2 + row / 8 * 2 + c / 8 * 4; /* of the lane's eight in this tile */

    *shift = 0;
    if (wide)
        return block * 512 + lane * 16 + tile * 8 + e / 4 * 4 + (e % 4 % 2 * 2 + e % 4 / 2);
    *shift = (unsigned)(e % 2 * 16 + e / 2 * 4) % 8;
    return block * 512 + lane * 16 + tile * 4 + (e % 2 * 16 + e / 2 * 4) / 8;
}

/* Element of the scales or zeros: of row `row` and group `g`. */
static size_t group_place(const struct ew_cuda_panel *p, size_t row, size_t g)
{
    return ((g / p->sub * 8 + row % 8) * p->sub + g % p->sub) * 2 + row / 8;
}

static void clear_rows(const struct ew_pack_args *a, const struct ew_quant_rows *r, size_t begin,
                       size_t n)
{
    const size_t groups = ew_quant_groups(a->format, a->k);

    memset(r->codes + begin * a->k, 0, n * a->k);
    memset(r->zeros + begin * groups, 0, n * groups * sizeof(*r->zeros));
    for (size_t i = begin * groups; i < (begin + n) * groups; i++)
        r->scales[i] = 0.0f;
    for (size_t i = begin; i < begin + n; i++)
        r->row_scale[i] = 0.0f;
}

/* The 16 rows of panel u, gate and up apart for glu. */
static void read_panel(const struct ew_pack_args *a, size_t u, const struct ew_quant_rows *r)
{
    const size_t groups = ew_quant_groups(a->format, a->k), half = a->n / 2;
    const size_t left = a->glu ? half - u * 8 : a->n - u * PANEL;
    const size_t n = left < (a->glu ? 8 : PANEL) ? left : a->glu ? 8 : PANEL;

    clear_rows(a, r, 0, PANEL);
    if (!a->glu) {
        ew_weight_parts_read(a, u * PANEL, n, r);
        return;
    }
    const struct ew_quant_rows up = { r->codes + 8 * a->k, r->scales + 8 * groups,
                                      r->zeros + 8 * groups, r->row_scale + 8 };
    ew_weight_parts_read(a, u * 8, n, r);
    ew_weight_parts_read(a, half + u * 8, n, &up);
}

static void store_groups(uint8_t *dst, const struct ew_quant_format *f, size_t k,
                         const struct ew_cuda_panel *p, const struct ew_quant_rows *r, size_t row)
{
    const size_t groups = ew_quant_groups(f, k);
    const size_t scale_bytes = f->scale == EW_DTYPE_NONE ? 0 : ew_dtype_bits(f->scale) / 8;
    const bool wide = ew_quant_code_bits(f->code) == 8;
    float row_scale = r->row_scale[row];

    for (size_t g = 0; g < groups; g++) {
        const size_t at = group_place(p, row, g);
        const int16_t zero = r->zeros[row * groups + g];
        uint32_t elem = 0;

        if (groups > 1 && scale_bytes) {
            ew_elem_set_f64(&elem, f->scale, 0, (double)r->scales[row * groups + g]);
            memcpy(dst + p->scales_at + at * scale_bytes, &elem, scale_bytes);
        }
        if (f->zero && wide)
            memcpy(dst + p->zeros_at + at * 2, &zero, 2);
        else if (f->zero)
            dst[p->zeros_at + at] = (uint8_t)zero;
    }
    if (groups == 1)
        row_scale = (float)((double)row_scale * (double)r->scales[row]);
    memcpy(dst + p->row_scales_at + row * 4, &row_scale, 4);
}

static void pack_panel(uint8_t *dst, const struct ew_pack_args *a, const struct ew_cuda_panel *p,
                       size_t u)
{
    const struct ew_quant_format *f = a->format;
    const struct ew_quant_rows r = ew_quant_rows_carve(f, PANEL, a->k, a->scratch);
    const bool wide = ew_quant_code_bits(f->code) == 8;
    const uint8_t flip = f->code == EW_DTYPE_I4 ? 8 : 0;

    read_panel(a, u, &r);
    memset(dst, 0, p->bytes);
    for (size_t row = 0; row < PANEL; row++) {
        for (size_t col = 0; col < p->k_blocks * p->block_cols; col++) {
            const uint8_t code = col < a->k ? r.codes[row * a->k + col] : 0;
            unsigned shift;
            const size_t at = code_place(wide, row, col, &shift);

            if (wide)
                dst[at] = code;
            else
                dst[at] |= (uint8_t)(((code ^ flip) & 0xfu) << shift);
        }
        store_groups(dst, f, a->k, p, &r, row);
    }
}

static void pack_quant(void *dst, const struct ew_pack_args *a, size_t begin, size_t end)
{
    const struct ew_cuda_panel p = ew_cuda_panel_of(a->format, a->k);

    for (size_t u = begin; u < end; u++)
        pack_panel((uint8_t *)dst + u * p.bytes, a, &p, u);
}

static float value_at(const uint8_t *panel, const struct ew_quant_format *f,
                      const struct ew_cuda_panel *p, size_t row, size_t col, bool grouped)
{
    const bool wide = ew_quant_code_bits(f->code) == 8;
    const size_t g = grouped ? group_place(p, row, col / f->group) : group_place(p, row, 0);
    unsigned shift;
    const size_t at = code_place(wide, row, col, &shift);
    uint8_t code = (uint8_t)(wide ? panel[at] : panel[at] >> shift & 0xfu);
    double scale = 1.0, zero = 0.0;
    float row_scale;
    int16_t z;

    if (f->code == EW_DTYPE_I4)
        code = (uint8_t)(code - 8); /* was stored + 8 */
    if (grouped && f->scale != EW_DTYPE_NONE) {
        const size_t bytes = ew_dtype_bits(f->scale) / 8;
        uint32_t elem = 0;

        memcpy(&elem, panel + p->scales_at + g * bytes, bytes);
        scale = ew_elem_get_f64(&elem, f->scale, 0);
    }
    if (f->zero && wide) {
        memcpy(&z, panel + p->zeros_at + g * 2, 2);
        zero = z;
    } else if (f->zero) {
        zero = panel[p->zeros_at + g];
    }
    memcpy(&row_scale, panel + p->row_scales_at + row * 4, 4);
    return (float)(((double)ew_quant_code(f->code, code) - zero) * scale * (double)row_scale);
}

static void unpack_quant(float *dst, const void *packed, const struct ew_quant_format *f, size_t n,
                         size_t k, size_t row)
{
    const struct ew_cuda_panel p = ew_cuda_panel_of(f, k);
    const uint8_t *panel = (const uint8_t *)packed + row / PANEL * p.bytes;
    const bool grouped = ew_quant_groups(f, k) > 1;

    (void)n;
    for (size_t i = 0; i < k; i++)
        dst[i] = value_at(panel, f, &p, row % PANEL, i, grouped);
}

#define PLAIN_LAYOUT(type, dtype)                                                                  \
    static size_t packed_bytes_##type(const struct ew_quant_format *f, size_t n, size_t k,         \
                                      bool glu)                                                    \
    {                                                                                              \
        (void)f;                                                                                   \
        (void)glu;                                                                                 \
        return n * plain_row_bytes(dtype, k);                                                      \
    }                                                                                              \
    static void pack_##type(void *dst, const struct ew_pack_args *a, size_t begin, size_t end)     \
    {                                                                                              \
        pack_plain(dst, a, dtype, begin, end);                                                     \
    }                                                                                              \
    static void unpack_row_##type(float *dst, const void *packed, const struct ew_quant_format *f, \
                                  size_t n, size_t k, size_t row)                                  \
    {                                                                                              \
        (void)f;                                                                                   \
        (void)n;                                                                                   \
        unpack_plain(dst, packed, dtype, k, row);                                                  \
    }                                                                                              \
    const struct ew_linear_kernel ew_cuda_layout_##type = {                                        \
        .name = "linear_" #type "__cuda",                                                          \
        .weight_dtype = dtype,                                                                     \
        .panel = 1,                                                                                \
        .packed_bytes = packed_bytes_##type,                                                       \
        .pack = pack_##type,                                                                       \
        .unpack_row = unpack_row_##type,                                                           \
        .n_units = plain_units,                                                                    \
        .scratch_bytes = no_scratch,                                                               \
    };

#define QUANT_LAYOUT(type)                                                                         \
    const struct ew_linear_kernel ew_cuda_layout_##type = {                                        \
        .name = "linear_" #type "__cuda",                                                          \
        .takes = takes_##type,                                                                     \
        .panel = PANEL,                                                                            \
        .packed_bytes = packed_bytes,                                                              \
        .pack_scratch_bytes = pack_scratch_bytes,                                                  \
        .pack = pack_quant,                                                                        \
        .unpack_row = unpack_quant,                                                                \
        .n_units = n_panels,                                                                       \
        .scratch_bytes = no_scratch,                                                               \
    };

PLAIN_LAYOUT(f32, EW_DTYPE_F32)
PLAIN_LAYOUT(f16, EW_DTYPE_F16)
PLAIN_LAYOUT(bf16, EW_DTYPE_BF16)
QUANT_LAYOUT(q4)
QUANT_LAYOUT(q8)

static const struct ew_linear_kernel *const layouts[] = {
    &ew_cuda_layout_f32, &ew_cuda_layout_f16, &ew_cuda_layout_bf16,
    &ew_cuda_layout_q4,  &ew_cuda_layout_q8,
};

const struct ew_linear_kernel *const *ew_cuda_linear_layouts(size_t *n)
{
    *n = sizeof(layouts) / sizeof(*layouts);
    return layouts;
}

const struct ew_linear_kernel *ew_cuda_linear_layout_find(const char *name)
{
    for (size_t i = 0; i < sizeof(layouts) / sizeof(*layouts); i++)
        if (strcmp(layouts[i]->name, name) == 0)
            return layouts[i];
    return NULL;
}
