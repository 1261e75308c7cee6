/* eval/stats.h - the statistics of the evaluations: means, percentiles, shares, robust spread.
 *
 * Plain functions over arrays of f64; knows no model. */
#ifndef EW_EVAL_STATS_H
#define EW_EVAL_STATS_H

#include "edgewise/eval.h"

/* Mean and sd / sqrt(n), two passes; n 0 gives zeros. */
ew_estimate ew_stats_mean(const double *x, size_t n);
/* Root of the mean square; its error by the delta method. */
ew_estimate ew_stats_rms(const double *x, size_t n);
/* The share k / n and its binomial standard error. */
ew_estimate ew_stats_share(uint64_t k, uint64_t n);
/* Ascending. */
void ew_stats_sort(double *x, size_t n);
/* The q-th quantile of sorted values, linear between neighbours (numpy's default). Its error is
 * half the distance of the order statistics one binomial standard deviation, sqrt(n q (1 - q))
 * ranks, below and above. */
ew_estimate ew_stats_quantile(const double *sorted, size_t n, double q);
/* Wilson's 95 % interval of a share. */
void ew_stats_wilson(uint64_t k, uint64_t n, double *low, double *high);
/* Median, and the robust standard deviation 1.4826 * median(|x - median|); sorts x. */
double ew_stats_median(double *x, size_t n);
double ew_stats_spread(double *x, size_t n);

#endif
