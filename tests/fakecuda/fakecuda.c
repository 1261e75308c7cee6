/* fakecuda.c - the driver's entry points over host memory. See fakecuda.h. */
#include "fakecuda.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "backend/cuda/driver.h"
#include "kernels/cuda/kernel.h"

#define EXPORT        __attribute__((visibility("default")))
#define MAX_NAMES     64
#define MAX_ALLOCS    65536
#define INVALID       1
#define OUT_OF_MEMORY EW_CU_OUT_OF_MEMORY

struct fake_launch {
    const char *entry;
    unsigned grid[3];
    _Alignas(64) unsigned char args[EW_CUDA_ARGS_CAP];
};

struct fake_op { /* of a graph */
    enum { OP_LAUNCH, OP_COPY, OP_FILL } kind;
    void *to;
    const void *from;
    size_t bytes;
    unsigned char value;
    struct fake_launch *launch; /* OP_LAUNCH: owned by the graph that has it */
};

struct fake_graph {
    struct fake_op *ops;
    size_t n, cap;
};

struct fake_stream {
    struct fake_graph *capturing;
    int busy; /* something was queued that nobody has waited for */
};

static struct {
    pthread_mutex_t lock;
    int ready, sm, n_sm, version, devices, integrated, sticky;
    size_t memory, used;
    struct counter {
        char name[48];
        uint64_t count, fail_at;
        int result, for_ever;
    } counters[MAX_NAMES];
    size_t n_counters;
    char entries[MAX_NAMES][64]; /* functions are pointers to their names */
    size_t n_entries;
    fakecuda_launch_fn *on_launch;
    void *on_launch_ctx;
    struct {
        void *at;
        size_t bytes;
    } allocs[MAX_ALLOCS];
    size_t n_allocs;
    uint64_t live, busy, early;
    int contexts;
} fake = { .lock = PTHREAD_MUTEX_INITIALIZER,
           .sm = 90,
           .n_sm = 132,
           .version = 13000,
           .devices = 1,
           .memory = FAKECUDA_MEMORY };

static struct counter *counter_of(const char *name)
{
    for (size_t i = 0; i < fake.n_counters; i++)
        if (strcmp(fake.counters[i].name, name) == 0)
            return &fake.counters[i];
    if (fake.n_counters == MAX_NAMES)
        abort();
    (void)snprintf(fake.counters[fake.n_counters].name, sizeof(fake.counters[0].name), "%s", name);
    return &fake.counters[fake.n_counters++];
}

/* "name:k:result" */
static void read_failure(char *text, int for_ever)
{
    char *k = strchr(text, ':'), *r = k ? strchr(k + 1, ':') : NULL;
    struct counter *c;

    if (!r)
        abort();
    *k++ = 0;
    *r++ = 0;
    c = counter_of(text);
    c->fail_at = strtoull(k, NULL, 10);
    c->result = (int)strtol(r, NULL, 10);
    c->for_ever = for_ever;
}

static void configure(void)
{
    const char *env = getenv("FAKECUDA");
    char *text = env ? strdup(env) : NULL, *save = NULL;

    fake.ready = 1;
    for (char *w = text ? strtok_r(text, ",", &save) : NULL; w; w = strtok_r(NULL, ",", &save)) {
        char *v = strchr(w, '=');

        if (!v)
            abort();
        *v++ = 0;
        if (strcmp(w, "sm") == 0)
            fake.sm = (int)strtol(v, NULL, 10);
        else if (strcmp(w, "n_sm") == 0)
            fake.n_sm = (int)strtol(v, NULL, 10);
        else if (strcmp(w, "version") == 0)
            fake.version = (int)strtol(v, NULL, 10);
        else if (strcmp(w, "devices") == 0)
            fake.devices = (int)strtol(v, NULL, 10);
        else if (strcmp(w, "integrated") == 0)
            fake.integrated = (int)strtol(v, NULL, 10);
        else if (strcmp(w, "memory") == 0)
            fake.memory = strtoull(v, NULL, 10);
        else if (strcmp(w, "fail") == 0)
            read_failure(v, 1);
        else if (strcmp(w, "once") == 0)
            read_failure(v, 0);
        else
            abort();
    }
    free(text);
}

/* Counts a call. Not 0: it fails with that. */
static int enter(const char *name)
{
    struct counter *c;
    int result = 0;

    (void)pthread_mutex_lock(&fake.lock);
    if (!fake.ready)
        configure();
    c = counter_of(name);
    c->count++;
    if (c->fail_at && (c->count == c->fail_at || (c->for_ever && c->count > c->fail_at)))
        result = c->result;
    if (result == EW_CU_ILLEGAL_ADDRESS || result == EW_CU_LAUNCH_FAILED)
        fake.sticky = result;
    (void)pthread_mutex_unlock(&fake.lock);
    return result;
}

#define ENTER(name)                                                                                \
    do {                                                                                           \
        const int failed_ = enter(name);                                                           \
        if (failed_)                                                                               \
            return failed_;                                                                        \
    } while (0)
#define ENTER_QUEUE(name)                                                                          \
    do {                                                                                           \
        ENTER(name);                                                                               \
        if (fake.sticky)                                                                           \
            return fake.sticky;                                                                    \
    } while (0)

EXPORT uint64_t fakecuda_count(const char *function)
{
    uint64_t n;

    (void)pthread_mutex_lock(&fake.lock);
    n = counter_of(function)->count;
    (void)pthread_mutex_unlock(&fake.lock);
    return n;
}

EXPORT void fakecuda_fail(const char *function, uint64_t k, int result, int for_ever)
{
    struct counter *c;

    (void)pthread_mutex_lock(&fake.lock);
    c = counter_of(function);
    c->fail_at = c->count + k;
    c->result = result;
    c->for_ever = for_ever;
    (void)pthread_mutex_unlock(&fake.lock);
}

EXPORT void fakecuda_reset(void)
{
    (void)pthread_mutex_lock(&fake.lock);
    memset(fake.counters, 0, sizeof(fake.counters));
    fake.n_counters = 0;
    fake.sticky = 0;
    (void)pthread_mutex_unlock(&fake.lock);
}

EXPORT void fakecuda_on_launch(fakecuda_launch_fn *fn, void *ctx)
{
    fake.on_launch = fn;
    fake.on_launch_ctx = ctx;
}

EXPORT void fakecuda_integrated(int integrated)
{
    fake.integrated = integrated;
}

EXPORT void fakecuda_machine(int devices, int sm, size_t memory)
{
    fake.devices = devices;
    fake.sm = sm;
    fake.memory = memory;
}

EXPORT uint64_t fakecuda_live(void)
{
    return fake.live;
}

EXPORT uint64_t fakecuda_busy(void)
{
    uint64_t n;

    (void)pthread_mutex_lock(&fake.lock);
    n = fake.busy;
    (void)pthread_mutex_unlock(&fake.lock);
    return n;
}

EXPORT uint64_t fakecuda_early(void)
{
    return fake.early;
}

static void set_busy(struct fake_stream *s, int busy)
{
    if (!s)
        return;
    (void)pthread_mutex_lock(&fake.lock);
    fake.busy += (uint64_t)(busy - s->busy);
    s->busy = busy;
    (void)pthread_mutex_unlock(&fake.lock);
}

static void count_kernel(void)
{
    (void)pthread_mutex_lock(&fake.lock);
    counter_of("kernels")->count++;
    (void)pthread_mutex_unlock(&fake.lock);
}

static struct fake_launch *new_launch(void)
{
    struct fake_launch *l = aligned_alloc(64, (sizeof(*l) + 63) / 64 * 64);

    if (!l)
        abort();
    return l;
}

static struct fake_launch *copy_launch(const struct fake_launch *from)
{
    struct fake_launch *l = new_launch();

    *l = *from;
    return l;
}

static void run_launch(const struct fake_launch *l)
{
    count_kernel();
    if (fake.on_launch)
        fake.on_launch(fake.on_launch_ctx, l->entry, l->grid, l->args);
}

static void run_op(const struct fake_op *op)
{
    if (op->kind == OP_LAUNCH)
        run_launch(op->launch);
    else if (op->kind == OP_COPY)
        memmove(op->to, op->from, op->bytes);
    else
        memset(op->to, op->value, op->bytes);
}

static int queue_op(void *stream, struct fake_op op)
{
    struct fake_stream *s = stream;
    struct fake_graph *g = s ? s->capturing : NULL;

    if (!g) {
        set_busy(s, 1);
        run_op(&op);
        free(op.launch);
        return 0;
    }
    if (g->n == g->cap) {
        g->cap = g->cap ? g->cap * 2 : 64;
        g->ops = realloc(g->ops, g->cap * sizeof(*g->ops));
        if (!g->ops)
            abort();
    }
    g->ops[g->n++] = op;
    return 0;
}

static void *pointer(ew_cu_ptr p)
{
    return (void *)(uintptr_t)p;
}

static int allocate(void **out, size_t bytes, int device)
{
    void *at = NULL;

    if (!bytes)
        return INVALID;
    (void)pthread_mutex_lock(&fake.lock);
    if ((device && bytes > fake.memory - fake.used) || fake.n_allocs == MAX_ALLOCS ||
        posix_memalign(&at, 512, bytes)) {
        (void)pthread_mutex_unlock(&fake.lock);
        return OUT_OF_MEMORY;
    }
    fake.allocs[fake.n_allocs].at = at;
    fake.allocs[fake.n_allocs++].bytes = device ? bytes : 0;
    fake.used += device ? bytes : 0;
    fake.live += device != 0;
    (void)pthread_mutex_unlock(&fake.lock);
    memset(at, 0xdd, bytes);
    *out = at;
    return 0;
}

static int release(void *at, int device)
{
    (void)pthread_mutex_lock(&fake.lock);
    for (size_t i = 0; i < fake.n_allocs; i++)
        if (fake.allocs[i].at == at) {
            fake.used -= fake.allocs[i].bytes;
            fake.live -= device != 0;
            fake.allocs[i] = fake.allocs[--fake.n_allocs];
            (void)pthread_mutex_unlock(&fake.lock);
            free(at);
            return 0;
        }
    (void)pthread_mutex_unlock(&fake.lock);
    return INVALID;
}

/* ---- the driver ---- */
#define FAKE(name, args)                                                                           \
    EXPORT int name args;                                                                          \
    EXPORT int name args

FAKE(cuInit, (unsigned flags))
{
    (void)flags;
    ENTER("cuInit");
    return fake.devices ? 0 : EW_CU_NO_DEVICE;
}

FAKE(cuDriverGetVersion, (int *version))
{
    ENTER("cuDriverGetVersion");
    *version = fake.version;
    return 0;
}

FAKE(cuGetErrorName, (int r, const char **text))
{
    *text = r == OUT_OF_MEMORY           ? "CUDA_ERROR_OUT_OF_MEMORY"
            : r == EW_CU_ILLEGAL_ADDRESS ? "CUDA_ERROR_ILLEGAL_ADDRESS"
                                         : "CUDA_ERROR_FAKE";
    return 0;
}

FAKE(cuGetErrorString, (int r, const char **text))
{
    (void)r;
    *text = "said by the fake driver";
    return 0;
}

FAKE(cuDeviceGetCount, (int *n))
{
    ENTER("cuDeviceGetCount");
    *n = fake.devices;
    return 0;
}

FAKE(cuDeviceGet, (int *d, int i))
{
    ENTER("cuDeviceGet");
    *d = i;
    return 0;
}

FAKE(cuDeviceGetName, (char *name, int cap, int d))
{
    ENTER("cuDeviceGetName");
    (void)snprintf(name, (size_t)cap, "Fake GPU %d", d);
    return 0;
}

FAKE(cuDeviceGetAttribute, (int *v, int attribute, int d))
{
    (void)d;
    ENTER("cuDeviceGetAttribute");
    switch (attribute) {
    case EW_CU_ATTR_MAJOR:
        *v = fake.sm / 10;
        return 0;
    case EW_CU_ATTR_MINOR:
        *v = fake.sm % 10;
        return 0;
    case EW_CU_ATTR_N_SM:
        *v = fake.n_sm;
        return 0;
    case EW_CU_ATTR_SHARED_OPTIN:
        *v = 232448;
        return 0;
    case EW_CU_ATTR_L2_BYTES:
        *v = 1 << 20;
        return 0;
    case EW_CU_ATTR_INTEGRATED:
        *v = fake.integrated;
        return 0;
    case EW_CU_ATTR_COOPERATIVE:
        *v = 1;
        return 0;
    default:
        *v = 0;
        return 0;
    }
}

FAKE(cuDeviceTotalMem_v2, (size_t * bytes, int d))
{
    (void)d;
    ENTER("cuDeviceTotalMem_v2");
    *bytes = fake.memory;
    return 0;
}

FAKE(cuDevicePrimaryCtxRetain, (void **c, int d))
{
    (void)d;
    ENTER("cuDevicePrimaryCtxRetain");
    fake.contexts++;
    *c = &fake;
    return 0;
}

FAKE(cuDevicePrimaryCtxRelease_v2, (int d))
{
    (void)d;
    ENTER("cuDevicePrimaryCtxRelease_v2");
    fake.contexts--;
    return 0;
}

FAKE(cuCtxPushCurrent_v2, (void *c))
{
    return c == &fake ? 0 : INVALID;
}

FAKE(cuCtxPopCurrent_v2, (void **c))
{
    *c = &fake;
    return 0;
}

FAKE(cuCtxSynchronize, (void))
{
    ENTER_QUEUE("cuCtxSynchronize");
    return 0;
}

FAKE(cuMemGetInfo_v2, (size_t * free_bytes, size_t *total))
{
    ENTER("cuMemGetInfo_v2");
    *free_bytes = fake.memory - fake.used;
    *total = fake.memory;
    return 0;
}

FAKE(cuMemAlloc_v2, (ew_cu_ptr * p, size_t bytes))
{
    void *at = NULL;
    int r;

    ENTER("cuMemAlloc_v2");
    r = allocate(&at, bytes, 1);
    *p = (ew_cu_ptr)(uintptr_t)at;
    return r;
}

FAKE(cuMemFree_v2, (ew_cu_ptr p))
{
    ENTER("cuMemFree_v2");
    return release(pointer(p), 1);
}

FAKE(cuMemHostAlloc, (void **p, size_t bytes, unsigned flags))
{
    (void)flags;
    ENTER("cuMemHostAlloc");
    return allocate(p, bytes, 0);
}

FAKE(cuMemFreeHost, (void *p))
{
    (void)pthread_mutex_lock(&fake.lock);
    fake.early += fake.busy != 0;
    (void)pthread_mutex_unlock(&fake.lock);
    ENTER("cuMemFreeHost");
    return release(p, 0);
}

FAKE(cuMemHostRegister_v2, (void *p, size_t bytes, unsigned flags))
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    unsigned char *there = malloc(bytes / page + 1);
    int r;

    (void)flags;
    ENTER("cuMemHostRegister_v2");
    if (!there)
        return OUT_OF_MEMORY;
    r = mincore(p, bytes, there); /* whole pages, all of them mapped */
    free(there);
    return r || bytes % page ? INVALID : 0;
}

FAKE(cuMemHostUnregister, (void *p))
{
    (void)p;
    ENTER("cuMemHostUnregister");
    return 0;
}

FAKE(cuMemHostGetDevicePointer_v2, (ew_cu_ptr * d, void *p, unsigned flags))
{
    (void)flags;
    ENTER("cuMemHostGetDevicePointer_v2");
    *d = (ew_cu_ptr)(uintptr_t)p;
    return 0;
}

FAKE(cuMemcpyHtoDAsync_v2, (ew_cu_ptr to, const void *from, size_t bytes, void *s))
{
    ENTER_QUEUE("cuMemcpyHtoDAsync_v2");
    return queue_op(s, (struct fake_op){ OP_COPY, pointer(to), from, bytes, 0, NULL });
}

FAKE(cuMemcpyDtoHAsync_v2, (void *to, ew_cu_ptr from, size_t bytes, void *s))
{
    ENTER_QUEUE("cuMemcpyDtoHAsync_v2");
    return queue_op(s, (struct fake_op){ OP_COPY, to, pointer(from), bytes, 0, NULL });
}

FAKE(cuMemcpyDtoDAsync_v2, (ew_cu_ptr to, ew_cu_ptr from, size_t bytes, void *s))
{
    ENTER_QUEUE("cuMemcpyDtoDAsync_v2");
    return queue_op(s, (struct fake_op){ OP_COPY, pointer(to), pointer(from), bytes, 0, NULL });
}

FAKE(cuMemcpy2DAsync_v2, (const ew_cu_copy_2d *c, void *s))
{
    char *const to = c->dst_type == EW_CU_MEMORY_HOST ? c->dst_host : pointer(c->dst_device);
    const char *const from =
        c->src_type == EW_CU_MEMORY_HOST ? c->src_host : pointer(c->src_device);

    ENTER_QUEUE("cuMemcpy2DAsync_v2");
    if (c->width > c->src_pitch || c->width > c->dst_pitch)
        return INVALID;
    for (size_t i = 0; i < c->height; i++)
        (void)queue_op(s, (struct fake_op){ OP_COPY, to + i * c->dst_pitch, from + i * c->src_pitch,
                                            c->width, 0, NULL });
    return 0;
}

FAKE(cuMemsetD8Async, (ew_cu_ptr p, unsigned char v, size_t bytes, void *s))
{
    ENTER_QUEUE("cuMemsetD8Async");
    return queue_op(s, (struct fake_op){ OP_FILL, pointer(p), NULL, bytes, v, NULL });
}

FAKE(cuStreamCreate, (void **s, unsigned flags))
{
    (void)flags;
    ENTER("cuStreamCreate");
    *s = calloc(1, sizeof(struct fake_stream));
    return *s ? 0 : OUT_OF_MEMORY;
}

FAKE(cuStreamDestroy_v2, (void *s))
{
    set_busy(s, 0);
    ENTER("cuStreamDestroy_v2");
    free(s);
    return 0;
}

FAKE(cuStreamSynchronize, (void *s))
{
    ENTER_QUEUE("cuStreamSynchronize");
    set_busy(s, 0);
    return 0;
}

FAKE(cuStreamBeginCapture_v2, (void *stream, int mode))
{
    struct fake_stream *s = stream;

    (void)mode;
    ENTER_QUEUE("cuStreamBeginCapture_v2");
    if (s->capturing)
        return INVALID;
    s->capturing = calloc(1, sizeof(*s->capturing));
    return s->capturing ? 0 : OUT_OF_MEMORY;
}

FAKE(cuStreamEndCapture, (void *stream, void **g))
{
    struct fake_stream *s = stream;

    *g = s->capturing;
    s->capturing = NULL;
    ENTER("cuStreamEndCapture");
    return *g ? 0 : INVALID;
}

FAKE(cuEventCreate, (void **e, unsigned flags))
{
    (void)flags;
    ENTER("cuEventCreate");
    *e = malloc(1); /* an address of its own */
    return *e ? 0 : OUT_OF_MEMORY;
}

FAKE(cuEventDestroy_v2, (void *e))
{
    ENTER("cuEventDestroy_v2");
    free(e);
    return 0;
}

FAKE(cuEventRecord, (void *e, void *s))
{
    (void)e;
    (void)s;
    ENTER_QUEUE("cuEventRecord");
    return 0;
}

FAKE(cuEventSynchronize, (void *e))
{
    (void)e;
    ENTER_QUEUE("cuEventSynchronize");
    return 0;
}

FAKE(cuEventElapsedTime, (float *ms, void *from, void *to))
{
    (void)from;
    (void)to;
    ENTER("cuEventElapsedTime");
    *ms = 0.01f;
    return 0;
}

FAKE(cuGraphInstantiateWithFlags, (void **x, void *graph, unsigned long long flags))
{
    const struct fake_graph *g = graph;
    struct fake_graph *copy = calloc(1, sizeof(*copy));

    (void)flags;
    *x = copy;
    if (!copy)
        return OUT_OF_MEMORY;
    copy->n = copy->cap = g->n;
    copy->ops = calloc(g->n + 1, sizeof(*copy->ops));
    if (!copy->ops)
        abort();
    for (size_t i = 0; i < g->n; i++) {
        copy->ops[i] = g->ops[i];
        if (g->ops[i].launch)
            copy->ops[i].launch = copy_launch(g->ops[i].launch);
    }
    ENTER("cuGraphInstantiateWithFlags");
    return 0;
}

FAKE(cuGraphLaunch, (void *x, void *s))
{
    const struct fake_graph *g = x;

    ENTER_QUEUE("cuGraphLaunch");
    set_busy(s, 1);
    for (size_t i = 0; i < g->n; i++)
        run_op(&g->ops[i]);
    return 0;
}

FAKE(cuGraphUpload, (void *x, void *s))
{
    (void)x;
    (void)s;
    ENTER("cuGraphUpload");
    return 0;
}

static void drop_graph(struct fake_graph *g)
{
    if (g)
        for (size_t i = 0; i < g->n; i++)
            free(g->ops[i].launch);
    free(g->ops);
    free(g);
}

FAKE(cuGraphExecDestroy, (void *x))
{
    ENTER("cuGraphExecDestroy");
    drop_graph(x);
    return 0;
}

FAKE(cuGraphDestroy, (void *g))
{
    ENTER("cuGraphDestroy");
    drop_graph(g);
    return 0;
}

FAKE(cuModuleLoadData, (void **m, const void *image))
{
    ENTER("cuModuleLoadData");
    if (memcmp(image, "\177ELF", 4) != 0)
        return EW_CU_INVALID_IMAGE;
    *m = malloc(1);
    return *m ? 0 : OUT_OF_MEMORY;
}

FAKE(cuModuleUnload, (void *m))
{
    ENTER("cuModuleUnload");
    free(m);
    return 0;
}

FAKE(cuModuleGetFunction, (void **f, void *m, const char *name))
{
    size_t i = 0;

    (void)m;
    ENTER("cuModuleGetFunction");
    (void)pthread_mutex_lock(&fake.lock);
    while (i < fake.n_entries && strcmp(fake.entries[i], name) != 0)
        i++;
    if (i == MAX_NAMES || strlen(name) >= sizeof(fake.entries[0]))
        abort();
    if (i == fake.n_entries)
        (void)snprintf(fake.entries[fake.n_entries++], sizeof(fake.entries[0]), "%s", name);
    (void)pthread_mutex_unlock(&fake.lock);
    *f = fake.entries[i];
    return 0;
}

FAKE(cuFuncSetAttribute, (void *f, int attribute, int value))
{
    (void)f;
    (void)attribute;
    (void)value;
    ENTER("cuFuncSetAttribute");
    return 0;
}

FAKE(cuOccupancyMaxActiveBlocksPerMultiprocessor, (int *n, void *f, int threads, size_t shared))
{
    (void)f;
    (void)threads;
    (void)shared;
    ENTER("cuOccupancyMaxActiveBlocksPerMultiprocessor");
    *n = 1;
    return 0;
}

FAKE(cuTensorMapEncodeTiled,
     (void *map, int dtype, uint32_t rank, void *address, const uint64_t *dims,
      const uint64_t *strides, const uint32_t *box, const uint32_t *element_strides, int interleave,
      int swizzle, int l2_promotion, int fill))
{
    (void)dtype;
    (void)dims;
    (void)strides;
    (void)element_strides;
    (void)interleave;
    (void)swizzle;
    (void)l2_promotion;
    (void)fill;
    ENTER("cuTensorMapEncodeTiled");
    memset(map, 0, EW_CU_TENSOR_MAP_BYTES);
    return (rank != 2 && rank != 4) || (uintptr_t)address % 16 || box[0] > 256 || box[1] > 256 ||
                   (uintptr_t)map % 64
               ? INVALID
               : 0;
}

FAKE(cuLaunchKernelEx, (const ew_cu_launch_config *c, void *f, void **params, void **extra))
{
    struct fake_launch *l;

    ENTER_QUEUE("cuLaunchKernelEx");
    if (!f || !params || extra || !c->grid[0] || !c->grid[1] || !c->grid[2] || !c->block[0] ||
        c->block[0] * c->block[1] * c->block[2] > 1024 || c->grid[1] > 65535 || c->grid[2] > 65535)
        return INVALID;
    l = new_launch();
    l->entry = f;
    memcpy(l->grid, c->grid, sizeof(l->grid));
    memcpy(l->args, params[0], sizeof(l->args)); /* the backend's block has room for the most */
    return queue_op(c->stream, (struct fake_op){ .kind = OP_LAUNCH, .launch = l });
}

/* NVRTC asks a driver that is there for private tables; there are none. */
FAKE(cuGetExportTable, (const void **table, const void *id))
{
    (void)id;
    *table = NULL;
    return 500;
}
