/* kernels/cuda/linear_plan.c - the table of linear kernels of a GPU, and what their plans share. */
#include "kernels/cuda/linear_plan.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "op/attrs.h"

#define EW_KERNEL(name) extern const struct ew_cuda_linear_kernel name;
#include "kernels/cuda/list_linear.inc"
#undef EW_KERNEL

static const struct ew_cuda_linear_kernel *const all[] = {
#define EW_KERNEL(name) &name,
#include "kernels/cuda/list_linear.inc"
#undef EW_KERNEL
};

const struct ew_cuda_linear_kernel *const *ew_cuda_linear_kernels(size_t *n)
{
    *n = sizeof(all) / sizeof(*all);
    return all;
}

const struct ew_cuda_linear_kernel *ew_cuda_linear_kernel_find(const char *name)
{
    for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++)
        if (strcmp(all[i]->name, name) == 0)
            return all[i];
    return NULL;
}

bool ew_cuda_linear_kernel_is(const struct ew_cuda_linear_kernel *k, const char *text)
{
    const size_t len = strlen(text);

    return strncmp(k->name, text, len) == 0 && (!k->name[len] || k->name[len] == '_');
}

bool ew_cuda_linear_kernel_runs(const struct ew_cuda_linear_kernel *k, const struct ew_cuda_chip *c,
                                ew_dtype dtype, const struct ew_quant_format *f, size_t m, size_t n,
                                size_t n_cols, bool glu, int x_quant)
{
    if (c->sm < k->sm_min || c->sm > k->sm_max || m < k->min_rows || m > k->max_rows || n == 0 ||
        n_cols == 0 || n > INT32_MAX / 2 || n_cols > INT32_MAX / 8)
        return false;
    if (k->library && !c->cublaslt)
        return false;
    if (k->x_quant != EW_XQ_NONE && k->x_quant != ew_x_quant_of_x(x_quant))
        return false;
    if (!ew_linear_kernel_runs(k->layout, dtype, f, n_cols, EW_XQ_NONE))
        return false;
    return !k->takes || k->takes(f, n, n_cols, glu);
}

uint32_t ew_cuda_div_up(size_t a, size_t b)
{
    return (uint32_t)((a + b - 1) / b);
}

struct ew_cuda_linear_args ew_cuda_linear_args_of(const struct ew_cuda_linear_problem *p)
{
    struct ew_cuda_linear_args a = {
        .x = p->x,
        .prepared = p->prepared,
        .w = p->w,
        .bias = p->bias,
        .residual = p->residual,
        .y = p->y,
        .norm_weight = p->norm_weight,
        .x_stride = p->x_stride,
        .prepared_stride = p->prepared_stride,
        .residual_stride = p->residual_stride,
        .y_stride = p->y_stride,
        .m = (uint32_t)p->m,
        .n = (uint32_t)p->n,
        .k = (uint32_t)p->k,
        .n_out = (uint32_t)(p->glu ? p->n / 2 : p->n),
        .scale = p->scale,
        .softcap = p->softcap,
        .norm_eps = p->norm_eps,
    };

    if (ew_quant_is(&p->format)) {
        const struct ew_cuda_panel l = ew_cuda_panel_of(&p->format, p->k);

        a.row_bytes = l.bytes;
        a.k_blocks = (uint32_t)l.k_blocks;
        a.scales_at = (uint32_t)l.scales_at;
        a.zeros_at = (uint32_t)l.zeros_at;
        a.row_scales_at = (uint32_t)l.row_scales_at;
    }
    return a;
}

struct ew_cuda_launch ew_cuda_linear_launch(const char *source, const char *entry,
                                            const struct ew_cuda_linear_args *a)
{
    struct ew_cuda_launch l = { .spec = { .source = source, .entry = entry },
                                .grid = { 1, 1, 1 },
                                .block = { 1, 1, 1 },
                                .early_start = true,
                                .arg_bytes = sizeof(*a) };

    memcpy(l.args, a, sizeof(*a));
    return l;
}

struct ew_cuda_launch ew_cuda_linear_prepare(const struct ew_cuda_linear_problem *p, bool f16,
                                             struct ew_cuda_linear_args *a)
{
    struct ew_cuda_launch l;

    a->prepared = p->workspace;
    a->prepared_stride = (p->k + 7) & ~(size_t)7;
    l = ew_cuda_linear_launch("linear_prepare", "ew_linear_prepare", a);
    l.grid[0] = (uint32_t)p->m;
    l.block[0] = 256;
    (void)snprintf(l.spec.defines, sizeof(l.spec.defines), "-DEW_F16=%d -DEW_NORM=%d", f16,
                   p->norm_weight != 0);
    return l;
}

static int short_kind(ew_dtype y)
{
    return y == EW_DTYPE_BF16 ? 1 : y == EW_DTYPE_F16 ? 2 : 0;
}

void ew_cuda_linear_define(struct ew_cuda_launch *l, const struct ew_cuda_linear_problem *p,
                           const char *fmt, ...)
{
    const size_t cap = sizeof(l->spec.defines);
    va_list ap;
    int n;

    va_start(ap, fmt);
    n = vsnprintf(l->spec.defines, cap, fmt, ap);
    va_end(ap);
    (void)snprintf(l->spec.defines + n, cap - (size_t)n,
                   " -DEW_GLU=%d -DEW_ACT=%d -DEW_CAP=%d -DEW_SHORT=%d", p->glu, p->act,
                   p->softcap != 0.0f, short_kind(p->y_short));
}

uint32_t ew_cuda_linear_splits(const struct ew_cuda_chip *c, size_t tiles, size_t k)
{
    uint32_t best = 1;
    double most = 0;

    for (uint32_t s = 1; s <= 8 && (s == 1 || k / s >= 384); s *= 2) {
        const double waves = (double)(tiles * s) / (double)c->n_sm;
        const double full = waves / (double)ew_cuda_div_up(tiles * s, c->n_sm) - 0.004 * s;

        if (full > most + 0.02) {
            most = full;
            best = s;
        }
    }
    return best;
}

static int scale_kind(const struct ew_quant_format *f, size_t k)
{
    if (ew_quant_groups(f, k) == 1)
        return 0; /* in the row scales */
    switch (f->scale) {
    case EW_DTYPE_F32:
        return 1;
    case EW_DTYPE_F16:
        return 2;
    case EW_DTYPE_BF16:
        return 3;
    case EW_DTYPE_F8E4M3:
        return 4;
    case EW_DTYPE_F8E8M0:
        return 5;
    default:
        return 0;
    }
}

void ew_cuda_quant_defines(const struct ew_quant_format *f, size_t k, char *out, size_t cap)
{
    const bool grouped = ew_quant_groups(f, k) > 1;
    int code = 0;

    switch (f->code) {
    case EW_DTYPE_I4:
        code = 1;
        break;
    case EW_DTYPE_U4:
        code = 2;
        break;
    case EW_DTYPE_F4E2M1:
        code = 3;
        break;
    case EW_DTYPE_I8:
        code = 4;
        break;
    case EW_DTYPE_U8:
        code = 5;
        break;
    case EW_DTYPE_F8E4M3:
        code = 6;
        break;
    default: /* f8e5m2: the layouts take nothing else */
        code = 7;
        break;
    }
    (void)snprintf(out, cap, "-DEW_CODE=%d -DEW_SCALE=%d -DEW_ZERO=%d -DEW_GROUP=%u", code,
                   scale_kind(f, k), f->zero ? 1 : 0, grouped ? f->group : 0);
}
