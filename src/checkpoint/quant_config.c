/* checkpoint/quant_config.c - see quant_config.h: which method a config names, rules, and what its
 * readers share. */
#include "checkpoint/quant_config.h"

#include <inttypes.h>
#include <string.h>

#include "base/json.h"
#include "base/size.h"

#define MAX_RULES       1000000
#define MAX_ARENA_BYTES ((size_t)256 << 20)

static const struct {
    const char *name;
    ew_status (*read)(struct ew_qx_config *q, const json_t *o, ew_error *err);
} methods[] = {
    { "awq", ew_qx_read_awq },           { "gptq", ew_qx_read_gptq },
    { "fp8", ew_qx_read_fp8 },           { "fbgemm_fp8", ew_qx_read_fbgemm },
    { "mxfp4", ew_qx_read_mxfp4 },       { "compressed-tensors", ew_qx_read_ct },
    { "modelopt", ew_qx_read_modelopt },
};

static bool is_off(const json_t *v)
{
    return json_is_null(v) || json_is_false(v) ||
           (json_is_string(v) && json_string_length(v) == 0) ||
           (json_is_array(v) && json_array_size(v) == 0) ||
           (json_is_object(v) && json_object_size(v) == 0);
}

ew_status ew_qx_check_keys(const struct ew_qx_config *q, const json_t *obj,
                           const char *const *known, ew_error *err)
{
    const char *key;
    json_t *value;

    json_object_foreach((json_t *)(uintptr_t)obj, key, value)
    {
        bool found = is_off(value);

        for (size_t i = 0; known[i] && !found; i++)
            found = strcmp(key, known[i]) == 0;
        if (!found)
            return ew_fail(err, EW_STATUS_UNSUPPORTED,
                           "%s: key \"%s\" is not supported for quant_method \"%s\"", q->what, key,
                           q->method);
    }
    return EW_STATUS_OK;
}

ew_status ew_qx_unsupported(const struct ew_qx_config *q, const char *key, const char *value,
                            ew_error *err)
{
    return ew_fail(err, EW_STATUS_UNSUPPORTED,
                   "%s: \"%s\" \"%s\" is not supported for quant_method \"%s\"", q->what, key,
                   value ? value : "(none)", q->method);
}

static ew_status no_memory(const struct ew_qx_config *q, ew_error *err)
{
    return ew_fail(err, EW_STATUS_NO_MEMORY, "%s: no memory to read it", q->what);
}

static bool grow_rules(struct ew_qx_config *q)
{
    const size_t cap = q->cap_rules ? 2 * q->cap_rules : 16;
    struct ew_qx_rule *rules;

    if (q->n_rules < q->cap_rules)
        return true;
    rules = ew_mem_calloc(EW_MEM_CHECKPOINT, cap, sizeof(*rules));
    if (!rules)
        return false;
    if (q->n_rules)
        memcpy(rules, q->rules, q->n_rules * sizeof(*rules));
    ew_mem_free(q->rules);
    q->rules = rules;
    q->cap_rules = cap;
    return true;
}

ew_status ew_qx_add_rule(struct ew_qx_config *q, enum ew_qx_pattern_kind kind, const char *text,
                         const struct ew_qx_scheme *scheme, ew_error *err)
{
    struct ew_qx_rule *r;

    if (q->n_rules >= MAX_RULES)
        return ew_fail(err, EW_STATUS_LIMIT, "%s: more than %d patterns", q->what, MAX_RULES);
    if (!grow_rules(q))
        return no_memory(q, err);
    r = &q->rules[q->n_rules];
    *r = (struct ew_qx_rule){ .pattern = { .kind = kind }, .scheme = *scheme };
    r->pattern.text = ew_arena_strdup(&q->arena, text ? text : "");
    if (!r->pattern.text)
        return no_memory(q, err);
    EW_TRY(ew_qx_pattern_compile(&r->pattern, q->what, err));
    q->n_rules++;
    return EW_STATUS_OK;
}

ew_status ew_qx_add_plain(struct ew_qx_config *q, const json_t *list, const char *key,
                          enum ew_qx_pattern_kind kind, ew_error *err)
{
    const struct ew_qx_scheme plain = { .layout = EW_QX_PLAIN };

    if (!list || json_is_null(list))
        return EW_STATUS_OK;
    if (!json_is_array(list))
        return ew_fail(err, EW_STATUS_MALFORMED, "%s: \"%s\" is not a list of modules", q->what,
                       key);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *text = json_string_value(json_array_get(list, i));

        if (!text)
            return ew_fail(err, EW_STATUS_MALFORMED, "%s: \"%s\": entry %zu is not a string",
                           q->what, key, i);
        EW_TRY(ew_qx_add_rule(q, kind, text, &plain, err));
    }
    return EW_STATUS_OK;
}

ew_status ew_qx_read_group(const struct ew_qx_config *q, const json_t *obj, int64_t fallback,
                           struct ew_qx_scheme *s, ew_error *err)
{
    int64_t group;

    EW_TRY(ew_json_get_i64_or(obj, "group_size", q->what, fallback, &group, err));
    if (group == -1) {
        s->grains = EW_QX_CHANNEL;
        s->group = 0;
        return EW_STATUS_OK;
    }
    if (group < 8 || group > 65536 || group % 8 != 0)
        return ew_fail(err, EW_STATUS_UNSUPPORTED,
                       "%s: \"group_size\" is %" PRId64 ", it must be -1 or a multiple of 8 up to "
                       "65536",
                       q->what, group);
    s->grains = EW_QX_GROUP;
    s->group = (uint32_t)group;
    return EW_STATUS_OK;
}

/* The object that describes the quantisation, and how messages call it. */
static const json_t *find_object(const struct ew_config *c, const char **key)
{
    const json_t *places[2] = { c->root, c->text };

    for (size_t i = 0; i < EW_COUNT(places); i++) {
        const json_t *o = json_object_get(places[i], "quantization_config");

        *key = "quantization_config";
        if (o && !is_off(o))
            return o;
        o = json_object_get(places[i], "compression_config");
        *key = "compression_config";
        if (o && !is_off(o)) {
            const json_t *inner = json_object_get(o, "quantization_config");

            return inner && !is_off(inner) ? inner : o;
        }
    }
    *key = "hf_quant_config.json";
    return c->hf_quant && !is_off(c->hf_quant) ? c->hf_quant : NULL;
}

/* Old compressed-tensors and ModelOpt files give no quant_method. */
static const char *find_method(const json_t *o, const char *key)
{
    const char *method = json_string_value(json_object_get(o, "quant_method"));

    if (method)
        return method;
    if (json_object_get(o, "quant_algo") || json_object_get(o, "quantization"))
        return "modelopt";
    if (strcmp(key, "compression_config") == 0 || json_object_get(o, "config_groups"))
        return "compressed-tensors";
    return NULL;
}

static ew_status read_config(struct ew_qx_config *q, const struct ew_config *c, const json_t *o,
                             const char *key, ew_error *err)
{
    const char *method = find_method(o, key);

    q->what = ew_arena_printf(&q->arena, "%s: %s", c->what, key);
    if (!q->what)
        return ew_fail(err, EW_STATUS_NO_MEMORY, "%s: no memory to read it", c->what);
    if (!json_is_object(o))
        return ew_fail(err, EW_STATUS_MALFORMED, "%s: it is not a JSON object", q->what);
    if (!method)
        return ew_fail(err, EW_STATUS_MALFORMED, "%s: it has no \"quant_method\"", q->what);
    for (size_t i = 0; i < EW_COUNT(methods); i++) {
        if (strcmp(methods[i].name, method) != 0)
            continue;
        q->method = methods[i].name;
        return methods[i].read(q, o, err);
    }
    return ew_fail(err, EW_STATUS_UNSUPPORTED, "%s: quant_method \"%s\" is not supported", q->what,
                   method);
}

ew_status ew_qx_config_open(const struct ew_config *c, struct ew_qx_config **out, ew_error *err)
{
    struct ew_qx_config *q;
    const char *key;
    const json_t *o = find_object(c, &key);
    ew_status s;

    *out = NULL;
    if (!o)
        return EW_STATUS_OK;
    q = ew_mem_calloc(EW_MEM_CHECKPOINT, 1, sizeof(*q));
    if (!q)
        return ew_fail(err, EW_STATUS_NO_MEMORY, "%s: no memory to read it", c->what);
    ew_arena_init(&q->arena, EW_MEM_CHECKPOINT, MAX_ARENA_BYTES);
    s = read_config(q, c, o, key, err);
    if (s) {
        ew_qx_config_close(q);
        return s;
    }
    *out = q;
    return EW_STATUS_OK;
}

void ew_qx_config_close(struct ew_qx_config *q)
{
    if (!q)
        return;
    for (size_t i = 0; i < q->n_rules; i++)
        ew_qx_pattern_deinit(&q->rules[i].pattern);
    ew_mem_free(q->rules);
    ew_arena_deinit(&q->arena);
    ew_mem_free(q);
}

/* Globs and parts of names are lists of exceptions: as good as regexes. */
static int rank(enum ew_qx_pattern_kind kind)
{
    static const int ranks[] = { [EW_QX_NAME] = 0, [EW_QX_REGEX] = 1, [EW_QX_GLOB] = 1,
                                 [EW_QX_PART] = 1, [EW_QX_CLASS] = 2, [EW_QX_ANY] = 3 };

    return ranks[kind];
}

static bool wins(const struct ew_qx_config *q, const struct ew_qx_rule *a,
                 const struct ew_qx_rule *b)
{
    const int ra = rank(a->pattern.kind), rb = rank(b->pattern.kind);

    if ((a->scheme.layout == EW_QX_PLAIN) != (b->scheme.layout == EW_QX_PLAIN) && q->sorted)
        return a->scheme.layout == EW_QX_PLAIN; /* what is ignored is ignored */
    if (ra != rb)
        return ra < rb;
    return q->sorted && strcmp(a->pattern.text, b->pattern.text) < 0;
}

ew_status ew_qx_config_find(const struct ew_qx_config *q, const char *module,
                            const char *class_name, const struct ew_qx_scheme **out, ew_error *err)
{
    static const struct ew_qx_scheme plain = { .layout = EW_QX_PLAIN };
    const struct ew_qx_rule *best = NULL;

    for (size_t i = 0; q && i < q->n_rules; i++) {
        const struct ew_qx_rule *r = &q->rules[i];
        bool broken = false;

        if (best && !wins(q, r, best))
            continue;
        if (ew_qx_pattern_matches(&r->pattern, module, class_name, &broken))
            best = r;
        if (broken)
            return ew_fail(err, EW_STATUS_LIMIT, "%s: \"%.80s\" takes too long to match '%s'",
                           q->what, r->pattern.text, module);
    }
    *out = best ? &best->scheme : &plain;
    return EW_STATUS_OK;
}
