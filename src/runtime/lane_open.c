/* runtime/lane_open.c - discovers the LLM contract of an engine by the names of its inputs and
 * outputs, and makes the buffers. Inputs that the runtime cannot feed are refused by name. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/size.h"
#include "runtime/lane.h"

struct found { /* what the scan over the engine's tensors saw */
    uint32_t n_kv, n_present;
    uint32_t *heads, *dims;
    ew_dtype kv_dtype;
    uint32_t n_hidden;
    struct ew_rope_input rope[EW_LLM_MAX_ROPE];
    uint32_t n_rope;
    bool embeds, lengths, start, last, logits, mask, pos;
};

void ew_lane_indexed_name(char name[EW_LANE_NAME_CAP], const char *prefix, uint32_t i)
{
    (void)snprintf(name, EW_LANE_NAME_CAP, "%s%u", prefix, i);
}

/* "past_key_values_12" with prefix "past_key_values_" gives 12. */
static bool name_index(const char *name, const char *prefix, uint32_t *i)
{
    const size_t len = strlen(prefix);
    char *end;
    unsigned long v;

    if (strncmp(name, prefix, len) != 0 || name[len] < '0' || name[len] > '9')
        return false;
    v = strtoul(name + len, &end, 10);
    *i = (uint32_t)v;
    return *end == '\0' && v < 100000;
}

static ew_status make_buffer(const struct ew_lane *lane, struct ew_lane_tensor *t,
                             const ew_tensor_info *info, size_t n, uint32_t width, ew_error *err)
{
    const ew_memory *m = ew_engine_memory(lane->engine);
    size_t bytes;

    (void)snprintf(t->name, sizeof(t->name), "%s", info->name);
    t->dtype = info->dtype;
    t->width = width;
    if (strcmp(t->name, info->name) != 0)
        return ew_fail(err, EW_STATUS_UNSUPPORTED, "engine tensor '%s': name too long", info->name);
    if (!ew_size_mul(n, width, &bytes) ||
        !ew_size_mul(bytes, ew_dtype_bits(info->dtype) / 8, &bytes) || bytes == 0)
        return ew_fail(err, EW_STATUS_UNSUPPORTED, "engine tensor '%s': %zu x %u of %s", info->name,
                       n, width, ew_dtype_text(info->dtype));
    EW_TRY(m->alloc_host(m->ctx, bytes, info->name, &t->data, err));
    t->bytes = bytes;
    return EW_STATUS_OK;
}

static ew_status expect(const ew_tensor_info *t, uint32_t n_dims, ew_dtype dtype, ew_error *err)
{
    if (t->n_dims != n_dims || (dtype != EW_DTYPE_NONE && t->dtype != dtype))
        return ew_fail(err, EW_STATUS_MISMATCH,
                       "engine tensor '%s' is %s with %u dims, not %s with %u", t->name,
                       ew_dtype_text(t->dtype), t->n_dims, dtype ? ew_dtype_text(dtype) : "a float",
                       n_dims);
    for (uint32_t d = 0; d < n_dims; d++)
        if (t->max[d] > INT32_MAX || (t->is_input && t->max[d] < 0))
            return ew_fail(err, EW_STATUS_MISMATCH, "engine tensor '%s': dim %u is %lld", t->name,
                           d, (long long)t->max[d]);
    return EW_STATUS_OK;
}

/* The input that says how large steps and the cache are: looked at before any buffer is made. */
static ew_status read_limits(struct ew_lane *lane, uint32_t max_batch, ew_error *err)
{
    bool embeds = false, cache = false;

    lane->max_select = 1;
    for (uint32_t i = 0; i < ew_engine_n_tensors(lane->engine); i++) {
        ew_tensor_info t;

        EW_TRY(ew_engine_get_tensor(lane->engine, i, 0, &t));
        if (strcmp(t.name, "inputs_embeds") == 0) {
            EW_TRY(expect(&t, 3, EW_DTYPE_NONE, err));
            lane->max_batch = (uint32_t)t.max[0];
            lane->max_input_len = (uint32_t)t.max[1];
            lane->hidden = (uint32_t)t.max[2];
            embeds = true;
        } else if (strcmp(t.name, "past_key_values_0") == 0) {
            EW_TRY(expect(&t, 5, EW_DTYPE_NONE, err));
            lane->cap = (uint32_t)t.max[3];
            cache = true;
        } else if (strcmp(t.name, "last_token_ids") == 0) {
            EW_TRY(expect(&t, 2, EW_DTYPE_I64, err));
            lane->max_select = t.max[1] > 0 ? (uint32_t)t.max[1] : 1;
        }
    }
    if (!embeds || !cache)
        return ew_fail(err, EW_STATUS_MISMATCH, "engine is not a language model: no input '%s'",
                       embeds ? "past_key_values_0" : "inputs_embeds");
    if (lane->hidden != lane->config->hidden)
        return ew_fail(err, EW_STATUS_MISMATCH,
                       "engine: hidden size is %u, its config.json says %u", lane->hidden,
                       lane->config->hidden);
    if (max_batch > lane->max_batch)
        return ew_fail(err, EW_STATUS_INVALID_ARG, "max_batch %u, the engine was built for %u",
                       max_batch, lane->max_batch);
    if (max_batch)
        lane->max_batch = max_batch;
    if (lane->max_select > lane->max_input_len)
        lane->max_select = lane->max_input_len;
    return lane->max_batch && lane->cap && lane->max_input_len
               ? EW_STATUS_OK
               : ew_fail(err, EW_STATUS_MISMATCH, "engine: profile of %u rows, %u tokens, cache %u",
                         lane->max_batch, lane->max_input_len, lane->cap);
}

static ew_status take_rope(struct ew_lane *lane, struct found *f, const ew_tensor_info *t,
                           bool *taken, ew_error *err)
{
    *taken = false;
    for (uint32_t i = 0; i < lane->config->n_rope; i++) {
        if (strcmp(t->name, lane->config->rope_input[i]) != 0)
            continue;
        *taken = true;
        EW_TRY(expect(t, 3, EW_DTYPE_F32, err));
        if (t->max[2] != lane->config->rope[i].rotary_dim)
            return ew_fail(err, EW_STATUS_MISMATCH,
                           "engine input '%s' has %lld columns, its config.json says %d", t->name,
                           (long long)t->max[2], lane->config->rope[i].rotary_dim);
        f->rope[f->n_rope++] = (struct ew_rope_input){ lane->config->rope_input[i],
                                                       (uint32_t)t->max[2], lane->config->rope[i] };
    }
    return EW_STATUS_OK;
}

static ew_status take_cache(struct ew_lane *lane, struct found *f, const ew_tensor_info *t,
                            uint32_t i, ew_error *err)
{
    EW_TRY(expect(t, 5, EW_DTYPE_NONE, err));
    if (i >= lane->config->n_layers || t->max[3] != lane->cap || t->max[1] != 2 ||
        (f->n_kv > 0 && t->dtype != f->kv_dtype))
        return ew_fail(
            err, EW_STATUS_MISMATCH,
            "engine input '%s': [%lld,%lld,%lld,%lld,%lld] %s beside %u layers of capacity %u",
            t->name, (long long)t->max[0], (long long)t->max[1], (long long)t->max[2],
            (long long)t->max[3], (long long)t->max[4], ew_dtype_text(t->dtype),
            lane->config->n_layers, lane->cap);
    f->heads[i] = (uint32_t)t->max[2];
    f->dims[i] = (uint32_t)t->max[4];
    f->kv_dtype = t->dtype;
    f->n_kv++;
    return EW_STATUS_OK;
}

static ew_status take_input(struct ew_lane *lane, struct found *f, const ew_tensor_info *t,
                            ew_error *err)
{
    const size_t rows = lane->max_batch, tokens = rows * lane->max_input_len;
    bool taken;
    uint32_t i;

    if (name_index(t->name, "past_key_values_", &i))
        return take_cache(lane, f, t, i, err);
    EW_TRY(take_rope(lane, f, t, &taken, err));
    if (taken)
        return EW_STATUS_OK;
    if (strcmp(t->name, "inputs_embeds") == 0) {
        f->embeds = true;
        return make_buffer(lane, &lane->embeds, t, tokens, lane->hidden, err);
    }
    if (strcmp(t->name, "context_lengths") == 0) {
        f->lengths = true;
        EW_TRY(expect(t, 1, EW_DTYPE_I32, err));
        return make_buffer(lane, &lane->context_lengths, t, rows, 1, err);
    }
    if (strcmp(t->name, "kvcache_start_index") == 0) {
        f->start = true;
        EW_TRY(expect(t, 1, EW_DTYPE_I32, err));
        return make_buffer(lane, &lane->start_index, t, rows, 1, err);
    }
    if (strcmp(t->name, "last_token_ids") == 0) {
        f->last = true;
        return make_buffer(lane, &lane->last_ids, t, rows, lane->max_select, err);
    }
    if (strcmp(t->name, "attention_mask") == 0) {
        f->mask = true;
        EW_TRY(expect(t, 3, EW_DTYPE_I32, err));
        return make_buffer(lane, &lane->tree_mask, t, rows, 1, err);
    }
    if (strcmp(t->name, "attention_pos_id") == 0) {
        f->pos = true;
        EW_TRY(expect(t, 2, EW_DTYPE_I32, err));
        return make_buffer(lane, &lane->tree_pos, t, rows, 1, err);
    }
    if (name_index(t->name, "deepstack_embeds_", &i)) {
        struct ew_lane_tensor *z =
            ew_mem_resize(EW_MEM_RUNTIME, lane->zeros, lane->n_zeros + 1, sizeof(*lane->zeros));

        EW_TRY(expect(t, 3, EW_DTYPE_NONE, err));
        if (!z)
            return ew_fail(err, EW_STATUS_NO_MEMORY, "input '%s'", t->name);
        lane->zeros = z;
        z = &lane->zeros[lane->n_zeros++];
        memset(z, 0, sizeof(*z));
        return make_buffer(lane, z, t, tokens, (uint32_t)t->max[2], err);
    }
    return ew_fail(err, EW_STATUS_UNSUPPORTED, "engine input '%s' is not known to the runtime",
                   t->name);
}

static ew_status take_output(struct ew_lane *lane, struct found *f, const ew_tensor_info *t,
                             ew_error *err)
{
    const size_t tokens = (size_t)lane->max_batch * lane->max_input_len;
    uint32_t i;

    if (name_index(t->name, "present_key_values_", &i)) {
        f->n_present++;
        return EW_STATUS_OK;
    }
    if (strcmp(t->name, "logits") == 0) {
        const size_t n = lane->max_select > lane->max_batch ? lane->max_select : lane->max_batch;

        EW_TRY(expect(t, 3, EW_DTYPE_F32, err));
        f->logits = true;
        lane->vocab = (uint32_t)t->max[2];
        return make_buffer(lane, &lane->logits, t, n, lane->vocab, err);
    }
    if (strcmp(t->name, "hidden_states") == 0) {
        EW_TRY(expect(t, 3, EW_DTYPE_NONE, err));
        lane->has_hidden_states = true;
        return make_buffer(lane, &lane->hidden_states, t, tokens, (uint32_t)t->max[2], err);
    }
    if (name_index(t->name, "hidden_", &i)) {
        struct ew_lane_tensor *h;

        EW_TRY(expect(t, 3, EW_DTYPE_F32, err));
        if (i != lane->n_hidden)
            return ew_fail(err, EW_STATUS_MISMATCH, "engine output '%s' comes after %u others",
                           t->name, lane->n_hidden);
        h = ew_mem_resize(EW_MEM_RUNTIME, lane->hidden_out, i + 1, sizeof(*h));
        if (!h)
            return ew_fail(err, EW_STATUS_NO_MEMORY, "output '%s'", t->name);
        lane->hidden_out = h;
        memset(&h[i], 0, sizeof(*h));
        lane->n_hidden++;
        return make_buffer(lane, &h[i], t, tokens, lane->hidden, err);
    }
    return ew_fail(err, EW_STATUS_UNSUPPORTED, "engine output '%s' is not known to the runtime",
                   t->name);
}

static ew_status check_found(struct ew_lane *lane, const struct found *f, ew_error *err)
{
    const char *missing = !f->lengths         ? "context_lengths"
                          : !f->start         ? "kvcache_start_index"
                          : !f->last          ? "last_token_ids"
                          : !f->logits        ? "logits"
                          : f->mask != f->pos ? "attention_mask with attention_pos_id"
                                              : NULL;

    if (missing)
        return ew_fail(err, EW_STATUS_MISMATCH, "engine is not a language model: no '%s'", missing);
    if (f->n_kv != lane->config->n_layers || f->n_present != f->n_kv)
        return ew_fail(err, EW_STATUS_MISMATCH,
                       "engine has %u past and %u present key-value tensors for %u layers", f->n_kv,
                       f->n_present, lane->config->n_layers);
    lane->has_tree = f->mask;
    for (uint32_t p = 0; p < ew_engine_n_profiles(lane->engine); p++)
        if (strcmp(ew_engine_profile_name(lane->engine, p), "generation") == 0)
            lane->generation_profile = p;
    return EW_STATUS_OK;
}

/* The lookup is outside the graph: without a table no token can be fed. */
static ew_status check_embedding(const struct ew_lane *lane, ew_error *err)
{
    float *row = ew_mem_calloc(EW_MEM_RUNTIME, lane->hidden, sizeof(*row));
    ew_status st;

    if (!row)
        return ew_fail(err, EW_STATUS_NO_MEMORY, "runtime");
    st = ew_engine_embed(lane->engine, 0, row);
    ew_mem_free(row);
    if (st)
        return ew_fail(err, EW_STATUS_MISMATCH,
                       "engine has no embedding table (embedding.safetensors was not beside the "
                       "graph when it was built)");
    return EW_STATUS_OK;
}

static ew_status scan(struct ew_lane *lane, struct found *f, ew_error *err)
{
    for (uint32_t i = 0; i < ew_engine_n_tensors(lane->engine); i++) {
        ew_tensor_info t;

        EW_TRY(ew_engine_get_tensor(lane->engine, i, 0, &t));
        EW_TRY(t.is_input ? take_input(lane, f, &t, err) : take_output(lane, f, &t, err));
    }
    EW_TRY(check_found(lane, f, err));
    EW_TRY(check_embedding(lane, err));
    EW_TRY(ew_kv_create_in(ew_engine_memory(lane->engine), f->n_kv, f->heads, f->dims,
                           lane->max_batch, lane->cap, f->kv_dtype, &lane->kv, err));
    EW_TRY(ew_rope_tables_create(lane->cap, f->rope, f->n_rope, lane->max_batch, &lane->rope, err));
    ew_rope_tables_move_to(lane->rope, ew_engine_memory(lane->engine));
    return EW_STATUS_OK;
}

static size_t ids_bytes(const struct ew_lane *lane)
{
    return (size_t)lane->max_batch * lane->max_input_len * sizeof(int32_t);
}

static size_t tokens_bytes(const struct ew_lane *lane)
{
    return (lane->max_select > lane->max_batch ? lane->max_select : lane->max_batch) *
           sizeof(int32_t);
}

/* What a device does beside the graph, where this one does it. */
static ew_status use_device(struct ew_lane *lane, ew_error *err)
{
    const ew_memory *m = ew_engine_memory(lane->engine);
    void *ids = NULL, *tokens = NULL;

    if (m->is_host)
        return EW_STATUS_OK;
    EW_TRY(m->alloc_host(m->ctx, ids_bytes(lane), "token ids", &ids, err));
    lane->ids = ids;
    EW_TRY(m->alloc_host(m->ctx, tokens_bytes(lane), "tokens", &tokens, err));
    lane->tokens = tokens;
    lane->n_embed = ew_engine_embed_rows(lane->engine);
    lane->embeds_there = lane->embeds.dtype == EW_DTYPE_F32 &&
                         !ew_context_set_tokens(lane->ctx, lane->embeds.name, lane->ids,
                                                lane->config->embedding_scale);
    lane->draws = ew_mem_calloc(EW_MEM_RUNTIME, lane->max_batch, sizeof(*lane->draws));
    if (!lane->draws)
        return ew_fail(err, EW_STATUS_NO_MEMORY, "runtime");
    lane->draws_there =
        !ew_context_set_draw(lane->ctx, lane->logits.name, lane->draws, lane->tokens);
    lane->picks_there = !ew_context_set_argmax(lane->ctx, lane->logits.name, lane->tokens);
    lane->draws_there = lane->draws_there && lane->picks_there;
    return EW_STATUS_OK;
}

ew_status ew_lane_create(ew_engine *engine, const struct ew_llm_config *config, uint32_t max_batch,
                         uint32_t flags, struct ew_lane **out, ew_error *err)
{
    const ew_context_opts opts = { sizeof(opts), flags };
    struct ew_lane *lane = ew_mem_calloc(EW_MEM_RUNTIME, 1, sizeof(*lane));
    struct found f = { 0 };
    ew_status st;

    *out = NULL;
    if (!lane)
        return ew_fail(err, EW_STATUS_NO_MEMORY, "runtime");
    lane->engine = engine;
    lane->config = config;
    f.heads = ew_mem_calloc(EW_MEM_RUNTIME, config->n_layers, sizeof(*f.heads));
    f.dims = ew_mem_calloc(EW_MEM_RUNTIME, config->n_layers, sizeof(*f.dims));
    st = f.heads && f.dims ? read_limits(lane, max_batch, err)
                           : ew_fail(err, EW_STATUS_NO_MEMORY, "runtime");
    if (!st)
        st = scan(lane, &f, err);
    if (!st) {
        lane->embed_row = ew_mem_calloc(EW_MEM_RUNTIME, lane->hidden, sizeof(float));
        lane->regimes = ew_mem_calloc(EW_MEM_RUNTIME, lane->max_batch, sizeof(*lane->regimes));
        if (!lane->embed_row || !lane->regimes)
            st = ew_fail(err, EW_STATUS_NO_MEMORY, "runtime");
    }
    if (!st)
        st = ew_context_create(engine, &opts, &lane->ctx, err);
    if (!st)
        st = use_device(lane, err);
    ew_mem_free(f.heads);
    ew_mem_free(f.dims);
    if (st) {
        ew_lane_destroy(lane);
        return st;
    }
    *out = lane;
    return EW_STATUS_OK;
}

static void drop_buffer(const struct ew_lane *lane, struct ew_lane_tensor *t)
{
    const ew_memory *m = ew_engine_memory(lane->engine);

    if (t->data)
        m->release_host(m->ctx, t->data, t->bytes);
}

void ew_lane_destroy(struct ew_lane *lane)
{
    if (!lane)
        return;
    ew_context_destroy(lane->ctx);
    ew_kv_destroy(lane->kv);
    ew_rope_tables_destroy(lane->rope);
    for (uint32_t i = 0; i < lane->n_zeros; i++)
        drop_buffer(lane, &lane->zeros[i]);
    for (uint32_t i = 0; i < lane->n_hidden; i++)
        drop_buffer(lane, &lane->hidden_out[i]);
    drop_buffer(lane, &lane->embeds);
    drop_buffer(lane, &lane->context_lengths);
    drop_buffer(lane, &lane->start_index);
    drop_buffer(lane, &lane->last_ids);
    drop_buffer(lane, &lane->logits);
    drop_buffer(lane, &lane->tree_mask);
    drop_buffer(lane, &lane->tree_pos);
    drop_buffer(lane, &lane->hidden_states);
    if (lane->ids || lane->tokens) {
        const ew_memory *m = ew_engine_memory(lane->engine);

        m->release_host(m->ctx, lane->ids, ids_bytes(lane));
        m->release_host(m->ctx, lane->tokens, tokens_bytes(lane));
    }
    ew_mem_free(lane->draws);
    ew_mem_free(lane->zeros);
    ew_mem_free(lane->hidden_out);
    ew_mem_free(lane->embed_row);
    ew_mem_free(lane->regimes);
    ew_mem_free(lane);
}
