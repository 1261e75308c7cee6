/* eval_choice.c - `edgewise eval choice`: the likeliest of given options, by kind. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "eval_cmd.h"

static json_t *kind_json(const ew_choice_kind *k)
{
    return json_pack("{s:I, s:o, s:o}", "questions", (json_int_t)k->all, "acc",
                     eval_estimate(k->acc), "acc_norm", eval_estimate(k->acc_norm));
}

static json_t *to_json(const ew_choice_result *r)
{
    json_t *const root = kind_json(&r->total), *const kinds = json_object();
    json_t *const items = json_array();

    for (uint32_t i = 0; i < r->n_kinds; i++)
        json_object_set_new(kinds, r->kinds[i].kind, kind_json(&r->kinds[i]));
    for (uint32_t i = 0; i < r->n_items; i++)
        json_array_append_new(items, json_pack("{s:i, s:i, s:i, s:o}", "answer", r->items[i].answer,
                                               "best", r->items[i].best, "best_norm",
                                               r->items[i].best_norm, "margin",
                                               eval_real(r->items[i].margin)));
    json_object_set_new(root, "kinds", kinds);
    json_object_set_new(root, "items", items);
    json_object_set_new(root, "seconds", eval_real(r->seconds));
    return root;
}

static void print_kind(const ew_choice_kind *k)
{
    printf("%-24s %6llu questions  acc %5.1f +- %4.1f %%  acc_norm %5.1f +- %4.1f %%\n", k->kind,
           (unsigned long long)k->all, 100 * k->acc.value, 100 * k->acc.error,
           100 * k->acc_norm.value, 100 * k->acc_norm.error);
}

static void kind_row(struct html *h, const ew_choice_kind *k)
{
    html_row(h, false);
    html_cell(h, k->kind);
    html_cell_f(h, "%llu", (unsigned long long)k->all);
    html_cell_f(h, "%.1f +- %.1f %%", 100 * k->acc.value, 100 * k->acc.error);
    html_cell_f(h, "%.1f +- %.1f %%", 100 * k->acc_norm.value, 100 * k->acc_norm.error);
}

static void draw_kinds(struct html *h, const ew_choice_result *r)
{
    const struct html_chart chart = {
        "Accuracy by kind (sum of log-probabilities)", "kind", "share", NULL, false, true
    };
    struct html_bar *const bars = calloc(r->n_kinds, sizeof(*bars));

    if (!bars) {
        h->failed = true;
        return;
    }
    for (uint32_t i = 0; i < r->n_kinds; i++) {
        bars[i].value = r->kinds[i].acc.value;
        bars[i].error = r->kinds[i].acc.error;
        snprintf(bars[i].label, sizeof(bars[i].label), "%.12s", r->kinds[i].kind);
        snprintf(bars[i].tip, sizeof(bars[i].tip), "%s: %llu questions", r->kinds[i].kind,
                 (unsigned long long)r->kinds[i].all);
    }
    html_chart(h, &chart, bars, r->n_kinds);
    free(bars);
}

static bool write_report(const char *model, const ew_choice_result *r)
{
    static const char *const heads[] = { "kind", "#questions", "#acc", "#acc_norm", NULL };
    static const char *const wrong[] = { "kind", "question", "#right", "#chosen", "#margin", NULL };
    enum { MAX_WRONG = 200 };
    struct html_card cards[2] = { { .name = "acc" }, { .name = "acc_norm" } };
    struct html h;
    uint32_t shown = 0;

    html_begin(&h, "Choices", model);
    snprintf(cards[0].value, sizeof(cards[0].value), "%.1f %%", 100 * r->total.acc.value);
    snprintf(cards[0].note, sizeof(cards[0].note), "+- %.1f, by the sum of log-probabilities",
             100 * r->total.acc.error);
    snprintf(cards[1].value, sizeof(cards[1].value), "%.1f %%", 100 * r->total.acc_norm.value);
    snprintf(cards[1].note, sizeof(cards[1].note), "+- %.1f, by the sum a byte",
             100 * r->total.acc_norm.error);
    html_cards(&h, cards, 2);
    draw_kinds(&h, r);
    html_table_begin(&h, "By kind", heads);
    for (uint32_t i = 0; i < r->n_kinds; i++)
        kind_row(&h, &r->kinds[i]);
    kind_row(&h, &r->total);
    html_table_end(&h);
    html_table_begin(&h, "Wrong choices (the first 200)", wrong);
    for (uint32_t i = 0; i < r->n_items && shown < MAX_WRONG; i++) {
        if (r->items[i].best == r->items[i].answer)
            continue;
        shown++;
        html_row(&h, false);
        html_cell(&h, r->items[i].kind);
        html_cell(&h, r->items[i].question);
        html_cell_f(&h, "%u", r->items[i].answer);
        html_cell_f(&h, "%u", r->items[i].best);
        html_cell_f(&h, "%.3f", r->items[i].margin);
    }
    html_table_end(&h);
    return html_end(&h, eval_opts.html);
}

static int report(const char *model, const ew_choice_result *r)
{
    if (eval_opts.html && !write_report(model, r))
        return EXIT_FAILED;
    if (eval_opts.json)
        return cli_print_json(to_json(r), NULL);
    for (uint32_t i = 0; i < r->n_kinds; i++)
        print_kind(&r->kinds[i]);
    print_kind(&r->total);
    return EXIT_FINE;
}

int eval_choice(const char *model)
{
    const char *const name = eval_opts.template_name ? eval_opts.template_name : "none";
    ew_choice_opts opts = EW_CHOICE_OPTS_INIT;
    ew_choice_result r;
    ew_error err = { EW_STATUS_OK, "" };
    ew_runtime *rt;
    size_t len;
    int code;

    if (!eval_opts.file)
        return cli_usage("eval choice needs questions: --file FILE");
    if (strcmp(name, "none") != 0 && strcmp(name, "chat") != 0)
        return cli_usage("--template: '%s' is not none or chat", name);
    char *const text = cli_read_file(eval_opts.file, &len);
    if (!text)
        return EXIT_FAILED;
    code = eval_open(model, false, &rt);
    if (!code) {
        opts.limit = eval_opts.limit;
        opts.chat = strcmp(name, "chat") == 0;
        opts.resume = eval_opts.resume;
        opts.progress = cli_progress();
        const ew_status st = ew_eval_choice(rt, text, len, eval_opts.file, &opts, &r, &err);
        cli_progress_end();
        code = st ? cli_fail(&err) : report(model, &r);
        if (!st)
            ew_choice_release(&r);
        code = model_finish(rt, code);
        ew_runtime_destroy(rt);
    }
    free(text);
    return code;
}
