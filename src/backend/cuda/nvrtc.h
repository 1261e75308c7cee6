/* backend/cuda/nvrtc.h - the run-time compiler, loaded when the builder needs it: an engine file
 * holds compiled kernels, so that running needs none.
 *
 * Thread safety: compile from any number of threads. */
#ifndef EW_BACKEND_CUDA_NVRTC_H
#define EW_BACKEND_CUDA_NVRTC_H

#include <stddef.h>

#include "kernels/cuda/kernel.h"
#include "edgewise/base.h"

struct ew_nvrtc;

/* path: the library or a folder that has it; NULL: libnvrtc.so.13, .12, .11 as the system finds
 * them, then under /usr/local/cuda. UNSUPPORTED: there is none, or none that works. */
ew_status ew_nvrtc_open(const char *path, struct ew_nvrtc **out, ew_error *err);
void ew_nvrtc_close(struct ew_nvrtc *c); /* NULL is fine */
/* 13000 for CUDA 13.0. */
int ew_nvrtc_version(const struct ew_nvrtc *c);
/* A hash of what it says of its build (an update of a release may make other code under the same
 * version) and of the few headers that every kernel gets from here. 0: it does not say. */
uint64_t ew_nvrtc_build(const struct ew_nvrtc *c);
/* Whether it can make code for this chip. */
bool ew_nvrtc_supports(const struct ew_nvrtc *c, uint32_t sm);

/* What the compiler is told for a kernel, in one line. */
#define EW_NVRTC_OPTIONS_CAP (EW_CUDA_DEFINES_CAP + 128)
void ew_nvrtc_options(char out[EW_NVRTC_OPTIONS_CAP], const struct ew_cuda_spec *spec, uint32_t sm);

/* A spec to a cubin for chip `sm` (90 means 90a). *cubin is freed by ew_mem_free. On failure err
 * has the first error line of the compiler's log; where `log` is given, *log has all of it
 * (ew_mem_free; warnings too when it worked, NULL when there is nothing). */
ew_status ew_nvrtc_compile(struct ew_nvrtc *c, const struct ew_cuda_spec *spec, uint32_t sm,
                           void **cubin, size_t *n_bytes, char **log, ew_error *err);

#endif
