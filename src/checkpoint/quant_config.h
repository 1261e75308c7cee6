/* checkpoint/quant_config.h - what a checkpoint's config says about its quantised tensors: which
 * modules are quantised, how each of them is stored, and what is to be done to activations.
 *
 *   quantization_config (or compression_config, hf_quant_config.json)
 *        --quant_config_<family>.c--> rules: patterns -> scheme --_find(module)--> one scheme
 *
 * One scheme describes every format; quant_load.c reads tensors by it. Keys that change a meaning
 * and are not understood are refused by name. Knows no tensors. Private to checkpoint/. */
#ifndef EW_CHECKPOINT_QUANT_CONFIG_H
#define EW_CHECKPOINT_QUANT_CONFIG_H

#include "base/arena.h"
#include "checkpoint/config.h"
#include "edgewise/graph.h"
#include "op/attrs.h"

/* Where the code of row n, column k lies. */
enum ew_qx_layout {
    EW_QX_PLAIN,  /* not quantised */
    EW_QX_ROWS,   /* [N, K]: a code a byte, or two (4 bits): even k in the low half */
    EW_QX_PACKED, /* i32 [N, ceil(K / codes of a word)]: k ascending from the low bits */
    EW_QX_PAIRS,  /* u8 [N/2, K]: even n in the low half */
    EW_QX_AWQ,    /* i32 [K, N/8]: channels 0 2 4 6 1 3 5 7 from the low bits */
    EW_QX_GPTQ,   /* i32 [K / codes of a word, N]: k ascending from the low bits */
    EW_QX_BLOCKS, /* u8 [E, N, K/32, 16]: a stack of experts, names without a module's ".weight" */
};

/* What a scale stands for; a set of bits where several are allowed. */
enum ew_qx_grain {
    EW_QX_TENSOR = 1,  /* [] or [1] */
    EW_QX_CHANNEL = 2, /* [N] or [N, 1] */
    EW_QX_GROUP = 4,   /* [N, K/group]; AWQ and GPTQ: [K/group, N] */
    EW_QX_BLOCK = 8,   /* [ceil(N/block_n), ceil(K/group)] */
};

enum ew_qx_zero {
    EW_QX_ZERO_NONE,
    EW_QX_ZERO_STORED,   /* laid out as the codes' family lays it out */
    EW_QX_ZERO_LESS_ONE, /* GPTQ v1: the stored number is one less */
};

struct ew_qx_scheme {
    enum ew_qx_layout layout;
    ew_dtype code;   /* i4, i8 (asymmetric ones become u4, u8), f4e2m1, f8e4m3 */
    unsigned grains; /* enum ew_qx_grain */
    uint32_t group, block_n;
    ew_dtype scale; /* f8e4m3 or f8e8m0 where the format fixes it; NONE: f16, bf16 or f32 */
    enum ew_qx_zero zero;
    bool symmetric;     /* zero points are expected to be the middle code */
    bool act_order;     /* g_idx may group the columns in another order */
    bool needs_order;   /* and must be there: without it the columns mean nothing */
    bool x_mul;         /* pre_quant_scale multiplies x, if it is there */
    const char *codes;  /* names of tensors after the module's: "weight_packed" */
    const char *scales; /* "weight_scale" */
    const char *global; /* "weight_scale_2"; NULL: none */
    bool global_inverse;
    /* Activations as declared. */
    int32_t x_quant, x_block;
    const char *x_scale; /* "input_scale" where x_quant is static; NULL: none */
    bool x_scale_inverse;
    const char *x_refused; /* what is declared and cannot be done; NULL: nothing */
};

/* Kinds in the order in which they win. */
enum ew_qx_pattern_kind { EW_QX_NAME, EW_QX_REGEX, EW_QX_GLOB, EW_QX_PART, EW_QX_CLASS, EW_QX_ANY };

struct ew_qx_pattern {
    enum ew_qx_pattern_kind kind;
    const char *text;
    void *code; /* REGEX: pcre2_code_8 */
};

struct ew_qx_rule {
    struct ew_qx_pattern pattern;
    struct ew_qx_scheme scheme; /* PLAIN: leave alone */
};

struct ew_qx_config {
    struct ew_arena arena;
    const char *what;   /* file and key, for messages */
    const char *method; /* "awq" */
    struct ew_qx_rule *rules;
    size_t n_rules, cap_rules;
    bool sorted; /* equal kinds: the first pattern in the alphabet wins, else the first rule */
};

/* Reads the config. *out NULL: not quantised. UNSUPPORTED names the method, the algorithm or the
 * key. */
ew_status ew_qx_config_open(const struct ew_config *c, struct ew_qx_config **out, ew_error *err);
/* NULL is fine. */
void ew_qx_config_close(struct ew_qx_config *q);
/* The scheme of a module by its full name; class: "Linear" or "Embedding". PLAIN without a rule.
 * Borrowed. */
ew_status ew_qx_config_find(const struct ew_qx_config *q, const char *module,
                            const char *class_name, const struct ew_qx_scheme **out, ew_error *err);

/* ---- for quant_config_*.c ---- */

/* Every key of obj that is set (not null, false, empty) is in `known` (NULL-terminated). */
ew_status ew_qx_check_keys(const struct ew_qx_config *q, const json_t *obj,
                           const char *const *known, ew_error *err);
/* Adds a rule. text may be NULL for ANY. It is copied. MALFORMED: a regex that is none. */
ew_status ew_qx_add_rule(struct ew_qx_config *q, enum ew_qx_pattern_kind kind, const char *text,
                         const struct ew_qx_scheme *scheme, ew_error *err);
/* A PLAIN rule for every string of a list (or null). */
ew_status ew_qx_add_plain(struct ew_qx_config *q, const json_t *list, const char *key,
                          enum ew_qx_pattern_kind kind, ew_error *err);
/* A group of columns as configs give it: -1 is a whole row (*grains CHANNEL). */
ew_status ew_qx_read_group(const struct ew_qx_config *q, const json_t *obj, int64_t fallback,
                           struct ew_qx_scheme *s, ew_error *err);
ew_status ew_qx_unsupported(const struct ew_qx_config *q, const char *key, const char *value,
                            ew_error *err);

bool ew_qx_pattern_matches(const struct ew_qx_pattern *p, const char *module,
                           const char *class_name, bool *broken);
ew_status ew_qx_pattern_compile(struct ew_qx_pattern *p, const char *what, ew_error *err);
void ew_qx_pattern_deinit(struct ew_qx_pattern *p);

ew_status ew_qx_read_awq(struct ew_qx_config *q, const json_t *o, ew_error *err);
ew_status ew_qx_read_gptq(struct ew_qx_config *q, const json_t *o, ew_error *err);
ew_status ew_qx_read_fp8(struct ew_qx_config *q, const json_t *o, ew_error *err);
ew_status ew_qx_read_fbgemm(struct ew_qx_config *q, const json_t *o, ew_error *err);
ew_status ew_qx_read_mxfp4(struct ew_qx_config *q, const json_t *o, ew_error *err);
ew_status ew_qx_read_ct(struct ew_qx_config *q, const json_t *o, ew_error *err);
ew_status ew_qx_read_modelopt(struct ew_qx_config *q, const json_t *o, ew_error *err);

#endif
