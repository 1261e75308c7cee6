/* u_build.c - the builder: memory plan by brute force, files that appear whole or not at all,
 * tactics, packed streaming, tied embeddings. */
#include "engine_fixture.h"

#include <jansson.h>

#include "build/build_impl.h"
#include "plan/reader.h"

static void test_place(void **state)
{
    uint32_t rng = 7;

    (void)state;
    for (int round = 0; round < 200; round++) {
        struct ew_live live[60];
        const size_t n = 1 + (size_t)round % 60;
        uint64_t block = 0, sum = 0;
        ew_error err = { 0 };

        for (size_t i = 0; i < n; i++) {
            rng = rng * 1664525u + 1013904223u;
            live[i] = (struct ew_live){ 1 + (rng >> 8) % 5000, 0, (rng >> 4) % 40, 0, (uint32_t)i };
            live[i].last = live[i].first + (rng >> 20) % 9;
            sum += live[i].bytes + 64;
        }
        MUST(ew_memory_place(live, n, &block, &err));
        assert_true(block <= sum);
        for (size_t i = 0; i < n; i++) {
            assert_true(live[i].off % 64 == 0 && live[i].off + live[i].bytes <= block);
            for (size_t j = 0; j < i; j++) {
                const bool together =
                    live[i].first <= live[j].last && live[j].first <= live[i].last;
                const bool apart = live[i].off + live[i].bytes <= live[j].off ||
                                   live[j].off + live[j].bytes <= live[i].off;

                assert_true(!together || apart);
            }
        }
    }
}

/* In a real plan: what two tensors share they may not need at the same node. */
static void test_plan_memory(void **state)
{
    struct ew_graph *g = NULL;
    struct ew_node *n = NULL;
    struct ew_type xt = { EW_DTYPE_F32, 2, { 64, 64 } };
    struct ew_value *v[12], *in[2];
    struct ew_plan p;
    void *bytes;
    size_t len;
    ew_error err = { 0 };
    uint64_t total = 0;

    (void)state;
    MUST(ew_graph_create("chain", &g, &err));
    v[0] = ew_graph_add_input(g, "x", &xt);
    for (int i = 1; i < 12; i++) {
        in[0] = v[i - 1];
        in[1] = v[i > 3 ? i - 3 : 0];
        MUST(ew_graph_add_node(g, EW_OP_ADD, "add", NULL, in, 2, 1, &n, &err));
        in[0] = n->out[0];
        MUST(ew_graph_add_node(g, EW_OP_SOFTMAX, "soft", NULL, in, 1, 1, &n, &err));
        v[i] = n->out[0];
    }
    MUST(ew_graph_add_output(g, v[11], "y", &err));
    build_bytes(g, NULL, 0, &bytes, &len);
    MUST(ew_plan_read(bytes, len, UINT32_MAX, &p, &err));
    for (uint32_t a = 0; a < p.n_tensors; a++) {
        const struct ew_plan_profile *pr = &p.profiles[0];

        total += pr->bytes[a];
        for (uint32_t b = 0; b < a; b++) {
            bool both = false;

            if (!pr->bytes[a] || !pr->bytes[b] || pr->off[a] + pr->bytes[a] <= pr->off[b] ||
                pr->off[b] + pr->bytes[b] <= pr->off[a])
                continue;
            for (uint32_t i = 0; i < p.n_nodes;
                 i++) { /* live = made at or before i, read at or after i */
                bool live[2] = { false, false };

                for (uint32_t j = i; j < p.n_nodes; j++)
                    for (uint32_t k = 0; k < p.nodes[j].n_in; k++) {
                        live[0] = live[0] || (p.nodes[j].in[k] == a && p.tensors[a].producer <= i);
                        live[1] = live[1] || (p.nodes[j].in[k] == b && p.tensors[b].producer <= i);
                    }
                both = both || ((live[0] || p.tensors[a].producer == i) &&
                                (live[1] || p.tensors[b].producer == i));
            }
            assert_false(both);
        }
    }
    assert_true(total > 0);
    assert_true(p.profiles[0].block_bytes <= total + 64 * p.n_tensors);
    ew_plan_deinit(&p);
    ew_plan_free(bytes);
}

static bool stop_late(void *ctx, const char *stage, uint64_t done, uint64_t total)
{
    int *calls = ctx;

    (void)done;
    (void)total;
    ++*calls;
    return strcmp(stage, "pack weights") != 0;
}

static int n_files(const char *dir)
{
    char **names = NULL;
    size_t n = 0;
    ew_error err = { 0 };

    MUST(ew_dir_list(dir, &names, &n, &err));
    for (size_t i = 0; i < n; i++)
        ew_mem_free(names[i]);
    ew_mem_free(names);
    return (int)n;
}

static void test_file(void **state)
{
    char dir[256], path[300];
    ew_build_opts o = EW_BUILD_OPTS_INIT;
    ew_profile_input in = { "x", 2, { 1, FIX_K }, { 2, FIX_K }, { 9, FIX_K } };
    ew_profile p = { "default", &in, 1 };
    struct ew_graph *g;
    ew_engine *e = NULL;
    ew_error err = { 0 };
    int calls = 0;

    (void)state;
    snprintf(dir, sizeof(dir), "%s/u_build_files", EW_BINARY_DIR);
    snprintf(path, sizeof(path), "%s/a.engine", dir);
    MUST(ew_dir_make(dir, &err));
    remove(path);
    o.flags = EW_BUILD_NO_TIMING;
    o.profiles = &p;
    o.n_profiles = 1;
    o.progress.step = stop_late;
    o.progress.ctx = &calls;
    g = linear_graph();
    assert_int_equal(ew_build_file(g, &o, path, &err), EW_STATUS_CANCELLED);
    ew_graph_destroy(g);
    assert_true(calls > 0);
    assert_int_equal(n_files(dir), 0); /* no half file, no temporary one */
    o.progress.step = NULL;
    g = linear_graph();
    MUST(ew_build_file(g, &o, path, &err));
    ew_graph_destroy(g);
    assert_int_equal(n_files(dir), 1);
    MUST(ew_engine_open(path, NULL, &e, &err));
    ew_engine_destroy(e);
    remove(path);
    assert_int_equal(ew_engine_open(path, NULL, &e, &err), EW_STATUS_NOT_FOUND);
}

static void test_timing_cache(void **state)
{
    char path[256], *first = NULL, *second = NULL;
    ew_build_opts o = EW_BUILD_OPTS_INIT;
    ew_profile_input in = { "x", 2, { 1, FIX_K }, { 2, FIX_K }, { 9, FIX_K } };
    ew_profile p = { "default", &in, 1 };
    ew_error err = { 0 };
    void *bytes[2];
    size_t len[2], n[2];

    (void)state;
    snprintf(path, sizeof(path), "%s/u_build_timing.json", EW_BINARY_DIR);
    remove(path);
    o.profiles = &p;
    o.n_profiles = 1;
    o.timing_cache = path;
    for (int i = 0; i < 2; i++) {
        struct ew_graph *g = linear_graph();

        MUST(ew_build_memory(g, &o, &bytes[i], &len[i], &err));
        MUST(ew_file_read(path, 1 << 20, i ? &second : &first, &n[i], &err));
        ew_graph_destroy(g);
    }
    assert_string_equal(first, second); /* all hits: nothing was timed again */
    assert_int_equal(len[0], len[1]);
    assert_memory_equal(bytes[0], bytes[1], len[0]);
    ew_mem_free(first);
    ew_mem_free(second);
    ew_plan_free(bytes[0]);
    ew_plan_free(bytes[1]);
    remove(path);
}

/* A kernel that competes, and what a row is to take: one alone, one of eight, one of a prompt. */
struct made_up {
    char kernel[64];
    json_int_t one, few, many;
};

/* The cache that a build wrote gets these times. False: it has others than those. */
static bool set_times(const char *path, const struct made_up *t, size_t n)
{
    json_t *const json = json_load_file(path, 0, NULL);
    bool fits = json != NULL;
    const char *key;
    json_t *value;

    json_object_foreach(json_object_get(json, "entries"), key, value)
    {
        const char *const rows = strrchr(key, '|');
        size_t k = 0;

        while (k < n && !strstr(key, t[k].kernel))
            k++;
        if (k < n && strcmp(rows, "|m1 cold") == 0)
            json_integer_set(value, t[k].one);
        else if (k < n && strcmp(rows, "|m8 cold") == 0)
            json_integer_set(value, 8 * t[k].few);
        else if (k < n && strcmp(rows, "|m32") == 0)
            json_integer_set(value, 32 * t[k].many);
        else
            fits = false;
    }
    fits = fits && json_dump_file(json, path, 0) == 0;
    json_decref(json);
    return fits;
}

/* Builds; names of the kernels that compete, up to 16. Returns the chosen one's number. */
static uint32_t choice_of(const ew_build_opts *o, struct made_up *t, uint32_t *n)
{
    struct ew_graph *g = linear_graph();
    struct ew_plan p;
    ew_error err = { 0 };
    void *bytes;
    size_t len;

    MUST(ew_build_memory(g, o, &bytes, &len, &err));
    MUST(ew_plan_read(bytes, len, UINT32_MAX, &p, &err));
    const uint32_t chosen = p.tactics[0].chosen;

    *n = p.tactics[0].n_candidates;
    assert_true(*n <= 16);
    for (uint32_t i = 0; i < *n; i++)
        snprintf(t[i].kernel, sizeof(t[i].kernel), "|%s|", p.tactics[0].candidates[i].kernel);
    ew_plan_deinit(&p);
    ew_plan_free(bytes);
    ew_graph_destroy(g);
    return chosen;
}

/* A kernel that is worse for one row and for eight wins by prompts, four tokens of which count for
 * one that is written: 100 + 100 + 4 * 10 beside 60 + 60 + 4 * 60. */
static void test_prompts_weigh(void **state)
{
    char path[256];
    ew_build_opts o = EW_BUILD_OPTS_INIT;
    ew_profile_input in[2] = { { "x", 2, { 1, FIX_K }, { 1, FIX_K }, { 9, FIX_K } },
                               { "x", 2, { 10, FIX_K }, { 32, FIX_K }, { 32, FIX_K } } };
    ew_profile p[2] = { { "few", &in[0], 1 }, { "many", &in[1], 1 } };
    struct made_up t[16];
    uint32_t n;

    (void)state;
    snprintf(path, sizeof(path), "%s/u_build_weights.json", EW_BINARY_DIR);
    remove(path);
    o.profiles = p;
    o.n_profiles = 2;
    o.timing_cache = path;
    (void)choice_of(&o, t, &n);
    for (uint32_t best = 0; best < 2 && n >= 2; best++) { /* it is not the order that decides */
        for (uint32_t i = 0; i < n; i++)
            t[i].one = t[i].few = t[i].many = i == 1 - best ? 60 : 1000;
        t[best].one = t[best].few = 100;
        t[best].many = 10;
        assert_true(set_times(path, t, n));
        assert_int_equal(choice_of(&o, t, &n), best);
    }
    remove(path);
}

static void test_refusals(void **state)
{
    ew_build_opts o = EW_BUILD_OPTS_INIT;
    struct ew_graph *g = linear_graph();
    ew_error err = { 0 };
    void *bytes;
    size_t len;

    (void)state;
    assert_int_equal(ew_build_memory(g, &o, &bytes, &len, &err), EW_STATUS_INVALID_ARG);
    assert_non_null(strstr(err.text, "'x' axis 0 is dynamic ('batch')"));
    ew_graph_destroy(g);
    g = linear_graph();
    o.cpu_level = "mmx";
    assert_int_equal(ew_build_memory(g, &o, &bytes, &len, &err), EW_STATUS_INVALID_ARG);
    assert_non_null(strstr(err.text, "'mmx'"));
    ew_graph_destroy(g);
}

/* A large packed weight goes through the buffer in pieces; the file holds what one whole packing
 * gives. */
static void test_streamed_packing(void **state)
{
    const int64_t w_dims[2] = { 6007, 2048 };
    struct ew_type xt = { EW_DTYPE_F32, 2, { 1, 2048 } };
    struct ew_graph *g = NULL;
    struct ew_node *n = NULL;
    struct ew_value *in[2];
    struct ew_plan p;
    ew_engine *e = NULL;
    ew_error err = { 0 };
    float *w = noises(6007 * 2048, 1), *row = calloc(2048, sizeof(*row));
    void *bytes;
    size_t len;

    (void)state;
    MUST(ew_graph_create("big", &g, &err));
    in[0] = ew_graph_add_input(g, "x", &xt);
    in[1] = const_f32(g, "w", 2, w_dims, 1);
    MUST(ew_graph_add_node(g, EW_OP_LINEAR, "lin", NULL, in, 2, 1, &n, &err));
    MUST(ew_graph_add_output(g, n->out[0], "y", &err));
    g->embedding = in[1]; /* tied: rows come back out of the packed weight */
    build_bytes(g, NULL, 0, &bytes, &len);
    MUST(ew_plan_read(bytes, len, UINT32_MAX, &p, &err));
    for (uint32_t t = 0; t < p.n_tensors; t++) {
        const struct ew_packed *k = &p.tensors[t].packed;
        const struct ew_weight_part part = {
            .data = w, .n_rows = 6007, .row_stride = 2048, .col_stride = 1
        };
        const struct ew_pack_args args = { .parts = &part, .n_parts = 1, .n = 6007, .k = 2048 };
        void *whole;

        if (!k->kernel)
            continue;
        assert_true(p.embedding == t);
        whole = ew_mem_alloc_aligned(EW_MEM_MISC, (size_t)p.tensors[t].bytes, 64);
        k->kernel->pack(whole, &args, 0, k->kernel->n_units(6007, false));
        assert_memory_equal(whole, p.tensors[t].data, (size_t)p.tensors[t].bytes);
        ew_mem_free_aligned(whole);
    }
    assert_true(len < (size_t)6100 * 2048 * 4);
    ew_plan_deinit(&p);
    MUST(ew_engine_load(bytes, len, NULL, &e, &err));
    assert_int_equal(ew_engine_embed(e, 6006, row), 0);
    assert_memory_equal(row, w + 6006 * 2048, 2048 * sizeof(float));
    assert_int_equal(ew_engine_embed(e, 6007, row), EW_STATUS_INVALID_ARG);
    assert_int_equal(ew_engine_embed(e, -1, row), EW_STATUS_INVALID_ARG);
    ew_engine_destroy(e);
    ew_plan_free(bytes);
    free(w);
    free(row);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_place),
        cmocka_unit_test(test_plan_memory),
        cmocka_unit_test(test_file),
        cmocka_unit_test(test_timing_cache),
        cmocka_unit_test(test_prompts_weigh),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_streamed_packing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
