/* checkpoint/quant_load.c - see quant_load.h: codes, scales, globals and activations of a module.
 * Zero points and orders of columns are in quant_zeros.c. */
#include "checkpoint/quant_load.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/size.h"
#include "base/text.h"
#include "checkpoint/quant_load_impl.h"
#include "tensor/tensor.h"

#define NAME_CAP 320

bool ew_qx_is_known_extra(const char *name)
{
    static const char *const tails[] = {
        ".input_scale",      ".input_zero_point", ".input_global_scale",
        ".input_scale_ub",   ".output_scale",     ".output_zero_point",
        ".activation_scale", ".weight_shape",     ".q_scale",
        ".k_scale",          ".v_scale",          ".q_zero_point",
        ".k_zero_point",     ".v_zero_point",
    };

    return ew_has_tail(name, tails, EW_COUNT(tails));
}

bool ew_qx_looks_quantised(const char *name)
{
    static const char *const tails[] = { ".qweight",      ".qzeros",           ".weight_packed",
                                         ".weight_scale", ".weight_scale_inv", ".weight_scale_2",
                                         "_proj_blocks",  "_proj_scale_inv" };

    return ew_has_tail(name, tails, EW_COUNT(tails));
}

/* ---- tensors ---- */

static const struct ew_st_tensor *find_named(const struct ew_qx_loader *l, const char *module,
                                             const char *sep, const char *tail, char *name)
{
    snprintf(name, NAME_CAP, "%s%s%s", module, sep, tail);
    return ew_safetensors_find(l->st, name);
}

const struct ew_st_tensor *ew_qx_find(const struct ew_qx_job *j, const char *tail)
{
    char name[NAME_CAP];

    return find_named(j->l, j->module, j->n_stack ? "" : ".", tail, name);
}

void ew_qx_mark(const struct ew_qx_job *j, const struct ew_st_tensor *t)
{
    j->l->used[t - ew_safetensors_at(j->l->st, 0)] = 1;
}

static ew_status missing(const struct ew_qx_job *j, const char *tail, const char *want,
                         ew_error *err)
{
    return ew_fail(err, EW_STATUS_NOT_FOUND,
                   "tensor '%s%s%s' %s is missing, quantised weights need it", j->module,
                   j->n_stack ? "" : ".", tail, want);
}

ew_status ew_qx_take(const struct ew_qx_job *j, const char *tail, const ew_dtype *dtypes,
                     size_t n_dtypes, int n_dims, const int64_t *dims,
                     const struct ew_st_tensor **out, ew_error *err)
{
    struct ew_type want = ew_type_make(dtypes[0], n_dims, dims);
    const struct ew_st_tensor *t = ew_qx_find(j, tail);
    char want_text[128], have_text[128];
    bool known = false;

    ew_type_text(&want, want_text, sizeof(want_text));
    if (!t)
        return missing(j, tail, want_text, err);
    ew_type_text(&t->type, have_text, sizeof(have_text));
    for (size_t i = 0; i < n_dtypes; i++)
        known = known || t->type.dtype == dtypes[i];
    if (known)
        want.dtype = t->type.dtype;
    if (!known || !ew_type_equal(&want, &t->type))
        return ew_fail(err, EW_STATUS_MISMATCH, "%s: tensor '%s' is %s, this format wants %s",
                       ew_safetensors_file(j->l->st, t->i_file), t->name, have_text, want_text);
    ew_qx_mark(j, t);
    *out = t;
    return EW_STATUS_OK;
}

ew_status ew_qx_no_memory(const struct ew_qx_job *j, ew_error *err)
{
    return ew_fail(err, EW_STATUS_NO_MEMORY, "no memory for quantised module '%s'", j->module);
}

/* Files promise no alignment: what lies askew is copied into the graph. */
static const void *aligned_data(const struct ew_qx_job *j, const struct ew_st_tensor *t)
{
    void *copy;

    if ((uintptr_t)t->data % (ew_dtype_bits(t->type.dtype) / 8) == 0)
        return t->data;
    copy = ew_arena_alloc(j->l->arena, t->bytes);
    if (copy)
        memcpy(copy, t->data, t->bytes);
    return copy;
}

/* ---- codes ---- */

static ew_status check_divides(const struct ew_qx_job *j, const char *what, size_t n, size_t by,
                               ew_error *err)
{
    if (n % by == 0)
        return EW_STATUS_OK;
    return ew_fail(err, EW_STATUS_MISMATCH, "quantised module '%s': %s %zu is no multiple of %zu",
                   j->module, what, n, by);
}

/* Bytes of codes that mean no number. */
static ew_status scan_codes(const struct ew_st_tensor *t, ew_dtype code, ew_error *err)
{
    const uint8_t *b = t->data;
    unsigned bad = 0, limit = code == EW_DTYPE_F8E5M2 ? 0x7c : 0x7f;

    if (code != EW_DTYPE_F8E4M3 && code != EW_DTYPE_F8E5M2)
        return EW_STATUS_OK;
    for (size_t i = 0; i < t->bytes; i++)
        bad |= (b[i] & 0x7fu) >= limit;
    if (!bad)
        return EW_STATUS_OK;
    return ew_fail(err, EW_STATUS_MALFORMED, "tensor '%s' has a code that is not finite (%s)",
                   t->name, ew_dtype_text(code));
}

static ew_status scan_small_ints(const struct ew_st_tensor *t, ew_error *err)
{
    const int8_t *b = t->data;

    for (size_t i = 0; i < t->bytes; i++)
        if (b[i] < -8 || b[i] > 7)
            return ew_fail(err, EW_STATUS_MALFORMED,
                           "tensor '%s': code %zu is %d, 4 bits hold -8..7", t->name, i, b[i]);
    return EW_STATUS_OK;
}

/* A code a byte: the dtype tells. */
static ew_status take_bytes(struct ew_qx_job *j, const int64_t *dims, int n_dims, ew_error *err)
{
    static const ew_dtype floats[] = { EW_DTYPE_F8E4M3, EW_DTYPE_F8E5M2 };
    static const ew_dtype ints[] = { EW_DTYPE_I8 };
    const bool is_float = j->s->code == EW_DTYPE_F8E4M3;

    EW_TRY(ew_qx_take(j, j->codes_name, is_float ? floats : ints, is_float ? 2 : 1, n_dims, dims,
                      &j->codes, err));
    if (is_float)
        j->src->base.format.code = j->codes->type.dtype;
    EW_TRY(scan_codes(j->codes, j->src->base.format.code, err));
    if (j->s->code == EW_DTYPE_I4)
        EW_TRY(scan_small_ints(j->codes, err));
    j->src->bytes = true;
    j->src->pitch = j->k;
    return EW_STATUS_OK;
}

static ew_status take_codes(struct ew_qx_job *j, ew_error *err)
{
    static const ew_dtype word = EW_DTYPE_I32, byte = EW_DTYPE_U8;
    const size_t bits = ew_dtype_bits(j->s->code), per_word = 32 / bits, n = j->n, k = j->k;
    int64_t dims[4] = { (int64_t)n, (int64_t)k };

    j->src->layout = j->s->layout;
    switch (j->s->layout) {
    case EW_QX_ROWS:
        if (bits == 8 || j->s->code == EW_DTYPE_I4)
            return take_bytes(j, dims, 2, err);
        EW_TRY(check_divides(j, "columns", k, 2, err));
        dims[1] = (int64_t)(k / 2);
        j->src->pitch = k / 2;
        return ew_qx_take(j, j->codes_name, &byte, 1, 2, dims, &j->codes, err);
    case EW_QX_PACKED:
        dims[1] = (int64_t)((k + per_word - 1) / per_word);
        j->src->pitch = (size_t)dims[1] * 4;
        j->src->bytes = bits == 8;
        j->src->flip = bits == 8 ? 0x80 : 8;
        return ew_qx_take(j, j->codes_name, &word, 1, 2, dims, &j->codes, err);
    case EW_QX_PAIRS:
        EW_TRY(check_divides(j, "rows", n, 2, err));
        dims[0] = (int64_t)(n / 2);
        j->src->pitch = k;
        return ew_qx_take(j, j->codes_name, &byte, 1, 2, dims, &j->codes, err);
    case EW_QX_AWQ:
        EW_TRY(check_divides(j, "rows", n, 8, err));
        dims[0] = (int64_t)k;
        dims[1] = (int64_t)(n / 8);
        break;
    case EW_QX_GPTQ:
    default:
        EW_TRY(check_divides(j, "rows", n, per_word, err));
        EW_TRY(check_divides(j, "columns", k, per_word, err));
        dims[0] = (int64_t)(k / per_word);
        dims[1] = (int64_t)n;
        break;
    }
    j->src->pitch = n;
    j->src->bytes = bits == 8;
    return ew_qx_take(j, j->codes_name, &word, 1, 2, dims, &j->codes, err);
}

/* ---- scales ---- */

/* Whether a tensor's dims are [lead..., a, b], leading ones of 1 or none allowed for single ones.
 */
static bool dims_are(const struct ew_type *t, size_t n_stack, int n_dims, const size_t *dims)
{
    const int lead = n_stack ? 1 : 0;

    if (t->n_dims != n_dims + lead || (lead && t->dim[0] != (int64_t)n_stack))
        return false;
    for (int i = 0; i < n_dims; i++)
        if (t->dim[lead + i] != (int64_t)dims[i])
            return false;
    return true;
}

static bool grain_matches(const struct ew_qx_job *j, const struct ew_type *t, unsigned grain,
                          const size_t *blocks)
{
    const size_t one[2] = { 1, 1 }, rows[2] = { j->n, 1 };
    const size_t turned[2] = { blocks[1], blocks[0] };
    const size_t apart[4] = { blocks[0], 1, blocks[1], 1 };
    const bool columns = j->s->layout == EW_QX_AWQ || j->s->layout == EW_QX_GPTQ;

    switch (grain) {
    case EW_QX_TENSOR:
        return dims_are(t, j->n_stack, 0, one) || dims_are(t, j->n_stack, 1, one) ||
               dims_are(t, j->n_stack, 2, one);
    case EW_QX_CHANNEL:
        return columns ? dims_are(t, 0, 2, turned)
                       : dims_are(t, j->n_stack, 1, rows) || dims_are(t, j->n_stack, 2, rows);
    case EW_QX_GROUP:
        return dims_are(t, j->n_stack, 2, columns ? turned : blocks);
    default:
        return dims_are(t, j->n_stack, 2, blocks) || dims_are(t, j->n_stack, 4, apart);
    }
}

static bool scale_dtype_ok(const struct ew_qx_scheme *s, ew_dtype d)
{
    if (s->scale == EW_DTYPE_F8E8M0)
        return d == EW_DTYPE_U8 || d == EW_DTYPE_F8E8M0;
    if (s->scale != EW_DTYPE_NONE)
        return d == s->scale;
    return d == EW_DTYPE_F32 || d == EW_DTYPE_F16 || d == EW_DTYPE_BF16 ||
           (s->grains == EW_QX_BLOCK && d == EW_DTYPE_F8E8M0);
}

static ew_status scan_scales(const struct ew_st_tensor *t, const void *data, ew_dtype dtype,
                             ew_error *err)
{
    const size_t n = t->bytes / (ew_dtype_bits(dtype) / 8);

    for (size_t i = 0; i < n; i++) {
        const double v = ew_elem_get_f64(data, dtype, i);

        if (!isfinite(v))
            return ew_fail(err, EW_STATUS_MALFORMED, "tensor '%s': scale %zu is %g, not finite",
                           t->name, i, v);
    }
    return EW_STATUS_OK;
}

static void set_scale_strides(struct ew_qx_job *j, unsigned grain, const size_t *blocks)
{
    struct ew_qx_source *src = j->src;
    const bool columns = j->s->layout == EW_QX_AWQ || j->s->layout == EW_QX_GPTQ;

    src->scales_are_rows = grain == EW_QX_TENSOR || grain == EW_QX_CHANNEL;
    src->scale_row = grain == EW_QX_TENSOR ? 0 : grain == EW_QX_CHANNEL || columns ? 1 : blocks[1];
    src->scale_col = src->scales_are_rows ? 0 : columns ? blocks[0] : 1;
    src->block_n = grain == EW_QX_BLOCK ? j->s->block_n : 1;
    src->base.format.group = src->scales_are_rows ? 0 : j->s->group;
    src->base.format.scale = src->scales_are_rows ? EW_DTYPE_NONE : src->scale_dtype;
    j->scale_count = grain == EW_QX_TENSOR ? 1 : blocks[0] * blocks[1];
}

static ew_status take_scales(struct ew_qx_job *j, ew_error *err)
{
    static const unsigned grains[] = { EW_QX_TENSOR, EW_QX_CHANNEL, EW_QX_GROUP, EW_QX_BLOCK };
    const struct ew_qx_scheme *s = j->s;
    const struct ew_st_tensor *t = ew_qx_find(j, j->scales_name);
    const size_t block_n = s->grains == EW_QX_BLOCK ? s->block_n : 1;
    const size_t group = s->group ? s->group : j->k;
    const size_t blocks[2] = { (j->n + block_n - 1) / block_n, (j->k + group - 1) / group };
    char have[128], want[64];
    unsigned grain = 0;

    if (s->grains == EW_QX_GROUP)
        EW_TRY(check_divides(j, "columns", j->k, s->group, err));
    const bool columns = s->layout == EW_QX_AWQ || s->layout == EW_QX_GPTQ;
    snprintf(want, sizeof(want), "[%zu,%zu]", blocks[columns], blocks[!columns]);
    if (!t)
        return missing(j, j->scales_name, want, err);
    for (size_t i = 0; i < EW_COUNT(grains) && !grain; i++)
        if ((s->grains & grains[i]) && grain_matches(j, &t->type, grains[i], blocks))
            grain = grains[i];
    ew_type_text(&t->type, have, sizeof(have));
    if (!scale_dtype_ok(s, t->type.dtype) || !grain)
        return ew_fail(err, EW_STATUS_MISMATCH,
                       "%s: tensor '%s' is %s, this format wants %s scales of %s blocks",
                       ew_safetensors_file(j->l->st, t->i_file), t->name, have,
                       s->scale == EW_DTYPE_NONE ? "float" : ew_dtype_text(s->scale), want);
    ew_qx_mark(j, t);
    j->scales = t;
    j->src->scales = aligned_data(j, t);
    if (!j->src->scales)
        return ew_qx_no_memory(j, err);
    j->src->scale_dtype = t->type.dtype == EW_DTYPE_U8 ? EW_DTYPE_F8E8M0 : t->type.dtype;
    set_scale_strides(j, grain, blocks);
    return scan_scales(t, j->src->scales, j->src->scale_dtype, err);
}

/* A positive number alone in a tensor, its inverse if asked. */
static ew_status take_number(const struct ew_qx_job *j, const char *tail, bool inverse, float *out,
                             ew_error *err)
{
    const struct ew_st_tensor *t = ew_qx_find(j, tail);
    char have[128];
    size_t count;
    double v;

    if (!t)
        return missing(j, tail, "f32[]", err);
    ew_type_text(&t->type, have, sizeof(have));
    if (!ew_type_count(&t->type, &count) || count != 1 ||
        (t->type.dtype != EW_DTYPE_F32 && t->type.dtype != EW_DTYPE_F16 &&
         t->type.dtype != EW_DTYPE_BF16))
        return ew_fail(err, EW_STATUS_MISMATCH, "%s: tensor '%s' is %s, this format wants f32[]",
                       ew_safetensors_file(j->l->st, t->i_file), t->name, have);
    const void *data = aligned_data(j, t);
    if (!data)
        return ew_qx_no_memory(j, err);
    v = ew_elem_get_f64(data, t->type.dtype, 0);
    *out = (float)(inverse ? 1.0 / v : v);
    if (!(v > 0) || !isfinite(*out) || *out <= 0)
        return ew_fail(err, EW_STATUS_MALFORMED, "tensor '%s' is %g, a scale must be above 0",
                       t->name, v);
    ew_qx_mark(j, t);
    return EW_STATUS_OK;
}

/* ---- activations ---- */

static ew_status take_x_mul(struct ew_qx_job *j, struct ew_qx_module *out, ew_error *err)
{
    static const ew_dtype floats[] = { EW_DTYPE_F32, EW_DTYPE_F16, EW_DTYPE_BF16 };
    const int64_t dim = (int64_t)j->k;
    const struct ew_st_tensor *t = NULL;
    const void *data;
    float *v;

    if (!j->s->x_mul || !ew_qx_find(j, "pre_quant_scale"))
        return EW_STATUS_OK;
    EW_TRY(ew_qx_take(j, "pre_quant_scale", floats, EW_COUNT(floats), 1, &dim, &t, err));
    data = aligned_data(j, t);
    v = ew_arena_new(j->l->arena, float, j->k);
    if (!data || !v)
        return ew_qx_no_memory(j, err);
    ew_convert_floats(v, EW_DTYPE_F32, data, t->type.dtype, j->k);
    EW_TRY(scan_scales(t, data, t->type.dtype, err));
    out->x_mul = v;
    return EW_STATUS_OK;
}

static ew_status set_x_quant(struct ew_qx_job *j, struct ew_qx_module *out, ew_error *err)
{
    const ew_dtype code = j->src->base.format.code;

    if (j->l->activations == EW_ACTIVATIONS_INT8)
        out->x_quant = code == EW_DTYPE_I4 || code == EW_DTYPE_U4 ? EW_XQ_INT8_W8 : EW_XQ_INT8_ROW;
    if (j->l->activations != EW_ACTIVATIONS_DECLARED)
        return EW_STATUS_OK;
    if (j->s->x_refused)
        return ew_fail(err, EW_STATUS_UNSUPPORTED,
                       "quantised module '%s' declares %s, which activations \"declared\" does not "
                       "support",
                       j->module, j->s->x_refused);
    out->x_quant = j->s->x_quant;
    out->x_block = j->s->x_block;
    if (!j->s->x_scale)
        return EW_STATUS_OK;
    return take_number(j, j->s->x_scale, j->s->x_scale_inverse, &out->x_scale, err);
}

/* ---- a module ---- */

bool ew_qx_is_stored(const struct ew_qx_loader *l, const struct ew_qx_scheme *s, const char *module)
{
    char name[NAME_CAP];
    const struct ew_st_tensor *codes, *weight;

    if (s->layout == EW_QX_PLAIN || s->layout == EW_QX_BLOCKS)
        return false;
    /* A plain weight among quantised ones is what it is. */
    codes = find_named(l, module, ".", s->codes, name);
    weight = find_named(l, module, ".", "weight", name);
    if (weight && weight->type.dtype != EW_DTYPE_F32 && weight->type.dtype != EW_DTYPE_F16 &&
        weight->type.dtype != EW_DTYPE_BF16)
        weight = NULL;
    return codes ? codes != weight : !weight;
}

static ew_status check_shape(struct ew_qx_job *j, ew_error *err)
{
    const struct ew_st_tensor *t = j->n_stack ? NULL : ew_qx_find(j, "weight_shape");
    static const ew_dtype ints[] = { EW_DTYPE_I64, EW_DTYPE_I32 };
    const int64_t dim = 2;
    int64_t v[2];

    if (!t)
        return EW_STATUS_OK;
    EW_TRY(ew_qx_take(j, "weight_shape", ints, 2, 1, &dim, &t, err));
    const void *data = aligned_data(j, t);
    if (!data)
        return ew_qx_no_memory(j, err);
    for (size_t i = 0; i < 2; i++)
        v[i] = ew_elem_get_i64(data, t->type.dtype, i);
    if (v[0] == (int64_t)j->n && v[1] == (int64_t)j->k)
        return EW_STATUS_OK;
    return ew_fail(err, EW_STATUS_MISMATCH,
                   "tensor '%s' is [%" PRId64 ",%" PRId64 "], the config wants [%zu,%zu]", t->name,
                   v[0], v[1], j->n, j->k);
}

static ew_status finish(struct ew_qx_job *j, struct ew_qx_module *out, ew_error *err)
{
    struct ew_qx_source *src = j->src;

    if (!ew_quant_format_ok(&src->base.format)) {
        char text[64];

        ew_quant_format_text(&src->base.format, text, sizeof(text));
        return ew_fail(err, EW_STATUS_UNSUPPORTED,
                       "quantised module '%s': format %s is not "
                       "supported",
                       j->module, text);
    }
    ew_qx_source_init(src);
    out->source = &src->base;
    return EW_STATUS_OK;
}

static ew_status new_source(struct ew_qx_job *j, ew_error *err)
{
    j->src = ew_arena_new(j->l->arena, struct ew_qx_source, 1);
    if (!j->src)
        return ew_qx_no_memory(j, err);
    j->src->base.name = ew_arena_strdup(j->l->arena, j->module);
    j->src->base.n = j->n;
    j->src->base.k = j->k;
    j->src->base.format.code = j->s->code;
    j->src->global = 1.0f;
    return j->src->base.name ? EW_STATUS_OK : ew_qx_no_memory(j, err);
}

ew_status ew_qx_load(struct ew_qx_loader *l, const struct ew_qx_scheme *s, const char *module,
                     size_t n, size_t k, struct ew_qx_module *out, ew_error *err)
{
    struct ew_qx_job j = { .l = l,
                           .s = s,
                           .module = module,
                           .n = n,
                           .k = k,
                           .codes_name = s->codes,
                           .scales_name = s->scales };

    *out = (struct ew_qx_module){ 0 };
    if (s->layout == EW_QX_BLOCKS || s->layout == EW_QX_PLAIN)
        return ew_fail(err, EW_STATUS_UNSUPPORTED,
                       "module '%s': its format is for stacked experts alone", module);
    EW_TRY(new_source(&j, err));
    EW_TRY(check_shape(&j, err));
    EW_TRY(take_codes(&j, err));
    EW_TRY(take_scales(&j, err));
    j.src->codes = j.codes->data;
    if (s->global)
        EW_TRY(take_number(&j, s->global, s->global_inverse, &j.src->global, err));
    EW_TRY(ew_qx_take_zeros(&j, err));
    EW_TRY(ew_qx_take_order(&j, out, err));
    EW_TRY(take_x_mul(&j, out, err));
    EW_TRY(set_x_quant(&j, out, err));
    return finish(&j, out, err);
}

/* ---- stacks of experts ---- */

static ew_status take_stack_codes(struct ew_qx_job *j, ew_error *err)
{
    static const ew_dtype byte = EW_DTYPE_U8;
    const int64_t dims[4] = { (int64_t)j->n_stack, (int64_t)j->n, (int64_t)(j->k / 32), 16 };
    const int64_t whole[3] = { dims[0], dims[1], (int64_t)j->k };

    j->src->layout = EW_QX_ROWS;
    if (j->s->layout == EW_QX_ROWS && ew_dtype_bits(j->s->code) == 8)
        return take_bytes(j, whole, 3, err);
    if (j->s->layout != EW_QX_BLOCKS)
        return ew_fail(err, EW_STATUS_UNSUPPORTED,
                       "tensor '%s': stacked experts of this format are not supported", j->module);
    EW_TRY(check_divides(j, "columns", j->k, 32, err));
    j->src->pitch = j->k / 2;
    return ew_qx_take(j, j->codes_name, &byte, 1, 4, dims, &j->codes, err);
}

ew_status ew_qx_load_stack(struct ew_qx_loader *l, const struct ew_qx_scheme *s, const char *name,
                           size_t n_stack, size_t n, size_t k, struct ew_qx_module *out,
                           ew_error *err)
{
    const bool blocks = s->layout == EW_QX_BLOCKS;
    struct ew_qx_job j = { .l = l,
                           .s = s,
                           .module = name,
                           .n = n,
                           .k = k,
                           .n_stack = n_stack,
                           .codes_name = blocks ? s->codes : "",
                           .scales_name = blocks ? s->scales : s->scales + strlen("weight") };
    struct ew_qx_source *all;

    EW_TRY(new_source(&j, err));
    EW_TRY(take_stack_codes(&j, err));
    EW_TRY(take_scales(&j, err));
    j.src->codes = j.codes->data;
    all = ew_arena_new(l->arena, struct ew_qx_source, n_stack);
    if (!all)
        return ew_qx_no_memory(&j, err);
    for (size_t e = 0; e < n_stack; e++) {
        const size_t scale_bytes = j.scale_count * (ew_dtype_bits(j.src->scale_dtype) / 8);
        const struct ew_qx_source *first = j.src;

        all[e] = *first;
        all[e].codes = first->codes + e * n * first->pitch;
        all[e].scales = (const uint8_t *)first->scales + e * scale_bytes;
        out[e] = (struct ew_qx_module){ 0 };
        j.src = &all[e];
        EW_TRY(set_x_quant(&j, &out[e], err));
        EW_TRY(finish(&j, &out[e], err));
        j.src = (struct ew_qx_source *)(uintptr_t)first;
    }
    return EW_STATUS_OK;
}
