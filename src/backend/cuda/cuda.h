/* backend/cuda/cuda.h - the CUDA backend as engine and builder use it.
 *
 *   engine:  ew_cuda_open(plan...) --> ew_device with the plan's kernels loaded and its weights in
 *            device memory
 *   builder: ew_cuda_dry(chip, see) --> ew_device that only shows what would be launched; then
 *            ew_cuda_bare(index) to compile for and to time on
 */
#ifndef EW_BACKEND_CUDA_CUDA_H
#define EW_BACKEND_CUDA_CUDA_H

#include "backend/backend.h"
#include "backend/cuda/modules.h"
#include "backend/cuda/queue.h"
#include "backend/cuda/ranges.h"

struct ew_cuda { /* what a struct ew_device of this backend is */
    struct ew_device base;
    struct ew_cuda_chip chip;
    struct ew_cuda_device *device; /* NULL: dry */
    struct ew_nvrtc *compiler;     /* NULL: none is wanted, or none is there */
    struct ew_cuda_modules *modules;
    struct ew_cublaslt *library;       /* NULL: not wanted, or not there */
    struct ew_cuda_queue memory_queue; /* of copies that belong to no context */
    struct ew_mutex *memory_lock;
    bool keeps_steps;                                       /* emit_end leaves lists as they are */
    void (*see)(void *ctx, const struct ew_cuda_launch *l); /* dry: every launch emitted */
    void *see_ctx;
    ew_error *why_graph; /* the builder's, or NULL: why a step did not become one kernel */
    ew_cu_ptr weights;
    void *registered; /* weights that are the host's own pages */
    struct ew_cuda_ranges ranges;
};

/* Launches want more than an arena gives: allocate EW_CUDA_ALIGN bytes more and go up to this. */
#define EW_CUDA_ALIGN 64
static inline void *ew_cuda_aligned(void *p)
{
    return (void *)(((uintptr_t)p + EW_CUDA_ALIGN - 1) & ~(uintptr_t)(EW_CUDA_ALIGN - 1));
}
_Static_assert(_Alignof(struct ew_cuda_launch) <= EW_CUDA_ALIGN, "launches in arenas");

enum ew_cuda_step_kind { EW_CUDA_STEP_LAUNCH, EW_CUDA_STEP_COPY };
struct ew_cuda_step { /* arguments of a struct ew_step */
    enum ew_cuda_step_kind kind;
    const char *name; /* of the node, for messages */
    ew_cu_function function;
    struct ew_cuda_launch launch;
    ew_cu_ptr to, from; /* COPY */
    size_t bytes;
    const struct ew_cuda_embed *embed; /* a lookup, which a step in one kernel may do; or NULL */
    const struct ew_cuda_decode_node *decode; /* the node for one token in one kernel; or NULL */
    struct { /* of a norm whose result the next Linear alone reads: it may do the norm itself */
        const float *x, *w, *y; /* y NULL: no such norm */
        size_t rows, n;
        float eps;
    } norm;
};

/* A device that no plan has been loaded to. driver, nvrtc: paths or NULL. `compiles`: whether NVRTC
 * must be there. */
ew_status ew_cuda_bare(int index, bool compiles, struct ew_cuda **out, ew_error *err);
/* Only shows launches. */
ew_status ew_cuda_dry(const struct ew_cuda_chip *chip,
                      void (*see)(void *ctx, const struct ew_cuda_launch *l), void *ctx,
                      struct ew_cuda **out, ew_error *err);
/* Loads cuBLASLt: chip.cublaslt is its version then. UNSUPPORTED: there is none. */
ew_status ew_cuda_load_library(struct ew_cuda *c, ew_error *err);
/* The device of an engine: MISMATCH when the plan was built for another chip. Weights are copied
 * from p's mapped section in pieces. index < 0: the first GPU that fits. */
ew_status ew_cuda_open(const struct ew_plan *p, int index, const char *profiler,
                       const ew_logger *logger, struct ew_device **out, ew_error *err);
void ew_cuda_close(struct ew_cuda *c); /* NULL is fine */

/* ---- for emitters ---- */
typedef ew_status ew_cuda_emit_fn(struct ew_step_list *list, const struct ew_emit *e,
                                  ew_error *err);
ew_cuda_emit_fn ew_cuda_emit_linear, ew_cuda_emit_attention, ew_cuda_emit_moe,
    ew_cuda_emit_rms_norm, ew_cuda_emit_pointwise, ew_cuda_emit_general;

static inline struct ew_cuda *ew_cuda_of(const struct ew_emit *e)
{
    return (struct ew_cuda *)e->device;
}
/* Appends n launches as steps of e's node; those of zero blocks are left out. */
ew_status ew_cuda_emit_launches(struct ew_step_list *list, const struct ew_emit *e,
                                const struct ew_cuda_launch *l, size_t n, const char *tactic,
                                uint64_t bytes, uint64_t flops, ew_error *err);

/* Copies bytes as a step of e's node. */
ew_status ew_cuda_emit_copy(struct ew_step_list *list, const struct ew_emit *e, void *to,
                            const void *from, size_t bytes, ew_error *err);

/* Working memory of one node, piece by piece. */
struct ew_cuda_work {
    const struct ew_emit *e;
    struct ew_step_list *list;
    size_t at;
};
/* 256-byte aligned; raises the list's need. Where the need is more than there is, an address that
 * must not be used (the list is made again). */
void *ew_cuda_work_take(struct ew_cuda_work *w, size_t bytes);
/* Zeroed words, shared by all nodes. */
void *ew_cuda_counters(struct ew_step_list *list, const struct ew_emit *e, size_t bytes);
/* Input k in f32: its own data, or a copy that a launch appended here makes. *out NULL: absent. */
ew_status ew_cuda_f32_in(struct ew_cuda_work *w, uint32_t k, const float **out, ew_error *err);
/* Output k in f32: before and after emitting what writes it. */
ew_status ew_cuda_f32_out(struct ew_cuda_work *w, uint32_t k, float **out, ew_error *err);
ew_status ew_cuda_f32_out_end(struct ew_cuda_work *w, uint32_t k, const float *from, ew_error *err);

struct ew_cuda_decode_node;
/* Tells emit_end what the list's last step is in a chain of nodes for one token of each of
 * up to EW_CUDA_DECODE_ROWS sequences. */
ew_status ew_cuda_note_decode(struct ew_step_list *list, const struct ew_cuda_decode_node *node,
                              ew_error *err);
/* emit_decode.c */
ew_status ew_cuda_emit_end(struct ew_step_list *list, const struct ew_emit *e, size_t first,
                           ew_error *err);
/* Tells emit_lead_on that the list's last step is this lookup. */
ew_status ew_cuda_note_embed(struct ew_step_list *list, const struct ew_cuda_embed *embed,
                             ew_error *err);
bool ew_cuda_emit_lead_on(struct ew_step_list *list, const void *x, const void *lengths,
                          int32_t *tokens, void *ids);

/* The tactic of a packed weight's problem, or NULL. */
const struct ew_plan_tactic *ew_cuda_tactic_of(const struct ew_plan *p,
                                               const struct ew_plan_tensor *t);
/* Whether some kernels of this layout run the problem for any number of rows on the chip. */
bool ew_cuda_linear_covers(const struct ew_cuda_chip *chip, const struct ew_linear_kernel *layout,
                           const struct ew_plan_tactic *t);
/* The Linear that alone reads tensor t, as its x; NULL: others do, or the caller gets it. */
const struct ew_plan_node *ew_cuda_only_linear(const struct ew_plan *p, uint32_t t);
/* Whether t, m rows, lies in memory as bf16: its maker and its one reader both ask. */
bool ew_cuda_is_short(const struct ew_emit *e, uint32_t t, uint64_t m);
/* What packed q, k and v lie in memory as where t, of this type, is that: F16, BF16, or NONE for
 * f32. Maker and reader both ask. */
ew_dtype ew_cuda_short_heads(const struct ew_emit *e, uint32_t t, const struct ew_type *type);
/* Experts are picked by the sums of the Linear that makes t. */
bool ew_cuda_is_router(const struct ew_plan *p, uint32_t t);
struct ew_cuda_linear_kernel;
/* The kernel that multiplies m rows by this weight: the tactic's switch that covers m, else the one
 * with the smallest row limit that runs. exact: the one that rounds x least, whatever it costs.
 * NULL: none runs it on this chip. */
const struct ew_cuda_linear_kernel *ew_cuda_linear_choose(const struct ew_plan *p,
                                                          const struct ew_cuda_chip *chip,
                                                          ew_dtype dtype, const struct ew_packed *w,
                                                          uint64_t m, bool exact);

#endif
