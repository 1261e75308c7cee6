/* fakenvtx.c - the two functions of NVTX that the backend calls, which remember what was named. */
#include "fakenvtx.h"

#include <stdio.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))

EXPORT int nvtxRangePushA(const char *name);
EXPORT int nvtxRangePop(void);

static char names[FAKENVTX_NAMES][FAKENVTX_NAME_CAP];
static unsigned n_names;
static int depth;

EXPORT int nvtxRangePushA(const char *name)
{
    if (n_names < FAKENVTX_NAMES)
        (void)snprintf(names[n_names++], FAKENVTX_NAME_CAP, "%s", name);
    return depth++;
}

EXPORT int nvtxRangePop(void)
{
    return --depth;
}

EXPORT const char *fakenvtx_name(unsigned i)
{
    return i < n_names ? names[i] : NULL;
}

EXPORT int fakenvtx_depth(void)
{
    return depth;
}

EXPORT void fakenvtx_reset(void)
{
    n_names = 0;
    depth = 0;
}
