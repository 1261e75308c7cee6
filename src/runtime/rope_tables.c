/* runtime/rope_tables.c - filling and keeping tables. Their numbers are checkpoint/rope.c's. */
#include "runtime/rope_tables.h"

#include <string.h>

#include "base/mem.h"
#include "base/memory.h"
#include "base/size.h"

ew_status ew_rope_tables_create(uint32_t cap, const struct ew_rope_input *sets, uint32_t n_sets,
                                uint32_t n_rows, struct ew_rope_tables **out, ew_error *err)
{
    struct ew_rope_tables *t = ew_mem_calloc(EW_MEM_RUNTIME, 1, sizeof(*t));

    *out = NULL;
    if (!t)
        return ew_fail(err, EW_STATUS_NO_MEMORY, "rope tables");
    t->memory = ew_memory_of_host();
    t->cap = cap;
    t->n_sets = n_sets;
    t->n_tables = n_sets * (n_rows + 2);
    t->tables = ew_mem_calloc(EW_MEM_RUNTIME, t->n_tables, sizeof(*t->tables));
    if (!t->tables) {
        ew_rope_tables_destroy(t);
        return ew_fail(err, EW_STATUS_NO_MEMORY, "rope tables");
    }
    for (uint32_t i = 0; i < n_sets; i++)
        t->sets[i] = sets[i];
    *out = t;
    return EW_STATUS_OK;
}

void ew_rope_tables_move_to(struct ew_rope_tables *t, const ew_memory *memory)
{
    t->memory = memory;
}

static void drop(struct ew_rope_tables *t, struct ew_rope_table *at)
{
    if (at->data)
        t->memory->release(t->memory->ctx, at->data, at->bytes);
    memset(at, 0, sizeof(*at));
}

void ew_rope_tables_destroy(struct ew_rope_tables *t)
{
    if (!t)
        return;
    for (uint32_t i = 0; t->tables && i < t->n_tables; i++)
        drop(t, &t->tables[i]);
    ew_mem_free(t->tables);
    ew_mem_free(t);
}

uint32_t ew_rope_regime(const struct ew_rope_tables *t, uint32_t len)
{
    uint32_t regime = 0;

    for (uint32_t i = 0; i < t->n_sets; i++) {
        const struct ew_rope_spec *spec = &t->sets[i].spec;
        int64_t border;
        uint32_t own;

        if (!ew_rope_depends_on_length(spec, &border) || (int64_t)len <= border)
            continue;
        own = spec->type == EW_ROPE_LONGROPE ? (uint32_t)border + 1 : len;
        regime = own > regime ? own : regime;
    }
    return regime;
}

bool ew_rope_must_restart(const struct ew_rope_tables *t, uint32_t regime, uint32_t len)
{
    for (uint32_t i = 0; i < t->n_sets; i++)
        if (t->sets[i].spec.type == EW_ROPE_LONGROPE &&
            !ew_rope_same_table(&t->sets[i].spec, regime, len))
            return true;
    return false;
}

static void fill(const struct ew_rope_tables *t, const struct ew_rope_input *set, uint32_t regime,
                 float *out)
{
    uint32_t n = t->cap;
    int64_t border = 0;

    if (ew_rope_depends_on_length(&set->spec, &border) && set->spec.type == EW_ROPE_DYNAMIC) {
        const uint32_t fixed = regime > border ? regime : (uint32_t)border;

        n = fixed < t->cap ? fixed : t->cap;
        for (uint32_t p = n; p < t->cap; p++)
            ew_rope_fill(&set->spec, (int64_t)p + 1, p, 1, out + (size_t)p * set->rd);
    }
    ew_rope_fill(&set->spec, regime, 0, n, out);
}

/* Filled in place, or by way of the host. */
static ew_status make(struct ew_rope_tables *t, const struct ew_rope_input *in, uint32_t regime,
                      struct ew_rope_table *at, ew_error *err)
{
    const ew_memory *m = t->memory;
    void *data = NULL, *host = NULL;
    ew_status st;

    EW_TRY(m->alloc(m->ctx, at->bytes, "rope table", &data, err));
    at->data = data;
    if (m->is_host) {
        fill(t, in, regime, at->data);
        return EW_STATUS_OK;
    }
    EW_TRY(m->alloc_host(m->ctx, at->bytes, "rope table", &host, err));
    fill(t, in, regime, host);
    st = m->copy(m->ctx, EW_COPY_UPLOAD, data, at->bytes, host, at->bytes, at->bytes, 1, err);
    m->release_host(m->ctx, host, at->bytes);
    return st;
}

ew_status ew_rope_tables_get(struct ew_rope_tables *t, uint32_t set, uint32_t regime, float **table,
                             ew_error *err)
{
    struct ew_rope_table *oldest = NULL;
    const struct ew_rope_input *in = &t->sets[set];

    if (!ew_rope_depends_on_length(&in->spec, NULL))
        regime = 0;
    t->clock++;
    for (uint32_t i = 0; i < t->n_tables; i++) {
        struct ew_rope_table *at = &t->tables[i];

        if (at->used && at->set == set && at->regime == regime) {
            at->used = t->clock;
            *table = at->data;
            return EW_STATUS_OK;
        }
        if (!oldest || at->used < oldest->used)
            oldest = at;
    }
    drop(t, oldest);
    if (!ew_size_mul((size_t)t->cap * in->rd, sizeof(float), &oldest->bytes))
        return ew_fail(err, EW_STATUS_NO_MEMORY, "rope table overflows");
    EW_TRY(make(t, in, regime, oldest, err));
    oldest->set = set;
    oldest->regime = regime;
    oldest->used = t->clock;
    *table = oldest->data;
    return EW_STATUS_OK;
}
