/* kernels/cuda/sample_args.cuh - arguments of the sampling kernels; read by C and CUDA. */
#ifndef EW_KERNELS_CUDA_SAMPLE_ARGS_CUH
#define EW_KERNELS_CUDA_SAMPLE_ARGS_CUH

#ifndef __CUDACC_RTC__
#    include <stdint.h>
#else
typedef unsigned int uint32_t;
typedef unsigned long long uint64_t;
typedef int int32_t;
typedef long long int64_t;
typedef unsigned short uint16_t;
typedef unsigned char uint8_t;
#endif

struct ew_cuda_argmax_args {
    uint64_t logits, token, value, work, counters, stride;
    uint32_t n;
};

struct ew_cuda_draw_args {
    uint64_t logits, params, token, work, stride;
    uint32_t n, n_groups, group_size; /* groups of neighbours, at most 1024 */
};

#endif
