/* checkpoint/quant_source.h - rows of a quantised matrix as checkpoints store it: nibbles, bytes,
 * and the words of AWQ and GPTQ, with columns in another order if the weight says so. Everything
 * it points to is borrowed; what can be wrong with it was refused before (quant_load.c). */
#ifndef EW_CHECKPOINT_QUANT_SOURCE_H
#define EW_CHECKPOINT_QUANT_SOURCE_H

#include "checkpoint/quant_config.h"
#include "tensor/quant.h"

enum ew_qx_zero_layout {
    EW_QX_ZEROS_NONE,
    EW_QX_ZEROS_AWQ,    /* i32 [G, N/8], AWQ's order of channels */
    EW_QX_ZEROS_GPTQ,   /* i32 [G, N / codes of a word] */
    EW_QX_ZEROS_PACKED, /* i32 [ceil(N / codes of a word), G] */
    EW_QX_ZEROS_BYTES,  /* i8 [N, G] */
};

struct ew_qx_source {
    struct ew_quant_source base; /* format, name, n, k */
    enum ew_qx_layout layout;
    const uint8_t *codes;
    size_t pitch; /* bytes of a row of codes; AWQ, GPTQ: channels N */
    bool bytes;   /* a code a byte, whatever its width */
    uint8_t flip; /* xor on raw codes: the middle turns offset binary into two's complement */
    const uint32_t *perm; /* [k]: column c of the matrix is stored as column perm[c]; NULL: c */
    const void *scales;   /* aligned to its dtype */
    ew_dtype scale_dtype;
    size_t scale_row, scale_col; /* elements from one block to the next; 0: the same for all */
    size_t block_n;              /* rows of a block of scales */
    bool scales_are_rows;        /* scales go to row_scale */
    enum ew_qx_zero_layout zeros_as;
    const uint8_t *zeros;
    size_t zeros_pitch; /* channels N of AWQ and GPTQ, groups of the others */
    int zero_plus;      /* added to a stored zero point */
    /* GPTQ: added to a stored word. Format v1 holds its zero points less one, taken off whole words
     * by the writers (gptqmodel): a zero point of 0 borrows from the next one, and adding gives it
     * back. */
    uint32_t zero_word_plus;
    float global; /* times all */
};

/* Sets base.read. */
void ew_qx_source_init(struct ew_qx_source *s);
/* Zero point of row n, block g, as stored plus zero_plus. */
int ew_qx_source_zero(const struct ew_qx_source *s, size_t n, size_t g);

#endif
