/* eval_layers.c - `edgewise eval parity --against`: two precisions of a model, layer by layer. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "eval_cmd.h"

enum { N_WORST = 10, N_KEEP = 5 };

/* ---- JSON ---- */

static json_t *layer_json(const ew_layer_row *l)
{
    return json_pack("{s:i, s:o, s:o, s:o, s:o, s:o, s:o, s:b}", "layer", l->layer, "hidden_error",
                     eval_real(l->hidden), "added", eval_real(l->added), "added_attention",
                     eval_real(l->added_attention), "added_mlp", eval_real(l->added_mlp),
                     "gain_attention", eval_real(l->gain_attention), "gain_mlp",
                     eval_real(l->gain_mlp), "suspicious", l->suspicious);
}

static json_t *site_json(const ew_site_row *s)
{
    return json_pack("{s:s, s:i, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:b, s:b, s:s}", "name",
                     s->name, "layer", s->layer, "error", eval_real(s->error), "gain",
                     eval_real(s->gain), "gain_error", eval_real(s->gain_error), "gain_folded",
                     eval_real(s->gain_folded), "usual_error", eval_real(s->usual_error),
                     "usual_gain", eval_real(s->usual_gain), "score", eval_real(s->score), "folded",
                     s->folded, "suspicious", s->suspicious, "why", s->why);
}

static json_t *to_json(const ew_layers_result *r)
{
    json_t *const layers = json_array(), *const sites = json_array(), *const bad = json_array();
    json_t *const keep = json_array();

    for (uint32_t i = 0; i < r->n_layers; i++)
        json_array_append_new(layers, layer_json(&r->layers[i]));
    for (uint32_t i = 0; i < r->n_sites; i++)
        json_array_append_new(sites, site_json(&r->sites[i]));
    for (uint32_t i = 0; i < r->n_suspicious; i++)
        json_array_append_new(bad, json_string(r->sites[r->worst_sites[i]].name));
    for (uint32_t i = 0; i < r->n_layers && i < N_KEEP; i++)
        json_array_append_new(keep, json_integer(r->worst_layers[i]));
    return json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:I, s:o}", "suspicious", bad,
                     "keep_at_higher_precision", keep, "logits_error", eval_real(r->logits),
                     "same_top", eval_estimate(r->same_top), "layers", layers, "projections", sites,
                     "tokens", (json_int_t)r->n_tokens, "seconds", eval_real(r->seconds));
}

/* ---- text ---- */

static void print_keep(const ew_layers_result *r)
{
    bool any = false;

    for (uint32_t i = 0; i < r->n_layers && i < N_KEEP; i++) {
        const ew_layer_row *const l = &r->layers[r->worst_layers[i]];

        if (!(l->added > 0))
            break;
        printf("%slayer %u (%s, adds %.3g)",
               any ? ", " : "keep at higher precision first: ", l->layer,
               l->added_attention > l->added_mlp ? "attention" : "mlp", l->added);
        any = true;
    }
    if (any)
        printf("\n");
}

static void print_text(const ew_layers_result *r)
{
    printf("layer  hidden error      added  attention        mlp   gains: attention     mlp\n");
    for (uint32_t i = 0; i < r->n_layers; i++) {
        const ew_layer_row *const l = &r->layers[i];

        printf("%5u  %12.3e  %9.2e  %9.2e  %9.2e          %8.4f %7.4f%s\n", l->layer, l->hidden,
               l->added, l->added_attention, l->added_mlp, l->gain_attention, l->gain_mlp,
               l->suspicious ? "  SUSPICIOUS" : "");
    }
    printf("logits: error %.3e; same most likely token %.2f +- %.2f %% of %llu%s\n\n", r->logits,
           100 * r->same_top.value, 100 * r->same_top.error, (unsigned long long)r->n_tokens,
           r->no_text ? " (no tokenizer: pseudo-random tokens)" : "");
    printf("projections with the largest errors of their own:\n");
    for (uint32_t i = 0; i < r->n_sites && i < N_WORST; i++) {
        const ew_site_row *const s = &r->sites[r->worst_sites[i]];

        printf("  %-40s error %.3e  gain %.4f%s\n", s->name, s->error, s->gain,
               s->folded ? " (scaled by channel)" : "");
    }
    print_keep(r);
    for (uint32_t i = 0; i < r->n_suspicious; i++) {
        const ew_site_row *const s = &r->sites[r->worst_sites[i]];

        printf("suspicious: %s: %s\n", s->name, s->why);
    }
    if (r->n_suspicious == 0)
        printf("parity: nothing suspicious\n");
}

/* ---- report ---- */

static void draw_layers(struct html *h, const ew_layers_result *r, bool added)
{
    const struct html_chart charts[2] = {
        { "Error of the hidden states", "layer", "relative error",
          "What came of all layers so far: it grows along the model, so a jump counts, not a high "
          "value.",
          false, true },
        { "Error that each layer adds", "layer", "relative error",
          "Each layer alone on the reference's input. High bars are the layers to keep at a higher "
          "precision; red ones have a suspicious projection.",
          false, true },
    };
    struct html_bar *const bars = calloc(r->n_layers, sizeof(*bars));

    if (!bars) {
        h->failed = true;
        return;
    }
    for (uint32_t i = 0; i < r->n_layers; i++) {
        const ew_layer_row *const l = &r->layers[i];

        bars[i].value = added ? l->added : l->hidden;
        bars[i].marked = added && l->suspicious;
        snprintf(bars[i].label, sizeof(bars[i].label), "%u", i);
        snprintf(bars[i].tip, sizeof(bars[i].tip),
                 "layer %u: hidden %.3g, added %.3g (attention %.3g, mlp %.3g)", i, l->hidden,
                 l->added, l->added_attention, l->added_mlp);
    }
    html_chart(h, &charts[added], bars, r->n_layers);
    free(bars);
}

static void draw_sites(struct html *h, const ew_layers_result *r, bool gain)
{
    const struct html_chart charts[2] = {
        { "Error of every projection alone", "projections in order", "relative error", NULL, true,
          true },
        { "Gain of every projection", "projections in order", "least-squares slope",
          "Rounding makes noise, not gain: all dots lie close together. One that lies apart has a "
          "wrong scale.",
          true, false },
    };
    struct html_bar *const bars = calloc(r->n_sites, sizeof(*bars));

    if (!bars) {
        h->failed = true;
        return;
    }
    for (uint32_t i = 0; i < r->n_sites; i++) {
        const ew_site_row *const s = &r->sites[i];

        bars[i].value = gain ? s->gain : s->error;
        bars[i].marked = s->suspicious;
        snprintf(bars[i].tip, sizeof(bars[i].tip), "%s: error %.3g, gain %.4f", s->name, s->error,
                 s->gain);
        if (s->layer >= 0)
            snprintf(bars[i].label, sizeof(bars[i].label), "%d", s->layer);
    }
    html_chart(h, &charts[gain], bars, r->n_sites);
    free(bars);
}

static void write_tables(struct html *h, const ew_layers_result *r)
{
    static const char *const layer_heads[] = { "#layer",    "#hidden error",
                                               "#added",    "#attention",
                                               "#mlp",      "#gain attention",
                                               "#gain mlp", NULL };
    static const char *const site_heads[] = { "projection", "#error", "#usual", "#gain",
                                              "#usual",     "#score", "",       NULL };

    html_table_begin(h, "Layers", layer_heads);
    for (uint32_t i = 0; i < r->n_layers; i++) {
        const ew_layer_row *const l = &r->layers[i];

        html_row(h, l->suspicious);
        html_cell_f(h, "%u", l->layer);
        html_cell_f(h, "%.3e", l->hidden);
        html_cell_f(h, "%.3e", l->added);
        html_cell_f(h, "%.3e", l->added_attention);
        html_cell_f(h, "%.3e", l->added_mlp);
        html_cell_f(h, "%.4f", l->gain_attention);
        html_cell_f(h, "%.4f", l->gain_mlp);
    }
    html_table_end(h);
    html_table_begin(h, "Projections, worst first", site_heads);
    for (uint32_t i = 0; i < r->n_sites; i++) {
        const ew_site_row *const s = &r->sites[r->worst_sites[i]];

        html_row(h, s->suspicious);
        html_cell(h, s->name);
        html_cell_f(h, "%.3e", s->error);
        html_cell_f(h, "%.3e", s->usual_error);
        html_cell_f(h, "%.4f", s->gain);
        html_cell_f(h, "%.4f", s->usual_gain);
        html_cell_f(h, "%.1f", s->score);
        html_cell(h, s->suspicious ? s->why : s->folded ? "scaled by channel" : "");
    }
    html_table_end(h);
}

static bool write_report(const char *model, const ew_layers_result *r)
{
    struct html_card cards[4] = { { .name = "suspicious projections" },
                                  { .name = "same most likely token" },
                                  { .name = "error of the logits" },
                                  { .name = "keep at higher precision first" } };
    char subject[4096];
    struct html h;

    snprintf(subject, sizeof(subject), "%s against %s: %llu tokens%s, %.1f s", model,
             eval_opts.against, (unsigned long long)r->n_tokens,
             r->no_text ? " (pseudo-random: no tokenizer)" : "", r->seconds);
    html_begin(&h, "Parity, layer by layer", subject);
    snprintf(cards[0].value, sizeof(cards[0].value), "%u", r->n_suspicious);
    if (r->n_suspicious)
        snprintf(cards[0].note, sizeof(cards[0].note), "%.90s", r->sites[r->worst_sites[0]].name);
    snprintf(cards[1].value, sizeof(cards[1].value), "%.2f %%", 100 * r->same_top.value);
    snprintf(cards[1].note, sizeof(cards[1].note), "+- %.2f", 100 * r->same_top.error);
    snprintf(cards[2].value, sizeof(cards[2].value), "%.3g", r->logits);
    for (uint32_t i = 0; i < r->n_layers && i < 3; i++) {
        const size_t len = strlen(cards[3].value);

        snprintf(cards[3].value + len, sizeof(cards[3].value) - len, "%s%u", i ? ", " : "layer ",
                 r->worst_layers[i]);
    }
    html_cards(&h, cards, 4);
    draw_layers(&h, r, true);
    draw_sites(&h, r, true);
    draw_sites(&h, r, false);
    draw_layers(&h, r, false);
    write_tables(&h, r);
    return html_end(&h, eval_opts.html);
}

static int report(const char *model, const ew_layers_result *r)
{
    int code = EXIT_FINE;

    if (eval_opts.html && !write_report(model, r))
        return EXIT_FAILED;
    if (eval_opts.json)
        code = cli_print_json(to_json(r), NULL);
    else
        print_text(r);
    return code ? code : r->n_suspicious ? EXIT_FAILED : EXIT_FINE;
}

int eval_layers(const char *model)
{
    ew_layers_opts opts = EW_LAYERS_OPTS_INIT;
    ew_build_opts build, build_reference;
    ew_layers_result r;
    ew_error err = { EW_STATUS_OK, "" };
    char *text = NULL;
    size_t len = 0;
    int code;

    if (!model_build_opts(&build) || !eval_against_opts(&build_reference))
        return EXIT_USAGE;
    if (eval_opts.file) {
        text = cli_read_file(eval_opts.file, &len);
        if (!text)
            return EXIT_FAILED;
    }
    opts.window = eval_opts.window;
    opts.max_windows = eval_opts.chunks;
    opts.build = &build;
    opts.build_reference = &build_reference;
    opts.progress = cli_progress();
    const ew_status st = ew_eval_layers(model, eval_opts.against, text, len, &opts, &r, &err);
    cli_progress_end();
    code = st ? cli_fail(&err) : report(model, &r);
    if (!st)
        ew_layers_release(&r);
    free(text);
    return code;
}
