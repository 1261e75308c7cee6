/* text/pretokenize.c - runs the pre-tokenizer chain. Its JSON is read by pretokenize_parse.c. */
#include "text/pretokenize.h"

#include "text/byte_level.h"

void ew_pre_text_init(struct ew_pre_text *p, size_t max_len)
{
    *p = (struct ew_pre_text){ 0 };
    ew_buf_init(&p->text, EW_MEM_TEXT, max_len);
    ew_buf_init(&p->next_text, EW_MEM_TEXT, max_len);
}

void ew_pre_text_deinit(struct ew_pre_text *p)
{
    ew_buf_deinit(&p->text);
    ew_buf_deinit(&p->next_text);
    ew_mem_free(p->pieces);
    ew_mem_free(p->next);
    *p = (struct ew_pre_text){ 0 };
}

/* Empty pieces are dropped. */
static void push(struct ew_pre_text *p, struct ew_piece piece)
{
    if (piece.len == 0 || p->failed)
        return;
    if (p->n_next == p->cap_next) {
        const size_t cap = p->cap_next ? 2 * p->cap_next : 64;
        struct ew_piece *grown = ew_mem_resize(EW_MEM_TEXT, p->next, cap, sizeof(*grown));

        if (!grown) {
            p->failed = true;
            return;
        }
        p->next = grown;
        p->cap_next = cap;
    }
    p->next[p->n_next++] = piece;
}

/* Folds the alternating run of matches and gaps of one piece into new pieces. */
struct fold {
    struct ew_pre_text *p;
    const struct ew_pre_step *step;
    struct ew_piece whole; /* in the text that is cut */
    struct ew_piece open;  /* may still grow; offsets relative to whole */
    bool has_open, open_is_match;
};

static void close_open(struct fold *f)
{
    if (!f->has_open)
        return;
    push(f->p, (struct ew_piece){ f->whole.off + f->open.off, f->open.len,
                                  f->whole.starts_input && f->open.off == 0 });
    f->has_open = false;
}

static void add_event(struct fold *f, size_t begin, size_t end, bool is_match)
{
    const bool is_delimiter = is_match != f->step->invert;
    bool joins = false;

    switch (f->step->behavior) {
    case EW_SPLIT_REMOVED:
        if (!is_delimiter)
            push(f->p, (struct ew_piece){ f->whole.off + begin, end - begin,
                                          f->whole.starts_input && begin == 0 });
        return;
    case EW_SPLIT_ISOLATED:
        break;
    case EW_SPLIT_CONTIGUOUS:
        joins = is_delimiter == f->open_is_match;
        break;
    case EW_SPLIT_MERGED_WITH_PREVIOUS:
        joins = is_delimiter && !f->open_is_match;
        break;
    case EW_SPLIT_MERGED_WITH_NEXT:
        joins = !is_delimiter && f->open_is_match;
        break;
    }
    if (f->has_open && joins) {
        f->open.len = end - f->open.off;
    } else {
        close_open(f);
        f->open = (struct ew_piece){ begin, end - begin, false };
        f->has_open = true;
    }
    f->open_is_match = is_delimiter;
}

/* Cuts text[piece] by the step's pattern. */
static ew_status cut(struct ew_pre_text *p, const struct ew_pre_step *step, const char *text,
                     struct ew_piece piece, struct ew_regex_scratch *scratch, ew_error *err)
{
    struct fold f = { .p = p, .step = step, .whole = piece };
    struct ew_pattern_walk walk;
    size_t done = 0;

    ew_pattern_walk_init(&walk, &step->pattern, scratch, text + piece.off, piece.len);
    for (;;) {
        size_t begin;
        size_t end;
        bool found;

        EW_TRY(ew_pattern_walk_next(&walk, &found, &begin, &end, err));
        if (!found)
            break;
        if (begin > done)
            add_event(&f, done, begin, false);
        add_event(&f, begin, end, true);
        done = end;
    }
    if (done < piece.len)
        add_event(&f, done, piece.len, false);
    close_open(&f);
    return EW_STATUS_OK;
}

static void swap_pieces(struct ew_pre_text *p)
{
    struct ew_piece *const pieces = p->pieces;
    const size_t cap = p->cap_pieces;

    p->pieces = p->next;
    p->cap_pieces = p->cap_next;
    p->n_pieces = p->n_next;
    p->next = pieces;
    p->cap_next = cap;
    p->n_next = 0;
}

static void swap_text(struct ew_pre_text *p)
{
    const struct ew_buf text = p->text;

    p->text = p->next_text;
    p->next_text = text;
    ew_buf_reset(&p->next_text);
}

static ew_status split_all(const struct ew_pre_step *step, struct ew_pre_text *p,
                           struct ew_regex_scratch *scratch, ew_error *err)
{
    for (size_t i = 0; i < p->n_pieces; i++)
        EW_TRY(cut(p, step, p->text.data, p->pieces[i], scratch, err));
    swap_pieces(p);
    return EW_STATUS_OK;
}

static bool starts_with(const char *text, size_t len, const char *head, size_t head_len)
{
    return len >= head_len && memcmp(text, head, head_len) == 0;
}

/* Adds a space where asked, cuts by GPT-2's regex when there is one, and maps bytes to characters
 * after that: the regex sees the text, not the map. */
static ew_status byte_level(const struct ew_pre_step *step, struct ew_pre_text *p,
                            struct ew_regex_scratch *scratch, ew_error *err)
{
    if (step->head == EW_PREPEND_ALWAYS) {
        for (size_t i = 0; i < p->n_pieces; i++) {
            const struct ew_piece *piece = &p->pieces[i];
            const size_t off = p->next_text.len;

            if (p->text.data[piece->off] != ' ')
                ew_buf_putc(&p->next_text, ' ');
            ew_buf_append(&p->next_text, p->text.data + piece->off, piece->len);
            push(p, (struct ew_piece){ off, p->next_text.len - off, piece->starts_input });
        }
        swap_pieces(p);
        swap_text(p);
    }
    if (p->text.failed)
        return EW_STATUS_OK;
    if (step->pattern.regex.code)
        EW_TRY(split_all(step, p, scratch, err));
    for (size_t i = 0; i < p->n_pieces; i++) {
        struct ew_piece *piece = &p->pieces[i];
        const size_t off = p->next_text.len;

        ew_byte_level_map(&p->next_text, p->text.data + piece->off, piece->len);
        *piece = (struct ew_piece){ off, p->next_text.len - off, piece->starts_input };
    }
    swap_text(p);
    return EW_STATUS_OK;
}

static ew_status metaspace(const struct ew_pre_step *step, struct ew_pre_text *p, ew_error *err)
{
    const char *mark = step->pattern.literal;
    const size_t mark_len = step->pattern.literal_len;

    for (size_t i = 0; i < p->n_pieces; i++) {
        const struct ew_piece *piece = &p->pieces[i];
        const char *text = p->text.data + piece->off;
        const size_t off = p->next_text.len;
        const bool may_prepend = step->head == EW_PREPEND_ALWAYS ||
                                 (step->head == EW_PREPEND_FIRST && piece->starts_input);

        if (may_prepend && text[0] != ' ' && !starts_with(text, piece->len, mark, mark_len))
            ew_buf_append(&p->next_text, mark, mark_len);
        for (size_t k = 0; k < piece->len; k++) {
            if (text[k] == ' ')
                ew_buf_append(&p->next_text, mark, mark_len);
            else
                ew_buf_putc(&p->next_text, text[k]);
        }
        push(p, (struct ew_piece){ off, p->next_text.len - off, piece->starts_input });
    }
    swap_pieces(p);
    swap_text(p);
    if (p->text.failed || !step->cut)
        return EW_STATUS_OK;
    return split_all(step, p, NULL, err);
}

ew_status ew_pre_run(const struct ew_pre_chain *c, struct ew_pre_text *p, const char *text,
                     size_t len, bool starts_input, struct ew_regex_scratch *scratch, ew_error *err)
{
    ew_status st = EW_STATUS_OK;

    ew_buf_reset(&p->text);
    ew_buf_append(&p->text, text, len);
    p->n_next = 0;
    push(p, (struct ew_piece){ 0, len, starts_input });
    swap_pieces(p);
    for (size_t i = 0; i < c->n_steps && !st && !p->failed && !p->text.failed; i++) {
        const struct ew_pre_step *step = &c->steps[i];

        ew_buf_reset(&p->next_text);
        if (step->kind == EW_PRE_SPLIT)
            st = split_all(step, p, scratch, err);
        else if (step->kind == EW_PRE_BYTE_LEVEL)
            st = byte_level(step, p, scratch, err);
        else
            st = metaspace(step, p, err);
    }
    if (!st && (p->failed || p->text.failed))
        return ew_fail(err, EW_STATUS_LIMIT, "pre-tokenizer: no room for %zu bytes of text", len);
    return st;
}
