/* kernels/cuda/moe_args.cuh - arguments of the Moe kernels; read by C and CUDA. A place is a
 * (row, choice) pair in the order of experts; a tile is up to EW_R places of one expert. */
#ifndef EW_KERNELS_CUDA_MOE_ARGS_CUH
#define EW_KERNELS_CUDA_MOE_ARGS_CUH

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

struct ew_cuda_moe_args {
    uint64_t logits, idx, prob; /* [rows][e], [rows][k] */
    uint64_t slot;              /* [rows][k]: place of a row's choice */
    uint64_t row;               /* [rows * k]: row of a place */
    uint64_t tiles;             /* int4 {expert, first place, places, 0}; n_tiles of them */
    uint64_t n_tiles;           /* one u32 */
    uint64_t x, w, y;           /* of a product: [..][k], experts, [rows * k][n] */
    uint64_t expert_stride;     /* bytes */
    uint64_t prepared;          /* of group: x in 16 bits, [rows][k] */
    uint32_t rows, e, top_k, norm_topk;
    uint32_t n, k; /* of a product: outputs (of a pair's halves), columns */
    uint32_t ld;   /* elements from a weight row to the next */
    uint32_t tile_rows;
    int32_t act;
};

#endif
