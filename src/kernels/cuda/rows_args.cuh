/* kernels/cuda/rows_args.cuh - arguments of the row kernels; read by C and CUDA. Addresses are of
 * device memory, 0 for "none". */
#ifndef EW_KERNELS_CUDA_ROWS_ARGS_CUH
#define EW_KERNELS_CUDA_ROWS_ARGS_CUH

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

struct ew_cuda_norm_args {
    uint64_t x, w, residual, y, y_bf16;
    uint32_t n;
    float eps;
};

#define EW_PW_DIMS 8
struct ew_cuda_pointwise_args {
    uint64_t y, in[8];
    float imm[32]; /* of instruction i */
    uint32_t count, n_dims;
    uint32_t dim[EW_PW_DIMS], stride[8][EW_PW_DIMS]; /* outermost first, in elements */
};

struct ew_cuda_convert_args {
    uint64_t dst, src;
    uint64_t n;
};

struct ew_cuda_strided_args {
    uint64_t dst, src;
    int64_t dst_stride[8], src_stride[8];
    uint32_t dim[8], count, n_dims;
};

struct ew_cuda_gather_args {
    uint64_t dst, src, idx;
    uint64_t n_rows;
    uint32_t n_idx, row_words; /* words of EW_WORD bytes */
    float scale;
};

struct ew_cuda_gather_panels_args {
    uint64_t dst, src, idx;
    uint64_t n_rows, panel_bytes;
    uint32_t k, scales_at, zeros_at, row_scales_at;
    float scale;
};

struct ew_cuda_softmax_args {
    uint64_t x, y;
    uint32_t n;
};

#endif
