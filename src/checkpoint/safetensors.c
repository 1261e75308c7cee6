/* checkpoint/safetensors.c - the reader: header checks, name table, sharded sets, and which files
 * of a directory are the checkpoint. The writer is in safetensors_write.c, what torch.save wrote is
 * read by torch_tensors.c. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/size.h"
#include "checkpoint/safetensors.h"
#include "checkpoint/torch_tensors.h"
#include "os/os.h"

#define MAX_HEADER_BYTES ((size_t)100 << 20)
#define MAX_INDEX_BYTES  ((size_t)256 << 20)
#define MAX_FILES        100000

struct st_file {
    struct ew_file_map map;
    const char *name;
};

/* Of all files of a set. */
enum st_format {
    FORMAT_SAFETENSORS,
    FORMAT_TORCH,
};

struct ew_safetensors {
    enum st_format format;
    struct ew_arena arena;
    struct st_file *files;
    size_t n_files;
    struct ew_st_tensor *tensors; /* heap */
    size_t n_tensors, cap_tensors;
    struct ew_map by_name;
};

static const struct {
    const char *text;
    ew_dtype dtype;
} st_dtypes[] = {
    { "F32", EW_DTYPE_F32 },
    { "F16", EW_DTYPE_F16 },
    { "BF16", EW_DTYPE_BF16 },
    { "F64", EW_DTYPE_F64 },
    { "I8", EW_DTYPE_I8 },
    { "U8", EW_DTYPE_U8 },
    { "I16", EW_DTYPE_I16 },
    { "U16", EW_DTYPE_U16 },
    { "I32", EW_DTYPE_I32 },
    { "U32", EW_DTYPE_U32 },
    { "I64", EW_DTYPE_I64 },
    { "U64", EW_DTYPE_U64 },
    { "BOOL", EW_DTYPE_BOOL },
    { "F8_E4M3", EW_DTYPE_F8E4M3 },
    { "F8_E5M2", EW_DTYPE_F8E5M2 },
    { "F8_E8M0", EW_DTYPE_F8E8M0 },
    { "F4", EW_DTYPE_F4E2M1 },
    { "F8_E4M3FNUZ", EW_DTYPE_F8E4M3FNUZ },
    { "F8_E5M2FNUZ", EW_DTYPE_F8E5M2FNUZ },
};

const char *ew_st_dtype_text(ew_dtype dtype)
{
    for (size_t i = 0; i < EW_COUNT(st_dtypes); i++)
        if (st_dtypes[i].dtype == dtype)
            return st_dtypes[i].text;
    return NULL;
}

static ew_dtype find_dtype(const char *text)
{
    for (size_t i = 0; i < EW_COUNT(st_dtypes); i++)
        if (strcmp(st_dtypes[i].text, text) == 0)
            return st_dtypes[i].dtype;
    return EW_DTYPE_NONE;
}

static ew_status read_shape(const json_t *shape, const char *what, const char *name,
                            struct ew_type *type, ew_error *err)
{
    const size_t n = json_array_size(shape);

    if (!json_is_array(shape))
        return ew_fail(err, EW_STATUS_MALFORMED, "%s: tensor '%s': shape is not a list", what,
                       name);
    if (n > EW_MAX_DIMS)
        return ew_fail(err, EW_STATUS_UNSUPPORTED, "%s: tensor '%s' has %zu dims, at most %d are",
                       what, name, n, EW_MAX_DIMS);
    type->n_dims = (int)n;
    for (size_t i = 0; i < n; i++) {
        const json_t *d = json_array_get(shape, i);

        if (!json_is_integer(d) || json_integer_value(d) < 0)
            return ew_fail(err, EW_STATUS_MALFORMED,
                           "%s: tensor '%s': dim %zu of the shape is not a count", what, name, i);
        type->dim[i] = json_integer_value(d);
    }
    return EW_STATUS_OK;
}

static ew_status read_offsets(const json_t *pair, const char *what, const char *name, size_t limit,
                              size_t *begin, size_t *end, ew_error *err)
{
    const json_t *b = json_array_get(pair, 0), *e = json_array_get(pair, 1);

    if (json_array_size(pair) != 2 || !json_is_integer(b) || !json_is_integer(e) ||
        json_integer_value(b) < 0 || json_integer_value(e) < json_integer_value(b))
        return ew_fail(err, EW_STATUS_MALFORMED,
                       "%s: tensor '%s': data_offsets is not [begin, end]", what, name);
    if ((uint64_t)json_integer_value(e) > limit)
        return ew_fail(err, EW_STATUS_MALFORMED,
                       "%s: tensor '%s' ends at byte %lld, the file has %zu bytes of data", what,
                       name, (long long)json_integer_value(e), limit);
    *begin = (size_t)json_integer_value(b);
    *end = (size_t)json_integer_value(e);
    return EW_STATUS_OK;
}

/* One header entry. `data` is the file's data section. */
static ew_status read_entry(const json_t *obj, const char *what, const uint8_t *data,
                            size_t data_len, struct ew_st_tensor *t, ew_error *err)
{
    const char *dtype = json_string_value(json_object_get(obj, "dtype"));
    size_t begin = 0, end = 0, bytes;
    char text[128];

    if (!json_is_object(obj) || json_object_size(obj) != 3 || !dtype)
        return ew_fail(err, EW_STATUS_MALFORMED,
                       "%s: tensor '%s': its entry is not {dtype, shape, data_offsets}", what,
                       t->name);
    t->type.dtype = find_dtype(dtype);
    if (t->type.dtype == EW_DTYPE_NONE)
        return ew_fail(err, EW_STATUS_UNSUPPORTED, "%s: tensor '%s' has dtype '%s', unknown here",
                       what, t->name, dtype);
    EW_TRY(read_shape(json_object_get(obj, "shape"), what, t->name, &t->type, err));
    EW_TRY(read_offsets(json_object_get(obj, "data_offsets"), what, t->name, data_len, &begin, &end,
                        err));
    ew_type_text(&t->type, text, sizeof(text));
    if (!ew_type_bytes(&t->type, &bytes))
        return ew_fail(err, EW_STATUS_MALFORMED, "%s: tensor '%s': the size of %s overflows", what,
                       t->name, text);
    if (bytes != end - begin)
        return ew_fail(err, EW_STATUS_MALFORMED,
                       "%s: tensor '%s' %s takes %zu bytes, its range %zu", what, t->name, text,
                       bytes, end - begin);
    t->data = bytes ? data + begin : NULL;
    t->bytes = bytes;
    return EW_STATUS_OK;
}

struct placed { /* for sorting: where a tensor begins */
    size_t begin;
    struct ew_st_tensor t;
};

static int compare_placed(const void *a, const void *b)
{
    const struct placed *x = a, *y = b;

    if (x->begin != y->begin)
        return x->begin < y->begin ? -1 : 1;
    if (x->t.bytes != y->t.bytes)
        return x->t.bytes < y->t.bytes ? -1 : 1;
    return strcmp(x->t.name, y->t.name);
}

static ew_status check_tiling(const struct placed *p, size_t n, size_t data_len, const char *what,
                              ew_error *err)
{
    size_t at = 0;

    for (size_t i = 0; i < n; i++) {
        if (p[i].begin != at)
            return ew_fail(err, EW_STATUS_MALFORMED,
                           "%s: tensor '%s' begins at byte %zu, the one before it ends at %zu",
                           what, p[i].t.name, p[i].begin, at);
        at += p[i].t.bytes;
    }
    if (at != data_len)
        return ew_fail(err, EW_STATUS_MALFORMED,
                       "%s: its tensors end at byte %zu of the data, the file has %zu", what, at,
                       data_len);
    return EW_STATUS_OK;
}

static ew_status add_tensor(struct ew_safetensors *st, const struct ew_st_tensor *t,
                            const char *what, ew_error *err)
{
    uint32_t other;

    if (ew_map_find(&st->by_name, t->name, strlen(t->name), &other))
        return ew_fail(err, EW_STATUS_MALFORMED, "%s: tensor '%s' is in %s too", what, t->name,
                       st->files[st->tensors[other].i_file].name);
    if (st->n_tensors == st->cap_tensors) {
        const size_t cap = st->cap_tensors ? st->cap_tensors * 2 : 256;
        void *p = ew_mem_resize(EW_MEM_CHECKPOINT, st->tensors, cap, sizeof(*st->tensors));

        if (!p)
            return ew_fail(err, EW_STATUS_NO_MEMORY, "%s: no memory for its tensors", what);
        st->tensors = p;
        st->cap_tensors = cap;
    }
    if (!ew_map_put(&st->by_name, t->name, strlen(t->name), (uint32_t)st->n_tensors))
        return ew_fail(err, EW_STATUS_NO_MEMORY, "%s: no memory for its tensors", what);
    st->tensors[st->n_tensors++] = *t;
    return EW_STATUS_OK;
}

static ew_status read_tensors(struct ew_safetensors *st, uint32_t i_file, json_t *header,
                              const uint8_t *data, size_t data_len, struct placed *p, ew_error *err)
{
    const char *what = st->files[i_file].name, *key;
    json_t *value;
    size_t n = 0;

    json_object_foreach(header, key, value)
    {
        if (strcmp(key, "__metadata__") == 0)
            continue;
        p[n].t =
            (struct ew_st_tensor){ .name = ew_arena_strdup(&st->arena, key), .i_file = i_file };
        if (!p[n].t.name)
            return ew_fail(err, EW_STATUS_NO_MEMORY, "%s: no memory for its tensors", what);
        EW_TRY(read_entry(value, what, data, data_len, &p[n].t, err));
        p[n].begin =
            (size_t)json_integer_value(json_array_get(json_object_get(value, "data_offsets"), 0));
        n++;
    }
    if (n)
        qsort(p, n, sizeof(*p), compare_placed);
    EW_TRY(check_tiling(p, n, data_len, what, err));
    for (size_t i = 0; i < n; i++)
        EW_TRY(add_tensor(st, &p[i].t, what, err));
    return EW_STATUS_OK;
}

static ew_status read_file_tensors(struct ew_safetensors *st, uint32_t i_file, ew_error *err)
{
    const struct ew_file_map *map = &st->files[i_file].map;
    const char *what = st->files[i_file].name;
    json_t *header = NULL;
    struct placed *p = NULL;
    uint64_t len = 0;
    ew_status s;

    if (map->len < 8)
        return ew_fail(err, EW_STATUS_MALFORMED, "%s: %zu bytes are too few for a safetensors file",
                       what, map->len);
    for (int i = 7; i >= 0; i--)
        len = len << 8 | map->bytes[i];
    if (len > MAX_HEADER_BYTES || len > map->len - 8)
        return ew_fail(err, EW_STATUS_MALFORMED,
                       "%s: its header claims %llu bytes, the file has %zu and the limit is %zu",
                       what, (unsigned long long)len, map->len - 8, MAX_HEADER_BYTES);
    if (len == 0 || map->bytes[8] != '{')
        return ew_fail(err, EW_STATUS_MALFORMED, "%s: its header is not a JSON object", what);
    EW_TRY(ew_json_parse((const char *)map->bytes + 8, (size_t)len, what, &header, err));
    if (!json_is_object(header)) {
        s = ew_fail(err, EW_STATUS_MALFORMED, "%s: its header is not a JSON object", what);
        goto out;
    }
    p = ew_mem_calloc(EW_MEM_CHECKPOINT, json_object_size(header), sizeof(*p));
    if (!p) {
        s = ew_fail(err, EW_STATUS_NO_MEMORY, "%s: no memory for its tensors", what);
        goto out;
    }
    s = read_tensors(st, i_file, header, map->bytes + 8 + len, map->len - 8 - (size_t)len, p, err);
out:
    ew_mem_free(p);
    json_decref(header);
    return s;
}

struct torch_file {
    struct ew_safetensors *st;
    uint32_t i_file;
};

static ew_status add_torch_tensor(void *user, const struct ew_st_tensor *t, ew_error *err)
{
    const struct torch_file *f = user;
    struct ew_st_tensor placed = *t;

    placed.i_file = f->i_file;
    return add_tensor(f->st, &placed, f->st->files[f->i_file].name, err);
}

static ew_status read_file(struct ew_safetensors *st, uint32_t i_file, ew_error *err)
{
    const struct st_file *file = &st->files[i_file];
    struct torch_file f = { st, i_file };

    if (st->format == FORMAT_TORCH)
        return ew_torch_read(file->map.bytes, file->map.len, file->name, &st->arena,
                             add_torch_tensor, &f, err);
    return read_file_tensors(st, i_file, err);
}

static ew_status create(enum st_format format, size_t n_files, struct ew_safetensors **out,
                        ew_error *err)
{
    struct ew_safetensors *st = ew_mem_calloc(EW_MEM_CHECKPOINT, 1, sizeof(*st));

    if (!st)
        return ew_fail(err, EW_STATUS_NO_MEMORY, "no memory for a safetensors reader");
    st->format = format;
    ew_arena_init(&st->arena, EW_MEM_CHECKPOINT, 0);
    ew_map_init(&st->by_name, EW_MEM_CHECKPOINT);
    st->files = ew_arena_new(&st->arena, struct st_file, n_files);
    if (!st->files) {
        ew_safetensors_close(st);
        return ew_fail(err, EW_STATUS_NO_MEMORY, "no memory for a safetensors reader");
    }
    *out = st;
    return EW_STATUS_OK;
}

void ew_safetensors_close(struct ew_safetensors *st)
{
    if (!st)
        return;
    for (size_t i = 0; i < st->n_files; i++)
        ew_file_map_close(&st->files[i].map);
    ew_map_deinit(&st->by_name);
    ew_mem_free(st->tensors);
    ew_arena_deinit(&st->arena);
    ew_mem_free(st);
}

static ew_status parse(enum st_format format, const void *bytes, size_t len, const char *what,
                       struct ew_safetensors **out, ew_error *err)
{
    struct ew_safetensors *st = NULL;
    ew_status s;

    EW_TRY(create(format, 1, &st, err));
    st->files[0].map = (struct ew_file_map){ bytes, len };
    st->files[0].name = ew_arena_strdup(&st->arena, what);
    /* n_files stays 0: these bytes are not ours to unmap. */
    s = st->files[0].name ? read_file(st, 0, err)
                          : ew_fail(err, EW_STATUS_NO_MEMORY, "%s: no memory for its name", what);
    if (s) {
        ew_safetensors_close(st);
        return s;
    }
    *out = st;
    return EW_STATUS_OK;
}

ew_status ew_safetensors_parse(const void *bytes, size_t len, const char *what,
                               struct ew_safetensors **out, ew_error *err)
{
    return parse(FORMAT_SAFETENSORS, bytes, len, what, out, err);
}

ew_status ew_safetensors_parse_torch(const void *bytes, size_t len, const char *what,
                                     struct ew_safetensors **out, ew_error *err)
{
    return parse(FORMAT_TORCH, bytes, len, what, out, err);
}

static ew_status open_file(struct ew_safetensors *st, const char *path, const char *name,
                           ew_error *err)
{
    struct st_file *f = &st->files[st->n_files];

    f->name = ew_arena_strdup(&st->arena, name);
    if (!f->name)
        return ew_fail(err, EW_STATUS_NO_MEMORY, "%s: no memory for its name", name);
    EW_TRY(ew_file_map_open(&f->map, path, err));
    st->n_files++;
    return read_file(st, (uint32_t)(st->n_files - 1), err);
}

/* `name`: how messages call the file. */
static ew_status open_one(enum st_format format, const char *path, const char *name,
                          struct ew_safetensors **out, ew_error *err)
{
    struct ew_safetensors *st = NULL;
    ew_status s;

    EW_TRY(create(format, 1, &st, err));
    s = open_file(st, path, name, err);
    if (s) {
        ew_safetensors_close(st);
        return s;
    }
    *out = st;
    return EW_STATUS_OK;
}

ew_status ew_safetensors_open(const char *path, struct ew_safetensors **out, ew_error *err)
{
    return open_one(FORMAT_SAFETENSORS, path, path, out, err);
}

/* ---- sharded ---- */

/* The index comes from outside: a shard is a plain name, so that it cannot lead out of the
 * directory. Links in the directory itself are followed: the hub's own cache is made of them. */
static bool is_plain_name(const char *name)
{
    return name[0] && name[0] != '.' && !strpbrk(name, "/\\");
}

static ew_status open_shard(struct ew_safetensors *st, const char *dir, const char *shard,
                            struct ew_map *opened, ew_error *err)
{
    char path[4096];
    uint32_t seen;

    if (ew_map_find(opened, shard, strlen(shard), &seen))
        return EW_STATUS_OK;
    if (!is_plain_name(shard))
        return ew_fail(err, EW_STATUS_MALFORMED,
                       "the index names shard '%s', which is not a plain file name", shard);
    if (!ew_path_join(path, sizeof(path), dir, shard))
        return ew_fail(err, EW_STATUS_LIMIT, "the path of shard '%s' is too long", shard);
    if (!ew_map_put(opened, shard, strlen(shard), (uint32_t)st->n_files))
        return ew_fail(err, EW_STATUS_NO_MEMORY, "no memory for the shards");
    return open_file(st, path, shard, err);
}

static ew_status check_weight_map(const struct ew_safetensors *st, const json_t *weight_map,
                                  ew_error *err)
{
    for (size_t i = 0; i < st->n_tensors; i++) {
        const struct ew_st_tensor *t = &st->tensors[i];
        const char *shard = json_string_value(json_object_get(weight_map, t->name));

        if (!shard || strcmp(shard, st->files[t->i_file].name) != 0)
            return ew_fail(err, EW_STATUS_MALFORMED, "tensor '%s' lies in %s, the index says %s",
                           t->name, st->files[t->i_file].name, shard ? shard : "nothing of it");
    }
    if (st->n_tensors != json_object_size(weight_map)) {
        const char *key;
        json_t *value;

        json_object_foreach((json_t *)(uintptr_t)weight_map, key, value)
        {
            if (!ew_safetensors_find(st, key))
                return ew_fail(err, EW_STATUS_MALFORMED,
                               "the index puts tensor '%s' in %s, which does not have it", key,
                               json_string_value(value));
        }
    }
    return EW_STATUS_OK;
}

static ew_status open_shards(struct ew_safetensors *st, const char *dir, json_t *weight_map,
                             struct ew_map *opened, ew_error *err)
{
    const char *key;
    json_t *value;

    json_object_foreach(weight_map, key, value)
    {
        if (!json_is_string(value))
            return ew_fail(err, EW_STATUS_MALFORMED,
                           "the index's shard of tensor '%s' is not a name", key);
        if (st->n_files >= MAX_FILES)
            return ew_fail(err, EW_STATUS_LIMIT, "more than %d shards", MAX_FILES);
        EW_TRY(open_shard(st, dir, json_string_value(value), opened, err));
    }
    return check_weight_map(st, weight_map, err);
}

static ew_status open_index(enum st_format format, const char *dir, const char *index_path,
                            struct ew_safetensors **out, ew_error *err)
{
    struct ew_safetensors *st = NULL;
    json_t *index = NULL, *weight_map;
    struct ew_map opened;
    size_t n_max;
    ew_status s;

    EW_TRY(ew_json_load(index_path, MAX_INDEX_BYTES, &index, err));
    weight_map = json_object_get(index, "weight_map");
    if (!json_is_object(weight_map) || json_object_size(weight_map) == 0) {
        json_decref(index);
        return ew_fail(err, EW_STATUS_MALFORMED, "%s: it has no weight_map", index_path);
    }
    n_max = json_object_size(weight_map);
    ew_map_init(&opened, EW_MEM_CHECKPOINT);
    s = create(format, n_max < MAX_FILES ? n_max : MAX_FILES, &st, err);
    if (!s)
        s = open_shards(st, dir, weight_map, &opened, err);
    ew_map_deinit(&opened);
    json_decref(index);
    if (s) {
        ew_safetensors_close(st);
        return s;
    }
    *out = st;
    return EW_STATUS_OK;
}

/* The index or, without one, the file `name` of a directory; *found is false if it has neither. */
static ew_status open_format(enum st_format format, const char *dir, const char *name, bool *found,
                             struct ew_safetensors **out, ew_error *err)
{
    char path[4096], index[4096];
    ew_status s;

    if (!ew_path_join(path, sizeof(path), dir, name) ||
        snprintf(index, sizeof(index), "%s.index.json", path) >= (int)sizeof(index))
        return ew_fail(err, EW_STATUS_LIMIT, "%s: the path is too long", dir);
    *found = ew_path_is_file(index) || ew_path_is_file(path);
    if (!*found)
        return EW_STATUS_OK;
    s = ew_path_is_file(index) ? open_index(format, dir, index, out, err)
                               : open_one(format, path, name, out, err);
    if (s)
        ew_error_within(err, "%s", dir);
    return s;
}

ew_status ew_safetensors_open_dir(const char *dir, struct ew_safetensors **out, ew_error *err)
{
    static const char *const names[] = {
        [FORMAT_SAFETENSORS] = "model.safetensors", [FORMAT_TORCH] = "pytorch_model.bin"
    };
    bool found = false;

    for (size_t i = 0; i < EW_COUNT(names); i++) {
        EW_TRY(open_format((enum st_format)i, dir, names[i], &found, out, err));
        if (found)
            return EW_STATUS_OK;
    }
    return ew_fail(err, EW_STATUS_NOT_FOUND,
                   "%s: neither model.safetensors nor pytorch_model.bin is there, nor the index of "
                   "one (<name>.index.json)",
                   dir);
}

size_t ew_safetensors_count(const struct ew_safetensors *st)
{
    return st->n_tensors;
}

const struct ew_st_tensor *ew_safetensors_at(const struct ew_safetensors *st, size_t i)
{
    return i < st->n_tensors ? &st->tensors[i] : NULL;
}

const struct ew_st_tensor *ew_safetensors_find(const struct ew_safetensors *st, const char *name)
{
    uint32_t i;

    return ew_map_find(&st->by_name, name, strlen(name), &i) ? &st->tensors[i] : NULL;
}

const char *ew_safetensors_file(const struct ew_safetensors *st, uint32_t i_file)
{
    return st->files[i_file].name;
}
