/* eval/layers_judge.c - which projections are not as the others: robust statistics over a model.
 *
 * Rounding of weights makes outputs noisy, but hardly scales them: over thousands of weights its
 * errors cancel, so the slope of a projection's output on the reference's stays within a fraction
 * of a percent of that of its like in other layers, though the noise is ten times more. A wrong
 * scale shows as a slope; other faults as an error far above that of the same projection elsewhere.
 * Both are judged by the distance from the median of the kind, in robust standard deviations over
 * all projections or over the kind, whichever is more, and the slope's own standard error, which is
 * larger where few channels share the noise.
 *
 * Quantisers may scale the channels of a value projection or an up projection and undo it in the
 * columns of what reads them. Then both slopes scatter and mean nothing alone; but the reader's
 * slope on input with the model's own scales is as usual all the same. So where a kind's slopes
 * scatter, the reader is judged by that slope alone, and stands for the pair; elsewhere either of
 * the pair is suspicious when its own slope is unusual and that one too. */
#include "eval/layers.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/mem.h"
#include "base/size.h"
#include "eval/stats.h"

enum { KIND_MIN = 5 }; /* fewer of a kind: the median over all projections is its usual value */

#define SCORE_MIN        5.0
#define SCORE_READER     3.0    /* enough of the reader's slope beside an unusual own one */
#define FOLDED_SPREAD    0.006  /* of the slopes of a kind: over it, and over */
#define FOLDED_RATIO     3.0    /* times that with the model's own scales, channels are scaled */
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

/* Sites whose channels may be scaled, and what undoes it. */
static const char *const readers[][2] = { { "v_proj", "o_proj" }, { "up_proj", "down_proj" } };

/* The site whose gain_folded tells whether s is wrong: s, or what reads it in its layer. */
static const ew_site_row *reader_of(const ew_layers_result *r, const ew_site_row *s)
{
    for (size_t k = 0; k < EW_COUNT(readers); k++)
        for (uint32_t i = 0; i < r->n_sites && strcmp(ew_site_kind(s->name), readers[k][0]) == 0;
             i++)
            if (r->sites[i].layer == s->layer &&
                strcmp(ew_site_kind(r->sites[i].name), readers[k][1]) == 0)
                return &r->sites[i];
    return s;
}

/* The kind of projection that s undoes the scales of; NULL if none. */
static const char *fed_by(const ew_site_row *s)
{
    for (size_t k = 0; k < EW_COUNT(readers); k++)
        if (strcmp(ew_site_kind(s->name), readers[k][1]) == 0)
            return readers[k][0];
    return NULL;
}

enum figure { GAIN, GAIN_FOLDED, LOG_ERROR };

static double figure(const ew_site_row *s, enum figure f)
{
    return f == GAIN ? s->gain : f == GAIN_FOLDED ? s->gain_folded : log_error(s);
}

/* The median of one figure over sites like s. */
static double usual(const ew_layers_result *r, const ew_site_row *like, enum figure f, double *x)
{
    size_t n = 0;

    for (int same_kind = 1; same_kind >= 0 && n < KIND_MIN; same_kind--) {
        n = 0;
        for (uint32_t i = 0; i < r->n_sites; i++)
            if (!same_kind || strcmp(ew_site_kind(r->sites[i].name), ew_site_kind(like->name)) == 0)
                x[n++] = figure(&r->sites[i], f);
    }
    return ew_stats_median(x, n);
}

/* Robust standard deviation of one figure over the kind of s; 0 when there are too few. */
static double kind_spread(const ew_layers_result *r, const ew_site_row *like, enum figure f,
                          double *x)
{
    size_t n = 0;

    for (uint32_t i = 0; i < r->n_sites; i++)
        if (strcmp(ew_site_kind(r->sites[i].name), ew_site_kind(like->name)) == 0)
            x[n++] = figure(&r->sites[i], f);
    return n >= KIND_MIN ? ew_stats_spread(x, n) : 0;
}

struct kind { /* what is usual for a site; one each */
    double gain_folded, spread, spread_folded;
    bool single; /* no other of its kind */
};

/* Over figures that scales of channels leave alone. */
static void find_spreads(ew_layers_result *r, const struct kind *kinds, double *x)
{
    size_t n = 0;

    for (uint32_t i = 0; i < r->n_sites; i++)
        if (reader_of(r, &r->sites[i]) == &r->sites[i] && !kinds[i].single)
            x[n++] = r->sites[i].gain_folded - kinds[i].gain_folded;
    r->gain_spread = n ? ew_stats_spread(x, n) : 0;
    for (n = 0; n < r->n_sites; n++)
        x[n] = log_error(&r->sites[n]) - log(r->sites[n].usual_error);
    r->error_spread = n ? ew_stats_spread(x, n) : 0;
}

/* In standard deviations. */
static double z_of(const ew_layers_result *r, double off, double spread, double error)
{
    const double noise = hypot(fmax(spread, r->gain_spread), error);

    return fabs(off) < GAIN_DELTA_MIN ? 0 : fabs(off) / fmax(noise, GAIN_SPREAD_MIN);
}

/* Whether channels of the kind are scaled. */
static bool scatters(const struct kind *k, const struct kind *reader)
{
    return k->spread > FOLDED_SPREAD && k->spread > FOLDED_RATIO * reader->spread_folded;
}

static double gain_score(const ew_layers_result *r, const struct kind *kinds, const ew_site_row *s)
{
    const struct kind *const k = &kinds[s - r->sites];
    const ew_site_row *const reader = reader_of(r, s);
    const struct kind *const rk = &kinds[reader - r->sites];
    const double own = s->gain - s->usual_gain, read = reader->gain_folded - rk->gain_folded;

    if (k->single && fabs(s->gain - 1) < fabs(own)) /* nothing is odd about a slope of 1 */
        return z_of(r, s->gain - 1, 0, s->gain_error);
    if (!k->single && scatters(k, rk))
        return reader == s ? z_of(r, read, rk->spread_folded, s->gain_error) : 0;
    return fmin(z_of(r, own, 0, s->gain_error),
                z_of(r, read, 0, reader->gain_error) * SCORE_MIN / SCORE_READER);
}

static void score(const ew_layers_result *r, const struct kind *kinds, ew_site_row *s)
{
    const double by_gain = gain_score(r, kinds, s);
    const double ratio = fmax(s->error, ERROR_FLOOR) / s->usual_error;
    const double by_error = log(ratio) / fmax(r->error_spread, ERROR_SPREAD_MIN);
    const bool finite = isfinite(s->gain) && isfinite(s->error);

    s->score = finite ? fmax(by_gain, by_error) : INFINITY;
    if (!finite) {
        (void)snprintf(s->why, sizeof(s->why), "not a finite number");
    } else if (by_gain >= SCORE_MIN) {
        const struct kind *const k = &kinds[s - r->sites];
        const bool folded = !k->single && scatters(k, k);
        const char *const other = folded ? fed_by(s) : NULL;
        const double spread = folded ? fmax(k->spread_folded, r->gain_spread) : r->gain_spread;

        (void)snprintf(s->why, sizeof(s->why), "gain %.4f, others %.4f +- %.4f%s%s%s",
                       folded ? s->gain_folded : s->gain, folded ? k->gain_folded : s->usual_gain,
                       hypot(spread, s->gain_error), other ? " (this or " : "", other ? other : "",
                       other ? ", whose channels it undoes)" : "");
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

static void judge(ew_layers_result *r, struct kind *kinds, double *x)
{
    for (uint32_t i = 0; i < r->n_sites; i++) {
        ew_site_row *const s = &r->sites[i];
        uint32_t n = 0;

        s->usual_gain = usual(r, s, GAIN, x);
        s->usual_error = exp(usual(r, s, LOG_ERROR, x));
        kinds[i].gain_folded = usual(r, s, GAIN_FOLDED, x);
        kinds[i].spread = kind_spread(r, s, GAIN, x);
        kinds[i].spread_folded = kind_spread(r, s, GAIN_FOLDED, x);
        for (uint32_t k = 0; k < r->n_sites; k++)
            n += strcmp(ew_site_kind(r->sites[k].name), ew_site_kind(s->name)) == 0;
        kinds[i].single = n == 1;
    }
    find_spreads(r, kinds, x);
    r->n_suspicious = 0;
    for (uint32_t i = 0; i < r->n_sites; i++) {
        ew_site_row *const s = &r->sites[i];

        score(r, kinds, s);
        r->n_suspicious += s->suspicious;
        if (s->suspicious && s->layer >= 0 && (uint32_t)s->layer < r->n_layers)
            r->layers[s->layer].suspicious = true;
    }
    order(r);
}

ew_status ew_layers_judge(ew_layers_result *r, ew_error *err)
{
    double *const x = ew_mem_calloc(EW_MEM_EVAL, r->n_sites + 1u, sizeof(*x));
    struct kind *const kinds = ew_mem_calloc(EW_MEM_EVAL, r->n_sites + 1u, sizeof(*kinds));
    ew_status st = EW_STATUS_OK;

    ew_mem_free(r->worst_sites);
    ew_mem_free(r->worst_layers);
    r->worst_sites = ew_mem_calloc(EW_MEM_EVAL, r->n_sites + 1u, sizeof(*r->worst_sites));
    r->worst_layers = ew_mem_calloc(EW_MEM_EVAL, r->n_layers + 1u, sizeof(*r->worst_layers));
    if (x && kinds && r->worst_sites && r->worst_layers)
        judge(r, kinds, x);
    else
        st = ew_fail(err, EW_STATUS_NO_MEMORY, "%u projections", r->n_sites);
    ew_mem_free(x);
    ew_mem_free(kinds);
    return st;
}
