/* edgewise/quantize.h - a quantised copy of a checkpoint, as a Hugging Face directory.
 *
 *   hf checkpoint --ew_quantize--> directory with compressed-tensors metadata
 *
 * Works layer by layer: memory is a few times one layer, however large the model. */
#ifndef EW_QUANTIZE_H
#define EW_QUANTIZE_H

#include "edgewise/base.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Zero = default of every field. Strings are borrowed for the call. */
typedef struct ew_quantize_opts {
    uint32_t struct_size;
    const char *scheme;           /* "int8", "int4", "gptq", "fp8", "nvfp4", "mxfp4" */
    const char *method;           /* int4: "awq" (default), "awq+gptq" or "rtn"; int8: "rtn" */
    uint32_t group;               /* int4, gptq: 32, 64 or 128; 0: 128 */
    uint32_t bits;                /* gptq: 4 or 8; 0: 4 */
    bool asymmetric;              /* int4, gptq: zero points */
    bool act_order;               /* gptq: columns in order of their activations */
    const char *lm_head;          /* a scheme, or "none" (default) */
    const char *embedding;        /* "int8" or "none" (default) */
    const char *kv;               /* "int8", "fp8" or "none" (default) */
    const char *const *overrides; /* "PATTERN=SCHEME" by module name; the last that matches wins */
    uint32_t n_overrides;         /* at most 64 */
    const char *calibration;      /* UTF-8 text; NULL: the built-in one */
    size_t calibration_len;
    const int32_t *calibration_ids; /* tokens instead of a text; needs no tokenizer. NULL: none */
    size_t n_calibration_ids;
    uint32_t calibration_tokens; /* 0: 4096, or what the text has */
    uint32_t n_threads;          /* 0: one per core */
    ew_progress progress;
    const ew_logger *logger;
} ew_quantize_opts;
#define EW_QUANTIZE_OPTS_INIT                                                                      \
    {                                                                                              \
        .struct_size = sizeof(ew_quantize_opts)                                                    \
    }

/* Writes `out` (which must be absent or empty) in one go: nothing is under that name before all is
 * written. *json (may be NULL) is a summary: bits per weight, errors by module; ew_text_free of
 * graph.h. Errors: INVALID_ARG names the option, UNSUPPORTED what cannot be quantised (by tensor),
 * CANCELLED. */
EW_API ew_status ew_quantize(const char *checkpoint, const char *out, const ew_quantize_opts *opts,
                             char **json, ew_error *err) EW_MUST_USE;

#ifdef __cplusplus
}
#endif
#endif
