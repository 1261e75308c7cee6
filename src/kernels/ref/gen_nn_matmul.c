/* kernels/ref/gen_nn_matmul.c - MatMul, MatMulInteger and Gemm: how their operands are packed and
 * their results stored. The product itself is in gen_nn.c. */
#include "base/half.h"
#include "kernels/ref/gen_nn.h"

/* One matrix of an operand. */
struct matrix {
    const struct ew_view *v;
    ptrdiff_t at, row, col; /* first element, steps */
    const struct ew_view *zero;
    bool zero_each; /* a zero point for each row of A or column of B */
};

struct product {
    struct matrix a, b;
    struct ew_view *y;
    ptrdiff_t y_at;
    const struct ew_view *bias; /* Gemm's C */
    ptrdiff_t bias_row, bias_col;
    double alpha, beta;
};

static void pack_a(const struct ew_gen_mm *mm, void *dst, ptrdiff_t i)
{
    const struct matrix *const a = &((const struct product *)mm->user)->a;

    ew_gen_load(dst, mm->c, a->v->data, a->v->type.dtype, a->at + i * a->row, a->col,
                (size_t)mm->k);
    if (a->zero) {
        const uint64_t z = (uint64_t)ew_gen_int_at(a->zero, a->zero_each ? (size_t)i : 0);

        for (ptrdiff_t p = 0; p < mm->k; p++)
            ((uint64_t *)dst)[p] -= z;
    }
}

static void pack_b(const struct ew_gen_mm *mm, void *dst, ptrdiff_t j, ptrdiff_t n)
{
    const struct matrix *const b = &((const struct product *)mm->user)->b;
    const size_t width = ew_gen_class_bytes(mm->c);
    uint64_t zero[EW_GEN_MM_COLS];

    for (ptrdiff_t p = 0; p < mm->k; p++)
        ew_gen_load((char *)dst + (size_t)(p * EW_GEN_MM_COLS) * width, mm->c, b->v->data,
                    b->v->type.dtype, b->at + p * b->row + j * b->col, b->col, (size_t)n);
    if (!b->zero)
        return;
    for (ptrdiff_t i = 0; i < n; i++)
        zero[i] = (uint64_t)ew_gen_int_at(b->zero, b->zero_each ? (size_t)(i + j) : 0);
    for (ptrdiff_t p = 0; p < mm->k; p++)
        for (ptrdiff_t i = 0; i < n; i++)
            ((uint64_t *)dst)[p * EW_GEN_MM_COLS + i] -= zero[i];
}

static void store_plain(const struct ew_gen_mm *mm, void *v, ptrdiff_t i, ptrdiff_t j, ptrdiff_t n)
{
    const struct product *const p = mm->user;

    ew_gen_store(p->y->data, p->y->type.dtype, p->y_at + i * mm->n + j, 1, v, mm->c, (size_t)n);
}

static void store_gemm(const struct ew_gen_mm *mm, void *v, ptrdiff_t i, ptrdiff_t j, ptrdiff_t n)
{
    const struct product *const p = mm->user;
    const struct ew_view *const c = p->bias;
    const bool adds = c && p->beta != 0;
    union ew_gen_block b;

    if (adds)
        ew_gen_load(&b, mm->c, c->data, c->type.dtype, i * p->bias_row + j * p->bias_col,
                    p->bias_col, (size_t)n);
    for (ptrdiff_t e = 0; e < n; e++) {
        if (mm->c == EW_GEN_F32) {
            float *const y = (float *)v + e;

            *y = (float)p->alpha * *y + (adds ? (float)p->beta * b.f32[e] : 0);
        } else if (mm->c == EW_GEN_F64) {
            double *const y = (double *)v + e;

            *y = p->alpha * *y + (adds ? p->beta * b.f64[e] : 0);
        } else if (p->alpha == 1 && p->beta == 1) {
            if (adds)
                ((uint64_t *)v)[e] += b.u64[e];
        } else { /* integers times a fraction: toward zero, as a cast */
            int64_t *const y = (int64_t *)v + e;
            double sum = p->alpha * (double)*y + (adds ? p->beta * (double)b.i64[e] : 0);

            sum = sum < -0x1p62 ? -0x1p62 : sum > 0x1p62 ? 0x1p62 : sum;
            *y = (int64_t)sum;
        }
    }
    store_plain(mm, v, i, j, n);
}

static void run(const struct ew_general_args *a, struct product *p, ptrdiff_t m, ptrdiff_t n,
                ptrdiff_t k, bool is_gemm)
{
    const struct ew_view *const b = p->b.v;
    struct ew_gen_mm mm = { .c = ew_gen_mm_class(b->type.dtype),
                            .m = m,
                            .n = n,
                            .k = k,
                            .pack_a = pack_a,
                            .pack_b = pack_b,
                            .store = is_gemm ? store_gemm : store_plain,
                            .scratch = a->scratch,
                            .user = p };

    if (b->type.dtype == EW_DTYPE_F32 && p->b.col == 1 && k > 0) {
        mm.b_f32 = (const float *)b->data + p->b.at;
        mm.b_f32_step = p->b.row;
    }
    ew_gen_mm_run(&mm);
}

/* Steps of one operand's batch dims in the batch of y. */
static void batch_strides(const struct ew_type *t, int n_batch, const int64_t *dim,
                          ptrdiff_t matrix, ptrdiff_t *stride)
{
    const int own = t->n_dims - 2;
    ptrdiff_t at = matrix;

    for (int d = n_batch - 1; d >= 0; d--) {
        const int k = own - n_batch + d;
        const int64_t size = k >= 0 ? t->dim[k] : 1;

        stride[d] = size == dim[d] ? at : 0;
        at *= size;
    }
}

ew_status ew_gen_matmul(const struct ew_general_args *a)
{
    const struct ew_type *const ta = &a->in[0]->type, *const tb = &a->in[1]->type;
    const struct ew_type *const ty = &a->out[0]->type;
    const ptrdiff_t m = ta->n_dims > 1 ? (ptrdiff_t)ta->dim[ta->n_dims - 2] : 1;
    const ptrdiff_t k = (ptrdiff_t)ta->dim[ta->n_dims - 1];
    const ptrdiff_t n = tb->n_dims > 1 ? (ptrdiff_t)tb->dim[tb->n_dims - 1] : 1;
    const int n_batch = ty->n_dims - (ta->n_dims > 1) - (tb->n_dims > 1);
    ptrdiff_t stride[3][EW_GEN_MAX_DIMS] = { { 0 } };
    struct product p = { .a = { .v = a->in[0], .row = k, .col = 1 },
                         .b = { .v = a->in[1], .row = n, .col = 1 },
                         .y = a->out[0] };
    struct ew_gen_loop l;

    if (a->op == EW_OP_MATMUL_INTEGER) {
        p.a.zero = a->n_in > 2 ? a->in[2] : NULL;
        p.b.zero = a->n_in > 3 ? a->in[3] : NULL;
        p.a.zero_each = p.a.zero && ew_gen_count(&p.a.zero->type) > 1;
        p.b.zero_each = p.b.zero && ew_gen_count(&p.b.zero->type) > 1;
    }
    if (m == 0 || n == 0)
        return EW_STATUS_OK;
    batch_strides(ta, n_batch, ty->dim, m * k, stride[0]);
    batch_strides(tb, n_batch, ty->dim, k * n, stride[1]);
    ew_gen_strides(n_batch, ty->dim, stride[2]);
    ew_gen_loop_init(&l, 3, n_batch, ty->dim, (const ptrdiff_t(*)[EW_GEN_MAX_DIMS])stride);
    for (bool more = !l.empty; more; more = ew_gen_loop_next(&l)) {
        for (ptrdiff_t i = 0; i < (ptrdiff_t)l.inner; i++) {
            p.a.at = l.at[0] + i * l.step[0];
            p.b.at = l.at[1] + i * l.step[1];
            p.y_at = (l.at[2] + i * l.step[2]) * m * n;
            run(a, &p, m, n, k, false);
        }
    }
    return EW_STATUS_OK;
}

ew_status ew_gen_gemm(const struct ew_general_args *a)
{
    const struct ew_attr_gemm *const attr = &a->attrs->gemm;
    const struct ew_type *const ta = &a->in[0]->type, *const tb = &a->in[1]->type;
    const struct ew_view *const c = a->n_in > 2 ? a->in[2] : NULL;
    const ptrdiff_t m = (ptrdiff_t)a->out[0]->type.dim[0], n = (ptrdiff_t)a->out[0]->type.dim[1];
    const ptrdiff_t k = (ptrdiff_t)ta->dim[attr->trans_a ? 0 : 1];
    struct product p = { .a = { .v = a->in[0], .row = (ptrdiff_t)ta->dim[1], .col = 1 },
                         .b = { .v = a->in[1], .row = (ptrdiff_t)tb->dim[1], .col = 1 },
                         .y = a->out[0],
                         .bias = c,
                         .alpha = (double)attr->alpha,
                         .beta = (double)attr->beta };

    if (attr->trans_a) {
        p.a.col = p.a.row;
        p.a.row = 1;
    }
    if (attr->trans_b) {
        p.b.col = p.b.row;
        p.b.row = 1;
    }
    if (c) {
        const struct ew_type *const t = &c->type;
        const ptrdiff_t cols = t->n_dims > 0 ? (ptrdiff_t)t->dim[t->n_dims - 1] : 1;

        p.bias_col = cols > 1;
        p.bias_row = t->n_dims > 1 && t->dim[0] > 1 ? cols : 0;
    }
    run(a, &p, m, n, k, true);
    return EW_STATUS_OK;
}
