/* backend/cuda/queue.h - a stream of one device with a sticky status: after a fault that the
 * context does not survive, every call fails with the same words, which name the launch.
 *
 * One thread at a time. Nothing here allocates or synchronises but what says so. */
#ifndef EW_BACKEND_CUDA_QUEUE_H
#define EW_BACKEND_CUDA_QUEUE_H

#include "backend/cuda/device.h"

struct ew_cuda_queue {
    struct ew_cuda_device *device;
    ew_cu_stream stream;
    ew_error poison;  /* status OK: the queue lives */
    const char *last; /* what was launched last; borrowed */
    bool capturing;
};

ew_status ew_cuda_queue_open(struct ew_cuda_device *d, struct ew_cuda_queue *q, ew_error *err);
void ew_cuda_queue_close(struct ew_cuda_queue *q);

/* The queue's own failure, if it is poisoned. */
ew_status ew_cuda_queue_check(const struct ew_cuda_queue *q, ew_error *err);
/* r of a call that was about `what`; poisons the queue where r is sticky. */
ew_status ew_cuda_queue_failed(struct ew_cuda_queue *q, ew_cu_result r, const char *what,
                               ew_error *err);

/* One launch, or a product, whose plan is f (modules.h). `name` is what an error will call it
 * (borrowed while the queue lives). */
ew_status ew_cuda_queue_launch(struct ew_cuda_queue *q, ew_cu_function f,
                               const struct ew_cuda_launch *l, const char *name, ew_error *err);
/* Asynchronous copies; host memory pinned for them to be so. */
ew_status ew_cuda_queue_upload(struct ew_cuda_queue *q, ew_cu_ptr to, const void *from,
                               size_t bytes, ew_error *err);
ew_status ew_cuda_queue_download(struct ew_cuda_queue *q, void *to, ew_cu_ptr from, size_t bytes,
                                 ew_error *err);
ew_status ew_cuda_queue_copy(struct ew_cuda_queue *q, ew_cu_ptr to, ew_cu_ptr from, size_t bytes,
                             ew_error *err);
/* Pieces with pitches, between device and host or device and device. */
ew_status ew_cuda_queue_copy_rows(struct ew_cuda_queue *q, const ew_cu_copy_2d *c, ew_error *err);
ew_status ew_cuda_queue_fill(struct ew_cuda_queue *q, ew_cu_ptr to, uint8_t value, size_t bytes,
                             ew_error *err);
/* Waits until all is done. */
ew_status ew_cuda_queue_wait(struct ew_cuda_queue *q, ew_error *err);

/* What is launched between them is recorded, not run. */
ew_status ew_cuda_queue_capture(struct ew_cuda_queue *q, ew_error *err);
/* out NULL: what was recorded is dropped. */
ew_status ew_cuda_queue_captured(struct ew_cuda_queue *q, ew_cu_graph_exec *out, ew_error *err);
ew_status ew_cuda_queue_replay(struct ew_cuda_queue *q, ew_cu_graph_exec x, const char *name,
                               ew_error *err);

#endif
