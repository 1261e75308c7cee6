/* quant/quant.h - what the files of this folder share: schemes, formats, modules, the plan of the
 * output, and the work state of one run.
 *
 *   checkpoint --modules.c--> linear modules of a layer --calib.c--> their inputs on a text
 *        --search.c (scales folded into norms) , gptq.c, codec.c--> codes and scales
 *        --pack.c--> compressed-tensors tensors --output.c--> shards, index, config.json
 *
 * Private to quant/. One thread drives; pools work inside. */
#ifndef EW_QUANT_QUANT_H
#define EW_QUANT_QUANT_H

#include "base/arena.h"
#include "base/pool.h"
#include "checkpoint/decoder.h"
#include "edgewise/quantize.h"
#include "kernels/linear.h"
#include "quant/codec.h"

enum ew_q_method { EW_Q_RTN, EW_Q_AWQ, EW_Q_GPTQ };

/* What is done to one module. format.kind NONE: copied as it is. */
struct ew_q_scheme {
    struct ew_q_format format;
    enum ew_q_method method;
    bool smooth;      /* fold activation outliers into the norm before (SmoothQuant) */
    bool activations; /* the metadata asks for quantised activations */
    bool act_order;
    bool compensate; /* AWQ: round as GPTQ does */
};

/* Options, read and checked. Strings are borrowed from ew_quantize_opts. */
struct ew_q_options {
    struct ew_q_scheme main, lm_head, embedding;
    const ew_quantize_opts *raw;
    struct ew_q_scheme overrides[64];
    bool override_used[64]; /* its pattern matched a module */
    int kv;                 /* enum ew_q_kind: NONE, INT, FP8 */
};

/* Scale storage follows the weights' dtype. INVALID_ARG names the option. */
ew_status ew_q_options_parse(const ew_quantize_opts *raw, struct ew_q_options *out, ew_error *err);
/* The scheme of a module by its name; overrides win, the last one first. Marks those that match. */
const struct ew_q_scheme *ew_q_scheme_of(struct ew_q_options *o, const char *module);
/* Once all modules had their schemes: INVALID_ARG names an override that matched none. */
ew_status ew_q_options_check_used(const struct ew_q_options *o, ew_error *err);

/* Inputs that calibration records. */
enum ew_q_tap { EW_Q_TAP_ATTN, EW_Q_TAP_O, EW_Q_TAP_MLP, EW_Q_TAP_DOWN, EW_Q_TAP_COUNT };

/* A linear module of a layer: rows of a stored tensor. */
struct ew_q_module {
    const char *name; /* "model.layers.0.mlp.up_proj"; the output's tensors are <name>.weight... */
    const struct ew_st_tensor *src, *bias; /* bias may be NULL */
    size_t row0;                           /* first row in src, seen as [rows, k] */
    size_t n, k;
    enum ew_q_tap tap; /* DOWN of an expert is computed, not recorded */
    int expert;        /* -1: none */
    char role;         /* 'q' 'k' 'v' 'a' (fused qkv) 'o' 'g' 'u' 'f' (fused gate, up) 'd' */
    struct ew_q_scheme scheme;
};

struct ew_q_layer {
    int64_t index;
    struct ew_q_module *modules;
    size_t n_modules;
    const struct ew_st_tensor *attn_norm, *mlp_norm; /* foldable ones, or NULL */
};

/* A tensor of the output. data NULL: bytes of src from src_off. */
struct ew_q_out {
    const char *name;
    struct ew_type type;
    const struct ew_st_tensor *src;
    size_t src_off;
    void *data; /* ew_mem; freed when written */
};

/* One unit of the output: what is not in a layer and comes first, a layer, what comes last. */
struct ew_q_unit {
    struct ew_q_out *outs;
    size_t n_outs, cap;
};

struct ew_q_run {
    struct ew_q_options *options;
    const char *dir;
    struct ew_safetensors *st;
    struct ew_config config;
    struct ew_decoder_spec spec;
    const char *prefix; /* of the text model's tensors */
    const struct ew_st_tensor *embed, *head;
    const char *head_name; /* module name of the head in the output */
    bool write_head;       /* the output gets a head of its own: it was tied and is quantised */
    struct ew_arena arena;
    struct ew_pool *pool;
    const struct ew_linear_kernel *kernel;
    ew_error *err;
    /* output plan: n_layers + 2 units */
    struct ew_q_unit *units;
    struct ew_q_layer *layers;
    /* calibration */
    size_t seq_len, n_tokens; /* n_tokens: a multiple of seq_len; 0: nothing needs calibration */
    float *hidden;            /* [n_tokens][hidden] */
    float *taps[EW_Q_TAP_COUNT];
    size_t tap_width[EW_Q_TAP_COUNT];
    float *kv_max; /* [n_layers][2][n_kv_heads] */
    /* summary */
    struct json_t *report;
    double quantised_weights, quantised_bits;
};

/* modules.c */
ew_status ew_q_find_names(struct ew_q_run *r);
ew_status ew_q_layer_list(struct ew_q_run *r, int64_t i, struct ew_q_layer *out);
const struct ew_st_tensor *ew_q_find(const struct ew_q_run *r, const char *fmt, ...)
    EW_PRINTF(2, 3);

/* pack.c */
/* Declares the tensors of a quantised module in u (data NULL). */
ew_status ew_q_declare(struct ew_q_run *r, struct ew_q_unit *u, const char *module,
                       const struct ew_q_format *f, size_t n, size_t k);
/* Fills them. */
ew_status ew_q_pack(struct ew_q_run *r, struct ew_q_unit *u, const char *module,
                    const struct ew_q_tensor *q);
ew_status ew_q_add_out(struct ew_q_run *r, struct ew_q_unit *u, const char *name,
                       const struct ew_type *type, const struct ew_st_tensor *src, size_t src_off);
/* The planned tensor of that name, or NULL. */
struct ew_q_out *ew_q_out_find(const struct ew_q_unit *u, const char *name);
ew_status ew_q_out_floats(struct ew_q_run *r, struct ew_q_unit *u, const char *name, const float *v,
                          size_t n);

/* output.c */
/* Fills r->units from the checkpoint and the modules. */
ew_status ew_q_plan(struct ew_q_run *r);
struct ew_q_sink;
ew_status ew_q_sink_open(struct ew_q_run *r, const char *out_dir, struct ew_q_sink **out);
/* Writes unit i (in order) and frees its data. */
ew_status ew_q_sink_write(struct ew_q_sink *s, size_t i);
/* Index, config, other files; then the folder gets its name. Frees s in every case. */
ew_status ew_q_sink_commit(struct ew_q_sink *s);
void ew_q_sink_abort(struct ew_q_sink *s);
/* qconfig.c: the new config.json. New reference or NULL. */
struct json_t *ew_q_config_json(struct ew_q_run *r);

/* calib.c */
ew_status ew_q_calib_open(struct ew_q_run *r);
/* Runs layer i over all windows: fills taps, replaces hidden by the layer's output. */
ew_status ew_q_calib_layer(struct ew_q_run *r, int64_t i);
void ew_q_calib_close(struct ew_q_run *r);

/* layer.c */
ew_status ew_q_layer_run(struct ew_q_run *r, int64_t i);
/* ends.c: lm_head (head) or the embedding */
ew_status ew_q_ends_run(struct ew_q_run *r, bool head);

/* quantize.c: a line of the summary for a module whose tensors are in u. */
void ew_q_report(struct ew_q_run *r, const struct ew_q_unit *u, const char *module, size_t count,
                 double error, double gain);

/* matmul.c: y[m][n] = x[m][k] w[n][k]^T on the pool. */
ew_status ew_q_matmul(struct ew_q_run *r, const float *x, size_t m, const float *w, size_t n,
                      size_t k, float *y);
/* Mean over outputs of (x d^T)^2 where d[n][k]. */
ew_status ew_q_output_energy(struct ew_q_run *r, const float *x, size_t m, const float *d, size_t n,
                             size_t k, double *out);
/* h[k][k] = x^T x / m. */
ew_status ew_q_gram(struct ew_q_run *r, const float *x, size_t m, size_t k, float *h);
/* Calls fn(arg, begin, end) over [0, n) on the pool in blocks. */
void ew_q_parallel(struct ew_q_run *r, size_t n, void (*fn)(void *arg, size_t begin, size_t end),
                   void *arg);

/* gptq.c */
/* Rounds w[n][k] (overwritten by what the codes mean) column by column; u is from
 * ew_q_inverse_factor, importance[k] weighs errors when a group's scale is chosen. order (may be
 * NULL): column j of u is column order[j] of w. */
ew_status ew_q_gptq(struct ew_q_run *r, float *w, const float *u, const float *importance,
                    const size_t *order, struct ew_q_tensor *q);
/* u[k][k] upper triangular with u^T u = (h + damp * mean diagonal)^-1; h is destroyed. LIMIT (and
 * no text) when h is not positive definite in f32. */
ew_status ew_q_inverse_factor(struct ew_q_run *r, float *h, size_t k, float damp, float *u);

/* search.c */
#define EW_Q_FOLD_MAX 3
struct ew_q_fold {
    const struct ew_q_module *consumers[EW_Q_FOLD_MAX]; /* columns are multiplied by s */
    float *weights[EW_Q_FOLD_MAX];                      /* theirs, [n][k] */
    size_t n_consumers;
    float *x; /* [n_tokens][k], divided by s at the end */
    size_t k;
    size_t share; /* 0, or channels of a head: heads of one kv head get one s */
    size_t heads_per_kv;
    /* what makes x: a norm (length k, as multiplied: 1 is added already) or rows of a matrix */
    float *norm;
    ew_dtype norm_dtype;
    bool norm_plus_one;
    float *rows; /* [.][rows_k], divided by s */
    size_t rows_k;
    float *rows_bias; /* or NULL */
};
/* Best s over a grid of strengths (SmoothQuant's when smooth, else AWQ's); applied to all parts.
 * *gain: output error with s over that without. */
ew_status ew_q_fold_search(struct ew_q_run *r, struct ew_q_fold *f, bool smooth, double *gain);

/* text.c: piece i of the built-in calibration text, NULL past the end. One that begins with '{' is
 * the input of a chat template. Static. */
const char *ew_q_text_piece(size_t i);

#endif
