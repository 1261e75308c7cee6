/* checkpoint/quant_config_int.c - AutoAWQ's and GPTQ's quantization_config. */
#include <inttypes.h>
#include <string.h>
#include <strings.h>

#include "base/json.h"
#include "checkpoint/quant_config.h"

/* What auto-round adds to the config of either method: data_type is read below, the rest only tells
 * how the numbers were found. */
#define AUTO_ROUND_KEYS                                                                            \
    "autoround_version", "data_type", "amp", "iters", "lr", "minmax_lr", "nsamples", "seqlen",     \
        "low_gpu_mem_usage", "enable_minmax_tuning", "enable_norm_bias_tuning",                    \
        "enable_quanted_input", "gradient_accumulate_steps", "scale_dtype",                        \
        "to_quant_block_names", "static_attention_granularity", "static_kv_granularity"

static ew_status read_bits(const struct ew_qx_config *q, const json_t *o, bool eight, int64_t *bits,
                           ew_error *err)
{
    const char *type;

    EW_TRY(ew_json_get_str_or(o, "data_type", q->what, "int", &type, err)); /* auto-round's */
    if (strcmp(type, "int") != 0)
        return ew_qx_unsupported(q, "data_type", type, err);
    EW_TRY(ew_json_get_i64_or(o, "bits", q->what, 4, bits, err));
    if (*bits == 4 || (eight && *bits == 8))
        return EW_STATUS_OK;
    return ew_fail(err, EW_STATUS_UNSUPPORTED,
                   "%s: \"bits\" is %" PRId64 ", %s is supported for quant_method \"%s\"", q->what,
                   *bits, eight ? "4 or 8" : "4", q->method);
}

/* gptqmodel says the method twice. */
static ew_status check_method(const struct ew_qx_config *q, const json_t *o, ew_error *err)
{
    const char *method;

    EW_TRY(ew_json_get_str_or(o, "method", q->what, q->method, &method, err));
    return strcmp(method, q->method) == 0 ? EW_STATUS_OK
                                          : ew_qx_unsupported(q, "method", method, err);
}

ew_status ew_qx_read_awq(struct ew_qx_config *q, const json_t *o, ew_error *err)
{
    static const char *const known[] = { "quant_method",
                                         "bits",
                                         "group_size",
                                         "zero_point",
                                         "version",
                                         "format",
                                         "checkpoint_format",
                                         "method",
                                         "backend",
                                         "modules_to_not_convert",
                                         "do_fuse",
                                         "fuse_max_seq_len",
                                         "modules_to_fuse",
                                         "exllama_config",
                                         "desc_act",
                                         "sym",
                                         "lm_head",
                                         "pack_dtype",
                                         "meta",
                                         "provider",
                                         AUTO_ROUND_KEYS,
                                         "batch_size",
                                         NULL };
    struct ew_qx_scheme s = { .layout = EW_QX_AWQ,
                              .code = EW_DTYPE_I4,
                              .zero = EW_QX_ZERO_STORED,
                              .codes = "qweight",
                              .scales = "scales" };
    const char *version;
    int64_t bits;
    bool act_order;

    EW_TRY(ew_qx_check_keys(q, o, known, err));
    EW_TRY(check_method(q, o, err));
    EW_TRY(ew_json_get_str_or(o, "format", q->what, "gemm", &version, err));
    EW_TRY(ew_json_get_str_or(o, "checkpoint_format", q->what, version, &version, err));
    EW_TRY(ew_json_get_str_or(o, "version", q->what, version, &version, err));
    if (strcasecmp(version, "gemm") != 0)
        return ew_qx_unsupported(q, "version", version, err);
    EW_TRY(ew_json_get_bool_or(o, "desc_act", q->what, false, &act_order, err));
    if (act_order)
        return ew_qx_unsupported(q, "desc_act", "true", err);
    EW_TRY(read_bits(q, o, false, &bits, err));
    EW_TRY(ew_qx_read_group(q, o, 128, &s, err));
    EW_TRY(ew_qx_add_plain(q, json_object_get(o, "modules_to_not_convert"),
                           "modules_to_not_convert", EW_QX_PART, err));
    return ew_qx_add_rule(q, EW_QX_ANY, NULL, &s, err);
}

/* Bits, group, symmetry of the whole or of an override, which has the whole as its default. */
static ew_status read_gptq_scheme(const struct ew_qx_config *q, const json_t *o, bool v1,
                                  const struct ew_qx_scheme *base, struct ew_qx_scheme *out,
                                  ew_error *err)
{
    struct ew_qx_scheme s = { .layout = EW_QX_GPTQ,
                              .zero = v1 ? EW_QX_ZERO_LESS_ONE : EW_QX_ZERO_STORED,
                              .codes = "qweight",
                              .scales = "scales",
                              .symmetric = base ? base->symmetric : true,
                              .needs_order = base ? base->needs_order : false,
                              .act_order = true }; /* g_idx says it: others leave the key out */
    const int64_t group = !base ? 128 : base->group ? (int64_t)base->group : -1;
    int64_t bits;

    if (base && !json_object_get(o, "bits"))
        bits = base->code == EW_DTYPE_I8 ? 8 : 4;
    else
        EW_TRY(read_bits(q, o, true, &bits, err));
    s.code = bits == 8 ? EW_DTYPE_I8 : EW_DTYPE_I4;
    EW_TRY(ew_qx_read_group(q, o, group, &s, err));
    EW_TRY(ew_json_get_bool_or(o, "sym", q->what, s.symmetric, &s.symmetric, err));
    EW_TRY(ew_json_get_bool_or(o, "desc_act", q->what, s.needs_order, &s.needs_order, err));
    *out = s;
    return EW_STATUS_OK;
}

/* gptqmodel: "-:regex" leaves modules alone, "+:regex" or "regex" overrides; the first one that
 * matches counts. */
static ew_status read_dynamic(struct ew_qx_config *q, const json_t *dynamic, bool v1,
                              const struct ew_qx_scheme *base, ew_error *err)
{
    static const char *const known[] = { "bits",     "group_size",      "sym",
                                         "desc_act", "damp_percent",    "damp_auto_increment",
                                         "mse",      "act_group_aware", NULL };
    const struct ew_qx_scheme plain = { .layout = EW_QX_PLAIN };
    const char *key;
    json_t *value;

    if (!dynamic || json_is_null(dynamic))
        return EW_STATUS_OK;
    if (!json_is_object(dynamic))
        return ew_fail(err, EW_STATUS_MALFORMED, "%s: \"dynamic\" is not an object", q->what);
    json_object_foreach((json_t *)(uintptr_t)dynamic, key, value)
    {
        struct ew_qx_scheme s = plain;

        if (strncmp(key, "-:", 2) != 0) {
            if (!json_is_object(value))
                return ew_fail(err, EW_STATUS_MALFORMED,
                               "%s: \"dynamic\": \"%.80s\" is not an object", q->what, key);
            EW_TRY(ew_qx_check_keys(q, value, known, err));
            EW_TRY(read_gptq_scheme(q, value, v1, base, &s, err));
        }
        EW_TRY(ew_qx_add_rule(
            q, EW_QX_REGEX,
            key + (strncmp(key, "-:", 2) == 0 || strncmp(key, "+:", 2) == 0 ? 2 : 0), &s, err));
    }
    return EW_STATUS_OK;
}

ew_status ew_qx_read_gptq(struct ew_qx_config *q, const json_t *o, ew_error *err)
{
    static const char *const known[] = { "quant_method",
                                         "bits",
                                         "group_size",
                                         "desc_act",
                                         "sym",
                                         "lm_head",
                                         "checkpoint_format",
                                         "format",
                                         "method",
                                         "dynamic",
                                         "pack_dtype",
                                         "damp_percent",
                                         "true_sequential",
                                         "static_groups",
                                         "meta",
                                         "model_name_or_path",
                                         "model_file_base_name",
                                         "is_marlin_format",
                                         "dataset",
                                         "tokenizer",
                                         "block_name_to_quantize",
                                         "modules_in_block_to_quantize",
                                         "module_name_preceding_first_block",
                                         "modules_to_not_convert",
                                         "model_seqlen",
                                         "use_cuda_fp16",
                                         "use_exllama",
                                         "exllama_config",
                                         "disable_exllama",
                                         "max_input_length",
                                         "cache_block_outputs",
                                         "cache_examples_on_gpu",
                                         "batch_size",
                                         "pad_token_id",
                                         "backend",
                                         "act_group_aware",
                                         "quantizer",
                                         "provider",
                                         AUTO_ROUND_KEYS,
                                         NULL };
    const char *format, *type;
    struct ew_qx_scheme s;
    bool marlin;

    EW_TRY(ew_qx_check_keys(q, o, known, err));
    EW_TRY(check_method(q, o, err));
    EW_TRY(ew_json_get_str_or(o, "format", q->what, "gptq", &format, err));
    EW_TRY(ew_json_get_str_or(o, "checkpoint_format", q->what, format, &format, err));
    EW_TRY(ew_json_get_bool_or(o, "is_marlin_format", q->what, false, &marlin, err));
    EW_TRY(ew_json_get_str_or(o, "pack_dtype", q->what, "int32", &type, err));
    if (strcmp(format, "gptq") != 0 && strcmp(format, "gptq_v2") != 0)
        return ew_qx_unsupported(q, "checkpoint_format", format, err);
    if (marlin)
        return ew_qx_unsupported(q, "is_marlin_format", "true", err);
    if (strcmp(type, "int32") != 0)
        return ew_qx_unsupported(q, "pack_dtype", type, err);
    EW_TRY(read_gptq_scheme(q, o, strcmp(format, "gptq") == 0, NULL, &s, err));
    EW_TRY(read_dynamic(q, json_object_get(o, "dynamic"), strcmp(format, "gptq") == 0, &s, err));
    EW_TRY(ew_qx_add_plain(q, json_object_get(o, "modules_to_not_convert"),
                           "modules_to_not_convert", EW_QX_PART, err));
    return ew_qx_add_rule(q, EW_QX_ANY, NULL, &s, err);
}
