/* edgewise/eval.h - how right a model is: perplexity, parity with a reference, ONNX test folders.
 *
 * Perplexity and parity work on an opened runtime whose engine was built with EW_BUILD_ALL_LOGITS
 * (to compare hidden states, with those too). One thread at a time per runtime. */
#ifndef EW_EVAL_H
#define EW_EVAL_H

#include "edgewise/runtime.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct ew_ppl_opts {
    uint32_t struct_size;
    uint32_t window;    /* tokens a window; 0: 1024 or the KV length if less */
    uint32_t stride;    /* 0: window (no overlap); with overlap only the new tokens are scored */
    uint64_t max_bytes; /* of the text; 0: all */
    uint64_t max_chars; /* UTF-8 characters of the text; 0: all */
    ew_progress progress;
} ew_ppl_opts;
#define EW_PPL_OPTS_INIT                                                                           \
    {                                                                                              \
        sizeof(ew_ppl_opts), 0, 0, 0, 0,                                                           \
        {                                                                                          \
            0, 0                                                                                   \
        }                                                                                          \
    }
typedef struct ew_ppl_result {
    uint64_t n_tokens, n_scored;
    double nll_sum, perplexity, perplexity_stderr, seconds;
} ew_ppl_result;
/* Tokens 1.. of each window are scored given those before them in the window (Hugging Face's
 * fixed-length recipe). */
EW_API ew_status ew_eval_ppl(ew_runtime *rt, const char *text, size_t len, const ew_ppl_opts *opts,
                             ew_ppl_result *out, ew_error *err) EW_MUST_USE;

typedef struct ew_parity_row {
    char way[24];                              /* "one go", "chunks", "token by token" */
    char tensor[32];                           /* "logits", "hidden_3" */
    double max_abs_err, max_abs_ref, relative; /* relative = max_abs_err / max_abs_ref */
    int64_t worst[3];                          /* batch, token, channel */
    bool ok;
} ew_parity_row;
typedef struct ew_parity_result {
    ew_parity_row *rows; /* released by ew_parity_release */
    uint32_t n_rows;
    bool ok;
    char first_bad[64]; /* "hidden_3 (layer 2) in chunks", or "" */
    double max_relative_logits;
    uint64_t n_greedy_equal, n_greedy; /* argmax agreement with the reference's logits */
} ew_parity_result;
/* reference: a safetensors file with input_ids [B,S] and logits [B,S,V], and hidden_N if it has
 * them. tolerance 0: 1e-4. */
EW_API ew_status ew_eval_parity(ew_runtime *rt, const char *reference, double tolerance,
                                const ew_progress *progress, ew_parity_result *out,
                                ew_error *err) EW_MUST_USE;
EW_API void ew_parity_release(ew_parity_result *r);

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
