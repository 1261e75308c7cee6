/* backend/cpu/steps.h - the emitters of the CPU backend, one a kind of op. */
#ifndef EW_BACKEND_CPU_STEPS_H
#define EW_BACKEND_CPU_STEPS_H

#include "backend/backend.h"

typedef ew_status ew_emit_fn(struct ew_step_list *list, const struct ew_emit *e, ew_error *err);
ew_emit_fn ew_emit_linear, ew_emit_rms_norm, ew_emit_attention, ew_emit_moe, ew_emit_pointwise,
    ew_emit_general;
ew_status ew_emit_copy(struct ew_step_list *list, uint32_t slot, void *dst, const void *src,
                       size_t bytes, ew_error *err);

/* Input i as f32: the view's own data, or a twin that a step emitted here fills. NULL *out: input
 * absent. */
ew_status ew_emit_f32_in(struct ew_step_list *list, const struct ew_emit *e, int i,
                         const float **out, ew_error *err);
/* Output i as f32: call begin before and end after emitting the op. */
ew_status ew_emit_f32_out(struct ew_step_list *list, const struct ew_emit *e, int i, float **out,
                          ew_error *err);
ew_status ew_emit_f32_out_end(struct ew_step_list *list, const struct ew_emit *e, int i,
                              const float *from, ew_error *err);

/* Called before the emission of a step that reads x and writes the n_y floats at y: when the last
 * step is a small norm that makes x, every thread will do that norm for itself (no barrier between
 * the two). True: thread 0 finds x at x, the others at the front of their own scratch, which the
 * step must keep free for it. */
bool ew_norm_for_each(struct ew_step_list *list, const float *x, const float *y, size_t n_y);

/* A failure inside a step; any thread, the first one wins. */
void ew_exec_fail(struct ew_exec *x, ew_status st);
static inline size_t ew_max_size(size_t a, size_t b)
{
    return a > b ? a : b;
}

#endif
