/* text/jinja_eval.h - what the parts of the evaluator share: scopes, calls, builtins. */
#ifndef EW_TEXT_JINJA_EVAL_H
#define EW_TEXT_JINJA_EVAL_H

#include "text/jinja_ast.h"

struct jinja_var {
    const char *name;
    size_t len;
    struct jinja_value value;
};

struct jinja_scope {
    struct jinja_scope *parent;
    struct jinja_var *vars;
    size_t n, cap;
};

struct jinja_macro {
    const struct jinja_node *def; /* MACRO_DEF or CALL_BLOCK */
    struct jinja_scope *scope;    /* where it was defined */
};

/* Evaluated arguments of a call. */
struct jinja_call {
    struct jinja_value *v;
    size_t n;
    struct jinja_var *kw;
    size_t n_kw;
    struct jinja_value caller; /* kind MACRO inside call blocks, else UNDEFINED */
};

enum jinja_flow { JINJA_FLOW_NEXT, JINJA_FLOW_BREAK, JINJA_FLOW_CONTINUE };

/* Output of a body: strings in a row. */
struct jinja_out {
    const struct jinja_str **parts;
    size_t n, cap;
    uint64_t bytes;
};

ew_status jinja_eval(struct jinja_run *r, struct jinja_scope *scope, const struct jinja_node *n,
                     struct jinja_value *out);
ew_status jinja_exec(struct jinja_run *r, struct jinja_scope *scope, struct jinja_node *const *body,
                     size_t n_body, struct jinja_out *out, enum jinja_flow *flow);
ew_status jinja_call_value(struct jinja_run *r, struct jinja_value f, const struct jinja_call *call,
                           struct jinja_value *out);
ew_status jinja_scope_set(struct jinja_run *r, struct jinja_scope *s, const char *name, size_t len,
                          struct jinja_value v);
bool jinja_scope_find(const struct jinja_scope *s, const char *name, size_t len,
                      struct jinja_value *out);

/* value.attr and value[key]: UNDEFINED when not there; an undefined value itself is an error. */
ew_status jinja_get_attr(struct jinja_run *r, struct jinja_value v, const char *name, size_t len,
                         struct jinja_value *out);
ew_status jinja_get_item(struct jinja_run *r, struct jinja_value v, struct jinja_value key,
                         struct jinja_value *out);
/* The elements of something iterable as a list: list, tuple, dict keys, characters. */
ew_status jinja_iterate(struct jinja_run *r, struct jinja_value v, struct jinja_list **out);
ew_status jinja_contains(struct jinja_run *r, struct jinja_value container, struct jinja_value item,
                         bool *out);
ew_status jinja_binary(struct jinja_run *r, const char *op, struct jinja_value a,
                       struct jinja_value b, struct jinja_value *out);

/* Builtins. Each fails with the name when there is none. */
bool jinja_global_find(const char *name, size_t len, struct jinja_value *out);
ew_status jinja_call_global(struct jinja_run *r, int func, const struct jinja_call *call,
                            struct jinja_value *out);
ew_status jinja_call_method(struct jinja_run *r, const struct jinja_method *m,
                            const struct jinja_call *call, struct jinja_value *out);
bool jinja_method_exists(struct jinja_value self, const char *name);
ew_status jinja_apply_filter(struct jinja_run *r, const char *name, struct jinja_value v,
                             const struct jinja_call *call, struct jinja_value *out);
ew_status jinja_apply_test(struct jinja_run *r, const char *name, struct jinja_value v,
                           const struct jinja_call *call, bool *out);

/* Argument i or keyword `name`; UNDEFINED when absent. */
struct jinja_value jinja_arg_get(const struct jinja_call *call, size_t i, const char *name);
/* The same as an integer or a string, with a default; wrong kinds fail. */
ew_status jinja_arg_int(struct jinja_run *r, const struct jinja_call *call, size_t i,
                        const char *name, int64_t fallback, int64_t *out);
ew_status jinja_arg_str(struct jinja_run *r, const struct jinja_call *call, size_t i,
                        const char *name, const struct jinja_str **out); /* NULL when absent */

#endif
