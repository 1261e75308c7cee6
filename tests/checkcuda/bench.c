/* bench.c - timing launches as one replayed graph over several copies of the inputs, so that no
 * repeat finds its weights in L2. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "state.h"

#define MAX_COPIES 64
#define REPEATS    5

struct copies {
    size_t n;
    uint64_t *base; /* [n][n_buffers]; copy 0 is the case's own */
};

static size_t n_copies(const struct cc *c)
{
    size_t bytes = 0, n;

    for (size_t i = 0; i < c->n_buffers; i++)
        bytes += c->buffers[i].is_input ? c->buffers[i].bytes : 0;
    n = bytes ? (size_t)(3 * c->chip.l2_bytes / bytes) + 2 : 1;
    return n > MAX_COPIES ? MAX_COPIES : n;
}

static ew_status copies_make(struct cc *c, struct copies *k, ew_error *err)
{
    k->n = n_copies(c);
    k->base = calloc(k->n * c->n_buffers + 1, sizeof(*k->base));
    if (!k->base)
        abort();
    for (size_t j = 0; j < k->n; j++)
        for (size_t i = 0; i < c->n_buffers; i++) {
            const struct cc_buffer *b = &c->buffers[i];
            uint64_t *at = &k->base[j * c->n_buffers + i];
            ew_status st;

            if (j == 0 || !b->is_input) {
                *at = 0;
                continue;
            }
            st = ew_cuda_alloc(c->device, b->bytes + 256, "copy for timing", at, err);
            if (!st)
                st = ew_cuda_queue_copy(&c->queue, *at, b->address, b->bytes, err);
            if (st)
                return st;
        }
    return ew_cuda_queue_wait(&c->queue, err);
}

static void copies_drop(struct cc *c, struct copies *k)
{
    for (size_t i = 0; k->base && i < k->n * c->n_buffers; i++)
        ew_cuda_free(c->device, k->base[i]);
    free(k->base);
}

static uint64_t move(const struct cc *c, const struct copies *k, size_t j, uint64_t v)
{
    for (size_t i = 0; i < c->n_buffers; i++) {
        const struct cc_buffer *b = &c->buffers[i];
        const uint64_t to = k->base[j * c->n_buffers + i];

        if (to && v >= b->address && v < b->address + b->bytes)
            return to + (v - b->address);
    }
    return v;
}

/* The launch with every address of an input moved to copy j. */
static void move_args(const struct cc *c, const struct copies *k, size_t j,
                      struct ew_cuda_launch *l)
{
    for (uint32_t at = 0; at + 8 <= l->arg_bytes; at += 8) {
        uint64_t v;

        memcpy(&v, l->args + at, 8);
        v = move(c, k, j, v);
        memcpy(l->args + at, &v, 8);
    }
    for (uint32_t i = 0; i < l->n_maps; i++)
        l->maps[i].address = move(c, k, j, l->maps[i].address);
}

static ew_status record(struct cc *c, const struct copies *k, const struct ew_cuda_launch *l,
                        size_t n, ew_cu_graph_exec *out, ew_error *err)
{
    ew_status st = ew_cuda_queue_capture(&c->queue, err);

    if (st)
        return st;
    for (size_t j = 0; j < k->n; j++)
        for (size_t i = 0; i < n && !st; i++) {
            struct ew_cuda_launch moved = l[i];
            ew_cu_function f;

            move_args(c, k, j, &moved);
            st = ew_cuda_modules_get(c->modules, &moved, &f, err);
            if (!st)
                st = ew_cuda_queue_launch(&c->queue, f, &moved, l[i].spec.entry, err);
        }
    if (st) {
        (void)ew_cuda_queue_captured(&c->queue, NULL, NULL);
        return st;
    }
    return ew_cuda_queue_captured(&c->queue, out, err);
}

/* Milliseconds of one replay, the least of some. */
static ew_status replay(struct cc *c, ew_cu_graph_exec x, double *best, ew_error *err)
{
    const struct ew_cuda_driver *cu = &c->device->cu;
    ew_cu_event from = NULL, to = NULL;
    ew_cu_result r;
    float ms = 0;

    *best = 1e30;
    ew_cuda_enter(c->device);
    r = cu->event_create(&from, 0);
    if (!r)
        r = cu->event_create(&to, 0);
    for (int i = 0; i < REPEATS + 1 && !r; i++) {
        r = cu->event_record(from, c->queue.stream);
        if (!r)
            r = cu->graph_launch(x, c->queue.stream);
        if (!r)
            r = cu->event_record(to, c->queue.stream);
        if (!r)
            r = cu->event_synchronize(to);
        if (!r)
            r = cu->event_elapsed(&ms, from, to);
        if (!r && i > 0 && (double)ms < *best) /* the first one warms up */
            *best = (double)ms;
    }
    if (from)
        (void)cu->event_destroy(from);
    if (to)
        (void)cu->event_destroy(to);
    ew_cuda_leave(c->device);
    return ew_cuda_queue_failed(&c->queue, r, "timing", err);
}

void cc_bench_run(struct cc *c, const struct ew_cuda_launch *l, size_t n, double bytes,
                  double flops)
{
    struct copies k = { 0 };
    ew_cu_graph_exec x = NULL;
    ew_error err = { 0 };
    double ms = 0;
    ew_status st = copies_make(c, &k, &err);

    if (!st)
        st = record(c, &k, l, n, &x, &err);
    if (!st)
        st = replay(c, x, &ms, &err);
    if (x) {
        ew_cuda_enter(c->device);
        (void)c->device->cu.graph_exec_destroy(x);
        ew_cuda_leave(c->device);
    }
    if (st) {
        cc_fail(c, "timing: %s", err.text);
    } else {
        const double s = ms * 1e-3 / (double)k.n;

        printf("%-64s %9.2f us %8.1f GB/s %8.2f TFLOP/s\n", c->name, s * 1e6, bytes / s * 1e-9,
               flops / s * 1e-12);
        (void)fflush(stdout);
    }
    copies_drop(c, &k);
}
