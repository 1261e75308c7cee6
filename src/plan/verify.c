/* plan/verify.c - the header of an engine file and the hashes that cover every byte of it. */
#include "base/hash.h"
#include "base/pool.h"
#include "base/size.h"
#include "plan/codec.h"
#include "plan/reader.h"

struct head {
    uint64_t header_bytes;
    uint32_t all_chunks;
    uint64_t off[EW_PLAN_N_SECTIONS], len[EW_PLAN_N_SECTIONS];
    uint32_t n_chunks[EW_PLAN_N_SECTIONS];
};

static uint64_t get_u64(const uint8_t *at)
{
    struct ew_rd r = { at, at + 8, false };

    return ew_rd_u64(&r);
}

static uint32_t get_u32(const uint8_t *at)
{
    struct ew_rd r = { at, at + 4, false };

    return ew_rd_u32(&r);
}

static uint64_t header_hash(const uint8_t *b, uint64_t header_bytes)
{
    return ew_hash64(b + EW_PLAN_HASH_AT + 8, (size_t)header_bytes - EW_PLAN_HASH_AT - 8,
                     ew_hash64(b, EW_PLAN_HASH_AT, 0));
}

static ew_status read_fixed(const uint8_t *b, size_t len, struct head *h, ew_error *err)
{
    const size_t tables = EW_PLAN_HEAD + EW_PLAN_N_SECTIONS * EW_PLAN_SECTION_RECORD;

    if (len < 8 || memcmp(b, EW_PLAN_MAGIC, 8) != 0)
        return ew_fail(err, EW_STATUS_MALFORMED,
                       "not an engine file: magic is not '%s' (%zu bytes)", EW_PLAN_MAGIC, len);
    if (len < EW_PLAN_PAGE)
        return ew_fail(err, EW_STATUS_MALFORMED, "truncated: %zu bytes, the header alone has %u",
                       len, EW_PLAN_PAGE);
    if (get_u32(b + 8) != EW_PLAN_FORMAT)
        return ew_fail(err, EW_STATUS_MISMATCH,
                       "engine format version is %u, this build reads %u: build it again",
                       get_u32(b + 8), EW_PLAN_FORMAT);
    if (get_u32(b + 12) != EW_VERSION_NUMBER)
        return ew_fail(err, EW_STATUS_MISMATCH,
                       "engine was built by edgewise version %u, this is %u: build it again",
                       get_u32(b + 12), (unsigned)EW_VERSION_NUMBER);
    if (get_u64(b + 16) != len)
        return ew_fail(err, EW_STATUS_MALFORMED, "file has %zu bytes, its header says %llu", len,
                       (unsigned long long)get_u64(b + 16));
    h->header_bytes = get_u64(b + 24);
    h->all_chunks = get_u32(b + 36);
    if (get_u32(b + 32) != EW_PLAN_N_SECTIONS || get_u64(b + 40) != EW_PLAN_CHUNK ||
        h->header_bytes > len || h->header_bytes % EW_PLAN_PAGE || h->header_bytes < tables ||
        h->all_chunks > (h->header_bytes - tables) / 8)
        return ew_fail(err, EW_STATUS_MALFORMED, "header: %u sections of %u, %u chunks, %llu bytes",
                       get_u32(b + 32), (unsigned)EW_PLAN_N_SECTIONS, h->all_chunks,
                       (unsigned long long)h->header_bytes);
    if (get_u64(b + EW_PLAN_HASH_AT) != header_hash(b, h->header_bytes))
        return ew_fail(err, EW_STATUS_MALFORMED,
                       "header: checksum is %016llx, its bytes give %016llx",
                       (unsigned long long)get_u64(b + EW_PLAN_HASH_AT),
                       (unsigned long long)header_hash(b, h->header_bytes));
    return EW_STATUS_OK;
}

static ew_status read_head(const uint8_t *b, size_t len, struct head *h, ew_error *err)
{
    uint64_t at, chunks = 0;

    EW_TRY(read_fixed(b, len, h, err));
    at = h->header_bytes;
    for (uint32_t s = 0; s < EW_PLAN_N_SECTIONS; s++) {
        const uint8_t *r = b + EW_PLAN_HEAD + s * EW_PLAN_SECTION_RECORD;
        uint64_t padded;

        h->n_chunks[s] = get_u32(r + 4);
        h->off[s] = get_u64(r + 8);
        h->len[s] = get_u64(r + 16);
        padded = h->len[s] <= len ? ew_align_up((size_t)h->len[s], EW_PLAN_PAGE) : UINT64_MAX;
        if (get_u32(r) != s || h->off[s] != at || padded > len - at ||
            h->n_chunks[s] != (padded + EW_PLAN_CHUNK - 1) / EW_PLAN_CHUNK)
            return ew_fail(err, EW_STATUS_MALFORMED,
                           "section %s: offset %llu, length %llu, file %zu",
                           ew_plan_section_text(s), (unsigned long long)h->off[s],
                           (unsigned long long)h->len[s], len);
        at += padded;
        chunks += h->n_chunks[s];
    }
    if (at != len || chunks != h->all_chunks)
        return ew_fail(err, EW_STATUS_MALFORMED, "sections end at %llu of %zu, %llu chunks of %u",
                       (unsigned long long)at, len, (unsigned long long)chunks, h->all_chunks);
    return EW_STATUS_OK;
}

static void chunk_range(const struct head *h, uint32_t chunk, unsigned *section, uint64_t *off,
                        uint64_t *n)
{
    unsigned s = 0;
    uint64_t end;

    for (; chunk >= h->n_chunks[s]; s++)
        chunk -= h->n_chunks[s];
    *section = s;
    *off = h->off[s] + (uint64_t)chunk * EW_PLAN_CHUNK;
    end = h->off[s] + ew_align_up((size_t)h->len[s], EW_PLAN_PAGE);
    *n = end - *off < EW_PLAN_CHUNK ? end - *off : EW_PLAN_CHUNK;
}

struct check {
    const uint8_t *bytes;
    const struct head *h;
    uint32_t next, bad; /* atomics; bad: lowest chunk that differs */
};

static const uint8_t *chunk_table(const uint8_t *bytes)
{
    return bytes + EW_PLAN_HEAD + EW_PLAN_N_SECTIONS * EW_PLAN_SECTION_RECORD;
}

static void check_chunks(void *arg, unsigned i, unsigned n)
{
    struct check *c = arg;
    uint32_t at;

    (void)i;
    (void)n;
    while ((at = __atomic_fetch_add(&c->next, 1, __ATOMIC_RELAXED)) < c->h->all_chunks) {
        uint64_t off, len;
        uint32_t seen;
        unsigned s;

        chunk_range(c->h, at, &s, &off, &len);
        if (ew_hash64(c->bytes + off, (size_t)len, 0) == get_u64(chunk_table(c->bytes) + 8ull * at))
            continue;
        seen = __atomic_load_n(&c->bad, __ATOMIC_RELAXED);
        while (at < seen && !__atomic_compare_exchange_n(&c->bad, &seen, at, false,
                                                         __ATOMIC_RELAXED, __ATOMIC_RELAXED))
            continue;
    }
}

ew_status ew_plan_verify(const uint8_t *bytes, size_t len, unsigned n_threads, ew_error *err)
{
    struct head h = { 0 };
    struct check c = { bytes, &h, 0, UINT32_MAX };
    struct ew_pool *pool = NULL;

    EW_TRY(read_head(bytes, len, &h, err));
    if (h.all_chunks < 8 || n_threads == 1) {
        check_chunks(&c, 0, 1);
    } else {
        EW_TRY(ew_pool_create(n_threads, &pool, err));
        ew_pool_run(pool, check_chunks, &c);
        ew_pool_destroy(pool);
    }
    if (c.bad != UINT32_MAX) {
        uint64_t off, n;
        unsigned s;

        chunk_range(&h, c.bad, &s, &off, &n);
        return ew_fail(
            err, EW_STATUS_MALFORMED,
            "section %s: checksum of bytes %llu..%llu is %016llx, the file's bytes give %016llx",
            ew_plan_section_text(s), (unsigned long long)off, (unsigned long long)(off + n),
            (unsigned long long)get_u64(chunk_table(bytes) + 8ull * c.bad),
            (unsigned long long)ew_hash64(bytes + off, (size_t)n, 0));
    }
    return EW_STATUS_OK;
}

bool ew_plan_section_range(const uint8_t *bytes, size_t len, unsigned s, uint64_t *off, uint64_t *n)
{
    struct head h = { 0 };

    if (s >= EW_PLAN_N_SECTIONS || read_head(bytes, len, &h, NULL))
        return false;
    *off = h.off[s];
    *n = h.len[s];
    return true;
}

void ew_plan_rehash(uint8_t *bytes, size_t len)
{
    struct head h = { 0 };

    if (len < EW_PLAN_PAGE || get_u64(bytes + 24) > len || get_u64(bytes + 24) < EW_PLAN_PAGE)
        return;
    ew_put_u64(bytes + EW_PLAN_HASH_AT, header_hash(bytes, get_u64(bytes + 24)));
    if (read_head(bytes, len, &h, NULL))
        return;
    for (uint32_t i = 0; i < h.all_chunks; i++) {
        uint64_t off, n;
        unsigned s;

        chunk_range(&h, i, &s, &off, &n);
        ew_put_u64(bytes + EW_PLAN_HEAD + EW_PLAN_N_SECTIONS * EW_PLAN_SECTION_RECORD + 8ull * i,
                   ew_hash64(bytes + off, (size_t)n, 0));
    }
    ew_put_u64(bytes + EW_PLAN_HASH_AT, header_hash(bytes, h.header_bytes));
}
