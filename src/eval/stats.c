/* eval/stats.c - means, percentiles, shares and their errors. */
#include "eval/stats.h"

#include <math.h>
#include <stdlib.h>

ew_estimate ew_stats_mean(const double *x, size_t n)
{
    ew_estimate e = { 0, 0 };
    double squares = 0;

    for (size_t i = 0; i < n; i++)
        e.value += x[i];
    e.value = n ? e.value / (double)n : 0;
    for (size_t i = 0; i < n; i++)
        squares += (x[i] - e.value) * (x[i] - e.value);
    if (n > 1)
        e.error = sqrt(squares / (double)(n - 1) / (double)n);
    return e;
}

ew_estimate ew_stats_rms(const double *x, size_t n)
{
    double mean = 0, var = 0;
    ew_estimate e = { 0, 0 };

    for (size_t i = 0; i < n; i++)
        mean += x[i] * x[i];
    mean = n ? mean / (double)n : 0;
    for (size_t i = 0; i < n; i++)
        var += (x[i] * x[i] - mean) * (x[i] * x[i] - mean);
    e.value = sqrt(mean);
    if (n > 1 && e.value > 0)
        e.error = sqrt(var / (double)(n - 1) / (double)n) / (2 * e.value);
    return e;
}

ew_estimate ew_stats_share(uint64_t k, uint64_t n)
{
    const double p = n ? (double)k / (double)n : 0;

    return (ew_estimate){ p, n ? sqrt(p * (1 - p) / (double)n) : 0 };
}

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;

    return x < y ? -1 : x > y;
}

void ew_stats_sort(double *x, size_t n)
{
    if (n > 1)
        qsort(x, n, sizeof(*x), by_value);
}

/* At a rank between 0 and n - 1. */
static double at_rank(const double *sorted, size_t n, double rank)
{
    const double clipped = rank < 0 ? 0 : rank > (double)(n - 1) ? (double)(n - 1) : rank;
    const size_t below = (size_t)clipped;
    const size_t above = below + 1 < n ? below + 1 : below;

    return sorted[below] + (clipped - (double)below) * (sorted[above] - sorted[below]);
}

ew_estimate ew_stats_quantile(const double *sorted, size_t n, double q)
{
    const double rank = q * (double)(n ? n - 1 : 0), width = sqrt((double)n * q * (1 - q));

    if (n == 0)
        return (ew_estimate){ 0, 0 };
    return (ew_estimate){ at_rank(sorted, n, rank),
                          (at_rank(sorted, n, rank + width) - at_rank(sorted, n, rank - width)) /
                              2 };
}

void ew_stats_wilson(uint64_t k, uint64_t n, double *low, double *high)
{
    const double z = 1.959963984540054, m = (double)n, p = n ? (double)k / m : 0;

    *low = 0;
    *high = 1;
    if (n == 0)
        return;
    const double scale = 1 + z * z / m, centre = (p + z * z / (2 * m)) / scale;
    const double half = z * sqrt(p * (1 - p) / m + z * z / (4 * m * m)) / scale;
    *low = k == 0 ? 0 : centre - half;
    *high = k == n ? 1 : centre + half;
}

double ew_stats_median(double *x, size_t n)
{
    ew_stats_sort(x, n);
    return ew_stats_quantile(x, n, 0.5).value;
}

double ew_stats_spread(double *x, size_t n)
{
    const double centre = ew_stats_median(x, n);

    for (size_t i = 0; i < n; i++)
        x[i] = fabs(x[i] - centre);
    return 1.4826 * ew_stats_median(x, n);
}
