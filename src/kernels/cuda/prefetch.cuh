/* kernels/cuda/prefetch.cuh - arguments of prefetch.cu. */
#ifndef EW_KERNELS_CUDA_PREFETCH_CUH
#define EW_KERNELS_CUDA_PREFETCH_CUH

#ifndef __CUDACC_RTC__
#    include <stdint.h>
#else
typedef unsigned int uint32_t;
typedef unsigned long long uint64_t;
#endif

#define EW_CUDA_PREFETCH_PIECE 4096 /* bytes that one instruction asks for, where the chip has it  \
                                     */

struct ew_cuda_prefetch_args {
    uint64_t at;    /* 16-byte aligned */
    uint64_t bytes; /* a multiple of 16 */
};

#endif
