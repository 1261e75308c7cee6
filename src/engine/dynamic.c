/* engine/dynamic.c - runs where shapes depend on contents (NonZero-like Slice, Range, TopK with a
 * computed k...): infer a node with real data, give its outputs memory from the context's heap, run
 * it, go on. The heap is reused by the next run. */
#include "engine/engine_impl.h"

#include "base/size.h"

void ew_heap_destroy(struct ew_heap_chunk *h)
{
    while (h) {
        struct ew_heap_chunk *next = h->next;

        ew_mem_free_aligned(h->data);
        ew_mem_free(h);
        h = next;
    }
}

static void *heap_alloc(struct ew_context *c, size_t bytes)
{
    const size_t want = (bytes + EW_PLAN_ALIGN) & ~(size_t)(EW_PLAN_ALIGN - 1);
    struct ew_heap_chunk *h;

    if (want < bytes)
        return NULL;
    for (h = c->heap; h; h = h->next)
        if (h->cap - h->used >= want) {
            h->used += want;
            return h->data + h->used - want;
        }
    h = ew_mem_calloc(EW_MEM_CONTEXT, 1, sizeof(*h));
    if (!h)
        return NULL;
    h->cap = want > (1u << 20) ? want : 1u << 20;
    h->data = ew_mem_alloc_aligned(EW_MEM_CONTEXT, h->cap, EW_PLAN_ALIGN);
    if (!h->data) {
        ew_mem_free(h);
        return NULL;
    }
    h->used = want;
    h->next = c->heap;
    c->heap = h;
    return h->data;
}

static ew_status node_outputs(struct ew_context *c, struct ew_launch *l,
                              const struct ew_plan_node *n, const struct ew_infer *f)
{
    const struct ew_plan *p = &c->engine->plan;

    for (uint32_t k = 0; k < n->n_out; k++) {
        const uint32_t t = n->out[k];
        size_t bytes;

        if (t == EW_PLAN_NONE)
            continue;
        l->view[t] = (struct ew_view){ f->out[k], NULL };
        l->shapes.type[t] = f->out[k];
        if (!ew_type_bytes(&f->out[k], &bytes))
            return ew_fail(&c->err, EW_STATUS_LIMIT, "node '%s': output %u is too large", n->name,
                           k);
        if (p->root[t] != t)
            l->view[t].data = l->view[p->root[t]].data;
        else if (p->direct_out[t] != EW_PLAN_NONE)
            l->view[t].data = ew_context_out_address(c, p->direct_out[t], bytes);
        else
            l->view[t].data = heap_alloc(c, bytes);
        if (!l->view[t].data && bytes)
            return ew_fail(&c->err, EW_STATUS_NO_MEMORY, "node '%s': output %u of %zu bytes",
                           n->name, k, bytes);
    }
    return EW_STATUS_OK;
}

static ew_status run_tail(struct ew_context *c, struct ew_launch *l, size_t begin)
{
    EW_TRY(ew_context_scratch(c, l->list.shared_bytes, l->list.thread_bytes));
    EW_TRY(ew_context_exec(c, &l->list, begin, l->list.n));
    l->list.n_ran = l->list.n;
    return EW_STATUS_OK;
}

static ew_status run_node(struct ew_context *c, struct ew_launch *l, uint32_t i, const void **data,
                          struct ew_infer *f)
{
    const struct ew_plan *p = &c->engine->plan;
    const struct ew_plan_node *n = &p->nodes[i];
    const size_t before = l->list.n;
    const struct ew_type *type = l->shapes.type;

    for (uint32_t k = 0; k < n->n_in; k++)
        if (n->in[k] != EW_PLAN_NONE)
            data[n->in[k]] = p->tensors[n->in[k]].packed.kernel ? NULL : l->view[n->in[k]].data;
    EW_TRY(ew_plan_infer(n, type, data, f, &c->err));
    EW_TRY(node_outputs(c, l, n, f));
    if (ew_plan_is_view_op(n->op) && p->root[n->out[0]] != n->out[0])
        return EW_STATUS_OK;
    EW_TRY(ew_launch_emit_node(c, l, i));
    return run_tail(c, l, before);
}

/* The launch of a dynamic run is not replayed: its arena is rebuilt every time. */
static ew_status start(struct ew_context *c, struct ew_launch *l, const void ***data)
{
    const struct ew_plan *p = &c->engine->plan;

    ew_arena_deinit(&l->arena);
    ew_arena_init(&l->arena, EW_MEM_CONTEXT, 0);
    memset(&l->list, 0, sizeof(l->list));
    memset(&l->shapes, 0, sizeof(l->shapes));
    l->list.arena = &l->arena;
    l->view = ew_arena_new(&l->arena, struct ew_view, p->n_tensors + 1u);
    l->shapes.type = ew_arena_new(&l->arena, struct ew_type, p->n_tensors + 1u);
    l->shapes.known = ew_arena_new(&l->arena, const void *, p->n_tensors + 1u);
    *data = ew_arena_new(&l->arena, const void *, p->n_tensors + 1u);
    if (!l->view || !l->shapes.type || !l->shapes.known || !*data)
        return ew_fail(&c->err, EW_STATUS_NO_MEMORY, "launch");
    for (struct ew_heap_chunk *h = c->heap; h; h = h->next)
        h->used = 0;
    for (uint32_t i = 0; i < p->n_inputs; i++) {
        l->shapes.type[p->inputs[i]] = c->in_type[i];
        l->view[p->inputs[i]] = (struct ew_view){ c->in_type[i], c->in[i].address };
    }
    for (uint32_t t = 0; t < p->n_tensors; t++)
        if (p->tensors[t].kind == EW_PLAN_CONST) {
            l->shapes.type[t] =
                ew_type_make(p->tensors[t].dtype, p->tensors[t].n_dims, p->tensors[t].dim);
            l->view[t].type = l->shapes.type[t];
            memcpy(&l->view[t].data, &p->tensors[t].data, sizeof(void *));
        }
    return EW_STATUS_OK;
}

ew_status ew_context_run_dynamic(struct ew_context *c, struct ew_launch *l)
{
    const struct ew_plan *p = &c->engine->plan;
    struct ew_infer *f = ew_mem_calloc(EW_MEM_CONTEXT, 1, sizeof(*f));
    const void **data = NULL;
    ew_status st;
    size_t before;

    if (!f)
        return ew_fail(&c->err, EW_STATUS_NO_MEMORY, "shape inference");
    st = start(c, l, &data);
    for (uint32_t i = 0; i < p->n_nodes && !st; i++)
        st = run_node(c, l, i, data, f);
    before = l->list.n;
    if (!st)
        st = ew_launch_emit_outputs(c, l);
    if (!st)
        st = run_tail(c, l, before);
    ew_mem_free(f);
    return st;
}
