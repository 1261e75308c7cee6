/* text/byte_level.h - GPT-2's reversible map between bytes and printable characters. */
#ifndef EW_TEXT_BYTE_LEVEL_H
#define EW_TEXT_BYTE_LEVEL_H

#include "base/buf.h"

#define EW_BYTE_LEVEL_REGEX                                                                        \
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"

/* Each byte as its character. */
bool ew_byte_level_map(struct ew_buf *out, const char *bytes, size_t len);
/* Undoes it for one token; a token with any other character gives its own bytes. */
bool ew_byte_level_unmap(struct ew_buf *out, const char *token, size_t len);

#endif
