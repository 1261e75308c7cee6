/* graph/text_parse.c - the text form of a graph, read. Grammar: docs/graph.md; characters are
 * text_lex.c's.
 *
 * The text is not trusted: everything is checked, types are inferred and must agree with what is
 * written. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "base/size.h"
#include "graph/text_lex.h"

#define MAX_TEXT        ((size_t)64 << 20)
#define MAX_CONST_BYTES ((size_t)16 << 20) /* of all constants marked `zeros` together */
#define MAX_NODE_INPUTS 256

struct parser {
    struct ew_lex l;
    struct ew_graph *g;
    size_t zero_bytes;
};

static ew_status no_memory(struct parser *p)
{
    return ew_fail(p->l.err, EW_STATUS_NO_MEMORY, "line %u", p->l.line);
}

/* ---- names and types ---- */

static ew_status parse_value_name(struct parser *p, const char **out)
{
    EW_TRY(ew_lex_want(&p->l, "%"));
    if (p->l.at < p->l.end && *p->l.at == '"')
        return ew_lex_string(&p->l, out);
    return ew_lex_word(&p->l, "a name", out);
}

static ew_status parse_new_name(struct parser *p, const char **out)
{
    EW_TRY(parse_value_name(p, out));
    if (!**out)
        return ew_fail(p->l.err, EW_STATUS_MALFORMED, "line %u: a name is empty", p->l.line);
    if (ew_graph_find(p->g, *out))
        return ew_fail(p->l.err, EW_STATUS_MALFORMED, "line %u: value '%s' is defined twice",
                       p->l.line, *out);
    return EW_STATUS_OK;
}

static ew_status parse_value(struct parser *p, struct ew_value **out)
{
    const char *name;

    EW_TRY(parse_value_name(p, &name));
    *out = ew_graph_find(p->g, name);
    if (!*out)
        return ew_fail(p->l.err, EW_STATUS_MALFORMED, "line %u: value '%s' is not defined",
                       p->l.line, name);
    return EW_STATUS_OK;
}

static ew_status parse_dim(struct parser *p, int64_t *out)
{
    char text[EW_TEXT_DIM_CAP];
    size_t n = 0;
    int depth = 0;

    ew_lex_skip(&p->l, false);
    while (p->l.at + n < p->l.end && n + 1 < sizeof(text)) {
        const char c = p->l.at[n];
        if (c == '\n' || (depth == 0 && (c == ',' || c == ']')))
            break;
        depth += c == '(' ? 1 : c == ')' ? -1 : 0;
        text[n++] = c;
    }
    text[n] = '\0';
    *out = strlen(text) == n ? ew_dim_parse(p->g->syms, text) : EW_DIM_BAD;
    if (*out == EW_DIM_BAD || (*out < 0 && !ew_dim_is_symbol(*out)))
        return ew_lex_expected(&p->l, "a dim");
    p->l.at += n;
    return EW_STATUS_OK;
}

static ew_status parse_dtype(struct parser *p, ew_dtype *out)
{
    const char *word;

    EW_TRY(ew_lex_word(&p->l, "a dtype", &word));
    *out = ew_dtype_find(word);
    if (*out == EW_DTYPE_NONE && strcmp(word, "none") != 0)
        return ew_fail(p->l.err, EW_STATUS_MALFORMED, "line %u: '%s' is no dtype", p->l.line, word);
    return EW_STATUS_OK;
}

static ew_status parse_type(struct parser *p, struct ew_type *t)
{
    memset(t, 0, sizeof(*t));
    EW_TRY(parse_dtype(p, &t->dtype));
    if (t->dtype == EW_DTYPE_NONE)
        return ew_lex_expected(&p->l, "a dtype other than none before this");
    EW_TRY(ew_lex_want(&p->l, "["));
    if (ew_lex_take(&p->l, "]"))
        return EW_STATUS_OK;
    do {
        if (t->n_dims == EW_MAX_DIMS)
            return ew_lex_expected(&p->l, "at most 8 dims");
        EW_TRY(parse_dim(p, &t->dim[t->n_dims++]));
    } while (ew_lex_take(&p->l, ","));
    return ew_lex_want(&p->l, "]");
}

static ew_status parse_new_typed(struct parser *p, const char **name, struct ew_type *t)
{
    EW_TRY(parse_new_name(p, name));
    EW_TRY(ew_lex_want(&p->l, ":"));
    return parse_type(p, t);
}

/* ---- constants ---- */

static ew_status parse_elements(struct parser *p, ew_dtype d, void *data, size_t n)
{
    EW_TRY(ew_lex_want(&p->l, "{"));
    for (size_t i = 0; i < n; i++) {
        if (i)
            EW_TRY(ew_lex_want(&p->l, ","));
        if (ew_dtype_is_float(d)) {
            double v;
            EW_TRY(ew_lex_f64(&p->l, &v));
            ew_elem_set_f64(data, d, i, v);
        } else {
            int64_t v;
            EW_TRY(ew_lex_i64(&p->l, &v));
            ew_elem_set_i64(data, d, i, v);
        }
    }
    return ew_lex_want(&p->l, "}");
}

/* "i4 g128 f16", "u4 zero g64 bf16", "f8e4m3 rows": after `of`. */
static ew_status parse_format(struct parser *p, struct ew_quant_format *f)
{
    const char *word;
    uint32_t group = 0;

    *f = (struct ew_quant_format){ .code = EW_DTYPE_NONE };
    EW_TRY(parse_dtype(p, &f->code));
    f->zero = ew_lex_take(&p->l, "zero");
    EW_TRY(ew_lex_word(&p->l, "'rows' or g and a number", &word));
    if (strcmp(word, "rows") != 0) {
        for (const char *c = word + 1; word[0] == 'g' && *c >= '0' && *c <= '9'; c++)
            if (group < 100000000)
                group = group * 10 + (uint32_t)(*c - '0');
        EW_TRY(parse_dtype(p, &f->scale));
    }
    f->group = group;
    if (!ew_quant_format_ok(f) || (group == 0 && strcmp(word, "rows") != 0))
        return ew_fail(p->l.err, EW_STATUS_MALFORMED, "line %u: there is no such quantised format",
                       p->l.line);
    return EW_STATUS_OK;
}

static void read_zeros(const struct ew_quant_source *s, size_t row, size_t n_rows,
                       const struct ew_quant_rows *out)
{
    const size_t n = n_rows * ew_quant_groups(&s->format, s->k);

    (void)row;
    memset(out->codes, 0, n_rows * s->k);
    memset(out->zeros, 0, n * sizeof(*out->zeros));
    for (size_t i = 0; i < n; i++)
        out->scales[i] = 1.0f;
    for (size_t i = 0; i < n_rows; i++)
        out->row_scale[i] = 1.0f;
}

/* A quantised constant, all zeros; nothing is allocated for its elements. */
static ew_status parse_quantised(struct parser *p, const char *name, const struct ew_type *t)
{
    struct ew_quant_source *src = ew_arena_new(&p->g->arena, struct ew_quant_source, 1);
    struct ew_weight_part part = { .quant = src, .col_stride = 1 };

    if (!src)
        return no_memory(p);
    EW_TRY(parse_format(p, &src->format));
    if (t->dtype != EW_DTYPE_F32 || t->n_dims < 2 || t->n_dims > 3 || t->dim[t->n_dims - 1] < 1)
        return ew_fail(p->l.err, EW_STATUS_MALFORMED,
                       "line %u: quantised constant '%s' is no f32 matrix", p->l.line, name);
    src->name = name;
    src->k = (size_t)t->dim[t->n_dims - 1];
    src->n = 1;
    for (int i = 0; i + 1 < t->n_dims; i++)
        src->n *= (size_t)t->dim[i];
    src->read = read_zeros;
    part.n_rows = src->n;
    part.row_stride = (ptrdiff_t)src->k;
    return ew_graph_add_const_parts(p->g, name, t, &part, 1) ? EW_STATUS_OK : no_memory(p);
}

static ew_status parse_const(struct parser *p)
{
    struct ew_type t;
    const char *name;
    size_t n, bytes;
    void *data;

    EW_TRY(parse_new_typed(p, &name, &t));
    EW_TRY(ew_lex_want(&p->l, "="));
    if (!ew_type_count(&t, &n) || !ew_type_bytes(&t, &bytes))
        return ew_fail(p->l.err, EW_STATUS_MALFORMED, "line %u: constant '%s' has no fixed size",
                       p->l.line, name);
    if (ew_lex_take(&p->l, "zeros")) {
        if (bytes > MAX_CONST_BYTES - p->zero_bytes)
            return ew_fail(p->l.err, EW_STATUS_LIMIT,
                           "line %u: constant '%s' has %zu bytes, %zu are left of %zu", p->l.line,
                           name, bytes, MAX_CONST_BYTES - p->zero_bytes, MAX_CONST_BYTES);
        p->zero_bytes += bytes;
        if (ew_lex_take(&p->l, "of"))
            return parse_quantised(p, name, &t);
    } else if (ew_lex_take(&p->l, "hash") || ew_lex_take(&p->l, "opaque")) {
        return ew_fail(p->l.err, EW_STATUS_UNSUPPORTED,
                       "line %u: constant '%s' was printed without its contents", p->l.line, name);
    } else if (n > (size_t)(p->l.end - p->l.at)) { /* an element takes a character at least */
        return ew_lex_expected(&p->l, "all elements of the constant");
    }
    data = ew_arena_alloc(&p->g->arena, bytes ? bytes : 1);
    if (!data)
        return no_memory(p);
    ew_lex_skip(&p->l, false);
    if (p->l.at < p->l.end && *p->l.at == '{')
        EW_TRY(parse_elements(p, t.dtype, data, n));
    else if (p->l.at[-1] != 's') /* not after `zeros` */
        return ew_lex_expected(&p->l, "'{' or 'zeros'");
    return ew_graph_add_const(p->g, name, &t, data, false) ? EW_STATUS_OK : no_memory(p);
}

/* ---- attributes ---- */

static ew_status parse_register(struct parser *p, uint8_t *out)
{
    const char *word;
    unsigned v = 0;

    EW_TRY(ew_lex_word(&p->l, "a register", &word));
    if (word[0] != 'r' || !word[1] || strlen(word) > 3)
        return ew_lex_expected(&p->l, "a register r0..r15 before this");
    for (const char *c = word + 1; *c; c++) {
        if (*c < '0' || *c > '9')
            return ew_lex_expected(&p->l, "a register r0..r15 before this");
        v = v * 10 + (unsigned)(*c - '0');
    }
    if (v >= EW_PW_MAX_REGS)
        return ew_lex_expected(&p->l, "a register r0..r15 before this");
    *out = (uint8_t)v;
    return EW_STATUS_OK;
}

static ew_status parse_instr(struct parser *p, struct ew_pw_instr *c)
{
    const char *word;
    uint8_t op;
    double imm;

    memset(c, 0, sizeof(*c));
    EW_TRY(parse_register(p, &c->dst));
    EW_TRY(ew_lex_want(&p->l, "="));
    EW_TRY(ew_lex_word(&p->l, "an instruction", &word));
    for (op = 0; op < EW_PW_OP_COUNT; op++)
        if (strcmp(ew_text_pw_names[op], word) == 0)
            break;
    if (op == EW_PW_OP_COUNT)
        return ew_fail(p->l.err, EW_STATUS_MALFORMED, "line %u: '%s' is no instruction", p->l.line,
                       word);
    c->op = op;
    EW_TRY(parse_register(p, &c->a));
    if (ew_text_pw_has_b(op))
        EW_TRY(parse_register(p, &c->b));
    if (ew_text_pw_has_imm(op)) {
        EW_TRY(ew_lex_f64(&p->l, &imm));
        c->imm = (float)imm;
    }
    return EW_STATUS_OK;
}

static ew_status parse_program(struct parser *p, struct ew_attr_pointwise *out)
{
    EW_TRY(ew_lex_want(&p->l, "["));
    do {
        if (out->n_instr == EW_PW_MAX_INSTR)
            return ew_lex_expected(&p->l, "at most 32 instructions");
        EW_TRY(parse_instr(p, &out->instr[out->n_instr++]));
    } while (ew_lex_take(&p->l, ";"));
    return ew_lex_want(&p->l, "]");
}

static ew_status parse_ints(struct parser *p, struct ew_ints *out)
{
    memset(out, 0, sizeof(*out));
    EW_TRY(ew_lex_want(&p->l, "["));
    if (ew_lex_take(&p->l, "]"))
        return EW_STATUS_OK;
    do {
        if (out->n == EW_MAX_INTS)
            return ew_lex_expected(&p->l, "at most 16 integers");
        EW_TRY(ew_lex_i64(&p->l, &out->v[out->n++]));
    } while (ew_lex_take(&p->l, ","));
    return ew_lex_want(&p->l, "]");
}

static ew_status parse_enum(struct parser *p, const struct ew_attr_field *f, int32_t *out)
{
    const char *word;

    EW_TRY(ew_lex_word(&p->l, "a name", &word));
    for (int i = 0; f->names[i]; i++) {
        if (strcmp(f->names[i], word) == 0) {
            *out = i;
            return EW_STATUS_OK;
        }
    }
    return ew_fail(p->l.err, EW_STATUS_MALFORMED, "line %u: attribute '%s' cannot be '%s'",
                   p->l.line, f->name, word);
}

static ew_status parse_i32(struct parser *p, int32_t *out)
{
    int64_t v;

    EW_TRY(ew_lex_i64(&p->l, &v));
    if (v < INT32_MIN || v > INT32_MAX)
        return ew_fail(p->l.err, EW_STATUS_MALFORMED, "line %u: %lld does not fit 32 bits",
                       p->l.line, (long long)v);
    *out = (int32_t)v;
    return EW_STATUS_OK;
}

static ew_status parse_text_attr(struct parser *p, const struct ew_attr_field *f, char *at)
{
    const char *text;

    EW_TRY(ew_lex_string(&p->l, &text));
    if (strlen(text) >= f->cap)
        return ew_fail(p->l.err, EW_STATUS_LIMIT,
                       "line %u: attribute '%s' is %zu bytes, at most %u", p->l.line, f->name,
                       strlen(text), f->cap - 1u);
    memset(at, 0, f->cap);
    memcpy(at, text, strlen(text));
    return EW_STATUS_OK;
}

static ew_status parse_attr_value(struct parser *p, const struct ew_attr_field *f,
                                  union ew_attrs *attrs)
{
    char *at = (char *)attrs + f->offset;
    int32_t i32 = 0;
    int64_t i64;
    double f64;
    float f32;
    ew_dtype dtype;
    struct ew_ints ints;

    switch (f->type) {
    case EW_FIELD_DTYPE:
        EW_TRY(parse_dtype(p, &dtype));
        i32 = (int32_t)dtype;
        break;
    case EW_FIELD_ENUM:
        EW_TRY(parse_enum(p, f, &i32));
        break;
    case EW_FIELD_I32:
        EW_TRY(parse_i32(p, &i32));
        break;
    case EW_FIELD_I64:
        EW_TRY(ew_lex_i64(&p->l, &i64));
        memcpy(at, &i64, sizeof(i64));
        return EW_STATUS_OK;
    case EW_FIELD_F32:
        EW_TRY(ew_lex_f64(&p->l, &f64));
        f32 = f64 > (double)FLT_MAX ? HUGE_VALF : f64 < -(double)FLT_MAX ? -HUGE_VALF : (float)f64;
        memcpy(at, &f32, sizeof(f32));
        return EW_STATUS_OK;
    case EW_FIELD_F64:
        EW_TRY(ew_lex_f64(&p->l, &f64));
        memcpy(at, &f64, sizeof(f64));
        return EW_STATUS_OK;
    case EW_FIELD_INTS:
        EW_TRY(parse_ints(p, &ints));
        memcpy(at, &ints, sizeof(ints));
        return EW_STATUS_OK;
    case EW_FIELD_TEXT:
        return parse_text_attr(p, f, at);
    case EW_FIELD_PROGRAM:
        return parse_program(p, &attrs->pointwise);
    }
    memcpy(at, &i32, sizeof(i32));
    return EW_STATUS_OK;
}

static ew_status parse_attrs(struct parser *p, ew_op op, union ew_attrs *attrs)
{
    const struct ew_attr_field *f;
    const char *name;

    ew_op_attrs_init(op, attrs);
    if (!ew_lex_take(&p->l, "{"))
        return EW_STATUS_OK;
    do {
        EW_TRY(ew_lex_word(&p->l, "an attribute", &name));
        for (f = ew_op_get(op)->fields; f->name; f++)
            if (strcmp(f->name, name) == 0)
                break;
        if (!f->name)
            return ew_fail(p->l.err, EW_STATUS_MALFORMED, "line %u: op %s has no attribute '%s'",
                           p->l.line, ew_op_get(op)->name, name);
        EW_TRY(ew_lex_want(&p->l, "="));
        EW_TRY(parse_attr_value(p, f, attrs));
    } while (ew_lex_take(&p->l, ","));
    return ew_lex_want(&p->l, "}");
}

/* ---- nodes ---- */

struct node_text {
    const char *out_names[EW_MAX_OUTPUTS]; /* NULL: not wanted */
    struct ew_type out_types[EW_MAX_OUTPUTS];
    int n_out;
    struct ew_value *in[MAX_NODE_INPUTS];
    int n_in;
};

static ew_status parse_outputs(struct parser *p, struct node_text *t)
{
    t->n_out = 0;
    do {
        if (t->n_out == EW_MAX_OUTPUTS)
            return ew_lex_expected(&p->l, "at most 64 outputs");
        t->out_names[t->n_out] = NULL;
        if (!ew_lex_take(&p->l, "_"))
            EW_TRY(parse_new_typed(p, &t->out_names[t->n_out], &t->out_types[t->n_out]));
        for (int i = 0; i < t->n_out; i++)
            if (t->out_names[i] && t->out_names[t->n_out] &&
                strcmp(t->out_names[i], t->out_names[t->n_out]) == 0)
                return ew_fail(p->l.err, EW_STATUS_MALFORMED,
                               "line %u: value '%s' is defined twice", p->l.line, t->out_names[i]);
        t->n_out++;
    } while (ew_lex_take(&p->l, ","));
    return ew_lex_want(&p->l, "=");
}

static ew_status parse_inputs(struct parser *p, struct node_text *t)
{
    t->n_in = 0;
    EW_TRY(ew_lex_want(&p->l, "("));
    if (ew_lex_take(&p->l, ")"))
        return EW_STATUS_OK;
    do {
        if (t->n_in == MAX_NODE_INPUTS)
            return ew_lex_expected(&p->l, "at most 256 inputs");
        t->in[t->n_in] = NULL;
        if (!ew_lex_take(&p->l, "_"))
            EW_TRY(parse_value(p, &t->in[t->n_in]));
        t->n_in++;
    } while (ew_lex_take(&p->l, ","));
    return ew_lex_want(&p->l, ")");
}

/* The type written must be one that the inferred one can be; then it holds. */
static ew_status settle_type(struct parser *p, struct ew_value *v, const struct ew_type *written)
{
    bool fits = v->type.dtype == written->dtype && v->type.n_dims == written->n_dims;

    for (int i = 0; fits && i < written->n_dims; i++)
        fits = v->type.dim[i] == written->dim[i] || v->type.dim[i] < 0 || written->dim[i] < 0;
    if (!fits) {
        char a[128], b[128];
        ew_type_text(written, a, sizeof(a));
        ew_type_text(&v->type, b, sizeof(b));
        return ew_fail(p->l.err, EW_STATUS_MISMATCH,
                       "line %u: value '%s' is written as %s, it is %s", p->l.line, v->name, a, b);
    }
    v->type = *written;
    return EW_STATUS_OK;
}

static ew_status parse_node(struct parser *p)
{
    struct node_text t;
    union ew_attrs attrs;
    struct ew_node *n;
    const char *word, *name;
    ew_op op;
    ew_status st;

    EW_TRY(parse_outputs(p, &t));
    EW_TRY(ew_lex_word(&p->l, "an op", &word));
    op = ew_op_find(word);
    if (op == EW_OP_NONE)
        return ew_fail(p->l.err, EW_STATUS_UNSUPPORTED, "line %u: op '%s' is not known", p->l.line,
                       word);
    EW_TRY(parse_inputs(p, &t));
    EW_TRY(parse_attrs(p, op, &attrs));
    name = t.out_names[0] ? t.out_names[0] : word;
    ew_lex_skip(&p->l, false);
    if (p->l.at < p->l.end && *p->l.at == '"')
        EW_TRY(ew_lex_string(&p->l, &name));
    st = ew_graph_add_node(p->g, op, name, &attrs, t.in, t.n_in, t.n_out, &n, p->l.err);
    if (st) {
        ew_error_within(p->l.err, "line %u", p->l.line);
        return st;
    }
    for (int i = 0; i < t.n_out; i++) {
        if (!t.out_names[i]) {
            n->out[i]->producer = NULL;
            n->out[i] = NULL;
            continue;
        }
        EW_TRY(ew_value_rename(p->g, n->out[i], t.out_names[i], p->l.err));
        EW_TRY(settle_type(p, n->out[i], &t.out_types[i]));
    }
    return EW_STATUS_OK;
}

/* ---- lines ---- */

static ew_status parse_output(struct parser *p)
{
    struct ew_value *v, *in;

    EW_TRY(parse_value(p, &v));
    if (v->is_output || v->is_input || v->is_const)
        return ew_fail(p->l.err, EW_STATUS_MALFORMED,
                       "line %u: '%s' cannot be an output: it is an output, input or constant",
                       p->l.line, v->name);
    EW_TRY(ew_graph_add_output(p->g, v, v->name, p->l.err));
    if (!ew_lex_take(&p->l, "aliases"))
        return EW_STATUS_OK;
    EW_TRY(parse_value(p, &in));
    v->alias_of = in;
    return EW_STATUS_OK;
}

static ew_status parse_symbols(struct parser *p)
{
    const char *name;

    do {
        EW_TRY(ew_lex_word(&p->l, "a symbol", &name));
        if (ew_dim_symbol(p->g->syms, name) == EW_DIM_BAD)
            return ew_lex_expected(&p->l, "a shorter symbol before this");
    } while (ew_lex_take(&p->l, ","));
    return EW_STATUS_OK;
}

static ew_status parse_line(struct parser *p)
{
    struct ew_type t;
    const char *text;

    if (ew_lex_take(&p->l, "symbols"))
        return parse_symbols(p);
    if (ew_lex_take(&p->l, "input")) {
        EW_TRY(parse_new_typed(p, &text, &t));
        return ew_graph_add_input(p->g, text, &t) ? EW_STATUS_OK : no_memory(p);
    }
    if (ew_lex_take(&p->l, "const"))
        return parse_const(p);
    if (ew_lex_take(&p->l, "embedding"))
        return parse_value(p, &p->g->embedding);
    if (ew_lex_take(&p->l, "output"))
        return parse_output(p);
    if (ew_lex_take(&p->l, "llm_config")) {
        EW_TRY(ew_lex_string(&p->l, &text));
        ew_mem_free(p->g->llm_config);
        p->g->llm_config = ew_mem_strdup(EW_MEM_GRAPH, text);
        return p->g->llm_config ? EW_STATUS_OK : no_memory(p);
    }
    return parse_node(p);
}

static ew_status parse_graph(struct parser *p)
{
    const char *name;

    ew_lex_skip(&p->l, true);
    EW_TRY(ew_lex_want(&p->l, "graph"));
    EW_TRY(ew_lex_string(&p->l, &name));
    p->g->name = ew_arena_strdup(&p->g->arena, name);
    if (!p->g->name)
        return no_memory(p);
    EW_TRY(ew_lex_want(&p->l, "{"));
    for (ew_lex_skip(&p->l, true); !ew_lex_take(&p->l, "}"); ew_lex_skip(&p->l, true)) {
        if (p->l.at == p->l.end)
            return ew_lex_expected(&p->l, "'}'");
        EW_TRY(parse_line(p));
        ew_lex_skip(&p->l, false);
        if (p->l.at < p->l.end && *p->l.at != '\n' && *p->l.at != '}')
            return ew_lex_expected(&p->l, "the end of the line");
    }
    if (!ew_lex_at_end(&p->l))
        return ew_lex_expected(&p->l, "the end of the text");
    return ew_graph_verify(p->g, p->l.err);
}

ew_status ew_graph_parse(const char *text, size_t len, struct ew_graph **out, ew_error *err)
{
    struct parser p = { .l = { text, text + len, 1, NULL, err } };
    ew_status st;

    *out = NULL;
    if (len > MAX_TEXT)
        return ew_fail(err, EW_STATUS_LIMIT, "text of a graph has %zu bytes, at most %zu", len,
                       MAX_TEXT);
    EW_TRY(ew_graph_create("", &p.g, err));
    p.l.arena = &p.g->arena;
    st = parse_graph(&p);
    if (st) {
        ew_graph_destroy(p.g);
        return st;
    }
    *out = p.g;
    return EW_STATUS_OK;
}
