/* text/post_process.h - what a post-processor puts around one text. */
#ifndef EW_TEXT_POST_PROCESS_H
#define EW_TEXT_POST_PROCESS_H

#include "base/json.h"

#define EW_POST_MAX_IDS 64

struct ew_post {
    int32_t before[EW_POST_MAX_IDS], after[EW_POST_MAX_IDS];
    size_t n_before, n_after;
};
/* NULL and null give nothing. Ids must be below n_tokens. */
ew_status ew_post_parse(struct ew_post *p, const json_t *json, uint32_t n_tokens, ew_error *err);

#endif
