/* eval_kld.c - `edgewise eval kld`: a model beside another over the same text. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "eval_cmd.h"

/* Every figure with its error, once: for the table, the JSON and the report. */
struct figure {
    const char *key, *name;
    ew_estimate e;
    double scale; /* shown times this */
    const char *unit;
};
enum { N_FIGURES = 12 };

static void fill_figures(const ew_kld_result *r, struct figure *f)
{
    const struct figure all[N_FIGURES] = {
        { "mean_kl", "mean KL", r->mean_kl, 1, "" },
        { "median_kl", "median KL", r->median_kl, 1, "" },
        { "kl_90", "90 % KL", r->kl_90, 1, "" },
        { "kl_99", "99 % KL", r->kl_99, 1, "" },
        { "kl_999", "99.9 % KL", r->kl_999, 1, "" },
        { "same_top", "same top token", r->same_top, 100, " %" },
        { "rms_dp", "RMS of p difference", r->rms_dp, 100, " %" },
        { "mean_dp", "mean p difference", r->mean_dp, 100, " %" },
        { "perplexity", "perplexity", r->ppl_model, 1, "" },
        { "perplexity_reference", "perplexity of reference", r->ppl_reference, 1, "" },
        { "perplexity_ratio", "ratio of perplexities", r->ppl_ratio, 1, "" },
        { "log_ratio", "ln of the ratio", r->log_ratio, 1, "" },
    };

    memcpy(f, all, sizeof(all));
}

static char *token_text(const ew_tokenizer *tok, int32_t id)
{
    ew_error err = { EW_STATUS_OK, "" };
    char *text = NULL;
    size_t len;

    if (!tok || ew_tokenizer_decode(tok, &id, 1, false, &text, &len, &err))
        return NULL;
    return text;
}

static json_t *worst_json(const ew_kld_result *r, const ew_tokenizer *tok)
{
    json_t *const list = json_array();

    for (uint32_t i = 0; i < r->n_worst; i++) {
        const ew_kld_token *const w = &r->worst[i];
        char *const text = token_text(tok, w->id);

        json_array_append_new(list, json_pack("{s:I, s:i, s:s*, s:f, s:f, s:f}", "index",
                                              (json_int_t)w->index, "id", w->id, "text", text, "kl",
                                              w->kl, "p_model", w->p_model, "p_reference",
                                              w->p_reference));
        ew_string_free(text);
    }
    return list;
}

static json_t *to_json(const ew_kld_result *r, const ew_tokenizer *tok)
{
    struct figure f[N_FIGURES];
    json_t *const root = json_object(), *const bins = json_array(), *const places = json_array();

    fill_figures(r, f);
    for (int i = 0; i < N_FIGURES; i++)
        json_object_set_new(root, f[i].key, eval_estimate(f[i].e));
    for (int i = 0; i < EW_KLD_BINS; i++)
        json_array_append_new(bins, json_integer((json_int_t)r->bins[i]));
    for (int i = 0; i < EW_KLD_PLACES; i++)
        json_array_append_new(places, eval_estimate(r->places[i]));
    json_object_set_new(root, "max_kl", eval_real(r->max_kl));
    json_object_set_new(root, "tokens", json_integer((json_int_t)r->n_tokens));
    json_object_set_new(root, "scored_tokens", json_integer((json_int_t)r->n_scored));
    json_object_set_new(root, "windows", json_integer((json_int_t)r->n_windows));
    json_object_set_new(root, "histogram_log10_from_-8_by_0.25", bins);
    json_object_set_new(root, "mean_kl_along_the_window", places);
    json_object_set_new(root, "worst", worst_json(r, tok));
    json_object_set_new(root, "seconds", eval_real(r->seconds));
    return root;
}

static void draw_histogram(struct html *h, const ew_kld_result *r)
{
    const struct html_chart chart = {
        "How often which divergence",
        "KL(reference || model) of a token, nats, logarithmic",
        "share of tokens",
        "A hump on the left with a thin tail is healthy. A second hump on the right means that "
        "some kind of token is lost.",
        false,
        true
    };
    struct html_bar bars[EW_KLD_BINS];

    memset(bars, 0, sizeof(bars));
    for (int i = 0; i < EW_KLD_BINS; i++) {
        const double low = -8 + i / 4.0;

        if (i % 4 == 0)
            snprintf(bars[i].label, sizeof(bars[i].label), "1e%.0f", low);
        bars[i].value = r->n_scored ? (double)r->bins[i] / (double)r->n_scored : 0;
        snprintf(bars[i].tip, sizeof(bars[i].tip), "%.2g to %.2g: %llu tokens", pow(10, low),
                 pow(10, low + 0.25), (unsigned long long)r->bins[i]);
    }
    html_chart(h, &chart, bars, EW_KLD_BINS);
}

static void draw_places(struct html *h, const ew_kld_result *r)
{
    const struct html_chart chart = {
        "Divergence along the window",
        "position in the window, tokens",
        "mean KL, nats",
        "Growth with the position points to the KV cache or the positions; the first tokens are "
        "harder for every model.",
        false,
        false
    };
    struct html_bar bars[EW_KLD_PLACES];

    memset(bars, 0, sizeof(bars));
    for (int i = 0; i < EW_KLD_PLACES; i++) {
        const uint64_t from = (uint64_t)i * r->window / EW_KLD_PLACES;

        bars[i].value = r->places[i].value;
        bars[i].error = r->places[i].error;
        snprintf(bars[i].label, sizeof(bars[i].label), "%llu", (unsigned long long)from);
        snprintf(bars[i].tip, sizeof(bars[i].tip), "from token %llu: %.4g +- %.2g",
                 (unsigned long long)from, bars[i].value, bars[i].error);
    }
    html_chart(h, &chart, bars, EW_KLD_PLACES);
}

static void write_worst(struct html *h, const ew_kld_result *r, const ew_tokenizer *tok)
{
    static const char *const heads[] = { "#place",    "token",         "#KL",
                                         "#p, model", "#p, reference", NULL };

    html_table_begin(h, "Where they differ most", heads);
    for (uint32_t i = 0; i < r->n_worst; i++) {
        const ew_kld_token *const w = &r->worst[i];
        char *const text = token_text(tok, w->id);

        html_row(h, false);
        html_cell_f(h, "%llu", (unsigned long long)w->index);
        html_cell(h, text ? text : "");
        html_cell_f(h, "%.4f", w->kl);
        html_cell_f(h, "%.4f", w->p_model);
        html_cell_f(h, "%.4f", w->p_reference);
        ew_string_free(text);
    }
    html_table_end(h);
}

static void card(struct html_card *c, const struct figure *f)
{
    c->name = f->name;
    snprintf(c->value, sizeof(c->value), "%.5g%s", f->e.value * f->scale, f->unit);
    snprintf(c->note, sizeof(c->note), "+- %.2g%s", f->e.error * f->scale, f->unit);
}

static bool write_report(const char *model, const ew_kld_result *r, const ew_tokenizer *tok)
{
    static const char *const heads[] = { "figure", "#value", "#standard error", NULL };
    static const int first[] = { 0, 5, 10, 6 };
    struct html_card cards[4];
    struct figure f[N_FIGURES];
    char subject[4096];
    struct html h;

    fill_figures(r, f);
    snprintf(subject, sizeof(subject), "%s against %s: %llu tokens in %llu windows of %u, %.1f s",
             model, eval_opts.against, (unsigned long long)r->n_scored,
             (unsigned long long)r->n_windows, r->window, r->seconds);
    html_begin(&h, "Divergence from the reference", subject);
    for (int i = 0; i < 4; i++)
        card(&cards[i], &f[first[i]]);
    html_cards(&h, cards, 4);
    draw_histogram(&h, r);
    draw_places(&h, r);
    html_table_begin(&h, "All figures", heads);
    for (int i = 0; i < N_FIGURES; i++) {
        html_row(&h, false);
        html_cell(&h, f[i].name);
        html_cell_f(&h, "%.6g%s", f[i].e.value * f[i].scale, f[i].unit);
        html_cell_f(&h, "%.2g%s", f[i].e.error * f[i].scale, f[i].unit);
    }
    html_row(&h, false);
    html_cell(&h, "largest KL");
    html_cell_f(&h, "%.6g", r->max_kl);
    html_cell(&h, "");
    html_table_end(&h);
    write_worst(&h, r, tok);
    return html_end(&h, eval_opts.html);
}

static int report(const char *model, const ew_kld_result *r)
{
    struct figure f[N_FIGURES];
    ew_error err = { EW_STATUS_OK, "" };
    ew_tokenizer *tok = NULL;
    int code = EXIT_FINE;

    /* For the texts of the worst tokens alone: without it they go by number. */
    if ((eval_opts.json || eval_opts.html) && ew_tokenizer_load(model, &tok, &err))
        tok = NULL;
    if (eval_opts.html && !write_report(model, r, tok)) {
        code = EXIT_FAILED;
    } else if (eval_opts.json) {
        code = cli_print_json(to_json(r, tok), NULL);
    } else {
        fill_figures(r, f);
        for (int i = 0; i < N_FIGURES; i++)
            printf("%-24s %12.6g +- %.2g%s\n", f[i].name, f[i].e.value * f[i].scale,
                   f[i].e.error * f[i].scale, f[i].unit);
        printf("%-24s %12.6g\n", "largest KL", r->max_kl);
        printf("over %llu tokens in %llu windows of %u (%.1f s)\n", (unsigned long long)r->n_scored,
               (unsigned long long)r->n_windows, r->window, r->seconds);
    }
    ew_tokenizer_destroy(tok);
    if (!code && eval_opts.max_kl > 0 && !(r->mean_kl.value <= eval_opts.max_kl)) {
        fprintf(stderr, "edgewise: mean KL is %.3g, above %g\n", r->mean_kl.value,
                eval_opts.max_kl);
        code = EXIT_FAILED;
    }
    return code;
}

static int compare(const char *model, const char *text, size_t len)
{
    ew_ppl_opts opts = EW_PPL_OPTS_INIT;
    ew_kld_result r;
    ew_error err = { EW_STATUS_OK, "" };
    ew_runtime *rt = NULL, *reference = NULL;
    int code = eval_open(model, false, &rt);

    if (!code)
        code = eval_open(eval_opts.against, true, &reference);
    if (!code) {
        opts.window = eval_opts.window;
        opts.stride = eval_opts.stride;
        opts.max_chars = eval_opts.max_chars;
        opts.max_windows = eval_opts.chunks;
        opts.resume = eval_opts.resume;
        opts.progress = cli_progress();
        const ew_status st = ew_eval_kld(rt, reference, text, len, &opts, &r, &err);
        cli_progress_end();
        code = st ? cli_fail(&err) : report(model, &r);
        code = model_finish(rt, code);
    }
    ew_runtime_destroy(rt);
    ew_runtime_destroy(reference);
    return code;
}

int eval_kld(const char *model)
{
    size_t len;
    int code;

    if (!eval_opts.against)
        return cli_usage("eval kld needs a reference: --against MODEL");
    if (!eval_opts.file)
        return cli_usage("eval kld needs a text: --text FILE");
    char *const text = cli_read_file(eval_opts.file, &len);
    if (!text)
        return EXIT_FAILED;
    code = compare(model, text, len);
    free(text);
    return code;
}
