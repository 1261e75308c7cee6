/* backend/cuda/emit_decode.c - a step of one token of each sequence as one persistent kernel, where
 * the builder found that faster than the graph of single ones: the steps of a list that say what
 * they are in such a chain give way to one launch. */
#include <string.h>

#include "backend/cuda/cuda.h"
#include "kernels/cuda/step.h"

ew_status ew_cuda_note_decode(struct ew_step_list *list, const struct ew_cuda_decode_node *node,
                              ew_error *err)
{
    struct ew_cuda_decode_node *copy = ew_arena_new(list->arena, struct ew_cuda_decode_node, 1);
    struct ew_cuda_step *s;

    if (!copy)
        return ew_fail(err, EW_STATUS_NO_MEMORY, "launch list");
    *copy = *node;
    memcpy(&s, &list->steps[list->n - 1].args, sizeof(s)); /* ours, made a moment ago */
    s->decode = copy;
    return EW_STATUS_OK;
}

/* A norm whose result is copied is a norm that writes elsewhere. */
static bool copies_norm(const struct ew_cuda_decode_node *norm,
                        const struct ew_cuda_decode_node *copy)
{
    return norm && norm->kind == EW_CUDA_DECODE_NORM && copy->kind == EW_CUDA_DECODE_SAME &&
           copy->problem.x == norm->problem.y;
}

/* The chain of the steps from `first` on. False: some step is not in one. Attention may take two
 * launches; the last of a node's has the mark. */
static bool collect(const struct ew_step_list *list, size_t first,
                    struct ew_cuda_decode_node *nodes, size_t *n)
{
    *n = 0;
    for (size_t i = first; i < list->n; i++) {
        const struct ew_cuda_step *s = list->steps[i].args;

        if (s->decode && copies_norm(*n ? &nodes[*n - 1] : NULL, s->decode))
            nodes[*n - 1].problem.y = s->decode->problem.y;
        else if (s->decode)
            nodes[(*n)++] = *s->decode;
        else if (i + 1 == list->n || list->steps[i + 1].slot != list->steps[i].slot)
            return false;
    }
    return *n > 0;
}

/* Memory of the list's own: zeroed, given back with the list. */
static ew_status list_memory(struct ew_step_list *list, struct ew_cuda *cuda, size_t bytes,
                             uint64_t *out, ew_error *err)
{
    struct ew_list_memory *m = ew_arena_new(list->arena, struct ew_list_memory, 1);
    const ew_memory *from = &cuda->base.memory;

    if (!m)
        return ew_fail(err, EW_STATUS_NO_MEMORY, "launch list");
    EW_TRY(from->alloc(from->ctx, bytes, "a step in one kernel", &m->data, err));
    m->bytes = bytes;
    m->next = list->memory;
    list->memory = m;
    *out = (uint64_t)(uintptr_t)m->data;
    return EW_STATUS_OK;
}

static ew_status place(struct ew_step_list *list, struct ew_cuda *cuda,
                       const struct ew_cuda_decode_node *nodes, size_t n,
                       struct ew_cuda_decode_plan *plan, ew_error *err)
{
    const ew_memory *m = &cuda->base.memory;
    struct ew_cuda_decode_place at = { .fault = (uint64_t)(uintptr_t)cuda->device->fault };

    EW_TRY(list_memory(list, cuda, plan->table_bytes, &at.table, err));
    EW_TRY(list_memory(list, cuda, plan->workspace_bytes, &at.workspace, err));
    EW_TRY(ew_cuda_decode_plan(nodes, n, &cuda->chip, &at, plan, err));
    return m->copy(m->ctx, EW_COPY_UPLOAD, (void *)(uintptr_t)at.table, plan->table_bytes,
                   plan->table, plan->table_bytes, plan->table_bytes, 1, err);
}

/* The steps [first, n) become one. */
static ew_status replace(struct ew_step_list *list, const struct ew_emit *e, size_t first,
                         const struct ew_cuda_decode_plan *plan, ew_error *err)
{
    struct ew_emit as = *e;
    uint64_t bytes = 0, flops = 0;

    for (size_t i = first; i < list->n; i++) {
        bytes += list->steps[i].bytes;
        flops += list->steps[i].flops;
    }
    as.slot = list->steps[list->n - 1].slot;
    list->n = first;
    return ew_cuda_emit_launches(list, &as, &plan->launch, 1, "one kernel a step", bytes, flops,
                                 err);
}

static bool any_step(const struct ew_plan_device *d)
{
    for (int i = 0; i < EW_PLAN_STEP_ROWS; i++)
        if (d->step[i].one_kernel)
            return true;
    return false;
}

/* The last linear alone is written to memory, and the cache where it is. */
static bool has_one_result(const struct ew_plan *p)
{
    uint32_t n = 0;

    for (uint32_t o = 0; o < p->n_outputs; o++)
        n += p->outputs[o].alias == EW_PLAN_NONE;
    return n <= 1;
}

_Static_assert(EW_PLAN_STEP_ROWS == EW_CUDA_DECODE_ROWS, "rows of one kernel");

ew_status ew_cuda_emit_end(struct ew_step_list *list, const struct ew_emit *e, size_t first,
                           ew_error *err)
{
    struct ew_cuda *cuda = ew_cuda_of(e);
    const struct ew_cuda_decode_place nowhere = { 0 };
    struct ew_cuda_decode_node *nodes;
    struct ew_cuda_decode_plan plan = { 0 };
    size_t n = 0;

    if (first >= list->n || cuda->keeps_steps || (!cuda->see && !any_step(&e->plan->device)))
        return EW_STATUS_OK;
    if (!has_one_result(e->plan)) {
        ew_fail(cuda->why_graph, EW_STATUS_UNSUPPORTED,
                "one kernel a step: outputs beside the logits and the cache");
        return EW_STATUS_OK;
    }
    nodes = ew_arena_new(list->arena, struct ew_cuda_decode_node, list->n - first);
    plan.table = ew_arena_new(list->arena, struct ew_step_phase, list->n - first);
    if (!nodes || !plan.table)
        return ew_fail(err, EW_STATUS_NO_MEMORY, "launch list");
    if (!collect(list, first, nodes, &n)) {
        ew_fail(cuda->why_graph, EW_STATUS_UNSUPPORTED,
                "one kernel a step: nodes that are no linear, norm or attention");
        return EW_STATUS_OK; /* the graph it is */
    }
    if (ew_cuda_decode_plan(nodes, n, &cuda->chip, &nowhere, &plan, cuda->why_graph))
        return EW_STATUS_OK;
    if (cuda->see) {
        cuda->see(cuda->see_ctx, &plan.launch);
        return EW_STATUS_OK;
    }
    if (!e->plan->device.step[plan.n_rows - 1].one_kernel)
        return EW_STATUS_OK;
    EW_TRY(place(list, cuda, nodes, n, &plan, err));
    return replace(list, e, first, &plan, err);
}

static uint64_t address_of(const void *p)
{
    return (uint64_t)(uintptr_t)p;
}

static struct ew_cuda_step *step_of(const struct ew_step_list *list, size_t i)
{
    struct ew_cuda_step *s;

    memcpy(&s, &list->steps[i].args, sizeof(s)); /* all steps here are ours */
    return s;
}

ew_status ew_cuda_note_embed(struct ew_step_list *list, const struct ew_cuda_embed *embed,
                             ew_error *err)
{
    struct ew_cuda_embed *copy = ew_arena_new(list->arena, struct ew_cuda_embed, 1);

    if (!copy)
        return ew_fail(err, EW_STATUS_NO_MEMORY, "launch list");
    *copy = *embed;
    step_of(list, list->n - 1)->embed = copy;
    return EW_STATUS_OK;
}

bool ew_cuda_emit_lead_on(struct ew_step_list *list, const void *x, const void *lengths,
                          int32_t *tokens, void *ids)
{
    struct ew_cuda_step *s, *first;

    if (!list->n)
        return false;
    s = step_of(list, list->n - 1);
    first = step_of(list, 0);
    if (s->kind != EW_CUDA_STEP_LAUNCH ||
        !ew_cuda_decode_leads_on(&s->launch, address_of(x), address_of(lengths), address_of(tokens),
                                 address_of(ids)))
        return false;
    if (first->embed && ew_cuda_decode_looks_up(&s->launch, first->embed)) {
        list->n--;
        memmove(list->steps, list->steps + 1, list->n * sizeof(*list->steps));
    }
    return true;
}
