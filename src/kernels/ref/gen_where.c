/* kernels/ref/gen_where.c - Where: picks elements by a condition, by width alone. */
#include "kernels/ref/gen_common.h"

#define WHERE_LOOP(T)                                                                              \
    do {                                                                                           \
        T *const o = (T *)y->data + l.at[0];                                                       \
        const T *const s = (const T *)a->in[1]->data + l.at[2];                                    \
        const T *const t = (const T *)a->in[2]->data + l.at[3];                                    \
        for (ptrdiff_t i = 0; i < n; i++)                                                          \
            o[i] = cond[i * l.step[1]] ? s[i * l.step[2]] : t[i * l.step[3]];                      \
    } while (0)

ew_status ew_gen_where(const struct ew_general_args *a)
{
    struct ew_view *const y = a->out[0];
    const struct ew_type *const types[3] = { &a->in[0]->type, &a->in[1]->type, &a->in[2]->type };
    struct ew_gen_loop l;

    if (!ew_gen_loop_init_broadcast(&l, &y->type, 3, types))
        return ew_fail(a->err, EW_STATUS_MISMATCH, "inputs do not broadcast to the output");
    for (bool more = !l.empty; more; more = ew_gen_loop_next(&l)) {
        const uint8_t *const cond = (const uint8_t *)a->in[0]->data + l.at[1];
        const ptrdiff_t n = (ptrdiff_t)l.inner;

        switch (ew_dtype_bits(y->type.dtype)) {
        case 8:
            WHERE_LOOP(uint8_t);
            break;
        case 16:
            WHERE_LOOP(uint16_t);
            break;
        case 32:
            WHERE_LOOP(uint32_t);
            break;
        case 64:
            WHERE_LOOP(uint64_t);
            break;
        default:
            return ew_gen_refuse(a, y->type.dtype);
        }
    }
    return EW_STATUS_OK;
}
