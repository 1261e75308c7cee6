/* base/memory.h - the host's own memory behind the interface of a device's (edgewise/memory.h). */
#ifndef EW_BASE_MEMORY_H
#define EW_BASE_MEMORY_H

#include "edgewise/memory.h"

/* Pages of the system; static. */
const ew_memory *ew_memory_of_host(void);

#endif
