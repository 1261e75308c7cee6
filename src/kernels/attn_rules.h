/* kernels/attn_rules.h - who sees what: the rules of attention.h as code, for every instruction
 * set. Static functions only: each file that includes it gets its own copy. */
#ifndef EW_KERNELS_ATTN_RULES_H
#define EW_KERNELS_ATTN_RULES_H

#include "kernels/attention.h"

struct attn_row { /* one new token */
    bool is_real; /* false: padding, or no slot for it */
    int64_t pos;
    size_t slot;
    size_t prefix; /* tree: slots before the tree; else unused */
    size_t n_tree; /* tree: rows of the tree */
};

static inline struct attn_row attn_row_find(const struct ew_attn_args *a, size_t b, size_t i)
{
    const int64_t c = a->context_lengths[b];
    const int64_t s0 = a->start_index ? a->start_index[b] : 0;
    struct attn_row r = { .is_real = false };

    switch (a->mode) {
    case EW_ATTN_DECODE:
        r.is_real = i == 0 && c > 0;
        r.pos = c - 1;
        r.slot = (size_t)r.pos;
        break;
    case EW_ATTN_TREE:
        r.pos = a->pos_id[b * a->s + i];
        r.slot = (size_t)s0 + i;
        r.prefix = (size_t)s0;
        r.n_tree = c > s0 ? (size_t)(c - s0) : 0;
        r.is_real = s0 >= 0 && i < r.n_tree && r.pos >= 0;
        break;
    default:
        r.is_real = s0 >= 0 && (int64_t)i < c;
        r.pos = s0 + (int64_t)i;
        r.slot = (size_t)r.pos;
        break;
    }
    r.is_real = r.is_real && r.slot < a->cap;
    return r;
}

/* One past the last slot that a real row may see. */
static inline size_t attn_row_end(const struct ew_attn_args *a, const struct attn_row *r)
{
    size_t end = r->slot + 1;

    if (a->mode == EW_ATTN_TREE)
        end = r->prefix + (r->n_tree < a->s ? r->n_tree : a->s);
    return end < a->cap ? end : a->cap;
}

/* Whether tree row i of batch row b sees tree row j (both inside the tree). */
static inline bool attn_tree_bit(const struct ew_attn_args *a, size_t b, size_t i, size_t j)
{
    const uint32_t *row = a->mask + (b * a->s + i) * a->mask_words;

    return j / 32 < a->mask_words && (row[j / 32] >> (j % 32) & 1) != 0;
}

/* Whether real row i sees `slot` < attn_row_end(). */
static inline bool attn_row_sees(const struct ew_attn_args *a, const struct attn_row *r, size_t b,
                                 size_t i, size_t slot)
{
    int64_t pos = (int64_t)slot;

    if (a->mode == EW_ATTN_TREE && slot >= r->prefix) {
        if (!attn_tree_bit(a, b, i, slot - r->prefix))
            return false;
        pos = a->pos_id[b * a->s + slot - r->prefix];
    }
    return a->window <= 0 || pos > r->pos - a->window;
}

/* cos[rd/2] then sin[rd/2] of a position; NULL when positions are not encoded. */
static inline const float *attn_rope_row(const struct ew_attn_args *a, size_t b, int64_t pos)
{
    if (!a->rope || a->rope_rows == 0)
        return NULL;
    const size_t row = (size_t)pos < a->rope_rows ? (size_t)pos : a->rope_rows - 1;
    return a->rope + b * a->rope_batch_stride + row * a->rd;
}

/* Element index of (batch row, K or V, kv head, slot 0) in the cache. */
static inline size_t attn_kv_index(const struct ew_attn_args *a, size_t b, size_t is_v, size_t h)
{
    return ((b * 2 + is_v) * a->hkv + h) * a->cap * a->d;
}

#endif
