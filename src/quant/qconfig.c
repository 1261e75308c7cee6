/* quant/qconfig.c - the output's config.json: the checkpoint's, with quantization_config in the
 * vocabulary of compressed-tensors (config_groups, targets, ignore). */
#include <string.h>

#include "base/json.h"
#include "base/size.h"
#include "quant/quant.h"

static const char *format_name(const struct ew_q_scheme *s)
{
    switch (s->format.kind) {
    case EW_Q_INT:
        return s->format.packed ? "pack-quantized" : "int-quantized";
    case EW_Q_FP8:
        return "float-quantized";
    case EW_Q_NVFP4:
        return "nvfp4-pack-quantized";
    default:
        return "mxfp4-pack-quantized";
    }
}

/* QuantizationArgs of weights, or of activations. */
static json_t *args_json(const struct ew_q_scheme *s, bool activations)
{
    const struct ew_q_format *f = &s->format;
    const bool fp4 = f->kind == EW_Q_NVFP4 || f->kind == EW_Q_MXFP4;
    const char *strategy = f->kind == EW_Q_NVFP4 ? "tensor_group"
                           : f->group            ? "group"
                           : activations         ? "token"
                                                 : "channel";
    json_t *o = json_pack("{s:i, s:s, s:b, s:s, s:b}", "num_bits", fp4 ? 4 : f->bits, "type",
                          f->kind == EW_Q_INT ? "int" : "float", "symmetric", !f->asymmetric,
                          "strategy", strategy, "dynamic", activations);

    if (f->group)
        json_object_set_new(o, "group_size", json_integer((json_int_t)f->group));
    if (f->kind == EW_Q_NVFP4)
        json_object_set_new(o, "scale_dtype", json_string("torch.float8_e4m3fn"));
    if (f->kind == EW_Q_MXFP4)
        json_object_set_new(o, "scale_dtype", json_string("torch.uint8"));
    if (!activations && s->act_order)
        json_object_set_new(o, "actorder", json_string("static"));
    return o;
}

static json_t *group_json(const struct ew_q_scheme *s)
{
    return json_pack("{s:[], s:o, s:o, s:n, s:s}", "targets", "weights", args_json(s, false),
                     "input_activations", s->activations ? args_json(s, true) : json_null(),
                     "output_activations", "format", format_name(s));
}

struct groups {
    json_t *all, *ignore;
    const struct ew_q_scheme *schemes[72];
    json_t *group[72];
    size_t n;
};

static bool same_scheme(const struct ew_q_scheme *a, const struct ew_q_scheme *b)
{
    const struct ew_q_format *f = &a->format, *g = &b->format;

    return f->kind == g->kind && f->bits == g->bits && f->group == g->group &&
           f->asymmetric == g->asymmetric && f->packed == g->packed &&
           a->activations == b->activations && a->act_order == b->act_order;
}

static json_t *group_of(struct groups *g, const struct ew_q_scheme *s)
{
    char name[16] = "group_0";

    for (size_t i = 0; i < g->n; i++)
        if (same_scheme(g->schemes[i], s))
            return g->group[i];
    if (g->n == EW_COUNT(g->group))
        return NULL;
    name[6] = (char)('0' + g->n % 10);
    if (g->n >= 10) {
        name[6] = (char)('0' + g->n / 10);
        name[7] = (char)('0' + g->n % 10);
    }
    g->schemes[g->n] = s;
    g->group[g->n] = group_json(s);
    json_object_set_new(g->all, name, g->group[g->n]);
    return g->group[g->n++];
}

static void target(struct groups *g, const struct ew_q_scheme *s, const char *name)
{
    json_t *group = group_of(g, s);

    if (group)
        json_array_append_new(json_object_get(group, "targets"), json_string(name));
}

/* Linear modules outside the list of a layer's modules that stay as they are: routers, other
 * towers. */
static void ignore_rest(struct ew_q_run *r, struct groups *g)
{
    for (size_t i = 0; i < ew_safetensors_count(r->st); i++) {
        const struct ew_st_tensor *t = ew_safetensors_at(r->st, i);
        const size_t n = strlen(t->name);
        bool known = t == r->embed || t == r->head;

        if (n < 8 || strcmp(t->name + n - 7, ".weight") != 0 || t->type.n_dims != 2)
            continue;
        for (int64_t l = 0; !known && l < r->spec.n_layers; l++)
            for (size_t m = 0; !known && m < r->layers[l].n_modules; m++)
                known = r->layers[l].modules[m].src == t;
        if (!known)
            json_array_append_new(g->ignore, json_stringn(t->name, n - 7));
    }
}

/* The main scheme's group takes every Linear; others name their modules. */
static void fill_groups(struct ew_q_run *r, struct groups *g)
{
    const struct ew_q_options *o = r->options;
    json_t *name;

    target(g, &o->main, "Linear");
    for (int64_t l = 0; l < r->spec.n_layers; l++)
        for (size_t m = 0; m < r->layers[l].n_modules; m++) {
            const struct ew_q_module *module = &r->layers[l].modules[m];

            if (module->scheme.format.kind == EW_Q_NONE)
                json_array_append_new(g->ignore, json_string(module->name));
            else if (!same_scheme(&module->scheme, &o->main))
                target(g, &module->scheme, module->name);
        }
    if (o->lm_head.format.kind == EW_Q_NONE)
        json_array_append_new(g->ignore, json_string(r->head_name));
    else
        target(g, &o->lm_head, r->head_name);
    if (o->embedding.format.kind != EW_Q_NONE) {
        name = json_sprintf("%sembed_tokens", r->prefix);
        target(g, &o->embedding, json_string_value(name));
        json_decref(name);
    }
    ignore_rest(r, g);
}

static json_t *kv_json(int kv)
{
    if (kv == EW_Q_FP8)
        return json_pack("{s:i, s:s, s:b, s:s, s:b}", "num_bits", 8, "type", "float", "symmetric",
                         1, "strategy", "attn_head", "dynamic", 0);
    if (kv == EW_Q_INT)
        return json_pack("{s:i, s:s, s:b, s:s, s:b}", "num_bits", 8, "type", "int", "symmetric", 1,
                         "strategy", "token", "dynamic", 1);
    return json_null();
}

json_t *ew_q_config_json(struct ew_q_run *r)
{
    struct groups g = { .all = json_object(), .ignore = json_array() };
    json_t *root = json_deep_copy(r->config.root), *q, *text;
    const char *format;

    fill_groups(r, &g);
    format = json_string_value(json_object_get(g.group[0], "format"));
    for (size_t i = 1; i < g.n; i++)
        if (strcmp(json_string_value(json_object_get(g.group[i], "format")), format) != 0)
            format = "mixed-precision";
    q = json_pack("{s:s, s:s, s:s, s:o, s:o, s:o}", "quant_method", "compressed-tensors", "format",
                  format, "quantization_status", "compressed", "config_groups", g.all, "ignore",
                  g.ignore, "kv_cache_scheme", kv_json(r->options->kv));
    json_object_set_new(root, "quantization_config", q);
    if (r->write_head) {
        json_object_set_new(root, "tie_word_embeddings", json_false());
        text = json_object_get(root, "text_config");
        if (json_object_get(text, "tie_word_embeddings"))
            json_object_set_new(text, "tie_word_embeddings", json_false());
    }
    return root;
}
