/* ew-layers: base os cpu tensor op kernels graph checkpoint
 * Scales of an fp8 cache in all the shapes and dtypes that checkpoints have them in, those that are
 * wrong, and which cache a quantisation config asks for. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "checkpoint/kv_scales.h"
#include "os/os.h"

enum { HEADS = 2 };

/* A file with an embedding and the tensors of `header` (JSON members), whose data is `data`. */
static ew_status add(const char *header, const void *data, size_t len, float out[2 * HEADS],
                     bool *given, ew_error *err)
{
    static const char embed[] = "{\"model.embed_tokens.weight\":{\"dtype\":\"F32\",\"shape\":[1],"
                                "\"data_offsets\":[0,4]}%s%s}";
    unsigned char file[2048] = { 0 };
    struct ew_safetensors *st;
    struct ew_graph *g;
    struct ew_weights w;
    struct ew_value *v = NULL;
    ew_status s;

    const int n = snprintf((char *)file + 8, sizeof(file) - 8, embed, header[0] ? "," : "", header);
    const size_t size = (size_t)n;
    memcpy(file, &size, sizeof(size));
    memcpy(file + 8 + size + 4, data, len);
    assert_int_equal(ew_safetensors_parse(file, 8 + size + 4 + len, "f", &st, err), EW_STATUS_OK);
    assert_int_equal(ew_graph_create("g", &g, err), EW_STATUS_OK);
    assert_int_equal(ew_weights_init(&w, st, g, NULL, EW_ACTIVATIONS_EXACT, err), EW_STATUS_OK);
    s = ew_kv_scales_add(&w, 3, HEADS, &v, err);
    *given = v != NULL;
    if (v)
        memcpy(out, v->con.data, 2 * HEADS * sizeof(float));
    for (size_t i = 1; !s && i < ew_safetensors_count(st); i++)
        assert_true(w.used[i]);
    ew_weights_deinit(&w);
    ew_graph_destroy(g);
    ew_safetensors_close(st);
    return s;
}

#define T(name, dtype, shape, from, to)                                                            \
    "\"model.layers.3.self_attn." name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape              \
    ",\"data_offsets\":[" #from "," #to "]}"

static void expect(const char *header, const void *data, size_t len, const float want[4])
{
    float got[2 * HEADS] = { 0 };
    ew_error err = { 0 };
    bool given;

    if (add(header, data, len, got, &given, &err))
        fail_msg("%s: %s", header, err.text);
    assert_int_equal(given, want != NULL);
    if (want)
        assert_memory_equal(got, want, sizeof(got));
}

static void refuse(const char *header, const void *data, size_t len, ew_status want,
                   const char *word)
{
    float got[2 * HEADS];
    ew_error err = { 0 };
    bool given;
    const ew_status s = add(header, data, len, got, &given, &err);

    if (s != want || !strstr(err.text, word))
        fail_msg("%s: status %d '%s', wanted %d with '%s'", header, s, err.text, want, word);
}

static void test_shapes(void **state)
{
    const float two[2] = { 0.5f, 0.25f }, four[4] = { 1, 2, 3, 4 };
    const float spread[4] = { 0.5f, 0.5f, 0.25f, 0.25f };
    const uint16_t half[4] = { 0x3f80, 0x4000, 0x4040, 0x4080 }; /* bf16 1 2 3 4 */
    const double wide[2] = { 0.5, 0.25 };

    (void)state;
    expect("", "", 0, NULL);
    expect(T("k_proj.k_scale", "F32", "[]", 4, 8) "," T("v_proj.v_scale", "F32", "[1]", 8, 12), two,
           8, spread);
    expect(T("k_scale", "F32", "[2]", 4, 12) "," T("v_scale", "F32", "[2,1,1]", 12, 20), four, 16,
           four);
    expect(T("k_scale", "BF16", "[2]", 4, 8) "," T("v_scale", "BF16", "[1,2,1]", 8, 12), half, 8,
           four);
    expect(T("k_scale", "F64", "[]", 4, 12) "," T("v_scale", "F64", "[]", 12, 20), wide, 16,
           spread);
    expect(T("k_scale", "F32", "[]", 4, 8) "," T("v_scale", "F32", "[]", 8,
                                                 12) "," T("q_scale", "F32", "[]", 12, 16),
           four, 12, (const float[4]){ 1, 1, 2, 2 });
    expect(T("q_proj.q_scale", "F32", "[]", 4, 8), two, 4, NULL);
}

static void test_wrong_ones(void **state)
{
    const float bad[6] = { 1, 0, -1, 3, 0, 0 };
    const uint32_t nan[2] = { 0x3f800000u, 0x7fc00000u };

    (void)state;
    refuse(T("k_scale", "F32", "[]", 4, 8), bad, 4, EW_STATUS_NOT_FOUND, "no v_scale");
    refuse(T("v_scale", "F32", "[]", 4, 8), bad, 4, EW_STATUS_NOT_FOUND, "no k_scale");
    refuse(T("k_scale", "F32", "[3]", 4, 16) "," T("v_scale", "F32", "[]", 16, 20), bad, 16,
           EW_STATUS_MISMATCH, "self_attn.k_scale' is f32[3]");
    refuse(T("k_scale", "I32", "[]", 4, 8) "," T("v_scale", "F32", "[]", 8, 12), bad, 8,
           EW_STATUS_UNSUPPORTED, "self_attn.k_scale' is i32");
    refuse(T("k_scale", "F32", "[]", 4, 8) "," T("v_scale", "F32", "[]", 8, 12), bad, 8,
           EW_STATUS_MALFORMED, "self_attn.v_scale' holds 0");
    refuse(T("k_scale", "F32", "[2]", 4, 12) "," T("v_scale", "F32", "[]", 12, 16), bad + 2, 12,
           EW_STATUS_MALFORMED, "self_attn.k_scale' holds -1");
    refuse(T("k_scale", "F32", "[]", 4, 8) "," T("v_scale", "F32", "[]", 8, 12), nan, 8,
           EW_STATUS_MALFORMED, "self_attn.v_scale' holds nan");
}

static ew_dtype dtype_of(const char *quantization, const char *modelopt)
{
    char text[1024], dir[2048], path[4096];
    struct ew_config c;
    ew_dtype found = EW_DTYPE_NONE;
    ew_error err = { 0 };

    snprintf(dir, sizeof(dir), "%s/u_kv_scales.%u", EW_BINARY_DIR, ew_os_pid());
    assert_int_equal(ew_dir_make(dir, NULL), EW_STATUS_OK);
    assert_true(ew_path_join(path, sizeof(path), dir, "hf_quant_config.json"));
    assert_int_equal(ew_file_write(path, modelopt, strlen(modelopt), NULL), EW_STATUS_OK);
    snprintf(text, sizeof(text), "{\"model_type\": \"llama\", \"quantization_config\": %s}",
             quantization);
    if (ew_config_parse(text, strlen(text), "config.json", &c, &err) ||
        ew_kv_dtype_find(dir, &c, NULL, &found, &err))
        fail_msg("%s: %s", text, err.text);
    ew_config_deinit(&c);
    return found;
}

static void test_dtype(void **state)
{
#define SCHEME(bits, type)                                                                         \
    "{\"kv_cache_scheme\": {\"num_bits\": " #bits ", \"type\": \"" type "\", \"dynamic\": false}}"
    (void)state;
    assert_int_equal(dtype_of("null", "{}"), EW_DTYPE_F32);
    assert_int_equal(dtype_of("{\"kv_cache_scheme\": null}", "{}"), EW_DTYPE_F32);
    assert_int_equal(dtype_of(SCHEME(8, "float"), "{}"), EW_DTYPE_F8E4M3);
    assert_int_equal(dtype_of(SCHEME(8, "int"), "{}"), EW_DTYPE_I8);
    assert_int_equal(dtype_of(SCHEME(4, "float"), "{}"), EW_DTYPE_F32);
    assert_int_equal(dtype_of("{\"kv_cache_quant_algo\": \"FP8\"}", "{}"), EW_DTYPE_F8E4M3);
    assert_int_equal(dtype_of("null", "{\"quantization\": {\"kv_cache_quant_algo\": \"FP8\"}}"),
                     EW_DTYPE_F8E4M3);
    assert_int_equal(dtype_of("null", "{\"quantization\": {\"kv_cache_quant_algo\": null}}"),
                     EW_DTYPE_F32);
    assert_int_equal(dtype_of("null", "{\"quantization\": {\"kv_cache_quant_algo\": \"NVFP4\"}}"),
                     EW_DTYPE_F32);
    assert_int_equal(
        dtype_of(SCHEME(8, "int"), "{\"quantization\": {\"kv_cache_quant_algo\": \"FP8\"}}"),
        EW_DTYPE_I8);
    assert_int_equal(dtype_of("5", "[]"), EW_DTYPE_F32);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shapes),
        cmocka_unit_test(test_wrong_ones),
        cmocka_unit_test(test_dtype),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
