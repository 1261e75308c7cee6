/* graph/ir.c - a graph and its values: creation, names, constants, owners, counts.
 *
 * Nodes and edges are in ir_edit.c. */
#include "graph/ir.h"

#include <string.h>

#include "base/size.h"

ew_status ew_graph_create(const char *name, struct ew_graph **out, ew_error *err)
{
    struct ew_graph *g = ew_mem_calloc(EW_MEM_GRAPH, 1, sizeof(*g));

    *out = NULL;
    if (!g)
        return ew_fail(err, EW_STATUS_NO_MEMORY, "graph object");
    ew_arena_init(&g->arena, EW_MEM_GRAPH, 0);
    ew_map_init(&g->values_by_name, EW_MEM_GRAPH);
    g->syms = ew_symtab_create();
    g->name = ew_arena_strdup(&g->arena, name ? name : "");
    if (!g->syms || !g->name) {
        ew_graph_destroy(g);
        return ew_fail(err, EW_STATUS_NO_MEMORY, "graph object");
    }
    *out = g;
    return EW_STATUS_OK;
}

void ew_graph_destroy(ew_graph *g)
{
    if (!g)
        return;
    for (struct ew_owner *o = g->owners; o; o = o->next)
        o->release(o->obj);
    ew_map_deinit(&g->values_by_name);
    ew_symtab_destroy(g->syms);
    ew_mem_free(g->inputs);
    ew_mem_free(g->outputs);
    ew_mem_free(g->values);
    ew_mem_free(g->llm_config);
    ew_arena_deinit(&g->arena);
    ew_mem_free(g);
}

ew_status ew_graph_own(struct ew_graph *g, void *obj, void (*release)(void *))
{
    struct ew_owner *o = ew_arena_new(&g->arena, struct ew_owner, 1);

    if (!o) {
        release(obj);
        return EW_STATUS_NO_MEMORY;
    }
    *o = (struct ew_owner){ obj, release, g->owners };
    g->owners = o;
    return EW_STATUS_OK;
}

/* ---- values ---- */

bool ew_value_is_live(const struct ew_value *v)
{
    return v->is_input || v->is_const || v->producer;
}

struct ew_value *ew_graph_find(const struct ew_graph *g, const char *name)
{
    uint32_t id;

    if (!ew_map_find(&g->values_by_name, name, strlen(name), &id) || id >= g->n_values ||
        strcmp(g->values[id]->name, name) != 0)
        return NULL; /* also a suffix counter, see ew_graph_unique_name */
    return ew_value_is_live(g->values[id]) ? g->values[id] : NULL;
}

const char *ew_graph_unique_name(struct ew_graph *g, const char *name)
{
    const char *base = name && *name ? name : "v";
    char *counter; /* "\1base" holds the next suffix to try: many values share a base */
    uint32_t id, i = 1;

    if (!ew_map_find(&g->values_by_name, base, strlen(base), &id))
        return ew_arena_strdup(&g->arena, base);
    counter = ew_arena_printf(&g->arena, "\1%s", base);
    if (!counter)
        return NULL;
    (void)ew_map_find(&g->values_by_name, counter, strlen(counter), &i);
    for (; i < UINT32_MAX; i++) {
        char *full = ew_arena_printf(&g->arena, "%s.%u", base, i);
        if (!full)
            return NULL;
        if (ew_map_find(&g->values_by_name, full, strlen(full), &id))
            continue;
        return ew_map_put(&g->values_by_name, counter, strlen(counter), i + 1) ? full : NULL;
    }
    return NULL;
}

struct ew_value *ew_graph_add_value(struct ew_graph *g, const char *name,
                                    const struct ew_type *type)
{
    struct ew_value *v = ew_arena_new(&g->arena, struct ew_value, 1);

    if (!v || g->n_values == UINT32_MAX)
        return NULL;
    v->name = ew_graph_unique_name(g, name);
    if (!v->name)
        return NULL;
    if (g->n_values == g->cap_values) {
        const size_t cap = g->cap_values ? g->cap_values * 2 : 64;
        struct ew_value **p =
            ew_mem_resize(EW_MEM_GRAPH, g->values, cap, sizeof(struct ew_value *));
        if (!p)
            return NULL;
        g->values = p;
        g->cap_values = cap;
    }
    if (!ew_map_put(&g->values_by_name, v->name, strlen(v->name), g->n_values))
        return NULL;
    if (type)
        v->type = *type;
    v->id = g->n_values;
    g->values[g->n_values++] = v;
    return v;
}

ew_status ew_value_rename(struct ew_graph *g, struct ew_value *v, const char *name, ew_error *err)
{
    struct ew_value *holder = ew_graph_find(g, name);
    const char *own;

    if (holder == v)
        return EW_STATUS_OK;
    if (holder && (holder->is_input || holder->is_output))
        return ew_fail(err, EW_STATUS_MISMATCH,
                       "value '%s' cannot be named '%s': an %s of the graph has this name", v->name,
                       name, holder->is_input ? "input" : "output");
    own = ew_arena_strdup(&g->arena, name);
    if (holder) {
        const char *other = own ? ew_graph_unique_name(g, name) : NULL;
        if (!other || !ew_map_put(&g->values_by_name, other, strlen(other), holder->id))
            return ew_fail(err, EW_STATUS_NO_MEMORY, "name of a value");
        holder->name = other;
    }
    if (!own || !ew_map_put(&g->values_by_name, own, strlen(own), v->id))
        return ew_fail(err, EW_STATUS_NO_MEMORY, "name of a value");
    v->name =
        own; /* the old name stays taken: names are never reused, so no message is ambiguous */
    return EW_STATUS_OK;
}

static bool list_append(struct ew_value ***list, size_t *n, size_t *cap, struct ew_value *v)
{
    if (*n == *cap) {
        const size_t new_cap = *cap ? *cap * 2 : 16;
        struct ew_value **p =
            ew_mem_resize(EW_MEM_GRAPH, *list, new_cap, sizeof(struct ew_value *));
        if (!p)
            return false;
        *list = p;
        *cap = new_cap;
    }
    (*list)[(*n)++] = v;
    return true;
}

struct ew_value *ew_graph_add_input(struct ew_graph *g, const char *name,
                                    const struct ew_type *type)
{
    struct ew_value *v = ew_graph_add_value(g, name, type);

    if (!v || !list_append(&g->inputs, &g->n_inputs, &g->cap_inputs, v))
        return NULL;
    v->is_input = true;
    return v;
}

ew_status ew_graph_add_output(struct ew_graph *g, struct ew_value *v, const char *name,
                              ew_error *err)
{
    struct ew_node *copy;

    if (v->is_output || v->is_input || v->is_const) {
        EW_TRY(ew_graph_add_node(g, EW_OP_IDENTITY, name, NULL, &v, 1, 1, &copy, err));
        v = copy->out[0];
    }
    EW_TRY(ew_value_rename(g, v, name, err));
    if (!list_append(&g->outputs, &g->n_outputs, &g->cap_outputs, v))
        return ew_fail(err, EW_STATUS_NO_MEMORY, "list of outputs");
    v->is_output = true;
    v->n_uses++;
    return EW_STATUS_OK;
}

/* ---- constants ---- */

struct ew_value *ew_graph_add_const(struct ew_graph *g, const char *name,
                                    const struct ew_type *type, const void *data, bool copy)
{
    struct ew_value *v;
    size_t bytes;

    if (!ew_type_bytes(type, &bytes))
        return NULL;
    if (copy) {
        void *own = ew_arena_alloc(&g->arena, bytes ? bytes : 1);
        if (!own)
            return NULL;
        if (bytes)
            memcpy(own, data, bytes);
        data = own;
    }
    v = ew_graph_add_value(g, name, type);
    if (!v)
        return NULL;
    v->is_const = true;
    v->con.data = data;
    return v;
}

struct ew_value *ew_graph_add_const_parts(struct ew_graph *g, const char *name,
                                          const struct ew_type *type,
                                          const struct ew_weight_part *parts, size_t n_parts)
{
    struct ew_weight_part *own = ew_arena_new(&g->arena, struct ew_weight_part, n_parts);
    struct ew_value *v = own ? ew_graph_add_value(g, name, type) : NULL;

    if (!v)
        return NULL;
    memcpy(own, parts, n_parts * sizeof(*own));
    v->is_const = true;
    v->con.parts = own;
    v->con.n_parts = n_parts;
    return v;
}

struct ew_value *ew_graph_const_i64(struct ew_graph *g, const char *name, const int64_t *v,
                                    size_t n)
{
    const int64_t dim = (int64_t)n;
    const struct ew_type type = ew_type_make(EW_DTYPE_I64, 1, &dim);

    return ew_graph_add_const(g, name, &type, v, true);
}

struct ew_value *ew_graph_const_f32(struct ew_graph *g, const char *name, float v)
{
    const struct ew_type type = ew_type_make(EW_DTYPE_F32, 0, NULL);

    return ew_graph_add_const(g, name, &type, &v, true);
}

static void part_copy(const struct ew_weight_part *p, size_t k, size_t elem_bytes, char *dst)
{
    const char *src = p->data;

    if (p->col_stride == 1 && p->row_stride == (ptrdiff_t)k) {
        if (p->n_rows && k)
            memcpy(dst, src, p->n_rows * k * elem_bytes);
        return;
    }
    for (size_t r = 0; r < p->n_rows; r++) {
        const char *row = src + (ptrdiff_t)r * p->row_stride * (ptrdiff_t)elem_bytes;
        for (size_t c = 0; c < k; c++)
            memcpy(dst + (r * k + c) * elem_bytes,
                   row + (ptrdiff_t)c * p->col_stride * (ptrdiff_t)elem_bytes, elem_bytes);
    }
}

const struct ew_quant_format *ew_const_quant(const struct ew_value *v)
{
    return v && v->is_const && v->con.n_parts && v->con.parts[0].quant
               ? &v->con.parts[0].quant->format
               : NULL;
}

struct ew_value *ew_graph_add_const_quant(struct ew_graph *g, const char *name,
                                          const struct ew_quant_source *src, size_t row, size_t n)
{
    const int64_t dims[2] = { (int64_t)n, (int64_t)src->k };
    const struct ew_type type = ew_type_make(EW_DTYPE_F32, 2, dims);
    const struct ew_weight_part part = { .n_rows = n,
                                         .row_stride = (ptrdiff_t)src->k,
                                         .col_stride = 1,
                                         .quant = src,
                                         .quant_row = row };

    return ew_graph_add_const_parts(g, name, &type, &part, 1);
}

static bool quant_copy(const struct ew_value *v, size_t k, float *dst)
{
    const struct ew_quant_format *f = ew_const_quant(v);
    void *scratch = ew_mem_alloc(EW_MEM_GRAPH, ew_quant_rows_bytes(f, 1, k));

    if (!scratch)
        return false;
    const struct ew_quant_rows rows = ew_quant_rows_carve(f, 1, k, scratch);
    for (size_t i = 0; i < v->con.n_parts; i++) {
        const struct ew_weight_part *p = &v->con.parts[i];

        for (size_t r = 0; r < p->n_rows; r++, dst += k) {
            p->quant->read(p->quant, p->quant_row + r, 1, &rows);
            ew_quant_decode_row(f, &rows, 0, k, dst);
        }
    }
    ew_mem_free(scratch);
    return true;
}

bool ew_const_copy(const struct ew_value *v, void *dst)
{
    const size_t elem_bytes = ew_dtype_bits(v->type.dtype) / 8;
    const size_t k = v->type.n_dims ? (size_t)v->type.dim[v->type.n_dims - 1] : 1;
    char *at = dst;
    size_t bytes;

    if (!v->con.n_parts) {
        if (ew_type_bytes(&v->type, &bytes) && bytes)
            memcpy(dst, v->con.data, bytes);
        return true;
    }
    if (ew_const_quant(v))
        return quant_copy(v, k, dst);
    for (size_t i = 0; i < v->con.n_parts; i++) {
        part_copy(&v->con.parts[i], k, elem_bytes, at);
        at += v->con.parts[i].n_rows * k * elem_bytes;
    }
    return true;
}

/* ---- public ---- */

void ew_graph_get_stats(const ew_graph *g, ew_graph_stats *out)
{
    memset(out, 0, sizeof(*out));
    for (const struct ew_node *n = g->head; n; n = n->next)
        out->n_nodes++;
    out->n_inputs = g->n_inputs;
    out->n_outputs = g->n_outputs;
    for (uint32_t i = 0; i < g->n_values; i++) {
        const struct ew_value *v = g->values[i];
        size_t bytes, count;
        if (!v->is_const || (!v->n_uses && v != g->embedding))
            continue;
        out->n_constants++;
        if (ew_const_quant(v) && ew_type_count(&v->type, &count))
            out->constant_bytes +=
                (uint64_t)(ew_quant_bits(ew_const_quant(v),
                                         (size_t)v->type.dim[v->type.n_dims - 1]) /
                           8.0 * (double)count);
        else if (ew_type_bytes(&v->type, &bytes))
            out->constant_bytes += bytes;
        if (ew_dtype_is_float(v->type.dtype) && ew_type_count(&v->type, &count))
            out->n_parameters += count;
    }
}

const char *ew_graph_llm_config(const ew_graph *g)
{
    return g->llm_config;
}

ew_status ew_graph_text(const ew_graph *g, char **out, ew_error *err)
{
    struct ew_buf b;
    ew_status st;

    *out = NULL;
    ew_buf_init(&b, EW_MEM_GRAPH, (size_t)1 << 30);
    st = ew_graph_print(g, &b);
    if (!st) {
        *out = ew_buf_take(&b);
        if (!*out)
            st = EW_STATUS_NO_MEMORY;
    }
    ew_buf_deinit(&b);
    return st ? ew_fail(err, st, "text of graph '%s'", g->name) : EW_STATUS_OK;
}

void ew_text_free(char *text)
{
    ew_mem_free(text);
}
