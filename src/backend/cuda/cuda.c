/* backend/cuda/cuda.c - the device object of an engine or a builder: opening, weights, memory. */
#include "backend/cuda/cuda.h"

#include <stdio.h>
#include <string.h>

#include "backend/cuda/stream.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/size.h"
#include "os/os.h"

#define STAGING_BYTES ((size_t)16 << 20)
#define N_STAGING     2

static void *as_pointer(ew_cu_ptr p)
{
    return (void *)(uintptr_t)p;
}

static ew_cu_ptr as_device(const void *p)
{
    return (ew_cu_ptr)(uintptr_t)p;
}

/* ---- ew_memory ---- */

static ew_status memory_alloc(void *ctx, size_t bytes, const char *what, void **out, ew_error *err)
{
    struct ew_cuda *c = ctx;
    ew_cu_ptr p;
    ew_status st;

    *out = NULL;
    EW_TRY(ew_cuda_alloc(c->device, bytes, what, &p, err));
    ew_mutex_lock(c->memory_lock);
    st = ew_cuda_queue_fill(&c->memory_queue, p, 0, bytes ? bytes : 1, err);
    if (!st)
        st = ew_cuda_queue_wait(&c->memory_queue, err);
    ew_mutex_unlock(c->memory_lock);
    if (st) {
        ew_cuda_free(c->device, p);
        return st;
    }
    ew_mem_note(EW_MEM_GPU, (int64_t)bytes);
    *out = as_pointer(p);
    return EW_STATUS_OK;
}

static void memory_release(void *ctx, void *p, size_t bytes)
{
    struct ew_cuda *c = ctx;

    if (p)
        ew_mem_note(EW_MEM_GPU, -(int64_t)bytes);
    ew_cuda_free(c->device, as_device(p));
}

static ew_status memory_alloc_host(void *ctx, size_t bytes, const char *what, void **out,
                                   ew_error *err)
{
    struct ew_cuda *c = ctx;

    EW_TRY(ew_cuda_host_alloc(c->device, bytes, what, out, err));
    memset(*out, 0, bytes);
    ew_mem_note(EW_MEM_PINNED, (int64_t)bytes);
    return EW_STATUS_OK;
}

static void memory_release_host(void *ctx, void *p, size_t bytes)
{
    struct ew_cuda *c = ctx;

    if (p)
        ew_mem_note(EW_MEM_PINNED, -(int64_t)bytes);
    ew_cuda_host_free(c->device, p);
}

static ew_status copy_flat(struct ew_cuda_queue *q, ew_copy_kind kind, void *to, const void *from,
                           size_t bytes, ew_error *err)
{
    switch (kind) {
    case EW_COPY_UPLOAD:
        return ew_cuda_queue_upload(q, as_device(to), from, bytes, err);
    case EW_COPY_DOWNLOAD:
        return ew_cuda_queue_download(q, to, as_device(from), bytes, err);
    default:
        return ew_cuda_queue_copy(q, as_device(to), as_device(from), bytes, err);
    }
}

static ew_status copy_rows(struct ew_cuda_queue *q, ew_copy_kind kind, void *to, size_t to_pitch,
                           const void *from, size_t from_pitch, size_t width, size_t height,
                           ew_error *err)
{
    ew_cu_copy_2d d = {
        .src_pitch = from_pitch, .dst_pitch = to_pitch, .width = width, .height = height
    };

    d.src_type = kind == EW_COPY_UPLOAD ? EW_CU_MEMORY_HOST : EW_CU_MEMORY_DEVICE;
    d.dst_type = kind == EW_COPY_DOWNLOAD ? EW_CU_MEMORY_HOST : EW_CU_MEMORY_DEVICE;
    if (kind == EW_COPY_UPLOAD)
        d.src_host = from;
    else
        d.src_device = as_device(from);
    if (kind == EW_COPY_DOWNLOAD)
        d.dst_host = to;
    else
        d.dst_device = as_device(to);
    return ew_cuda_queue_copy_rows(q, &d, err);
}

static ew_status memory_copy(void *ctx, ew_copy_kind kind, void *to, size_t to_pitch,
                             const void *from, size_t from_pitch, size_t width, size_t height,
                             ew_error *err)
{
    struct ew_cuda *c = ctx;
    ew_status st;

    if (!width || !height)
        return EW_STATUS_OK;
    ew_mutex_lock(c->memory_lock);
    if (height == 1)
        st = copy_flat(&c->memory_queue, kind, to, from, width, err);
    else
        st = copy_rows(&c->memory_queue, kind, to, to_pitch, from, from_pitch, width, height, err);
    if (!st)
        st = ew_cuda_queue_wait(&c->memory_queue, err);
    ew_mutex_unlock(c->memory_lock);
    return st;
}

/* ---- opening ---- */

void ew_cuda_close_device(struct ew_device *d)
{
    ew_cuda_close((struct ew_cuda *)d);
}

static struct ew_cuda *cuda_new(ew_error *err)
{
    struct ew_cuda *c = ew_mem_calloc(EW_MEM_ENGINE, 1, sizeof(*c));

    if (!c) {
        ew_fail(err, EW_STATUS_NO_MEMORY, "CUDA device");
        return NULL;
    }
    c->base.ops = ew_cuda_device_ops();
    c->base.memory = (ew_memory){
        c, false, memory_alloc, memory_release, memory_alloc_host, memory_release_host, memory_copy
    };
    return c;
}

ew_status ew_cuda_bare(int index, bool compiles, struct ew_cuda **out, ew_error *err)
{
    struct ew_cuda *c = cuda_new(err);
    ew_status st;

    *out = NULL;
    if (!c)
        return EW_STATUS_NO_MEMORY;
    st = ew_cuda_device_open(index, NULL, &c->device, err);
    if (!st && compiles)
        st = ew_nvrtc_open(NULL, &c->compiler, err);
    if (!st) {
        c->chip = c->device->chip;
        (void)snprintf(c->base.text, sizeof(c->base.text), "cuda:%d (%s, sm_%u)", index,
                       c->device->name, c->chip.sm);
        st = ew_cuda_modules_open(c->device, c->compiler, &c->modules, err);
    }
    if (!st)
        st = ew_cuda_queue_open(c->device, &c->memory_queue, err);
    if (!st) {
        c->memory_lock = ew_mutex_create();
        if (!c->memory_lock)
            st = ew_fail(err, EW_STATUS_NO_MEMORY, "CUDA device");
    }
    if (st) {
        ew_cuda_close(c);
        return st;
    }
    *out = c;
    return EW_STATUS_OK;
}

ew_status ew_cuda_load_library(struct ew_cuda *c, ew_error *err)
{
    EW_TRY(ew_cublaslt_open(NULL, c->device, &c->library, err));
    ew_cuda_modules_set_library(c->modules, c->library);
    c->chip.cublaslt = ew_cublaslt_version(c->library);
    return EW_STATUS_OK;
}

ew_status ew_cuda_dry(const struct ew_cuda_chip *chip,
                      void (*see)(void *ctx, const struct ew_cuda_launch *l), void *ctx,
                      struct ew_cuda **out, ew_error *err)
{
    *out = cuda_new(err);
    if (!*out)
        return EW_STATUS_NO_MEMORY;
    (*out)->chip = *chip;
    (*out)->see = see;
    (*out)->see_ctx = ctx;
    return EW_STATUS_OK;
}

void ew_cuda_close(struct ew_cuda *c)
{
    if (!c)
        return;
    if (c->device) {
        ew_cuda_queue_close(&c->memory_queue);
        ew_cuda_modules_close(c->modules);
        ew_cublaslt_close(c->library);
        ew_cuda_free(c->device, c->weights);
        if (c->weights)
            ew_mem_note(EW_MEM_GPU_WEIGHTS, -(int64_t)c->base.weights_bytes);
        if (c->registered) {
            ew_cuda_enter(c->device);
            (void)c->device->cu.host_unregister(c->registered);
            ew_cuda_leave(c->device);
        }
    }
    ew_mutex_destroy(c->memory_lock);
    ew_nvrtc_close(c->compiler);
    ew_cuda_ranges_close(&c->ranges);
    ew_cuda_device_close(c->device);
    ew_mem_free(c);
}

/* ---- weights ---- */

/* On a chip that shares the host's memory the mapped file itself is what kernels read: its pages,
 * as the driver takes nothing beside them. False: the driver will not have it. */
static bool share_weights(struct ew_cuda *c, const uint8_t *from, size_t bytes)
{
    const uintptr_t page = ew_os_page_bytes(), begin = (uintptr_t)from / page * page;
    const size_t len = ew_align_up((uintptr_t)from + bytes - begin, page);
    const struct ew_cuda_driver *cu = &c->device->cu;
    void *at = (void *)begin;
    ew_cu_ptr p = 0;
    ew_cu_result r;

    ew_cuda_enter(c->device);
    r = cu->host_register(at, len, EW_CU_HOST_REGISTER_DEVICE_MAP | EW_CU_HOST_REGISTER_READ_ONLY);
    if (!r) {
        r = cu->host_device_pointer(&p, at, 0);
        if (r)
            (void)cu->host_unregister(at);
    }
    ew_cuda_leave(c->device);
    if (r)
        return false;
    c->registered = at;
    c->base.weights = as_pointer(p + ((uintptr_t)from - begin));
    return true;
}

struct staging {
    void *host[N_STAGING];
    ew_cu_event done[N_STAGING];
};

static ew_status staging_open(struct ew_cuda *c, struct staging *s, ew_error *err)
{
    for (int i = 0; i < N_STAGING; i++) {
        ew_cu_result r;

        EW_TRY(ew_cuda_host_alloc(c->device, STAGING_BYTES, "staging", &s->host[i], err));
        ew_cuda_enter(c->device);
        r = c->device->cu.event_create(&s->done[i], EW_CU_EVENT_NO_TIMING);
        ew_cuda_leave(c->device);
        if (r) {
            s->done[i] = NULL;
            return ew_cu_failed(&c->device->cu, r, err, "CUDA: event");
        }
    }
    return EW_STATUS_OK;
}

static void staging_close(struct ew_cuda *c, struct staging *s)
{
    ew_cuda_enter(c->device);
    for (int i = 0; i < N_STAGING; i++)
        if (s->done[i])
            (void)c->device->cu.event_destroy(s->done[i]);
    ew_cuda_leave(c->device);
    for (int i = 0; i < N_STAGING; i++)
        ew_cuda_host_free(c->device, s->host[i]);
}

/* Piece by piece through two pinned buffers: one is filled while the other travels. */
static ew_status stream_weights(struct ew_cuda *c, struct staging *s, const uint8_t *from,
                                size_t bytes, ew_error *err)
{
    const struct ew_cuda_driver *cu = &c->device->cu;
    unsigned i = 0;

    for (size_t at = 0; at < bytes; at += STAGING_BYTES, i++) {
        const size_t n = bytes - at < STAGING_BYTES ? bytes - at : STAGING_BYTES;
        ew_cu_result r = 0;

        ew_cuda_enter(c->device);
        if (i >= N_STAGING)
            r = cu->event_synchronize(s->done[i % N_STAGING]);
        ew_cuda_leave(c->device);
        if (r)
            return ew_cuda_queue_failed(&c->memory_queue, r, "uploading weights", err);
        memcpy(s->host[i % N_STAGING], from + at, n);
        EW_TRY(ew_cuda_queue_upload(&c->memory_queue, c->weights + at, s->host[i % N_STAGING], n,
                                    err));
        ew_cuda_enter(c->device);
        r = cu->event_record(s->done[i % N_STAGING], c->memory_queue.stream);
        ew_cuda_leave(c->device);
        if (r)
            return ew_cuda_queue_failed(&c->memory_queue, r, "uploading weights", err);
    }
    return ew_cuda_queue_wait(&c->memory_queue, err);
}

static ew_status load_weights(struct ew_cuda *c, const uint8_t *from, size_t bytes, ew_error *err)
{
    struct staging s = { 0 };
    ew_status st;

    c->base.weights_bytes = bytes;
    if (!bytes || (c->device->integrated && share_weights(c, from, bytes)))
        return EW_STATUS_OK;
    EW_TRY(ew_cuda_alloc(c->device, bytes, "weights", &c->weights, err));
    ew_mem_note(EW_MEM_GPU_WEIGHTS, (int64_t)bytes);
    c->base.weights = as_pointer(c->weights);
    st = staging_open(c, &s, err);
    if (!st)
        st = stream_weights(c, &s, from, bytes, err);
    if (st) /* a piece may be on its way */
        (void)ew_cuda_queue_wait(&c->memory_queue, NULL);
    staging_close(c, &s);
    return st;
}

static ew_status check_chip(const struct ew_plan *p, const struct ew_cuda *c, ew_error *err)
{
    const struct ew_plan_device *d = &p->device;

    if (d->sm == c->chip.sm && d->n_sm == c->chip.n_sm &&
        d->shared_per_block == c->chip.shared_per_block)
        return EW_STATUS_OK;
    return ew_fail(err, EW_STATUS_MISMATCH,
                   "engine was built for %s (sm_%u, %u multiprocessors), GPU %d is %s (sm_%u, %u)",
                   d->name, d->sm, d->n_sm, c->device->index, c->device->name, c->chip.sm,
                   c->chip.n_sm);
}

/* Without the library that the engine was timed with, or with another version of it, whose bits may
 * be others, products run as the engine's own kernels. */
static ew_status take_library(const struct ew_plan *p, struct ew_cuda *c, const ew_logger *logger)
{
    char want[EW_CUBLASLT_TEXT_CAP], have[EW_CUBLASLT_TEXT_CAP];
    ew_error why = { 0 };
    const ew_status st = p->device.cublaslt ? ew_cuda_load_library(c, &why) : EW_STATUS_OK;

    if (st == EW_STATUS_NO_MEMORY)
        return st;
    if (c->chip.cublaslt && c->chip.cublaslt != p->device.cublaslt) {
        (void)ew_fail(&why, EW_STATUS_MISMATCH, "this machine has %s",
                      ew_cublaslt_text(c->chip.cublaslt, have));
        c->chip.cublaslt = 0;
        ew_cuda_modules_set_library(c->modules, NULL);
        ew_cublaslt_close(c->library);
        c->library = NULL;
    }
    if (why.status)
        ew_log(logger, EW_LOG_INFO,
               "the engine uses cuBLASLt %s: %s; its products run as kernels of the engine",
               ew_cublaslt_text(p->device.cublaslt, want), why.text);
    return EW_STATUS_OK;
}

ew_status ew_cuda_open(const struct ew_plan *p, int index, const char *profiler,
                       const ew_logger *logger, struct ew_device **out, ew_error *err)
{
    struct ew_cuda *c = NULL;
    ew_status st = ew_cuda_bare(index < 0 ? 0 : index, false, &c, err);

    *out = NULL;
    if (st)
        return st;
    ew_cuda_ranges_open(&c->ranges, profiler, logger);
    st = check_chip(p, c, err);
    if (!st && take_library(p, c, logger))
        st = ew_fail(err, EW_STATUS_NO_MEMORY, "cuBLASLt");
    for (uint32_t i = 0; i < p->n_images && !st; i++) {
        const struct ew_cuda_image image = { p->images[i].source, p->images[i].defines,
                                             p->images[i].code, (size_t)p->images[i].bytes };

        st = ew_cuda_modules_add(c->modules, &image, err);
    }
    if (!st)
        st = load_weights(c, p->weights, (size_t)p->weights_bytes, err);
    if (st) {
        ew_cuda_close(c);
        return st;
    }
    ew_log(logger, EW_LOG_INFO, "%s: %llu bytes of weights%s", c->base.text,
           (unsigned long long)p->weights_bytes, c->registered ? ", shared with the host" : "");
    *out = &c->base;
    return EW_STATUS_OK;
}
