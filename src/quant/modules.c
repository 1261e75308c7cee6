/* quant/modules.c - the linear modules of a layer, by the names that the families store. Owns no
 * contents. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/size.h"
#include "base/text.h"
#include "quant/quant.h"

#define NAME_CAP 256

const struct ew_st_tensor *ew_q_find(const struct ew_q_run *r, const char *fmt, ...)
{
    char rel[NAME_CAP], name[NAME_CAP];
    va_list args;

    va_start(args, fmt);
    vsnprintf(rel, sizeof(rel), fmt, args);
    va_end(args);
    snprintf(name, sizeof(name), "%s%.200s", r->prefix, rel);
    return ew_safetensors_find(r->st, name);
}

ew_status ew_q_find_names(struct ew_q_run *r)
{
    static const char embed[] = "embed_tokens.weight", head[] = "lm_head.weight";

    for (size_t i = 0; i < ew_safetensors_count(r->st); i++) {
        const struct ew_st_tensor *t = ew_safetensors_at(r->st, i);

        if (ew_ends_with(t->name, embed) && !r->embed) {
            r->prefix = ew_arena_strndup(&r->arena, t->name, strlen(t->name) - strlen(embed));
            if (!r->prefix)
                return ew_fail(r->err, EW_STATUS_NO_MEMORY, "no memory for names");
            if (ew_q_find(r, "layers.0.self_attn.o_proj.weight"))
                r->embed = t;
        } else if (ew_ends_with(t->name, head) && !r->head) {
            r->head = t;
            r->head_name = ew_arena_strndup(&r->arena, t->name, strlen(t->name) - 7);
        }
    }
    if (!r->embed)
        return ew_fail(r->err, EW_STATUS_NOT_FOUND,
                       "%s: no tensor '...embed_tokens.weight' beside layers", r->dir);
    if (!r->head)
        r->head_name =
            strncmp(r->prefix, "language_model.", 15) == 0 ? "language_model.lm_head" : "lm_head";
    if (!r->head_name)
        return ew_fail(r->err, EW_STATUS_NO_MEMORY, "no memory for names");
    return EW_STATUS_OK;
}

struct lister {
    struct ew_q_run *r;
    struct ew_q_layer *layer;
    size_t cap;
};

static ew_status check_source(struct ew_q_run *r, const struct ew_st_tensor *t, const char *name,
                              size_t rows_end, size_t k)
{
    size_t count;

    if (!t)
        return ew_fail(r->err, EW_STATUS_NOT_FOUND, "tensor '%s.weight' is missing", name);
    if (t->type.dtype != EW_DTYPE_F32 && t->type.dtype != EW_DTYPE_F16 &&
        t->type.dtype != EW_DTYPE_BF16)
        return ew_fail(r->err, EW_STATUS_UNSUPPORTED,
                       "tensor '%s' is %s, a weight must be f32, "
                       "bf16 or f16",
                       t->name, ew_dtype_text(t->type.dtype));
    if (t->type.n_dims < 2 || t->type.dim[t->type.n_dims - 1] != (int64_t)k ||
        !ew_type_count(&t->type, &count) || count / k < rows_end)
        return ew_fail(r->err, EW_STATUS_MISMATCH,
                       "tensor '%s' is not the [%zu,%zu] that the config wants", t->name, rows_end,
                       k);
    return EW_STATUS_OK;
}

/* Sets the scheme; its group must divide k. */
static ew_status choose_scheme(struct ew_q_run *r, struct ew_q_module *m)
{
    struct ew_q_format *f = &m->scheme.format;

    m->scheme = *ew_q_scheme_of(r->options, m->name);
    f->scale_dtype = m->src->type.dtype;
    if (f->kind == EW_Q_NONE)
        return EW_STATUS_OK;
    if (m->k % ew_q_group(f, m->k) || (f->kind != EW_Q_INT && m->k % 2))
        return ew_fail(r->err, EW_STATUS_UNSUPPORTED,
                       "tensor '%s': group %zu does not divide its %zu columns", m->src->name,
                       f->group, m->k);
    return EW_STATUS_OK;
}

static ew_status add(struct lister *l, const struct ew_q_module *m)
{
    struct ew_q_run *r = l->r;
    struct ew_q_module *to;

    EW_TRY(check_source(r, m->src, m->name, m->row0 + m->n, m->k));
    if (l->layer->n_modules == l->cap) {
        const size_t cap = l->cap ? 2 * l->cap : 8;
        struct ew_q_module *more = ew_arena_new(&r->arena, struct ew_q_module, cap);

        if (!more)
            return ew_fail(r->err, EW_STATUS_NO_MEMORY, "no memory for modules");
        if (l->cap)
            memcpy(more, l->layer->modules, l->cap * sizeof(*more));
        l->layer->modules = more;
        l->cap = cap;
    }
    to = &l->layer->modules[l->layer->n_modules++];
    *to = *m;
    to->name = ew_arena_strdup(&r->arena, m->name);
    if (!to->name)
        return ew_fail(r->err, EW_STATUS_NO_MEMORY, "no memory for modules");
    return choose_scheme(r, to);
}

/* "<prefix>layers.<i>.<tail>", stored as such. */
static ew_status add_plain(struct lister *l, const char *tail, char role, enum ew_q_tap tap,
                           int64_t n, int64_t k)
{
    struct ew_q_run *r = l->r;
    struct ew_q_module m = {
        .n = (size_t)n, .k = (size_t)k, .tap = tap, .expert = -1, .role = role
    };
    char name[NAME_CAP];

    snprintf(name, sizeof(name), "%.160slayers.%" PRId64 ".%s", r->prefix, l->layer->index, tail);
    m.name = name;
    m.src = ew_q_find(r, "layers.%" PRId64 ".%s.weight", l->layer->index, tail);
    m.bias = ew_q_find(r, "layers.%" PRId64 ".%s.bias", l->layer->index, tail);
    return add(l, &m);
}

static ew_status add_attention(struct lister *l)
{
    const struct ew_decoder_spec *s = &l->r->spec;
    const int64_t nq = s->n_heads * s->head_dim, nkv = s->n_kv_heads * s->head_dim;

    if (s->fused_qkv) {
        EW_TRY(add_plain(l, "self_attn.qkv_proj", 'a', EW_Q_TAP_ATTN, nq + 2 * nkv, s->hidden));
    } else {
        EW_TRY(add_plain(l, "self_attn.q_proj", 'q', EW_Q_TAP_ATTN, nq, s->hidden));
        EW_TRY(add_plain(l, "self_attn.k_proj", 'k', EW_Q_TAP_ATTN, nkv, s->hidden));
        EW_TRY(add_plain(l, "self_attn.v_proj", 'v', EW_Q_TAP_ATTN, nkv, s->hidden));
    }
    return add_plain(l, "self_attn.o_proj", 'o', EW_Q_TAP_O, s->hidden, nq);
}

static ew_status add_mlp(struct lister *l)
{
    const struct ew_decoder_spec *s = &l->r->spec;

    if (s->fused_gate_up) {
        EW_TRY(add_plain(l, "mlp.gate_up_proj", 'f', EW_Q_TAP_MLP, 2 * s->inter, s->hidden));
    } else {
        EW_TRY(add_plain(l, "mlp.gate_proj", 'g', EW_Q_TAP_MLP, s->inter, s->hidden));
        EW_TRY(add_plain(l, "mlp.up_proj", 'u', EW_Q_TAP_MLP, s->inter, s->hidden));
    }
    return add_plain(l, "mlp.down_proj", 'd', EW_Q_TAP_DOWN, s->hidden, s->inter);
}

static ew_status add_expert(struct lister *l, const char *block, int e, char role, bool old)
{
    struct ew_q_run *r = l->r;
    const struct ew_decoder_spec *s = &r->spec;
    const char *names = role == 'g' ? "gate_proj" : role == 'u' ? "up_proj" : "down_proj";
    const char *tail = !old ? names : role == 'g' ? "w1" : role == 'u' ? "w3" : "w2";
    const bool down = role == 'd';
    const size_t hidden = (size_t)s->hidden, inter = (size_t)s->moe_inter, i_expert = (size_t)e;
    struct ew_q_module m = { .n = down ? hidden : inter,
                             .k = down ? inter : hidden,
                             .tap = down ? EW_Q_TAP_DOWN : EW_Q_TAP_MLP,
                             .expert = e,
                             .role = role };
    char name[NAME_CAP];

    m.src = ew_q_find(r, "layers.%" PRId64 ".%s.experts.%s", l->layer->index, block,
                      down ? "down_proj" : "gate_up_proj");
    if (m.src) {
        m.row0 = down ? i_expert * hidden : (2 * i_expert + (role == 'u')) * inter;
        tail = names;
    } else {
        m.src = ew_q_find(r, "layers.%" PRId64 ".%s.experts.%d.%s.weight", l->layer->index, block,
                          e, tail);
    }
    snprintf(name, sizeof(name), "%.120slayers.%" PRId64 ".%s.experts.%d.%s", r->prefix,
             l->layer->index, block, e, tail);
    m.name = name;
    return add(l, &m);
}

static ew_status add_moe(struct lister *l)
{
    const int64_t i = l->layer->index;
    const bool old = ew_q_find(l->r, "layers.%" PRId64 ".block_sparse_moe.gate.weight", i) != NULL;
    const char *block = old ? "block_sparse_moe" : "mlp";

    for (int e = 0; e < (int)l->r->spec.n_experts; e++) {
        EW_TRY(add_expert(l, block, e, 'g', old));
        EW_TRY(add_expert(l, block, e, 'u', old));
        EW_TRY(add_expert(l, block, e, 'd', old));
    }
    return EW_STATUS_OK;
}

ew_status ew_q_layer_list(struct ew_q_run *r, int64_t i, struct ew_q_layer *out)
{
    struct lister l = { .r = r, .layer = out };
    const bool sandwich = r->spec.norm_place == EW_NORM_SANDWICH;

    *out = (struct ew_q_layer){ .index = i };
    EW_TRY(add_attention(&l));
    if (r->spec.layers[i].moe)
        EW_TRY(add_moe(&l));
    else
        EW_TRY(add_mlp(&l));
    if (r->spec.norm_place == EW_NORM_POST)
        return EW_STATUS_OK; /* nothing stands before the projections to fold into */
    out->attn_norm = ew_q_find(r, "layers.%" PRId64 ".input_layernorm.weight", i);
    if (!r->spec.layers[i].moe)
        out->mlp_norm =
            ew_q_find(r, "layers.%" PRId64 ".%s.weight", i,
                      sandwich ? "pre_feedforward_layernorm" : "post_attention_layernorm");
    return EW_STATUS_OK;
}
