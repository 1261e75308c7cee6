/* quant/calib.c - what every linear module of a layer sees on a text: the layer alone is built and
 * run on the original weights over windows of the text, and its output goes on to the next. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/size.h"
#include "base/text.h"
#include "edgewise/build.h"
#include "edgewise/engine.h"
#include "edgewise/tokenizer.h"
#include "graph/ir.h"
#include "quant/quant.h"

#define SEQ_LEN    512
#define MIN_TOKENS 64
#define N_TOKENS   4096

static const char *const tap_outputs[EW_Q_TAP_COUNT] = { "tap_attn", "tap_o", "tap_mlp",
                                                         "tap_down" };

/* ---- tokens ---- */

static ew_status append_ids(struct ew_q_run *r, struct ew_buf *ids, const ew_tokenizer *t,
                            const char *text, size_t len, uint32_t flags)
{
    int32_t *got;
    size_t n;

    EW_TRY(ew_tokenizer_encode(t, text, len, flags, &got, &n, r->err));
    ew_buf_append(ids, got, n * sizeof(*got));
    ew_tokens_free(got);
    return ids->failed ? ew_fail(r->err, EW_STATUS_NO_MEMORY, "no memory for calibration tokens")
                       : EW_STATUS_OK;
}

/* The built-in text: prose as it is, dialogues in the model's own template where it has one. */
static ew_status builtin_ids(struct ew_q_run *r, const ew_tokenizer *t, struct ew_buf *ids)
{
    ew_template *chat = NULL;
    ew_status s = ew_template_load(r->dir, false, &chat, NULL);

    if (s == EW_STATUS_NO_MEMORY)
        return ew_fail(r->err, s, "no memory for the chat template");
    s = EW_STATUS_OK; /* without a template dialogues are text */
    for (size_t i = 0; !s && ew_q_text_piece(i); i++) {
        const char *piece = ew_q_text_piece(i);
        ew_status rendered = EW_STATUS_NOT_FOUND;
        char *text = NULL;
        size_t len;

        if (piece[0] == '{' && chat)
            rendered = ew_template_render(chat, piece, NULL, 0, &text, &len, NULL, NULL, NULL);
        if (rendered == EW_STATUS_NO_MEMORY)
            s = ew_fail(r->err, rendered, "no memory for the calibration text");
        else if (!rendered)
            s = append_ids(r, ids, t, text, len, EW_ENCODE_SPECIAL);
        else
            s = append_ids(r, ids, t, piece, strlen(piece), 0);
        ew_string_free(text);
    }
    ew_template_destroy(chat);
    return s;
}

static ew_status embed_ids(struct ew_q_run *r, const int32_t *ids)
{
    const size_t h = (size_t)r->spec.hidden;
    const size_t elem = ew_dtype_bits(r->embed->type.dtype) / 8;

    r->hidden = ew_mem_calloc(EW_MEM_CHECKPOINT, r->n_tokens * h, sizeof(*r->hidden));
    if (!r->hidden)
        return ew_fail(r->err, EW_STATUS_NO_MEMORY, "no memory for %zu hidden states", r->n_tokens);
    for (size_t i = 0; i < r->n_tokens; i++) {
        if (ids[i] < 0 || ids[i] >= r->spec.vocab)
            return ew_fail(r->err, EW_STATUS_MISMATCH, "token %zu is %d, the model has %" PRId64, i,
                           (int)ids[i], r->spec.vocab);
        ew_convert_floats(r->hidden + i * h, EW_DTYPE_F32,
                          (const uint8_t *)r->embed->data + (size_t)ids[i] * h * elem,
                          r->embed->type.dtype, h);
        for (size_t j = 0; r->spec.embedding_scale != 1 && j < h; j++)
            r->hidden[i * h + j] *= (float)r->spec.embedding_scale;
    }
    return EW_STATUS_OK;
}

static ew_status start_hidden(struct ew_q_run *r, const int32_t *ids, size_t have)
{
    const size_t want = r->options->raw->calibration_tokens, cap = want ? want : N_TOKENS;
    size_t n = have < cap ? have : cap, seq = SEQ_LEN;

    if (have < MIN_TOKENS || n < MIN_TOKENS)
        return ew_fail(r->err, EW_STATUS_INVALID_ARG,
                       "%zu tokens to calibrate on, at least %d are needed", n, MIN_TOKENS);
    seq = (size_t)r->spec.max_position < seq ? (size_t)r->spec.max_position : seq;
    r->seq_len = n < seq ? n : seq;
    r->n_tokens = n / r->seq_len * r->seq_len;
    return embed_ids(r, ids);
}

ew_status ew_q_calib_open(struct ew_q_run *r)
{
    const ew_quantize_opts *o = r->options->raw;
    const struct ew_decoder_spec *d = &r->spec;
    ew_tokenizer *t;
    struct ew_buf ids;
    ew_status s;

    if (o->calibration_ids) {
        EW_TRY(start_hidden(r, o->calibration_ids, o->n_calibration_ids));
    } else {
        EW_TRY(ew_tokenizer_load(r->dir, &t, r->err));
        ew_buf_init(&ids, EW_MEM_CHECKPOINT, (size_t)1 << 30);
        if (o->calibration)
            s = append_ids(r, &ids, t, o->calibration, o->calibration_len, EW_ENCODE_SPECIAL);
        else
            s = builtin_ids(r, t, &ids);
        if (!s)
            s = start_hidden(r, (const int32_t *)(const void *)ids.data, ids.len / sizeof(int32_t));
        ew_buf_deinit(&ids);
        ew_tokenizer_destroy(t);
        EW_TRY(s);
    }
    r->tap_width[EW_Q_TAP_ATTN] = r->tap_width[EW_Q_TAP_MLP] = (size_t)d->hidden;
    r->tap_width[EW_Q_TAP_O] = (size_t)(d->n_heads * d->head_dim);
    r->tap_width[EW_Q_TAP_DOWN] = (size_t)d->inter;
    for (int i = 0; i < EW_Q_TAP_COUNT; i++) {
        r->taps[i] = ew_mem_calloc(EW_MEM_CHECKPOINT, r->n_tokens * r->tap_width[i], sizeof(float));
        if (!r->taps[i])
            return ew_fail(r->err, EW_STATUS_NO_MEMORY, "no memory for calibration inputs");
    }
    return EW_STATUS_OK;
}

void ew_q_calib_close(struct ew_q_run *r)
{
    ew_mem_free(r->hidden);
    for (int i = 0; i < EW_Q_TAP_COUNT; i++)
        ew_mem_free(r->taps[i]);
}

/* ---- one layer ---- */

struct layer_engine {
    struct ew_q_run *r;
    int64_t index;
    ew_graph *graph;
    void *plan;
    ew_engine *engine;
    ew_context *context;
    float *cache, *rope[2], *out;
    int32_t length, start;
    bool tapped[EW_Q_TAP_COUNT];
};

/* The inputs of the four kinds of linear nodes become outputs of the graph. */
static ew_status add_taps(struct layer_engine *e)
{
    for (const struct ew_node *n = e->graph->head; n; n = n->next) {
        int tap = ew_ends_with(n->name, "self_attn.q_proj")                      ? EW_Q_TAP_ATTN
                  : ew_ends_with(n->name, "self_attn.o_proj")                    ? EW_Q_TAP_O
                  : ew_ends_with(n->name, "mlp.gate_proj") || n->op == EW_OP_MOE ? EW_Q_TAP_MLP
                  : ew_ends_with(n->name, "mlp.down_proj")                       ? EW_Q_TAP_DOWN
                                                                                 : -1;

        if (tap < 0 || n->in[0]->is_input || n->in[0]->is_output)
            continue; /* a norm-after layer reads the residual stream itself */
        EW_TRY(ew_graph_add_output(e->graph, n->in[0], tap_outputs[tap], e->r->err));
        e->tapped[tap] = true;
    }
    return EW_STATUS_OK;
}

static ew_status make_buffers(struct layer_engine *e)
{
    const struct ew_decoder_spec *d = &e->r->spec;
    const size_t seq = e->r->seq_len;

    e->cache = ew_mem_calloc(EW_MEM_CHECKPOINT, seq * 2,
                             (size_t)(d->n_kv_heads * d->head_dim) * sizeof(float));
    e->out = ew_mem_calloc(EW_MEM_CHECKPOINT, seq * (size_t)d->hidden, sizeof(float));
    for (int i = 0; i < d->n_rope; i++) {
        e->rope[i] =
            ew_mem_calloc(EW_MEM_CHECKPOINT, seq * (size_t)d->rope[i].rotary_dim, sizeof(float));
        if (e->rope[i])
            ew_rope_fill(&d->rope[i], (int64_t)seq, 0, seq, e->rope[i]);
    }
    e->length = (int32_t)seq;
    if (e->cache && e->out && e->rope[0] && (d->n_rope < 2 || e->rope[1]))
        return EW_STATUS_OK;
    return ew_fail(e->r->err, EW_STATUS_NO_MEMORY, "no memory for the buffers of a layer");
}

static ew_status open_layer(struct layer_engine *e)
{
    struct ew_q_run *r = e->r;
    ew_build_opts build = EW_BUILD_OPTS_INIT;
    ew_engine_opts opts = EW_ENGINE_OPTS_INIT;
    size_t bytes;

    build.flags = EW_BUILD_NO_TIMING;
    build.n_threads = opts.n_threads = r->options->raw->n_threads;
    EW_TRY(
        ew_decoder_build_layer(&r->spec, r->st, e->index, (int64_t)r->seq_len, &e->graph, r->err));
    EW_TRY(add_taps(e));
    EW_TRY(ew_build_memory(e->graph, &build, &e->plan, &bytes, r->err));
    ew_graph_destroy(e->graph);
    e->graph = NULL;
    EW_TRY(ew_engine_load(e->plan, bytes, &opts, &e->engine, r->err));
    EW_TRY(ew_context_create(e->engine, NULL, &e->context, r->err));
    return make_buffers(e);
}

static void close_layer(struct layer_engine *e)
{
    ew_context_destroy(e->context);
    ew_engine_destroy(e->engine);
    ew_plan_free(e->plan);
    ew_graph_destroy(e->graph);
    ew_mem_free(e->cache);
    ew_mem_free(e->out);
    ew_mem_free(e->rope[0]);
    ew_mem_free(e->rope[1]);
}

static ew_status set(struct layer_engine *e, const char *name, void *address)
{
    const ew_status s = ew_context_set_address(e->context, name, address);

    return s ? ew_fail(e->r->err, s, "layer %" PRId64 ": '%s': %s", e->index, name,
                       ew_context_error(e->context))
             : s;
}

static ew_status bind(struct layer_engine *e, size_t at)
{
    struct ew_q_run *r = e->r;
    char name[64];

    EW_TRY(set(e, "inputs_embeds", r->hidden + at * (size_t)r->spec.hidden));
    snprintf(name, sizeof(name), "past_key_values_%" PRId64, e->index);
    EW_TRY(set(e, name, e->cache));
    snprintf(name, sizeof(name), "present_key_values_%" PRId64, e->index);
    EW_TRY(set(e, name, e->cache));
    for (int i = 0; i < r->spec.n_rope; i++)
        EW_TRY(set(e, ew_decoder_rope_input(i), e->rope[i]));
    EW_TRY(set(e, "context_lengths", &e->length));
    EW_TRY(set(e, "kvcache_start_index", &e->start));
    for (int i = 0; i < EW_Q_TAP_COUNT; i++)
        if (e->tapped[i])
            EW_TRY(set(e, tap_outputs[i], r->taps[i] + at * r->tap_width[i]));
    return set(e, "hidden", e->out);
}

/* Largest magnitude of keys and values by head: cache [2][heads][seq][dim]. */
static void watch_cache(struct layer_engine *e)
{
    struct ew_q_run *r = e->r;
    const size_t heads = 2 * (size_t)r->spec.n_kv_heads;
    const size_t per = r->seq_len * (size_t)r->spec.head_dim;
    float *max = r->kv_max + (size_t)e->index * heads;

    for (size_t h = 0; h < heads; h++)
        for (size_t i = 0; i < per; i++)
            max[h] = fmaxf(max[h], fabsf(e->cache[h * per + i]));
}

static ew_status run_windows(struct layer_engine *e)
{
    struct ew_q_run *r = e->r;
    const size_t h = (size_t)r->spec.hidden;

    for (size_t at = 0; at < r->n_tokens; at += r->seq_len) {
        ew_status s;

        EW_TRY(bind(e, at));
        s = ew_context_run(e->context);
        if (s)
            return ew_fail(r->err, s, "layer %" PRId64 ": %s", e->index,
                           ew_context_error(e->context));
        for (int i = 0; i < EW_Q_TAP_COUNT; i++)
            if (!e->tapped[i] && r->tap_width[i] == h)
                memcpy(r->taps[i] + at * h, r->hidden + at * h, r->seq_len * h * sizeof(float));
        memcpy(r->hidden + at * h, e->out, r->seq_len * h * sizeof(float));
        if (r->kv_max)
            watch_cache(e);
    }
    return EW_STATUS_OK;
}

ew_status ew_q_calib_layer(struct ew_q_run *r, int64_t i)
{
    struct layer_engine e = { .r = r, .index = i };
    ew_status s = open_layer(&e);

    if (!s)
        s = run_windows(&e);
    close_layer(&e);
    return s;
}
