/* checkpoint/rope.c - parsing of rope dicts and the tables of every type. */
#include "checkpoint/rope.h"

#include <math.h>
#include <string.h>

#include "base/json.h"
#include "base/size.h"

static const char *const rope_names[] = { "default", "linear", "dynamic",
                                          "llama3",  "yarn",   "longrope" };

static const char *const rope_keys[] = {
    "rope_type", "type", "rope_theta", "factor", "partial_rotary_factor",
    "original_max_position_embeddings", "attention_factor", "beta_fast", "beta_slow", "mscale",
    "mscale_all_dim", "truncate", "short_factor", "long_factor", "low_freq_factor",
    "high_freq_factor",
    /* text positions are the same in all three sections, so these change nothing for text */
    "mrope_section", "mrope_interleaved",
    /* what yarn checkpoints of other tools carry beside original_max_position_embeddings */
    "finetuned",
    /* ours */
    "rotary_dim", "max_position_embeddings"
};

static ew_status check_keys(const json_t *dict, const char *what, ew_error *err)
{
    const char *key;
    json_t *value;

    json_object_foreach((json_t *)(uintptr_t)dict, key, value)
    {
        size_t i = 0;

        while (i < EW_COUNT(rope_keys) && strcmp(rope_keys[i], key) != 0)
            i++;
        if (i == EW_COUNT(rope_keys) && !json_is_null(value) && !json_is_false(value))
            return ew_fail(err, EW_STATUS_UNSUPPORTED, "%s: rope key \"%s\" is not supported", what,
                           key);
    }
    return EW_STATUS_OK;
}

static ew_status find_type(const json_t *dict, bool yarn_is_longrope, const char *what,
                           enum ew_rope_type *out, ew_error *err)
{
    const char *name, *old;

    EW_TRY(ew_json_get_str_or(dict, "type", what, "default", &old, err));
    EW_TRY(ew_json_get_str_or(dict, "rope_type", what, old, &name, err));
    if (strcmp(name, "su") == 0 || (yarn_is_longrope && strcmp(name, "yarn") == 0))
        name = "longrope";
    if (strcmp(name, "mrope") == 0)
        name = "default";
    for (size_t i = 0; i < EW_COUNT(rope_names); i++) {
        if (strcmp(rope_names[i], name) == 0) {
            *out = (enum ew_rope_type)i;
            return EW_STATUS_OK;
        }
    }
    return ew_fail(err, EW_STATUS_UNSUPPORTED, "%s: rope type \"%s\" is not supported", what, name);
}

static ew_status get_positive(const json_t *dict, const char *key, const char *what,
                              double fallback, double *out, ew_error *err)
{
    EW_TRY(ew_json_get_f64_or(dict, key, what, fallback, out, err));
    if (!(*out > 0.0) || !isfinite(*out))
        return ew_fail(err, EW_STATUS_MALFORMED, "%s: rope \"%s\" is %g, not a positive number",
                       what, key, *out);
    return EW_STATUS_OK;
}

/* A key without which the type means nothing. */
static ew_status need(const json_t *dict, const char *key, const char *what, enum ew_rope_type type,
                      ew_error *err)
{
    const json_t *v = json_object_get(dict, key);

    if (!v || json_is_null(v))
        return ew_fail(err, EW_STATUS_MALFORMED, "%s: rope type \"%s\" needs \"%s\"", what,
                       rope_names[type], key);
    return EW_STATUS_OK;
}

static ew_status get_factors(const json_t *dict, const char *key, const char *what, int half,
                             float *out, ew_error *err)
{
    const json_t *list = json_object_get(dict, key);

    if (!json_is_array(list) || json_array_size(list) != (size_t)half)
        return ew_fail(err, EW_STATUS_MALFORMED,
                       "%s: rope \"%s\" has %zu numbers, rotary_dim / 2 is %d", what, key,
                       json_array_size(list), half);
    for (int i = 0; i < half; i++) {
        const json_t *v = json_array_get(list, (size_t)i);

        out[i] = (float)json_number_value(v);
        if (!json_is_number(v) || !(out[i] > 0.0f) || !isfinite(out[i]))
            return ew_fail(err, EW_STATUS_MALFORMED, "%s: rope \"%s\"[%d] is not a positive number",
                           what, key, i);
    }
    return EW_STATUS_OK;
}

static double get_mscale(double scale, double mscale)
{
    return scale <= 1.0 ? 1.0 : 0.1 * mscale * log(scale) + 1.0;
}

static ew_status parse_yarn(const json_t *dict, const char *what, struct ew_rope_spec *s,
                            ew_error *err)
{
    double mscale, all_dim, attention;
    const double implied = (double)s->max_position / (double)s->original_max;

    if (s->theta == 1.0)
        return ew_fail(err, EW_STATUS_MALFORMED, "%s: yarn with \"rope_theta\" 1", what);
    EW_TRY(get_positive(dict, "factor", what, implied, &s->factor, err));
    EW_TRY(ew_json_get_f64_or(dict, "mscale", what, 0, &mscale, err));
    EW_TRY(ew_json_get_f64_or(dict, "mscale_all_dim", what, 0, &all_dim, err));
    attention = get_mscale(s->factor, 1.0);
    if (mscale != 0.0 && all_dim != 0.0)
        attention = get_mscale(s->factor, mscale) / get_mscale(s->factor, all_dim);
    EW_TRY(
        ew_json_get_f64_or(dict, "attention_factor", what, attention, &s->attention_factor, err));
    EW_TRY(ew_json_get_f64_or(dict, "beta_fast", what, 32, &s->beta_fast, err));
    EW_TRY(ew_json_get_f64_or(dict, "beta_slow", what, 1, &s->beta_slow, err));
    if (s->beta_fast == 0.0) /* as transformers: 0 is "not given" */
        s->beta_fast = 32;
    if (s->beta_slow == 0.0)
        s->beta_slow = 1;
    if (s->beta_fast < 0.0 || s->beta_slow < 0.0)
        return ew_fail(err, EW_STATUS_MALFORMED, "%s: rope beta_fast %g, beta_slow %g", what,
                       s->beta_fast, s->beta_slow);
    return ew_json_get_bool_or(dict, "truncate", what, true, &s->truncate, err);
}

static ew_status parse_longrope(const json_t *dict, const char *what, struct ew_rope_spec *s,
                                ew_error *err)
{
    const double implied = (double)s->max_position / (double)s->original_max;
    double factor, attention = 1.0;

    EW_TRY(get_positive(dict, "factor", what, implied, &factor, err));
    if (factor > 1.0 && s->original_max > 1)
        attention = sqrt(1.0 + log(factor) / log((double)s->original_max));
    EW_TRY(
        ew_json_get_f64_or(dict, "attention_factor", what, attention, &s->attention_factor, err));
    EW_TRY(get_factors(dict, "short_factor", what, s->rotary_dim / 2, s->short_factor, err));
    return get_factors(dict, "long_factor", what, s->rotary_dim / 2, s->long_factor, err);
}

static ew_status parse_llama3(const json_t *dict, const char *what, struct ew_rope_spec *s,
                              ew_error *err)
{
    EW_TRY(need(dict, "factor", what, s->type, err));
    EW_TRY(need(dict, "low_freq_factor", what, s->type, err));
    EW_TRY(need(dict, "high_freq_factor", what, s->type, err));
    EW_TRY(get_positive(dict, "factor", what, 1, &s->factor, err));
    EW_TRY(get_positive(dict, "low_freq_factor", what, 1, &s->low_freq_factor, err));
    EW_TRY(get_positive(dict, "high_freq_factor", what, 1, &s->high_freq_factor, err));
    if (s->high_freq_factor <= s->low_freq_factor)
        return ew_fail(err, EW_STATUS_MALFORMED,
                       "%s: rope high_freq_factor %g is not above low_freq_factor %g", what,
                       s->high_freq_factor, s->low_freq_factor);
    return EW_STATUS_OK;
}

static ew_status parse_dims(const json_t *dict, const struct ew_rope_context *ctx, const char *what,
                            struct ew_rope_spec *s, ew_error *err)
{
    double partial, dim;

    EW_TRY(get_positive(dict, "rope_theta", what, ctx->theta, &s->theta, err));
    EW_TRY(get_positive(dict, "partial_rotary_factor", what, ctx->partial, &partial, err));
    dim = floor((double)ctx->head_dim * partial);
    if (partial > 1.0 || dim < 2.0 || dim > 2.0 * EW_ROPE_MAX_HALF || fmod(dim, 2.0) != 0.0)
        return ew_fail(
            err, EW_STATUS_UNSUPPORTED,
            "%s: head_dim %lld with partial_rotary_factor %g rotates %g elements, not an "
            "even number in 2..%d",
            what, (long long)ctx->head_dim, partial, dim, 2 * EW_ROPE_MAX_HALF);
    s->rotary_dim = (int)dim;
    s->max_position = ctx->max_position;
    EW_TRY(ew_json_get_i64_or(dict, "original_max_position_embeddings", what, ctx->max_position,
                              &s->original_max, err));
    if (ctx->original_max > 0)
        s->original_max = ctx->original_max;
    if (s->original_max < 1 || s->max_position < 1)
        return ew_fail(err, EW_STATUS_MALFORMED,
                       "%s: rope for %lld positions, originally %lld: both must be positive", what,
                       (long long)s->max_position, (long long)s->original_max);
    return EW_STATUS_OK;
}

ew_status ew_rope_parse(const json_t *dict, const struct ew_rope_context *ctx, const char *what,
                        struct ew_rope_spec *out, ew_error *err)
{
    struct ew_rope_spec s = { .factor = 1, .attention_factor = 1, .truncate = true };

    if (json_is_null(dict))
        dict = NULL;
    if (dict && !json_is_object(dict))
        return ew_fail(err, EW_STATUS_MALFORMED, "%s: its rope parameters are not an object", what);
    EW_TRY(check_keys(dict, what, err));
    EW_TRY(find_type(dict, ctx->yarn_is_longrope, what, &s.type, err));
    EW_TRY(parse_dims(dict, ctx, what, &s, err));
    switch (s.type) {
    case EW_ROPE_DEFAULT:
        break;
    case EW_ROPE_LINEAR:
    case EW_ROPE_DYNAMIC:
        EW_TRY(need(dict, "factor", what, s.type, err));
        EW_TRY(get_positive(dict, "factor", what, 1, &s.factor, err));
        if (s.type == EW_ROPE_DYNAMIC && s.rotary_dim < 4)
            return ew_fail(err, EW_STATUS_UNSUPPORTED, "%s: dynamic rope over %d elements", what,
                           s.rotary_dim);
        break;
    case EW_ROPE_LLAMA3:
        EW_TRY(parse_llama3(dict, what, &s, err));
        break;
    case EW_ROPE_YARN:
        EW_TRY(parse_yarn(dict, what, &s, err));
        break;
    case EW_ROPE_LONGROPE:
        EW_TRY(parse_longrope(dict, what, &s, err));
        break;
    }
    if (!(s.attention_factor > 0.0) || !isfinite(s.attention_factor))
        return ew_fail(err, EW_STATUS_MALFORMED, "%s: rope attention_factor is %g", what,
                       s.attention_factor);
    *out = s;
    return EW_STATUS_OK;
}

static json_t *factors_to_json(const float *v, int n)
{
    json_t *list = json_array();

    for (int i = 0; i < n; i++)
        json_array_append_new(list, json_real((double)v[i]));
    return list;
}

json_t *ew_rope_to_json(const struct ew_rope_spec *s)
{
    json_t *o = json_pack("{s:s, s:i, s:f, s:I}", "rope_type", rope_names[s->type], "rotary_dim",
                          s->rotary_dim, "rope_theta", s->theta, "max_position_embeddings",
                          (json_int_t)s->max_position);

    if (!o)
        return NULL;
    if (s->type != EW_ROPE_DEFAULT && s->type != EW_ROPE_LONGROPE)
        json_object_set_new(o, "factor", json_real(s->factor));
    if (s->type >= EW_ROPE_LLAMA3)
        json_object_set_new(o, "original_max_position_embeddings", json_integer(s->original_max));
    if (s->type >= EW_ROPE_YARN)
        json_object_set_new(o, "attention_factor", json_real(s->attention_factor));
    if (s->type == EW_ROPE_LLAMA3) {
        json_object_set_new(o, "low_freq_factor", json_real(s->low_freq_factor));
        json_object_set_new(o, "high_freq_factor", json_real(s->high_freq_factor));
    } else if (s->type == EW_ROPE_YARN) {
        json_object_set_new(o, "beta_fast", json_real(s->beta_fast));
        json_object_set_new(o, "beta_slow", json_real(s->beta_slow));
        json_object_set_new(o, "truncate", json_boolean(s->truncate));
    } else if (s->type == EW_ROPE_LONGROPE) {
        json_object_set_new(o, "short_factor", factors_to_json(s->short_factor, s->rotary_dim / 2));
        json_object_set_new(o, "long_factor", factors_to_json(s->long_factor, s->rotary_dim / 2));
    }
    return o;
}

ew_status ew_rope_from_json(const json_t *obj, const char *what, struct ew_rope_spec *out,
                            ew_error *err)
{
    struct ew_rope_context ctx = { .theta = 10000, .partial = 1 };

    if (!json_is_object(obj))
        return ew_fail(err, EW_STATUS_MALFORMED, "%s: a rope spec is not an object", what);
    EW_TRY(ew_json_get_i64(obj, "rotary_dim", what, &ctx.head_dim, err));
    EW_TRY(ew_json_get_i64(obj, "max_position_embeddings", what, &ctx.max_position, err));
    return ew_rope_parse(obj, &ctx, what, out, err);
}

ew_status ew_rope_from_llm_config(const json_t *config, const char *what, struct ew_rope_spec *out,
                                  ew_error *err)
{
    const json_t *dict = json_object_get(config, "rope_scaling");
    struct ew_rope_context ctx;

    EW_TRY(ew_json_get_i64(config, "head_dim", what, &ctx.head_dim, err));
    EW_TRY(ew_json_get_i64(config, "max_position_embeddings", what, &ctx.max_position, err));
    EW_TRY(ew_json_get_f64_or(config, "rope_theta", what, 10000, &ctx.theta, err));
    EW_TRY(ew_json_get_f64_or(config, "partial_rotary_factor", what, 1, &ctx.partial, err));
    EW_TRY(ew_json_get_i64_or(config, "original_max_position_embeddings", what, 0,
                              &ctx.original_max, err));
    ctx.yarn_is_longrope = json_object_get(dict, "short_factor") != NULL;
    return ew_rope_parse(dict, &ctx, what, out, err);
}

/* ---- tables ---- */

/* base^(2 i / dim), each step rounded to f32 as transformers does. */
static float freq_power(float base, int i, int dim)
{
    const float e = (float)(2 * i) / (float)dim;

    return (float)pow((double)base, (double)e);
}

static float dynamic_base(const struct ew_rope_spec *s, int64_t hint)
{
    const double e = (double)s->rotary_dim / (double)(s->rotary_dim - 2);
    float grown;

    if (hint <= s->max_position)
        return (float)s->theta;
    grown = (float)s->factor * (float)hint / (float)s->max_position - (float)(s->factor - 1.0);
    return (float)s->theta * (float)pow((double)grown, e);
}

static double yarn_dim(const struct ew_rope_spec *s, double rotations)
{
    const double turns = (double)s->original_max / (rotations * 2.0 * M_PI);

    return (double)s->rotary_dim * log(turns) / (2.0 * log(s->theta));
}

static void fill_yarn(const struct ew_rope_spec *s, float *inv_freq)
{
    double low = yarn_dim(s, s->beta_fast), high = yarn_dim(s, s->beta_slow);

    if (s->truncate) {
        low = floor(low);
        high = ceil(high);
    }
    low = low > 0.0 ? low : 0.0;
    high = high < s->rotary_dim - 1 ? high : s->rotary_dim - 1;
    if (low == high)
        high += 0.001;
    for (int i = 0; i < s->rotary_dim / 2; i++) {
        const float p = freq_power((float)s->theta, i, s->rotary_dim);
        const float ramp = ((float)i - (float)low) / (float)(high - low);
        const float keep = 1.0f - (ramp < 0.0f ? 0.0f : ramp > 1.0f ? 1.0f : ramp);

        inv_freq[i] = 1.0f / ((float)s->factor * p) * (1.0f - keep) + 1.0f / p * keep;
    }
}

static void fill_llama3(const struct ew_rope_spec *s, float *inv_freq)
{
    const float low_wave = (float)((double)s->original_max / s->low_freq_factor);
    const float high_wave = (float)((double)s->original_max / s->high_freq_factor);
    const float factor = (float)s->factor;

    for (int i = 0; i < s->rotary_dim / 2; i++) {
        const float f = 1.0f / freq_power((float)s->theta, i, s->rotary_dim);
        const float wave = (float)(2.0 * M_PI) / f;
        const float smooth = ((float)s->original_max / wave - (float)s->low_freq_factor) /
                             (float)(s->high_freq_factor - s->low_freq_factor);

        if (wave > low_wave)
            inv_freq[i] = f / factor;
        else if (wave < high_wave)
            inv_freq[i] = f;
        else
            inv_freq[i] = (1.0f - smooth) * f / factor + smooth * f;
    }
}

static void fill_inv_freq(const struct ew_rope_spec *s, int64_t hint, float *inv_freq)
{
    const float *ext = hint > s->original_max ? s->long_factor : s->short_factor;
    const float base = s->type == EW_ROPE_DYNAMIC ? dynamic_base(s, hint) : (float)s->theta;

    if (s->type == EW_ROPE_YARN) {
        fill_yarn(s, inv_freq);
        return;
    }
    if (s->type == EW_ROPE_LLAMA3) {
        fill_llama3(s, inv_freq);
        return;
    }
    for (int i = 0; i < s->rotary_dim / 2; i++) {
        const float p = freq_power(base, i, s->rotary_dim);

        inv_freq[i] = 1.0f / (s->type == EW_ROPE_LONGROPE ? ext[i] * p : p);
        if (s->type == EW_ROPE_LINEAR)
            inv_freq[i] /= (float)s->factor;
    }
}

bool ew_rope_depends_on_length(const struct ew_rope_spec *s, int64_t *threshold)
{
    if (s->type != EW_ROPE_DYNAMIC && s->type != EW_ROPE_LONGROPE)
        return false;
    if (threshold)
        *threshold = s->type == EW_ROPE_DYNAMIC ? s->max_position : s->original_max;
    return true;
}

bool ew_rope_same_table(const struct ew_rope_spec *s, int64_t a, int64_t b)
{
    int64_t threshold;

    if (a == b || !ew_rope_depends_on_length(s, &threshold))
        return true;
    if (a <= threshold || b <= threshold)
        return (a <= threshold) == (b <= threshold);
    return s->type == EW_ROPE_LONGROPE;
}

void ew_rope_fill(const struct ew_rope_spec *s, int64_t hint, int64_t pos_begin, size_t n_pos,
                  float *out)
{
    const size_t half = (size_t)s->rotary_dim / 2;
    const float scale = (float)s->attention_factor;
    float inv_freq[EW_ROPE_MAX_HALF];

    fill_inv_freq(s, hint, inv_freq);
    for (size_t p = 0; p < n_pos; p++) {
        float *row = out + p * 2 * half;

        for (size_t i = 0; i < half; i++) {
            const double angle = (double)((float)(pos_begin + (int64_t)p) * inv_freq[i]);

            row[i] = (float)cos(angle) * scale;
            row[half + i] = (float)sin(angle) * scale;
        }
    }
}
