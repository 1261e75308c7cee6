/* text/jinja_ast.h - a parsed template: what the lexer hands the parser, and the tree that the
 * evaluator walks.
 *
 * Grammar: Jinja 3.1 with the extensions that transformers turns on (loop controls, generation
 * blocks), environment options trim_blocks and lstrip_blocks. The tree lives in the template's
 * arena and is immutable after parsing. */
#ifndef EW_TEXT_JINJA_AST_H
#define EW_TEXT_JINJA_AST_H

#include "text/jinja_value.h"

#define JINJA_MAX_NESTING 200 /* parser recursion: blocks and expressions */

enum jinja_token_kind {
    JINJA_TOK_DATA,      /* text between tags */
    JINJA_TOK_BLOCK,     /* {% */
    JINJA_TOK_BLOCK_END, /* %} */
    JINJA_TOK_PRINT,     /* {{ */
    JINJA_TOK_PRINT_END, /* }} */
    JINJA_TOK_NAME,
    JINJA_TOK_STR,
    JINJA_TOK_INT,
    JINJA_TOK_FLOAT,
    JINJA_TOK_OP, /* punctuation: text */
    JINJA_TOK_EOF
};

struct jinja_token {
    enum jinja_token_kind kind;
    int line;
    const char *at; /* DATA, NAME, OP: bytes of the source; STR: unescaped, in the arena */
    size_t len;
    int64_t i;
    double f;
};

/* Splits source into tokens in the arena. `name` is for messages. */
ew_status jinja_lex(struct ew_arena *arena, const char *source, size_t len, const char *name,
                    struct jinja_token **tokens, size_t *n_tokens, ew_error *err);

enum jinja_node_kind {
    /* expressions */
    JINJA_CONST,  /* value */
    JINJA_NAME,   /* text */
    JINJA_TUPLE,  /* kids */
    JINJA_ARRAY,  /* kids */
    JINJA_MAP,    /* kids: key, value, key, value... */
    JINJA_UNARY,  /* op, a: "not" "-" "+" */
    JINJA_BINARY, /* op, a, b: arithmetic, and, or, ~ */
    JINJA_CHAIN,  /* a; kids: operands, with ops in kids[i]->text: comparisons */
    JINJA_COND,   /* a if b else c (c may be NULL) */
    JINJA_ATTR,   /* a.text */
    JINJA_ITEM,   /* a[b] */
    JINJA_SLICE,  /* a[b:c:d] */
    JINJA_CALL,   /* a(args) */
    JINJA_FILTER, /* a|text(args); a NULL inside filter blocks */
    JINJA_TEST,   /* a is text(args); negate */
    /* statements */
    JINJA_OUTPUT,       /* a */
    JINJA_TEXT,         /* text */
    JINJA_IF,           /* a; body; orelse */
    JINJA_FOR,          /* a = target, b = iterable, c = filter; body; orelse; negate = recursive */
    JINJA_SET,          /* a = target, b = value, or body for block set (b: filter chain or NULL) */
    JINJA_MACRO_DEF,    /* text; params; body */
    JINJA_CALL_BLOCK,   /* a = call expression; params; body */
    JINJA_FILTER_BLOCK, /* a = filter chain; body */
    JINJA_WITH,         /* kids: target, value...; body */
    JINJA_SCOPE,        /* body (generation blocks) */
    JINJA_BREAK,
    JINJA_CONTINUE
};

struct jinja_arg {    /* of a call, or a parameter of a macro (value: its default) */
    const char *name; /* NULL: positional */
    size_t name_len;
    struct jinja_node *value;
    int stars; /* 1: *value, 2: **value */
};

struct jinja_node {
    enum jinja_node_kind kind;
    int line;
    bool negate;
    const char *text; /* NUL-terminated */
    size_t len;
    struct jinja_value value;
    struct jinja_node *a, *b, *c, *d;
    struct jinja_node **kids;
    size_t n_kids;
    struct jinja_arg *args;
    size_t n_args;
    struct jinja_node **body;
    size_t n_body;
    struct jinja_node **orelse;
    size_t n_orelse;
};

/* Parses tokens into a list of statements. */
ew_status jinja_parse(struct ew_arena *arena, const struct jinja_token *tokens, size_t n_tokens,
                      const char *name, struct jinja_node ***body, size_t *n_body, ew_error *err);

#endif
