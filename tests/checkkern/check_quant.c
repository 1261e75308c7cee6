/* check_quant.c - kernels of quantised weights against sums in double over random codes, scales and
 * zero points of every format; the bit contract is check_linear's. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/half.h"
#include "base/size.h"
#include "check_linear.h"
#include "kernels/linear_w8.h"
#include "op/attrs.h"
#include "../quant_matrix.h"
#include "tensor/tensor.h"

static float random_scale(struct ck *c, ew_dtype d)
{
    const float s = 0.02f * ck_normal(c);
    uint32_t elem = 0;

    switch (d) {
    case EW_DTYPE_NONE:
        return 1.0f;
    case EW_DTYPE_F8E8M0:
        return ck_rand(c) % 50 ? ldexpf(1.0f, (int)ck_range(c, 0, 12) - 10) : 0x1p-127f;
    case EW_DTYPE_F8E4M3:
        return ew_f8e4m3_to_f32((uint8_t)ck_range(c, 0, 0x7e));
    default:
        ew_elem_set_f64(&elem, d, 0, (double)s);
        return (float)ew_elem_get_f64(&elem, d, 0);
    }
}

/* Zero points: the ends of the range more often than chance has them. */
static int16_t random_zero(struct ck *c, const struct ew_quant_format *f)
{
    const size_t top = f->code == EW_DTYPE_U4 ? 16 : 256;

    if (!f->zero)
        return 0;
    return (int16_t)(ck_rand(c) % 4 ? ck_range(c, 0, top) : ck_rand(c) & 1 ? top : 0);
}

/* The codes of a group become its zero point, so that its weights are exactly 0 where a code can.
 */
static void codes_at_zero(struct matrix *m, size_t row, size_t g)
{
    const struct ew_quant_format *f = &m->base.format;
    const size_t k = m->base.k, groups = ew_quant_groups(f, k), k0 = g * f->group;
    const int top = f->code == EW_DTYPE_U4 ? 15 : 255, zero = m->zeros[row * groups + g];

    memset(m->codes + row * k + k0, zero < top ? zero : top, g + 1 < groups ? f->group : k - k0);
}

/* For a matrix of one code: mostly one of the two that are largest once they are raised, with which
 * sums in few bits come nearest to their ends. */
static uint8_t equal_code(struct ck *c, ew_dtype code)
{
    static const uint8_t four[] = { 0x00, 0x0f }, four_signed[] = { 0x08, 0x07 };
    static const uint8_t eight[] = { 0x00, 0xff }, eight_signed[] = { 0x80, 0x7f };
    const bool is_signed = code != EW_DTYPE_U4 && code != EW_DTYPE_U8;
    const uint8_t *const ends = ew_quant_code_bits(code) == 4 ? (is_signed ? four_signed : four)
                                                              : (is_signed ? eight_signed : eight);

    return matrix_code(ck_rand(c) % 8 ? ends[ck_rand(c) & 1] : (uint8_t)ck_rand(c), code, false);
}

static void matrix_make(struct ck *c, struct matrix *m, const struct ew_quant_format *f, size_t n,
                        size_t k, enum ck_fill fill)
{
    const size_t groups = ew_quant_groups(f, k);
    const uint8_t equal = equal_code(c, f->code);
    /* e8m0 code 0, a denormal. Not with fp8 codes, whose own small values take the sums below what
     * f32 holds to full precision. */
    const bool tiny = f->scale == EW_DTYPE_F8E8M0 && fill == CK_EQUAL &&
                      f->code != EW_DTYPE_F8E4M3 && f->code != EW_DTYPE_F8E5M2;

    m->base = (struct ew_quant_source){
        .format = *f, .name = "random", .n = n, .k = k, .read = matrix_read
    };
    m->codes = malloc(n * k);
    m->scales = malloc(n * groups * sizeof(float));
    m->zeros = malloc(n * groups * sizeof(int16_t));
    m->row_scale = malloc(n * sizeof(float));
    for (size_t i = 0; i < n * k; i++)
        m->codes[i] = fill == CK_EQUAL
                          ? equal
                          : matrix_code((uint8_t)ck_rand(c), f->code, fill == CK_SPECIAL);
    for (size_t i = 0; i < n * groups; i++) {
        m->scales[i] = tiny ? 0x1p-127f : random_scale(c, f->scale);
        m->zeros[i] = random_zero(c, f);
        if (fill == CK_ZERO && f->zero)
            codes_at_zero(m, i / groups, i % groups);
    }
    for (size_t i = 0; i < n; i++)
        m->row_scale[i] = tiny                                          ? 0x1p120f
                          : f->scale == EW_DTYPE_NONE || ck_rand(c) & 1 ? 0.1f * ck_normal(c)
                                                                        : 1.0f;
}

static void matrix_drop(struct matrix *m)
{
    free(m->codes);
    free(m->scales);
    free(m->zeros);
    free(m->row_scale);
}

/* Row of the matrix by the formula of tensor/quant.h. */
static void decode(const struct matrix *m, size_t row, float *dst)
{
    const struct ew_quant_format *f = &m->base.format;
    const size_t k = m->base.k, groups = ew_quant_groups(f, k);

    for (size_t i = 0; i < k; i++) {
        const size_t g = row * groups + (f->group ? i / f->group : 0);
        const double code = (double)ew_quant_code(f->code, m->codes[row * k + i]);

        dst[i] = (float)((code - (double)m->zeros[g]) * (double)m->scales[g] *
                         (double)m->row_scale[row]);
    }
}

/* The same as a kernel of EW_XQ_INT8_W8 takes it: 8-bit integers with one scale a row. */
static void decode_w8(const struct matrix *m, size_t row, float *dst)
{
    const struct ew_quant_format *f = &m->base.format;
    const size_t k = m->base.k, groups = ew_quant_groups(f, k);
    const float *scales = m->scales + row * groups;
    const int16_t *zeros = m->zeros + row * groups;
    const double unit = ew_w8_unit(f, scales, zeros, groups);
    const float scale = (float)(unit * (double)m->row_scale[row]);

    for (size_t i = 0; i < k; i++) {
        const size_t g = f->group ? i / f->group : 0;
        const int w8 =
            ew_w8_code(f, m->codes[row * k + i] & 0xfu, zeros[g], ew_w8_factor(scales[g], unit));

        dst[i] = (float)w8 * scale;
    }
}

/* Each part from a matrix of its own, some rows into it. */
static void parts_make(struct ck *c, struct ck_problem *p, struct matrix *mats, int x_quant)
{
    const struct ck_shape *s = &p->s;
    size_t row = 0;

    for (size_t i = 0; i < s->n_parts; i++) {
        const size_t end = s->n * (i + 1) / s->n_parts, skip = ck_range(c, 0, 2);

        matrix_make(c, &mats[i], p->format, skip + end - row, s->k, s->fill);
        p->parts[i] = (struct ew_weight_part){ .n_rows = end - row,
                                               .quant = &mats[i].base,
                                               .quant_row = skip };
        for (size_t j = row; j < end; j++)
            (x_quant == EW_XQ_INT8_W8 ? decode_w8 : decode)(&mats[i], skip + j - row,
                                                            p->w + j * s->k);
        row = end;
    }
}

static void check_one(struct ck *c, const struct ew_linear_kernel *kern,
                      const struct ew_quant_format *f, const struct ck_shape *s)
{
    struct ck_problem p = { .s = *s, .format = f, .x_error = kern->x_error };
    struct matrix mats[3];
    float *rounded = NULL;

    ck_problem_vectors(c, &p);
    parts_make(c, &p, mats, kern->x_quant);
    if (kern->x_quant != EW_XQ_NONE)
        p.x_seen = rounded = ck_round_x(&p, ew_x_quant_of_x(kern->x_quant));
    ck_problem_check(c, kern, &p);
    for (size_t i = 0; i < s->n_parts; i++)
        matrix_drop(&mats[i]);
    free(rounded);
    ck_problem_drop(&p);
}

/* Every code with every scale and zero point that go together. */
static size_t formats(struct ew_quant_format *out)
{
    static const ew_dtype codes[] = { EW_DTYPE_I4, EW_DTYPE_U4,     EW_DTYPE_F4E2M1, EW_DTYPE_I8,
                                      EW_DTYPE_U8, EW_DTYPE_F8E4M3, EW_DTYPE_F8E5M2 };
    static const ew_dtype scales[] = { EW_DTYPE_NONE, EW_DTYPE_F32,    EW_DTYPE_F16,
                                       EW_DTYPE_BF16, EW_DTYPE_F8E4M3, EW_DTYPE_F8E8M0 };
    size_t n = 0;

    for (size_t i = 0; i < EW_COUNT(codes); i++)
        for (size_t j = 0; j < EW_COUNT(scales); j++)
            for (uint32_t zero = 0; zero < 2; zero++) {
                const struct ew_quant_format f = { .code = codes[i],
                                                   .scale = scales[j],
                                                   .group = scales[j] == EW_DTYPE_NONE ? 0 : 32,
                                                   .zero = zero };
                if (ew_quant_format_ok(&f))
                    out[n++] = f;
            }
    return n;
}

/* Whole columns whose integers come as near to their 32 bits as `takes` allows. */
static void check_longest(struct ck *c, const struct ew_linear_kernel *kern)
{
    static const ew_dtype codes[] = { EW_DTYPE_I4, EW_DTYPE_U4, EW_DTYPE_I8, EW_DTYPE_U8 };
    const struct ck_shape s = {
        .m = 13, .n = 5, .k = 65536, .n_parts = 1, .scale = 1.0f, .fill = CK_EQUAL
    };

    for (size_t i = 0; i < EW_COUNT(codes) && kern->x_quant != EW_XQ_NONE; i++) {
        const struct ew_quant_format f = { .code = codes[i] };

        if (kern->takes(&f, s.k))
            check_one(c, kern, &f, &s);
    }
}

void ck_quant(struct ck *c)
{
    static const uint32_t groups[] = { 8, 16, 24, 32, 64, 128, 1024 };
    struct ew_quant_format all_formats[96];
    const size_t n_formats = formats(all_formats);
    size_t n;
    const struct ew_linear_kernel *const *all = ew_linear_kernels(&n);

    for (size_t i = 0; i < n; i++) {
        const size_t before = c->n_failures, checks = c->n_checks;

        if (!all[i]->takes || !ck_wants(c, all[i]->name, all[i]->cpu_need))
            continue;
        for (size_t j = 0; j < n_formats * 10; j++) {
            struct ew_quant_format f = all_formats[j / 10];
            struct ck_shape s = ck_random_shape(c, j % 10);

            if (f.group)
                f.group = groups[ck_range(c, 0, EW_COUNT(groups) - 1)];
            if (s.m > 40)
                s.m = 40;
            if (j % 10 == 9) { /* rows enough for kernels that form whole panels first */
                s.m = ck_range(c, 97, 140);
                f.group = f.group ? 1024 : 0;
            }
            if (j % 10 == 8) { /* the largest sums in few bits, some steps of them */
                s.m = ck_range(c, 3, 40);
                s.k = ck_range(c, 128, 600);
                s.fill = CK_EQUAL;
                f.group = f.group ? 128 : 0;
            }
            if (all[i]->takes(&f, s.k))
                check_one(c, all[i], &f, &s);
        }
        check_longest(c, all[i]);
        printf("%-28s %s\n", all[i]->name,
               c->n_failures != before ? "FAILED"
               : c->n_checks == checks ? "FAILED: takes no format"
                                       : "ok");
    }
}
