/* text/jinja_value.h - the values of a template: what Python would call str, int, list, dict...
 *
 * Everything lives in the arena of one rendering. Strings know which of their bytes came from the
 * caller's input
 * ("user" bytes): literals of the template are clean, input strings are not, and concatenation,
 * slicing and joining keep the mark byte by byte. The tokenizer then treats special tokens in user
 * bytes as text. */
#ifndef EW_TEXT_JINJA_VALUE_H
#define EW_TEXT_JINJA_VALUE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/error.h"
#include "edgewise/tokenizer.h"

enum jinja_kind {
    JINJA_UNDEFINED,
    JINJA_NONE,
    JINJA_BOOL,
    JINJA_INT,
    JINJA_FLOAT,
    JINJA_STR,
    JINJA_LIST,  /* tuple when list->tuple */
    JINJA_DICT,  /* namespace when dict->is_namespace */
    JINJA_MACRO, /* a macro or a call block's caller */
    JINJA_FUNC,  /* builtin by number: raise_exception, range... */
    JINJA_METHOD /* bound method of a str, list or dict */
};

struct jinja_str {
    const char *at;
    size_t len;
    const uint8_t *user; /* one byte a byte, NULL: all of all_user */
    bool all_user;
    bool safe; /* |safe: a Markup string; escape leaves it alone */
};

struct jinja_list;
struct jinja_dict;
struct jinja_macro;
struct jinja_method;

struct jinja_value {
    enum jinja_kind kind;
    union {
        bool b;
        int64_t i;
        double f;
        const struct jinja_str *s;
        struct jinja_list *list;
        struct jinja_dict *dict;
        struct jinja_macro *macro;
        int func;
        const struct jinja_method *method;
        const char *missing; /* UNDEFINED: the name that was not there */
    } u;
};

struct jinja_list {
    struct jinja_value *v;
    size_t n, cap;
    bool tuple;
};

struct jinja_entry {
    struct jinja_value key, value;
};

struct jinja_dict {
    struct jinja_entry *e;
    size_t n, cap;
    bool is_namespace;
};

struct jinja_method {
    struct jinja_value self;
    const char *name;
};

/* One rendering: memory, caps, and where errors go. */
struct jinja_run {
    struct ew_arena arena;
    ew_template_caps caps;
    uint64_t steps;
    uint32_t depth;
    int64_t now_s;
    const char *template_name;
    int line; /* of the node being evaluated, for messages */
    ew_error *err;
};

/* "name: line N: text", once. Returns s. */
ew_status jinja_fail(struct jinja_run *r, ew_status s, const char *fmt, ...) EW_PRINTF(3, 4);
ew_status jinja_no_memory(struct jinja_run *r);
/* Counts work; LIMIT when the cap is passed. */
ew_status jinja_charge(struct jinja_run *r, uint64_t steps);

static inline struct jinja_value jinja_none(void)
{
    return (struct jinja_value){ .kind = JINJA_NONE };
}
static inline struct jinja_value jinja_bool(bool b)
{
    return (struct jinja_value){ .kind = JINJA_BOOL, .u.b = b };
}
static inline struct jinja_value jinja_int(int64_t i)
{
    return (struct jinja_value){ .kind = JINJA_INT, .u.i = i };
}
static inline struct jinja_value jinja_float(double f)
{
    return (struct jinja_value){ .kind = JINJA_FLOAT, .u.f = f };
}
static inline struct jinja_value jinja_undefined(const char *name)
{
    return (struct jinja_value){ .kind = JINJA_UNDEFINED, .u.missing = name };
}

/* Strings. like: whose mark the new bytes take (NULL: clean). Copies the bytes. */
ew_status jinja_str_new(struct jinja_run *r, const char *at, size_t len,
                        const struct jinja_str *like, struct jinja_value *out);
/* Bytes [begin, end) of s, sharing memory and marks. */
ew_status jinja_str_sub(struct jinja_run *r, const struct jinja_str *s, size_t begin, size_t end,
                        struct jinja_value *out);
/* Several strings in a row. */
ew_status jinja_str_concat(struct jinja_run *r, const struct jinja_str *const *parts, size_t n,
                           struct jinja_value *out);
bool jinja_str_user_at(const struct jinja_str *s, size_t i);
bool jinja_str_any_user(const struct jinja_str *s);
bool jinja_str_is(const struct jinja_str *s, const char *text);

/* Code points: Python indexes strings by them. */
size_t jinja_str_n_chars(const struct jinja_str *s);
size_t jinja_str_char_off(const struct jinja_str *s,
                          size_t i_char); /* byte offset; len past the end */

ew_status jinja_list_new(struct jinja_run *r, bool tuple, struct jinja_value *out);
ew_status jinja_list_push(struct jinja_run *r, struct jinja_list *l, struct jinja_value v);
ew_status jinja_dict_new(struct jinja_run *r, struct jinja_value *out);
ew_status jinja_dict_set(struct jinja_run *r, struct jinja_dict *d, struct jinja_value key,
                         struct jinja_value v);
/* False when not there. */
bool jinja_dict_find(const struct jinja_dict *d, struct jinja_value key, struct jinja_value *out);
bool jinja_dict_find_text(const struct jinja_dict *d, const char *key, size_t len,
                          struct jinja_value *out);

bool jinja_truth(struct jinja_value v);
bool jinja_equal(struct jinja_value a, struct jinja_value b, uint32_t depth);
/* -1, 0, 1; TypeError-like failure for kinds that Python does not order. */
ew_status jinja_compare(struct jinja_run *r, struct jinja_value a, struct jinja_value b, int *out);
const char *jinja_type_text(struct jinja_value v); /* "str", "list"... */
bool jinja_is_number(struct jinja_value v);        /* int, float, bool */
double jinja_as_f64(struct jinja_value v);
int64_t jinja_as_i64(struct jinja_value v); /* of int and bool */

/* Python's str() and repr(). */
ew_status jinja_to_str(struct jinja_run *r, struct jinja_value v, struct jinja_value *out);
/* json.dumps(v, ensure_ascii=False, indent=..., separators=..., sort_keys=...); indent < 0: one
 * line. */
struct jinja_json_opts {
    int indent;
    bool sort_keys, ensure_ascii;
    const char *item_sep, *key_sep; /* NULL: Python's defaults */
};
ew_status jinja_to_json(struct jinja_run *r, struct jinja_value v,
                        const struct jinja_json_opts *opts, struct jinja_value *out);
/* Parses JSON text; user: strings are marked as the caller's. */
ew_status jinja_from_json(struct jinja_run *r, const char *text, struct jinja_value *out);

#endif
