/* cmd_bench.c - `edgewise bench`: prefill, decode, time to first token, memory and the cost of
 * small batches, beside the machine's own ceilings measured in the same run. Token ids are random:
 * the weights decide the speed, not the text. */
#include "bench_cmd.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

static const char *prefill_text = "512", *decode_text = "128", *batch_text = "1",
                  *rows_text = "1,2,4,8,16,32,64";
static struct bench bench = { .n_gen = 64, .n_reps = 3, .m_length = 32 };

/* clang-format off */
static const struct opt bench_table[] = {
    { "prefill", 0, OPT_TEXT, &prefill_text, "N,N", "prompt lengths to read, or none (default 512)" },
    { "decode", 0, OPT_TEXT, &decode_text, "N,N", "context lengths to decode at, or none (default 128)" },
    { "batch", 0, OPT_TEXT, &batch_text, "N,N", "rows decoded together (default 1); raises --max-batch" },
    { "rows", 0, OPT_TEXT, &rows_text, "N,N", "cost of a step of that many rows, and of tokens of one row with the likeliest token or the logits of each, or none; has an engine of its own (default 1,2,4,8,16,32,64)" },
    { "rows-length", 0, OPT_U32, &bench.m_length, "N", "context of --rows (default 32)" },
    { "gen", 0, OPT_U32, &bench.n_gen, "N", "tokens to decode per run (default 64)" },
    { "reps", 0, OPT_U32, &bench.n_reps, "N", "runs of each, the best and the median are shown (default 3)" },
    { "no-ceilings", 0, OPT_FLAG, &bench.no_ceilings, NULL, "do not measure the machine" },
    { "json", 0, OPT_FLAG, &bench.json_out, NULL, "figures as JSON" },
    OPT_END,
};
/* clang-format on */

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

void bench_sort(double *x, uint32_t n)
{
    qsort(x, n, sizeof(*x), by_value);
}

int32_t *bench_ids(uint32_t n, uint32_t vocab)
{
    int32_t *const ids = malloc((size_t)n * sizeof(*ids));
    uint64_t s = 88172645463325252u;

    for (uint32_t i = 0; ids && i < n; i++) {
        s ^= s << 13;
        s ^= s >> 7;
        s ^= s << 17;
        ids[i] = (int32_t)(s % vocab);
    }
    return ids;
}

int bench_run(struct bench *b, uint32_t batch, uint32_t len, uint32_t gen, ew_runtime_stats *took,
              double *ttft_ms)
{
    ew_request *const req = calloc(batch, sizeof(*req));
    ew_response *const resp = calloc(batch, sizeof(*resp));
    int32_t *const ids = bench_ids(len, b->model.vocab);
    ew_error err = { EW_STATUS_OK, "" };
    ew_runtime_stats before, after;
    int code = EXIT_FINE;

    if (!req || !resp || !ids) {
        code = cli_fail_text("out of memory");
    } else {
        for (uint32_t i = 0; i < batch; i++) {
            req[i] = (ew_request)EW_REQUEST_INIT;
            req[i].prompt_ids = ids;
            req[i].n_prompt_ids = len;
            req[i].sampling.greedy = true;
            req[i].max_tokens = gen;
            req[i].ignore_eos = true;
        }
        ew_runtime_get_stats(b->rt, &before);
        if (ew_runtime_handle_request(b->rt, req, batch, resp, &err))
            code = cli_fail(&err);
        ew_runtime_get_stats(b->rt, &after);
    }
    for (uint32_t i = 0; !code && i < batch; i++) {
        if (resp[i].status)
            code = cli_fail_text("%s", resp[i].error);
        *ttft_ms = resp[i].ttft_ms;
    }
    for (uint32_t i = 0; resp && i < batch; i++)
        ew_response_release(&resp[i]);
    if (!code) {
        took->prefill_ns = after.prefill_ns - before.prefill_ns;
        took->prefill_runs = after.prefill_runs - before.prefill_runs;
        took->prefill_tokens = after.prefill_tokens - before.prefill_tokens;
        took->decode_ns = after.decode_ns - before.decode_ns;
        took->decode_tokens = after.decode_tokens - before.decode_tokens;
        took->decode_steps = after.decode_steps - before.decode_steps;
    }
    free(req);
    free(resp);
    free(ids);
    return code;
}

static double share(double rate, double ceiling)
{
    return ceiling > 0 ? rate / ceiling : 0;
}

static double share_of_read(const struct bench *b, const struct bench_rate *r)
{
    return r->share_of_read > 0 ? r->share_of_read
                                : share(r->read_bytes_per_s, b->machine.read_bytes_per_s);
}

static void put(json_t *to, const char *key, double x)
{
    json_object_set_new(to, key, x > 0 ? json_real(x) : json_null());
}

void bench_rate_json(const struct bench *b, const struct bench_rate *r, json_t *to)
{
    const ew_machine_info *const m = &b->machine;

    put(to, "read_bytes_per_s", r->read_bytes_per_s);
    put(to, "share_of_read_bandwidth", share_of_read(b, r));
    put(to, "ops_per_s", r->ops_per_s);
    put(to, "ops_per_byte", share(r->ops_per_s, r->read_bytes_per_s));
    put(to, "share_of_f32", share(r->ops_per_s, m->f32_flops_per_s));
    put(to, "share_of_int8", share(r->ops_per_s, m->int8_ops_per_s));
    put(to, "share_of_bf16", share(r->ops_per_s, m->bf16_flops_per_s));
}

void bench_rate_text(const struct bench *b, const struct bench_rate *r, char *out, size_t cap)
{
    const struct {
        const char *name;
        double ceiling;
    } c[] = { { "f32", b->machine.f32_flops_per_s },
              { "int8", b->machine.int8_ops_per_s },
              { "bf16", b->machine.bf16_flops_per_s } };
    char read[64] = "", shares[96] = "";

    if (share_of_read(b, r) > 0)
        snprintf(read, sizeof(read), " = %.1f %% of read bandwidth", 100 * share_of_read(b, r));
    for (size_t i = 0; i < sizeof(c) / sizeof(c[0]); i++) {
        const size_t len = strlen(shares);

        if (c[i].ceiling > 0)
            snprintf(shares + len, sizeof(shares) - len, "%s%.1f %% %s", len ? ", " : " = ",
                     100 * r->ops_per_s / c[i].ceiling, c[i].name);
    }
    snprintf(out, cap, "%.1f GB/s%s, %.1f GOP/s%s", r->read_bytes_per_s / 1e9, read,
             r->ops_per_s / 1e9, shares);
}

/* bytes, ops: of weights and a token, at the best rate. of_read: share of read bandwidth, or 0. */
static void add_row(struct bench *b, const char *what, uint32_t batch, uint32_t len, double *rates,
                    double bytes, double ops, double of_read)
{
    bench_sort(rates, b->n_reps);
    const double best = rates[b->n_reps - 1], median = rates[b->n_reps / 2];
    const struct bench_rate rate = { bytes * best, ops * best, of_read };
    json_t *const row =
        json_pack("{s:s, s:I, s:I, s:f, s:f, s:f}", "what", what, "batch", (json_int_t)batch,
                  "length", (json_int_t)len, "tokens_per_s", best, "median_tokens_per_s", median,
                  "min_tokens_per_s", rates[0]);
    char text[160];

    bench_rate_json(b, &rate, row);
    json_array_append_new(b->rows, row);
    if (b->json_out)
        return;
    bench_rate_text(b, &rate, text, sizeof(text));
    printf("%-8s batch %-3u length %-6u %10.1f tok/s  (median %.1f)  %s\n", what, batch, len, best,
           median, text);
    fflush(stdout);
}

/* The head works for the last token alone. */
static double prefill_macs(const struct bench *b, uint32_t len)
{
    const double head = (double)b->model.vocab * b->model.hidden;

    return (double)b->model.step_macs * len - head * (len - 1.0);
}

static int bench_prefill(struct bench *b, uint32_t len)
{
    double rates[64], ttft;
    ew_runtime_stats s = { 0 };

    for (uint32_t i = 0; i < b->n_reps; i++) {
        const int code = bench_run(b, 1, len, 1, &s, &ttft);
        if (code)
            return code;
        if (!s.prefill_ns) /* a prompt of one token is a decode step */
            return cli_fail_text("a prompt of %u tokens has no prefill", len);
        rates[i] = 1e9 * (double)s.prefill_tokens / (double)s.prefill_ns;
    }
    add_row(b, "prefill", 1, len, rates, (double)b->model.step_bytes * (double)s.prefill_runs / len,
            2 * prefill_macs(b, len) / len, 0);
    return EXIT_FINE;
}

static int read_ceiling(const struct bench *b, double *bytes_per_s)
{
    ew_error err = { EW_STATUS_OK, "" };

    *bytes_per_s = 0;
    if (b->no_ceilings)
        return EXIT_FINE;
    return ew_machine_measure_read(model_opts.threads, model_opts.cpu, 0.2, bytes_per_s, &err)
               ? cli_fail(&err)
               : EXIT_FINE;
}

/* Decoding waits for memory, whose speed others change within seconds: each run is compared with
 * the mean of what the threads read right before and right after it; the median counts. */
static int bench_decode(struct bench *b, uint32_t batch, uint32_t len)
{
    double rates[64], shares[64], ttft, before, after;
    ew_runtime_stats s = { 0 };
    int code = read_ceiling(b, &before);

    for (uint32_t i = 0; i < b->n_reps && !code; i++) {
        code = bench_run(b, batch, len, b->n_gen + 1, &s, &ttft);
        if (!code)
            code = read_ceiling(b, &after);
        if (code)
            break;
        rates[i] = 1e9 * (double)s.decode_tokens / (double)s.decode_ns;
        shares[i] =
            share(1e9 * (double)b->model.step_bytes * (double)s.decode_steps / (double)s.decode_ns,
                  (before + after) / 2);
        before = after;
    }
    if (code)
        return code;
    bench_sort(shares, b->n_reps);
    add_row(b, "decode", batch, len, rates,
            (double)b->model.step_bytes * (double)s.decode_steps / (double)s.decode_tokens,
            2.0 * (double)b->model.step_macs, shares[b->n_reps / 2]);
    return EXIT_FINE;
}

static bool read_list(const char *text, uint32_t *out, uint32_t *n)
{
    *n = 0;
    return strcmp(text, "none") == 0 || cli_parse_u32_list(text, out, BENCH_MAX_LIST, n);
}

static uint32_t largest(const uint32_t *x, uint32_t n)
{
    uint32_t most = 0;

    for (uint32_t i = 0; i < n; i++)
        most = x[i] > most ? x[i] : most;
    return most;
}

/* Ascending, each once, from 1 on: the others are compared with it. */
static void order_rows(struct bench *b)
{
    uint32_t kept = 0;

    if (b->n_m > 0)
        b->m[b->n_m++] = 1;
    for (uint32_t i = 1; i < b->n_m; i++)
        for (uint32_t j = i; j > 0 && b->m[j - 1] > b->m[j]; j--) {
            const uint32_t t = b->m[j];
            b->m[j] = b->m[j - 1];
            b->m[j - 1] = t;
        }
    for (uint32_t i = 0; i < b->n_m; i++)
        if (kept == 0 || b->m[kept - 1] != b->m[i])
            b->m[kept++] = b->m[i];
    b->n_m = kept;
}

/* The lists of the command line, and a batch that holds the largest of them: rows that waited for
 * others would be measured as what they are not. */
static int read_lists(struct bench *b)
{
    if (!read_list(prefill_text, b->prefill, &b->n_prefill) ||
        !read_list(decode_text, b->decode, &b->n_decode) ||
        !cli_parse_u32_list(batch_text, b->batch, BENCH_MAX_LIST, &b->n_batch) ||
        !read_list(rows_text, b->m, &b->n_m))
        return EXIT_USAGE;
    const uint32_t most = largest(b->batch, b->n_batch);
    if (largest(b->m, b->n_m) > BENCH_MAX_ROWS)
        return cli_usage("--rows %u: at most %d", largest(b->m, b->n_m), BENCH_MAX_ROWS);
    if (model_opts.max_batch && most > model_opts.max_batch)
        return cli_usage("--batch %u is more than --max-batch %u", most, model_opts.max_batch);
    if (!b->n_prefill && !b->n_decode && !b->n_m)
        return cli_usage("nothing to measure: --prefill, --decode and --rows are none");
    if (!model_opts.max_batch && most > 8)
        model_opts.max_batch = most;
    order_rows(b);
    return EXIT_FINE;
}

static int run_table(struct bench *b)
{
    int code = EXIT_FINE;

    for (uint32_t i = 0; i < b->n_prefill && !code; i++)
        code = bench_prefill(b, b->prefill[i]);
    for (uint32_t j = 0; j < b->n_batch && !code; j++)
        for (uint32_t i = 0; i < b->n_decode && !code; i++)
            code = bench_decode(b, b->batch[j], b->decode[i]);
    return code;
}

static json_t *ceiling_json(double rate)
{
    return rate > 0 ? json_real(rate) : json_null();
}

/* null: not measured. */
static json_t *machine_json(const struct bench *b)
{
    const ew_machine_info *const m = &b->machine;

    if (b->no_ceilings)
        return json_null();
    return json_pack("{s:s, s:s, s:I, s:f, s:f, s:o, s:s, s:o, s:s}", "model", m->model, "level",
                     m->level, "threads", (json_int_t)m->n_threads, "read_bytes_per_s",
                     m->read_bytes_per_s, "f32_flops_per_s", m->f32_flops_per_s, "int8_ops_per_s",
                     ceiling_json(m->int8_ops_per_s), "int8_with", m->int8_with, "bf16_flops_per_s",
                     ceiling_json(m->bf16_flops_per_s), "bf16_with", m->bf16_with);
}

/* Of the runtime that is open. */
static void note_memory(struct bench *b)
{
    ew_runtime_stats s;
    struct rusage u = { 0 };
    const char *name;
    uint64_t bytes;

    ew_runtime_get_stats(b->rt, &s);
    b->captures = s.captures;
    b->replays = s.replays;
    b->memory = json_object();
    getrusage(RUSAGE_SELF, &u);
    for (uint32_t i = 0; ew_memory_get(i, &name, &bytes); i++)
        json_object_set_new(b->memory, name, json_integer((json_int_t)bytes));
    json_object_set_new(b->memory, "peak resident", json_integer((json_int_t)u.ru_maxrss * 1024));
    json_object_set_new(b->memory, "weights (mapped)",
                        json_integer((json_int_t)b->model.weight_bytes));
    json_object_set_new(b->memory, "kv cache (reserved)",
                        json_integer((json_int_t)b->model.kv_bytes));
    if (b->json_out)
        return;
    printf("load %.0f ms, load to first token %.0f ms (16 token prompt)\n", 1e3 * b->load_s,
           1e3 * b->load_s + b->ttft_ms);
    const char *key;
    char text[32];
    json_t *v;
    json_object_foreach(b->memory, key, v)
    {
        if (json_integer_value(v) == 0)
            continue;
        cli_bytes_text((double)json_integer_value(v), text, sizeof(text));
        printf("memory   %-22s %12s\n", key, text);
    }
    printf("lists    %llu captured, %llu replays\n", (unsigned long long)b->captures,
           (unsigned long long)b->replays);
}

static int measure_machine(struct bench *b)
{
    const ew_machine_info *const m = &b->machine;
    ew_error err = { EW_STATUS_OK, "" };

    if (b->no_ceilings)
        return EXIT_FINE;
    if (ew_machine_measure(model_opts.threads, model_opts.cpu, &b->machine, &err))
        return cli_fail(&err);
    if (b->json_out)
        return EXIT_FINE;
    printf("machine  %s, %s, %u threads: reads %.1f GB/s, %.1f GFLOP/s f32", m->model, m->level,
           m->n_threads, m->read_bytes_per_s / 1e9, m->f32_flops_per_s / 1e9);
    if (m->int8_ops_per_s > 0)
        printf(", %.1f GOP/s int8 (%s)", m->int8_ops_per_s / 1e9, m->int8_with);
    if (m->bf16_flops_per_s > 0)
        printf(", %.1f GFLOP/s bf16 (%s)", m->bf16_flops_per_s / 1e9, m->bf16_with);
    printf("\n");
    return EXIT_FINE;
}

/* An open runtime, its first short answer; the machine when it is the first. */
static int start(struct bench *b, const char *model, uint32_t flags, bool first)
{
    ew_runtime_stats s;
    double load_s, ttft_ms;
    int code = model_open(model, flags, false, &b->rt, &load_s);

    if (code)
        return code;
    ew_runtime_get_model(b->rt, &b->model);
    code = bench_run(b, 1, 16, 1, &s, &ttft_ms);
    if (!code && first) { /* the time to first token of a fresh load */
        b->load_s = load_s;
        b->ttft_ms = ttft_ms;
        if (strcmp(b->model.device, "cpu") != 0) { /* the processor's ceilings say nothing of it */
            b->no_ceilings = true;
            if (!b->json_out)
                printf("device   %s\n", b->model.device);
        }
        code = measure_machine(b);
    }
    return code;
}

static void stop(struct bench *b)
{
    ew_runtime_destroy(b->rt);
    b->rt = NULL;
}

static int table(struct bench *b, const char *model)
{
    int code = start(b, model, 0, true);

    if (!code)
        code = run_table(b);
    if (!code) {
        note_memory(b);
        code = model_finish(b->rt, EXIT_FINE);
    }
    stop(b);
    return code;
}

/* The curve needs many rows of few tokens and all logits: an engine of its own, unless the model is
 * one already; then it shows what that one takes. */
static int curve(struct bench *b, const char *model, bool first)
{
    const struct model_opts before = model_opts;
    const uint32_t most = largest(b->m, b->n_m);
    const bool engine = strcmp(ew_model_kind(model), "engine") == 0;

    if (!engine) {
        const uint32_t want = b->m_length + b->n_gen + 16 + most;

        model_opts.max_batch = most;
        model_opts.max_input_len = most;
        model_opts.max_kv_len = (want + 63) / 64 * 64;
    }
    int code = start(b, model, engine ? 0u : (uint32_t)EW_BUILD_ALL_LOGITS, first);
    if (!code)
        code = bench_curve(b);
    if (!code && first) {
        note_memory(b);
        code = model_finish(b->rt, EXIT_FINE);
    }
    stop(b);
    model_opts = before;
    return code;
}

static int print_json(struct bench *b)
{
    return cli_print_json(json_pack("{s:o, s:s, s:s, s:I, s:I, s:f, s:f, s:O, s:O, s:O, s:I, s:I}",
                                    "machine", machine_json(b), "device", b->model.device, "family",
                                    b->model.family, "step_bytes", (json_int_t)b->model.step_bytes,
                                    "step_macs", (json_int_t)b->model.step_macs, "load_ms",
                                    1e3 * b->load_s, "load_to_first_token_ms",
                                    1e3 * b->load_s + b->ttft_ms, "rows", b->rows, "curve",
                                    b->curve, "memory_bytes", b->memory, "captures",
                                    (json_int_t)b->captures, "replays", (json_int_t)b->replays),
                          NULL);
}

int cmd_bench(int argc, char **argv)
{
    const struct opt *const tables[] = { bench_table, model_opt_table, build_opt_table, NULL };
    struct bench *const b = &bench;
    const char *model;
    const int n = cli_parse(cli_command("bench"), NULL, tables, argc, argv, &model, 1);

    if (n < 0)
        return CLI_PARSE_EXIT(n);
    if (n == 0)
        return cli_usage("bench needs a model");
    if (b->n_reps < 1 || b->n_reps > 64 || b->n_gen < 1)
        return cli_usage("--reps must be in 1..64 and --gen at least 1");
    if (b->m_length < 2 || b->m_length > 1u << 20 || b->n_gen > 1u << 20)
        return cli_usage("--rows-length must be in 2..1048576, --gen up to 1048576");
    int code = read_lists(b);
    if (code)
        return code;
    const bool with_table = b->n_prefill || b->n_decode;
    b->rows = json_array();
    b->curve = json_null();
    if (with_table)
        code = table(b, model);
    if (!code && b->n_m)
        code = curve(b, model, !with_table);
    if (!code && b->json_out)
        code = print_json(b);
    json_decref(b->rows);
    json_decref(b->curve);
    json_decref(b->memory);
    return code;
}
