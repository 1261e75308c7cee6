/* text/normal_form.h - NFC, NFD, NFKC, NFKD over a text on its way through the normalizers. */
#ifndef EW_TEXT_NORMAL_FORM_H
#define EW_TEXT_NORMAL_FORM_H

#include "text/normalize.h"

/* Appends the normal form of n->text to n->next_text (and the marks). */
ew_status ew_normal_form(struct ew_norm_text *n, bool compose, bool compat, ew_error *err);

/* For normalizers: bytes of n->text as they are; new bytes; does any of a range come from a user?
 */
void ew_norm_keep(struct ew_norm_text *n, size_t begin, size_t end);
void ew_norm_put(struct ew_norm_text *n, const char *text, size_t len, bool from_user);
bool ew_norm_is_from_user(const struct ew_norm_text *n, size_t begin, size_t end);

#endif
