/* kernels/ref/gen_nn_einsum.c - Einsum by its definition: for every output element the sum, over
 * all values of the labels that are left, of the product of the operands. */
#include <string.h>

#include "base/size.h"
#include "kernels/ref/gen_nn.h"
#include "op/infer_nn.h"

struct einsum {
    struct ew_einsum e;
    int n;         /* operands */
    bool is_float; /* doubles; otherwise u64 */
    union {
        double *f;
        uint64_t *u;
    } data[EW_VARIADIC];
    ptrdiff_t *stride; /* [operand][used label] */
    ptrdiff_t *at;     /* [operand]: element of this output and these labels */
};

/* The operands as doubles or 64-bit integers, their strides, and where each one stands. */
size_t ew_gen_einsum_scratch(const struct ew_type *const *in, int n_in)
{
    size_t bytes = (size_t)n_in * (EW_EINSUM_LABELS + 1) * sizeof(ptrdiff_t);

    for (int i = 0; i < n_in; i++) {
        size_t n;

        if (!ew_type_count(in[i], &n) || !ew_size_mul(n, sizeof(double), &n) ||
            !ew_size_add(bytes, n, &bytes))
            return SIZE_MAX;
    }
    return bytes;
}

static void load_operands(struct einsum *s, const struct ew_general_args *a)
{
    double *next = (double *)(s->at + s->n);

    for (int i = 0; i < s->n; i++) {
        const size_t n = ew_gen_count(&a->in[i]->type);

        ew_gen_load(next, s->is_float ? EW_GEN_F64 : EW_GEN_U64, a->in[i]->data,
                    a->in[i]->type.dtype, 0, 1, n);
        s->data[i].f = next;
        next += n;
    }
}

/* A label that stands twice in a term walks its diagonal: the strides add. */
static void set_strides(struct einsum *s, const struct ew_general_args *a)
{
    const char *const equation = a->attrs->einsum.equation;

    for (int i = 0; i < s->n; i++) {
        const struct ew_type *const t = &a->in[i]->type;
        ptrdiff_t own[EW_GEN_MAX_DIMS], *const stride = s->stride + (ptrdiff_t)i * s->e.n_used;
        struct ew_einsum_term term;

        memset(stride, 0, (size_t)s->e.n_used * sizeof(*stride));
        ew_gen_strides(t->n_dims, t->dim, own);
        ew_einsum_term(&s->e, equation, i, t, &term);
        for (int d = 0; d < term.n; d++)
            for (int u = 0; u < s->e.n_used; u++)
                if (s->e.used[u] == term.label[d] && t->dim[d] != 1)
                    stride[u] += own[d];
    }
}

/* Steps the labels [begin, end) like an odometer; false after the last. */
static bool step(struct einsum *s, int64_t *index, int begin, int end)
{
    for (int u = end - 1; u >= begin; u--) {
        const int64_t size = s->e.size[s->e.used[u]];
        const bool wraps = ++index[u] >= size;

        for (int i = 0; i < s->n; i++) {
            const ptrdiff_t by = s->stride[(ptrdiff_t)i * s->e.n_used + u];

            s->at[i] += wraps ? -by * (ptrdiff_t)(size - 1) : by;
        }
        if (!wraps)
            return true;
        index[u] = 0;
    }
    return false;
}

/* The sum along the last label, `n` values. */
#define RUN_SUM(name, T, member)                                                                   \
    static T name(const struct einsum *s, ptrdiff_t n, int last)                                   \
    {                                                                                              \
        const ptrdiff_t *const by = s->stride + last;                                              \
        const int width = s->e.n_used;                                                             \
        T sum = 0;                                                                                 \
                                                                                                   \
        for (ptrdiff_t j = 0; j < n; j++) {                                                        \
            T product = 1;                                                                         \
                                                                                                   \
            for (int i = 0; i < s->n; i++)                                                         \
                product *= s->data[i].member[s->at[i] + j * by[(ptrdiff_t)i * width]];             \
            sum += product;                                                                        \
        }                                                                                          \
        return sum;                                                                                \
    }

RUN_SUM(run_f64, double, f)
RUN_SUM(run_u64, uint64_t, u)

static void sum_labels(struct einsum *s, int64_t *index, struct ew_view *y, ptrdiff_t to)
{
    const int first = s->e.n_out, last = s->e.n_used - 1;
    const bool sums = last >= first;
    const ptrdiff_t n = sums ? (ptrdiff_t)s->e.size[s->e.used[last]] : 1;
    bool more = true;
    uint64_t u = 0;
    double f = 0;

    for (int l = first; l <= last; l++)
        more = more && s->e.size[s->e.used[l]] > 0;
    /* a run of one has no stride: any label will do, if there is one */
    for (; more; more = sums && step(s, index, first, last)) {
        if (s->is_float)
            f += run_f64(s, n, sums ? last : 0);
        else
            u += run_u64(s, n, sums ? last : 0);
    }
    if (s->is_float)
        ew_gen_store(y->data, y->type.dtype, to, 1, &f, EW_GEN_F64, 1);
    else
        ew_gen_store(y->data, y->type.dtype, to, 1, &u, EW_GEN_U64, 1);
}

ew_status ew_gen_einsum(const struct ew_general_args *a)
{
    const struct ew_type *types[EW_VARIADIC];
    int64_t index[EW_EINSUM_LABELS] = { 0 };
    struct einsum s = { .n = a->n_in, .is_float = ew_dtype_is_float(a->in[0]->type.dtype) };
    const ptrdiff_t n = (ptrdiff_t)ew_gen_count(&a->out[0]->type);

    for (int i = 0; i < a->n_in; i++)
        types[i] = &a->in[i]->type;
    EW_TRY(ew_einsum_parse(a->attrs->einsum.equation, a->n_in, types, NULL, &s.e, a->err));
    s.stride = a->scratch;
    s.at = s.stride + (ptrdiff_t)s.n * EW_EINSUM_LABELS;
    memset(s.at, 0, (size_t)s.n * sizeof(*s.at));
    load_operands(&s, a);
    set_strides(&s, a);
    for (ptrdiff_t to = 0; to < n; to++) {
        sum_labels(&s, index, a->out[0], to);
        (void)step(&s, index, 0, s.e.n_out);
    }
    return EW_STATUS_OK;
}
