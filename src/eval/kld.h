/* eval/kld.h - how far one model's prediction of a token is from another's; what kld.c measures at
 * every token, apart so that known distributions can be put in. */
#ifndef EW_EVAL_KLD_H
#define EW_EVAL_KLD_H

#include "edgewise/eval.h"

enum { EW_KLD_FIELDS = 4 };
struct ew_kld_pair { /* at one token */
    double kl;       /* KL(reference || model), nats, >= 0 */
    double nll_model, nll_reference;
    bool same_top;
};
/* model, reference: [vocab] raw logits; id: the token that came. index names it in errors. */
ew_status ew_kld_measure(const float *model, const float *reference, uint32_t vocab, int32_t id,
                         size_t index, struct ew_kld_pair *out, ew_error *err);

/* n pairs to figures; place[i] in [0, EW_KLD_PLACES). Fills everything but counts of tokens and
 * windows, worst tokens' ids and the time. NO_MEMORY. */
ew_status ew_kld_summarise(const struct ew_kld_pair *pairs, const uint8_t *place, size_t n,
                           ew_kld_result *out, ew_error *err);

#endif
