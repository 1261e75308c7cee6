/* eval/layers.c - two precisions of one model, layer by layer: what each layer and each projection
 * adds to the error, apart from what it inherits.
 *
 * First pass: both models on their own; the residual streams beside each other. Second pass: the
 * model is cut (eval/probe.h) and gets the reference's stream at every place, so that each half of
 * a layer shows its own error alone; projections whose input is made inside the half get the
 * reference's input too, once as it is and once scaled by channel as the model's own input is. */
#include "eval/layers.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/mem.h"
#include "edgewise/tokenizer.h"
#include "eval/probe.h"
#include "eval/stats.h"
#include "os/os.h"
#include "sample/sampler.h"

struct layers {
    const char *model_dir, *reference_dir;
    const ew_layers_opts *opts;
    struct ew_probe model, reference;
    int32_t *ids;
    uint32_t n_ids, window, n_windows;
    uint32_t n_sites, n_stations;
    struct ew_match embedding, logits;
    struct ew_match *streams; /* [n_stations] free */
    struct ew_match *halves;  /* [n_stations] cut: the stream behind the half */
    struct ew_match *adds;    /* [n_stations] cut: what the half adds to it */
    struct ew_match *sites;   /* [n_sites] */
    struct ew_match *inputs;  /* [n_sites] alone ones: the model's own input, first window */
    struct ew_match *refed;   /* [n_sites] alone ones: with those inputs' scales */
    uint64_t n_same;
    ew_layers_result *out;
};

/* ---- tokens ---- */

/* Without a tokenizer: ids all over the vocabulary, always the same. */
static void random_ids(int32_t *ids, uint32_t n, uint32_t vocab)
{
    uint64_t x = 0x9e3779b97f4a7c15u;

    for (uint32_t i = 0; i < n; i++) {
        x = x * 6364136223846793005u + 1442695040888963407u;
        ids[i] = (int32_t)((x >> 33) % vocab);
    }
}

static ew_status take_ids(struct layers *l, const int32_t *ids, size_t n, ew_error *err)
{
    const uint32_t most = l->window * l->n_windows;

    l->n_ids = n < most ? (uint32_t)n : most;
    l->ids = ew_mem_calloc(EW_MEM_EVAL, l->n_ids + 1u, sizeof(*l->ids));
    if (!l->ids)
        return ew_fail(err, EW_STATUS_NO_MEMORY, "%u tokens", l->n_ids);
    if (l->n_ids)
        memcpy(l->ids, ids, l->n_ids * sizeof(*ids));
    return l->n_ids < 2
               ? ew_fail(err, EW_STATUS_INVALID_ARG, "text of %u tokens: too short", l->n_ids)
               : EW_STATUS_OK;
}

static ew_status make_ids(struct layers *l, const char *text, size_t len, ew_error *err)
{
    ew_tokenizer *tok = NULL;
    char path[4096];
    int32_t *ids = NULL;
    size_t n = 0;
    ew_status st;

    if (!ew_path_join(path, sizeof(path), l->reference_dir, "tokenizer.json"))
        return ew_fail(err, EW_STATUS_INVALID_ARG, "path too long: %s", l->reference_dir);
    if (!ew_path_is_file(path)) {
        if (text)
            return ew_fail(err, EW_STATUS_NOT_FOUND, "%s: no tokenizer to read the text with",
                           l->reference_dir);
        l->out->no_text = true;
        l->n_ids = l->window * l->n_windows;
        l->ids = ew_mem_calloc(EW_MEM_EVAL, l->n_ids, sizeof(*l->ids));
        return l->ids ? EW_STATUS_OK : ew_fail(err, EW_STATUS_NO_MEMORY, "%u tokens", l->n_ids);
    }
    if (!text) {
        text = ew_layers_text;
        len = strlen(text);
    }
    EW_TRY(ew_tokenizer_load(l->reference_dir, &tok, err));
    st = ew_tokenizer_encode(tok, text, len, EW_ENCODE_SPECIAL | EW_ENCODE_ADD_BOS, &ids, &n, err);
    if (!st)
        st = take_ids(l, ids, n, err);
    ew_tokens_free(ids);
    ew_tokenizer_destroy(tok);
    return st;
}

/* ---- sums ---- */

static void drop_matches(struct ew_match *m, uint32_t n)
{
    for (uint32_t i = 0; m && i < n; i++)
        ew_match_deinit(&m[i]);
    ew_mem_free(m);
}

static ew_status make_stations(struct ew_match **m, uint32_t n, uint32_t width, ew_error *err)
{
    *m = ew_mem_calloc(EW_MEM_EVAL, n, sizeof(**m));
    if (!*m)
        return ew_fail(err, EW_STATUS_NO_MEMORY, "sums of %u layers", n);
    for (uint32_t i = 0; i < n; i++)
        EW_TRY(ew_match_init(&(*m)[i], width, err));
    return EW_STATUS_OK;
}

static ew_status make_sums(struct layers *l, ew_error *err)
{
    const struct ew_probe *const r = &l->reference;

    l->n_sites = r->n_sites;
    l->n_stations = r->n_stations;
    EW_TRY(ew_match_init(&l->embedding, r->hidden, err));
    EW_TRY(ew_match_init(&l->logits, r->vocab, err));
    EW_TRY(make_stations(&l->streams, r->n_stations, r->hidden, err));
    EW_TRY(make_stations(&l->halves, r->n_stations, r->hidden, err));
    EW_TRY(make_stations(&l->adds, r->n_stations, r->hidden, err));
    l->sites = ew_mem_calloc(EW_MEM_EVAL, r->n_sites, sizeof(*l->sites));
    l->inputs = ew_mem_calloc(EW_MEM_EVAL, r->n_sites, sizeof(*l->inputs));
    l->refed = ew_mem_calloc(EW_MEM_EVAL, r->n_sites, sizeof(*l->refed));
    if (!l->sites || !l->inputs || !l->refed)
        return ew_fail(err, EW_STATUS_NO_MEMORY, "sums of %u projections", r->n_sites);
    for (uint32_t i = 0; i < r->n_sites; i++) {
        EW_TRY(ew_match_init(&l->sites[i], r->sites[i].width, err));
        EW_TRY(ew_match_init(&l->inputs[i], r->sites[i].alone ? r->sites[i].input_width : 0, err));
        EW_TRY(ew_match_init(&l->refed[i], r->sites[i].alone ? r->sites[i].width : 0, err));
    }
    return EW_STATUS_OK;
}

static ew_status check_same(const struct layers *l, ew_error *err)
{
    const struct ew_probe *const a = &l->model, *const b = &l->reference;

    if (a->hidden != b->hidden || a->n_layers != b->n_layers || a->vocab != b->vocab ||
        a->n_sites != b->n_sites)
        return ew_fail(err, EW_STATUS_MISMATCH,
                       "the model has %u layers of width %u, %u projections and %u tokens, the "
                       "reference %u, %u, %u and %u",
                       a->n_layers, a->hidden, a->n_sites, a->vocab, b->n_layers, b->hidden,
                       b->n_sites, b->vocab);
    for (uint32_t i = 0; i < a->n_sites; i++) {
        const struct ew_probe_site *const s = &a->sites[i], *const t = &b->sites[i];

        if (strcmp(s->name, t->name) != 0 || s->width != t->width || s->alone != t->alone ||
            s->input_width != t->input_width)
            return ew_fail(err, EW_STATUS_MISMATCH,
                           "projection %u is '%s' (%u channels) in the model, '%s' (%u) in the "
                           "reference",
                           i, s->name, s->width, t->name, t->width);
    }
    return EW_STATUS_OK;
}

/* ---- first pass: each on its own ---- */

static ew_status compare_free(struct layers *l, const int32_t *ids, uint32_t n, ew_error *err)
{
    const float *const y = ew_probe_data(&l->model, l->model.logits);
    const float *const x = ew_probe_data(&l->reference, l->reference.logits);

    EW_TRY(ew_probe_embed(&l->model, ids, n, err));
    EW_TRY(ew_probe_embed(&l->reference, ids, n, err));
    EW_TRY(ew_probe_run(&l->model, n, err));
    EW_TRY(ew_probe_run(&l->reference, n, err));
    ew_match_add(&l->embedding, ew_probe_data(&l->model, l->model.stations[0]),
                 ew_probe_data(&l->reference, l->reference.stations[0]), NULL, n);
    for (uint32_t i = 1; i < l->n_stations; i++)
        ew_match_add(&l->streams[i], ew_probe_data(&l->model, l->model.stations[i]),
                     ew_probe_data(&l->reference, l->reference.stations[i]), NULL, n);
    ew_match_add(&l->logits, y, x, NULL, n);
    for (uint32_t t = 0; t < n; t++)
        l->n_same += ew_argmax(y + (size_t)t * l->model.vocab, l->model.vocab) ==
                     ew_argmax(x + (size_t)t * l->model.vocab, l->model.vocab);
    return EW_STATUS_OK;
}

/* ---- second pass: every half on the reference's input ---- */

static void give_stations(struct layers *l, uint32_t n)
{
    for (uint32_t i = 0; i < l->n_stations; i++)
        memcpy(ew_probe_data(&l->model, l->model.given[i]),
               ew_probe_data(&l->reference, l->reference.stations[i]),
               (size_t)n * l->reference.hidden * sizeof(float));
}

/* scaled: by channel, as the model's own input is. */
static void give_input(struct layers *l, uint32_t i, uint32_t n, bool scaled)
{
    const uint32_t width = l->reference.sites[i].input_width;
    const float *const from = ew_probe_data(&l->reference, l->reference.sites[i].in_seen);
    float *const to = ew_probe_data(&l->model, l->model.sites[i].in_given);

    for (uint32_t c = 0; c < width; c++) {
        const float gain = scaled ? (float)ew_match_channel_gain(&l->inputs[i], c) : 1.0f;

        for (uint32_t t = 0; t < n; t++)
            to[(size_t)t * width + c] = gain * from[(size_t)t * width + c];
    }
}

static ew_status run_cut(struct layers *l, uint32_t n, bool scaled, ew_error *err)
{
    for (uint32_t i = 0; i < l->n_sites; i++)
        if (l->model.sites[i].alone)
            give_input(l, i, n, scaled);
    return ew_probe_run(&l->model, n, err);
}

/* Projections on the reference's input; alone ones again with the scales of the model's own, which
 * the first window tells. */
static ew_status compare_sites(struct layers *l, uint32_t n, bool first, ew_error *err)
{
    for (uint32_t i = 0; i < l->n_sites; i++) {
        const struct ew_probe_site *const s = &l->model.sites[i], *const r = &l->reference.sites[i];

        ew_match_add(&l->sites[i], ew_probe_data(&l->model, s->alone ? s->out_alone : s->out),
                     ew_probe_data(&l->reference, r->out), NULL, n);
        if (s->alone && first)
            ew_match_add(&l->inputs[i], ew_probe_data(&l->model, s->in_seen),
                         ew_probe_data(&l->reference, r->in_seen), NULL, n);
    }
    EW_TRY(run_cut(l, n, true, err));
    for (uint32_t i = 0; i < l->n_sites; i++)
        if (l->model.sites[i].alone)
            ew_match_add(&l->refed[i], ew_probe_data(&l->model, l->model.sites[i].out_alone),
                         ew_probe_data(&l->reference, l->reference.sites[i].out), NULL, n);
    return EW_STATUS_OK;
}

static ew_status compare_cut(struct layers *l, const int32_t *ids, uint32_t n, bool first,
                             ew_error *err)
{
    EW_TRY(ew_probe_embed(&l->reference, ids, n, err));
    EW_TRY(ew_probe_run(&l->reference, n, err));
    give_stations(l, n);
    EW_TRY(run_cut(l, n, false, err));
    for (uint32_t i = 1; i < l->n_stations; i++) {
        const float *const y = ew_probe_data(&l->model, l->model.stations[i]);
        const float *const x = ew_probe_data(&l->reference, l->reference.stations[i]);
        const float *const base = ew_probe_data(&l->reference, l->reference.stations[i - 1]);

        ew_match_add(&l->halves[i], y, x, NULL, n);
        ew_match_add(&l->adds[i], y, x, base, n);
    }
    return compare_sites(l, n, first, err);
}

static ew_status run_pass(struct layers *l, bool cut, ew_error *err)
{
    const ew_progress *const progress = &l->opts->progress;
    const char *const stage = cut ? "each layer alone" : "layers in a row";

    EW_TRY(ew_probe_open(&l->model, l->model_dir, l->opts->build, l->window, cut, err));
    if (!cut) {
        EW_TRY(check_same(l, err));
        EW_TRY(make_sums(l, err));
        if (l->out->no_text)
            random_ids(l->ids, l->n_ids, l->reference.vocab);
        for (uint32_t i = 0; i < l->n_ids; i++)
            if ((uint32_t)l->ids[i] >= l->model.vocab)
                return ew_fail(err, EW_STATUS_MISMATCH, "token %d, the model has %u", l->ids[i],
                               l->model.vocab);
    }
    for (uint32_t at = 0; at + 1 < l->n_ids; at += l->window) {
        const uint32_t n = l->n_ids - at < l->window ? l->n_ids - at : l->window;

        if (progress->step && !progress->step(progress->ctx, stage, at, l->n_ids))
            return ew_fail(err, EW_STATUS_CANCELLED, "parity cancelled");
        EW_TRY(cut ? compare_cut(l, l->ids + at, n, at == 0, err)
                   : compare_free(l, l->ids + at, n, err));
    }
    ew_probe_close(&l->model);
    return EW_STATUS_OK;
}

/* ---- figures ---- */

/* refed: NULL or empty when the site's input is the stream. */
static ew_status fill_site(ew_site_row *row, const char *name, int32_t layer,
                           const struct ew_match *m, const struct ew_match *refed, ew_error *err)
{
    (void)snprintf(row->name, sizeof(row->name), "%s", name);
    row->layer = layer;
    EW_TRY(ew_match_is_folded(m, &row->folded, err));
    row->error = row->folded ? ew_match_error_unfolded(m) : ew_match_error(m);
    row->gain = row->gain_folded = ew_match_gain(m);
    row->gain_error = ew_match_gain_error(m);
    if (refed && refed->width) {
        row->error = fmin(row->error, ew_match_error(refed));
        row->gain_folded = ew_match_gain(refed);
        row->gain_error = ew_match_gain_error(refed);
    }
    return EW_STATUS_OK;
}

static ew_status fill_result(struct layers *l, ew_error *err)
{
    ew_layers_result *const out = l->out;

    out->n_layers = (l->n_stations - 1) / 2;
    out->n_sites = l->n_sites + 1;
    out->layers = ew_mem_calloc(EW_MEM_EVAL, out->n_layers, sizeof(*out->layers));
    out->sites = ew_mem_calloc(EW_MEM_EVAL, out->n_sites, sizeof(*out->sites));
    if (!out->layers || !out->sites)
        return ew_fail(err, EW_STATUS_NO_MEMORY, "a table of %u projections", out->n_sites);
    EW_TRY(fill_site(&out->sites[0], "model.embed_tokens", -1, &l->embedding, NULL, err));
    for (uint32_t i = 0; i < l->n_sites; i++)
        EW_TRY(fill_site(&out->sites[i + 1], l->reference.sites[i].name,
                         l->reference.sites[i].layer, &l->sites[i], &l->refed[i], err));
    for (uint32_t i = 0; i < out->n_layers; i++) {
        ew_layer_row *const row = &out->layers[i];
        const uint32_t a = 2 * i + 1, m = a + 1;

        row->layer = i;
        row->hidden = ew_match_error(&l->streams[m]);
        row->added_attention = ew_match_error(&l->halves[a]);
        row->added_mlp = ew_match_error(&l->halves[m]);
        row->added = hypot(row->added_attention, row->added_mlp);
        row->gain_attention = ew_match_gain(&l->adds[a]);
        row->gain_mlp = ew_match_gain(&l->adds[m]);
    }
    out->logits = ew_match_error(&l->logits);
    out->n_tokens = l->n_ids;
    out->same_top = ew_stats_share(l->n_same, l->logits.n);
    return ew_layers_judge(out, err);
}

static ew_status check_args(const struct layers *l, ew_error *err)
{
    const char *const dirs[2] = { l->model_dir, l->reference_dir };

    if (l->opts->struct_size != sizeof(*l->opts))
        return ew_fail(err, EW_STATUS_INVALID_ARG, "parity options: struct_size is %u, not %zu",
                       l->opts->struct_size, sizeof(*l->opts));
    if (l->window < 2 || (uint64_t)l->window * l->n_windows > INT32_MAX)
        return ew_fail(err, EW_STATUS_INVALID_ARG, "%u windows of %u tokens", l->n_windows,
                       l->window);
    for (int i = 0; i < 2; i++)
        if (strcmp(ew_model_kind(dirs[i]), "checkpoint") != 0)
            return ew_fail(err, EW_STATUS_UNSUPPORTED,
                           "%s: layer by layer only checkpoints can be compared, this is %s",
                           dirs[i], ew_model_kind(dirs[i]));
    return EW_STATUS_OK;
}

static void layers_deinit(struct layers *l)
{
    ew_probe_close(&l->model);
    ew_probe_close(&l->reference);
    ew_match_deinit(&l->embedding);
    ew_match_deinit(&l->logits);
    drop_matches(l->streams, l->n_stations);
    drop_matches(l->halves, l->n_stations);
    drop_matches(l->adds, l->n_stations);
    drop_matches(l->sites, l->n_sites);
    drop_matches(l->inputs, l->n_sites);
    drop_matches(l->refed, l->n_sites);
    ew_mem_free(l->ids);
}

ew_status ew_eval_layers(const char *model, const char *reference, const char *text, size_t len,
                         const ew_layers_opts *opts, ew_layers_result *out, ew_error *err)
{
    static const ew_layers_opts defaults = EW_LAYERS_OPTS_INIT;
    struct layers l = { .model_dir = model, .reference_dir = reference, .out = out };
    const uint64_t t0 = ew_clock_ns();
    ew_status st;

    memset(out, 0, sizeof(*out));
    l.opts = opts ? opts : &defaults;
    l.window = l.opts->window ? l.opts->window : 128;
    l.n_windows = l.opts->max_windows ? l.opts->max_windows : 4;
    st = check_args(&l, err);
    if (!st)
        st = make_ids(&l, text, len, err);
    if (!st)
        st = ew_probe_open(&l.reference, reference, l.opts->build_reference, l.window, false, err);
    if (!st)
        st = run_pass(&l, false, err);
    if (!st)
        st = run_pass(&l, true, err);
    if (!st)
        st = fill_result(&l, err);
    out->seconds = (double)(ew_clock_ns() - t0) / 1e9;
    layers_deinit(&l);
    if (st)
        ew_layers_release(out);
    return st;
}

void ew_layers_release(ew_layers_result *r)
{
    if (!r)
        return;
    ew_mem_free(r->layers);
    ew_mem_free(r->sites);
    ew_mem_free(r->worst_sites);
    ew_mem_free(r->worst_layers);
    memset(r, 0, sizeof(*r));
}
