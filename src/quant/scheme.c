/* quant/scheme.c - options as given to schemes, and which module gets which. */
#include <stdio.h>
#include <string.h>

#include "base/size.h"
#include "base/text.h"
#include "quant/quant.h"

static ew_status parse_int4(const ew_quantize_opts *o, struct ew_q_scheme *s, ew_error *err)
{
    const char *method = o->method ? o->method : "awq";

    s->compensate = strcmp(method, "awq+gptq") == 0;
    if (strcmp(method, "awq") != 0 && strcmp(method, "rtn") != 0 && !s->compensate)
        return ew_fail(err, EW_STATUS_INVALID_ARG, "method '%s' is not one of rtn, awq, awq+gptq",
                       method);
    s->method = strcmp(method, "rtn") == 0 ? EW_Q_RTN : EW_Q_AWQ;
    return EW_STATUS_OK;
}

static ew_status parse_group(const ew_quantize_opts *o, struct ew_q_format *f, ew_error *err)
{
    const uint32_t group = o->group ? o->group : 128;

    if (group != 32 && group != 64 && group != 128)
        return ew_fail(err, EW_STATUS_INVALID_ARG, "group %u is not one of 32, 64, 128", group);
    if (o->bits != 0 && o->bits != 4 && o->bits != 8)
        return ew_fail(err, EW_STATUS_INVALID_ARG, "%u bits is not one of 4, 8", o->bits);
    f->group = group;
    f->asymmetric = o->asymmetric;
    f->packed = true;
    return EW_STATUS_OK;
}

/* `what` is the option the text came from. */
static ew_status parse_scheme(const ew_quantize_opts *o, const char *text, const char *what,
                              struct ew_q_scheme *s, ew_error *err)
{
    struct ew_q_format *f = &s->format;

    *s = (struct ew_q_scheme){ .method = EW_Q_RTN };
    if (strcmp(text, "none") == 0)
        return EW_STATUS_OK;
    *f = (struct ew_q_format){ .kind = EW_Q_INT, .bits = 4 };
    s->activations = true;
    if (strcmp(text, "int8") == 0) {
        f->bits = 8;
        s->smooth = !o->method || strcmp(o->method, "rtn") != 0;
    } else if (strcmp(text, "int4") == 0) {
        s->activations = false;
        EW_TRY(parse_group(o, f, err));
        return parse_int4(o, s, err);
    } else if (strcmp(text, "gptq") == 0) {
        s->activations = false;
        s->method = EW_Q_GPTQ;
        s->act_order = o->act_order;
        EW_TRY(parse_group(o, f, err));
        f->bits = o->bits ? (int)o->bits : 4;
    } else if (strcmp(text, "fp8") == 0) {
        f->kind = EW_Q_FP8;
        f->bits = 8;
    } else if (strcmp(text, "nvfp4") == 0) {
        f->kind = EW_Q_NVFP4;
        f->group = 16;
        s->activations = false; /* they would need a calibrated scale of each tensor */
    } else if (strcmp(text, "mxfp4") == 0) {
        f->kind = EW_Q_MXFP4;
        f->group = 32;
    } else {
        return ew_fail(err, EW_STATUS_INVALID_ARG,
                       "%s '%s' is not one of int8, int4, gptq, fp8, nvfp4, mxfp4, none", what,
                       text);
    }
    return EW_STATUS_OK;
}

/* Heads and embeddings are wide tables: rounded to nearest, activations left alone. */
static ew_status parse_end(const ew_quantize_opts *o, const char *text, const char *what,
                           struct ew_q_scheme *s, ew_error *err)
{
    EW_TRY(parse_scheme(o, text ? text : "none", what, s, err));
    s->method = EW_Q_RTN;
    s->smooth = s->activations = s->act_order = false;
    s->format.packed = s->format.kind == EW_Q_INT;
    return EW_STATUS_OK;
}

static ew_status parse_overrides(const ew_quantize_opts *o, struct ew_q_options *out, ew_error *err)
{
    if (o->n_overrides > EW_COUNT(out->overrides))
        return ew_fail(err, EW_STATUS_INVALID_ARG, "%u overrides, at most %zu", o->n_overrides,
                       EW_COUNT(out->overrides));
    for (uint32_t i = 0; i < o->n_overrides; i++) {
        const char *equals = strrchr(o->overrides[i], '=');

        if (!equals || equals == o->overrides[i])
            return ew_fail(err, EW_STATUS_INVALID_ARG, "override '%s' is not PATTERN=SCHEME",
                           o->overrides[i]);
        EW_TRY(parse_scheme(o, equals + 1, "override scheme", &out->overrides[i], err));
    }
    return EW_STATUS_OK;
}

static ew_status parse_kv(const char *text, int *out, ew_error *err)
{
    *out = EW_Q_NONE;
    if (!text || strcmp(text, "none") == 0)
        return EW_STATUS_OK;
    if (strcmp(text, "int8") == 0)
        *out = EW_Q_INT;
    else if (strcmp(text, "fp8") == 0)
        *out = EW_Q_FP8;
    else
        return ew_fail(err, EW_STATUS_INVALID_ARG, "kv '%s' is not one of int8, fp8, none", text);
    return EW_STATUS_OK;
}

static bool is_asked(const ew_quantize_opts *o, const char *scheme)
{
    const char *const named[] = { o->scheme, o->lm_head, o->embedding };

    for (size_t i = 0; i < EW_COUNT(named); i++)
        if (named[i] && strcmp(named[i], scheme) == 0)
            return true;
    for (uint32_t i = 0; i < o->n_overrides; i++)
        if (strcmp(strrchr(o->overrides[i], '=') + 1, scheme) == 0)
            return true;
    return false;
}

/* An option that no scheme listens to is a misunderstanding: the folder would not be what was
 * meant. */
static ew_status check_heard(const ew_quantize_opts *o, ew_error *err)
{
    const bool int8 = is_asked(o, "int8"), int4 = is_asked(o, "int4"), gptq = is_asked(o, "gptq");
    const struct {
        const char *option, *schemes;
        bool set, heard;
    } all[] = {
        { "method", "int4 and int8", o->method != NULL, int4 || int8 },
        { "group", "int4 and gptq", o->group != 0, int4 || gptq },
        { "bits", "gptq", o->bits != 0, gptq },
        { "asymmetric", "int4 and gptq", o->asymmetric, int4 || gptq },
        { "act-order", "gptq", o->act_order, gptq },
    };

    for (size_t i = 0; i < EW_COUNT(all); i++)
        if (all[i].set && !all[i].heard)
            return ew_fail(err, EW_STATUS_INVALID_ARG, "option %s is for %s, the scheme is %s",
                           all[i].option, all[i].schemes, o->scheme);
    if (o->method && !int4 && strcmp(o->method, "rtn") != 0)
        return ew_fail(err, EW_STATUS_INVALID_ARG, "method '%s' of int8 is not rtn", o->method);
    return EW_STATUS_OK;
}

ew_status ew_q_options_parse(const ew_quantize_opts *raw, struct ew_q_options *out, ew_error *err)
{
    *out = (struct ew_q_options){ .raw = raw };
    if (raw->struct_size != sizeof(*raw))
        return ew_fail(err, EW_STATUS_INVALID_ARG, "quantize options: struct_size is %u, not %zu",
                       raw->struct_size, sizeof(*raw));
    if (!raw->scheme)
        return ew_fail(err, EW_STATUS_INVALID_ARG, "no scheme is given");
    EW_TRY(parse_scheme(raw, raw->scheme, "scheme", &out->main, err));
    if (out->main.format.kind == EW_Q_NONE)
        return ew_fail(err, EW_STATUS_INVALID_ARG,
                       "scheme 'none' is not one of int8, int4, gptq, fp8, nvfp4, mxfp4");
    EW_TRY(parse_end(raw, raw->lm_head, "lm-head", &out->lm_head, err));
    if (raw->embedding && strcmp(raw->embedding, "none") != 0 &&
        strcmp(raw->embedding, "int8") != 0)
        return ew_fail(err, EW_STATUS_INVALID_ARG, "embedding '%s' is not one of int8, none",
                       raw->embedding);
    EW_TRY(parse_end(raw, raw->embedding, "embedding", &out->embedding, err));
    EW_TRY(parse_kv(raw->kv, &out->kv, err));
    EW_TRY(parse_overrides(raw, out, err));
    return check_heard(raw, err);
}

const struct ew_q_scheme *ew_q_scheme_of(struct ew_q_options *o, const char *module)
{
    const struct ew_q_scheme *found = NULL;

    for (uint32_t i = o->raw->n_overrides; i-- > 0;) {
        const char *text = o->raw->overrides[i];
        const size_t len = (size_t)(strrchr(text, '=') - text);
        char pattern[256];

        snprintf(pattern, sizeof(pattern), "%.*s", (int)len, text);
        if (len >= sizeof(pattern) || !ew_glob_match(pattern, module))
            continue;
        o->override_used[i] = true;
        found = found ? found : &o->overrides[i];
    }
    return found ? found : &o->main;
}

ew_status ew_q_options_check_used(const struct ew_q_options *o, ew_error *err)
{
    for (uint32_t i = 0; i < o->raw->n_overrides; i++)
        if (!o->override_used[i])
            return ew_fail(err, EW_STATUS_INVALID_ARG,
                           "override '%s' matches no linear module of a layer (the head and the "
                           "embedding have options of their own)",
                           o->raw->overrides[i]);
    return EW_STATUS_OK;
}
