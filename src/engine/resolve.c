/* engine/resolve.c - from bindings to a launch list: shapes, addresses, steps. Nothing here runs a
 * kernel of the model. */
#include "engine/engine_impl.h"

#include "base/size.h"

static void drop_memory(struct ew_context *c, struct ew_step_list *list)
{
    for (struct ew_list_memory *m = list->memory; m; m = m->next) {
        const ew_memory *from = ew_engine_memory(c->engine);

        from->release(from->ctx, m->data, m->bytes);
    }
    list->memory = NULL;
}

void ew_launch_destroy(struct ew_context *c, struct ew_launch *l)
{
    if (!l)
        return;
    if (l->recording)
        c->engine->device->ops->drop(ew_context_stream(c), l->recording);
    drop_memory(c, &l->list);
    ew_arena_deinit(&l->arena);
    ew_mem_free(l->key);
    ew_mem_free(l);
}

void *ew_context_out_address(struct ew_context *c, uint32_t o, size_t bytes)
{
    const struct ew_plan *p = &c->engine->plan;
    struct ew_held *h = &c->held[o];

    if (p->outputs[o].alias != EW_PLAN_NONE)
        for (uint32_t i = 0; i < p->n_inputs; i++)
            if (p->inputs[i] == p->outputs[o].alias)
                return ew_context_in_address(c, i);
    if (c->out[o].address && (!c->dev || c->out[o].on_device))
        return c->out[o].address;
    if (c->dev)
        return ew_context_device_held(c, o, bytes);
    if (h->cap < bytes || !h->data) {
        void *more = ew_mem_alloc_aligned(EW_MEM_CONTEXT, bytes ? bytes : 1, EW_PLAN_ALIGN);

        if (!more)
            return NULL;
        /* Launches captured with the old memory never match again: the key has its address. */
        ew_mem_free_aligned(h->data);
        h->data = more;
        h->cap = bytes;
    }
    return h->data;
}

static uint8_t *const_address(const struct ew_context *c, const struct ew_plan_tensor *t)
{
    const struct ew_device *d = c->engine->device;
    const uint8_t *const at = d ? (const uint8_t *)d->weights + t->off : t->data;
    uint8_t *p;

    memcpy(&p, &at, sizeof(p)); /* views carry no const; steps write outputs only */
    return p;
}

/* Address of one tensor for the static mode. False: it has none in the plan (the launch must run
 * dynamically). */
static bool place(struct ew_context *c, struct ew_launch *l, uint32_t t, bool *no_memory)
{
    const struct ew_plan *p = &c->engine->plan;
    const struct ew_plan_profile *pr = &p->profiles[c->profile];
    const uint32_t root = p->root[t];
    struct ew_view *v = &l->view[t];
    size_t bytes;

    v->type = l->shapes.type[t];
    if (v->type.dtype == EW_DTYPE_NONE || v->data)
        return true;
    if (p->tensors[t].kind == EW_PLAN_CONST) {
        v->data = const_address(c, &p->tensors[t]);
        return true;
    }
    if (l->shapes.known[t]) {
        if (!c->dev) /* a device cannot read it: an emitter that needs it refuses its node */
            memcpy(&v->data, &l->shapes.known[t], sizeof(void *));
        return true;
    }
    if (root != t) {
        v->data = l->view[root].data;
        return true;
    }
    if (!ew_type_bytes(&v->type, &bytes))
        return false;
    if (p->direct_out[t] != EW_PLAN_NONE) {
        v->data = ew_context_out_address(c, p->direct_out[t], bytes);
        *no_memory = !v->data;
        return v->data != NULL;
    }
    if (bytes > pr->bytes[t])
        return false;
    v->data = bytes ? c->block + pr->off[t] : NULL;
    return true;
}

static bool place_all(struct ew_context *c, struct ew_launch *l, bool *no_memory)
{
    const struct ew_plan *p = &c->engine->plan;

    for (uint32_t i = 0; i < p->n_inputs; i++)
        l->view[p->inputs[i]] =
            (struct ew_view){ l->shapes.type[p->inputs[i]], ew_context_in_address(c, i) };
    for (uint32_t t = 0; t < p->n_tensors; t++)
        if (p->tensors[t].kind == EW_PLAN_CONST)
            place(c, l, t, no_memory);
    for (uint32_t i = 0; i < p->n_nodes; i++)
        for (uint32_t k = 0; k < p->nodes[i].n_out; k++)
            if (p->nodes[i].out[k] != EW_PLAN_NONE && !place(c, l, p->nodes[i].out[k], no_memory))
                return false;
    return true;
}

ew_status ew_launch_emit_node(struct ew_context *c, struct ew_launch *l, uint32_t node)
{
    const struct ew_plan *p = &c->engine->plan;
    const struct ew_plan_node *n = &p->nodes[node];
    const struct ew_view **in = ew_arena_new(&l->arena, const struct ew_view *, n->n_in + 1u);
    const struct ew_packed **packed =
        ew_arena_new(&l->arena, const struct ew_packed *, n->n_in + 1u);
    struct ew_view **out = ew_arena_new(&l->arena, struct ew_view *, n->n_out + 1u);
    struct ew_emit e = { .plan = p,
                         .node = n,
                         .slot = node,
                         .in = in,
                         .packed = packed,
                         .out = out,
                         .n_threads = ew_pool_threads(c->pool) };

    if (!in || !packed || !out)
        return ew_fail(&c->err, EW_STATUS_NO_MEMORY, "node '%s': launch list", n->name);
    for (uint32_t k = 0; k < n->n_in; k++)
        if (n->in[k] != EW_PLAN_NONE) {
            in[k] = &l->view[n->in[k]];
            packed[k] = p->tensors[n->in[k]].packed.kernel ? &p->tensors[n->in[k]].packed : NULL;
        }
    for (uint32_t k = 0; k < n->n_out; k++)
        if (n->out[k] != EW_PLAN_NONE)
            out[k] = &l->view[n->out[k]];
    if (c->dev)
        ew_context_device_emit(c, &e);
    EW_TRY(c->engine->backend->emit(&l->list, &e, &c->err));
    return c->dev ? ew_launch_note_lengths(c, l, &e) : EW_STATUS_OK;
}

ew_status ew_launch_emit_outputs(struct ew_context *c, struct ew_launch *l)
{
    const struct ew_plan *p = &c->engine->plan;

    for (uint32_t o = 0; o < p->n_outputs; o++) {
        const uint32_t t = p->outputs[o].tensor;
        const struct ew_view *v = &l->view[t];
        size_t bytes;
        void *to;

        if (!ew_type_bytes(&v->type, &bytes))
            return ew_fail(&c->err, EW_STATUS_LIMIT, "output '%s' is too large",
                           p->outputs[o].name);
        if (p->direct_out[t] == o && !l->shapes.known[t])
            continue;
        to = ew_context_out_address(c, o, bytes);
        if (!to && c->dev)
            return c->err.status;
        if (!to)
            return ew_fail(&c->err, EW_STATUS_NO_MEMORY, "output '%s': %zu bytes",
                           p->outputs[o].name, bytes);
        EW_TRY(c->engine->backend->emit_copy(
            &l->list, p->n_nodes + o, to,
            l->shapes.known[t] && !c->dev ? l->shapes.known[t] : v->data, bytes, &c->err));
    }
    return EW_STATUS_OK;
}

static ew_status emit_all(struct ew_context *c, struct ew_launch *l)
{
    const struct ew_plan *p = &c->engine->plan;
    size_t first;

    drop_memory(c, &l->list);
    memset(&l->list, 0, sizeof(l->list));
    l->list.arena = &l->arena;
    if (c->dev)
        EW_TRY(ew_context_device_before(c, l));
    first = l->list.n;
    for (uint32_t i = 0; i < p->n_nodes; i++)
        if (!ew_plan_node_is_free(p, i, &l->shapes))
            EW_TRY(ew_launch_emit_node(c, l, i));
    if (c->dev)
        EW_TRY(ew_context_device_end(c, l, first));
    EW_TRY(ew_launch_emit_outputs(c, l));
    return c->dev ? ew_context_device_after(c, l) : EW_STATUS_OK;
}

/* Steps of a device hold addresses of its scratch: when that grows, they are made once more. */
static ew_status emit_for_device(struct ew_context *c, struct ew_launch *l)
{
    bool grown = true;

    while (grown) {
        EW_TRY(emit_all(c, l));
        EW_TRY(ew_context_device_scratch(c, &l->list, &grown));
    }
    return EW_STATUS_OK;
}

static ew_status fill(struct ew_context *c, struct ew_launch *l)
{
    const struct ew_plan *p = &c->engine->plan;
    bool no_memory = false;

    l->view = ew_arena_new(&l->arena, struct ew_view, p->n_tensors + 1u);
    if (!l->view)
        return ew_fail(&c->err, EW_STATUS_NO_MEMORY, "launch");
    EW_TRY(ew_plan_shapes(p, c->in_type, &l->arena, &l->shapes, &c->err));
    if (l->shapes.needs_data || !place_all(c, l, &no_memory)) {
        if (no_memory && c->dev) /* it said what of */
            return c->err.status;
        if (no_memory)
            return ew_fail(&c->err, EW_STATUS_NO_MEMORY, "outputs held by the context");
        if (c->dev)
            return ew_fail(&c->err, EW_STATUS_UNSUPPORTED,
                           "shapes depend on data here: the CUDA backend runs fixed lists alone");
        l->is_dynamic = true;
        return EW_STATUS_OK;
    }
    if (c->dev)
        return emit_for_device(c, l);
    EW_TRY(emit_all(c, l));
    return ew_context_scratch(c, l->list.shared_bytes, l->list.thread_bytes);
}

ew_status ew_launch_create(struct ew_context *c, struct ew_launch **out)
{
    struct ew_launch *l = ew_mem_calloc(EW_MEM_CONTEXT, 1, sizeof(*l));
    ew_status st;

    if (!l)
        return ew_fail(&c->err, EW_STATUS_NO_MEMORY, "launch");
    ew_arena_init(&l->arena, EW_MEM_CONTEXT, 0);
    st = fill(c, l);
    if (st) {
        ew_launch_destroy(c, l);
        return st;
    }
    *out = l;
    return EW_STATUS_OK;
}
