/* runtime/lane.c - running a step: embeddings, lengths, bindings, the run, the commit. Discovery of
 * the contract is in lane_open.c. */
#include "runtime/lane.h"

#include <string.h>

#include "tensor/tensor.h"

static ew_status context_failed(const struct ew_lane *lane, ew_status st, const char *what,
                                ew_error *err)
{
    return ew_fail(err, st, "%s: %s", what, ew_context_error(lane->ctx));
}

static ew_status bind(struct ew_lane *lane, const char *name, const int64_t *dims, uint32_t n_dims,
                      void *data, ew_error *err)
{
    ew_status st = ew_context_set_shape(lane->ctx, name, dims, n_dims);

    if (!st)
        st = ew_context_set_address(lane->ctx, name, data);
    return st ? context_failed(lane, st, name, err) : EW_STATUS_OK;
}

/* The same for what is in the engine's memory. */
static ew_status bind_there(struct ew_lane *lane, const char *name, const int64_t *dims,
                            uint32_t n_dims, void *data, ew_error *err)
{
    ew_status st = ew_context_set_shape(lane->ctx, name, dims, n_dims);

    if (!st)
        st = ew_context_set_device_address(lane->ctx, name, data);
    return st ? context_failed(lane, st, name, err) : EW_STATUS_OK;
}

static ew_status bind_output(struct ew_lane *lane, const struct ew_lane_tensor *t, ew_error *err)
{
    const ew_status st = ew_context_set_address(lane->ctx, t->name, t->data);

    return st ? context_failed(lane, st, t->name, err) : EW_STATUS_OK;
}

static ew_status bind_cache(struct ew_lane *lane, uint32_t row0, int64_t b, ew_error *err)
{
    for (uint32_t i = 0; i < lane->kv->n_layers; i++) {
        const struct ew_kv_layer *l = &lane->kv->layers[i];
        const int64_t dims[5] = { b, 2, l->kv_heads, lane->cap, l->head_dim };
        char name[EW_LANE_NAME_CAP];
        ew_status st;

        ew_lane_indexed_name(name, "past_key_values_", i);
        EW_TRY(bind_there(lane, name, dims, 5, ew_kv_row(lane->kv, i, row0), err));
        ew_lane_indexed_name(name, "present_key_values_", i);
        st = ew_context_set_device_address(lane->ctx, name, ew_kv_row(lane->kv, i, row0));
        if (st)
            return context_failed(lane, st, name, err);
    }
    return EW_STATUS_OK;
}

static ew_status bind_rope(struct ew_lane *lane, uint32_t regime, ew_error *err)
{
    for (uint32_t i = 0; i < lane->rope->n_sets; i++) {
        const struct ew_rope_input *r = &lane->rope->sets[i];
        const int64_t dims[3] = { 1, lane->cap, r->rd };
        float *table;

        EW_TRY(ew_rope_tables_get(lane->rope, i, regime, &table, err));
        EW_TRY(bind_there(lane, r->name, dims, 3, table, err));
    }
    return EW_STATUS_OK;
}

/* Rows of embeddings, or ids that the device makes them of. */
static ew_status bind_embeds(struct ew_lane *lane, const int64_t *dims, ew_error *err)
{
    ew_status st;

    if (!lane->embeds_there)
        return bind(lane, lane->embeds.name, dims, 3, lane->embeds.data, err);
    st = ew_context_set_shape(lane->ctx, lane->embeds.name, dims, 3);
    if (!st)
        st = ew_context_set_tokens(lane->ctx, lane->embeds.name, lane->ids,
                                   lane->config->embedding_scale);
    return st ? context_failed(lane, st, lane->embeds.name, err) : EW_STATUS_OK;
}

static ew_status bind_logits(struct ew_lane *lane, bool wanted, ew_error *err)
{
    const ew_status st =
        ew_context_set_address(lane->ctx, lane->logits.name, wanted ? lane->logits.data : NULL);

    return st ? context_failed(lane, st, lane->logits.name, err) : EW_STATUS_OK;
}

static ew_status bind_picks(struct ew_lane *lane, bool drawn, ew_error *err)
{
    ew_status st = EW_STATUS_OK;

    if (drawn)
        st = ew_context_set_draw(lane->ctx, lane->logits.name, lane->draws, lane->tokens);
    else if (lane->picks_there)
        st = ew_context_set_argmax(lane->ctx, lane->logits.name, lane->tokens);
    return st ? context_failed(lane, st, lane->logits.name, err) : EW_STATUS_OK;
}

static ew_status bind_all(struct ew_lane *lane, const struct ew_lane_shape *to, ew_error *err)
{
    const int64_t b = to->n_rows, s = to->s;
    const int64_t tokens[3] = { b, s, lane->hidden }, rows[1] = { b };
    const int64_t select[2] = { b, to->n_select }, ones[3] = { b, 1, 1 };
    ew_status st;

    st = ew_context_set_profile(lane->ctx, to->s == 1 ? lane->generation_profile : 0);
    if (st)
        return context_failed(lane, st, "profile", err);
    EW_TRY(bind_embeds(lane, tokens, err));
    EW_TRY(bind(lane, lane->context_lengths.name, rows, 1, lane->context_lengths.data, err));
    EW_TRY(bind(lane, lane->start_index.name, rows, 1, lane->start_index.data, err));
    EW_TRY(bind(lane, lane->last_ids.name, select, 2, lane->last_ids.data, err));
    EW_TRY(bind_logits(lane, to->logits, err));
    EW_TRY(bind_picks(lane, to->draws, err));
    EW_TRY(bind_cache(lane, to->row0, b, err));
    EW_TRY(bind_rope(lane, to->regime, err));
    for (uint32_t i = 0; i < lane->n_zeros; i++) {
        const int64_t dims[3] = { b, s, lane->zeros[i].width };

        EW_TRY(bind(lane, lane->zeros[i].name, dims, 3, lane->zeros[i].data, err));
    }
    if (lane->has_tree) {
        EW_TRY(bind(lane, lane->tree_mask.name, ones, 3, lane->tree_mask.data, err));
        EW_TRY(bind(lane, lane->tree_pos.name, ones, 2, lane->tree_pos.data, err));
    }
    for (uint32_t i = 0; i < lane->n_hidden; i++)
        EW_TRY(bind_output(lane, &lane->hidden_out[i], err));
    return lane->has_hidden_states ? bind_output(lane, &lane->hidden_states, err) : EW_STATUS_OK;
}

static ew_status check_step(const struct ew_lane *lane, const struct ew_lane_step *step,
                            uint32_t *longest, ew_error *err)
{
    *longest = 0;
    if (step->n_rows == 0 || step->row0 + step->n_rows > lane->max_batch)
        return ew_fail(err, EW_STATUS_INVALID_ARG, "step over rows %u..%u, the engine has %u",
                       step->row0, step->row0 + step->n_rows, lane->max_batch);
    for (uint32_t i = 0; i < step->n_rows; i++) {
        const uint32_t len = ew_lane_len(lane, step->row0 + i);

        if (step->n[i] == 0)
            return ew_fail(err, EW_STATUS_INVALID_ARG, "step without tokens for row %u",
                           step->row0 + i);
        if (step->n[i] > lane->cap - len)
            return ew_fail(err, EW_STATUS_LIMIT,
                           "row %u holds %u tokens and cannot take %u more: capacity %u",
                           step->row0 + i, len, step->n[i], lane->cap);
        if (step->n[i] > *longest)
            *longest = step->n[i];
    }
    if (*longest == 0 || *longest > lane->max_input_len)
        return ew_fail(err, EW_STATUS_INVALID_ARG, "step of %u tokens, the engine takes 1 to %u",
                       *longest, lane->max_input_len);
    if (step->n_select == 0 || step->n_select > lane->max_select)
        return ew_fail(err, EW_STATUS_INVALID_ARG,
                       "logits of %u tokens of a step, the engine gives %u", step->n_select,
                       lane->max_select);
    return EW_STATUS_OK;
}

/* Padding is some token: nothing of it is seen. */
static ew_status fill_ids(struct ew_lane *lane, const struct ew_lane_step *step, uint32_t i,
                          uint32_t s, ew_error *err)
{
    int32_t *to = lane->ids + (size_t)i * s;

    for (uint32_t t = 0; t < step->n[i]; t++) {
        if (step->ids[i][t] < 0 || (uint32_t)step->ids[i][t] >= lane->n_embed)
            return ew_fail(err, EW_STATUS_INVALID_ARG,
                           "token %d is not in the embedding of %u rows", step->ids[i][t],
                           lane->n_embed);
        to[t] = step->ids[i][t];
    }
    memset(to + step->n[i], 0, (s - step->n[i]) * sizeof(*to));
    return EW_STATUS_OK;
}

static ew_status fill_row(struct ew_lane *lane, const struct ew_lane_step *step, uint32_t i,
                          uint32_t s, ew_error *err)
{
    const size_t elem = ew_dtype_bits(lane->embeds.dtype) / 8;
    const uint32_t start = ew_lane_len(lane, step->row0 + i), n = step->n[i];
    char *to = (char *)lane->embeds.data + (size_t)i * s * lane->hidden * elem;
    int64_t *select = (int64_t *)lane->last_ids.data + (size_t)i * step->n_select;
    const float scale = lane->config->embedding_scale;

    if (lane->embeds_there)
        EW_TRY(fill_ids(lane, step, i, s, err));
    for (uint32_t t = 0; t < n && !lane->embeds_there; t++, to += lane->hidden * elem) {
        const bool direct = lane->embeds.dtype == EW_DTYPE_F32;
        float *row = direct ? (float *)(void *)to : lane->embed_row;
        const ew_status st = ew_engine_embed(lane->engine, step->ids[i][t], row);

        if (st)
            return ew_fail(err, st, "token %d is not in the embedding of %u rows", step->ids[i][t],
                           lane->vocab);
        for (uint32_t d = 0; scale != 1.0f && d < lane->hidden; d++)
            row[d] *= scale;
        if (!direct)
            ew_convert_floats(to, lane->embeds.dtype, row, EW_DTYPE_F32, lane->hidden);
    }
    if (!lane->embeds_there)
        memset(to, 0, (size_t)(s - n) * lane->hidden * elem);
    ((int32_t *)lane->start_index.data)[i] = (int32_t)start;
    /* One token a row is decode mode, where the length counts the whole row. */
    ((int32_t *)lane->context_lengths.data)[i] = (int32_t)(s == 1 ? start + n : n);
    for (uint32_t j = 0; j < step->n_select; j++) {
        const int64_t at = (int64_t)n - step->n_select + j;

        select[j] = at < 0 ? 0 : at;
    }
    return EW_STATUS_OK;
}

ew_status ew_lane_run(struct ew_lane *lane, const struct ew_lane_step *step, ew_error *err)
{
    struct ew_lane_shape to = { .row0 = step->row0,
                                .n_rows = step->n_rows,
                                .n_select = step->n_select,
                                .set = true,
                                .logits = !(step->no_logits && lane->picks_there),
                                .draws = step->draws && lane->draws_there && step->n_select == 1 };
    ew_status st;

    EW_TRY(check_step(lane, step, &to.s, err));
    to.regime = lane->regimes[step->row0];
    for (uint32_t i = 0; i < step->n_rows; i++) {
        if (lane->regimes[step->row0 + i] != to.regime)
            return ew_fail(err, EW_STATUS_INVALID_ARG, "step over rows of RoPE regimes %u and %u",
                           to.regime, lane->regimes[step->row0 + i]);
        EW_TRY(fill_row(lane, step, i, to.s, err));
    }
    if (!lane->last.set || lane->last.row0 != to.row0 || lane->last.n_rows != to.n_rows ||
        lane->last.s != to.s || lane->last.n_select != to.n_select ||
        lane->last.regime != to.regime || lane->last.logits != to.logits ||
        lane->last.draws != to.draws) {
        lane->last.set = false;
        EW_TRY(bind_all(lane, &to, err));
        lane->last = to;
    }
    if (to.draws)
        memcpy(lane->draws, step->draws, step->n_rows * sizeof(*lane->draws));
    st = step->ahead ? ew_context_run_ahead(lane->ctx) : ew_context_run(lane->ctx);
    if (st)
        return context_failed(lane, st, "engine", err);
    for (uint32_t i = 0; i < step->n_rows; i++)
        EW_TRY(ew_kv_commit(lane->kv, step->row0 + i, step->n[i], err));
    return EW_STATUS_OK;
}

ew_status ew_lane_settle(struct ew_lane *lane, ew_error *err)
{
    const ew_status st = ew_context_settle(lane->ctx);

    return st ? context_failed(lane, st, "engine", err) : EW_STATUS_OK;
}

ew_status ew_lane_read_logits(struct ew_lane *lane, uint32_t i, const float **out, ew_error *err)
{
    const void *data;
    int64_t dims[8];
    uint32_t n_dims;
    ew_dtype dtype;
    ew_status st;

    *out = ew_lane_logits(lane, i, 0);
    if (lane->last.logits)
        return EW_STATUS_OK;
    st = ew_context_get_output(lane->ctx, lane->logits.name, &data, &dtype, dims, &n_dims);
    if (st)
        return context_failed(lane, st, lane->logits.name, err);
    *out = (const float *)data + (size_t)i * lane->last.n_select * lane->vocab;
    return EW_STATUS_OK;
}
