/* text/jinja_parse.c - statements of a template. Expressions are jinja_expr.c's. */
#include "text/jinja_parse.h"

#include <string.h>

ew_status jinja_unexpected(struct jinja_parser *p, const char *wanted)
{
    const struct jinja_token *const t = jinja_peek(p);
    static const char *const words[] = { "text",     "{%",          "%}",       "{{",
                                         "}}",       "a name",      "a string", "a number",
                                         "a number", "punctuation", "the end" };

    if (t->kind == JINJA_TOK_NAME || t->kind == JINJA_TOK_OP)
        return ew_fail(p->err, EW_STATUS_MALFORMED, "%s: line %d: expected %s, found '%.*s'",
                       p->name, t->line, wanted, (int)(t->len < 40 ? t->len : 40), t->at);
    return ew_fail(p->err, EW_STATUS_MALFORMED, "%s: line %d: expected %s, found %s", p->name,
                   t->line, wanted, words[t->kind]);
}

bool jinja_at(const struct jinja_parser *p, enum jinja_token_kind kind, const char *text)
{
    const struct jinja_token *const t = jinja_peek(p);

    return t->kind == kind &&
           (!text || (t->len == strlen(text) && memcmp(t->at, text, t->len) == 0));
}

bool jinja_accept(struct jinja_parser *p, enum jinja_token_kind kind, const char *text)
{
    if (!jinja_at(p, kind, text))
        return false;
    p->at++;
    return true;
}

ew_status jinja_expect(struct jinja_parser *p, enum jinja_token_kind kind, const char *text)
{
    return jinja_accept(p, kind, text) ? EW_STATUS_OK : jinja_unexpected(p, text ? text : "a name");
}

ew_status jinja_node_new(struct jinja_parser *p, enum jinja_node_kind kind, struct jinja_node **out)
{
    *out = ew_arena_new(p->arena, struct jinja_node, 1);
    if (!*out)
        return ew_fail(p->err, EW_STATUS_NO_MEMORY, "%s: template tree", p->name);
    (*out)->kind = kind;
    (*out)->line = jinja_peek(p)->line;
    return EW_STATUS_OK;
}

ew_status jinja_node_text(struct jinja_parser *p, struct jinja_node *n, const struct jinja_token *t)
{
    n->text = ew_arena_strndup(p->arena, t->at, t->len);
    n->len = t->len;
    return n->text ? EW_STATUS_OK
                   : ew_fail(p->err, EW_STATUS_NO_MEMORY, "%s: template tree", p->name);
}

ew_status jinja_append(struct jinja_parser *p, struct jinja_node ***list, size_t *n,
                       struct jinja_node *item)
{
    if ((*n & (*n - 1)) == 0) { /* grown at powers of two */
        struct jinja_node **const more =
            ew_arena_new(p->arena, struct jinja_node *, *n ? *n * 2 : 1);
        if (!more)
            return ew_fail(p->err, EW_STATUS_NO_MEMORY, "%s: template tree", p->name);
        if (*n)
            memcpy(more, *list, *n * sizeof(*more));
        *list = more;
    }
    (*list)[(*n)++] = item;
    return EW_STATUS_OK;
}

ew_status jinja_arg_add(struct jinja_parser *p, struct jinja_node *n, size_t *cap,
                        struct jinja_arg **out)
{
    if (n->n_args == *cap) {
        const size_t next = *cap ? *cap * 2 : 4;
        struct jinja_arg *const more = ew_arena_new(p->arena, struct jinja_arg, next);
        if (!more)
            return ew_fail(p->err, EW_STATUS_NO_MEMORY, "%s: template tree", p->name);
        if (*cap)
            memcpy(more, n->args, *cap * sizeof(*more));
        n->args = more;
        *cap = next;
    }
    *out = &n->args[n->n_args++];
    return EW_STATUS_OK;
}

ew_status jinja_enter(struct jinja_parser *p)
{
    if (++p->depth > JINJA_MAX_NESTING)
        return ew_fail(p->err, EW_STATUS_LIMIT, "%s: line %d: nested deeper than %d", p->name,
                       jinja_peek(p)->line, JINJA_MAX_NESTING);
    return EW_STATUS_OK;
}

static ew_status end_block(struct jinja_parser *p)
{
    return jinja_accept(p, JINJA_TOK_BLOCK_END, NULL) ? EW_STATUS_OK : jinja_unexpected(p, "%}");
}

/* Statements up to a block that starts with one of `ends` (NULL-terminated); that name is consumed
 * and returned. */
static ew_status parse_body(struct jinja_parser *p, const char *const *ends,
                            struct jinja_node ***body, size_t *n, const char **ended);

static ew_status parse_body_to(struct jinja_parser *p, const char *end, struct jinja_node *n)
{
    const char *const ends[] = { end, NULL };
    const char *ended;

    EW_TRY(end_block(p));
    EW_TRY(parse_body(p, ends, &n->body, &n->n_body, &ended));
    return end_block(p);
}

static ew_status parse_if(struct jinja_parser *p, struct jinja_node **out)
{
    static const char *const ends[] = { "elif", "else", "endif", NULL };
    static const char *const last[] = { "endif", NULL };
    const char *ended;
    struct jinja_node *n, *inner;

    EW_TRY(jinja_node_new(p, JINJA_IF, &n));
    *out = n;
    for (;;) { /* an elif is an if in the else branch; iterative, so that long chains need no stack
                */
        EW_TRY(jinja_parse_expression(p, true, &n->a));
        EW_TRY(end_block(p));
        EW_TRY(parse_body(p, ends, &n->body, &n->n_body, &ended));
        if (strcmp(ended, "elif") != 0)
            break;
        EW_TRY(jinja_node_new(p, JINJA_IF, &inner));
        EW_TRY(jinja_append(p, &n->orelse, &n->n_orelse, inner));
        n = inner;
    }
    if (strcmp(ended, "else") == 0) {
        EW_TRY(end_block(p));
        EW_TRY(parse_body(p, last, &n->orelse, &n->n_orelse, &ended));
    }
    return end_block(p);
}

static ew_status parse_for(struct jinja_parser *p, struct jinja_node **out)
{
    static const char *const ends[] = { "else", "endfor", NULL };
    static const char *const last[] = { "endfor", NULL };
    const char *ended;
    struct jinja_node *n;

    EW_TRY(jinja_node_new(p, JINJA_FOR, &n));
    *out = n;
    EW_TRY(jinja_parse_target(p, &n->a));
    EW_TRY(jinja_expect(p, JINJA_TOK_NAME, "in"));
    EW_TRY(jinja_parse_tuple(p, false, &n->b));
    if (jinja_accept(p, JINJA_TOK_NAME, "if"))
        EW_TRY(jinja_parse_expression(p, true, &n->c));
    n->negate = jinja_accept(p, JINJA_TOK_NAME, "recursive");
    EW_TRY(end_block(p));
    p->loops++;
    EW_TRY(parse_body(p, ends, &n->body, &n->n_body, &ended));
    p->loops--;
    if (strcmp(ended, "else") == 0) {
        EW_TRY(end_block(p));
        EW_TRY(parse_body(p, last, &n->orelse, &n->n_orelse, &ended));
    }
    return end_block(p);
}

static ew_status parse_set(struct jinja_parser *p, struct jinja_node **out)
{
    struct jinja_node *n;

    EW_TRY(jinja_node_new(p, JINJA_SET, &n));
    *out = n;
    EW_TRY(jinja_parse_target(p, &n->a));
    if (jinja_accept(p, JINJA_TOK_OP, "=")) {
        EW_TRY(jinja_parse_tuple(p, true, &n->b));
        return end_block(p);
    }
    if (jinja_at(p, JINJA_TOK_OP, "|"))
        EW_TRY(jinja_parse_filters(p, NULL, &n->c));
    return parse_body_to(p, "endset", n);
}

static ew_status parse_params(struct jinja_parser *p, struct jinja_node *n)
{
    struct jinja_arg *a = NULL;
    size_t cap = 0;

    while (!jinja_accept(p, JINJA_TOK_OP, ")")) {
        if (n->n_args)
            EW_TRY(jinja_expect(p, JINJA_TOK_OP, ","));
        if (!jinja_at(p, JINJA_TOK_NAME, NULL))
            return jinja_unexpected(p, "a parameter name");
        EW_TRY(jinja_arg_add(p, n, &cap, &a));
        a->name = ew_arena_strndup(p->arena, jinja_peek(p)->at, jinja_peek(p)->len);
        a->name_len = jinja_peek(p)->len;
        p->at++;
        if (!a->name)
            return ew_fail(p->err, EW_STATUS_NO_MEMORY, "%s: template tree", p->name);
        if (jinja_accept(p, JINJA_TOK_OP, "="))
            EW_TRY(jinja_parse_expression(p, true, &a->value));
    }
    return EW_STATUS_OK;
}

static ew_status parse_macro(struct jinja_parser *p, struct jinja_node **out)
{
    const uint32_t loops = p->loops;
    struct jinja_node *n;

    EW_TRY(jinja_node_new(p, JINJA_MACRO_DEF, &n));
    *out = n;
    if (!jinja_at(p, JINJA_TOK_NAME, NULL))
        return jinja_unexpected(p, "the macro's name");
    EW_TRY(jinja_node_text(p, n, jinja_peek(p)));
    p->at++;
    EW_TRY(jinja_expect(p, JINJA_TOK_OP, "("));
    EW_TRY(parse_params(p, n));
    p->loops = 0;
    EW_TRY(parse_body_to(p, "endmacro", n));
    p->loops = loops;
    return EW_STATUS_OK;
}

static ew_status parse_call_block(struct jinja_parser *p, struct jinja_node **out)
{
    const uint32_t loops = p->loops;
    struct jinja_node *n;

    EW_TRY(jinja_node_new(p, JINJA_CALL_BLOCK, &n));
    *out = n;
    if (jinja_accept(p, JINJA_TOK_OP, "("))
        EW_TRY(parse_params(p, n));
    EW_TRY(jinja_parse_expression(p, true, &n->a));
    if (n->a->kind != JINJA_CALL)
        return jinja_unexpected(p, "a call");
    p->loops = 0;
    EW_TRY(parse_body_to(p, "endcall", n));
    p->loops = loops;
    return EW_STATUS_OK;
}

static ew_status parse_with(struct jinja_parser *p, struct jinja_node **out)
{
    struct jinja_node *n, *target, *value;

    EW_TRY(jinja_node_new(p, JINJA_WITH, &n));
    *out = n;
    while (!jinja_at(p, JINJA_TOK_BLOCK_END, NULL)) {
        if (n->n_kids)
            EW_TRY(jinja_expect(p, JINJA_TOK_OP, ","));
        EW_TRY(jinja_parse_target(p, &target));
        EW_TRY(jinja_expect(p, JINJA_TOK_OP, "="));
        EW_TRY(jinja_parse_expression(p, true, &value));
        EW_TRY(jinja_append(p, &n->kids, &n->n_kids, target));
        EW_TRY(jinja_append(p, &n->kids, &n->n_kids, value));
    }
    return parse_body_to(p, "endwith", n);
}

static ew_status parse_loop_control(struct jinja_parser *p, enum jinja_node_kind kind,
                                    struct jinja_node **out)
{
    if (!p->loops)
        return jinja_unexpected(p, "break and continue only inside a for loop");
    EW_TRY(jinja_node_new(p, kind, out));
    return end_block(p);
}

static ew_status parse_block(struct jinja_parser *p, struct jinja_node **out)
{
    const struct jinja_token *const t = jinja_peek(p);

    if (jinja_accept(p, JINJA_TOK_NAME, "if"))
        return parse_if(p, out);
    if (jinja_accept(p, JINJA_TOK_NAME, "for"))
        return parse_for(p, out);
    if (jinja_accept(p, JINJA_TOK_NAME, "set"))
        return parse_set(p, out);
    if (jinja_accept(p, JINJA_TOK_NAME, "macro"))
        return parse_macro(p, out);
    if (jinja_accept(p, JINJA_TOK_NAME, "call"))
        return parse_call_block(p, out);
    if (jinja_accept(p, JINJA_TOK_NAME, "with"))
        return parse_with(p, out);
    if (jinja_accept(p, JINJA_TOK_NAME, "break"))
        return parse_loop_control(p, JINJA_BREAK, out);
    if (jinja_accept(p, JINJA_TOK_NAME, "continue"))
        return parse_loop_control(p, JINJA_CONTINUE, out);
    if (jinja_accept(p, JINJA_TOK_NAME, "generation")) {
        EW_TRY(jinja_node_new(p, JINJA_SCOPE, out));
        return parse_body_to(p, "endgeneration", *out);
    }
    if (jinja_accept(p, JINJA_TOK_NAME, "filter")) {
        EW_TRY(jinja_node_new(p, JINJA_FILTER_BLOCK, out));
        EW_TRY(jinja_parse_filters(p, NULL, &(*out)->a));
        return parse_body_to(p, "endfilter", *out);
    }
    if (t->kind == JINJA_TOK_NAME)
        return ew_fail(p->err, EW_STATUS_UNSUPPORTED,
                       "%s: line %d: unknown or misplaced tag '%.*s'", p->name, t->line,
                       (int)(t->len < 40 ? t->len : 40), t->at);
    return jinja_unexpected(p, "a tag name");
}

static ew_status parse_statement(struct jinja_parser *p, struct jinja_node **out)
{
    const struct jinja_token *const t = jinja_peek(p);

    if (t->kind == JINJA_TOK_DATA) {
        EW_TRY(jinja_node_new(p, JINJA_TEXT, out));
        p->at++;
        return jinja_node_text(p, *out, t);
    }
    if (jinja_accept(p, JINJA_TOK_PRINT, NULL)) {
        EW_TRY(jinja_node_new(p, JINJA_OUTPUT, out));
        EW_TRY(jinja_parse_tuple(p, true, &(*out)->a));
        return jinja_accept(p, JINJA_TOK_PRINT_END, NULL) ? EW_STATUS_OK
                                                          : jinja_unexpected(p, "}}");
    }
    if (!jinja_accept(p, JINJA_TOK_BLOCK, NULL))
        return jinja_unexpected(p, "text or a tag");
    return parse_block(p, out);
}

static ew_status parse_body(struct jinja_parser *p, const char *const *ends,
                            struct jinja_node ***body, size_t *n, const char **ended)
{
    EW_TRY(jinja_enter(p));
    while (!jinja_at(p, JINJA_TOK_EOF, NULL)) {
        struct jinja_node *node;
        for (const char *const *e = ends; jinja_at(p, JINJA_TOK_BLOCK, NULL) && *e; e++) {
            const struct jinja_token *const t = jinja_peek(p) + 1;
            if (t->kind == JINJA_TOK_NAME && t->len == strlen(*e) &&
                memcmp(t->at, *e, t->len) == 0) {
                p->at += 2;
                p->depth--;
                *ended = *e;
                return EW_STATUS_OK;
            }
        }
        EW_TRY(parse_statement(p, &node));
        EW_TRY(jinja_append(p, body, n, node));
    }
    p->depth--;
    *ended = "";
    if (!ends[0])
        return EW_STATUS_OK;
    const char *last = ends[0];
    for (const char *const *e = ends; *e; e++)
        last = *e;
    return jinja_unexpected(p, last);
}

ew_status jinja_parse(struct ew_arena *arena, const struct jinja_token *tokens, size_t n_tokens,
                      const char *name, struct jinja_node ***body, size_t *n_body, ew_error *err)
{
    static const char *const no_end[] = { NULL };
    struct jinja_parser p = {
        .arena = arena, .tokens = tokens, .n = n_tokens, .name = name, .err = err
    };
    const char *ended;

    *body = NULL;
    *n_body = 0;
    return parse_body(&p, no_end, body, n_body, &ended);
}
