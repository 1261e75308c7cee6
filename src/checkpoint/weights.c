/* checkpoint/weights.c - see weights.h. */
#include "checkpoint/weights.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/size.h"
#include "base/text.h"

#define NAME_CAP 256

static const char *const prefixes[] = { "model.", "", "model.language_model.",
                                        "language_model.model.", "language_model." };
static const char *const head_names[] = { "lm_head.weight", "language_model.lm_head.weight",
                                          "model.lm_head.weight" };
/* Codes of a quantised module, or a plain weight. */
static const char *const spellings[] = { "weight", "weight_packed", "qweight" };

/* Tensors of a module whose name (with ".weight") this is, in any spelling. */
static bool is_there(const struct ew_safetensors *st, const char *name)
{
    const size_t n = strlen(name) - strlen("weight");
    char other[NAME_CAP];

    for (size_t i = 0; i < EW_COUNT(spellings); i++) {
        snprintf(other, sizeof(other), "%.*s%s", (int)n, name, spellings[i]);
        if (ew_safetensors_find(st, other))
            return true;
    }
    return false;
}

static ew_status check_undeclared(const struct ew_safetensors *st, ew_error *err)
{
    for (size_t i = 0; i < ew_safetensors_count(st); i++) {
        const struct ew_st_tensor *t = ew_safetensors_at(st, i);

        if (ew_qx_looks_quantised(t->name))
            return ew_fail(err, EW_STATUS_UNSUPPORTED,
                           "%s: tensor '%s' belongs to a quantised module, config.json has no "
                           "quantization_config",
                           ew_safetensors_file(st, t->i_file), t->name);
    }
    return EW_STATUS_OK;
}

ew_status ew_weights_init(struct ew_weights *w, const struct ew_safetensors *st, struct ew_graph *g,
                          const struct ew_qx_config *quant, ew_activations activations,
                          ew_error *err)
{
    char name[NAME_CAP];

    *w = (struct ew_weights){ .st = st, .g = g, .quant = quant, .activations = activations };
    for (size_t i = 0; i < EW_COUNT(prefixes) && !w->prefix; i++) {
        snprintf(name, sizeof(name), "%sembed_tokens.weight", prefixes[i]);
        if (is_there(st, name))
            w->prefix = prefixes[i];
    }
    if (!w->prefix)
        return ew_fail(err, EW_STATUS_NOT_FOUND,
                       "tensor 'model.embed_tokens.weight' is missing (in all its spellings)");
    if (!quant)
        EW_TRY(check_undeclared(st, err));
    w->used = ew_mem_calloc(EW_MEM_CHECKPOINT, ew_safetensors_count(st), 1);
    if (!w->used)
        return ew_fail(err, EW_STATUS_NO_MEMORY, "no memory for the list of tensors");
    return EW_STATUS_OK;
}

void ew_weights_deinit(struct ew_weights *w)
{
    ew_mem_free(w->used);
    w->used = NULL;
}

bool ew_weights_has(const struct ew_weights *w, const char *rel)
{
    char name[NAME_CAP];

    snprintf(name, sizeof(name), "%s%s", w->prefix, rel);
    return is_there(w->st, name);
}

bool ew_weights_has_stack(const struct ew_weights *w, const char *rel)
{
    char name[NAME_CAP], blocks[NAME_CAP + 8];

    snprintf(name, sizeof(name), "%s%s", w->prefix, rel);
    snprintf(blocks, sizeof(blocks), "%s_blocks", name);
    return ew_safetensors_find(w->st, name) || ew_safetensors_find(w->st, blocks);
}

/* Finds, checks the shape and that the dtype is one that a weight may have; marks as used. */
static ew_status take_tensor(struct ew_weights *w, const struct ew_st_tensor *t, const char *name,
                             const struct ew_type *want, ew_error *err)
{
    char want_text[128], have_text[128];
    struct ew_type type = *want;

    ew_type_text(&type, want_text, sizeof(want_text));
    if (!t)
        return ew_fail(err, EW_STATUS_NOT_FOUND, "tensor '%s' %s is missing", name,
                       strchr(want_text, '[') ? strchr(want_text, '[') : want_text);
    ew_type_text(&t->type, have_text, sizeof(have_text));
    if (t->type.dtype != EW_DTYPE_F32 && t->type.dtype != EW_DTYPE_BF16 &&
        t->type.dtype != EW_DTYPE_F16)
        return ew_fail(err, EW_STATUS_UNSUPPORTED,
                       "%s: tensor '%s' is %s, a weight must be f32, bf16 or f16",
                       ew_safetensors_file(w->st, t->i_file), t->name, have_text);
    type.dtype = t->type.dtype;
    ew_type_text(&type, want_text, sizeof(want_text));
    if (!ew_type_equal(&type, &t->type))
        return ew_fail(err, EW_STATUS_MISMATCH, "%s: tensor '%s' is %s, the config wants %s",
                       ew_safetensors_file(w->st, t->i_file), t->name, have_text, want_text);
    w->used[t - ew_safetensors_at(w->st, 0)] = 1;
    return EW_STATUS_OK;
}

static ew_status take(struct ew_weights *w, const char *rel, int n_dims, const int64_t *dims,
                      const struct ew_st_tensor **out, ew_error *err)
{
    const struct ew_type want = ew_type_make(EW_DTYPE_F32, n_dims, dims);
    char name[NAME_CAP];

    snprintf(name, sizeof(name), "%s%s", w->prefix, rel);
    *out = ew_safetensors_find(w->st, name);
    return take_tensor(w, *out, name, &want, err);
}

/* Files promise no alignment: what lies askew is copied into the graph. */
static const void *aligned_data(struct ew_weights *w, const struct ew_st_tensor *t)
{
    void *copy;

    if ((uintptr_t)t->data % (ew_dtype_bits(t->type.dtype) / 8) == 0)
        return t->data;
    copy = ew_arena_alloc(&w->g->arena, t->bytes);
    if (copy)
        memcpy(copy, t->data, t->bytes);
    return copy;
}

static ew_status no_memory(const char *name, ew_error *err)
{
    return ew_fail(err, EW_STATUS_NO_MEMORY, "no memory for constant '%s'", name);
}

/* as: whole name. */
static ew_status add_const(struct ew_weights *w, const struct ew_st_tensor *t, const char *as,
                           const struct ew_type *type, size_t offset, struct ew_value **out,
                           ew_error *err)
{
    const uint8_t *data = aligned_data(w, t);

    *out = data ? ew_graph_add_const(w->g, as, type, data + offset, false) : NULL;
    return *out ? EW_STATUS_OK : no_memory(as, err);
}

/* ---- quantised modules ---- */

static struct ew_qx_loader loader(struct ew_weights *w)
{
    return (struct ew_qx_loader){
        .st = w->st, .arena = &w->g->arena, .used = w->used, .activations = w->activations
    };
}

/* The scheme of the module whose weight is called `name`; NULL: it is plain. */
static ew_status find_scheme(struct ew_weights *w, const char *name, const char *class_name,
                             const struct ew_qx_scheme **out, char *module, ew_error *err)
{
    const struct ew_qx_loader l = loader(w);

    *out = NULL;
    snprintf(module, NAME_CAP, "%.*s", (int)(strlen(name) - strlen(".weight")), name);
    if (!w->quant)
        return EW_STATUS_OK;
    EW_TRY(ew_qx_config_find(w->quant, module, class_name, out, err));
    if (!ew_qx_is_stored(&l, *out, module))
        *out = NULL;
    return EW_STATUS_OK;
}

static struct ew_weight as_weight(const struct ew_qx_module *m)
{
    return (struct ew_weight){ .x_mul = m->x_mul,
                               .perm = m->perm,
                               .x_quant = m->x_quant,
                               .x_block = m->x_block,
                               .x_scale = m->x_scale };
}

/* What plain weights of this dtype want of x. */
static int32_t plain_x_quant(const struct ew_weights *w, ew_dtype dtype)
{
    return w->activations == EW_ACTIVATIONS_BF16 && dtype == EW_DTYPE_BF16 ? EW_XQ_BF16
                                                                           : EW_XQ_NONE;
}

struct rows { /* [begin, begin + n) of a stored matrix [total, k] */
    int64_t total, begin, n, k;
};

/* Rows of the matrix with this whole name as the constant `as`, whole name too. */
static ew_status add_rows(struct ew_weights *w, const char *name, const char *class_name,
                          const struct rows *r, const char *as, struct ew_weight *out,
                          ew_error *err)
{
    const int64_t dims[2] = { r->total, r->k }, part[2] = { r->n, r->k };
    struct ew_type type = ew_type_make(EW_DTYPE_F32, 2, dims);
    struct ew_qx_loader l = loader(w);
    const struct ew_qx_scheme *scheme;
    const struct ew_st_tensor *t;
    struct ew_qx_module m;
    char module[NAME_CAP];

    *out = (struct ew_weight){ 0 };
    EW_TRY(find_scheme(w, name, class_name, &scheme, module, err));
    if (scheme) {
        EW_TRY(ew_qx_load(&l, scheme, module, (size_t)r->total, (size_t)r->k, &m, err));
        *out = as_weight(&m);
        out->value = ew_graph_add_const_quant(w->g, as, m.source, (size_t)r->begin, (size_t)r->n);
        return out->value ? EW_STATUS_OK : no_memory(as, err);
    }
    t = ew_safetensors_find(w->st, name);
    EW_TRY(take_tensor(w, t, name, &type, err));
    type = ew_type_make(t->type.dtype, 2, part);
    out->x_quant = plain_x_quant(w, t->type.dtype);
    return add_const(w, t, as, &type,
                     (size_t)r->begin * (size_t)r->k * (ew_dtype_bits(type.dtype) / 8), &out->value,
                     err);
}

ew_status ew_weights_matrix(struct ew_weights *w, const char *rel, int64_t n, int64_t k,
                            struct ew_weight *out, ew_error *err)
{
    return ew_weights_rows(w, rel, n, 0, n, k, rel, out, err);
}

ew_status ew_weights_rows(struct ew_weights *w, const char *rel, int64_t total, int64_t begin,
                          int64_t n, int64_t k, const char *as, struct ew_weight *out,
                          ew_error *err)
{
    const struct rows r = { total, begin, n, k };
    char name[NAME_CAP], own[NAME_CAP];

    snprintf(name, sizeof(name), "%s%s", w->prefix, rel);
    snprintf(own, sizeof(own), "model.%s", as);
    return add_rows(w, name, "Linear", &r, own, out, err);
}

ew_status ew_weights_embedding(struct ew_weights *w, int64_t n, int64_t k, struct ew_weight *out,
                               ew_error *err)
{
    const struct rows r = { n, 0, n, k };
    char name[NAME_CAP];

    snprintf(name, sizeof(name), "%sembed_tokens.weight", w->prefix);
    EW_TRY(add_rows(w, name, "Embedding", &r, "model.embed_tokens.weight", out, err));
    if (out->perm || out->x_mul)
        return ew_fail(err, EW_STATUS_UNSUPPORTED,
                       "tensor '%s': an embedding whose columns are scaled or out of order is not "
                       "supported",
                       name);
    return EW_STATUS_OK;
}

ew_status ew_weights_vector(struct ew_weights *w, const char *rel, int64_t n, float plus,
                            struct ew_value **out, ew_error *err)
{
    const struct ew_type type = ew_type_make(EW_DTYPE_F32, 1, &n);
    const struct ew_st_tensor *t;
    char name[NAME_CAP];
    const void *data;
    float *v;

    EW_TRY(take(w, rel, 1, &n, &t, err));
    snprintf(name, sizeof(name), "model.%s", rel);
    v = ew_arena_new(&w->g->arena, float, (size_t)n);
    data = aligned_data(w, t);
    if (!v || !data)
        return no_memory(name, err);
    ew_convert_floats(v, EW_DTYPE_F32, data, t->type.dtype, (size_t)n);
    for (int64_t i = 0; plus != 0.0f && i < n; i++)
        v[i] += plus;
    *out = ew_graph_add_const(w->g, name, &type, v, false);
    return *out ? EW_STATUS_OK : no_memory(name, err);
}

/* The name of the head that the files have; NULL: none. */
static const char *find_head(const struct ew_weights *w)
{
    for (size_t i = 0; i < EW_COUNT(head_names); i++)
        if (is_there(w->st, head_names[i]))
            return head_names[i];
    return NULL;
}

bool ew_weights_head_differs(const struct ew_weights *w)
{
    const char *name = find_head(w);
    const struct ew_st_tensor *head = name ? ew_safetensors_find(w->st, name) : NULL, *embed;
    char embed_name[NAME_CAP];

    snprintf(embed_name, sizeof(embed_name), "%sembed_tokens.weight", w->prefix);
    embed = ew_safetensors_find(w->st, embed_name);
    if (!head || !embed) /* quantised ones are not copies of the other */
        return name != NULL;
    return !ew_type_equal(&head->type, &embed->type) || head->bytes != embed->bytes ||
           memcmp(head->data, embed->data, head->bytes) != 0;
}

ew_status ew_weights_head(struct ew_weights *w, int64_t n, int64_t k, struct ew_weight *out,
                          ew_error *err)
{
    const struct rows r = { n, 0, n, k };
    const char *name = find_head(w);

    return add_rows(w, name ? name : head_names[0], "Linear", &r, head_names[0], out, err);
}

/* ---- experts ---- */

/* The parts of an expert constant as they come: all plain of one dtype, or all of one format. */
struct expert_parts {
    struct ew_weight_part *parts;
    size_t n;
    ew_dtype dtype;
    struct ew_quant_format format;
    struct ew_weight weight;
};

static ew_status add_plain_part(struct ew_weights *w, struct expert_parts *x, const char *name,
                                int64_t rows, int64_t k, ew_error *err)
{
    const int64_t dims[2] = { rows, k };
    const struct ew_type want = ew_type_make(EW_DTYPE_F32, 2, dims);
    const struct ew_st_tensor *t = ew_safetensors_find(w->st, name);
    struct ew_weight_part *p = &x->parts[x->n];

    EW_TRY(take_tensor(w, t, name, &want, err));
    if (x->n && (ew_quant_is(&x->format) || x->dtype != t->type.dtype))
        return ew_fail(err, EW_STATUS_UNSUPPORTED, "tensor '%s' is %s, the experts before it %s",
                       t->name, ew_dtype_text(t->type.dtype),
                       ew_quant_is(&x->format) ? "quantised" : ew_dtype_text(x->dtype));
    x->dtype = t->type.dtype;
    x->weight.x_quant = plain_x_quant(w, x->dtype);
    *p = (struct ew_weight_part){ .data = aligned_data(w, t),
                                  .n_rows = (size_t)rows,
                                  .row_stride = (ptrdiff_t)k,
                                  .col_stride = 1 };
    x->n++;
    return p->data ? EW_STATUS_OK : no_memory(name, err);
}

static ew_status add_quant_part(struct expert_parts *x, const struct ew_qx_module *m, ew_error *err)
{
    const struct ew_quant_format *f = &m->source->format;
    char have[64], before[64];

    ew_quant_format_text(f, have, sizeof(have));
    ew_quant_format_text(&x->format, before, sizeof(before));
    if (m->perm || m->x_mul || m->x_scale != 0)
        return ew_fail(err, EW_STATUS_UNSUPPORTED,
                       "quantised expert '%s': %s of its own is not supported", m->source->name,
                       m->perm    ? "an order of columns (g_idx)"
                       : m->x_mul ? "a pre_quant_scale"
                                  : "a static scale of activations");
    if (x->n && !ew_quant_format_equal(f, &x->format))
        return ew_fail(err, EW_STATUS_UNSUPPORTED,
                       "quantised expert '%s' is %s, the experts before it %s", m->source->name,
                       have, before);
    if (x->n && (m->x_quant != x->weight.x_quant || m->x_block != x->weight.x_block))
        return ew_fail(err, EW_STATUS_UNSUPPORTED,
                       "quantised expert '%s' declares other activations than those before it",
                       m->source->name);
    x->format = *f;
    x->dtype = EW_DTYPE_F32;
    x->weight = as_weight(m);
    x->parts[x->n++] = (struct ew_weight_part){ .n_rows = m->source->n,
                                                .row_stride = (ptrdiff_t)m->source->k,
                                                .col_stride = 1,
                                                .quant = m->source };
    return EW_STATUS_OK;
}

static ew_status collect_experts(struct ew_weights *w, const struct ew_expert_block *blocks,
                                 size_t n_blocks, int64_t n_experts, int64_t k,
                                 struct expert_parts *x, ew_error *err)
{
    struct ew_qx_loader l = loader(w);
    char name[NAME_CAP], module[NAME_CAP];

    for (int64_t e = 0; e < n_experts; e++) {
        for (size_t b = 0; b < n_blocks; b++) {
            const char *star = strchr(blocks[b].fmt, '*');
            const struct ew_qx_scheme *scheme;
            struct ew_qx_module m;

            snprintf(name, sizeof(name), "%s%.*s%" PRId64 "%s", w->prefix,
                     (int)(star - blocks[b].fmt), blocks[b].fmt, e, star + 1);
            EW_TRY(find_scheme(w, name, "Linear", &scheme, module, err));
            if (scheme) {
                EW_TRY(ew_qx_load(&l, scheme, module, (size_t)blocks[b].rows, (size_t)k, &m, err));
                EW_TRY(add_quant_part(x, &m, err));
            } else {
                EW_TRY(add_plain_part(w, x, name, blocks[b].rows, k, err));
            }
        }
    }
    return EW_STATUS_OK;
}

static ew_status add_experts(struct ew_weights *w, const char *as, const struct expert_parts *x,
                             const int64_t *dims, struct ew_weight *out, ew_error *err)
{
    const struct ew_type type = ew_type_make(x->dtype, 3, dims);
    char name[NAME_CAP];

    snprintf(name, sizeof(name), "model.%s", as);
    *out = x->weight;
    out->value = ew_graph_add_const_parts(w->g, name, &type, x->parts, x->n);
    return out->value ? EW_STATUS_OK : no_memory(name, err);
}

ew_status ew_weights_experts(struct ew_weights *w, const char *as,
                             const struct ew_expert_block *blocks, size_t n_blocks,
                             int64_t n_experts, int64_t k, struct ew_weight *out, ew_error *err)
{
    struct expert_parts x = { 0 };
    int64_t dims[3] = { n_experts, 0, k };
    ew_status s;

    x.parts = ew_mem_calloc(EW_MEM_CHECKPOINT, (size_t)n_experts * n_blocks, sizeof(*x.parts));
    if (!x.parts)
        return no_memory(as, err);
    for (size_t b = 0; b < n_blocks; b++)
        dims[1] += blocks[b].rows;
    s = collect_experts(w, blocks, n_blocks, n_experts, k, &x, err);
    if (!s)
        s = add_experts(w, as, &x, dims, out, err);
    ew_mem_free(x.parts);
    return s;
}

static ew_status load_stack(struct ew_weights *w, const struct ew_qx_scheme *scheme,
                            const char *name, const int64_t *dims, struct expert_parts *x,
                            ew_error *err)
{
    struct ew_qx_loader l = loader(w);
    struct ew_qx_module *m = ew_mem_calloc(EW_MEM_CHECKPOINT, (size_t)dims[0], sizeof(*m));
    ew_status s;

    if (!m)
        return no_memory(name, err);
    s = ew_qx_load_stack(&l, scheme, name, (size_t)dims[0], (size_t)dims[1], (size_t)dims[2], m,
                         err);
    for (int64_t e = 0; e < dims[0] && !s; e++)
        s = add_quant_part(x, &m[e], err);
    ew_mem_free(m);
    return s;
}

/* Quantised stacks are split into one part an expert: blocks of scales begin anew with each. */
static ew_status quant_stack(struct ew_weights *w, const struct ew_qx_scheme *scheme,
                             const char *name, const char *rel, const int64_t *dims,
                             struct ew_weight *out, ew_error *err)
{
    struct expert_parts x = { 0 };
    ew_status s;

    x.parts = ew_mem_calloc(EW_MEM_CHECKPOINT, (size_t)dims[0], sizeof(*x.parts));
    if (!x.parts)
        return no_memory(name, err);
    s = load_stack(w, scheme, name, dims, &x, err);
    if (!s)
        s = add_experts(w, rel, &x, dims, out, err);
    ew_mem_free(x.parts);
    return s;
}

ew_status ew_weights_stack(struct ew_weights *w, const char *rel, int64_t n_experts, int64_t rows,
                           int64_t k, struct ew_weight *out, ew_error *err)
{
    const int64_t dims[3] = { n_experts, rows, k };
    const struct ew_type want = ew_type_make(EW_DTYPE_F32, 3, dims);
    const struct ew_qx_scheme *scheme = NULL;
    const struct ew_st_tensor *t;
    char name[NAME_CAP], as[NAME_CAP];

    snprintf(name, sizeof(name), "%s%s", w->prefix, rel);
    snprintf(as, sizeof(as), "model.%s", rel);
    t = ew_safetensors_find(w->st, name);
    if (w->quant)
        EW_TRY(ew_qx_config_find(w->quant, name, "Linear", &scheme, err));
    if (scheme && scheme->layout != EW_QX_PLAIN && (!t || ew_dtype_bits(t->type.dtype) <= 8))
        return quant_stack(w, scheme, name, rel, dims, out, err);
    EW_TRY(take_tensor(w, t, name, &want, err));
    *out = (struct ew_weight){ 0 };
    return add_const(w, t, as, &t->type, 0, &out->value, err);
}

static bool is_computed_buffer(const char *name)
{
    static const char *const tails[] = { ".inv_freq", ".masked_bias", ".embed_scale" };

    return ew_has_tail(name, tails, EW_COUNT(tails));
}

/* GPTQ files may have biases of zeros where the model has none. */
static bool is_zero_bias(const struct ew_st_tensor *t)
{
    static const char *const tail[] = { ".bias" };
    const uint8_t *b = t->data;

    if (!ew_has_tail(t->name, tail, 1))
        return false;
    for (size_t i = 0; i < t->bytes; i++)
        if (b[i])
            return false;
    return true;
}

ew_status ew_weights_check_unused(const struct ew_weights *w, bool multimodal, bool tied_head,
                                  ew_error *err)
{
    for (size_t i = 0; i < ew_safetensors_count(w->st); i++) {
        const struct ew_st_tensor *t = ew_safetensors_at(w->st, i);
        bool head = false;

        if (w->quant && (ew_qx_is_known_extra(t->name) || is_zero_bias(t)))
            continue;
        for (size_t h = 0; h < EW_COUNT(head_names); h++)
            head = head || strcmp(t->name, head_names[h]) == 0;
        if (w->used[i] || is_computed_buffer(t->name) || (head && tied_head))
            continue;
        if (multimodal && !head && strncmp(t->name, w->prefix, strlen(w->prefix)) != 0)
            continue;
        return ew_fail(err, EW_STATUS_UNSUPPORTED,
                       "%s: tensor '%s' has no place in this model: the config does not ask for it",
                       ew_safetensors_file(w->st, t->i_file), t->name);
    }
    return EW_STATUS_OK;
}
