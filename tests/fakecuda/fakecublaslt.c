/* fakecublaslt.c - the library's entry points that the backend calls. What a call is given is
 * checked as the real one would: types, sizes and strides of the matrices, the algorithm, 16-byte
 * addresses. See fakecublaslt.h. */
#include "fakecublaslt.h"

#include <stdlib.h>
#include <string.h>

#include "backend/cuda/driver.h"
#include "kernels/cuda/kernel.h"

#define EXPORT          __attribute__((visibility("default")))
#define NOT_INITIALIZED 1
#define INVALID         7
#define FAILED          13
#define NOT_SUPPORTED   15
#define R_32F           0
#define R_16F           2
#define R_16BF          14
#define COMPUTE_32F     68
#define N_NAMES         16

extern int cuLaunchKernelEx(const ew_cu_launch_config *c, void *f, void **params, void **extra);

struct layout {
    int type;
    uint64_t rows, cols;
    int64_t stride;
};
struct desc {
    int compute, scale;
    int32_t transposes_a;
};
struct pref {
    uint64_t bytes;
    uint32_t alignment[4];
};
struct answer {
    uint64_t algo[8];
    size_t bytes;
    int state;
    float waves;
    int reserved[4];
};

struct product { /* arguments of the launch */
    const void *a, *b, *c;
    void *d;
    float alpha, beta;
    struct layout la, lb, ld;
};
_Static_assert(sizeof(struct product) <= EW_CUDA_ARGS_CAP, "arguments of a launch");

static struct {
    size_t version;
    uint64_t live;
    struct counter {
        const char *name;
        uint64_t count, fail_at;
        int status;
    } counters[N_NAMES];
} fake = { .version = FAKECUBLASLT_VERSION };

static struct counter *counter_of(const char *name)
{
    for (int i = 0; i < N_NAMES; i++) {
        if (!fake.counters[i].name)
            fake.counters[i].name = name;
        if (strcmp(fake.counters[i].name, name) == 0)
            return &fake.counters[i];
    }
    abort();
}

static int enter(const char *name)
{
    struct counter *c = counter_of(name);

    return ++c->count == c->fail_at ? c->status : 0;
}

#define ENTER()                                                                                    \
    do {                                                                                           \
        const int failed_ = enter(__func__);                                                       \
        if (failed_)                                                                               \
            return failed_;                                                                        \
    } while (0)
#define FAKE(name, args)                                                                           \
    EXPORT int name args;                                                                          \
    EXPORT int name args

EXPORT void fakecublaslt_set_version(size_t version)
{
    fake.version = version;
}

EXPORT void fakecublaslt_fail(const char *function, uint64_t k, int status)
{
    struct counter *c = counter_of(function);

    c->fail_at = c->count + k;
    c->status = status;
}

EXPORT uint64_t fakecublaslt_count(const char *function)
{
    return counter_of(function)->count;
}

EXPORT void fakecublaslt_reset(void)
{
    memset(fake.counters, 0, sizeof(fake.counters));
    fake.version = FAKECUBLASLT_VERSION;
}

EXPORT uint64_t fakecublaslt_live(void)
{
    return fake.live;
}

/* ---- objects ---- */

static int make(void **out, const void *from, size_t bytes)
{
    *out = malloc(bytes);
    if (!*out)
        return 3;
    memcpy(*out, from, bytes);
    fake.live++;
    return 0;
}

static int drop(void *at)
{
    if (!at)
        return INVALID;
    free(at);
    fake.live--;
    return 0;
}

EXPORT size_t cublasLtGetVersion(void);
EXPORT size_t cublasLtGetVersion(void)
{
    return fake.version ? fake.version : FAKECUBLASLT_VERSION;
}

FAKE(cublasLtCreate, (void **handle))
{
    ENTER();
    return fake.version ? make(handle, "", 1) : NOT_INITIALIZED;
}

FAKE(cublasLtDestroy, (void *handle))
{
    return drop(handle);
}

FAKE(cublasLtMatmulDescCreate, (void **out, int compute, int scale))
{
    const struct desc d = { compute, scale, 0 };

    ENTER();
    return make(out, &d, sizeof(d));
}

FAKE(cublasLtMatmulDescDestroy, (void *at))
{
    return drop(at);
}

FAKE(cublasLtMatmulDescSetAttribute, (struct desc * d, int which, const void *value, size_t bytes))
{
    ENTER();
    if (which != 3 || bytes != sizeof(d->transposes_a))
        return INVALID;
    memcpy(&d->transposes_a, value, bytes);
    return 0;
}

FAKE(cublasLtMatrixLayoutCreate,
     (void **out, int type, uint64_t rows, uint64_t cols, int64_t stride))
{
    const struct layout l = { type, rows, cols, stride };

    ENTER();
    if (!rows || !cols || stride < (int64_t)rows)
        return INVALID;
    return make(out, &l, sizeof(l));
}

FAKE(cublasLtMatrixLayoutDestroy, (void *at))
{
    return drop(at);
}

FAKE(cublasLtMatmulPreferenceCreate, (void **out))
{
    const struct pref p = { 0, { 256, 256, 256, 256 } };

    ENTER();
    return make(out, &p, sizeof(p));
}

FAKE(cublasLtMatmulPreferenceDestroy, (void *at))
{
    return drop(at);
}

FAKE(cublasLtMatmulPreferenceSetAttribute,
     (struct pref * p, int which, const void *value, size_t bytes))
{
    ENTER();
    if (which == 1 && bytes == sizeof(p->bytes))
        memcpy(&p->bytes, value, bytes);
    else if (which >= 5 && which <= 8 && bytes == sizeof(p->alignment[0]))
        memcpy(&p->alignment[which - 5], value, bytes);
    else
        return INVALID;
    return 0;
}

/* ---- products ---- */

/* d [n][m] by columns = a^T b: a [k][n], b [k][m]. */
static int fits(const struct desc *o, const struct layout *a, const struct layout *b,
                const struct layout *c, const struct layout *d)
{
    return o->compute == COMPUTE_32F && o->scale == R_32F && o->transposes_a == 1 &&
           a->rows == b->rows && a->cols == d->rows && b->cols == d->cols && a->type == b->type &&
           (d->type == R_32F || d->type == a->type) && memcmp(c, d, sizeof(*c)) == 0;
}

static int bytes_of(int type)
{
    return type == R_32F ? 4 : 2;
}

FAKE(cublasLtMatmulAlgoGetHeuristic,
     (void *handle, struct desc *o, struct layout *a, struct layout *b, struct layout *c,
      struct layout *d, struct pref *p, int n, struct answer *answers, int *n_answers))
{
    ENTER();
    *n_answers = 0;
    if (!handle || n < 1 || !fits(o, a, b, c, d))
        return INVALID;
    if (p->alignment[3] > 16 || a->stride * bytes_of(a->type) % 16 ||
        b->stride * bytes_of(b->type) % 16 || d->stride * bytes_of(d->type) % 16)
        return NOT_SUPPORTED;
    memset(answers, 0, sizeof(*answers));
    answers->algo[0] = d->rows << 32 | d->cols;
    answers->bytes = p->bytes;
    *n_answers = 1;
    return 0;
}

static int is_aligned(const void *p)
{
    return p && (uintptr_t)p % 16 == 0;
}

FAKE(cublasLtMatmul, (void *handle, const struct desc *o, const float *alpha, const void *a,
                      const struct layout *a_layout, const void *b, const struct layout *b_layout,
                      const float *beta, const void *c, const struct layout *c_layout, void *d,
                      const struct layout *d_layout, const uint64_t *algo, void *workspace,
                      size_t bytes, void *stream))
{
    _Alignas(64) unsigned char args[EW_CUDA_ARGS_CAP] = { 0 };
    const struct product p = { a, b, c, d, *alpha, *beta, *a_layout, *b_layout, *d_layout };
    const ew_cu_launch_config launch = { .grid = { 1, 1, 1 },
                                         .block = { 32, 1, 1 },
                                         .stream = stream };
    void *params[] = { args };

    ENTER();
    if (!handle || !fits(o, a_layout, b_layout, c_layout, d_layout) || !is_aligned(a) ||
        !is_aligned(b) || !is_aligned(c) || !is_aligned(d) || !workspace ||
        (uintptr_t)workspace % 256 || bytes < EW_CUDA_PRODUCT_WORKSPACE ||
        algo[0] != (d_layout->rows << 32 | d_layout->cols))
        return INVALID;
    memcpy(args, &p, sizeof(p));
    return cuLaunchKernelEx(&launch, (void *)(uintptr_t) "cublasLtMatmul", params, NULL) ? FAILED
                                                                                         : 0;
}

/* Element (row, col) of a matrix by columns. */
static float get(const void *at, const struct layout *l, uint64_t row, uint64_t col)
{
    const size_t i = (size_t)col * (size_t)l->stride + (size_t)row;
    uint32_t bits;
    float f;

    if (l->type == R_32F)
        return ((const float *)at)[i];
    bits = (uint32_t)((const uint16_t *)at)[i] << 16;
    memcpy(&f, &bits, sizeof(f));
    return f;
}

static void put(void *at, const struct layout *l, uint64_t row, uint64_t col, float f)
{
    const size_t i = (size_t)col * (size_t)l->stride + (size_t)row;
    uint32_t bits;

    memcpy(&bits, &f, sizeof(bits));
    if (l->type == R_32F)
        ((float *)at)[i] = f;
    else
        ((uint16_t *)at)[i] = (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

EXPORT void fakecublaslt_play(const void *args)
{
    struct product p;

    memcpy(&p, args, sizeof(p));
    for (uint64_t col = 0; col < p.ld.cols; col++)
        for (uint64_t row = 0; row < p.ld.rows; row++) {
            double sum = 0;

            for (uint64_t k = 0; k < p.la.rows; k++)
                sum += (double)get(p.a, &p.la, k, row) * (double)get(p.b, &p.lb, k, col);
            sum *= (double)p.alpha;
            if (p.beta != 0)
                sum += (double)p.beta * (double)get(p.c, &p.ld, row, col);
            put(p.d, &p.ld, row, col, (float)sum);
        }
}
