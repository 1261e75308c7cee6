/* quant_fixture.h - a graph whose weight is quantised, for u_quant_format and u_plan. */
#ifndef QUANT_FIXTURE_H
#define QUANT_FIXTURE_H

#include "engine_fixture.h"

#include "tensor/quant.h"

#define N 40
#define K 48

/* Two sources of i4 by blocks of 16; the weight is rows 4.. of the first, then the second. */
struct weights {
    uint8_t codes[2][N * K / 2];
    float scales[2][N * K / 16];
    struct ew_quant_strided src[2];
};

static inline void weights_make(struct weights *w)
{
    for (int i = 0; i < 2; i++) {
        for (size_t b = 0; b < sizeof(w->codes[i]); b++)
            w->codes[i][b] =
                (uint8_t)(noise((uint32_t)(b + 7777u * (unsigned)i)) * 128.0f + 127.0f);
        for (size_t b = 0; b < N * K / 16; b++)
            w->scales[i][b] = 0.05f + 0.01f * (float)(b % 7);
        w->src[i] = (struct ew_quant_strided){
            .base = { .format = { EW_DTYPE_I4, EW_DTYPE_F32, 16, 0 }, .name = "w", .n = N, .k = K },
            .codes = w->codes[i],
            .code_row = K,
            .code_col = 1,
            .scales = w->scales[i],
            .scale_dtype = EW_DTYPE_F32,
            .scale_row = K / 16,
            .scale_col = 1,
            .global = i ? 0.5f : 1.0f
        };
        ew_quant_strided_init(&w->src[i]);
    }
}

/* y = Linear(x [batch 1..3, K], w [N, K]) with rounded activations; w is the embedding too. `w`
 * must live as long as the graph. */
static inline void quant_bytes(struct weights *w, int x_quant, int x_block, float x_scale,
                               void **bytes, size_t *len)
{
    static const ew_profile_input in_range = { "x", 2, { 1, K }, { 2, K }, { 3, K } };
    static const ew_profile profile = { "default", &in_range, 1 };
    const int64_t dims[2] = { N, K };
    const struct ew_type t = ew_type_make(EW_DTYPE_F32, 2, dims);
    struct ew_type xt = { EW_DTYPE_F32, 2, { 0, K } };
    union ew_attrs attrs;
    struct ew_graph *g = NULL;
    struct ew_value *in[2];
    struct ew_node *n;
    ew_error err = { 0 };

    weights_make(w);
    const struct ew_weight_part parts[2] = {
        { .n_rows = N - 4, .quant = &w->src[0].base, .quant_row = 4 },
        { .n_rows = 4, .quant = &w->src[1].base }
    };
    MUST(ew_graph_create("quantised", &g, &err));
    xt.dim[0] = ew_dim_symbol(g->syms, "batch");
    in[0] = ew_graph_add_input(g, "x", &xt);
    in[1] = ew_graph_add_const_parts(g, "w", &t, parts, 2);
    ew_op_attrs_init(EW_OP_LINEAR, &attrs);
    attrs.linear.x_quant = x_quant;
    attrs.linear.x_block = x_block;
    attrs.linear.x_scale = x_scale;
    MUST(ew_graph_add_node(g, EW_OP_LINEAR, "lin", &attrs, in, 2, 1, &n, &err));
    MUST(ew_graph_add_output(g, n->out[0], "y", &err));
    MUST(ew_graph_verify(g, &err));
    g->embedding = in[1];
    build_bytes(g, &profile, 1, bytes, len);
}

#endif
