/* graph/text.h - what the printer and the parser of the text form must agree on. */
#ifndef EW_GRAPH_TEXT_H
#define EW_GRAPH_TEXT_H

#include "graph/ir.h"

#define EW_TEXT_CONST_CAP 64                /* elements of a constant that is printed in full */
#define EW_TEXT_HASH_CAP  ((size_t)1 << 24) /* bytes of a constant that is hashed; more: opaque */
#define EW_TEXT_DIM_CAP   1024              /* characters of a dim */

/* Names of pointwise instructions, index = enum ew_pw_op. */
extern const char *const ew_text_pw_names[EW_PW_OP_COUNT];
static inline bool ew_text_pw_has_b(unsigned op)
{
    return op <= EW_PW_POW;
}
static inline bool ew_text_pw_has_imm(unsigned op)
{
    return op >= EW_PW_ADD_IMM;
}
/* Characters of a name that needs no quotes. */
static inline bool ew_text_is_name_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '.' || c == '/';
}

#endif
