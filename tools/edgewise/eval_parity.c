/* eval_parity.c - `edgewise eval parity --reference`: a model beside a file of logits and hidden
 * states. */
#include <stdio.h>
#include <string.h>

#include "edgewise/inspect.h"
#include "eval_cmd.h"

/* What the reference needs of an engine: hidden states, and room for its longest row in one step.
 * Nothing is said of a file that cannot be read: the evaluation itself will say why. */
static bool size_for_reference(void)
{
    char *text;
    ew_error err = { EW_STATUS_OK, "" };
    bool hidden = false;
    size_t i;
    json_t *t;

    if (ew_inspect(eval_opts.reference, &text, &err))
        return false;
    json_t *const root = json_loads(text, 0, NULL);
    ew_text_free(text);
    json_array_foreach(json_object_get(root, "tensors"), i, t)
    {
        const char *const name = json_string_value(json_object_get(t, "name"));
        const json_t *const shape = json_object_get(t, "shape");
        if (!name)
            continue;
        hidden = hidden || strcmp(name, "hidden_0") == 0;
        if (strcmp(name, "input_ids") == 0 && json_array_size(shape) == 2) {
            const json_int_t len = json_integer_value(json_array_get(shape, 1));
            const uint32_t room = len > 0 && len < 1 << 20 ? (uint32_t)(len + 63) / 64 * 64 : 0;
            model_opts.max_kv_len = model_opts.max_kv_len ? model_opts.max_kv_len : room;
            model_opts.max_input_len = model_opts.max_input_len ? model_opts.max_input_len : room;
        }
    }
    if (model_opts.max_kv_len && model_opts.max_input_len > model_opts.max_kv_len)
        model_opts.max_input_len = model_opts.max_kv_len;
    json_decref(root);
    return hidden;
}

static bool is_ok(const ew_parity_result *r)
{
    return r->ok && (eval_opts.max_kl <= 0 || r->max_kl <= eval_opts.max_kl);
}

static int print_parity(const ew_parity_result *r)
{
    if (eval_opts.json) {
        json_t *const rows = json_array();
        for (uint32_t i = 0; i < r->n_rows; i++) {
            const ew_parity_row *const p = &r->rows[i];
            json_array_append_new(
                rows, json_pack("{s:s, s:s, s:f, s:f, s:f, s:[I,I,I], s:b, s:o}", "way", p->way,
                                "tensor", p->tensor, "max_abs_err", p->max_abs_err, "max_abs_ref",
                                p->max_abs_ref, "relative", p->relative, "worst",
                                (json_int_t)p->worst[0], (json_int_t)p->worst[1],
                                (json_int_t)p->worst[2], "ok", p->ok, "kl", eval_real(p->kl)));
        }
        const int code = cli_print_json(
            json_pack("{s:b, s:s, s:f, s:o, s:I, s:I, s:I, s:o, s:o}", "ok", is_ok(r), "first_bad",
                      r->first_bad, "max_relative_logits", r->max_relative_logits, "kl",
                      eval_real(r->max_kl), "greedy_equal", (json_int_t)r->n_greedy_equal, "greedy",
                      (json_int_t)r->n_greedy, "ties", (json_int_t)r->n_ties, "tie_kl",
                      eval_real(r->tie_kl), "rows", rows),
            NULL);
        return code ? code : is_ok(r) ? EXIT_FINE : EXIT_FAILED;
    }
    for (uint32_t i = 0; i < r->n_rows; i++) {
        const ew_parity_row *const p = &r->rows[i];
        printf("%-16s %-12s max error %.3e of %.3e, relative %.2e at [%lld,%lld,%lld]%s\n", p->way,
               p->tensor, p->max_abs_err, p->max_abs_ref, p->relative, (long long)p->worst[0],
               (long long)p->worst[1], (long long)p->worst[2], p->ok ? "" : "  DIFFERS");
    }
    printf("same most likely token: %llu of %llu\n", (unsigned long long)r->n_greedy_equal,
           (unsigned long long)r->n_greedy);
    printf("divergence from the reference: %.3e nats a token\n", r->max_kl);
    if (r->n_ties)
        printf("left out: %llu tokens that a router may send elsewhere, lead below %g; "
               "divergence of one up to %.3e\n",
               (unsigned long long)r->n_ties, EW_PARITY_TIE, r->tie_kl);
    if (is_ok(r))
        printf("parity: ok\n");
    else if (!r->ok)
        printf("parity: first difference in %s\n", r->first_bad);
    else
        printf("parity: divergence above %g\n", eval_opts.max_kl);
    return is_ok(r) ? EXIT_FINE : EXIT_FAILED;
}

static bool write_report(const char *model, const ew_parity_result *r)
{
    static const char *const heads[] = {
        "way", "tensor", "#max error", "#of", "#relative", "", NULL
    };
    struct html_card cards[2] = { { .name = "verdict" }, { .name = "same most likely token" } };
    struct html h;

    html_begin(&h, "Parity with a reference file", model);
    snprintf(cards[0].value, sizeof(cards[0].value), "%s", is_ok(r) ? "ok" : "differs");
    snprintf(cards[0].note, sizeof(cards[0].note), "%s", r->first_bad);
    snprintf(cards[1].value, sizeof(cards[1].value), "%llu of %llu",
             (unsigned long long)r->n_greedy_equal, (unsigned long long)r->n_greedy);
    html_cards(&h, cards, 2);
    html_table_begin(&h, "Every tensor in every way of running", heads);
    for (uint32_t i = 0; i < r->n_rows; i++) {
        const ew_parity_row *const p = &r->rows[i];

        html_row(&h, !p->ok);
        html_cell(&h, p->way);
        html_cell(&h, p->tensor);
        html_cell_f(&h, "%.3e", p->max_abs_err);
        html_cell_f(&h, "%.3e", p->max_abs_ref);
        html_cell_f(&h, "%.2e", p->relative);
        html_cell(&h, p->ok ? "" : "differs");
    }
    html_table_end(&h);
    return html_end(&h, eval_opts.html);
}

int eval_parity(const char *model)
{
    ew_parity_result r;
    ew_error err = { EW_STATUS_OK, "" };
    ew_runtime *rt;
    int code;

    if (eval_opts.against)
        return eval_layers(model);
    /* An ONNX graph has the outputs it has; only a checkpoint's can be extended. */
    const bool hidden = size_for_reference() && strcmp(ew_model_kind(model), "checkpoint") == 0;
    code = model_open(model, EW_BUILD_ALL_LOGITS | EW_BUILD_EXACT_KV, hidden, &rt, NULL);
    if (code)
        return code;
    const ew_progress progress = cli_progress();
    const ew_status st =
        ew_eval_parity(rt, eval_opts.reference, eval_opts.tolerance, &progress, &r, &err);
    cli_progress_end();
    if (st) {
        code = cli_fail(&err);
    } else {
        code = eval_opts.html && !write_report(model, &r) ? EXIT_FAILED : print_parity(&r);
        code = model_finish(rt, code);
        ew_parity_release(&r);
    }
    ew_runtime_destroy(rt);
    return code;
}
