/* text/added_tokens.c - leftmost, then longest search for added tokens. The list itself is read by
 * tokenizer_load.c. */
#include "text/added_tokens.h"

#include <stdlib.h>

#include "text/regex_dialect.h"
#include "text/utf8.h"

/* Bounds what one place in the text can cost. */
#define MAX_TOKEN_BYTES 4096

static int compare(const void *a, const void *b)
{
    const struct ew_added_pattern *x = a;
    const struct ew_added_pattern *y = b;
    const size_t common = x->len < y->len ? x->len : y->len;
    const int order = memcmp(x->text, y->text, common);

    if (order != 0)
        return order;
    if (x->len != y->len)
        return x->len < y->len ? -1 : 1;
    return x->token < y->token ? -1 : x->token > y->token;
}

static ew_status add_pattern(struct ew_added_index *index, const struct ew_added_token *t,
                             uint32_t i_token, const char *text, size_t len, ew_error *err)
{
    struct ew_added_pattern *p = &index->patterns[index->n_patterns];

    if (len == 0)
        return EW_STATUS_OK;
    if (len > MAX_TOKEN_BYTES)
        return ew_fail(err, EW_STATUS_LIMIT, "added token %d has %zu bytes, over %d", t->id, len,
                       MAX_TOKEN_BYTES);
    p->text = ew_mem_strndup(EW_MEM_TEXT, text, len);
    if (!p->text)
        return ew_fail(err, EW_STATUS_NO_MEMORY, "added tokens: out of memory");
    p->len = len;
    p->token = i_token;
    index->n_patterns++;
    index->may_begin[(unsigned char)text[0]] = true;
    return EW_STATUS_OK;
}

static ew_status add_normal(struct ew_added_set *s, uint32_t i, const struct ew_norm_chain *norm,
                            struct ew_regex_scratch *scratch, ew_error *err)
{
    const struct ew_added_token *t = &s->tokens[i];
    struct ew_norm_text text;
    ew_status st;

    ew_norm_text_init(&text, false, (size_t)1 << 20);
    if (ew_buf_append(&text.text, t->text, t->len))
        st = ew_norm_run(norm, &text, scratch, err);
    else
        st =
            ew_fail(err, EW_STATUS_LIMIT, "added token %d of %zu bytes is too long", t->id, t->len);
    if (!st)
        st =
            add_pattern(&s->normal, t, i, text.text.data ? text.text.data : "", text.text.len, err);
    ew_norm_text_deinit(&text);
    return st;
}

static ew_status add_all(struct ew_added_set *s, const struct ew_norm_chain *norm,
                         struct ew_regex_scratch *scratch, ew_error *err)
{
    bool any_single_word = false;

    for (size_t i = 0; i < s->n_tokens; i++) {
        const struct ew_added_token *t = &s->tokens[i];

        any_single_word |= t->single_word;
        EW_TRY(t->normalized ? add_normal(s, (uint32_t)i, norm, scratch, err)
                             : add_pattern(&s->raw, t, (uint32_t)i, t->text, t->len, err));
    }
    qsort(s->raw.patterns, s->raw.n_patterns, sizeof(*s->raw.patterns), compare);
    qsort(s->normal.patterns, s->normal.n_patterns, sizeof(*s->normal.patterns), compare);
    if (!any_single_word)
        return EW_STATUS_OK;
    return ew_regex_compile(&s->word, ew_str_from("\\A[" EW_REGEX_WORD_CLASS "\\x{200c}\\x{200d}]"),
                            "added tokens", err);
}

ew_status ew_added_index_all(struct ew_added_set *s, const struct ew_norm_chain *norm,
                             ew_error *err)
{
    struct ew_regex_scratch scratch;
    ew_status st;

    s->raw.patterns = ew_mem_calloc(EW_MEM_TEXT, s->n_tokens, sizeof(*s->raw.patterns));
    s->normal.patterns = ew_mem_calloc(EW_MEM_TEXT, s->n_tokens, sizeof(*s->normal.patterns));
    if (!s->raw.patterns || !s->normal.patterns)
        return ew_fail(err, EW_STATUS_NO_MEMORY, "added tokens: out of memory for %zu",
                       s->n_tokens);
    EW_TRY(ew_regex_scratch_init(&scratch, err));
    st = add_all(s, norm, &scratch, err);
    ew_regex_scratch_deinit(&scratch);
    return st;
}

static void index_deinit(struct ew_added_index *index)
{
    for (size_t i = 0; i < index->n_patterns; i++)
        ew_mem_free(index->patterns[i].text);
    ew_mem_free(index->patterns);
}

void ew_added_deinit(struct ew_added_set *s)
{
    index_deinit(&s->raw);
    index_deinit(&s->normal);
    ew_regex_deinit(&s->word);
    ew_mem_free(s->tokens);
}

/* First pattern in [lo, hi) whose byte at `depth` is at least `byte`; a pattern that ends there
 * comes before all. */
static size_t lower_bound(const struct ew_added_index *index, size_t lo, size_t hi, size_t depth,
                          unsigned byte)
{
    while (lo < hi) {
        const size_t mid = lo + (hi - lo) / 2;
        const struct ew_added_pattern *p = &index->patterns[mid];

        if (p->len <= depth || (unsigned char)p->text[depth] < byte)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

static bool is_allowed(const struct ew_added_walk *w, const struct ew_added_token *t, size_t at,
                       size_t len)
{
    if (!t->special)
        return true;
    return w->specials && !(w->from_user && memchr(w->from_user + at, 1, len));
}

/* The longest allowed pattern at `at`, NULL when there is none. */
static const struct ew_added_pattern *longest_at(const struct ew_added_walk *w, size_t at)
{
    const struct ew_added_index *index = w->index;
    const struct ew_added_pattern *best = NULL;
    size_t lo = 0;
    size_t hi = index->n_patterns;

    for (size_t depth = 0; at + depth < w->len; depth++) {
        const unsigned byte = (unsigned char)w->text[at + depth];

        lo = lower_bound(index, lo, hi, depth, byte);
        hi = lower_bound(index, lo, hi, depth, byte + 1);
        if (lo == hi)
            break;
        for (size_t i = lo; i < hi && index->patterns[i].len == depth + 1; i++) {
            const struct ew_added_pattern *p = &index->patterns[i];

            if (is_allowed(w, &w->set->tokens[p->token], at, p->len)) {
                best = p;
                break;
            }
        }
    }
    return best;
}

static ew_status is_word_at(const struct ew_added_walk *w, size_t at, bool *out, ew_error *err)
{
    size_t begin;
    size_t end;

    return ew_regex_find(&w->set->word, w->scratch, w->text + at, w->len - at, 0, out, &begin, &end,
                         err);
}

/* Neither neighbour of [begin, end) is part of a word. */
static ew_status stands_alone(const struct ew_added_walk *w, size_t begin, size_t end, bool *out,
                              ew_error *err)
{
    bool before = false;
    bool after = false;

    if (begin > 0)
        EW_TRY(is_word_at(w, ew_utf8_before(w->text, begin), &before, err));
    if (end < w->len)
        EW_TRY(is_word_at(w, end, &after, err));
    *out = !before && !after;
    return EW_STATUS_OK;
}

static size_t spaces_before(const struct ew_added_walk *w, size_t at)
{
    while (at > w->done) {
        const size_t last = ew_utf8_before(w->text, at);
        size_t used;

        if (!ew_char_is_space(ew_utf8_get(w->text + last, &used)))
            break;
        at = last;
    }
    return at;
}

static size_t spaces_after(const struct ew_added_walk *w, size_t at)
{
    size_t used;

    while (at < w->len && ew_char_is_space(ew_utf8_get(w->text + at, &used)))
        at += used;
    return at;
}

ew_status ew_added_walk_next(struct ew_added_walk *w, const struct ew_added_token **token,
                             size_t *begin, size_t *end, ew_error *err)
{
    *token = NULL;
    for (; w->index->n_patterns > 0 && w->pos < w->len; w->pos++) {
        const struct ew_added_pattern *p;
        const struct ew_added_token *t;

        if (!w->index->may_begin[(unsigned char)w->text[w->pos]])
            continue;
        p = longest_at(w, w->pos);
        if (!p)
            continue;
        t = &w->set->tokens[p->token];
        *begin = w->pos;
        *end = w->pos + p->len;
        if (t->single_word) {
            bool alone;

            EW_TRY(stands_alone(w, *begin, *end, &alone, err));
            if (!alone) {
                w->pos = *end - 1;
                continue;
            }
        }
        /* The next match may begin in spaces that rstrip took: the reference searches on from the
         * match, not from what was stripped. */
        w->pos = *end;
        if (t->lstrip)
            *begin = spaces_before(w, *begin);
        if (t->rstrip)
            *end = spaces_after(w, *end);
        *begin = *begin > w->done ? *begin : w->done;
        *end = *end > w->done ? *end : w->done;
        *token = t;
        w->done = *end;
        return EW_STATUS_OK;
    }
    return EW_STATUS_OK;
}
