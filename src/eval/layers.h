/* eval/layers.h - what the files of the layer-by-layer comparison share. */
#ifndef EW_EVAL_LAYERS_H
#define EW_EVAL_LAYERS_H

#include "edgewise/eval.h"

/* Sums over tokens of one place, each token weighted by 1 / |reference|^2, so that a few tokens of
 * huge norm do not decide: x the reference's, y the model's. */
struct ew_match {
    double *xx, *xy, *yy; /* [width] */
    uint32_t width;
    uint64_t n;
};
ew_status ew_match_init(struct ew_match *m, uint32_t width, ew_error *err);
void ew_match_deinit(struct ew_match *m);
/* [n][width] each; base, when given, is taken from both. */
void ew_match_add(struct ew_match *m, const float *y, const float *x, const float *base,
                  uint32_t n);
/* |y - x| / |x|, RMS over tokens. */
double ew_match_error(const struct ew_match *m);
/* Least-squares slope of y on x over all channels. */
double ew_match_gain(const struct ew_match *m);
/* Its standard error, taking channels as draws: rounding scales each a little, by chance. */
double ew_match_gain_error(const struct ew_match *m);
/* Slope of channel c; 1 when the reference has nothing there. */
double ew_match_channel_gain(const struct ew_match *m, uint32_t c);
/* Whether channels are scaled by numbers of their own: the median of |ln slope| is over 0.1, which
 * no rounding of weights makes. NO_MEMORY. */
ew_status ew_match_is_folded(const struct ew_match *m, bool *folded, ew_error *err);
/* The error that is left when every channel's own slope is taken out. */
double ew_match_error_unfolded(const struct ew_match *m);

/* Scores of all sites from their errors and gains, and both orders. */
ew_status ew_layers_judge(ew_layers_result *r, ew_error *err);

/* "model.layers.3.mlp.down_proj": "down_proj". */
const char *ew_site_kind(const char *name);

extern const char ew_layers_text[];

#endif
