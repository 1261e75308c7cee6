/* kernels/cuda/source.h - the text of every .cu and .cuh file beside it, embedded into the library
 * at build time (cmake/embed.cmake). */
#ifndef EW_KERNELS_CUDA_SOURCE_H
#define EW_KERNELS_CUDA_SOURCE_H

#include <stddef.h>

struct ew_cuda_text {
    const char *name; /* "linear_gemv.cu", "half.cuh" */
    const char *text; /* NUL-terminated */
    size_t len;
};

/* All of them, sorted by name. Static. */
const struct ew_cuda_text *ew_cuda_texts(size_t *n);
/* By file name; a spec's source "linear_gemv" is "linear_gemv.cu". NULL: there is none. */
const struct ew_cuda_text *ew_cuda_text_find(const char *name);
/* Text of kernels/cuda/<source>.cu or NULL. */
const char *ew_cuda_source_find(const char *source);

#endif
