/* engine_fixture.h - small graphs made by hand, built into memory, for u_plan, u_build and
 * u_engine. */
#ifndef ENGINE_FIXTURE_H
#define ENGINE_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "edgewise/build.h"
#include "edgewise/engine.h"
#include "graph/ir.h"
#include "os/os.h"

#define MUST(call)                                                                                 \
    do {                                                                                           \
        const ew_status must_ = (call);                                                            \
        if (must_)                                                                                 \
            fail_msg("%s: %d %s", #call, must_, err.text);                                         \
    } while (0)

static inline float noise(uint32_t i)
{
    i = i * 747796405u + 2891336453u;
    i = ((i >> ((i >> 28) + 4)) ^ i) * 277803737u;
    return (float)((i >> 22 ^ i) % 2001) / 1000.0f - 1.0f;
}

static inline float *noises(size_t n, uint32_t seed)
{
    float *p = calloc(n ? n : 1, sizeof(*p));

    for (size_t i = 0; i < n; i++)
        p[i] = noise((uint32_t)i + seed * 7919u);
    return p;
}

static inline struct ew_value *const_f32(struct ew_graph *g, const char *name, int n_dims,
                                         const int64_t *dims, uint32_t seed)
{
    const struct ew_type t = ew_type_make(EW_DTYPE_F32, n_dims, dims);
    size_t n = 0;
    float *data;
    struct ew_value *v;

    assert_true(ew_type_count(&t, &n));
    data = noises(n, seed);
    v = ew_graph_add_const(g, name, &t, data, true);
    free(data);
    assert_non_null(v);
    return v;
}

#define FIX_K 24
#define FIX_N 40
/* y = gelu? no: Linear(x [batch,K], w [N,K], b) then Add(y, c), and a Tanh side output z. */
static inline struct ew_graph *linear_graph(void)
{
    ew_error err = { 0 };
    struct ew_graph *g = NULL;
    struct ew_node *n = NULL;
    struct ew_value *in[3], *y, *z;
    int64_t w_dims[2] = { FIX_N, FIX_K }, n_dims[1] = { FIX_N };
    struct ew_type xt = { EW_DTYPE_F32, 2, { 0, FIX_K } };

    MUST(ew_graph_create("fixture", &g, &err));
    xt.dim[0] = ew_dim_symbol(g->syms, "batch");
    in[0] = ew_graph_add_input(g, "x", &xt);
    in[1] = const_f32(g, "w", 2, w_dims, 1);
    in[2] = const_f32(g, "b", 1, n_dims, 2);
    MUST(ew_graph_add_node(g, EW_OP_LINEAR, "lin", NULL, in, 3, 1, &n, &err));
    in[0] = n->out[0];
    in[1] = const_f32(g, "c", 1, n_dims, 3);
    MUST(ew_graph_add_node(g, EW_OP_ADD, "add", NULL, in, 2, 1, &n, &err));
    y = n->out[0];
    MUST(ew_graph_add_node(g, EW_OP_TANH, "tanh", NULL, &y, 1, 1, &n, &err));
    z = n->out[0];
    MUST(ew_graph_add_output(g, y, "y", &err));
    MUST(ew_graph_add_output(g, z, "z", &err));
    return g;
}

static inline void linear_expect(const float *x, size_t m, float *y)
{
    float *w = noises((size_t)FIX_N * FIX_K, 1), *b = noises(FIX_N, 2), *c = noises(FIX_N, 3);

    for (size_t r = 0; r < m; r++)
        for (size_t n = 0; n < FIX_N; n++) {
            double s = b[n];

            for (size_t k = 0; k < FIX_K; k++)
                s += (double)x[r * FIX_K + k] * (double)w[n * FIX_K + k];
            y[r * FIX_N + n] = (float)(s + (double)c[n]);
        }
    free(w);
    free(b);
    free(c);
}

static inline void build_bytes(struct ew_graph *g, const ew_profile *profiles, uint32_t n,
                               void **bytes, size_t *len)
{
    ew_build_opts o = EW_BUILD_OPTS_INIT;
    ew_error err = { 0 };

    o.flags = EW_BUILD_NO_TIMING;
    o.profiles = profiles;
    o.n_profiles = n;
    o.n_threads = 2;
    MUST(ew_build_memory(g, &o, bytes, len, &err));
    ew_graph_destroy(g);
}

static inline void linear_bytes(void **bytes, size_t *len)
{
    static const ew_profile_input in = { "x", 2, { 1, FIX_K }, { 2, FIX_K }, { 9, FIX_K } };
    static const ew_profile p = { "default", &in, 1 };

    build_bytes(linear_graph(), &p, 1, bytes, len);
}

#endif
