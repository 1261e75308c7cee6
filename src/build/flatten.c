/* build/flatten.c - the graph as plan tables. A constant becomes up to four tensors, by use: plain,
 * packed, packed with gate/up pairs, and an f32 twin for small operands (bias, norm weights) of
 * typed ops. */
#include "build/build_impl.h"

#include "base/size.h"

enum use { USE_PLAIN, USE_PACKED, USE_PACKED_GLU, USE_F32, USE_COUNT };

struct flat {
    struct ew_build *b;
    uint32_t *id; /* [n_values][USE_COUNT], EW_PLAN_NONE: none yet */
    uint32_t cap;
};

static enum use use_of(const struct ew_node *n, int k)
{
    const struct ew_value *v = n->in[k];

    if (n->op == EW_OP_LINEAR && k == 1)
        return n->attrs.linear.glu ? USE_PACKED_GLU : USE_PACKED;
    if (n->op == EW_OP_MOE && k >= 2)
        return k == 2 ? USE_PACKED_GLU : USE_PACKED;
    if (v->is_const && (v->type.dtype == EW_DTYPE_F16 || v->type.dtype == EW_DTYPE_BF16) &&
        (n->op == EW_OP_LINEAR || n->op == EW_OP_FUSED_RMS_NORM || n->op == EW_OP_KV_ATTENTION ||
         n->op == EW_OP_POINTWISE || n->op == EW_OP_MOE))
        return USE_F32;
    return USE_PLAIN;
}

/* Contents of a plain or f32 constant that inference or later stages may read. */
static ew_status const_data(struct flat *f, struct ew_plan_tensor *t, const struct ew_value *v,
                            enum use use)
{
    struct ew_build *b = f->b;
    size_t bytes, n;
    void *raw, *wide;

    if (!ew_type_bytes(&v->type, &bytes) || !ew_type_count(&v->type, &n))
        return ew_fail(b->err, EW_STATUS_LIMIT, "constant '%s' is too large", v->name);
    t->bytes = bytes;
    if (use == USE_PLAIN) {
        t->data = v->con.data;
        if (t->data || bytes > EW_PLAN_KNOWN_MAX)
            return EW_STATUS_OK;
        raw = ew_arena_alloc(&b->plan.arena, bytes ? bytes : 1);
        if (!raw)
            return ew_fail(b->err, EW_STATUS_NO_MEMORY, "constant '%s'", v->name);
        if (!ew_const_copy(v, raw))
            return ew_fail(b->err, EW_STATUS_NO_MEMORY, "constant '%s'", v->name);
        t->data = raw;
        return EW_STATUS_OK;
    }
    wide = ew_arena_calloc(&b->plan.arena, n ? n : 1, sizeof(float));
    raw = ew_mem_alloc(EW_MEM_BUILD, bytes ? bytes : 1);
    if (wide && raw && ew_const_copy(v, raw)) {
        ew_convert_floats(wide, EW_DTYPE_F32, raw, v->type.dtype, n);
    }
    ew_mem_free(raw);
    if (!wide || !raw)
        return ew_fail(b->err, EW_STATUS_NO_MEMORY, "constant '%s'", v->name);
    t->data = wide;
    t->dtype = EW_DTYPE_F32;
    t->bytes = n * sizeof(float);
    return EW_STATUS_OK;
}

static ew_status packed_shape(struct flat *f, struct ew_plan_tensor *t, const struct ew_value *v,
                              enum use use)
{
    const int d = v->type.n_dims;

    if (!v->is_const || (d != 2 && d != 3) || v->type.dim[d - 2] < 1 || v->type.dim[d - 1] < 1 ||
        v->type.dim[0] < 1 || (use == USE_PACKED_GLU && v->type.dim[d - 2] % 2))
        return ew_fail(f->b->err, EW_STATUS_UNSUPPORTED,
                       "weight '%s' is not a constant matrix that can be packed", v->name);
    t->packed.n = (uint64_t)v->type.dim[d - 2];
    t->packed.k = (uint64_t)v->type.dim[d - 1];
    t->packed.n_experts = d == 3 ? (uint64_t)v->type.dim[0] : 1;
    t->packed.glu = use == USE_PACKED_GLU;
    if (ew_const_quant(v))
        t->packed.format = *ew_const_quant(v);
    return EW_STATUS_OK;
}

static ew_status tensor_of(struct flat *f, const struct ew_value *v, enum use use, uint32_t *out)
{
    struct ew_plan *p = &f->b->plan;
    uint32_t *id = &f->id[(size_t)v->id * USE_COUNT + use];
    struct ew_plan_tensor *t;

    *out = *id;
    if (*id != EW_PLAN_NONE)
        return EW_STATUS_OK;
    *id = *out = p->n_tensors++;
    t = &p->tensors[*id];
    t->name = ew_arena_strdup(&p->arena, v->name);
    if (!t->name)
        return ew_fail(f->b->err, EW_STATUS_NO_MEMORY, "plan tables");
    t->kind = v->is_const ? EW_PLAN_CONST : v->is_input ? EW_PLAN_INPUT : EW_PLAN_ACT;
    t->dtype = v->type.dtype;
    t->n_dims = v->type.n_dims;
    for (int d = 0; d < t->n_dims; d++)
        t->dim[d] = v->type.dim[d] < 0 ? -1 : v->type.dim[d];
    t->producer = EW_PLAN_NONE;
    if (t->kind != EW_PLAN_CONST && use == USE_PLAIN)
        return EW_STATUS_OK;
    if (use == USE_PACKED || use == USE_PACKED_GLU) {
        f->b->consts[*id] = (struct ew_build_const){ .src = v, .pack = true };
        return packed_shape(f, t, v, use);
    }
    f->b->consts[*id].src = use == USE_PLAIN ? v : NULL;
    return const_data(f, t, v, use);
}

/* Users that round x differently share the weight by a kernel that rounds nothing. */
static void note_x_quant(struct ew_build_const *c, struct ew_packed *w, int x_quant)
{
    w->x_quant = !c->used || w->x_quant == x_quant ? x_quant : EW_XQ_NONE;
    c->used = true;
}

static ew_status flatten_node(struct flat *f, const struct ew_node *n)
{
    struct ew_plan *p = &f->b->plan;
    struct ew_plan_node *o = &p->nodes[p->n_nodes++];

    o->op = n->op;
    o->attrs = n->attrs;
    o->name = ew_arena_strdup(&p->arena, n->name);
    o->n_in = (uint32_t)n->n_in;
    o->n_out = (uint32_t)n->n_out;
    o->in = ew_arena_new(&p->arena, uint32_t, o->n_in + 1u);
    o->out = ew_arena_new(&p->arena, uint32_t, o->n_out + 1u);
    if (!o->name || !o->in || !o->out)
        return ew_fail(f->b->err, EW_STATUS_NO_MEMORY, "plan tables");
    for (int k = 0; k < n->n_in; k++) {
        o->in[k] = EW_PLAN_NONE;
        if (!n->in[k])
            continue;
        EW_TRY(tensor_of(f, n->in[k], use_of(n, k), &o->in[k]));
        if (ew_const_quant(n->in[k]) && !f->b->consts[o->in[k]].pack)
            return ew_fail(f->b->err, EW_STATUS_UNSUPPORTED,
                           "node '%s' (%s): input '%s' is quantised, only Linear and Moe take that",
                           n->name, ew_op_get(n->op)->name, n->in[k]->name);
        if (f->b->consts[o->in[k]].pack)
            note_x_quant(&f->b->consts[o->in[k]], &p->tensors[o->in[k]].packed,
                         n->op == EW_OP_LINEAR ? n->attrs.linear.x_quant : n->attrs.moe.x_quant);
    }
    for (int k = 0; k < n->n_out; k++) {
        o->out[k] = EW_PLAN_NONE;
        if (n->out[k])
            EW_TRY(tensor_of(f, n->out[k], USE_PLAIN, &o->out[k]));
    }
    return EW_STATUS_OK;
}

static ew_status flatten_io(struct flat *f)
{
    struct ew_graph *g = f->b->graph;
    struct ew_plan *p = &f->b->plan;

    p->inputs = ew_arena_new(&p->arena, uint32_t, g->n_inputs + 1u);
    p->outputs = ew_arena_new(&p->arena, struct ew_plan_output, g->n_outputs + 1u);
    if (!p->inputs || !p->outputs)
        return ew_fail(f->b->err, EW_STATUS_NO_MEMORY, "plan tables");
    for (size_t i = 0; i < g->n_inputs; i++)
        EW_TRY(tensor_of(f, g->inputs[i], USE_PLAIN, &p->inputs[p->n_inputs++]));
    for (const struct ew_node *n = g->head; n; n = n->next)
        EW_TRY(flatten_node(f, n));
    for (size_t i = 0; i < g->n_outputs; i++) {
        struct ew_plan_output *o = &p->outputs[p->n_outputs++];

        o->name = ew_arena_strdup(&p->arena, g->outputs[i]->name);
        o->alias = EW_PLAN_NONE;
        EW_TRY(tensor_of(f, g->outputs[i], USE_PLAIN, &o->tensor));
        if (g->outputs[i]->alias_of)
            EW_TRY(tensor_of(f, g->outputs[i]->alias_of, USE_PLAIN, &o->alias));
        if (!o->name)
            return ew_fail(f->b->err, EW_STATUS_NO_MEMORY, "plan tables");
    }
    return EW_STATUS_OK;
}

/* Both are one block of the same bytes, or the same rows of the same source. */
static bool same_contents(const struct ew_value *a, const struct ew_value *b)
{
    const struct ew_weight_part *pa = a->con.parts, *pb = b->con.parts;

    if (a->con.n_parts > 1 || b->con.n_parts > 1 || !ew_type_equal(&a->type, &b->type))
        return false;
    if (!ew_const_quant(a) != !ew_const_quant(b))
        return false;
    if (ew_const_quant(a))
        return pa->quant == pb->quant && pa->quant_row == pb->quant_row;
    return (a->con.n_parts ? pa->data : a->con.data) == (b->con.n_parts ? pb->data : b->con.data);
}

/* A tied head has packed the table already: the engine reads rows back out of it. */
static ew_status flatten_embedding(struct flat *f)
{
    const struct ew_value *v = f->b->graph->embedding;
    struct ew_plan *p = &f->b->plan;

    if (!v)
        return EW_STATUS_OK;
    for (uint32_t t = 0; t < p->n_tensors; t++) {
        const struct ew_build_const *c = &f->b->consts[t];

        if (c->pack && !p->tensors[t].packed.glu && p->tensors[t].packed.n_experts == 1 &&
            same_contents(c->src, v)) {
            p->embedding = t;
            return EW_STATUS_OK;
        }
    }
    EW_TRY(tensor_of(f, v, ew_const_quant(v) ? USE_PACKED : USE_PLAIN, &p->embedding));
    f->b->consts[p->embedding].lookup = ew_const_quant(v) != NULL;
    return EW_STATUS_OK;
}

ew_status ew_build_flatten(struct ew_build *b)
{
    struct ew_graph *g = b->graph;
    struct ew_plan *p = &b->plan;
    struct flat f = { .b = b };
    size_t n_nodes = 0;
    ew_status st;

    for (const struct ew_node *n = g->head; n; n = n->next)
        n_nodes++;
    f.cap = g->n_values * USE_COUNT;
    f.id = ew_mem_calloc(EW_MEM_BUILD, f.cap + 1u, sizeof(*f.id));
    p->tensors = ew_arena_new(&p->arena, struct ew_plan_tensor, f.cap + 1u);
    p->nodes = ew_arena_new(&p->arena, struct ew_plan_node, n_nodes + 1u);
    b->consts = ew_mem_calloc(EW_MEM_BUILD, f.cap + 1u, sizeof(*b->consts));
    p->name = ew_arena_strdup(&p->arena, g->name ? g->name : "graph");
    if (g->llm_config)
        p->llm_config = ew_arena_strdup(&p->arena, g->llm_config);
    if (!f.id || !p->tensors || !p->nodes || !b->consts || !p->name ||
        (g->llm_config && !p->llm_config)) {
        ew_mem_free(f.id);
        return ew_fail(b->err, EW_STATUS_NO_MEMORY, "plan tables");
    }
    for (uint32_t i = 0; i < f.cap; i++)
        f.id[i] = EW_PLAN_NONE;
    st = flatten_io(&f);
    if (!st)
        st = flatten_embedding(&f);
    if (!st)
        st = ew_plan_link(p, b->err);
    ew_mem_free(f.id);
    return st;
}
