/* backend/cuda/ranges.h - names in a profiler's picture: NVTX. */
#ifndef EW_BACKEND_CUDA_RANGES_H
#define EW_BACKEND_CUDA_RANGES_H

#include "base/log.h"

struct ew_cuda_ranges { /* all 0: nobody looks */
    int (*push)(const char *name);
    int (*pop)(void);
    void *lib; /* NULL: what push and pop are of stays for good */
};

/* A tool's library (`profiler`, a path or NULL), else NVTX's own where the toolkit has it (CUDA
 * 12). Never fails: without either there are no ranges. A tool that will not load is said to the
 * log. */
void ew_cuda_ranges_open(struct ew_cuda_ranges *r, const char *profiler, const ew_logger *logger);
void ew_cuda_ranges_close(struct ew_cuda_ranges *r);

#endif
