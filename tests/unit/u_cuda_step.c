/* What a plan of a decode step in one kernel promises the kernel (kernels/cuda/step.c): blocks that
 * each have something to say before the last phase, whatever the number of layers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/cuda/step.h"
#include "op/attrs.h"

#define MAX_LAYERS 4
#define NODES      (MAX_LAYERS * 5 + 1)

static const struct ew_quant_format plain = { EW_DTYPE_NONE, EW_DTYPE_NONE, 0, 0 };
static const struct ew_quant_format i4_g128 = { EW_DTYPE_I4, EW_DTYPE_F16, 128, 0 };
static const struct ew_quant_format i8_rows = { EW_DTYPE_I8, EW_DTYPE_NONE, 0, 0 };
static const struct ew_cuda_chip h200 = {
    .sm = 90, .n_sm = 132, .shared_per_block = 232448, .l2_bytes = 50u << 20
};

struct decoder {
    size_t layers, hidden, ffn, hq, hkv, d, vocab, rows;
    const struct ew_quant_format *w, *head;
};

static struct ew_cuda_decode_node linear(const struct decoder *m, const struct ew_quant_format *f,
                                         uint64_t x, uint64_t y, size_t n, size_t k, bool glu)
{
    const size_t n_out = glu ? n / 2 : n;
    const char *name = ew_quant_is(f) ? "linear_q4__cuda" : "linear_bf16__cuda";

    return (struct ew_cuda_decode_node){ .kind = EW_CUDA_DECODE_LINEAR,
                                         .name = "linear",
                                         .layout = ew_cuda_linear_layout_find(name),
                                         .problem = { .x = x,
                                                      .y = y,
                                                      .w = 1u << 20,
                                                      .x_stride = k,
                                                      .y_stride = n_out,
                                                      .m = m->rows,
                                                      .n = n,
                                                      .k = k,
                                                      .format = *f,
                                                      .act = glu ? EW_ACT_SILU : EW_ACT_NONE,
                                                      .glu = glu,
                                                      .scale = 1 } };
}

static const float *floats(uint64_t at)
{
    return (const float *)(uintptr_t)at;
}

/* Every node reads what the one before it made, at the address after its own number of MiB. */
static size_t make_nodes(const struct decoder *m, struct ew_cuda_decode_node *out)
{
    const size_t qkv = (m->hq + 2 * m->hkv) * m->d, att = m->hq * m->d;
    size_t n = 0;

#define X (((uint64_t)n + 1) << 20)
#define Y (((uint64_t)n + 2) << 20)
    for (size_t i = 0; i < m->layers; i++) {
        const float *q;

        out[n] = linear(m, m->w, X, Y, qkv, m->hidden, false);
        n++;
        q = floats(X);
        out[n] = (struct ew_cuda_decode_node){ .kind = EW_CUDA_DECODE_ATTENTION,
                                               .name = "attention",
                                               .attention = { .mode = EW_ATTN_DECODE,
                                                              .b = m->rows,
                                                              .s = 1,
                                                              .hq = m->hq,
                                                              .hkv = m->hkv,
                                                              .d = m->d,
                                                              .q = q,
                                                              .k = q + att,
                                                              .v = q + att + m->hkv * m->d,
                                                              .kv = (void *)(uintptr_t)(1u << 20),
                                                              .kv_dtype = EW_DTYPE_F16,
                                                              .cap = 64,
                                                              .context_lengths =
                                                                  (const int32_t *)(uintptr_t)4096,
                                                              .scale = 1,
                                                              .out = (float *)(uintptr_t)Y } };
        n++;
        out[n] = linear(m, m->w, X, Y, m->hidden, att, false);
        n++;
        out[n] = linear(m, m->w, X, Y, 2 * m->ffn, m->hidden, true);
        n++;
        out[n] = linear(m, m->w, X, Y, m->hidden, m->ffn, false);
        n++;
    }
    out[n] = linear(m, m->head, X, Y, m->vocab, m->hidden, false);
    return n + 1;
#undef X
#undef Y
}

static void make_plan(const struct decoder *m, struct ew_cuda_decode_plan *plan)
{
    struct ew_cuda_decode_node nodes[NODES];
    const struct ew_cuda_decode_place place = { .table = 1u << 30, .workspace = 1u << 28 };
    const size_t n = make_nodes(m, nodes);
    ew_error err = { 0 };

    if (ew_cuda_decode_plan(nodes, n, &h200, &place, plan, &err))
        fail_msg("%s", err.text);
    assert_int_equal(plan->n_phases, n);
}

/* Units of a linear that go to blocks: what share and extra add up to. */
static size_t units(const struct ew_step_phase *ph, size_t blocks)
{
    return ph->share * blocks + ph->extra;
}

/* Block 0 counts the step when it is done with it: by then each block must have sent something that
 * it, itself or through others, has waited for. So each has outputs of some linear before the last
 * one, and block 0 has some of the last one. */
static void test_every_block_is_heard(void **state)
{
    static const struct decoder all[] = {
        /* one layer: the head alone has work for all multiprocessors */
        { 1, 64, 128, 2, 1, 64, 4000, 1, &plain, &plain },
        { 1, 64, 128, 2, 1, 64, 4000, 2, &plain, &plain },
        { 1, 64, 128, 2, 1, 64, 4000, 8, &plain, &plain },
        { 1, 128, 128, 2, 1, 64, 4000, 1, &i4_g128, &i8_rows },
        { 1, 128, 128, 2, 1, 64, 4000, 1, &i4_g128, &plain },
        /* the head has less than there are blocks */
        { 1, 256, 2048, 2, 1, 64, 40, 1, &i4_g128, &i8_rows },
        { 1, 256, 2048, 2, 1, 64, 40, 1, &plain, &plain },
        { 2, 256, 768, 4, 2, 128, 100, 1, &i4_g128, &i8_rows },
        /* more layers */
        { 2, 64, 128, 2, 1, 64, 4000, 1, &plain, &plain },
        { 4, 64, 128, 2, 1, 64, 4000, 3, &plain, &plain },
        { 4, 1024, 3072, 16, 8, 128, 4000, 1, &i4_g128, &i8_rows },
        /* a head by itself */
        { 0, 64, 0, 1, 1, 64, 4000, 1, &plain, &plain },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++) {
        struct ew_step_phase table[NODES];
        struct ew_cuda_decode_plan plan = { .table = table };
        const struct ew_step_phase *head;
        size_t blocks, most = 1;

        make_plan(&all[i], &plan);
        blocks = plan.launch.grid[0];
        head = &table[plan.n_phases - 1];
        for (const struct ew_step_phase *ph = table; ph < head; ph++)
            if (ph->kind != EW_STEP_ATTENTION && units(ph, blocks) > most)
                most = units(ph, blocks);
        if (blocks > most)
            fail_msg("decoder %zu: %zu blocks, the most that a phase before the last has is %zu", i,
                     blocks, most);
        assert_true(head->kind == EW_STEP_PLAIN16 || head->share || head->first == 0);
        assert_true(units(head, blocks) > 0);
        assert_true(blocks > 0 && blocks <= h200.n_sm);
    }
}

/* Where there is work for all, all have some. */
static void test_large_models_fill_the_chip(void **state)
{
    static const struct decoder all[] = {
        { 1, 1024, 3072, 16, 8, 128, 4000, 1, &plain, &plain },
        { 2, 1024, 3072, 16, 8, 128, 4000, 1, &i4_g128, &i8_rows },
        { 4, 1024, 3072, 16, 8, 128, 4000, 8, &plain, &plain },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++) {
        struct ew_step_phase table[NODES];
        struct ew_cuda_decode_plan plan = { .table = table };

        make_plan(&all[i], &plan);
        assert_int_equal(plan.launch.grid[0], h200.n_sm);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_block_is_heard),
        cmocka_unit_test(test_large_models_fill_the_chip),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
