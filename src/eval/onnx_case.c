/* eval/onnx_case.c - one folder of the ONNX backend test format through the whole engine, compared
 * with what it says.
 *
 *   model.onnx --import, build (shapes of this data set), load--> context --run--> outputs ~
 * output_M.pb
 *
 * Every data set is built anew: shapes are exact, min = opt = max. Refused is what the importer or
 * builder does not support; everything else that is not right is a failure, with the reason. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "edgewise/build.h"
#include "edgewise/engine.h"
#include "edgewise/eval.h"
#include "edgewise/onnx.h"
#include "graph/ir.h"
#include "onnx/tensor_file.h"
#include "os/os.h"

#define RTOL        1e-3
#define RTOL_BF16   0.015625 /* two steps of bf16, as the ONNX runner */
#define ATOL        1e-7
#define MAX_TENSORS 64

struct tensor {
    struct ew_type type;
    void *data;
    char name[256];
};

struct onnx_case {
    struct ew_arena arena;
    const char *cpu_level;
    char dir[4096 + 64]; /* of the data set */
    struct tensor in[MAX_TENSORS], out[MAX_TENSORS];
    uint32_t n_in, n_out;
    ew_error *err;
};

/* ---- data ---- */

static ew_status load_tensor(struct onnx_case *c, const char *kind, uint32_t i, const char *name,
                             struct tensor *t)
{
    char path[4096 + 128];

    if (strlen(name) >= sizeof(t->name))
        return ew_fail(c->err, EW_STATUS_UNSUPPORTED, "tensor name of %zu bytes", strlen(name));
    memcpy(t->name, name, strlen(name) + 1);
    (void)snprintf(path, sizeof(path), "%s/%s_%u.pb", c->dir, kind, i);
    return ew_onnx_tensor_load(path, &c->arena, &t->type, &t->data, c->err);
}

static ew_status load_data(struct onnx_case *c, const struct ew_graph *g)
{
    if (g->n_inputs > MAX_TENSORS || g->n_outputs > MAX_TENSORS)
        return ew_fail(c->err, EW_STATUS_UNSUPPORTED, "%zu inputs and %zu outputs", g->n_inputs,
                       g->n_outputs);
    c->n_in = (uint32_t)g->n_inputs;
    c->n_out = (uint32_t)g->n_outputs;
    for (uint32_t i = 0; i < c->n_in; i++)
        EW_TRY(load_tensor(c, "input", i, g->inputs[i]->name, &c->in[i]));
    for (uint32_t i = 0; i < c->n_out; i++)
        EW_TRY(load_tensor(c, "output", i, g->outputs[i]->name, &c->out[i]));
    return EW_STATUS_OK;
}

/* ---- building ---- */

static ew_status build(struct onnx_case *c, struct ew_graph *g, void **plan, size_t *plan_bytes)
{
    struct ew_profile_input *inputs = ew_arena_new(&c->arena, struct ew_profile_input, c->n_in + 1);
    struct ew_profile profile = { "case", inputs, c->n_in };
    ew_build_opts opts = EW_BUILD_OPTS_INIT;

    if (!inputs)
        return ew_fail(c->err, EW_STATUS_NO_MEMORY, "no memory");
    for (uint32_t i = 0; i < c->n_in; i++) {
        const struct ew_type *t = &c->in[i].type;
        inputs[i].name = c->in[i].name;
        inputs[i].n_dims = (uint32_t)t->n_dims;
        for (int d = 0; d < t->n_dims; d++)
            inputs[i].min[d] = inputs[i].opt[d] = inputs[i].max[d] = t->dim[d];
    }
    opts.flags = EW_BUILD_NO_TIMING;
    opts.cpu_level = c->cpu_level;
    opts.n_threads = 1;
    opts.profiles = &profile;
    opts.n_profiles = 1;
    return ew_build_memory(g, &opts, plan, plan_bytes, c->err);
}

/* ---- comparing ---- */

static bool near(double a, double b, double rtol)
{
    if (isnan(a) || isnan(b))
        return isnan(a) && isnan(b);
    if (isinf(a) || isinf(b))
        return isinf(a) && isinf(b) && (a > 0) == (b > 0);
    return fabs(a - b) <= ATOL + rtol * fabs(b);
}

static bool same_element(const void *a, const void *b, ew_dtype d, size_t i)
{
    if (!ew_dtype_is_float(d))
        return ew_elem_get_i64(a, d, i) == ew_elem_get_i64(b, d, i);
    return near(ew_elem_get_f64(a, d, i), ew_elem_get_f64(b, d, i),
                d == EW_DTYPE_BF16 ? RTOL_BF16 : RTOL);
}

static ew_status compare(struct onnx_case *c, const struct tensor *want, const struct ew_type *type,
                         const void *data)
{
    char have_text[128], want_text[128];
    size_t n, n_bad = 0, first = 0;

    if (!ew_type_equal(type, &want->type)) {
        ew_type_text(type, have_text, sizeof(have_text));
        ew_type_text(&want->type, want_text, sizeof(want_text));
        return ew_fail(c->err, EW_STATUS_MISMATCH, "output '%s' is %s, expected %s", want->name,
                       have_text, want_text);
    }
    if (!ew_type_count(type, &n))
        return ew_fail(c->err, EW_STATUS_MALFORMED, "output '%s' is too large", want->name);
    for (size_t i = 0; i < n; i++) {
        if (same_element(data, want->data, type->dtype, i))
            continue;
        if (!n_bad++)
            first = i;
    }
    if (!n_bad)
        return EW_STATUS_OK;
    return ew_fail(
        c->err, EW_STATUS_MISMATCH,
        "output '%s': %zu of %zu values are wrong, the first at %zu: %.9g, expected %.9g",
        want->name, n_bad, n, first, ew_elem_get_f64(data, type->dtype, first),
        ew_elem_get_f64(want->data, type->dtype, first));
}

static ew_status read_output(struct onnx_case *c, ew_context *ctx, const struct tensor *want)
{
    struct ew_type type = { .dtype = EW_DTYPE_NONE };
    const void *data = NULL;
    uint32_t n_dims = 0;

    if (ew_context_get_output(ctx, want->name, &data, &type.dtype, type.dim, &n_dims))
        return ew_fail(c->err, EW_STATUS_MISMATCH, "output '%s': %s", want->name,
                       ew_context_error(ctx));
    type.n_dims = (int)n_dims;
    return compare(c, want, &type, data);
}

/* ---- running ---- */

static ew_status run_context(struct onnx_case *c, ew_context *ctx)
{
    for (uint32_t i = 0; i < c->n_in; i++) {
        const struct tensor *t = &c->in[i];
        ew_status st = ew_context_set_shape(ctx, t->name, t->type.dim, (uint32_t)t->type.n_dims);
        if (!st)
            st = ew_context_set_address(ctx, t->name, t->data);
        if (st)
            return ew_fail(c->err, st, "input '%s': %s", t->name, ew_context_error(ctx));
    }
    const ew_status st = ew_context_run(ctx);
    if (st)
        return ew_fail(c->err, st, "%s", ew_context_error(ctx));
    for (uint32_t i = 0; i < c->n_out; i++)
        EW_TRY(read_output(c, ctx, &c->out[i]));
    return EW_STATUS_OK;
}

static ew_status run_plan(struct onnx_case *c, const void *plan, size_t plan_bytes)
{
    ew_engine_opts opts = EW_ENGINE_OPTS_INIT;
    const ew_context_opts context_opts = EW_CONTEXT_OPTS_INIT;
    ew_engine *engine = NULL;
    ew_context *ctx = NULL;
    ew_status st;

    opts.n_threads = 1;
    EW_TRY(ew_engine_load(plan, plan_bytes, &opts, &engine, c->err));
    st = ew_context_create(engine, &context_opts, &ctx, c->err);
    if (!st)
        st = run_context(c, ctx);
    ew_context_destroy(ctx);
    ew_engine_destroy(engine);
    return st;
}

/* *is_refused: the model did not get as far as running. */
static ew_status run_set(struct onnx_case *c, const char *dir, bool *is_refused)
{
    struct ew_graph *g = NULL;
    void *plan = NULL;
    size_t plan_bytes = 0;
    ew_status st = ew_graph_from_onnx(dir, &g, c->err);

    *is_refused = st == EW_STATUS_UNSUPPORTED || st == EW_STATUS_LIMIT;
    if (!st)
        st = load_data(c, g);
    if (!st) {
        st = build(c, g, &plan, &plan_bytes);
        *is_refused = st == EW_STATUS_UNSUPPORTED;
    }
    ew_graph_destroy(g);
    if (!st)
        st = run_plan(c, plan, plan_bytes);
    ew_plan_free(plan);
    return st;
}

ew_status ew_eval_onnx_case(const char *dir, const char *cpu_level, ew_onnx_case *verdict,
                            ew_error *err)
{
    ew_error local = { 0 };
    bool is_refused = false;
    ew_status st = EW_STATUS_OK;

    if (!dir || !verdict || strlen(dir) > 4000)
        return ew_fail(err, EW_STATUS_INVALID_ARG, "dir and verdict are needed");
    *verdict = EW_ONNX_CASE_FAILED;
    struct onnx_case *c = ew_mem_calloc(EW_MEM_EVAL, 1, sizeof(*c));
    if (!c)
        return ew_fail(err, EW_STATUS_NO_MEMORY, "no memory");
    c->cpu_level = cpu_level;
    c->err = &local;
    unsigned n_sets = 0;
    for (; !st; n_sets++) {
        (void)snprintf(c->dir, sizeof(c->dir), "%s/test_data_set_%u", dir, n_sets);
        if (!ew_path_is_dir(c->dir))
            break;
        ew_arena_init(&c->arena, EW_MEM_EVAL, 0);
        st = run_set(c, dir, &is_refused);
        ew_arena_deinit(&c->arena);
    }
    ew_mem_free(c);
    if (!st && !n_sets)
        return ew_fail(err, EW_STATUS_NOT_FOUND, "%s: no test_data_set_0", dir);
    *verdict = !st ? EW_ONNX_CASE_PASSED : is_refused ? EW_ONNX_CASE_REFUSED : EW_ONNX_CASE_FAILED;
    if (st)
        (void)ew_fail(err, st, "%s", local.text);
    return EW_STATUS_OK;
}
