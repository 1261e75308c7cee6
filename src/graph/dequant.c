/* graph/dequant.c - see dequant.h. */
#include "graph/dequant.h"

/* What reads the rows. Rows of scales that are quantised themselves have a factor of their own. */
struct dq_source {
    struct ew_quant_strided codes; /* first: it is what the reading function gets */
    void (*read)(const struct ew_quant_source *s, size_t row, size_t n_rows,
                 const struct ew_quant_rows *out);
    const void *factors;
    ew_dtype factor_dtype;
};

struct dq {
    const struct ew_node *node;
    int k_axis;
    size_t n, k;
    struct dq_source *src;
};

static bool is_plain_const(const struct ew_value *v)
{
    return v && v->is_const && !v->con.n_parts && v->con.data;
}

static void read_with_factors(const struct ew_quant_source *s, size_t row, size_t n_rows,
                              const struct ew_quant_rows *out)
{
    const struct dq_source *d = (const struct dq_source *)(const void *)s;

    d->read(s, row, n_rows, out);
    for (size_t i = 0; i < n_rows; i++)
        out->row_scale[i] = (float)ew_elem_get_f64(d->factors, d->factor_dtype, row + i);
}

static size_t count_of(const struct ew_value *v)
{
    size_t n;

    return ew_type_count(&v->type, &n) ? n : 0;
}

static int axis_of(const struct ew_node *dq)
{
    const int64_t axis = dq->attrs.quant.axis;

    return (int)(axis < 0 ? axis + 2 : axis);
}

/* Whether every element of an integer or float constant is x. */
static bool is_all(const struct ew_value *v, double x)
{
    const size_t n = count_of(v);

    for (size_t i = 0; i < n; i++)
        if (!(ew_elem_get_f64(v->con.data, v->type.dtype, i) == x))
            return false;
    return true;
}

static bool is_wide(ew_dtype d)
{
    return d == EW_DTYPE_F32 || d == EW_DTYPE_F16 || d == EW_DTYPE_BF16;
}

static struct ew_value *behind_casts(struct ew_value *v)
{
    while (v->producer && v->producer->op == EW_OP_CAST && is_wide(v->type.dtype))
        v = v->producer->in[0];
    return v;
}

/* Block scales that are e4m3 times a number, or times one of each row. */
static const struct ew_value *inner_scales(const struct ew_graph *g, struct dq *d,
                                           struct ew_value *s)
{
    const struct ew_node *inner = behind_casts(s)->producer;
    const struct ew_value *factor;

    if (!g->llm_config && (s->type.dtype != EW_DTYPE_F32 || s->producer != inner))
        return NULL; /* rounded to half on the way */
    if (!inner || inner->op != EW_OP_DEQUANTIZE_LINEAR || inner->attrs.quant.block_size != 0 ||
        !is_plain_const(inner->in[0]) || inner->in[0]->type.dtype != EW_DTYPE_F8E4M3)
        return NULL;
    if (inner->n_in > 2 && inner->in[2] &&
        (!is_plain_const(inner->in[2]) || !is_all(inner->in[2], 0)))
        return NULL;
    factor = inner->in[1];
    if (!is_plain_const(factor) || is_all(factor, 0))
        return NULL;
    if (count_of(factor) == 1) {
        d->src->codes.global = (float)ew_elem_get_f64(factor->con.data, factor->type.dtype, 0);
        return inner->in[0];
    }
    if (axis_of(inner) != 1 - d->k_axis)
        return NULL;
    d->src->factors = factor->con.data;
    d->src->factor_dtype = factor->type.dtype;
    return inner->in[0];
}

/* Scales: of the tensor, of rows, or of blocks along K. */
static bool take_scales(const struct ew_graph *g, struct dq *d)
{
    const int64_t block = d->node->attrs.quant.block_size;
    struct ew_quant_strided *q = &d->src->codes;
    const struct ew_value *s = d->node->in[1];

    if (block == 0) {
        if (!is_plain_const(s) || (count_of(s) != 1 && axis_of(d->node) == d->k_axis))
            return false;
        q->scales_are_rows = true;
        q->scale_row = count_of(s) == 1 ? 0 : 1;
    } else {
        if (axis_of(d->node) != d->k_axis || block % 8 != 0 || block > INT32_MAX)
            return false;
        if (!is_plain_const(s))
            s = inner_scales(g, d, d->node->in[1]);
        if (!s)
            return false;
        q->base.format.group = (uint32_t)block;
        q->base.format.scale = s->type.dtype;
        const size_t groups = ew_quant_groups(&q->base.format, d->k);
        q->scale_row = d->k_axis == 1 ? (ptrdiff_t)groups : 1;
        q->scale_col = d->k_axis == 1 ? 1 : (ptrdiff_t)d->n;
    }
    q->scales = s->con.data;
    q->scale_dtype = s->type.dtype;
    return true;
}

/* Signed codes with zero points become unsigned ones. */
static ew_status shift_zeros(struct ew_graph *g, struct dq *d, const struct ew_value *z, int shift,
                             ew_error *err)
{
    const size_t n = count_of(z);
    int16_t *zeros = ew_arena_new(&g->arena, int16_t, n);

    if (!zeros)
        return ew_fail(err, EW_STATUS_NO_MEMORY, "zero points of node '%s'", d->node->name);
    for (size_t i = 0; i < n; i++)
        zeros[i] = (int16_t)(ew_elem_get_i64(z->con.data, z->type.dtype, i) + shift);
    d->src->codes.zeros = zeros;
    d->src->codes.zero_dtype = EW_DTYPE_I16;
    return EW_STATUS_OK;
}

/* *ok false: zero points that are not known, or of floats. */
static ew_status take_zeros(struct ew_graph *g, struct dq *d, bool *ok, ew_error *err)
{
    struct ew_quant_strided *q = &d->src->codes;
    const struct ew_value *z = d->node->n_in > 2 ? d->node->in[2] : NULL;
    const ew_dtype code = q->base.format.code;
    const bool is_4 = code == EW_DTYPE_I4 || code == EW_DTYPE_U4;
    const int half = is_4 ? 8 : 128;

    *ok = !z || is_plain_const(z);
    if (!z || !*ok || is_all(z, 0))
        return EW_STATUS_OK;
    *ok = !ew_dtype_is_float(code);
    if (!*ok)
        return EW_STATUS_OK;
    if (ew_dtype_is_signed(code)) {
        q->base.format.code = is_4 ? EW_DTYPE_U4 : EW_DTYPE_U8;
        q->flip = (uint8_t)half;
        EW_TRY(shift_zeros(g, d, z, half, err));
    } else if (is_all(z, half)) {
        q->base.format.code = is_4 ? EW_DTYPE_I4 : EW_DTYPE_I8;
        q->flip = (uint8_t)half;
        return EW_STATUS_OK;
    } else {
        q->zeros = z->con.data;
        q->zero_dtype = z->type.dtype;
    }
    q->base.format.zero = 1;
    q->zero_row = q->scale_row;
    q->zero_col = q->scale_col;
    return EW_STATUS_OK;
}

static bool take_codes(struct dq *d, const struct ew_value *x, bool is_kn)
{
    struct ew_quant_strided *q = &d->src->codes;

    if (!is_plain_const(x) || x->type.n_dims != 2 || x->type.dim[0] < 1 || x->type.dim[1] < 1)
        return false;
    d->k_axis = is_kn ? 0 : 1;
    d->n = (size_t)x->type.dim[1 - d->k_axis];
    d->k = (size_t)x->type.dim[d->k_axis];
    q->base.format.code = x->type.dtype;
    q->base.name = x->name;
    q->base.n = d->n;
    q->base.k = d->k;
    q->codes = x->con.data;
    q->code_row = is_kn ? 1 : (ptrdiff_t)d->k;
    q->code_col = is_kn ? (ptrdiff_t)d->n : 1;
    return true;
}

ew_status ew_graph_quant_of(struct ew_graph *g, const struct ew_node *dq, bool is_kn,
                            struct ew_value **out, ew_error *err)
{
    struct dq d = { .node = dq };
    bool ok;

    *out = NULL;
    d.src = ew_arena_new(&g->arena, struct dq_source, 1);
    if (!d.src)
        return ew_fail(err, EW_STATUS_NO_MEMORY, "weight of node '%s'", dq->name);
    if (dq->out[0]->type.dtype != EW_DTYPE_F32 && !g->llm_config)
        return EW_STATUS_OK;
    if (!take_codes(&d, dq->in[0], is_kn) || !take_scales(g, &d))
        return EW_STATUS_OK;
    EW_TRY(take_zeros(g, &d, &ok, err));
    if (!ok || !ew_quant_format_ok(&d.src->codes.base.format))
        return EW_STATUS_OK;
    ew_quant_strided_init(&d.src->codes);
    if (d.src->factors) {
        d.src->read = d.src->codes.base.read;
        d.src->codes.base.read = read_with_factors;
    }
    *out = ew_graph_add_const_quant(g, dq->in[0]->name, &d.src->codes.base, 0, d.n);
    return *out ? EW_STATUS_OK : ew_fail(err, EW_STATUS_NO_MEMORY, "weight of node '%s'", dq->name);
}
