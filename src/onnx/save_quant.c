/* onnx/save_quant.c - quantised constants on their way out, row by row, and the rounding of x.
 *
 *   i4, groups of 128, f16 scales   Int4GroupwiseGemmPlugin
 *   e4m3, e8m0 scales by 32         trt::TRT_MXFP8DequantizeLinear
 *   anything else                   DequantizeLinear; e4m3 scales by a DequantizeLinear of their
 * own
 *
 * No weight is copied whole: of a matrix, the scales of the plugin alone (a 32nd of it) are held.
 */
#include <math.h>
#include <string.h>

#include "kernels/linear_pack.h"
#include "onnx/int4_plugin.h"
#include "onnx/save_int.h"

#define STREAM_BYTES ((size_t)1 << 16)
#define INT4_GROUP   128

/* What there is to know of a matrix before its form is chosen. */
struct facts {
    float row_scale; /* the first */
    bool rows_same;  /* all row scales are the first */
    bool f16_exact;  /* block scales times row scales are f16 */
    int zero_max;
};

/* A matrix being written. */
struct matrix {
    struct ew_onnx_out *o;
    const struct ew_value *v;
    struct ew_quant_format format;
    struct ew_pack_args args;
    struct ew_quant_rows rows; /* four of them */
    size_t groups;
    void *scratch;
    struct facts facts;
    /* the stream */
    uint8_t *buf;
    size_t n_bytes;
    bool half; /* the last byte has its low nibble alone */
};

static void matrix_close(struct matrix *m)
{
    ew_mem_free(m->scratch);
    ew_mem_free(m->buf);
}

static ew_status matrix_open(struct matrix *m, struct ew_onnx_out *o, const struct ew_value *v)
{
    *m = (struct matrix){ .o = o, .v = v, .format = *ew_const_quant(v) };
    m->args = (struct ew_pack_args){ .format = &m->format,
                                     .parts = v->con.parts,
                                     .n_parts = v->con.n_parts,
                                     .n = (size_t)v->type.dim[0],
                                     .k = (size_t)v->type.dim[1] };
    m->groups = ew_quant_groups(&m->format, m->args.k);
    m->scratch = ew_mem_alloc(EW_MEM_ONNX, ew_quant_rows_bytes(&m->format, 4, m->args.k));
    m->buf = ew_mem_alloc(EW_MEM_ONNX, STREAM_BYTES);
    if (!m->scratch || !m->buf) {
        matrix_close(m);
        return ew_onnx_out_no_memory(o);
    }
    m->rows = ew_quant_rows_carve(&m->format, 4, m->args.k, m->scratch);
    return EW_STATUS_OK;
}

static void read_row(struct matrix *m, size_t row)
{
    ew_weight_parts_read(&m->args, row, 1, &m->rows);
}

static bool is_f16(float v)
{
    uint16_t h;

    ew_elem_set_f64(&h, EW_DTYPE_F16, 0, (double)v);
    return ew_elem_get_f64(&h, EW_DTYPE_F16, 0) == (double)v;
}

static void find_facts(struct matrix *m)
{
    struct facts *f = &m->facts;

    *f = (struct facts){ .rows_same = true, .f16_exact = true };
    for (size_t n = 0; n < m->args.n; n++) {
        read_row(m, n);
        if (n == 0)
            f->row_scale = m->rows.row_scale[0];
        f->rows_same = f->rows_same && m->rows.row_scale[0] == f->row_scale;
        for (size_t g = 0; g < m->groups; g++) {
            const double s = (double)m->rows.scales[g] * (double)m->rows.row_scale[0];

            f->f16_exact = f->f16_exact && (double)(float)s == s && is_f16((float)s);
            f->zero_max = m->rows.zeros[g] > f->zero_max ? m->rows.zeros[g] : f->zero_max;
        }
    }
}

/* ---- the stream of elements ---- */

static ew_status flush(struct matrix *m)
{
    const size_t n = m->n_bytes;

    m->n_bytes = 0;
    m->half = false;
    return ew_onnx_write_data(m->o, m->buf, n);
}

static ew_status put_byte(struct matrix *m, uint8_t byte)
{
    if (m->n_bytes == STREAM_BYTES)
        EW_TRY(flush(m));
    m->buf[m->n_bytes++] = byte;
    return EW_STATUS_OK;
}

static ew_status put_nibble(struct matrix *m, unsigned v)
{
    if (m->half) {
        m->buf[m->n_bytes - 1] |= (uint8_t)((v & 0xfu) << 4);
        m->half = false;
        return EW_STATUS_OK;
    }
    EW_TRY(put_byte(m, (uint8_t)(v & 0xfu)));
    m->half = true;
    return EW_STATUS_OK;
}

static ew_status put_code(struct matrix *m, ew_dtype d, uint8_t v)
{
    return ew_dtype_bits(d) == 4 ? put_nibble(m, v) : put_byte(m, v);
}

static ew_status put_number(struct matrix *m, ew_dtype d, double v)
{
    uint8_t bytes[8] = { 0 };

    ew_elem_set_f64(bytes, d, 0, v);
    for (size_t i = 0; i < ew_dtype_bits(d) / 8; i++)
        EW_TRY(put_byte(m, bytes[i]));
    return EW_STATUS_OK;
}

/* ---- tensors ---- */

enum part { CODES, SCALES, ROW_SCALES, ZEROS };

static ew_status put_row(struct matrix *m, enum part part, ew_dtype d)
{
    const struct ew_quant_rows *r = &m->rows;
    const double factor =
        part == SCALES && m->format.scale != EW_DTYPE_F8E4M3 ? (double)r->row_scale[0] : 1.0;

    switch (part) {
    case CODES:
        for (size_t i = 0; i < m->args.k; i++)
            EW_TRY(put_code(m, d, r->codes[i]));
        return EW_STATUS_OK;
    case SCALES:
        for (size_t g = 0; g < m->groups; g++)
            EW_TRY(put_number(m, d, (double)r->scales[g] * factor));
        return EW_STATUS_OK;
    case ZEROS:
        for (size_t g = 0; g < m->groups; g++)
            EW_TRY(put_code(m, d, (uint8_t)r->zeros[g]));
        return EW_STATUS_OK;
    default:
        return put_number(m, d, (double)r->row_scale[0]);
    }
}

/* One value or one row of values a row of the matrix. `as`: the dtype that the file calls it. */
static ew_status put_tensor(struct matrix *m, const char *name, enum part part, ew_dtype d,
                            ew_dtype as)
{
    const bool is_vector = part == ROW_SCALES || (part != CODES && m->format.group == 0);
    const int64_t dims[2] = { (int64_t)m->args.n,
                              (int64_t)(part == CODES ? m->args.k : m->groups) };
    const struct ew_type type = ew_type_make(as, is_vector ? 1 : 2, dims);

    EW_TRY(ew_onnx_begin_data(m->o, name, &type));
    for (size_t n = 0; n < m->args.n; n++) {
        read_row(m, n);
        EW_TRY(put_row(m, part, d));
    }
    return flush(m);
}

static ew_status put_dq(struct matrix *m, const char *op, const char *const in[3], const char *out,
                        int64_t axis, int64_t block, ew_dtype to)
{
    struct ew_onnx_out *o = m->o;
    Onnx__NodeProto *p = ew_onnx_put_node(o, op, out, in, in[2] ? 3 : 2, &out, 1);

    if (!p || !ew_onnx_put_int(o, p, "axis", axis) ||
        (block && !ew_onnx_put_int(o, p, "block_size", block)) ||
        (to && !ew_onnx_put_int(o, p, "output_dtype", ew_onnx_data_type(to))))
        return ew_onnx_out_no_memory(o);
    return EW_STATUS_OK;
}

/* Scales that are e4m3 times a number: of the matrix, or of each row. */
static ew_status put_inner_scales(struct matrix *m, const char *out)
{
    const char *in[3] = { ew_onnx_step(m->o, m->v->name, "scale_codes"),
                          ew_onnx_step(m->o, m->v->name, "factor"), NULL };

    if (!in[0] || !in[1])
        return ew_onnx_out_no_memory(m->o);
    EW_TRY(put_tensor(m, in[0], SCALES, EW_DTYPE_F8E4M3, EW_DTYPE_F8E4M3));
    if (m->facts.rows_same)
        EW_TRY(ew_onnx_put_f32(m->o, in[1], m->facts.row_scale));
    else
        EW_TRY(put_tensor(m, in[1], ROW_SCALES, EW_DTYPE_F32, EW_DTYPE_F32));
    return put_dq(m, "DequantizeLinear", in, out, 0, 0, EW_DTYPE_NONE);
}

/* *to: what output_dtype the DequantizeLinear over these scales must ask for. */
static ew_status put_scales(struct matrix *m, const char *name, ew_dtype *to)
{
    const ew_dtype scale = m->format.scale;
    const bool is_plain = m->facts.rows_same && m->facts.row_scale == 1.0f;

    *to = EW_DTYPE_NONE;
    if (scale == EW_DTYPE_NONE)
        return put_tensor(m, name, ROW_SCALES, EW_DTYPE_F32, EW_DTYPE_F32);
    if (scale == EW_DTYPE_F8E4M3)
        return put_inner_scales(m, name);
    if (!is_plain)
        return put_tensor(m, name, SCALES, EW_DTYPE_F32, EW_DTYPE_F32);
    *to = scale == EW_DTYPE_F32 ? EW_DTYPE_NONE : EW_DTYPE_F32;
    return put_tensor(m, name, SCALES, scale, scale);
}

static bool is_mxfp8(const struct matrix *m)
{
    return m->format.code == EW_DTYPE_F8E4M3 && m->format.scale == EW_DTYPE_F8E8M0 &&
           m->format.group == 32 && m->facts.rows_same && m->facts.row_scale == 1.0f;
}

static ew_status put_mxfp8(struct matrix *m, const char *in[3], const char *out)
{
    EW_TRY(put_tensor(m, in[1], SCALES, EW_DTYPE_F8E8M0, EW_DTYPE_U8));
    EW_TRY(put_dq(m, "TRT_MXFP8DequantizeLinear", in, out, -1, 32, EW_DTYPE_F32));
    return ew_onnx_last_domain(m->o, EW_ONNX_TRT_DOMAIN);
}

static ew_status put_dequantized(struct matrix *m, const char *out)
{
    const char *in[3] = { m->v->name, ew_onnx_step(m->o, m->v->name, "scales"), NULL };
    ew_dtype code = m->format.code, to;

    if (!in[1])
        return ew_onnx_out_no_memory(m->o);
    /* A zero point of 16 (GPTQ has them) needs another byte. */
    if (code == EW_DTYPE_U4 && m->facts.zero_max > 15)
        code = EW_DTYPE_U8;
    if (m->facts.zero_max > 255)
        return ew_fail(m->o->err, EW_STATUS_UNSUPPORTED,
                       "weight '%s' has a zero point of %d, ONNX has up to 255", m->v->name,
                       m->facts.zero_max);
    EW_TRY(put_tensor(m, in[0], CODES, code, code));
    if (is_mxfp8(m))
        return put_mxfp8(m, in, out);
    EW_TRY(put_scales(m, in[1], &to));
    if (m->format.zero) {
        in[2] = ew_onnx_step(m->o, m->v->name, "zeros");
        if (!in[2])
            return ew_onnx_out_no_memory(m->o);
        EW_TRY(put_tensor(m, in[2], ZEROS, code, code));
    }
    return put_dq(m, "DequantizeLinear", in, out, m->format.group ? 1 : 0, m->format.group, to);
}

ew_status ew_onnx_save_dequantized(struct ew_onnx_out *o, const struct ew_value *v, const char *out)
{
    struct matrix m;

    EW_TRY(matrix_open(&m, o, v));
    find_facts(&m);
    const ew_status st = put_dequantized(&m, out);
    matrix_close(&m);
    return st;
}

/* ---- the int4 plugin ---- */

static ew_status put_int4_codes(struct matrix *m, const char *name)
{
    const size_t k = m->args.k;
    const int64_t dims[2] = { (int64_t)(m->args.n / 2), (int64_t)k };
    const struct ew_type type = ew_type_make(EW_DTYPE_I8, 2, dims);
    uint8_t *packed = ew_mem_alloc(EW_MEM_ONNX, 2 * k);
    ew_status st = packed ? ew_onnx_begin_data(m->o, name, &type) : ew_onnx_out_no_memory(m->o);

    for (size_t n = 0; n < m->args.n && !st; n += 4) {
        ew_weight_parts_read(&m->args, n, 4, &m->rows);
        for (size_t i = 0; i < 4 * k; i++)
            m->rows.codes[i] = (uint8_t)(m->rows.codes[i] + 8u);
        ew_onnx_int4_pack(packed, m->rows.codes, k);
        st = ew_onnx_write_data(m->o, packed, 2 * k);
    }
    ew_mem_free(packed);
    return st;
}

static ew_status put_int4_scales(struct matrix *m, const char *name)
{
    const int64_t dims[2] = { (int64_t)m->groups, (int64_t)m->args.n };
    const struct ew_type type = ew_type_make(EW_DTYPE_F16, 2, dims);
    uint16_t *scales = ew_mem_calloc(EW_MEM_ONNX, m->groups * m->args.n, sizeof(*scales));

    if (!scales)
        return ew_onnx_out_no_memory(m->o);
    for (size_t n = 0; n < m->args.n; n++) {
        read_row(m, n);
        for (size_t g = 0; g < m->groups; g++)
            ew_elem_set_f64(scales, EW_DTYPE_F16, g * m->args.n + n,
                            (double)m->rows.scales[g] * (double)m->rows.row_scale[0]);
    }
    ew_status st = ew_onnx_begin_data(m->o, name, &type);
    if (!st)
        st = ew_onnx_write_data(m->o, scales, m->groups * m->args.n * sizeof(*scales));
    ew_mem_free(scales);
    return st;
}

static ew_status put_int4_tensors(struct ew_onnx_out *o, const struct ew_value *v,
                                  const char *scales, bool *fits)
{
    struct matrix m;

    EW_TRY(matrix_open(&m, o, v));
    find_facts(&m);
    *fits = m.facts.f16_exact;
    ew_status st = EW_STATUS_OK;
    if (*fits)
        st = put_int4_codes(&m, v->name);
    if (*fits && !st)
        st = put_int4_scales(&m, scales);
    matrix_close(&m);
    return st;
}

ew_status ew_onnx_save_int4(struct ew_onnx_out *o, const struct ew_value *v, const char *x,
                            const char *out, bool *done)
{
    const struct ew_quant_format *f = ew_const_quant(v);
    const int64_t n = v->type.dim[0], k = v->type.dim[1];
    const char *in[3] = { x, v->name, ew_onnx_step(o, v->name, "scales") };

    *done = false;
    if (f->code != EW_DTYPE_I4 || f->group != INT4_GROUP || n % 128 || k % INT4_GROUP ||
        (o->const_done[v->id] & EW_ONNX_DONE_VALUE))
        return EW_STATUS_OK;
    if (!in[2])
        return ew_onnx_out_no_memory(o);
    if (!(o->const_done[v->id] & EW_ONNX_DONE_INT4)) {
        EW_TRY(put_int4_tensors(o, v, in[2], done));
        if (!*done)
            return EW_STATUS_OK;
        o->const_done[v->id] |= EW_ONNX_DONE_INT4;
    }
    *done = true;
    Onnx__NodeProto *p = ew_onnx_put_node(o, "Int4GroupwiseGemmPlugin", out, in, 3, &out, 1);
    if (!p || !ew_onnx_put_int(o, p, "gemm_n", n) || !ew_onnx_put_int(o, p, "gemm_k", k) ||
        !ew_onnx_put_int(o, p, "group_size", INT4_GROUP))
        return ew_onnx_out_no_memory(o);
    return ew_onnx_last_domain(o, EW_ONNX_PLUGIN_DOMAIN);
}

/* ---- rounding of x ---- */

static ew_status put_static(struct ew_onnx_out *o, const struct ew_attr_linear *a,
                            const char *const name[4], ew_dtype x_dtype)
{
    const char *in[2] = { name[0], name[3] };
    const ew_dtype code = a->x_quant == EW_XQ_INT8 ? EW_DTYPE_I8 : EW_DTYPE_F8E4M3;

    EW_TRY(ew_onnx_put_f32(o, name[3], a->x_scale));
    Onnx__NodeProto *p = ew_onnx_put_node(o, "QuantizeLinear", name[1], in, 2, &name[1], 1);
    if (!p || !ew_onnx_put_int(o, p, "output_dtype", ew_onnx_data_type(code)))
        return ew_onnx_out_no_memory(o);
    in[0] = name[1];
    p = ew_onnx_put_node(o, "DequantizeLinear", name[2], in, 2, &name[2], 1);
    if (!p || (x_dtype != EW_DTYPE_F32 &&
               !ew_onnx_put_int(o, p, "output_dtype", ew_onnx_data_type(x_dtype))))
        return ew_onnx_out_no_memory(o);
    return EW_STATUS_OK;
}

ew_status ew_onnx_save_block_quantize(struct ew_onnx_out *o, int32_t kind, int64_t block,
                                      const char *const *in, size_t n_in, const char *const *out)
{
    const bool is_fp4 = kind == EW_XQ_NVFP4 && block == 16;
    const bool is_mxfp8 = kind == EW_XQ_MXFP8 && block == 32;
    const char *const op = is_fp4     ? "TRT_FP4DynamicQuantize"
                           : is_mxfp8 ? "TRT_MXFP8DynamicQuantize"
                                      : "BlockQuantize";
    Onnx__NodeProto *p = ew_onnx_put_node(o, op, out[0], in, n_in, out, 2);
    bool ok = p != NULL;

    if (is_fp4 || is_mxfp8) {
        ok = ok && ew_onnx_put_int(o, p, "axis", -1) &&
             ew_onnx_put_int(o, p, "block_size", block) &&
             ew_onnx_put_int(o, p, is_fp4 ? "scale_type" : "output_dtype",
                             ew_onnx_data_type(EW_DTYPE_F8E4M3));
        return ok ? ew_onnx_last_domain(o, EW_ONNX_TRT_DOMAIN) : ew_onnx_out_no_memory(o);
    }
    ok =
        ok &&
        ew_onnx_put_text(o, p, "x_quant", ew_op_get(EW_OP_BLOCK_QUANTIZE)->fields[0].names[kind]) &&
        (!block || ew_onnx_put_int(o, p, "block", block));
    return ok ? ew_onnx_last_domain(o, EW_ONNX_OWN_DOMAIN) : ew_onnx_out_no_memory(o);
}

/* Scales of NVFP4's blocks: their e4m3 times the factor. */
static ew_status put_nvfp4_scales(struct ew_onnx_out *o, const char **scales, const char *factor,
                                  const char *out)
{
    const char *in[2] = { *scales, factor };

    *scales = out;
    if (!ew_onnx_put_node(o, "DequantizeLinear", out, in, 2, &out, 1))
        return ew_onnx_out_no_memory(o);
    return ew_onnx_last_domain(o, EW_ONNX_TRT_DOMAIN);
}

static ew_status put_dynamic(struct ew_onnx_out *o, const struct ew_node *n,
                             const char *const name[4], const char *const scale_names[2])
{
    const struct ew_attr_linear *a = &n->attrs.linear;
    const struct ew_type *x = &n->in[0]->type;
    const int32_t kind = ew_x_quant_of_x(a->x_quant);
    const bool is_row = kind == EW_XQ_INT8_ROW || kind == EW_XQ_FP8_ROW;
    const bool is_fp4 = a->x_quant == EW_XQ_NVFP4;
    const bool is_mx = a->x_quant == EW_XQ_MXFP8 || a->x_quant == EW_XQ_MXFP4;
    const int64_t block = is_row ? n->in[1]->type.dim[1] : a->x_block;
    const char *in[2] = { name[0], name[3] }, *out[2] = { name[1], scale_names[0] };
    const bool is_trt_mx = a->x_quant == EW_XQ_MXFP8 && block == 32;

    if (is_fp4)
        EW_TRY(ew_onnx_put_f32(o, name[3], a->x_scale));
    EW_TRY(ew_onnx_save_block_quantize(o, kind, is_row ? 0 : block, in, is_fp4 ? 2 : 1, out));
    if (is_fp4)
        EW_TRY(put_nvfp4_scales(o, &out[1], name[3], scale_names[1]));
    Onnx__NodeProto *p =
        ew_onnx_put_node(o, is_trt_mx ? "TRT_MXFP8DequantizeLinear" : "DequantizeLinear", name[2],
                         out, 2, &name[2], 1);
    if (!p || !ew_onnx_put_int(o, p, "axis", -1) || !ew_onnx_put_int(o, p, "block_size", block) ||
        ((is_mx || x->dtype != EW_DTYPE_F32) &&
         !ew_onnx_put_int(o, p, "output_dtype", ew_onnx_data_type(x->dtype))))
        return ew_onnx_out_no_memory(o);
    return is_fp4 || is_trt_mx ? ew_onnx_last_domain(o, EW_ONNX_TRT_DOMAIN) : EW_STATUS_OK;
}

ew_status ew_onnx_save_x_quant(struct ew_onnx_out *o, const struct ew_node *n, const char **x)
{
    const struct ew_attr_linear *a = &n->attrs.linear;
    const char *base = n->out[0]->name;
    const char *const name[4] = { *x, ew_onnx_step(o, base, "x_codes"), ew_onnx_step(o, base, "x"),
                                  ew_onnx_step(o, base, "x_scale") };
    const char *const scales[2] = { ew_onnx_step(o, base, "x_scales"),
                                    ew_onnx_step(o, base, "x_scaled") };

    if (a->x_quant == EW_XQ_NONE)
        return EW_STATUS_OK;
    if (a->x_quant == EW_XQ_BF16)
        return ew_fail(o->err, EW_STATUS_UNSUPPORTED,
                       "node '%s': x rounded to bf16 is not written to ONNX; export with exact "
                       "activations",
                       n->name);
    if (!name[1] || !name[2] || !name[3] || !scales[0] || !scales[1])
        return ew_onnx_out_no_memory(o);
    *x = name[2];
    if (a->x_quant == EW_XQ_INT8 || a->x_quant == EW_XQ_FP8)
        return put_static(o, a, name, n->in[0]->type.dtype);
    return put_dynamic(o, n, name, scales);
}
