/* quant/codec.h - the number formats that a weight may be rounded to: how a block gets its scale,
 * how a value gets its code, and what a code means. Knows no tensors of files. Pure functions.
 *
 *   INT    symmetric: v = code * scale; asymmetric: v = (code - zero) * scale
 *   FP8    OCP e4m3, one scale a row
 *   NVFP4  e2m1 in blocks of 16; scale = e4m3 / global, global one f32 for the tensor
 *   MXFP4  e2m1 in blocks of 32; scale a power of two (OCP MX 1.0)
 */
#ifndef EW_QUANT_CODEC_H
#define EW_QUANT_CODEC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "edgewise/base.h"

enum ew_q_kind { EW_Q_NONE, EW_Q_INT, EW_Q_FP8, EW_Q_NVFP4, EW_Q_MXFP4 };

struct ew_q_format {
    enum ew_q_kind kind;
    int bits;     /* INT: 4 or 8 */
    size_t group; /* values that share a scale; 0: a row */
    bool asymmetric;
    bool packed;          /* INT: stored in i32 words (weights alone), else as i8 */
    ew_dtype scale_dtype; /* INT, FP8: what scales are stored as, so rounded to */
};

/* A rounded matrix. codes: INT symmetric -2^(bits-1).., asymmetric 0..2^bits-1, floats the bits. */
struct ew_q_tensor {
    struct ew_q_format format;
    size_t n, k, n_groups;
    int16_t *codes; /* [n][k] */
    float *scale;   /* [n][n_groups], what a code is multiplied with */
    uint8_t *zero;  /* [n][n_groups], asymmetric only, else NULL */
    float global;   /* NVFP4: the divisor that is stored; else 1 */
};

/* Values in a group of a row of k. */
static inline size_t ew_q_group(const struct ew_q_format *f, size_t k)
{
    return f->group ? f->group : k;
}

ew_status ew_q_tensor_init(struct ew_q_tensor *q, const struct ew_q_format *f, size_t n, size_t k,
                           ew_error *err);
void ew_q_tensor_deinit(struct ew_q_tensor *q);

/* The divisor of NVFP4's block scales for a tensor whose largest magnitude is amax. */
float ew_q_global(float amax);

/* Scale (and zero point) of one block of n values. importance (may be NULL) weighs the squared
 * errors that a search minimises; search false: the format's plain rule (what its documents and
 * compressed-tensors compute from the largest magnitude). */
void ew_q_fit(const struct ew_q_format *f, const float *w, const float *importance, size_t n,
              float global, bool search, float *scale, uint8_t *zero);
int16_t ew_q_encode(const struct ew_q_format *f, float v, float scale, uint8_t zero);
float ew_q_decode(const struct ew_q_format *f, int16_t code, float scale, uint8_t zero);
/* n values to what their codes mean; codes may be NULL. */
void ew_q_round(const struct ew_q_format *f, const float *w, size_t n, float scale, uint8_t zero,
                int16_t *codes, float *out);

/* Rows [begin, end) of w[.][k] into q and, when given, back into out. */
void ew_q_rtn_rows(struct ew_q_tensor *q, const float *w, const float *importance, bool search,
                   size_t begin, size_t end, float *out);

#endif
