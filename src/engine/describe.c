/* engine/describe.c - an engine as JSON, for people and scripts (`edgewise inspect`). */
#include "engine/engine_impl.h"

#include <stdio.h>

#include "backend/cuda/cublaslt.h"
#include "base/json.h"
#include "base/size.h"
#include "plan/codec.h"
#include "plan/reader.h"

static json_t *dims_json(const int64_t *d, uint32_t n)
{
    json_t *a = json_array();

    for (uint32_t i = 0; i < n; i++)
        json_array_append_new(a, json_integer(d[i]));
    return a;
}

static json_t *sections_json(const ew_engine *e)
{
    json_t *a = json_array();

    for (unsigned s = 0; s < EW_PLAN_N_SECTIONS; s++) {
        uint64_t off = 0, n = 0;

        if (ew_plan_section_range(e->bytes, e->len, s, &off, &n))
            json_array_append_new(a, json_pack("{s:s,s:I,s:I}", "name", ew_plan_section_text(s),
                                               "offset", (json_int_t)off, "bytes", (json_int_t)n));
    }
    return a;
}

static json_t *profiles_json(const ew_engine *e)
{
    json_t *a = json_array();

    for (uint32_t i = 0; i < e->plan.n_profiles; i++) {
        json_t *tensors = json_array();
        ew_tensor_info t;

        for (uint32_t k = 0; !ew_engine_get_tensor(e, k, i, &t); k++) {
            json_t *o = json_pack("{s:s,s:s,s:b,s:o,s:o,s:o}", "name", t.name, "dtype",
                                  ew_dtype_text(t.dtype), "input", (int)t.is_input, "min",
                                  dims_json(t.min, t.n_dims), "opt", dims_json(t.opt, t.n_dims),
                                  "max", dims_json(t.max, t.n_dims));
            if (t.alias_of)
                json_object_set_new(o, "alias_of", json_string(t.alias_of));
            json_array_append_new(tensors, o);
        }
        json_array_append_new(
            a, json_pack("{s:s,s:I,s:o}", "name", e->plan.profiles[i].name, "activation_bytes",
                         (json_int_t)e->plan.profiles[i].block_bytes, "tensors", tensors));
    }
    return a;
}

static json_t *candidate_json(const struct ew_plan *p, const struct ew_plan_candidate *c)
{
    json_t *ns = json_array();

    for (uint32_t k = 0; k < p->n_profiles; k++)
        json_array_append_new(ns, json_integer((json_int_t)c->ns[k]));
    return json_pack("{s:s,s:o}", "kernel", c->kernel, "ns", ns);
}

/* Which kernel of the layout multiplies how many rows. */
static json_t *switches_json(const struct ew_plan_tactic *t)
{
    json_t *a = json_array();

    for (uint32_t i = 0; i < t->n_switches; i++) {
        const struct ew_plan_switch *s = &t->switches[i];
        const uint64_t from = i ? t->switches[i - 1].max_m + 1 : 1;

        json_array_append_new(a, json_pack("{s:s,s:I,s:I}", "kernel", s->kernel, "from_rows",
                                           (json_int_t)from, "ns", (json_int_t)s->ns));
    }
    return a;
}

static json_t *linear_json(const struct ew_plan *p)
{
    json_t *a = json_array();

    for (uint32_t i = 0; i < p->n_tactics; i++) {
        const struct ew_plan_tactic *t = &p->tactics[i];
        json_t *others = json_array(), *m = json_array(), *o;
        char format[64];

        ew_quant_format_text(&t->format, format, sizeof(format));

        for (uint32_t k = 0; k < p->n_profiles; k++)
            json_array_append_new(m, json_integer((json_int_t)t->m[k]));
        for (uint32_t c = 0; c < t->n_candidates; c++)
            if (c != t->chosen)
                json_array_append_new(others, candidate_json(p, &t->candidates[c]));
        o = json_pack("{s:s,s:s,s:I,s:I,s:b,s:I,s:o,s:o,s:o}", "op", "Linear", "dtype",
                      ew_quant_is(&t->format) ? format : ew_dtype_text(t->dtype), "n",
                      (json_int_t)t->n, "k", (json_int_t)t->k, "glu", (int)t->glu, "uses",
                      (json_int_t)t->n_uses, "m", m, "chosen",
                      candidate_json(p, &t->candidates[t->chosen]), "runners_up", others);
        if (t->n_switches)
            json_object_set_new(o, "by_rows", switches_json(t));
        json_array_append_new(a, o);
    }
    return a;
}

struct weight_kind { /* all packed matrices of one dtype or format, heads and experts included */
    char text[64];
    uint64_t n_matrices, n_weights, bytes;
};

/* What weights of Linears are stored as, and what that costs: scales, zero points and padding
 * included. */
static json_t *weights_json(const struct ew_plan *p)
{
    struct weight_kind kinds[16] = { 0 };
    json_t *a = json_array();
    size_t n = 0;

    for (uint32_t i = 0; i < p->n_tensors; i++) {
        const struct ew_plan_tensor *t = &p->tensors[i];
        char text[64];
        size_t k = 0;

        if (!t->packed.kernel)
            continue;
        ew_quant_format_text(&t->packed.format, text, sizeof(text));
        if (!ew_quant_is(&t->packed.format))
            snprintf(text, sizeof(text), "%s", ew_dtype_text(t->dtype));
        while (k < n && strcmp(kinds[k].text, text) != 0)
            k++;
        if (k == EW_COUNT(kinds))
            continue;
        memcpy(kinds[k].text, text, sizeof(text));
        kinds[k].n_matrices += t->packed.n_experts;
        kinds[k].n_weights += t->packed.n_experts * t->packed.n * t->packed.k;
        kinds[k].bytes += t->bytes;
        n += k == n;
    }
    for (size_t k = 0; k < n; k++)
        json_array_append_new(
            a, json_pack("{s:s,s:I,s:I,s:I,s:f}", "format", kinds[k].text, "matrices",
                         (json_int_t)kinds[k].n_matrices, "weights", (json_int_t)kinds[k].n_weights,
                         "bytes", (json_int_t)kinds[k].bytes, "bits_per_weight",
                         8.0 * (double)kinds[k].bytes / (double)kinds[k].n_weights));
    return a;
}

static json_t *nodes_json(const struct ew_plan *p)
{
    json_t *a = json_array();

    for (uint32_t i = 0; i < p->n_nodes; i++)
        json_array_append_new(a, json_pack("{s:s,s:s}", "name", p->nodes[i].name, "op",
                                           ew_op_get(p->nodes[i].op)->name));
    return a;
}

/* How steps of one sequence run; `by_rows`: of several, where that was timed. */
static json_t *decode_step_json(const struct ew_plan_device *d)
{
    json_t *j =
        json_pack("{s:s,s:b,s:I,s:I}", "as", d->step[0].one_kernel ? "one kernel" : "graph",
                  "split_norms", (int)d->split_norms, "graph_ns", (json_int_t)d->step[0].graph_ns,
                  "one_kernel_ns", (json_int_t)d->step[0].one_kernel_ns);
    json_t *rows = json_array();

    for (int i = 1; i < EW_PLAN_STEP_ROWS; i++)
        if (d->step[i].graph_ns)
            json_array_append_new(rows,
                                  json_pack("{s:i,s:s,s:I,s:I}", "rows", i + 1, "as",
                                            d->step[i].one_kernel ? "one kernel" : "graph",
                                            "graph_ns", (json_int_t)d->step[i].graph_ns,
                                            "one_kernel_ns", (json_int_t)d->step[i].one_kernel_ns));
    json_object_set_new(j, "by_rows", rows);
    return j;
}

ew_status ew_engine_describe(const ew_engine *e, char **out, ew_error *err)
{
    const struct ew_plan *p = &e->plan;
    json_t *meta = NULL, *j;
    char *text;

    *out = NULL;
    EW_TRY(ew_json_parse(p->meta, strlen(p->meta), "engine META", &meta, err));
    j = json_pack("{s:s,s:I,s:o,s:o,s:o,s:s,s:s,s:o,s:o}", "name", p->name, "bytes",
                  (json_int_t)e->len, "meta", meta, "sections", sections_json(e), "tactics",
                  linear_json(p), "attention", p->attention->name, "row_ops", p->rowops->name,
                  "profiles", profiles_json(e), "nodes", nodes_json(p));
    if (j) {
        json_object_set_new(j, "weights_bytes", json_integer((json_int_t)p->weights_bytes));
        json_object_set_new(j, "weights", weights_json(p));
        json_object_set_new(j, "dynamic", json_boolean(e->is_dynamic));
        if (p->device.cublaslt) {
            char version[EW_CUBLASLT_TEXT_CAP];

            json_object_set_new(j, "cublaslt",
                                json_string(ew_cublaslt_text(p->device.cublaslt, version)));
        }
        if (p->device.name)
            json_object_set_new(j, "decode_step", decode_step_json(&p->device));
    }
    text = ew_plan_json_text(j, JSON_INDENT(2), EW_MEM_MISC);
    json_decref(j);
    *out = text;
    return *out ? EW_STATUS_OK : ew_fail(err, EW_STATUS_NO_MEMORY, "engine description");
}
