/* state.h - one run of checkcuda as its own files see it. */
#ifndef CHECKCUDA_STATE_H
#define CHECKCUDA_STATE_H

#include "backend/cuda/modules.h"
#include "backend/cuda/queue.h"
#include "checkcuda.h"

#define CC_CANARY 256

enum cc_mode { CC_LIST, CC_GATHER, CC_RUN };

struct cc_buffer {
    uint64_t address; /* as the case sees it; made up where nothing runs */
    size_t bytes;
    bool is_input;
    uint64_t base; /* of the device memory, canary included; 0: none */
    uint8_t *host; /* what cc_download gave */
};

struct cc_spec {
    struct ew_cuda_spec spec;
    uint32_t sm;
    char first_case[160]; /* with one_each or each_kernel: the smallest */
    size_t case_bytes;    /* of its buffers */
};

struct cc {
    enum cc_mode mode;
    bool bench, one_each; /* one_each: gather a spec for every entry, not for every set of macros */
    const char *filter;
    unsigned part, n_parts; /* of the cases that the filter wants every n_parts-th; 0: all */
    unsigned n_wanted;
    bool verbose; /* name each case when it has run */
    struct ew_cuda_chip chip;
    struct ew_cuda_device *device; /* NULL: compile only */
    struct ew_cuda_modules *modules;
    struct ew_cublaslt *library; /* NULL: not there */
    struct ew_cuda_queue queue;
    const struct cc_family *family;
    char name[160]; /* of the case */
    bool failed;    /* the case */
    uint64_t rng;
    double worst; /* largest error of the family, as a part of its bound */
    size_t n_cases, n_failures, n_family_cases, n_family_failures;
    struct cc_buffer *buffers;
    size_t n_buffers, cap_buffers;
    uint64_t next_address; /* made-up ones */
    char (*chosen)[160];   /* the cases to run; NULL: all */
    size_t n_chosen;
    struct cc_spec *specs;
    size_t n_specs, cap_specs;
};

/* bench.c */
void cc_bench_run(struct cc *c, const struct ew_cuda_launch *l, size_t n, double bytes,
                  double flops);

#endif
