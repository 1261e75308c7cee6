/* op/infer_nn_einsum.c - the subscripts of Einsum: letters, ellipses, and the implicit output. */
#include <string.h>

#include "op/infer_dtypes.h"
#include "op/infer_nn.h"

#define N_LETTERS 52

/* -1: not a letter. In the order of the alphabet, upper case first, as the implicit output. */
static int letter_of(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    return c >= 'a' && c <= 'z' ? c - 'a' + 26 : -1;
}

/* The text of term i, without blanks left out yet; its end is at ',' or '-' or 0. */
static const char *term_text(const char *s, int i)
{
    for (; i > 0 && *s; s++)
        if (*s == ',')
            i--;
    return s;
}

static bool is_end(char c)
{
    return c == ',' || c == '-' || c == 0;
}

/* Letters before and after the ellipsis; *dots is whether there is one. */
static ew_status term_scan(const char *s, int *n_letters, bool *dots, ew_error *err)
{
    *n_letters = 0;
    *dots = false;
    for (; !is_end(*s); s++) {
        if (*s == ' ')
            continue;
        if (*s == '.') {
            if (*dots || s[1] != '.' || s[2] != '.')
                return ew_fail(err, EW_STATUS_MALFORMED, "an ellipsis is three dots, once a term");
            *dots = true;
            s += 2;
        } else if (letter_of(*s) < 0) {
            return ew_fail(err, EW_STATUS_MALFORMED, "character 0x%02x stands in the equation",
                           (unsigned)(unsigned char)*s);
        } else {
            ++*n_letters;
        }
    }
    return EW_STATUS_OK;
}

/* Labels of a scanned term; the ellipsis takes n_dots dims, the last ones of the longest. */
static int term_labels(const char *s, int n_ellipsis, int n_dots, int *label, int cap)
{
    int n = 0;

    for (; !is_end(*s); s++) {
        if (*s == ' ')
            continue;
        if (*s != '.') {
            if (n < cap)
                label[n] = letter_of(*s);
            n++;
            continue;
        }
        s += 2;
        for (int d = 0; d < n_dots; d++, n++)
            if (n < cap)
                label[n] = N_LETTERS + n_ellipsis - n_dots + d;
    }
    return n;
}

void ew_einsum_term(const struct ew_einsum *e, const char *equation, int i,
                    const struct ew_type *type, struct ew_einsum_term *term)
{
    const char *const s = term_text(equation, i);
    bool dots;
    int n;

    (void)term_scan(s, &n, &dots, NULL);
    term->n = term_labels(s, e->n_ellipsis, dots ? type->n_dims - n : 0, term->label, EW_MAX_DIMS);
}

static ew_status merge_size(struct ew_symtab *syms, int64_t *size, int64_t dim, int label,
                            ew_error *err)
{
    if (*size == EW_DIM_BAD || *size == dim || *size == 1) {
        *size = dim;
        return EW_STATUS_OK;
    }
    if (dim == 1)
        return EW_STATUS_OK;
    if (*size >= 0 && dim >= 0)
        return ew_fail(err, EW_STATUS_MISMATCH, "label %d is %lld and %lld", label,
                       (long long)*size, (long long)dim);
    if (*size < 0 && dim >= 0)
        *size = dim;
    else if (*size < 0)
        *size = ew_dim_max(syms, *size, dim);
    return *size == EW_DIM_BAD
               ? ew_fail(err, EW_STATUS_LIMIT, "label %d cannot be expressed", label)
               : EW_STATUS_OK;
}

static ew_status parse_operands(const char *equation, int n_operands,
                                const struct ew_type *const *types, struct ew_symtab *syms,
                                struct ew_einsum *e, ew_error *err)
{
    for (int i = 0; i < n_operands; i++) {
        const int rank = types[i]->n_dims;
        bool dots;
        int n;

        EW_TRY(term_scan(term_text(equation, i), &n, &dots, err));
        if (dots ? rank < n : rank != n)
            return ew_fail(err, EW_STATUS_MISMATCH, "term %d has %d letters, operand has rank %d",
                           i, n, rank);
        if (dots && rank - n > e->n_ellipsis)
            e->n_ellipsis = rank - n;
    }
    for (int i = 0; i < n_operands; i++) {
        struct ew_einsum_term t;

        ew_einsum_term(e, equation, i, types[i], &t);
        for (int d = 0; d < t.n; d++)
            EW_TRY(merge_size(syms, &e->size[t.label[d]], types[i]->dim[d], t.label[d], err));
    }
    return EW_STATUS_OK;
}

static ew_status check_output(struct ew_einsum *e, ew_error *err)
{
    bool seen[EW_EINSUM_LABELS] = { false };

    if (e->n_out > EW_MAX_DIMS)
        return ew_fail(err, EW_STATUS_LIMIT, "the output has %d dims, at most %d are possible",
                       e->n_out, EW_MAX_DIMS);
    for (int d = 0; d < e->n_out; d++) {
        const int l = e->out[d];

        if (seen[l] || e->size[l] == EW_DIM_BAD)
            return ew_fail(err, EW_STATUS_MALFORMED, "output dim %d %s", d,
                           seen[l] ? "repeats a letter" : "is a letter of no operand");
        seen[l] = true;
        e->used[e->n_used++] = l;
    }
    for (int l = 0; l < EW_EINSUM_LABELS; l++)
        if (!seen[l] && e->size[l] != EW_DIM_BAD)
            e->used[e->n_used++] = l;
    return EW_STATUS_OK;
}

/* Without "->": the ellipsis, then every letter that stands once, in order. */
static void implicit_output(const char *equation, struct ew_einsum *e)
{
    int count[N_LETTERS] = { 0 };

    for (int d = 0; d < e->n_ellipsis && e->n_out < EW_MAX_DIMS; d++)
        e->out[e->n_out++] = N_LETTERS + d;
    for (const char *s = equation; *s; s++)
        if (letter_of(*s) >= 0)
            count[letter_of(*s)]++;
    for (int l = 0; l < N_LETTERS; l++) {
        if (count[l] != 1)
            continue;
        if (e->n_out < EW_MAX_DIMS)
            e->out[e->n_out] = l;
        e->n_out++;
    }
}

ew_status ew_einsum_parse(const char *equation, int n_operands, const struct ew_type *const *types,
                          struct ew_symtab *syms, struct ew_einsum *e, ew_error *err)
{
    const char *arrow = strchr(equation, '-');
    int commas = 0;

    memset(e, 0, sizeof(*e));
    e->n_operands = n_operands;
    for (int l = 0; l < EW_EINSUM_LABELS; l++)
        e->size[l] = EW_DIM_BAD;
    for (const char *s = equation; *s && s != arrow; s++)
        commas += *s == ',';
    if (commas + 1 != n_operands)
        return ew_fail(err, EW_STATUS_MISMATCH, "the equation has %d terms for %d inputs",
                       commas + 1, n_operands);
    if (arrow && (arrow[1] != '>' || strpbrk(arrow + 2, "-,")))
        return ew_fail(err, EW_STATUS_MALFORMED, "the equation '%s' has no single output",
                       equation);
    EW_TRY(parse_operands(equation, n_operands, types, syms, e, err));
    if (arrow) {
        bool dots;
        int n;

        EW_TRY(term_scan(arrow + 2, &n, &dots, err));
        e->n_out =
            term_labels(arrow + 2, e->n_ellipsis, dots ? e->n_ellipsis : 0, e->out, EW_MAX_DIMS);
    } else {
        implicit_output(equation, e);
    }
    return check_output(e, err);
}

ew_status ew_infer_einsum(struct ew_infer *f)
{
    const struct ew_type *types[EW_VARIADIC];
    struct ew_einsum e;

    EW_TRY(ew_infer_dtype_in(f, 0, EW_SET_NUMBERS));
    for (int i = 0; i < f->n_in; i++) {
        EW_TRY(ew_infer_same_dtype(f, 0, i));
        types[i] = f->in[i].type;
    }
    if (!memchr(f->attrs->einsum.equation, 0, EW_EINSUM_CAP))
        return ew_fail(f->err, EW_STATUS_LIMIT, "the equation has more than %d characters",
                       EW_EINSUM_CAP - 1);
    EW_TRY(ew_einsum_parse(f->attrs->einsum.equation, f->n_in, types, f->syms, &e, f->err));
    f->out[0].dtype = f->in[0].type->dtype;
    f->out[0].n_dims = e.n_out;
    for (int d = 0; d < e.n_out; d++)
        f->out[0].dim[d] = e.size[e.out[d]];
    return EW_STATUS_OK;
}
