/* base/log.h - formatted lines to a caller's ew_logger; NULL loggers swallow everything. */
#ifndef EW_BASE_LOG_H
#define EW_BASE_LOG_H

#include "edgewise/base.h"

void ew_log(const ew_logger *logger, ew_log_level level, const char *fmt, ...) EW_PRINTF(3, 4);

#endif
