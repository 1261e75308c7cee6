/* cmd_bench.c - `edgewise bench`: prefill, decode, time to first token and memory, beside the
 * machine's own ceilings measured in the same run. Token ids are random: the weights decide the
 * speed, not the text. */
#include "cli.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

static const char *prefill_text = "512", *decode_text = "128", *batch_text = "1";
static uint32_t n_gen = 64, n_reps = 3;
static bool json_out, no_ceilings;

/* clang-format off */
static const struct opt bench_table[] = {
    { "prefill", 0, OPT_TEXT, &prefill_text, "N,N", "prompt lengths to read (default 512)" },
    { "decode", 0, OPT_TEXT, &decode_text, "N,N", "context lengths to decode at (default 128)" },
    { "batch", 0, OPT_TEXT, &batch_text, "N,N", "rows decoded together (default 1); raises --max-batch" },
    { "gen", 0, OPT_U32, &n_gen, "N", "tokens to decode per run (default 64)" },
    { "reps", 0, OPT_U32, &n_reps, "N", "runs of each, the best and the median are shown (default 3)" },
    { "no-ceilings", 0, OPT_FLAG, &no_ceilings, NULL, "do not measure the machine" },
    { "json", 0, OPT_FLAG, &json_out, NULL, "figures as JSON" },
    OPT_END,
};
/* clang-format on */

struct bench {
    ew_runtime *rt;
    ew_model_info model;
    ew_machine_info machine;
    double load_s;
    json_t *rows;
    uint32_t prefill[16], decode[16], batch[16], n_prefill, n_decode, n_batch;
};

static uint32_t n_threads(const struct bench *b)
{
    return b->machine.n_threads;
}

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static int32_t *random_ids(uint32_t n, uint32_t vocab)
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

/* One batch of prompts of `len` ids, `gen` tokens each; what it took. */
static int run_once(struct bench *b, uint32_t batch, uint32_t len, uint32_t gen,
                    ew_runtime_stats *took, double *ttft_ms)
{
    ew_request *const req = calloc(batch, sizeof(*req));
    ew_response *const resp = calloc(batch, sizeof(*resp));
    int32_t *const ids = random_ids(len, b->model.vocab);
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

static void add_row(struct bench *b, const char *what, uint32_t batch, uint32_t len, double *rates,
                    double steps_per_s)
{
    qsort(rates, n_reps, sizeof(*rates), by_value);
    const double best = rates[n_reps - 1], median = rates[n_reps / 2];
    const double bytes_per_s = steps_per_s * (double)b->model.step_bytes;
    const double share =
        b->machine.read_bytes_per_s > 0 ? bytes_per_s / b->machine.read_bytes_per_s : 0;

    json_array_append_new(b->rows,
                          json_pack("{s:s, s:I, s:I, s:f, s:f, s:o}", "what", what, "batch",
                                    (json_int_t)batch, "length", (json_int_t)len, "tokens_per_s",
                                    best, "median_tokens_per_s", median, "share_of_read_bandwidth",
                                    share > 0 ? json_real(share) : json_null()));
    if (json_out)
        return;
    printf("%-8s batch %-3u length %-6u %10.1f tok/s  (median %.1f)", what, batch, len, best,
           median);
    if (share > 0)
        printf("  %.1f %% of read bandwidth", 100 * share);
    printf("\n");
    fflush(stdout);
}

static int bench_prefill(struct bench *b, uint32_t len)
{
    double rates[64], ttft;
    ew_runtime_stats s;

    for (uint32_t i = 0; i < n_reps; i++) {
        const int code = run_once(b, 1, len, 1, &s, &ttft);
        if (code)
            return code;
        rates[i] = 1e9 * (double)s.prefill_tokens / (double)s.prefill_ns;
    }
    add_row(b, "prefill", 1, len, rates, 0);
    return EXIT_FINE;
}

static int bench_decode(struct bench *b, uint32_t batch, uint32_t len)
{
    double rates[64], ttft, best = 0;
    ew_runtime_stats s;

    for (uint32_t i = 0; i < n_reps; i++) {
        const int code = run_once(b, batch, len, n_gen + 1, &s, &ttft);
        if (code)
            return code;
        rates[i] = 1e9 * (double)s.decode_tokens / (double)s.decode_ns;
        const double steps = 1e9 * (double)s.decode_steps / (double)s.decode_ns;
        best = steps > best ? steps : best;
    }
    add_row(b, "decode", batch, len, rates, best);
    return EXIT_FINE;
}

/* The lists of the command line, and a batch that holds the largest of them: rows that waited for
 * others would be measured as what they are not. */
static int read_lists(struct bench *b)
{
    uint32_t most = 0;

    if (!cli_parse_u32_list(prefill_text, b->prefill, 16, &b->n_prefill) ||
        !cli_parse_u32_list(decode_text, b->decode, 16, &b->n_decode) ||
        !cli_parse_u32_list(batch_text, b->batch, 16, &b->n_batch))
        return EXIT_USAGE;
    for (uint32_t i = 0; i < b->n_batch; i++)
        most = b->batch[i] > most ? b->batch[i] : most;
    if (model_opts.max_batch && most > model_opts.max_batch)
        return cli_usage("--batch %u is more than --max-batch %u", most, model_opts.max_batch);
    if (!model_opts.max_batch && most > 8)
        model_opts.max_batch = most;
    return EXIT_FINE;
}

static int run_all(struct bench *b)
{
    int code = EXIT_FINE;

    for (uint32_t i = 0; i < b->n_prefill && !code; i++)
        code = bench_prefill(b, b->prefill[i]);
    for (uint32_t j = 0; j < b->n_batch && !code; j++)
        for (uint32_t i = 0; i < b->n_decode && !code; i++)
            code = bench_decode(b, b->batch[j], b->decode[i]);
    return code;
}

/* null: not measured. */
static json_t *machine_json(const struct bench *b)
{
    if (no_ceilings)
        return json_null();
    return json_pack("{s:s, s:s, s:I, s:f, s:f}", "model", b->machine.model, "level",
                     b->machine.level, "threads", (json_int_t)n_threads(b), "read_bytes_per_s",
                     b->machine.read_bytes_per_s, "f32_flops_per_s", b->machine.f32_flops_per_s);
}

static int print_memory(struct bench *b, double ttft_ms)
{
    json_t *const memory = json_object();
    struct rusage u = { 0 };
    const char *name;
    uint64_t bytes;
    char text[32];

    getrusage(RUSAGE_SELF, &u);
    for (uint32_t i = 0; ew_memory_get(i, &name, &bytes); i++)
        json_object_set_new(memory, name, json_integer((json_int_t)bytes));
    json_object_set_new(memory, "peak resident", json_integer((json_int_t)u.ru_maxrss * 1024));
    json_object_set_new(memory, "weights (mapped)",
                        json_integer((json_int_t)b->model.weight_bytes));
    json_object_set_new(memory, "kv cache (reserved)", json_integer((json_int_t)b->model.kv_bytes));
    if (json_out)
        return cli_print_json(json_pack("{s:o, s:s, s:I, s:f, s:f, s:O, s:o}", "machine",
                                        machine_json(b), "family", b->model.family, "step_bytes",
                                        (json_int_t)b->model.step_bytes, "load_ms", 1e3 * b->load_s,
                                        "load_to_first_token_ms", 1e3 * b->load_s + ttft_ms, "rows",
                                        b->rows, "memory_bytes", memory),
                              NULL);
    printf("load %.0f ms, load to first token %.0f ms (16 token prompt)\n", 1e3 * b->load_s,
           1e3 * b->load_s + ttft_ms);
    const char *key;
    json_t *v;
    json_object_foreach(memory, key, v)
    {
        if (json_integer_value(v) == 0)
            continue;
        cli_bytes_text((double)json_integer_value(v), text, sizeof(text));
        printf("memory   %-22s %12s\n", key, text);
    }
    json_decref(memory);
    return EXIT_FINE;
}

static int measure_machine(struct bench *b)
{
    ew_error err = { EW_STATUS_OK, "" };

    if (ew_machine_measure(model_opts.threads, model_opts.cpu, &b->machine, &err))
        return cli_fail(&err);
    if (!json_out)
        printf("machine  %s, %s, %u threads: reads %.1f GB/s, %.1f GFLOP/s f32\n", b->machine.model,
               b->machine.level, n_threads(b), b->machine.read_bytes_per_s / 1e9,
               b->machine.f32_flops_per_s / 1e9);
    return EXIT_FINE;
}

int cmd_bench(int argc, char **argv)
{
    const struct opt *const tables[] = { bench_table, model_opt_table, build_opt_table, NULL };
    const char *model;
    struct bench b = { 0 };
    ew_runtime_stats s;
    double ttft = 0;
    const int n = cli_parse(cli_command("bench"), NULL, tables, argc, argv, &model, 1);

    if (n < 0)
        return CLI_PARSE_EXIT(n);
    if (n == 0)
        return cli_usage("bench needs a model");
    if (n_reps < 1 || n_reps > 64 || n_gen < 1)
        return cli_usage("--reps must be in 1..64 and --gen at least 1");
    int code = read_lists(&b);
    if (code)
        return code;
    code = model_open(model, 0, false, &b.rt, &b.load_s);
    if (code)
        return code;
    ew_runtime_get_model(b.rt, &b.model);
    b.rows = json_array();
    code = run_once(&b, 1, 16, 1, &s,
                    &ttft); /* first, so that it is the time to first token of a fresh load */
    if (!code && !no_ceilings)
        code = measure_machine(&b);
    if (!code)
        code = run_all(&b);
    if (!code)
        code = model_finish(b.rt, print_memory(&b, ttft));
    json_decref(b.rows);
    ew_runtime_destroy(b.rt);
    return code;
}
