/* text/tokenizer_load.c - tokenizer.json to a tokenizer: the vocabulary, the added tokens, and the
 * order in which the other parts are read. Truncation and padding in the file are for batches of
 * encoders and are not followed. */
#include "base/size.h"
#include "os/os.h"
#include "text/tokenizer_internal.h"
#include "text/utf8.h"

/* Ids may have holes, but a small file must not ask for a large table. */
static uint32_t id_cap(size_t n_named)
{
    const size_t cap = 8 * n_named + 4096;

    return cap < INT32_MAX ? (uint32_t)cap : INT32_MAX;
}

/* Copies a name into t->names, which has room for all of them. */
static const char *keep_name(ew_tokenizer *t, const char *text, size_t len)
{
    char *at = t->names + t->names_len;

    if (t->names_cap - t->names_len <= len)
        return NULL;
    memcpy(at, text, len);
    at[len] = 0;
    t->names_len += len + 1;
    return at;
}

static ew_status name_id(ew_tokenizer *t, const char *text, size_t len, int64_t id, ew_error *err)
{
    struct ew_token *token;

    if (id < 0 || id >= t->n_tokens)
        return ew_fail(err, EW_STATUS_MALFORMED, "token %.*s: id %lld is not 0 to %u",
                       (int)(len < 200 ? len : 200), text, (long long)id, t->n_tokens - 1);
    token = &t->tokens[id];
    if (token->text)
        return ew_fail(err, EW_STATUS_MALFORMED, "tokens %.200s and %.*s share the id %lld",
                       token->text, (int)(len < 200 ? len : 200), text, (long long)id);
    token->text = keep_name(t, text, len);
    token->len = len;
    if (!token->text || !ew_map_put(&t->all, token->text, len, (uint32_t)id))
        return ew_fail(err, EW_STATUS_NO_MEMORY, "tokenizer: out of memory for token %lld",
                       (long long)id);
    return EW_STATUS_OK;
}

static ew_status integer_id(const json_t *value, const char *text, int64_t *id, ew_error *err)
{
    if (!json_is_integer(value))
        return ew_fail(err, EW_STATUS_MALFORMED, "token %.200s: id is not an integer", text);
    *id = (int64_t)json_integer_value(value);
    return EW_STATUS_OK;
}

/* With byte fallback, a name like <0x...> must be one of the 256 bytes. */
static ew_status check_byte_name(const char *text, size_t len, ew_error *err)
{
    if (len < 4 || len > 10 || memcmp(text, "<0x", 3) != 0 || text[len - 1] != '>' ||
        ew_dec_byte_token(text, len) >= 0)
        return EW_STATUS_OK;
    return ew_fail(err, EW_STATUS_MALFORMED, "byte token %s is not <0x00> to <0xFF>", text);
}

static ew_status read_vocab(ew_tokenizer *t, json_t *vocab, bool byte_fallback, ew_error *err)
{
    const char *text;
    json_t *value;
    int64_t id = -1;

    json_object_foreach(vocab, text, value)
    {
        const size_t len = strlen(text);

        EW_TRY(integer_id(value, text, &id, err));
        EW_TRY(name_id(t, text, len, id, err));
        if (byte_fallback)
            EW_TRY(check_byte_name(text, len, err));
        if (!ew_map_put(&t->vocab, t->tokens[id].text, len, (uint32_t)id))
            return ew_fail(err, EW_STATUS_NO_MEMORY, "tokenizer: out of memory for the vocab");
    }
    return EW_STATUS_OK;
}

static ew_status read_added_token(ew_tokenizer *t, const json_t *json, ew_error *err)
{
    struct ew_added_token *a = &t->added.tokens[t->added.n_tokens];
    const json_t *content = json_object_get(json, "content");
    uint32_t known;
    int64_t id = -1;

    if (!json_is_string(content))
        return ew_fail(err, EW_STATUS_MALFORMED, "added_tokens: content is not a string");
    const char *text = json_string_value(content);
    const size_t len = json_string_length(content);

    if (len == 0)
        return EW_STATUS_OK; /* nothing to find: passed over, as the reference does */
    EW_TRY(integer_id(json_object_get(json, "id"), text, &id, err));
    if (ew_map_find(&t->all, text, len, &known)) {
        if (known != id)
            return ew_fail(err, EW_STATUS_MALFORMED, "added token %.200s: id %lld, but %u before",
                           text, (long long)id, known);
    } else {
        EW_TRY(name_id(t, text, len, id, err));
    }
    a->text = t->tokens[id].text;
    a->len = len;
    a->id = (int32_t)id;
    EW_TRY(ew_json_get_bool_or(json, "single_word", text, false, &a->single_word, err));
    EW_TRY(ew_json_get_bool_or(json, "lstrip", text, false, &a->lstrip, err));
    EW_TRY(ew_json_get_bool_or(json, "rstrip", text, false, &a->rstrip, err));
    EW_TRY(ew_json_get_bool_or(json, "special", text, false, &a->special, err));
    EW_TRY(ew_json_get_bool_or(json, "normalized", text, !a->special, &a->normalized, err));
    t->tokens[id].is_special = a->special;
    t->added.n_tokens++;
    return EW_STATUS_OK;
}

/* Room for every name and every id, before any is read. */
static ew_status reserve(ew_tokenizer *t, json_t *vocab, const json_t *added, ew_error *err)
{
    const uint32_t cap = id_cap(json_object_size(vocab) + json_array_size(added));
    const char *text;
    json_t *value;
    const json_t *one;
    size_t i;

    json_object_foreach(vocab, text, value)
    {
        t->names_cap += strlen(text) + 1;
        if (json_is_integer(value) && json_integer_value(value) >= t->n_tokens &&
            json_integer_value(value) < cap)
            t->n_tokens = (uint32_t)json_integer_value(value) + 1;
    }
    json_array_foreach(added, i, one)
    {
        const json_t *id = json_object_get(one, "id");

        t->names_cap += json_string_length(json_object_get(one, "content")) + 1;
        if (json_is_integer(id) && json_integer_value(id) >= t->n_tokens &&
            json_integer_value(id) < cap)
            t->n_tokens = (uint32_t)json_integer_value(id) + 1;
    }
    if (t->n_tokens == 0)
        return ew_fail(err, EW_STATUS_MALFORMED, "model: no token has an id from 0 to %u", cap - 1);
    t->names = ew_mem_alloc(EW_MEM_TEXT, t->names_cap + 1);
    t->tokens = ew_mem_calloc(EW_MEM_TEXT, t->n_tokens, sizeof(*t->tokens));
    t->added.tokens = ew_mem_calloc(EW_MEM_TEXT, json_array_size(added), sizeof(*t->added.tokens));
    if (!t->names || !t->tokens || !t->added.tokens)
        return ew_fail(err, EW_STATUS_NO_MEMORY, "tokenizer: out of memory for %u tokens",
                       t->n_tokens);
    return EW_STATUS_OK;
}

static ew_status read_tokens(ew_tokenizer *t, const json_t *root, const json_t *model,
                             ew_error *err)
{
    json_t *vocab = json_object_get(model, "vocab");
    const json_t *added = json_object_get(root, "added_tokens");
    bool byte_fallback;
    const json_t *one;
    size_t i;

    if (!json_is_object(vocab))
        return ew_fail(err, EW_STATUS_MALFORMED, "model: vocab is not an object");
    if (added && !json_is_null(added) && !json_is_array(added))
        return ew_fail(err, EW_STATUS_MALFORMED, "added_tokens is not a list");
    EW_TRY(ew_json_get_bool_or(model, "byte_fallback", "model", false, &byte_fallback, err));
    EW_TRY(reserve(t, vocab, added, err));
    EW_TRY(read_vocab(t, vocab, byte_fallback, err));
    json_array_foreach(added, i, one) EW_TRY(read_added_token(t, one, err));
    return EW_STATUS_OK;
}

static ew_status read_token_bytes(ew_tokenizer *t, ew_error *err)
{
    struct ew_regex_scratch scratch;
    struct ew_buf tmp;
    struct ew_buf one;
    ew_status st;

    EW_TRY(ew_regex_scratch_init(&scratch, err));
    ew_buf_init(&tmp, EW_MEM_TEXT, EW_TOKENIZER_MAX_FILE_BYTES);
    ew_buf_init(&one, EW_MEM_TEXT, EW_TOKENIZER_MAX_FILE_BYTES);
    st = ew_buf_append(&t->bytes, "", 0) ? EW_STATUS_OK : EW_STATUS_NO_MEMORY;
    for (uint32_t id = 0; id < t->n_tokens && !st; id++) {
        struct ew_token *token = &t->tokens[id];

        if (!token->text)
            continue;
        st = ew_dec_token_bytes(&t->dec, &scratch, token->text, token->len, &tmp, &one);
        token->bytes_off = t->bytes.len;
        token->bytes_len = one.len;
        if (!st && !ew_buf_append(&t->bytes, one.data, one.len))
            st = EW_STATUS_LIMIT;
    }
    ew_buf_deinit(&tmp);
    ew_buf_deinit(&one);
    ew_regex_scratch_deinit(&scratch);
    return st ? ew_fail(err, st, "decoder: the tokens' bytes cannot be made") : st;
}

static ew_status read_parts(ew_tokenizer *t, const json_t *root, ew_error *err)
{
    const json_t *model = json_object_get(root, "model");
    const char *type;

    if (!json_is_object(model))
        return ew_fail(err, EW_STATUS_MALFORMED, "model is not an object");
    EW_TRY(ew_json_get_str_or(model, "type", "model", "BPE", &type, err));
    if (strcmp(type, "BPE") != 0)
        return ew_fail(err, EW_STATUS_UNSUPPORTED, "model %s is not supported, only BPE", type);
    EW_TRY(read_tokens(t, root, model, err));
    EW_TRY(ew_bpe_parse(&t->bpe, model, &t->vocab, err));
    EW_TRY(ew_norm_parse(&t->norm, json_object_get(root, "normalizer"), err));
    EW_TRY(ew_pre_parse(&t->pre, json_object_get(root, "pre_tokenizer"), err));
    EW_TRY(ew_post_parse(&t->post, json_object_get(root, "post_processor"), t->n_tokens, err));
    EW_TRY(ew_dec_parse(&t->dec, json_object_get(root, "decoder"), err));
    EW_TRY(ew_added_index_all(&t->added, &t->norm, err));
    return read_token_bytes(t, err);
}

static int32_t config_token(const ew_tokenizer *t, const json_t *config, const char *key)
{
    const json_t *value = json_object_get(config, key);

    if (json_is_object(value))
        value = json_object_get(value, "content");
    return json_is_string(value) ? ew_tokenizer_find(t, json_string_value(value)) : -1;
}

static ew_status parse_config(ew_tokenizer *t, const char *bytes, size_t len, ew_error *err)
{
    json_t *config;

    EW_TRY(ew_json_parse(bytes, len, "tokenizer_config.json", &config, err));
    t->bos = config_token(t, config, "bos_token");
    t->eos = config_token(t, config, "eos_token");
    t->pad = config_token(t, config, "pad_token");
    json_decref(config);
    return EW_STATUS_OK;
}

ew_status ew_tokenizer_parse(const char *json, size_t len, const char *config, size_t config_len,
                             ew_tokenizer **out, ew_error *err)
{
    ew_tokenizer *t = ew_mem_calloc(EW_MEM_TEXT, 1, sizeof(*t));
    json_t *root = NULL;
    ew_status st;

    *out = NULL;
    if (!t)
        return ew_fail(err, EW_STATUS_NO_MEMORY, "tokenizer: out of memory");
    t->bos = t->eos = t->pad = -1;
    ew_map_init(&t->vocab, EW_MEM_TEXT);
    ew_map_init(&t->all, EW_MEM_TEXT);
    ew_buf_init(&t->bytes, EW_MEM_TEXT, 4 * EW_TOKENIZER_MAX_FILE_BYTES);
    st = ew_json_parse(json, len, "tokenizer.json", &root, err);
    if (!st) {
        st = read_parts(t, root, err);
        if (st)
            ew_error_within(err, "tokenizer.json");
    }
    if (!st && config)
        st = parse_config(t, config, config_len, err);
    json_decref(root);
    if (st) {
        ew_tokenizer_destroy(t);
        return st;
    }
    *out = t;
    return EW_STATUS_OK;
}

/* Paths of the two files; `config` may name one that does not exist. */
static ew_status find_files(const char *path, char file[4096], char config[4096], ew_error *err)
{
    const char *slash = strrchr(path, '/');
    const size_t dir_len = slash ? (size_t)(slash - path) : 0;
    bool fits;

    if (ew_path_is_dir(path)) {
        fits = ew_path_join(file, 4096, path, "tokenizer.json") &&
               ew_path_join(config, 4096, path, "tokenizer_config.json");
    } else {
        char dir[4096];

        fits = strlen(path) < sizeof(dir);
        if (fits) {
            memcpy(file, path, strlen(path) + 1);
            memcpy(dir, slash ? path : ".", slash ? dir_len : 1);
            dir[slash ? dir_len : 1] = 0;
            fits = ew_path_join(config, 4096, slash && dir_len == 0 ? "/" : dir,
                                "tokenizer_config.json");
        }
    }
    if (!fits)
        return ew_fail(err, EW_STATUS_INVALID_ARG, "tokenizer: path of %zu bytes is too long",
                       strlen(path));
    return EW_STATUS_OK;
}

ew_status ew_tokenizer_load(const char *path, ew_tokenizer **out, ew_error *err)
{
    char file[4096];
    char config_file[4096];
    char *json = NULL;
    char *config = NULL;
    size_t len;
    size_t config_len = 0;
    ew_status st;

    *out = NULL;
    EW_TRY(find_files(path, file, config_file, err));
    EW_TRY(ew_file_read(file, EW_TOKENIZER_MAX_FILE_BYTES, &json, &len, err));
    st = EW_STATUS_OK;
    if (ew_path_is_file(config_file))
        st = ew_file_read(config_file, EW_TOKENIZER_MAX_FILE_BYTES, &config, &config_len, err);
    if (!st) {
        st = ew_tokenizer_parse(json, len, config, config_len, out, err);
        if (st)
            ew_error_within(err, "%s", path);
    }
    ew_mem_free(json);
    ew_mem_free(config);
    return st;
}
