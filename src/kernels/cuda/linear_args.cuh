/* kernels/cuda/linear_args.cuh - what a linear kernel is told at run time; read by C and CUDA.
 * Addresses are of device memory, 0 for "none". Strides are in elements. */
#ifndef EW_KERNELS_CUDA_LINEAR_ARGS_CUH
#define EW_KERNELS_CUDA_LINEAR_ARGS_CUH

#ifndef __CUDACC_RTC__
#    include <stdint.h>
#else
typedef unsigned int uint32_t;
typedef unsigned long long uint64_t;
typedef int int32_t;
typedef unsigned short uint16_t;
typedef unsigned char uint8_t;
#endif

struct ew_cuda_linear_args {
    uint64_t x;        /* f32 [m][x_stride], or 0: prepared is read */
    uint64_t prepared; /* bf16 or f16 (EW_HALF) [m][prepared_stride] */
    uint64_t w;
    uint64_t bias;        /* f32 [n] */
    uint64_t residual;    /* f32 [m][residual_stride] */
    uint64_t y;           /* f32 [m][y_stride] */
    uint64_t norm_weight; /* f32 [k]: x is normalised first */
    uint64_t x_stride, prepared_stride, residual_stride, y_stride;
    uint64_t row_bytes; /* of w: a row (plain), a panel (quantised) */
    uint32_t m, n, k;
    uint32_t n_out;     /* columns of y: n, or n / 2 with glu */
    uint32_t k_blocks;  /* quantised: blocks of a panel */
    uint32_t scales_at; /* quantised: bytes from a panel's start */
    uint32_t zeros_at, row_scales_at;
    float scale, softcap, norm_eps;
    uint32_t tiles_m, tiles_n; /* of persistent kernels */
};

/* Of linear_mma.cu with EW_MOE: rows of one expert at a time (moe_args.cuh says what a place is).
 */
struct ew_cuda_linear_moe_args {
    struct ew_cuda_linear_args a; /* w of the first expert; m is not read */
    uint64_t tiles, n_tiles;      /* int4 {expert, first place, places, 0}; one u32 */
    uint64_t row;                 /* row of x of a place, or 0: x is by place, as y is */
    uint64_t expert_stride;       /* bytes of w */
};

/* What a launch reads first that no launch makes: `bytes` from w + row * pitch + part * part_pitch
 * on. A launch before it brings that into the L2 cache while it waits itself. */
struct ew_cuda_ahead {
    uint64_t w, pitch;
    uint32_t part_pitch, rows, parts, bytes; /* bytes: a multiple of 16; 0: nothing */
};

/* Of the kernels that read through the copy engine: maps first, since they need 64 bytes. */
struct ew_cuda_linear_map_args {
#ifdef __CUDACC__
    alignas(64) unsigned char map_x[128];
    alignas(64) unsigned char map_w[128];
#else
    _Alignas(64) unsigned char map_x[128];
    _Alignas(64) unsigned char map_w[128];
#endif
    struct ew_cuda_linear_args a;
    struct ew_cuda_ahead ahead; /* of linear_strip.cu: the next launch's */
};

#endif
