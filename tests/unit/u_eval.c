/* The accuracy tools: statistics, divergence, slopes and the judge on inputs whose answers are
 * known; windows and journals; whole evaluations over models/tiny, stopped and resumed; a wrong
 * scale planted in a model rounded to four bits. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/json.h"
#include "base/mem.h"
#include "edgewise/build.h"
#include "edgewise/tokenizer.h"
#include "eval/journal.h"
#include "eval/kld.h"
#include "eval/layers.h"
#include "eval/stats.h"
#include "eval/windows.h"
#include "os/os.h"
#include "tensor/tensor.h"

#define CACHE EW_BINARY_DIR "/test-engines-eval"
#define WORK  EW_BINARY_DIR "/test-eval"
#define TINY  EW_SOURCE_DIR "/models/tiny"

static void near(double got, double want)
{
    if (!(fabs(got - want) <= 1e-9 * (1 + fabs(want))))
        fail_msg("got %.17g, wanted %.17g", got, want);
}

/* ---- statistics; figures by numpy ---- */

static void test_statistics(void **state)
{
    double x[8] = { 3, 1, 4, 1, 5, 9, 2, 6 }, low, high;
    ew_estimate e = ew_stats_mean(x, 8);

    (void)state;
    near(e.value, 3.875);
    near(e.error, 0.9716977043151993);
    e = ew_stats_rms(x, 8);
    near(e.value, 4.650268809434569);
    near(e.error, 1.0256692041138542);
    ew_stats_sort(x, 8);
    e = ew_stats_quantile(x, 8, 0.9);
    near(e.value, 6.9);
    /* ranks 6.3 -+ sqrt(0.72): 5.4515 gives 5.4515, 7 (clipped) gives 9 */
    near(e.error, (9 - (5 + (6.3 - sqrt(0.72) - 5))) / 2);
    ew_stats_wilson(95, 100, &low, &high);
    near(low, 0.8882495307680808);
    near(high, 0.9784563208456319);
    ew_stats_wilson(7, 7, &low, &high);
    assert_true(high == 1 && low > 0.6);
    near(ew_stats_median(x, 8), 3.5);
    near(ew_stats_spread((double[]){ 1, 2, 3, 4, 100 }, 5), 1.4826);
    e = ew_stats_mean(x, 0);
    assert_true(e.value == 0 && e.error == 0);
}

/* ---- divergence ---- */

static void test_divergence_of_known_distributions(void **state)
{
    const float p[4] = { logf(0.5f) + 3, logf(0.25f) + 3, logf(0.125f) + 3, logf(0.125f) + 3 };
    const float q[4] = { -7, -7, -7, -7 };
    const float bad[4] = { 0, NAN, 0, 0 };
    struct ew_kld_pair r;
    ew_error err = { 0 };

    (void)state;
    assert_int_equal(ew_kld_measure(q, p, 4, 1, 0, &r, &err), 0);
    assert_true(fabs(r.kl - 0.25 * log(2)) < 1e-6); /* KL(p || q), p the reference */
    assert_true(fabs(r.nll_model - log(4)) < 1e-6 && fabs(r.nll_reference - log(4)) < 1e-6);
    assert_true(r.same_top); /* of equal ones the first */
    assert_int_equal(ew_kld_measure(p, q, 4, 0, 0, &r, &err), 0);
    assert_true(fabs(r.kl - (0.25 * log(0.25 / 0.5) + 0.5 * log(2))) < 1e-6); /* KL(q || p) */
    assert_int_equal(ew_kld_measure(p, p, 4, 0, 0, &r, &err), 0);
    assert_true(r.kl == 0);
    assert_int_equal(ew_kld_measure(bad, p, 4, 0, 77, &r, &err), EW_STATUS_MALFORMED);
    assert_non_null(strstr(err.text, "77"));
}

static void test_divergence_summary(void **state)
{
    enum { N = 400 };
    struct ew_kld_pair pairs[N];
    uint8_t place[N];
    ew_kld_result r = { 0 };
    ew_error err = { 0 };

    (void)state;
    for (int i = 0; i < N; i++) {
        pairs[i] = (struct ew_kld_pair){ .kl = (i + 1) * 1e-3,
                                         .nll_model = log(4),
                                         .nll_reference = i % 2 ? log(2) : log(8),
                                         .same_top = i % 4 != 0 };
        place[i] = (uint8_t)(i / 200);
    }
    assert_int_equal(ew_kld_summarise(pairs, place, N, &r, &err), 0);
    near(r.mean_kl.value, 0.2005);
    near(r.median_kl.value, 0.2005);
    near(r.kl_90.value, 1e-3 * (1 + 0.9 * 399));
    near(r.kl_99.value, 1e-3 * (1 + 0.99 * 399));
    near(r.kl_999.value, 1e-3 * (1 + 0.999 * 399));
    near(r.max_kl, 0.4);
    near(r.same_top.value, 0.75);
    near(r.same_top.error, sqrt(0.75 * 0.25 / N));
    near(r.ppl_model.value, 4);
    near(r.ppl_model.error + 1, 1);
    near(r.ppl_reference.value, 4);
    near(r.ppl_reference.error, 4 * log(2) / sqrt(N - 1.0)); /* of exp: the value times the log's */
    near(r.ppl_ratio.value, 1);
    near(r.log_ratio.error, log(2) / sqrt(N - 1.0));
    near(r.mean_dp.value, 0.25 - (0.5 + 0.125) / 2);
    near(r.rms_dp.value, sqrt((0.25 * 0.25 + 0.125 * 0.125) / 2));
    near(r.places[0].value, 0.1005);
    near(r.places[1].value, 0.3005);
    near(r.places[2].value + 1, 1);
    assert_int_equal(r.n_worst, EW_KLD_WORST);
    assert_int_equal(r.worst[0].index, N - 1);
    assert_int_equal(r.worst[9].index, N - 10);
    uint64_t all = 0;
    for (int i = 0; i < EW_KLD_BINS; i++)
        all += r.bins[i];
    assert_int_equal(all, N);
    assert_int_equal(r.bins[(8 - 3) * 4] + r.bins[(8 - 3) * 4 + 1], 3); /* 1e-3 to 3.16e-3 */
}

/* ---- slopes and the judge ---- */

enum { WIDTH = 64, TOKENS = 50 };

/* Deterministic noise in [-1, 1]. */
static float noise(uint64_t *x)
{
    *x = *x * 6364136223846793005u + 1442695040888963407u;
    return (float)((double)(*x >> 40) / 8388608.0 - 1);
}

static void test_slopes(void **state)
{
    static float x[TOKENS][WIDTH], y[TOKENS][WIDTH], base[TOKENS][WIDTH];
    struct ew_match m;
    ew_error err = { 0 };
    uint64_t seed = 1;
    bool folded;

    (void)state;
    for (int t = 0; t < TOKENS; t++)
        for (int c = 0; c < WIDTH; c++) {
            base[t][c] = 5 * noise(&seed);
            x[t][c] = noise(&seed) * (t == 3 ? 1000.0f : 1.0f); /* one token of huge norm */
            y[t][c] = 1.5f * x[t][c];
        }
    assert_int_equal(ew_match_init(&m, WIDTH, &err), 0);
    ew_match_add(&m, &y[0][0], &x[0][0], NULL, TOKENS);
    assert_true(fabs(ew_match_gain(&m) - 1.5) < 1e-6);
    assert_true(fabs(ew_match_error(&m) - 0.5) < 1e-6);
    assert_true(ew_match_gain_error(&m) < 1e-6);
    assert_int_equal(m.n, TOKENS);
    ew_match_deinit(&m);
    /* Scaled by channel: found, and the error without that is what the noise makes. */
    for (int t = 0; t < TOKENS; t++)
        for (int c = 0; c < WIDTH; c++)
            y[t][c] = (c % 2 ? 3.0f : 0.4f) * (x[t][c] + (t == 3 ? 0 : 0.1f * noise(&seed)));
    assert_int_equal(ew_match_init(&m, WIDTH, &err), 0);
    ew_match_add(&m, &y[0][0], &x[0][0], NULL, TOKENS);
    assert_int_equal(ew_match_is_folded(&m, &folded, &err), 0);
    assert_true(folded);
    assert_true(ew_match_error(&m) > 1);
    assert_true(ew_match_error_unfolded(&m) > 0.05 && ew_match_error_unfolded(&m) < 0.15);
    ew_match_deinit(&m);
    /* What is added to a stream. */
    for (int t = 0; t < TOKENS; t++)
        for (int c = 0; c < WIDTH; c++) {
            x[t][c] = base[t][c] + 1;
            y[t][c] = base[t][c] + 1.02f;
        }
    assert_int_equal(ew_match_init(&m, WIDTH, &err), 0);
    ew_match_add(&m, &y[0][0], &x[0][0], &base[0][0], TOKENS);
    assert_true(fabs(ew_match_gain(&m) - 1.02) < 1e-5);
    ew_match_deinit(&m);
}

static void fill_sites(ew_layers_result *r, ew_site_row *sites, ew_layer_row *layers, uint32_t n)
{
    static const char *const kinds[] = { "self_attn.q_proj", "mlp.down_proj" };
    uint64_t seed = 7;

    memset(r, 0, sizeof(*r));
    memset(layers, 0, n * sizeof(*layers));
    memset(sites, 0, 2 * n * sizeof(*sites));
    r->sites = sites;
    r->n_sites = 2 * n;
    r->layers = layers;
    r->n_layers = n;
    for (uint32_t i = 0; i < 2 * n; i++) {
        sites[i].layer = (int32_t)(i / 2);
        sites[i].gain = (i % 2 ? 0.990 : 1.001) + 0.001 * (double)noise(&seed);
        sites[i].gain_folded = sites[i].gain;
        sites[i].error = (i % 2 ? 0.08 : 0.05) * (1 + 0.2 * (double)noise(&seed));
        snprintf(sites[i].name, sizeof(sites[i].name), "model.layers.%u.%s", i / 2, kinds[i % 2]);
        layers[i / 2].added = 0.01 * (1 + i / 2);
    }
}

static void judge_release(ew_layers_result *r)
{
    ew_mem_free(r->worst_sites);
    ew_mem_free(r->worst_layers);
}

static void test_judge(void **state)
{
    ew_site_row sites[24];
    ew_layer_row layers[12];
    ew_layers_result r;
    ew_error err = { 0 };

    (void)state;
    fill_sites(&r, sites, layers, 12);
    assert_int_equal(ew_layers_judge(&r, &err), 0);
    assert_int_equal(r.n_suspicious, 0); /* kinds may differ from each other */
    assert_int_equal(r.worst_layers[0], 11);
    assert_int_equal(r.worst_layers[11], 0);
    judge_release(&r);
    for (uint32_t bad = 0; bad < 24; bad++) { /* a wrong scale, anywhere */
        fill_sites(&r, sites, layers, 12);
        sites[bad].gain *= 1.02;
        sites[bad].gain_folded *= 1.02;
        assert_int_equal(ew_layers_judge(&r, &err), 0);
        assert_int_equal(r.n_suspicious, 1);
        assert_true(sites[bad].suspicious && layers[bad / 2].suspicious);
        assert_int_equal(r.worst_sites[0], bad);
        assert_non_null(strstr(sites[bad].why, "gain"));
        judge_release(&r);
    }
    fill_sites(&r, sites, layers, 12);
    sites[5].error *= 6;
    sites[9].gain = NAN;
    sites[3].gain = 4; /* columns scaled, and undone in what feeds them */
    assert_int_equal(ew_layers_judge(&r, &err), 0);
    assert_int_equal(r.n_suspicious, 2);
    assert_true(sites[5].suspicious && sites[9].suspicious && !sites[3].suspicious);
    judge_release(&r);
    fill_sites(&r, sites, layers, 12); /* every down_proj undoes scales of its up_proj */
    for (uint32_t i = 1; i < 24; i += 2)
        sites[i].gain = 0.8 + 0.02 * i;
    sites[7].gain_folded *= 1.02;
    assert_int_equal(ew_layers_judge(&r, &err), 0);
    assert_int_equal(r.n_suspicious, 1);
    assert_non_null(strstr(sites[7].why, "(this or up_proj,"));
    judge_release(&r);
}

/* ---- windows and journals ---- */

static void test_windows(void **state)
{
    struct ew_windows w = { .n_ids = 11, .window = 4, .stride = 4 };
    struct ew_window at = { 0 };
    size_t scored = 0;

    (void)state;
    while (ew_windows_next(&w, &at))
        scored += ew_window_n_scored(&at);
    assert_int_equal(scored, 6); /* two whole windows; the rest would have less context */
    assert_int_equal(at.end, 8);
    w.stride = 3;
    at = (struct ew_window){ 0 };
    bool seen[11] = { 0 };
    while (ew_windows_next(&w, &at))
        for (size_t t = at.begin; t < at.end; t++)
            if (ew_window_scores(&at, t)) {
                assert_false(seen[t]);
                seen[t] = true;
            }
    for (size_t t = 1; t < 11; t++)
        assert_true(seen[t]); /* each once, but the first */
    w.max_windows = 2;
    at = (struct ew_window){ 0 };
    while (ew_windows_next(&w, &at))
        assert_true(at.index < 2);
    assert_int_equal(at.index, 1);
    w = (struct ew_windows){ .n_ids = 3, .window = 4, .stride = 4 };
    at = (struct ew_window){ 0 };
    assert_true(ew_windows_next(&w, &at)); /* all there is */
    assert_int_equal(ew_window_n_scored(&at), 2);
    assert_false(ew_windows_next(&w, &at));
}

static void add_number(struct ew_journal *j, double x)
{
    struct ew_buf b;
    ew_error err = { 0 };

    ew_buf_init(&b, EW_MEM_EVAL, 1024);
    ew_buf_printf(&b, "[%.17g]", x);
    assert_int_equal(ew_journal_add(j, &b, &err), 0);
    ew_buf_deinit(&b);
}

static void expect_number(struct ew_journal *j, double want)
{
    json_t *line;
    ew_error err = { 0 };
    double got;

    assert_int_equal(ew_journal_next(j, &line, &err), 0);
    assert_non_null(line);
    assert_int_equal(ew_journal_numbers(line, 0, &got, 1, j, &err), 0);
    assert_true(got == want);
    assert_int_equal(ew_journal_numbers(line, 0, &got, 2, j, &err), EW_STATUS_MALFORMED);
    json_decref(line);
}

static void test_journal(void **state)
{
    const char *const path = WORK "/journal";
    struct ew_journal j;
    ew_error err = { 0 };
    json_t *line;
    char *text;
    size_t len;

    (void)state;
    assert_int_equal(ew_dir_make(WORK, &err), 0);
    remove(path);
    assert_int_equal(ew_journal_open(&j, path, "ppl", 5, &err), 0);
    assert_int_equal(ew_journal_next(&j, &line, &err), 0);
    assert_null(line);
    add_number(&j, 0.1);
    add_number(&j, 1.0 / 3);
    ew_journal_close(&j);
    /* Stopped in the middle of a line. */
    assert_int_equal(ew_file_read(path, 4096, &text, &len, &err), 0);
    assert_int_equal(ew_file_append(path, len, "[0.25", 5, &err), 0);
    assert_int_equal(ew_journal_open(&j, path, "ppl", 5, &err), 0);
    expect_number(&j, 0.1);
    expect_number(&j, 1.0 / 3);
    assert_int_equal(ew_journal_next(&j, &line, &err), 0);
    assert_null(line);
    add_number(&j, 7);
    ew_journal_close(&j);
    ew_mem_free(text);
    assert_int_equal(ew_file_read(path, 4096, &text, &len, &err), 0);
    assert_null(strstr(text, "0.25"));
    assert_int_equal(ew_journal_open(&j, path, "ppl", 6, &err), EW_STATUS_MISMATCH);
    assert_int_equal(ew_journal_open(&j, path, "kld", 5, &err), EW_STATUS_MISMATCH);
    /* Stopped in its first line. */
    assert_int_equal(ew_file_write(path, text, 20, &err), 0);
    assert_int_equal(ew_journal_open(&j, path, "ppl", 5, &err), 0);
    add_number(&j, 8);
    ew_journal_close(&j);
    assert_int_equal(ew_journal_open(&j, path, "ppl", 5, &err), 0);
    expect_number(&j, 8);
    ew_journal_close(&j);
    /* A file of somebody else stays as it is. */
    for (int lines = 0; lines < 2; lines++) {
        const char *const mine = lines ? "my notes\nmore\n" : "my notes";

        assert_int_equal(ew_file_write(path, mine, strlen(mine), &err), 0);
        assert_int_equal(ew_journal_open(&j, path, "ppl", 5, &err), EW_STATUS_MALFORMED);
        ew_mem_free(text);
        assert_int_equal(ew_file_read(path, 4096, &text, &len, &err), 0);
        assert_string_equal(text, mine);
    }
    ew_mem_free(text);
}

/* ---- whole evaluations ---- */

static ew_runtime *open_tiny(ew_dtype kv)
{
    ew_build_opts build = EW_BUILD_OPTS_INIT;
    ew_prepare_opts opts = EW_PREPARE_OPTS_INIT;
    ew_runtime_opts ro = EW_RUNTIME_OPTS_INIT;
    ew_runtime *rt = NULL;
    ew_error err = { 0 };
    char dir[4096];

    build.flags = EW_BUILD_ALL_LOGITS | EW_BUILD_NO_TIMING;
    build.max_batch = 2;
    build.max_input_len = 64;
    build.max_kv_len = 256;
    build.kv_dtype = kv;
    opts.cache_dir = CACHE;
    opts.build = &build;
    opts.rebuild = true; /* the builder may have changed since */
    ro.n_threads = 2;
    if (ew_model_prepare(TINY, &opts, dir, sizeof(dir), &err) ||
        ew_runtime_open(dir, &ro, &rt, &err))
        fail_msg("%s", err.text);
    return rt;
}

static int steps_left;

static bool stop_after(void *ctx, const char *stage, uint64_t done, uint64_t total)
{
    (void)ctx, (void)stage, (void)done, (void)total;
    return steps_left-- > 0;
}

static void test_resume_ppl_and_kld(void **state)
{
    const char *const path = WORK "/resume", *const text = ew_layers_text;
    ew_runtime *const a = open_tiny(EW_DTYPE_BF16), *const b = open_tiny(EW_DTYPE_F32);
    ew_ppl_opts opts = EW_PPL_OPTS_INIT;
    ew_ppl_result whole, again;
    ew_kld_result k, k_again;
    ew_error err = { 0 };

    (void)state;
    opts.window = 96;
    opts.stride = 64;
    assert_int_equal(ew_eval_ppl(a, text, strlen(text), &opts, &whole, &err), 0);
    assert_int_equal(ew_eval_kld(a, b, text, strlen(text), &opts, &k, &err), 0);
    assert_int_equal(whole.n_scored, whole.n_tokens - 1);
    near(k.ppl_model.value, whole.perplexity);
    assert_true(k.mean_kl.value > 1e-8 && k.mean_kl.value < 1e-3);
    assert_true(k.ppl_ratio.value != 1 && k.same_top.value > 0.95);
    assert_int_equal(ew_eval_kld(a, a, text, strlen(text), &opts, &k_again, &err),
                     EW_STATUS_INVALID_ARG);
    opts.progress.step = stop_after;
    for (int kld = 0; kld < 2; kld++) {
        int runs = 0;
        ew_status st;

        remove(path);
        opts.resume = path;
        do { /* three windows at a time */
            steps_left = 3 * ++runs;
            st = kld ? ew_eval_kld(a, b, text, strlen(text), &opts, &k_again, &err)
                     : ew_eval_ppl(a, text, strlen(text), &opts, &again, &err);
        } while (st == EW_STATUS_CANCELLED && runs < 20);
        assert_int_equal(st, 0);
        assert_true(runs > 2);
        opts.stride = 63; /* other work */
        steps_left = 100;
        st = kld ? ew_eval_kld(a, b, text, strlen(text), &opts, &k_again, &err)
                 : ew_eval_ppl(a, text, strlen(text), &opts, &again, &err);
        assert_int_equal(st, EW_STATUS_MISMATCH);
        opts.stride = 64;
        steps_left = 100;
        st = kld ? ew_eval_kld(a, b, text, strlen(text), &opts, &k_again, &err)
                 : ew_eval_ppl(a, text, strlen(text), &opts, &again, &err);
        assert_int_equal(st, 0);
    }
    assert_true(again.perplexity == whole.perplexity && again.nll_sum == whole.nll_sum &&
                again.perplexity_stderr == whole.perplexity_stderr);
    k.seconds = k_again.seconds = 0;
    assert_memory_equal(&k, &k_again, sizeof(k));
    assert_int_equal(ew_eval_kld(b, a, text, strlen(text), &opts, &k_again, &err),
                     EW_STATUS_MISMATCH);
    ew_runtime_destroy(a);
    ew_runtime_destroy(b);
}

/* ln p of tokens [from, n) of a text, from one pass over all of it. */
static double text_logprob(ew_runtime *rt, const char *text, size_t from, size_t *n_tokens)
{
    static float logits[256 * 4096];
    ew_tokenizer *tok;
    int32_t *ids;
    size_t n;
    ew_error err = { 0 };
    double sum = 0, all;

    assert_int_equal(ew_tokenizer_load(TINY, &tok, &err), 0);
    assert_int_equal(
        ew_tokenizer_encode(tok, text, strlen(text), EW_ENCODE_ADD_BOS, &ids, &n, &err), 0);
    assert_true(n <= 256);
    assert_int_equal(ew_runtime_rewind(rt, 0, 0, &err), 0);
    assert_int_equal(ew_runtime_forward(rt, 0, ids, (uint32_t)n, 0, logits, (uint32_t)n, &err), 0);
    for (size_t t = from; t < n; t++) {
        assert_int_equal(ew_log_sum(logits + (t - 1) * 4096, 4096, t, &all, &err), 0);
        sum += (double)logits[(t - 1) * 4096 + (size_t)ids[t]] - all;
    }
    *n_tokens = n;
    ew_tokens_free(ids);
    ew_tokenizer_destroy(tok);
    return sum;
}

static void test_choice(void **state)
{
    static const char lines[] =
        "{\"question\":\"The capital of France is\",\"options\":[\"a tree.\",\"Paris.\",\"1 2\"],"
        "\"answer\":\"B\",\"kind\":\"city\"}\n\n"
        "{\"context\":\"The capital of France is \",\"options\":[\"Paris.\",\"a\"],\"answer\":1,"
        "\"subject\":\"odd\"}\n"
        "{\"question\":\"One, two,\",\"options\":[\"three\",\"A\"],\"answer\":\"A\"}\n";
    static const char *const bad[] = {
        "{\"question\":\"x\",\"options\":[\"a\"],\"answer\":0}",
        "{\"question\":\"x\",\"options\":[\"a\",\"b\"],\"answer\":2}",
        "{\"question\":\"x\",\"options\":[\"a\",\"b\"],\"answer\":\"C\"}",
        "{\"question\":\"x\",\"options\":[\"a\",\"\"],\"answer\":0}",
        "{\"question\":\"x\",\"options\":[\"a\",3],\"answer\":0}",
        "{\"options\":[\"a\",\"b\"],\"answer\":0}",
        "[1]",
        "{\"question\":",
        "",
    };
    ew_runtime *const rt = open_tiny(EW_DTYPE_F32);
    ew_choice_opts opts = EW_CHOICE_OPTS_INIT;
    ew_choice_result r, again;
    ew_error err = { 0 };
    size_t n, n_question;

    (void)state;
    opts.resume = WORK "/choice";
    remove(opts.resume);
    if (ew_eval_choice(rt, lines, strlen(lines), "c.jsonl", &opts, &r, &err))
        fail_msg("%s", err.text);
    assert_int_equal(r.n_items, 3);
    assert_int_equal(r.n_kinds, 3);
    assert_int_equal(r.items[0].answer, 1);
    assert_int_equal(r.items[0].best, 1);
    assert_int_equal(r.items[1].answer, 1);
    assert_int_equal(r.items[2].answer, 1); /* the text of an option before a letter */
    /* The same by whole passes. */
    (void)text_logprob(rt, "The capital of France is", 1, &n_question);
    const double right = text_logprob(rt, "The capital of France is Paris.", n_question, &n);
    const double first = text_logprob(rt, "The capital of France is a tree.", n_question, &n);
    const double last = text_logprob(rt, "The capital of France is 1 2", n_question, &n);
    assert_true(fabs(r.items[0].margin - (right - fmax(first, last))) < 1e-3);
    assert_int_equal(r.total.all, 3);
    near(r.total.acc.value,
         (double)((r.items[0].best == 1) + (r.items[1].best == 1) + (r.items[2].best == 1)) / 3);
    assert_int_equal(ew_eval_choice(rt, lines, strlen(lines), "c.jsonl", &opts, &again, &err), 0);
    assert_true(again.items[0].margin == r.items[0].margin);
    ew_choice_release(&again);
    opts.chat = true; /* other work */
    assert_int_equal(ew_eval_choice(rt, lines, strlen(lines), "c.jsonl", &opts, &again, &err),
                     EW_STATUS_MISMATCH);
    opts.resume = NULL;
    assert_int_equal(ew_eval_choice(rt, lines, strlen(lines), "c.jsonl", &opts, &again, &err), 0);
    assert_true(again.items[0].margin != r.items[0].margin);
    ew_choice_release(&again);
    ew_choice_release(&r);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_true(ew_eval_choice(rt, bad[i], strlen(bad[i]), "c.jsonl", NULL, &r, &err) != 0);
        assert_non_null(strstr(err.text, "c.jsonl"));
    }
    ew_runtime_destroy(rt);
}

static void test_qa(void **state)
{
    static const char lines[] =
        "{\"question\":\"What is the capital of France?\",\"answer\":\" The capital of France is "
        "Paris. \",\"kind\":\"city\"}\n"
        "{\"messages\":[{\"role\":\"user\",\"content\":\"What is the capital of France?\"}],"
        "\"answer\":\"Lyon\",\"kind\":\"city\"}\n";
    ew_runtime *const rt = open_tiny(EW_DTYPE_F32);
    ew_qa_opts opts = EW_QA_OPTS_INIT;
    ew_qa_result r;
    ew_error err = { 0 };

    (void)state;
    opts.resume = WORK "/qa";
    remove(opts.resume);
    for (int again = 0; again < 2; again++) {
        if (ew_eval_qa(rt, lines, strlen(lines), "q.jsonl", &opts, &r, &err))
            fail_msg("%s", err.text);
        assert_int_equal(r.n_kinds, 1);
        assert_int_equal(r.total.right, 1);
        assert_int_equal(r.total.all, 2);
        assert_true(r.items[0].right && !r.items[1].right);
        assert_string_equal(r.items[1].got, "The capital of France is Paris.");
        assert_string_equal(r.items[1].question, "What is the capital of France?");
        ew_qa_release(&r);
    }
    assert_int_equal(ew_eval_qa(rt, "{\"answer\":\"x\"}", 14, "q.jsonl", NULL, &r, &err),
                     EW_STATUS_MALFORMED);
    ew_runtime_destroy(rt);
}

/* ---- a wrong scale in a rounded model ---- */

/* Rounds to four bits in groups of 64 along a row, times `scale`; bf16 in place. */
static void round_weights(uint16_t *w, size_t n, double scale)
{
    for (size_t at = 0; at < n; at += 64) {
        double most = 0;

        for (size_t i = at; i < at + 64; i++)
            most = fmax(most, fabs(ew_elem_get_f64(w, EW_DTYPE_BF16, i)));
        for (size_t i = at; i < at + 64 && most > 0; i++) {
            const double code = nearbyint(ew_elem_get_f64(w, EW_DTYPE_BF16, i) * 7 / most);
            ew_elem_set_f64(w, EW_DTYPE_BF16, i, code * most / 7 * scale);
        }
    }
}

/* tiny with every projection rounded, `faulty` (NULL: none) off by 2 %, in directory `dir`. */
static void plant(const char *dir, const char *faulty)
{
    const char *name;
    char path[4096], *bytes;
    size_t len;
    uint64_t head;
    json_t *root, *t;
    ew_error err = { 0 };

    assert_int_equal(ew_file_read(TINY "/model.safetensors", (size_t)1 << 30, &bytes, &len, &err),
                     0);
    memcpy(&head, bytes, 8);
    assert_int_equal(ew_json_parse(bytes + 8, (size_t)head, "header", &root, &err), 0);
    json_object_foreach(root, name, t)
    {
        const size_t n = strlen(name);
        const json_t *const range = json_object_get(t, "data_offsets");
        const size_t from = 8 + (size_t)head + (size_t)json_integer_value(json_array_get(range, 0));
        const size_t to = 8 + (size_t)head + (size_t)json_integer_value(json_array_get(range, 1));

        if (n > 12 && strcmp(name + n - 12, "_proj.weight") == 0)
            round_weights((uint16_t *)(void *)(bytes + from), (to - from) / 2,
                          faulty && strncmp(name, faulty, strlen(faulty)) == 0 ? 1.02 : 1);
    }
    json_decref(root);
    assert_int_equal(ew_dir_make(dir, &err), 0);
    snprintf(path, sizeof(path), "%s/model.safetensors", dir);
    assert_int_equal(ew_file_write(path, bytes, len, &err), 0);
    ew_mem_free(bytes);
    assert_int_equal(ew_file_read(TINY "/config.json", 1 << 20, &bytes, &len, &err), 0);
    snprintf(path, sizeof(path), "%s/config.json", dir);
    assert_int_equal(ew_file_write(path, bytes, len, &err), 0);
    ew_mem_free(bytes);
}

static void test_planted_scale(void **state)
{
    static const char *const faults[] = { NULL, "model.layers.0.self_attn.v_proj",
                                          "model.layers.3.mlp.down_proj",
                                          "model.layers.5.self_attn.k_proj",
                                          "model.layers.2.self_attn.o_proj" };
    ew_layers_result r;
    ew_error err = { 0 };

    (void)state;
    for (size_t i = 0; i < sizeof(faults) / sizeof(faults[0]); i++) {
        plant(WORK "/planted", faults[i]);
        if (ew_eval_layers(WORK "/planted", TINY, NULL, 0, NULL, &r, &err))
            fail_msg("%s", err.text);
        assert_int_equal(r.n_layers, 6);
        assert_int_equal(r.n_suspicious, faults[i] != NULL);
        if (faults[i])
            assert_string_equal(r.sites[r.worst_sites[0]].name, faults[i]);
        for (uint32_t l = 0; l < r.n_layers; l++)
            assert_true(r.layers[l].added > 0.005 && r.layers[l].added < 0.2 &&
                        r.layers[l].hidden > r.layers[l].added / 4);
        ew_layers_release(&r);
    }
    if (ew_eval_layers(TINY, TINY, NULL, 0, NULL, &r, &err))
        fail_msg("%s", err.text);
    assert_int_equal(r.n_suspicious, 0);
    assert_true(r.logits == 0 && r.same_top.value == 1 && r.layers[5].hidden == 0);
    ew_layers_release(&r);
    assert_int_equal(ew_eval_layers(TINY, CACHE, NULL, 0, NULL, &r, &err), EW_STATUS_UNSUPPORTED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_statistics),
        cmocka_unit_test(test_divergence_of_known_distributions),
        cmocka_unit_test(test_divergence_summary),
        cmocka_unit_test(test_slopes),
        cmocka_unit_test(test_judge),
        cmocka_unit_test(test_windows),
        cmocka_unit_test(test_journal),
        cmocka_unit_test(test_resume_ppl_and_kld),
        cmocka_unit_test(test_choice),
        cmocka_unit_test(test_qa),
        cmocka_unit_test(test_planted_scale),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
