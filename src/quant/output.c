/* quant/output.c - the output folder: which tensors it has, its shards and index, and the promise
 * that nothing is under its name before all is there. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/size.h"
#include "base/text.h"
#include "os/os.h"
#include "quant/quant.h"

#define NAME_CAP    320
#define PATH_CAP    4096
#define SHARD_BYTES ((uint64_t)4 << 30)

/* ---- plan ---- */

static size_t n_units(const struct ew_q_run *r)
{
    return (size_t)r->spec.n_layers + 2;
}

/* Unit of a tensor: its layer, or the first; heads come last. */
static size_t unit_of(const struct ew_q_run *r, const struct ew_st_tensor *t)
{
    const size_t n = strlen(r->prefix);
    int64_t i = 0;

    if (t == r->head)
        return n_units(r) - 1;
    if (strncmp(t->name, r->prefix, n) != 0 || strncmp(t->name + n, "layers.", 7) != 0)
        return 0;
    for (const char *p = t->name + n + 7; *p >= '0' && *p <= '9' && i < r->spec.n_layers; p++)
        i = i * 10 + (*p - '0');
    return i < r->spec.n_layers ? (size_t)i + 1 : 0;
}

static ew_status plan_module(struct ew_q_run *r, struct ew_q_unit *u, const struct ew_q_module *m,
                             uint8_t *taken)
{
    const int64_t dims[2] = { (int64_t)m->n, (int64_t)m->k };
    const struct ew_type type = ew_type_make(m->src->type.dtype, 2, dims);
    char name[NAME_CAP];

    taken[m->src - ew_safetensors_at(r->st, 0)] = 1;
    if (m->scheme.format.kind != EW_Q_NONE)
        return ew_q_declare(r, u, m->name, &m->scheme.format, m->n, m->k);
    snprintf(name, sizeof(name), "%s.weight", m->name);
    return ew_q_add_out(r, u, name, &type, m->src,
                        m->row0 * m->k * (ew_dtype_bits(type.dtype) / 8));
}

static ew_status plan_layer(struct ew_q_run *r, size_t i, uint8_t *taken)
{
    struct ew_q_layer *layer = &r->layers[i];
    char name[NAME_CAP];

    EW_TRY(ew_q_layer_list(r, (int64_t)i, layer));
    for (size_t m = 0; m < layer->n_modules; m++)
        EW_TRY(plan_module(r, &r->units[i + 1], &layer->modules[m], taken));
    for (int part = 0; r->options->kv == EW_Q_FP8 && part < 2; part++) {
        const int64_t dims[3] = { r->spec.n_kv_heads, 1, 1 };
        const struct ew_type type = ew_type_make(r->embed->type.dtype, 3, dims);

        snprintf(name, sizeof(name), "%.160slayers.%zu.self_attn.%c_scale", r->prefix, i,
                 part ? 'v' : 'k');
        EW_TRY(ew_q_add_out(r, &r->units[i + 1], name, &type, NULL, 0));
    }
    return EW_STATUS_OK;
}

static ew_status plan_ends(struct ew_q_run *r, uint8_t *taken)
{
    const struct ew_q_format *head = &r->options->lm_head.format;
    const struct ew_q_format *embed = &r->options->embedding.format;
    const struct ew_st_tensor *src = r->head ? r->head : r->embed;
    struct ew_q_unit *last = &r->units[n_units(r) - 1];
    char name[NAME_CAP];

    if (embed->kind != EW_Q_NONE) {
        taken[r->embed - ew_safetensors_at(r->st, 0)] = 1;
        snprintf(name, sizeof(name), "%.200sembed_tokens", r->prefix);
        EW_TRY(ew_q_declare(r, &r->units[0], name, embed, (size_t)r->spec.vocab,
                            (size_t)r->spec.hidden));
    }
    if (head->kind != EW_Q_NONE) {
        if (r->head)
            taken[r->head - ew_safetensors_at(r->st, 0)] = 1;
        return ew_q_declare(r, last, r->head_name, head, (size_t)r->spec.vocab,
                            (size_t)r->spec.hidden);
    }
    if (!r->write_head || r->head)
        return EW_STATUS_OK;
    snprintf(name, sizeof(name), "%s.weight", r->head_name);
    return ew_q_add_out(r, last, name, &src->type, src, 0);
}

ew_status ew_q_plan(struct ew_q_run *r)
{
    const size_t n = ew_safetensors_count(r->st);
    uint8_t *taken = ew_mem_calloc(EW_MEM_CHECKPOINT, n, 1);
    ew_status s = EW_STATUS_OK;

    r->units = ew_arena_new(&r->arena, struct ew_q_unit, n_units(r));
    r->layers = ew_arena_new(&r->arena, struct ew_q_layer, (size_t)r->spec.n_layers);
    if (!taken || !r->units || !r->layers)
        s = ew_fail(r->err, EW_STATUS_NO_MEMORY, "no memory for the plan of the output");
    for (size_t i = 0; !s && i < (size_t)r->spec.n_layers; i++)
        s = plan_layer(r, i, taken);
    if (!s)
        s = ew_q_options_check_used(r->options, r->err);
    if (!s)
        s = plan_ends(r, taken);
    for (size_t i = 0; !s && i < n; i++) {
        const struct ew_st_tensor *t = ew_safetensors_at(r->st, i);

        if (!taken[i])
            s = ew_q_add_out(r, &r->units[unit_of(r, t)], t->name, &t->type, t, 0);
    }
    ew_mem_free(taken);
    return s;
}

/* ---- writing ---- */

struct ew_q_sink {
    struct ew_q_run *r;
    char out[PATH_CAP], temp[PATH_CAP];
    size_t *shard; /* of a unit */
    size_t n_shards;
    uint64_t total;
    struct ew_st_writer *writer;
    size_t open_shard; /* + 1; 0: none */
};

static uint64_t unit_bytes(const struct ew_q_unit *u)
{
    uint64_t sum = 0;

    for (size_t i = 0; i < u->n_outs; i++) {
        size_t bytes = 0;

        if (ew_type_bytes(&u->outs[i].type, &bytes))
            sum += bytes;
    }
    return sum;
}

static void assign_shards(struct ew_q_sink *s)
{
    uint64_t held = 0;

    for (size_t i = 0; i < n_units(s->r); i++) {
        const uint64_t bytes = unit_bytes(&s->r->units[i]);

        if (held > 0 && held + bytes > SHARD_BYTES) {
            s->n_shards++;
            held = 0;
        }
        s->shard[i] = s->n_shards;
        held += bytes;
        s->total += bytes;
    }
    s->n_shards++;
}

static void shard_name(const struct ew_q_sink *s, size_t shard, char *out, size_t cap)
{
    if (s->n_shards == 1)
        snprintf(out, cap, "model.safetensors");
    else
        snprintf(out, cap, "model-%05zu-of-%05zu.safetensors", shard + 1, s->n_shards);
}

static ew_status out_is_free(const char *path, ew_error *err)
{
    char **names;
    size_t n;

    if (ew_path_is_file(path))
        return ew_fail(err, EW_STATUS_INVALID_ARG, "%s: is a file", path);
    if (!ew_path_is_dir(path))
        return EW_STATUS_OK;
    EW_TRY(ew_dir_list(path, &names, &n, err));
    for (size_t i = 0; i < n; i++)
        ew_mem_free(names[i]);
    ew_mem_free(names);
    return n == 0 ? EW_STATUS_OK
                  : ew_fail(err, EW_STATUS_INVALID_ARG, "%s: exists and is not empty", path);
}

ew_status ew_q_sink_open(struct ew_q_run *r, const char *out_dir, struct ew_q_sink **out)
{
    struct ew_q_sink *s;
    size_t len = strlen(out_dir);

    EW_TRY(out_is_free(out_dir, r->err));
    s = ew_mem_calloc(EW_MEM_CHECKPOINT, 1, sizeof(*s));
    if (!s)
        return ew_fail(r->err, EW_STATUS_NO_MEMORY, "no memory for the output");
    s->r = r;
    while (len > 1 && out_dir[len - 1] == '/')
        len--;
    snprintf(s->out, sizeof(s->out), "%.*s", (int)len, out_dir);
    if (len + 32 > sizeof(s->temp) || len == 0) {
        ew_q_sink_abort(s);
        return ew_fail(r->err, EW_STATUS_INVALID_ARG, "'%.200s': not a usable folder name",
                       out_dir);
    }
    s->shard = ew_mem_calloc(EW_MEM_CHECKPOINT, n_units(r), sizeof(*s->shard));
    if (!s->shard) {
        ew_q_sink_abort(s);
        return ew_fail(r->err, EW_STATUS_NO_MEMORY, "no memory for the output");
    }
    assign_shards(s);
    snprintf(s->temp, sizeof(s->temp), "%.*s.tmp.%u", (int)(sizeof(s->temp) - 32), s->out,
             ew_os_pid());
    if (ew_dir_make(s->temp, r->err)) {
        ew_q_sink_abort(s);
        return r->err->status;
    }
    *out = s;
    return EW_STATUS_OK;
}

static ew_status open_shard(struct ew_q_sink *s, size_t shard)
{
    struct ew_q_run *r = s->r;
    char path[PATH_CAP], name[64];

    shard_name(s, shard, name, sizeof(name));
    if (!ew_path_join(path, sizeof(path), s->temp, name))
        return ew_fail(r->err, EW_STATUS_INVALID_ARG, "%s: path too long", s->out);
    EW_TRY(ew_st_writer_create(path, &s->writer, r->err));
    for (size_t i = 0; i < n_units(r); i++)
        for (size_t j = 0; s->shard[i] == shard && j < r->units[i].n_outs; j++)
            EW_TRY(ew_st_writer_declare(s->writer, r->units[i].outs[j].name,
                                        &r->units[i].outs[j].type, r->err));
    s->open_shard = shard + 1;
    return ew_st_writer_begin(s->writer, r->err);
}

static ew_status close_shard(struct ew_q_sink *s)
{
    struct ew_st_writer *w = s->writer;

    s->writer = NULL;
    s->open_shard = 0;
    return w ? ew_st_writer_commit(w, s->r->err) : EW_STATUS_OK;
}

ew_status ew_q_sink_write(struct ew_q_sink *s, size_t i)
{
    struct ew_q_unit *u = &s->r->units[i];

    if (s->open_shard != s->shard[i] + 1) {
        EW_TRY(close_shard(s));
        EW_TRY(open_shard(s, s->shard[i]));
    }
    for (size_t j = 0; j < u->n_outs; j++) {
        struct ew_q_out *o = &u->outs[j];
        const uint8_t *from = o->data;
        size_t bytes;

        if (!ew_type_bytes(&o->type, &bytes))
            return ew_fail(s->r->err, EW_STATUS_LIMIT, "tensor '%s' is too large", o->name);
        if (!from && o->src && bytes > 0)
            from = (const uint8_t *)o->src->data + o->src_off;
        if (!from && bytes > 0)
            return ew_fail(s->r->err, EW_STATUS_INVALID_ARG, "tensor '%s' was planned, not made",
                           o->name);
        EW_TRY(ew_st_writer_write(s->writer, from, bytes, s->r->err));
        ew_mem_free(o->data);
        o->data = NULL;
    }
    return EW_STATUS_OK;
}

static ew_status write_json(struct ew_q_sink *s, const char *name, json_t *root)
{
    char *text = root ? json_dumps(root, JSON_INDENT(2)) : NULL;
    char path[PATH_CAP];
    ew_status st;

    if (!text)
        return ew_fail(s->r->err, EW_STATUS_NO_MEMORY, "no memory for %s", name);
    if (ew_path_join(path, sizeof(path), s->temp, name))
        st = ew_file_write(path, text, strlen(text), s->r->err);
    else
        st = ew_fail(s->r->err, EW_STATUS_INVALID_ARG, "%s: path too long", s->out);
    free(text); /* jansson's own */
    return st;
}

static ew_status write_index(struct ew_q_sink *s)
{
    json_t *map = json_object(), *root;
    ew_status st;

    if (s->n_shards == 1) {
        json_decref(map);
        return EW_STATUS_OK;
    }
    for (size_t i = 0; i < n_units(s->r); i++) {
        char name[64];

        shard_name(s, s->shard[i], name, sizeof(name));
        for (size_t j = 0; j < s->r->units[i].n_outs; j++)
            json_object_set_new(map, s->r->units[i].outs[j].name, json_string(name));
    }
    root = json_pack("{s:{s:I}, s:o}", "metadata", "total_size", (json_int_t)s->total, "weight_map",
                     map);
    st = write_json(s, "model.safetensors.index.json", root);
    json_decref(root);
    return st;
}

/* Everything small that is no weight: tokenizer, templates, generation config, licence. */
static bool is_copied(const char *name)
{
    static const char *const tails[] = { ".json",  ".jinja",  ".txt",  ".md",
                                         ".model", "LICENSE", "NOTICE" };
    static const char *const not_these[] = { "config.json", "model.safetensors.index.json",
                                             "pytorch_model.bin.index.json" };

    for (size_t i = 0; i < EW_COUNT(not_these); i++)
        if (strcmp(name, not_these[i]) == 0)
            return false;
    for (size_t i = 0; i < EW_COUNT(tails); i++)
        if (ew_ends_with(name, tails[i]))
            return true;
    return false;
}

static ew_status copy_file(struct ew_q_sink *s, const char *name)
{
    char from[PATH_CAP], to[PATH_CAP];
    struct ew_file_map map;
    ew_status st;

    if (!ew_path_join(from, sizeof(from), s->r->dir, name) ||
        !ew_path_join(to, sizeof(to), s->temp, name))
        return ew_fail(s->r->err, EW_STATUS_INVALID_ARG, "%s: path too long", name);
    if (!ew_path_is_file(from))
        return EW_STATUS_OK;
    EW_TRY(ew_file_map_open(&map, from, s->r->err));
    st = ew_file_write(to, map.bytes ? map.bytes : (const uint8_t *)"", map.len, s->r->err);
    ew_file_map_close(&map);
    return st;
}

static ew_status copy_files(struct ew_q_sink *s)
{
    ew_status st = EW_STATUS_OK;
    char **names;
    size_t n;

    EW_TRY(ew_dir_list(s->r->dir, &names, &n, s->r->err));
    for (size_t i = 0; i < n; i++) {
        if (!st && is_copied(names[i]))
            st = copy_file(s, names[i]);
        ew_mem_free(names[i]);
    }
    ew_mem_free(names);
    return st;
}

ew_status ew_q_sink_commit(struct ew_q_sink *s)
{
    json_t *config = NULL;
    ew_status st = close_shard(s);

    if (!st)
        st = write_index(s);
    if (!st)
        st = copy_files(s);
    if (!st) {
        config = ew_q_config_json(s->r);
        st = write_json(s, "config.json", config);
        json_decref(config);
    }
    if (!st)
        st = ew_path_rename(s->temp, s->out, s->r->err);
    ew_q_sink_abort(s); /* the temporary name is gone when all went well */
    return st;
}

void ew_q_sink_abort(struct ew_q_sink *s)
{
    if (!s)
        return;
    ew_st_writer_abort(s->writer);
    if (s->temp[0])
        ew_dir_remove(s->temp);
    ew_mem_free(s->shard);
    ew_mem_free(s);
}
