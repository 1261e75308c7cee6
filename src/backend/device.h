/* backend/device.h - an accelerator that an engine runs on: memory of its own, streams, recorded
 * launch lists. The CPU has none of this: its backend's `device` is NULL.
 *
 *   engine --open--> ew_device (weights are there)     context --open_stream--> ew_stream
 *   list of steps --record--> recording --replay--> one launch a run
 *
 * A device: any thread. A stream: one thread at a time. Errors that the device does not survive
 * come back from every later call of the stream with the same words. */
#ifndef EW_BACKEND_DEVICE_H
#define EW_BACKEND_DEVICE_H

#include "edgewise/memory.h"

struct ew_step_list;
struct ew_stream;    /* defined by the backend */
struct ew_recording; /* likewise */
struct ew_device;

struct ew_device_ops {
    void (*close)(struct ew_device *d);
    ew_status (*open_stream)(struct ew_device *d, struct ew_stream **out, ew_error *err);
    void (*close_stream)(struct ew_stream *s);
    /* Asynchronous where the host memory is pinned; in order with what else the stream does. */
    ew_status (*upload)(struct ew_stream *s, void *to, const void *from, size_t bytes,
                        ew_error *err);
    ew_status (*download)(struct ew_stream *s, void *to, const void *from, size_t bytes,
                          ew_error *err);
    ew_status (*wait)(struct ew_stream *s, ew_error *err);
    /* Mark i of two: set behind all that was asked for so far, waited for later. */
    ew_status (*mark)(struct ew_stream *s, unsigned i, ew_error *err);
    ew_status (*wait_mark)(struct ew_stream *s, unsigned i, ew_error *err);
    /* Issues steps [begin, end) one by one. step_ns [end - begin + 1]: times of begins and of the
     * end (then it waits), or NULL. */
    ew_status (*issue)(struct ew_stream *s, const struct ew_step_list *list, size_t begin,
                       size_t end, uint64_t *step_ns, ew_error *err);
    ew_status (*record)(struct ew_stream *s, const struct ew_step_list *list,
                        struct ew_recording **out, ew_error *err);
    ew_status (*replay)(struct ew_stream *s, struct ew_recording *r, ew_error *err);
    void (*drop)(struct ew_stream *s, struct ew_recording *r); /* waits for its last replay */
};

struct ew_device {
    const struct ew_device_ops *ops;
    ew_memory memory;
    char text[160];      /* "cuda:0 (NVIDIA H200, sm_90)" */
    const void *weights; /* where the engine's WEIGHTS section is */
    uint64_t weights_bytes;
};

#endif
