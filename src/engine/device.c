/* engine/device.c - a context on a device: where its inputs and outputs are there, and one run. */
#include "engine/device_impl.h"

#include "base/size.h"

#define ALIGN       256
#define SMALL_BYTES 65536 /* larger inputs travel by themselves */
#define DRAWS_MAX   1024  /* rows of an output that tokens are drawn from */
/* Buffers are made for a profile's largest shape at once where that is no more: one that grows
 * moves, and what was captured with it is captured again. */
#define ROOM_BYTES ((size_t)64 << 20)

struct ew_stream *ew_context_stream(const struct ew_context *c)
{
    return c->dev->stream;
}

static size_t at_least_one(size_t bytes)
{
    return bytes ? bytes : 1;
}

static const ew_memory *memory_of(const struct ew_on_device *d)
{
    return &d->device->memory;
}

/* Grown, contents lost. */
ew_status ew_buffer_grow(struct ew_on_device *d, struct buffer *b, size_t bytes, const char *what,
                         bool on_host, ew_error *err)
{
    const ew_memory *m = memory_of(d);
    void *more = NULL;

    if (b->data && b->cap >= bytes)
        return EW_STATUS_OK;
    EW_TRY((on_host ? m->alloc_host : m->alloc)(m->ctx, bytes ? bytes : 1, what, &more, err));
    if (b->data)
        (on_host ? m->release_host : m->release)(m->ctx, b->data, b->cap);
    b->data = more;
    b->cap = bytes ? bytes : 1;
    return EW_STATUS_OK;
}

static void drop(struct ew_on_device *d, struct buffer *b, bool on_host)
{
    const ew_memory *m = memory_of(d);

    if (b->data)
        (on_host ? m->release_host : m->release)(m->ctx, b->data, b->cap);
    *b = (struct buffer){ 0 };
}

/* Largest bytes of input i over the profiles. */
static size_t largest_input(const struct ew_plan *p, uint32_t i)
{
    const struct ew_plan_tensor *t = &p->tensors[p->inputs[i]];
    size_t most = 0, bytes;

    for (uint32_t k = 0; k < p->n_profiles; k++) {
        const struct ew_type type = ew_type_make(t->dtype, t->n_dims, p->profiles[k].inputs[i].max);

        if (!ew_type_bytes(&type, &bytes))
            return SIZE_MAX;
        most = bytes > most ? bytes : most;
    }
    return most;
}

/* The same of output o; SIZE_MAX: not known. */
static size_t largest_output(const struct ew_engine *e, uint32_t o)
{
    size_t most = 0, bytes;

    for (uint32_t k = 0; k < e->plan.n_profiles; k++) {
        ew_tensor_info t;
        struct ew_type type;

        if (ew_engine_get_tensor(e, e->plan.n_inputs + o, k, &t))
            return SIZE_MAX;
        type = ew_type_make(t.dtype, (int)t.n_dims, t.max);
        for (uint32_t i = 0; i < t.n_dims; i++)
            if (t.max[i] < 0)
                return SIZE_MAX;
        if (!ew_type_bytes(&type, &bytes))
            return SIZE_MAX;
        most = bytes > most ? bytes : most;
    }
    return most;
}

/* Room to make where `bytes` are needed now. */
static size_t room_for(size_t bytes, size_t largest)
{
    return largest > bytes && largest <= ROOM_BYTES ? largest : bytes;
}

static bool is_updated(const struct ew_plan *p, uint32_t i)
{
    for (uint32_t o = 0; o < p->n_outputs; o++)
        if (p->outputs[o].alias == p->inputs[i])
            return true;
    return false;
}

/* Of token ids in place of the rows of an embedding. */
static size_t ids_room(const struct ew_plan *p, uint32_t i, size_t most)
{
    const struct ew_plan_tensor *t = &p->tensors[p->inputs[i]];
    const int64_t width = t->n_dims > 0 ? t->dim[t->n_dims - 1] : 0;

    if (p->embedding == EW_PLAN_NONE || t->dtype != EW_DTYPE_F32 || width < 1 ||
        width != p->tensors[p->embedding].dim[1])
        return 0;
    return ew_align_up(most / (size_t)width, ALIGN);
}

/* Most rows of output o, for draws; 0: not of this one. */
static size_t draw_rows(const struct ew_engine *e, uint32_t o)
{
    const struct ew_plan *p = &e->plan;
    size_t most = 0;

    if (p->outputs[o].alias != EW_PLAN_NONE ||
        p->tensors[p->outputs[o].tensor].dtype != EW_DTYPE_F32)
        return 0;
    for (uint32_t k = 0; k < p->n_profiles; k++) {
        ew_tensor_info t;
        size_t rows = 1;

        if (ew_engine_get_tensor(e, p->n_inputs + o, k, &t) || t.n_dims < 1)
            return 0;
        for (uint32_t i = 0; i + 1 < t.n_dims; i++)
            if (t.max[i] < 0 || t.max[i] > DRAWS_MAX)
                return 0;
            else
                rows *= (size_t)t.max[i];
        most = rows > most ? rows : most;
    }
    return most > DRAWS_MAX ? 0 : most;
}

bool ew_context_device_draws(const struct ew_context *c, uint32_t o)
{
    return c->dev->draws[o].rows > 0;
}

static ew_status open_small(struct ew_context *c, ew_error *err)
{
    const struct ew_plan *p = &c->engine->plan;
    struct ew_on_device *d = c->dev;
    size_t bytes;
    bool fits = true;

    for (uint32_t o = 0; o < p->n_outputs; o++) {
        d->draws[o] = (struct draws){ d->draws_bytes, draw_rows(c->engine, o) };
        d->draws_bytes += ew_align_up(d->draws[o].rows * sizeof(ew_draw), ALIGN);
    }
    bytes = d->draws_bytes;
    for (uint32_t i = 0; i < p->n_inputs && fits; i++) {
        const size_t most = largest_input(p, i);

        fits = most < SIZE_MAX / 2 && ew_size_add(bytes, ids_room(p, i, most), &bytes);
        if (fits && !is_updated(p, i))
            fits = ew_size_add(bytes, ew_align_up(most < SMALL_BYTES ? most : SMALL_BYTES, ALIGN),
                               &bytes);
    }
    if (!fits)
        return ew_fail(err, EW_STATUS_LIMIT, "inputs of more bytes than there are addresses");
    EW_TRY(ew_buffer_grow(d, &d->small, bytes, "inputs", false, err));
    return ew_buffer_grow(d, &d->small_host, bytes, "inputs", true, err);
}

ew_status ew_context_device_open(struct ew_context *c, ew_error *err)
{
    const struct ew_plan *p = &c->engine->plan;
    struct ew_on_device *d = ew_mem_calloc(EW_MEM_CONTEXT, 1, sizeof(*d));
    const ew_memory *m;

    if (!d)
        return ew_fail(err, EW_STATUS_NO_MEMORY, "context");
    c->dev = d;
    d->device = c->engine->device;
    m = memory_of(d);
    d->in = ew_mem_calloc(EW_MEM_CONTEXT, p->n_inputs + 1u, sizeof(*d->in));
    d->held = ew_mem_calloc(EW_MEM_CONTEXT, p->n_outputs + 1u, sizeof(*d->held));
    d->host_out = ew_mem_calloc(EW_MEM_CONTEXT, p->n_outputs + 1u, sizeof(*d->host_out));
    d->tokens = ew_mem_calloc(EW_MEM_CONTEXT, p->n_outputs + 1u, sizeof(*d->tokens));
    d->draws = ew_mem_calloc(EW_MEM_CONTEXT, p->n_outputs + 1u, sizeof(*d->draws));
    if (!d->in || !d->held || !d->host_out || !d->tokens || !d->draws)
        return ew_fail(err, EW_STATUS_NO_MEMORY, "context");
    EW_TRY(d->device->ops->open_stream(d->device, &d->stream, err));
    EW_TRY(m->alloc(m->ctx, at_least_one(c->block_bytes), "activations", &d->block, err));
    EW_TRY(open_small(c, err));
    c->block = d->block;
    c->shared_bytes = (size_t)p->device.scratch_bytes;
    d->counters_bytes = (size_t)p->device.counter_bytes;
    EW_TRY(m->alloc(m->ctx, at_least_one(c->shared_bytes), "scratch", &d->scratch, err));
    return m->alloc(m->ctx, at_least_one(d->counters_bytes), "counters", &d->counters, err);
}

void ew_context_device_close(struct ew_context *c)
{
    const struct ew_plan *p = &c->engine->plan;
    struct ew_on_device *d = c->dev;
    const ew_memory *m = memory_of(d);

    if (d->stream)
        (void)d->device->ops->wait(d->stream, NULL);
    for (uint32_t i = 0; d->in && i < p->n_inputs; i++)
        drop(d, &d->in[i].own, false);
    for (uint32_t o = 0; o < p->n_outputs; o++) {
        if (d->held)
            drop(d, &d->held[o], false);
        if (d->host_out)
            drop(d, &d->host_out[o], true);
        if (d->tokens)
            drop(d, &d->tokens[o], false);
    }
    drop(d, &d->small, false);
    drop(d, &d->small_host, true);
    drop(d, &d->lead_tokens, true);
    m->release(m->ctx, d->block, at_least_one(c->block_bytes));
    m->release(m->ctx, d->scratch, at_least_one(c->shared_bytes));
    m->release(m->ctx, d->counters, at_least_one(d->counters_bytes));
    if (d->stream)
        d->device->ops->close_stream(d->stream);
    ew_mem_free(d->in);
    ew_mem_free(d->held);
    ew_mem_free(d->host_out);
    ew_mem_free(d->tokens);
    ew_mem_free(d->draws);
    ew_mem_free(d);
    c->dev = NULL;
    c->block = NULL; /* was the device's */
}

void *ew_context_in_address(const struct ew_context *c, uint32_t i)
{
    return c->dev && (!c->in[i].on_device || c->in[i].ids) ? c->dev->in[i].address
                                                           : c->in[i].address;
}

/* A place in the small block. It was made for the profiles' largest shapes, which a file says: what
 * does not fit is refused. */
static ew_status take_small(struct ew_context *c, const char *name, size_t bytes, size_t *at)
{
    struct ew_on_device *d = c->dev;
    const size_t room = ew_align_up(bytes, ALIGN);

    if (room > d->small.cap - d->small_used)
        return ew_fail(&c->err, EW_STATUS_LIMIT, "input '%s' is larger than its profile says",
                       name);
    *at = d->small_used;
    d->small_used += room;
    return EW_STATUS_OK;
}

ew_status ew_context_device_place(struct ew_context *c)
{
    const struct ew_plan *p = &c->engine->plan;
    struct ew_on_device *d = c->dev;

    d->small_used = d->draws_bytes;
    for (uint32_t i = 0; i < p->n_inputs; i++) {
        struct place *at = &d->in[i];
        const char *const name = p->tensors[p->inputs[i]].name;

        at->address = NULL;
        at->small = false;
        if (!ew_type_bytes(&c->in_type[i], &at->bytes))
            return ew_fail(&c->err, EW_STATUS_LIMIT, "input '%s' is too large", name);
        at->n_ids = 0;
        if ((c->in[i].on_device && !c->in[i].ids) || !at->bytes)
            continue;
        if (c->in[i].ids) {
            const int64_t width = c->in_type[i].dim[c->in_type[i].n_dims - 1];

            if (width < 1 || width != p->tensors[p->embedding].dim[1])
                return ew_fail(&c->err, EW_STATUS_INVALID_ARG,
                               "input '%s' has %lld columns, the embedding %lld", name,
                               (long long)width, (long long)p->tensors[p->embedding].dim[1]);
            at->n_ids = at->bytes / sizeof(float) / (size_t)width;
            EW_TRY(take_small(c, name, at->n_ids * sizeof(int32_t), &at->small_at));
        } else if (at->bytes <= SMALL_BYTES && !is_updated(p, i)) {
            EW_TRY(take_small(c, name, at->bytes, &at->small_at));
            at->small = true;
            at->address = (uint8_t *)d->small.data + at->small_at;
            continue;
        }
        EW_TRY(ew_buffer_grow(d, &at->own, room_for(at->bytes, largest_input(p, i)), name, false,
                              &c->err));
        at->address = at->own.data;
    }
    return EW_STATUS_OK;
}

void *ew_context_device_held(struct ew_context *c, uint32_t o, size_t bytes)
{
    struct ew_on_device *d = c->dev;

    if (ew_buffer_grow(d, &d->held[o], room_for(bytes, largest_output(c->engine, o)),
                       c->engine->plan.outputs[o].name, false, &c->err))
        return NULL;
    return d->held[o].data;
}

void *ew_context_device_held_now(const struct ew_context *c, uint32_t o)
{
    return c->dev->held[o].data;
}

ew_status ew_context_device_scratch(struct ew_context *c, const struct ew_step_list *list,
                                    bool *grown)
{
    struct ew_on_device *d = c->dev;
    struct buffer scratch = { d->scratch, at_least_one(c->shared_bytes) },
                  counters = { d->counters, at_least_one(d->counters_bytes) };

    *grown = list->shared_bytes > scratch.cap || list->counter_bytes > counters.cap;
    if (!*grown)
        return EW_STATUS_OK;
    /* Lists made before hold the old addresses. */
    EW_TRY(d->device->ops->wait(d->stream, &c->err));
    ew_context_forget(c, NULL);
    EW_TRY(ew_buffer_grow(d, &scratch, list->shared_bytes, "scratch", false, &c->err));
    d->scratch = scratch.data;
    c->shared_bytes = scratch.cap > c->shared_bytes ? scratch.cap : c->shared_bytes;
    EW_TRY(ew_buffer_grow(d, &counters, list->counter_bytes, "counters", false, &c->err));
    d->counters = counters.data;
    d->counters_bytes = counters.cap > d->counters_bytes ? counters.cap : d->counters_bytes;
    return EW_STATUS_OK;
}

void ew_context_device_emit(const struct ew_context *c, struct ew_emit *e)
{
    const struct ew_on_device *d = c->dev;

    e->device = d->device;
    e->scratch = d->scratch;
    e->scratch_bytes = c->shared_bytes;
    e->counters = d->counters;
    e->counters_bytes = d->counters_bytes;
}

/* Rows of a tensor's last axis; false: none, or too many. */
static bool row_count(const struct ew_launch *l, uint32_t tensor, size_t *rows)
{
    const struct ew_type *t = &l->shapes.type[tensor];
    size_t count;

    if (t->n_dims < 1 || t->dim[t->n_dims - 1] < 1 || !ew_type_count(t, &count))
        return false;
    *rows = count / (size_t)t->dim[t->n_dims - 1];
    return *rows > 0;
}

/* The first byte of the small block that this run uploads: draws are left out where there are none.
 */
static size_t copy_draws(const struct ew_context *c, const struct ew_launch *l)
{
    const struct ew_plan *p = &c->engine->plan;
    const struct ew_on_device *d = c->dev;
    size_t first = d->draws_bytes, rows;

    for (uint32_t o = p->n_outputs; o-- > 0;)
        if (c->out[o].draws && row_count(l, p->outputs[o].tensor, &rows)) {
            memcpy((uint8_t *)d->small_host.data + d->draws[o].at, c->out[o].draws,
                   rows * sizeof(ew_draw));
            first = d->draws[o].at;
        }
    return first;
}

ew_status ew_context_device_copy_in(struct ew_context *c, const struct ew_launch *l)
{
    const struct ew_plan *p = &c->engine->plan;
    const struct ew_on_device *d = c->dev;
    const size_t first = copy_draws(c, l);

    for (uint32_t i = 0; i < p->n_inputs; i++) {
        uint8_t *const to = (uint8_t *)d->small_host.data + d->in[i].small_at;

        if (c->in[i].ids)
            memcpy(to, c->in[i].ids, d->in[i].n_ids * sizeof(int32_t));
        else if (d->in[i].small)
            memcpy(to, c->in[i].address, d->in[i].bytes);
    }
    EW_TRY(d->device->ops->upload(d->stream, (uint8_t *)d->small.data + first,
                                  (const uint8_t *)d->small_host.data + first,
                                  d->small_used - first, &c->err));
    for (uint32_t i = 0; i < p->n_inputs; i++)
        if (!c->in[i].on_device && !c->in[i].ids && !d->in[i].small)
            EW_TRY(d->device->ops->upload(d->stream, d->in[i].address, c->in[i].address,
                                          d->in[i].bytes, &c->err));
    return EW_STATUS_OK;
}

ew_status ew_context_device_before(struct ew_context *c, struct ew_launch *l)
{
    const struct ew_plan *p = &c->engine->plan;
    const struct ew_on_device *d = c->dev;
    struct ew_emit e = { .plan = p, .slot = p->n_nodes + p->n_outputs };

    ew_context_device_emit(c, &e);
    for (uint32_t i = 0; i < p->n_inputs; i++) {
        const struct ew_plan_tensor *table = &p->tensors[p->embedding];

        if (c->in[i].ids)
            EW_TRY(
                c->engine->backend->emit_embed(&l->list, &e, d->in[i].address, table,
                                               (const uint8_t *)d->device->weights + table->off,
                                               (const uint8_t *)d->small.data + d->in[i].small_at,
                                               d->in[i].n_ids, c->in[i].scale, &c->err));
    }
    return EW_STATUS_OK;
}

ew_status ew_context_device_end(struct ew_context *c, struct ew_launch *l, size_t first)
{
    struct ew_emit e = { .plan = &c->engine->plan };

    ew_context_device_emit(c, &e);
    return c->engine->backend->emit_end(&l->list, &e, first, &c->err);
}

static ew_status emit_pick(struct ew_context *c, struct ew_launch *l, const struct ew_emit *e,
                           uint32_t o, size_t rows)
{
    const struct ew_type *t = &l->shapes.type[c->engine->plan.outputs[o].tensor];
    const struct ew_backend *b = c->engine->backend;
    const struct ew_on_device *d = c->dev;
    const void *x = ew_context_out_address(c, o, 0);
    const size_t n = (size_t)t->dim[t->n_dims - 1];

    if (!c->out[o].draws)
        return b->emit_argmax(&l->list, e, x, rows, n, d->tokens[o].data, &c->err);
    if (rows > d->draws[o].rows)
        return ew_fail(&c->err, EW_STATUS_LIMIT, "output '%s' has %zu rows, its profile says %zu",
                       c->engine->plan.outputs[o].name, rows, d->draws[o].rows);
    return b->emit_draw(&l->list, e, x, rows, n, (const uint8_t *)d->small.data + d->draws[o].at,
                        d->tokens[o].data, &c->err);
}

ew_status ew_context_device_after(struct ew_context *c, struct ew_launch *l)
{
    const struct ew_plan *p = &c->engine->plan;
    struct ew_on_device *d = c->dev;

    for (uint32_t o = 0; o < p->n_outputs; o++) {
        const struct ew_type *t = &l->shapes.type[p->outputs[o].tensor];
        struct ew_emit e = { .plan = p, .slot = p->n_nodes + o };
        size_t rows;

        bool leads = false;

        if (!c->out[o].tokens || !row_count(l, p->outputs[o].tensor, &rows))
            continue;
        if (!c->out[o].draws)
            EW_TRY(ew_launch_lead_on(c, l, o, rows, &leads));
        if (leads)
            continue;
        if (t->dtype != EW_DTYPE_F32)
            return ew_fail(&c->err, EW_STATUS_UNSUPPORTED, "tokens of output '%s': it is %s",
                           p->outputs[o].name, ew_dtype_text(t->dtype));
        if (rows * sizeof(int32_t) > d->tokens[o].cap) {
            const size_t room = rows > d->draws[o].rows ? rows : d->draws[o].rows;

            /* lists made before hold the old address */
            EW_TRY(d->device->ops->wait(d->stream, &c->err));
            ew_context_forget(c, NULL);
            EW_TRY(
                ew_buffer_grow(d, &d->tokens[o], room * sizeof(int32_t), "tokens", false, &c->err));
        }
        ew_context_device_emit(c, &e);
        EW_TRY(emit_pick(c, l, &e, o, rows));
    }
    return EW_STATUS_OK;
}

/* Input whose memory output o shares, or n_inputs. */
static uint32_t alias_input(const struct ew_plan *p, uint32_t o)
{
    uint32_t i = 0;

    while (i < p->n_inputs && p->outputs[o].alias != p->inputs[i])
        i++;
    return i;
}

ew_status ew_context_device_copy_out(struct ew_context *c, const struct ew_launch *l)
{
    const struct ew_plan *p = &c->engine->plan;
    const struct ew_on_device *d = c->dev;

    for (uint32_t o = 0; o < p->n_outputs; o++) {
        const uint32_t i = alias_input(p, o);
        const bool updates = i < p->n_inputs && !c->in[i].on_device;
        void *const to = updates ? c->in[i].address : c->out[o].address;
        size_t bytes, rows;

        if (c->out[o].tokens && !(l->lead.on && l->lead.out == o) &&
            row_count(l, p->outputs[o].tensor, &rows))
            EW_TRY(d->device->ops->download(d->stream, c->out[o].tokens, d->tokens[o].data,
                                            rows * sizeof(int32_t), &c->err));
        if (!to || (!updates && (c->out[o].on_device || i < p->n_inputs)) ||
            !ew_type_bytes(&l->shapes.type[p->outputs[o].tensor], &bytes))
            continue;
        EW_TRY(d->device->ops->download(d->stream, to, ew_context_out_address(c, o, 0), bytes,
                                        &c->err));
    }
    return EW_STATUS_OK;
}

bool ew_context_device_keeps_outputs(const struct ew_context *c)
{
    const struct ew_plan *p = &c->engine->plan;

    for (uint32_t o = 0; o < p->n_outputs; o++) {
        const uint32_t i = alias_input(p, o);

        if (i < p->n_inputs ? !c->in[i].on_device : c->out[o].address && !c->out[o].on_device)
            return false;
    }
    return true;
}

static ew_status issue_timed(struct ew_context *c, struct ew_launch *l)
{
    const struct ew_on_device *d = c->dev;

    EW_TRY(ew_context_step_times(c, l->list.n + 1));
    EW_TRY(d->device->ops->issue(d->stream, &l->list, 0, l->list.n, c->step_ns, &c->err));
    for (size_t s = 0; s < l->list.n; s++)
        ew_context_note_step(c, &l->list.steps[s], c->step_ns[s], c->step_ns[s + 1]);
    return EW_STATUS_OK;
}

ew_status ew_context_device_issue(struct ew_context *c, struct ew_launch *l)
{
    const struct ew_on_device *d = c->dev;
    const struct ew_device_ops *ops = d->device->ops;

    if ((c->flags & EW_CONTEXT_PROFILE) || ew_trace_is_on())
        return issue_timed(c, l);
    if (c->flags & EW_CONTEXT_NO_GRAPH)
        return ops->issue(d->stream, &l->list, 0, l->list.n, NULL, &c->err);
    if (!l->recording)
        EW_TRY(ops->record(d->stream, &l->list, &l->recording, &c->err));
    return ops->replay(d->stream, l->recording, &c->err);
}

static ew_status run_once(struct ew_context *c, struct ew_launch *l)
{
    const struct ew_on_device *d = c->dev;

    EW_TRY(ew_context_device_copy_in(c, l));
    EW_TRY(ew_context_device_issue(c, l));
    EW_TRY(ew_context_device_copy_out(c, l));
    return d->device->ops->wait(d->stream, &c->err);
}

ew_status ew_context_device_run(struct ew_context *c, struct ew_launch *l, bool ahead)
{
    struct ew_on_device *d = c->dev;
    ew_status st;

    EW_TRY(ew_launch_check_lengths(c, l));
    st = l->lead.on ? ew_launch_run_leading(c, l, ahead) : run_once(c, l);
    if (st) { /* what went through may still read and write the caller's memory */
        d->begun = NULL;
        (void)d->device->ops->wait(d->stream, NULL);
    }
    return st;
}

ew_status ew_context_device_read(struct ew_context *c, uint32_t o, const void **data)
{
    const struct ew_plan *p = &c->engine->plan;
    const uint32_t i = alias_input(p, o);
    struct ew_on_device *d = c->dev;
    size_t bytes;

    *data = i < p->n_inputs ? c->in[i].address : c->out[o].address;
    if (*data)
        return EW_STATUS_OK;
    if (d->begun)
        return ew_fail(&c->err, EW_STATUS_INVALID_ARG, "output '%s': the next run is under way",
                       p->outputs[o].name);
    if (!ew_type_bytes(&c->last->shapes.type[p->outputs[o].tensor], &bytes))
        return ew_fail(&c->err, EW_STATUS_LIMIT, "output '%s' is too large", p->outputs[o].name);
    EW_TRY(ew_buffer_grow(d, &d->host_out[o], bytes, p->outputs[o].name, true, &c->err));
    EW_TRY(
        d->device->ops->download(d->stream, d->host_out[o].data, d->held[o].data, bytes, &c->err));
    EW_TRY(d->device->ops->wait(d->stream, &c->err));
    *data = d->host_out[o].data;
    return EW_STATUS_OK;
}
