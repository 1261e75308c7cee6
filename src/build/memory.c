/* build/memory.c - the memory plan: lifetimes over nodes at a profile's max shapes, then greedy
 * best fit, largest first. */
#include <stdlib.h>

#include "build/build_impl.h"

#include "base/size.h"

static int by_size(const void *a, const void *b)
{
    const struct ew_live *x = a, *y = b;

    if (x->bytes != y->bytes)
        return x->bytes < y->bytes ? 1 : -1;
    return x->tensor < y->tensor ? -1 : x->tensor > y->tensor;
}

static bool overlap_in_time(const struct ew_live *a, const struct ew_live *b)
{
    return a->first <= b->last && b->first <= a->last;
}

ew_status ew_memory_place(struct ew_live *live, size_t n, uint64_t *block_bytes, ew_error *err)
{
    size_t *placed = ew_mem_calloc(EW_MEM_BUILD, n + 1, sizeof(*placed)); /* indices, by offset */
    uint64_t end = 0;

    if (!placed)
        return ew_fail(err, EW_STATUS_NO_MEMORY, "memory plan of %zu tensors", n);
    qsort(live, n, sizeof(*live), by_size);
    for (size_t i = 0; i < n; i++) {
        const uint64_t want = ew_align_up((size_t)live[i].bytes, EW_PLAN_ALIGN);
        uint64_t at = 0, best = UINT64_MAX, best_gap = UINT64_MAX;
        size_t k;

        for (size_t j = 0; j < i; j++) {
            const struct ew_live *o = &live[placed[j]];
            const uint64_t o_end = o->off + ew_align_up((size_t)o->bytes, EW_PLAN_ALIGN);

            if (!overlap_in_time(o, &live[i]))
                continue;
            if (o->off > at && o->off - at >= want && o->off - at < best_gap) {
                best = at;
                best_gap = o->off - at;
            }
            at = o_end > at ? o_end : at;
        }
        live[i].off = best != UINT64_MAX ? best : at;
        if (live[i].off + want > end)
            end = live[i].off + want;
        for (k = i; k > 0 && live[placed[k - 1]].off > live[i].off; k--)
            placed[k] = placed[k - 1];
        placed[k] = i;
    }
    ew_mem_free(placed);
    *block_bytes = end;
    return EW_STATUS_OK;
}

/* Last node that touches each root; the end for what is copied out. */
static void last_uses(const struct ew_plan *p, uint32_t *last)
{
    for (uint32_t i = 0; i < p->n_nodes; i++) {
        const struct ew_plan_node *n = &p->nodes[i];

        for (uint32_t k = 0; k < n->n_in; k++)
            if (n->in[k] != EW_PLAN_NONE)
                last[p->root[n->in[k]]] = i;
        for (uint32_t k = 0; k < n->n_out; k++)
            if (n->out[k] != EW_PLAN_NONE)
                last[p->root[n->out[k]]] = i;
    }
    for (uint32_t o = 0; o < p->n_outputs; o++)
        last[p->root[p->outputs[o].tensor]] = p->n_nodes;
}

static ew_status plan_profile(struct ew_build *b, uint32_t profile, const uint32_t *last,
                              struct ew_live *live, struct ew_arena *a)
{
    struct ew_plan *p = &b->plan;
    struct ew_plan_profile *pr = &p->profiles[profile];
    struct ew_shapes s;
    size_t n = 0;

    EW_TRY(ew_plan_profile_shapes(p, profile, EW_PLAN_MAX, a, &s, b->err));
    if (s.needs_data)
        return EW_STATUS_OK; /* sizes depend on data: the context allocates as it goes */
    for (uint32_t t = 0; t < p->n_tensors; t++) {
        size_t bytes;

        if (p->tensors[t].kind != EW_PLAN_ACT || p->root[t] != t || s.known[t] ||
            p->direct_out[t] != EW_PLAN_NONE || !ew_type_bytes(&s.type[t], &bytes) || !bytes)
            continue;
        live[n++] = (struct ew_live){ bytes, 0, p->tensors[t].producer, last[t], t };
    }
    EW_TRY(ew_memory_place(live, n, &pr->block_bytes, b->err));
    for (size_t i = 0; i < n; i++) {
        pr->off[live[i].tensor] = live[i].off;
        pr->bytes[live[i].tensor] = live[i].bytes;
    }
    return EW_STATUS_OK;
}

ew_status ew_build_memory_plan(struct ew_build *b)
{
    struct ew_plan *p = &b->plan;
    uint32_t *last = ew_mem_calloc(EW_MEM_BUILD, p->n_tensors + 1u, sizeof(*last));
    struct ew_live *live = ew_mem_calloc(EW_MEM_BUILD, p->n_tensors + 1u, sizeof(*live));
    ew_status st = EW_STATUS_OK;

    if (!last || !live)
        st = ew_fail(b->err, EW_STATUS_NO_MEMORY, "memory plan");
    else
        last_uses(p, last);
    for (uint32_t i = 0; i < p->n_profiles && !st; i++) {
        struct ew_arena a;

        ew_arena_init(&a, EW_MEM_BUILD, 0);
        st = plan_profile(b, i, last, live, &a);
        ew_arena_deinit(&a);
    }
    ew_mem_free(last);
    ew_mem_free(live);
    return st;
}
