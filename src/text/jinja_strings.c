/* text/jinja_strings.c - strip, split, replace, join and case, as Python does them. */
#include "text/jinja_strings.h"

#include <string.h>
#include <utf8proc.h>

#include "base/buf.h"
#include "text/jinja_eval.h"

/* Bytes of the character at `at`, and the character. Invalid bytes count as one each. */
static size_t char_at(const struct jinja_str *s, size_t at, int32_t *cp)
{
    utf8proc_int32_t c;
    const utf8proc_ssize_t n =
        utf8proc_iterate((const utf8proc_uint8_t *)s->at + at, (utf8proc_ssize_t)(s->len - at), &c);

    *cp = n > 0 ? c : 0xfffd;
    return n > 0 ? (size_t)n : 1;
}

static bool is_white(int32_t c)
{
    return c == ' ' || (c >= 9 && c <= 13) || (c >= 0x1c && c <= 0x1f) || c == 0x85 || c == 0xa0 ||
           c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 ||
           c == 0x202f || c == 0x205f || c == 0x3000;
}

static bool in_set(const struct jinja_str *set, int32_t c)
{
    if (!set)
        return is_white(c);
    for (size_t at = 0; at < set->len;) {
        int32_t x;
        at += char_at(set, at, &x);
        if (x == c)
            return true;
    }
    return false;
}

ew_status jinja_strip(struct jinja_run *r, const struct jinja_str *s, const struct jinja_str *chars,
                      bool left, bool right, struct jinja_value *out)
{
    size_t begin = 0, end = s->len;
    int32_t c;

    EW_TRY(jinja_charge(r, (chars ? chars->len : 1) / 16 + s->len / 64));
    while (left && begin < end) {
        const size_t n = char_at(s, begin, &c);
        if (!in_set(chars, c))
            break;
        begin += n;
    }
    while (right && end > begin) {
        size_t at = end - 1;
        while (at > begin && ((unsigned char)s->at[at] & 0xc0) == 0x80)
            at--;
        char_at(s, at, &c);
        if (!in_set(chars, c))
            break;
        end = at;
    }
    return jinja_str_sub(r, s, begin, end, out);
}

static ew_status push_sub(struct jinja_run *r, const struct jinja_str *s, size_t begin, size_t end,
                          struct jinja_list *l)
{
    struct jinja_value piece;

    EW_TRY(jinja_charge(r, 1));
    EW_TRY(jinja_str_sub(r, s, begin, end, &piece));
    return jinja_list_push(r, l, piece);
}

static void reverse(struct jinja_list *l)
{
    for (size_t i = 0; i < l->n / 2; i++) {
        const struct jinja_value v = l->v[i];
        l->v[i] = l->v[l->n - 1 - i];
        l->v[l->n - 1 - i] = v;
    }
}

static ew_status split_white(struct jinja_run *r, const struct jinja_str *s, int64_t max,
                             struct jinja_list *l)
{
    size_t at = 0;
    int32_t c;

    for (;;) {
        while (at < s->len) {
            const size_t n = char_at(s, at, &c);
            if (!is_white(c))
                break;
            at += n;
        }
        if (at >= s->len)
            return EW_STATUS_OK;
        size_t end = at;
        if (max >= 0 && (int64_t)l->n == max) {
            struct jinja_value rest;
            EW_TRY(jinja_str_sub(r, s, at, s->len, &rest));
            EW_TRY(jinja_strip(r, rest.u.s, NULL, false, true, &rest));
            return jinja_list_push(r, l, rest);
        }
        while (end < s->len) {
            const size_t n = char_at(s, end, &c);
            if (is_white(c))
                break;
            end += n;
        }
        EW_TRY(push_sub(r, s, at, end, l));
        at = end;
    }
}

/* rsplit() by whitespace, pieces from the right. */
static ew_status rsplit_white(struct jinja_run *r, const struct jinja_str *s, int64_t max,
                              struct jinja_list *l)
{
    struct jinja_value all, head;

    EW_TRY(jinja_list_new(r, false, &all));
    EW_TRY(split_white(r, s, -1, all.u.list));
    const size_t n = all.u.list->n;
    if (max < 0 || (uint64_t)max >= n) {
        *l = *all.u.list;
        return EW_STATUS_OK;
    }
    const size_t kept = n - (size_t)max; /* this many stay together at the front */
    const struct jinja_str *const last = all.u.list->v[kept - 1].u.s;
    EW_TRY(jinja_str_sub(r, s, 0, (size_t)(last->at + last->len - s->at), &head));
    EW_TRY(jinja_strip(r, head.u.s, NULL, true, false, &head));
    EW_TRY(jinja_list_push(r, l, head));
    for (size_t i = kept; i < n; i++)
        EW_TRY(jinja_list_push(r, l, all.u.list->v[i]));
    return EW_STATUS_OK;
}

ew_status jinja_split(struct jinja_run *r, const struct jinja_str *s, const struct jinja_str *sep,
                      int64_t max, bool from_right, struct jinja_value *out)
{
    size_t begin = 0, end = s->len;

    EW_TRY(jinja_list_new(r, false, out));
    EW_TRY(jinja_charge(r, s->len / 64));
    struct jinja_list *const l = out->u.list;
    if (!sep)
        return from_right ? rsplit_white(r, s, max, l) : split_white(r, s, max, l);
    if (sep->len == 0)
        return jinja_fail(r, EW_STATUS_MALFORMED, "empty separator");
    while (max < 0 || (int64_t)l->n < max) {
        size_t at = SIZE_MAX;
        if (from_right) {
            for (size_t i = end + 1; i-- > sep->len && at == SIZE_MAX;)
                if (memcmp(s->at + i - sep->len, sep->at, sep->len) == 0)
                    at = i - sep->len;
        } else {
            const char *const hit =
                end > begin ? memmem(s->at + begin, end - begin, sep->at, sep->len) : NULL;
            at = hit ? (size_t)(hit - s->at) : SIZE_MAX;
        }
        if (at == SIZE_MAX)
            break;
        EW_TRY(from_right ? push_sub(r, s, at + sep->len, end, l) : push_sub(r, s, begin, at, l));
        begin = from_right ? begin : at + sep->len;
        end = from_right ? at : end;
    }
    EW_TRY(push_sub(r, s, begin, end, l));
    if (from_right)
        reverse(l);
    return EW_STATUS_OK;
}

ew_status jinja_split_lines(struct jinja_run *r, const struct jinja_str *s, bool keep_ends,
                            struct jinja_value *out)
{
    size_t begin = 0;

    EW_TRY(jinja_list_new(r, false, out));
    for (size_t at = 0; at < s->len;) {
        int32_t c;
        const size_t n = char_at(s, at, &c);
        const bool ends = (c >= 10 && c <= 13) || (c >= 0x1c && c <= 0x1e) || c == 0x85 ||
                          c == 0x2028 || c == 0x2029;
        size_t next = at + n;
        if (ends) {
            if (c == '\r' && next < s->len && s->at[next] == '\n')
                next++;
            EW_TRY(push_sub(r, s, begin, keep_ends ? next : at, out->u.list));
            begin = next;
        }
        at = next;
    }
    return begin < s->len ? push_sub(r, s, begin, s->len, out->u.list) : EW_STATUS_OK;
}

struct pieces {
    const struct jinja_str **v;
    size_t n, cap;
};

static ew_status add_piece(struct jinja_run *r, struct pieces *p, const struct jinja_str *s)
{
    if (p->n == p->cap) {
        const size_t cap = p->cap ? p->cap * 2 : 16;
        const struct jinja_str **const more =
            ew_arena_new(&r->arena, const struct jinja_str *, cap);
        if (!more)
            return jinja_no_memory(r);
        if (p->n)
            memcpy(more, p->v, p->n * sizeof(*more));
        p->v = more;
        p->cap = cap;
    }
    p->v[p->n++] = s;
    return jinja_charge(r, 1);
}

static ew_status add_sub(struct jinja_run *r, struct pieces *p, const struct jinja_str *s,
                         size_t begin, size_t end)
{
    struct jinja_value v;

    EW_TRY(jinja_str_sub(r, s, begin, end, &v));
    return add_piece(r, p, v.u.s);
}

ew_status jinja_replace(struct jinja_run *r, const struct jinja_str *s,
                        const struct jinja_str *from, const struct jinja_str *to, int64_t max,
                        struct jinja_value *out)
{
    struct pieces p = { 0 };
    size_t at = 0;

    EW_TRY(jinja_charge(r, s->len / 64));
    for (int64_t n = 0; max < 0 || n < max; n++) {
        size_t hit;
        if (from->len == 0) { /* between all characters */
            int32_t c;
            EW_TRY(add_piece(r, &p, to));
            if (at >= s->len)
                return jinja_str_concat(r, p.v, p.n, out);
            hit = at + char_at(s, at, &c);
            EW_TRY(add_sub(r, &p, s, at, hit));
            at = hit;
            continue;
        }
        const char *const found =
            at < s->len ? memmem(s->at + at, s->len - at, from->at, from->len) : NULL;
        if (!found)
            break;
        hit = (size_t)(found - s->at);
        EW_TRY(add_sub(r, &p, s, at, hit));
        EW_TRY(add_piece(r, &p, to));
        at = hit + from->len;
    }
    EW_TRY(add_sub(r, &p, s, at, s->len));
    return jinja_str_concat(r, p.v, p.n, out);
}

ew_status jinja_join(struct jinja_run *r, const struct jinja_str *sep, struct jinja_value items,
                     bool strict, struct jinja_value *out)
{
    struct pieces p = { 0 };
    struct jinja_list *list;

    EW_TRY(jinja_iterate(r, items, &list));
    for (size_t i = 0; i < list->n; i++) {
        struct jinja_value text = list->v[i];
        if (strict && text.kind != JINJA_STR)
            return jinja_fail(r, EW_STATUS_MALFORMED,
                              "sequence item %zu: expected str instance, %s found", i,
                              jinja_type_text(text));
        EW_TRY(jinja_to_str(r, text, &text));
        if (i)
            EW_TRY(add_piece(r, &p, sep));
        EW_TRY(add_piece(r, &p, text.u.s));
    }
    return jinja_str_concat(r, p.v, p.n, out);
}

ew_status jinja_change_case(struct jinja_run *r, const struct jinja_str *s, const char *how,
                            struct jinja_value *out)
{
    char *const bytes =
        ew_arena_alloc(&r->arena, s->len * 3 + 4); /* a case change never needs more here */
    bool word_start = true;
    size_t n = 0;

    EW_TRY(jinja_charge(r, s->len / 8));
    if (!bytes)
        return jinja_no_memory(r);
    for (size_t at = 0; at < s->len;) {
        int32_t c;
        at += char_at(s, at, &c);
        const utf8proc_category_t cat = utf8proc_category(c);
        const bool is_upper = cat == UTF8PROC_CATEGORY_LU || cat == UTF8PROC_CATEGORY_LT;
        const bool letter = cat >= UTF8PROC_CATEGORY_LU && cat <= UTF8PROC_CATEGORY_LO;
        const bool up = how[0] == 'u' || (how[0] == 's' && !is_upper) ||
                        ((how[0] == 't' || how[0] == 'c') && word_start);
        const bool sharp = c == 0xdf && up; /* the one common letter whose capital is two */
        const int32_t changed = up ? utf8proc_toupper(c) : utf8proc_tolower(c);
        word_start = how[0] == 't' ? !letter : false;
        if (sharp) {
            bytes[n++] = 'S';
            bytes[n++] = how[0] == 't' || how[0] == 'c' ? 's' : 'S';
        } else {
            n += (size_t)utf8proc_encode_char(changed, (utf8proc_uint8_t *)bytes + n);
        }
    }
    return jinja_str_new(r, bytes, n, s, out);
}
