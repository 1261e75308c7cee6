/* text/utf8.c - UTF-8 scanning and character classes. Owns no Unicode tables: utf8proc does. */
#include "text/utf8.h"

#include <utf8proc.h>

enum ew_utf8_scan ew_utf8_scan(const char *at, size_t len, uint32_t *cp, size_t *used)
{
    const unsigned char *p = (const unsigned char *)at;
    unsigned char lo = 0x80;
    unsigned char hi = 0xBF;
    uint32_t value;
    size_t need;

    *used = 1;
    *cp = EW_UTF8_BAD_CHAR;
    if (p[0] < 0x80) {
        *cp = p[0];
        return EW_UTF8_OK;
    }
    if (p[0] < 0xC2 || p[0] > 0xF4)
        return EW_UTF8_BAD;
    need = p[0] < 0xE0 ? 1 : p[0] < 0xF0 ? 2 : 3;
    value = p[0] & (0x3Fu >> need);
    /* The second byte decides overlong forms, surrogates and values past U+10FFFF. */
    if (p[0] == 0xE0)
        lo = 0xA0;
    else if (p[0] == 0xED)
        hi = 0x9F;
    else if (p[0] == 0xF0)
        lo = 0x90;
    else if (p[0] == 0xF4)
        hi = 0x8F;
    for (size_t i = 1; i <= need; i++) {
        if (i >= len)
            return EW_UTF8_SHORT;
        if (p[i] < lo || p[i] > hi)
            return EW_UTF8_BAD;
        value = (value << 6) | (p[i] & 0x3Fu);
        *used = i + 1;
        lo = 0x80;
        hi = 0xBF;
    }
    *cp = value;
    return EW_UTF8_OK;
}

bool ew_utf8_is_valid(const char *at, size_t len)
{
    size_t i = 0;

    while (i < len) {
        uint32_t cp;
        size_t used;

        if ((unsigned char)at[i] < 0x80) {
            i++;
            continue;
        }
        if (ew_utf8_scan(at + i, len - i, &cp, &used) != EW_UTF8_OK)
            return false;
        i += used;
    }
    return true;
}

size_t ew_utf8_put(char out[4], uint32_t cp)
{
    if (cp < 0x80) {
        out[0] = (char)cp;
        return 1;
    }
    if (cp < 0x800) {
        out[0] = (char)(0xC0u | (cp >> 6));
        out[1] = (char)(0x80u | (cp & 0x3Fu));
        return 2;
    }
    if (cp < 0x10000) {
        out[0] = (char)(0xE0u | (cp >> 12));
        out[1] = (char)(0x80u | ((cp >> 6) & 0x3Fu));
        out[2] = (char)(0x80u | (cp & 0x3Fu));
        return 3;
    }
    out[0] = (char)(0xF0u | (cp >> 18));
    out[1] = (char)(0x80u | ((cp >> 12) & 0x3Fu));
    out[2] = (char)(0x80u | ((cp >> 6) & 0x3Fu));
    out[3] = (char)(0x80u | (cp & 0x3Fu));
    return 4;
}

bool ew_utf8_repair(struct ew_buf *out, const char *text, size_t len)
{
    size_t from = 0;
    size_t i = 0;

    while (i < len) {
        uint32_t cp;
        size_t used;
        const enum ew_utf8_scan got = ew_utf8_scan(text + i, len - i, &cp, &used);

        if (got != EW_UTF8_OK) {
            ew_buf_append(out, text + from, i - from);
            ew_buf_puts(out, "\xEF\xBF\xBD");
            from = i + (got == EW_UTF8_SHORT ? len - i : used);
        }
        i = got == EW_UTF8_SHORT ? len : i + used;
    }
    ew_buf_append(out, text + from, len - from);
    return !out->failed;
}

bool ew_char_is_space(uint32_t cp)
{
    if (cp < 0x80)
        return cp == ' ' || (cp >= 9 && cp <= 13);
    return cp == 0x85 || cp == 0xA0 || cp == 0x1680 || (cp >= 0x2000 && cp <= 0x200A) ||
           cp == 0x2028 || cp == 0x2029 || cp == 0x202F || cp == 0x205F || cp == 0x3000;
}

bool ew_char_is_numeric(uint32_t cp)
{
    utf8proc_category_t cat;

    if (cp < 0x80)
        return cp >= '0' && cp <= '9';
    cat = utf8proc_category((utf8proc_int32_t)cp);
    return cat == UTF8PROC_CATEGORY_ND || cat == UTF8PROC_CATEGORY_NL ||
           cat == UTF8PROC_CATEGORY_NO;
}

bool ew_char_is_punctuation(uint32_t cp)
{
    utf8proc_category_t cat;

    if (cp < 0x80)
        return (cp >= 33 && cp <= 47) || (cp >= 58 && cp <= 64) || (cp >= 91 && cp <= 96) ||
               (cp >= 123 && cp <= 126);
    cat = utf8proc_category((utf8proc_int32_t)cp);
    return cat >= UTF8PROC_CATEGORY_PC && cat <= UTF8PROC_CATEGORY_PO;
}

bool ew_char_is_nonspacing_mark(uint32_t cp)
{
    return cp >= 0x300 && utf8proc_category((utf8proc_int32_t)cp) == UTF8PROC_CATEGORY_MN;
}
