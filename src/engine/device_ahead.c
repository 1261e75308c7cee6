/* engine/device_ahead.c - steps that begin before the host knows their tokens.
 *
 *   run k    ids, lengths uploaded -> one kernel: tokens k to the host, and to ids; lengths + 1
 *   run k+1  the same graph again, nothing uploaded: asked for before run k is waited for
 *
 * The device so never waits for the host. The host's copy of the small block (small_host) says what
 * the device has: when a run has ended, its tokens and lengths are put there, and the next run is
 * the one under way if its inputs are the same bytes. */
#include "engine/device_impl.h"

#include <assert.h>
#include <string.h>

static int32_t *small_int(const struct ew_on_device *d, uint32_t i)
{
    return (int32_t *)(void *)((uint8_t *)d->small_host.data + d->in[i].small_at);
}

/* Whether input i is n small integers of the upload. */
static bool is_of(const struct ew_on_device *d, uint32_t i, size_t n)
{
    return d->in[i].small && d->in[i].bytes == n * sizeof(int32_t);
}

/* The one input that is made of n ids. */
static bool find_ids(const struct ew_context *c, size_t n, uint32_t *ids)
{
    const struct ew_on_device *d = c->dev;
    uint32_t found = 0;

    for (uint32_t i = 0; i < c->engine->plan.n_inputs; i++)
        if (c->in[i].ids) {
            *ids = i;
            found += d->in[i].n_ids == n ? 1 : 2;
        }
    return found == 1;
}

ew_status ew_launch_lead_on(struct ew_context *c, struct ew_launch *l, uint32_t o, size_t n,
                            bool *can)
{
    const struct ew_backend *b = c->engine->backend;
    struct ew_on_device *d = c->dev;
    uint32_t lengths, start;

    *can = false;
    l->lead.on = false;
    if (!b->emit_lead_on || n > EW_AHEAD_MAX_ROWS || !ew_launch_lengths(l, &lengths, &start) ||
        !is_of(d, lengths, n) || (start != EW_PLAN_NONE && !is_of(d, start, n)) ||
        !find_ids(c, n, &l->lead.ids))
        return EW_STATUS_OK;
    /* of one size for good: lists hold its address */
    EW_TRY(ew_buffer_grow(d, &d->lead_tokens, EW_AHEAD_MAX_ROWS * 2 * sizeof(int32_t), "tokens",
                          true, &c->err));
    l->lead.out = o;
    l->lead.n = (uint32_t)n;
    l->lead.on = *can = b->emit_lead_on(&l->list, ew_context_out_address(c, o, 0),
                                        d->in[lengths].address, d->lead_tokens.data,
                                        (uint8_t *)d->small.data + d->in[l->lead.ids].small_at);
    return EW_STATUS_OK;
}

/* Whether the inputs are what the run before left. */
static bool is_next(const struct ew_context *c)
{
    const struct ew_on_device *d = c->dev;

    for (uint32_t i = 0; i < c->engine->plan.n_inputs; i++) {
        if (c->in[i].ids
                ? memcmp(small_int(d, i), c->in[i].ids, d->in[i].n_ids * sizeof(int32_t)) != 0
                : d->in[i].small && memcmp(small_int(d, i), c->in[i].address, d->in[i].bytes) != 0)
            return false;
    }
    return true;
}

/* The host's copy of what the run left. The start is nothing that such a list reads. */
static void note_left(const struct ew_context *c, const struct ew_launch *l, const int32_t *tokens)
{
    uint32_t lengths, start;

    memcpy(small_int(c->dev, l->lead.ids), tokens, l->lead.n * sizeof(*tokens));
    if (!ew_launch_lengths(l, &lengths, &start))
        return;
    for (uint32_t r = 0; r < l->lead.n; r++) {
        small_int(c->dev, lengths)[r]++;
        if (start != EW_PLAN_NONE)
            small_int(c->dev, start)[r]++;
    }
}

/* Whether the device can do the next run with nothing of the host. */
static bool may_go_on(struct ew_context *c, const struct ew_launch *l)
{
    const struct ew_on_device *d = c->dev;

    if ((c->flags & (EW_CONTEXT_PROFILE | EW_CONTEXT_NO_GRAPH)) || ew_trace_is_on() ||
        !ew_context_device_keeps_outputs(c))
        return false;
    for (uint32_t i = 0; i < c->engine->plan.n_inputs; i++)
        if (!c->in[i].on_device && !c->in[i].ids && !d->in[i].small && d->in[i].bytes)
            return false;
    if (ew_launch_check_next(c, l)) {
        c->err.status = EW_STATUS_OK;
        c->err.text[0] = 0;
        return false;
    }
    return true;
}

static ew_status begin(struct ew_context *c, struct ew_launch *l)
{
    const struct ew_on_device *d = c->dev;

    EW_TRY(ew_context_device_issue(c, l));
    return d->device->ops->mark(d->stream, (unsigned)(l->lead.n_runs++ % 2), &c->err);
}

ew_status ew_launch_run_leading(struct ew_context *c, struct ew_launch *l, bool ahead)
{
    struct ew_on_device *d = c->dev;
    const int32_t *tokens = d->lead_tokens.data;
    unsigned turn;

    if (d->begun == l && is_next(c)) {
        d->begun = NULL;
    } else {
        EW_TRY(ew_context_device_settle(c));
        EW_TRY(ew_context_device_copy_in(c, l));
        EW_TRY(begin(c, l));
    }
    turn = (unsigned)((l->lead.n_runs - 1) % 2);
    EW_TRY(ew_context_device_copy_out(c, l));
    if (ahead && may_go_on(c, l)) {
        d->begun = l;
        EW_TRY(begin(c, l));
        EW_TRY(d->device->ops->wait_mark(d->stream, turn, &c->err));
    } else {
        EW_TRY(d->device->ops->wait(d->stream, &c->err));
    }
    memcpy(c->out[l->lead.out].tokens, tokens + turn * l->lead.n, l->lead.n * sizeof(*tokens));
    note_left(c, l, tokens + turn * l->lead.n);
    return EW_STATUS_OK;
}

ew_status ew_context_device_settle(struct ew_context *c)
{
    struct ew_on_device *d = c->dev;

    if (!d->begun)
        return EW_STATUS_OK;
    d->begun = NULL;
    return d->device->ops->wait(d->stream, &c->err);
}
