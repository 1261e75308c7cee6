/* backend/cuda/device.h - one GPU of this process: its driver, its primary context, what kernels
 * may know of it, and its memory.
 *
 *   ew_cuda_device  driver table + context + chip     (opened by each engine and builder; contexts
 *        |                                             of one GPU share the driver's primary one)
 *        +-- queue   (queue.h)    a stream and its sticky status
 *        +-- kernels (modules.h)  spec -> function
 *
 * Thread safety: memory functions any thread; every function makes the context current for its
 * call and puts back what was. */
#ifndef EW_BACKEND_CUDA_DEVICE_H
#define EW_BACKEND_CUDA_DEVICE_H

#include "backend/cuda/driver.h"
#include "kernels/cuda/kernel.h"

struct ew_cuda_device {
    struct ew_cuda_driver cu;
    ew_cu_device id;
    int index;
    ew_cu_context context;
    struct ew_cuda_chip chip;
    char name[128];
    uint64_t memory_bytes;
    uint64_t peak_bytes_per_s; /* of its memory, by clock and width; 0: unknown */
    bool integrated;           /* shares the host's memory */
    /* Pinned, 0: where a kernel says what it waited for in vain before it traps, after which the
     * device's own memory cannot be read (kernels/cuda/step.cuh: fault). */
    volatile uint32_t *fault;
};

/* index: which GPU; driver NULL: libcuda.so.1. UNSUPPORTED: no driver, no such GPU, or one older
 * than sm_80. */
ew_status ew_cuda_device_open(int index, const char *driver, struct ew_cuda_device **out,
                              ew_error *err);
void ew_cuda_device_close(struct ew_cuda_device *d); /* NULL is fine */
/* "cuda:0", "cuda" -> 0; false for anything else. */
bool ew_cuda_device_parse(const char *text, int *index);

/* What engines for this GPU are known by, without starting it: "NVIDIA H200 sm_90 x132". Errors as
 * ew_cuda_device_open; INVALID_ARG: no such text. */
ew_status ew_cuda_device_describe(const char *text, char *out, size_t cap, ew_error *err);

/* Every call into the driver is between these. */
void ew_cuda_enter(const struct ew_cuda_device *d);
void ew_cuda_leave(const struct ew_cuda_device *d);

/* Device memory, 256-byte aligned; not zeroed. NO_MEMORY says how much was free. `what` names it.
 */
ew_status ew_cuda_alloc(struct ew_cuda_device *d, size_t bytes, const char *what, ew_cu_ptr *out,
                        ew_error *err);
void ew_cuda_free(struct ew_cuda_device *d, ew_cu_ptr p); /* 0 is fine */
/* Host memory that the device can copy to and from without a staging copy. */
ew_status ew_cuda_host_alloc(struct ew_cuda_device *d, size_t bytes, const char *what, void **out,
                             ew_error *err);
void ew_cuda_host_free(struct ew_cuda_device *d, void *p); /* NULL is fine */

#endif
