/* checkpoint/quant_config_modelopt.c - ModelOpt's hf_quant_config.json, and the same in
 * config.json: one algorithm for all, or one for each listed module. */
#include <string.h>

#include "base/json.h"
#include "base/size.h"
#include "checkpoint/quant_config.h"

#define FP8_SCHEME(grain)                                                                          \
    .layout = EW_QX_ROWS, .code = EW_DTYPE_F8E4M3, .grains = (grain), .codes = "weight",           \
    .scales = "weight_scale"

static const struct {
    const char *algo;
    struct ew_qx_scheme scheme;
} algos[] = {
    { "FP8",
      { FP8_SCHEME(EW_QX_TENSOR), .x_quant = EW_XQ_FP8, .x_scale = "input_scale", .x_mul = true } },
    { "FP8_PER_CHANNEL_PER_TOKEN", { FP8_SCHEME(EW_QX_CHANNEL), .x_quant = EW_XQ_FP8_ROW } },
    { "FP8_PB_WO", { FP8_SCHEME(EW_QX_BLOCK), .group = 128, .block_n = 128 } },
    { "MXFP8",
      { FP8_SCHEME(EW_QX_GROUP), .group = 32, .scale = EW_DTYPE_F8E8M0, .x_quant = EW_XQ_MXFP8,
        .x_block = 32 } },
    { "NVFP4",
      { .layout = EW_QX_ROWS,
        .code = EW_DTYPE_F4E2M1,
        .grains = EW_QX_GROUP,
        .group = 16,
        .scale = EW_DTYPE_F8E4M3,
        .codes = "weight",
        .scales = "weight_scale",
        .global = "weight_scale_2",
        .x_mul = true,
        .x_quant = EW_XQ_NVFP4,
        .x_block = 16,
        .x_scale = "input_scale" } },
    { "W4A16_AWQ",
      { .layout = EW_QX_PAIRS,
        .code = EW_DTYPE_I4,
        .grains = EW_QX_GROUP,
        .group = 128,
        .codes = "weight",
        .scales = "weight_scale",
        .x_mul = true } },
    { "INT8_SQ",
      { .layout = EW_QX_ROWS,
        .code = EW_DTYPE_I8,
        .grains = EW_QX_CHANNEL,
        .codes = "weight",
        .scales = "weight_scale",
        .x_mul = true,
        .x_quant = EW_XQ_INT8,
        .x_scale = "input_scale" } },
    { "W8A16",
      { .layout = EW_QX_ROWS,
        .code = EW_DTYPE_I8,
        .grains = EW_QX_CHANNEL,
        .codes = "weight",
        .scales = "weight_scale" } },
};

static const struct {
    const char *name, *same_as;
} aliases[] = {
    { "NVFP4_AWQ", "NVFP4" },
    { "W8A8_SQ_PER_CHANNEL", "INT8_SQ" },
    { "INT8", "INT8_SQ" },
    { "INT4_AWQ", "W4A16_AWQ" },
};

/* The scheme of an algorithm, with the group size of `o` if it has one. */
static ew_status find_algo(const struct ew_qx_config *q, const char *algo, const json_t *o,
                           struct ew_qx_scheme *out, ew_error *err)
{
    for (size_t i = 0; i < EW_COUNT(aliases); i++)
        if (strcmp(aliases[i].name, algo) == 0)
            algo = aliases[i].same_as;
    for (size_t i = 0; i < EW_COUNT(algos); i++) {
        int64_t group;

        if (strcmp(algos[i].algo, algo) != 0)
            continue;
        *out = algos[i].scheme;
        EW_TRY(ew_json_get_i64_or(o, "group_size", q->what, 0, &group, err));
        if (out->layout == EW_QX_PAIRS)
            return ew_qx_read_group(q, o, 128, out, err);
        if (out->grains == EW_QX_GROUP && group && group != (int64_t)out->group)
            return ew_fail(err, EW_STATUS_UNSUPPORTED,
                           "%s: \"group_size\" is %lld, %s has groups of %u", q->what,
                           (long long)group, algo, out->group);
        return EW_STATUS_OK;
    }
    return ew_qx_unsupported(q, "quant_algo", algo, err);
}

static ew_status read_layers(struct ew_qx_config *q, const json_t *layers, ew_error *err)
{
    static const char *const known[] = { "quant_algo", "group_size", "has_zero_point",
                                         "pre_quant_scale", NULL };
    const char *module, *algo;
    struct ew_qx_scheme s;
    json_t *o;

    if (!json_is_object(layers))
        return ew_fail(err, EW_STATUS_MALFORMED,
                       "%s: \"quantized_layers\" of MIXED_PRECISION is not an object", q->what);
    json_object_foreach((json_t *)(uintptr_t)layers, module, o)
    {
        if (!json_is_object(o))
            return ew_fail(err, EW_STATUS_MALFORMED,
                           "%s: \"quantized_layers\": \"%.80s\" is not an object", q->what, module);
        EW_TRY(ew_qx_check_keys(q, o, known, err));
        EW_TRY(ew_json_get_str_or(o, "quant_algo", q->what, "", &algo, err));
        EW_TRY(find_algo(q, algo, o, &s, err));
        EW_TRY(ew_qx_add_rule(q, EW_QX_NAME, module, &s, err));
    }
    return EW_STATUS_OK;
}

/* config.json repeats group sizes in a "config_groups" of its own. */
static ew_status group_of_groups(const struct ew_qx_config *q, const json_t *o, json_t *into,
                                 ew_error *err)
{
    const char *key;
    json_t *group;

    json_object_foreach(json_object_get(o, "config_groups"), key, group)
    {
        json_t *size = json_object_get(json_object_get(group, "weights"), "group_size");

        if (!size || json_is_null(size))
            continue;
        if (json_object_get(into, "group_size") &&
            !json_equal(json_object_get(into, "group_size"), size))
            return ew_fail(err, EW_STATUS_UNSUPPORTED,
                           "%s: \"config_groups\" of several group sizes", q->what);
        json_object_set(into, "group_size", size);
    }
    return EW_STATUS_OK;
}

static ew_status read_algo(struct ew_qx_config *q, const json_t *o, ew_error *err)
{
    json_t *sizes = json_object();
    const char *algo;
    struct ew_qx_scheme s;
    ew_status st = ew_json_get_str_or(o, "quant_algo", q->what, "", &algo, err);

    /* only the KV cache is short: kv_scales.c */
    if (!st && !*algo && json_is_string(json_object_get(o, "kv_cache_quant_algo"))) {
        json_decref(sizes);
        return EW_STATUS_OK;
    }
    if (!st && json_object_get(o, "group_size"))
        json_object_set(sizes, "group_size", json_object_get(o, "group_size"));
    else if (!st)
        st = group_of_groups(q, o, sizes, err);
    if (!st && strcmp(algo, "MIXED_PRECISION") == 0) {
        st = read_layers(q, json_object_get(o, "quantized_layers"), err);
    } else if (!st) {
        st = find_algo(q, algo, sizes, &s, err);
        if (!st)
            st = ew_qx_add_rule(q, EW_QX_ANY, NULL, &s, err);
    }
    json_decref(sizes);
    return st;
}

ew_status ew_qx_read_modelopt(struct ew_qx_config *q, const json_t *o, ew_error *err)
{
    static const char *const known[] = {
        "quant_method",     "quant_algo",      "kv_cache_quant_algo",
        "kv_cache_scheme",  "group_size",      "has_zero_point",
        "pre_quant_scale",  "exclude_modules", "ignore",
        "quantized_layers", "config_groups",   "producer",
        "quantization",     "version",         NULL
    };
    const json_t *inner = json_object_get(o, "quantization");
    bool zero;

    EW_TRY(ew_qx_check_keys(q, o, known, err));
    if (json_is_object(inner)) {
        o = inner;
        EW_TRY(ew_qx_check_keys(q, o, known, err));
    }
    EW_TRY(ew_json_get_bool_or(o, "has_zero_point", q->what, false, &zero, err));
    if (zero)
        return ew_qx_unsupported(q, "has_zero_point", "true", err);
    EW_TRY(ew_qx_add_plain(q, json_object_get(o, "exclude_modules"), "exclude_modules", EW_QX_GLOB,
                           err));
    EW_TRY(ew_qx_add_plain(q, json_object_get(o, "ignore"), "ignore", EW_QX_GLOB, err));
    return read_algo(q, o, err);
}
