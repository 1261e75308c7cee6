/* tests/unit/general_run.h - runs one general operator, inference then kernel, on small tensors
 * written in the test; for u_general_*.c. */
#ifndef EW_TESTS_GENERAL_RUN_H
#define EW_TESTS_GENERAL_RUN_H

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "base/size.h"
#include "kernels/general.h"

#define RUN_CAP 8
struct run {
    ew_op op;
    union ew_attrs attrs;
    int n_in, n_out;
    struct ew_view in[RUN_CAP];
    bool absent[RUN_CAP];
    struct ew_type out[RUN_CAP]; /* results */
    union {
        float f32[64];
        double f64[64];
        uint16_t u16[64];
        int32_t i32[64];
        int64_t i64[64];
        uint8_t u8[64];
        int8_t i8[64];
    } data[2];
    ew_error err;
};

static inline void run_init(struct run *r, const char *name)
{
    memset(r, 0, sizeof(*r));
    r->op = ew_op_find(name);
    assert_int_not_equal(r->op, EW_OP_NONE);
    r->n_out = 1;
    ew_op_attrs_init(r->op, &r->attrs);
}

/* The data is borrowed. rank < 0: an absent input. */
static inline void run_in(struct run *r, ew_dtype dtype, int rank, const int64_t *dims,
                          const void *data)
{
    r->absent[r->n_in] = rank < 0;
    r->in[r->n_in].type = ew_type_make(dtype, rank < 0 ? 0 : rank, dims);
    memcpy(&r->in[r->n_in].data, &data, sizeof(data));
    r->n_in++;
}

#define DIMS(...)                                                                                  \
    (const int64_t[])                                                                              \
    {                                                                                              \
        __VA_ARGS__                                                                                \
    }
#define RUN_RANK(...)             (int)(sizeof(__VA_ARGS__) / sizeof(int64_t))
#define IN(r, dtype, dims, ...)   run_in(r, EW_DTYPE_##dtype, RUN_RANK(dims), dims, __VA_ARGS__)
#define IN_SCALAR(r, dtype, data) run_in(r, EW_DTYPE_##dtype, 0, NULL, data)
#define IN_ABSENT(r)              run_in(r, EW_DTYPE_F32, -1, NULL, NULL)
#define F32(...)                                                                                   \
    (const float[])                                                                                \
    {                                                                                              \
        __VA_ARGS__                                                                                \
    }
#define I64(...)                                                                                   \
    (const int64_t[])                                                                              \
    {                                                                                              \
        __VA_ARGS__                                                                                \
    }
#define I32(...)                                                                                   \
    (const int32_t[])                                                                              \
    {                                                                                              \
        __VA_ARGS__                                                                                \
    }
#define I8(...)                                                                                    \
    (const int8_t[])                                                                               \
    {                                                                                              \
        __VA_ARGS__                                                                                \
    }
#define U8(...)                                                                                    \
    (const uint8_t[])                                                                              \
    {                                                                                              \
        __VA_ARGS__                                                                                \
    }

static inline ew_status run_go(struct run *r)
{
    static struct ew_infer f;
    struct ew_infer_in in[RUN_CAP];
    const struct ew_view *views[RUN_CAP];
    const struct ew_type *types[RUN_CAP], *out_types[RUN_CAP];
    struct ew_view out[RUN_CAP];
    struct ew_view *out_views[RUN_CAP];
    struct ew_general_args a = { .op = r->op,
                                 .attrs = &r->attrs,
                                 .n_in = r->n_in,
                                 .in = views,
                                 .n_out = r->n_out,
                                 .out = out_views,
                                 .err = &r->err };
    size_t bytes;
    ew_status st;

    memset(&f, 0, sizeof(f));
    memset(in, 0, sizeof(in));
    for (int i = 0; i < r->n_in; i++) {
        views[i] = r->absent[i] ? NULL : &r->in[i];
        types[i] = r->absent[i] ? NULL : &r->in[i].type;
        in[i].type = types[i];
        in[i].data = r->in[i].data;
    }
    f.op = r->op;
    f.attrs = &r->attrs;
    f.n_in = r->n_in;
    f.in = in;
    f.n_out = r->n_out;
    f.err = &r->err;
    st = ew_op_infer(&f);
    if (st)
        return st;
    for (int o = 0; o < r->n_out; o++) {
        assert_true(ew_type_bytes(&f.out[o], &bytes) && bytes <= sizeof(r->data[o]));
        memset(&r->data[o], 0xaa, sizeof(r->data[o]));
        r->out[o] = f.out[o];
        out[o].type = f.out[o];
        out[o].data = &r->data[o];
        out_views[o] = &out[o];
        out_types[o] = &out[o].type;
    }
    bytes = ew_general_scratch_bytes(r->op, &r->attrs, r->n_in, types, r->n_out, out_types);
    a.scratch = ew_mem_alloc_aligned(EW_MEM_MISC, bytes + 1, 64);
    assert_non_null(a.scratch);
    st = ew_general_find(r->op)(&a);
    ew_mem_free_aligned(a.scratch);
    return st;
}

static inline void run_expect(struct run *r, int rank, const int64_t *dims, const void *want,
                              size_t bytes)
{
    assert_int_equal(run_go(r), EW_STATUS_OK);
    assert_int_equal(r->out[0].n_dims, rank);
    for (int d = 0; d < rank; d++)
        assert_int_equal(r->out[0].dim[d], dims[d]);
    if (bytes > 0)
        assert_memory_equal(&r->data[0], want, bytes);
}

/* The whole output, bit by bit: EXPECT(&r, DIMS(2), F32(1, 2)) */
#define EXPECT(r, dims, ...)  run_expect(r, RUN_RANK(dims), dims, __VA_ARGS__, sizeof(__VA_ARGS__))
#define EXPECT_SCALAR(r, ...) run_expect(r, 0, NULL, __VA_ARGS__, sizeof(__VA_ARGS__))
#define EXPECT_EMPTY(r, dims) run_expect(r, RUN_RANK(dims), dims, NULL, 0)
#define EXPECT_FAIL(r, status)                                                                     \
    do {                                                                                           \
        assert_int_equal(run_go(r), EW_STATUS_##status);                                           \
        assert_true((r)->err.text[0] != 0);                                                        \
    } while (0)

#endif
