/* ew-layers: base os cpu tensor op kernels graph checkpoint
 * Configs that lie or ask for what is not there, checkpoints whose tensors do not fit their config,
 * and random checkpoints of every fixture's shape. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/json.h"
#include "base/mem.h"
#include "checkpoint/decoder.h"
#include "checkpoint/safetensors.h"
#include "edgewise/runtime.h"
#include "graph/ir.h"
#include "os/os.h"

/* A small llama with some members replaced or added by `patch` (a JSON object). */
static char *patched(const char *patch)
{
    static const char base[] =
        "{\"model_type\": \"llama\", \"vocab_size\": 16, \"hidden_size\": 8,"
        " \"intermediate_size\": 12, \"num_hidden_layers\": 2, \"num_attention_heads\": 2,"
        " \"num_key_value_heads\": 1, \"rms_norm_eps\": 1e-6, \"torch_dtype\": \"float32\"}";
    json_t *o = json_loads(base, 0, NULL), *p = json_loads(patch, 0, NULL);
    char *text;

    assert_non_null(p);
    json_object_update(o, p);
    text = json_dumps(o, 0);
    json_decref(o);
    json_decref(p);
    return text;
}

static ew_status read_spec(const char *text, size_t len, ew_error *err)
{
    struct ew_decoder_spec spec;
    struct ew_config c;
    ew_status s = ew_config_parse(text, len, "config.json", &c, err);

    if (s)
        return s;
    s = ew_decoder_spec_init(&spec, &c, NULL, err);
    if (!s) {
        char *contract;

        s = ew_decoder_llm_config(&spec, &c, &contract, err);
        if (!s)
            ew_mem_free(contract);
        ew_decoder_spec_deinit(&spec);
    }
    ew_config_deinit(&c);
    return s;
}

static void expect(const char *patch, ew_status want, const char *word)
{
    char *text = patched(patch);
    ew_error err = { 0 };
    const ew_status s = read_spec(text, strlen(text), &err);

    if (s != want || (word && !strstr(err.text, word)))
        fail_msg("%s: status %d '%s', wanted %d with '%s'", patch, s, err.text, want, word);
    assert_null(strchr(err.text, '\n'));
    free(text);
}

static void nonsense_is_named(void **state)
{
    (void)state;
    expect("{}", EW_STATUS_OK, NULL);
    expect("{\"num_attention_heads\": 0}", EW_STATUS_MALFORMED, "num_attention_heads");
    expect("{\"num_attention_heads\": 3}", EW_STATUS_MALFORMED, "multiple");
    expect("{\"num_attention_heads\": 16}", EW_STATUS_MALFORMED, "multiple");
    expect("{\"num_key_value_heads\": 3}", EW_STATUS_MALFORMED, "num_key_value_heads");
    expect("{\"num_key_value_heads\": -1}", EW_STATUS_MALFORMED, "num_key_value_heads");
    expect("{\"hidden_size\": 9}", EW_STATUS_MALFORMED, "hidden_size");
    expect("{\"hidden_size\": -8}", EW_STATUS_MALFORMED, "hidden_size");
    expect("{\"hidden_size\": \"8\"}", EW_STATUS_MALFORMED, "hidden_size");
    expect("{\"hidden_size\": null}", EW_STATUS_MALFORMED, "hidden_size");
    expect("{\"hidden_size\": 8.5}", EW_STATUS_MALFORMED, "hidden_size");
    expect("{\"num_hidden_layers\": 1000000000000}", EW_STATUS_LIMIT, "num_hidden_layers");
    expect("{\"vocab_size\": 99999999999}", EW_STATUS_LIMIT, "vocab_size");
    expect("{\"head_dim\": 0}", EW_STATUS_MALFORMED, "head_dim");
    expect("{\"head_dim\": 3}", EW_STATUS_UNSUPPORTED, "head_dim");
    expect("{\"rms_norm_eps\": \"tiny\"}", EW_STATUS_MALFORMED, "rms_norm_eps");
    expect("{\"hidden_act\": \"mish\"}", EW_STATUS_UNSUPPORTED, "mish");
    expect("{\"hidden_act\": 3}", EW_STATUS_MALFORMED, "hidden_act");
    expect("{\"attention_bias\": 1}", EW_STATUS_MALFORMED, "attention_bias");
    expect("{\"model_type\": \"gpt_neox\"}", EW_STATUS_UNSUPPORTED, "gpt_neox");
    expect("{\"model_type\": null}", EW_STATUS_MALFORMED, "model_type");
    expect("{\"eos_token_id\": \"x\"}", EW_STATUS_MALFORMED, "eos_token_id");
    expect("{\"eos_token_id\": [1, 2]}", EW_STATUS_OK, NULL);
    expect("{\"rope_scaling\": 5}", EW_STATUS_MALFORMED, "rope");
    expect("{\"rope_parameters\": 5}", EW_STATUS_MALFORMED, "rope");
}

static void no_key_is_ignored(void **state)
{
    (void)state;
    expect("{\"clip_qkv\": 8.0}", EW_STATUS_UNSUPPORTED, "clip_qkv");
    expect("{\"clip_qkv\": null}", EW_STATUS_OK, NULL);
    expect("{\"logit_scale\": 0.5}", EW_STATUS_UNSUPPORTED, "logit_scale");
    expect("{\"use_parallel_residual\": true}", EW_STATUS_UNSUPPORTED, "use_parallel_residual");
    expect("{\"use_parallel_residual\": false}", EW_STATUS_OK, NULL);
    expect("{\"sliding_window\": 4}", EW_STATUS_UNSUPPORTED, "sliding_window");
    expect("{\"partial_rotary_factor\": 0.5}", EW_STATUS_UNSUPPORTED, "partial_rotary_factor");
    expect("{\"layer_types\": [\"full_attention\", \"sliding_attention\"]}", EW_STATUS_UNSUPPORTED,
           "layer_types");
    expect("{\"layer_types\": [\"full_attention\", \"full_attention\"]}", EW_STATUS_OK, NULL);
    expect("{\"attention_dropout\": 0.1, \"use_cache\": true, \"sep_token_id\": 3}", EW_STATUS_OK,
           NULL);
    expect("{\"rope_scaling\": {\"type\": \"ntk\", \"factor\": 2}}", EW_STATUS_UNSUPPORTED, "ntk");
    expect("{\"model_type\": \"qwen3_moe\", \"num_experts\": 2, \"num_experts_per_tok\": 3}",
           EW_STATUS_LIMIT, "num_experts_per_tok");
    expect("{\"model_type\": \"qwen2\", \"layer_types\": [\"full_attention\"]}",
           EW_STATUS_MALFORMED, "layer_types");
    expect("{\"model_type\": \"qwen2\", \"layer_types\": [\"full_attention\", "
           "\"sliding_attention\"]}",
           EW_STATUS_MALFORMED, "sliding_window");
    expect("{\"model_type\": \"gemma3_text\", \"head_dim\": 4, "
           "\"use_bidirectional_attention\": true}",
           EW_STATUS_UNSUPPORTED, "use_bidirectional_attention");
    expect("{\"model_type\": \"smollm3\", \"no_rope_layers\": [1]}", EW_STATUS_MALFORMED,
           "no_rope_layers");
    expect("{\"model_type\": \"smollm3\", \"no_rope_layers\": [1, 0, 1]}", EW_STATUS_OK, NULL);
    expect("{\"model_type\": \"gemma3_text\", \"partial_rotary_factor\": 0.5}",
           EW_STATUS_UNSUPPORTED, "partial_rotary_factor");
    expect("{\"is_causal\": false}", EW_STATUS_UNSUPPORTED, "is_causal");
    expect("{\"is_causal\": true}", EW_STATUS_OK, NULL);
    expect("{\"model_type\": \"phi3\", \"num_key_value_heads\": 2, \"full_attn_mod\": 2}",
           EW_STATUS_LIMIT, "full_attn_mod");
    expect("{\"text_config\": {\"model_type\": \"llama\"}, \"model_type\": \"idefics3\"}",
           EW_STATUS_UNSUPPORTED, "idefics3");
}

static void init_spec(const char *text, struct ew_config *c, struct ew_decoder_spec *s)
{
    ew_error err = { 0 };

    if (ew_config_parse(text, strlen(text), "config.json", c, &err) ||
        ew_decoder_spec_init(s, c, NULL, &err))
        fail_msg("%s", err.text);
}

/* The shapes that published multimodal files leave to their config classes, or spread over the
 * root. */
static void text_halves(void **state)
{
    struct ew_decoder_spec s;
    struct ew_config c;

    (void)state;
    init_spec(
        "{\"model_type\": \"gemma3\", \"mm_tokens_per_image\": 256, \"vision_config\": {},"
        " \"text_config\": {\"hidden_size\": 2560, \"intermediate_size\": 10240,"
        " \"model_type\": \"gemma3_text\", \"num_hidden_layers\": 34, \"sliding_window\": 1024,"
        " \"rope_scaling\": {\"factor\": 8.0, \"rope_type\": \"linear\"}}}",
        &c, &s);
    assert_string_equal(s.family, "gemma3_text");
    assert_int_equal(s.vocab, 262208);
    assert_int_equal(s.head_dim, 256);
    assert_int_equal(s.n_kv_heads, 4);
    assert_true(s.tied_head && c.multimodal);
    assert_int_equal(s.n_rope, 2);
    assert_int_equal(s.rope[0].type, EW_ROPE_LINEAR);
    assert_float_equal(s.rope[0].theta, 1e6, 0);
    assert_int_equal(s.rope[1].type, EW_ROPE_DEFAULT);
    assert_float_equal(s.rope[1].theta, 1e4, 0);
    assert_int_equal(s.layers[4].window, 1024);
    assert_int_equal(s.layers[5].window, -1);
    assert_int_equal(s.layers[5].rope_set, 0);
    ew_decoder_spec_deinit(&s);
    ew_config_deinit(&c);

    init_spec("{\"model_type\": \"qwen2_5_vl\", \"vision_config\": {\"depth\": 32},"
              " \"vision_start_token_id\": 1, \"hidden_size\": 64, \"intermediate_size\": 64,"
              " \"num_hidden_layers\": 2, \"num_attention_heads\": 2, \"num_key_value_heads\": 1,"
              " \"vocab_size\": 9, \"tie_word_embeddings\": true, \"rope_theta\": 1e6,"
              " \"rope_scaling\": {\"type\": \"mrope\", \"mrope_section\": [4, 6, 6]}}",
              &c, &s);
    assert_string_equal(s.family, "qwen2");
    assert_true(s.qkv_bias && !s.o_bias && s.tied_head && c.multimodal);
    assert_int_equal(s.rope[0].type, EW_ROPE_DEFAULT);
    assert_float_equal(s.rope[0].theta, 1e6, 0);
    ew_decoder_spec_deinit(&s);
    ew_config_deinit(&c);
}

/* What transformers makes of keys that are null, absent, or there twice. */
static void nulls_and_wrappers(void **state)
{
    struct ew_decoder_spec s;
    struct ew_config c;
    char *text = patched("{\"model_type\": \"qwen2\", \"num_key_value_heads\": null}");

    (void)state;
    init_spec(text, &c, &s);
    assert_int_equal(s.n_kv_heads, 2);
    ew_decoder_spec_deinit(&s);
    ew_config_deinit(&c);
    free(text);

    init_spec("{\"model_type\": \"gemma3\", \"text_config\": {\"model_type\": \"gemma3_text\","
              " \"num_hidden_layers\": 1, \"final_logit_softcapping\": 30.0}}",
              &c, &s);
    assert_float_equal(s.logits_softcap, 0, 0);
    ew_decoder_spec_deinit(&s);
    ew_config_deinit(&c);
    init_spec("{\"model_type\": \"gemma3_text\", \"num_hidden_layers\": 1,"
              " \"final_logit_softcapping\": 30.0}",
              &c, &s);
    assert_float_equal(s.logits_softcap, 30, 0);
    ew_decoder_spec_deinit(&s);
    ew_config_deinit(&c);

    text = patched("{\"model_type\": \"mistral\", \"sliding_window\": 5, \"layer_types\":"
                   " [\"full_attention\", \"sliding_attention\"]}");
    init_spec(text, &c, &s);
    assert_int_equal(s.layers[0].window, -1);
    assert_int_equal(s.layers[1].window, 5);
    ew_decoder_spec_deinit(&s);
    ew_config_deinit(&c);
    free(text);

    text = patched("{\"model_type\": \"smollm3\", \"sliding_window\": 5, \"layer_types\":"
                   " [\"full_attention\", \"sliding_attention\"]}");
    init_spec(text, &c, &s);
    assert_int_equal(s.layers[0].window, -1);
    assert_int_equal(s.layers[1].window, 5);
    ew_decoder_spec_deinit(&s);
    ew_config_deinit(&c);
    free(text);

    init_spec("{\"model_type\": \"qwen2_5_vl\", \"tie_word_embeddings\": false,"
              " \"text_config\": {\"model_type\": \"qwen2_5_vl_text\", \"hidden_size\": 64,"
              " \"intermediate_size\": 64, \"num_hidden_layers\": 1, \"num_attention_heads\": 2,"
              " \"num_key_value_heads\": 1, \"vocab_size\": 9, \"tie_word_embeddings\": true}}",
              &c, &s);
    assert_true(s.tied_head);
    ew_decoder_spec_deinit(&s);
    ew_config_deinit(&c);
}

/* Whatever the truncation of a real config: a status, never more. */
static void truncated_configs(void **state)
{
    char *text = patched("{\"rope_scaling\": {\"type\": \"yarn\", \"factor\": 4.0}}");

    (void)state;
    assert_int_equal(read_spec(text, strlen(text), NULL), EW_STATUS_OK);
    for (size_t len = 0; len < strlen(text); len++)
        assert_int_equal(read_spec(text, len, NULL), EW_STATUS_MALFORMED);
    free(text);
}

/* ---- tensors that do not fit ---- */

static void temp_dir(char *out, const char *name)
{
    snprintf(out, 2048, "%s/u_checkpoint.%u/%s", EW_BINARY_DIR, ew_os_pid(), name);
    assert_int_equal(ew_dir_make(out, NULL), EW_STATUS_OK);
}

static void put_config(const char *dir, const char *patch)
{
    char path[4096], *text = patched(patch);

    assert_true(ew_path_join(path, sizeof(path), dir, "config.json"));
    assert_int_equal(ew_file_write(path, text, strlen(text), NULL), EW_STATUS_OK);
    free(text);
}

static void expect_graph(const char *dir, const char *patch, ew_status want, const char *word)
{
    ew_graph *g = NULL;
    ew_error err = { 0 };
    ew_status s;

    put_config(dir, patch);
    s = ew_graph_from_checkpoint(dir, NULL, &g, &err);
    if (s != want || (word && !strstr(err.text, word)))
        fail_msg("%s: status %d '%s', wanted %d with '%s'", patch, s, err.text, want, word);
    ew_graph_destroy(g);
}

static void tensors_must_fit(void **state)
{
    char dir[2048], path[4096];
    ew_error err = { 0 };

    (void)state;
    temp_dir(dir, "fit");
    put_config(dir, "{}");
    assert_true(ew_path_join(path, sizeof(path), dir, "config.json"));
    if (ew_checkpoint_synth(path, dir, 1, NULL, &err))
        fail_msg("%s", err.text);
    expect_graph(dir, "{}", EW_STATUS_OK, NULL);
    expect_graph(dir, "{\"vocab_size\": 17}", EW_STATUS_MISMATCH,
                 "'model.embed_tokens.weight' is f32[16,8], the config wants f32[17,8]");
    expect_graph(dir, "{\"intermediate_size\": 16}", EW_STATUS_MISMATCH, "gate_proj.weight");
    expect_graph(dir, "{\"num_hidden_layers\": 3}", EW_STATUS_NOT_FOUND,
                 "'model.layers.2.input_layernorm.weight' [8] is missing");
    expect_graph(dir, "{\"num_hidden_layers\": 1}", EW_STATUS_UNSUPPORTED, "'model.layers.1.");
    expect_graph(dir, "{\"attention_bias\": true}", EW_STATUS_NOT_FOUND, "q_proj.bias");
    expect_graph(dir, "{\"model_type\": \"qwen3\", \"head_dim\": 4}", EW_STATUS_NOT_FOUND,
                 "q_norm.weight");
    expect_graph(dir, "{\"tie_word_embeddings\": true}", EW_STATUS_OK, NULL);
    expect_graph(dir, "{\"model_type\": \"phi3\"}", EW_STATUS_NOT_FOUND, "qkv_proj.weight");
    /* biases that the config does not ask for */
    put_config(dir, "{\"attention_bias\": true, \"mlp_bias\": true}");
    if (ew_checkpoint_synth(path, dir, 1, NULL, &err))
        fail_msg("%s", err.text);
    expect_graph(dir, "{\"attention_bias\": true, \"mlp_bias\": true}", EW_STATUS_OK, NULL);
    expect_graph(dir, "{\"mlp_bias\": true}", EW_STATUS_UNSUPPORTED, "self_attn");
}

/* Mean square of the first layer's q_proj in `dir`. */
static double spread(const char *dir)
{
    char path[4096];
    struct ew_safetensors *f = NULL;
    const struct ew_st_tensor *t;
    ew_error err = { 0 };
    double sum = 0;
    size_t n;

    assert_true(ew_path_join(path, sizeof(path), dir, "model.safetensors"));
    if (ew_safetensors_open(path, &f, &err))
        fail_msg("%s", err.text);
    t = ew_safetensors_find(f, "model.layers.0.self_attn.q_proj.weight");
    assert_non_null(t);
    assert_true(ew_type_count(&t->type, &n));
    for (size_t i = 0; i < n; i++) {
        float x;

        memcpy(&x, (const uint8_t *)t->data + i * sizeof(x), sizeof(x));
        sum += (double)x * (double)x / (double)n;
    }
    ew_safetensors_close(f);
    return sum;
}

static void synth_is_as_wide_as_the_config_says(void **state)
{
    char dir[2048], path[4096];
    ew_error err = { 0 };
    double usual, wide;

    (void)state;
    temp_dir(dir, "spread");
    assert_true(ew_path_join(path, sizeof(path), dir, "config.json"));
    put_config(dir, "{}");
    assert_int_equal(ew_checkpoint_synth(path, dir, 1, NULL, &err), EW_STATUS_OK);
    usual = spread(dir);
    put_config(dir, "{\"initializer_range\": 0.2}");
    assert_int_equal(ew_checkpoint_synth(path, dir, 1, NULL, &err), EW_STATUS_OK);
    wide = spread(dir);
    assert_true(usual > 0.0001 && usual < 0.0009);
    assert_true(wide > 90 * usual && wide < 110 * usual);
    put_config(dir, "{\"initializer_range\": -1}");
    assert_int_equal(ew_checkpoint_synth(path, dir, 1, NULL, &err), EW_STATUS_INVALID_ARG);
    assert_non_null(strstr(err.text, "initializer_range"));
}

static void random_checkpoints_of_all_shapes(void **state)
{
    const char *fixtures = EW_SOURCE_DIR "/tests/golden/families";
    size_t n, done = 0;
    char **names, config[4096], dir[2048];
    ew_error err = { 0 };

    (void)state;
    assert_int_equal(ew_dir_list(fixtures, &names, &n, &err), EW_STATUS_OK);
    for (size_t i = 0; i < n; i++) {
        ew_graph *g = NULL;

        snprintf(config, sizeof(config), "%s/%s/config.json", fixtures, names[i]);
        if (ew_path_is_file(config)) {
            temp_dir(dir, names[i]);
            if (ew_checkpoint_synth(config, dir, 3, NULL, &err) ||
                ew_graph_from_checkpoint(dir, NULL, &g, &err))
                fail_msg("%s: %s", names[i], err.text);
            ew_graph_destroy(g);
            done++;
        }
        ew_mem_free(names[i]);
    }
    ew_mem_free(names);
    assert_true(done >= 20);
}

/* The k-th allocation fails, for every k: an error each time, nothing lost (the sanitizers see). */
static void no_memory_anywhere(void **state)
{
    static const char *const names[] = { "gemma3-softcap", "mixtral", "phi3-longrope-short" };
    const uint64_t before = ew_mem_tag_bytes(EW_MEM_CHECKPOINT) + ew_mem_tag_bytes(EW_MEM_GRAPH);
    char dir[2048];

    (void)state;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        ew_status s = EW_STATUS_NO_MEMORY;
        ew_graph *g = NULL;
        uint64_t k = 1;

        snprintf(dir, sizeof(dir), "%s/tests/golden/families/%s", EW_SOURCE_DIR, names[i]);
        for (; s; k++) {
            ew_error err = { 0 };

            ew_mem_fail_at(k);
            s = ew_graph_from_checkpoint(dir, NULL, &g, &err);
            ew_mem_fail_at(0);
            if (s && s != EW_STATUS_NO_MEMORY)
                fail_msg("%s: allocation %d: status %d '%s'", names[i], (int)k, s, err.text);
        }
        assert_true(k > 20);
        ew_graph_destroy(g);
        assert_int_equal(ew_mem_tag_bytes(EW_MEM_CHECKPOINT) + ew_mem_tag_bytes(EW_MEM_GRAPH),
                         before);
    }
}

static bool stop_early(void *ctx, const char *stage, uint64_t done, uint64_t total)
{
    (void)stage;
    assert_true(done <= total);
    return ++*(int *)ctx < 3;
}

static void cancelled_synth_leaves_no_model(void **state)
{
    int calls = 0;
    const ew_progress progress = { &calls, stop_early };
    char dir[2048], path[4096];

    (void)state;
    temp_dir(dir, "cancelled");
    put_config(dir, "{}");
    assert_true(ew_path_join(path, sizeof(path), dir, "config.json"));
    assert_int_equal(ew_checkpoint_synth(path, dir, 1, &progress, NULL), EW_STATUS_CANCELLED);
    assert_int_equal(calls, 3);
    assert_true(ew_path_join(path, sizeof(path), dir, "model.safetensors"));
    assert_false(ew_path_is_file(path));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nonsense_is_named),
        cmocka_unit_test(no_key_is_ignored),
        cmocka_unit_test(text_halves),
        cmocka_unit_test(truncated_configs),
        cmocka_unit_test(tensors_must_fit),
        cmocka_unit_test(random_checkpoints_of_all_shapes),
        cmocka_unit_test(synth_is_as_wide_as_the_config_says),
        cmocka_unit_test(no_memory_anywhere),
        cmocka_unit_test(cancelled_synth_leaves_no_model),
        cmocka_unit_test(nulls_and_wrappers),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
