/* text/normal_form.c - Unicode normal forms in linear time. utf8proc has the tables and the
 * composition; the canonical ordering is ours, because utf8proc's is quadratic in a run of
 * combining marks, which anyone can write.
 *
 * The text is cut where nothing can combine across: before each character below U+0300 (NFC) or
 * below U+0080 (the others). Such a character followed by another stays as it is. */
#include "text/normal_form.h"

#include "text/utf8.h"

#include <utf8proc.h>

#define MAX_EXPANSION 32

static int combining_class(int32_t cp)
{
    return cp < 0x300 ? 0 : utf8proc_get_property(cp)->combining_class;
}

static void sort_small(int32_t *run, size_t n)
{
    for (size_t i = 1; i < n; i++) {
        const int32_t cp = run[i];
        const int ccc = combining_class(cp);
        size_t k = i;

        for (; k > 0 && combining_class(run[k - 1]) > ccc; k--)
            run[k] = run[k - 1];
        run[k] = cp;
    }
}

/* Stable counting sort by combining class. */
static void sort_large(int32_t *run, size_t n, int32_t *scratch)
{
    size_t from[257] = { 0 };

    for (size_t i = 0; i < n; i++)
        from[combining_class(run[i]) + 1]++;
    for (size_t c = 1; c < 257; c++)
        from[c] += from[c - 1];
    for (size_t i = 0; i < n; i++)
        scratch[from[combining_class(run[i])]++] = run[i];
    memcpy(run, scratch, n * sizeof(*run));
}

/* points[0..n) decomposed; the second half of the buffer is free. */
static void order_marks(int32_t *points, size_t n, int32_t *scratch)
{
    size_t i = 0;

    while (i < n) {
        const size_t begin = i;

        while (i < n && combining_class(points[i]) != 0)
            i++;
        if (i - begin > 24)
            sort_large(points + begin, i - begin, scratch);
        else if (i - begin > 1)
            sort_small(points + begin, i - begin);
        i += i == begin;
    }
}

static ew_status decompose(struct ew_norm_text *n, size_t begin, size_t end, int options,
                           size_t *n_points)
{
    int32_t *points = (int32_t *)(void *)n->points.data;
    size_t cap = n->points.cap / sizeof(int32_t) / 2;
    size_t count = 0;
    int last_bound = 0;

    for (size_t i = begin; i < end;) {
        size_t used;
        const int32_t cp = (int32_t)ew_utf8_get(n->text.data + i, &used);

        if (cap < count + MAX_EXPANSION) {
            n->points.len = n->points.cap > 0 ? n->points.cap - 1 : 0;
            if (!ew_buf_reserve(&n->points, n->points.cap + 4096))
                return EW_STATUS_NO_MEMORY;
            points = (int32_t *)(void *)n->points.data;
            cap = n->points.cap / sizeof(int32_t) / 2;
        }
        const utf8proc_ssize_t got =
            utf8proc_decompose_char(cp, points + count, MAX_EXPANSION, options, &last_bound);

        if (got < 0 || got > MAX_EXPANSION)
            points[count++] = cp;
        else
            count += (size_t)got;
        i += used;
    }
    order_marks(points, count, points + cap);
    *n_points = count;
    return EW_STATUS_OK;
}

/* text[begin, end) is one stretch between cuts. */
static ew_status normalise_stretch(struct ew_norm_text *n, size_t begin, size_t end, bool compose,
                                   bool compat, ew_error *err)
{
    const int options = (int)UTF8PROC_STABLE |
                        (int)(compose ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE) |
                        (compat ? (int)UTF8PROC_COMPAT : 0);
    const bool from_user = ew_norm_is_from_user(n, begin, end);
    size_t n_points;
    size_t head_len;
    size_t i = 0;

    if (decompose(n, begin, end, options, &n_points))
        return ew_fail(err, EW_STATUS_NO_MEMORY, "normalizer: out of memory for %zu bytes",
                       end - begin);
    const int32_t *points = (const int32_t *)(void *)n->points.data;
    if (compose) {
        const utf8proc_ssize_t got =
            utf8proc_normalize_utf32((int32_t *)(void *)n->points.data, (utf8proc_ssize_t)n_points,
                                     (utf8proc_option_t)options);

        n_points = got < 0 ? n_points : (size_t)got;
    }
    /* A head that nothing joined keeps its own origin: "<|end|>" before a user's "é" stays ours. */
    if (n_points > 0 && (int32_t)ew_utf8_get(n->text.data + begin, &head_len) == points[0]) {
        ew_norm_keep(n, begin, begin + head_len);
        i = 1;
    }
    for (; i < n_points; i++) {
        char bytes[4];

        ew_norm_put(n, bytes, ew_utf8_put(bytes, (uint32_t)points[i]), from_user);
    }
    return EW_STATUS_OK;
}

ew_status ew_normal_form(struct ew_norm_text *n, bool compose, bool compat, ew_error *err)
{
    /* First byte of the first character that is not always its own normal form. */
    const unsigned char limit = compose && !compat ? 0xCC : 0x80;
    const unsigned char *text = (const unsigned char *)n->text.data;
    const size_t len = n->text.len;
    size_t kept = 0;
    size_t i = 0;

    while (i < len) {
        size_t begin;

        if (text[i] < limit) {
            i++;
            continue;
        }
        begin = i > kept ? ew_utf8_before(n->text.data, i) : i;
        ew_norm_keep(n, kept, begin);
        while (i < len && (text[i] >= limit || (text[i] & 0xC0u) == 0x80u))
            i++;
        EW_TRY(normalise_stretch(n, begin, i, compose, compat, err));
        kept = i;
    }
    ew_norm_keep(n, kept, len);
    return EW_STATUS_OK;
}
