/* kernels/ref/rowops_ref.c - the judge of the row kernels: plain C, double inside. */
#include <math.h>

#include "base/half.h"
#include "kernels/rowops.h"

static void rmsnorm(float *y, const float *x, const float *w, const float *residual, size_t rows,
                    size_t n, float eps)
{
    for (size_t r = 0; r < rows; r++) {
        double sum = 0;
        for (size_t i = 0; i < n; i++)
            sum += (double)x[r * n + i] * (double)x[r * n + i];
        const double inv = 1.0 / sqrt(sum / (double)n + (double)eps);
        for (size_t i = 0; i < n; i++) {
            const double v = (double)x[r * n + i] * inv * (double)w[i];
            y[r * n + i] = (float)(v + (residual ? (double)residual[r * n + i] : 0.0));
        }
    }
}

static double pw_binary(int op, double a, double b)
{
    switch (op) {
    case EW_PW_ADD:
        return a + b;
    case EW_PW_SUB:
        return a - b;
    case EW_PW_MUL:
        return a * b;
    case EW_PW_DIV:
        return a / b;
    case EW_PW_MAX: /* a NaN wins, as in ONNX Max */
        return isnan(a) || a > b ? a : b;
    case EW_PW_MIN:
        return isnan(a) || a < b ? a : b;
    default:
        return pow(a, b);
    }
}

static double pw_unary(int op, double a)
{
    switch (op) {
    case EW_PW_NEG:
        return -a;
    case EW_PW_ABS:
        return fabs(a);
    case EW_PW_EXP:
        return exp(a);
    case EW_PW_LOG:
        return log(a);
    case EW_PW_SQRT:
        return sqrt(a);
    case EW_PW_RSQRT:
        return 1.0 / sqrt(a);
    case EW_PW_RECIP:
        return 1.0 / a;
    case EW_PW_SIGMOID:
        return 1.0 / (1.0 + exp(-a));
    case EW_PW_TANH:
        return tanh(a);
    case EW_PW_SILU:
        return a / (1.0 + exp(-a));
    case EW_PW_GELU_TANH:
        return 0.5 * a * (1.0 + tanh(0.79788456080286535588 * (a + 0.044715 * a * a * a)));
    case EW_PW_GELU_ERF:
        return 0.5 * a * (1.0 + erf(a * 0.70710678118654752440));
    case EW_PW_ERF:
        return erf(a);
    case EW_PW_RELU:
        return a > 0 || isnan(a) ? a : 0.0;
    case EW_PW_SOFTPLUS:
        return (a > 0 ? a : 0.0) + log1p(exp(-fabs(a)));
    case EW_PW_SIN:
        return sin(a);
    case EW_PW_COS:
        return cos(a);
    case EW_PW_FLOOR:
        return floor(a);
    default:
        return ceil(a);
    }
}

static double pw_apply(const struct ew_pw_instr *in, double a, double b)
{
    switch (in->op) {
    case EW_PW_ADD_IMM:
        return a + (double)in->imm;
    case EW_PW_MUL_IMM:
        return a * (double)in->imm;
    case EW_PW_MAX_IMM:
        return pw_binary(EW_PW_MAX, a, (double)in->imm);
    case EW_PW_MIN_IMM:
        return pw_binary(EW_PW_MIN, a, (double)in->imm);
    default:
        return in->op <= EW_PW_POW ? pw_binary(in->op, a, b) : pw_unary(in->op, a);
    }
}

/* Registers are f32, so each instruction rounds as the fast kernels do. */
static void pointwise(const struct ew_attr_pointwise *p, float *y, const float *const *in,
                      const size_t *step, size_t n_in, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        float reg[EW_PW_MAX_REGS] = { 0 };
        float last = 0;
        for (size_t j = 0; j < n_in && j < EW_PW_MAX_REGS; j++)
            reg[j] = in[j][i * step[j]];
        for (int32_t k = 0; k < p->n_instr; k++) {
            const struct ew_pw_instr *op = &p->instr[k];
            last = (float)pw_apply(op, (double)reg[op->a], (double)reg[op->b]);
            reg[op->dst] = last;
        }
        y[i] = last;
    }
}

static void topk_softmax(const float *logits, size_t rows, size_t e, size_t k, int norm_topk,
                         int32_t *idx, float *prob)
{
    for (size_t r = 0; r < rows; r++) {
        const float *x = logits + r * e;
        double max = -INFINITY, sum = 0, sum_top = 0;
        for (size_t i = 0; i < e; i++)
            max = (double)x[i] > max ? (double)x[i] : max;
        for (size_t i = 0; i < e; i++)
            sum += exp((double)x[i] - max);
        for (size_t j = 0; j < k; j++) {
            size_t best = e;
            for (size_t i = 0; i < e;
                 i++) { /* the largest below the one before, lower index first */
                size_t q = 0;
                while (q < j && (size_t)idx[r * k + q] != i)
                    q++;
                if (q == j && (best == e || x[i] > x[best]))
                    best = i;
            }
            if (best == e)
                best = 0; /* k > e: the caller's mistake, but no wild index */
            idx[r * k + j] = (int32_t)best;
            const double pr = exp((double)x[best] - max) / sum;
            sum_top += pr;
            prob[r * k + j] = (float)pr;
        }
        for (size_t j = 0; norm_topk && j < k; j++)
            prob[r * k + j] = (float)((double)prob[r * k + j] / sum_top);
    }
}

static void f16_to_f32(float *dst, const uint16_t *src, size_t n)
{
    for (size_t i = 0; i < n; i++)
        dst[i] = ew_f16_to_f32(src[i]);
}

static void f32_to_f16(uint16_t *dst, const float *src, size_t n)
{
    for (size_t i = 0; i < n; i++)
        dst[i] = ew_f32_to_f16(src[i]);
}

static void bf16_to_f32(float *dst, const uint16_t *src, size_t n)
{
    for (size_t i = 0; i < n; i++)
        dst[i] = ew_bf16_to_f32(src[i]);
}

static void f32_to_bf16(uint16_t *dst, const float *src, size_t n)
{
    for (size_t i = 0; i < n; i++)
        dst[i] = ew_f32_to_bf16(src[i]);
}

static void block_tops(float *tops, const float *x, size_t n)
{
    for (size_t at = 0; at < n; at += EW_TOPS_BLOCK, tops++) {
        *tops = x[at];
        for (size_t i = at; i < n && i < at + EW_TOPS_BLOCK; i++)
            if (x[i] > *tops || isnan(x[i]))
                *tops = x[i]; /* nothing is above a NaN */
    }
}

extern const struct ew_rowops ew_rowops__ref;
const struct ew_rowops ew_rowops__ref = {
    .name = "ref",
    .cpu_need = 0,
    .rmsnorm = rmsnorm,
    .pointwise = pointwise,
    .topk_softmax = topk_softmax,
    .f16_to_f32 = f16_to_f32,
    .f32_to_f16 = f32_to_f16,
    .bf16_to_f32 = bf16_to_f32,
    .f32_to_bf16 = f32_to_bf16,
    .block_tops = block_tops,
};
