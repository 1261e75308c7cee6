/* plan/writer.c - lays out the engine file and streams it through a sink; hashes every chunk on the
 * way. */
#include "plan/writer.h"

#include "base/hash.h"
#include "base/size.h"
#include "plan/codec.h"

struct ew_plan_writer {
    const struct ew_plan_sink *sink;
    uint8_t *header;
    uint64_t header_bytes, total_bytes;
    uint64_t off[EW_PLAN_N_SECTIONS], len[EW_PLAN_N_SECTIONS];
    uint32_t n_chunks[EW_PLAN_N_SECTIONS], all_chunks;
    uint8_t *chunk; /* EW_PLAN_CHUNK bytes being gathered */
    size_t chunk_used;
    uint32_t chunk_at; /* index into the table of the header */
    uint64_t weights_pos;
};

uint64_t ew_plan_writer_weights_pos(const struct ew_plan_writer *w)
{
    return w->weights_pos;
}

uint64_t ew_plan_file_bytes(const struct ew_plan_writer *w)
{
    return w->total_bytes;
}

void ew_plan_writer_abandon(struct ew_plan_writer *w)
{
    if (!w)
        return;
    ew_mem_free(w->header);
    ew_mem_free(w->chunk);
    ew_mem_free(w);
}

static ew_status flush_chunk(struct ew_plan_writer *w, ew_error *err)
{
    uint8_t *table = w->header + EW_PLAN_HEAD + EW_PLAN_N_SECTIONS * EW_PLAN_SECTION_RECORD;
    const size_t n = w->chunk_used;

    if (!n)
        return EW_STATUS_OK;
    ew_put_u64(table + 8ull * w->chunk_at++, ew_hash64(w->chunk, n, 0));
    w->chunk_used = 0;
    return w->sink->write(w->sink->ctx, w->chunk, n, err);
}

static ew_status put(struct ew_plan_writer *w, const void *bytes, size_t len, ew_error *err)
{
    const uint8_t *at = bytes;

    while (len) {
        const size_t room = EW_PLAN_CHUNK - w->chunk_used;
        const size_t n = len < room ? len : room;

        memcpy(w->chunk + w->chunk_used, at, n);
        w->chunk_used += n;
        at += n;
        len -= n;
        if (w->chunk_used == EW_PLAN_CHUNK)
            EW_TRY(flush_chunk(w, err));
    }
    return EW_STATUS_OK;
}

/* Ends a section: zero bytes up to the page, and the last chunk. */
static ew_status end_section(struct ew_plan_writer *w, uint64_t len, ew_error *err)
{
    static const uint8_t zero[EW_PLAN_PAGE];

    EW_TRY(put(w, zero, (size_t)(-len & (EW_PLAN_PAGE - 1)), err));
    return flush_chunk(w, err);
}

static void lay_out(struct ew_plan_writer *w)
{
    uint64_t at;

    for (unsigned s = 0; s < EW_PLAN_N_SECTIONS; s++) {
        const uint64_t padded = ew_align_up(w->len[s], EW_PLAN_PAGE);

        w->n_chunks[s] = (uint32_t)((padded + EW_PLAN_CHUNK - 1) / EW_PLAN_CHUNK);
        w->all_chunks += w->n_chunks[s];
    }
    w->header_bytes = ew_align_up(EW_PLAN_HEAD + EW_PLAN_N_SECTIONS * EW_PLAN_SECTION_RECORD +
                                      8ull * w->all_chunks,
                                  EW_PLAN_PAGE);
    at = w->header_bytes;
    for (unsigned s = 0; s < EW_PLAN_N_SECTIONS; s++) {
        w->off[s] = at;
        at += ew_align_up(w->len[s], EW_PLAN_PAGE);
    }
    w->total_bytes = at;
}

static void fill_header(struct ew_plan_writer *w)
{
    uint8_t *h = w->header;

    memcpy(h, EW_PLAN_MAGIC, 8);
    ew_put_u32(h + 8, EW_PLAN_FORMAT);
    ew_put_u32(h + 12, EW_VERSION_NUMBER);
    ew_put_u64(h + 16, w->total_bytes);
    ew_put_u64(h + 24, w->header_bytes);
    ew_put_u32(h + 32, EW_PLAN_N_SECTIONS);
    ew_put_u32(h + 36, w->all_chunks);
    ew_put_u64(h + 40, EW_PLAN_CHUNK);
    for (uint32_t s = 0; s < EW_PLAN_N_SECTIONS; s++) {
        uint8_t *r = h + EW_PLAN_HEAD + s * EW_PLAN_SECTION_RECORD;

        ew_put_u32(r, s);
        ew_put_u32(r + 4, w->n_chunks[s]);
        ew_put_u64(r + 8, w->off[s]);
        ew_put_u64(r + 16, w->len[s]);
    }
}

static ew_status write_small(struct ew_plan_writer *w, struct ew_buf *body, ew_error *err)
{
    ew_status st = EW_STATUS_OK;

    for (unsigned s = 0; s < EW_PLAN_WEIGHTS; s++)
        w->len[s] = body[s].len;
    lay_out(w);
    w->header = ew_mem_calloc(EW_MEM_BUILD, 1, (size_t)w->header_bytes);
    w->chunk = ew_mem_alloc(EW_MEM_BUILD, EW_PLAN_CHUNK);
    if (!w->header || !w->chunk)
        return ew_fail(err, EW_STATUS_NO_MEMORY, "engine file header");
    st = w->sink->write(w->sink->ctx, w->header, (size_t)w->header_bytes,
                        err); /* its space; patched at the end */
    for (unsigned s = 0; s < EW_PLAN_WEIGHTS && !st; s++) {
        st = put(w, body[s].data, body[s].len, err);
        if (!st)
            st = end_section(w, body[s].len, err);
    }
    return st;
}

ew_status ew_plan_writer_open(const struct ew_plan *p, const struct ew_plan_sink *sink,
                              struct ew_plan_writer **out, ew_error *err)
{
    struct ew_plan_writer *w = ew_mem_calloc(EW_MEM_BUILD, 1, sizeof(*w));
    struct ew_buf body[EW_PLAN_WEIGHTS];
    ew_status st = EW_STATUS_OK;

    *out = NULL;
    if (!w)
        return ew_fail(err, EW_STATUS_NO_MEMORY, "plan writer");
    w->sink = sink;
    w->len[EW_PLAN_WEIGHTS] = p->weights_bytes;
    for (unsigned s = 0; s < EW_PLAN_WEIGHTS; s++)
        ew_buf_init(&body[s], EW_MEM_BUILD, (size_t)1 << 30);
    ew_buf_puts(&body[EW_PLAN_META], p->meta);
    ew_plan_write_graph(p, &body[EW_PLAN_GRAPH]);
    ew_plan_write_memory(p, &body[EW_PLAN_MEMORY]);
    ew_plan_write_tactics(p, &body[EW_PLAN_TACTICS]);
    ew_plan_write_kernels(p, &body[EW_PLAN_KERNELS]);
    for (unsigned s = 0; s < EW_PLAN_WEIGHTS; s++)
        if (body[s].failed)
            st = ew_fail(err, EW_STATUS_NO_MEMORY, "section %s", ew_plan_section_text(s));
    if (!st)
        st = write_small(w, body, err);
    for (unsigned s = 0; s < EW_PLAN_WEIGHTS; s++)
        ew_buf_deinit(&body[s]);
    if (st) {
        ew_plan_writer_abandon(w);
        return st;
    }
    *out = w;
    return EW_STATUS_OK;
}

ew_status ew_plan_writer_weights(struct ew_plan_writer *w, const void *bytes, size_t len,
                                 ew_error *err)
{
    w->weights_pos += len;
    return put(w, bytes, len, err);
}

ew_status ew_plan_writer_close(struct ew_plan_writer *w, ew_error *err)
{
    ew_status st;

    if (w->weights_pos != w->len[EW_PLAN_WEIGHTS])
        st = ew_fail(err, EW_STATUS_INVALID_ARG, "weights: %llu bytes given, %llu announced",
                     (unsigned long long)w->weights_pos,
                     (unsigned long long)w->len[EW_PLAN_WEIGHTS]);
    else
        st = end_section(w, w->weights_pos, err);
    if (!st) {
        fill_header(w);
        ew_put_u64(w->header + EW_PLAN_HASH_AT,
                   ew_hash64(w->header + EW_PLAN_HASH_AT + 8,
                             (size_t)w->header_bytes - EW_PLAN_HASH_AT - 8,
                             ew_hash64(w->header, EW_PLAN_HASH_AT, 0)));
        st = w->sink->patch(w->sink->ctx, w->header, (size_t)w->header_bytes, 0, err);
    }
    ew_plan_writer_abandon(w);
    return st;
}
