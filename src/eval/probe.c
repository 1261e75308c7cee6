/* eval/probe.c - an engine of a marked graph and one buffer for each of its tensors. */
#include "eval/probe.h"

#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/mem.h"
#include "base/size.h"
#include "eval/probe_graph.h"
#include "os/os.h"

static int find_tensor(const struct ew_probe *p, const char *name)
{
    for (uint32_t i = 0; i < p->n_tensors; i++)
        if (strcmp(p->tensors[i].name, name) == 0)
            return (int)i;
    return -1;
}

static int find_numbered(const struct ew_probe *p, const char *what, uint32_t i)
{
    char name[64];

    (void)snprintf(name, sizeof(name), "%s_%u", what, i);
    return find_tensor(p, name);
}

/* ---- building ---- */

static ew_status build_engine(struct ew_probe *p, const char *dir, const ew_build_opts *build,
                              ew_error *err)
{
    ew_build_opts opts = EW_BUILD_OPTS_INIT;
    ew_checkpoint_opts read = EW_CHECKPOINT_OPTS_INIT;
    const ew_engine_opts engine = { sizeof(engine), build ? build->n_threads : 0, NULL,
                                    build ? build->device : NULL, NULL };
    ew_graph *g;
    size_t n_bytes;
    ew_status st;

    if (build)
        opts = *build;
    opts.flags |= EW_BUILD_NO_FUSION | EW_BUILD_NO_TIMING | EW_BUILD_ALL_LOGITS;
    opts.max_batch = 1;
    opts.max_input_len = p->window;
    opts.max_kv_len = p->window;
    opts.profiles = NULL;
    opts.n_profiles = 0;
    read.activations = opts.activations;
    EW_TRY(ew_graph_from_checkpoint(dir, &read, &g, err));
    st = ew_probe_mark(g, p->cut, &p->sites, &p->n_sites, &p->n_stations, err);
    if (!st)
        st = ew_build_memory(g, &opts, &p->plan, &n_bytes, err);
    ew_graph_destroy(g);
    if (!st)
        st = ew_engine_load(p->plan, n_bytes, &engine, &p->engine, err);
    if (!st)
        st = ew_llm_config_parse(ew_engine_llm_config(p->engine), dir, &p->config, err);
    return st ? st : ew_context_create(p->engine, NULL, &p->ctx, err);
}

/* ---- buffers ---- */

static bool has_prefix(const char *s, const char *prefix)
{
    return strncmp(s, prefix, strlen(prefix)) == 0;
}

static int token_axis(const char *name, bool is_input)
{
    static const char *const inputs[] = { "inputs_embeds", "last_token_ids", "given_",
                                          "alone_in_" };

    for (size_t i = 0; is_input && i < EW_COUNT(inputs); i++)
        if (has_prefix(name, inputs[i]))
            return 1;
    return -1;
}

static const struct ew_rope_spec *rope_of(const struct ew_probe *p, const char *name,
                                          const char **own)
{
    for (uint32_t i = 0; i < p->config.n_rope; i++)
        if (strcmp(p->config.rope_input[i], name) == 0) {
            *own = p->config.rope_input[i];
            return &p->config.rope[i];
        }
    return NULL;
}

static ew_status make_rope(struct ew_probe *p, ew_error *err)
{
    struct ew_rope_input sets[EW_LLM_MAX_ROPE] = { 0 };
    uint32_t n = 0;

    for (uint32_t i = 0; i < p->n_tensors; i++) {
        const ew_tensor_info *const t = &p->tensors[i].info;
        const char *own;
        const struct ew_rope_spec *const spec = t->is_input ? rope_of(p, t->name, &own) : NULL;

        if (spec && n < EW_LLM_MAX_ROPE)
            sets[n++] = (struct ew_rope_input){ own, (uint32_t)t->max[2], *spec };
    }
    EW_TRY(ew_rope_tables_create(p->window, sets, n, 1, &p->rope, err));
    for (uint32_t i = 0; i < n; i++) {
        struct ew_probe_tensor *const t = &p->tensors[find_tensor(p, sets[i].name)];
        float *table;

        EW_TRY(ew_rope_tables_get(p->rope, i, ew_rope_regime(p->rope, p->window), &table, err));
        if (t->bytes != (size_t)p->window * sets[i].rd * sizeof(float))
            return ew_fail(err, EW_STATUS_MISMATCH, "engine input '%s' has %zu bytes", t->name,
                           t->bytes);
        memcpy(t->data, table, t->bytes);
    }
    return EW_STATUS_OK;
}

static ew_status make_buffer(struct ew_probe *p, struct ew_probe_tensor *t, ew_error *err)
{
    size_t bytes = ew_dtype_bits(t->info.dtype);

    if (t->info.alias_of) {
        const int of = find_tensor(p, t->info.alias_of);

        if (of < 0)
            return ew_fail(err, EW_STATUS_MISMATCH, "engine output '%s' shares no input", t->name);
        t->data = p->tensors[of].data;
        return EW_STATUS_OK;
    }
    for (uint32_t d = 0; d < t->info.n_dims; d++)
        if (t->info.max[d] < 0 || !ew_size_mul(bytes, (size_t)t->info.max[d], &bytes))
            return ew_fail(err, EW_STATUS_MISMATCH, "engine tensor '%s': dim %u is %lld", t->name,
                           d, (long long)t->info.max[d]);
    t->bytes = bytes / 8;
    t->data = ew_os_pages_alloc(t->bytes ? t->bytes : 1, false);
    return t->data ? EW_STATUS_OK
                   : ew_fail(err, EW_STATUS_NO_MEMORY, "no memory for '%s': %zu bytes", t->name,
                             t->bytes);
}

static ew_status make_buffers(struct ew_probe *p, ew_error *err)
{
    p->n_tensors = ew_engine_n_tensors(p->engine);
    p->tensors = ew_mem_calloc(EW_MEM_EVAL, p->n_tensors, sizeof(*p->tensors));
    if (!p->tensors)
        return ew_fail(err, EW_STATUS_NO_MEMORY, "tensors of an engine");
    for (uint32_t i = 0; i < p->n_tensors; i++) {
        struct ew_probe_tensor *const t = &p->tensors[i];

        EW_TRY(ew_engine_get_tensor(p->engine, i, 0, &t->info));
        t->name = t->info.name;
        t->token_axis = token_axis(t->name, t->info.is_input);
    }
    for (; p->n_ready < p->n_tensors; p->n_ready++)
        EW_TRY(make_buffer(p, &p->tensors[p->n_ready], err));
    return make_rope(p, err);
}

/* ---- finding what was marked ---- */

static ew_status expect(const struct ew_probe *p, int tensor, uint32_t width, const char *what,
                        ew_error *err)
{
    const ew_tensor_info *const t = tensor < 0 ? NULL : &p->tensors[tensor].info;

    if (!t || t->dtype != EW_DTYPE_F32 || t->n_dims != 3 || t->max[2] != (int64_t)width)
        return ew_fail(err, EW_STATUS_MISMATCH, "%s is not visible as f32 [.,.,%u] in the engine",
                       what, width);
    return EW_STATUS_OK;
}

static ew_status find_sites(struct ew_probe *p, ew_error *err)
{
    for (uint32_t i = 0; i < p->n_sites; i++) {
        struct ew_probe_site *const s = &p->sites[i];

        s->out = find_numbered(p, "site", i);
        EW_TRY(expect(p, s->out, s->width, s->name, err));
        s->in_seen = s->in_given = s->out_alone = -1;
        if (!s->alone)
            continue;
        s->in_seen = find_numbered(p, "seen", i);
        EW_TRY(expect(p, s->in_seen, s->input_width, s->name, err));
        if (!p->cut)
            continue;
        s->in_given = find_numbered(p, "alone_in", i);
        s->out_alone = find_numbered(p, "alone", i);
        EW_TRY(expect(p, s->in_given, s->input_width, s->name, err));
        EW_TRY(expect(p, s->out_alone, s->width, s->name, err));
    }
    return EW_STATUS_OK;
}

static ew_status find_stations(struct ew_probe *p, ew_error *err)
{
    p->stations = ew_mem_calloc(EW_MEM_EVAL, p->n_stations, sizeof(*p->stations));
    p->given = ew_mem_calloc(EW_MEM_EVAL, p->n_stations, sizeof(*p->given));
    if (!p->stations || !p->given)
        return ew_fail(err, EW_STATUS_NO_MEMORY, "layers of an engine");
    p->stations[0] = p->given[0] = find_tensor(p, "inputs_embeds");
    for (uint32_t i = 0; i < p->n_stations; i++) {
        if (i > 0)
            p->stations[i] = find_numbered(p, "station", i);
        if (i > 0 && p->cut)
            p->given[i] = find_numbered(p, "given", i);
        EW_TRY(expect(p, p->stations[i], p->hidden, "the residual stream", err));
        /* The last given station feeds the final norm. */
        if (p->cut)
            EW_TRY(expect(p, p->given[i], p->hidden, "the residual stream", err));
    }
    p->logits = find_tensor(p, "logits");
    return expect(p, p->logits, p->vocab, "logits", err);
}

ew_status ew_probe_open(struct ew_probe *p, const char *dir, const ew_build_opts *build,
                        uint32_t window, bool cut, ew_error *err)
{
    ew_status st;

    memset(p, 0, sizeof(*p));
    p->window = window;
    p->cut = cut;
    st = build_engine(p, dir, build, err);
    if (!st)
        st = make_buffers(p, err);
    p->hidden = p->config.hidden;
    p->vocab = p->config.vocab;
    p->n_layers = p->config.n_layers;
    if (!st)
        st = find_sites(p, err);
    if (!st)
        st = find_stations(p, err);
    if (!st && p->n_stations != 2 * p->n_layers + 1)
        st =
            ew_fail(err, EW_STATUS_UNSUPPORTED, "%s: %u places of the residual stream in %u layers",
                    dir, p->n_stations, p->n_layers);
    if (st)
        ew_probe_close(p);
    return st;
}

void ew_probe_close(struct ew_probe *p)
{
    ew_context_destroy(p->ctx);
    for (uint32_t i = 0; i < p->n_ready; i++)
        if (!p->tensors[i].info.alias_of)
            ew_os_pages_free(p->tensors[i].data, p->tensors[i].bytes ? p->tensors[i].bytes : 1);
    ew_rope_tables_destroy(p->rope);
    ew_engine_destroy(p->engine);
    ew_plan_free(p->plan);
    ew_mem_free(p->tensors);
    ew_mem_free(p->sites);
    ew_mem_free(p->stations);
    ew_mem_free(p->given);
    memset(p, 0, sizeof(*p));
}

/* ---- running ---- */

ew_status ew_probe_embed(struct ew_probe *p, const int32_t *ids, uint32_t n, ew_error *err)
{
    float *const to = ew_probe_data(p, p->stations[0]);

    for (uint32_t t = 0; t < n; t++) {
        float *const row = to + (size_t)t * p->hidden;
        const ew_status st = ew_engine_embed(p->engine, ids[t], row);

        if (st)
            return ew_fail(err, st, "token %d is not in the embedding of %u rows", ids[t],
                           p->vocab);
        for (uint32_t d = 0; d < p->hidden; d++)
            row[d] *= p->config.embedding_scale;
    }
    return EW_STATUS_OK;
}

static ew_status bind(struct ew_probe *p, const struct ew_probe_tensor *t, uint32_t n,
                      ew_error *err)
{
    ew_status st = EW_STATUS_OK;

    if (t->info.is_input) {
        int64_t dims[8];

        memcpy(dims, t->info.max, sizeof(dims));
        if (t->token_axis >= 0)
            dims[t->token_axis] = n;
        st = ew_context_set_shape(p->ctx, t->name, dims, t->info.n_dims);
    }
    if (!st)
        st = ew_context_set_address(p->ctx, t->name, t->data);
    return st ? ew_fail(err, st, "%s: %s", t->name, ew_context_error(p->ctx)) : EW_STATUS_OK;
}

ew_status ew_probe_run(struct ew_probe *p, uint32_t n, ew_error *err)
{
    const int lengths = find_tensor(p, "context_lengths"), ids = find_tensor(p, "last_token_ids");
    ew_status st;

    if (n < 2 || n > p->window || lengths < 0 || ids < 0)
        return ew_fail(err, EW_STATUS_INVALID_ARG, "a window of %u tokens, room for %u", n,
                       p->window);
    *(int32_t *)p->tensors[lengths].data = (int32_t)n;
    for (uint32_t t = 0; t < n; t++)
        ((int64_t *)p->tensors[ids].data)[t] = t;
    for (uint32_t i = 0; i < p->n_tensors; i++)
        EW_TRY(bind(p, &p->tensors[i], n, err));
    st = ew_context_run(p->ctx);
    return st ? ew_fail(err, st, "engine: %s", ew_context_error(p->ctx)) : EW_STATUS_OK;
}
