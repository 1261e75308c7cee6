/* op/infer_nn.h - arithmetic of the nn group that inference and kernels must agree on: sliding
 * windows, subscripts of Einsum, and the sizes of Resize. */
#ifndef EW_OP_INFER_NN_H
#define EW_OP_INFER_NN_H

#include "op/op.h"

/* ---- sliding windows (infer_nn_window.c) ---- */

#define EW_MAX_SPATIAL (EW_MAX_DIMS - 2)

struct ew_window_spec { /* what attributes and types say */
    int n;              /* spatial dims */
    const int64_t *in;  /* their sizes, concrete or symbols */
    const int64_t *kernel;
    const struct ew_ints *strides, *pads, *dilations;
    const struct ew_ints *output_padding, *output_shape; /* ConvTranspose only */
    int32_t auto_pad, ceil_mode;
};

struct ew_window {
    int n;
    int64_t in[EW_MAX_SPATIAL], kernel[EW_MAX_SPATIAL], stride[EW_MAX_SPATIAL];
    int64_t dilation[EW_MAX_SPATIAL], pad_begin[EW_MAX_SPATIAL], pad_end[EW_MAX_SPATIAL];
    int64_t out[EW_MAX_SPATIAL];
};

/* Output sizes and, when the sizes are numbers, pads. syms may be NULL (all numbers). */
ew_status ew_window_resolve(const struct ew_window_spec *spec, struct ew_symtab *syms,
                            struct ew_window *w, ew_error *err);
ew_status ew_window_resolve_transposed(const struct ew_window_spec *spec, struct ew_symtab *syms,
                                       struct ew_window *w, ew_error *err);
/* The specs of the three kinds of ops; x and w are the types of their inputs. kernel lives as long
 * as the spec. */
ew_status ew_window_spec_conv(const struct ew_attr_conv *attr, const struct ew_type *x,
                              const struct ew_type *w, struct ew_window_spec *spec, ew_error *err);
ew_status ew_window_spec_pool(const struct ew_attr_pool *attr, const struct ew_type *x,
                              struct ew_window_spec *spec, ew_error *err);

/* ---- Einsum (infer_nn_einsum.c) ---- */

#define EW_EINSUM_LABELS (52 + EW_MAX_DIMS) /* letters, then the dims of the ellipsis */

struct ew_einsum {
    int n_operands;
    int n_ellipsis;                     /* dims of the longest ellipsis */
    int n_out, out[EW_MAX_DIMS];        /* labels of the output */
    int n_used, used[EW_EINSUM_LABELS]; /* every label: those of the output first, in its order */
    int64_t size[EW_EINSUM_LABELS];     /* by label; BAD: not used */
};
/* The label of every dim of one operand. */
struct ew_einsum_term {
    int n, label[EW_MAX_DIMS];
};

/* types[i] are the operands. Sizes are checked; with syms NULL all must be numbers. */
ew_status ew_einsum_parse(const char *equation, int n_operands, const struct ew_type *const *types,
                          struct ew_symtab *syms, struct ew_einsum *e, ew_error *err);
/* Labels of operand i of an equation that ew_einsum_parse has accepted. */
void ew_einsum_term(const struct ew_einsum *e, const char *equation, int i,
                    const struct ew_type *type, struct ew_einsum_term *term);

/* ---- Resize (infer_nn_resize.c) ---- */

/* Axis of X that entry k of axes, scales and sizes is about; n = entries. Checks axes. */
ew_status ew_resize_axes(const struct ew_attr_resize *attr, int rank, int *axes, int *n,
                         ew_error *err);
/* Sizes from the `sizes` input under keep_aspect_ratio_policy, for concrete dims: out and scale
 * per axis entry. */
ew_status ew_resize_from_sizes(const struct ew_attr_resize *attr, const struct ew_type *x,
                               const int *axes, int n, const int64_t *sizes, int64_t *out,
                               double *scale, ew_error *err);
/* floor(dim * scale), checked. */
ew_status ew_resize_from_scale(int64_t dim, double scale, int64_t *out, ew_error *err);

/* Rules of single ops. */
ew_infer_fn ew_infer_attention, ew_infer_rotary, ew_infer_conv, ew_infer_conv_transpose,
    ew_infer_pool, ew_infer_global_pool, ew_infer_einsum, ew_infer_resize, ew_infer_quantize,
    ew_infer_dequantize, ew_infer_dynamic_quantize, ew_infer_block_quantize;

#endif
