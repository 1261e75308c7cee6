/* plan/plan.h - what an engine file says, as plain tables: tensors, nodes, profiles, tactics,
 * memory.
 *
 *   builder: ew_graph --flatten--> ew_plan --tactics, memory--> ew_plan_write (plan/writer.h)
 *   engine:  bytes --ew_plan_read (plan/reader.h)--> ew_plan --> contexts
 *
 * Owns: the tables and what follows from them alone (storage classes, concrete shapes).
 * Does not own: the bytes of weights (mapped file, or the checkpoint while building). */
#ifndef EW_PLAN_H
#define EW_PLAN_H

#include "base/arena.h"
#include "kernels/attention.h"
#include "kernels/linear.h"
#include "kernels/rowops.h"
#include "op/op.h"

#define EW_PLAN_NONE  UINT32_MAX
#define EW_PLAN_ALIGN 64 /* of every constant and every activation */
#define EW_PLAN_KNOWN_MAX                                                                          \
    65536u /* bytes: larger results are computed by steps, not while resolving */

enum ew_plan_kind { EW_PLAN_ACT = 0, EW_PLAN_INPUT = 1, EW_PLAN_CONST = 2 };

/* A weight in a kernel's own layout. kernel NULL: the tensor is plain row-major. */
struct ew_packed {
    const struct ew_linear_kernel *kernel;
    struct ew_quant_format format; /* code NONE: plain */
    int x_quant;                   /* enum ew_x_quant of the nodes that use it */
    uint64_t n, k;
    uint64_t n_experts; /* 1, or E blocks of expert_bytes (Moe) */
    uint64_t expert_bytes;
    bool glu;
};

struct ew_plan_tensor {
    const char *name;
    enum ew_plan_kind kind;
    ew_dtype dtype;
    int n_dims;
    int64_t dim[EW_MAX_DIMS]; /* -1: known at run time */
    uint32_t producer;        /* node, or EW_PLAN_NONE */
    uint32_t out_idx;         /* which output of the producer */
    uint64_t off, bytes;      /* CONST: place in the weights section */
    struct ew_packed packed;
    const void *data; /* CONST: contents; NULL while building a packed or scattered one */
};

struct ew_plan_node {
    ew_op op;
    const char *name;
    union ew_attrs attrs;
    uint32_t n_in, n_out;
    uint32_t *in, *out; /* tensors; EW_PLAN_NONE: absent */
};

struct ew_plan_output {
    const char *name;
    uint32_t tensor;
    uint32_t alias; /* input tensor whose memory it shares, or EW_PLAN_NONE */
};

struct ew_plan_range { /* of one input under one profile */
    int64_t min[EW_MAX_DIMS], opt[EW_MAX_DIMS], max[EW_MAX_DIMS];
};

struct ew_plan_profile {
    const char *name;
    struct ew_plan_range *inputs; /* [n_inputs] */
    /* memory plan at max shapes: [n_tensors]; bytes 0: not in the block */
    uint64_t block_bytes;
    uint64_t *off, *bytes;
};

struct ew_plan_candidate {
    const char *kernel;
    uint64_t *ns; /* [n_profiles], 0: not timed */
};

/* On a device several kernels share a layout: this one multiplies up to max_m rows. */
struct ew_plan_switch {
    const char *kernel;
    uint64_t max_m; /* UINT64_MAX: any more */
    uint64_t ns;    /* of one run at the fewest rows it is for; 0: not timed */
};

#define EW_PLAN_STEP_ROWS 8
/* How a decode step runs, of so many sequences with one token each. */
struct ew_plan_step {
    bool one_kernel;                  /* as one persistent kernel, where it can */
    uint64_t graph_ns, one_kernel_ns; /* what decided that; 0: not timed */
};

/* What an engine was built for, where that is not the CPU. */
struct ew_plan_device {
    const char *name; /* "NVIDIA H200"; NULL: the CPU */
    uint32_t sm, n_sm, shared_per_block;
    uint64_t l2_bytes;
    uint64_t scratch_bytes, counter_bytes; /* working memory of a context at the profiles' shapes */
    uint32_t cublaslt; /* version of the library that switches name; 0: none does */
    bool split_norms;  /* norms before kernels for few rows are launches of their own */
    struct ew_plan_step step[EW_PLAN_STEP_ROWS]; /* [i]: of i + 1 sequences */
};

struct ew_plan_image { /* a compiled kernel of a device */
    const char *source, *defines;
    const void *code;
    uint64_t bytes;
};

/* One distinct Linear problem and how it is run. */
struct ew_plan_tactic {
    ew_dtype dtype;
    struct ew_quant_format format; /* code NONE: plain */
    int x_quant;
    uint64_t n, k;
    bool glu;
    uint32_t n_uses;
    uint64_t *m; /* rows at the opt shape of each profile */
    struct ew_plan_candidate *candidates;
    uint32_t n_candidates, chosen;
    struct ew_plan_switch *switches; /* ascending max_m; a device's alone */
    uint32_t n_switches;
};

struct ew_plan {
    struct ew_arena arena;
    const char *name;
    const char *llm_config; /* or NULL */
    const char *meta;       /* JSON text of the META section */
    const char *cpu_level;
    uint32_t cpu_need; /* enum ew_cpu_flags that the chosen kernels use */

    struct ew_plan_tensor *tensors;
    uint32_t n_tensors;
    struct ew_plan_node *nodes;
    uint32_t n_nodes;
    uint32_t *inputs;
    uint32_t n_inputs;
    struct ew_plan_output *outputs;
    uint32_t n_outputs;
    struct ew_plan_profile *profiles;
    uint32_t n_profiles;
    struct ew_plan_tactic *tactics;
    uint32_t n_tactics;
    uint32_t embedding; /* tensor, or EW_PLAN_NONE */
    const struct ew_attn_kernel *attention;
    const struct ew_rowops *rowops;

    struct ew_plan_device device;
    struct ew_plan_image *images;
    uint32_t n_images;
    const uint8_t *weights; /* the WEIGHTS section of a plan that was read */

    uint32_t *root; /* [n_tensors]: tensor whose memory this one uses (itself mostly) */
    uint32_t
        *direct_out; /* [n_tensors]: output written in place by the producer, or EW_PLAN_NONE */
    uint64_t weights_bytes;
};

/* Result of shape inference over the whole plan for one set of input shapes. */
struct ew_shapes {
    struct ew_type *type; /* [n_tensors] */
    const void **known;   /* [n_tensors]: contents known without running, or NULL */
    bool needs_data;      /* stopped at `stopped_at`: its shapes depend on contents */
    uint32_t stopped_at;
};

void ew_plan_init(struct ew_plan *p);
void ew_plan_deinit(struct ew_plan *p);

/* Fills root and direct_out from nodes and outputs. Also the structural check of both makers of
 * plans: ids in range, topological order, one producer a tensor, arities, caches that are inputs.
 * MALFORMED otherwise. */
ew_status ew_plan_link(struct ew_plan *p, ew_error *err);
/* True for ops whose output is the same bytes as input 0 with other dims. */
bool ew_plan_is_view_op(ew_op op);
/* Checks min <= opt <= max and the fixed dims of every input of every profile. */
ew_status ew_plan_check_profiles(const struct ew_plan *p, ew_error *err);
/* Checks that packed weights fit their Linear/Moe nodes. */
ew_status ew_plan_check_packed(const struct ew_plan *p, ew_error *err);

/* Types of the outputs of node n from the types and contents of its inputs. f->err is set by the
 * caller's choice. */
ew_status ew_plan_infer(const struct ew_plan_node *n, const struct ew_type *type,
                        const void *const *data, struct ew_infer *f, ew_error *err);
/* Infers every tensor; contents of shape arithmetic are computed into `a`. inputs: [n_inputs]
 * concrete types. */
ew_status ew_plan_shapes(const struct ew_plan *p, const struct ew_type *inputs, struct ew_arena *a,
                         struct ew_shapes *out, ew_error *err);
enum ew_plan_which { EW_PLAN_MIN, EW_PLAN_OPT, EW_PLAN_MAX };
/* The same at a profile's shapes. */
ew_status ew_plan_profile_shapes(const struct ew_plan *p, uint32_t profile,
                                 enum ew_plan_which which, struct ew_arena *a,
                                 struct ew_shapes *out, ew_error *err);
/* Node has nothing to do at run time: its outputs are known, or views of its input's memory. */
bool ew_plan_node_is_free(const struct ew_plan *p, uint32_t node, const struct ew_shapes *s);

#endif
