/* checkpoint/torch_tensors.c - which storage, which part of it, dense or not. */
#include "checkpoint/torch_tensors.h"

#include <string.h>

#include "base/size.h"
#include "checkpoint/torch_pickle.h"
#include "checkpoint/torch_zip.h"

#define N_STORAGE_ARGS  5    /* ("storage", class, key, location, number of elements) */
#define MAX_ENTRY_NAME  1024 /* torch's are a file name and some digits */
#define PROTO_BEFORE_16 0x80 /* files from before 1.6 are bare pickles, which begin so */

struct reader {
    const char *what;
    struct ew_zip zip;
    struct ew_str folder; /* of data.pkl */
    struct ew_pickle pickle;
    struct ew_arena *arena;
    size_t copied;
    const char *name; /* of the tensor that is being read */
    ew_error *err;
};

struct storage {
    const uint8_t *data;
    size_t bytes;
    bool untyped;
    ew_dtype dtype;
};

static ew_status bad_tensor(const struct reader *r, const char *why)
{
    return ew_fail(r->err, EW_STATUS_MALFORMED, "%s: tensor '%s': %s", r->what, r->name, why);
}

/* ---- entries ---- */

static const struct ew_zip_entry *find_entry(const struct reader *r, const char *dir,
                                             struct ew_str key)
{
    char name[MAX_ENTRY_NAME];
    const size_t n_dir = strlen(dir);

    if (r->folder.len > sizeof(name) - n_dir || key.len > sizeof(name) - n_dir - r->folder.len)
        return NULL;
    memcpy(name, r->folder.at, r->folder.len);
    memcpy(name + r->folder.len, dir, n_dir);
    memcpy(name + r->folder.len + n_dir, key.at, key.len);
    return ew_zip_find(&r->zip, name, r->folder.len + n_dir + key.len);
}

/* The folder is named after the file that torch wrote, which may have been renamed since. */
static ew_status find_pickle(struct reader *r, struct ew_str *pickle)
{
    static const char tail[] = "/data.pkl";
    const size_t n_tail = sizeof(tail) - 1;
    bool found = false;

    for (size_t i = 0; i < r->zip.n_entries; i++) {
        const struct ew_zip_entry *e = &r->zip.entries[i];
        const struct ew_str name = e->name;

        if (name.len < n_tail || memcmp(name.at + name.len - n_tail, tail, n_tail) != 0 ||
            memchr(name.at, '/', name.len - n_tail))
            continue;
        if (found)
            return ew_fail(r->err, EW_STATUS_MALFORMED, "%s: it has more than one data.pkl",
                           r->what);
        found = true;
        r->folder = (struct ew_str){ name.at, name.len - n_tail };
        *pickle = (struct ew_str){ (const char *)e->data, e->bytes };
    }
    if (!found)
        return ew_fail(r->err, EW_STATUS_MALFORMED,
                       "%s: a zip file without data.pkl: torch did not write it", r->what);
    return EW_STATUS_OK;
}

static ew_status check_byte_order(const struct reader *r)
{
    const struct ew_zip_entry *e = find_entry(r, "/byteorder", ew_str_from(""));

    if (!e || ew_str_is((struct ew_str){ (const char *)e->data, e->bytes }, "little"))
        return EW_STATUS_OK;
    return ew_fail(r->err, EW_STATUS_UNSUPPORTED, "%s: its byte order is '%.*s', not 'little'",
                   r->what, (int)(e->bytes < 16 ? e->bytes : 16), (const char *)e->data);
}

/* ---- one tensor ---- */

static ew_status read_storage(const struct reader *r, struct ew_pickle_value v, struct storage *s)
{
    const struct ew_pickle_value *arg;
    const struct ew_zip_entry *e;
    struct ew_str key;
    size_t bytes;

    if (v.kind != EW_PICKLE_STORAGE || v.n != N_STORAGE_ARGS)
        return bad_tensor(r, "its storage is not a storage");
    arg = r->pickle.pool + v.number;
    if (arg[0].kind != EW_PICKLE_STR || !ew_str_is(ew_pickle_str(&r->pickle, arg[0]), "storage") ||
        (arg[1].kind != EW_PICKLE_DTYPE && arg[1].kind != EW_PICKLE_BYTES) ||
        arg[2].kind != EW_PICKLE_STR || arg[3].kind != EW_PICKLE_STR ||
        arg[4].kind != EW_PICKLE_INT || arg[4].number < 0)
        return bad_tensor(r, "its storage is not ('storage', class, key, location, count)");
    s->untyped = arg[1].kind == EW_PICKLE_BYTES;
    s->dtype = s->untyped ? EW_DTYPE_U8 : (ew_dtype)arg[1].number;
    key = ew_pickle_str(&r->pickle, arg[2]);
    e = find_entry(r, "/data/", key);
    if (!e)
        return ew_fail(r->err, EW_STATUS_MALFORMED,
                       "%s: tensor '%s': the file has no storage '%.*s'", r->what, r->name,
                       (int)(key.len < 64 ? key.len : 64), key.at);
    if (!ew_size_mul((size_t)arg[4].number, ew_dtype_bits(s->dtype) / 8, &bytes) ||
        bytes != e->bytes)
        return ew_fail(r->err, EW_STATUS_MALFORMED,
                       "%s: tensor '%s': storage '%.*s' has %zu bytes, not %lld elements of %s",
                       r->what, r->name, (int)(key.len < 64 ? key.len : 64), key.at, e->bytes,
                       (long long)arg[4].number, ew_dtype_text(s->dtype));
    s->data = e->data;
    s->bytes = e->bytes;
    return EW_STATUS_OK;
}

/* A tuple of counts; *n is how many. */
static ew_status read_counts(const struct reader *r, struct ew_pickle_value v,
                             int64_t out[EW_MAX_DIMS], int *n)
{
    if (v.kind != EW_PICKLE_TUPLE)
        return bad_tensor(r, "its size or its stride is not a tuple");
    if (v.n > EW_MAX_DIMS)
        return ew_fail(r->err, EW_STATUS_UNSUPPORTED, "%s: tensor '%s' has %u dims, at most %d are",
                       r->what, r->name, v.n, EW_MAX_DIMS);
    for (uint32_t i = 0; i < v.n; i++) {
        const struct ew_pickle_value d = r->pickle.pool[(size_t)v.number + i];

        if (d.kind != EW_PICKLE_INT || d.number < 0)
            return bad_tensor(r, "its size or its stride has something else than counts");
        out[i] = d.number;
    }
    *n = (int)v.n;
    return EW_STATUS_OK;
}

static bool is_dense(const struct ew_type *type, const int64_t *stride)
{
    int64_t want = 1;

    for (int i = type->n_dims - 1; i >= 0; i--) {
        if (type->dim[i] == 1)
            continue;
        if (stride[i] != want)
            return false;
        want *= type->dim[i]; /* at most the number of elements */
    }
    return true;
}

/* The element behind the last one that the tensor reaches; false on overflow. */
static bool reach_of(const struct ew_type *type, const int64_t *stride, int64_t offset,
                     size_t *reach)
{
    int64_t last = offset, step;

    for (int i = 0; i < type->n_dims; i++)
        if (!ew_i64_mul(type->dim[i] - 1, stride[i], &step) || !ew_i64_add(last, step, &last))
            return false;
    return ew_size_add((size_t)last, 1, reach);
}

static void gather(uint8_t *dst, const uint8_t *src, const struct ew_type *type,
                   const int64_t *stride, size_t n, size_t width)
{
    int64_t at[EW_MAX_DIMS] = { 0 }, from = 0;

    for (size_t k = 0; k < n; k++) {
        memcpy(dst + k * width, src + (size_t)from * width, width);
        for (int d = type->n_dims - 1; d >= 0; d--) {
            if (type->dim[d] == 1) /* its stride may be any number */
                continue;
            from += stride[d];
            if (++at[d] < type->dim[d])
                break;
            from -= stride[d] * at[d];
            at[d] = 0;
        }
    }
}

/* The dense copy of a strided view that is known to lie in its storage. */
static ew_status copy_strided(struct reader *r, const uint8_t *src, const int64_t *stride,
                              struct ew_st_tensor *t)
{
    const size_t width = ew_dtype_bits(t->type.dtype) / 8;
    void *copy;

    if (t->bytes > r->zip.len - r->copied)
        return ew_fail(r->err, EW_STATUS_LIMIT,
                       "%s: tensor '%s' is no dense part of its storage, and copies of such "
                       "tensors would take more bytes than the file has",
                       r->what, r->name);
    copy = ew_arena_alloc(r->arena, t->bytes);
    if (!copy)
        return ew_fail(r->err, EW_STATUS_NO_MEMORY, "%s: no memory for a copy of tensor '%s'",
                       r->what, r->name);
    r->copied += t->bytes;
    gather(copy, src, &t->type, stride, t->bytes / width, width);
    t->data = copy;
    return EW_STATUS_OK;
}

/* Which arguments a tensor function has. V3 differs by the dtype behind V2's six; one argument more
 * is a dict of the bits of lazy conjugation and negation. */
static ew_status check_args(const struct reader *r, struct ew_pickle_value v,
                            const struct ew_pickle_value *arg)
{
    const uint32_t n = v.func == EW_PICKLE_REBUILD_V3 ? 7 : 6;

    if (v.n != n && v.n != n + 1)
        return bad_tensor(r, "its call has too few or too many arguments");
    if (v.n == n + 1 && arg[n].kind != EW_PICKLE_NONE)
        return ew_fail(r->err, EW_STATUS_UNSUPPORTED,
                       "%s: tensor '%s' is a lazily negated or conjugated view", r->what, r->name);
    if (n == 7 && arg[6].kind != EW_PICKLE_DTYPE)
        return bad_tensor(r, "its dtype is not a dtype");
    if (arg[1].kind != EW_PICKLE_INT || arg[1].number < 0)
        return bad_tensor(r, "its offset is not a count");
    return EW_STATUS_OK;
}

static ew_status read_tensor(struct reader *r, struct ew_pickle_value v, struct ew_st_tensor *t)
{
    const struct ew_pickle_value *arg = r->pickle.pool + v.number;
    int64_t stride[EW_MAX_DIMS] = { 0 };
    struct storage s = { 0 };
    int n_strides = 0;
    size_t width, reach;
    char text[128];

    EW_TRY(check_args(r, v, arg));
    EW_TRY(read_storage(r, arg[0], &s));
    if (s.untyped != (v.func == EW_PICKLE_REBUILD_V3))
        return bad_tensor(r, "its storage has a dtype where the tensor has one, or neither has");
    t->type.dtype = s.untyped ? (ew_dtype)arg[6].number : s.dtype;
    EW_TRY(read_counts(r, arg[2], t->type.dim, &t->type.n_dims));
    EW_TRY(read_counts(r, arg[3], stride, &n_strides));
    if (t->type.n_dims != n_strides)
        return bad_tensor(r, "its size and its stride have different lengths");
    ew_type_text(&t->type, text, sizeof(text));
    if (!ew_type_bytes(&t->type, &t->bytes))
        return ew_fail(r->err, EW_STATUS_MALFORMED, "%s: tensor '%s': the size of %s overflows",
                       r->what, r->name, text);
    if (t->bytes == 0)
        return EW_STATUS_OK;
    width = ew_dtype_bits(t->type.dtype) / 8;
    if (!reach_of(&t->type, stride, arg[1].number, &reach) || reach > s.bytes / width)
        return ew_fail(r->err, EW_STATUS_MALFORMED,
                       "%s: tensor '%s' %s leads out of the %zu bytes of its storage", r->what,
                       r->name, text, s.bytes);
    s.data += (size_t)arg[1].number * width;
    if (!is_dense(&t->type, stride))
        return copy_strided(r, s.data, stride, t);
    t->data = s.data;
    return EW_STATUS_OK;
}

/* ---- the dict ---- */

static ew_status read_name(struct reader *r, struct ew_pickle_value key)
{
    struct ew_str name;

    if (key.kind != EW_PICKLE_STR)
        return ew_fail(r->err, EW_STATUS_UNSUPPORTED, "%s: a key of its dict is %s, not a name",
                       r->what, ew_pickle_kind_text(key.kind));
    name = ew_pickle_str(&r->pickle, key);
    if (memchr(name.at, 0, name.len))
        return ew_fail(r->err, EW_STATUS_MALFORMED, "%s: the name '%.*s' has a NUL in it", r->what,
                       (int)(name.len < 200 ? name.len : 200), name.at);
    r->name = ew_arena_strndup(r->arena, name.at, name.len);
    if (!r->name)
        return ew_fail(r->err, EW_STATUS_NO_MEMORY, "%s: no memory for its tensors", r->what);
    return EW_STATUS_OK;
}

static ew_status read_dict(struct reader *r, ew_torch_add add, void *user)
{
    const struct ew_pickle *p = &r->pickle;

    if (p->result.kind != EW_PICKLE_DICT)
        return ew_fail(r->err, EW_STATUS_UNSUPPORTED, "%s: it holds %s, not a dict of tensors",
                       r->what, ew_pickle_kind_text(p->result.kind));
    for (size_t i = 0; i < p->n_entries; i++) {
        const struct ew_pickle_entry *e = &p->entries[i];
        struct ew_st_tensor t = { 0 };

        if (e->dict != p->result.number)
            continue;
        EW_TRY(read_name(r, e->key));
        if (e->value.kind != EW_PICKLE_TENSOR)
            return ew_fail(r->err, EW_STATUS_UNSUPPORTED,
                           "%s: '%s' is %s: only a plain dict of tensors is read", r->what, r->name,
                           ew_pickle_kind_text(e->value.kind));
        t.name = r->name;
        EW_TRY(read_tensor(r, e->value, &t));
        EW_TRY(add(user, &t, r->err));
    }
    return EW_STATUS_OK;
}

ew_status ew_torch_read(const void *bytes, size_t len, const char *what, struct ew_arena *arena,
                        ew_torch_add add, void *user, ew_error *err)
{
    struct reader r = { .what = what, .arena = arena, .err = err };
    struct ew_str text = { 0 };
    ew_status s;

    if (len > 0 && *(const uint8_t *)bytes == PROTO_BEFORE_16)
        return ew_fail(err, EW_STATUS_UNSUPPORTED,
                       "%s: in the format from before torch 1.6, which is not read: load it with "
                       "torch and save it again, best as safetensors",
                       what);
    EW_TRY(ew_zip_open(bytes, len, what, &r.zip, err));
    s = find_pickle(&r, &text);
    if (!s)
        s = check_byte_order(&r);
    if (!s)
        s = ew_pickle_read(text, what, &r.pickle, err);
    if (!s)
        s = read_dict(&r, add, user);
    ew_pickle_deinit(&r.pickle);
    ew_zip_deinit(&r.zip);
    return s;
}
