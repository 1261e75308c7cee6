/* eval_ppl.c - `edgewise eval ppl`. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "eval_cmd.h"

static void draw_parts(struct html *h, const ew_ppl_result *r)
{
    const struct html_chart chart = {
        "Perplexity along the text",
        "window",
        "perplexity",
        "Lines are standard errors. A part that stands out is another kind of text, or broken.",
        true,
        false
    };
    struct html_bar bars[EW_PPL_PARTS];

    memset(bars, 0, sizeof(bars));
    for (uint32_t i = 0; i < r->n_parts; i++) {
        /* the first window that falls into the part */
        const uint64_t from = (i * r->n_windows + r->n_parts - 1) / r->n_parts;

        bars[i].value = r->parts[i].value;
        bars[i].error = r->parts[i].error;
        snprintf(bars[i].label, sizeof(bars[i].label), "%llu", (unsigned long long)from);
        snprintf(bars[i].tip, sizeof(bars[i].tip), "from window %llu: %.4f +- %.2g",
                 (unsigned long long)from, bars[i].value, bars[i].error);
    }
    html_chart(h, &chart, bars, r->n_parts);
}

static bool write_report(const char *model, const ew_ppl_result *r)
{
    struct html_card cards[4] = { { .name = "perplexity" },
                                  { .name = "bits a token" },
                                  { .name = "tokens scored" },
                                  { .name = "time" } };
    struct html h;

    html_begin(&h, "Perplexity", model);
    snprintf(cards[0].value, sizeof(cards[0].value), "%.4f", r->perplexity);
    snprintf(cards[0].note, sizeof(cards[0].note), "standard error %.4f", r->perplexity_stderr);
    snprintf(cards[1].value, sizeof(cards[1].value), "%.4f",
             r->nll_sum / (double)r->n_scored / 0.69314718055994531);
    snprintf(cards[2].value, sizeof(cards[2].value), "%llu", (unsigned long long)r->n_scored);
    snprintf(cards[2].note, sizeof(cards[2].note), "%llu in the text",
             (unsigned long long)r->n_tokens);
    snprintf(cards[3].value, sizeof(cards[3].value), "%.1f s", r->seconds);
    html_cards(&h, cards, 4);
    draw_parts(&h, r);
    return html_end(&h, eval_opts.html);
}

static int report(const char *model, const ew_ppl_result *r)
{
    if (eval_opts.html && !write_report(model, r))
        return EXIT_FAILED;
    if (eval_opts.json)
        return cli_print_json(json_pack("{s:f, s:f, s:f, s:I, s:I, s:f}", "perplexity",
                                        r->perplexity, "stderr", r->perplexity_stderr, "nll_sum",
                                        r->nll_sum, "tokens", (json_int_t)r->n_tokens,
                                        "scored_tokens", (json_int_t)r->n_scored, "seconds",
                                        r->seconds),
                              NULL);
    printf("perplexity %.6f +- %.4f over %llu tokens (%llu in the text, %.1f s)\n", r->perplexity,
           r->perplexity_stderr, (unsigned long long)r->n_scored, (unsigned long long)r->n_tokens,
           r->seconds);
    return EXIT_FINE;
}

int eval_ppl(const char *model)
{
    ew_ppl_opts opts = EW_PPL_OPTS_INIT;
    ew_ppl_result r;
    ew_error err = { EW_STATUS_OK, "" };
    ew_runtime *rt;
    size_t len;
    int code;

    if (!eval_opts.file)
        return cli_usage("eval ppl needs a text: --text FILE");
    char *const text = cli_read_file(eval_opts.file, &len);
    if (!text)
        return EXIT_FAILED;
    code = eval_open(model, false, &rt);
    if (!code) {
        opts.window = eval_opts.window;
        opts.stride = eval_opts.stride;
        opts.max_chars = eval_opts.max_chars;
        opts.max_windows = eval_opts.chunks;
        opts.resume = eval_opts.resume;
        opts.progress = cli_progress();
        const ew_status st = ew_eval_ppl(rt, text, len, &opts, &r, &err);
        cli_progress_end();
        code = st ? cli_fail(&err) : report(model, &r);
        code = model_finish(rt, code);
        ew_runtime_destroy(rt);
    }
    free(text);
    return code;
}
