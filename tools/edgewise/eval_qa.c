/* eval_qa.c - `edgewise eval qa`: greedy answers, by kind. */
#include <stdio.h>
#include <stdlib.h>

#include "eval_cmd.h"

static json_t *share_json(const ew_share *s)
{
    return json_pack("{s:I, s:I, s:f, s:[f,f]}", "right", (json_int_t)s->right, "questions",
                     (json_int_t)s->all, "share", s->share, "interval_95", s->low, s->high);
}

static json_t *to_json(const ew_qa_result *r)
{
    json_t *const root = share_json(&r->total), *const kinds = json_object();

    for (uint32_t i = 0; i < r->n_kinds; i++)
        json_object_set_new(kinds, r->kinds[i].kind, share_json(&r->kinds[i]));
    json_object_set_new(root, "kinds", kinds);
    json_object_set_new(root, "seconds", eval_real(r->seconds));
    return root;
}

static void print_share(const ew_share *s)
{
    printf("%-24s %5llu of %5llu  %5.1f %%  (95 %%: %.1f to %.1f)\n", s->kind,
           (unsigned long long)s->right, (unsigned long long)s->all, 100 * s->share, 100 * s->low,
           100 * s->high);
}

static void draw_kinds(struct html *h, const ew_qa_result *r)
{
    const struct html_chart chart = { "Right answers by kind", "kind", "share", NULL, false, true };
    struct html_bar *const bars = calloc(r->n_kinds, sizeof(*bars));

    if (!bars) {
        h->failed = true;
        return;
    }
    for (uint32_t i = 0; i < r->n_kinds; i++) {
        bars[i].value = r->kinds[i].share;
        snprintf(bars[i].label, sizeof(bars[i].label), "%.12s", r->kinds[i].kind);
        snprintf(bars[i].tip, sizeof(bars[i].tip), "%s: %llu of %llu", r->kinds[i].kind,
                 (unsigned long long)r->kinds[i].right, (unsigned long long)r->kinds[i].all);
    }
    html_chart(h, &chart, bars, r->n_kinds);
    free(bars);
}

static void share_row(struct html *h, const ew_share *s)
{
    html_row(h, false);
    html_cell(h, s->kind);
    html_cell_f(h, "%llu", (unsigned long long)s->right);
    html_cell_f(h, "%llu", (unsigned long long)s->all);
    html_cell_f(h, "%.1f %%", 100 * s->share);
    html_cell_f(h, "%.1f - %.1f %%", 100 * s->low, 100 * s->high);
}

static bool write_report(const char *model, const ew_qa_result *r)
{
    static const char *const heads[] = { "kind",   "#right",         "#questions",
                                         "#share", "#95 % interval", NULL };
    static const char *const wrong[] = { "kind", "question", "wanted", "got", NULL };
    enum { MAX_WRONG = 200 };
    struct html_card cards[2] = { { .name = "right" }, { .name = "time" } };
    struct html h;
    uint32_t shown = 0;

    html_begin(&h, "Questions and answers", model);
    snprintf(cards[0].value, sizeof(cards[0].value), "%.1f %%", 100 * r->total.share);
    snprintf(cards[0].note, sizeof(cards[0].note), "%llu of %llu; 95 %%: %.1f to %.1f",
             (unsigned long long)r->total.right, (unsigned long long)r->total.all,
             100 * r->total.low, 100 * r->total.high);
    snprintf(cards[1].value, sizeof(cards[1].value), "%.1f s", r->seconds);
    html_cards(&h, cards, 2);
    draw_kinds(&h, r);
    html_table_begin(&h, "By kind (Wilson's intervals)", heads);
    for (uint32_t i = 0; i < r->n_kinds; i++)
        share_row(&h, &r->kinds[i]);
    share_row(&h, &r->total);
    html_table_end(&h);
    html_table_begin(&h, "Wrong answers (the first 200)", wrong);
    for (uint32_t i = 0; i < r->n_items && shown < MAX_WRONG; i++) {
        if (r->items[i].right)
            continue;
        shown++;
        html_row(&h, false);
        html_cell(&h, r->items[i].kind);
        html_cell(&h, r->items[i].question);
        html_cell(&h, r->items[i].wanted);
        html_cell(&h, r->items[i].got);
    }
    html_table_end(&h);
    return html_end(&h, eval_opts.html);
}

static int report(const char *model, const ew_qa_result *r)
{
    for (uint32_t i = 0; eval_opts.show_wrong && i < r->n_items; i++)
        if (!r->items[i].right)
            fprintf(stderr, "%s: wanted \"%s\", got \"%s\"\n", r->items[i].kind, r->items[i].wanted,
                    r->items[i].got);
    if (eval_opts.html && !write_report(model, r))
        return EXIT_FAILED;
    if (eval_opts.json)
        return cli_print_json(to_json(r), NULL);
    for (uint32_t i = 0; i < r->n_kinds; i++)
        print_share(&r->kinds[i]);
    print_share(&r->total);
    return EXIT_FINE;
}

int eval_qa(const char *model)
{
    ew_qa_opts opts = EW_QA_OPTS_INIT;
    ew_qa_result r;
    ew_error err = { EW_STATUS_OK, "" };
    ew_runtime *rt;
    size_t len;
    int code;

    if (!eval_opts.file)
        return cli_usage("eval qa needs questions: --file FILE");
    char *const text = cli_read_file(eval_opts.file, &len);
    if (!text)
        return EXIT_FAILED;
    code = model_open(model, 0, false, &rt, NULL);
    if (!code) {
        opts.limit = eval_opts.limit;
        opts.max_tokens = sampling_opts.max_tokens;
        opts.think = sampling_opts.think;
        opts.resume = eval_opts.resume;
        opts.progress = cli_progress();
        const ew_status st = ew_eval_qa(rt, text, len, eval_opts.file, &opts, &r, &err);
        cli_progress_end();
        code = st ? cli_fail(&err) : report(model, &r);
        if (!st)
            ew_qa_release(&r);
        code = model_finish(rt, code);
        ew_runtime_destroy(rt);
    }
    free(text);
    return code;
}
