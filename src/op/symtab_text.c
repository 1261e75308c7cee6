/* op/symtab_text.c - text of dims, both ways.
 *
 *   sum     := term (("+" | "-") term)*
 *   term    := factor ("*" factor)*
 *   factor  := number | name | "?" number | fn "(" sum "," sum ")" | "(" sum ")" | "-" factor
 *   fn      := "div" | "ceil_div" | "max" | "min" */
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "base/size.h"
#include "op/symtab_impl.h"

#define MAX_DEPTH 32

/* ---- printing ---- */

struct out {
    char *at;
    size_t cap, len;
};

static void put(struct out *o, const char *text)
{
    while (*text && o->len + 1 < o->cap)
        o->at[o->len++] = *text++;
}

static void put_number(struct out *o, int64_t v)
{
    char text[24];

    snprintf(text, sizeof(text), "%lld", (long long)v);
    put(o, text);
}

static void put_dim(struct out *o, const struct ew_symtab *t, int64_t dim, int depth);

static void put_poly(struct out *o, const struct ew_symtab *t, const struct ew_sym_entry *e,
                     int depth)
{
    for (int i = 0; i < e->n_terms; i++) {
        const struct ew_sym_term *m = &e->terms[i];
        int64_t coef = m->coef;
        if (i) {
            put(o, coef < 0 ? " - " : " + ");
            coef = coef < 0 ? -coef : coef;
        }
        if (coef == -1 && m->n_atoms)
            put(o, "-");
        else if (coef != 1 || !m->n_atoms)
            put_number(o, coef);
        for (int k = 0; k < m->n_atoms; k++) {
            if (k || (coef != 1 && coef != -1))
                put(o, "*");
            put_dim(o, t, m->atoms[k], depth + 1);
        }
    }
}

static void put_dim(struct out *o, const struct ew_symtab *t, int64_t dim, int depth)
{
    static const char *const fn[] = { [EW_SYM_DIV] = "div(",
                                      [EW_SYM_DIV_CEIL] = "ceil_div(",
                                      [EW_SYM_MAX] = "max(",
                                      [EW_SYM_MIN] = "min(" };
    const struct ew_sym_entry *e;

    if (dim == EW_DIM_BAD || depth > MAX_DEPTH) {
        put(o, "!");
        return;
    }
    if (!ew_dim_is_symbol(dim)) {
        put_number(o, dim);
        return;
    }
    e = ew_sym_entry_get(t, dim);
    if (!e) {
        put(o, "?");
        return;
    }
    switch (e->kind) {
    case EW_SYM_NAME:
        put(o, e->name);
        break;
    case EW_SYM_UNKNOWN:
        put(o, "?");
        put_number(o, e->number);
        break;
    case EW_SYM_POLY:
        put_poly(o, t, e, depth);
        break;
    default:
        put(o, fn[e->kind]);
        put_dim(o, t, e->a, depth + 1);
        put(o, ", ");
        put_dim(o, t, e->b, depth + 1);
        put(o, ")");
        break;
    }
}

void ew_dim_text(const struct ew_symtab *t, int64_t dim, char *out, size_t cap)
{
    struct out o = { out, cap, 0 };

    if (!cap)
        return;
    put_dim(&o, t, dim, 0);
    out[o.len] = '\0';
}

/* ---- parsing ---- */

struct in {
    struct ew_symtab *t;
    const char *at;
    int depth;
};

static void skip(struct in *p)
{
    while (*p->at == ' ' || *p->at == '\t')
        p->at++;
}

static bool take(struct in *p, char c)
{
    skip(p);
    if (*p->at != c)
        return false;
    p->at++;
    return true;
}

static int64_t parse_sum(struct in *p);

static int64_t parse_number(struct in *p)
{
    int64_t v = 0;

    if (!isdigit((unsigned char)*p->at))
        return EW_DIM_BAD;
    for (; isdigit((unsigned char)*p->at); p->at++)
        if (!ew_i64_mul(v, 10, &v) || !ew_i64_add(v, *p->at - '0', &v))
            return EW_DIM_BAD;
    return v;
}

static int64_t parse_call(struct in *p, const char *name)
{
    static const struct {
        const char *name;
        int64_t (*fn)(struct ew_symtab *t, int64_t a, int64_t b);
    } fns[] = { { "div", ew_dim_div },
                { "ceil_div", ew_dim_div_ceil },
                { "max", ew_dim_max },
                { "min", ew_dim_min } };
    const int64_t a = parse_sum(p);
    int64_t b;

    if (a == EW_DIM_BAD || !take(p, ','))
        return EW_DIM_BAD;
    b = parse_sum(p);
    if (b == EW_DIM_BAD || !take(p, ')'))
        return EW_DIM_BAD;
    for (size_t i = 0; i < EW_COUNT(fns); i++)
        if (strcmp(fns[i].name, name) == 0)
            return fns[i].fn(p->t, a, b);
    return EW_DIM_BAD;
}

static int64_t parse_name(struct in *p)
{
    char name[EW_SYM_NAME_CAP];
    size_t n = 0;

    for (; isalnum((unsigned char)*p->at) || *p->at == '_' || *p->at == '.'; p->at++) {
        if (n + 1 == sizeof(name))
            return EW_DIM_BAD;
        name[n++] = *p->at;
    }
    name[n] = '\0';
    return take(p, '(') ? parse_call(p, name) : ew_dim_symbol(p->t, name);
}

static int64_t parse_factor(struct in *p)
{
    int64_t v = EW_DIM_BAD;

    skip(p);
    if (++p->depth > MAX_DEPTH)
        return EW_DIM_BAD;
    if (isdigit((unsigned char)*p->at)) {
        v = parse_number(p);
    } else if (isalpha((unsigned char)*p->at) || *p->at == '_') {
        v = parse_name(p);
    } else if (take(p, '?')) {
        v = parse_number(p);
        v = v == EW_DIM_BAD ? v : ew_sym_unknown_numbered(p->t, v);
    } else if (take(p, '-')) {
        v = parse_factor(p);
        v = v == EW_DIM_BAD ? v : ew_dim_sub(p->t, 0, v);
    } else if (take(p, '(')) {
        v = parse_sum(p);
        v = take(p, ')') ? v : EW_DIM_BAD;
    }
    p->depth--;
    return v;
}

static int64_t parse_term(struct in *p)
{
    int64_t v = parse_factor(p);

    while (v != EW_DIM_BAD && take(p, '*')) {
        const int64_t b = parse_factor(p);
        v = b == EW_DIM_BAD ? b : ew_dim_mul(p->t, v, b);
    }
    return v;
}

static int64_t parse_sum(struct in *p)
{
    int64_t v = parse_term(p);

    while (v != EW_DIM_BAD) {
        const bool minus = take(p, '-');
        int64_t b;
        if (!minus && !take(p, '+'))
            break;
        b = parse_term(p);
        if (b == EW_DIM_BAD)
            return b;
        v = minus ? ew_dim_sub(p->t, v, b) : ew_dim_add(p->t, v, b);
    }
    return v;
}

int64_t ew_dim_parse(struct ew_symtab *t, const char *text)
{
    struct in p = { t, text, 0 };
    const int64_t v = parse_sum(&p);

    skip(&p);
    return *p.at ? EW_DIM_BAD : v;
}
