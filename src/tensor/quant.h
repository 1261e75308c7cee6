/* tensor/quant.h - quantised matrices: what a format means, and the interface by which the rows of
 * one are read, whatever packing a file has.
 *
 *   w[n][k] = (code[n][k] - zero[n][g]) * scale[n][g] * row_scale[n]      g = k / group
 *
 * This one formula covers int8 and int4 by channel or group (AWQ, GPTQ, compressed-tensors), FP8 by
 * tensor, channel or block (OCP e4m3/e5m2), NVFP4 (blocks of 16, e4m3 scales, one f32 for all) and
 * the MX formats (blocks of 32, power-of-two e8m0 scales; OCP Microscaling 1.0). All products of
 * code and scale are exact in f64.
 *
 * Does not know checkpoints (checkpoint/quant_*), packed layouts of kernels (kernels/) or how
 * numbers are chosen (quant/). */
#ifndef EW_TENSOR_QUANT_H
#define EW_TENSOR_QUANT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "edgewise/base.h"

/* Plain data, compared field by field. All zero: not quantised. */
struct ew_quant_format {
    ew_dtype code;  /* i4 u4 i8 u8 f4e2m1 f8e4m3 f8e5m2; NONE: a plain matrix */
    ew_dtype scale; /* what block scales are stored as: f32 f16 bf16 f8e4m3 f8e8m0; NONE: no block
                       scales, row_scale alone */
    uint32_t group; /* columns of a block; the last one may be short. 0: one block a row */
    uint32_t zero;  /* 1: blocks have zero points (unsigned codes); 0: none */
};

/* Places for n rows, filled by a source. */
struct ew_quant_rows {
    uint8_t *codes;   /* [n][k], one code a byte: i4 and i8 as two's complement bytes, u4 and u8 as
                         numbers, floats as their bits */
    float *scales;    /* [n][n_groups]: exact in format.scale; all 1 when that is NONE */
    int16_t *zeros;   /* [n][n_groups]: 0 when the format has none; u4: 0..16, u8: 0..256 */
    float *row_scale; /* [n] */
};

struct ew_quant_source {
    struct ew_quant_format format;
    const char *name; /* of the tensor, for messages */
    size_t n, k;
    /* Rows [row, row + n_rows), row + n_rows <= n. What it reads was checked when the source was
     * made: no failure. Any thread. */
    void (*read)(const struct ew_quant_source *s, size_t row, size_t n_rows,
                 const struct ew_quant_rows *out);
};

static inline bool ew_quant_is(const struct ew_quant_format *f)
{
    return f && f->code != EW_DTYPE_NONE;
}
bool ew_quant_format_equal(const struct ew_quant_format *a, const struct ew_quant_format *b);
/* Whether such a format exists (dtypes that go together); for what comes out of files. */
bool ew_quant_format_ok(const struct ew_quant_format *f);
/* "i4 g128 f16", "u4 zero g64 f16", "f8e4m3 rows": always terminated. */
void ew_quant_format_text(const struct ew_quant_format *f, char *out, size_t cap);

/* Blocks of a row of k columns: at least 1. */
size_t ew_quant_groups(const struct ew_quant_format *f, size_t k);
/* Value of one code as ew_quant_rows holds it. */
float ew_quant_code(ew_dtype code, uint8_t bits);
/* Bits a code has when packed: 4 or 8. */
unsigned ew_quant_code_bits(ew_dtype code);
/* Bits a weight takes as stored, scales and zero points (a byte, or two for u8) included. */
double ew_quant_bits(const struct ew_quant_format *f, size_t k);

/* Working memory for n rows, and its places. scratch: 8-byte aligned. */
size_t ew_quant_rows_bytes(const struct ew_quant_format *f, size_t n, size_t k);
struct ew_quant_rows ew_quant_rows_carve(const struct ew_quant_format *f, size_t n, size_t k,
                                         void *scratch);
/* Row i of `rows` as f32 (each product rounded once from f64). */
void ew_quant_decode_row(const struct ew_quant_format *f, const struct ew_quant_rows *rows,
                         size_t i, size_t k, float *dst);

/* A source over tensors that lie strided in memory: codes [n][k], scales and zero points by block
 * of block_n rows and `format.group` columns. Strides are in elements of the dtype (nibbles for
 * 4-bit codes, low nibble first). Everything is borrowed. Fill it, then ew_quant_strided_init. */
struct ew_quant_strided {
    struct ew_quant_source base; /* format, name, n, k set by the caller; read by _init */
    const void *codes;
    ptrdiff_t code_row, code_col;
    uint8_t flip;       /* xor on raw codes: 8 or 128 turns offset binary into two's complement */
    const void *scales; /* NULL: block scales are 1 */
    ew_dtype scale_dtype;
    ptrdiff_t scale_row, scale_col; /* per block row, per block column; 0: the same for all */
    bool scales_are_rows; /* scales go to row_scale (format.scale NONE): per channel or tensor */
    size_t block_n;       /* rows of a block; 0 counts as 1 */
    const void *zeros;    /* NULL: none. Any integer dtype, 4-bit ones too */
    ew_dtype zero_dtype;
    ptrdiff_t zero_row, zero_col;
    float global; /* times all: into row_scale; 0 counts as 1 */
};
void ew_quant_strided_init(struct ew_quant_strided *s);

#endif
