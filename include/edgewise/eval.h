/* edgewise/eval.h - how right a model is: perplexity, comparison of two models, answers, choices,
 * parity with a reference file or with another precision, ONNX test folders.
 *
 * Perplexity, comparison, choices and parity work on an opened runtime whose engine was built with
 * EW_BUILD_ALL_LOGITS (to compare hidden states, with those too). One thread at a time per runtime.
 *
 * Resuming: where options have `resume`, the named file gets a line after every window or question;
 * a call that finds such a file of the same work goes on behind it and gives exactly the numbers of
 * an unbroken run. The work is told by a hash of the engines, the options and the text: another
 * one is MISMATCH. Limits (max_windows, limit) are no part of it: a call with a higher one computes
 * what is new alone, one with a lower one takes the first lines. What a stopped process half wrote
 * is dropped. */
#ifndef EW_EVAL_H
#define EW_EVAL_H

#include "edgewise/runtime.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A figure and its standard error. */
typedef struct ew_estimate {
    double value, error;
} ew_estimate;

/* ---- perplexity ---- */

typedef struct ew_ppl_opts {
    uint32_t struct_size;
    uint32_t window;    /* tokens a window; 0: 1024 or the KV length if less */
    uint32_t stride;    /* 0: window (no overlap); with overlap only the new tokens are scored */
    uint64_t max_bytes; /* of the text; 0: all */
    uint64_t max_chars; /* UTF-8 characters of the text; 0: all */
    ew_progress progress;
    uint32_t max_windows; /* 0: all */
    const char *resume;   /* file of the state, or NULL */
} ew_ppl_opts;
#define EW_PPL_OPTS_INIT                                                                           \
    {                                                                                              \
        sizeof(ew_ppl_opts), 0, 0, 0, 0, { 0, 0 }, 0, 0                                            \
    }
enum { EW_PPL_PARTS = 64 };
typedef struct ew_ppl_result {
    uint64_t n_tokens, n_scored, n_windows;
    /* The error takes tokens as independent: perplexity * sd(nll) / sqrt(n). */
    double nll_sum, perplexity, perplexity_stderr, seconds;
    ew_estimate parts[EW_PPL_PARTS]; /* perplexity of the first n_parts-th of the windows, the
                                        second, ... */
    uint32_t n_parts;
} ew_ppl_result;
/* Tokens 1.. of each window are scored given those before them in the window (Hugging Face's
 * fixed-length recipe). */
EW_API ew_status ew_eval_ppl(ew_runtime *rt, const char *text, size_t len, const ew_ppl_opts *opts,
                             ew_ppl_result *out, ew_error *err) EW_MUST_USE;

/* ---- two models beside each other ---- */

enum { EW_KLD_BINS = 48, EW_KLD_PLACES = 32, EW_KLD_WORST = 10 };
typedef struct ew_kld_token {
    uint64_t index; /* of the token that was to be predicted, in the text */
    int32_t id;
    double kl, p_model, p_reference; /* of that token */
} ew_kld_token;
/* Windows are those of the perplexity. Divergences are KL(reference || model) in nats over the
 * whole vocabulary, computed in f64. Errors: of means sd / sqrt(n); of the RMS and of ratios by the
 * delta method; of shares binomial; of percentiles half the distance between the order statistics
 * one binomial standard deviation below and above (for the maximum none is given: 0). */
typedef struct ew_kld_result {
    uint64_t n_tokens, n_scored, n_windows;
    ew_estimate mean_kl, median_kl, kl_90, kl_99, kl_999;
    double max_kl;
    ew_estimate same_top;        /* share of tokens where both have the same most likely one */
    ew_estimate mean_dp, rms_dp; /* p_model - p_reference of the actual token */
    ew_estimate ppl_model, ppl_reference, ppl_ratio; /* ratio: model / reference */
    ew_estimate log_ratio;      /* ln of it; tokens are compared pairwise, so its error is small */
    uint64_t bins[EW_KLD_BINS]; /* tokens with KL in [10^(-8 + i/4), 10^(-8 + (i+1)/4)); the first
                                   has all below, the last all above */
    ew_estimate places[EW_KLD_PLACES]; /* mean KL along the window, in equal parts; error 0 and
                                          value 0 where there is no token */
    ew_kld_token worst[EW_KLD_WORST];  /* largest KL first */
    uint32_t n_worst, window;
    double seconds;
} ew_kld_result;
/* Both runtimes read the same tokens window by window; memory is bounded by one piece of a window
 * times the vocabulary for each, and a few numbers a token. MISMATCH when vocabularies or token ids
 * of the text differ. */
EW_API ew_status ew_eval_kld(ew_runtime *model, ew_runtime *reference, const char *text, size_t len,
                             const ew_ppl_opts *opts, ew_kld_result *out,
                             ew_error *err) EW_MUST_USE;

/* ---- questions with one right answer ---- */

typedef struct ew_share { /* right of all, with Wilson's 95 % interval */
    char kind[64];
    uint64_t right, all;
    double share, low, high;
} ew_share;
typedef struct ew_qa_opts {
    uint32_t struct_size;
    uint32_t limit;      /* lines; 0: all */
    uint32_t max_tokens; /* of an answer; 0: 256 */
    bool think;
    const char *resume;
    ew_progress progress;
} ew_qa_opts;
#define EW_QA_OPTS_INIT                                                                            \
    {                                                                                              \
        sizeof(ew_qa_opts), 0, 0, 0, 0,                                                            \
        {                                                                                          \
            0, 0                                                                                   \
        }                                                                                          \
    }
typedef struct ew_qa_item {
    char *kind, *question, *wanted, *got; /* question: of messages the last content */
    bool right;
} ew_qa_item;
typedef struct ew_qa_result {
    ew_share *kinds; /* in the order of the file */
    uint32_t n_kinds;
    ew_share total;
    ew_qa_item *items;
    uint32_t n_items;
    double seconds;
} ew_qa_result;
/* jsonl: a line each {"question": text or "messages": [...], "answer": text, "kind": text}. Greedy
 * answers, many at a time, compared exactly but for spaces around them. `name` is the file's, for
 * errors. */
EW_API ew_status ew_eval_qa(ew_runtime *rt, const char *jsonl, size_t len, const char *name,
                            const ew_qa_opts *opts, ew_qa_result *out, ew_error *err) EW_MUST_USE;
EW_API void ew_qa_release(ew_qa_result *r);

/* ---- questions with given options ---- */

typedef struct ew_choice_opts {
    uint32_t struct_size;
    uint32_t limit;
    bool chat; /* the question through the chat template; else as it stands */
    const char *resume;
    ew_progress progress;
} ew_choice_opts;
#define EW_CHOICE_OPTS_INIT                                                                        \
    {                                                                                              \
        sizeof(ew_choice_opts), 0, 0, 0,                                                           \
        {                                                                                          \
            0, 0                                                                                   \
        }                                                                                          \
    }
typedef struct ew_choice_kind {
    char kind[64];
    uint64_t all;
    ew_estimate acc, acc_norm; /* binomial standard errors */
} ew_choice_kind;
typedef struct ew_choice_item {
    char *kind, *question;
    uint32_t answer, best, best_norm; /* options by index */
    double margin; /* log-probability of the right option less that of the best other one */
} ew_choice_item;
typedef struct ew_choice_result {
    ew_choice_kind *kinds;
    uint32_t n_kinds;
    ew_choice_kind total;
    ew_choice_item *items;
    uint32_t n_items;
    double seconds;
} ew_choice_result;
/* jsonl: a line each {"question" or "context": text, "options": [texts], "answer": index, letter
 * or text, "kind" or "subject": text}. The option with the largest log-likelihood behind the
 * question wins: by its sum (acc), and by the sum over the option's UTF-8 bytes (acc_norm).
 *
 * Question and option are tokenised together, as the model would see them (without a template a
 * space joins them unless there is one). Scored are the tokens behind the longest
 * prefix that the question alone and all its joined forms share: so a token that spans the border
 * counts for every option alike. The prefix is computed once, each option from a rewind. */
EW_API ew_status ew_eval_choice(ew_runtime *rt, const char *jsonl, size_t len, const char *name,
                                const ew_choice_opts *opts, ew_choice_result *out,
                                ew_error *err) EW_MUST_USE;
EW_API void ew_choice_release(ew_choice_result *r);

/* ---- parity with a reference file ---- */

#define EW_PARITY_LEAD 0.05 /* of logits: closer ones are a near tie */
#define EW_PARITY_TIE  0.01 /* of a router's logits: the last expert taken and the next one */

typedef struct ew_parity_row {
    char way[24];                              /* "one go", "chunks", "token by token" */
    char tensor[32];                           /* "logits", "hidden_3" */
    double max_abs_err, max_abs_ref, relative; /* relative = max_abs_err / max_abs_ref */
    int64_t worst[3];                          /* batch, token, channel */
    bool ok;
    double kl; /* logits: mean divergence from the reference's, nats a token; else 0 */
} ew_parity_row;
typedef struct ew_parity_result {
    ew_parity_row *rows; /* released by ew_parity_release */
    uint32_t n_rows;
    bool ok;
    char first_bad[64]; /* "hidden_3 (layer 2) in chunks", or "" */
    double max_relative_logits;
    uint64_t n_greedy_equal, n_greedy; /* argmax agreement with the reference's logits */
    double max_kl;                     /* of the three ways */
    uint64_t n_greedy_clear; /* of those that differ: where the reference's best leads by more than
                                EW_PARITY_LEAD. Any is a difference */
    uint64_t n_ties;         /* tokens left out of all of the above: see router_gap */
    double tie_kl;           /* the largest divergence of one of them */
} ew_parity_result;
/* reference: a safetensors file with input_ids [B,S] and logits [B,S,V], and hidden_N if it has
 * them. tolerance 0: 1e-4.
 *
 * router_gap [B,S], for a model with experts: the least lead, over the layers, of the last expert
 * that the reference takes over the first that it leaves. A device that rounds the operands of
 * matrix products moves a router's logits by parts of a hundredth, whoever multiplies the router
 * itself exactly; a token within EW_PARITY_TIE may go to another expert there, and is counted
 * apart. On a CPU every token is judged. */
EW_API ew_status ew_eval_parity(ew_runtime *rt, const char *reference, double tolerance,
                                const ew_progress *progress, ew_parity_result *out,
                                ew_error *err) EW_MUST_USE;
EW_API void ew_parity_release(ew_parity_result *r);

/* ---- parity of two precisions, layer by layer ---- */

struct ew_build_opts;
typedef struct ew_layers_opts {
    uint32_t struct_size;
    uint32_t window;                                     /* tokens; 0: 128 */
    uint32_t max_windows;                                /* 0: 4 */
    const struct ew_build_opts *build, *build_reference; /* NULL: defaults */
    ew_progress progress;
} ew_layers_opts;
#define EW_LAYERS_OPTS_INIT                                                                        \
    {                                                                                              \
        sizeof(ew_layers_opts), 0, 0, 0, 0,                                                        \
        {                                                                                          \
            0, 0                                                                                   \
        }                                                                                          \
    }
/* Errors are relative, RMS over tokens of |difference| / |reference|. "Added" is what the model's
 * own layer does to the reference's input of that layer; "hidden" what came of all layers so far.
 */
typedef struct ew_layer_row {
    uint32_t layer;
    double hidden; /* the residual stream behind the layer, each model on its own */
    double added, added_attention, added_mlp;
    double gain_attention, gain_mlp; /* least-squares slope of what the half adds to the stream */
    bool suspicious;
} ew_layer_row;
/* A projection, on exactly the reference's input of it. */
typedef struct ew_site_row {
    char name[128];     /* "model.layers.3.mlp.down_proj" */
    int32_t layer;      /* -1: outside the layers */
    double error;       /* relative, as above */
    double gain;        /* slope of its output on the reference's: 1 but for noise */
    double gain_error;  /* its standard error, from how channels differ */
    double gain_folded; /* the slope when the reference's input gets the scales of the model's own:
                           AWQ and SmoothQuant scale columns and undo it in what feeds them */
    double usual_gain, usual_error; /* of its kind */
    double score;                   /* robust deviations from them; suspicious from 5 */
    bool folded; /* its channels are scaled by numbers of their own; the error is without them */
    bool suspicious;
    char why[128]; /* "gain 1.0200, others 0.9997 +- 0.0008"; "" when not suspicious */
} ew_site_row;
typedef struct ew_layers_result {
    ew_layer_row *layers;
    uint32_t n_layers;
    ew_site_row *sites; /* in the order of the graph; the embedding first */
    uint32_t n_sites, n_suspicious;
    uint32_t *worst_sites;  /* [n_sites] indices, suspicious ones first, then by error */
    uint32_t *worst_layers; /* [n_layers] indices by the error that they add */
    double logits;          /* relative error of the logits, each model on its own */
    ew_estimate same_top;
    double gain_spread, error_spread; /* robust standard deviations used for scores */
    uint64_t n_tokens;
    bool no_text; /* no tokenizer: pseudo-random ids were used */
    double seconds;
} ew_layers_result;
/* model, reference: checkpoint directories of one architecture. text NULL: a built-in one. Both run
 * without fusion; two of them are in memory at a time. UNSUPPORTED for other kinds of model. */
EW_API ew_status ew_eval_layers(const char *model, const char *reference, const char *text,
                                size_t len, const ew_layers_opts *opts, ew_layers_result *out,
                                ew_error *err) EW_MUST_USE;
EW_API void ew_layers_release(ew_layers_result *r);

/* ---- ONNX ---- */

/* ONNX backend test folders: model.onnx and test_data_set_N/{input,output}_M.pb. */
typedef enum ew_onnx_case {
    EW_ONNX_CASE_PASSED = 0,
    EW_ONNX_CASE_FAILED,
    EW_ONNX_CASE_REFUSED
} ew_onnx_case;
/* Runs one folder on the CPU (cpu_level NULL: native); *verdict, and why in err->text when not
 * PASSED. Tolerances as the ONNX backend suite: rtol 1e-3, atol 1e-7, unless the folder says
 * otherwise. Never crashes. */
EW_API ew_status ew_eval_onnx_case(const char *dir, const char *cpu_level, ew_onnx_case *verdict,
                                   ew_error *err) EW_MUST_USE;

#ifdef __cplusplus
}
#endif
#endif
