/* backend/cuda/cublaslt.c - finding the library, and its products. Descriptors are opaque, written
 * through setters alone: their layouts differ between versions. */
#include "backend/cuda/cublaslt.h"

#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/hash.h"
#include "base/mem.h"
#include "base/size.h"
#include "os/os.h"
#include "tensor/tensor.h"

#define OLDEST 11000 /* types of computation are numbered as below since then */

typedef int lt_status; /* cublasStatus_t; 0: success */
enum {
    LT_NOT_INITIALIZED = 1,
    LT_ALLOC_FAILED = 3,
    LT_INVALID_VALUE = 7,
    LT_ARCH_MISMATCH = 8,
    LT_MAPPING_ERROR = 11,
    LT_EXECUTION_FAILED = 13,
    LT_INTERNAL_ERROR = 14,
    LT_NOT_SUPPORTED = 15
};
enum { LT_R_32F = 0, LT_R_16F = 2, LT_R_16BF = 14 }; /* cudaDataType */
#define LT_COMPUTE_32F      68                       /* cublasComputeType_t */
#define LT_DESC_TRANSA      3                        /* cublasLtMatmulDescAttributes_t: int32 */
#define LT_TRANSPOSED       1                        /* cublasOperation_t */
#define LT_PREF_WORKSPACE   1 /* cublasLtMatmulPreferenceAttributes_t: bytes, u64 */
#define LT_PREF_ALIGNMENT_A 5 /* of B, C and D: the next three; bytes, u32 */

struct lt_answer { /* cublasLtMatmulHeuristicResult_t */
    uint64_t algo[8];
    size_t workspace_bytes;
    lt_status state;
    float waves;
    int reserved[4];
};
_Static_assert(sizeof(struct lt_answer) == 96, "cublasLtMatmulHeuristicResult_t");

/* clang-format off */
#define LT_FUNCTIONS(X) \
    X(create, "cublasLtCreate", (void **handle)) \
    X(destroy, "cublasLtDestroy", (void *handle)) \
    X(desc_create, "cublasLtMatmulDescCreate", (void **desc, int compute, int scale)) \
    X(desc_destroy, "cublasLtMatmulDescDestroy", (void *desc)) \
    X(desc_set, "cublasLtMatmulDescSetAttribute", (void *desc, int which, const void *value, size_t bytes)) \
    X(layout_create, "cublasLtMatrixLayoutCreate", (void **layout, int type, uint64_t rows, uint64_t cols, int64_t stride)) \
    X(layout_destroy, "cublasLtMatrixLayoutDestroy", (void *layout)) \
    X(pref_create, "cublasLtMatmulPreferenceCreate", (void **pref)) \
    X(pref_destroy, "cublasLtMatmulPreferenceDestroy", (void *pref)) \
    X(pref_set, "cublasLtMatmulPreferenceSetAttribute", (void *pref, int which, const void *value, size_t bytes)) \
    X(heuristic, "cublasLtMatmulAlgoGetHeuristic", (void *handle, void *desc, void *a, void *b, void *c, void *d, void *pref, int n, struct lt_answer *answers, int *n_answers)) \
    X(matmul, "cublasLtMatmul", (void *handle, void *desc, const void *alpha, const void *a, void *a_layout, const void *b, void *b_layout, const void *beta, const void *c, void *c_layout, void *d, void *d_layout, const uint64_t *algo, void *workspace, size_t bytes, ew_cu_stream stream))
/* clang-format on */

struct ew_cublaslt {
    struct ew_cuda_device *device;
    void *lib, *handle, *pref;
    uint32_t version;
    struct ew_mutex *lock; /* of the table */
    struct ew_map map;     /* key of a plan -> its place */
    struct ew_cublaslt_plan **plans;
    size_t n_plans;
    size_t (*get_version)(void);
#define LT_MEMBER(member, name, args) lt_status(*member) args;
    LT_FUNCTIONS(LT_MEMBER)
#undef LT_MEMBER
};

struct ew_cublaslt_plan {
    struct ew_cublaslt *library;
    struct ew_cuda_product key;
    void *desc, *w, *x, *y; /* y: of the residual too */
    uint64_t algo[8];
};

static ew_status lt_failed(lt_status r, ew_error *err, const char *what)
{
    static const struct {
        lt_status r;
        const char *name;
    } names[] = {
        { LT_NOT_INITIALIZED, "NOT_INITIALIZED" }, { LT_ALLOC_FAILED, "ALLOC_FAILED" },
        { LT_INVALID_VALUE, "INVALID_VALUE" },     { LT_ARCH_MISMATCH, "ARCH_MISMATCH" },
        { LT_MAPPING_ERROR, "MAPPING_ERROR" },     { LT_EXECUTION_FAILED, "EXECUTION_FAILED" },
        { LT_INTERNAL_ERROR, "INTERNAL_ERROR" },   { LT_NOT_SUPPORTED, "NOT_SUPPORTED" }
    };
    const char *name = "unknown";

    for (size_t i = 0; i < EW_COUNT(names); i++)
        if (names[i].r == r)
            name = names[i].name;
    return ew_fail(err, r == LT_ALLOC_FAILED ? EW_STATUS_NO_MEMORY : EW_STATUS_DEVICE,
                   "cuBLASLt: %s: CUBLAS_STATUS_%s %d", what, name, r);
}

/* ---- finding it ---- */

static bool load(struct ew_cublaslt *b, const char *path)
{
    const struct {
        const char *name;
        size_t at;
    } functions[] = { { "cublasLtGetVersion", offsetof(struct ew_cublaslt, get_version) },
#define LT_ENTRY(member, name, args) { name, offsetof(struct ew_cublaslt, member) },
                      LT_FUNCTIONS(LT_ENTRY)
#undef LT_ENTRY
    };

    b->lib = ew_lib_open(path, NULL);
    if (!b->lib)
        return false;
    for (size_t i = 0; i < EW_COUNT(functions); i++) {
        void *f = ew_lib_symbol(b->lib, functions[i].name);

        if (!f)
            goto fail;
        memcpy((char *)b + functions[i].at, &f, sizeof(f));
    }
    b->version = (uint32_t)b->get_version();
    if (b->version >= OLDEST)
        return true;
fail:
    ew_lib_close(b->lib);
    b->lib = NULL;
    return false;
}

/* Library names, newest first, in one folder or (NULL) where the system looks. */
static bool load_from(struct ew_cublaslt *b, const char *dir)
{
    static const char *const names[] = { "libcublasLt.so.13", "libcublasLt.so.12",
                                         "libcublasLt.so.11" };
    char path[4096];

    for (size_t i = 0; i < EW_COUNT(names); i++) {
        if (dir && !ew_path_join(path, sizeof(path), dir, names[i]))
            continue;
        if (load(b, dir ? path : names[i]))
            return true;
    }
    return false;
}

static bool find(struct ew_cublaslt *b, const char *path)
{
    static const char *const dirs[] = { NULL, "/usr/local/cuda/lib64", "/usr/local/cuda/lib",
                                        "/usr/local/cuda/targets/x86_64-linux/lib",
                                        "/usr/local/cuda/targets/aarch64-linux/lib" };

    if (path)
        return ew_path_is_dir(path) ? load_from(b, path) : load(b, path);
    for (size_t i = 0; i < EW_COUNT(dirs); i++)
        if (load_from(b, dirs[i]))
            return true;
    return false;
}

/* What an algorithm may want: the workspace, and 16-byte rows. */
static lt_status prefer(struct ew_cublaslt *b)
{
    const uint64_t bytes = EW_CUDA_PRODUCT_WORKSPACE;
    const uint32_t alignment = 16;
    lt_status r = b->pref_create(&b->pref);

    if (r) {
        b->pref = NULL;
        return r;
    }
    r = b->pref_set(b->pref, LT_PREF_WORKSPACE, &bytes, sizeof(bytes));
    for (int i = 0; i < 4 && !r; i++)
        r = b->pref_set(b->pref, LT_PREF_ALIGNMENT_A + i, &alignment, sizeof(alignment));
    return r;
}

ew_status ew_cublaslt_open(const char *path, struct ew_cuda_device *d, struct ew_cublaslt **out,
                           ew_error *err)
{
    struct ew_cublaslt *b = ew_mem_calloc(EW_MEM_ENGINE, 1, sizeof(*b));
    lt_status r;

    *out = NULL;
    if (b)
        b->lock = ew_mutex_create();
    if (!b || !b->lock) {
        ew_mem_free(b);
        return ew_fail(err, EW_STATUS_NO_MEMORY, "cuBLASLt");
    }
    b->device = d;
    ew_map_init(&b->map, EW_MEM_ENGINE);
    if (!find(b, path)) {
        ew_cublaslt_close(b);
        return ew_fail(err, EW_STATUS_UNSUPPORTED,
                       "no cuBLASLt (libcublasLt.so.13, .12 or .11): %s%s",
                       path ? "it is not at " : "neither installed nor under /usr/local/cuda",
                       path ? path : "");
    }
    ew_cuda_enter(d);
    r = b->create(&b->handle);
    if (r)
        b->handle = NULL;
    else
        r = prefer(b);
    ew_cuda_leave(d);
    if (r) {
        ew_cublaslt_close(b);
        return lt_failed(r, err, "it does not start");
    }
    *out = b;
    return EW_STATUS_OK;
}

static void plan_free(struct ew_cublaslt_plan *p)
{
    struct ew_cublaslt *b = p->library;

    if (p->desc)
        (void)b->desc_destroy(p->desc);
    if (p->w)
        (void)b->layout_destroy(p->w);
    if (p->x)
        (void)b->layout_destroy(p->x);
    if (p->y)
        (void)b->layout_destroy(p->y);
    ew_mem_free(p);
}

/* The library itself stays loaded: it has left code in the driver's context, and would unload that
 * on its way out. */
void ew_cublaslt_close(struct ew_cublaslt *b)
{
    if (!b)
        return;
    ew_cuda_enter(b->device);
    for (size_t i = 0; i < b->n_plans; i++)
        plan_free(b->plans[i]);
    if (b->pref)
        (void)b->pref_destroy(b->pref);
    if (b->handle)
        (void)b->destroy(b->handle);
    ew_cuda_leave(b->device);
    ew_mem_free(b->plans);
    ew_map_deinit(&b->map);
    ew_mutex_destroy(b->lock);
    ew_mem_free(b);
}

uint32_t ew_cublaslt_version(const struct ew_cublaslt *b)
{
    return b->version;
}

const char *ew_cublaslt_text(uint32_t version, char out[EW_CUBLASLT_TEXT_CAP])
{
    const uint32_t major = version >= 100000 ? 10000 : 1000; /* 11 counted in thousands at first */

    (void)snprintf(out, EW_CUBLASLT_TEXT_CAP, "%u.%u.%u", version / major, version % major / 100,
                   version % 100);
    return out;
}

/* ---- products ---- */

static int type_of(int32_t dtype)
{
    return dtype == EW_DTYPE_BF16 ? LT_R_16BF : dtype == EW_DTYPE_F16 ? LT_R_16F : LT_R_32F;
}

/* Its matrices have columns one after the other, so that a row-major one is its transpose: the
 * library computes y^T [n][m] = W x^T, and W is the one that it transposes. */
static lt_status describe(struct ew_cublaslt_plan *p)
{
    struct ew_cublaslt *b = p->library;
    const struct ew_cuda_product *k = &p->key;
    const int32_t transposed = LT_TRANSPOSED;
    struct lt_answer answer;
    int n = 0;
    lt_status r = b->desc_create(&p->desc, LT_COMPUTE_32F, LT_R_32F);

    if (!r) /* what a failed call leaves in its pointer is not ours to free: they are NULL before */
        r = b->desc_set(p->desc, LT_DESC_TRANSA, &transposed, sizeof(transposed));
    if (!r)
        r = b->layout_create(&p->w, type_of(k->dtype), k->k, k->n, (int64_t)k->w_stride);
    if (!r)
        r = b->layout_create(&p->x, type_of(k->dtype), k->k, k->m, (int64_t)k->x_stride);
    if (!r)
        r = b->layout_create(&p->y, type_of(k->y_dtype), k->n, k->m, (int64_t)k->y_stride);
    memset(&answer, 0, sizeof(answer));
    if (!r)
        r = b->heuristic(b->handle, p->desc, p->w, p->x, p->y, p->y, b->pref, 1, &answer, &n);
    if (!r)
        r = n < 1 ? LT_NOT_SUPPORTED : answer.state;
    memcpy(p->algo, answer.algo, sizeof(p->algo));
    return r;
}

/* What plans are told apart by. */
static struct ew_cuda_product key_of(const struct ew_cuda_product *p)
{
    struct ew_cuda_product key = *p;

    key.w = key.x = key.y = key.workspace = 0;
    key.residual = p->residual != 0;
    key.alpha = 0.0f;
    return key;
}

/* The lock is held. */
static ew_status make(struct ew_cublaslt *b, const struct ew_cuda_product *key,
                      struct ew_cublaslt_plan **out, ew_error *err)
{
    struct ew_cublaslt_plan **more =
        ew_mem_resize(EW_MEM_ENGINE, b->plans, b->n_plans + 1, sizeof(*more));
    struct ew_cublaslt_plan *p;
    char what[96];
    lt_status r;

    if (more)
        b->plans = more;
    p = more ? ew_mem_calloc(EW_MEM_ENGINE, 1, sizeof(*p)) : NULL;
    if (!p)
        return ew_fail(err, EW_STATUS_NO_MEMORY, "cuBLASLt: product");
    p->library = b;
    p->key = *key;
    ew_cuda_enter(b->device);
    r = describe(p);
    ew_cuda_leave(b->device);
    if (!r && ew_map_put(&b->map, (const char *)&p->key, sizeof(p->key), (uint32_t)b->n_plans)) {
        b->plans[b->n_plans++] = *out = p;
        return EW_STATUS_OK;
    }
    plan_free(p);
    if (!r)
        return ew_fail(err, EW_STATUS_NO_MEMORY, "cuBLASLt: product");
    (void)snprintf(what, sizeof(what), "no algorithm for %u rows by [%u,%u] of %s", key->m, key->n,
                   key->k, ew_dtype_text((ew_dtype)key->dtype));
    return lt_failed(r, err, what);
}

ew_status ew_cublaslt_plan(struct ew_cublaslt *b, const struct ew_cuda_product *p,
                           struct ew_cublaslt_plan **out, ew_error *err)
{
    const struct ew_cuda_product key = key_of(p);
    ew_status st = EW_STATUS_OK;
    uint32_t at;

    *out = NULL;
    ew_mutex_lock(b->lock);
    if (ew_map_find(&b->map, (const char *)&key, sizeof(key), &at))
        *out = b->plans[at];
    else
        st = make(b, &key, out, err);
    ew_mutex_unlock(b->lock);
    return st;
}

static void *pointer(uint64_t address)
{
    return (void *)(uintptr_t)address;
}

ew_status ew_cublaslt_run(const struct ew_cublaslt_plan *plan, const struct ew_cuda_product *p,
                          ew_cu_stream stream, ew_error *err)
{
    const struct ew_cublaslt *b = plan->library;
    const float beta = p->residual ? 1.0f : 0.0f;
    lt_status r;

    ew_cuda_enter(b->device);
    r = b->matmul(b->handle, plan->desc, &p->alpha, pointer(p->w), plan->w, pointer(p->x), plan->x,
                  &beta, pointer(p->residual ? p->residual : p->y), plan->y, pointer(p->y), plan->y,
                  plan->algo, pointer(p->workspace), EW_CUDA_PRODUCT_WORKSPACE, stream);
    ew_cuda_leave(b->device);
    return r ? lt_failed(r, err, "product") : EW_STATUS_OK;
}
