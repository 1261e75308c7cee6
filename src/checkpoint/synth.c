/* checkpoint/synth.c - random checkpoints of any supported shape, for benchmarks: the tensor list
 * of a spec, a fast generator, shards. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/half.h"
#include "base/json.h"
#include "base/size.h"
#include "checkpoint/decoder.h"
#include "edgewise/runtime.h"
#include "os/os.h"

#define SHARD_BYTES ((uint64_t)4 << 30)
#define TABLE_BITS  12
#define TABLE_SIZE  (1u << TABLE_BITS)
#define CHUNK_ELEMS ((size_t)1 << 18)
#define NAME_CAP    160
#define MAX_SHARDS  4096
#define MAX_CONFIG  ((size_t)16 << 20)

struct entry {
    char name[NAME_CAP];
    struct ew_type type;
    float mean, std;
    uint32_t shard;
};

struct synth {
    const struct ew_decoder_spec *s;
    ew_dtype dtype;
    float std;
    struct entry *entries;
    size_t n, cap;
    uint64_t total_bytes, done_bytes;
    uint32_t n_shards;
    const char *dir;
    const ew_progress *progress;
    ew_error *err;
};

/* ---- the tensors of a spec ---- */

static ew_status add(struct synth *y, const char *name, int n_dims, int64_t d0, int64_t d1,
                     float mean, float std)
{
    const int64_t dims[2] = { d0, d1 };
    struct entry *e;

    if (y->n == y->cap) {
        const size_t cap = y->cap ? y->cap * 2 : 512;
        void *p = ew_mem_resize(EW_MEM_CHECKPOINT, y->entries, cap, sizeof(*y->entries));

        if (!p)
            return ew_fail(y->err, EW_STATUS_NO_MEMORY, "no memory for %zu tensors", cap);
        y->entries = p;
        y->cap = cap;
    }
    e = &y->entries[y->n++];
    memset(e, 0, sizeof(*e));
    snprintf(e->name, sizeof(e->name), "%s", name);
    e->type = ew_type_make(y->dtype, n_dims, dims);
    e->mean = mean;
    e->std = std;
    return EW_STATUS_OK;
}

static ew_status add_layer(struct synth *y, int64_t layer, const char *tail, int n_dims, int64_t d0,
                           int64_t d1, float mean, float std)
{
    char name[NAME_CAP];

    snprintf(name, sizeof(name), "model.layers.%" PRId64 ".%s", layer, tail);
    return add(y, name, n_dims, d0, d1, mean, std);
}

static ew_status add_norm(struct synth *y, int64_t layer, const char *tail, int64_t n)
{
    return add_layer(y, layer, tail, 1, n, 0, y->s->norm_plus_one ? 0.0f : 1.0f, 0.05f);
}

/* `tail` without ".weight". */
static ew_status add_projection(struct synth *y, int64_t layer, const char *tail, int64_t n,
                                int64_t k, bool bias)
{
    char name[112];

    snprintf(name, sizeof(name), "%s.weight", tail);
    EW_TRY(add_layer(y, layer, name, 2, n, k, 0.0f, y->std));
    if (!bias)
        return EW_STATUS_OK;
    snprintf(name, sizeof(name), "%s.bias", tail);
    return add_layer(y, layer, name, 1, n, 0, 0.0f, y->std);
}

static ew_status add_attention(struct synth *y, int64_t i)
{
    const struct ew_decoder_spec *s = y->s;
    const int64_t nq = s->n_heads * s->head_dim, nkv = s->n_kv_heads * s->head_dim;
    const bool full = s->qk_norm == EW_QK_NORM_FULL;

    if (s->fused_qkv) {
        EW_TRY(add_projection(y, i, "self_attn.qkv_proj", nq + 2 * nkv, s->hidden, false));
    } else {
        EW_TRY(add_projection(y, i, "self_attn.q_proj", nq, s->hidden, s->qkv_bias));
        EW_TRY(add_projection(y, i, "self_attn.k_proj", nkv, s->hidden, s->qkv_bias));
        EW_TRY(add_projection(y, i, "self_attn.v_proj", nkv, s->hidden, s->qkv_bias));
    }
    if (s->qk_norm != EW_QK_NORM_NONE) {
        EW_TRY(add_norm(y, i, "self_attn.q_norm.weight", full ? nq : s->head_dim));
        EW_TRY(add_norm(y, i, "self_attn.k_norm.weight", full ? nkv : s->head_dim));
    }
    return add_projection(y, i, "self_attn.o_proj", s->hidden, nq, s->o_bias);
}

static ew_status add_experts(struct synth *y, int64_t i)
{
    const struct ew_decoder_spec *s = y->s;
    const bool mixtral = strcmp(s->family, "mixtral") == 0;
    const char *block = mixtral ? "block_sparse_moe" : "mlp";
    char tail[96];

    snprintf(tail, sizeof(tail), "%s.gate", block);
    EW_TRY(add_projection(y, i, tail, s->n_experts, s->hidden, false));
    for (int64_t e = 0; e < s->n_experts; e++) {
        const char *const names[] = { mixtral ? "w1" : "gate_proj", mixtral ? "w3" : "up_proj",
                                      mixtral ? "w2" : "down_proj" };

        for (int p = 0; p < 3; p++) {
            snprintf(tail, sizeof(tail), "%s.experts.%" PRId64 ".%s", block, e, names[p]);
            EW_TRY(add_projection(y, i, tail, p == 2 ? s->hidden : s->moe_inter,
                                  p == 2 ? s->moe_inter : s->hidden, false));
        }
    }
    return EW_STATUS_OK;
}

static ew_status add_mlp(struct synth *y, int64_t i)
{
    const struct ew_decoder_spec *s = y->s;

    if (s->layers[i].moe)
        return add_experts(y, i);
    if (s->fused_gate_up) {
        EW_TRY(add_projection(y, i, "mlp.gate_up_proj", 2 * s->inter, s->hidden, false));
    } else {
        EW_TRY(add_projection(y, i, "mlp.gate_proj", s->inter, s->hidden, s->mlp_bias));
        EW_TRY(add_projection(y, i, "mlp.up_proj", s->inter, s->hidden, s->mlp_bias));
    }
    return add_projection(y, i, "mlp.down_proj", s->hidden, s->inter, s->mlp_bias);
}

static ew_status list_tensors(struct synth *y)
{
    const struct ew_decoder_spec *s = y->s;

    EW_TRY(add(y, "model.embed_tokens.weight", 2, s->vocab, s->hidden, 0.0f, y->std));
    for (int64_t i = 0; i < s->n_layers; i++) {
        if (s->norm_place != EW_NORM_POST)
            EW_TRY(add_norm(y, i, "input_layernorm.weight", s->hidden));
        EW_TRY(add_attention(y, i));
        EW_TRY(add_norm(y, i, "post_attention_layernorm.weight", s->hidden));
        if (s->norm_place == EW_NORM_SANDWICH)
            EW_TRY(add_norm(y, i, "pre_feedforward_layernorm.weight", s->hidden));
        EW_TRY(add_mlp(y, i));
        if (s->norm_place != EW_NORM_PRE)
            EW_TRY(add_norm(y, i, "post_feedforward_layernorm.weight", s->hidden));
    }
    EW_TRY(add(y, "model.norm.weight", 1, s->hidden, 0, s->norm_plus_one ? 0.0f : 1.0f, 0.05f));
    if (s->tied_head)
        return EW_STATUS_OK;
    return add(y, "lm_head.weight", 2, s->vocab, s->hidden, 0.0f, y->std);
}

static ew_status assign_shards(struct synth *y)
{
    uint64_t in_shard = 0;

    y->n_shards = 1;
    for (size_t i = 0; i < y->n; i++) {
        size_t bytes;

        if (!ew_type_bytes(&y->entries[i].type, &bytes) || bytes > (uint64_t)1 << 42)
            return ew_fail(y->err, EW_STATUS_LIMIT, "tensor '%s' is too large", y->entries[i].name);
        if (in_shard && in_shard + bytes > SHARD_BYTES) {
            y->n_shards++;
            in_shard = 0;
        }
        in_shard += bytes;
        y->total_bytes += bytes;
        y->entries[i].shard = y->n_shards - 1;
    }
    if (y->n_shards > MAX_SHARDS)
        return ew_fail(y->err, EW_STATUS_LIMIT, "%u shards, at most %d", y->n_shards, MAX_SHARDS);
    return EW_STATUS_OK;
}

/* ---- values ---- */

/* Quantile (i + 1/2) / TABLE_SIZE of the standard normal. */
static double normal_quantile(unsigned i)
{
    const double p = ((double)i + 0.5) / TABLE_SIZE;
    double lo = -8, hi = 8;

    for (int step = 0; step < 50; step++) {
        const double mid = 0.5 * (lo + hi);

        if (0.5 * erfc(-mid / sqrt(2.0)) < p)
            lo = mid;
        else
            hi = mid;
    }
    return 0.5 * (lo + hi);
}

static uint64_t next_random(uint64_t *state) /* splitmix64 */
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static void fill16(uint16_t *out, size_t n, const uint16_t *table, uint64_t *state)
{
    for (size_t i = 0; i < n; i += 5) {
        uint64_t r = next_random(state);

        for (size_t k = i; k < i + 5 && k < n; k++, r >>= TABLE_BITS)
            out[k] = table[r & (TABLE_SIZE - 1)];
    }
}

static void fill32(float *out, size_t n, const float *table, uint64_t *state)
{
    for (size_t i = 0; i < n; i += 5) {
        uint64_t r = next_random(state);

        for (size_t k = i; k < i + 5 && k < n; k++, r >>= TABLE_BITS)
            out[k] = table[r & (TABLE_SIZE - 1)];
    }
}

struct tables {
    float unit[TABLE_SIZE], f32[TABLE_SIZE];
    uint16_t f16[TABLE_SIZE];
    float chunk[CHUNK_ELEMS]; /* holds CHUNK_ELEMS of either width */
};

static ew_status write_tensor(struct synth *y, struct ew_st_writer *w, const struct entry *e,
                              struct tables *t, uint64_t seed)
{
    const size_t width = ew_dtype_bits(y->dtype) / 8;
    uint64_t state = seed;
    size_t left;

    for (unsigned i = 0; i < TABLE_SIZE; i++)
        t->f32[i] = e->mean + e->std * t->unit[i];
    if (width == 2)
        ew_convert_floats(t->f16, y->dtype, t->f32, EW_DTYPE_F32, TABLE_SIZE);
    if (!ew_type_count(&e->type, &left))
        return ew_fail(y->err, EW_STATUS_LIMIT, "tensor '%s' is too large", e->name);
    while (left) {
        const size_t n = left < CHUNK_ELEMS ? left : CHUNK_ELEMS;

        if (width == 2)
            fill16((uint16_t *)(void *)t->chunk, n, t->f16, &state);
        else
            fill32(t->chunk, n, t->f32, &state);
        EW_TRY(ew_st_writer_write(w, t->chunk, n * width, y->err));
        y->done_bytes += n * width;
        left -= n;
        if (y->progress && y->progress->step &&
            !y->progress->step(y->progress->ctx, "write weights", y->done_bytes, y->total_bytes))
            return ew_fail(y->err, EW_STATUS_CANCELLED, "%s: cancelled", y->dir);
    }
    return EW_STATUS_OK;
}

/* ---- files ---- */

static void shard_name(const struct synth *y, uint32_t i, char *out, size_t cap)
{
    if (y->n_shards == 1)
        snprintf(out, cap, "model.safetensors");
    else
        snprintf(out, cap, "model-%05u-of-%05u.safetensors", i + 1, y->n_shards);
}

static ew_status open_shard(struct synth *y, uint32_t i, struct ew_st_writer **out)
{
    char name[64], path[4096];

    shard_name(y, i, name, sizeof(name));
    if (!ew_path_join(path, sizeof(path), y->dir, name))
        return ew_fail(y->err, EW_STATUS_LIMIT, "%s: the path is too long", y->dir);
    EW_TRY(ew_st_writer_create(path, out, y->err));
    for (size_t e = 0; e < y->n; e++)
        if (y->entries[e].shard == i)
            EW_TRY(ew_st_writer_declare(*out, y->entries[e].name, &y->entries[e].type, y->err));
    return ew_st_writer_begin(*out, y->err);
}

static ew_status write_index(struct synth *y)
{
    json_t *map = json_object(), *index;
    char name[64], path[4096], *text;
    ew_status s;

    for (size_t e = 0; e < y->n; e++) {
        shard_name(y, y->entries[e].shard, name, sizeof(name));
        json_object_set_new(map, y->entries[e].name, json_string(name));
    }
    index = json_pack("{s:{s:I}, s:o}", "metadata", "total_size", (json_int_t)y->total_bytes,
                      "weight_map", map);
    text = index ? json_dumps(index, JSON_INDENT(1)) : NULL;
    if (!text)
        s = ew_fail(y->err, EW_STATUS_NO_MEMORY, "%s: no memory for the index", y->dir);
    else if (!ew_path_join(path, sizeof(path), y->dir, "model.safetensors.index.json"))
        s = ew_fail(y->err, EW_STATUS_LIMIT, "%s: the path is too long", y->dir);
    else
        s = ew_file_write(path, text, strlen(text), y->err);
    free(text); /* jansson's own */
    json_decref(index);
    return s;
}

/* Every shard stays under its temporary name until all are complete. */
static ew_status write_shards(struct synth *y, struct ew_st_writer **w, struct tables *t,
                              uint64_t seed)
{
    ew_status s = EW_STATUS_OK;

    for (unsigned i = 0; i < TABLE_SIZE; i++)
        t->unit[i] = (float)normal_quantile(i);
    for (uint32_t i = 0; !s && i < y->n_shards; i++)
        s = open_shard(y, i, &w[i]);
    for (size_t e = 0; !s && e < y->n; e++) {
        uint64_t state = seed + e;

        s = write_tensor(y, w[y->entries[e].shard], &y->entries[e], t, next_random(&state));
    }
    for (uint32_t i = 0; i < y->n_shards; i++) {
        if (s)
            ew_st_writer_abort(w[i]);
        else
            s = ew_st_writer_commit(w[i], y->err);
    }
    if (!s && y->n_shards > 1)
        s = write_index(y);
    return s;
}

static ew_status write_model(struct synth *y, uint64_t seed)
{
    struct ew_st_writer **w;
    struct tables *t;
    ew_status s;

    EW_TRY(list_tensors(y));
    EW_TRY(assign_shards(y));
    w = ew_mem_calloc(EW_MEM_CHECKPOINT, y->n_shards, sizeof(struct ew_st_writer *));
    t = ew_mem_alloc(EW_MEM_CHECKPOINT, sizeof(*t));
    s = w && t ? write_shards(y, w, t, seed)
               : ew_fail(y->err, EW_STATUS_NO_MEMORY, "no memory for a generator");
    ew_mem_free(t);
    ew_mem_free(w);
    return s;
}

/* ---- */

static ew_status read_dtype(const struct ew_config *c, ew_dtype *out, ew_error *err)
{
    static const struct {
        const char *name;
        ew_dtype dtype;
    } names[] = { { "bfloat16", EW_DTYPE_BF16 },
                  { "float16", EW_DTYPE_F16 },
                  { "float32", EW_DTYPE_F32 } };
    const char *name;

    EW_TRY(ew_json_get_str_or(c->root, "torch_dtype", c->what, "bfloat16", &name, err));
    EW_TRY(ew_json_get_str_or(c->root, "dtype", c->what, name, &name, err));
    for (size_t i = 0; i < EW_COUNT(names); i++) {
        if (strcmp(names[i].name, name) == 0) {
            *out = names[i].dtype;
            return EW_STATUS_OK;
        }
    }
    return ew_fail(err, EW_STATUS_UNSUPPORTED, "%s: \"dtype\": \"%s\" is not supported", c->what,
                   name);
}

static ew_status read_std(const struct ew_config *c, float *out, ew_error *err)
{
    double std;

    EW_TRY(ew_json_get_f64_or(c->root, "initializer_range", c->what, 0.02, &std, err));
    if (!(std > 0 && std <= 1e3))
        return ew_fail(err, EW_STATUS_INVALID_ARG, "%s: \"initializer_range\" is %g", c->what, std);
    *out = (float)std;
    return EW_STATUS_OK;
}

static ew_status prepare_dir(const char *config_path, const char *dir, ew_error *err)
{
    char path[4096], *text;
    size_t len;
    ew_status s;

    EW_TRY(ew_dir_make(dir, err));
    if (!ew_path_join(path, sizeof(path), dir, "model.safetensors.index.json"))
        return ew_fail(err, EW_STATUS_LIMIT, "%s: the path is too long", dir);
    if (ew_path_is_file(path)) /* it would outlive what it lists */
        return ew_fail(err, EW_STATUS_INVALID_ARG, "%s: a sharded checkpoint is there already",
                       dir);
    if (!ew_path_join(path, sizeof(path), dir, "config.json"))
        return ew_fail(err, EW_STATUS_LIMIT, "%s: the path is too long", dir);
    EW_TRY(ew_file_read(config_path, MAX_CONFIG, &text, &len, err));
    s = ew_file_write(path, text, len, err);
    ew_mem_free(text);
    return s;
}

ew_status ew_checkpoint_synth(const char *config_path, const char *dir, uint64_t seed,
                              const ew_progress *progress, ew_error *err)
{
    struct synth y = { .dir = dir, .progress = progress, .err = err };
    struct ew_decoder_spec spec;
    struct ew_config config;
    ew_status s;

    if (!config_path || !dir)
        return ew_fail(err, EW_STATUS_INVALID_ARG, "ew_checkpoint_synth: NULL argument");
    EW_TRY(ew_config_load_file(config_path, &config, err));
    s = ew_decoder_spec_init(&spec, &config, NULL, err);
    if (!s) {
        y.s = &spec;
        s = read_dtype(&config, &y.dtype, err);
        if (!s)
            s = read_std(&config, &y.std, err);
        if (!s)
            s = prepare_dir(config_path, dir, err);
        if (!s)
            s = write_model(&y, seed);
        ew_mem_free(y.entries);
        ew_decoder_spec_deinit(&spec);
    }
    ew_config_deinit(&config);
    return s;
}
