/* kernels/linear.h - y = x W^T with its epilogue, for weights that were packed at build time.
 *
 *   z[m][n] = sum_k x[m][k] * W[n][k]            f32, one accumulator per output, k ascending,
 * fused multiply-add z = z * scale + bias*scale ; z = softcap(z) ; y = act(z) [* up] [+ residual]
 *
 * glu: W's rows are gate [0,n/2) then up [n/2,n); y has n/2 columns.
 *
 * Bit contract (per kernel): y[m][.] depends on x[m][.] and W only, never on m, on the rows beside
 * it, on how panels were split between threads. That is what makes batches, chunks and threads
 * reproduce each other. Error against `ref` (double accumulation): <= 2e-6 * sum_k |x W|; where all
 * products are equal, rounding does not average out and the bound of theory holds: k * 2^-24 *
 * sum_k |x W|. x rows: any stride >= k; NaN and inf propagate as in C. k >= 1; any n (a last panel
 * is padded with zero weights). No alignment is needed for x, y, bias, residual; w is 64-byte
 * aligned. y may equal residual, not x. */
#ifndef EW_KERNELS_LINEAR_H
#define EW_KERNELS_LINEAR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tensor/quant.h"

struct ew_linear_args {
    const float *x; /* [m][x_stride] */
    size_t x_stride;
    const void *w;                        /* packed */
    const struct ew_quant_format *format; /* of w; NULL or code NONE for plain kernels */
    const void *prepared;  /* of a kernel with `prepare`: what that made of x; x is not read then */
    const float *bias;     /* [n] in the order of W's rows, or NULL */
    const float *residual; /* [m][residual_stride], or NULL */
    size_t residual_stride;
    float *y; /* [m][y_stride] */
    size_t y_stride;
    size_t m, n, k;
    int act; /* enum ew_act (op/attrs.h) */
    bool glu;
    float scale, softcap; /* 1 and 0 for none */
};

/* Where the rows of an unpacked weight lie: rows [row_begin, row_begin+n_rows) of W. */
struct ew_weight_part {
    const void *data; /* NULL with quant */
    size_t n_rows;
    ptrdiff_t row_stride,
        col_stride; /* in elements: a checkpoint's [N,K] has K,1; ONNX's [K,N] has 1,N */
    const struct ew_quant_source
        *quant; /* rows [quant_row, quant_row + n_rows) of it; NULL: plain */
    size_t quant_row;
};

/* What to pack: parts in row order, all plain or all of one quantised format. */
struct ew_pack_args {
    const struct ew_quant_format *format; /* NULL or code NONE: plain */
    const struct ew_weight_part *parts;
    size_t n_parts, n, k;
    bool glu;
    void *scratch; /* pack_scratch_bytes, 64-byte aligned, one a thread */
};

#define EW_PREPARED_PAD 31 /* rows: kernels may read whole tiles of rows */

/* One way to run one kind of weight. Units are what a range splits: a panel, or a gate/up pair of
 * panels. `f` is the format of a quantised weight, ignored by kernels of plain ones.
 *
 * x_quant (enum ew_x_quant, op/attrs.h) says what a kernel does to x: NONE works on x as it is, to
 * the tolerance above. INT8_ROW rounds each row of x to int8 first (scale = amax / 127, nearest
 * even; a row of zeros has scale 0) and multiplies integers: then the tolerance is against the
 * rounded x, and the integer sums are exact. INT8_W8 does that and takes 4-bit weights as 8-bit
 * integers with one scale a row (kernels/linear_w8.h): the tolerance is against both, and
 * unpack_row gives those integers times their scale. x_error adds itself to the tolerance (x as two
 * bf16 numbers: 2^-17; what is left of x below 2^-126 and products below that count as 0). */
struct ew_linear_kernel {
    const char *name;      /* "linear_bf16__avx2_p16" */
    uint32_t cpu_need;     /* enum ew_cpu_flags */
    ew_dtype weight_dtype; /* f32, f16 or bf16; NONE: a quantised format that `takes` accepts */
    int x_quant;
    float x_error; /* relative rounding of an element of x inside, beside x_quant; 0: none */
    bool (*takes)(const struct ew_quant_format *f, size_t k); /* NULL for plain weights */
    unsigned panel;                                           /* outputs a panel */
    size_t (*packed_bytes)(const struct ew_quant_format *f, size_t n, size_t k, bool glu);
    /* Working memory of one pack call. NULL: none. */
    size_t (*pack_scratch_bytes)(const struct ew_quant_format *f, size_t k);
    /* Packs units [begin, end) into dst (the place of the whole packed weight). */
    void (*pack)(void *dst, const struct ew_pack_args *a, size_t begin, size_t end);
    /* Row `row` of the unpacked weight as f32 (embedding lookup in a tied head, tests). Not for
     * glu. */
    void (*unpack_row)(float *dst, const void *packed, const struct ew_quant_format *f, size_t n,
                       size_t k, size_t row);
    /* x in the kernel's own form, made once for all threads: row i of x goes to prepared +
     * i * prepared_row_bytes. Rows are independent. The buffer is 64-byte aligned and has
     * EW_PREPARED_PAD rows more than m, whose contents do not matter. Both NULL: run reads x. */
    size_t (*prepared_row_bytes)(const struct ew_quant_format *f, size_t k);
    void (*prepare)(const struct ew_linear_args *a, size_t row_begin, size_t row_end,
                    void *prepared);
    size_t (*n_units)(size_t n, bool glu);
    /* Per-thread working memory for up to m rows; may be 0. */
    size_t (*scratch_bytes)(const struct ew_quant_format *f, size_t m, size_t n, size_t k);
    void (*run)(const struct ew_linear_args *a, size_t unit_begin, size_t unit_end, void *scratch);
};

/* Every kernel compiled into this build, slowest first; the builder times those the CPU has.
 * *n is their number. Static. */
const struct ew_linear_kernel *const *ew_linear_kernels(size_t *n);
/* Bytes of the prepared form of m rows; 0 for kernels that need none. */
size_t ew_linear_prepared_bytes(const struct ew_linear_kernel *k, const struct ew_quant_format *f,
                                size_t m, size_t n_cols);
/* By name, NULL if this build has none. */
const struct ew_linear_kernel *ew_linear_kernel_find(const char *name);
/* Whether kernel k runs a weight of this dtype and format (NULL or code NONE: plain) with x treated
 * as x_quant. A kernel that keeps x as it is runs every x_quant: the caller rounds x before. One of
 * INT8_ROW runs INT8_W8 too, which lets weights be rounded and does not ask for it. */
bool ew_linear_kernel_runs(const struct ew_linear_kernel *k, ew_dtype dtype,
                           const struct ew_quant_format *f, size_t n_cols, int x_quant);

#endif
