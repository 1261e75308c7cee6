/* graph/text_print.c - the text form of a graph, written. Grammar: docs/graph.md. Read back by
 * text_parse.c. */
#include <string.h>

#include "base/hash.h"
#include "base/size.h"
#include "graph/text.h"

const char *const ew_text_pw_names[EW_PW_OP_COUNT] = {
    [EW_PW_ADD] = "add",           [EW_PW_SUB] = "sub",         [EW_PW_MUL] = "mul",
    [EW_PW_DIV] = "div",           [EW_PW_MAX] = "max",         [EW_PW_MIN] = "min",
    [EW_PW_POW] = "pow",           [EW_PW_NEG] = "neg",         [EW_PW_ABS] = "abs",
    [EW_PW_EXP] = "exp",           [EW_PW_LOG] = "log",         [EW_PW_SQRT] = "sqrt",
    [EW_PW_RSQRT] = "rsqrt",       [EW_PW_RECIP] = "recip",     [EW_PW_SIGMOID] = "sigmoid",
    [EW_PW_TANH] = "tanh",         [EW_PW_SILU] = "silu",       [EW_PW_GELU_TANH] = "gelu_tanh",
    [EW_PW_GELU_ERF] = "gelu_erf", [EW_PW_ERF] = "erf",         [EW_PW_RELU] = "relu",
    [EW_PW_SOFTPLUS] = "softplus", [EW_PW_SIN] = "sin",         [EW_PW_COS] = "cos",
    [EW_PW_FLOOR] = "floor",       [EW_PW_CEIL] = "ceil",       [EW_PW_ADD_IMM] = "add_imm",
    [EW_PW_MUL_IMM] = "mul_imm",   [EW_PW_MAX_IMM] = "max_imm", [EW_PW_MIN_IMM] = "min_imm",
};

static void put_quoted(struct ew_buf *b, const char *text)
{
    ew_buf_putc(b, '"');
    for (; *text; text++) {
        const unsigned char c = (unsigned char)*text;
        if (c == '"' || c == '\\')
            ew_buf_printf(b, "\\%c", c);
        else if (c == '\n')
            ew_buf_puts(b, "\\n");
        else if (c < 0x20 || c == 0x7f)
            ew_buf_printf(b, "\\x%02x", c);
        else
            ew_buf_putc(b, *text);
    }
    ew_buf_putc(b, '"');
}

static void put_value(struct ew_buf *b, const struct ew_value *v)
{
    const char *p;

    if (!v) {
        ew_buf_putc(b, '_');
        return;
    }
    ew_buf_putc(b, '%');
    for (p = v->name; ew_text_is_name_char(*p); p++)
        continue;
    if (*p || p == v->name)
        put_quoted(b, v->name);
    else
        ew_buf_puts(b, v->name);
}

static void put_type(struct ew_buf *b, const struct ew_graph *g, const struct ew_type *t)
{
    char dim[EW_TEXT_DIM_CAP];

    ew_buf_printf(b, "%s[", ew_dtype_text(t->dtype));
    for (int i = 0; i < t->n_dims; i++) {
        ew_dim_text(g->syms, t->dim[i], dim, sizeof(dim));
        ew_buf_printf(b, "%s%s", i ? ", " : "", dim);
    }
    ew_buf_putc(b, ']');
}

static void put_typed(struct ew_buf *b, const struct ew_graph *g, const struct ew_value *v)
{
    put_value(b, v);
    if (!v)
        return;
    ew_buf_puts(b, ": ");
    put_type(b, g, &v->type);
}

/* ---- constants ---- */

static void put_elements(struct ew_buf *b, ew_dtype d, const void *data, size_t n)
{
    ew_buf_putc(b, '{');
    for (size_t i = 0; i < n; i++) {
        if (i)
            ew_buf_puts(b, ", ");
        if (d == EW_DTYPE_U64)
            ew_buf_printf(b, "%llu", (unsigned long long)ew_elem_get_i64(data, d, i));
        else if (!ew_dtype_is_float(d))
            ew_buf_printf(b, "%lld", (long long)ew_elem_get_i64(data, d, i));
        else
            ew_buf_printf(b, "%.*g", d == EW_DTYPE_F64 ? 17 : 9, ew_elem_get_f64(data, d, i));
    }
    ew_buf_putc(b, '}');
}

static bool is_all_zero(const char *data, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        if (data[i])
            return false;
    return true;
}

/* " of i4 g128 f16": of a quantised constant, part of what is read back. */
static void put_format(struct ew_buf *b, const struct ew_value *v)
{
    char format[64];

    if (!ew_const_quant(v))
        return;
    ew_quant_format_text(ew_const_quant(v), format, sizeof(format));
    ew_buf_printf(b, " of %s", format);
}

/* False: out of memory. */
static bool put_contents(struct ew_buf *b, const struct ew_value *v)
{
    size_t n = 0, bytes = 0;
    struct ew_hash128 h;
    char *data;

    if (!ew_type_count(&v->type, &n) || !ew_type_bytes(&v->type, &bytes))
        return true;
    if (bytes > EW_TEXT_HASH_CAP) {
        ew_buf_puts(b, "opaque");
        return true;
    }
    data = ew_mem_calloc(EW_MEM_GRAPH, bytes, 1);
    if (!data)
        return false;
    if (!ew_const_copy(v, data)) {
        ew_mem_free(data);
        return false;
    }
    if (n <= EW_TEXT_CONST_CAP && !ew_const_quant(v)) {
        put_elements(b, v->type.dtype, data, n);
    } else if (is_all_zero(data, bytes)) {
        ew_buf_puts(b, "zeros");
    } else {
        h = ew_hash128(data, bytes, 0);
        ew_buf_printf(b, "hash %016llx%016llx", (unsigned long long)h.hi, (unsigned long long)h.lo);
    }
    ew_mem_free(data);
    return true;
}

static void put_parts(struct ew_buf *b, const struct ew_value *v)
{
    if (!v->con.n_parts)
        return;
    ew_buf_puts(b, "  # rows");
    for (size_t i = 0; i < v->con.n_parts; i++)
        ew_buf_printf(b, " %zu%s", v->con.parts[i].n_rows,
                      v->con.parts[i].col_stride == 1 ? "" : " transposed");
}

/* ---- attributes ---- */

static void put_program(struct ew_buf *b, const struct ew_attr_pointwise *p)
{
    ew_buf_putc(b, '[');
    for (int i = 0; i < p->n_instr && i < EW_PW_MAX_INSTR; i++) {
        const struct ew_pw_instr *c = &p->instr[i];
        const char *name = c->op < EW_PW_OP_COUNT ? ew_text_pw_names[c->op] : "?";
        ew_buf_printf(b, "%sr%u = %s r%u", i ? "; " : "", c->dst, name, c->a);
        if (ew_text_pw_has_b(c->op))
            ew_buf_printf(b, " r%u", c->b);
        if (ew_text_pw_has_imm(c->op))
            ew_buf_printf(b, " %.9g", (double)c->imm);
    }
    ew_buf_putc(b, ']');
}

static void put_ints(struct ew_buf *b, const struct ew_ints *v)
{
    ew_buf_putc(b, '[');
    for (int i = 0; i < v->n && i < EW_MAX_INTS; i++)
        ew_buf_printf(b, "%s%lld", i ? ", " : "", (long long)v->v[i]);
    ew_buf_putc(b, ']');
}

static void put_i32_like(struct ew_buf *b, const struct ew_attr_field *f, int32_t v)
{
    int n = 0;

    if (f->type == EW_FIELD_DTYPE) {
        ew_buf_puts(b, ew_dtype_text((ew_dtype)v));
        return;
    }
    while (f->type == EW_FIELD_ENUM && f->names[n])
        n++;
    if (v >= 0 && v < n)
        ew_buf_puts(b, f->names[v]);
    else
        ew_buf_printf(b, "%d", (int)v);
}

static void put_attr(struct ew_buf *b, const struct ew_attr_field *f, const union ew_attrs *attrs)
{
    const char *at = (const char *)attrs + f->offset;
    int32_t i32;
    int64_t i64;
    float f32;
    double f64;
    struct ew_ints ints;

    ew_buf_printf(b, "%s = ", f->name);
    switch (f->type) {
    case EW_FIELD_I32:
    case EW_FIELD_ENUM:
    case EW_FIELD_DTYPE:
        memcpy(&i32, at, sizeof(i32));
        put_i32_like(b, f, i32);
        break;
    case EW_FIELD_I64:
        memcpy(&i64, at, sizeof(i64));
        ew_buf_printf(b, "%lld", (long long)i64);
        break;
    case EW_FIELD_F32:
        memcpy(&f32, at, sizeof(f32));
        ew_buf_printf(b, "%.9g", (double)f32);
        break;
    case EW_FIELD_F64:
        memcpy(&f64, at, sizeof(f64));
        ew_buf_printf(b, "%.17g", f64);
        break;
    case EW_FIELD_INTS:
        memcpy(&ints, at, sizeof(ints));
        put_ints(b, &ints);
        break;
    case EW_FIELD_TEXT:
        put_quoted(b, at);
        break;
    case EW_FIELD_PROGRAM:
        put_program(b, &attrs->pointwise);
        break;
    }
}

/* Attributes that are not at their default. */
static void put_attrs(struct ew_buf *b, const struct ew_node *n)
{
    const char *sep = " {";
    union ew_attrs plain, one;

    ew_op_attrs_init(n->op, &plain);
    for (const struct ew_attr_field *f = ew_op_get(n->op)->fields; f->name; f++) {
        one = plain;
        ew_op_attr_copy_field(f, &one, &n->attrs);
        if (ew_op_attrs_equal(n->op, &one, &plain))
            continue;
        ew_buf_puts(b, sep);
        put_attr(b, f, &n->attrs);
        sep = ", ";
    }
    if (sep[0] == ',')
        ew_buf_putc(b, '}');
}

/* ---- lines ---- */

static void put_node(struct ew_buf *b, const struct ew_graph *g, const struct ew_node *n)
{
    ew_buf_puts(b, "  ");
    for (int i = 0; i < n->n_out; i++) {
        if (i)
            ew_buf_puts(b, ", ");
        put_typed(b, g, n->out[i]);
    }
    ew_buf_printf(b, " = %s(", ew_op_get(n->op)->name);
    for (int i = 0; i < n->n_in; i++) {
        if (i)
            ew_buf_puts(b, ", ");
        put_value(b, n->in[i]);
    }
    ew_buf_putc(b, ')');
    put_attrs(b, n);
    if (!n->out[0] || strcmp(n->out[0]->name, n->name) != 0) {
        ew_buf_putc(b, ' ');
        put_quoted(b, n->name);
    }
    ew_buf_putc(b, '\n');
}

static void put_symbols(struct ew_buf *b, const struct ew_graph *g)
{
    const size_t n = ew_symtab_n_symbols(g->syms);

    for (size_t i = 0; i < n; i++)
        ew_buf_printf(b, "%s%s", i ? ", " : "  symbols ", ew_symtab_symbol_name(g->syms, i));
    if (n)
        ew_buf_putc(b, '\n');
}

static bool put_constants(struct ew_buf *b, const struct ew_graph *g)
{
    for (uint32_t i = 0; i < g->n_values; i++) {
        const struct ew_value *v = g->values[i];
        if (!v->is_const || (!v->n_uses && v != g->embedding))
            continue;
        ew_buf_puts(b, "  const ");
        put_typed(b, g, v);
        ew_buf_puts(b, " = ");
        if (!put_contents(b, v))
            return false;
        put_format(b, v);
        put_parts(b, v);
        ew_buf_putc(b, '\n');
    }
    return true;
}

ew_status ew_graph_print(const struct ew_graph *g, struct ew_buf *out)
{
    ew_buf_puts(out, "graph ");
    put_quoted(out, g->name);
    ew_buf_puts(out, " {\n");
    put_symbols(out, g);
    if (g->llm_config) {
        ew_buf_puts(out, "  llm_config ");
        put_quoted(out, g->llm_config);
        ew_buf_putc(out, '\n');
    }
    for (size_t i = 0; i < g->n_inputs; i++) {
        ew_buf_puts(out, "  input ");
        put_typed(out, g, g->inputs[i]);
        ew_buf_putc(out, '\n');
    }
    if (!put_constants(out, g))
        return EW_STATUS_NO_MEMORY;
    if (g->embedding) {
        ew_buf_puts(out, "  embedding ");
        put_value(out, g->embedding);
        ew_buf_putc(out, '\n');
    }
    for (const struct ew_node *n = g->head; n; n = n->next)
        put_node(out, g, n);
    for (size_t i = 0; i < g->n_outputs; i++) {
        ew_buf_puts(out, "  output ");
        put_value(out, g->outputs[i]);
        if (g->outputs[i]->alias_of) {
            ew_buf_puts(out, " aliases ");
            put_value(out, g->outputs[i]->alias_of);
        }
        ew_buf_putc(out, '\n');
    }
    ew_buf_puts(out, "}\n");
    return out->failed ? EW_STATUS_NO_MEMORY : EW_STATUS_OK;
}
