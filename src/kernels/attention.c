/* kernels/attention.c - the table of attention kernels. Owns no arithmetic. */
#include "kernels/attention.h"

#include <string.h>

#include "base/size.h"

#define EW_KERNEL(name) extern const struct ew_attn_kernel name;
#include "kernels/list_attention.inc"
#undef EW_KERNEL

static const struct ew_attn_kernel *const all[] = {
#define EW_KERNEL(name) &name,
#include "kernels/list_attention.inc"
#undef EW_KERNEL
};

const struct ew_attn_kernel *const *ew_attn_kernels(size_t *n)
{
    *n = EW_COUNT(all);
    return all;
}

const struct ew_attn_kernel *ew_attn_kernel_find(const char *name)
{
    for (size_t i = 0; i < EW_COUNT(all); i++)
        if (strcmp(all[i]->name, name) == 0)
            return all[i];
    return NULL;
}
