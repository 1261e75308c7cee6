// kernels/cuda/linear_strip.cuh - what the parts of linear_strip.cu share: shared memory, and which
// strips and columns are whose.
#ifndef EW_KERNELS_CUDA_LINEAR_STRIP_CUH
#define EW_KERNELS_CUDA_LINEAR_STRIP_CUH

#if EW_CODE
#    include "linear_dequant.cuh"
#else
#    include "copy.cuh"
#    include "linear_epilogue.cuh"
#endif
#include "linear_panel.cuh"
#include "linear_tile.cuh"
#include "wgmma.cuh"

#define STAGE_COLS 128
#define ROWS       (EW_GROUPS * 64)
#define WARPS      (EW_GROUPS * 4)                    // that multiply
#define W_WARP     (EW_ROUND ? WARPS + 4 : WARPS + 1) // that loads plain weights
#define THREADS    (WARPS * 32 + 128 + (EW_ROUND && !EW_CODE ? 32 : 0))
#define X_ROWS     (EW_DIGITS ? 2 * EW_N : EW_N)
#define X_SUB      (X_ROWS * 128) // bytes of 64 columns; of 128 where they are digits
#define X_STAGE    (EW_DIGITS ? X_SUB : 2 * X_SUB)
#define PITCH      (ROWS + 4) // floats of a row of sums

#if EW_CODE
#    define BLOCKS      (STAGE_COLS / EW_BLOCK_COLS)
#    define TILES       (STAGE_COLS / 16)
#    define UNIT_COLS   (EW_SUB > 1 ? EW_BLOCK_COLS : EW_GROUPED ? EW_GROUP : 1) // of stored scales
#    define UNITS       (EW_GROUPED && UNIT_COLS < STAGE_COLS ? STAGE_COLS / UNIT_COLS : 1)
#    define UNIT_BLOCKS (BLOCKS / UNITS)
#    define GROUP_TILES (EW_GROUPED && EW_GROUP < STAGE_COLS ? EW_GROUP / 16 : TILES)
#    define PROMOTE     (EW_GROUPED && EW_SCALE && !EW_SHORT_SCALE)

// What a lane copies of a unit. Two bytes come with their neighbours: four are the least.
#    define SCALE_BYTES (2 * EW_SUB * EW_SCALE_BYTES)
#    define ZERO_BYTES  (2 * EW_SUB * EW_ZERO_BYTES)
#    define COPIED(n)   ((n) == 2 ? 4 : (n))
#    define UNIT_BYTES  (32 * (COPIED(SCALE_BYTES) + COPIED(ZERO_BYTES)))
#    define SLOT        (BLOCKS * 512 + UNITS * UNIT_BYTES) // of a warp
#    define RINGS       (WARPS * EW_SLOTS * SLOT)
#else
#    define W_SUB (ROWS * 128) // bytes of 64 columns
#    define RINGS (EW_SLOTS * 2 * W_SUB)
#endif

// Scales of the rows of W come with the first stages: nobody waits for them at the end.
#define KEEPS_SCALES (EW_CODE && !EW_MANY)

// x, the rings of the warps, then this.
struct fixed {
    unsigned long long full[EW_X_STAGES], empty[EW_X_STAGES], normed;
    unsigned long long w_full[EW_CODE ? 1 : EW_SLOTS], w_empty[EW_CODE ? 1 : EW_SLOTS];
    float squares[EW_ROUND ? EW_N : 1];
    __align__(16) float row_scales[KEEPS_SCALES ? WARPS : 1][KEEPS_SCALES ? 16 : 4];
    __align__(16) float scales[EW_DIGITS ? EW_X_STAGES : 1][EW_DIGITS ? EW_N : 1]; // of x
};
#define RINGS_AT (EW_X_STAGES * X_STAGE)
#define FIXED_AT (RINGS_AT + RINGS)
#define FIXED                                                                                      \
    (512 + (EW_DIGITS ? EW_X_STAGES * EW_N * 4 : 0) + (KEEPS_SCALES ? WARPS * 64 : 0))
#define TILE_AT (FIXED_AT + FIXED)
static_assert(sizeof(struct fixed) <= FIXED, "room for barriers and scales");

extern __shared__ __align__(1024) char dynamic[];

#if EW_WGMMA

// Strips from `strip` by `stride`; columns in stages of 128 from `begin` on.
struct work {
    uint32_t strip, stride, begin, stages;
};

EW_DEV struct work work_of(const ew_args &a)
{
#    if EW_CODE
    const uint32_t unit = EW_GROUPED && EW_GROUP > STAGE_COLS ? EW_GROUP / STAGE_COLS : 1;
#    else
    const uint32_t unit = 1;
#    endif
    const uint32_t all = (a.k + STAGE_COLS - 1) / STAGE_COLS;
    const uint32_t range = ((all + unit - 1) / unit + EW_CLUSTER - 1) / EW_CLUSTER * unit;
    const uint32_t rank = EW_CLUSTER > 1 ? ew_cluster_rank() : 0;
    struct work w;

    w.strip = blockIdx.x / EW_CLUSTER;
    w.stride = gridDim.x / EW_CLUSTER;
    w.begin = rank * range < all ? rank * range : all;
    w.stages = all - w.begin < range ? all - w.begin : range;
    return w;
}
#endif

#endif
