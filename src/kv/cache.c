/* kv/cache.c - pages, lengths and moves of the linear KV cache. What is in it, attention knows. */
#include "kv/cache.h"

#include "base/mem.h"
#include "base/memory.h"
#include "base/size.h"

static ew_status layer_init(struct ew_kv *kv, struct ew_kv_layer *l, ew_error *err)
{
    size_t bytes;
    void *data = NULL;
    ew_status st;

    if (l->kv_heads == 0 || l->head_dim == 0)
        return ew_fail(err, EW_STATUS_INVALID_ARG, "KV cache: a layer has %u heads of %u",
                       l->kv_heads, l->head_dim);
    if (!ew_size_mul(2u * kv->elem_bytes, l->kv_heads, &bytes) ||
        !ew_size_mul(bytes, l->head_dim, &bytes) || !ew_size_mul(bytes, kv->cap, &bytes))
        return ew_fail(err, EW_STATUS_NO_MEMORY, "KV cache: a row overflows");
    l->row_bytes = bytes;
    if (!ew_size_mul(bytes, kv->max_batch, &bytes) ||
        !ew_size_add(kv->total_bytes, bytes, &kv->total_bytes))
        return ew_fail(err, EW_STATUS_NO_MEMORY, "KV cache: a layer overflows");
    st = kv->memory->alloc(kv->memory->ctx, bytes, "a layer of the KV cache", &data, err);
    l->data = data;
    if (st)
        ew_error_within(err, "KV cache of %u rows of %u tokens", kv->max_batch, kv->cap);
    return st;
}

ew_status ew_kv_create(uint32_t n_layers, const uint32_t *heads, const uint32_t *dims,
                       uint32_t max_batch, uint32_t cap, ew_dtype dtype, struct ew_kv **out,
                       ew_error *err)
{
    return ew_kv_create_in(ew_memory_of_host(), n_layers, heads, dims, max_batch, cap, dtype, out,
                           err);
}

ew_status ew_kv_create_in(const ew_memory *memory, uint32_t n_layers, const uint32_t *heads,
                          const uint32_t *dims, uint32_t max_batch, uint32_t cap, ew_dtype dtype,
                          struct ew_kv **out, ew_error *err)
{
    struct ew_kv *kv;
    ew_status st = EW_STATUS_OK;

    *out = NULL;
    if (dtype != EW_DTYPE_F32 && dtype != EW_DTYPE_F16 && dtype != EW_DTYPE_BF16 &&
        dtype != EW_DTYPE_F8E4M3 && dtype != EW_DTYPE_I8)
        return ew_fail(err, EW_STATUS_UNSUPPORTED, "KV cache: dtype %s", ew_dtype_text(dtype));
    if (n_layers == 0 || max_batch == 0 || cap == 0 || cap > INT32_MAX)
        return ew_fail(err, EW_STATUS_INVALID_ARG, "KV cache: %u layers, %u rows, %u tokens",
                       n_layers, max_batch, cap);
    kv = ew_mem_calloc(EW_MEM_KV, 1, sizeof(*kv));
    if (!kv)
        return ew_fail(err, EW_STATUS_NO_MEMORY, "KV cache");
    kv->memory = memory;
    kv->max_batch = max_batch;
    kv->cap = cap;
    kv->dtype = dtype;
    kv->elem_bytes = ew_dtype_bits(dtype) / 8;
    kv->layers = ew_mem_calloc(EW_MEM_KV, n_layers, sizeof(*kv->layers));
    kv->lengths = ew_mem_calloc(EW_MEM_KV, max_batch, sizeof(*kv->lengths));
    if (!kv->layers || !kv->lengths)
        st = ew_fail(err, EW_STATUS_NO_MEMORY, "KV cache");
    for (uint32_t i = 0; i < n_layers && !st; i++) {
        kv->layers[i].kv_heads = heads[i];
        kv->layers[i].head_dim = dims[i];
        kv->n_layers = i + 1;
        st = layer_init(kv, &kv->layers[i], err);
    }
    if (st) {
        ew_kv_destroy(kv);
        return st;
    }
    *out = kv;
    return EW_STATUS_OK;
}

void ew_kv_destroy(struct ew_kv *kv)
{
    if (!kv)
        return;
    for (uint32_t i = 0; kv->layers && i < kv->n_layers; i++)
        if (kv->layers[i].data)
            kv->memory->release(kv->memory->ctx, kv->layers[i].data,
                                kv->layers[i].row_bytes * kv->max_batch);
    ew_mem_free(kv->layers);
    ew_mem_free(kv->lengths);
    ew_mem_free(kv);
}

ew_status ew_kv_commit(struct ew_kv *kv, uint32_t row, uint32_t n, ew_error *err)
{
    if (row >= kv->max_batch)
        return ew_fail(err, EW_STATUS_INVALID_ARG, "KV cache: row %u of %u", row, kv->max_batch);
    if (n > kv->cap - (uint32_t)kv->lengths[row])
        return ew_fail(err, EW_STATUS_LIMIT,
                       "KV cache: row %u holds %d tokens and cannot take %u more: capacity %u", row,
                       kv->lengths[row], n, kv->cap);
    kv->lengths[row] += (int32_t)n;
    return EW_STATUS_OK;
}

ew_status ew_kv_rewind(struct ew_kv *kv, uint32_t row, uint32_t len, ew_error *err)
{
    if (row >= kv->max_batch)
        return ew_fail(err, EW_STATUS_INVALID_ARG, "KV cache: row %u of %u", row, kv->max_batch);
    if (len > (uint32_t)kv->lengths[row])
        return ew_fail(err, EW_STATUS_INVALID_ARG,
                       "KV cache: row %u holds %d tokens, cannot rewind to %u", row,
                       kv->lengths[row], len);
    kv->lengths[row] = (int32_t)len;
    return EW_STATUS_OK;
}

/* The first len tokens of every head of one row. src and dst are different rows. */
static ew_status row_copy(const struct ew_kv *kv, uint32_t src, uint32_t dst, uint32_t len,
                          ew_error *err)
{
    for (uint32_t i = 0; i < kv->n_layers; i++) {
        const struct ew_kv_layer *l = &kv->layers[i];
        const size_t token_bytes = l->head_dim * kv->elem_bytes;
        const size_t head_bytes = token_bytes * kv->cap;

        EW_TRY(kv->memory->copy(kv->memory->ctx, EW_COPY_DEVICE, ew_kv_row(kv, i, dst), head_bytes,
                                ew_kv_row(kv, i, src), head_bytes, token_bytes * len,
                                2 * (size_t)l->kv_heads, err));
    }
    return EW_STATUS_OK;
}

static ew_status map_check(const struct ew_kv *kv, const int32_t *map, uint32_t n, ew_error *err)
{
    int32_t last = -1;

    if (n > kv->max_batch)
        return ew_fail(err, EW_STATUS_INVALID_ARG, "KV cache: compaction of %u rows, cache has %u",
                       n, kv->max_batch);
    for (uint32_t i = 0; i < n; i++) {
        if (map[i] == -1)
            continue;
        /* Ascending targets not above their source: no copy can overwrite a row still to be moved.
         */
        if (map[i] <= last || map[i] > (int32_t)i)
            return ew_fail(err, EW_STATUS_INVALID_ARG,
                           "KV cache: compaction moves row %u to %d after %d", i, map[i], last);
        last = map[i];
    }
    return EW_STATUS_OK;
}

ew_status ew_kv_compact(struct ew_kv *kv, const int32_t *map, uint32_t n, ew_error *err)
{
    EW_TRY(map_check(kv, map, n, err));
    for (uint32_t i = 0; i < n; i++) {
        const int32_t len = kv->lengths[i];

        if (map[i] == (int32_t)i)
            continue;
        kv->lengths[i] = 0;
        if (map[i] < 0)
            continue;
        EW_TRY(row_copy(kv, i, (uint32_t)map[i], (uint32_t)len, err));
        kv->lengths[map[i]] = len;
    }
    return EW_STATUS_OK;
}

ew_status ew_kv_commit_tree(struct ew_kv *kv, uint32_t row, const int32_t *accepted, uint32_t n,
                            uint32_t n_tree, ew_error *err)
{
    uint32_t base;

    if (row >= kv->max_batch)
        return ew_fail(err, EW_STATUS_INVALID_ARG, "KV cache: row %u of %u", row, kv->max_batch);
    base = (uint32_t)kv->lengths[row];
    if (n_tree > kv->cap - base || n > n_tree)
        return ew_fail(
            err, EW_STATUS_LIMIT,
            "KV cache: row %u holds %u tokens: a tree of %u (%u accepted) does not fit %u", row,
            base, n_tree, n, kv->cap);
    for (uint32_t i = 0; i < n; i++)
        if (accepted[i] < 0 || (uint32_t)accepted[i] >= n_tree ||
            (i > 0 && accepted[i] <= accepted[i - 1]))
            return ew_fail(err, EW_STATUS_INVALID_ARG,
                           "KV cache: accepted[%u] = %d of a tree of %u", i, accepted[i], n_tree);
    for (uint32_t j = 0; j < kv->n_layers; j++) {
        const struct ew_kv_layer *l = &kv->layers[j];
        const size_t token_bytes = l->head_dim * kv->elem_bytes;

        char *at = (char *)ew_kv_row(kv, j, row) + token_bytes * base;

        for (uint32_t i = 0; i < n; i++) /* ascending: source i is never below target i */
            if ((uint32_t)accepted[i] != i)
                EW_TRY(kv->memory->copy(
                    kv->memory->ctx, EW_COPY_DEVICE, at + i * token_bytes, token_bytes * kv->cap,
                    at + (size_t)accepted[i] * token_bytes, token_bytes * kv->cap, token_bytes,
                    2 * (size_t)l->kv_heads, err));
    }
    kv->lengths[row] += (int32_t)n;
    return EW_STATUS_OK;
}

size_t ew_kv_tokens_bytes(const struct ew_kv *kv, uint32_t len)
{
    size_t bytes = 0;

    for (uint32_t i = 0; i < kv->n_layers; i++) /* len <= cap: no more than a row, which fitted */
        bytes += kv->layers[i].row_bytes / kv->cap * len;
    return bytes;
}

ew_status ew_kv_save(const struct ew_kv *kv, uint32_t row, uint32_t len, void *block)
{
    char *to = block;

    for (uint32_t i = 0; i < kv->n_layers; i++) {
        const struct ew_kv_layer *l = &kv->layers[i];
        const size_t token_bytes = l->head_dim * kv->elem_bytes;
        const size_t n_heads = 2 * (size_t)l->kv_heads;

        EW_TRY(kv->memory->copy(kv->memory->ctx, EW_COPY_DOWNLOAD, to, token_bytes * len,
                                ew_kv_row(kv, i, row), token_bytes * kv->cap, token_bytes * len,
                                n_heads, NULL));
        to += token_bytes * len * n_heads;
    }
    return EW_STATUS_OK;
}

ew_status ew_kv_load(struct ew_kv *kv, uint32_t row, const void *block, uint32_t saved_len,
                     uint32_t len)
{
    const char *from = block;

    for (uint32_t i = 0; i < kv->n_layers; i++) {
        const struct ew_kv_layer *l = &kv->layers[i];
        const size_t token_bytes = l->head_dim * kv->elem_bytes;
        const size_t n_heads = 2 * (size_t)l->kv_heads;

        EW_TRY(kv->memory->copy(kv->memory->ctx, EW_COPY_UPLOAD, ew_kv_row(kv, i, row),
                                token_bytes * kv->cap, from, token_bytes * saved_len,
                                token_bytes * len, n_heads, NULL));
        from += token_bytes * saved_len * n_heads;
    }
    kv->lengths[row] = (int32_t)len;
    return EW_STATUS_OK;
}
