/* The runtime's scheduler, rows and stop rules over a stand-in engine (mock_engine.h): the text of
 * a request must not depend on its neighbours, on chunks, on reused prefixes or on compaction. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "edgewise/runtime.h"
#include "mock_engine.h"
#include "runtime/rope_tables.h"
#include "runtime/stop.h"
#include "sample/sampler.h"

enum { N_REQUESTS = 11 };

static int32_t prompts[N_REQUESTS][20];

static ew_runtime *open_mock(void)
{
    ew_runtime *rt = NULL;
    ew_error err = { 0 };
    const ew_status st = ew_runtime_open("no-such-directory", NULL, &rt, &err);

    if (st)
        fail_msg("%s", err.text);
    return rt;
}

static ew_request make_request(uint32_t i)
{
    ew_request r = EW_REQUEST_INIT;
    const uint32_t n = 1 + (i * 7) % 19;

    for (uint32_t t = 0; t < n; t++)
        prompts[i][t] = (int32_t)((i * 31 + t * 17 + t * t) % MOCK_V);
    r.prompt_ids = prompts[i];
    r.n_prompt_ids = n;
    r.max_tokens = 5 + i * 3;
    r.sampling.seed = 99;
    r.sampling.greedy = i % 3 == 0;
    r.sampling.repetition_penalty = i % 4 == 1 ? 1.3 : 0;
    return r;
}

/* What the mock's model says, computed from the whole sequence each time. */
static void expect_greedy(const ew_response *out, const ew_request *req)
{
    int32_t ids[MOCK_CAP];
    uint32_t n = req->n_prompt_ids;

    memcpy(ids, req->prompt_ids, n * sizeof(*ids));
    for (uint32_t i = 0; i < out->n_ids; i++) {
        float logits[MOCK_V];
        int32_t best = 0;

        mock_logits(logits, ids, n);
        for (int32_t v = 1; v < MOCK_V; v++)
            best = logits[v] > logits[best] ? v : best;
        assert_int_equal(out->ids[i], best);
        ids[n++] = best;
    }
}

static void handle(ew_runtime *rt, const ew_request *r, uint32_t n, ew_response *out)
{
    ew_error err = { 0 };

    assert_int_equal(ew_runtime_handle_request(rt, r, n, out, &err), 0);
}

/* Eleven requests through four rows, and the last alone in another runtime with the same place in
 * the list. */
static void test_batch_equals_alone(void **state)
{
    ew_runtime *rt = open_mock();
    ew_request r[N_REQUESTS];
    ew_response out[N_REQUESTS], alone[N_REQUESTS];

    (void)state;
    for (uint32_t i = 0; i < N_REQUESTS; i++)
        r[i] = make_request(i);
    mock_max_rows = 0;
    handle(rt, r, N_REQUESTS, out);
    assert_int_equal(mock_max_rows, MOCK_B);
    for (uint32_t i = 0; i < N_REQUESTS; i++) {
        ew_request others[N_REQUESTS];

        assert_int_equal(out[i].status, 0);
        assert_true(out[i].finish == EW_FINISH_EOS || out[i].finish == EW_FINISH_LENGTH);
        if (r[i].sampling.greedy && r[i].sampling.repetition_penalty == 0)
            expect_greedy(&out[i], &r[i]);
        for (uint32_t j = 0; j < N_REQUESTS;
             j++) { /* alone, but with its index: the sampler's key */
            others[j] = r[j];
            if (j != i)
                others[j].n_prompt_ids = 0;
        }
        handle(rt, others, N_REQUESTS, alone);
        assert_int_equal(alone[i].n_ids, out[i].n_ids);
        assert_memory_equal(alone[i].ids, out[i].ids, out[i].n_ids * sizeof(int32_t));
        for (uint32_t j = 0; j < N_REQUESTS; j++) {
            assert_int_equal(alone[j].status, j == i ? EW_STATUS_OK : EW_STATUS_INVALID_ARG);
            ew_response_release(&alone[j]);
        }
    }
    for (uint32_t i = 0; i < N_REQUESTS; i++)
        ew_response_release(&out[i]);
    ew_runtime_destroy(rt);
}

static void test_context_limit(void **state)
{
    ew_runtime *rt = open_mock();
    int32_t ids[MOCK_CAP] = { 0 };
    ew_request r[2] = { EW_REQUEST_INIT, EW_REQUEST_INIT };
    ew_response out[2];

    (void)state;
    for (int i = 0; i < 2; i++) {
        r[i].prompt_ids = ids;
        r[i].n_prompt_ids = (uint32_t)(MOCK_CAP - 2 + 2 * i);
        r[i].ignore_eos = true;
        r[i].max_tokens = 100;
        r[i].sampling.greedy = true;
    }
    handle(rt, r, 2, out);
    assert_int_equal(out[0].finish, EW_FINISH_LENGTH); /* exactly to the cap */
    assert_int_equal(out[0].n_ids, 2);
    expect_greedy(&out[0], &r[0]);
    assert_int_equal(out[1].finish, EW_FINISH_ERROR);
    assert_int_equal(out[1].status, EW_STATUS_LIMIT);
    assert_non_null(strstr(out[1].error, "64 tokens"));
    assert_non_null(strstr(out[1].error, "context of 64"));
    ew_response_release(&out[0]);
    ew_response_release(&out[1]);
    ew_runtime_destroy(rt);
}

static void test_prefix_reuse(void **state)
{
    ew_runtime *rt = open_mock();
    ew_request r = make_request(6);
    ew_response first, again;

    (void)state;
    r.sampling.greedy = true;
    r.save_prefix = true;
    handle(rt, &r, 1, &first);
    assert_int_equal(first.n_reused, 0);
    handle(rt, &r, 1, &again);
    assert_int_equal(again.n_reused,
                     r.n_prompt_ids - 1); /* the last token's logits must be computed */
    assert_int_equal(again.n_ids, first.n_ids);
    assert_memory_equal(again.ids, first.ids, first.n_ids * sizeof(int32_t));
    expect_greedy(&again, &r);
    ew_response_release(&first);
    ew_response_release(&again);
    ew_runtime_destroy(rt);
}

/* A request that ends with its first token leaves its prefix too; so does one that lacks a single
 * token after reuse. */
static void test_prefix_of_short_answers(void **state)
{
    static const uint32_t lens[] = { 9, 10, 12 }, reused[] = { 0, 9, 10 };
    ew_runtime *rt = open_mock();
    ew_request r = make_request(6);
    int32_t ids[12];

    (void)state;
    for (int32_t i = 0; i < 12; i++)
        ids[i] = i * 5 % MOCK_V;
    r.prompt_ids = ids;
    r.max_tokens = 1;
    r.sampling.greedy = true;
    r.save_prefix = true;
    for (int i = 0; i < 3; i++) {
        ew_response out;

        r.n_prompt_ids = lens[i];
        handle(rt, &r, 1, &out);
        assert_int_equal(out.n_reused, reused[i]);
        expect_greedy(&out, &r);
        ew_response_release(&out);
    }
    ew_runtime_destroy(rt);
}

static ew_runtime *busy_rt;
static void rewind_while_busy(void)
{
    assert_int_equal(ew_runtime_rewind(busy_rt, 0, 0, NULL), EW_STATUS_BUSY);
}

static void test_rewind_busy(void **state)
{
    ew_runtime *rt = open_mock();
    ew_request r = make_request(6);
    ew_response out;

    (void)state;
    r.sampling.greedy = true;
    busy_rt = rt;
    mock_on_run = rewind_while_busy;
    handle(rt, &r, 1, &out);
    mock_on_run = NULL;
    expect_greedy(&out, &r);
    ew_response_release(&out);
    assert_int_equal(ew_runtime_rewind(rt, 0, 0, NULL), 0);
    ew_runtime_destroy(rt);
}

static void test_row_errors(void **state)
{
    ew_runtime *rt = open_mock();
    ew_request r[4];
    ew_response out[4];
    const int32_t bad_id = MOCK_V;

    (void)state;
    for (uint32_t i = 0; i < 4; i++)
        r[i] = make_request(i + 2);
    r[0].prompt_ids = &bad_id;
    r[0].n_prompt_ids = 1;
    r[1].raw_text = "two kinds of prompt";
    r[2].sampling.temperature = -1;
    r[2].sampling.greedy = false;
    handle(rt, r, 4, out);
    assert_int_equal(out[0].status, EW_STATUS_MISMATCH);
    assert_int_equal(out[1].status, EW_STATUS_INVALID_ARG);
    assert_int_equal(out[2].status, EW_STATUS_INVALID_ARG);
    assert_non_null(strstr(out[2].error, "temperature"));
    assert_int_equal(out[3].status, 0);
    assert_true(out[3].n_ids > 0);
    for (uint32_t i = 0; i < 4; i++)
        ew_response_release(&out[i]);
    /* A failing engine fails the rows of that step, and the runtime lives on. */
    r[3].ignore_eos = true;
    mock_fail_at = 6;
    handle(rt, &r[3], 1, out);
    assert_int_equal(out[0].finish, EW_FINISH_ERROR);
    assert_int_equal(out[0].status, EW_STATUS_DEVICE);
    assert_non_null(strstr(out[0].error, "told to fail"));
    ew_response_release(&out[0]);
    handle(rt, &r[3], 1, out);
    assert_int_equal(out[0].status, 0);
    ew_response_release(&out[0]);
    ew_runtime_destroy(rt);
}

static void test_logprobs(void **state)
{
    ew_runtime *rt = open_mock();
    ew_request r = make_request(3);
    ew_response out;

    (void)state;
    r.sampling.num_logprobs = 4;
    r.sampling.greedy = true;
    handle(rt, &r, 1, &out);
    assert_int_equal(out.n_logprobs, 4);
    for (uint32_t i = 0; i < out.n_ids; i++) {
        const ew_logprob *lp = out.logprobs + (size_t)i * 5;

        assert_int_equal(lp[0].id, out.ids[i]);
        assert_int_equal(lp[1].id, out.ids[i]); /* greedy: the chosen one is the best */
        assert_true(lp[0].logprob == lp[1].logprob);
        for (int j = 2; j < 5; j++)
            assert_true(lp[j].logprob <= lp[j - 1].logprob);
    }
    ew_response_release(&out);
    ew_runtime_destroy(rt);
}

static void test_steps_allocate_nothing(void **state)
{
    ew_runtime *rt = open_mock();
    int32_t id = 3;
    float logits[MOCK_V];
    uint64_t before;

    (void)state;
    assert_int_equal(ew_runtime_forward(rt, 0, &id, 1, 0, logits, 1, NULL), 0);
    before = ew_mem_count();
    for (int i = 0; i < 50; i++)
        assert_int_equal(ew_runtime_forward(rt, 0, &id, 1, 0, logits, 1, NULL), 0);
    assert_int_equal(ew_mem_count(), before);
    ew_runtime_destroy(rt);
}

static void test_forward(void **state)
{
    ew_runtime *rt = open_mock();
    ew_request r = make_request(6); /* 5 tokens */
    ew_error err = { 0 };
    float logits[20 * MOCK_V], want[MOCK_V];
    ew_runtime_stats stats;
    const uint32_t n = 12;
    int32_t ids[12], tokens[8];

    (void)state;
    (void)r;
    tokens[7] = -1;
    for (uint32_t i = 0; i < n; i++)
        ids[i] = (int32_t)(i * 3 % MOCK_V);
    /* The last 7 of 12 tokens through chunks of 5: the pieces land in order. */
    assert_int_equal(ew_runtime_forward(rt, 2, ids, n, 0, logits, 7, &err), 0);
    ew_runtime_get_stats(rt, &stats);
    assert_int_equal(stats.forward_runs, 3);
    assert_int_equal(stats.forward_tokens, n);
    for (uint32_t i = 0; i < 7; i++) {
        mock_logits(want, ids, n - 7 + i + 1);
        assert_memory_equal(want, logits + i * MOCK_V, sizeof(want));
    }
    assert_int_equal(ew_runtime_rewind(rt, 2, 0, &err), 0);
    assert_int_equal(ew_runtime_forward_tokens(rt, 2, ids, n, 0, tokens, 7, &err), 0);
    for (uint32_t i = 0; i < 7; i++)
        assert_int_equal(tokens[i], ew_argmax(logits + i * MOCK_V, MOCK_V));
    assert_int_equal(tokens[7], -1);
    assert_int_equal(ew_runtime_forward_tokens(rt, 2, ids, 2, 0, NULL, 1, &err),
                     EW_STATUS_INVALID_ARG);
    assert_int_equal(ew_runtime_rewind(rt, 2, 4, &err), 0);
    assert_int_equal(ew_runtime_forward(rt, 2, ids + 4, 1, 0, logits, 1, &err), 0);
    mock_logits(want, ids, 5);
    assert_memory_equal(want, logits, sizeof(want));
    assert_int_equal(ew_runtime_forward(rt, MOCK_B, ids, 1, 0, logits, 1, &err),
                     EW_STATUS_INVALID_ARG);
    assert_int_equal(ew_runtime_rewind(rt, 2, 9, &err), EW_STATUS_INVALID_ARG);
    for (int i = 0; i < 11; i++) /* 5 + 55 of 64 */
        assert_int_equal(ew_runtime_forward(rt, 2, ids, 5, 0, NULL, 0, &err), 0);
    assert_int_equal(ew_runtime_forward(rt, 2, ids, 5, 0, NULL, 0, &err), EW_STATUS_LIMIT);
    /* Two chunks of which the first would fit: the row stays as it was. */
    assert_int_equal(ew_runtime_rewind(rt, 2, 57, &err), 0);
    assert_int_equal(ew_runtime_forward(rt, 2, ids, 8, 0, NULL, 0, &err), EW_STATUS_LIMIT);
    assert_int_equal(ew_runtime_forward(rt, 2, ids, 7, 0, NULL, 0, &err), 0);
    ew_runtime_destroy(rt);
}

static void test_stop_strings(void **state)
{
    const char *const two[2] = { "stop", "top!" };
    const struct ew_stop s = { two, 2 };
    size_t at = 99;

    (void)state;
    assert_true(ew_stop_find(&s, "a stop", 6, 0, &at));
    assert_int_equal(at, 2);
    assert_false(ew_stop_find(&s, "a stop", 6, 6, &at)); /* it ended before: seen already */
    assert_true(ew_stop_find(&s,
                             "a sto"
                             "p!",
                             7, 5, &at));
    assert_int_equal(at, 2); /* both match: the one that begins first */
    assert_false(ew_stop_find(&s, "", 0, 0, &at));
    assert_int_equal(ew_stop_held(&s, "abc s", 5), 1);
    assert_int_equal(ew_stop_held(&s, "abc sto", 7), 3);
    assert_int_equal(ew_stop_held(&s, "abc sta", 7), 0);
    assert_int_equal(ew_stop_held(&s, "to", 2), 2);
    assert_int_equal(ew_stop_held(&s, "", 0), 0);
}

static void test_rope_regimes(void **state)
{
    struct ew_rope_input in = { "rope",
                                4,
                                { .rotary_dim = 4,
                                  .theta = 10000,
                                  .factor = 2,
                                  .attention_factor = 1,
                                  .original_max = 16,
                                  .max_position = 32 } };
    struct ew_rope_tables *t = NULL;
    float *a, *b, row[4];

    (void)state;
    in.spec.type = EW_ROPE_LONGROPE;
    for (int i = 0; i < 2; i++) {
        in.spec.short_factor[i] = 1;
        in.spec.long_factor[i] = 3;
    }
    assert_int_equal(ew_rope_tables_create(40, &in, 1, 2, &t, NULL), 0);
    assert_int_equal(ew_rope_regime(t, 16), 0);
    assert_int_equal(ew_rope_regime(t, 17), ew_rope_regime(t, 39));
    assert_false(ew_rope_must_restart(t, 0, 16));
    assert_true(ew_rope_must_restart(t, 0, 17));
    assert_false(ew_rope_must_restart(t, ew_rope_regime(t, 17), 30));
    assert_int_equal(ew_rope_tables_get(t, 0, 0, &a, NULL), 0);
    assert_int_equal(ew_rope_tables_get(t, 0, 17, &b, NULL), 0);
    ew_rope_fill(&in.spec, 0, 9, 1, row);
    assert_memory_equal(a + 9 * 4, row, sizeof(row));
    ew_rope_fill(&in.spec, 30, 9, 1, row);
    assert_memory_equal(b + 9 * 4, row, sizeof(row));
    assert_memory_not_equal(a + 9 * 4, row, sizeof(row));
    ew_rope_tables_destroy(t);

    in.spec.type = EW_ROPE_DYNAMIC;
    assert_int_equal(ew_rope_tables_create(40, &in, 1, 2, &t, NULL), 0);
    assert_int_equal(ew_rope_regime(t, 32), 0);
    assert_int_equal(ew_rope_regime(t, 35), 35);
    assert_false(ew_rope_must_restart(t, 0, 39)); /* keys keep their rotation */
    assert_int_equal(ew_rope_tables_get(t, 0, 35, &b, NULL), 0);
    ew_rope_fill(&in.spec, 35, 3, 1, row);
    assert_memory_equal(b + 3 * 4, row, sizeof(row));
    ew_rope_fill(&in.spec, 38, 37, 1, row);
    assert_memory_equal(b + 37 * 4, row, sizeof(row));
    for (uint32_t i = 33; i < 40; i++) /* more than are kept */
        assert_int_equal(ew_rope_tables_get(t, 0, i, &b, NULL), 0);
    ew_rope_tables_destroy(t);
}

static void test_profile_json(void **state)
{
    ew_runtime *rt = open_mock();
    ew_request r = make_request(4);
    ew_response out;
    char *json = NULL;

    (void)state;
    handle(rt, &r, 1, &out);
    assert_int_equal(ew_runtime_profile_json(rt, &json, NULL), 0);
    assert_non_null(strstr(json, "\"computed_tokens\": 10"));
    assert_non_null(strstr(json, "\"stage_id\": \"llm_generation\""));
    ew_mem_free(json);
    ew_response_release(&out);
    ew_runtime_destroy(rt);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_batch_equals_alone),
        cmocka_unit_test(test_context_limit),
        cmocka_unit_test(test_prefix_reuse),
        cmocka_unit_test(test_prefix_of_short_answers),
        cmocka_unit_test(test_rewind_busy),
        cmocka_unit_test(test_row_errors),
        cmocka_unit_test(test_logprobs),
        cmocka_unit_test(test_steps_allocate_nothing),
        cmocka_unit_test(test_forward),
        cmocka_unit_test(test_stop_strings),
        cmocka_unit_test(test_rope_regimes),
        cmocka_unit_test(test_profile_json),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
