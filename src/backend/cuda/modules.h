/* backend/cuda/modules.h - compiled kernels of one device: spec -> cubin -> function.
 *
 * A table starts with the cubins of an engine file; with a compiler (the builder, tests) a spec
 * that is not there is compiled when asked for. Functions live until the table is closed.
 *
 * Thread safety: get from any thread. */
#ifndef EW_BACKEND_CUDA_MODULES_H
#define EW_BACKEND_CUDA_MODULES_H

#include "backend/cuda/cublaslt.h"
#include "backend/cuda/device.h"
#include "backend/cuda/nvrtc.h"

struct ew_cuda_modules;

struct ew_cuda_image { /* one compiled (source, defines); entries share it */
    const char *source, *defines;
    const void *cubin;
    size_t n_bytes;
};

/* compiler NULL: nothing is compiled. Both are borrowed. */
ew_status ew_cuda_modules_open(struct ew_cuda_device *d, struct ew_nvrtc *compiler,
                               struct ew_cuda_modules **out, ew_error *err);
void ew_cuda_modules_close(struct ew_cuda_modules *m); /* NULL is fine */
/* Who multiplies products; borrowed. Before anything is asked for. */
void ew_cuda_modules_set_library(struct ew_cuda_modules *m, struct ew_cublaslt *library);
/* Gives the table an image; its pointers are borrowed until close. */
ew_status ew_cuda_modules_add(struct ew_cuda_modules *m, const struct ew_cuda_image *image,
                              ew_error *err);
/* The function of a spec, with its limit of dynamic shared memory raised to shared_bytes.
 * NOT_FOUND: no image has it and there is no compiler. Of a product: its plan, which
 * ew_cuda_queue_launch takes as well. */
ew_status ew_cuda_modules_get(struct ew_cuda_modules *m, const struct ew_cuda_launch *l,
                              ew_cu_function *out, ew_error *err);
/* Image i, in the order they came; false past the end. */
bool ew_cuda_modules_image(struct ew_cuda_modules *m, size_t i, struct ew_cuda_image *out);

#endif
