/* text/byte_level.c - bytes 33..126, 161..172 and 174..255 stand for themselves, the other 68 are
 * U+0100 and up in byte order. */
#include "text/byte_level.h"

#include "text/utf8.h"

static bool is_itself(unsigned b)
{
    return (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
}

/* The characters from U+0100: bytes 0..32, 127..160, 173. */
static uint32_t char_of_byte(unsigned b)
{
    if (is_itself(b))
        return b;
    if (b <= 32)
        return 0x100 + b;
    return b == 173 ? 0x100 + 67 : 0x100 + 33 + (b - 127);
}

/* -1 when the character is not in the map. */
static int byte_of_char(uint32_t cp)
{
    if (cp < 0x100)
        return is_itself(cp) ? (int)cp : -1;
    if (cp <= 0x100 + 32)
        return (int)(cp - 0x100);
    if (cp < 0x100 + 67)
        return (int)(cp - 0x100 - 33 + 127);
    return cp == 0x100 + 67 ? 173 : -1;
}

bool ew_byte_level_map(struct ew_buf *out, const char *bytes, size_t len)
{
    if (len > SIZE_MAX / 2 || !ew_buf_reserve(out, 2 * len))
        return false;
    for (size_t i = 0; i < len; i++) {
        const uint32_t cp = char_of_byte((unsigned char)bytes[i]);

        if (cp < 0x80) {
            out->data[out->len++] = (char)cp;
        } else {
            out->data[out->len++] = (char)(0xC0u | (cp >> 6));
            out->data[out->len++] = (char)(0x80u | (cp & 0x3Fu));
        }
    }
    out->data[out->len] = 0;
    return true;
}

bool ew_byte_level_unmap(struct ew_buf *out, const char *token, size_t len)
{
    const size_t before = out->len;
    size_t i = 0;

    if (!ew_buf_reserve(out, len))
        return false;
    while (i < len) {
        size_t used;
        const int byte = byte_of_char(ew_utf8_get(token + i, &used));

        if (byte < 0) {
            out->len = before;
            return ew_buf_append(out, token, len);
        }
        out->data[out->len++] = (char)byte;
        i += used;
    }
    out->data[out->len] = 0;
    return true;
}
