/* kernels/rowops.c - the tables of row kernels and the choice among them. Owns no arithmetic. */
#include "kernels/rowops.h"

#include "base/size.h"

#define EW_KERNEL(name) extern const struct ew_rowops name;
#include "kernels/list_rowops.inc"
#undef EW_KERNEL

static const struct ew_rowops *const all[] = {
#define EW_KERNEL(name) &name,
#include "kernels/list_rowops.inc"
#undef EW_KERNEL
};

const struct ew_rowops *const *ew_rowops_all(size_t *n)
{
    *n = EW_COUNT(all);
    return all;
}

const struct ew_rowops *ew_rowops_best(uint32_t cpu_flags)
{
    const struct ew_rowops *best = all[0];

    for (size_t i = 1; i < EW_COUNT(all); i++)
        if ((all[i]->cpu_need & ~cpu_flags) == 0)
            best = all[i];
    return best;
}
