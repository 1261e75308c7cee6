/* kernels/cuda/kernel.h - a CUDA kernel before it is compiled, and one launch of it. Plain data: no
 * driver, no CUDA header; what describes a launch runs and is tested on any machine.
 *
 *   problem (shapes, dtypes, addresses) --a family's plan function--> launches
 *   launch.spec --backend: NVRTC, once per chip--> cubin in the engine file
 *   launch      --backend: stream, or a captured graph--> device
 *
 * A source is a file kernels/cuda/<name>.cu, embedded as text. It may include the .cuh files beside
 * it and nothing else (NVRTC has no system headers). All a kernel is told comes by macros, which
 * say what cannot change while an engine lives (sizes of the model, dtypes, tiles), and by ONE
 * struct, passed by value, which says the rest (addresses, rows, strides). That struct is declared
 * once, in a .cuh that C includes too; its members have fixed-size types, 8-byte ones first. */
#ifndef EW_KERNELS_CUDA_KERNEL_H
#define EW_KERNELS_CUDA_KERNEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/cuda/linear_args.cuh"

#define EW_CUDA_DEFINES_CAP 384
#define EW_CUDA_ARGS_CAP    512 /* bytes of an argument struct */

/* One specialisation. Equal specs are one kernel. */
struct ew_cuda_spec {
    const char *source;                /* "linear_gemv": kernels/cuda/linear_gemv.cu. Static */
    const char *entry;                 /* its extern "C" __global__ function. Static */
    char defines[EW_CUDA_DEFINES_CAP]; /* "-DEW_K=1024 -DEW_N=3072": in a fixed order */
};

/* A matrix that the copy engine of sm_90 and later reads in boxes (a driver's tensor map, 128
 * bytes). Only the driver can write one, so a plan function says what it wants and the backend
 * encodes it into args[arg_offset, +128) of the launch, again whenever the address changes.
 * Elements are two bytes wide; out of bounds reads give zeros. */
struct ew_cuda_tensor_map {
    uint64_t address;            /* 16-byte aligned */
    uint64_t cols, rows;         /* elements of a row; rows */
    uint64_t row_bytes;          /* from row to row, a multiple of 16 */
    uint32_t box_cols, box_rows; /* <= 256 each; box_cols * 2 == swizzle_bytes */
    uint32_t swizzle_bytes;      /* 128, 64 or 32 */
    uint32_t is_f16;             /* 0: bf16 */
    uint32_t arg_offset;         /* a multiple of 64 */
    uint32_t pad;
    uint64_t pair_rows; /* 0; else a map of four dimensions, [panels][2][8][cols]: panel p is rows
                           [8p, 8p + 8) and the 8 that lie pair_rows after them; rows == 2 *
                           pair_rows, a multiple of 16; box_rows counts all rows of a box */
};
#define EW_CUDA_MAPS_CAP 2

/* Not a kernel of ours: y = alpha * x W^T (+ residual) by a library of the GPU's maker, cuBLASLt.
 * Sums are f32. Strides are in elements; x and W have one type. */
struct ew_cuda_product {
    uint64_t w, x, residual, y; /* [n][w_stride], [m][x_stride], f32 [m][y_stride] or 0,
                                   [m][y_stride]; 16-byte aligned; y may be the residual itself */
    uint64_t workspace;         /* EW_CUDA_PRODUCT_WORKSPACE bytes, 256-byte aligned */
    uint64_t w_stride, x_stride, y_stride;
    uint32_t m, n, k;
    int32_t dtype, y_dtype; /* ew_dtype: F32, F16 or BF16; y: F32 or dtype */
    float alpha;
};
#define EW_CUDA_PRODUCT_WORKSPACE ((size_t)32 << 20)

struct ew_cuda_launch {
    struct ew_cuda_spec spec;
    bool product; /* args are a struct ew_cuda_product; of spec the entry alone is there, as a name,
                     and grid and block say nothing */
    uint32_t grid[3], block[3]; /* none may be 0 */
    uint32_t cluster;           /* blocks of a cluster along x; 0: no clusters */
    uint32_t shared_bytes;      /* dynamic; above 48 KiB the backend raises the kernel's limit */
    bool cooperative;           /* needs every block resident (grid barriers) */
    bool early_start; /* programmatic dependent launch: it may begin before the launch before
                         it ends, and calls griddepcontrol.wait before its first dependent
                         load. Harmless where the chip (< sm_90) has none */
    struct ew_cuda_ahead reads; /* what a launch before may bring into L2; bytes 0: nothing */
    uint32_t ahead_at;          /* where in the arguments it is told such things; 0: it is not */
    uint32_t n_maps;            /* 0 for most kernels */
    struct ew_cuda_tensor_map maps[EW_CUDA_MAPS_CAP];
    uint32_t arg_bytes;
    _Alignas(64) uint8_t args[EW_CUDA_ARGS_CAP];
};

/* What plan functions may ask about the chip. */
struct ew_cuda_chip {
    uint32_t sm;               /* 80, 87, 90, 100, 110, 121... */
    uint32_t n_sm;             /* multiprocessors */
    uint32_t shared_per_block; /* opt-in limit, bytes */
    uint64_t l2_bytes;
    uint32_t cublaslt; /* version of the library that products may use; 0: none */
};

#endif
