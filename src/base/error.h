/* base/error.h - the two habits of every fallible function; types are in edgewise/base.h. */
#ifndef EW_BASE_ERROR_H
#define EW_BASE_ERROR_H

#include "edgewise/base.h"

/* Only for functions that own nothing yet. */
#define EW_TRY(call)                                                                               \
    do {                                                                                           \
        const ew_status try_st_ = (call);                                                          \
        if (try_st_)                                                                               \
            return try_st_;                                                                        \
    } while (0)

#endif
