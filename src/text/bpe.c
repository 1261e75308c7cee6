/* text/bpe.c - merges. Owns the order of merging; the model's JSON is read by bpe_parse.c, words
 * are remembered by encode.c.
 *
 * Short words: look at all pairs for the best one, again and again. Long ones: a heap of candidates
 * over a linked list, n log n, so that a megabyte without a split is no attack. */
#include "text/bpe.h"

#include "text/bpe_table.h"
#include "text/utf8.h"

#define SHORT_WORD 24

void ew_bpe_scratch_init(struct ew_bpe_scratch *s)
{
    *s = (struct ew_bpe_scratch){ 0 };
    ew_buf_init(&s->spelled, EW_MEM_TEXT, (size_t)1 << 20);
}

void ew_bpe_scratch_deinit(struct ew_bpe_scratch *s)
{
    ew_mem_free(s->symbols);
    ew_mem_free(s->heap);
    ew_buf_deinit(&s->spelled);
}

static bool grow(void **items, size_t *cap, size_t need, size_t item_bytes)
{
    size_t next = *cap ? *cap : 64;
    void *grown;

    if (need <= *cap)
        return true;
    while (next < need)
        next *= 2;
    grown = ew_mem_resize(EW_MEM_TEXT, *items, next, item_bytes);
    if (!grown)
        return false;
    *items = grown;
    *cap = next;
    return true;
}

static void add_symbol(struct ew_bpe_scratch *s, int32_t id)
{
    s->symbols[s->n_symbols++] = (struct ew_bpe_symbol){ .id = id };
}

/* The id of one character with what the model puts around it, -1 when there is none. `spelled` is
 * the text that was looked up. */
static int32_t find_char(const struct ew_bpe *b, struct ew_bpe_scratch *s, struct ew_str one,
                         bool is_first, bool is_last, struct ew_str *spelled)
{
    const bool has_prefix = !is_first && b->prefix.len > 0;
    const bool has_suffix = is_last && b->suffix.len > 0;
    uint32_t id;

    *spelled = one;
    if (!has_prefix && !has_suffix) {
        size_t used;
        const uint32_t cp = ew_utf8_get(one.at, &used);

        if (cp < EW_BPE_SINGLE_CHARS)
            return b->char_ids[cp];
    } else {
        ew_buf_reset(&s->spelled);
        if (has_prefix)
            ew_buf_append(&s->spelled, b->prefix.data, b->prefix.len);
        ew_buf_append(&s->spelled, one.at, one.len);
        if (has_suffix)
            ew_buf_append(&s->spelled, b->suffix.data, b->suffix.len);
        *spelled = (struct ew_str){ s->spelled.data, s->spelled.len };
    }
    return ew_map_find(b->vocab, spelled->at, spelled->len, &id) ? (int32_t)id : -1;
}

static bool add_bytes(const struct ew_bpe *b, struct ew_bpe_scratch *s, struct ew_str text)
{
    for (size_t i = 0; i < text.len; i++) {
        if (b->byte_ids[(unsigned char)text.at[i]] < 0)
            return false;
    }
    for (size_t i = 0; i < text.len; i++)
        add_symbol(s, b->byte_ids[(unsigned char)text.at[i]]);
    return true;
}

/* Fills s->symbols with the characters of the word. A pending unknown is added late, even after
 * bytes of a following character: that is the reference's order. */
static ew_status spell(const struct ew_bpe *b, struct ew_bpe_scratch *s, const char *word,
                       size_t len, ew_error *err)
{
    bool pending = false;
    size_t used;
    /* One symbol a byte at most, plus the prefix and suffix spelled in bytes at each character. */
    const size_t around = b->byte_fallback ? b->prefix.len + b->suffix.len : 0;

    if (!grow((void **)&s->symbols, &s->cap_symbols, (len + 1) * (1 + around), sizeof(*s->symbols)))
        return ew_fail(err, EW_STATUS_NO_MEMORY, "bpe: out of memory for %zu bytes", len);
    s->n_symbols = 0;
    for (size_t i = 0; i < len; i += used) {
        struct ew_str spelled;

        ew_utf8_get(word + i, &used);
        const int32_t id =
            find_char(b, s, (struct ew_str){ word + i, used }, i == 0, i + used >= len, &spelled);

        if (id >= 0) {
            if (pending)
                add_symbol(s, b->unk_id);
            pending = false;
            add_symbol(s, id);
            continue;
        }
        if ((b->byte_fallback && add_bytes(b, s, spelled)) || b->unk_id == -1)
            continue;
        if (b->unk_id < 0)
            return ew_fail(err, EW_STATUS_MALFORMED, "bpe: unk_token %s is not in the vocabulary",
                           b->unk_text);
        if (pending && !b->fuse_unk)
            add_symbol(s, b->unk_id);
        pending = true;
    }
    if (pending)
        add_symbol(s, b->unk_id);
    return EW_STATUS_OK;
}

static void merge_short(const struct ew_bpe *b, struct ew_bpe_scratch *s)
{
    const struct ew_bpe_merge *at[SHORT_WORD];
    struct ew_bpe_symbol *sym = s->symbols;
    size_t n = s->n_symbols;

    for (size_t i = 0; i + 1 < n; i++)
        at[i] = ew_bpe_find_merge(b, sym[i].id, sym[i + 1].id);
    for (;;) {
        size_t best = SIZE_MAX;

        s->n_steps += n;
        for (size_t i = 0; i + 1 < n; i++) {
            if (at[i] && (best == SIZE_MAX || at[i]->rank < at[best]->rank))
                best = i;
        }
        if (best == SIZE_MAX)
            break;
        sym[best].id = at[best]->id;
        n--;
        for (size_t i = best + 1; i < n; i++)
            sym[i] = sym[i + 1];
        for (size_t i = best; i + 1 < n; i++)
            at[i] = at[i + 1];
        if (best > 0)
            at[best - 1] = ew_bpe_find_merge(b, sym[best - 1].id, sym[best].id);
        if (best + 1 < n)
            at[best] = ew_bpe_find_merge(b, sym[best].id, sym[best + 1].id);
    }
    s->n_symbols = n;
}

static void heap_push(struct ew_bpe_scratch *s, struct ew_bpe_candidate c)
{
    size_t i = s->n_heap++;

    while (i > 0 && s->heap[(i - 1) / 2].order > c.order) {
        s->heap[i] = s->heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    s->heap[i] = c;
}

static struct ew_bpe_candidate heap_pop(struct ew_bpe_scratch *s)
{
    const struct ew_bpe_candidate top = s->heap[0];
    const struct ew_bpe_candidate last = s->heap[--s->n_heap];
    size_t i = 0;

    for (;;) {
        size_t child = 2 * i + 1;

        if (child >= s->n_heap)
            break;
        if (child + 1 < s->n_heap && s->heap[child + 1].order < s->heap[child].order)
            child++;
        if (s->heap[child].order >= last.order)
            break;
        s->heap[i] = s->heap[child];
        i = child;
    }
    s->heap[i] = last;
    return top;
}

static void offer(const struct ew_bpe *b, struct ew_bpe_scratch *s, int32_t pos)
{
    const struct ew_bpe_symbol *left = &s->symbols[pos];
    const struct ew_bpe_merge *m;

    if (left->next < 0)
        return;
    m = ew_bpe_find_merge(b, left->id, s->symbols[left->next].id);
    if (m)
        heap_push(s, (struct ew_bpe_candidate){ ((uint64_t)m->rank << 32) | (uint32_t)pos, m->left,
                                                m->right, m->id });
}

static void merge_long(const struct ew_bpe *b, struct ew_bpe_scratch *s)
{
    const size_t n = s->n_symbols;
    struct ew_bpe_symbol *sym = s->symbols;
    size_t n_left = 0;

    for (size_t i = 0; i < n; i++) {
        sym[i].prev = (int32_t)i - 1;
        sym[i].next = i + 1 < n ? (int32_t)i + 1 : -1;
    }
    s->n_heap = 0;
    for (size_t i = 0; i + 1 < n; i++)
        offer(b, s, (int32_t)i);
    while (s->n_heap > 0) {
        const struct ew_bpe_candidate c = heap_pop(s);
        const int32_t pos = (int32_t)(c.order & UINT32_MAX);
        const int32_t right = sym[pos].next;

        s->n_steps++;
        if (sym[pos].id != c.left || right < 0 || sym[right].id != c.right)
            continue; /* one of them was merged since */
        sym[pos].id = c.id;
        sym[pos].next = sym[right].next;
        sym[right].id = -1;
        if (sym[right].next >= 0)
            sym[sym[right].next].prev = pos;
        if (sym[pos].prev >= 0)
            offer(b, s, sym[pos].prev);
        offer(b, s, pos);
    }
    for (int32_t i = 0; i >= 0; i = sym[i].next)
        sym[n_left++].id = sym[i].id;
    s->n_symbols = n_left;
}

ew_status ew_bpe_encode(const struct ew_bpe *b, struct ew_bpe_scratch *s, const char *word,
                        size_t len, ew_error *err)
{
    EW_TRY(spell(b, s, word, len, err));
    if (s->n_symbols < 2)
        return EW_STATUS_OK;
    if (s->n_symbols <= SHORT_WORD) {
        merge_short(b, s);
        return EW_STATUS_OK;
    }
    /* Each merge takes one symbol away and offers two candidates. */
    if (!grow((void **)&s->heap, &s->cap_heap, 3 * s->n_symbols, sizeof(*s->heap)))
        return ew_fail(err, EW_STATUS_NO_MEMORY, "bpe: out of memory for %zu symbols",
                       s->n_symbols);
    merge_long(b, s);
    return EW_STATUS_OK;
}
