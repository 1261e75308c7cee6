/* text/encode.c - text to ids: added tokens, then normalisation, pre-tokenisation and merges of
 * what lies between them. Remembers the words of one call. */
#include "text/tokenizer_internal.h"
#include "text/utf8.h"

#define MAX_CACHED_WORD 64
#define MAX_CACHED      32768u

struct word { /* slot of the table of words; n_ids UINT32_MAX: empty */
    uint64_t hash;
    uint32_t text_off, ids_off; /* ids: in int32_t */
    uint32_t len, n_ids;
};
struct encoder {
    const ew_tokenizer *t;
    bool specials;
    struct ew_regex_scratch regex;
    struct ew_norm_text norm;
    struct ew_pre_text pre;
    struct ew_bpe_scratch bpe;
    struct word *words;
    size_t n_slots, n_words;
    struct ew_buf word_text, word_ids;
    struct ew_buf ids; /* int32_t */
};

static bool put_id(struct ew_buf *out, int32_t id)
{
    return ew_buf_append(out, &id, sizeof(id));
}

/* ---- words of this call ---- */

static struct word *find_word(struct encoder *e, const char *text, size_t len, uint64_t hash)
{
    size_t i = hash & (e->n_slots - 1);

    while (e->words[i].n_ids != UINT32_MAX) {
        const struct word *w = &e->words[i];

        if (w->hash == hash && w->len == len &&
            memcmp(e->word_text.data + w->text_off, text, len) == 0)
            break;
        i = (i + 1) & (e->n_slots - 1);
    }
    return &e->words[i];
}

static bool grow_words(struct encoder *e)
{
    const size_t n_slots = e->n_slots ? 4 * e->n_slots : 256;
    struct word *old = e->words;
    const size_t n_old = e->n_slots;
    struct word *words = ew_mem_alloc(EW_MEM_TEXT, n_slots * sizeof(*words));

    if (!words)
        return false;
    for (size_t i = 0; i < n_slots; i++)
        words[i].n_ids = UINT32_MAX;
    e->words = words;
    e->n_slots = n_slots;
    for (size_t k = 0; k < n_old; k++) {
        size_t i = old[k].hash & (n_slots - 1);

        if (old[k].n_ids == UINT32_MAX)
            continue;
        while (words[i].n_ids != UINT32_MAX)
            i = (i + 1) & (n_slots - 1);
        words[i] = old[k];
    }
    ew_mem_free(old);
    return true;
}

static void remember(struct encoder *e, struct word *slot, const char *text, size_t len,
                     uint64_t hash)
{
    const struct word w = { hash, (uint32_t)e->word_text.len,
                            (uint32_t)(e->word_ids.len / sizeof(int32_t)), (uint32_t)len,
                            (uint32_t)e->bpe.n_symbols };

    if (!ew_buf_append(&e->word_text, text, len))
        return;
    for (size_t i = 0; i < e->bpe.n_symbols; i++) {
        if (!put_id(&e->word_ids, e->bpe.symbols[i].id))
            return;
    }
    *slot = w;
    e->n_words++;
}

/* ---- from piece to ids ---- */

static ew_status encode_piece(struct encoder *e, const char *text, size_t len, ew_error *err)
{
    const bool may_cache = len <= MAX_CACHED_WORD;
    uint64_t hash = 0;
    struct word *slot = NULL;
    uint32_t id;

    if (e->t->bpe.ignore_merges && ew_map_find(&e->t->vocab, text, len, &id)) {
        put_id(&e->ids, (int32_t)id);
        return EW_STATUS_OK;
    }
    if (may_cache && 2 * e->n_words >= e->n_slots && e->n_words < MAX_CACHED && !grow_words(e))
        return ew_fail(err, EW_STATUS_NO_MEMORY, "encode: out of memory");
    if (may_cache) {
        hash = ew_hash64(text, len, 0);
        slot = find_word(e, text, len, hash);
        if (slot->n_ids != UINT32_MAX) {
            if (slot->n_ids > 0)
                ew_buf_append(&e->ids, e->word_ids.data + slot->ids_off * sizeof(int32_t),
                              slot->n_ids * sizeof(int32_t));
            return EW_STATUS_OK;
        }
    }
    EW_TRY(ew_bpe_encode(&e->t->bpe, &e->bpe, text, len, err));
    for (size_t i = 0; i < e->bpe.n_symbols; i++)
        put_id(&e->ids, e->bpe.symbols[i].id);
    if (slot && e->n_words < MAX_CACHED)
        remember(e, slot, text, len, hash);
    return EW_STATUS_OK;
}

/* Normal text without added tokens. */
static ew_status encode_plain(struct encoder *e, const char *text, size_t len, bool starts_input,
                              ew_error *err)
{
    if (len == 0)
        return EW_STATUS_OK;
    EW_TRY(ew_pre_run(&e->t->pre, &e->pre, text, len, starts_input, &e->regex, err));
    for (size_t i = 0; i < e->pre.n_pieces; i++) {
        const struct ew_piece *p = &e->pre.pieces[i];

        EW_TRY(encode_piece(e, e->pre.text.data + p->off, p->len, err));
    }
    return EW_STATUS_OK;
}

/* Raw text without tokens that match raw text. */
static ew_status encode_section(struct encoder *e, const char *text, const char *from_user,
                                size_t len, bool starts_input, ew_error *err)
{
    struct ew_norm_text *n = &e->norm;
    const struct ew_added_token *token;
    struct ew_added_walk walk;
    size_t done = 0;
    size_t begin;
    size_t end;

    if (len == 0)
        return EW_STATUS_OK;
    ew_buf_reset(&n->text);
    ew_buf_reset(&n->from_user);
    n->has_marks = from_user != NULL;
    n->starts_input = starts_input;
    ew_buf_append(&n->text, text, len);
    if (from_user)
        ew_buf_append(&n->from_user, from_user, len);
    if (n->text.failed || n->from_user.failed)
        return ew_fail(err, EW_STATUS_NO_MEMORY, "encode: out of memory for %zu bytes", len);
    EW_TRY(ew_norm_run(&e->t->norm, n, &e->regex, err));
    walk = (struct ew_added_walk){ .set = &e->t->added,
                                   .index = &e->t->added.normal,
                                   .scratch = &e->regex,
                                   .text = n->text.data,
                                   .len = n->text.len,
                                   .from_user = from_user ? n->from_user.data : NULL,
                                   .specials = e->specials };
    for (;;) {
        EW_TRY(ew_added_walk_next(&walk, &token, &begin, &end, err));
        if (!token)
            break;
        EW_TRY(
            encode_plain(e, n->text.data + done, begin - done, n->starts_input && done == 0, err));
        put_id(&e->ids, token->id);
        done = end;
    }
    return encode_plain(e, n->text.data + done, n->text.len - done, n->starts_input && done == 0,
                        err);
}

static ew_status encode_text(struct encoder *e, const char *text, const char *from_user, size_t len,
                             ew_error *err)
{
    struct ew_added_walk walk = { .set = &e->t->added,
                                  .index = &e->t->added.raw,
                                  .scratch = &e->regex,
                                  .text = text,
                                  .len = len,
                                  .from_user = from_user,
                                  .specials = e->specials };
    const struct ew_added_token *token;
    size_t done = 0;
    size_t begin;
    size_t end;

    for (;;) {
        EW_TRY(ew_added_walk_next(&walk, &token, &begin, &end, err));
        if (!token)
            break;
        EW_TRY(encode_section(e, text + done, from_user ? from_user + done : NULL, begin - done,
                              done == 0, err));
        put_id(&e->ids, token->id);
        done = end;
    }
    EW_TRY(encode_section(e, text + done, from_user ? from_user + done : NULL, len - done,
                          done == 0, err));
    if (e->ids.failed)
        return ew_fail(err, EW_STATUS_NO_MEMORY, "encode: out of memory for ids");
    return EW_STATUS_OK;
}

/* ---- the call ---- */

static ew_status encoder_init(struct encoder *e, const ew_tokenizer *t, size_t len, bool specials,
                              ew_error *err)
{
    /* Normalizers and pre-tokenizers may make text longer; 64 times is nobody's text. */
    const size_t max_len = 64 * (len + 1024);

    *e = (struct encoder){ .t = t, .specials = specials };
    ew_norm_text_init(&e->norm, false, max_len);
    ew_pre_text_init(&e->pre, max_len);
    ew_bpe_scratch_init(&e->bpe);
    ew_buf_init(&e->word_text, EW_MEM_TEXT, UINT32_MAX);
    ew_buf_init(&e->word_ids, EW_MEM_TEXT, UINT32_MAX);
    ew_buf_init(&e->ids, EW_MEM_TEXT, SIZE_MAX / 2);
    return ew_regex_scratch_init(&e->regex, err);
}

static void encoder_deinit(struct encoder *e)
{
    ew_regex_scratch_deinit(&e->regex);
    ew_norm_text_deinit(&e->norm);
    ew_pre_text_deinit(&e->pre);
    ew_bpe_scratch_deinit(&e->bpe);
    ew_mem_free(e->words);
    ew_buf_deinit(&e->word_text);
    ew_buf_deinit(&e->word_ids);
    ew_buf_deinit(&e->ids);
}

/* A byte for each byte of text: 1 inside a span. */
static ew_status mark_spans(char **out, size_t len, const ew_text_span *spans, size_t n_spans,
                            ew_error *err)
{
    size_t last = 0;

    *out = NULL;
    for (size_t i = 0; i < n_spans; i++) {
        if (spans[i].begin < last || spans[i].end < spans[i].begin || spans[i].end > len)
            return ew_fail(err, EW_STATUS_INVALID_ARG,
                           "encode: span %zu [%zu, %zu) is not in order within %zu bytes", i,
                           spans[i].begin, spans[i].end, len);
        last = spans[i].end;
    }
    if (n_spans == 0)
        return EW_STATUS_OK;
    *out = ew_mem_calloc(EW_MEM_TEXT, len + 1, 1);
    if (!*out)
        return ew_fail(err, EW_STATUS_NO_MEMORY, "encode: out of memory for %zu bytes", len);
    for (size_t i = 0; i < n_spans; i++)
        memset(*out + spans[i].begin, 1, spans[i].end - spans[i].begin);
    return EW_STATUS_OK;
}

/* Invalid bytes as U+FFFD, with their marks. */
static ew_status repair(struct ew_buf *text, struct ew_buf *marks, const char *bytes,
                        const char *from_user, size_t len, ew_error *err)
{
    size_t i = 0;

    while (i < len) {
        uint32_t cp;
        size_t used;
        const enum ew_utf8_scan got = ew_utf8_scan(bytes + i, len - i, &cp, &used);
        const size_t before = text->len;

        if (got == EW_UTF8_SHORT)
            used = len - i;
        if (got == EW_UTF8_OK)
            ew_buf_append(text, bytes + i, used);
        else
            ew_buf_puts(text, "\xEF\xBF\xBD");
        for (size_t k = before; from_user && k < text->len; k++)
            ew_buf_putc(marks, memchr(from_user + i, 1, used) != NULL);
        i += used;
    }
    if (text->failed || marks->failed)
        return ew_fail(err, EW_STATUS_NO_MEMORY, "encode: out of memory for %zu bytes", len);
    return EW_STATUS_OK;
}

static ew_status encode_repaired(struct encoder *e, const char *text, const char *from_user,
                                 size_t len, ew_error *err)
{
    struct ew_buf fixed;
    struct ew_buf marks;
    ew_status st;

    if (ew_utf8_is_valid(text, len))
        return encode_text(e, text, from_user, len, err);
    ew_buf_init(&fixed, EW_MEM_TEXT, 3 * len);
    ew_buf_init(&marks, EW_MEM_TEXT, 3 * len);
    st = repair(&fixed, &marks, text, from_user, len, err);
    if (!st)
        st = encode_text(e, fixed.data, from_user ? marks.data : NULL, fixed.len, err);
    ew_buf_deinit(&fixed);
    ew_buf_deinit(&marks);
    return st;
}

static ew_status encode_marked(const ew_tokenizer *t, const char *text, size_t len,
                               const char *from_user, uint32_t flags, struct ew_buf *ids,
                               ew_error *err)
{
    const bool adds = (flags & EW_ENCODE_ADD_BOS) != 0;
    struct encoder e;
    ew_status st = encoder_init(&e, t, len, (flags & EW_ENCODE_SPECIAL) != 0, err);

    if (adds)
        ew_buf_append(&e.ids, t->post.before, t->post.n_before * sizeof(int32_t));
    if (!st)
        st = encode_repaired(&e, text ? text : "", from_user, len, err);
    if (adds)
        ew_buf_append(&e.ids, t->post.after, t->post.n_after * sizeof(int32_t));
    if (!st && !ew_buf_reserve(&e.ids, 1))
        st = ew_fail(err, EW_STATUS_NO_MEMORY, "encode: out of memory for ids");
    *ids = e.ids;
    ew_buf_init(&e.ids, EW_MEM_TEXT, 0);
    encoder_deinit(&e);
    return st;
}

static ew_status encode_any(const ew_tokenizer *t, const char *text, size_t len, uint32_t flags,
                            const char *from_user, int32_t **ids, size_t *n_ids, ew_error *err)
{
    struct ew_buf out;
    ew_status st;

    if (len > EW_TOKENIZER_MAX_TEXT_BYTES)
        return ew_fail(err, EW_STATUS_LIMIT, "encode: text of %zu bytes, over %zu", len,
                       EW_TOKENIZER_MAX_TEXT_BYTES);
    st = encode_marked(t, text, len, from_user, flags, &out, err);
    if (!st) {
        *n_ids = out.len / sizeof(int32_t);
        *ids = (int32_t *)(void *)ew_buf_take(&out);
    }
    ew_buf_deinit(&out);
    return st;
}

ew_status ew_tokenizer_encode_spans(const ew_tokenizer *t, const char *text, size_t len,
                                    uint32_t flags, const ew_text_span *spans, size_t n_spans,
                                    int32_t **ids, size_t *n_ids, ew_error *err)
{
    char *from_user;
    ew_status st;

    *ids = NULL;
    *n_ids = 0;
    EW_TRY(mark_spans(&from_user, len, spans, n_spans, err));
    st = encode_any(t, text, len, flags | EW_ENCODE_SPECIAL, from_user, ids, n_ids, err);
    ew_mem_free(from_user);
    return st;
}

ew_status ew_tokenizer_encode(const ew_tokenizer *t, const char *text, size_t len, uint32_t flags,
                              int32_t **ids, size_t *n_ids, ew_error *err)
{
    *ids = NULL;
    *n_ids = 0;
    return encode_any(t, text, len, flags, NULL, ids, n_ids, err);
}
