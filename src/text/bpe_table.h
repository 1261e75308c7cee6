/* text/bpe_table.h - lookup of a pair of ids in the merge table. */
#ifndef EW_TEXT_BPE_TABLE_H
#define EW_TEXT_BPE_TABLE_H

#include "text/bpe.h"

static inline size_t ew_bpe_merge_slot(int32_t left, int32_t right)
{
    uint64_t h = ((uint64_t)(uint32_t)left << 32 | (uint32_t)right) * 0x9E3779B97F4A7C15u;

    h ^= h >> 32;
    h *= 0xD6E8FEB86659FD93u;
    return (size_t)(h ^ (h >> 32));
}

/* NULL when the pair does not merge. */
static inline const struct ew_bpe_merge *ew_bpe_find_merge(const struct ew_bpe *b, int32_t left,
                                                           int32_t right)
{
    size_t i = ew_bpe_merge_slot(left, right) & b->merge_mask;

    while (b->merges[i].rank != UINT32_MAX) {
        if (b->merges[i].left == left && b->merges[i].right == right)
            return &b->merges[i];
        i = (i + 1) & b->merge_mask;
    }
    return NULL;
}

#endif
