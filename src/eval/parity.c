/* eval/parity.c - logits and hidden states of a model against a reference file, in three ways of
 * running that must agree: the whole text in one go, uneven chunks, token by token through the
 * cache. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/mem.h"
#include "base/size.h"
#include "checkpoint/safetensors.h"
#include "edgewise/eval.h"
#include "runtime/rt.h"

#define MAX_HIDDEN 1024u

struct tensor_ref { /* one tensor of the reference: [batch][seq][width] f32 */
    char name[32];
    const struct ew_st_tensor *t;
    uint32_t width;
};

struct parity {
    ew_runtime *rt;
    struct ew_safetensors *file;
    const struct ew_st_tensor *ids;
    const struct ew_st_tensor *gap; /* of routers; NULL: every token is judged */
    uint32_t batch, seq, n_layers;
    struct tensor_ref *refs; /* hidden_0.., then logits */
    uint32_t n_refs;
    bool has_hidden;
    int32_t *tokens; /* [seq] of one batch row */
    float *logits;   /* [seq][vocab] of one call */
    double tolerance;
};

static const char *const ways[] = { "one go", "chunks", "token by token" };
enum { N_WAYS = (int)EW_COUNT(ways) };
static const uint32_t chunk_lens[] = { 3, 1, 5, 2, 8, 4, 13 };

static uint32_t chunk_len(int way, uint32_t i, uint32_t left)
{
    const uint32_t want = way == 0 ? left : way == 1 ? chunk_lens[i % EW_COUNT(chunk_lens)] : 1;

    return want < left ? want : left;
}

static ew_status find_ids(struct parity *p, const char *path, ew_error *err)
{
    ew_model_info model;

    ew_runtime_get_model(p->rt, &model);
    p->n_layers = model.n_layers;
    p->ids = ew_safetensors_find(p->file, "input_ids");
    if (!p->ids || p->ids->type.n_dims != 2 || !ew_dtype_is_int(p->ids->type.dtype) ||
        p->ids->type.dim[0] < 1 || p->ids->type.dim[1] < 1)
        return ew_fail(err, EW_STATUS_MISMATCH, "%s: no integer input_ids [batch, seq]", path);
    if (p->ids->type.dim[1] > model.max_kv_len)
        return ew_fail(err, EW_STATUS_LIMIT, "%s: %lld tokens, the engine holds %u", path,
                       (long long)p->ids->type.dim[1], model.max_kv_len);
    p->batch = (uint32_t)p->ids->type.dim[0];
    p->seq = (uint32_t)p->ids->type.dim[1];
    return EW_STATUS_OK;
}

static ew_status add_ref(struct parity *p, const char *path, const char *name, uint32_t width,
                         ew_error *err)
{
    const struct ew_st_tensor *t = ew_safetensors_find(p->file, name);
    struct tensor_ref *r = &p->refs[p->n_refs];

    if (t->type.n_dims != 3 || !ew_dtype_is_float(t->type.dtype) || t->type.dim[0] != p->batch ||
        t->type.dim[1] != p->seq || t->type.dim[2] != width) {
        char text[128];

        ew_type_text(&t->type, text, sizeof(text));
        return ew_fail(err, EW_STATUS_MISMATCH, "%s: '%s' is %s, not a float [%u,%u,%u]", path,
                       name, text, p->batch, p->seq, width);
    }
    (void)snprintf(r->name, sizeof(r->name), "%s", name);
    r->t = t;
    r->width = width;
    p->n_refs++;
    return EW_STATUS_OK;
}

static ew_status find_refs(struct parity *p, const char *path, ew_error *err)
{
    ew_model_info model;
    char name[32];

    ew_runtime_get_model(p->rt, &model);
    p->refs = ew_mem_calloc(EW_MEM_EVAL, MAX_HIDDEN + 1, sizeof(*p->refs));
    if (!p->refs)
        return ew_fail(err, EW_STATUS_NO_MEMORY, "parity");
    for (uint32_t i = 0; i < MAX_HIDDEN && i < model.n_hidden_states; i++) {
        (void)snprintf(name, sizeof(name), "hidden_%u", i);
        if (!ew_safetensors_find(p->file, name))
            break;
        EW_TRY(add_ref(p, path, name, model.hidden, err));
        p->has_hidden = true;
    }
    if (!ew_safetensors_find(p->file, "logits"))
        return ew_fail(err, EW_STATUS_MISMATCH, "%s: no tensor 'logits'", path);
    return add_ref(p, path, "logits", model.vocab, err);
}

/* The gaps of routers, where they are there and operands are rounded. */
static ew_status find_gap(struct parity *p, const char *path, ew_error *err)
{
    const struct ew_st_tensor *t = ew_safetensors_find(p->file, "router_gap");
    ew_model_info model;

    if (t && (t->type.n_dims != 2 || !ew_dtype_is_float(t->type.dtype) ||
              t->type.dim[0] != p->batch || t->type.dim[1] != p->seq))
        return ew_fail(err, EW_STATUS_MISMATCH, "%s: 'router_gap' is not a float [%u,%u]", path,
                       p->batch, p->seq);
    ew_runtime_get_model(p->rt, &model);
    p->gap = strcmp(model.device, "cpu") != 0 ? t : NULL;
    return EW_STATUS_OK;
}

static bool is_tie(const struct parity *p, uint32_t b, uint32_t t)
{
    return p->gap && ew_elem_get_f64(p->gap->data, p->gap->type.dtype, (size_t)b * p->seq + t) <
                         EW_PARITY_TIE;
}

static ew_status read_tokens(struct parity *p, uint32_t b, ew_error *err)
{
    for (uint32_t i = 0; i < p->seq; i++) {
        const int64_t id =
            ew_elem_get_i64(p->ids->data, p->ids->type.dtype, (size_t)b * p->seq + i);

        if (id < 0 || id >= p->rt->config.vocab)
            return ew_fail(err, EW_STATUS_MISMATCH,
                           "input_ids[%u,%u] is %lld, the vocabulary has %u", b, i, (long long)id,
                           p->rt->config.vocab);
        p->tokens[i] = (int32_t)id;
    }
    return EW_STATUS_OK;
}

/* Tokens [at, at+n) of batch row b of one tensor. */
static void compare(const struct parity *p, const struct tensor_ref *ref, ew_parity_row *row,
                    const float *got, uint32_t b, uint32_t at, uint32_t n)
{
    for (uint32_t t = 0; t < n; t++) {
        const size_t base = ((size_t)b * p->seq + at + t) * ref->width;

        if (is_tie(p, b, at + t))
            continue;
        for (uint32_t c = 0; c < ref->width; c++) {
            const double want = ew_elem_get_f64(ref->t->data, ref->t->type.dtype, base + c);
            const double diff = fabs(want - (double)got[(size_t)t * ref->width + c]);

            if (fabs(want) > row->max_abs_ref)
                row->max_abs_ref = fabs(want);
            if (diff <= row->max_abs_err) /* false for NaN, which then stays the worst */
                continue;
            row->max_abs_err = isnan(diff) ? INFINITY : diff;
            row->worst[0] = b;
            row->worst[1] = at + t;
            row->worst[2] = c;
        }
    }
}

/* log(sum(exp)) of a row of the reference, or of ours (got). */
static double log_sum(const struct tensor_ref *ref, size_t base, const float *got)
{
    double max = -INFINITY, sum = 0;

    for (uint32_t c = 0; c < ref->width; c++) {
        const double v =
            got ? (double)got[c] : ew_elem_get_f64(ref->t->data, ref->t->type.dtype, base + c);

        max = v > max ? v : max;
    }
    for (uint32_t c = 0; c < ref->width; c++) {
        const double v =
            got ? (double)got[c] : ew_elem_get_f64(ref->t->data, ref->t->type.dtype, base + c);

        sum += exp(v - max);
    }
    return max + log(sum);
}

/* KL(reference || ours) of one token, whose logits of the reference begin at `base`. */
static double divergence(const struct tensor_ref *ref, size_t base, const float *mine)
{
    const double a = log_sum(ref, base, NULL), z = log_sum(ref, base, mine);
    double kl = 0;

    for (uint32_t c = 0; c < ref->width; c++) {
        const double lp = ew_elem_get_f64(ref->t->data, ref->t->type.dtype, base + c) - a;

        if (lp > -INFINITY) /* 0 log 0 is 0 */
            kl += exp(lp) * (lp - ((double)mine[c] - z));
    }
    return kl;
}

/* Sums the divergence of tokens into the row; near ties apart. */
static void diverge(const struct parity *p, ew_parity_row *row, uint32_t b, uint32_t at, uint32_t n,
                    ew_parity_result *out)
{
    const struct tensor_ref *ref = &p->refs[p->n_refs - 1];

    for (uint32_t t = 0; t < n; t++) {
        const double kl = divergence(ref, ((size_t)b * p->seq + at + t) * ref->width,
                                     p->logits + (size_t)t * ref->width);

        if (!is_tie(p, b, at + t))
            row->kl += kl;
        else if (!(kl <= out->tie_kl))
            out->tie_kl = kl;
    }
}

static void count_greedy(const struct parity *p, const struct tensor_ref *ref, const float *got,
                         uint32_t b, uint32_t at, uint32_t n, ew_parity_result *out)
{
    for (uint32_t t = 0; t < n; t++) {
        const size_t base = ((size_t)b * p->seq + at + t) * ref->width;
        const int32_t mine = ew_argmax(got + (size_t)t * ref->width, ref->width);
        double best = -INFINITY, second = -INFINITY;
        int32_t theirs = -1;

        if (is_tie(p, b, at + t)) {
            out->n_ties++;
            continue;
        }
        for (uint32_t c = 0; c < ref->width; c++) {
            const double v = ew_elem_get_f64(ref->t->data, ref->t->type.dtype, base + c);

            if (v > best) {
                second = best;
                best = v;
                theirs = (int32_t)c;
            } else if (v > second) {
                second = v;
            }
        }
        out->n_greedy++;
        out->n_greedy_equal += mine == theirs;
        out->n_greedy_clear += mine != theirs && best - second > EW_PARITY_LEAD;
    }
}

static ew_status run_way(struct parity *p, int way, uint32_t b, ew_parity_row *rows,
                         ew_parity_result *out, ew_error *err)
{
    uint32_t i = 0;

    EW_TRY(ew_runtime_rewind(p->rt, 0, 0, err));
    for (uint32_t at = 0; at < p->seq; i++) {
        const uint32_t n = chunk_len(way, i, p->seq - at);

        EW_TRY(ew_runtime_forward(p->rt, 0, p->tokens + at, n, p->seq, p->logits, n, err));
        for (uint32_t r = 0; r + 1 < p->n_refs; r++) {
            uint32_t n_tokens, width;
            const float *h = ew_runtime_hidden(p->rt, r, &n_tokens, &width);

            compare(p, &p->refs[r], &rows[r], h, b, at, n);
        }
        compare(p, &p->refs[p->n_refs - 1], &rows[p->n_refs - 1], p->logits, b, at, n);
        diverge(p, &rows[p->n_refs - 1], b, at, n, out);
        if (way == 0)
            count_greedy(p, &p->refs[p->n_refs - 1], p->logits, b, at, n, out);
        at += n;
    }
    return EW_STATUS_OK;
}

static void name_bad(const struct parity *p, uint32_t i_ref, int way, char out[64])
{
    const char *name = p->refs[i_ref].name;

    if (i_ref + 1 == p->n_refs)
        (void)snprintf(out, 64, "logits in %s", ways[way]);
    else if (i_ref == 0)
        (void)snprintf(out, 64, "%.16s (embedding) in %s", name, ways[way]);
    else if (i_ref >= p->n_layers)
        (void)snprintf(out, 64, "%.16s (final norm) in %s", name, ways[way]);
    else
        (void)snprintf(out, 64, "%.16s (layer %u) in %s", name, i_ref - 1, ways[way]);
}

static void judge(const struct parity *p, ew_parity_result *out)
{
    out->ok = true;
    for (uint32_t i = 0; i < out->n_rows; i++) {
        ew_parity_row *row = &out->rows[i];
        const int way = (int)(i / p->n_refs);

        row->relative = row->max_abs_ref > 0   ? row->max_abs_err / row->max_abs_ref
                        : row->max_abs_err > 0 ? INFINITY
                                               : 0;
        row->ok = row->relative <= p->tolerance;
        row->kl /= fmax(1, (double)p->batch * p->seq - (double)out->n_ties);
        if (!(row->kl <= out->max_kl)) /* NaN is the worst */
            out->max_kl = row->kl;
        if (i % p->n_refs == p->n_refs - 1 && !(row->relative <= out->max_relative_logits))
            out->max_relative_logits = row->relative;
        if (!row->ok && out->ok)
            name_bad(p, i % p->n_refs, way, out->first_bad);
        out->ok = out->ok && row->ok;
    }
    if (out->ok && out->n_greedy_clear)
        (void)snprintf(out->first_bad, sizeof(out->first_bad), "%llu likeliest tokens",
                       (unsigned long long)out->n_greedy_clear);
    out->ok = out->ok && !out->n_greedy_clear;
}

static ew_status run_all(struct parity *p, const ew_progress *progress, ew_parity_result *out,
                         ew_error *err)
{
    const uint64_t total = (uint64_t)N_WAYS * p->batch;
    uint64_t done = 0;

    for (int way = 0; way < N_WAYS; way++) {
        ew_parity_row *rows = out->rows + (size_t)way * p->n_refs;

        for (uint32_t r = 0; r < p->n_refs; r++) {
            (void)snprintf(rows[r].way, sizeof(rows[r].way), "%s", ways[way]);
            (void)snprintf(rows[r].tensor, sizeof(rows[r].tensor), "%s", p->refs[r].name);
        }
        for (uint32_t b = 0; b < p->batch; b++) {
            if (progress && progress->step &&
                !progress->step(progress->ctx, "parity", done++, total))
                return ew_fail(err, EW_STATUS_CANCELLED, "parity cancelled");
            EW_TRY(read_tokens(p, b, err));
            EW_TRY(run_way(p, way, b, rows, out, err));
        }
    }
    judge(p, out);
    return EW_STATUS_OK;
}

static ew_status prepare(struct parity *p, const char *path, ew_parity_result *out, ew_error *err)
{
    size_t n_logits;

    EW_TRY(ew_safetensors_open(path, &p->file, err));
    EW_TRY(find_ids(p, path, err));
    EW_TRY(find_refs(p, path, err));
    EW_TRY(find_gap(p, path, err));
    if (!ew_size_mul(p->seq, p->refs[p->n_refs - 1].width, &n_logits))
        return ew_fail(err, EW_STATUS_LIMIT, "%s: logits overflow", path);
    p->tokens = ew_mem_calloc(EW_MEM_EVAL, p->seq, sizeof(*p->tokens));
    p->logits = ew_mem_calloc(EW_MEM_EVAL, n_logits, sizeof(*p->logits));
    out->rows = ew_mem_calloc(EW_MEM_EVAL, (size_t)N_WAYS * p->n_refs, sizeof(*out->rows));
    if (!p->tokens || !p->logits || !out->rows)
        return ew_fail(err, EW_STATUS_NO_MEMORY, "parity over %u tokens", p->seq);
    out->n_rows = (uint32_t)N_WAYS * p->n_refs;
    return EW_STATUS_OK;
}

ew_status ew_eval_parity(ew_runtime *rt, const char *reference, double tolerance,
                         const ew_progress *progress, ew_parity_result *out, ew_error *err)
{
    struct parity p = { .rt = rt, .tolerance = tolerance > 0 ? tolerance : 1e-4 };
    ew_status st;

    memset(out, 0, sizeof(*out));
    st = prepare(&p, reference, out, err);
    if (!st)
        st = run_all(&p, progress, out, err);
    ew_safetensors_close(p.file);
    ew_mem_free(p.refs);
    ew_mem_free(p.tokens);
    ew_mem_free(p.logits);
    if (st)
        ew_parity_release(out);
    return st;
}

void ew_parity_release(ew_parity_result *r)
{
    if (!r)
        return;
    ew_mem_free(r->rows);
    memset(r, 0, sizeof(*r));
}
