/* text/template.c - chat templates: where a model keeps its own, parsing, and rendering with caps
 * (edgewise/tokenizer.h).
 *
 * A processed_chat_template.json of the reference system is turned into an equivalent Jinja source,
 * so that one interpreter serves both. */
#include <string.h>

#include "base/buf.h"
#include "base/json.h"
#include "edgewise/tokenizer.h"
#include "os/os.h"
#include "text/jinja_eval.h"

#define MAX_SOURCE        ((size_t)1 << 20) /* as the reference system */
#define MAX_CONFIG        ((size_t)100 << 20)
#define MAX_RENDER_MEMORY ((size_t)512 << 20)

struct ew_template {
    struct ew_arena arena;
    struct jinja_node **body;
    size_t n_body;
    const char *name;
    const char *bos, *eos; /* of the directory's tokenizer_config.json, NULL if none */
};

void ew_template_destroy(ew_template *t)
{
    if (!t)
        return;
    ew_arena_deinit(&t->arena);
    ew_mem_free(t);
}

ew_status ew_template_parse(const char *source, size_t len, const char *name, ew_template **out,
                            ew_error *err)
{
    struct jinja_token *tokens;
    size_t n_tokens;
    ew_template *t;
    ew_status st;

    *out = NULL;
    if (len > MAX_SOURCE)
        return ew_fail(err, EW_STATUS_LIMIT, "%s: a template of %zu bytes, at most %zu", name, len,
                       MAX_SOURCE);
    t = ew_mem_calloc(EW_MEM_TEXT, 1, sizeof(*t));
    if (!t)
        return ew_fail(err, EW_STATUS_NO_MEMORY, "%s: template", name);
    ew_arena_init(&t->arena, EW_MEM_TEXT, 256 * MAX_SOURCE);
    const char *const copy = ew_arena_strndup(&t->arena, source, len);
    t->name = ew_arena_strdup(&t->arena, name);
    if (!copy || !t->name) {
        ew_template_destroy(t);
        return ew_fail(err, EW_STATUS_NO_MEMORY, "%s: template", name);
    }
    st = jinja_lex(&t->arena, copy, len, t->name, &tokens, &n_tokens, err);
    if (!st)
        st = jinja_parse(&t->arena, tokens, n_tokens, t->name, &t->body, &t->n_body, err);
    if (st) {
        ew_template_destroy(t);
        return st;
    }
    *out = t;
    return EW_STATUS_OK;
}

/* ---- rendering ---- */

static ew_status spans_of(const struct jinja_str *s, ew_text_span **spans, size_t *n_spans,
                          ew_error *err)
{
    size_t n = 0;

    for (size_t i = 0; i < s->len; i++)
        n += jinja_str_user_at(s, i) && (i == 0 || !jinja_str_user_at(s, i - 1));
    *spans = ew_mem_calloc(EW_MEM_TEXT, n ? n : 1, sizeof(**spans));
    *n_spans = n;
    if (!*spans)
        return ew_fail(err, EW_STATUS_NO_MEMORY, "spans of a rendering");
    n = 0;
    for (size_t i = 0; i < s->len; i++) {
        if (!jinja_str_user_at(s, i))
            continue;
        if (i == 0 || !jinja_str_user_at(s, i - 1))
            (*spans)[n++].begin = i;
        (*spans)[n - 1].end = i + 1;
    }
    return EW_STATUS_OK;
}

static ew_status set_token(struct jinja_run *r, struct jinja_dict *input, const char *name,
                           const char *text)
{
    struct jinja_value key, v;

    if (!text || jinja_dict_find_text(input, name, strlen(name), &v))
        return EW_STATUS_OK;
    EW_TRY(jinja_str_new(r, name, strlen(name), NULL, &key));
    EW_TRY(jinja_str_new(r, text, strlen(text), NULL, &v));
    return jinja_dict_set(r, input, key, v);
}

static ew_status render(struct jinja_run *r, const ew_template *t, const char *input_json,
                        struct jinja_value *out)
{
    struct jinja_scope globals = { 0 }, top = { .parent = &globals };
    struct jinja_out text = { 0 };
    struct jinja_value input;
    enum jinja_flow flow;

    EW_TRY(jinja_from_json(r, input_json, &input));
    EW_TRY(set_token(r, input.u.dict, "bos_token", t->bos));
    EW_TRY(set_token(r, input.u.dict, "eos_token", t->eos));
    r->steps = 0; /* the input's size was bounded by the caller: only the template's work counts */
    for (size_t i = 0; i < input.u.dict->n; i++) {
        const struct jinja_entry *const e = &input.u.dict->e[i];
        EW_TRY(jinja_scope_set(r, &globals, e->key.u.s->at, e->key.u.s->len, e->value));
    }
    EW_TRY(jinja_exec(r, &top, t->body, t->n_body, &text, &flow));
    return jinja_str_concat(r, text.parts, text.n, out);
}

ew_status ew_template_render(const ew_template *t, const char *input_json,
                             const ew_template_caps *caps, int64_t now_s, char **text, size_t *len,
                             ew_text_span **user_spans, size_t *n_spans, ew_error *err)
{
    struct jinja_run r = { .now_s = now_s, .template_name = t->name, .err = err };
    struct jinja_value v;
    ew_status st;

    *text = NULL;
    *len = 0;
    if (user_spans) {
        *user_spans = NULL;
        *n_spans = 0;
    }
    if (caps)
        r.caps = *caps;
    r.caps.max_steps = r.caps.max_steps ? r.caps.max_steps : 1000000;
    r.caps.max_depth = r.caps.max_depth ? r.caps.max_depth : 200;
    r.caps.max_out_bytes = r.caps.max_out_bytes ? r.caps.max_out_bytes : (uint64_t)8 << 20;
    r.caps.max_range_len = r.caps.max_range_len ? r.caps.max_range_len : 100000;
    ew_arena_init(&r.arena, EW_MEM_TEXT, MAX_RENDER_MEMORY);
    st = render(&r, t, input_json, &v);
    if (!st) {
        *text = ew_mem_strndup(EW_MEM_TEXT, v.u.s->at, v.u.s->len);
        *len = v.u.s->len;
        st = *text ? EW_STATUS_OK : ew_fail(err, EW_STATUS_NO_MEMORY, "%s: rendering", t->name);
    }
    if (!st && user_spans)
        st = spans_of(v.u.s, user_spans, n_spans, err);
    if (st) {
        ew_mem_free(*text);
        *text = NULL;
        *len = 0;
    }
    ew_arena_deinit(&r.arena);
    return st;
}

void ew_spans_free(ew_text_span *spans)
{
    ew_mem_free(spans);
}

/* ---- a model's own template ---- */

static const char *token_text(const json_t *config, const char *key)
{
    const json_t *const v = json_object_get(config, key);

    return json_string_value(json_is_object(v) ? json_object_get(v, "content") : v);
}

/* The string, or the entry of a list of {name, template}. */
static const char *config_template(const json_t *config, bool with_tools)
{
    const json_t *const v = json_object_get(config, "chat_template");
    const char *chosen = json_string_value(v);
    size_t i;
    json_t *entry;

    json_array_foreach(v, i, entry)
    {
        const char *const name = json_string_value(json_object_get(entry, "name"));
        if (!name)
            continue;
        if (strcmp(name, "default") == 0 && !chosen)
            chosen = json_string_value(json_object_get(entry, "template"));
        if (strcmp(name, "tool_use") == 0 && with_tools)
            chosen = json_string_value(json_object_get(entry, "template"));
    }
    return chosen;
}

static void quote(struct ew_buf *b, const char *text)
{
    ew_buf_putc(b, '"');
    for (; text && *text; text++) {
        if (*text == '"' || *text == '\\')
            ew_buf_putc(b, '\\');
        if (*text == '\n')
            ew_buf_puts(b, "\\n");
        else
            ew_buf_putc(b, *text);
    }
    ew_buf_putc(b, '"');
}

/* {% if message.role == "user" %}{{ prefix }}content{{ suffix }}... */
static void processed_role(struct ew_buf *b, const char *role, const json_t *entry,
                           const json_t *content_types)
{
    const char *type;
    json_t *spec;

    ew_buf_puts(b, "{%- if message.role == ");
    quote(b, role);
    ew_buf_puts(b, " -%}{{ ");
    quote(b, json_string_value(json_object_get(entry, "prefix")));
    ew_buf_puts(b, " }}{% if message.content is string %}{{ message.content }}{% else %}{% for "
                   "part in message.content %}"
                   "{% if part.type == 'text' %}{{ part.text }}");
    json_object_foreach((json_t *)(uintptr_t)content_types, type, spec)
    {
        ew_buf_puts(b, "{% elif part.type == ");
        quote(b, type);
        ew_buf_puts(b, " %}{{ ");
        quote(b, json_string_value(json_object_get(spec, "format")));
        ew_buf_puts(b, " }}");
    }
    ew_buf_puts(b, "{% endif %}{% endfor %}{% endif %}{{ ");
    quote(b, json_string_value(json_object_get(entry, "suffix")));
    ew_buf_puts(b, " }}{%- endif -%}");
}

static ew_status from_processed(const char *path, ew_template **out, ew_error *err)
{
    const char *role;
    json_t *root, *entry;
    struct ew_buf b;
    ew_status st;

    EW_TRY(ew_json_load(path, MAX_SOURCE, &root, err));
    const json_t *const roles = json_object_get(root, "roles");
    const json_t *const types = json_object_get(root, "content_types");
    const char *const system = json_string_value(json_object_get(root, "default_system_prompt"));
    const char *const plain = json_string_value(json_object_get(root, "generation_prompt"));
    const char *const thinking =
        json_string_value(json_object_get(root, "generation_prompt_thinking"));
    const char *const prefix = json_string_value(json_object_get(root, "prompt_prefix"));
    if (!json_is_object(roles)) {
        json_decref(root);
        return ew_fail(err, EW_STATUS_MALFORMED, "%s: \"roles\" is not an object", path);
    }
    ew_buf_init(&b, EW_MEM_TEXT, MAX_SOURCE);
    ew_buf_puts(&b, "{{ ");
    quote(&b, prefix);
    ew_buf_puts(&b, " }}");
    entry = json_object_get(roles, "system");
    if (system && system[0] && entry) {
        ew_buf_puts(&b, "{%- if messages[0].role != 'system' -%}{{ ");
        quote(&b, json_string_value(json_object_get(entry, "prefix")));
        ew_buf_puts(&b, " ~ ");
        quote(&b, system);
        ew_buf_puts(&b, " ~ ");
        quote(&b, json_string_value(json_object_get(entry, "suffix")));
        ew_buf_puts(&b, " }}{%- endif -%}");
    }
    ew_buf_puts(&b, "{%- for message in messages -%}");
    json_object_foreach((json_t *)(uintptr_t)roles, role, entry)
        processed_role(&b, role, entry, types);
    ew_buf_puts(&b, "{%- endfor -%}{%- if add_generation_prompt -%}{% if enable_thinking %}{{ ");
    quote(&b, thinking ? thinking : plain);
    ew_buf_puts(&b, " }}{% else %}{{ ");
    quote(&b, plain);
    ew_buf_puts(&b, " }}{% endif %}{%- endif -%}");
    st = b.failed ? ew_fail(err, EW_STATUS_LIMIT, "%s: too large", path)
                  : ew_template_parse(b.data, b.len, path, out, err);
    ew_buf_deinit(&b);
    json_decref(root);
    return st;
}

static ew_status keep_tokens(ew_template *t, const json_t *config, ew_error *err)
{
    const char *const bos = token_text(config, "bos_token");
    const char *const eos = token_text(config, "eos_token");

    t->bos = bos ? ew_arena_strdup(&t->arena, bos) : NULL;
    t->eos = eos ? ew_arena_strdup(&t->arena, eos) : NULL;
    if ((bos && !t->bos) || (eos && !t->eos))
        return ew_fail(err, EW_STATUS_NO_MEMORY, "%s: tokens", t->name);
    return EW_STATUS_OK;
}

static ew_status load_source(const char *dir, const json_t *config, bool with_tools,
                             ew_template **out, ew_error *err)
{
    const char *const text = config_template(config, with_tools);
    char path[4096];
    char *source;
    size_t len;

    if (ew_path_join(path, sizeof(path), dir, "chat_template.jinja") && ew_path_is_file(path)) {
        EW_TRY(ew_file_read(path, MAX_SOURCE, &source, &len, err));
        const ew_status st = ew_template_parse(source, len, path, out, err);
        ew_mem_free(source);
        return st;
    }
    if (text)
        return ew_template_parse(text, strlen(text), "tokenizer_config.json: chat_template", out,
                                 err);
    if (ew_path_join(path, sizeof(path), dir, "processed_chat_template.json") &&
        ew_path_is_file(path))
        return from_processed(path, out, err);
    return ew_fail(err, EW_STATUS_NOT_FOUND, "%s: no chat template", dir);
}

ew_status ew_template_load(const char *dir, bool with_tools, ew_template **out, ew_error *err)
{
    char path[4096];
    json_t *config = NULL;
    ew_status st;

    *out = NULL;
    if (ew_path_join(path, sizeof(path), dir, "tokenizer_config.json") && ew_path_is_file(path))
        EW_TRY(ew_json_load(path, MAX_CONFIG, &config, err));
    st = load_source(dir, config, with_tools, out, err);
    if (!st && config)
        st = keep_tokens(*out, config, err);
    if (st) {
        ew_template_destroy(*out);
        *out = NULL;
    }
    json_decref(config);
    return st;
}
