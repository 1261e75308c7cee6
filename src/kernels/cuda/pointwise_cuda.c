/* kernels/cuda/pointwise_cuda.c - a pointwise program as a spec: its letters, and the walk over its
 * operands with neighbouring axes joined where every operand allows it. */
#include "kernels/cuda/launch.h"
#include "kernels/cuda/rows_args.cuh"
#include "kernels/cuda/rows_cuda.h"

_Static_assert(sizeof(struct ew_cuda_pointwise_args) <= EW_CUDA_ARGS_CAP, "arguments of a launch");
_Static_assert(EW_PW_OP_COUNT == 30 && EW_PW_ADD_IMM == 26 && EW_PW_FLOOR == 24,
               "pointwise.cu has the same order");

static ew_status check_program(const struct ew_cuda_pointwise *p, ew_error *err)
{
    const struct ew_attr_pointwise *g = p->program;

    if (g->n_instr < 1 || g->n_instr > EW_PW_MAX_INSTR || p->n_in < 1 || p->n_in > 8)
        return ew_fail(err, EW_STATUS_UNSUPPORTED, "program of %d instructions on %zu inputs",
                       g->n_instr, p->n_in);
    for (int32_t i = 0; i < g->n_instr; i++) {
        const struct ew_pw_instr *in = &g->instr[i];

        if (in->op >= EW_PW_OP_COUNT || in->dst >= EW_PW_MAX_REGS || in->a >= EW_PW_MAX_REGS ||
            in->b >= EW_PW_MAX_REGS)
            return ew_fail(err, EW_STATUS_MALFORMED, "instruction %d: op %u on r%u, r%u to r%u", i,
                           in->op, in->a, in->b, in->dst);
    }
    return EW_STATUS_OK;
}

static void write_program(const struct ew_attr_pointwise *g, char out[4 * EW_PW_MAX_INSTR + 1],
                          float imm[EW_PW_MAX_INSTR])
{
    static const char hex[] = "0123456789abcdef";

    for (int32_t i = 0; i < g->n_instr; i++) {
        const struct ew_pw_instr *in = &g->instr[i];

        out[4 * i] = (char)(in->op < 26 ? 'A' + in->op : 'a' + in->op - 26);
        out[4 * i + 1] = hex[in->dst];
        out[4 * i + 2] = hex[in->a];
        out[4 * i + 3] = hex[in->b];
        imm[i] = in->imm;
    }
    out[4 * g->n_instr] = '\0';
}

/* Element stride of an input along axis d of the output; 0 where it is broadcast. */
static uint32_t stride_of(const struct ew_type *t, const struct ew_type *out, int d)
{
    const int a = d - (out->n_dims - t->n_dims);
    uint64_t s = 1;

    if (a < 0 || t->dim[a] == 1)
        return 0;
    for (int j = t->n_dims - 1; j > a; j--)
        s *= (uint64_t)t->dim[j];
    return (uint32_t)s;
}

/* Axes from the innermost outwards; one that continues the axis inside it for every input is
 * joined to it. They are left innermost last. */
static void walk(const struct ew_cuda_pointwise *p, struct ew_cuda_pointwise_args *a)
{
    const struct ew_type *y = p->out_type;
    uint32_t dim[EW_PW_DIMS], stride[8][EW_PW_DIMS];
    int n = 0;

    for (int d = y->n_dims - 1; d >= 0; d--) {
        bool joins = n > 0;

        if (y->dim[d] == 1)
            continue;
        for (size_t k = 0; k < p->n_in && joins; k++) {
            const uint32_t s = stride_of(p->in_type[k], y, d), in = stride[k][n - 1];

            joins = s == in * dim[n - 1] || (s == 0 && in == 0);
        }
        if (joins) {
            dim[n - 1] *= (uint32_t)y->dim[d];
            continue;
        }
        dim[n] = (uint32_t)y->dim[d];
        for (size_t k = 0; k < p->n_in; k++)
            stride[k][n] = stride_of(p->in_type[k], y, d);
        n++;
    }
    a->n_dims = (uint32_t)n;
    for (int d = 0; d < n; d++) {
        a->dim[d] = dim[n - 1 - d];
        for (size_t k = 0; k < p->n_in; k++)
            a->stride[k][d] = stride[k][n - 1 - d];
    }
}

static bool is_flat(const struct ew_cuda_pointwise_args *a, size_t n_in)
{
    for (size_t k = 0; k < n_in && a->n_dims == 1; k++)
        if (a->stride[k][0] > 1)
            return false;
    return a->n_dims <= 1;
}

ew_status ew_cuda_pointwise_plan(const struct ew_cuda_pointwise *p, struct ew_cuda_launch *out,
                                 ew_error *err)
{
    struct ew_cuda_pointwise_args a = { .y = ew_cuda_address(p->y) };
    char program[4 * EW_PW_MAX_INSTR + 1];
    size_t count;

    EW_TRY(check_program(p, err));
    if (!ew_type_count(p->out_type, &count) || count < 1 || count > INT32_MAX)
        return ew_fail(err, EW_STATUS_LIMIT, "a pointwise program over none or 2^31 elements");
    write_program(p->program, program, a.imm);
    for (size_t k = 0; k < p->n_in; k++)
        a.in[k] = ew_cuda_address(p->in[k]);
    walk(p, &a);
    a.count = (uint32_t)count;
    const uint32_t blocks = (uint32_t)((count + 255) / 256);
    const uint32_t grid[3] = { blocks > 4096 ? 4096 : blocks, 1, 1 };
    ew_cuda_launch_fill(out, "pointwise", "ew_pointwise", grid, 256, &a, sizeof(a),
                        "-DEW_PROGRAM=%s -DEW_INPUTS=%zu -DEW_FLAT=%d", program, p->n_in,
                        is_flat(&a, p->n_in));
    return EW_STATUS_OK;
}
