/* checkpoint/kv_scales.c - what a checkpoint says about the KV cache: which dtype it was made for,
 * and the static scales of an fp8 one. How a cache is stored is kernels/attention.h. */
#include "checkpoint/kv_scales.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "base/log.h"
#include "base/size.h"
#include "os/os.h"

#define NAME_CAP         256
#define MAX_CONFIG_BYTES ((size_t)16 << 20)

/* ---- scales ---- */

/* ModelOpt's spelling, then compressed-tensors'. */
static const char *const k_tails[3][2] = { { "k_proj.k_scale", "k_scale" },
                                           { "v_proj.v_scale", "v_scale" },
                                           { "q_proj.q_scale", "q_scale" } };

/* The tensor of K (0), V (1) or Q (2); marked as used. NULL: none. */
static const struct ew_st_tensor *find_scale(struct ew_weights *w, int64_t layer, int which)
{
    char name[NAME_CAP];

    for (int i = 0; i < 2; i++) {
        const struct ew_st_tensor *t;

        snprintf(name, sizeof(name), "%slayers.%" PRId64 ".self_attn.%s", w->prefix, layer,
                 k_tails[which][i]);
        t = ew_safetensors_find(w->st, name);
        if (t) {
            w->used[t - ew_safetensors_at(w->st, 0)] = 1;
            return t;
        }
    }
    return NULL;
}

/* One number for all heads, or one a head, whatever the ones around it in the shape. */
static ew_status read_scale(const struct ew_weights *w, const struct ew_st_tensor *t, int64_t heads,
                            float *out, ew_error *err)
{
    const char *file = ew_safetensors_file(w->st, t->i_file);
    char text[128];
    size_t n;

    ew_type_text(&t->type, text, sizeof(text));
    if (!ew_dtype_is_float(t->type.dtype) || ew_dtype_bits(t->type.dtype) < 8)
        return ew_fail(err, EW_STATUS_UNSUPPORTED, "%s: tensor '%s' is %s, a scale must be a float",
                       file, t->name, text);
    if (!ew_type_count(&t->type, &n) || (n != 1 && n != (size_t)heads))
        return ew_fail(err, EW_STATUS_MISMATCH,
                       "%s: tensor '%s' is %s, needed is 1 scale or one for each of %" PRId64
                       " KV heads",
                       file, t->name, text, heads);
    for (int64_t h = 0; h < heads; h++) {
        const size_t size = ew_dtype_bits(t->type.dtype) / 8;
        uint64_t cell = 0; /* files promise no alignment */

        memcpy(&cell, (const char *)t->data + (n == 1 ? 0 : (size_t)h * size), size);
        out[h] = (float)ew_elem_get_f64(&cell, t->type.dtype, 0);
        if (!isfinite(out[h]) || out[h] <= 0)
            return ew_fail(err, EW_STATUS_MALFORMED,
                           "%s: tensor '%s' holds %g, a scale must be above 0 and finite", file,
                           t->name, (double)out[h]);
    }
    return EW_STATUS_OK;
}

ew_status ew_kv_scales_add(struct ew_weights *w, int64_t layer, int64_t heads,
                           struct ew_value **out, ew_error *err)
{
    const struct ew_st_tensor *const t[2] = { find_scale(w, layer, 0), find_scale(w, layer, 1) };
    const int64_t dims[2] = { 2, heads };
    const struct ew_type type = ew_type_make(EW_DTYPE_F32, 2, dims);
    char name[NAME_CAP];
    float *v;

    *out = NULL;
    (void)find_scale(w, layer, 2); /* of a quantised query: there is none here */
    if (!t[0] && !t[1])
        return EW_STATUS_OK;
    if (!t[0] || !t[1])
        return ew_fail(err, EW_STATUS_NOT_FOUND,
                       "%s: tensor '%s' has no %s_scale beside it: K and V need both",
                       ew_safetensors_file(w->st, t[t[0] ? 0 : 1]->i_file), t[t[0] ? 0 : 1]->name,
                       t[0] ? "v" : "k");
    snprintf(name, sizeof(name), "model.layers.%" PRId64 ".self_attn.kv_scales", layer);
    v = ew_arena_calloc(&w->g->arena, 2 * (size_t)heads, sizeof(*v));
    if (!v)
        return ew_fail(err, EW_STATUS_NO_MEMORY, "no memory for constant '%s'", name);
    for (int i = 0; i < 2; i++)
        EW_TRY(read_scale(w, t[i], heads, v + i * heads, err));
    *out = ew_graph_add_const(w->g, name, &type, v, false);
    return *out ? EW_STATUS_OK
                : ew_fail(err, EW_STATUS_NO_MEMORY, "no memory for constant '%s'", name);
}

/* ---- the dtype that the cache was made for ---- */

struct search {
    const char *what; /* file, for messages */
    const ew_logger *logger;
    ew_dtype found; /* NONE: nothing was said */
};

/* A scheme that we have no cache for: weights do not depend on it, so that f32 is as right. */
static void say_unknown(struct search *s, const char *key, const json_t *value)
{
    char *text = json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY);

    ew_log(s->logger, EW_LOG_WARN, "%s: \"%s\" %.200s: there is no such cache here, f32 is taken",
           s->what, key, text ? text : "");
    free(text); /* jansson's own */
}

/* "FP8", "INT8" of ModelOpt; null or "None" says nothing. */
static void take_algo(struct search *s, const json_t *value)
{
    const char *name = json_string_value(value);

    if (!value || json_is_null(value) || (name && strcmp(name, "None") == 0) || s->found)
        return;
    if (name && (strcmp(name, "FP8") == 0 || strcmp(name, "fp8") == 0))
        s->found = EW_DTYPE_F8E4M3;
    else if (name && (strcmp(name, "INT8") == 0 || strcmp(name, "int8") == 0))
        s->found = EW_DTYPE_I8;
    else
        say_unknown(s, "kv_cache_quant_algo", value);
}

/* {"num_bits": 8, "type": "float" | "int", ...} of compressed-tensors and newer ModelOpt. */
static void take_scheme(struct search *s, const json_t *value)
{
    const char *type = json_string_value(json_object_get(value, "type"));
    const json_int_t bits = json_integer_value(json_object_get(value, "num_bits"));

    if (!value || json_is_null(value) || s->found)
        return;
    if (json_is_string(value))
        take_algo(s, value);
    else if (bits == 8 && type && strcmp(type, "float") == 0)
        s->found = EW_DTYPE_F8E4M3;
    else if (bits == 8 && type && strcmp(type, "int") == 0)
        s->found = EW_DTYPE_I8;
    else
        say_unknown(s, "kv_cache_scheme", value);
}

static void search_object(struct search *s, const json_t *o)
{
    take_scheme(s, json_object_get(o, "kv_cache_scheme"));
    take_algo(s, json_object_get(o, "kv_cache_quant_algo"));
}

static ew_status search_modelopt(struct search *s, const char *dir, ew_error *err)
{
    static const char file[] = "hf_quant_config.json";
    char path[4096 + 32];
    json_t *root = NULL;
    char *text = NULL;
    size_t len;
    ew_status st;

    if (!ew_path_join(path, sizeof(path), dir, file) || !ew_path_is_file(path))
        return EW_STATUS_OK;
    EW_TRY(ew_file_read(path, MAX_CONFIG_BYTES, &text, &len, err));
    st = ew_json_parse(text, len, path, &root, err);
    if (!st) {
        s->what = path;
        search_object(s, json_object_get(root, "quantization"));
    }
    json_decref(root);
    ew_mem_free(text);
    return st;
}

ew_status ew_kv_dtype_find(const char *dir, const struct ew_config *c, const ew_logger *logger,
                           ew_dtype *out, ew_error *err)
{
    static const char *const keys[] = { "quantization_config", "compression_config" };
    struct search s = { .what = c->what, .logger = logger };

    for (size_t i = 0; i < EW_COUNT(keys); i++) {
        search_object(&s, json_object_get(c->root, keys[i]));
        search_object(&s, json_object_get(c->text, keys[i]));
        search_object(&s, json_object_get(json_object_get(c->root, keys[i]), "quantization"));
    }
    if (!s.found && dir)
        EW_TRY(search_modelopt(&s, dir, err));
    *out = s.found ? s.found : EW_DTYPE_F32;
    return EW_STATUS_OK;
}
