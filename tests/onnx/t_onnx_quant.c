/* t_onnx_quant.c - quantised weights through ONNX and back: each format that the contract or the
 * standard has gives the same weights and the same rounding of x; what has no form is refused by
 * name and leaves no model. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/size.h"
#include "edgewise/onnx.h"
#include "graph/ir.h"
#include "os/os.h"
#include "pass/pass.h"

static char g_dir[300];

static void clean(void)
{
    static const char *const names[] = { "model.onnx", "model.onnx.data", "config.json",
                                         "embedding.safetensors" };
    char path[400];

    for (size_t i = 0; i < EW_COUNT(names); i++) {
        (void)snprintf(path, sizeof(path), "%s/%s", g_dir, names[i]);
        (void)unlink(path);
    }
    (void)rmdir(g_dir);
}

static int set_up(void **state)
{
    (void)state;
    (void)snprintf(g_dir, sizeof(g_dir), "%s/t_quant.%ld", EW_BINARY_DIR, (long)getpid());
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    clean();
    return 0;
}

/* ---- made-up matrices: everything follows from the place ---- */

struct made {
    struct ew_quant_source base;
    float row_scale;  /* of row 0 */
    bool rows_differ; /* row n has row_scale * 2^(n % 3) */
    int zero_max;     /* zero points are below or equal */
};

static uint32_t mix(size_t a, size_t b)
{
    uint32_t x = (uint32_t)(a * 7919 + b * 104729 + 17);

    x ^= x >> 13;
    x *= 0x5bd1e995u;
    return x ^ x >> 15;
}

static float made_scale(ew_dtype d, uint32_t r)
{
    switch (d) {
    case EW_DTYPE_F8E8M0:
        return 1.0f / (float)(1u << (r % 7 + 1));
    case EW_DTYPE_F8E4M3:
        return (float)(r % 8 + 8) / 8.0f;
    case EW_DTYPE_NONE:
        return 1.0f;
    case EW_DTYPE_F32:
        return (float)(r % 10007 + 1) / 12345.0f;
    default: /* few bits: exact in f16 and bf16 */
        return (float)(r % 100 + 28) / 4096.0f;
    }
}

static void made_read(const struct ew_quant_source *s, size_t row, size_t n_rows,
                      const struct ew_quant_rows *out)
{
    const struct made *m = (const struct made *)(const void *)s;
    const struct ew_quant_format *f = &s->format;
    const size_t groups = ew_quant_groups(f, s->k);

    for (size_t i = 0; i < n_rows; i++) {
        const size_t n = row + i;

        out->row_scale[i] = m->row_scale * (m->rows_differ ? (float)(1u << n % 3) : 1.0f);
        for (size_t c = 0; c < s->k; c++) {
            const uint32_t r = mix(n, c);
            uint8_t code = (uint8_t)(ew_quant_code_bits(f->code) == 4 ? r & 15u : r & 255u);

            if (f->code == EW_DTYPE_I4)
                code = (uint8_t)((code ^ 8u) - 8u);
            if (f->code == EW_DTYPE_F8E4M3 && (code & 0x7fu) == 0x7fu)
                code = 0x30; /* no NaN */
            if (f->code == EW_DTYPE_F8E5M2 && (code & 0x7cu) == 0x7cu)
                code = 0x30;
            out->codes[i * s->k + c] = code;
        }
        for (size_t g = 0; g < groups; g++) {
            out->scales[i * groups + g] = made_scale(f->scale, mix(n + 31, g));
            const uint32_t r = n + g ? mix(n, g + 99) : (uint32_t)m->zero_max; /* the first is it */
            out->zeros[i * groups + g] = (int16_t)(f->zero ? r % (unsigned)(m->zero_max + 1) : 0);
        }
    }
}

/* ---- graphs: y = x W^T ---- */

static struct ew_graph *graph_of(const struct made *m, const union ew_attrs *attrs)
{
    const int64_t dims[2] = { 2, (int64_t)m->base.k };
    const struct ew_type type = ew_type_make(EW_DTYPE_F32, 2, dims);
    struct ew_graph *g;
    struct ew_node *n;
    ew_error err;

    assert_int_equal(ew_graph_create("g", &g, &err), EW_STATUS_OK);
    struct ew_value *in[2] = { ew_graph_add_input(g, "x", &type),
                               ew_graph_add_const_quant(g, "w", &m->base, 0, m->base.n) };
    if (ew_graph_add_node(g, EW_OP_LINEAR, "y", attrs, in, 2, 1, &n, &err) ||
        ew_graph_add_output(g, n->out[0], "y", &err) || ew_graph_verify(g, &err))
        fail_msg("%s", err.text);
    return g;
}

static void same_weights(const struct ew_value *a, const struct ew_value *b, const char *what)
{
    size_t bytes;

    assert_true(ew_type_equal(&a->type, &b->type));
    assert_true(ew_type_bytes(&a->type, &bytes));
    float *x = malloc(bytes), *y = malloc(bytes);
    assert_true(x && y && ew_const_copy(a, x) && ew_const_copy(b, y));
    for (size_t i = 0; i < bytes / sizeof(float); i++)
        if (memcmp(&x[i], &y[i], sizeof(float)) != 0)
            fail_msg("%s: weight %zu is %.9g, was %.9g", what, i, (double)y[i], (double)x[i]);
    free(x);
    free(y);
}

static bool file_has(const char *word)
{
    char path[400];
    char *text;
    size_t len;
    bool found = false;
    ew_error err;

    (void)snprintf(path, sizeof(path), "%s/model.onnx", g_dir);
    assert_int_equal(ew_file_read(path, 1 << 20, &text, &len, &err), EW_STATUS_OK);
    for (size_t i = 0; i + strlen(word) <= len && !found; i++)
        found = memcmp(text + i, word, strlen(word)) == 0;
    ew_mem_free(text);
    return found;
}

/* Out and in again. *out is the one Linear that the passes make of it. */
static struct ew_graph *round_trip(const struct ew_graph *g, const struct ew_node **out)
{
    ew_error err = { 0 };
    struct ew_graph *h = NULL;

    if (ew_graph_save_onnx(g, g_dir, NULL, &err) || ew_graph_from_onnx(g_dir, &h, &err) ||
        ew_passes_run(h, 0, NULL, &err))
        fail_msg("%s", err.text);
    *out = h->head;
    assert_non_null(h->head);
    if (h->head->next || h->head->op != EW_OP_LINEAR) {
        char *text = NULL;
        assert_int_equal(ew_graph_text(h, &text, &err), EW_STATUS_OK);
        fail_msg("came back as\n%s", text);
    }
    assert_non_null(ew_const_quant(h->head->in[1]));
    return h;
}

#define FMT(c, s, g, z)                                                                            \
    {                                                                                              \
        EW_DTYPE_##c, EW_DTYPE_##s, g, z                                                           \
    }

static const struct {
    struct ew_quant_format format;
    size_t n, k;
    float row_scale;
    bool rows_differ;
    int zero_max;
    const char *form; /* what the file must hold */
    bool same_format;
} k_cases[] = {
    { FMT(I4, F16, 128, 0), 128, 256, 1, false, 0, "Int4GroupwiseGemmPlugin", true },
    { FMT(I4, F16, 128, 0), 256, 128, 0.5f, true, 0, "Int4GroupwiseGemmPlugin", true },
    { FMT(I4, BF16, 128, 0), 128, 128, 1, false, 0, "Int4GroupwiseGemmPlugin", false },
    { FMT(I4, F32, 128, 0), 128, 128, 1, false, 0, "DequantizeLinear", true },
    { FMT(I4, F16, 128, 0), 96, 128, 1, false, 0, "DequantizeLinear", true },
    { FMT(I4, F16, 32, 0), 128, 96, 1, false, 0, "DequantizeLinear", true },
    { FMT(I4, F16, 32, 0), 24, 80, 1, false, 0, "DequantizeLinear", true }, /* a short block */
    { FMT(U4, F16, 64, 1), 24, 192, 1, false, 15, "DequantizeLinear", true },
    { FMT(U4, F16, 64, 1), 24, 192, 1, false, 16, "DequantizeLinear", false }, /* u8 in the file */
    { FMT(U8, BF16, 32, 1), 24, 64, 1, false, 255, "DequantizeLinear", true },
    { FMT(I8, NONE, 0, 0), 24, 64, 0.01f, true, 0, "DequantizeLinear", true },
    { FMT(U8, NONE, 0, 1), 24, 64, 0.01f, true, 255, "DequantizeLinear", true },
    { FMT(F8E4M3, NONE, 0, 0), 24, 64, 0.01f, false, 0, "DequantizeLinear", true },
    { FMT(F8E5M2, F32, 64, 0), 24, 128, 1, false, 0, "DequantizeLinear", true },
    { FMT(F8E4M3, F32, 128, 0), 24, 256, 1, false, 0, "DequantizeLinear", true },
    { FMT(F4E2M1, F8E4M3, 16, 0), 24, 64, 0.0007f, false, 0, "scale_codes", true },
    { FMT(F4E2M1, F8E4M3, 16, 0), 24, 48, 0.0007f, true, 0, "scale_codes", true },
    { FMT(F4E2M1, F8E8M0, 32, 0), 24, 64, 1, false, 0, "DequantizeLinear", true },
    { FMT(F8E4M3, F8E8M0, 32, 0), 24, 64, 1, false, 0, "TRT_MXFP8DequantizeLinear", true },
};

static void test_weights(void **state)
{
    (void)state;
    for (size_t i = 0; i < EW_COUNT(k_cases); i++) {
        char what[100];
        const struct ew_node *back;
        struct made m = { .base = { .format = k_cases[i].format,
                                    .name = "w",
                                    .n = k_cases[i].n,
                                    .k = k_cases[i].k,
                                    .read = made_read },
                          .row_scale = k_cases[i].row_scale,
                          .rows_differ = k_cases[i].rows_differ,
                          .zero_max = k_cases[i].zero_max };

        ew_quant_format_text(&m.base.format, what, sizeof(what));
        struct ew_graph *g = graph_of(&m, NULL), *h = round_trip(g, &back);
        same_weights(g->head->in[1], back->in[1], what);
        assert_true(file_has(k_cases[i].form));
        if (k_cases[i].same_format &&
            !ew_quant_format_equal(ew_const_quant(back->in[1]), &m.base.format))
            fail_msg("%s came back in another format", what);
        ew_graph_destroy(g);
        ew_graph_destroy(h);
        clean();
    }
}

static void test_x_quant(void **state)
{
    static const struct {
        int32_t kind, block;
        float scale;
        const char *form;
    } kinds[] = {
        { EW_XQ_INT8, 0, 0.03f, "QuantizeLinear" },
        { EW_XQ_FP8, 0, 0.007f, "QuantizeLinear" },
        { EW_XQ_NVFP4, 16, 0.004f, "TRT_FP4DynamicQuantize" },
        { EW_XQ_NVFP4, 32, 0.004f, "BlockQuantize" },
        { EW_XQ_MXFP8, 32, 1, "TRT_MXFP8DynamicQuantize" },
        { EW_XQ_MXFP4, 32, 1, "BlockQuantize" },
        { EW_XQ_INT8_ROW, 0, 1, "BlockQuantize" },
        { EW_XQ_FP8_ROW, 0, 1, "BlockQuantize" },
        { EW_XQ_FP8_BLOCK, 32, 1, "BlockQuantize" },
    };
    static const struct made m = {
        .base = { .format = FMT(I8, NONE, 0, 0), .name = "w", .n = 8, .k = 64, .read = made_read },
        .row_scale = 0.25f
    };

    (void)state;
    for (size_t i = 0; i < EW_COUNT(kinds); i++) {
        const struct ew_node *back;
        union ew_attrs attrs;

        ew_op_attrs_init(EW_OP_LINEAR, &attrs);
        attrs.linear.x_quant = kinds[i].kind;
        attrs.linear.x_block = kinds[i].block;
        attrs.linear.x_scale = kinds[i].scale;
        struct ew_graph *g = graph_of(&m, &attrs), *h = round_trip(g, &back);
        assert_true(file_has(kinds[i].form));
        assert_int_equal(back->attrs.linear.x_quant, kinds[i].kind);
        assert_int_equal(back->attrs.linear.x_block, kinds[i].block);
        assert_memory_equal(&back->attrs.linear.x_scale, &kinds[i].scale, sizeof(float));
        ew_graph_destroy(g);
        ew_graph_destroy(h);
        clean();
    }
}

/* An embedding in e4m3 comes back with the same numbers; one in int8 has no form. */
static void test_embedding(void **state)
{
    static const struct ew_quant_format formats[3] = { FMT(F8E4M3, F32, 128, 0),
                                                       FMT(F8E4M3, NONE, 0, 0),
                                                       FMT(I8, NONE, 0, 0) };
    ew_error err = { 0 };

    (void)state;
    for (size_t i = 0; i < EW_COUNT(formats); i++) {
        struct ew_graph *g = NULL, *h = NULL;

        if (ew_graph_from_checkpoint(EW_SOURCE_DIR "/models/tiny", NULL, &g, &err))
            fail_msg("%s", err.text);
        const struct made m = { .base = { .format = formats[i],
                                          .name = "table",
                                          .n = (size_t)g->embedding->type.dim[0],
                                          .k = (size_t)g->embedding->type.dim[1],
                                          .read = made_read },
                                .row_scale = 0.0625f,
                                .rows_differ = true };
        g->embedding = ew_graph_add_const_quant(g, "table", &m.base, 0, m.base.n);
        assert_non_null(g->embedding);
        const ew_status st = ew_graph_save_onnx(g, g_dir, NULL, &err);
        if (formats[i].code == EW_DTYPE_I8) {
            assert_int_equal(st, EW_STATUS_UNSUPPORTED);
            assert_non_null(strstr(err.text, "'table'"));
        } else if (st || ew_graph_from_onnx(g_dir, &h, &err)) {
            fail_msg("%s", err.text);
        } else {
            assert_non_null(ew_const_quant(h->embedding));
            same_weights(g->embedding, h->embedding, "embedding");
        }
        ew_graph_destroy(g);
        ew_graph_destroy(h);
        clean();
    }
}

static void test_refused(void **state)
{
    static const struct made m = {
        .base = { .format = FMT(U8, F32, 32, 1), .name = "w", .n = 8, .k = 64, .read = made_read },
        .row_scale = 1,
        .zero_max = 256
    };
    static const char moe[] = "graph \"g\" {\n"
                              "  input %x: f32[2, 32]\n"
                              "  input %r: f32[2, 4]\n"
                              "  const %up: f32[4, 32, 32] = zeros of i8 rows\n"
                              "  const %down: f32[4, 32, 16] = zeros\n"
                              "  %y: f32[2, 32] = Moe(%x, %r, %up, %down) {top_k = 2}\n"
                              "  output %y\n"
                              "}\n";
    struct ew_graph *g = graph_of(&m, NULL);
    ew_error err = { 0 };
    char path[400];

    (void)state;
    assert_int_equal(ew_graph_save_onnx(g, g_dir, NULL, &err), EW_STATUS_UNSUPPORTED);
    assert_non_null(strstr(err.text, "'w' has a zero point of 256"));
    ew_graph_destroy(g);
    if (ew_graph_parse(moe, sizeof(moe) - 1, &g, &err))
        fail_msg("%s", err.text);
    assert_int_equal(ew_graph_save_onnx(g, g_dir, NULL, &err), EW_STATUS_UNSUPPORTED);
    assert_non_null(strstr(err.text, "'up'"));
    (void)snprintf(path, sizeof(path), "%s/model.onnx", g_dir);
    assert_false(ew_path_is_file(path));
    ew_graph_destroy(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_weights),
        cmocka_unit_test(test_x_quant),
        cmocka_unit_test(test_embedding),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
