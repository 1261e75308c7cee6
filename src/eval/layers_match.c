/* eval/layers_match.c - least squares between what two models compute at one place. */
#include "eval/layers.h"

#include <math.h>
#include <string.h>

#include "base/error.h"
#include "base/mem.h"
#include "eval/stats.h"

ew_status ew_match_init(struct ew_match *m, uint32_t width, ew_error *err)
{
    memset(m, 0, sizeof(*m));
    m->width = width;
    m->xx = ew_mem_calloc(EW_MEM_EVAL, width, sizeof(double));
    m->xy = ew_mem_calloc(EW_MEM_EVAL, width, sizeof(double));
    m->yy = ew_mem_calloc(EW_MEM_EVAL, width, sizeof(double));
    if (m->xx && m->xy && m->yy)
        return EW_STATUS_OK;
    ew_match_deinit(m);
    return ew_fail(err, EW_STATUS_NO_MEMORY, "sums of %u channels", width);
}

void ew_match_deinit(struct ew_match *m)
{
    ew_mem_free(m->xx);
    ew_mem_free(m->xy);
    ew_mem_free(m->yy);
    memset(m, 0, sizeof(*m));
}

void ew_match_add(struct ew_match *m, const float *y, const float *x, const float *base, uint32_t n)
{
    for (uint32_t t = 0; t < n; t++) {
        const size_t off = (size_t)t * m->width;
        double norm = 0;

        for (uint32_t c = 0; c < m->width; c++) {
            const double v = (double)x[off + c] - (base ? (double)base[off + c] : 0);
            norm += v * v;
        }
        if (!(norm > 0))
            continue;
        for (uint32_t c = 0; c < m->width; c++) {
            const double b = base ? (double)base[off + c] : 0;
            const double vx = (double)x[off + c] - b, vy = (double)y[off + c] - b;

            m->xx[c] += vx * vx / norm;
            m->xy[c] += vx * vy / norm;
            m->yy[c] += vy * vy / norm;
        }
        m->n++;
    }
}

struct sums {
    double xx, xy, yy;
};

static struct sums all_channels(const struct ew_match *m)
{
    struct sums s = { 0, 0, 0 };

    for (uint32_t c = 0; c < m->width; c++) {
        s.xx += m->xx[c];
        s.xy += m->xy[c];
        s.yy += m->yy[c];
    }
    return s;
}

double ew_match_error(const struct ew_match *m)
{
    double error = 0, xx = 0;

    for (uint32_t c = 0; c < m->width; c++) {
        error += m->yy[c] - 2 * m->xy[c] + m->xx[c];
        xx += m->xx[c];
    }
    /* Where both are the same the three sums cancel but for rounding. */
    return xx > 0 && error > 1e-14 * xx ? sqrt(error / xx) : error != error ? NAN : 0;
}

double ew_match_gain(const struct ew_match *m)
{
    const struct sums s = all_channels(m);

    return s.xx > 0 ? s.xy / s.xx : 1;
}

double ew_match_gain_error(const struct ew_match *m)
{
    const struct sums s = all_channels(m);
    double squares = 0;

    for (uint32_t c = 0; c < m->width && s.xx > 0; c++) {
        const double off = m->xy[c] - s.xy / s.xx * m->xx[c];
        squares += off * off;
    }
    return s.xx > 0 ? sqrt(squares) / s.xx : 0;
}

double ew_match_channel_gain(const struct ew_match *m, uint32_t c)
{
    return m->xx[c] > 0 ? m->xy[c] / m->xx[c] : 1;
}

ew_status ew_match_is_folded(const struct ew_match *m, bool *folded, ew_error *err)
{
    double *const x = ew_mem_calloc(EW_MEM_EVAL, m->width, sizeof(*x));
    size_t n = 0;

    *folded = false;
    if (!x)
        return ew_fail(err, EW_STATUS_NO_MEMORY, "slopes of %u channels", m->width);
    for (uint32_t c = 0; c < m->width; c++) {
        const double gain = ew_match_channel_gain(m, c);

        if (m->xx[c] > 0 && isfinite(gain))
            x[n++] = gain > 0 ? fabs(log(gain)) : 1;
    }
    *folded = n > 0 && ew_stats_median(x, n) > 0.1;
    ew_mem_free(x);
    return EW_STATUS_OK;
}

double ew_match_error_unfolded(const struct ew_match *m)
{
    double error = 0, size = 0;

    for (uint32_t c = 0; c < m->width; c++) {
        const double fit = m->xx[c] > 0 ? m->xy[c] * m->xy[c] / m->xx[c] : 0;

        error += m->yy[c] - fit;
        size += fit;
    }
    return size > 0 && error > 0 ? sqrt(error / size) : 0;
}
