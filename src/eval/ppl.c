/* eval/ppl.c - perplexity of a text. Windows are eval/windows.h's. */
#include <math.h>
#include <string.h>

#include "eval/windows.h"
#include "os/os.h"

struct part { /* of the text */
    double sum, sum_squares;
    uint64_t n;
};

struct ppl {
    ew_runtime *rt;
    const ew_ppl_opts *opts;
    struct ew_windows w;
    struct ew_journal journal;
    struct ew_buf line;
    float *logits; /* [piece][vocab] */
    struct part all, parts[EW_PPL_PARTS];
    uint64_t n_windows;
    uint32_t n_parts;
};

static ew_status score_window(struct ppl *p, const struct ew_window *at, struct part *out,
                              ew_error *err)
{
    memset(out, 0, sizeof(*out));
    EW_TRY(ew_runtime_rewind(p->rt, 0, 0, err));
    for (size_t t = at->begin; t < at->end; t += p->w.piece) {
        const uint32_t n = at->end - t < p->w.piece ? (uint32_t)(at->end - t) : p->w.piece;

        EW_TRY(ew_runtime_forward(p->rt, 0, p->w.ids + t, n, (uint32_t)(at->end - at->begin),
                                  p->logits, n, err));
        for (uint32_t i = 0; i < n; i++) {
            const float *const logits = p->logits + (size_t)i * p->w.vocab;
            double nll;

            if (!ew_window_scores(at, t + i + 1))
                continue;
            EW_TRY(ew_log_sum(logits, p->w.vocab, t + i + 1, &nll, err));
            nll -= (double)logits[p->w.ids[t + i + 1]];
            out->sum += nll;
            out->sum_squares += nll * nll;
            out->n++;
        }
    }
    return EW_STATUS_OK;
}

/* The window's sums from the journal, or computed and put there. */
static ew_status take_window(struct ppl *p, const struct ew_window *at, struct part *out,
                             ew_error *err)
{
    json_t *line;
    double v[3];
    ew_status st;

    EW_TRY(ew_journal_next(&p->journal, &line, err));
    if (!line) {
        EW_TRY(score_window(p, at, out, err));
        ew_buf_printf(&p->line, "[%.17g,%.17g,%llu]", out->sum, out->sum_squares,
                      (unsigned long long)out->n);
        return ew_journal_add(&p->journal, &p->line, err);
    }
    st = ew_journal_numbers(line, 0, v, 3, &p->journal, err);
    json_decref(line);
    if (!st)
        *out = (struct part){ v[0], v[1], ew_window_n_scored(at) };
    return st;
}

static void add_part(struct part *to, const struct part *p)
{
    to->sum += p->sum;
    to->sum_squares += p->sum_squares;
    to->n += p->n;
}

static ew_estimate perplexity(const struct part *p)
{
    const double n = (double)p->n, mean = p->sum / n, value = exp(mean);
    const double var = n > 1 ? (p->sum_squares - n * mean * mean) / (n - 1) : 0;

    return (ew_estimate){ value, value * sqrt((var > 0 ? var : 0) / n) };
}

static ew_status score_all(struct ppl *p, ew_error *err)
{
    const ew_progress *const progress = &p->opts->progress;
    struct ew_window at = { 0 };
    struct part part;

    while (ew_windows_next(&p->w, &at))
        p->n_windows++;
    p->n_parts = p->n_windows < EW_PPL_PARTS ? (uint32_t)p->n_windows : EW_PPL_PARTS;
    at = (struct ew_window){ 0 };
    while (ew_windows_next(&p->w, &at)) {
        if (progress->step && !progress->step(progress->ctx, "perplexity", at.begin, p->w.n_ids))
            return ew_fail(err, EW_STATUS_CANCELLED, "perplexity cancelled");
        EW_TRY(take_window(p, &at, &part, err));
        add_part(&p->all, &part);
        add_part(&p->parts[at.index * (uint64_t)p->n_parts / p->n_windows], &part);
    }
    if (progress->step)
        (void)progress->step(progress->ctx, "perplexity", p->w.n_ids, p->w.n_ids);
    return p->all.n > 0 ? EW_STATUS_OK
                        : ew_fail(err, EW_STATUS_INVALID_ARG,
                                  "text of %zu tokens: nothing to score", p->w.n_ids);
}

static ew_status prepare(struct ppl *p, const char *text, size_t len, ew_error *err)
{
    const uint32_t sizes[2] = { p->opts->window, p->opts->stride };
    uint64_t key;

    EW_TRY(ew_windows_init(&p->w, p->rt, p->opts, text, len, err));
    p->logits = ew_mem_calloc(EW_MEM_EVAL, (size_t)p->w.piece * p->w.vocab, sizeof(*p->logits));
    if (!p->logits)
        return ew_fail(err, EW_STATUS_NO_MEMORY, "logits of %u tokens", p->w.piece);
    key = ew_journal_key_runtime(0, p->rt);
    key = ew_journal_key_bytes(key, sizes, sizeof(sizes));
    key = ew_journal_key_bytes(key, p->w.ids, p->w.n_ids * sizeof(*p->w.ids));
    return ew_journal_open(&p->journal, p->opts->resume, "ppl", key, err);
}

ew_status ew_eval_ppl(ew_runtime *rt, const char *text, size_t len, const ew_ppl_opts *opts,
                      ew_ppl_result *out, ew_error *err)
{
    static const ew_ppl_opts defaults = EW_PPL_OPTS_INIT;
    struct ppl p = { .rt = rt, .opts = opts ? opts : &defaults };
    const uint64_t t0 = ew_clock_ns();
    ew_status st;

    memset(out, 0, sizeof(*out));
    if (p.opts->struct_size != sizeof(*opts))
        return ew_fail(err, EW_STATUS_INVALID_ARG, "perplexity options: struct_size is %u, not %zu",
                       p.opts->struct_size, sizeof(*opts));
    ew_buf_init(&p.line, EW_MEM_EVAL, 1024);
    st = prepare(&p, text, len, err);
    if (!st)
        st = score_all(&p, err);
    if (!st) {
        const ew_estimate all = perplexity(&p.all);

        out->n_tokens = p.w.n_ids;
        out->n_scored = p.all.n;
        out->n_windows = p.n_windows;
        out->nll_sum = p.all.sum;
        out->perplexity = all.value;
        out->perplexity_stderr = all.error;
        out->n_parts = p.n_parts;
        for (uint32_t i = 0; i < p.n_parts; i++)
            out->parts[i] = perplexity(&p.parts[i]);
        out->seconds = (double)(ew_clock_ns() - t0) / 1e9;
    }
    ew_journal_close(&p.journal);
    ew_windows_deinit(&p.w);
    ew_buf_deinit(&p.line);
    ew_mem_free(p.logits);
    return st;
}
