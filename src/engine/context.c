/* engine/context.c - bindings and running: what is set, whether it may be run, and which launch
 * runs it. */
#include "engine/engine_impl.h"

#include "base/size.h"

static ew_status alloc_tables(struct ew_context *c, ew_error *err)
{
    const struct ew_engine *e = c->engine;
    const struct ew_plan *p = &e->plan;

    c->key_bytes = 8 + (size_t)p->n_inputs * (EW_MAX_DIMS + 1) * 8 + (size_t)p->n_outputs * 8;
    c->in = ew_mem_calloc(EW_MEM_CONTEXT, p->n_inputs + 1u, sizeof(*c->in));
    c->out = ew_mem_calloc(EW_MEM_CONTEXT, p->n_outputs + 1u, sizeof(*c->out));
    c->held = ew_mem_calloc(EW_MEM_CONTEXT, p->n_outputs + 1u, sizeof(*c->held));
    c->in_type = ew_mem_calloc(EW_MEM_CONTEXT, p->n_inputs + 1u, sizeof(*c->in_type));
    c->slots =
        ew_mem_calloc(EW_MEM_CONTEXT, (size_t)p->n_nodes + p->n_outputs + 2u, sizeof(*c->slots));
    c->key = ew_mem_calloc(EW_MEM_CONTEXT, c->key_bytes, 1);
    c->block_bytes = e->block_bytes;
    if (e->device)
        EW_TRY(ew_context_device_open(c, err));
    else
        c->block = ew_os_pages_alloc(c->block_bytes ? c->block_bytes : 1, true);
    if (!c->in || !c->out || !c->held || !c->in_type || !c->slots || !c->key || !c->block)
        return ew_fail(err, EW_STATUS_NO_MEMORY, "context: activations of %zu bytes",
                       c->block_bytes);
    return EW_STATUS_OK;
}

ew_status ew_context_create(ew_engine *e, const ew_context_opts *opts, ew_context **out,
                            ew_error *err)
{
    struct ew_context *c = ew_mem_calloc(EW_MEM_CONTEXT, 1, sizeof(*c));
    ew_status st;

    *out = NULL;
    if (!c)
        return ew_fail(err, EW_STATUS_NO_MEMORY, "context object");
    if (e->only_looked_at) {
        ew_mem_free(c);
        return ew_fail(err, EW_STATUS_INVALID_ARG, "engine was opened for device 'none'");
    }
    c->engine = e;
    c->flags = opts ? opts->flags : 0;
    st = alloc_tables(c, err);
    if (!st)
        st = ew_pool_create(e->device ? 1 : e->n_threads, &c->pool, err);
    if (!st && (c->flags & EW_CONTEXT_PIN))
        st = ew_pool_pin(c->pool, err);
    if (!st)
        st = ew_context_set_profile(c, 0);
    if (st) {
        ew_context_destroy(c);
        return st;
    }
    *out = c;
    return EW_STATUS_OK;
}

void ew_context_forget(struct ew_context *c, const struct ew_launch *keep)
{
    size_t n = 0;

    if (c->dev) /* a run begun ahead uses what goes here; its failure is told by the next one */
        (void)ew_context_device_settle(c);
    if ((c->flags & EW_CONTEXT_NO_GRAPH) && c->last != keep)
        ew_launch_destroy(c, c->last);
    for (size_t i = 0; i < c->n_cached; i++)
        if (c->cache[i] == keep)
            c->cache[n++] = c->cache[i];
        else
            ew_launch_destroy(c, c->cache[i]);
    c->n_cached = n;
    if (c->last != keep)
        c->last = NULL;
    c->clean = false;
}

void ew_context_destroy(ew_context *c)
{
    if (!c)
        return;
    ew_pool_destroy(c->pool);
    ew_context_forget(c, NULL);
    if (c->dev)
        ew_context_device_close(c);
    for (uint32_t o = 0; c->held && o < c->engine->plan.n_outputs; o++)
        ew_mem_free_aligned(c->held[o].data);
    ew_heap_destroy(c->heap);
    if (c->block) /* of the host */
        ew_os_pages_free(c->block, c->block_bytes ? c->block_bytes : 1);
    ew_mem_free_aligned(c->shared);
    ew_mem_free_aligned(c->thread);
    ew_mem_free(c->in);
    ew_mem_free(c->out);
    ew_mem_free(c->held);
    ew_mem_free(c->in_type);
    ew_mem_free(c->slots);
    ew_mem_free(c->key);
    ew_mem_free(c->step_ns);
    ew_mem_free(c);
}

const char *ew_context_error(const ew_context *c)
{
    return c->err.text;
}

void ew_context_get_stats(const ew_context *c, ew_context_stats *out)
{
    struct ew_pool_stats pool;

    ew_pool_get_stats(c->pool, &pool);
    *out = c->stats;
    out->n_threads = ew_pool_threads(c->pool);
    out->n_barriers = pool.n_barriers;
    out->n_sleeps = pool.n_sleeps;
    out->n_stolen = pool.n_stolen;
    out->activation_bytes = c->block_bytes;
    out->scratch_bytes = c->shared_bytes + c->thread_stride * ew_pool_threads(c->pool);
}

static ew_status find(struct ew_context *c, const char *name, uint32_t *i)
{
    c->err = (ew_error){ 0 };
    if (!name || !ew_map_find(&c->engine->names, name, strlen(name), i))
        return ew_fail(&c->err, EW_STATUS_NOT_FOUND, "no input or output is named '%s'",
                       name ? name : "(null)");
    return EW_STATUS_OK;
}

ew_status ew_context_set_profile(ew_context *c, uint32_t profile)
{
    const struct ew_plan *p = &c->engine->plan;

    c->err.status = EW_STATUS_OK;
    if (profile >= p->n_profiles)
        return ew_fail(&c->err, EW_STATUS_INVALID_ARG, "profile %u; the engine has %u", profile,
                       p->n_profiles);
    if (profile != c->profile)
        c->clean = false;
    c->profile = profile;
    for (uint32_t i = 0; i < p->n_inputs; i++) { /* inputs of one possible shape need no setting */
        const struct ew_plan_range *r = &p->profiles[profile].inputs[i];
        const size_t n = (size_t)p->tensors[p->inputs[i]].n_dims * sizeof(int64_t);

        if (c->in[i].has_shape && !c->in[i].by_profile)
            continue;
        c->in[i].by_profile = memcmp(r->min, r->max, n) == 0;
        c->in[i].has_shape = c->in[i].by_profile;
        if (c->in[i].has_shape)
            memcpy(c->in[i].dim, r->min, n);
    }
    return EW_STATUS_OK;
}

ew_status ew_context_set_shape(ew_context *c, const char *name, const int64_t *dims,
                               uint32_t n_dims)
{
    const struct ew_plan *p = &c->engine->plan;
    uint32_t i;

    EW_TRY(find(c, name, &i));
    if (i >= p->n_inputs)
        return ew_fail(&c->err, EW_STATUS_INVALID_ARG,
                       "'%s' is an output: its shape follows from the inputs", name);
    if (n_dims != (uint32_t)p->tensors[p->inputs[i]].n_dims)
        return ew_fail(&c->err, EW_STATUS_INVALID_ARG, "input '%s': %u dims given, it has %d", name,
                       n_dims, p->tensors[p->inputs[i]].n_dims);
    c->in[i].by_profile = false;
    if (c->in[i].has_shape && memcmp(c->in[i].dim, dims, n_dims * sizeof(*dims)) == 0)
        return EW_STATUS_OK;
    memcpy(c->in[i].dim, dims, n_dims * sizeof(*dims));
    c->in[i].has_shape = true;
    c->clean = false;
    return EW_STATUS_OK;
}

static ew_status set_address(ew_context *c, const char *name, void *address, bool on_device)
{
    const struct ew_plan *p = &c->engine->plan;
    struct ew_binding *b;
    uint32_t i;

    EW_TRY(find(c, name, &i));
    b = i < p->n_inputs ? &c->in[i] : &c->out[i - p->n_inputs];
    if (i >= p->n_inputs && address) {
        ew_tensor_info info;

        (void)ew_engine_get_tensor(c->engine, i, c->profile, &info);
        for (uint32_t d = 0; d < info.n_dims; d++)
            if (info.max[d] < 0)
                return ew_fail(
                    &c->err, EW_STATUS_INVALID_ARG,
                    "output '%s': its size depends on data; read it with ew_context_get_output",
                    name);
    }
    c->clean = c->clean && b->address == address && b->on_device == on_device;
    c->clean = c->clean && !b->ids;
    b->address = address;
    b->on_device = on_device;
    b->ids = NULL;
    return EW_STATUS_OK;
}

ew_status ew_context_set_address(ew_context *c, const char *name, void *address)
{
    return set_address(c, name, address, false);
}

ew_status ew_context_set_device_address(ew_context *c, const char *name, void *address)
{
    return set_address(c, name, address, true);
}

ew_status ew_context_set_tokens(ew_context *c, const char *name, const int32_t *ids, float scale)
{
    const struct ew_plan *p = &c->engine->plan;
    struct ew_binding *b;
    uint32_t i;

    EW_TRY(find(c, name, &i));
    if (i >= p->n_inputs || p->tensors[p->inputs[i]].dtype != EW_DTYPE_F32 ||
        p->embedding == EW_PLAN_NONE)
        return ew_fail(&c->err, EW_STATUS_INVALID_ARG,
                       "'%s' is no f32 input, or the engine has no embedding table", name);
    if (!c->dev || !c->engine->backend->emit_embed)
        return ew_fail(&c->err, EW_STATUS_UNSUPPORTED, "a CPU's embeddings are the caller's");
    if (ids)
        EW_TRY(c->engine->backend->emit_embed(NULL, NULL, NULL, &p->tensors[p->embedding], NULL,
                                              NULL, 0, scale, &c->err));
    b = &c->in[i];
    if (ids && b->scale != scale) { /* captured lists hold the one that was set last */
        ew_context_forget(c, NULL);
        b->scale = scale;
    }
    c->clean = c->clean && b->ids == ids;
    b->ids = ids;
    return EW_STATUS_OK;
}

static void set_picks(struct ew_context *c, uint32_t o, const ew_draw *draws, int32_t *tokens)
{
    struct ew_binding *b = &c->out[o];

    c->clean = c->clean && b->tokens == tokens && b->draws == draws;
    b->tokens = tokens;
    b->draws = draws;
}

ew_status ew_context_set_argmax(ew_context *c, const char *name, int32_t *tokens)
{
    const struct ew_plan *p = &c->engine->plan;
    uint32_t i;

    EW_TRY(find(c, name, &i));
    if (i < p->n_inputs)
        return ew_fail(&c->err, EW_STATUS_INVALID_ARG, "'%s' is an input", name);
    if (!c->dev || !c->engine->backend->emit_argmax)
        return ew_fail(&c->err, EW_STATUS_UNSUPPORTED, "a CPU's arg max is the caller's");
    set_picks(c, i - p->n_inputs, NULL, tokens);
    return EW_STATUS_OK;
}

ew_status ew_context_set_draw(ew_context *c, const char *name, const ew_draw *draws,
                              int32_t *tokens)
{
    const struct ew_plan *p = &c->engine->plan;
    uint32_t i;

    EW_TRY(find(c, name, &i));
    if (i < p->n_inputs || (tokens && !draws))
        return ew_fail(&c->err, EW_STATUS_INVALID_ARG, "'%s' is an input, or no draws are given",
                       name);
    if (!c->dev || !c->engine->backend->emit_draw)
        return ew_fail(&c->err, EW_STATUS_UNSUPPORTED, "a CPU's draws are the caller's");
    if (!ew_context_device_draws(c, i - p->n_inputs))
        return ew_fail(&c->err, EW_STATUS_UNSUPPORTED,
                       "draws from output '%s': it is not f32, or has too many rows", name);
    set_picks(c, i - p->n_inputs, tokens ? draws : NULL, tokens);
    return EW_STATUS_OK;
}

/* Everything set, inside the profile, aliases kept. Fills in_type. */
static ew_status check_bindings(struct ew_context *c, bool addresses)
{
    const struct ew_plan *p = &c->engine->plan;

    for (uint32_t i = 0; i < p->n_inputs; i++) {
        const struct ew_plan_tensor *t = &p->tensors[p->inputs[i]];
        const struct ew_plan_range *r = &p->profiles[c->profile].inputs[i];
        size_t n;

        if (!c->in[i].has_shape)
            return ew_fail(&c->err, EW_STATUS_INVALID_ARG, "input '%s': no shape is set", t->name);
        for (int d = 0; d < t->n_dims; d++)
            if (c->in[i].dim[d] < r->min[d] || c->in[i].dim[d] > r->max[d])
                return ew_fail(&c->err, EW_STATUS_INVALID_ARG,
                               "input '%s' axis %d is %lld; profile '%s' allows %lld to %lld",
                               t->name, d, (long long)c->in[i].dim[d], p->profiles[c->profile].name,
                               (long long)r->min[d], (long long)r->max[d]);
        c->in_type[i] = ew_type_make(t->dtype, t->n_dims, c->in[i].dim);
        if (!ew_type_count(&c->in_type[i], &n))
            return ew_fail(&c->err, EW_STATUS_LIMIT, "input '%s' is too large", t->name);
        if (addresses && n && !c->in[i].address && !c->in[i].ids)
            return ew_fail(&c->err, EW_STATUS_INVALID_ARG, "input '%s': no address is set",
                           t->name);
    }
    for (uint32_t o = 0; addresses && o < p->n_outputs; o++)
        for (uint32_t i = 0; i < p->n_inputs; i++)
            if (p->outputs[o].alias == p->inputs[i] && c->out[o].address &&
                c->out[o].address != c->in[i].address)
                return ew_fail(
                    &c->err, EW_STATUS_INVALID_ARG,
                    "output '%s' is at %p; it is updated in place and must be at '%s', %p",
                    p->outputs[o].name, c->out[o].address, p->tensors[p->inputs[i]].name,
                    c->in[i].address);
    return EW_STATUS_OK;
}

static void make_key(struct ew_context *c)
{
    const struct ew_plan *p = &c->engine->plan;
    uint64_t word = c->profile;
    uint8_t *at = c->key;
    void *address;

    memcpy(at, &word, 8);
    at += 8;
    for (uint32_t i = 0; i < p->n_inputs; i++) {
        memcpy(at, c->in[i].dim, sizeof(c->in[i].dim));
        at += sizeof(c->in[i].dim);
        word = (uint64_t)(uintptr_t)ew_context_in_address(c, i) | (c->in[i].ids != NULL);
        memcpy(at, &word, 8); /* addresses are even */
        at += 8;
    }
    for (uint32_t o = 0; o < p->n_outputs; o++) {
        address = c->out[o].address && (!c->dev || c->out[o].on_device) ? c->out[o].address
                  : c->dev ? ew_context_device_held_now(c, o)
                           : c->held[o].data;
        word = (uint64_t)(uintptr_t)address; /* of floats where tokens are picked: 4-aligned */
        word |= (uint64_t)(c->out[o].tokens != NULL) | (uint64_t)(c->out[o].draws != NULL) << 1;
        memcpy(at, &word, 8);
        at += 8;
    }
}

static struct ew_launch *lookup(struct ew_context *c, struct ew_hash128 h)
{
    for (size_t i = 0; i < c->n_cached; i++) {
        struct ew_launch *l = c->cache[i];

        if (l->hash.lo == h.lo && l->hash.hi == h.hi && memcmp(l->key, c->key, c->key_bytes) == 0)
            return l;
    }
    return NULL;
}

/* Puts a fresh launch into the cache in place of the one unused for longest. */
static ew_status remember(struct ew_context *c, struct ew_launch *l, struct ew_hash128 h)
{
    size_t at = c->n_cached;

    l->key = ew_mem_alloc(EW_MEM_CONTEXT, c->key_bytes);
    if (!l->key)
        return ew_fail(&c->err, EW_STATUS_NO_MEMORY, "launch key");
    memcpy(l->key, c->key, c->key_bytes);
    l->hash = h;
    if (c->n_cached == EW_CACHE_LAUNCHES) {
        at = 0;
        for (size_t i = 1; i < c->n_cached; i++)
            if (c->cache[i]->last_use < c->cache[at]->last_use)
                at = i;
        if (c->last == c->cache[at])
            c->last = NULL;
        ew_launch_destroy(c, c->cache[at]);
    } else {
        c->n_cached++;
    }
    c->cache[at] = l;
    return EW_STATUS_OK;
}

static ew_status get_launch(struct ew_context *c, struct ew_launch **out)
{
    struct ew_hash128 h;
    struct ew_launch *l;
    ew_status st;

    if (c->flags & EW_CONTEXT_NO_GRAPH) {
        ew_launch_destroy(c, c->last);
        c->last = NULL;
        EW_TRY(check_bindings(c, true));
        if (c->dev)
            EW_TRY(ew_context_device_place(c));
        return ew_launch_create(c, out);
    }
    if (c->dev) {
        EW_TRY(check_bindings(c, true));
        EW_TRY(ew_context_device_place(c));
    }
    make_key(c);
    h = ew_hash128(c->key, c->key_bytes, 0);
    l = lookup(c, h);
    if (!l) {
        EW_TRY(check_bindings(c, true));
        EW_TRY(ew_launch_create(c, &l));
        c->stats.n_captures++;
        make_key(c); /* held outputs may have moved */
        h = ew_hash128(c->key, c->key_bytes, 0);
        st = remember(c, l, h);
        if (st) {
            ew_launch_destroy(c, l);
            return st;
        }
    } else {
        c->stats.n_replays++;
    }
    *out = l;
    return EW_STATUS_OK;
}

ew_status ew_context_scratch(struct ew_context *c, size_t shared, size_t per_thread)
{
    const unsigned n = ew_pool_threads(c->pool);
    const size_t stride = ew_align_up(per_thread, 128) + 128;
    size_t bytes;

    if (shared > c->shared_bytes || !c->shared) {
        uint8_t *more = ew_mem_alloc_aligned(EW_MEM_CONTEXT, shared ? shared : 1, EW_PLAN_ALIGN);

        if (!more)
            return ew_fail(&c->err, EW_STATUS_NO_MEMORY, "scratch of %zu bytes", shared);
        ew_mem_free_aligned(c->shared);
        c->shared = more;
        c->shared_bytes = shared;
    }
    if (stride > c->thread_stride || !c->thread) {
        uint8_t *more = NULL;

        if (ew_size_mul(stride, n, &bytes))
            more = ew_mem_alloc_aligned(EW_MEM_CONTEXT, bytes, 128);
        if (!more)
            return ew_fail(&c->err, EW_STATUS_NO_MEMORY, "scratch of %zu bytes for %u threads",
                           stride, n);
        ew_mem_free_aligned(c->thread);
        c->thread = more;
        c->thread_stride = stride;
    }
    return EW_STATUS_OK;
}

/* The last slot is of what comes before the nodes. */
static const char *slot_name(const struct ew_plan *p, uint32_t slot)
{
    return slot < p->n_nodes                  ? p->nodes[slot].name
           : slot < p->n_nodes + p->n_outputs ? p->outputs[slot - p->n_nodes].name
                                              : "embedding";
}

void ew_context_note_step(struct ew_context *c, const struct ew_step *s, uint64_t begin,
                          uint64_t end)
{
    const struct ew_plan *p = &c->engine->plan;
    struct ew_slot_stat *st = &c->slots[s->slot];
    const uint64_t ns = end - begin;

    st->tactic = s->tactic;
    st->n_runs++;
    st->total_ns += ns;
    st->min_ns = st->n_runs == 1 || ns < st->min_ns ? ns : st->min_ns;
    st->max_ns = ns > st->max_ns ? ns : st->max_ns;
    st->bytes = s->bytes;
    st->flops = s->flops;
    if (ew_trace_is_on())
        ew_trace_add(slot_name(p, s->slot), s->tactic, begin, end);
}

ew_status ew_context_step_times(struct ew_context *c, size_t n)
{
    uint64_t *more;

    if (c->step_ns_cap >= n)
        return EW_STATUS_OK;
    more = ew_mem_resize(EW_MEM_CONTEXT, c->step_ns, n, sizeof(*more));
    if (!more)
        return ew_fail(&c->err, EW_STATUS_NO_MEMORY, "step times");
    c->step_ns = more;
    c->step_ns_cap = n;
    return EW_STATUS_OK;
}

ew_status ew_context_exec(struct ew_context *c, const struct ew_step_list *list, size_t begin,
                          size_t end)
{
    const bool timed = (c->flags & EW_CONTEXT_PROFILE) || ew_trace_is_on();
    struct ew_exec x = { c->pool, c->shared, c->thread, c->thread_stride, 0, &c->err, NULL };

    if (timed) {
        EW_TRY(ew_context_step_times(c, end - begin + 1));
        x.step_ns = c->step_ns;
    }
    c->engine->backend->run(list, begin, end, &x);
    if (x.status) {
        if (!c->err.status)
            ew_fail(&c->err, (ew_status)x.status, "a step failed");
        return (ew_status)x.status;
    }
    for (size_t s = begin; timed && s < end; s++)
        ew_context_note_step(c, &list->steps[s], c->step_ns[s - begin], c->step_ns[s - begin + 1]);
    return EW_STATUS_OK;
}

ew_status ew_context_settle(ew_context *c)
{
    return c->dev ? ew_context_device_settle(c) : EW_STATUS_OK;
}

static ew_status run(ew_context *c, bool ahead)
{
    const uint64_t barriers = ew_pool_n_barriers(c->pool);
    struct ew_launch *l = c->last;
    ew_status st;

    c->err.status = EW_STATUS_OK;
    c->err.text[0] = 0;
    if (c->clean && l && !(c->flags & EW_CONTEXT_NO_GRAPH)) {
        c->stats.n_replays++;
    } else {
        EW_TRY(ew_context_settle(c)); /* it uses what may be made anew here */
        EW_TRY(get_launch(c, &l));
    }
    c->last = l;
    l->last_use = ++c->tick;
    if (l->is_dynamic) {
        st = check_bindings(c, true);
        if (!st)
            st = ew_context_run_dynamic(c, l);
    } else if (c->dev) {
        st = ew_context_device_run(c, l, ahead);
    } else {
        st = ew_context_exec(c, &l->list, 0, l->list.n);
    }
    c->stats.n_last_barriers = ew_pool_n_barriers(c->pool) - barriers;
    c->clean = !st;
    c->stats.n_runs += !st;
    return st;
}

ew_status ew_context_run(ew_context *c)
{
    return run(c, false);
}

ew_status ew_context_run_ahead(ew_context *c)
{
    return run(c, true);
}

static ew_status output_type(struct ew_context *c, uint32_t o, struct ew_type *out)
{
    const struct ew_plan *p = &c->engine->plan;
    struct ew_shapes s;
    struct ew_arena a;
    ew_status st;

    if (c->clean && c->last) {
        *out = c->last->shapes.type[p->outputs[o].tensor];
        return EW_STATUS_OK;
    }
    EW_TRY(check_bindings(c, false));
    ew_arena_init(&a, EW_MEM_CONTEXT, 0);
    st = ew_plan_shapes(p, c->in_type, &a, &s, &c->err);
    if (!st)
        *out = s.type[p->outputs[o].tensor];
    ew_arena_deinit(&a);
    if (!st && out->dtype == EW_DTYPE_NONE)
        return ew_fail(&c->err, EW_STATUS_INVALID_ARG,
                       "output '%s': its size depends on data; run first", p->outputs[o].name);
    return st;
}

static void give_dims(const struct ew_type *t, int64_t dims[8], uint32_t *n_dims)
{
    *n_dims = (uint32_t)t->n_dims;
    for (int d = 0; d < t->n_dims; d++)
        dims[d] = t->dim[d];
}

ew_status ew_context_get_shape(ew_context *c, const char *name, int64_t dims[8], uint32_t *n_dims)
{
    const struct ew_plan *p = &c->engine->plan;
    struct ew_type t;
    uint32_t i;

    EW_TRY(find(c, name, &i));
    if (i >= p->n_inputs) {
        EW_TRY(output_type(c, i - p->n_inputs, &t));
    } else {
        if (!c->in[i].has_shape)
            return ew_fail(&c->err, EW_STATUS_INVALID_ARG, "input '%s': no shape is set", name);
        t = ew_type_make(p->tensors[p->inputs[i]].dtype, p->tensors[p->inputs[i]].n_dims,
                         c->in[i].dim);
    }
    give_dims(&t, dims, n_dims);
    return EW_STATUS_OK;
}

ew_status ew_context_get_output(ew_context *c, const char *name, const void **data, ew_dtype *dtype,
                                int64_t dims[8], uint32_t *n_dims)
{
    const struct ew_plan *p = &c->engine->plan;
    struct ew_type t;
    uint32_t i;

    EW_TRY(find(c, name, &i));
    if (i < p->n_inputs)
        return ew_fail(&c->err, EW_STATUS_INVALID_ARG, "'%s' is an input", name);
    if (!c->clean || !c->last)
        return ew_fail(&c->err, EW_STATUS_INVALID_ARG, "output '%s': run first", name);
    EW_TRY(output_type(c, i - p->n_inputs, &t));
    if (c->dev)
        EW_TRY(ew_context_device_read(c, i - p->n_inputs, data));
    else
        *data = ew_context_out_address(c, i - p->n_inputs, 0);
    *dtype = t.dtype;
    give_dims(&t, dims, n_dims);
    return EW_STATUS_OK;
}

ew_status ew_context_get_step(const ew_context *c, uint32_t i, ew_step_profile *out)
{
    const struct ew_plan *p = &c->engine->plan;

    for (uint32_t s = 0; s < p->n_nodes + p->n_outputs + 1; s++) {
        const struct ew_slot_stat *st = &c->slots[s];

        if (!st->n_runs || i-- > 0)
            continue;
        *out = (ew_step_profile){ .tactic = st->tactic ? st->tactic : "",
                                  .n_runs = st->n_runs,
                                  .total_ns = st->total_ns,
                                  .min_ns = st->min_ns,
                                  .max_ns = st->max_ns,
                                  .bytes = st->bytes,
                                  .flops = st->flops };
        out->name = slot_name(p, s);
        out->op = s < p->n_nodes ? ew_op_get(p->nodes[s].op)->name : "Copy";
        return EW_STATUS_OK;
    }
    return EW_STATUS_NOT_FOUND;
}
