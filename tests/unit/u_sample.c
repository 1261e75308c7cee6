/* The sampler against exact distributions (transformers' logits processors, sampler_golden.inc),
 * Philox against the published vectors of Random123, and the promises: same seed same token,
 * nothing allocated by a draw. ew-layers: base os cpu tensor op kernels sample */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "base/size.h"
#include "sample/philox.h"
#include "sample/sampler.h"
#include "sampler_golden.inc"

enum { VOCAB = (int)EW_COUNT(golden_logits), N_DRAWS = 100000 };

static const int32_t prompt[4] = { 3, 5, 7, 7 }, output[4] = { 2, 9, 9, 11 };

static struct ew_sample_params defaults(void)
{
    return (struct ew_sample_params){ .temperature = 1, .top_p = 1, .repetition = 1 };
}

static struct ew_sampler make_sampler(uint32_t vocab)
{
    struct ew_sampler s;

    assert_int_equal(ew_sampler_init(&s, vocab, NULL), 0);
    return s;
}

static void test_philox_vectors(void **state)
{
    static const struct {
        uint32_t c[4], k[2], r[4];
    } v[] = {
        { { 0, 0, 0, 0 }, { 0, 0 }, { 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8 } },
        { { ~0u, ~0u, ~0u, ~0u },
          { ~0u, ~0u },
          { 0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd } },
        { { 0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344 },
          { 0xa4093822, 0x299f31d0 },
          { 0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1 } },
    };

    (void)state;
    for (size_t i = 0; i < EW_COUNT(v); i++) {
        uint32_t r[4];

        ew_philox4x32(v[i].c, v[i].k, r);
        assert_memory_equal(r, v[i].r, sizeof(r));
    }
}

/* Chi-square of the draws against the golden distribution; what it excludes must never come. */
static void test_distributions(void **state)
{
    struct ew_sampler s = make_sampler(VOCAB);

    (void)state;
    for (size_t i = 0; i < EW_COUNT(golden_cases); i++) {
        const struct golden_case *g = &golden_cases[i];
        struct ew_sample_params p = { .temperature = g->t,
                                      .top_k = g->k,
                                      .top_p = g->p,
                                      .min_p = g->min_p,
                                      .repetition = g->rep,
                                      .presence = g->pres,
                                      .frequency = g->freq,
                                      .seed = 1234 };
        uint32_t count[VOCAB] = { 0 };
        struct ew_history h;
        double chi = 0, df = -1;

        assert_int_equal(ew_sample_check(&p, VOCAB, NULL), 0);
        assert_int_equal(ew_history_init(&h, &p, prompt, 4, 4, NULL), 0);
        for (int j = 0; j < 4; j++)
            ew_history_push(&h, output[j]);
        for (uint32_t j = 0; j < N_DRAWS; j++) {
            int32_t t;

            assert_int_equal(ew_sampler_draw(&s, golden_logits, &p, &h, (uint32_t)i, j, &t, NULL),
                             0);
            assert_in_range(t, 0, VOCAB - 1);
            count[t]++;
        }
        for (int t = 0; t < VOCAB; t++) {
            const double expect = g->prob[t] * N_DRAWS;

            if (g->prob[t] == 0)
                assert_int_equal(count[t], 0);
            if (expect < 5)
                continue;
            chi += ((double)count[t] - expect) * ((double)count[t] - expect) / expect;
            df += 1;
        }
        if (df > 0) /* Wilson-Hilferty: about the 1 - 1e-6 quantile */
            assert_true(chi < df * pow(1 - 2 / (9 * df) + 4.75 * sqrt(2 / (9 * df)), 3));
        ew_history_deinit(&h);
    }
    ew_sampler_deinit(&s);
}

static void test_keys(void **state)
{
    const struct ew_history none = { 0 };
    struct ew_sampler s = make_sampler(VOCAB);
    struct ew_sample_params p = defaults();
    int same[3] = { 0 };

    (void)state;
    p.seed = 7;
    for (uint32_t j = 0; j < 200; j++) {
        int32_t a, b;

        assert_int_equal(ew_sampler_draw(&s, golden_logits, &p, &none, 1, j, &a, NULL), 0);
        assert_int_equal(ew_sampler_draw(&s, golden_logits, &p, &none, 1, j, &b, NULL), 0);
        assert_int_equal(a, b);
        assert_int_equal(ew_sampler_draw(&s, golden_logits, &p, &none, 2, j, &b, NULL), 0);
        same[0] += a == b;
        assert_int_equal(ew_sampler_draw(&s, golden_logits, &p, &none, 1, j + 200, &b, NULL), 0);
        same[1] += a == b;
        p.seed = 8;
        assert_int_equal(ew_sampler_draw(&s, golden_logits, &p, &none, 1, j, &b, NULL), 0);
        p.seed = 7;
        same[2] += a == b;
    }
    for (int i = 0; i < 3; i++) /* another request, position or seed is another stream */
        assert_true(same[i] < 150);
    ew_sampler_deinit(&s);
}

static void test_greedy_and_bias(void **state)
{
    const float logits[6] = { 1, 4, 2, 4, -INFINITY, 3 };
    const int32_t ids[2] = { 5, 1 };
    const float bias[2] = { 10, -100 };
    const struct ew_history none = { 0 };
    struct ew_sampler s = make_sampler(6);
    struct ew_sample_params p = defaults();
    int32_t t;

    (void)state;
    p.greedy = true;
    assert_int_equal(ew_sampler_draw(&s, logits, &p, &none, 0, 0, &t, NULL), 0);
    assert_int_equal(t, 1);
    p.bias_ids = ids + 1;
    p.bias = bias + 1;
    p.n_bias = 1;
    assert_int_equal(ew_sampler_draw(&s, logits, &p, &none, 0, 0, &t, NULL), 0);
    assert_int_equal(t, 3);
    p.bias_ids = ids;
    p.bias = bias;
    p.n_bias = 2;
    assert_int_equal(ew_sampler_draw(&s, logits, &p, &none, 0, 0, &t, NULL), 0);
    assert_int_equal(t, 5);
    ew_sampler_deinit(&s);
}

static void test_logprobs(void **state)
{
    const float logits[5] = { 0.5f, 2, -1, 2, 0 };
    const int32_t id = 4;
    const float bias = 3;
    const struct ew_history none = { 0 };
    struct ew_sampler s = make_sampler(5);
    struct ew_sample_params p = defaults();
    struct ew_sample_logprob lp[9];
    const double sum = exp(0.5) + exp(2) + exp(-1) + exp(2) + exp(3);
    int32_t t;

    (void)state;
    p.greedy = true;
    p.wants_logprobs = true;
    p.n_logprobs = 8; /* more than there are tokens */
    p.bias_ids = &id;
    p.bias = &bias;
    p.n_bias = 1;
    p.temperature = 0.1; /* log-probabilities are those of T = 1 */
    assert_int_equal(ew_sampler_draw(&s, logits, &p, &none, 0, 0, &t, lp), 0);
    assert_int_equal(t, 4);
    assert_int_equal(lp[0].id, 4);
    assert_true(fabs((double)lp[0].logprob - (3 - log(sum))) < 1e-6);
    const int32_t order[5] = { 4, 1, 3, 0, 2 };
    for (int i = 0; i < 5; i++)
        assert_int_equal(lp[1 + i].id, order[i]);
    assert_true(fabs((double)lp[5].logprob - (-1 - log(sum))) < 1e-6);
    for (int i = 6; i < 9; i++)
        assert_int_equal(lp[i].id, -1);
    ew_sampler_deinit(&s);
}

static void test_broken_logits(void **state)
{
    const struct ew_history none = { 0 };
    float logits[4] = { 1, NAN, 2, 0 };
    struct ew_sampler s = make_sampler(4);
    struct ew_sample_params p = defaults();
    int32_t t;

    (void)state;
    assert_int_equal(ew_sampler_draw(&s, logits, &p, &none, 0, 0, &t, NULL), EW_STATUS_DEVICE);
    logits[1] = INFINITY;
    assert_int_equal(ew_sampler_draw(&s, logits, &p, &none, 0, 0, &t, NULL), EW_STATUS_DEVICE);
    for (int i = 0; i < 4; i++)
        logits[i] = -INFINITY;
    assert_int_equal(ew_sampler_draw(&s, logits, &p, &none, 0, 0, &t, NULL), EW_STATUS_DEVICE);
    logits[2] = -1e30f;
    assert_int_equal(ew_sampler_draw(&s, logits, &p, &none, 0, 0, &t, NULL), 0);
    assert_int_equal(t, 2);
    ew_sampler_deinit(&s);
}

static void expect_refused(struct ew_sample_params p, const char *word)
{
    ew_error err = { 0 };

    assert_int_equal(ew_sample_check(&p, VOCAB, &err), EW_STATUS_INVALID_ARG);
    assert_non_null(strstr(err.text, word));
}

static void test_refusals(void **state)
{
    const int32_t id = VOCAB;
    const float bias = 1, nan_bias = NAN;
    const int32_t id0 = 0;
    struct ew_sample_params p = defaults();

    (void)state;
    assert_int_equal(ew_sample_check(&p, VOCAB, NULL), 0);
    p.temperature = -1;
    expect_refused(p, "temperature");
    p.temperature = (double)NAN;
    expect_refused(p, "temperature");
    p = defaults();
    p.top_p = 1.5;
    expect_refused(p, "top_p");
    p = defaults();
    p.top_k = -2;
    expect_refused(p, "top_k");
    p = defaults();
    p.min_p = 2;
    expect_refused(p, "min_p");
    p = defaults();
    p.repetition = 0;
    expect_refused(p, "repetition");
    p = defaults();
    p.n_logprobs = 51;
    expect_refused(p, "num_logprobs");
    p = defaults();
    p.n_bias = 1;
    p.bias_ids = &id;
    p.bias = &bias;
    expect_refused(p, "logit_bias");
    p.bias_ids = &id0;
    p.bias = &nan_bias;
    expect_refused(p, "logit_bias");
}

static void test_no_allocation(void **state)
{
    struct ew_sampler s = make_sampler(VOCAB);
    struct ew_sample_params p = defaults();
    struct ew_sample_logprob lp[6];
    struct ew_history h;
    uint64_t before;

    (void)state;
    p.top_k = 10;
    p.top_p = 0.9;
    p.repetition = 1.1;
    p.wants_logprobs = true;
    p.n_logprobs = 5;
    assert_int_equal(ew_history_init(&h, &p, prompt, 4, 500, NULL), 0);
    before = ew_mem_count();
    for (uint32_t i = 0; i < 500; i++) {
        int32_t t;

        assert_int_equal(ew_sampler_draw(&s, golden_logits, &p, &h, 0, i, &t, lp), 0);
        ew_history_push(&h, t);
    }
    assert_int_equal(ew_mem_count(), before);
    ew_history_deinit(&h);
    ew_sampler_deinit(&s);
}

/* A big vocabulary with many ties: top_k keeps all that tie with the k-th, and top_p takes the
 * lowest ids first. */
static void test_ties(void **state)
{
    enum { BIG = 5000 };
    static float logits[BIG];
    const struct ew_history none = { 0 };
    struct ew_sampler s = make_sampler(BIG);
    struct ew_sample_params p = defaults();
    bool seen[BIG] = { false };
    int n_seen = 0;

    (void)state;
    for (int i = 0; i < BIG; i++)
        logits[i] = i % 100 == 3 ? 5.0f : (float)(i % 7) * 0.1f; /* 50 tokens tie at the top */
    p.top_k = 10;
    for (uint32_t j = 0; j < 20000; j++) {
        int32_t t;

        assert_int_equal(ew_sampler_draw(&s, logits, &p, &none, 0, j, &t, NULL), 0);
        assert_int_equal(t % 100, 3);
        n_seen += !seen[t];
        seen[t] = true;
    }
    assert_int_equal(n_seen, 50);
    p.top_k = 50;
    p.top_p = 0.1; /* 5 of 50 equal ones */
    for (uint32_t j = 0; j < 2000; j++) {
        int32_t t;

        assert_int_equal(ew_sampler_draw(&s, logits, &p, &none, 0, j, &t, NULL), 0);
        assert_true(t < 500);
    }
    ew_sampler_deinit(&s);
}

/* A vocabulary of many blocks, some of which are skipped: whatever lies where, the draw comes from
 * those that tie with the k-th or are above it, and reaches all of them. */
static void test_blocks(void **state)
{
    enum { MANY = 1500, DRAWS = 4000 };
    struct ew_sample_params p = defaults();
    const struct ew_history none = { 0 };
    struct ew_sampler s = make_sampler(MANY);
    float v[MANY];
    int32_t token;

    (void)state;
    p.top_k = 5;
    p.temperature = 1e3; /* nearly even */
    for (uint32_t round = 0; round < 8; round++) {
        bool seen[MANY] = { false };
        uint32_t r[4], n_above = 0, n_seen = 0, n_allowed = 0;
        float kth = 0;

        for (uint32_t i = 0; i < MANY; i++) {
            ew_philox4x32((const uint32_t[4]){ i, round, 0, 0 }, (const uint32_t[2]){ 1, 2 }, r);
            v[i] = (float)(r[0] % (round < 4 ? 200 : 2000)) * 0.01f;
        }
        v[round % 2 ? MANY - 1 : 0] = 30;
        for (kth = 31; n_above < 5; kth -= 0.005f) {
            n_above = 0;
            for (uint32_t i = 0; i < MANY; i++)
                n_above += v[i] >= kth;
        }
        kth += 0.005f;
        for (uint32_t i = 0; i < MANY; i++)
            n_allowed += v[i] >= kth;
        for (uint32_t d = 0; d < DRAWS; d++) {
            assert_int_equal(ew_sampler_draw(&s, v, &p, &none, 0, d, &token, NULL), 0);
            assert_true(v[token] >= kth);
            n_seen += !seen[token];
            seen[token] = true;
        }
        assert_int_equal(n_seen, n_allowed);
    }
    p.greedy = true;
    v[700] = v[1300] = 40;
    assert_int_equal(ew_sampler_draw(&s, v, &p, &none, 0, 0, &token, NULL), 0);
    assert_int_equal(token, 700);
    v[MANY - 2] = NAN;
    assert_int_equal(ew_sampler_draw(&s, v, &p, &none, 0, 0, &token, NULL), EW_STATUS_DEVICE);
    ew_sampler_deinit(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_philox_vectors), cmocka_unit_test(test_distributions),
        cmocka_unit_test(test_keys),           cmocka_unit_test(test_greedy_and_bias),
        cmocka_unit_test(test_logprobs),       cmocka_unit_test(test_broken_logits),
        cmocka_unit_test(test_refusals),       cmocka_unit_test(test_no_allocation),
        cmocka_unit_test(test_ties),           cmocka_unit_test(test_blocks),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
