/* checkpoint/quant_zeros.c - zero points and the order of columns (g_idx) of a quantised module. */
#include <string.h>

#include "base/size.h"
#include "checkpoint/quant_load_impl.h"

/* Bytes, two's complement: one a scale, in the shape of the scales where those are whole tensors'.
 */
static ew_status take_bytes(struct ew_qx_job *j, size_t groups, const struct ew_st_tensor **out,
                            ew_error *err)
{
    static const ew_dtype byte = EW_DTYPE_I8;
    const bool single = !j->src->scale_row; /* one for the whole tensor */
    const int64_t dims[2] = { (int64_t)j->n, (int64_t)groups };

    j->src->zeros_as = EW_QX_ZEROS_BYTES;
    j->src->zeros_pitch = single ? 0 : groups;
    j->src->zero_plus = ew_dtype_bits(j->s->code) == 8 ? 128 : 8;
    return ew_qx_take(j, "weight_zero_point", &byte, 1, single ? j->scales->type.n_dims : 2,
                      single ? j->scales->type.dim : dims, out, err);
}

/* Tensors' shapes by the family of the codes. */
static ew_status take_tensor(struct ew_qx_job *j, size_t groups, const struct ew_st_tensor **out,
                             ew_error *err)
{
    static const ew_dtype word = EW_DTYPE_I32;
    const size_t per_word = 32 / ew_dtype_bits(j->s->code);
    int64_t dims[2] = { (int64_t)groups, (int64_t)(j->n / per_word) };
    struct ew_qx_source *src = j->src;

    switch (j->s->layout) {
    case EW_QX_AWQ:
    case EW_QX_GPTQ:
        src->zeros_as = j->s->layout == EW_QX_AWQ ? EW_QX_ZEROS_AWQ : EW_QX_ZEROS_GPTQ;
        src->zeros_pitch = j->n;
        return ew_qx_take(j, "qzeros", &word, 1, 2, dims, out, err);
    case EW_QX_PACKED:
        if (!src->scale_row) /* a single one is not packed */
            return take_bytes(j, groups, out, err);
        src->zeros_as = EW_QX_ZEROS_PACKED;
        src->zeros_pitch = groups;
        dims[0] = (int64_t)((j->n + per_word - 1) / per_word);
        dims[1] = (int64_t)groups;
        return ew_qx_take(j, "weight_zero_point", &word, 1, 2, dims, out, err);
    default:
        return take_bytes(j, groups, out, err);
    }
}

/* Range, and whether all are the middle code: then the weight is a symmetric one. */
static ew_status scan(const struct ew_qx_job *j, const struct ew_st_tensor *t, size_t groups,
                      bool *middle, ew_error *err)
{
    const bool byte = ew_dtype_bits(j->s->code) == 8;
    const int most = byte ? 255 : 15, mid = byte ? 128 : 8;

    *middle = true;
    for (size_t g = 0; g < groups; g++) {
        for (size_t n = 0; n < j->n; n++) {
            const int z = ew_qx_source_zero(j->src, n, g);

            if (z < 0 || z > most)
                return ew_fail(err, EW_STATUS_MALFORMED,
                               "tensor '%s': the zero point of row %zu, group %zu is %d, codes are "
                               "0..%d",
                               t->name, n, g, z, most);
            *middle = *middle && z == mid;
        }
    }
    return EW_STATUS_OK;
}

/* Files of symmetric weights may still have zero points: then they must say nothing. */
static ew_status check_silent(struct ew_qx_job *j, ew_error *err)
{
    const struct ew_st_tensor *t = j->n_stack ? NULL : ew_qx_find(j, "weight_zero_point");
    const uint8_t *b;

    if (!t)
        return EW_STATUS_OK;
    b = t->data;
    for (size_t i = 0; i < t->bytes; i++)
        if (b[i])
            return ew_fail(err, EW_STATUS_MISMATCH,
                           "tensor '%s' has a zero point that is not 0, the config says symmetric",
                           t->name);
    ew_qx_mark(j, t);
    return EW_STATUS_OK;
}

ew_status ew_qx_take_zeros(struct ew_qx_job *j, ew_error *err)
{
    const size_t groups = ew_quant_groups(&j->src->base.format, j->k);
    const bool byte = ew_dtype_bits(j->s->code) == 8;
    const struct ew_st_tensor *t;
    bool middle;

    if (j->s->zero == EW_QX_ZERO_NONE)
        return check_silent(j, err);
    /* The same size as the code's: the dtype of the source is what the layouts look at. */
    j->src->base.format.code = byte ? EW_DTYPE_U8 : EW_DTYPE_U4;
    EW_TRY(take_tensor(j, groups, &t, err));
    j->src->zeros = t->data;
    if (j->s->zero == EW_QX_ZERO_LESS_ONE)
        j->src->zero_word_plus = byte ? 0x01010101u : 0x11111111u;
    EW_TRY(scan(j, t, groups, &middle, err));
    if (middle && j->s->symmetric) {
        j->src->base.format.code = byte ? EW_DTYPE_I8 : EW_DTYPE_I4;
        j->src->flip = byte ? 0x80 : 8;
        j->src->zeros_as = EW_QX_ZEROS_NONE;
        return EW_STATUS_OK;
    }
    j->src->base.format.zero = 1;
    /* Packed words hold offset binary already; bytes hold two's complement. */
    j->src->flip = j->s->layout == EW_QX_ROWS ? (byte ? 0x80 : 8) : 0;
    return EW_STATUS_OK;
}

/* ---- order of columns ---- */

static const char *order_name(const struct ew_qx_job *j)
{
    return j->s->layout == EW_QX_GPTQ ? "g_idx" : "weight_g_idx";
}

static int32_t index_at(const struct ew_st_tensor *t, size_t i)
{
    int32_t v;

    memcpy(&v, (const uint8_t *)t->data + i * sizeof(v), sizeof(v));
    return v;
}

/* Places of columns when they are put in the order of their groups: perm[place] = column. Every
 * group must have its size. */
static ew_status sort_columns(const struct ew_qx_job *j, const struct ew_st_tensor *t, size_t group,
                              uint32_t *perm, ew_error *err)
{
    const size_t n_groups = j->k / group;
    uint32_t *fill = ew_mem_calloc(EW_MEM_CHECKPOINT, n_groups, sizeof(*fill));
    ew_status s = EW_STATUS_OK;

    if (!fill)
        return ew_qx_no_memory(j, err);
    for (size_t c = 0; c < j->k && !s; c++) {
        const int32_t g = index_at(t, c);

        if (g < 0 || (size_t)g >= n_groups)
            s = ew_fail(err, EW_STATUS_MALFORMED,
                        "tensor '%s': entry %zu is %d, there are groups 0..%zu", t->name, c, g,
                        n_groups - 1);
        else if (fill[g] >= group)
            s = ew_fail(err, EW_STATUS_MALFORMED, "tensor '%s': group %d has more than %zu columns",
                        t->name, g, group);
        else
            perm[(size_t)g * group + fill[g]++] = (uint32_t)c;
    }
    ew_mem_free(fill);
    return s;
}

/* Files that never set it have -1 everywhere. */
static bool is_unset(const struct ew_st_tensor *t, size_t k)
{
    for (size_t c = 0; c < k; c++)
        if (index_at(t, c) != -1)
            return false;
    return true;
}

ew_status ew_qx_take_order(struct ew_qx_job *j, struct ew_qx_module *out, ew_error *err)
{
    static const ew_dtype i32 = EW_DTYPE_I32;
    const size_t group = j->src->base.format.group ? j->src->base.format.group : j->k;
    const int64_t dim = (int64_t)j->k;
    const struct ew_st_tensor *t;
    uint32_t *perm;
    bool trivial = true;

    if (!j->s->act_order ||
        (!ew_qx_find(j, order_name(j)) && (!j->s->needs_order || group >= j->k)))
        return EW_STATUS_OK;
    EW_TRY(ew_qx_take(j, order_name(j), &i32, 1, 1, &dim, &t, err));
    if (j->k % group != 0)
        return ew_fail(err, EW_STATUS_MISMATCH, "tensor '%s': %zu columns, groups of %zu", t->name,
                       j->k, group);
    if (is_unset(t, j->k))
        return EW_STATUS_OK;
    perm = ew_arena_new(j->l->arena, uint32_t, j->k);
    if (!perm)
        return ew_qx_no_memory(j, err);
    EW_TRY(sort_columns(j, t, group, perm, err));
    for (size_t c = 0; c < j->k && trivial; c++)
        trivial = perm[c] == c;
    if (trivial)
        return EW_STATUS_OK;
    j->src->perm = perm;
    out->perm = perm;
    return EW_STATUS_OK;
}
