/* kernels/attn_rules.h - who sees what: the rules of attention.h as code, for every instruction
 * set. Static functions only: each file that includes it gets its own copy. */
#ifndef EW_KERNELS_ATTN_RULES_H
#define EW_KERNELS_ATTN_RULES_H

#include <string.h>

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

/* Bytes of one stored row of d elements. */
static inline size_t attn_row_bytes(ew_dtype t, size_t d)
{
    if (t == EW_DTYPE_I8)
        return d + sizeof(float);
    return d * (t == EW_DTYPE_F32 ? 4 : t == EW_DTYPE_F8E4M3 ? 1 : 2);
}

/* Byte of (batch row, K or V, kv head, slot) in the cache. */
static inline size_t attn_kv_at(const struct ew_attn_args *a, size_t b, size_t is_v, size_t h,
                                size_t slot)
{
    return (((b * 2 + is_v) * a->hkv + h) * a->cap + slot) * attn_row_bytes(a->kv_dtype, a->d);
}

/* Scale of an f8e4m3 head. */
static inline float attn_kv_scale(const struct ew_attn_args *a, size_t is_v, size_t h)
{
    return a->kv_scale ? a->kv_scale[is_v * a->hkv + h] : 1.0f;
}

/* Scale behind the codes of an i8 row. */
static inline float attn_row_scale(const unsigned char *row, size_t d)
{
    const unsigned char *p = row + d;
    const uint32_t bits =
        (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
    float f;

    memcpy(&f, &bits, sizeof(f));
    return f;
}

static inline void attn_row_set_scale(unsigned char *row, size_t d, float scale)
{
    uint32_t bits;

    memcpy(&bits, &scale, sizeof(bits));
    for (size_t i = 0; i < sizeof(bits); i++)
        row[d + i] = (unsigned char)(bits >> (8 * i));
}

#endif
