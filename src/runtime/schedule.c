/* runtime/schedule.c - handle_request: which rows run when.
 *
 *   loop: admit waiting requests into free rows -> prefill until every row lacks one token at most
 * -> one decode step
 *         -> rows that ended leave, the others move down
 *
 * Active rows are always cache rows 0..n_active-1. A step runs over neighbours that share a RoPE
 * regime, which is all of them unless the model's positions depend on length. The bits of a row do
 * not depend on its neighbours or on how its prompt was cut (kernels/attention.h,
 * kernels/linear.h), so neither does its text. */
#include <string.h>

#include "base/log.h"
#include "os/os.h"
#include "runtime/rt.h"

void ew_stage_add(struct ew_stage *stage, uint64_t ns)
{
    stage->ms[stage->n_runs % EW_STAGE_SAMPLES] = (double)ns / 1e6;
    stage->n_runs++;
    stage->total_ns += ns;
}

/* Tokens the row has that its cache has not. */
static uint32_t pending(const struct ew_runtime *rt, uint32_t r)
{
    return rt->rows[r]->n_ids - ew_lane_len(rt->lane, r);
}

static void fail_row(struct ew_runtime *rt, uint32_t r, ew_status st, const ew_error *err)
{
    (void)rt;
    ew_response_fail(rt->rows[r]->out, st, err);
    rt->rows[r]->done = true;
}

/* The row's table is chosen by the length it will be prefilled with; see rope_tables.h. */
static void restart_row(struct ew_runtime *rt, uint32_t r)
{
    rt->lane->kv->lengths[r] = 0;
    rt->lane->regimes[r] = ew_rope_regime(rt->lane->rope, rt->rows[r]->n_ids);
}

static void admit(struct ew_runtime *rt, const ew_request *req, uint32_t index, ew_response *out)
{
    const uint32_t r = rt->n_active;
    struct ew_row *row = NULL;
    ew_error err = { 0 };
    const ew_status st = ew_row_create(rt, req, index, out, &row, &err);

    if (st) {
        ew_response_fail(out, st, &err);
        return;
    }
    rt->rows[r] = row;
    rt->n_active++;
    restart_row(rt, r);
    out->n_reused = ew_prefix_load(&rt->prefixes, rt->lane->kv, r, rt->lane->regimes[r], row->ids,
                                   row->n_prompt, row->n_prompt - 1);
    rt->stats.reused_tokens += out->n_reused;
}

/* The row's next token, or why there is none. */
static void push_token(struct ew_runtime *rt, uint32_t r, ew_status st, int32_t token)
{
    struct ew_row *row = rt->rows[r];
    ew_error err = { 0 };

    if (st)
        (void)ew_fail(&err, st, "logits after %u tokens are not numbers", row->n_ids);
    else if ((uint32_t)token >= rt->config.vocab)
        st = ew_fail(&err, EW_STATUS_MISMATCH, "token %d, the embedding has %u rows", token,
                     rt->config.vocab);
    else
        st = ew_row_push(rt, row, token, &err);
    if (st)
        fail_row(rt, r, st, &err);
    else if (!row->done && ew_rope_must_restart(rt->lane->rope, rt->lane->regimes[r], row->n_ids))
        restart_row(rt, r);
}

/* What the device picked: -1 where the logits are not numbers. */
static void take_token(struct ew_runtime *rt, uint32_t r, int32_t token)
{
    push_token(rt, r, token < 0 ? EW_STATUS_DEVICE : EW_STATUS_OK, token);
}

static void sample_row(struct ew_runtime *rt, uint32_t r, const float *logits)
{
    struct ew_row *row = rt->rows[r];
    const uint32_t i_out = row->n_ids - row->n_prompt;
    const uint64_t t0 = ew_clock_ns();
    struct ew_sample_logprob *lp =
        row->logprobs ? row->logprobs + (size_t)i_out * (1 + row->params.n_logprobs) : NULL;
    int32_t token = -1;
    const ew_status st = ew_sampler_draw(&rt->sampler, logits, &row->params, &row->history,
                                         row->index, row->n_ids, &token, lp);

    rt->stats.sample_ns += ew_clock_ns() - t0;
    push_token(rt, r, st, token);
}

/* When the cache has all of the row's tokens; a row that needs no second step is kept too. */
static void save_prefix(struct ew_runtime *rt, uint32_t r)
{
    struct ew_row *row = rt->rows[r];
    ew_error err = { 0 };
    ew_status st;

    if (row->n_save == 0)
        return;
    st = ew_prefix_save(&rt->prefixes, rt->lane->kv, r, rt->lane->regimes[r], row->ids, row->n_save,
                        &err);
    if (st)
        ew_log(rt->logger, EW_LOG_WARN, "request %u: %s", row->index, err.text);
    row->n_save = 0;
}

/* Whether what the device can do is all that a row's scores need: nothing of its history or of its
 * caller's lists. */
static bool is_plain(const struct ew_sample_params *p)
{
    return p->repetition == 1.0 && p->presence == 0.0 && p->frequency == 0.0 &&
           !p->wants_logprobs && !p->n_bias;
}

/* Whether the row's tokens are picked where the logits are. A row's answer is the same in all of
 * its steps, whatever its neighbours want. */
static bool is_picked_there(const struct ew_runtime *rt, uint32_t r)
{
    const struct ew_sample_params *p = &rt->rows[r]->params;

    return rt->lane->picks_there && is_plain(p) &&
           (p->greedy || (rt->lane->draws_there && p->top_k <= EW_DRAW_MAX_TOP_K));
}

/* What a step brings back from rows [r0, r0 + n), beside a likeliest token a row. */
static void choose_results(struct ew_runtime *rt, uint32_t r0, uint32_t n,
                           struct ew_lane_step *step)
{
    step->no_logits = true;
    for (uint32_t i = 0; i < n; i++) {
        const struct ew_row *row = rt->rows[r0 + i];
        const struct ew_sample_params *p = &row->params;
        const bool there = is_picked_there(rt, r0 + i);

        rt->step_draws[i] = (ew_draw){ .top_p = 1.0 };
        if (pending(rt, r0 + i) > rt->step_n[i])
            continue; /* no token comes of it yet */
        step->no_logits = step->no_logits && there;
        if (!there || p->greedy)
            continue;
        rt->step_draws[i] = (ew_draw){ p->temperature, p->top_p,   p->min_p, p->seed,
                                       row->n_ids,     row->index, p->top_k };
        step->draws = rt->step_draws;
    }
}

/* The row's next token out of a step that has run. */
static void pick_token(struct ew_runtime *rt, uint32_t i, uint32_t r)
{
    const float *logits;
    ew_error err = { 0 };
    ew_status st;

    if (is_picked_there(rt, r) && ew_lane_token(rt->lane, i, 0) != EW_DRAW_LEFT) {
        take_token(rt, r, ew_lane_token(rt->lane, i, 0));
        return;
    }
    st = ew_lane_read_logits(rt->lane, i, &logits, &err);
    if (st)
        fail_row(rt, r, st, &err);
    else
        sample_row(rt, r, logits);
}

/* Whether rows [0, n), all there are, take one more step than this one unless a token ends one. */
static bool all_go_on(const struct ew_runtime *rt, uint32_t n)
{
    for (uint32_t r = 0; r < n; r++) {
        const struct ew_row *row = rt->rows[r];

        if (!row->params.greedy || !is_picked_there(rt, r) || row->n_ids + 2 > row->max_ids ||
            ew_rope_must_restart(rt->lane->rope, rt->lane->regimes[r], row->n_ids + 1))
            return false;
    }
    return n == rt->n_active;
}

/* One step over rows [r0, r0+n); rows whose cache has caught up get a token. */
static void run_group(struct ew_runtime *rt, uint32_t r0, uint32_t n, enum ew_stage_idx stage)
{
    struct ew_lane_step step = {
        .row0 = r0, .n_rows = n, .ids = rt->step_ids, .n = rt->step_n, .n_select = 1
    };
    const uint64_t t0 = ew_clock_ns();
    ew_error err = { 0 };
    uint64_t ns;
    ew_status st;

    choose_results(rt, r0, n, &step);
    step.ahead = stage == EW_STAGE_GENERATION && !r0 && all_go_on(rt, n);
    st = ew_lane_run(rt->lane, &step, &err);
    ns = ew_clock_ns() - t0;
    ew_stage_add(&rt->stages[stage], ns);
    for (uint32_t i = 0; i < n; i++) {
        if (stage == EW_STAGE_PREFILL)
            rt->stats.prefill_tokens += rt->step_n[i];
        if (st)
            fail_row(rt, r0 + i, st, &err);
        if (st || pending(rt, r0 + i) > 0)
            continue;
        save_prefix(rt, r0 + i);
        pick_token(rt, i, r0 + i);
    }
    if (stage == EW_STAGE_PREFILL) {
        rt->stats.prefill_runs++;
        rt->stats.prefill_ns += ns;
        return;
    }
    rt->stats.decode_steps++;
    rt->stats.decode_tokens += n;
    rt->stats.decode_ns += ns;
}

static void put_step_row(struct ew_runtime *rt, uint32_t i, uint32_t r, uint32_t n)
{
    rt->step_ids[i] = rt->rows[r]->ids + ew_lane_len(rt->lane, r);
    rt->step_n[i] = n;
}

/* Rows from r0 on that prefill together: padding them to the longest must not cost more than a
 * quarter. */
static uint32_t collect_prefill(struct ew_runtime *rt, uint32_t r0)
{
    uint32_t n = 0, longest = 0, sum = 0;

    for (uint32_t r = r0; r < rt->n_active; r++, n++) {
        uint32_t len;

        if (rt->rows[r]->done || pending(rt, r) < 2 ||
            rt->lane->regimes[r] != rt->lane->regimes[r0])
            break;
        len = pending(rt, r);
        len = len < rt->lane->max_input_len ? len : rt->lane->max_input_len;
        if (n > 0 && (uint64_t)(n + 1) * (len > longest ? len : longest) >
                         (uint64_t)(sum + len) + (sum + len) / 4 + 8)
            break;
        longest = len > longest ? len : longest;
        sum += len;
        put_step_row(rt, n, r, len);
    }
    return n;
}

static bool cancelled(const struct ew_runtime *rt)
{
    return atomic_load_explicit(&rt->cancel, memory_order_relaxed);
}

/* Until every row lacks at most the token it made last. A row may come back here: see
 * ew_rope_must_restart. */
static void prefill_rows(struct ew_runtime *rt)
{
    for (uint32_t r = 0; r < rt->n_active; r++)
        while (!rt->rows[r]->done && pending(rt, r) > 1 && !cancelled(rt))
            run_group(rt, r, collect_prefill(rt, r), EW_STAGE_PREFILL);
}

static void decode_rows(struct ew_runtime *rt)
{
    uint32_t r = 0;

    while (r < rt->n_active) {
        uint32_t n = 0;

        while (r + n < rt->n_active && !rt->rows[r + n]->done && pending(rt, r + n) == 1 &&
               rt->lane->regimes[r + n] == rt->lane->regimes[r]) {
            put_step_row(rt, n, r + n, 1);
            n++;
        }
        if (n > 0)
            run_group(rt, r, n, EW_STAGE_GENERATION);
        r += n > 0 ? n : 1;
    }
}

/* The rows that are left could not be moved: where their cache is, nobody knows. */
static void lose_rows(struct ew_runtime *rt, uint32_t n_before, ew_status st, const ew_error *err)
{
    for (uint32_t r = 0; r < rt->n_active; r++) {
        fail_row(rt, r, st, err);
        ew_row_finish(rt, rt->rows[r], EW_FINISH_ERROR);
    }
    for (uint32_t r = 0; r < n_before; r++)
        rt->lane->kv->lengths[r] = 0;
    rt->n_active = 0;
}

/* Rows that ended leave; the others move down, in the cache too. */
static void compact_rows(struct ew_runtime *rt)
{
    uint32_t kept = 0;
    const uint32_t n = rt->n_active;
    ew_error err = { 0 };
    ew_status st;

    for (uint32_t r = 0; r < n; r++) {
        struct ew_row *row = rt->rows[r];

        rt->step_map[r] = row->done ? -1 : (int32_t)kept;
        if (row->done) {
            (void)ew_lane_settle(rt->lane, NULL); /* what failed fails the next step too */
            ew_row_finish(rt, row, EW_FINISH_ERROR);
            continue;
        }
        rt->rows[kept] = row;
        rt->lane->regimes[kept] = rt->lane->regimes[r];
        kept++;
    }
    rt->n_active = kept;
    if (kept == n)
        return;
    /* A map made here is ascending and in range: only a device can refuse to copy. */
    st = ew_kv_compact(rt->lane->kv, rt->step_map, n, &err);
    if (st)
        lose_rows(rt, n, st, &err);
}

static void finish_all(struct ew_runtime *rt, enum ew_finish finish)
{
    (void)ew_lane_settle(rt->lane, NULL);
    for (uint32_t r = 0; r < rt->n_active; r++) {
        rt->lane->kv->lengths[r] = 0;
        ew_row_finish(rt, rt->rows[r], finish);
    }
    rt->n_active = 0;
}

static void handle(struct ew_runtime *rt, const ew_request *requests, uint32_t n, ew_response *out)
{
    uint32_t next = 0;

    while ((next < n || rt->n_active > 0) && !cancelled(rt)) {
        while (next < n && rt->n_active < rt->lane->max_batch) {
            admit(rt, &requests[next], next, &out[next]);
            next++;
        }
        prefill_rows(rt);
        compact_rows(rt);
        if (cancelled(rt))
            break;
        decode_rows(rt);
        compact_rows(rt);
    }
    finish_all(rt, EW_FINISH_CANCELLED);
    for (; next < n; next++)
        out[next].finish = EW_FINISH_CANCELLED;
}

ew_status ew_runtime_handle_request(ew_runtime *rt, const ew_request *requests, uint32_t n,
                                    ew_response *out, ew_error *err)
{
    if (!rt || (n > 0 && (!requests || !out)))
        return ew_fail(err, EW_STATUS_INVALID_ARG, "handle_request: no runtime, requests or out");
    if (atomic_exchange(&rt->busy, true))
        return ew_fail(err, EW_STATUS_BUSY, "the runtime handles another request");
    atomic_store(&rt->cancel, false);
    if (n > 0)
        memset(out, 0, n * sizeof(*out));
    rt->start_ns = ew_clock_ns();
    handle(rt, requests, n, out);
    atomic_store(&rt->busy, false);
    return EW_STATUS_OK;
}

void ew_runtime_cancel(ew_runtime *rt)
{
    if (rt)
        atomic_store(&rt->cancel, true);
}
