/* kernels/ref/gen_nn_attention.c - ONNX Attention (opset 23 and 24). Short floats compute in f32
 * and are rounded once, on output; softmax_precision alone rounds in between. */
#include <math.h>
#include <string.h>

#include "base/half.h"
#include "base/size.h"
#include "kernels/ref/gen_nn.h"

/* Q, K or V: element (b, h, s, 0) is at b*batch + h*head + s*row. */
struct heads {
    const struct ew_view *v;
    ptrdiff_t n, len, size;
    ptrdiff_t batch, head, row;
};

struct attention {
    const struct ew_general_args *a;
    enum ew_gen_class c;
    ew_dtype softmax_dtype; /* F64: as the rest */
    struct heads q, k, v;
    const struct ew_view *past_k, *past_v, *mask, *seqlen;
    ptrdiff_t past, total;
    ptrdiff_t mask_stride[4], mask_len;
    double root_scale, softcap;
    bool is_causal;
    char *keys, *values, *scores, *bias, *query, *sum; /* scratch */
};

static struct heads heads_of(const struct ew_view *v, int64_t n)
{
    const struct ew_type *const t = &v->type;
    struct heads h = { .v = v };

    if (t->n_dims == 4) {
        h.n = (ptrdiff_t)t->dim[1];
        h.len = (ptrdiff_t)t->dim[2];
        h.size = (ptrdiff_t)t->dim[3];
        h.row = h.size;
        h.head = h.len * h.size;
    } else {
        h.n = (ptrdiff_t)n;
        h.len = (ptrdiff_t)t->dim[1];
        h.size = (ptrdiff_t)(t->dim[2] / n);
        h.row = h.n * h.size;
        h.head = h.size;
    }
    h.batch = h.n * h.len * h.size;
    return h;
}

/* Keys and values of one head, a row of scores and of bias, a query and its output. */
size_t ew_gen_attention_scratch(const struct ew_attr_attention *attr,
                                const struct ew_type *const *in, int n_in)
{
    const bool is_4d = in[0]->n_dims == 4;
    const int64_t past = n_in > 4 && in[4] ? in[4]->dim[2] : 0;
    const size_t total = (size_t)(in[1]->dim[is_4d ? 2 : 1] + past);
    const size_t size_k = (size_t)(is_4d ? in[0]->dim[3] : in[0]->dim[2] / attr->q_num_heads);
    const size_t size_v = (size_t)(is_4d ? in[2]->dim[3] : in[2]->dim[2] / attr->kv_num_heads);
    size_t width, n;

    if (!ew_size_add(size_k, size_v, &width) || !ew_size_add(width, 2, &width) ||
        !ew_size_mul(width, total, &n) || !ew_size_add(n, width, &n) ||
        !ew_size_mul(n, sizeof(double), &n))
        return SIZE_MAX;
    return n;
}

/* Rounds values in place to what the dtype holds. */
static void round_to(void *v, enum ew_gen_class c, ew_dtype d, ptrdiff_t n)
{
    float *const f = v;

    if (c == EW_GEN_F64) {
        if (d == EW_DTYPE_F64)
            return;
        for (ptrdiff_t i = 0; i < n; i++)
            ((double *)v)[i] = (double)(float)((double *)v)[i];
    } else if (d == EW_DTYPE_F16) {
        for (ptrdiff_t i = 0; i < n; i++)
            f[i] = ew_f16_to_f32(ew_f32_to_f16(f[i]));
    } else if (d == EW_DTYPE_BF16) {
        for (ptrdiff_t i = 0; i < n; i++)
            f[i] = ew_bf16_to_f32(ew_f32_to_bf16(f[i]));
    }
}

#define ATTENTION_LOOPS(T, suffix, exp_fn, tanh_fn)                                                \
    static void scale_##suffix(T *v, ptrdiff_t n, double by)                                       \
    {                                                                                              \
        for (ptrdiff_t i = 0; i < n; i++)                                                          \
            v[i] *= (T)by;                                                                         \
    }                                                                                              \
    static void scores_##suffix(T *restrict s, const T *restrict q, const T *restrict k,           \
                                ptrdiff_t n, ptrdiff_t size)                                       \
    {                                                                                              \
        for (ptrdiff_t j = 0; j < n; j++, k += size) {                                             \
            T part[8] = { 0 }, rest = 0; /* eight sums, for vectors */                             \
            ptrdiff_t i = 0;                                                                       \
                                                                                                   \
            for (; i + 8 <= size; i += 8)                                                          \
                for (int e = 0; e < 8; e++)                                                        \
                    part[e] += q[i + e] * k[i + e];                                                \
            for (; i < size; i++)                                                                  \
                rest += q[i] * k[i];                                                               \
            s[j] = ((part[0] + part[1]) + (part[2] + part[3])) +                                   \
                   ((part[4] + part[5]) + (part[6] + part[7])) + rest;                             \
        }                                                                                          \
    }                                                                                              \
    static void cap_##suffix(T *v, ptrdiff_t n, double cap)                                        \
    {                                                                                              \
        for (ptrdiff_t i = 0; i < n; i++)                                                          \
            v[i] = (T)cap * tanh_fn(v[i] / (T)cap);                                                \
    }                                                                                              \
    static void softmax_##suffix(T *v, ptrdiff_t n)                                                \
    {                                                                                              \
        T highest = -INFINITY;                                                                     \
        double sum = 0;                                                                            \
                                                                                                   \
        for (ptrdiff_t i = 0; i < n; i++)                                                          \
            highest = v[i] > highest ? v[i] : highest;                                             \
        for (ptrdiff_t i = 0; i < n; i++) {                                                        \
            v[i] = highest == -INFINITY ? 0 : exp_fn(v[i] - highest);                              \
            sum += (double)v[i];                                                                   \
        }                                                                                          \
        for (ptrdiff_t i = 0; i < n && sum != 0; i++)                                              \
            v[i] = (T)((double)v[i] / sum);                                                        \
    }                                                                                              \
    /* Adds the bias; true when it hides every key. */                                             \
    static bool add_##suffix(T *restrict v, const T *restrict bias, ptrdiff_t n)                   \
    {                                                                                              \
        bool hidden = true;                                                                        \
                                                                                                   \
        for (ptrdiff_t i = 0; i < n; i++) {                                                        \
            hidden = hidden && bias[i] == -INFINITY;                                               \
            v[i] += bias[i];                                                                       \
        }                                                                                          \
        return hidden;                                                                             \
    }                                                                                              \
    static void sum_##suffix(T *restrict y, const T *restrict p, const T *restrict v, ptrdiff_t n, \
                             ptrdiff_t size)                                                       \
    {                                                                                              \
        for (ptrdiff_t i = 0; i < size; i++)                                                       \
            y[i] = 0;                                                                              \
        for (ptrdiff_t j = 0; j < n; j++, v += size)                                               \
            for (ptrdiff_t i = 0; p[j] != 0 && i < size; i++)                                      \
                y[i] += p[j] * v[i];                                                               \
    }

ATTENTION_LOOPS(float, f32, expf, tanhf)
ATTENTION_LOOPS(double, f64, exp, tanh)

#define BY_CLASS(t, f32_call, f64_call) ((t)->c == EW_GEN_F32 ? (f32_call) : (f64_call))

/* Past and new rows of one head, scaled for keys. */
static void load_head(const struct attention *t, char *dst, const struct heads *h,
                      const struct ew_view *past, ptrdiff_t b, ptrdiff_t head)
{
    const size_t row = (size_t)h->size * ew_gen_class_bytes(t->c);

    if (past)
        ew_gen_load(dst, t->c, past->data, past->type.dtype, (b * h->n + head) * t->past * h->size,
                    1, (size_t)(t->past * h->size));
    for (ptrdiff_t s = 0; s < h->len; s++)
        ew_gen_load(dst + (size_t)(t->past + s) * row, t->c, h->v->data, h->v->type.dtype,
                    b * h->batch + head * h->head + s * h->row, 1, (size_t)h->size);
}

static void scale_rows(const struct attention *t, void *v, ptrdiff_t n)
{
    if (t->c == EW_GEN_F32)
        scale_f32(v, n, t->root_scale);
    else
        scale_f64(v, n, t->root_scale);
}

/* present = past, then the new rows. */
static void write_present(const struct attention *t, int o, const struct heads *h,
                          const struct ew_view *past, ptrdiff_t b)
{
    struct ew_view *const y = o < t->a->n_out ? t->a->out[o] : NULL;

    for (ptrdiff_t head = 0; y && head < h->n; head++) {
        const ptrdiff_t to = (b * h->n + head) * t->total * h->size;

        if (past)
            ew_gen_copy_flat(y->data, to, past->data, (b * h->n + head) * t->past * h->size,
                             (size_t)(t->past * h->size), y->type.dtype);
        for (ptrdiff_t s = 0; s < h->len; s++)
            ew_gen_copy_flat(y->data, to + (t->past + s) * h->size, h->v->data,
                             b * h->batch + head * h->head + s * h->row, (size_t)h->size,
                             y->type.dtype);
    }
}

/* What is added to the scores of query i of head h. */
static void bias_row(const struct attention *t, ptrdiff_t b, ptrdiff_t h, ptrdiff_t i)
{
    const struct ew_view *const m = t->mask;
    const int64_t valid = t->seqlen ? ew_gen_int_at(t->seqlen, (size_t)b) : t->total;
    const int64_t offset = t->seqlen ? valid - t->q.len : t->past;
    const ptrdiff_t at = b * t->mask_stride[0] + h * t->mask_stride[1] + i * t->mask_stride[2];
    float *const f = (float *)t->bias;
    double *const d = (double *)t->bias;

    memset(t->bias, 0, (size_t)t->total * ew_gen_class_bytes(t->c));
    if (m)
        ew_gen_load(t->bias, t->c, m->data, m->type.dtype, at, 1, (size_t)t->mask_len);
    for (ptrdiff_t j = 0; j < t->total; j++) {
        bool hidden = (t->is_causal && j > i + offset) || j >= valid || (m && j >= t->mask_len);

        if (m && m->type.dtype == EW_DTYPE_BOOL && !hidden) {
            hidden = BY_CLASS(t, f[j] == 0, d[j] == 0);
            if (t->c == EW_GEN_F32)
                f[j] = 0;
            else
                d[j] = 0;
        }
        if (hidden && t->c == EW_GEN_F32)
            f[j] = -INFINITY;
        else if (hidden)
            d[j] = -INFINITY;
    }
}

/* The fourth output, when it is wanted at this stage. */
static void expose(const struct attention *t, int stage, ptrdiff_t row)
{
    struct ew_view *const y = t->a->n_out > 3 ? t->a->out[3] : NULL;

    if (y && t->a->attrs->attention.qk_matmul_output_mode == stage)
        ew_gen_store(y->data, y->type.dtype, row * t->total, 1, t->scores, t->c, (size_t)t->total);
}

static void attend_row(const struct attention *t, ptrdiff_t b, ptrdiff_t h, ptrdiff_t i)
{
    const struct heads *const q = &t->q;
    const ptrdiff_t row = (b * q->n + h) * q->len + i, n = t->total, size_v = t->v.size;
    const bool is_f32 = t->c == EW_GEN_F32;
    struct ew_view *const y = t->a->out[0];
    void *const s = t->scores;
    bool hidden;

    ew_gen_load(t->query, t->c, q->v->data, q->v->type.dtype,
                b * q->batch + h * q->head + i * q->row, 1, (size_t)q->size);
    scale_rows(t, t->query, q->size);
    if (is_f32)
        scores_f32(s, (float *)t->query, (float *)t->keys, n, q->size);
    else
        scores_f64(s, (double *)t->query, (double *)t->keys, n, q->size);
    expose(t, 0, row);
    if (t->softcap > 0) {
        if (is_f32)
            cap_f32(s, n, t->softcap);
        else
            cap_f64(s, n, t->softcap);
    }
    expose(t, 1, row);
    bias_row(t, b, h, i);
    hidden = BY_CLASS(t, add_f32(s, (float *)t->bias, n), add_f64(s, (double *)t->bias, n));
    expose(t, 2, row);
    round_to(s, t->c, t->softmax_dtype, n);
    if (hidden)
        memset(s, 0, (size_t)n * ew_gen_class_bytes(t->c));
    else if (is_f32)
        softmax_f32(s, n);
    else
        softmax_f64(s, n);
    round_to(s, t->c, t->softmax_dtype, n);
    expose(t, 3, row);
    if (!y)
        return;
    if (is_f32)
        sum_f32((float *)t->sum, s, (float *)t->values, n, size_v);
    else
        sum_f64((double *)t->sum, s, (double *)t->values, n, size_v);
    ew_gen_store(y->data, y->type.dtype,
                 y->type.n_dims == 4 ? row * size_v : ((b * q->len + i) * q->n + h) * size_v, 1,
                 t->sum, t->c, (size_t)size_v);
}

static void mask_strides(struct attention *t)
{
    const struct ew_type *m;
    ptrdiff_t own[EW_GEN_MAX_DIMS];

    if (!t->mask)
        return;
    m = &t->mask->type;
    ew_gen_strides(m->n_dims, m->dim, own);
    for (int d = 0; d < m->n_dims; d++)
        if (m->dim[d] != 1)
            t->mask_stride[4 - m->n_dims + d] = own[d];
    t->mask_len = (ptrdiff_t)m->dim[m->n_dims - 1];
    t->mask_len = t->mask_len < t->total ? t->mask_len : t->total;
}

static ew_status attention_init(struct attention *t, const struct ew_general_args *a)
{
    const struct ew_attr_attention *const attr = &a->attrs->attention;
    const size_t width = ew_gen_class_bytes(ew_gen_class_of(a->in[0]->type.dtype));
    double scale;

    *t = (struct attention){ .a = a,
                             .c = ew_gen_class_of(a->in[0]->type.dtype),
                             .q = heads_of(a->in[0], attr->q_num_heads),
                             .k = heads_of(a->in[1], attr->kv_num_heads),
                             .v = heads_of(a->in[2], attr->kv_num_heads),
                             .mask = a->n_in > 3 ? a->in[3] : NULL,
                             .past_k = a->n_in > 4 ? a->in[4] : NULL,
                             .past_v = a->n_in > 5 ? a->in[5] : NULL,
                             .seqlen = a->n_in > 6 ? a->in[6] : NULL,
                             .softcap = (double)attr->softcap,
                             .is_causal = attr->is_causal != 0 };
    t->softmax_dtype = attr->softmax_precision ? (ew_dtype)attr->softmax_precision : EW_DTYPE_F64;
    t->past = t->past_k ? (ptrdiff_t)t->past_k->type.dim[2] : 0;
    t->total = t->past + t->k.len;
    scale = attr->has_scale ? (double)attr->scale : 1 / sqrt((double)t->q.size);
    t->root_scale = sqrt(scale);
    mask_strides(t);
    t->keys = a->scratch;
    t->values = t->keys + (size_t)(t->total * t->k.size) * width;
    t->scores = t->values + (size_t)(t->total * t->v.size) * width;
    t->bias = t->scores + (size_t)t->total * width;
    t->query = t->bias + (size_t)t->total * width;
    t->sum = t->query + (size_t)t->q.size * width;
    for (ptrdiff_t b = 0; t->seqlen && b < (ptrdiff_t)a->in[0]->type.dim[0]; b++) {
        const int64_t n = ew_gen_int_at(t->seqlen, (size_t)b);

        if (n < 0 || n > t->total)
            return ew_fail(a->err, EW_STATUS_MISMATCH, "nonpad_kv_seqlen is %lld, there are %lld",
                           (long long)n, (long long)t->total);
    }
    return EW_STATUS_OK;
}

ew_status ew_gen_attention(const struct ew_general_args *a)
{
    const ptrdiff_t batch = (ptrdiff_t)a->in[0]->type.dim[0];
    struct attention t;

    EW_TRY(attention_init(&t, a));
    for (ptrdiff_t b = 0; b < batch; b++) {
        const ptrdiff_t per = t.q.n / t.k.n; /* query heads of a key head */

        write_present(&t, 1, &t.k, t.past_k, b);
        write_present(&t, 2, &t.v, t.past_v, b);
        for (ptrdiff_t kv = 0; kv < t.k.n; kv++) {
            load_head(&t, t.keys, &t.k, t.past_k, b, kv);
            scale_rows(&t, t.keys, t.total * t.k.size);
            load_head(&t, t.values, &t.v, t.past_v, b, kv);
            for (ptrdiff_t h = kv * per; h < (kv + 1) * per; h++)
                for (ptrdiff_t i = 0; i < t.q.len; i++)
                    attend_row(&t, b, h, i);
        }
    }
    return EW_STATUS_OK;
}
