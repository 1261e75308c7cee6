/* eval/kld_stats.c - divergence at one token, and the figures over all tokens. */
#include "eval/kld.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "base/error.h"
#include "eval/stats.h"
#include "eval/windows.h"
#include "sample/sampler.h"

ew_status ew_kld_measure(const float *model, const float *reference, uint32_t vocab, int32_t id,
                         size_t index, struct ew_kld_pair *out, ew_error *err)
{
    double sum_model, sum_reference, kl = 0;

    EW_TRY(ew_log_sum(model, vocab, index, &sum_model, err));
    EW_TRY(ew_log_sum(reference, vocab, index, &sum_reference, err));
    for (uint32_t i = 0; i < vocab; i++) {
        const double lr = (double)reference[i] - sum_reference;
        const double p = exp(lr);

        if (p > 0)
            kl += p * (lr - ((double)model[i] - sum_model));
    }
    if (!isfinite(kl) || !isfinite(model[id]) || !isfinite(reference[id]))
        return ew_fail(err, EW_STATUS_MALFORMED,
                       "token %zu: a model's logits are not finite numbers", index);
    out->kl = kl > 0 ? kl : 0; /* below by rounding alone */
    out->nll_model = sum_model - (double)model[id];
    out->nll_reference = sum_reference - (double)reference[id];
    out->same_top = ew_argmax(model, vocab) == ew_argmax(reference, vocab);
    return EW_STATUS_OK;
}

static ew_estimate exp_of(ew_estimate log)
{
    return (ew_estimate){ exp(log.value), exp(log.value) * log.error };
}

static void fill_bins(const double *kl, size_t n, ew_kld_result *out)
{
    for (size_t i = 0; i < n; i++) {
        const double at = kl[i] > 0 ? floor((log10(kl[i]) + 8) * 4) : 0;

        out->bins[at < 0 ? 0 : at > EW_KLD_BINS - 1 ? EW_KLD_BINS - 1 : (int)at]++;
    }
}

static void fill_places(const struct ew_kld_pair *pairs, const uint8_t *place, size_t n, double *x,
                        ew_kld_result *out)
{
    for (int p = 0; p < EW_KLD_PLACES; p++) {
        size_t m = 0;

        for (size_t i = 0; i < n; i++)
            if (place[i] == p)
                x[m++] = pairs[i].kl;
        out->places[p] = ew_stats_mean(x, m);
    }
}

/* Insertion into the few largest; earlier tokens win ties. */
static void fill_worst(const struct ew_kld_pair *pairs, size_t n, ew_kld_result *out)
{
    for (size_t i = 0; i < n; i++) {
        uint32_t at = out->n_worst;

        if (at == EW_KLD_WORST && pairs[i].kl <= out->worst[at - 1].kl)
            continue;
        if (at < EW_KLD_WORST)
            out->n_worst++;
        else
            at--;
        for (; at > 0 && out->worst[at - 1].kl < pairs[i].kl; at--)
            out->worst[at] = out->worst[at - 1];
        out->worst[at] = (ew_kld_token){ .index = i,
                                         .kl = pairs[i].kl,
                                         .p_model = exp(-pairs[i].nll_model),
                                         .p_reference = exp(-pairs[i].nll_reference) };
    }
}

ew_status ew_kld_summarise(const struct ew_kld_pair *pairs, const uint8_t *place, size_t n,
                           ew_kld_result *out, ew_error *err)
{
    double *const x = ew_mem_calloc(EW_MEM_EVAL, n + 1, sizeof(*x));
    uint64_t n_same = 0;

    if (!x)
        return ew_fail(err, EW_STATUS_NO_MEMORY, "figures of %zu tokens", n);
    for (size_t i = 0; i < n; i++)
        n_same += pairs[i].same_top;
    out->n_scored = n;
    out->same_top = ew_stats_share(n_same, n);
    for (size_t i = 0; i < n; i++)
        x[i] = pairs[i].nll_model;
    out->ppl_model = exp_of(ew_stats_mean(x, n));
    for (size_t i = 0; i < n; i++)
        x[i] = pairs[i].nll_reference;
    out->ppl_reference = exp_of(ew_stats_mean(x, n));
    for (size_t i = 0; i < n; i++)
        x[i] = pairs[i].nll_model - pairs[i].nll_reference;
    out->log_ratio = ew_stats_mean(x, n);
    out->ppl_ratio = exp_of(out->log_ratio);
    for (size_t i = 0; i < n; i++)
        x[i] = exp(-pairs[i].nll_model) - exp(-pairs[i].nll_reference);
    out->mean_dp = ew_stats_mean(x, n);
    out->rms_dp = ew_stats_rms(x, n);
    fill_places(pairs, place, n, x, out);
    fill_worst(pairs, n, out);
    for (size_t i = 0; i < n; i++)
        x[i] = pairs[i].kl;
    fill_bins(x, n, out);
    out->mean_kl = ew_stats_mean(x, n);
    ew_stats_sort(x, n);
    out->median_kl = ew_stats_quantile(x, n, 0.5);
    out->kl_90 = ew_stats_quantile(x, n, 0.9);
    out->kl_99 = ew_stats_quantile(x, n, 0.99);
    out->kl_999 = ew_stats_quantile(x, n, 0.999);
    out->max_kl = n ? x[n - 1] : 0;
    ew_mem_free(x);
    return EW_STATUS_OK;
}
