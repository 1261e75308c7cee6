/* checkpoint/weights.c - see weights.h. */
#include "checkpoint/weights.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/size.h"

#define NAME_CAP 256

static const char *const prefixes[] = { "model.", "", "model.language_model.",
                                        "language_model.model.", "language_model." };
static const char *const head_names[] = { "lm_head.weight", "language_model.lm_head.weight",
                                          "model.lm_head.weight" };

ew_status ew_weights_init(struct ew_weights *w, const struct ew_safetensors *st, struct ew_graph *g,
                          ew_error *err)
{
    char name[NAME_CAP];

    *w = (struct ew_weights){ .st = st, .g = g };
    for (size_t i = 0; i < EW_COUNT(prefixes) && !w->prefix; i++) {
        snprintf(name, sizeof(name), "%sembed_tokens.weight", prefixes[i]);
        if (ew_safetensors_find(st, name))
            w->prefix = prefixes[i];
    }
    if (!w->prefix)
        return ew_fail(err, EW_STATUS_NOT_FOUND,
                       "tensor 'model.embed_tokens.weight' is missing (in all its spellings)");
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

static const struct ew_st_tensor *find(const struct ew_weights *w, const char *rel)
{
    char name[NAME_CAP];

    snprintf(name, sizeof(name), "%s%s", w->prefix, rel);
    return ew_safetensors_find(w->st, name);
}

bool ew_weights_has(const struct ew_weights *w, const char *rel)
{
    return find(w, rel) != NULL;
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

static ew_status add_const(struct ew_weights *w, const struct ew_st_tensor *t, const char *as,
                           const struct ew_type *type, size_t offset, struct ew_value **out,
                           ew_error *err)
{
    const uint8_t *data = aligned_data(w, t);
    char name[NAME_CAP];

    snprintf(name, sizeof(name), "model.%s", as);
    *out = data ? ew_graph_add_const(w->g, name, type, data + offset, false) : NULL;
    return *out ? EW_STATUS_OK : no_memory(name, err);
}

ew_status ew_weights_matrix(struct ew_weights *w, const char *rel, int64_t n, int64_t k,
                            struct ew_value **out, ew_error *err)
{
    return ew_weights_rows(w, rel, n, 0, n, k, rel, out, err);
}

ew_status ew_weights_rows(struct ew_weights *w, const char *rel, int64_t total, int64_t begin,
                          int64_t n, int64_t k, const char *as, struct ew_value **out,
                          ew_error *err)
{
    const int64_t dims[2] = { total, k }, part[2] = { n, k };
    const struct ew_st_tensor *t;
    struct ew_type type;

    EW_TRY(take(w, rel, 2, dims, &t, err));
    type = ew_type_make(t->type.dtype, 2, part);
    return add_const(w, t, as, &type, (size_t)begin * (size_t)k * (ew_dtype_bits(type.dtype) / 8),
                     out, err);
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

bool ew_weights_head_differs(const struct ew_weights *w)
{
    const struct ew_st_tensor *head = NULL, *embed;
    char name[NAME_CAP];

    for (size_t i = 0; i < EW_COUNT(head_names) && !head; i++)
        head = ew_safetensors_find(w->st, head_names[i]);
    snprintf(name, sizeof(name), "%sembed_tokens.weight", w->prefix);
    embed = ew_safetensors_find(w->st, name);
    if (!head || !embed)
        return false;
    return !ew_type_equal(&head->type, &embed->type) || head->bytes != embed->bytes ||
           memcmp(head->data, embed->data, head->bytes) != 0;
}

ew_status ew_weights_head(struct ew_weights *w, int64_t n, int64_t k, struct ew_value **out,
                          ew_error *err)
{
    const int64_t dims[2] = { n, k };
    struct ew_type type = ew_type_make(EW_DTYPE_F32, 2, dims);
    const struct ew_st_tensor *t = NULL;
    const void *data;

    for (size_t i = 0; i < EW_COUNT(head_names) && !t; i++)
        t = ew_safetensors_find(w->st, head_names[i]);
    EW_TRY(take_tensor(w, t, head_names[0], &type, err));
    type.dtype = t->type.dtype;
    data = aligned_data(w, t);
    *out = data ? ew_graph_add_const(w->g, head_names[0], &type, data, false) : NULL;
    return *out ? EW_STATUS_OK : no_memory(head_names[0], err);
}

static ew_status collect_experts(struct ew_weights *w, const struct ew_expert_block *blocks,
                                 size_t n_blocks, int64_t n_experts, int64_t k,
                                 struct ew_weight_part *parts, ew_dtype *dtype, ew_error *err)
{
    char rel[NAME_CAP];

    *dtype = EW_DTYPE_NONE;
    for (int64_t e = 0; e < n_experts; e++) {
        for (size_t b = 0; b < n_blocks; b++) {
            const int64_t dims[2] = { blocks[b].rows, k };
            const struct ew_st_tensor *t;
            const char *star = strchr(blocks[b].fmt, '*');

            snprintf(rel, sizeof(rel), "%.*s%" PRId64 "%s", (int)(star - blocks[b].fmt),
                     blocks[b].fmt, e, star + 1);
            EW_TRY(take(w, rel, 2, dims, &t, err));
            if (*dtype != EW_DTYPE_NONE && *dtype != t->type.dtype)
                return ew_fail(err, EW_STATUS_UNSUPPORTED,
                               "tensor '%s' is %s, the experts before it %s", t->name,
                               ew_dtype_text(t->type.dtype), ew_dtype_text(*dtype));
            *dtype = t->type.dtype;
            *parts = (struct ew_weight_part){ .data = aligned_data(w, t),
                                              .n_rows = (size_t)dims[0],
                                              .row_stride = (ptrdiff_t)k,
                                              .col_stride = 1 };
            if (!parts->data)
                return no_memory(rel, err);
            parts++;
        }
    }
    return EW_STATUS_OK;
}

ew_status ew_weights_experts(struct ew_weights *w, const char *as,
                             const struct ew_expert_block *blocks, size_t n_blocks,
                             int64_t n_experts, int64_t k, struct ew_value **out, ew_error *err)
{
    struct ew_weight_part *parts =
        ew_mem_calloc(EW_MEM_CHECKPOINT, (size_t)n_experts * n_blocks, sizeof(*parts));
    int64_t dims[3] = { n_experts, 0, k };
    char name[NAME_CAP];
    ew_dtype dtype;
    ew_status s;

    snprintf(name, sizeof(name), "model.%s", as);
    if (!parts)
        return no_memory(name, err);
    s = collect_experts(w, blocks, n_blocks, n_experts, k, parts, &dtype, err);
    if (!s) {
        struct ew_type type;

        for (size_t b = 0; b < n_blocks; b++)
            dims[1] += blocks[b].rows;
        type = ew_type_make(dtype, 3, dims);
        *out = ew_graph_add_const_parts(w->g, name, &type, parts, (size_t)n_experts * n_blocks);
        if (!*out)
            s = no_memory(name, err);
    }
    ew_mem_free(parts);
    return s;
}

ew_status ew_weights_stack(struct ew_weights *w, const char *rel, int64_t n_experts, int64_t rows,
                           int64_t k, struct ew_value **out, ew_error *err)
{
    const int64_t dims[3] = { n_experts, rows, k };
    const struct ew_st_tensor *t;

    EW_TRY(take(w, rel, 3, dims, &t, err));
    return add_const(w, t, rel, &t->type, 0, out, err);
}

static bool is_computed_buffer(const char *name)
{
    static const char *const tails[] = { ".inv_freq", ".masked_bias", ".embed_scale" };
    const size_t n = strlen(name);

    for (size_t i = 0; i < EW_COUNT(tails); i++) {
        const size_t m = strlen(tails[i]);

        if (n > m && strcmp(name + n - m, tails[i]) == 0)
            return true;
    }
    return false;
}

ew_status ew_weights_check_unused(const struct ew_weights *w, bool multimodal, bool tied_head,
                                  ew_error *err)
{
    for (size_t i = 0; i < ew_safetensors_count(w->st); i++) {
        const struct ew_st_tensor *t = ew_safetensors_at(w->st, i);
        bool head = false;

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
