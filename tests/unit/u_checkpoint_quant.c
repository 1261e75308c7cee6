/* ew-layers: base os cpu tensor op kernels graph checkpoint
 * Quantised checkpoints: every fixture of tests/golden/quant_import becomes a graph, aligned or
 * not; what is wrong with a tensor or the config is refused by name. That the numbers are right is
 * tests/e2e/quant_import.sh's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "checkpoint/quant_config.h"
#include "checkpoint/safetensors.h"
#include "graph/ir.h"
#include "os/os.h"

#define FIXTURES EW_SOURCE_DIR "/tests/golden/quant_import"
#define SCRATCH  EW_BINARY_DIR "/u_checkpoint_quant"
#define PATH_CAP 4096

/* What is done to a copy of a fixture before it is read. */
struct damage {
    const char *fixture;
    const char *find, *replace; /* text in the config; NULL: as it is */
    const char *tensor;         /* the damaged one; NULL: none */
    bool drop;
    ew_dtype dtype; /* NONE: as it is */
    int n_dims;     /* 0: as they are */
    int64_t dims[4];
    const char *poke; /* hexadecimal bytes, written at `at` */
    size_t at;
    ew_activations activations;
    const char *words[2]; /* in the message; the first NULL: the name of the tensor */
};

#define L0 "model.layers.0."
#define Q  L0 "self_attn.q_proj."

static char *read_text(const char *dir, const char *name)
{
    char path[PATH_CAP];
    ew_error err = { 0 };
    char *bytes;
    size_t n;
    char *text;

    snprintf(path, sizeof(path), "%s/%s", dir, name);
    if (!ew_path_is_file(path))
        return NULL;
    if (ew_file_read(path, (size_t)1 << 24, &bytes, &n, &err))
        fail_msg("%s", err.text);
    text = ew_mem_alloc(EW_MEM_MISC, n + 1);
    assert_non_null(text);
    memcpy(text, bytes, n);
    text[n] = 0;
    ew_mem_free(bytes);
    return text;
}

static void write_file(const char *name, const void *bytes, size_t n)
{
    char path[PATH_CAP];
    ew_error err = { 0 };

    snprintf(path, sizeof(path), "%s/%s", SCRATCH, name);
    if (ew_file_write(path, bytes, n, &err))
        fail_msg("%s", err.text);
}

/* The config files, with the first `find` replaced. */
static void write_configs(const struct damage *d, const char *from)
{
    static const char *const names[] = { "config.json", "hf_quant_config.json" };
    bool found = !d->find;

    for (size_t i = 0; i < 2; i++) {
        char *text = read_text(from, names[i]), *at, path[PATH_CAP];

        snprintf(path, sizeof(path), "%s/%s", SCRATCH, names[i]);
        (void)remove(path);
        if (!text)
            continue;
        at = d->find ? strstr(text, d->find) : NULL;
        if (at && !found) {
            const size_t n = strlen(text) + strlen(d->replace) + 1;
            char *out = ew_mem_alloc(EW_MEM_MISC, n);

            assert_non_null(out);
            snprintf(out, n, "%.*s%s%s", (int)(at - text), text, d->replace, at + strlen(d->find));
            ew_mem_free(text);
            text = out;
            found = true;
        }
        write_file(names[i], text, strlen(text));
        ew_mem_free(text);
    }
    if (!found)
        fail_msg("%s: the config has no '%s'", d->fixture, d->find);
}

static struct ew_type damaged_type(const struct damage *d, const struct ew_st_tensor *t)
{
    struct ew_type type = t->type;

    if (!d->tensor || strcmp(d->tensor, t->name) != 0)
        return type;
    if (d->n_dims)
        type = ew_type_make(type.dtype, d->n_dims, d->dims);
    if (d->dtype != EW_DTYPE_NONE)
        type.dtype = d->dtype;
    return type;
}

static bool is_dropped(const struct damage *d, const struct ew_st_tensor *t)
{
    return d->drop && strcmp(d->tensor, t->name) == 0;
}

static void write_tensors(const struct damage *d, const char *from)
{
    struct ew_safetensors *st;
    struct ew_st_writer *w;
    ew_error err = { 0 };
    bool found = !d->tensor;

    if (ew_safetensors_open_dir(from, &st, &err) ||
        ew_st_writer_create(SCRATCH "/model.safetensors", &w, &err))
        fail_msg("%s", err.text);
    for (size_t i = 0; i < ew_safetensors_count(st); i++) {
        const struct ew_st_tensor *t = ew_safetensors_at(st, i);
        const struct ew_type type = damaged_type(d, t);

        if (!is_dropped(d, t))
            assert_int_equal(ew_st_writer_declare(w, t->name, &type, &err), EW_STATUS_OK);
    }
    assert_int_equal(ew_st_writer_begin(w, &err), EW_STATUS_OK);
    for (size_t i = 0; i < ew_safetensors_count(st); i++) {
        const struct ew_st_tensor *t = ew_safetensors_at(st, i);
        const struct ew_type type = damaged_type(d, t);
        size_t bytes = 0;

        if (d->tensor && strcmp(d->tensor, t->name) == 0)
            found = true;
        if (is_dropped(d, t))
            continue;
        assert_true(ew_type_bytes(&type, &bytes));
        uint8_t *data = ew_mem_calloc(EW_MEM_MISC, bytes + 1, 1);
        assert_non_null(data);
        memcpy(data, t->data, bytes < t->bytes ? bytes : t->bytes);
        if (d->poke && strcmp(d->tensor, t->name) == 0)
            for (size_t b = 0; d->poke[2 * b]; b++) {
                const char hex[3] = { d->poke[2 * b], d->poke[2 * b + 1], 0 };

                assert_true(d->at + b < bytes);
                data[d->at + b] = (uint8_t)strtoul(hex, NULL, 16);
            }
        assert_int_equal(ew_st_writer_write(w, data, bytes, &err), EW_STATUS_OK);
        ew_mem_free(data);
    }
    assert_int_equal(ew_st_writer_commit(w, &err), EW_STATUS_OK);
    ew_safetensors_close(st);
    if (!found)
        fail_msg("%s has no tensor '%s'", d->fixture, d->tensor);
}

static ew_status load(const char *dir, ew_activations activations, ew_graph **g, ew_error *err)
{
    ew_checkpoint_opts opts = EW_CHECKPOINT_OPTS_INIT;

    opts.activations = activations;
    return ew_graph_from_checkpoint(dir, &opts, g, err);
}

static void refused(const struct damage *d)
{
    char from[PATH_CAP];
    ew_error err = { 0 };
    ew_graph *g = NULL;
    ew_status s;

    snprintf(from, sizeof(from), "%s/%s", FIXTURES, d->fixture);
    write_configs(d, from);
    write_tensors(d, from);
    s = load(SCRATCH, d->activations, &g, &err);
    if (!s) {
        ew_graph_destroy(g);
        fail_msg("%s with %s %s%s: it was read", d->fixture, d->tensor ? d->tensor : "",
                 d->find ? d->find : "", d->replace ? d->replace : "");
    }
    const char *first = d->words[0] ? d->words[0] : d->tensor;
    if (!strstr(err.text, first) || (d->words[1] && !strstr(err.text, d->words[1])))
        fail_msg("%s: '%s', wanted '%s' and '%s'", d->fixture, err.text, first,
                 d->words[1] ? d->words[1] : "");
    assert_null(strchr(err.text, '\n'));
}

#define EACH(list)                                                                                 \
    do {                                                                                           \
        (void)state;                                                                               \
        for (size_t each_i = 0; each_i < sizeof(list) / sizeof((list)[0]); each_i++)               \
            refused(&(list)[each_i]);                                                              \
    } while (0)

/* A message has both values: what is there and what is wanted. */
static void missing_tensors(void **state)
{
    static const struct damage list[] = {
        { .fixture = "awq", .tensor = Q "scales", .drop = true },
        { .fixture = "awq", .tensor = Q "qzeros", .drop = true },
        { .fixture = "awq", .tensor = Q "qweight", .drop = true },
        { .fixture = "gptq-v1", .tensor = Q "qzeros", .drop = true },
        { .fixture = "ct-int4", .tensor = Q "weight_packed", .drop = true },
        { .fixture = "ct-int4", .tensor = Q "weight_scale", .drop = true },
        { .fixture = "gptq-act", .tensor = Q "g_idx", .drop = true },
        { .fixture = "ct-int4-act", .tensor = Q "weight_g_idx", .drop = true },
        { .fixture = "ct-int4-asym", .tensor = Q "weight_zero_point", .drop = true },
        { .fixture = "ct-int8", .tensor = Q "weight_scale", .drop = true },
        { .fixture = "ct-nvfp4", .tensor = Q "weight_global_scale", .drop = true },
        { .fixture = "fp8-block", .tensor = Q "weight_scale_inv", .drop = true },
        { .fixture = "mo-nvfp4", .tensor = Q "weight_scale_2", .drop = true },
        { .fixture = "mxfp4-stack", .tensor = L0 "mlp.experts.gate_up_proj_scales", .drop = true },
        { .fixture = "ct-int4-moe",
          .tensor = L0 "mlp.experts.2.up_proj.weight_scale",
          .drop = true },
        { .fixture = "ct-ends", .tensor = "model.embed_tokens.weight_scale", .drop = true },
        { .fixture = "ct-ends", .tensor = "lm_head.weight_scale", .drop = true },
        { .fixture = "mo-fp8",
          .tensor = Q "input_scale",
          .drop = true,
          .activations = EW_ACTIVATIONS_DECLARED },
    };

    EACH(list);
}

static void wrong_shapes(void **state)
{
    static const struct damage list[] = {
        { .fixture = "awq",
          .tensor = Q "qweight",
          .n_dims = 2,
          .dims = { 64, 7 },
          .words = { NULL, "i32[64,8]" } },
        { .fixture = "gptq-v1",
          .tensor = Q "qweight",
          .n_dims = 2,
          .dims = { 7, 64 },
          .words = { NULL, "i32[8,64]" } },
        { .fixture = "gptq-v1", .tensor = Q "qzeros", .n_dims = 2, .dims = { 2, 16 } },
        { .fixture = "gptq-8bit", .tensor = Q "qweight", .n_dims = 2, .dims = { 8, 64 } },
        { .fixture = "ct-int4",
          .tensor = Q "weight_packed",
          .n_dims = 2,
          .dims = { 64, 9 },
          .words = { NULL, "i32[64,8]" } },
        { .fixture = "ct-int4", .tensor = Q "weight_scale", .n_dims = 2, .dims = { 64, 3 } },
        { .fixture = "ct-int4-asym",
          .tensor = Q "weight_zero_point",
          .n_dims = 2,
          .dims = { 7, 2 } },
        { .fixture = "ct-int4-row",
          .tensor = L0 "mlp.down_proj.weight_packed",
          .n_dims = 2,
          .dims = { 64, 12 } },
        { .fixture = "ct-int8", .tensor = Q "weight", .n_dims = 2, .dims = { 64, 32 } },
        { .fixture = "ct-int8", .tensor = Q "weight_scale", .n_dims = 2, .dims = { 32, 1 } },
        { .fixture = "ct-nvfp4", .tensor = Q "weight_scale", .n_dims = 2, .dims = { 64, 2 } },
        { .fixture = "ct-nvfp4", .tensor = Q "weight_global_scale", .n_dims = 1, .dims = { 2 } },
        { .fixture = "fp8-block-odd",
          .tensor = Q "weight_scale_inv",
          .n_dims = 2,
          .dims = { 1, 1 } },
        { .fixture = "fbgemm-fp8", .tensor = Q "weight_scale", .n_dims = 1, .dims = { 1 } },
        { .fixture = "mo-w4a16-awq", .tensor = Q "weight", .n_dims = 2, .dims = { 32, 32 } },
        { .fixture = "mo-w4a16-awq", .tensor = Q "pre_quant_scale", .n_dims = 1, .dims = { 63 } },
        { .fixture = "mxfp4-stack",
          .tensor = L0 "mlp.experts.down_proj_blocks",
          .n_dims = 4,
          .dims = { 4, 64, 2, 15 } },
        { .fixture = "fp8-stack",
          .tensor = L0 "mlp.experts.down_proj_scale_inv",
          .n_dims = 3,
          .dims = { 4, 2, 1 } },
        { .fixture = "ct-int4",
          .tensor = Q "weight_shape",
          .poke = "ffffffffffffffff",
          .words = { NULL, "-1" } },
        { .fixture = "ct-int4",
          .tensor = Q "weight_shape",
          .poke = "41",
          .words = { NULL, "[64,64]" } },
    };

    EACH(list);
}

static void wrong_dtypes(void **state)
{
    static const struct damage list[] = {
        { .fixture = "awq", .tensor = Q "qweight", .dtype = EW_DTYPE_F32 },
        { .fixture = "awq", .tensor = Q "scales", .dtype = EW_DTYPE_I16 },
        { .fixture = "gptq-v1", .tensor = Q "g_idx", .dtype = EW_DTYPE_F32 },
        { .fixture = "ct-int4", .tensor = Q "weight_packed", .dtype = EW_DTYPE_U32 },
        { .fixture = "ct-int8", .tensor = Q "weight", .dtype = EW_DTYPE_U8 },
        { .fixture = "ct-fp8-tensor", .tensor = Q "weight", .dtype = EW_DTYPE_I8 },
        { .fixture = "ct-fp8-tensor", .tensor = Q "weight", .dtype = EW_DTYPE_F8E4M3FNUZ },
        { .fixture = "ct-nvfp4", .tensor = Q "weight_scale", .dtype = EW_DTYPE_U8 },
        { .fixture = "ct-mxfp4", .tensor = Q "weight_scale", .dtype = EW_DTYPE_F8E4M3 },
        { .fixture = "mo-w4a16-awq", .tensor = Q "weight", .dtype = EW_DTYPE_I8 },
    };

    EACH(list);
}

static void wrong_numbers(void **state)
{
    static const struct damage list[] = {
        { .fixture = "awq", .tensor = Q "scales", .poke = "007c", .words = { NULL, "inf" } },
        { .fixture = "gptq-v1", .tensor = Q "scales", .poke = "017e", .words = { NULL, "nan" } },
        { .fixture = "ct-int8", .tensor = Q "weight_scale", .poke = "0000807f" },
        { .fixture = "ct-fp8-channel", .tensor = Q "weight", .poke = "7f", .at = 100 },
        { .fixture = "fp8-stack", .tensor = L0 "mlp.experts.down_proj", .poke = "ff", .at = 9 },
        { .fixture = "ct-nvfp4", .tensor = Q "weight_scale", .poke = "7f", .at = 3 },
        { .fixture = "ct-nvfp4", .tensor = Q "weight_global_scale", .poke = "00000000" },
        { .fixture = "mo-nvfp4", .tensor = Q "weight_scale_2", .poke = "000080bf" },
        { .fixture = "ct-mxfp4", .tensor = Q "weight_scale", .poke = "ff", .at = 1 },
        { .fixture = "mo-int8-sq", .tensor = Q "pre_quant_scale", .poke = "007e" },
        { .fixture = "gptq-act",
          .tensor = Q "g_idx",
          .poke = "02000000",
          .words = { NULL, "groups 0..1" } },
        { .fixture = "gptq-act", .tensor = Q "g_idx", .poke = "ffffffff", .words = { NULL, "-1" } },
        { .fixture = "gptq-act",
          .tensor = Q "g_idx",
          .poke = "0000000000000000000000000000000000000000000000000000000000000000000000000000000"
                  "0000000000000000000000000000000000000000000000000000000000000000000000000000000"
                  "0000000000000000000000000000000000000000000000000000000000000000000000000000000"
                  "0000000000000000000000000000000000000000000000000000000000000000000000000000000"
                  "0000",
          .words = { NULL, "more than 32" } },
        { .fixture = "ct-int4-bytes",
          .tensor = Q "weight_zero_point",
          .poke = "08",
          .words = { NULL, "0..15" } },
        { .fixture = "ct-int4-bytes", .tensor = Q "weight", .poke = "f7", .words = { NULL, "-9" } },
        { .fixture = "mo-fp8",
          .tensor = Q "input_scale",
          .poke = "00000000",
          .activations = EW_ACTIVATIONS_DECLARED },
    };

    EACH(list);
}

/* Groups that do not divide, and keys that mean something else. */
static void wrong_configs(void **state)
{
    static const struct damage list[] = {
        { .fixture = "awq",
          .find = "\"group_size\": 32",
          .replace = "\"group_size\": 48",
          .words = { "q_proj", "48" } },
        { .fixture = "awq",
          .find = "\"group_size\": 32",
          .replace = "\"group_size\": 64",
          .words = { Q "scales", "[1,64]" } },
        { .fixture = "awq",
          .find = "\"group_size\": 32",
          .replace = "\"group_size\": 0",
          .words = { "group_size" } },
        { .fixture = "awq", .find = "\"gemm\"", .replace = "\"gemv\"", .words = { "gemv" } },
        { .fixture = "awq", .find = "\"gemm\"", .replace = "\"marlin\"", .words = { "marlin" } },
        { .fixture = "awq", .find = "\"bits\": 4", .replace = "\"bits\": 8", .words = { "bits" } },
        { .fixture = "awq",
          .find = "\"quant_method\": \"awq\"",
          .replace = "\"quant_method\": \"hqq\"",
          .words = { "hqq" } },
        { .fixture = "awq",
          .find = "\"quant_method\": \"awq\"",
          .replace = "\"sym\": false",
          .words = { "quant_method" } },
        { .fixture = "awq",
          .find = "\"method\": \"awq\"",
          .replace = "\"method\": \"paroquant\"",
          .words = { "paroquant" } },
        { .fixture = "gptq-v1",
          .find = "\"method\": \"gptq\"",
          .replace = "\"method\": \"qqq\"",
          .words = { "qqq" } },
        { .fixture = "awq",
          .find = "\"zero_point\"",
          .replace = "\"x_rotation\"",
          .words = { "x_rotation" } },
        { .fixture = "gptq-v1",
          .find = "\"bits\": 4",
          .replace = "\"bits\": 3",
          .words = { "bits", "3" } },
        { .fixture = "gptq-v1",
          .find = "\"bits\": 4",
          .replace = "\"bits\": 2",
          .words = { "bits", "2" } },
        { .fixture = "gptq-v1",
          .find = "\"checkpoint_format\": \"gptq\"",
          .replace = "\"checkpoint_format\": \"bitblas\"",
          .words = { "bitblas" } },
        { .fixture = "gptq-dynamic",
          .find = ".*layers",
          .replace = "(((layers",
          .words = { "regex" } },
        { .fixture = "ct-int4",
          .find = "\"pack-quantized\"",
          .replace = "\"marlin-24\"",
          .words = { "marlin-24" } },
        { .fixture = "ct-int4",
          .find = "\"num_bits\": 4",
          .replace = "\"num_bits\": 3",
          .words = { "num_bits", "3" } },
        { .fixture = "ct-int4",
          .find = "\"ignore\"",
          .replace = "\"transform_config\": {\"a\": 1}, \"ignore\"",
          .words = { "transform_config" } },
        { .fixture = "ct-int4",
          .find = "\"group\"",
          .replace = "\"token\"",
          .words = { "strategy", "token" } },
        { .fixture = "ct-int4-asym",
          .find = "\"symmetric\": false",
          .replace = "\"symmetric\": true",
          .words = { "weight_zero_point", "symmetric" } },
        { .fixture = "ct-int4",
          .find = "\"actorder\": null",
          .replace = "\"actorder\": \"group\"",
          .words = { "weight_g_idx", "missing" } },
        { .fixture = "ct-int4-act",
          .find = "\"actorder\": \"group\"",
          .replace = "\"actorder\": \"rows\"",
          .words = { "actorder", "rows" } },
        { .fixture = "mo-fp8",
          .find = "\"FP8\"",
          .replace = "\"W4A8_AWQ\"",
          .words = { "W4A8_AWQ" } },
        { .fixture = "mo-w4a16-awq",
          .find = "\"has_zero_point\": false",
          .replace = "\"has_zero_point\": true",
          .words = { "has_zero_point" } },
        { .fixture = "mo-nvfp4",
          .find = "\"group_size\": 16",
          .replace = "\"group_size\": 32",
          .words = { "group_size", "32" } },
        { .fixture = "ct-int4",
          .find = "\"quantization_config\"",
          .replace = "\"task_specific_params\"",
          .words = { "weight_packed", "no quantization" } },
        { .fixture = "ct-int4-moe",
          .find = "\"re:.*mlp.gate$\"",
          .replace = "\"model.layers.0.mlp.experts.1.up_proj\"",
          .words = { "experts.1.up_proj.weight" } },
        { .fixture = "ct-int8-asym",
          .find = "\"type\": \"int\",\n     \"strategy\": \"token\",\n"
                  "     \"group_size\": null,\n     \"symmetric\": true",
          .replace = "\"type\": \"int\", \"strategy\": \"token\", \"symmetric\": false",
          .activations = EW_ACTIVATIONS_DECLARED,
          .words = { "q_proj", "asymmetric" } },
        { .fixture = "fbgemm-fp8",
          .activations = EW_ACTIVATIONS_DECLARED,
          .words = { "q_proj", "activation_scale_ub" } },
        { .fixture = "ct-mxfp8", .tensor = Q "weight_scale", .drop = true },
    };

    EACH(list);
}

/* All bytes of the constants of a graph, decoded. */
static uint64_t hash_constants(const struct ew_graph *g)
{
    uint64_t hash = 0;

    for (uint32_t i = 0; i < g->n_values; i++) {
        const struct ew_value *v = g->values[i];
        size_t bytes = 0;
        void *data;

        if (!v->is_const || !ew_type_bytes(&v->type, &bytes))
            continue;
        data = ew_mem_calloc(EW_MEM_MISC, bytes + 1, 1);
        assert_non_null(data);
        assert_true(ew_const_copy(v, data));
        hash = ew_hash64(data, bytes, hash);
        ew_mem_free(data);
    }
    return hash;
}

static size_t count_ops(const struct ew_graph *g, ew_op op)
{
    size_t n = 0;

    for (const struct ew_node *node = g->head; node; node = node->next)
        n += node->op == op;
    return n;
}

/* The weights of a fixture with one byte more before its data: nothing is aligned any more. */
static void write_askew(const char *from)
{
    char path[PATH_CAP + 32];
    ew_error err = { 0 };
    char *bytes;
    size_t n;
    uint64_t header;
    uint8_t *out;

    snprintf(path, sizeof(path), "%s/model.safetensors", from);
    if (ew_file_read(path, (size_t)1 << 24, &bytes, &n, &err))
        fail_msg("%s", err.text);
    memcpy(&header, bytes, sizeof(header));
    out = ew_mem_alloc(EW_MEM_MISC, n + 1);
    assert_non_null(out);
    memcpy(out, bytes, 8 + header);
    out[8 + header] = ' ';
    memcpy(out + 9 + header, bytes + 8 + header, n - 8 - header);
    header++;
    memcpy(out, &header, sizeof(header));
    write_file("model.safetensors", out, n + 1);
    ew_mem_free(out);
    ew_mem_free(bytes);
}

static void fixtures_load(void **state)
{
    char **names;
    size_t n, n_read = 0;

    (void)state;
    assert_int_equal(ew_dir_list(FIXTURES, &names, &n, NULL), EW_STATUS_OK);
    for (size_t i = 0; i < n; i++) {
        struct damage d = { .fixture = names[i] };
        char from[PATH_CAP];
        ew_error err = { 0 };
        ew_graph *g, *askew;

        snprintf(from, sizeof(from), "%s/%s", FIXTURES, names[i]);
        if (strcmp(names[i], "generate.py") != 0) {
            if (load(from, EW_ACTIVATIONS_EXACT, &g, &err))
                fail_msg("%s", err.text);
            write_configs(&d, from);
            write_askew(from);
            if (load(SCRATCH, EW_ACTIVATIONS_INT8, &askew, &err))
                fail_msg("%s askew: %s", names[i], err.text);
            assert_int_equal(hash_constants(g), hash_constants(askew));
            if (strcmp(names[i], "gptq-act") == 0) /* qkv, o, gate and up, down */
                assert_int_equal(count_ops(g, EW_OP_GATHER), 4);
            ew_graph_destroy(g);
            ew_graph_destroy(askew);
            n_read++;
        }
        ew_mem_free(names[i]);
    }
    ew_mem_free(names);
    assert_true(n_read >= 40);
}

static void linear_attrs(const char *fixture, ew_activations activations, const char *node,
                         struct ew_attr_linear *out)
{
    char from[PATH_CAP];
    ew_error err = { 0 };
    ew_graph *g;

    snprintf(from, sizeof(from), "%s/%s", FIXTURES, fixture);
    if (load(from, activations, &g, &err))
        fail_msg("%s", err.text);
    *out = (struct ew_attr_linear){ 0 };
    for (const struct ew_node *n = g->head; n; n = n->next)
        if (strcmp(n->name, node) == 0)
            *out = n->attrs.linear;
    ew_graph_destroy(g);
}

static void activations_follow(void **state)
{
    static const struct {
        const char *fixture;
        int x_quant, x_block;
        float x_scale;
    } declared[] = {
        { "ct-int4", EW_XQ_NONE, 0, 1 },
        { "ct-int8", EW_XQ_INT8_ROW, 0, 1 },
        { "ct-fp8-tensor", EW_XQ_FP8, 0, 0.01f },
        { "ct-fp8-channel", EW_XQ_FP8_ROW, 0, 1 },
        { "ct-fp8-block", EW_XQ_FP8_BLOCK, 128, 1 },
        { "ct-nvfp4", EW_XQ_NVFP4, 16, 1.0f / 500 },
        { "ct-mxfp8", EW_XQ_MXFP8, 32, 1 },
        { "fp8-block-odd", EW_XQ_FP8_BLOCK, 80, 1 },
        { "mo-nvfp4", EW_XQ_NVFP4, 16, 0.002f },
        { "mo-int8-sq", EW_XQ_INT8, 0, 0.05f },
        { "mo-mxfp8", EW_XQ_MXFP8, 32, 1 },
    };
    static const char node[] = "model.layers.0.self_attn.q_proj";
    struct ew_attr_linear a;

    (void)state;
    for (size_t i = 0; i < sizeof(declared) / sizeof(declared[0]); i++) {
        linear_attrs(declared[i].fixture, EW_ACTIVATIONS_DECLARED, node, &a);
        assert_int_equal(a.x_quant, declared[i].x_quant);
        assert_int_equal(a.x_block, declared[i].x_block);
        assert_float_equal(a.x_scale, declared[i].x_scale, 1e-9);
        linear_attrs(declared[i].fixture, EW_ACTIVATIONS_EXACT, node, &a);
        assert_int_equal(a.x_quant, EW_XQ_NONE);
        linear_attrs(declared[i].fixture, EW_ACTIVATIONS_INT8, node, &a);
        assert_int_equal(a.x_quant,
                         strcmp(declared[i].fixture, "ct-int4") ? EW_XQ_INT8_ROW : EW_XQ_INT8_W8);
    }
    linear_attrs("ct-int8", EW_ACTIVATIONS_INT8, "lm_head", &a); /* plain */
    assert_int_equal(a.x_quant, EW_XQ_NONE);
}

static int make_scratch(void **state)
{
    (void)state;
    return ew_dir_make(SCRATCH, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fixtures_load),   cmocka_unit_test(activations_follow),
        cmocka_unit_test(missing_tensors), cmocka_unit_test(wrong_shapes),
        cmocka_unit_test(wrong_dtypes),    cmocka_unit_test(wrong_numbers),
        cmocka_unit_test(wrong_configs),
    };

    return cmocka_run_group_tests(tests, make_scratch, NULL);
}
