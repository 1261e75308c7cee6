/* backend/cuda/emit_moe.c - Moe as launches. */
#include "backend/cuda/cuda.h"

ew_status ew_cuda_emit_moe(struct ew_step_list *list, const struct ew_emit *e, ew_error *err)
{
    (void)list;
    (void)e;
    return ew_fail(err, EW_STATUS_UNSUPPORTED, "the CUDA backend does not run experts");
}
