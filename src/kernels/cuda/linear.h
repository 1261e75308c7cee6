/* clang-format off */
/* kernels/cuda/linear.h - y = x W^T with its epilogue on a GPU: how weights lie in device memory,
 * and the kernels that multiply. What is computed is kernels/linear.h's formula; what differs:
 *
 * Numbers. x is f32 in memory and sums are f32. A kernel's x_error says what becomes of x:
 *   0        it is multiplied as it is (error as in kernels/linear.h)
 *   2^-17,18 it is taken apart into two bf16 numbers, or three 7-bit digits of an integer (then the
 *            error is a part of the largest of 128 neighbours): x_error is relative to sum |x W|
 *   2^-14    it is an integer of 16 bits, of which the largest of 128 neighbours is the largest
 *   2^-9,12  it is rounded to bf16 (f16 for f16 weights) once: the tolerance is against the rounded x
 * Codes of quantised weights are exact inside and scales are applied in f32 to the sums of a group
 * (e4m3 and e8m0 scales of float codes to the codes, which is exact in bf16 too): weights lose
 * nothing but what was quantised; in dense alone they become bf16, rounded once as x is (w_error).
 * inf in x may give NaN where x is taken apart.
 *
 * Bits. An output depends on its row of x, on W and the kernel; not on the rows beside it, and not on
 * m within a class of m: all m for gemv, rows, digits and strip; up to 64, up to 256 and more for
 * wgmma and mma, which share out columns differently.
 *
 * Kernels ("wgmma_q4" is kernel and layout):
 *   gemv      any m, made for 1 or 2: FMAs; f32, f16, bf16
 *   rows      up to 8 rows (rows16: up to 16, rounded) on tensor cores; bf16, q4, q8
 *   digits    up to 8 rows, integer codes with groups of 32, 64, a multiple of 128 or none, on integer
 *             tensor cores; q4, q8
 *   strip     sm_90 alone, up to 64 rows, rounded (strip16: up to 16, rounded on their way); bf16, f16,
 *             q4, q8 with groups of less than 128 columns or a multiple of that
 *   stripd    sm_90 alone, up to 32 rows, integers of 16 bits as two digits on integer tensor cores;
 *             q4 of i4 codes with groups of a multiple of 128 columns or none
 *   wgmma     sm_90 alone, any m, best above 64; plain weights in tiles by the copy engine
 *   dense     sm_90 alone, made for hundreds of rows: quantised weights as bf16 into the workspace, then
 *             wgmma on those; q4, q8 of up to 512 MB as bf16
 *   mma       every chip, any m, best above 8
 *   cublaslt  more than 64 rows, where the chip's description names the library: its product, with
 *             residual and scale; what else is to be done (bias, activation, gate x up, other short
 *             types) a pass over its sums does. f32 (x as it is), f16, bf16; n and k multiples of 8.
 *             Bits: of one version of the library, for one m
 *
 * Layouts (the ew_linear_kernel half: pack, unpack_row and sizes are real, run is NULL). One layout
 * serves decode, verification and prefill.
 *
 *   linear_{f32,f16,bf16}__cuda  plain: row-major [n][ld], rows in the order of the parts (glu: all gate
 *       rows, then all up rows), ld = k rounded up to 16 bytes, zero padded. When k already is a multiple
 *       of 8 this is a checkpoint's own matrix: no packing is needed, another library's GEMM can read it,
 *       and so can an embedding lookup.
 *   linear_q4__cuda   codes of 4 bits (i4, u4, f4e2m1)
 *   linear_q8__cuda   codes of 8 bits (i8, u8, f8e4m3, f8e5m2)
 *       panels of 16 rows; glu: 8 gate rows, then their 8 up rows. A panel is
 *
 *         codes  [k_blocks][32 lanes][16 bytes]   a block is 64 (q4) or 32 (q8) columns
 *         scales [units][8][sub][2]               in the format's dtype; absent for one group a row
 *         zeros  the same shape, u8 (u4) or i16 (u8)
 *         row scales f32 [16]                     row_scale (times the scale of one group a row)
 *
 *       each part 16-byte aligned, the panel padded to 128. Lane 4g + t holds rows g and g + 8 of the
 *       panel as the A operand of mma m16n8k16 wants them: tile j of a block covers columns 16j..16j+15
 *       and has, in this order,
 *         (g, 2t) (g, 2t+1) (g+8, 2t) (g+8, 2t+1) (g, 2t+8) (g, 2t+9) (g+8, 2t+8) (g+8, 2t+9)
 *       q8: two tiles, 8 bytes each, the second and third of every four bytes swapped. q4: four tiles, a
 *       word each: elements 2i and 2i+1 are nibbles i and i + 4; i4 is stored as code + 8. Scales: `sub`
 *       groups share a block when a group is shorter than one (else sub = 1 and a unit is a group); the
 *       last index is row g or g + 8.
 *
 * A plan function turns a problem into launches (plain data, any machine). It refuses nothing that
 * takes() and the row range allow. */
/* clang-format on */
#ifndef EW_KERNELS_CUDA_LINEAR_H
#define EW_KERNELS_CUDA_LINEAR_H

#include "kernels/cuda/kernel.h"
#include "kernels/linear.h"

#define EW_CUDA_LINEAR_LAUNCHES 3 /* the most a plan makes */

/* Addresses are of device memory, 16-byte aligned where the kernel reads by 16 bytes: x, prepared
 * and w (and x_stride, prepared_stride multiples of 8 elements) or the plan uses narrower loads for
 * x. Strides are in elements. */
struct ew_cuda_linear_problem {
    uint64_t x; /* f32 [m][x_stride]; may be 0 if prepared is there and takes_prepared */
    uint64_t
        prepared; /* bf16 (f16 for f16 weights) [m][prepared_stride] of x after its norm, or 0 */
    uint64_t w;   /* packed in the kernel's layout */
    uint64_t bias, residual; /* f32, or 0 */
    uint64_t y;              /* f32 [m][y_stride], or y_short */
    uint64_t workspace;      /* workspace_bytes(), 256-byte aligned; need not be cleared */
    uint64_t norm_weight; /* f32 [k] or 0: x := x * rsqrt(mean(x^2) + norm_eps) * norm_weight first.
                             Only for kernels with takes_norm */
    float norm_eps;
    uint64_t x_stride, prepared_stride, residual_stride, y_stride;
    size_t m, n, k;
    struct ew_quant_format format; /* all zero: plain */
    int act;                       /* enum ew_act */
    bool glu;
    ew_dtype y_short;     /* NONE: y is f32; BF16, F16: rounded. Only for kernels with puts_short */
    float scale, softcap; /* 1 and 0 for none */
};

struct ew_cuda_linear_kernel {
    const char *name; /* "gemv_bf16", "few_q4", "wgmma_bf16" */
    const struct ew_linear_kernel *layout;
    uint32_t sm_min, sm_max; /* inclusive: 80..999 */
    size_t min_rows;         /* smallest m; 0 for most */
    size_t max_rows;         /* largest m; SIZE_MAX: any */
    int x_quant;             /* as in ew_linear_kernel: NONE or INT8_ROW */
    float x_error;           /* as in ew_linear_kernel; 2^-9: x rounded to bf16 */
    float w_error;           /* 2^-8: weights with their scales are rounded to bf16; 0 for most */
    bool takes_prepared, takes_norm, puts_short;
    bool prepares; /* takes x as it is and does the norm in a launch of its own */
    bool library;  /* its launches hold a product: runs where chip.cublaslt says so */
    bool (*takes)(const struct ew_quant_format *f, size_t n, size_t k, bool glu); /* NULL: all */
    /* For m rows; 0 for most. */
    size_t (*workspace_bytes)(const struct ew_cuda_chip *c, const struct ew_cuda_linear_problem *p);
    /* Writes up to EW_CUDA_LINEAR_LAUNCHES launches and returns their number, 0 when m or n is 0.
     * The first has early_start where it may overlap the launch before it. */
    size_t (*plan)(const struct ew_cuda_chip *c, const struct ew_cuda_linear_problem *p,
                   struct ew_cuda_launch *out);
};

/* All of them, in an order that says nothing. Static. */
const struct ew_cuda_linear_kernel *const *ew_cuda_linear_kernels(size_t *n);
const struct ew_cuda_linear_kernel *ew_cuda_linear_kernel_find(const char *name);
/* Whether k is what `text` names: "cublaslt_bf16", or "cublaslt" for all layouts. */
bool ew_cuda_linear_kernel_is(const struct ew_cuda_linear_kernel *k, const char *text);
/* Whether kernel k can run this weight on this chip for up to m rows. */
bool ew_cuda_linear_kernel_runs(const struct ew_cuda_linear_kernel *k, const struct ew_cuda_chip *c,
                                ew_dtype dtype, const struct ew_quant_format *f, size_t m, size_t n,
                                size_t n_cols, bool glu, int x_quant);

extern const struct ew_linear_kernel ew_cuda_layout_f32, ew_cuda_layout_f16, ew_cuda_layout_bf16,
    ew_cuda_layout_q4, ew_cuda_layout_q8;
/* The layouts, for builders (kernels/linear.h's table lists what the CPU runs; these are apart). */
const struct ew_linear_kernel *const *ew_cuda_linear_layouts(size_t *n);
const struct ew_linear_kernel *ew_cuda_linear_layout_find(const char *name);

/* Where the parts of a panel of a quantised layout lie. */
struct ew_cuda_panel {
    size_t k_blocks, block_cols;
    size_t units, sub; /* of scales; units 0: row scales alone */
    size_t scales_at, zeros_at, row_scales_at, bytes;
};
struct ew_cuda_panel ew_cuda_panel_of(const struct ew_quant_format *f, size_t k);

#endif
