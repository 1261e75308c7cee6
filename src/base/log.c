/* base/log.c - formats a line and hands it to whoever listens. */
#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>

void ew_log(const ew_logger *logger, ew_log_level level, const char *fmt, ...)
{
    char line[1024];
    va_list args;

    if (!logger || !logger->log)
        return;
    va_start(args, fmt);
    vsnprintf(line, sizeof(line), fmt, args);
    va_end(args);
    logger->log(logger->ctx, level, line);
}
