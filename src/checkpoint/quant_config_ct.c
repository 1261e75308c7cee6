/* checkpoint/quant_config_ct.c - quantization_config of compressed-tensors: groups of targets, each
 * with arguments of its weights and of its input activations, and a storage format. */
#include <inttypes.h>
#include <string.h>

#include "base/json.h"
#include "base/size.h"
#include "checkpoint/quant_config.h"

/* One "weights" or "input_activations" object. */
struct args {
    int64_t bits, group, block[2];
    bool is_float, symmetric, dynamic, ordered;
    const char *strategy, *scale_dtype;
};

static ew_status read_strategy(const struct ew_qx_config *q, const json_t *o, struct args *a,
                               ew_error *err)
{
    static const char *const all[] = { "tensor", "channel",      "group",
                                       "block",  "tensor_group", "token" };
    const json_t *block = json_object_get(o, "block_structure");
    const char *fallback = a->group > 0 ? "group" : a->group == -1 ? "channel" : "tensor";

    EW_TRY(ew_json_get_str_or(o, "strategy", q->what, fallback, &a->strategy, err));
    for (size_t i = 0; i <= EW_COUNT(all); i++) {
        if (i == EW_COUNT(all))
            return ew_qx_unsupported(q, "strategy", a->strategy, err);
        if (strcmp(a->strategy, all[i]) == 0)
            break;
    }
    for (size_t i = 0; i < 2; i++)
        a->block[i] = (int64_t)json_integer_value(json_array_get(block, i));
    if (strcmp(a->strategy, "block") == 0 &&
        (a->block[0] < 1 || a->block[0] > 65536 || a->block[1] < 8 || a->block[1] > 65536 ||
         a->block[1] % 8 != 0))
        return ew_fail(err, EW_STATUS_UNSUPPORTED,
                       "%s: \"block_structure\" is %" PRId64 " x %" PRId64
                       ", the columns must be a multiple of 8",
                       q->what, a->block[0], a->block[1]);
    return EW_STATUS_OK;
}

static ew_status read_args(const struct ew_qx_config *q, const json_t *o, struct args *a,
                           ew_error *err)
{
    static const char *const known[] = {
        "num_bits",        "type",        "symmetric", "group_size", "strategy",
        "block_structure", "dynamic",     "actorder",  "observer",   "observer_kwargs",
        "zp_dtype",        "scale_dtype", NULL
    };
    const json_t *dynamic = json_object_get(o, "dynamic"), *order = json_object_get(o, "actorder");
    const char *type, *text = json_string_value(order);

    if (!json_is_object(o))
        return ew_fail(err, EW_STATUS_MALFORMED, "%s: arguments of a group are not an object",
                       q->what);
    EW_TRY(ew_qx_check_keys(q, o, known, err));
    EW_TRY(ew_json_get_i64_or(o, "num_bits", q->what, 8, &a->bits, err));
    EW_TRY(ew_json_get_i64_or(o, "group_size", q->what, 0, &a->group, err));
    EW_TRY(ew_json_get_str_or(o, "type", q->what, "int", &type, err));
    EW_TRY(ew_json_get_bool_or(o, "symmetric", q->what, true, &a->symmetric, err));
    EW_TRY(ew_json_get_str_or(o, "scale_dtype", q->what, "", &a->scale_dtype, err));
    a->dynamic = json_is_true(dynamic) || json_is_string(dynamic); /* "local" */
    /* "weight" and "static" order the rounding alone. */
    a->ordered = json_is_true(order) ||
                 (text && (strcmp(text, "group") == 0 || strcmp(text, "dynamic") == 0));
    if (text && !a->ordered && strcmp(text, "weight") != 0 && strcmp(text, "static") != 0)
        return ew_qx_unsupported(q, "actorder", text, err);
    if (strcmp(type, "int") != 0 && strcmp(type, "float") != 0)
        return ew_qx_unsupported(q, "type", type, err);
    a->is_float = strcmp(type, "float") == 0;
    if ((a->bits != 4 && a->bits != 8))
        return ew_fail(err, EW_STATUS_UNSUPPORTED,
                       "%s: \"num_bits\" is %" PRId64 ", 4 or 8 is supported for quant_method "
                       "\"%s\"",
                       q->what, a->bits, q->method);
    return read_strategy(q, o, a, err);
}

static ew_status set_grain(const struct ew_qx_config *q, const struct args *a,
                           struct ew_qx_scheme *s, ew_error *err)
{
    if (strcmp(a->strategy, "tensor") == 0) {
        s->grains = EW_QX_TENSOR;
    } else if (strcmp(a->strategy, "channel") == 0) {
        s->grains = EW_QX_CHANNEL;
    } else if (strcmp(a->strategy, "block") == 0) {
        s->grains = EW_QX_BLOCK;
        s->block_n = (uint32_t)a->block[0];
        s->group = (uint32_t)a->block[1];
    } else if (strcmp(a->strategy, "token") == 0) {
        return ew_qx_unsupported(q, "strategy", a->strategy, err);
    } else {
        if (a->group < 8 || a->group > 65536 || a->group % 8 != 0)
            return ew_fail(err, EW_STATUS_UNSUPPORTED,
                           "%s: \"group_size\" is %" PRId64 ", it must be a multiple of 8 up to "
                           "65536",
                           q->what, a->group);
        s->grains = EW_QX_GROUP;
        s->group = (uint32_t)a->group;
    }
    return EW_STATUS_OK;
}

/* As the library chooses when a file does not say. */
static const char *infer_format(const struct args *w, bool activations)
{
    if (w->is_float && w->bits == 4)
        return w->group == 32 ? "mxfp4-pack-quantized" : "nvfp4-pack-quantized";
    if (w->is_float)
        return w->group == 32 && strcmp(w->scale_dtype, "") != 0 ? "mxfp8-quantized"
                                                                 : "float-quantized";
    return activations ? "int-quantized" : "pack-quantized";
}

static ew_status set_fp4(const struct ew_qx_config *q, const struct args *w, bool nv,
                         struct ew_qx_scheme *s, ew_error *err)
{
    const uint32_t group = nv ? 16 : 32;

    if (!w->is_float || w->bits != 4 || s->grains != EW_QX_GROUP || s->group != group)
        return ew_fail(err, EW_STATUS_UNSUPPORTED,
                       "%s: %s weights must be 4-bit floats in groups of %u", q->what,
                       nv ? "NVFP4" : "MXFP4", group);
    s->code = EW_DTYPE_F4E2M1;
    s->codes = "weight_packed";
    s->scale = nv ? EW_DTYPE_F8E4M3 : EW_DTYPE_F8E8M0;
    if (nv) {
        s->global = "weight_global_scale";
        s->global_inverse = true;
    }
    return EW_STATUS_OK;
}

static ew_status set_format(const struct ew_qx_config *q, const char *format, const struct args *w,
                            struct ew_qx_scheme *s, ew_error *err)
{
    const bool packed = strcmp(format, "pack-quantized") == 0;

    s->layout = packed ? EW_QX_PACKED : EW_QX_ROWS;
    s->codes = packed ? "weight_packed" : "weight";
    s->scales = "weight_scale";
    s->symmetric = w->symmetric;
    s->zero = w->symmetric ? EW_QX_ZERO_NONE : EW_QX_ZERO_STORED;
    s->act_order = !w->is_float;
    s->needs_order = s->act_order && w->ordered;
    if (!w->symmetric && w->is_float)
        return ew_qx_unsupported(q, "symmetric", "false", err);
    if (strcmp(format, "nvfp4-pack-quantized") == 0)
        return set_fp4(q, w, true, s, err);
    if (strcmp(format, "mxfp4-pack-quantized") == 0)
        return set_fp4(q, w, false, s, err);
    if (strcmp(format, "mxfp8-quantized") == 0)
        s->scale = EW_DTYPE_F8E8M0;
    if ((strcmp(format, "mxfp8-quantized") == 0 || strcmp(format, "float-quantized") == 0 ||
         (strcmp(format, "naive-quantized") == 0 && w->is_float)) &&
        w->is_float && w->bits == 8) {
        s->code = EW_DTYPE_F8E4M3;
        return EW_STATUS_OK;
    }
    if ((packed || strcmp(format, "int-quantized") == 0 ||
         strcmp(format, "naive-quantized") == 0) &&
        !w->is_float) {
        s->code = w->bits == 4 ? EW_DTYPE_I4 : EW_DTYPE_I8;
        return EW_STATUS_OK;
    }
    return ew_qx_unsupported(q, "format", format, err);
}

/* What x is rounded to; what cannot be done is remembered, and refused if it is asked for. */
static void set_activations(const struct args *x, struct ew_qx_scheme *s)
{
    const bool token = strcmp(x->strategy, "token") == 0,
               tensor = strcmp(x->strategy, "tensor") == 0;
    const bool group =
        strcmp(x->strategy, "group") == 0 || strcmp(x->strategy, "tensor_group") == 0;

    if (!x->symmetric)
        s->x_refused = "asymmetric activations";
    else if (!x->is_float && x->bits == 8 && x->dynamic && token)
        s->x_quant = EW_XQ_INT8_ROW;
    else if (!x->is_float && x->bits == 8 && !x->dynamic && tensor)
        s->x_quant = EW_XQ_INT8;
    else if (x->is_float && x->bits == 8 && x->dynamic && token)
        s->x_quant = EW_XQ_FP8_ROW;
    else if (x->is_float && x->bits == 8 && !x->dynamic && tensor)
        s->x_quant = EW_XQ_FP8;
    else if (x->is_float && x->bits == 4 && x->group == 16)
        s->x_quant = EW_XQ_NVFP4;
    else if (x->is_float && x->bits == 4 && x->group == 32 && x->dynamic)
        s->x_quant = EW_XQ_MXFP4;
    else if (x->is_float && x->bits == 8 && x->group == 32 && x->dynamic &&
             strcmp(x->scale_dtype, "torch.uint8") == 0)
        s->x_quant = EW_XQ_MXFP8;
    else if (x->is_float && x->bits == 8 && group && x->dynamic && x->group >= 8 &&
             x->group <= 65536)
        s->x_quant = EW_XQ_FP8_BLOCK;
    else
        s->x_refused = "this strategy of activations";
    s->x_block = s->x_quant == EW_XQ_NVFP4 || s->x_quant >= EW_XQ_FP8_BLOCK ? (int32_t)x->group : 0;
    if (s->x_quant == EW_XQ_INT8 || s->x_quant == EW_XQ_FP8)
        s->x_scale = "input_scale";
    if (s->x_quant == EW_XQ_NVFP4) {
        s->x_scale = "input_global_scale";
        s->x_scale_inverse = true;
    }
}

static ew_status add_targets(struct ew_qx_config *q, const json_t *targets,
                             const struct ew_qx_scheme *s, ew_error *err)
{
    if (!json_is_array(targets))
        return ew_fail(err, EW_STATUS_MALFORMED, "%s: \"targets\" is not a list", q->what);
    for (size_t i = 0; i < json_array_size(targets); i++) {
        const char *t = json_string_value(json_array_get(targets, i));

        if (!t)
            return ew_fail(err, EW_STATUS_MALFORMED, "%s: \"targets\": entry %zu is not a string",
                           q->what, i);
        if (strncmp(t, "re:", 3) == 0) {
            EW_TRY(ew_qx_add_rule(q, EW_QX_REGEX, t + 3, s, err));
            continue;
        }
        EW_TRY(ew_qx_add_rule(q, EW_QX_NAME, t, s, err));
        EW_TRY(ew_qx_add_rule(q, EW_QX_CLASS, t, s, err));
    }
    return EW_STATUS_OK;
}

static ew_status read_group(struct ew_qx_config *q, const char *format, const json_t *o,
                            ew_error *err)
{
    static const char *const known[] = {
        "targets", "weights", "input_activations", "output_activations", "format", NULL
    };
    const json_t *weights = json_object_get(o, "weights"),
                 *x = json_object_get(o, "input_activations"),
                 *y = json_object_get(o, "output_activations");
    struct ew_qx_scheme s = { 0 };
    struct args args = { 0 };

    if (!json_is_object(o))
        return ew_fail(err, EW_STATUS_UNSUPPORTED,
                       "%s: an entry of \"config_groups\" is not an object (a preset's name)",
                       q->what);
    EW_TRY(ew_qx_check_keys(q, o, known, err));
    if (!weights || json_is_null(weights)) /* its modules keep plain weights */
        return EW_STATUS_OK;
    EW_TRY(read_args(q, weights, &args, err));
    EW_TRY(ew_json_get_str_or(o, "format", q->what, format, &format, err));
    if (strcmp(format, "mixed-precision") == 0)
        format = infer_format(&args, x && !json_is_null(x));
    EW_TRY(set_grain(q, &args, &s, err));
    EW_TRY(set_format(q, format, &args, &s, err));
    if (x && !json_is_null(x)) {
        EW_TRY(read_args(q, x, &args, err));
        set_activations(&args, &s);
    }
    if (y && !json_is_null(y))
        s.x_refused = "output_activations";
    return add_targets(q, json_object_get(o, "targets"), &s, err);
}

static ew_status read_ignore(struct ew_qx_config *q, const json_t *list, ew_error *err)
{
    const struct ew_qx_scheme plain = { .layout = EW_QX_PLAIN };

    if (!list || json_is_null(list))
        return EW_STATUS_OK;
    return add_targets(q, list, &plain, err);
}

static ew_status check_extras(const struct ew_qx_config *q, const json_t *o, ew_error *err)
{
    const char *sparse, *status;

    EW_TRY(ew_json_get_str_or(json_object_get(o, "sparsity_config"), "format", q->what, "dense",
                              &sparse, err));
    EW_TRY(ew_json_get_str_or(o, "quantization_status", q->what, "compressed", &status, err));
    if (strcmp(sparse, "dense") != 0)
        return ew_qx_unsupported(q, "sparsity_config", sparse, err);
    if (strcmp(status, "compressed") != 0 && strcmp(status, "frozen") != 0)
        return ew_qx_unsupported(q, "quantization_status", status, err);
    return EW_STATUS_OK;
}

ew_status ew_qx_read_ct(struct ew_qx_config *q, const json_t *o, ew_error *err)
{
    static const char *const known[] = { "quant_method",
                                         "config_groups",
                                         "format",
                                         "ignore",
                                         "kv_cache_scheme",
                                         "quantization_status",
                                         "global_compression_ratio",
                                         "sparsity_config",
                                         "run_compressed",
                                         "version",
                                         "provider",
                                         NULL };
    const json_t *groups = json_object_get(o, "config_groups");
    const char *format, *key;
    json_t *group;

    q->sorted = true;
    EW_TRY(ew_qx_check_keys(q, o, known, err));
    EW_TRY(check_extras(q, o, err));
    EW_TRY(ew_json_get_str_or(o, "format", q->what, "mixed-precision", &format, err));
    if (groups && !json_is_null(groups) && !json_is_object(groups))
        return ew_fail(err, EW_STATUS_MALFORMED, "%s: \"config_groups\" is not an object", q->what);
    json_object_foreach((json_t *)(uintptr_t)groups, key, group)
        EW_TRY(read_group(q, format, group, err));
    return read_ignore(q, json_object_get(o, "ignore"), err);
}
