/* kernels/ref/gen_common.h - what the general operators share: compute classes with block loads and
 * stores, broadcasting loops, and copies of strided regions of any element width.
 *
 * Ops compute in one of four classes. Elements of any dtype are loaded into a block of the class
 * and stored back from it: floats round to nearest even, integers wrap; floats stored as integers
 * truncate and saturate (NaN gives 0), the ones below 32 bits at 32 and then wrap, as ONNX's tests
 * have it. Offsets and strides are in elements, so that packed nibbles work. */
#ifndef EW_KERNELS_REF_GEN_COMMON_H
#define EW_KERNELS_REF_GEN_COMMON_H

#include <stddef.h>

#include "kernels/general.h"

enum ew_gen_class { EW_GEN_F32 = 0, EW_GEN_F64, EW_GEN_I64, EW_GEN_U64, EW_GEN_CLASSES };

#define EW_GEN_BLOCK 512
union ew_gen_block {
    float f32[EW_GEN_BLOCK];
    double f64[EW_GEN_BLOCK];
    int64_t i64[EW_GEN_BLOCK];
    uint64_t u64[EW_GEN_BLOCK];
};

/* Class a dtype computes in: short floats in f32, bool and unsigned in u64. */
enum ew_gen_class ew_gen_class_of(ew_dtype d);
/* Bytes of one value of a class. */
size_t ew_gen_class_bytes(enum ew_gen_class c);
/* n elements data[at + i*stride] -> dst[i] of class c. Float dtypes load into float classes only.
 */
void ew_gen_load(void *dst, enum ew_gen_class c, const void *data, ew_dtype d, ptrdiff_t at,
                 ptrdiff_t stride, size_t n);
/* src[i] of class c -> data[at + i*stride]. */
void ew_gen_store(void *data, ew_dtype d, ptrdiff_t at, ptrdiff_t stride, const void *src,
                  enum ew_gen_class c, size_t n);
/* Address of data[at] when its elements are values of class c already; NULL otherwise. */
void *ew_gen_direct(void *data, ew_dtype d, enum ew_gen_class c, ptrdiff_t at);

/* The 8- and 4-bit floats (gen_minifloat.c). Codes are the low bits of a byte. */
float ew_gen_mini_decode(ew_dtype d, uint8_t code);
/* saturate as ONNX Cast: past the largest value gives it, otherwise inf or NaN. round_mode: e8m0.
 */
uint8_t ew_gen_mini_encode(ew_dtype d, double v, bool saturate, int round_mode);
bool ew_gen_is_mini(ew_dtype d);

/* ---- loops over up to four operands that share a shape ---- */
#define EW_GEN_MAX_OPS  4
#define EW_GEN_MAX_DIMS (2 * EW_MAX_DIMS)
struct ew_gen_loop {
    int n_ops, n_dims; /* of the outer loop */
    int64_t dim[EW_GEN_MAX_DIMS], index[EW_GEN_MAX_DIMS];
    ptrdiff_t stride[EW_GEN_MAX_OPS][EW_GEN_MAX_DIMS];
    ptrdiff_t at[EW_GEN_MAX_OPS];   /* where this inner run starts */
    ptrdiff_t step[EW_GEN_MAX_OPS]; /* of the inner run */
    size_t inner;                   /* elements of the inner run */
    bool empty;
};

/* From dims and strides; neighbours that are one dim to every operand are merged and the last dim
 * becomes the inner run. at[] starts at 0. n_dims <= EW_GEN_MAX_DIMS. */
void ew_gen_loop_init(struct ew_gen_loop *l, int n_ops, int n_dims, const int64_t *dim,
                      const ptrdiff_t (*stride)[EW_GEN_MAX_DIMS]);
/* Over the elements of `out`, operand 0 is dense and operand i is types[i - 1] broadcast to it.
 * False when one of them cannot be. */
bool ew_gen_loop_init_broadcast(struct ew_gen_loop *l, const struct ew_type *out, int n_types,
                                const struct ew_type *const *types);
/* for (bool more = !l.empty; more; more = ew_gen_loop_next(&l)) */
bool ew_gen_loop_next(struct ew_gen_loop *l);

/* ---- copies ---- */
/* A dense box of up to EW_GEN_MAX_DIMS dims between two strided places. */
struct ew_gen_copy {
    int n_dims;
    int64_t dim[EW_GEN_MAX_DIMS];
    ptrdiff_t dst_stride[EW_GEN_MAX_DIMS], src_stride[EW_GEN_MAX_DIMS];
};
/* Row-major strides of dims. */
void ew_gen_strides(int n_dims, const int64_t *dim, ptrdiff_t *stride);
void ew_gen_copy_run(const struct ew_gen_copy *c, void *dst, ptrdiff_t dst_at, const void *src,
                     ptrdiff_t src_at, ew_dtype dtype);
/* n neighbouring elements. */
void ew_gen_copy_flat(void *dst, ptrdiff_t dst_at, const void *src, ptrdiff_t src_at, size_t n,
                      ew_dtype dtype);
/* n elements dst_step apart from elements src_step apart. */
void ew_gen_copy_step(void *dst, ptrdiff_t dst_at, ptrdiff_t dst_step, const void *src,
                      ptrdiff_t src_at, ptrdiff_t src_step, size_t n, ew_dtype dtype);

/* Elements of a concrete type that infer has accepted (no overflow). */
size_t ew_gen_count(const struct ew_type *t);
/* Product of dims [begin, end). */
int64_t ew_gen_product(const struct ew_type *t, int begin, int end);
/* Zeroes the spare nibble of an odd count of packed nibbles; before they are written. */
void ew_gen_clear_spare(struct ew_view *y);
/* Integer element i of a view of dtype i32, i64 or any other integer. */
int64_t ew_gen_int_at(const struct ew_view *v, size_t i);
/* Axis of attributes, which infer has checked, as 0..rank. */
int ew_gen_axis(int64_t axis, int rank);
/* "Name: dtype is not supported". */
ew_status ew_gen_refuse(const struct ew_general_args *a, ew_dtype d);

/* Kernels in files of their own. */
ew_general_fn ew_gen_cast, ew_gen_clip, ew_gen_where;
ew_general_fn ew_gen_softmax, ew_gen_top_k, ew_gen_cum_sum, ew_gen_arg;
ew_general_fn ew_gen_gather, ew_gen_gather_elements, ew_gen_gather_nd, ew_gen_scatter_elements,
    ew_gen_scatter_nd, ew_gen_tensor_scatter;
ew_general_fn ew_gen_constant_of_shape, ew_gen_eye_like, ew_gen_one_hot, ew_gen_range, ew_gen_shape,
    ew_gen_size, ew_gen_trilu;
ew_general_fn ew_gen_pad;

#endif
