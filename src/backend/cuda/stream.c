/* backend/cuda/stream.c - running launch lists on a stream: step by step, timed or not, or as one
 * recorded graph. */
#include "backend/cuda/stream.h"

#include <string.h>

#include "backend/cuda/cuda.h"
#include "base/mem.h"

struct ew_stream {
    struct ew_cuda *cuda;
    struct ew_cuda_queue queue;
    ew_cu_event marks[2];
    ew_cu_event *events; /* of timed runs */
    size_t n_events;
};

struct ew_recording {
    ew_cu_graph_exec exec;
};

static ew_cu_ptr as_device(const void *p)
{
    return (ew_cu_ptr)(uintptr_t)p;
}

static ew_status open_stream(struct ew_device *d, struct ew_stream **out, ew_error *err)
{
    struct ew_stream *s = ew_mem_calloc(EW_MEM_CONTEXT, 1, sizeof(*s));
    ew_status st;

    *out = NULL;
    if (!s)
        return ew_fail(err, EW_STATUS_NO_MEMORY, "CUDA stream");
    s->cuda = (struct ew_cuda *)d;
    st = ew_cuda_queue_open(s->cuda->device, &s->queue, err);
    if (st) {
        ew_mem_free(s);
        return st;
    }
    *out = s;
    return EW_STATUS_OK;
}

static void close_stream(struct ew_stream *s)
{
    if (!s)
        return;
    ew_cuda_enter(s->cuda->device);
    for (size_t i = 0; i < s->n_events; i++)
        (void)s->cuda->device->cu.event_destroy(s->events[i]);
    for (int i = 0; i < 2; i++)
        if (s->marks[i])
            (void)s->cuda->device->cu.event_destroy(s->marks[i]);
    ew_cuda_leave(s->cuda->device);
    ew_cuda_queue_close(&s->queue);
    ew_mem_free(s->events);
    ew_mem_free(s);
}

static ew_status upload(struct ew_stream *s, void *to, const void *from, size_t bytes,
                        ew_error *err)
{
    return bytes ? ew_cuda_queue_upload(&s->queue, as_device(to), from, bytes, err) : EW_STATUS_OK;
}

static ew_status download(struct ew_stream *s, void *to, const void *from, size_t bytes,
                          ew_error *err)
{
    return bytes ? ew_cuda_queue_download(&s->queue, to, as_device(from), bytes, err)
                 : EW_STATUS_OK;
}

static ew_status wait(struct ew_stream *s, ew_error *err)
{
    return ew_cuda_queue_wait(&s->queue, err);
}

static ew_status issue_step(struct ew_stream *s, const struct ew_cuda_step *c, ew_error *err)
{
    if (c->kind == EW_CUDA_STEP_COPY)
        return ew_cuda_queue_copy(&s->queue, c->to, c->from, c->bytes, err);
    return ew_cuda_queue_launch(&s->queue, c->function, &c->launch, c->name, err);
}

static ew_status need_events(struct ew_stream *s, size_t n, ew_error *err)
{
    const struct ew_cuda_driver *cu = &s->cuda->device->cu;
    ew_cu_event *more;

    if (s->n_events >= n)
        return EW_STATUS_OK;
    more = ew_mem_resize(EW_MEM_CONTEXT, s->events, n, sizeof(*more));
    if (!more)
        return ew_fail(err, EW_STATUS_NO_MEMORY, "CUDA events");
    s->events = more;
    while (s->n_events < n) {
        ew_cu_result r;

        ew_cuda_enter(s->cuda->device);
        r = cu->event_create(&s->events[s->n_events], 0);
        ew_cuda_leave(s->cuda->device);
        if (r)
            return ew_cu_failed(cu, r, err, "CUDA: event");
        s->n_events++;
    }
    return EW_STATUS_OK;
}

static ew_status record_event(struct ew_stream *s, ew_cu_event e, ew_error *err)
{
    ew_cu_result r;

    ew_cuda_enter(s->cuda->device);
    r = s->cuda->device->cu.event_record(e, s->queue.stream);
    ew_cuda_leave(s->cuda->device);
    return ew_cuda_queue_failed(&s->queue, r, "event", err);
}

static ew_status mark(struct ew_stream *s, unsigned i, ew_error *err)
{
    EW_TRY(ew_cuda_queue_check(&s->queue, err));
    if (!s->marks[i]) {
        ew_cu_result r;

        ew_cuda_enter(s->cuda->device);
        r = s->cuda->device->cu.event_create(&s->marks[i], EW_CU_EVENT_NO_TIMING);
        ew_cuda_leave(s->cuda->device);
        if (r)
            return ew_cu_failed(&s->cuda->device->cu, r, err, "CUDA: event");
    }
    return record_event(s, s->marks[i], err);
}

static ew_status wait_mark(struct ew_stream *s, unsigned i, ew_error *err)
{
    ew_cu_result r;

    EW_TRY(ew_cuda_queue_check(&s->queue, err));
    ew_cuda_enter(s->cuda->device);
    r = s->cuda->device->cu.event_synchronize(s->marks[i]);
    ew_cuda_leave(s->cuda->device);
    return ew_cuda_queue_failed(&s->queue, r, "waiting for the device", err);
}

/* Nanoseconds of events 0..n since event 0. */
static ew_status read_events(struct ew_stream *s, size_t n, uint64_t *ns, ew_error *err)
{
    EW_TRY(ew_cuda_queue_wait(&s->queue, err));
    for (size_t i = 0; i <= n; i++) {
        float ms = 0;
        ew_cu_result r = 0;

        ew_cuda_enter(s->cuda->device);
        if (i)
            r = s->cuda->device->cu.event_elapsed(&ms, s->events[0], s->events[i]);
        ew_cuda_leave(s->cuda->device);
        if (r)
            return ew_cuda_queue_failed(&s->queue, r, "event", err);
        ns[i] = (uint64_t)((double)ms * 1e6);
    }
    return EW_STATUS_OK;
}

static ew_status issue(struct ew_stream *s, const struct ew_step_list *list, size_t begin,
                       size_t end, uint64_t *step_ns, ew_error *err)
{
    const size_t n = end - begin;

    if (step_ns)
        EW_TRY(need_events(s, n + 1, err));
    for (size_t i = 0; i < n; i++) {
        const struct ew_cuda_step *c = list->steps[begin + i].args;
        ew_status st;

        if (step_ns)
            EW_TRY(record_event(s, s->events[i], err));
        if (s->cuda->ranges.push)
            (void)s->cuda->ranges.push(c->name);
        st = issue_step(s, c, err);
        if (s->cuda->ranges.push)
            (void)s->cuda->ranges.pop();
        if (st)
            return st;
    }
    if (!step_ns)
        return EW_STATUS_OK;
    EW_TRY(record_event(s, s->events[n], err));
    return read_events(s, n, step_ns, err);
}

static ew_status record(struct ew_stream *s, const struct ew_step_list *list,
                        struct ew_recording **out, ew_error *err)
{
    struct ew_recording *r = ew_mem_calloc(EW_MEM_CONTEXT, 1, sizeof(*r));
    ew_status st;

    *out = NULL;
    if (!r)
        return ew_fail(err, EW_STATUS_NO_MEMORY, "CUDA graph");
    st = ew_cuda_queue_capture(&s->queue, err);
    if (!st) {
        ew_status ended;

        st = issue(s, list, 0, list->n, NULL, err);
        ended = ew_cuda_queue_captured(&s->queue, st ? NULL : &r->exec, st ? NULL : err);
        st = st ? st : ended;
    }
    if (st) {
        ew_mem_free(r);
        return st;
    }
    *out = r;
    return EW_STATUS_OK;
}

static ew_status replay(struct ew_stream *s, struct ew_recording *r, ew_error *err)
{
    return r->exec ? ew_cuda_queue_replay(&s->queue, r->exec, "captured graph", err)
                   : EW_STATUS_OK; /* of an empty list */
}

static void drop(struct ew_stream *s, struct ew_recording *r)
{
    if (!r)
        return;
    (void)ew_cuda_queue_wait(&s->queue, NULL);
    ew_cuda_enter(s->cuda->device);
    if (r->exec)
        (void)s->cuda->device->cu.graph_exec_destroy(r->exec);
    ew_cuda_leave(s->cuda->device);
    ew_mem_free(r);
}

const struct ew_device_ops *ew_cuda_device_ops(void)
{
    static const struct ew_device_ops ops = { ew_cuda_close_device,
                                              open_stream,
                                              close_stream,
                                              upload,
                                              download,
                                              wait,
                                              mark,
                                              wait_mark,
                                              issue,
                                              record,
                                              replay,
                                              drop };

    return &ops;
}
