/* kernels/ref/gen_binary.c - elementwise ops with broadcasting: arithmetic, comparisons, logic, the
 * variadic Max/Min/Sum/Mean. A table names the loop of each op and class; Where is in gen_where.c.
 */
#include <math.h>
#include <string.h>
#include <tgmath.h>

#include "kernels/ref/gen_common.h"

typedef void binary_fn(void *yv, const void *xv, const void *zv, size_t n);

#define BINARY_LOOP(fn, T, out_t, expr)                                                            \
    static void fn(void *yv, const void *xv, const void *zv, size_t n)                             \
    {                                                                                              \
        const T *const xs = xv;                                                                    \
        const T *const zs = zv;                                                                    \
        out_t *const ys = yv;                                                                      \
                                                                                                   \
        for (size_t i = 0; i < n; i++) {                                                           \
            const T x = xs[i];                                                                     \
            const T z = zs[i];                                                                     \
                                                                                                   \
            ys[i] = (out_t)(expr);                                                                 \
        }                                                                                          \
    }

#define BINARY_FLOAT(name, expr)                                                                   \
    BINARY_LOOP(name##_f32, float, float, expr)                                                    \
    BINARY_LOOP(name##_f64, double, double, expr)

#define BINARY_COMPARE(name, expr)                                                                 \
    BINARY_LOOP(name##_f32, float, uint8_t, expr)                                                  \
    BINARY_LOOP(name##_f64, double, uint8_t, expr)                                                 \
    BINARY_LOOP(name##_i64, int64_t, uint8_t, expr)                                                \
    BINARY_LOOP(name##_u64, uint64_t, uint8_t, expr)

static int64_t div_i64(int64_t x, int64_t z)
{
    if (z == 0)
        return 0;
    return z == -1 ? (int64_t)(0 - (uint64_t)x) : x / z;
}

/* Sign of the divisor, as Python has it; by 0 gives 0. */
static int64_t mod_floor_i64(int64_t x, int64_t z)
{
    int64_t r;

    if (z == 0 || z == -1)
        return 0;
    r = x % z;
    return r != 0 && (r < 0) != (z < 0) ? r + z : r;
}

/* Wraps. Negative powers of anything but 1 and -1 are 0. */
static uint64_t pow_i64(int64_t x, int64_t z)
{
    uint64_t base = (uint64_t)x, r = 1;

    if (z < 0)
        return x == 1 ? 1 : x == -1 ? ((z & 1) ? (uint64_t)-1 : 1) : 0;
    for (; z > 0; z >>= 1) {
        if (z & 1)
            r *= base;
        base *= base;
    }
    return r;
}

/* clang-format off */
BINARY_FLOAT(add, x + z)
BINARY_FLOAT(sub, x - z)
BINARY_FLOAT(mul, x * z)
BINARY_FLOAT(div, x / z)
BINARY_FLOAT(max, x > z || x != x ? x : z)
BINARY_FLOAT(min, x < z || x != x ? x : z)
BINARY_FLOAT(fmod, fmod(x, z))
BINARY_FLOAT(pow, z == 2 ? x * x : pow(x, z))
BINARY_FLOAT(prelu, x < 0 ? x * z : x)
BINARY_LOOP(add_u64, uint64_t, uint64_t, x + z)
BINARY_LOOP(sub_u64, uint64_t, uint64_t, x - z)
BINARY_LOOP(mul_u64, uint64_t, uint64_t, x * z)
BINARY_LOOP(quotient_i64, int64_t, int64_t, div_i64(x, z))
BINARY_LOOP(quotient_u64, uint64_t, uint64_t, z == 0 ? 0 : x / z)
BINARY_LOOP(max_i64, int64_t, int64_t, x > z ? x : z)
BINARY_LOOP(max_u64, uint64_t, uint64_t, x > z ? x : z)
BINARY_LOOP(min_i64, int64_t, int64_t, x < z ? x : z)
BINARY_LOOP(min_u64, uint64_t, uint64_t, x < z ? x : z)
BINARY_LOOP(mod_i64, int64_t, int64_t, mod_floor_i64(x, z))
BINARY_LOOP(mod_u64, uint64_t, uint64_t, z == 0 ? 0 : x % z)
BINARY_LOOP(fmod_i64, int64_t, int64_t, z == 0 || z == -1 ? 0 : x % z)
BINARY_LOOP(power_i64, int64_t, uint64_t, pow_i64(x, z))
BINARY_LOOP(prelu_i64, int64_t, uint64_t, x < 0 ? (uint64_t)x * (uint64_t)z : (uint64_t)x)
BINARY_LOOP(first_u64, uint64_t, uint64_t, ((void)z, x))
BINARY_LOOP(and_u64, uint64_t, uint64_t, x & z)
BINARY_LOOP(or_u64, uint64_t, uint64_t, x | z)
BINARY_LOOP(xor_u64, uint64_t, uint64_t, x ^ z)
BINARY_LOOP(both_u64, uint64_t, uint8_t, x && z)
BINARY_LOOP(either_u64, uint64_t, uint8_t, x || z)
BINARY_LOOP(differ_u64, uint64_t, uint8_t, !x != !z)
BINARY_LOOP(shl_u64, uint64_t, uint64_t, z < 64 ? x << z : 0)
BINARY_LOOP(shr_u64, uint64_t, uint64_t, z < 64 ? x >> z : 0)
BINARY_COMPARE(equal, x == z)
BINARY_COMPARE(greater, x > z)
BINARY_COMPARE(greater_or_equal, x >= z)
BINARY_COMPARE(less, x < z)
BINARY_COMPARE(less_or_equal, x <= z)
/* clang-format on */

struct binary_row {
    binary_fn *fn[EW_GEN_CLASSES];
    bool to_bool; /* y is u8 whatever the class */
};

/* clang-format off */
#define COMPARE(name) { { name##_f32, name##_f64, name##_i64, name##_u64 }, true }
static const struct binary_row k_binary[EW_OP_COUNT] = {
    [EW_OP_ADD] = { { add_f32, add_f64, add_u64, add_u64 }, false },
    [EW_OP_AND] = { { NULL, NULL, NULL, both_u64 }, true },
    [EW_OP_BITWISE_AND] = { { NULL, NULL, and_u64, and_u64 }, false },
    [EW_OP_BITWISE_OR] = { { NULL, NULL, or_u64, or_u64 }, false },
    [EW_OP_BITWISE_XOR] = { { NULL, NULL, xor_u64, xor_u64 }, false },
    [EW_OP_BIT_SHIFT] = { { NULL, NULL, NULL, shr_u64 }, false },
    [EW_OP_DIV] = { { div_f32, div_f64, quotient_i64, quotient_u64 }, false },
    [EW_OP_EQUAL] = COMPARE(equal),
    [EW_OP_GREATER] = COMPARE(greater),
    [EW_OP_GREATER_OR_EQUAL] = COMPARE(greater_or_equal),
    [EW_OP_LESS] = COMPARE(less),
    [EW_OP_LESS_OR_EQUAL] = COMPARE(less_or_equal),
    [EW_OP_MAX] = { { max_f32, max_f64, max_i64, max_u64 }, false },
    [EW_OP_MEAN] = { { add_f32, add_f64, NULL, NULL }, false },
    [EW_OP_MIN] = { { min_f32, min_f64, min_i64, min_u64 }, false },
    [EW_OP_MOD] = { { NULL, NULL, mod_i64, mod_u64 }, false },
    [EW_OP_MUL] = { { mul_f32, mul_f64, mul_u64, mul_u64 }, false },
    [EW_OP_OR] = { { NULL, NULL, NULL, either_u64 }, true },
    [EW_OP_POW] = { { pow_f32, pow_f64, power_i64, NULL }, false },
    [EW_OP_PRELU] = { { prelu_f32, prelu_f64, prelu_i64, first_u64 }, false },
    [EW_OP_SUB] = { { sub_f32, sub_f64, sub_u64, sub_u64 }, false },
    [EW_OP_SUM] = { { add_f32, add_f64, NULL, NULL }, false },
    [EW_OP_XOR] = { { NULL, NULL, NULL, differ_u64 }, true },
};
static const struct binary_row k_fmod = { { fmod_f32, fmod_f64, fmod_i64, mod_u64 }, false };
static const struct binary_row k_shift_left = { { NULL, NULL, NULL, shl_u64 }, false };
/* clang-format on */

static const struct binary_row *row_of(const struct ew_general_args *a)
{
    if (a->op == EW_OP_MOD && a->attrs->mod.fmod)
        return &k_fmod;
    if (a->op == EW_OP_BIT_SHIFT && a->attrs->bit_shift.left)
        return &k_shift_left;
    return &k_binary[a->op];
}

/* Pow's exponent has a dtype of its own; every other op computes in the class of input 0. */
static enum ew_gen_class class_of_run(ew_op op, ew_dtype x, ew_dtype z)
{
    const enum ew_gen_class cx = ew_gen_class_of(x), cz = ew_gen_class_of(z);

    if (op != EW_OP_POW || cx == cz)
        return cx;
    if (cx == EW_GEN_I64 && cz == EW_GEN_U64)
        return EW_GEN_I64;
    if (cx == EW_GEN_F32 && (cz == EW_GEN_F32 || ew_dtype_bits(z) <= 16))
        return EW_GEN_F32; /* the exponent is exact */
    return EW_GEN_F64;
}

struct operand {
    const struct ew_view *view;
    ptrdiff_t step;
    union ew_gen_block block;
};

/* `n` elements from `at`, as class c: in place when they can be. A scalar is spread once a run. */
static const void *operand_get(struct operand *o, enum ew_gen_class c, ptrdiff_t at, size_t n,
                               bool is_first)
{
    if (o->step == 1) {
        const void *p = ew_gen_direct(o->view->data, o->view->type.dtype, c, at);

        if (p)
            return p;
    }
    if (o->step != 0 || is_first)
        ew_gen_load(&o->block, c, o->view->data, o->view->type.dtype, at, o->step, n);
    return &o->block;
}

static ew_status binary_pair(const struct ew_general_args *a, const struct binary_row *row,
                             const struct ew_view *x, const struct ew_view *z)
{
    struct ew_view *const y = a->out[0];
    const enum ew_gen_class c = class_of_run(a->op, x->type.dtype, z->type.dtype);
    const struct ew_type *const types[2] = { &x->type, &z->type };
    struct operand ox = { .view = x }, oz = { .view = z };
    union ew_gen_block out;
    struct ew_gen_loop l;

    if (!row->fn[c])
        return ew_gen_refuse(a, x->type.dtype);
    if (!ew_gen_loop_init_broadcast(&l, &y->type, 2, types))
        return ew_fail(a->err, EW_STATUS_MISMATCH, "inputs do not broadcast to the output");
    ox.step = l.step[1];
    oz.step = l.step[2];
    for (bool more = !l.empty; more; more = ew_gen_loop_next(&l)) {
        for (size_t i = 0; i < l.inner; i += EW_GEN_BLOCK) {
            const size_t n = l.inner - i < EW_GEN_BLOCK ? l.inner - i : EW_GEN_BLOCK;
            const ptrdiff_t k = (ptrdiff_t)i, at = l.at[0] + k;
            const void *const px = operand_get(&ox, c, l.at[1] + k * ox.step, n, i == 0);
            const void *const pz = operand_get(&oz, c, l.at[2] + k * oz.step, n, i == 0);
            void *py = row->to_bool ? (void *)((uint8_t *)y->data + at)
                                    : ew_gen_direct(y->data, y->type.dtype, c, at);

            row->fn[c](py ? py : &out, px, pz, n);
            if (!py)
                ew_gen_store(y->data, y->type.dtype, at, 1, &out, c, n);
        }
    }
    return EW_STATUS_OK;
}

static ew_status broadcast_copy(const struct ew_general_args *a, const struct ew_view *x)
{
    struct ew_view *const y = a->out[0];
    const struct ew_type *const types[1] = { &x->type };
    struct ew_gen_loop l;

    if (!ew_gen_loop_init_broadcast(&l, &y->type, 1, types))
        return ew_fail(a->err, EW_STATUS_MISMATCH, "input 0 does not broadcast to the output");
    for (bool more = !l.empty; more; more = ew_gen_loop_next(&l))
        ew_gen_copy_step(y->data, l.at[0], 1, x->data, l.at[1], l.step[1], l.inner, y->type.dtype);
    return EW_STATUS_OK;
}

static void divide_all(struct ew_view *y, int n_in)
{
    const size_t n = ew_gen_count(&y->type);
    const enum ew_gen_class c = ew_gen_class_of(y->type.dtype);
    union ew_gen_block b;

    for (size_t i = 0; i < n; i += EW_GEN_BLOCK) {
        const size_t len = n - i < EW_GEN_BLOCK ? n - i : EW_GEN_BLOCK;

        ew_gen_load(&b, c, y->data, y->type.dtype, (ptrdiff_t)i, 1, len);
        for (size_t k = 0; k < len; k++) {
            if (c == EW_GEN_F32)
                b.f32[k] /= (float)n_in;
            else
                b.f64[k] /= n_in;
        }
        ew_gen_store(y->data, y->type.dtype, (ptrdiff_t)i, 1, &b, c, len);
    }
}

/* Left to right through the output, which has the dtype of the inputs. */
static ew_status variadic(const struct ew_general_args *a, const struct binary_row *row)
{
    if (a->n_in == 1)
        return broadcast_copy(a, a->in[0]);
    EW_TRY(binary_pair(a, row, a->in[0], a->in[1]));
    for (int i = 2; i < a->n_in; i++)
        EW_TRY(binary_pair(a, row, a->out[0], a->in[i]));
    if (a->op == EW_OP_MEAN)
        divide_all(a->out[0], a->n_in);
    return EW_STATUS_OK;
}

ew_status ew_general_binary__ref(const struct ew_general_args *a)
{
    switch (a->op) {
    case EW_OP_WHERE:
        return ew_gen_where(a);
    case EW_OP_MAX:
    case EW_OP_MEAN:
    case EW_OP_MIN:
    case EW_OP_SUM:
        return variadic(a, row_of(a));
    default:
        return binary_pair(a, row_of(a), a->in[0], a->in[1]);
    }
}
