/* kernels/cuda/copy_words.cuh - arguments of copy_words.cu. */
#ifndef EW_KERNELS_CUDA_COPY_WORDS_CUH
#define EW_KERNELS_CUDA_COPY_WORDS_CUH

#include <stdint.h>

struct ew_cuda_copy_args {
    uint64_t to, from; /* may not overlap */
    uint64_t n;        /* 4-byte words */
};

#endif
