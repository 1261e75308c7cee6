/* build/profiles.c - min/opt/max of every input: given by the caller, or the two defaults of a
 * language model, derived from the names of the LLM contract. */
#include "build/build_impl.h"

#include "base/json.h"

struct span {
    int64_t min, opt, max;
};

struct llm {
    bool generation, tree;
    int64_t batch, input_len, kv_len, tree_len;
    bool all_logits;
};

static bool starts(const char *s, const char *prefix)
{
    return strncmp(s, prefix, strlen(prefix)) == 0;
}

/* What axis d of input `name` may be; false when the contract does not say. */
static bool llm_axis(const struct llm *m, const char *name, int d, struct span *s)
{
    const struct span batch = { 1, 1, m->batch }, one = { 1, 1, 1 };
    const int64_t half = (m->input_len + 1) / 2, tree = m->tree_len;
    const struct span seq = m->generation
                                ? (m->tree ? (struct span){ 1, (tree + 1) / 2, tree } : one)
                                : (struct span){ 1, half, m->input_len };

    if (starts(name, "inputs_embeds") || starts(name, "hidden_states_") ||
        starts(name, "deepstack_embeds_")) {
        *s = d == 0 ? batch : seq;
        return d < 2;
    }
    if (starts(name, "context_lengths")) {
        *s = batch;
        return d == 0;
    }
    if (starts(name, "kvcache_start_index")) {
        *s = m->generation ? batch : (struct span){ 0, 0, m->batch };
        return d == 0;
    }
    if (starts(name, "last_token_ids")) {
        *s = d == 0 ? batch : one;
        if (d == 1 && (m->all_logits || m->tree))
            *s =
                (struct span){ 1, 1, m->tree && !m->all_logits && seq.max > tree ? tree : seq.max };
        return d < 2;
    }
    if (starts(name, "past_key_values_")) {
        *s = d == 0 ? batch : (struct span){ m->kv_len, m->kv_len, m->kv_len };
        return d == 0 || d == 3;
    }
    if (starts(name, "rope_rotary_cos_sin")) {
        *s = d == 0 ? batch : (struct span){ m->kv_len, m->kv_len, m->kv_len };
        return d < 2;
    }
    if (starts(name, "attention_pos_id")) {
        *s = d == 0 ? batch : m->generation ? seq : one;
        return d < 2;
    }
    if (starts(name, "attention_mask")) {
        *s = d == 0 ? batch : m->generation ? seq : one;
        if (d == 2 && m->generation)
            *s = (struct span){ 1, (seq.opt + 31) / 32, (seq.max + 31) / 32 };
        return d < 3;
    }
    return false;
}

static const struct ew_value *graph_input(const struct ew_build *b, uint32_t i)
{
    return b->graph->inputs[i];
}

static ew_status dynamic_axis(struct ew_build *b, uint32_t i, int d)
{
    char text[64];

    ew_dim_text(b->graph->syms, graph_input(b, i)->type.dim[d], text, sizeof(text));
    return ew_fail(b->err, EW_STATUS_INVALID_ARG,
                   "input '%s' axis %d is dynamic ('%s'): give a profile for it",
                   graph_input(b, i)->name, d, text);
}

/* An axis that the contract does not name takes the span of the same symbol elsewhere. */
static bool by_symbol(const struct ew_build *b, const struct llm *m, int64_t symbol, struct span *s)
{
    for (uint32_t i = 0; i < b->plan.n_inputs; i++) {
        const struct ew_value *v = graph_input(b, i);

        for (int d = 0; d < v->type.n_dims; d++)
            if (v->type.dim[d] == symbol && llm_axis(m, v->name, d, s))
                return true;
    }
    return false;
}

static ew_status llm_profile(struct ew_build *b, const struct llm *m, struct ew_plan_profile *pr)
{
    for (uint32_t i = 0; i < b->plan.n_inputs; i++) {
        const struct ew_value *v = graph_input(b, i);

        for (int d = 0; d < v->type.n_dims; d++) {
            struct span s = { v->type.dim[d], v->type.dim[d], v->type.dim[d] };

            if (v->type.dim[d] < 0 && !llm_axis(m, v->name, d, &s) &&
                !by_symbol(b, m, v->type.dim[d], &s))
                return dynamic_axis(b, i, d);
            pr->inputs[i].min[d] = s.min;
            pr->inputs[i].opt[d] = s.opt;
            pr->inputs[i].max[d] = s.max;
        }
    }
    return EW_STATUS_OK;
}

static ew_status given_profile(struct ew_build *b, const ew_profile *g, struct ew_plan_profile *pr)
{
    for (uint32_t i = 0; i < b->plan.n_inputs; i++) {
        const struct ew_value *v = graph_input(b, i);
        const ew_profile_input *in = NULL;

        for (uint32_t k = 0; g && k < g->n_inputs; k++)
            if (strcmp(g->inputs[k].name, v->name) == 0)
                in = &g->inputs[k];
        if (in && in->n_dims != (uint32_t)v->type.n_dims)
            return ew_fail(b->err, EW_STATUS_INVALID_ARG,
                           "profile '%s': input '%s' has %u dims, the graph says %d", g->name,
                           v->name, in->n_dims, v->type.n_dims);
        for (int d = 0; d < v->type.n_dims; d++) {
            if (!in && v->type.dim[d] < 0)
                return dynamic_axis(b, i, d);
            pr->inputs[i].min[d] = in ? in->min[d] : v->type.dim[d];
            pr->inputs[i].opt[d] = in ? in->opt[d] : v->type.dim[d];
            pr->inputs[i].max[d] = in ? in->max[d] : v->type.dim[d];
        }
    }
    return EW_STATUS_OK;
}

static ew_status llm_sizes(struct ew_build *b, struct llm *m)
{
    int64_t longest = 0;

    m->batch = b->opts.max_batch ? b->opts.max_batch : 8;
    m->input_len = b->opts.max_input_len ? b->opts.max_input_len : 512;
    m->all_logits = (b->opts.flags & EW_BUILD_ALL_LOGITS) != 0;
    for (uint32_t i = 0; i < b->plan.n_inputs; i++) {
        const struct ew_value *v = graph_input(b, i);

        m->tree = m->tree || strcmp(v->name, "attention_pos_id") == 0;
        if (starts(v->name, "past_key_values_") && v->type.n_dims == 5 && v->type.dim[3] >= 0)
            m->kv_len = v->type.dim[3]; /* the graph fixes it */
    }
    if (b->plan.llm_config) {
        json_t *json;

        EW_TRY(ew_json_parse(b->plan.llm_config, strlen(b->plan.llm_config), "model config", &json,
                             b->err));
        ew_status st = ew_json_get_i64_or(json, "max_position_embeddings", "model config", 0,
                                          &longest, b->err);
        json_decref(json);
        EW_TRY(st);
    }
    if (!m->kv_len)
        m->kv_len = b->opts.max_kv_len              ? b->opts.max_kv_len
                    : longest > 0 && longest < 4096 ? longest
                                                    : 4096;
    if (b->opts.max_input_len && m->input_len > m->kv_len)
        return ew_fail(b->err, EW_STATUS_INVALID_ARG,
                       "max_input_len is %lld, a row holds %lld tokens (max_kv_len)",
                       (long long)m->input_len, (long long)m->kv_len);
    if (m->input_len > m->kv_len)
        m->input_len = m->kv_len;
    m->tree_len = EW_TREE_MAX < m->kv_len ? EW_TREE_MAX : m->kv_len;
    return EW_STATUS_OK;
}

static bool is_llm(const struct ew_build *b)
{
    bool embeds = false, lengths = false;

    for (uint32_t i = 0; i < b->plan.n_inputs; i++) {
        embeds = embeds || strcmp(graph_input(b, i)->name, "inputs_embeds") == 0;
        lengths = lengths || strcmp(graph_input(b, i)->name, "context_lengths") == 0;
    }
    return embeds && lengths;
}

static ew_status profile_tables(struct ew_build *b, uint32_t n)
{
    struct ew_plan *p = &b->plan;

    p->n_profiles = n;
    p->profiles = ew_arena_new(&p->arena, struct ew_plan_profile, n);
    for (uint32_t i = 0; p->profiles && i < n; i++) {
        struct ew_plan_profile *pr = &p->profiles[i];

        pr->inputs = ew_arena_new(&p->arena, struct ew_plan_range, p->n_inputs + 1u);
        pr->off = ew_arena_new(&p->arena, uint64_t, p->n_tensors + 1u);
        pr->bytes = ew_arena_new(&p->arena, uint64_t, p->n_tensors + 1u);
        pr->name = "default";
        if (!pr->inputs || !pr->off || !pr->bytes)
            return ew_fail(b->err, EW_STATUS_NO_MEMORY, "profiles");
    }
    return p->profiles ? EW_STATUS_OK : ew_fail(b->err, EW_STATUS_NO_MEMORY, "profiles");
}

ew_status ew_build_profiles(struct ew_build *b)
{
    struct ew_plan *p = &b->plan;
    struct llm m = { 0 };

    if (b->opts.n_profiles > 64)
        return ew_fail(b->err, EW_STATUS_LIMIT, "%u profiles; an engine has up to 64",
                       b->opts.n_profiles);
    if (b->opts.n_profiles) {
        EW_TRY(profile_tables(b, b->opts.n_profiles));
        for (uint32_t i = 0; i < p->n_profiles; i++) {
            p->profiles[i].name = ew_arena_strdup(&p->arena, b->opts.profiles[i].name);
            if (!p->profiles[i].name)
                return ew_fail(b->err, EW_STATUS_NO_MEMORY, "profiles");
            EW_TRY(given_profile(b, &b->opts.profiles[i], &p->profiles[i]));
        }
    } else if (is_llm(b)) {
        EW_TRY(profile_tables(b, 2));
        EW_TRY(llm_sizes(b, &m));
        p->profiles[0].name = "context";
        EW_TRY(llm_profile(b, &m, &p->profiles[0]));
        m.generation = true;
        p->profiles[1].name = "generation";
        EW_TRY(llm_profile(b, &m, &p->profiles[1]));
    } else {
        EW_TRY(profile_tables(b, 1));
        EW_TRY(given_profile(b, NULL, &p->profiles[0]));
    }
    return ew_plan_check_profiles(p, b->err);
}
