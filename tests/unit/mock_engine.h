/* mock_engine.h - a stand-in for the engine with the LLM contract: a "model" whose next token is a
 * hash of all tokens that its KV cache holds for the row. It reads and writes the cache, obeys the
 * modes of kernels/attention.h and refuses what an engine would refuse; so a slip in lengths,
 * slots, padding or compaction changes the text. Include in one test only. */
#ifndef EW_TEST_MOCK_ENGINE_H
#define EW_TEST_MOCK_ENGINE_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/memory.h"
#include "edgewise/engine.h"

enum { MOCK_B = 4, MOCK_S = 5, MOCK_CAP = 64, MOCK_V = 50, MOCK_H = 2, MOCK_RD = 4, MOCK_IO = 12 };

static const char *mock_config =
    "{\"model\":\"mock\",\"vocab_size\":50,\"hidden_size\":2,\"num_hidden_layers\":1,"
    "\"num_attention_heads\":1,\"num_key_value_heads\":1,\"head_dim\":4,"
    "\"max_position_embeddings\":64,\"rope_theta\":10000,\"rope_scaling\":null,"
    "\"eos_token_id\":[7,9]}";
static uint64_t mock_runs, mock_max_rows;
static int mock_fail_at; /* the run that fails; 0: none */
static void (*mock_on_run)(void);

struct ew_engine {
    int unused;
};
struct mock_io {
    const char *name;
    ew_dtype dtype;
    uint32_t n_dims;
    int64_t max[5];
    bool is_input;
};
static const struct mock_io mock_io[] = {
    { "inputs_embeds", EW_DTYPE_F32, 3, { MOCK_B, MOCK_S, MOCK_H }, true },
    { "past_key_values_0", EW_DTYPE_F32, 5, { MOCK_B, 2, 1, MOCK_CAP, 4 }, true },
    { "rope_rotary_cos_sin", EW_DTYPE_F32, 3, { MOCK_B, MOCK_CAP, MOCK_RD }, true },
    { "context_lengths", EW_DTYPE_I32, 1, { MOCK_B }, true },
    { "kvcache_start_index", EW_DTYPE_I32, 1, { MOCK_B }, true },
    { "last_token_ids", EW_DTYPE_I64, 2, { MOCK_B, MOCK_S }, true },
    { "deepstack_embeds_0", EW_DTYPE_F16, 3, { MOCK_B, MOCK_S, MOCK_H }, true },
    { "logits", EW_DTYPE_F32, 3, { MOCK_B, MOCK_S, MOCK_V }, false },
    { "present_key_values_0", EW_DTYPE_F32, 5, { MOCK_B, 2, 1, MOCK_CAP, 4 }, false },
};
enum { MOCK_N_IO = (int)(sizeof(mock_io) / sizeof(mock_io[0])) };
struct ew_context {
    void *address[MOCK_IO];
    int64_t dims[MOCK_IO][5];
    uint32_t profile;
    char error[128];
};

ew_status ew_engine_open(const char *path, const ew_engine_opts *opts, ew_engine **out,
                         ew_error *err)
{
    (void)path, (void)opts, (void)err;
    *out = calloc(1, sizeof(**out));
    return EW_STATUS_OK;
}
void ew_engine_destroy(ew_engine *e)
{
    free(e);
}
const char *ew_engine_llm_config(const ew_engine *e)
{
    (void)e;
    return mock_config;
}
uint32_t ew_engine_n_profiles(const ew_engine *e)
{
    (void)e;
    return 2;
}
const char *ew_engine_profile_name(const ew_engine *e, uint32_t p)
{
    (void)e;
    return p == 0 ? "context" : p == 1 ? "generation" : NULL;
}
uint32_t ew_engine_n_tensors(const ew_engine *e)
{
    (void)e;
    return MOCK_N_IO;
}
ew_status ew_engine_get_tensor(const ew_engine *e, uint32_t i, uint32_t profile,
                               ew_tensor_info *out)
{
    (void)e, (void)profile;
    memset(out, 0, sizeof(*out));
    out->name = mock_io[i].name;
    out->dtype = mock_io[i].dtype;
    out->n_dims = mock_io[i].n_dims;
    out->is_input = mock_io[i].is_input;
    memcpy(out->max, mock_io[i].max, sizeof(mock_io[i].max));
    return EW_STATUS_OK;
}
uint32_t ew_engine_embed_rows(const ew_engine *e)
{
    (void)e;
    return 0;
}

const char *ew_engine_device(const ew_engine *e)
{
    (void)e;
    return "cpu";
}

const ew_memory *ew_engine_memory(const ew_engine *e)
{
    (void)e;
    return ew_memory_of_host();
}

uint64_t ew_engine_step_bytes(const ew_engine *e)
{
    (void)e;
    return 0;
}

uint64_t ew_engine_step_macs(const ew_engine *e)
{
    (void)e;
    return 0;
}

ew_status ew_engine_embed(const ew_engine *e, int32_t id, float *out)
{
    (void)e;
    if (id < 0 || id >= MOCK_V)
        return EW_STATUS_INVALID_ARG;
    out[0] = (float)id;
    out[1] = -1;
    return EW_STATUS_OK;
}
ew_status ew_context_create(ew_engine *e, const ew_context_opts *opts, ew_context **out,
                            ew_error *err)
{
    (void)e, (void)opts, (void)err;
    *out = calloc(1, sizeof(**out));
    return EW_STATUS_OK;
}
void ew_context_destroy(ew_context *c)
{
    free(c);
}
const char *ew_context_error(const ew_context *c)
{
    return c->error;
}
static int mock_find(const char *name)
{
    for (int i = 0; i < MOCK_N_IO; i++)
        if (strcmp(mock_io[i].name, name) == 0)
            return i;
    return -1;
}
ew_status ew_context_set_profile(ew_context *c, uint32_t profile)
{
    c->profile = profile;
    return EW_STATUS_OK;
}
ew_status ew_context_set_shape(ew_context *c, const char *name, const int64_t *dims,
                               uint32_t n_dims)
{
    const int i = mock_find(name);

    if (i < 0 || n_dims != mock_io[i].n_dims)
        return EW_STATUS_NOT_FOUND;
    for (uint32_t d = 0; d < n_dims; d++) {
        if (dims[d] < 1 || dims[d] > mock_io[i].max[d])
            return EW_STATUS_INVALID_ARG;
        c->dims[i][d] = dims[d];
    }
    return EW_STATUS_OK;
}
ew_status ew_context_set_address(ew_context *c, const char *name, void *address)
{
    const int i = mock_find(name);

    if (i < 0)
        return EW_STATUS_NOT_FOUND;
    c->address[i] = address;
    return EW_STATUS_OK;
}

static void mock_logits(float *out, const int32_t *ids, size_t n)
{
    const uint64_t h = ew_hash64(ids, n * sizeof(*ids), 0);

    for (uint64_t v = 0; v < MOCK_V; v++)
        out[v] = (float)(ew_hash64(&v, sizeof(v), h) % 10000) / 1000.0f;
}

/* One batch row of a step: tokens into the cache, logits of the selected ones from what the cache
 * holds. */
static ew_status mock_row(ew_context *c, int64_t b, int64_t s)
{
    const float *embeds = (const float *)c->address[0] + b * s * MOCK_H;
    float *kv = (float *)c->address[1] + b * 2 * MOCK_CAP * 4;
    const int32_t start = ((const int32_t *)c->address[4])[b];
    const int32_t length = ((const int32_t *)c->address[3])[b];
    const int32_t n = s == 1 ? length - start : length;
    const int64_t n_select = c->dims[5][1];
    int32_t ids[MOCK_CAP];

    if (n < 1 || n > s || start < 0 || start + n > MOCK_CAP || (s == 1 && n != 1))
        return EW_STATUS_INVALID_ARG;
    for (int32_t i = 0; i < n; i++)
        kv[(start + i) * 4] = embeds[i * MOCK_H];
    for (int32_t i = 0; i < start + n; i++)
        ids[i] = (int32_t)kv[i * 4];
    for (int64_t j = 0; j < n_select; j++) {
        const int64_t at = ((const int64_t *)c->address[5])[b * n_select + j];

        if (at < 0 || at >= s)
            return EW_STATUS_INVALID_ARG;
        mock_logits((float *)c->address[7] + (b * n_select + j) * MOCK_V, ids,
                    (size_t)(start + at + 1));
    }
    return EW_STATUS_OK;
}

ew_status ew_context_run(ew_context *c)
{
    const int64_t rows = c->dims[0][0], s = c->dims[0][1];

    mock_runs++;
    if (mock_on_run)
        mock_on_run();
    if (mock_fail_at > 0 && --mock_fail_at == 0) {
        (void)snprintf(c->error, sizeof(c->error), "the mock was told to fail");
        return EW_STATUS_DEVICE;
    }
    if (c->address[1] != c->address[8] || c->dims[1][0] != rows || c->dims[3][0] != rows ||
        c->dims[4][0] != rows || c->dims[5][0] != rows || (c->profile == 1) != (s == 1))
        return EW_STATUS_INVALID_ARG;
    if ((uint64_t)rows > mock_max_rows)
        mock_max_rows = (uint64_t)rows;
    for (int64_t b = 0; b < rows; b++) {
        const ew_status st = mock_row(c, b, s);

        if (st)
            return st;
    }
    return EW_STATUS_OK;
}
ew_status ew_context_run_ahead(ew_context *c) /* as on a CPU */
{
    return ew_context_run(c);
}
ew_status ew_context_settle(ew_context *c)
{
    (void)c;
    return EW_STATUS_OK;
}
ew_status ew_context_set_tokens(ew_context *c, const char *name, const int32_t *ids, float scale)
{
    (void)c;
    (void)name;
    (void)ids;
    (void)scale;
    return EW_STATUS_UNSUPPORTED;
}

ew_status ew_context_set_argmax(ew_context *c, const char *name, int32_t *tokens)
{
    (void)c;
    (void)name;
    (void)tokens;
    return EW_STATUS_UNSUPPORTED;
}

ew_status ew_context_get_output(ew_context *c, const char *name, const void **data, ew_dtype *dtype,
                                int64_t dims[8], uint32_t *n_dims)
{
    (void)c, (void)name, (void)data, (void)dtype, (void)dims, (void)n_dims;
    return EW_STATUS_UNSUPPORTED;
}

ew_status ew_context_set_draw(ew_context *c, const char *name, const ew_draw *draws,
                              int32_t *tokens)
{
    (void)c;
    (void)name;
    (void)draws;
    (void)tokens;
    return EW_STATUS_UNSUPPORTED;
}

ew_status ew_context_set_device_address(ew_context *c, const char *name, void *address)
{
    return ew_context_set_address(c, name, address);
}

void ew_context_get_stats(const ew_context *c, ew_context_stats *out)
{
    (void)c;
    *out = (ew_context_stats){ .n_threads = 1 };
}
ew_status ew_context_get_step(const ew_context *c, uint32_t i, ew_step_profile *out)
{
    (void)c, (void)i, (void)out;
    return EW_STATUS_NOT_FOUND;
}
ew_status ew_trace_start(uint64_t max_events, ew_error *err)
{
    (void)max_events;
    return ew_fail(err, EW_STATUS_UNSUPPORTED, "no trace");
}
ew_status ew_trace_write(const char *path, ew_error *err)
{
    (void)path;
    return ew_fail(err, EW_STATUS_UNSUPPORTED, "no trace");
}
bool ew_memory_get(uint32_t i, const char **name, uint64_t *bytes)
{
    (void)i, (void)name, (void)bytes;
    return false;
}

#endif
