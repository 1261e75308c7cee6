/* eval/kld.c - two models over the same text, window by window, without keeping logits. */
#include "eval/kld.h"

#include <math.h>
#include <string.h>

#include "eval/windows.h"
#include "os/os.h"
#include "runtime/rt.h"

struct kld {
    ew_runtime *rt[2]; /* model, reference */
    const ew_ppl_opts *opts;
    struct ew_windows w;
    struct ew_journal journal;
    struct ew_buf line;
    float *logits[2]; /* [piece][vocab] */
    struct ew_kld_pair *pairs;
    size_t *index;  /* [n_pairs] of the token in the text */
    uint8_t *place; /* [n_pairs] of the token in its window */
    size_t n_pairs;
};

static ew_status measure_window(struct kld *k, const struct ew_window *at, ew_error *err)
{
    size_t next = k->n_pairs;

    EW_TRY(ew_runtime_rewind(k->rt[0], 0, 0, err));
    EW_TRY(ew_runtime_rewind(k->rt[1], 0, 0, err));
    for (size_t t = at->begin; t < at->end; t += k->w.piece) {
        const uint32_t n = at->end - t < k->w.piece ? (uint32_t)(at->end - t) : k->w.piece;

        for (int m = 0; m < 2; m++)
            EW_TRY(ew_runtime_forward(k->rt[m], 0, k->w.ids + t, n, (uint32_t)(at->end - at->begin),
                                      k->logits[m], n, err));
        for (uint32_t i = 0; i < n; i++) {
            const size_t off = (size_t)i * k->w.vocab;

            if (ew_window_scores(at, t + i + 1))
                EW_TRY(ew_kld_measure(k->logits[0] + off, k->logits[1] + off, k->w.vocab,
                                      k->w.ids[t + i + 1], t + i + 1, &k->pairs[next++], err));
        }
    }
    return EW_STATUS_OK;
}

static ew_status save_window(struct kld *k, size_t n, ew_error *err)
{
    ew_buf_putc(&k->line, '[');
    for (size_t i = 0; i < n; i++) {
        const struct ew_kld_pair *const p = &k->pairs[k->n_pairs + i];

        ew_buf_printf(&k->line, "%s%.17g,%.17g,%.17g,%d", i ? "," : "", p->kl, p->nll_model,
                      p->nll_reference, p->same_top);
    }
    ew_buf_putc(&k->line, ']');
    return ew_journal_add(&k->journal, &k->line, err);
}

static ew_status load_window(struct kld *k, const json_t *line, size_t n, ew_error *err)
{
    for (size_t i = 0; i < n; i++) {
        double v[EW_KLD_FIELDS];

        EW_TRY(ew_journal_numbers(line, i * EW_KLD_FIELDS, v, EW_KLD_FIELDS, &k->journal, err));
        k->pairs[k->n_pairs + i] = (struct ew_kld_pair){ v[0], v[1], v[2], v[3] != 0 };
    }
    return EW_STATUS_OK;
}

static ew_status take_window(struct kld *k, const struct ew_window *at, ew_error *err)
{
    const size_t n = ew_window_n_scored(at), first = at->end - n;
    json_t *line;
    ew_status st;

    EW_TRY(ew_journal_next(&k->journal, &line, err));
    if (line) {
        st = load_window(k, line, n, err);
        json_decref(line);
    } else {
        st = measure_window(k, at, err);
        if (!st)
            st = save_window(k, n, err);
    }
    for (size_t i = 0; i < n && !st; i++) {
        k->index[k->n_pairs + i] = first + i;
        k->place[k->n_pairs + i] = (uint8_t)((first + i - at->begin) * EW_KLD_PLACES / k->w.window);
    }
    k->n_pairs += st ? 0 : n;
    return st;
}

static ew_status measure_all(struct kld *k, ew_kld_result *out, ew_error *err)
{
    const ew_progress *const progress = &k->opts->progress;
    struct ew_window at = { 0 };

    while (ew_windows_next(&k->w, &at)) {
        if (progress->step && !progress->step(progress->ctx, "divergence", at.begin, k->w.n_ids))
            return ew_fail(err, EW_STATUS_CANCELLED, "comparison cancelled");
        EW_TRY(take_window(k, &at, err));
        out->n_windows++;
    }
    if (progress->step)
        (void)progress->step(progress->ctx, "divergence", k->w.n_ids, k->w.n_ids);
    EW_TRY(ew_kld_summarise(k->pairs, k->place, k->n_pairs, out, err));
    for (uint32_t i = 0; i < out->n_worst; i++) {
        out->worst[i].index = k->index[out->worst[i].index];
        out->worst[i].id = k->w.ids[out->worst[i].index];
    }
    out->n_tokens = k->w.n_ids;
    out->window = k->w.window;
    return EW_STATUS_OK;
}

/* Both must read the text as the same tokens. */
static ew_status check_same(struct kld *k, const char *text, size_t len, ew_error *err)
{
    struct ew_windows other;
    ew_status st;

    EW_TRY(ew_windows_init(&k->w, k->rt[0], k->opts, text, len, err));
    st = ew_windows_init(&other, k->rt[1], k->opts, text, len, err);
    if (!st && other.vocab != k->w.vocab)
        st = ew_fail(err, EW_STATUS_MISMATCH,
                     "the model has a vocabulary of %u, the reference of %u", k->w.vocab,
                     other.vocab);
    if (!st && other.n_ids != k->w.n_ids)
        st = ew_fail(err, EW_STATUS_MISMATCH,
                     "the text has %zu tokens for the model, %zu for the reference", k->w.n_ids,
                     other.n_ids);
    for (size_t i = 0; !st && i < k->w.n_ids; i++)
        if (other.ids[i] != k->w.ids[i])
            st = ew_fail(err, EW_STATUS_MISMATCH,
                         "token %zu of the text is %d for the model, %d for the reference", i,
                         k->w.ids[i], other.ids[i]);
    if (!st && other.window != k->w.window) /* engines of different KV length */
        st = ew_fail(err, EW_STATUS_MISMATCH,
                     "the model's engine gives windows of %u tokens, the reference's of %u: give "
                     "the window",
                     k->w.window, other.window);
    k->w.piece = k->w.piece < other.piece ? k->w.piece : other.piece;
    ew_windows_deinit(&other);
    return st;
}

static ew_status prepare(struct kld *k, const char *text, size_t len, ew_error *err)
{
    const uint32_t sizes[2] = { k->opts->window, k->opts->stride };
    uint64_t key;

    EW_TRY(check_same(k, text, len, err));
    for (int m = 0; m < 2; m++)
        k->logits[m] = ew_mem_calloc(EW_MEM_EVAL, (size_t)k->w.piece * k->w.vocab, sizeof(float));
    k->pairs = ew_mem_calloc(EW_MEM_EVAL, k->w.n_ids, sizeof(*k->pairs));
    k->index = ew_mem_calloc(EW_MEM_EVAL, k->w.n_ids, sizeof(*k->index));
    k->place = ew_mem_calloc(EW_MEM_EVAL, k->w.n_ids, sizeof(*k->place));
    if (!k->logits[0] || !k->logits[1] || !k->pairs || !k->index || !k->place)
        return ew_fail(err, EW_STATUS_NO_MEMORY, "comparison over %zu tokens", k->w.n_ids);
    key = ew_journal_key_runtime(ew_journal_key_runtime(0, k->rt[0]), k->rt[1]);
    key = ew_journal_key_bytes(key, sizes, sizeof(sizes));
    key = ew_journal_key_bytes(key, k->w.ids, k->w.n_ids * sizeof(*k->w.ids));
    return ew_journal_open(&k->journal, k->opts->resume, "kld", key, err);
}

ew_status ew_eval_kld(ew_runtime *model, ew_runtime *reference, const char *text, size_t len,
                      const ew_ppl_opts *opts, ew_kld_result *out, ew_error *err)
{
    static const ew_ppl_opts defaults = EW_PPL_OPTS_INIT;
    struct kld k = { .rt = { model, reference }, .opts = opts ? opts : &defaults };
    const uint64_t t0 = ew_clock_ns();
    ew_status st;

    memset(out, 0, sizeof(*out));
    if (k.opts->struct_size != sizeof(*opts))
        return ew_fail(err, EW_STATUS_INVALID_ARG, "comparison options: struct_size is %u, not %zu",
                       k.opts->struct_size, sizeof(*opts));
    if (model == reference)
        return ew_fail(err, EW_STATUS_INVALID_ARG, "a runtime cannot be compared with itself");
    ew_buf_init(&k.line, EW_MEM_EVAL, (size_t)1 << 30);
    st = prepare(&k, text, len, err);
    if (!st)
        st = measure_all(&k, out, err);
    out->seconds = (double)(ew_clock_ns() - t0) / 1e9;
    ew_journal_close(&k.journal);
    ew_windows_deinit(&k.w);
    ew_buf_deinit(&k.line);
    for (int m = 0; m < 2; m++)
        ew_mem_free(k.logits[m]);
    ew_mem_free(k.pairs);
    ew_mem_free(k.index);
    ew_mem_free(k.place);
    return st;
}
