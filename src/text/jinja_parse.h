/* text/jinja_parse.h - what the two halves of the parser share. */
#ifndef EW_TEXT_JINJA_PARSE_H
#define EW_TEXT_JINJA_PARSE_H

#include "text/jinja_ast.h"

struct jinja_parser {
    struct ew_arena *arena;
    const struct jinja_token *tokens; /* ends with EOF */
    size_t n, at;
    const char *name;
    uint32_t depth, loops;
    ew_error *err;
};

static inline const struct jinja_token *jinja_peek(const struct jinja_parser *p)
{
    return &p->tokens[p->at < p->n ? p->at : p->n - 1];
}

ew_status jinja_unexpected(struct jinja_parser *p, const char *wanted);
bool jinja_at(const struct jinja_parser *p, enum jinja_token_kind kind, const char *text);
bool jinja_accept(struct jinja_parser *p, enum jinja_token_kind kind, const char *text);
ew_status jinja_expect(struct jinja_parser *p, enum jinja_token_kind kind, const char *text);
ew_status jinja_node_new(struct jinja_parser *p, enum jinja_node_kind kind,
                         struct jinja_node **out);
ew_status jinja_node_text(struct jinja_parser *p, struct jinja_node *n,
                          const struct jinja_token *t);
ew_status jinja_append(struct jinja_parser *p, struct jinja_node ***list, size_t *n,
                       struct jinja_node *item);
/* A zeroed argument at the end of n->args, whose room is *cap (0 at first). */
ew_status jinja_arg_add(struct jinja_parser *p, struct jinja_node *n, size_t *cap,
                        struct jinja_arg **out);
/* Counts nesting; the caller lowers p->depth again on success. */
ew_status jinja_enter(struct jinja_parser *p);

/* jinja_expr.c. cond: inline if allowed. */
ew_status jinja_parse_expression(struct jinja_parser *p, bool cond, struct jinja_node **out);
/* One expression, or several with commas as a tuple. */
ew_status jinja_parse_tuple(struct jinja_parser *p, bool cond, struct jinja_node **out);
/* Assignment target: name, name.attr, or a tuple of them. */
ew_status jinja_parse_target(struct jinja_parser *p, struct jinja_node **out);
/* "|name(args)" repeated; the first bar may be missing when start is NULL. */
ew_status jinja_parse_filters(struct jinja_parser *p, struct jinja_node *start,
                              struct jinja_node **out);

#endif
