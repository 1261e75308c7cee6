/* backend/cuda/queue.c - launches, copies and captures on one stream. */
#include "backend/cuda/queue.h"

#include <stdio.h>
#include <string.h>

#include "backend/cuda/cublaslt.h"
#include "base/error.h"
#include "kernels/cuda/step.cuh"

#define MAX_ATTRS 3

ew_status ew_cuda_queue_open(struct ew_cuda_device *d, struct ew_cuda_queue *q, ew_error *err)
{
    ew_cu_result r;

    memset(q, 0, sizeof(*q));
    ew_cuda_enter(d);
    r = d->cu.stream_create(&q->stream, EW_CU_STREAM_NON_BLOCKING);
    ew_cuda_leave(d);
    if (r) {
        q->stream = NULL;
        return ew_cu_failed(&d->cu, r, err, "CUDA: stream");
    }
    q->device = d;
    return EW_STATUS_OK;
}

void ew_cuda_queue_close(struct ew_cuda_queue *q)
{
    if (!q->device)
        return;
    ew_cuda_enter(q->device);
    (void)q->device->cu.stream_synchronize(q->stream);
    (void)q->device->cu.stream_destroy(q->stream);
    ew_cuda_leave(q->device);
    memset(q, 0, sizeof(*q));
}

ew_status ew_cuda_queue_check(const struct ew_cuda_queue *q, ew_error *err)
{
    return q->poison.status ? ew_fail(err, q->poison.status, "%s", q->poison.text) : EW_STATUS_OK;
}

/* What a kernel left that gave up waiting. */
static void say_waited(uint32_t fault, char *out, size_t cap)
{
    out[0] = '\0';
    if (fault)
        (void)snprintf(out, cap, ", whose phase %u waited in vain in block %u, warp %u",
                       EW_STEP_FAULT_PHASE(fault), EW_STEP_FAULT_BLOCK(fault),
                       EW_STEP_FAULT_WARP(fault));
}

ew_status ew_cuda_queue_failed(struct ew_cuda_queue *q, ew_cu_result r, const char *what,
                               ew_error *err)
{
    if (!r)
        return EW_STATUS_OK;
    if (!ew_cu_is_sticky(r))
        return ew_cu_failed(&q->device->cu, r, err, "CUDA: %s", what);
    if (!q->poison.status) { /* a fault is seen at a wait: the launch before it is the suspect */
        char waited[96];

        say_waited(*q->device->fault, waited, sizeof(waited));
        (void)ew_cu_failed(&q->device->cu, r, &q->poison, "CUDA: %s, last launch '%s'%s", what,
                           q->last ? q->last : "none", waited);
    }
    return ew_cuda_queue_check(q, err);
}

/* Writes the tensor maps of a launch into its arguments. */
static ew_cu_result encode_maps(const struct ew_cuda_driver *cu, const struct ew_cuda_launch *l,
                                uint8_t *args)
{
    static const uint32_t ones[4] = { 1, 1, 1, 1 };
    ew_cu_result r = 0;

    for (uint32_t i = 0; i < l->n_maps && !r; i++) {
        _Alignas(64) uint8_t map[EW_CU_TENSOR_MAP_BYTES];
        const struct ew_cuda_tensor_map *m = &l->maps[i];
        const uint64_t dims[2] = { m->cols, m->rows }, strides[1] = { m->row_bytes };
        const uint32_t box[2] = { m->box_cols, m->box_rows };
        const int swizzle = m->swizzle_bytes == 128 ? 3 : m->swizzle_bytes == 64 ? 2 : 1;
        const int dtype = m->is_f16 ? EW_CU_TENSOR_MAP_F16 : EW_CU_TENSOR_MAP_BF16;
        const uint64_t dims4[4] = { m->cols, 8, 2, m->pair_rows / 8 };
        const uint64_t strides4[3] = { m->row_bytes, m->row_bytes * m->pair_rows,
                                       m->row_bytes * 8 };
        const uint32_t box4[4] = { m->box_cols, 8, 2, m->box_rows / 16 };
        void *address;

        memcpy(&address, &m->address, sizeof(address));
        if (m->pair_rows)
            r = cu->tensor_map(map, dtype, 4, address, dims4, strides4, box4, ones, 0, swizzle,
                               EW_CU_TENSOR_MAP_L2_256, 0);
        else
            r = cu->tensor_map(map, dtype, 2, address, dims, strides, box, ones, 0, swizzle,
                               EW_CU_TENSOR_MAP_L2_256, 0);
        memcpy(args + m->arg_offset, map, sizeof(map));
    }
    return r;
}

/* A fault of its kernels is seen by the next call to the driver, like one of ours. */
static ew_status launch_product(struct ew_cuda_queue *q, const struct ew_cublaslt_plan *plan,
                                const struct ew_cuda_launch *l, const char *name, ew_error *err)
{
    struct ew_cuda_product p;
    ew_status st;

    memcpy(&p, l->args, sizeof(p));
    st = ew_cublaslt_run(plan, &p, q->stream, err);
    q->last = name;
    if (st)
        ew_error_within(err, "CUDA: %s", name);
    return st;
}

ew_status ew_cuda_queue_launch(struct ew_cuda_queue *q, ew_cu_function f,
                               const struct ew_cuda_launch *l, const char *name, ew_error *err)
{
    ew_cu_launch_attribute attrs[MAX_ATTRS];
    ew_cu_launch_config c = { .shared_bytes = l->shared_bytes,
                              .stream = q->stream,
                              .attrs = attrs };
    _Alignas(64) uint8_t args[EW_CUDA_ARGS_CAP];
    void *params[] = { args };
    ew_cu_result r;

    EW_TRY(ew_cuda_queue_check(q, err));
    if (l->product)
        return launch_product(q, f, l, name, err);
    memset(attrs, 0, sizeof(attrs));
    memcpy(c.grid, l->grid, sizeof(c.grid));
    memcpy(c.block, l->block, sizeof(c.block));
    memcpy(args, l->args, l->arg_bytes);
    if (l->cluster > 1) {
        attrs[c.n_attrs].id = EW_CU_LAUNCH_CLUSTER;
        attrs[c.n_attrs].value.cluster[0] = l->cluster;
        attrs[c.n_attrs].value.cluster[1] = attrs[c.n_attrs].value.cluster[2] = 1;
        c.n_attrs++;
    }
    if (l->cooperative) {
        attrs[c.n_attrs].id = EW_CU_LAUNCH_COOPERATIVE;
        attrs[c.n_attrs++].value.on = 1;
    }
    if (l->early_start && q->device->chip.sm >= 90) {
        attrs[c.n_attrs].id = EW_CU_LAUNCH_EARLY_START;
        attrs[c.n_attrs++].value.on = 1;
    }
    ew_cuda_enter(q->device);
    r = encode_maps(&q->device->cu, l, args);
    if (!r)
        r = q->device->cu.launch(&c, f, params, NULL);
    ew_cuda_leave(q->device);
    if (r)
        return ew_cuda_queue_failed(q, r, name, err);
    q->last = name;
    return EW_STATUS_OK;
}

ew_status ew_cuda_queue_upload(struct ew_cuda_queue *q, ew_cu_ptr to, const void *from,
                               size_t bytes, ew_error *err)
{
    ew_cu_result r;

    EW_TRY(ew_cuda_queue_check(q, err));
    ew_cuda_enter(q->device);
    r = q->device->cu.upload(to, from, bytes, q->stream);
    ew_cuda_leave(q->device);
    return ew_cuda_queue_failed(q, r, "upload", err);
}

ew_status ew_cuda_queue_download(struct ew_cuda_queue *q, void *to, ew_cu_ptr from, size_t bytes,
                                 ew_error *err)
{
    ew_cu_result r;

    EW_TRY(ew_cuda_queue_check(q, err));
    ew_cuda_enter(q->device);
    r = q->device->cu.download(to, from, bytes, q->stream);
    ew_cuda_leave(q->device);
    return ew_cuda_queue_failed(q, r, "download", err);
}

ew_status ew_cuda_queue_copy(struct ew_cuda_queue *q, ew_cu_ptr to, ew_cu_ptr from, size_t bytes,
                             ew_error *err)
{
    ew_cu_result r;

    EW_TRY(ew_cuda_queue_check(q, err));
    ew_cuda_enter(q->device);
    r = q->device->cu.copy(to, from, bytes, q->stream);
    ew_cuda_leave(q->device);
    return ew_cuda_queue_failed(q, r, "copy", err);
}

ew_status ew_cuda_queue_copy_rows(struct ew_cuda_queue *q, const ew_cu_copy_2d *c, ew_error *err)
{
    ew_cu_result r;

    EW_TRY(ew_cuda_queue_check(q, err));
    ew_cuda_enter(q->device);
    r = q->device->cu.copy_2d(c, q->stream);
    ew_cuda_leave(q->device);
    return ew_cuda_queue_failed(q, r, "copy", err);
}

ew_status ew_cuda_queue_fill(struct ew_cuda_queue *q, ew_cu_ptr to, uint8_t value, size_t bytes,
                             ew_error *err)
{
    ew_cu_result r;

    EW_TRY(ew_cuda_queue_check(q, err));
    ew_cuda_enter(q->device);
    r = q->device->cu.fill(to, value, bytes, q->stream);
    ew_cuda_leave(q->device);
    return ew_cuda_queue_failed(q, r, "fill", err);
}

ew_status ew_cuda_queue_wait(struct ew_cuda_queue *q, ew_error *err)
{
    ew_cu_result r;

    EW_TRY(ew_cuda_queue_check(q, err));
    ew_cuda_enter(q->device);
    r = q->device->cu.stream_synchronize(q->stream);
    ew_cuda_leave(q->device);
    return ew_cuda_queue_failed(q, r, "waiting for the device", err);
}

ew_status ew_cuda_queue_capture(struct ew_cuda_queue *q, ew_error *err)
{
    ew_cu_result r;

    EW_TRY(ew_cuda_queue_check(q, err));
    ew_cuda_enter(q->device);
    r = q->device->cu.capture_begin(q->stream, EW_CU_CAPTURE_RELAXED);
    ew_cuda_leave(q->device);
    q->capturing = !r;
    return ew_cuda_queue_failed(q, r, "capture", err);
}

ew_status ew_cuda_queue_captured(struct ew_cuda_queue *q, ew_cu_graph_exec *out, ew_error *err)
{
    const struct ew_cuda_driver *cu = &q->device->cu;
    ew_cu_graph graph = NULL;
    ew_cu_graph_exec x = NULL;
    ew_cu_result r;

    q->capturing = false;
    ew_cuda_enter(q->device);
    r = cu->capture_end(q->stream, &graph);
    if (!r && graph && out)
        r = cu->graph_instantiate(&x, graph, 0);
    if (!r && x)
        r = cu->graph_upload(x, q->stream);
    if (graph)
        (void)cu->graph_destroy(graph);
    if (r && x) {
        (void)cu->graph_exec_destroy(x);
        x = NULL;
    }
    ew_cuda_leave(q->device);
    if (out)
        *out = x;
    return ew_cuda_queue_failed(q, r, "capture", err);
}

ew_status ew_cuda_queue_replay(struct ew_cuda_queue *q, ew_cu_graph_exec x, const char *name,
                               ew_error *err)
{
    ew_cu_result r;

    EW_TRY(ew_cuda_queue_check(q, err));
    ew_cuda_enter(q->device);
    r = q->device->cu.graph_launch(x, q->stream);
    ew_cuda_leave(q->device);
    if (!r)
        q->last = name;
    return ew_cuda_queue_failed(q, r, name, err);
}
