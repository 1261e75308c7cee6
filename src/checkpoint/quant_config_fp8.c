/* checkpoint/quant_config_fp8.c - quantization_config of the methods that transformers defines for
 * 8- and 4-bit floats: "fp8" (blocks with weight_scale_inv, or one scale a tensor), "fbgemm_fp8" (a
 * scale a row), "mxfp4" (stacked experts). */
#include <inttypes.h>
#include <string.h>

#include "base/json.h"
#include "checkpoint/quant_config.h"

static ew_status read_blocks(const struct ew_qx_config *q, const json_t *list,
                             struct ew_qx_scheme *s, ew_error *err)
{
    uint32_t *const out[2] = { &s->block_n, &s->group };

    s->grains = EW_QX_TENSOR | EW_QX_CHANNEL;
    s->scales = "weight_scale";
    if (!list || json_is_null(list))
        return EW_STATUS_OK;
    for (size_t i = 0; i < 2; i++) {
        const json_t *v = json_array_get(list, i);
        const json_int_t n = json_integer_value(v);

        if (json_array_size(list) != 2 || !json_is_integer(v) || n < 1 || n > 65536 ||
            (i == 1 && n % 8 != 0))
            return ew_fail(err, EW_STATUS_UNSUPPORTED,
                           "%s: \"weight_block_size\" must be two numbers from 1 to 65536, the "
                           "second a multiple of 8",
                           q->what);
        *out[i] = (uint32_t)n;
    }
    s->grains = EW_QX_BLOCK;
    s->scales = "weight_scale_inv";
    return EW_STATUS_OK;
}

ew_status ew_qx_read_fp8(struct ew_qx_config *q, const json_t *o, ew_error *err)
{
    static const char *const known[] = {
        "quant_method",           "activation_scheme", "weight_block_size", "fmt", "scale_fmt",
        "modules_to_not_convert", "ignored_layers",    "kv_cache_scheme",   NULL
    };
    struct ew_qx_scheme s = {
        .layout = EW_QX_ROWS, .code = EW_DTYPE_F8E4M3, .codes = "weight", .x_quant = EW_XQ_FP8_ROW
    };
    const char *scheme, *fmt, *scale_fmt;

    EW_TRY(ew_qx_check_keys(q, o, known, err));
    EW_TRY(ew_json_get_str_or(o, "fmt", q->what, "e4m3", &fmt, err));
    EW_TRY(ew_json_get_str_or(o, "scale_fmt", q->what, "float", &scale_fmt, err));
    EW_TRY(ew_json_get_str_or(o, "activation_scheme", q->what, "dynamic", &scheme, err));
    if (strcmp(fmt, "e4m3") != 0 && strcmp(fmt, "float8_e4m3fn") != 0)
        return ew_qx_unsupported(q, "fmt", fmt, err);
    if (strcmp(scheme, "dynamic") != 0 && strcmp(scheme, "static") != 0)
        return ew_qx_unsupported(q, "activation_scheme", scheme, err);
    EW_TRY(read_blocks(q, json_object_get(o, "weight_block_size"), &s, err));
    if (strcmp(scheme, "static") == 0) {
        s.x_quant = EW_XQ_FP8;
        s.x_scale = s.grains == EW_QX_BLOCK ? "activation_scale" : "input_scale";
    } else if (s.grains == EW_QX_BLOCK) {
        s.x_quant = EW_XQ_FP8_BLOCK;
        s.x_block = (int32_t)s.group;
    } else {
        s.x_refused = "dynamic scales of a whole tensor of activations";
    }
    if (strcmp(scale_fmt, "float") != 0)
        s.x_refused = "scales of activations in another format (scale_fmt)";
    EW_TRY(ew_qx_add_plain(q, json_object_get(o, "modules_to_not_convert"),
                           "modules_to_not_convert", EW_QX_PART, err));
    EW_TRY(ew_qx_add_plain(q, json_object_get(o, "ignored_layers"), "ignored_layers", EW_QX_PART,
                           err));
    return ew_qx_add_rule(q, EW_QX_ANY, NULL, &s, err);
}

ew_status ew_qx_read_fbgemm(struct ew_qx_config *q, const json_t *o, ew_error *err)
{
    static const char *const known[] = { "quant_method", "activation_scale_ub",
                                         "modules_to_not_convert", NULL };
    const struct ew_qx_scheme s = { .layout = EW_QX_ROWS,
                                    .code = EW_DTYPE_F8E4M3,
                                    .grains = EW_QX_CHANNEL,
                                    .codes = "weight",
                                    .scales = "weight_scale",
                                    .x_refused = "a bound of activations (activation_scale_ub)" };

    EW_TRY(ew_qx_check_keys(q, o, known, err));
    EW_TRY(ew_qx_add_plain(q, json_object_get(o, "modules_to_not_convert"),
                           "modules_to_not_convert", EW_QX_PART, err));
    return ew_qx_add_rule(q, EW_QX_ANY, NULL, &s, err);
}

ew_status ew_qx_read_mxfp4(struct ew_qx_config *q, const json_t *o, ew_error *err)
{
    static const char *const known[] = { "quant_method", "modules_to_not_convert", NULL };
    const struct ew_qx_scheme s = { .layout = EW_QX_BLOCKS,
                                    .code = EW_DTYPE_F4E2M1,
                                    .grains = EW_QX_GROUP,
                                    .group = 32,
                                    .scale = EW_DTYPE_F8E8M0,
                                    .codes = "_blocks",
                                    .scales = "_scales" };

    EW_TRY(ew_qx_check_keys(q, o, known, err));
    EW_TRY(ew_qx_add_plain(q, json_object_get(o, "modules_to_not_convert"),
                           "modules_to_not_convert", EW_QX_PART, err));
    return ew_qx_add_rule(q, EW_QX_ANY, NULL, &s, err);
}
