/* op/symtab.c - symbolic dims as polynomials over atoms, interned.
 *
 * An entry is an atom (symbol, unknown, floor/ceil division, max, min) or a polynomial: a sum of
 * terms coef * atom * atom..., sorted by their atoms, the constant last. A polynomial that is one
 * atom or a number is stored as that. Text is read in symtab_text.c. */
#include "op/symtab.h"

#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "base/hash.h"
#include "base/size.h"
#include "op/symtab_impl.h"

#define MAX_ENTRIES (1u << 20)

struct ew_symtab *ew_symtab_create(void)
{
    struct ew_symtab *t = ew_mem_calloc(EW_MEM_GRAPH, 1, sizeof(*t));

    if (!t)
        return NULL;
    ew_arena_init(&t->arena, EW_MEM_GRAPH, 0);
    ew_map_init(&t->index, EW_MEM_GRAPH);
    return t;
}

void ew_symtab_destroy(struct ew_symtab *t)
{
    if (!t)
        return;
    ew_map_deinit(&t->index);
    ew_arena_deinit(&t->arena);
    ew_mem_free(t->entries);
    ew_mem_free(t->symbols);
    ew_mem_free(t);
}

const struct ew_sym_entry *ew_sym_entry_get(const struct ew_symtab *t, int64_t dim)
{
    if (!t || !ew_dim_is_symbol(dim) || (uint64_t)(EW_DIM_FIRST_SYMBOL - dim) >= t->n_entries)
        return NULL;
    return &t->entries[EW_DIM_FIRST_SYMBOL - dim];
}

/* ---- interning ---- */

/* The entry of this key, or a new one holding `e`. */
static int64_t intern(struct ew_symtab *t, const char *key, size_t key_len,
                      const struct ew_sym_entry *e)
{
    uint32_t i;
    char *own;

    if (ew_map_find(&t->index, key, key_len, &i))
        return EW_DIM_FIRST_SYMBOL - (int64_t)i;
    if (t->n_entries >= MAX_ENTRIES)
        return EW_DIM_BAD;
    if (t->n_entries == t->cap_entries) {
        const size_t cap = t->cap_entries ? t->cap_entries * 2 : 64;
        struct ew_sym_entry *p = ew_mem_resize(EW_MEM_GRAPH, t->entries, cap, sizeof(*p));
        if (!p)
            return EW_DIM_BAD;
        t->entries = p;
        t->cap_entries = cap;
    }
    own = ew_arena_strndup(&t->arena, key, key_len);
    if (!own || !ew_map_put(&t->index, own, key_len, (uint32_t)t->n_entries))
        return EW_DIM_BAD;
    t->entries[t->n_entries] = *e;
    t->n_entries++;
    return EW_DIM_FIRST_SYMBOL - (int64_t)(t->n_entries - 1);
}

int64_t ew_dim_symbol(struct ew_symtab *t, const char *name)
{
    char key[EW_SYM_NAME_CAP + 2];
    const size_t len = strlen(name);
    const char **symbols;
    uint32_t i;
    struct ew_sym_entry e = { .kind = EW_SYM_NAME };
    int64_t d;

    if (!t || !len || len >= EW_SYM_NAME_CAP)
        return EW_DIM_BAD;
    key[0] = 'N';
    for (size_t k = 0; k < len; k++) {
        const char c = name[k];
        const bool is_alpha = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
        const bool is_fine = is_alpha || (k && ((c >= '0' && c <= '9') || c == '.'));
        key[k + 1] = is_fine ? c : '_';
    }
    key[len + 1] = '\0';
    if (ew_map_find(&t->index, key, len + 1, &i))
        return EW_DIM_FIRST_SYMBOL - (int64_t)i;
    symbols = ew_mem_resize(EW_MEM_GRAPH, t->symbols, t->n_symbols + 1, sizeof(*symbols));
    if (!symbols)
        return EW_DIM_BAD;
    t->symbols = symbols;
    e.name = ew_arena_strdup(&t->arena, key + 1);
    e.number = (int64_t)t->n_symbols;
    if (!e.name)
        return EW_DIM_BAD;
    d = intern(t, key, len + 1, &e);
    if (d != EW_DIM_BAD)
        t->symbols[t->n_symbols++] = e.name;
    return d;
}

int64_t ew_sym_unknown_numbered(struct ew_symtab *t, int64_t number)
{
    char key[1 + sizeof(number)];
    const struct ew_sym_entry e = { .kind = EW_SYM_UNKNOWN, .number = number };

    if (!t || number < 0 || number > MAX_ENTRIES)
        return EW_DIM_BAD;
    key[0] = '?';
    memcpy(key + 1, &number, sizeof(number));
    if (number >= t->next_unknown)
        t->next_unknown = number + 1;
    return intern(t, key, sizeof(key), &e);
}

int64_t ew_dim_unknown(struct ew_symtab *t)
{
    return t ? ew_sym_unknown_numbered(t, t->next_unknown) : EW_DIM_BAD;
}

/* ---- polynomials ---- */

static int order_i64(int64_t a, int64_t b)
{
    return (a > b) - (a < b);
}

static int dim_compare(const struct ew_symtab *t, int64_t a, int64_t b);

/* An order of terms that depends on what they are, not on when they were made: text can be read
 * back and gives the same text. Symbols by creation, then unknowns, then the rest; the constant
 * last. */
static int term_compare(const struct ew_symtab *t, const struct ew_sym_term *a,
                        const struct ew_sym_term *b)
{
    const int64_t n = a->n_atoms < b->n_atoms ? a->n_atoms : b->n_atoms;

    for (int64_t i = 0; i < n; i++)
        if (a->atoms[i] != b->atoms[i])
            return dim_compare(t, a->atoms[i], b->atoms[i]);
    return order_i64(b->n_atoms, a->n_atoms);
}

static int dim_compare(const struct ew_symtab *t, int64_t a, int64_t b)
{
    const struct ew_sym_entry *x = ew_sym_entry_get(t, a), *y = ew_sym_entry_get(t, b);
    int order;

    if (a == b)
        return 0;
    if (!x || !y)
        return x ? 1 : y ? -1 : order_i64(a, b);
    if (x->kind != y->kind)
        return order_i64(x->kind, y->kind);
    if (x->kind == EW_SYM_NAME || x->kind == EW_SYM_UNKNOWN)
        return order_i64(x->number, y->number);
    if (x->kind != EW_SYM_POLY) {
        order = dim_compare(t, x->a, y->a);
        return order ? order : dim_compare(t, x->b, y->b);
    }
    for (int i = 0; i < x->n_terms && i < y->n_terms; i++) {
        order = term_compare(t, &x->terms[i], &y->terms[i]);
        if (!order)
            order = order_i64(x->terms[i].coef, y->terms[i].coef);
        if (order)
            return order;
    }
    return order_i64(x->n_terms, y->n_terms);
}

/* Adds coef * atoms into p, keeping the order. False: overflow or too many terms. */
static bool poly_add_term(const struct ew_symtab *t, struct ew_sym_poly *p,
                          const struct ew_sym_term *term, int64_t factor)
{
    struct ew_sym_term add = *term;
    int i = 0;

    if (!ew_i64_mul(term->coef, factor, &add.coef))
        return false;
    if (!add.coef)
        return true;
    while (i < p->n && term_compare(t, &p->term[i], &add) < 0)
        i++;
    if (i < p->n && term_compare(t, &p->term[i], &add) == 0) {
        if (!ew_i64_add(p->term[i].coef, add.coef, &p->term[i].coef))
            return false;
        if (!p->term[i].coef) {
            memmove(&p->term[i], &p->term[i + 1], (size_t)(p->n - i - 1) * sizeof(p->term[0]));
            p->n--;
        }
        return true;
    }
    if (p->n == EW_SYM_MAX_TERMS)
        return false;
    memmove(&p->term[i + 1], &p->term[i], (size_t)(p->n - i) * sizeof(p->term[0]));
    p->term[i] = add;
    p->n++;
    return true;
}

static bool poly_load(const struct ew_symtab *t, int64_t dim, struct ew_sym_poly *p)
{
    const struct ew_sym_entry *e;

    p->n = 0;
    if (dim == EW_DIM_BAD)
        return false;
    if (!ew_dim_is_symbol(dim)) {
        p->term[0] = (struct ew_sym_term){ .coef = dim };
        p->n = dim ? 1 : 0;
        return true;
    }
    e = ew_sym_entry_get(t, dim);
    if (!e)
        return false;
    if (e->kind == EW_SYM_POLY) {
        memcpy(p->term, e->terms, (size_t)e->n_terms * sizeof(p->term[0]));
        p->n = e->n_terms;
        return true;
    }
    p->term[0] = (struct ew_sym_term){ .coef = 1, .n_atoms = 1, .atoms = { dim } };
    p->n = 1;
    return true;
}

static int depth_of(const struct ew_symtab *t, int64_t dim)
{
    const struct ew_sym_entry *e = ew_sym_entry_get(t, dim);

    return e ? e->depth : 0;
}

static int64_t poly_store(struct ew_symtab *t, const struct ew_sym_poly *p)
{
    char key[1 + sizeof(p->term)];
    struct ew_sym_entry e = { .kind = EW_SYM_POLY, .n_terms = p->n };
    size_t len = 0;
    struct ew_sym_term *terms;
    uint32_t i;

    if (!p->n)
        return 0;
    if (p->n == 1 && !p->term[0].n_atoms)
        return p->term[0].coef > EW_DIM_FIRST_SYMBOL ? p->term[0].coef : EW_DIM_BAD;
    if (!t)
        return EW_DIM_BAD;
    if (p->n == 1 && p->term[0].n_atoms == 1 && p->term[0].coef == 1)
        return p->term[0].atoms[0];
    key[len++] = 'P';
    for (int k = 0; k < p->n; k++) {
        memcpy(key + len, &p->term[k], sizeof(p->term[k]));
        len += sizeof(p->term[k]);
    }
    if (ew_map_find(&t->index, key, len, &i))
        return EW_DIM_FIRST_SYMBOL - (int64_t)i;
    terms = ew_arena_new(&t->arena, struct ew_sym_term, (size_t)p->n);
    if (!terms)
        return EW_DIM_BAD;
    memcpy(terms, p->term, (size_t)p->n * sizeof(*terms));
    for (int k = 0; k < p->n; k++) {
        for (int64_t j = 0; j < p->term[k].n_atoms; j++) {
            const int depth = depth_of(t, p->term[k].atoms[j]);
            e.depth = depth > e.depth ? depth : e.depth;
        }
    }
    e.terms = terms;
    return intern(t, key, len, &e);
}

/* a + factor * b */
static int64_t combine(struct ew_symtab *t, int64_t a, int64_t b, int64_t factor)
{
    struct ew_sym_poly p, q;

    if (!poly_load(t, a, &p) || !poly_load(t, b, &q))
        return EW_DIM_BAD;
    for (int i = 0; i < q.n; i++)
        if (!poly_add_term(t, &p, &q.term[i], factor))
            return EW_DIM_BAD;
    return poly_store(t, &p);
}

int64_t ew_dim_add(struct ew_symtab *t, int64_t a, int64_t b)
{
    return combine(t, a, b, 1);
}

int64_t ew_dim_sub(struct ew_symtab *t, int64_t a, int64_t b)
{
    return combine(t, a, b, -1);
}

static bool term_mul(const struct ew_symtab *t, const struct ew_sym_term *a,
                     const struct ew_sym_term *b, struct ew_sym_term *out)
{
    int ia = 0, ib = 0;

    memset(out, 0, sizeof(*out));
    if (a->n_atoms + b->n_atoms > EW_SYM_MAX_ATOMS || !ew_i64_mul(a->coef, b->coef, &out->coef))
        return false;
    while (ia < a->n_atoms || ib < b->n_atoms) {
        const bool from_a = ib == b->n_atoms ||
                            (ia < a->n_atoms && dim_compare(t, a->atoms[ia], b->atoms[ib]) <= 0);
        out->atoms[out->n_atoms++] = from_a ? a->atoms[ia++] : b->atoms[ib++];
    }
    return true;
}

int64_t ew_dim_mul(struct ew_symtab *t, int64_t a, int64_t b)
{
    struct ew_sym_poly p, q, r;

    if (!poly_load(t, a, &p) || !poly_load(t, b, &q))
        return EW_DIM_BAD;
    r.n = 0;
    for (int i = 0; i < p.n; i++) {
        for (int k = 0; k < q.n; k++) {
            struct ew_sym_term m;
            if (!term_mul(t, &p.term[i], &q.term[k], &m) || !poly_add_term(t, &r, &m, 1))
                return EW_DIM_BAD;
        }
    }
    return poly_store(t, &r);
}

/* ---- division, max, min ---- */

/* a / b exactly; false when it does not divide. */
static bool term_div(const struct ew_sym_term *a, const struct ew_sym_term *b,
                     struct ew_sym_term *out)
{
    int ib = 0;

    memset(out, 0, sizeof(*out));
    if (a->coef % b->coef)
        return false;
    out->coef = a->coef / b->coef;
    for (int i = 0; i < a->n_atoms; i++) {
        if (ib < b->n_atoms && a->atoms[i] == b->atoms[ib])
            ib++;
        else
            out->atoms[out->n_atoms++] = a->atoms[i];
    }
    return ib == b->n_atoms;
}

/* Sum a over one term of b, or a == c*b. */
static int64_t div_exact(struct ew_symtab *t, const struct ew_sym_poly *a,
                         const struct ew_sym_poly *b)
{
    struct ew_sym_poly r = { .n = 0 };

    if (b->n == 1) {
        for (int i = 0; i < a->n; i++) {
            struct ew_sym_term q;
            if (!term_div(&a->term[i], &b->term[0], &q) || !poly_add_term(t, &r, &q, 1))
                return EW_DIM_BAD;
        }
        return poly_store(t, &r);
    }
    if (a->n != b->n)
        return EW_DIM_BAD;
    for (int i = 0; i < a->n; i++) {
        struct ew_sym_term q;
        if (!term_div(&a->term[i], &b->term[i], &q))
            return EW_DIM_BAD;
        if (i == 0) {
            r.term[0] = q;
            r.n = 1;
        } else if (term_compare(t, &q, &r.term[0]) != 0 || q.coef != r.term[0].coef) {
            return EW_DIM_BAD;
        }
    }
    return poly_store(t, &r);
}

static int64_t binary_atom(struct ew_symtab *t, enum ew_sym_kind kind, int64_t a, int64_t b)
{
    char key[1 + 2 * sizeof(int64_t)];
    const int da = depth_of(t, a), db = depth_of(t, b);
    const struct ew_sym_entry e = {
        .kind = kind, .depth = (da > db ? da : db) + 1, .a = a, .b = b
    };

    if (!t)
        return EW_DIM_BAD;
    if (e.depth > EW_SYM_MAX_DEPTH)
        return ew_dim_unknown(t); /* right, if less exact */
    key[0] = (char)kind;
    memcpy(key + 1, &a, sizeof(a));
    memcpy(key + 1 + sizeof(a), &b, sizeof(b));
    return intern(t, key, sizeof(key), &e);
}

static int64_t floor_div(int64_t a, int64_t b)
{
    const int64_t q = a / b;

    return a % b && ((a < 0) != (b < 0)) ? q - 1 : q;
}

static int64_t divide(struct ew_symtab *t, int64_t a, int64_t b, bool ceil)
{
    struct ew_sym_poly p, q;
    int64_t exact;

    if (a == EW_DIM_BAD || b == EW_DIM_BAD || b == 0)
        return EW_DIM_BAD;
    if (!ew_dim_is_symbol(a) && !ew_dim_is_symbol(b))
        return floor_div(a, b) + (ceil && a % b ? 1 : 0);
    if (!poly_load(t, a, &p) || !poly_load(t, b, &q))
        return EW_DIM_BAD;
    for (int i = 0; i < q.n; i++)
        if (q.term[i].coef == -1 || q.term[i].coef == 0)
            return EW_DIM_BAD; /* sizes are not divided by negatives */
    exact = div_exact(t, &p, &q);
    if (exact != EW_DIM_BAD)
        return exact;
    return binary_atom(t, ceil ? EW_SYM_DIV_CEIL : EW_SYM_DIV, a, b);
}

int64_t ew_dim_div(struct ew_symtab *t, int64_t a, int64_t b)
{
    return divide(t, a, b, false);
}

int64_t ew_dim_div_ceil(struct ew_symtab *t, int64_t a, int64_t b)
{
    return divide(t, a, b, true);
}

/* Whether a term cannot be negative: dims that callers give are sizes. */
static bool term_is_size(const struct ew_symtab *t, const struct ew_sym_term *m)
{
    for (int i = 0; i < m->n_atoms; i++) {
        const struct ew_sym_entry *e = ew_sym_entry_get(t, m->atoms[i]);
        if (!e || (e->kind != EW_SYM_NAME && e->kind != EW_SYM_UNKNOWN))
            return false;
    }
    return true;
}

/* 1: a >= b surely, -1: a <= b surely, 0: not known, 2: error. */
static int compare(struct ew_symtab *t, int64_t a, int64_t b)
{
    struct ew_sym_poly p, q;
    bool all_up = true, all_down = true;

    if (!poly_load(t, a, &p) || !poly_load(t, b, &q))
        return 2;
    for (int i = 0; i < q.n; i++)
        if (!poly_add_term(t, &p, &q.term[i], -1))
            return 2;
    for (int i = 0; i < p.n; i++) {
        const bool is_size = term_is_size(t, &p.term[i]);
        all_up = all_up && is_size && p.term[i].coef > 0;
        all_down = all_down && is_size && p.term[i].coef < 0;
    }
    return all_up ? 1 : all_down ? -1 : 0;
}

static int64_t extreme(struct ew_symtab *t, int64_t a, int64_t b, bool largest)
{
    const int order = compare(t, a, b);
    bool swap;

    if (order == 2)
        return EW_DIM_BAD;
    if (order)
        return (order > 0) == largest ? a : b;
    swap = dim_compare(t, a, b) > 0;
    return binary_atom(t, largest ? EW_SYM_MAX : EW_SYM_MIN, swap ? b : a, swap ? a : b);
}

int64_t ew_dim_max(struct ew_symtab *t, int64_t a, int64_t b)
{
    return extreme(t, a, b, true);
}

int64_t ew_dim_min(struct ew_symtab *t, int64_t a, int64_t b)
{
    return extreme(t, a, b, false);
}

/* ---- evaluation ---- */

#define EVAL_DEPTH 64

static int64_t eval(const struct ew_symtab *t, int64_t dim, const int64_t *values, size_t n,
                    int depth);

static bool eval_poly(const struct ew_symtab *t, const struct ew_sym_entry *e,
                      const int64_t *values, size_t n, int depth, int64_t *out)
{
    int64_t sum = 0;

    for (int i = 0; i < e->n_terms; i++) {
        int64_t product = e->terms[i].coef;
        for (int k = 0; k < e->terms[i].n_atoms; k++) {
            const int64_t v = eval(t, e->terms[i].atoms[k], values, n, depth);
            if (v == EW_DIM_BAD || !ew_i64_mul(product, v, &product))
                return false;
        }
        if (!ew_i64_add(sum, product, &sum))
            return false;
    }
    *out = sum;
    return true;
}

static int64_t eval(const struct ew_symtab *t, int64_t dim, const int64_t *values, size_t n,
                    int depth)
{
    const struct ew_sym_entry *e;
    int64_t a, b, r;

    if (!ew_dim_is_symbol(dim))
        return dim;
    e = ew_sym_entry_get(t, dim);
    if (!e || depth >= EVAL_DEPTH || e->kind == EW_SYM_UNKNOWN)
        return EW_DIM_BAD;
    if (e->kind == EW_SYM_NAME) {
        const size_t i = (size_t)e->number;
        return i < n && values[i] >= 0 ? values[i] : EW_DIM_BAD;
    }
    if (e->kind == EW_SYM_POLY)
        return eval_poly(t, e, values, n, depth + 1, &r) ? r : EW_DIM_BAD;
    a = eval(t, e->a, values, n, depth + 1);
    b = eval(t, e->b, values, n, depth + 1);
    if (a == EW_DIM_BAD || b == EW_DIM_BAD)
        return EW_DIM_BAD;
    switch (e->kind) {
    case EW_SYM_MAX:
        return a > b ? a : b;
    case EW_SYM_MIN:
        return a < b ? a : b;
    case EW_SYM_DIV:
        return b > 0 ? floor_div(a, b) : EW_DIM_BAD;
    default:
        return b > 0 ? floor_div(a, b) + (a % b ? 1 : 0) : EW_DIM_BAD;
    }
}

int64_t ew_dim_eval(const struct ew_symtab *t, int64_t dim, const int64_t *values, size_t n_values)
{
    const int64_t v = eval(t, dim, values, n_values, 0);

    return v < 0 ? EW_DIM_BAD : v;
}

size_t ew_symtab_n_symbols(const struct ew_symtab *t)
{
    return t ? t->n_symbols : 0;
}

const char *ew_symtab_symbol_name(const struct ew_symtab *t, size_t i)
{
    return t && i < t->n_symbols ? t->symbols[i] : NULL;
}
