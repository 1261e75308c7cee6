/* text/jinja_expr.c - expressions of a template, by precedence climbing as Jinja orders them:
 * if-else < or < and < not < comparisons < + - < ~ < * / // % < unary < ** < postfix, filters and
 * tests. */
#include <string.h>

#include "text/jinja_parse.h"

static ew_status parse_unary(struct jinja_parser *p, bool with_filters, struct jinja_node **out);

static ew_status binary(struct jinja_parser *p, const char *op, struct jinja_node *a,
                        struct jinja_node *b, struct jinja_node **out)
{
    EW_TRY(jinja_node_new(p, JINJA_BINARY, out));
    (*out)->text = op;
    (*out)->a = a;
    (*out)->b = b;
    return EW_STATUS_OK;
}

static ew_status constant(struct jinja_parser *p, struct jinja_value v, struct jinja_node **out)
{
    EW_TRY(jinja_node_new(p, JINJA_CONST, out));
    (*out)->value = v;
    return EW_STATUS_OK;
}

/* Adjacent string literals join, as in Jinja. */
static ew_status parse_string(struct jinja_parser *p, struct jinja_node **out)
{
    struct jinja_str *const s = ew_arena_new(p->arena, struct jinja_str, 1);
    size_t len = 0, i = p->at;
    char *bytes;

    for (; i < p->n && p->tokens[i].kind == JINJA_TOK_STR; i++)
        len += p->tokens[i].len;
    bytes = ew_arena_alloc(p->arena, len + 1);
    if (!s || !bytes)
        return ew_fail(p->err, EW_STATUS_NO_MEMORY, "%s: template tree", p->name);
    *s = (struct jinja_str){ .at = bytes, .len = len };
    EW_TRY(constant(p, (struct jinja_value){ .kind = JINJA_STR, .u.s = s }, out));
    for (size_t at = 0; p->at < i; p->at++) {
        if (p->tokens[p->at].len)
            memcpy(bytes + at, p->tokens[p->at].at, p->tokens[p->at].len);
        at += p->tokens[p->at].len;
    }
    return EW_STATUS_OK;
}

static ew_status parse_list(struct jinja_parser *p, struct jinja_node **out)
{
    struct jinja_node *item;

    EW_TRY(jinja_node_new(p, JINJA_ARRAY, out));
    while (!jinja_accept(p, JINJA_TOK_OP, "]")) {
        if ((*out)->n_kids)
            EW_TRY(jinja_expect(p, JINJA_TOK_OP, ","));
        if (jinja_accept(p, JINJA_TOK_OP, "]"))
            break;
        EW_TRY(jinja_parse_expression(p, true, &item));
        EW_TRY(jinja_append(p, &(*out)->kids, &(*out)->n_kids, item));
    }
    return EW_STATUS_OK;
}

static ew_status parse_dict(struct jinja_parser *p, struct jinja_node **out)
{
    struct jinja_node *item;

    EW_TRY(jinja_node_new(p, JINJA_MAP, out));
    while (!jinja_accept(p, JINJA_TOK_OP, "}")) {
        if ((*out)->n_kids)
            EW_TRY(jinja_expect(p, JINJA_TOK_OP, ","));
        if (jinja_accept(p, JINJA_TOK_OP, "}"))
            break;
        EW_TRY(jinja_parse_expression(p, true, &item));
        EW_TRY(jinja_append(p, &(*out)->kids, &(*out)->n_kids, item));
        EW_TRY(jinja_expect(p, JINJA_TOK_OP, ":"));
        EW_TRY(jinja_parse_expression(p, true, &item));
        EW_TRY(jinja_append(p, &(*out)->kids, &(*out)->n_kids, item));
    }
    return EW_STATUS_OK;
}

static ew_status parse_name(struct jinja_parser *p, struct jinja_node **out)
{
    static const struct {
        const char *word;
        struct jinja_value v;
    } words[] = {
        { "true", { JINJA_BOOL, { .b = true } } },   { "True", { JINJA_BOOL, { .b = true } } },
        { "false", { JINJA_BOOL, { .b = false } } }, { "False", { JINJA_BOOL, { .b = false } } },
        { "none", { JINJA_NONE, { 0 } } },           { "None", { JINJA_NONE, { 0 } } }
    };
    static const char *const reserved[] = { "if",  "else", "elif", "in", "is",
                                            "and", "or",   "not",  "for" };
    const struct jinja_token *const t = jinja_peek(p);

    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
        if (jinja_accept(p, JINJA_TOK_NAME, words[i].word))
            return constant(p, words[i].v, out);
    for (size_t i = 0; i < sizeof(reserved) / sizeof(reserved[0]); i++)
        if (jinja_at(p, JINJA_TOK_NAME, reserved[i]))
            return jinja_unexpected(p, "an expression");
    EW_TRY(jinja_node_new(p, JINJA_NAME, out));
    p->at++;
    return jinja_node_text(p, *out, t);
}

static ew_status parse_primary(struct jinja_parser *p, struct jinja_node **out)
{
    const struct jinja_token *const t = jinja_peek(p);

    switch (t->kind) {
    case JINJA_TOK_NAME:
        return parse_name(p, out);
    case JINJA_TOK_STR:
        return parse_string(p, out);
    case JINJA_TOK_INT:
        p->at++;
        return constant(p, jinja_int(t->i), out);
    case JINJA_TOK_FLOAT:
        p->at++;
        return constant(p, jinja_float(t->f), out);
    default:
        break;
    }
    if (jinja_accept(p, JINJA_TOK_OP, "(")) {
        if (jinja_accept(p, JINJA_TOK_OP, ")"))
            return jinja_node_new(p, JINJA_TUPLE, out);
        EW_TRY(jinja_parse_tuple(p, true, out));
        return jinja_expect(p, JINJA_TOK_OP, ")");
    }
    if (jinja_accept(p, JINJA_TOK_OP, "["))
        return parse_list(p, out);
    if (jinja_accept(p, JINJA_TOK_OP, "{"))
        return parse_dict(p, out);
    return jinja_unexpected(p, "an expression");
}

static ew_status parse_args(struct jinja_parser *p, struct jinja_node *n)
{
    struct jinja_arg *a;
    size_t cap = 0;

    while (!jinja_accept(p, JINJA_TOK_OP, ")")) {
        if (n->n_args)
            EW_TRY(jinja_expect(p, JINJA_TOK_OP, ","));
        if (jinja_accept(p, JINJA_TOK_OP, ")"))
            break;
        EW_TRY(jinja_arg_add(p, n, &cap, &a));
        const struct jinja_token *const next = jinja_peek(p) + 1;
        a->stars = jinja_accept(p, JINJA_TOK_OP, "**")  ? 2
                   : jinja_accept(p, JINJA_TOK_OP, "*") ? 1
                                                        : 0;
        if (!a->stars && jinja_at(p, JINJA_TOK_NAME, NULL) && next->kind == JINJA_TOK_OP &&
            next->len == 1 && next->at[0] == '=') {
            a->name = ew_arena_strndup(p->arena, jinja_peek(p)->at, jinja_peek(p)->len);
            a->name_len = jinja_peek(p)->len;
            p->at += 2;
        }
        EW_TRY(jinja_parse_expression(p, true, &a->value));
    }
    return EW_STATUS_OK;
}

static ew_status parse_subscript(struct jinja_parser *p, struct jinja_node *base,
                                 struct jinja_node **out)
{
    struct jinja_node *n;

    EW_TRY(jinja_node_new(p, JINJA_ITEM, &n));
    n->a = base;
    *out = n;
    if (!jinja_at(p, JINJA_TOK_OP, ":"))
        EW_TRY(jinja_parse_tuple(p, true, &n->b));
    if (jinja_accept(p, JINJA_TOK_OP, ":")) {
        n->kind = JINJA_SLICE;
        if (!jinja_at(p, JINJA_TOK_OP, ":") && !jinja_at(p, JINJA_TOK_OP, "]"))
            EW_TRY(jinja_parse_expression(p, true, &n->c));
        if (jinja_accept(p, JINJA_TOK_OP, ":") && !jinja_at(p, JINJA_TOK_OP, "]"))
            EW_TRY(jinja_parse_expression(p, true, &n->d));
    }
    return jinja_expect(p, JINJA_TOK_OP, "]");
}

static ew_status parse_postfix(struct jinja_parser *p, struct jinja_node *base,
                               struct jinja_node **out)
{
    *out = base;
    for (;;) {
        struct jinja_node *n;
        if (jinja_accept(p, JINJA_TOK_OP, ".")) {
            const struct jinja_token *const t = jinja_peek(p);
            EW_TRY(jinja_node_new(p, JINJA_ATTR, &n));
            n->a = *out;
            if (t->kind == JINJA_TOK_INT) {
                n->kind = JINJA_ITEM;
                EW_TRY(constant(p, jinja_int(t->i), &n->b));
            } else if (t->kind != JINJA_TOK_NAME) {
                return jinja_unexpected(p, "an attribute name");
            } else {
                EW_TRY(jinja_node_text(p, n, t));
            }
            p->at++;
        } else if (jinja_accept(p, JINJA_TOK_OP, "[")) {
            EW_TRY(parse_subscript(p, *out, &n));
        } else if (jinja_accept(p, JINJA_TOK_OP, "(")) {
            EW_TRY(jinja_node_new(p, JINJA_CALL, &n));
            n->a = *out;
            EW_TRY(parse_args(p, n));
        } else {
            return EW_STATUS_OK;
        }
        *out = n;
    }
}

static ew_status parse_one_filter(struct jinja_parser *p, struct jinja_node *input,
                                  struct jinja_node **out)
{
    struct jinja_node *n;

    EW_TRY(jinja_node_new(p, JINJA_FILTER, &n));
    n->a = input;
    if (!jinja_at(p, JINJA_TOK_NAME, NULL))
        return jinja_unexpected(p, "a filter name");
    EW_TRY(jinja_node_text(p, n, jinja_peek(p)));
    p->at++;
    if (jinja_accept(p, JINJA_TOK_OP, "("))
        EW_TRY(parse_args(p, n));
    *out = n;
    return EW_STATUS_OK;
}

ew_status jinja_parse_filters(struct jinja_parser *p, struct jinja_node *start,
                              struct jinja_node **out)
{
    *out = start;
    if (!start) {
        (void)jinja_accept(p, JINJA_TOK_OP, "|");
        EW_TRY(parse_one_filter(p, NULL, out));
    }
    while (jinja_accept(p, JINJA_TOK_OP, "|"))
        EW_TRY(parse_one_filter(p, *out, out));
    return EW_STATUS_OK;
}

/* "is [not] name", "is name(args)" or "is name arg". */
static ew_status parse_test(struct jinja_parser *p, struct jinja_node *input,
                            struct jinja_node **out)
{
    struct jinja_node *n;

    EW_TRY(jinja_node_new(p, JINJA_TEST, &n));
    n->a = input;
    n->negate = jinja_accept(p, JINJA_TOK_NAME, "not");
    if (!jinja_at(p, JINJA_TOK_NAME, NULL))
        return jinja_unexpected(p, "a test name");
    EW_TRY(jinja_node_text(p, n, jinja_peek(p)));
    p->at++;
    const struct jinja_token *const t = jinja_peek(p);
    if (jinja_accept(p, JINJA_TOK_OP, "(")) {
        EW_TRY(parse_args(p, n));
    } else if (t->kind == JINJA_TOK_STR || t->kind == JINJA_TOK_INT || t->kind == JINJA_TOK_FLOAT ||
               jinja_at(p, JINJA_TOK_OP, "[") || jinja_at(p, JINJA_TOK_OP, "{") ||
               (t->kind == JINJA_TOK_NAME && !jinja_at(p, JINJA_TOK_NAME, "else") &&
                !jinja_at(p, JINJA_TOK_NAME, "or") && !jinja_at(p, JINJA_TOK_NAME, "and") &&
                !jinja_at(p, JINJA_TOK_NAME, "is") && !jinja_at(p, JINJA_TOK_NAME, "if") &&
                !jinja_at(p, JINJA_TOK_NAME, "not") && !jinja_at(p, JINJA_TOK_NAME, "in") &&
                !jinja_at(p, JINJA_TOK_NAME, "recursive"))) {
        n->args = ew_arena_new(p->arena, struct jinja_arg, 1);
        if (!n->args)
            return ew_fail(p->err, EW_STATUS_NO_MEMORY, "%s: template tree", p->name);
        n->n_args = 1;
        EW_TRY(parse_primary(p, &n->args[0].value));
        EW_TRY(parse_postfix(p, n->args[0].value, &n->args[0].value));
    }
    *out = n;
    return EW_STATUS_OK;
}

static ew_status parse_filter_expr(struct jinja_parser *p, struct jinja_node *base,
                                   struct jinja_node **out)
{
    *out = base;
    for (;;) {
        if (jinja_at(p, JINJA_TOK_OP, "|"))
            EW_TRY(jinja_parse_filters(p, *out, out));
        else if (jinja_accept(p, JINJA_TOK_NAME, "is"))
            EW_TRY(parse_test(p, *out, out));
        else if (jinja_at(p, JINJA_TOK_OP, "(")) /* a filter's result called */
            EW_TRY(parse_postfix(p, *out, out));
        else
            return EW_STATUS_OK;
    }
}

/* base ** exponent: the exponent is unary, so -2 ** 2 is -(2 ** 2) and 2 ** -1 works. */
static ew_status parse_pow(struct jinja_parser *p, struct jinja_node **out)
{
    EW_TRY(parse_primary(p, out));
    EW_TRY(parse_postfix(p, *out, out));
    while (jinja_accept(p, JINJA_TOK_OP, "**")) {
        struct jinja_node *b;
        EW_TRY(parse_unary(p, false, &b));
        EW_TRY(binary(p, "**", *out, b, out));
    }
    return EW_STATUS_OK;
}

static ew_status parse_unary(struct jinja_parser *p, bool with_filters, struct jinja_node **out)
{
    const char *const op = jinja_at(p, JINJA_TOK_OP, "-")   ? "-"
                           : jinja_at(p, JINJA_TOK_OP, "+") ? "+"
                                                            : NULL;

    EW_TRY(jinja_enter(p));
    if (op) {
        struct jinja_node *n;
        EW_TRY(jinja_node_new(p, JINJA_UNARY, &n));
        n->text = op;
        p->at++;
        EW_TRY(parse_unary(p, false, &n->a));
        *out = n;
    } else {
        EW_TRY(parse_pow(p, out));
    }
    if (with_filters)
        EW_TRY(parse_filter_expr(p, *out, out));
    p->depth--;
    return EW_STATUS_OK;
}

/* Left-associative levels, loosest first. */
static const char *const levels[3][5] = { { "+", "-", NULL },
                                          { "~", NULL },
                                          { "*", "//", "/", "%", NULL } };

static ew_status parse_level(struct jinja_parser *p, unsigned level, struct jinja_node **out)
{
    if (level == 3)
        return parse_unary(p, true, out);
    EW_TRY(parse_level(p, level + 1, out));
    for (;;) {
        const char *op = NULL;
        struct jinja_node *b;
        for (const char *const *o = levels[level]; *o && !op; o++)
            if (jinja_accept(p, JINJA_TOK_OP, *o))
                op = *o;
        if (!op)
            return EW_STATUS_OK;
        EW_TRY(parse_level(p, level + 1, &b));
        EW_TRY(binary(p, op, *out, b, out));
    }
}

static const char *comparison(struct jinja_parser *p)
{
    static const char *const ops[] = { "==", "!=", "<=", ">=", "<", ">" };
    const struct jinja_token *const next = jinja_peek(p) + 1;

    for (size_t i = 0; i < sizeof(ops) / sizeof(ops[0]); i++)
        if (jinja_accept(p, JINJA_TOK_OP, ops[i]))
            return ops[i];
    if (jinja_accept(p, JINJA_TOK_NAME, "in"))
        return "in";
    if (jinja_at(p, JINJA_TOK_NAME, "not") && next->kind == JINJA_TOK_NAME && next->len == 2 &&
        memcmp(next->at, "in", 2) == 0) {
        p->at += 2;
        return "not in";
    }
    return NULL;
}

static ew_status parse_compare(struct jinja_parser *p, struct jinja_node **out)
{
    struct jinja_node *chain = NULL;

    EW_TRY(parse_level(p, 0, out));
    for (const char *op = comparison(p); op; op = comparison(p)) {
        struct jinja_node *link;
        if (!chain) {
            EW_TRY(jinja_node_new(p, JINJA_CHAIN, &chain));
            chain->a = *out;
        }
        EW_TRY(jinja_node_new(p, JINJA_CHAIN, &link));
        link->text = op;
        EW_TRY(parse_level(p, 0, &link->a));
        EW_TRY(jinja_append(p, &chain->kids, &chain->n_kids, link));
    }
    if (chain)
        *out = chain;
    return EW_STATUS_OK;
}

static ew_status parse_not(struct jinja_parser *p, struct jinja_node **out)
{
    struct jinja_node *n;

    if (!jinja_accept(p, JINJA_TOK_NAME, "not"))
        return parse_compare(p, out);
    EW_TRY(jinja_enter(p));
    EW_TRY(jinja_node_new(p, JINJA_UNARY, &n));
    n->text = "not";
    EW_TRY(parse_not(p, &n->a));
    *out = n;
    p->depth--;
    return EW_STATUS_OK;
}

static ew_status parse_and(struct jinja_parser *p, struct jinja_node **out)
{
    EW_TRY(parse_not(p, out));
    while (jinja_accept(p, JINJA_TOK_NAME, "and")) {
        struct jinja_node *b;
        EW_TRY(parse_not(p, &b));
        EW_TRY(binary(p, "and", *out, b, out));
    }
    return EW_STATUS_OK;
}

static ew_status parse_or(struct jinja_parser *p, struct jinja_node **out)
{
    EW_TRY(parse_and(p, out));
    while (jinja_accept(p, JINJA_TOK_NAME, "or")) {
        struct jinja_node *b;
        EW_TRY(parse_and(p, &b));
        EW_TRY(binary(p, "or", *out, b, out));
    }
    return EW_STATUS_OK;
}

ew_status jinja_parse_expression(struct jinja_parser *p, bool cond, struct jinja_node **out)
{
    EW_TRY(jinja_enter(p));
    EW_TRY(parse_or(p, out));
    while (cond && jinja_accept(p, JINJA_TOK_NAME, "if")) {
        struct jinja_node *n;
        EW_TRY(jinja_node_new(p, JINJA_COND, &n));
        n->a = *out;
        EW_TRY(parse_or(p, &n->b));
        if (jinja_accept(p, JINJA_TOK_NAME, "else"))
            EW_TRY(jinja_parse_expression(p, true, &n->c));
        *out = n;
    }
    p->depth--;
    return EW_STATUS_OK;
}

static bool tuple_ends(const struct jinja_parser *p)
{
    return jinja_at(p, JINJA_TOK_PRINT_END, NULL) || jinja_at(p, JINJA_TOK_BLOCK_END, NULL) ||
           jinja_at(p, JINJA_TOK_OP, ")") || jinja_at(p, JINJA_TOK_OP, "=") ||
           jinja_at(p, JINJA_TOK_OP, "]") || jinja_at(p, JINJA_TOK_NAME, "in");
}

ew_status jinja_parse_tuple(struct jinja_parser *p, bool cond, struct jinja_node **out)
{
    struct jinja_node *first, *n;

    EW_TRY(jinja_parse_expression(p, cond, &first));
    *out = first;
    if (!jinja_at(p, JINJA_TOK_OP, ","))
        return EW_STATUS_OK;
    EW_TRY(jinja_node_new(p, JINJA_TUPLE, &n));
    *out = n;
    EW_TRY(jinja_append(p, &n->kids, &n->n_kids, first));
    while (jinja_accept(p, JINJA_TOK_OP, ",")) {
        if (tuple_ends(p))
            break;
        EW_TRY(jinja_parse_expression(p, cond, &first));
        EW_TRY(jinja_append(p, &n->kids, &n->n_kids, first));
    }
    return EW_STATUS_OK;
}

static ew_status parse_one_target(struct jinja_parser *p, struct jinja_node **out)
{
    if (jinja_accept(p, JINJA_TOK_OP, "(")) {
        EW_TRY(jinja_enter(p));
        EW_TRY(jinja_parse_target(p, out));
        p->depth--;
        return jinja_expect(p, JINJA_TOK_OP, ")");
    }
    if (!jinja_at(p, JINJA_TOK_NAME, NULL))
        return jinja_unexpected(p, "a name to assign to");
    EW_TRY(parse_name(p, out));
    if ((*out)->kind != JINJA_NAME)
        return jinja_unexpected(p, "a name to assign to");
    if (jinja_accept(p, JINJA_TOK_OP, ".")) {
        struct jinja_node *n;
        if (!jinja_at(p, JINJA_TOK_NAME, NULL))
            return jinja_unexpected(p, "an attribute name");
        EW_TRY(jinja_node_new(p, JINJA_ATTR, &n));
        n->a = *out;
        EW_TRY(jinja_node_text(p, n, jinja_peek(p)));
        p->at++;
        *out = n;
    }
    return EW_STATUS_OK;
}

ew_status jinja_parse_target(struct jinja_parser *p, struct jinja_node **out)
{
    struct jinja_node *first, *n;

    EW_TRY(parse_one_target(p, &first));
    *out = first;
    if (!jinja_at(p, JINJA_TOK_OP, ","))
        return EW_STATUS_OK;
    EW_TRY(jinja_node_new(p, JINJA_TUPLE, &n));
    *out = n;
    EW_TRY(jinja_append(p, &n->kids, &n->n_kids, first));
    while (jinja_accept(p, JINJA_TOK_OP, ",")) {
        if (tuple_ends(p))
            break;
        EW_TRY(parse_one_target(p, &first));
        EW_TRY(jinja_append(p, &n->kids, &n->n_kids, first));
    }
    return EW_STATUS_OK;
}
