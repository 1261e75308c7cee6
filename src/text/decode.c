/* text/decode.c - runs the decoder chain. Which tokens go in, and the public handles, belong to
 * stream_decode.c. */
#include "text/decode.h"

#include "text/byte_level.h"
#include "text/utf8.h"

#define MAX_TEXT_BYTES ((size_t)1 << 31)

ew_status ew_dec_run_init(struct ew_dec_run *r, const struct ew_dec_chain *c, ew_error *err)
{
    *r = (struct ew_dec_run){ .chain = c };
    ew_buf_init(&r->out, EW_MEM_TEXT, MAX_TEXT_BYTES);
    EW_TRY(ew_regex_scratch_init(&r->scratch, err));
    r->stages = ew_mem_calloc(EW_MEM_TEXT, c->n_steps, sizeof(*r->stages));
    if (!r->stages) {
        ew_regex_scratch_deinit(&r->scratch);
        return ew_fail(err, EW_STATUS_NO_MEMORY, "decoder: out of memory");
    }
    for (size_t i = 0; i < c->n_steps; i++) {
        ew_buf_init(&r->stages[i].token, EW_MEM_TEXT, MAX_TEXT_BYTES);
        ew_buf_init(&r->stages[i].held, EW_MEM_TEXT, MAX_TEXT_BYTES);
    }
    return EW_STATUS_OK;
}

void ew_dec_run_deinit(struct ew_dec_run *r)
{
    for (size_t i = 0; r->stages && i < r->chain->n_steps; i++) {
        ew_buf_deinit(&r->stages[i].token);
        ew_buf_deinit(&r->stages[i].held);
    }
    ew_mem_free(r->stages);
    ew_buf_deinit(&r->out);
    ew_regex_scratch_deinit(&r->scratch);
}

void ew_dec_run_reset(struct ew_dec_run *r)
{
    for (size_t i = 0; i < r->chain->n_steps; i++) {
        struct ew_dec_stage *s = &r->stages[i];

        ew_buf_reset(&s->token);
        ew_buf_reset(&s->held);
        *s = (struct ew_dec_stage){ .token = s->token, .held = s->held };
    }
    ew_buf_reset(&r->out);
    r->status = EW_STATUS_OK;
}

int ew_dec_byte_token(const char *token, size_t len)
{
    int value = 0;

    if (len != 6 || memcmp(token, "<0x", 3) != 0 || token[5] != '>')
        return -1;
    for (size_t i = 3; i < 5; i++) {
        const char c = token[i];

        if (c >= '0' && c <= '9')
            value = value * 16 + (c - '0');
        else if ((c | 32) >= 'a' && (c | 32) <= 'f')
            value = value * 16 + ((c | 32) - 'a' + 10);
        else
            return -1;
    }
    return value;
}

ew_status ew_dec_replace(const struct ew_dec_step *s, struct ew_regex_scratch *scratch,
                         const char *text, size_t len, struct ew_buf *out)
{
    struct ew_pattern_walk walk;
    size_t kept = 0;
    bool found = true;

    ew_pattern_walk_init(&walk, &s->pattern, scratch, text, len);
    while (!out->failed) {
        size_t begin;
        size_t end;

        EW_TRY(ew_pattern_walk_next(&walk, &found, &begin, &end, NULL));
        if (!found)
            break;
        ew_buf_append(out, text + kept, begin - kept);
        ew_buf_append(out, s->content, s->content_len);
        kept = end;
    }
    ew_buf_append(out, text + kept, len - kept);
    return out->failed ? EW_STATUS_LIMIT : EW_STATUS_OK;
}

static void feed(struct ew_dec_run *r, size_t i_stage, const char *text, size_t len, bool ends);

/* Gives on what of s->held are whole characters; all of it, with U+FFFD, when `last`. */
static void feed_characters(struct ew_dec_run *r, size_t i, bool last)
{
    struct ew_buf *held = &r->stages[i].held;
    struct ew_buf *fixed = &r->stages[i].token; /* empty between whole tokens */
    size_t done = 0;

    while (done < held->len) {
        uint32_t cp;
        size_t used;

        const enum ew_utf8_scan got = ew_utf8_scan(held->data + done, held->len - done, &cp, &used);

        if (got == EW_UTF8_SHORT && !last)
            break;
        done = got == EW_UTF8_SHORT ? held->len : done + used;
    }
    ew_buf_reset(fixed);
    if (done > 0 && !ew_utf8_repair(fixed, held->data, done))
        r->status = EW_STATUS_NO_MEMORY;
    if (fixed->len > 0 || last)
        feed(r, i + 1, fixed->data, fixed->len, last);
    ew_buf_reset(fixed);
    if (done > 0) {
        memmove(held->data, held->data + done, held->len - done);
        held->len -= done;
        held->data[held->len] = 0;
    }
}

/* A run of byte tokens is text when all of it is, else each byte is U+FFFD. */
static void flush_bytes(struct ew_dec_run *r, size_t i)
{
    struct ew_dec_stage *s = &r->stages[i];

    if (s->held.len == 0)
        return;
    if (ew_utf8_is_valid(s->held.data, s->held.len)) {
        feed(r, i + 1, s->held.data, s->held.len, true);
    } else {
        for (size_t k = 0; k < s->held.len; k++)
            feed(r, i + 1, "\xEF\xBF\xBD", 3, true);
    }
    ew_buf_reset(&s->held);
}

static void byte_fallback(struct ew_dec_run *r, size_t i, const char *text, size_t len)
{
    const int byte = ew_dec_byte_token(text, len);

    if (byte >= 0) {
        ew_buf_putc(&r->stages[i].held, (char)byte);
        return;
    }
    flush_bytes(r, i);
    feed(r, i + 1, text, len, true);
}

static void give_suffixed(struct ew_dec_run *r, size_t i, const char *between)
{
    struct ew_dec_stage *s = &r->stages[i];
    const struct ew_pattern *suffix = &r->chain->steps[i].pattern;
    const char *at = s->held.data;
    size_t left = s->held.len;

    while (left > 0) {
        const char *hit = memmem(at, left, suffix->literal, suffix->literal_len);
        const size_t plain = hit ? (size_t)(hit - at) : left;

        feed(r, i + 1, at, plain, false);
        if (hit)
            feed(r, i + 1, between, strlen(between), false);
        at += plain + (hit ? suffix->literal_len : 0);
        left -= plain + (hit ? suffix->literal_len : 0);
    }
    feed(r, i + 1, "", 0, true);
    s->has_held = false;
    ew_buf_reset(&s->held);
}

static void bpe(struct ew_dec_run *r, size_t i, const char *text, size_t len)
{
    if (r->stages[i].has_held)
        give_suffixed(r, i, " ");
    ew_buf_append(&r->stages[i].held, text, len);
    r->stages[i].has_held = true;
}

/* One whole token. */
static void take_token(struct ew_dec_run *r, size_t i, const char *text, size_t len)
{
    const struct ew_dec_step *step = &r->chain->steps[i];
    struct ew_dec_stage *s = &r->stages[i];

    switch (step->kind) {
    case EW_DEC_BYTE_LEVEL:
        ew_byte_level_unmap(&s->held, text, len);
        feed_characters(r, i, false);
        break;
    case EW_DEC_BYTE_FALLBACK:
        byte_fallback(r, i, text, len);
        break;
    case EW_DEC_REPLACE: {
        const ew_status st = ew_dec_replace(step, &r->scratch, text, len, &s->held);

        if (st)
            r->status = st;
        feed(r, i + 1, s->held.data, s->held.len, true);
        ew_buf_reset(&s->held);
        break;
    }
    default:
        bpe(r, i, text, len);
        break;
    }
}

static bool is_mark(const struct ew_dec_step *step, const char *text, size_t len)
{
    return len == step->pattern.literal_len && memcmp(text, step->pattern.literal, len) == 0;
}

/* Gives on what is in s->held but the last `stop` characters of it that are the content. */
static void strip_tail(struct ew_dec_run *r, size_t i, bool ends)
{
    const struct ew_dec_step *step = &r->chain->steps[i];
    struct ew_buf *held = &r->stages[i].held;
    const size_t mark_len = step->pattern.literal_len;
    size_t keep = held->len;

    for (size_t k = 0; k < step->stop && keep >= mark_len; k++) {
        if (!is_mark(step, held->data + keep - mark_len, mark_len))
            break;
        keep -= mark_len;
    }
    feed(r, i + 1, held->data, keep, ends);
    if (ends) {
        ew_buf_reset(held);
    } else if (keep > 0) {
        memmove(held->data, held->data + keep, held->len - keep + 1);
        held->len -= keep;
    }
}

static void strip(struct ew_dec_run *r, size_t i, const char *text, size_t len, bool ends)
{
    const struct ew_dec_step *step = &r->chain->steps[i];
    struct ew_dec_stage *s = &r->stages[i];
    size_t at = 0;

    while (!s->in_token && at < len) {
        size_t used;

        ew_utf8_get(text + at, &used);
        if (s->n_cut < step->start && is_mark(step, text + at, used)) {
            s->n_cut++;
            at += used;
        } else {
            s->in_token = true;
        }
    }
    ew_buf_append(&s->held, text + at, len - at);
    strip_tail(r, i, ends);
    if (ends) {
        s->n_cut = 0;
        s->in_token = false;
    }
}

static void metaspace(struct ew_dec_run *r, size_t i, const char *text, size_t len, bool ends)
{
    const struct ew_dec_step *step = &r->chain->steps[i];
    struct ew_dec_stage *s = &r->stages[i];
    size_t used;

    for (size_t at = 0; at < len; at += used) {
        ew_utf8_get(text + at, &used);
        if (!is_mark(step, text + at, used))
            ew_buf_append(&s->held, text + at, used);
        else if (s->n_tokens > 0 || !step->drops_first)
            ew_buf_putc(&s->held, ' ');
    }
    feed(r, i + 1, s->held.data, s->held.len, ends);
    ew_buf_reset(&s->held);
    s->n_tokens += ends;
}

static void join(struct ew_dec_run *r, size_t i, const char *text, size_t len, bool ends)
{
    if (r->stages[i].n_tokens > 0)
        feed(r, i + 1, " ", 1, false);
    feed(r, i + 1, text, len, ends);
    r->stages[i].n_tokens += ends;
}

static void feed(struct ew_dec_run *r, size_t i_stage, const char *text, size_t len, bool ends)
{
    struct ew_dec_stage *s;

    if (r->status)
        return;
    if (!text)
        text = ""; /* an empty buffer's data */
    if (i_stage == r->chain->n_steps) {
        if (len > 0 && !ew_buf_append(&r->out, text, len))
            r->status = EW_STATUS_NO_MEMORY;
        return;
    }
    s = &r->stages[i_stage];
    switch (r->chain->steps[i_stage].kind) {
    case EW_DEC_FUSE:
        feed(r, i_stage + 1, text, len, false);
        break;
    case EW_DEC_STRIP:
        strip(r, i_stage, text, len, ends);
        break;
    case EW_DEC_METASPACE:
        metaspace(r, i_stage, text, len, ends);
        break;
    case EW_DEC_JOIN: /* the only stage: its tokens are whole */
        join(r, i_stage, text, len, ends);
        break;
    default:
        if (ends && s->token.len == 0) {
            take_token(r, i_stage, text, len);
        } else {
            ew_buf_append(&s->token, text, len);
            if (ends) {
                struct ew_buf token = s->token;

                /* The stage may use its token buffer; the text must outlive that. */
                ew_buf_init(&s->token, token.tag, token.max_len);
                take_token(r, i_stage, token.data, token.len);
                ew_buf_deinit(&token);
            }
        }
        break;
    }
    if (s->held.failed || s->token.failed)
        r->status = EW_STATUS_NO_MEMORY;
}

void ew_dec_run_push(struct ew_dec_run *r, const char *token, size_t len)
{
    feed(r, 0, token, len, true);
}

void ew_dec_run_finish(struct ew_dec_run *r)
{
    for (size_t i = 0; i < r->chain->n_steps && !r->status; i++) {
        switch (r->chain->steps[i].kind) {
        case EW_DEC_BYTE_LEVEL:
            feed_characters(r, i, true);
            break;
        case EW_DEC_BYTE_FALLBACK:
            flush_bytes(r, i);
            break;
        case EW_DEC_FUSE:
            feed(r, i + 1, "", 0, true);
            break;
        case EW_DEC_BPE:
            if (r->stages[i].has_held)
                give_suffixed(r, i, "");
            break;
        default:
            break;
        }
    }
}

/* One stage's share of a single token: from *text to *out. */
static ew_status bytes_through(const struct ew_dec_step *s, struct ew_regex_scratch *scratch,
                               const struct ew_buf *in, struct ew_buf *out)
{
    const struct ew_dec_step spaces = { .kind = EW_DEC_REPLACE,
                                        .pattern = s->pattern,
                                        .content = (char[]){ ' ', 0 },
                                        .content_len = 1 };
    const int byte = ew_dec_byte_token(in->data, in->len);

    switch (s->kind) {
    case EW_DEC_BYTE_LEVEL:
        return ew_byte_level_unmap(out, in->data, in->len) ? EW_STATUS_OK : EW_STATUS_NO_MEMORY;
    case EW_DEC_REPLACE:
        return ew_dec_replace(s, scratch, in->data, in->len, out);
    case EW_DEC_METASPACE:
    case EW_DEC_BPE:
        return ew_dec_replace(&spaces, scratch, in->data, in->len, out);
    case EW_DEC_BYTE_FALLBACK:
        if (byte >= 0)
            return ew_buf_putc(out, (char)byte) ? EW_STATUS_OK : EW_STATUS_NO_MEMORY;
        break;
    default:
        break;
    }
    return ew_buf_append(out, in->data, in->len) ? EW_STATUS_OK : EW_STATUS_NO_MEMORY;
}

ew_status ew_dec_token_bytes(const struct ew_dec_chain *c, struct ew_regex_scratch *scratch,
                             const char *token, size_t len, struct ew_buf *tmp, struct ew_buf *out)
{
    ew_buf_reset(out);
    if (!ew_buf_append(out, token, len))
        return EW_STATUS_NO_MEMORY;
    for (size_t i = 0; i < c->n_steps; i++) {
        const struct ew_buf in = *out;

        ew_buf_reset(tmp);
        EW_TRY(bytes_through(&c->steps[i], scratch, &in, tmp));
        *out = *tmp;
        *tmp = in;
        /* Bytes that are no text: nothing after works on them. */
        if (c->steps[i].kind == EW_DEC_BYTE_LEVEL ||
            (c->steps[i].kind == EW_DEC_BYTE_FALLBACK && ew_dec_byte_token(token, len) >= 0))
            break;
    }
    return EW_STATUS_OK;
}
