/* op/infer_nn_attention.c - types of ONNX Attention and RotaryEmbedding. */
#include "op/infer_dtypes.h"
#include "op/infer_nn.h"

static ew_status same_dim(struct ew_infer *f, const char *what, int64_t a, int64_t b)
{
    if (a >= 0 && b >= 0 && a != b)
        return ew_fail(f->err, EW_STATUS_MISMATCH, "%s: %lld and %lld", what, (long long)a,
                       (long long)b);
    return EW_STATUS_OK;
}

/* Any input as [batch, heads, length, head size]. */
struct heads {
    int64_t batch, n, len, size;
};

static ew_status heads_of(struct ew_infer *f, int i, int64_t n_heads, struct heads *h)
{
    const struct ew_type *const t = f->in[i].type;

    if (t->n_dims != f->in[0].type->n_dims || (t->n_dims != 3 && t->n_dims != 4))
        return ew_fail(f->err, EW_STATUS_MISMATCH,
                       "input %d has rank %d, Q has %d; 3 or 4 is needed", i, t->n_dims,
                       f->in[0].type->n_dims);
    if (t->n_dims == 4) {
        *h = (struct heads){ t->dim[0], t->dim[1], t->dim[2], t->dim[3] };
        return EW_STATUS_OK;
    }
    if (n_heads < 1 || (t->dim[2] >= 0 && t->dim[2] % n_heads != 0))
        return ew_fail(f->err, EW_STATUS_MISMATCH, "input %d has %lld columns for %lld heads", i,
                       (long long)t->dim[2], (long long)n_heads);
    *h = (struct heads){ t->dim[0], n_heads, t->dim[1], ew_dim_div(f->syms, t->dim[2], n_heads) };
    return EW_STATUS_OK;
}

static ew_status check_mask(struct ew_infer *f, const struct heads *q, int64_t total)
{
    const struct ew_type *m;
    int64_t want[4];

    if (!ew_infer_has(f, 3))
        return EW_STATUS_OK;
    m = f->in[3].type;
    if (m->dtype != EW_DTYPE_BOOL)
        EW_TRY(ew_infer_dtype_in(f, 3, EW_SET_FLOATS));
    if (m->n_dims < 1 || m->n_dims > 4)
        return ew_fail(f->err, EW_STATUS_MISMATCH, "attn_mask has rank %d, 1 to 4 is possible",
                       m->n_dims);
    want[0] = q->batch;
    want[1] = q->n;
    want[2] = q->len;
    want[3] = total;
    for (int d = 0; d < m->n_dims; d++) {
        const int64_t have = m->dim[d], w = want[4 - m->n_dims + d];
        const bool last = d == m->n_dims - 1;

        if (have < 0 || w < 0 || have == w || (!last && have == 1) || (last && have < w))
            continue;
        return ew_fail(f->err, EW_STATUS_MISMATCH, "attn_mask has %lld in dim %d, %lld is expected",
                       (long long)have, d, (long long)w);
    }
    return EW_STATUS_OK;
}

static ew_status check_past(struct ew_infer *f, int i, const struct heads *now, int64_t *len)
{
    const struct ew_type *const t = f->in[i].type;

    if (t->n_dims != 4)
        return ew_fail(f->err, EW_STATUS_MISMATCH, "input %d has rank %d, 4 is needed", i,
                       t->n_dims);
    EW_TRY(ew_infer_same_dtype(f, i, i - 3));
    EW_TRY(same_dim(f, "batches of the cache and of now", t->dim[0], now->batch));
    EW_TRY(same_dim(f, "heads of the cache and of now", t->dim[1], now->n));
    EW_TRY(same_dim(f, "head sizes of the cache and of now", t->dim[3], now->size));
    *len = t->dim[2];
    return EW_STATUS_OK;
}

static ew_status check_seqlen(struct ew_infer *f, const struct heads *q)
{
    const struct ew_type *t;

    if (!ew_infer_has(f, 6))
        return EW_STATUS_OK;
    t = f->in[6].type;
    EW_TRY(ew_infer_dtype_in(f, 6, EW_SET(I64)));
    if (ew_infer_has(f, 4))
        return ew_fail(f->err, EW_STATUS_MALFORMED,
                       "nonpad_kv_seqlen (input 6) and past_key (input 4) exclude each other");
    if (t->n_dims != 1)
        return ew_fail(f->err, EW_STATUS_MISMATCH, "nonpad_kv_seqlen has rank %d, 1 is needed",
                       t->n_dims);
    return same_dim(f, "nonpad_kv_seqlen and batch", t->dim[0], q->batch);
}

static ew_status check_numbers(struct ew_infer *f)
{
    const struct ew_attr_attention *const attr = &f->attrs->attention;

    if (attr->qk_matmul_output_mode < 0 || attr->qk_matmul_output_mode > 3)
        return ew_fail(f->err, EW_STATUS_MALFORMED, "qk_matmul_output_mode is %d, 0 to 3 exist",
                       attr->qk_matmul_output_mode);
    if (attr->softmax_precision < 0 || attr->softmax_precision > EW_DTYPE_F64)
        return ew_fail(f->err, EW_STATUS_UNSUPPORTED, "softmax_precision is dtype %d",
                       attr->softmax_precision);
    if (!(attr->softcap >= 0) || (attr->has_scale && !(attr->scale >= 0)))
        return ew_fail(f->err, EW_STATUS_UNSUPPORTED, "softcap is %g, scale is %g; below 0",
                       (double)attr->softcap, (double)attr->scale);
    return EW_STATUS_OK;
}

static ew_status check_heads(struct ew_infer *f, const struct heads *q, const struct heads *k,
                             const struct heads *v)
{
    EW_TRY(same_dim(f, "batches of Q and K", q->batch, k->batch));
    EW_TRY(same_dim(f, "batches of Q and V", q->batch, v->batch));
    EW_TRY(same_dim(f, "heads of K and V", k->n, v->n));
    EW_TRY(same_dim(f, "lengths of K and V", k->len, v->len));
    EW_TRY(same_dim(f, "head sizes of Q and K", q->size, k->size));
    if (k->n == 0 || (q->n >= 0 && k->n > 0 && q->n % k->n != 0))
        return ew_fail(f->err, EW_STATUS_MISMATCH, "%lld query heads for %lld of keys",
                       (long long)q->n, (long long)k->n);
    return EW_STATUS_OK;
}

ew_status ew_infer_attention(struct ew_infer *f)
{
    const struct ew_attr_attention *const attr = &f->attrs->attention;
    int64_t past_k = 0, past_v = 0, total;
    struct heads q, k, v;

    for (int i = 0; i < 3; i++)
        EW_TRY(ew_infer_dtype_in(f, i, EW_SET_FLOATS));
    EW_TRY(ew_infer_same_dtype(f, 0, 1));
    EW_TRY(check_numbers(f));
    EW_TRY(heads_of(f, 0, attr->q_num_heads, &q));
    EW_TRY(heads_of(f, 1, attr->kv_num_heads, &k));
    EW_TRY(heads_of(f, 2, attr->kv_num_heads, &v));
    EW_TRY(check_heads(f, &q, &k, &v));
    if (ew_infer_has(f, 4) != ew_infer_has(f, 5))
        return ew_fail(f->err, EW_STATUS_MALFORMED,
                       "past_key (input 4) and past_value (input 5) need each other");
    if (ew_infer_has(f, 4)) {
        EW_TRY(check_past(f, 4, &k, &past_k));
        EW_TRY(check_past(f, 5, &v, &past_v));
        EW_TRY(same_dim(f, "lengths of past_key and past_value", past_k, past_v));
    }
    EW_TRY(check_seqlen(f, &q));
    total = ew_dim_add(f->syms, past_k, k.len);
    if (total == EW_DIM_BAD)
        return ew_fail(f->err, EW_STATUS_LIMIT, "past of %lld and %lld new keys overflow",
                       (long long)past_k, (long long)k.len);
    EW_TRY(check_mask(f, &q, total));
    f->out[0] = *f->in[0].type;
    if (f->out[0].n_dims == 4)
        f->out[0].dim[3] = v.size;
    else
        f->out[0].dim[2] = ew_dim_mul(f->syms, q.n, v.size);
    f->out[1] = ew_type_make(f->in[1].type->dtype, 4, (int64_t[]){ k.batch, k.n, total, k.size });
    f->out[2] = ew_type_make(f->in[2].type->dtype, 4, (int64_t[]){ v.batch, v.n, total, v.size });
    f->out[3] = ew_type_make(f->in[0].type->dtype, 4, (int64_t[]){ q.batch, q.n, q.len, total });
    for (int o = 0; o < 4; o++)
        for (int d = 0; d < f->out[o].n_dims; d++)
            if (f->out[o].dim[d] == EW_DIM_BAD)
                return ew_fail(f->err, EW_STATUS_LIMIT, "dim %d of output %d cannot be expressed",
                               d, o);
    return EW_STATUS_OK;
}

/* ---- RotaryEmbedding ---- */

/* cos and sin: [positions, half] with position_ids, [batch, length, half] without. */
static ew_status check_cache(struct ew_infer *f, int i, int64_t batch, int64_t len, int64_t half)
{
    const struct ew_type *const t = f->in[i].type;
    const int rank = ew_infer_has(f, 3) ? 2 : 3;

    EW_TRY(ew_infer_same_dtype(f, 0, i));
    if (t->n_dims != rank)
        return ew_fail(f->err, EW_STATUS_MISMATCH, "cache %d has rank %d, %d is needed", i,
                       t->n_dims, rank);
    if (rank == 3) {
        EW_TRY(same_dim(f, "batches of the cache and the data", t->dim[0], batch));
        EW_TRY(same_dim(f, "lengths of the cache and the data", t->dim[1], len));
    }
    return same_dim(f, "columns of the cache and half the rotated dims", t->dim[rank - 1], half);
}

ew_status ew_infer_rotary(struct ew_infer *f)
{
    const struct ew_attr_rotary *const attr = &f->attrs->rotary;
    const struct ew_type *const x = f->in[0].type;
    int64_t rotated = attr->rotary_embedding_dim;
    struct heads h;

    EW_TRY(ew_infer_dtype_in(f, 0, EW_SET_FLOATS));
    EW_TRY(heads_of(f, 0, attr->num_heads, &h));
    if (rotated == 0)
        rotated = h.size;
    if (attr->rotary_embedding_dim < 0 || (rotated >= 0 && rotated % 2 != 0) ||
        (h.size >= 0 && rotated > h.size))
        return ew_fail(f->err, EW_STATUS_MISMATCH,
                       "rotary_embedding_dim is %lld, head size %lld; even and no more is needed",
                       (long long)rotated, (long long)h.size);
    for (int i = 1; i < 3; i++)
        EW_TRY(check_cache(f, i, h.batch, h.len, rotated >= 0 ? rotated / 2 : -1));
    EW_TRY(same_dim(f, "rows of cos and sin", f->in[1].type->dim[0], f->in[2].type->dim[0]));
    if (ew_infer_has(f, 3)) {
        const struct ew_type *const p = f->in[3].type;

        EW_TRY(ew_infer_dtype_in(f, 3, EW_SET(I64)));
        if (p->n_dims != 2)
            return ew_fail(f->err, EW_STATUS_MISMATCH, "position_ids have rank %d, 2 is needed",
                           p->n_dims);
        EW_TRY(same_dim(f, "batches of position_ids and the data", p->dim[0], h.batch));
        EW_TRY(same_dim(f, "lengths of position_ids and the data", p->dim[1], h.len));
    }
    f->out[0] = *x;
    return EW_STATUS_OK;
}
