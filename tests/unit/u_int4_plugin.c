/* u_int4_plugin.c - the packing of Int4GroupwiseGemmPlugin against the steps of its description,
 * done here one by one, and the source that reads it.
 *
 * ew-layers: base os cpu tensor op kernels graph onnx */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "onnx/int4_plugin.h"

enum { N = 8, K = 192, GROUP = 64 };

static void fill(uint8_t *q, size_t n)
{
    uint32_t state = 12345;

    for (size_t i = 0; i < n; i++) {
        state = state * 1664525u + 1013904223u;
        q[i] = (uint8_t)(state >> 28);
    }
}

/* q[N][K] of 0..15 to the stored bytes, step by step. */
static void pack_by_steps(uint8_t *dst, const uint8_t *q)
{
    static const uint8_t block[32] = { 0, 1, 8,  9,  16, 17, 24, 25, 2, 3, 10, 11, 18, 19, 26, 27,
                                       4, 5, 12, 13, 20, 21, 28, 29, 6, 7, 14, 15, 22, 23, 30, 31 };
    static const uint8_t eight[8] = { 0, 2, 4, 6, 1, 3, 5, 7 };
    static uint8_t one[N][K], two[N][K], three[N / 4][K / 64][4 * 64];

    for (size_t n = 0; n < N; n++)
        for (size_t k = 0; k < K; k++)
            one[n][k] = q[n * K + k / 32 * 32 + block[k % 32]];
    for (size_t n = 0; n < N; n++)
        for (size_t k = 0; k < K; k++)
            two[n][k] = one[n][k / 8 * 8 + eight[k % 8]];
    for (size_t n = 0; n < N; n++)
        for (size_t k = 0; k < K; k++)
            three[n / 4][k / 64][n % 4 * 64 + k % 64] = two[n][k];
    for (size_t r = 0; r < N / 4; r++)
        for (size_t c = 0; c < K / 64; c++)
            for (size_t i = 0; i < 64; i++) {
                const uint8_t *v = three[r][c] + 4 * i;
                const unsigned word =
                    v[0] | (unsigned)v[1] << 4 | (unsigned)v[2] << 8 | (unsigned)v[3] << 12;

                dst[(r * K + c * 64 + i) * 2] = (uint8_t)(word & 0xffu);
                dst[(r * K + c * 64 + i) * 2 + 1] = (uint8_t)(word >> 8);
            }
}

static void test_packing(void **state)
{
    uint8_t q[N * K], want[N * K / 2], got[N * K / 2], back[N * K];

    (void)state;
    fill(q, sizeof(q));
    pack_by_steps(want, q);
    for (size_t n = 0; n < N; n += 4) {
        ew_onnx_int4_pack(got + n * K / 2, q + n * K, K);
        ew_onnx_int4_unpack(back + n * K, got + n * K / 2, K);
    }
    assert_memory_equal(got, want, sizeof(want));
    assert_memory_equal(back, q, sizeof(q));
}

static void test_source(void **state)
{
    float scales[K / GROUP][N], want, got[K];
    _Alignas(8) uint8_t scratch[4096];
    uint8_t q[N * K], packed[N * K / 2];
    struct ew_arena arena;

    (void)state;
    fill(q, sizeof(q));
    pack_by_steps(packed, q);
    for (size_t g = 0; g < K / GROUP; g++)
        for (size_t n = 0; n < N; n++)
            scales[g][n] = (float)(g * N + n + 1) / 64.0f;
    ew_arena_init(&arena, EW_MEM_ONNX, 0);
    const struct ew_quant_source *s =
        ew_onnx_int4_source(&arena, "w", N, K, GROUP, packed, scales, EW_DTYPE_F32);
    assert_non_null(s);
    assert_true(ew_quant_format_ok(&s->format));
    assert_true(ew_quant_rows_bytes(&s->format, 1, K) <= sizeof(scratch));
    for (size_t n = 0; n < N; n++) {
        const struct ew_quant_rows r = ew_quant_rows_carve(&s->format, 1, K, scratch);

        s->read(s, n, 1, &r);
        ew_quant_decode_row(&s->format, &r, 0, K, got);
        for (size_t k = 0; k < K; k++) {
            want = ((float)q[n * K + k] - 8.0f) * scales[k / GROUP][n];
            assert_true(want == got[k]);
        }
    }
    ew_arena_deinit(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_packing),
        cmocka_unit_test(test_source),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
