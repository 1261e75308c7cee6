/* text/utf8.h - UTF-8 scanning and the few Unicode character classes of the tokenizer.
 *
 * Does not own normalisation (normalize.c) nor regular expressions (regex.c). */
#ifndef EW_TEXT_UTF8_H
#define EW_TEXT_UTF8_H

#include "base/buf.h"

#define EW_UTF8_BAD_CHAR 0xFFFDu

enum ew_utf8_scan {
    EW_UTF8_OK,
    EW_UTF8_BAD,   /* *used bytes are a maximal invalid part: one U+FFFD */
    EW_UTF8_SHORT, /* the text ends inside what may still become a character */
};
/* One character of untrusted bytes; len > 0. */
enum ew_utf8_scan ew_utf8_scan(const char *at, size_t len, uint32_t *cp, size_t *used);
/* True when all bytes are well-formed. */
bool ew_utf8_is_valid(const char *at, size_t len);
/* Writes 1 to 4 bytes, returns how many. cp is a scalar value. */
size_t ew_utf8_put(char out[4], uint32_t cp);
/* One character of text known to be well-formed, and its length. */
static inline uint32_t ew_utf8_get(const char *at, size_t *used)
{
    const unsigned char *p = (const unsigned char *)at;

    if (p[0] < 0x80) {
        *used = 1;
        return p[0];
    }
    if (p[0] < 0xE0) {
        *used = 2;
        return ((p[0] & 0x1Fu) << 6) | (p[1] & 0x3Fu);
    }
    if (p[0] < 0xF0) {
        *used = 3;
        return ((p[0] & 0x0Fu) << 12) | ((p[1] & 0x3Fu) << 6) | (p[2] & 0x3Fu);
    }
    *used = 4;
    return ((p[0] & 0x07u) << 18) | ((p[1] & 0x3Fu) << 12) | ((p[2] & 0x3Fu) << 6) | (p[3] & 0x3Fu);
}

/* Where the character that ends at `end` begins (well-formed text, end > 0). */
static inline size_t ew_utf8_before(const char *text, size_t end)
{
    do
        end--;
    while (end > 0 && ((unsigned char)text[end] & 0xC0u) == 0x80u);
    return end;
}

/* Appends `text` with each invalid part replaced by U+FFFD. */
bool ew_utf8_repair(struct ew_buf *out, const char *text, size_t len);

/* Unicode White_Space, N*, P* (ASCII symbols count as punctuation), Mn. */
bool ew_char_is_space(uint32_t cp);
bool ew_char_is_numeric(uint32_t cp);
bool ew_char_is_punctuation(uint32_t cp);
bool ew_char_is_nonspacing_mark(uint32_t cp);

#endif
