/* eval/layers_judge.c - which projections are not as the others: robust statistics over a model.
 *
 * Rounding of weights makes outputs noisy, but hardly scales them: over thousands of weights its
 * errors cancel, so the slope of a projection's output on the reference's stays within a fraction
 * of a percent of that of its like in other layers, though the noise is ten times more. A wrong
 * scale shows as a slope; other faults as an error far above that of the same projection elsewhere.
 * Both are judged by the distance from the median of the kind, in robust standard deviations over
 * all projections. */
#include "eval/layers.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/mem.h"
#include "eval/stats.h"

enum { KIND_MIN = 5 }; /* fewer of a kind: the median over all projections is its usual value */

#define SCORE_MIN        5.0
#define GAIN_SPREAD_MIN  0.0007 /* below it slopes are equal, whatever the others' spread */
#define GAIN_DELTA_MIN   0.006  /* a smaller one is no fault */
#define ERROR_SPREAD_MIN 0.15   /* of ln(error) */
#define ERROR_RATIO_MIN  3.0
#define ERROR_FLOOR      1e-5 /* f32 noise */

const char *ew_site_kind(const char *name)
{
    const char *const dot = strrchr(name, '.');

    return dot ? dot + 1 : name;
}

static double log_error(const ew_site_row *s)
{
    return log(s->error > ERROR_FLOOR ? s->error : ERROR_FLOOR);
}

/* The median of one figure over sites like s. gains: those not folded, else logarithms of errors.
 */
static double usual(const ew_layers_result *r, const ew_site_row *like, bool gains, double *x)
{
    for (int same_kind = 1; same_kind >= 0; same_kind--) {
        size_t n = 0;

        for (uint32_t i = 0; i < r->n_sites; i++) {
            const ew_site_row *const s = &r->sites[i];

            if (same_kind && strcmp(ew_site_kind(s->name), ew_site_kind(like->name)) != 0)
                continue;
            if (!gains)
                x[n++] = log_error(s);
            else if (!s->folded)
                x[n++] = s->gain;
        }
        if (n >= KIND_MIN || (!same_kind && n > 0))
            return ew_stats_median(x, n);
    }
    return gains ? 1 : log_error(like);
}

static void find_spreads(ew_layers_result *r, double *x)
{
    size_t n = 0;

    for (uint32_t i = 0; i < r->n_sites; i++)
        if (!r->sites[i].folded)
            x[n++] = r->sites[i].gain - r->sites[i].usual_gain;
    r->gain_spread = n ? ew_stats_spread(x, n) : 0;
    for (n = 0; n < r->n_sites; n++)
        x[n] = log_error(&r->sites[n]) - log(r->sites[n].usual_error);
    r->error_spread = n ? ew_stats_spread(x, n) : 0;
}

static void score(const ew_layers_result *r, ew_site_row *s)
{
    const double gain = s->folded ? 0 : fabs(s->gain - s->usual_gain);
    const double noise = hypot(r->gain_spread, s->gain_error);
    const double by_gain = gain / fmax(noise, GAIN_SPREAD_MIN);
    const double ratio = fmax(s->error, ERROR_FLOOR) / s->usual_error;
    const double by_error = log(ratio) / fmax(r->error_spread, ERROR_SPREAD_MIN);
    const bool finite = isfinite(s->gain) && isfinite(s->error);

    s->score = finite ? fmax(by_gain, by_error) : INFINITY;
    if (!finite) {
        (void)snprintf(s->why, sizeof(s->why), "not a finite number");
    } else if (by_gain >= SCORE_MIN && gain >= GAIN_DELTA_MIN) {
        (void)snprintf(s->why, sizeof(s->why), "gain %.4f, others %.4f +- %.4f", s->gain,
                       s->usual_gain, noise);
    } else if (by_error >= SCORE_MIN && ratio >= ERROR_RATIO_MIN) {
        (void)snprintf(s->why, sizeof(s->why), "error %.3g, others %.3g", s->error, s->usual_error);
    }
    s->suspicious = s->why[0] != '\0';
}

static bool site_before(const ew_site_row *a, const ew_site_row *b)
{
    if (a->suspicious != b->suspicious)
        return a->suspicious;
    return a->suspicious ? a->score > b->score : a->error > b->error;
}

static void order(ew_layers_result *r)
{
    for (uint32_t i = 0; i < r->n_sites; i++) {
        uint32_t at = i;

        for (; at > 0 && site_before(&r->sites[i], &r->sites[r->worst_sites[at - 1]]); at--)
            r->worst_sites[at] = r->worst_sites[at - 1];
        r->worst_sites[at] = i;
    }
    for (uint32_t i = 0; i < r->n_layers; i++) {
        uint32_t at = i;

        for (; at > 0 && r->layers[i].added > r->layers[r->worst_layers[at - 1]].added; at--)
            r->worst_layers[at] = r->worst_layers[at - 1];
        r->worst_layers[at] = i;
    }
}

ew_status ew_layers_judge(ew_layers_result *r, ew_error *err)
{
    double *const x = ew_mem_calloc(EW_MEM_EVAL, r->n_sites + 1u, sizeof(*x));

    ew_mem_free(r->worst_sites);
    ew_mem_free(r->worst_layers);
    r->worst_sites = ew_mem_calloc(EW_MEM_EVAL, r->n_sites + 1u, sizeof(*r->worst_sites));
    r->worst_layers = ew_mem_calloc(EW_MEM_EVAL, r->n_layers + 1u, sizeof(*r->worst_layers));
    if (!x || !r->worst_sites || !r->worst_layers) {
        ew_mem_free(x);
        return ew_fail(err, EW_STATUS_NO_MEMORY, "%u projections", r->n_sites);
    }
    for (uint32_t i = 0; i < r->n_sites; i++) {
        r->sites[i].usual_gain = usual(r, &r->sites[i], true, x);
        r->sites[i].usual_error = exp(usual(r, &r->sites[i], false, x));
    }
    find_spreads(r, x);
    r->n_suspicious = 0;
    for (uint32_t i = 0; i < r->n_sites; i++) {
        ew_site_row *const s = &r->sites[i];

        score(r, s);
        r->n_suspicious += s->suspicious;
        if (s->suspicious && s->layer >= 0 && (uint32_t)s->layer < r->n_layers)
            r->layers[s->layer].suspicious = true;
    }
    order(r);
    ew_mem_free(x);
    return EW_STATUS_OK;
}
