/* backend/cuda/nvrtc_cache.h - compiled kernels kept in a folder by a hash of all that they are
 * made from. What is there is believed when its own hash is right; else it is compiled and put
 * there. A compiler that does not say which build it is keeps nothing.
 *
 * Thread safety: compile from any number of threads and processes. */
#ifndef EW_BACKEND_CUDA_NVRTC_CACHE_H
#define EW_BACKEND_CUDA_NVRTC_CACHE_H

#include "backend/cuda/nvrtc.h"

/* As ew_nvrtc_compile; *log is NULL for a kernel that was there. dir NULL: nothing is kept. A
 * folder that cannot be written keeps nothing, which is no error. */
ew_status ew_nvrtc_compile_in(const char *dir, struct ew_nvrtc *c, const struct ew_cuda_spec *spec,
                              uint32_t sm, void **cubin, size_t *n_bytes, char **log,
                              ew_error *err);

#endif
