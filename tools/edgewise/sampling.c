/* sampling.c - the sampling options of run and chat. */
#include "cli.h"

#include <math.h>

/* NAN and INT32_MIN: not given. */
struct sampling_opts sampling_opts = {
    .temperature = NAN, .top_p = NAN, .min_p = NAN, .top_k = INT32_MIN
};

/* clang-format off */
const struct opt sampling_opt_table[] = {
    { "greedy", 0, OPT_FLAG, &sampling_opts.greedy, NULL, "always the most likely token (the default without sampling options)" },
    { "temperature", 0, OPT_F64, &sampling_opts.temperature, "T", "sampling temperature; 0 is greedy" },
    { "top-k", 0, OPT_I32, &sampling_opts.top_k, "K", "keep the K most likely tokens" },
    { "top-p", 0, OPT_F64, &sampling_opts.top_p, "P", "keep the most likely tokens that sum to P" },
    { "min-p", 0, OPT_F64, &sampling_opts.min_p, "P", "drop tokens less likely than P times the best" },
    { "repetition-penalty", 0, OPT_F64, &sampling_opts.repetition_penalty, "R", "divide scores of tokens seen before" },
    { "presence-penalty", 0, OPT_F64, &sampling_opts.presence_penalty, "A", "subtract once for tokens generated before" },
    { "frequency-penalty", 0, OPT_F64, &sampling_opts.frequency_penalty, "A", "subtract per earlier generation of a token" },
    { "seed", 0, OPT_U64, &sampling_opts.seed, "N", "same seed, same text" },
    { "max-tokens", 'n', OPT_U32, &sampling_opts.max_tokens, "N", "stop after N tokens (default 256)" },
    { "stop", 0, OPT_LIST, &sampling_opts.stop, "TEXT", "stop before this text; may be repeated" },
    { "ignore-eos", 0, OPT_FLAG, &sampling_opts.ignore_eos, NULL, "go on after an end-of-text token" },
    { "logprobs", 0, OPT_I32, &sampling_opts.logprobs, "N", "log-probabilities of the chosen and the N likeliest tokens (with --json)" },
    { "think", 0, OPT_FLAG, &sampling_opts.think, NULL, "enable_thinking=true in the template" },
    { "no-think", 0, OPT_FLAG, &sampling_opts.no_think, NULL, "enable_thinking=false (the default)" },
    { "raw", 0, OPT_FLAG, &sampling_opts.raw, NULL, "no chat template; special tokens in the prompt are tokens" },
    OPT_END,
};
/* clang-format on */

bool sampling_fill(ew_request *r)
{
    const struct sampling_opts *const o = &sampling_opts;
    const bool any =
        !isnan(o->temperature) || o->top_k != INT32_MIN || !isnan(o->top_p) || !isnan(o->min_p);

    if (o->think && o->no_think) {
        cli_usage("--think and --no-think exclude each other");
        return false;
    }
    if (o->greedy && any) {
        cli_usage("--greedy excludes --temperature, --top-k, --top-p and --min-p");
        return false;
    }
    if (o->temperature < 0 || o->top_p < 0 || o->top_p > 1 || o->min_p < 0 || o->min_p > 1 ||
        (o->top_k < 0 && o->top_k != INT32_MIN)) {
        cli_usage("--temperature and --top-k must be >= 0, --top-p and --min-p in 0..1");
        return false;
    }
    if (o->logprobs < 0 || o->logprobs > 50) {
        cli_usage("--logprobs: %d is not in 0..50", o->logprobs);
        return false;
    }
    r->sampling.greedy = !any || o->temperature == 0 || o->top_k == 1;
    r->sampling.temperature = o->temperature > 0 ? o->temperature : 0;
    r->sampling.top_k = o->top_k > 0 ? o->top_k : 0;
    r->sampling.top_p = o->top_p > 0 ? o->top_p : 0;
    r->sampling.min_p = o->min_p > 0 ? o->min_p : 0;
    r->sampling.repetition_penalty = o->repetition_penalty;
    r->sampling.presence_penalty = o->presence_penalty;
    r->sampling.frequency_penalty = o->frequency_penalty;
    r->sampling.seed = o->seed;
    r->sampling.num_logprobs = o->logprobs;
    r->max_tokens = o->max_tokens;
    r->stop = o->stop.v;
    r->n_stop = o->stop.n;
    r->ignore_eos = o->ignore_eos;
    r->enable_thinking = o->think ? 1 : 0;
    return true;
}
