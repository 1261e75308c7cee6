/* kernels/cuda/step.h - a whole decode step of a decoder as ONE persistent cooperative kernel.
 *
 * Where launches dominate (small models on fast chips) the step runs as step.cu: weights stream
 * through shared memory in the order of the phases, ahead of the activations they wait for, and
 * vectors pass between blocks as packets (a number and its sequence), so that a phase costs one
 * trip through L2 instead of a kernel boundary. The builder times it against the graph of single
 * kernels.
 *
 *   nodes of a graph, in order --ew_cuda_decode_plan--> table of phases + one launch
 *   once:  upload the table, zero the workspace        every step: the launch
 *
 * What it takes: one token of one sequence, or of 2 to 8 (step_rows.cu: rows of x and of the logits
 * without gaps, rows of the cache in the order of the sequences); a chain in which each node reads
 * what the one before it made: norms, linears (bf16 or f16 rows, 4- and 8-bit panels of linear.h),
 * attention over a linear f16 or bf16 cache, ending in a linear whose output is f32 in memory (the
 * logits). Everything else is refused by name. No vector but the logits reaches memory: whoever
 * needs another one runs the nodes one by one.
 *
 * Numbers. What a linear reads was rounded once to 16 bits (f16 where the plain weights are, else
 * bf16; behind a norm once more), as in the kernels of many rows. Quantised ones of one sequence
 * multiply it as integers of 15 bits and sign, the largest of up to 512 being 32256; of several, as
 * bf16, rounded once behind a norm too, which is infinite from 2^28 on. The residual stream, what
 * attention reads, norms, RoPE, softmax and all sums are f32. Sums have a fixed order: the same
 * inputs on the same chip give the same bits. */
#ifndef EW_KERNELS_CUDA_STEP_H
#define EW_KERNELS_CUDA_STEP_H

#include "base/error.h"
#include "kernels/attention.h"
#include "kernels/cuda/kernel.h"
#include "kernels/cuda/linear.h"
#include "kernels/cuda/rows_cuda.h"
#include "kernels/cuda/step.cuh"

#define EW_CUDA_DECODE_ROWS 8 /* sequences, at most */

enum ew_cuda_decode_kind {
    EW_CUDA_DECODE_LINEAR,    /* problem, layout */
    EW_CUDA_DECODE_NORM,      /* problem.norm_weight, norm_eps, x, y, k */
    EW_CUDA_DECODE_ATTENTION, /* attention */
    EW_CUDA_DECODE_SAME       /* y is x (the last-token gather of one token) */
};
/* A node with its device addresses. Which node reads which is told by the addresses alone. */
struct ew_cuda_decode_node {
    enum ew_cuda_decode_kind kind;
    const char *name; /* for messages */
    const struct ew_linear_kernel *layout;
    struct ew_cuda_linear_problem problem;
    struct ew_attn_args attention;
};

/* Where things are in device memory. All 0 when only sizes and the spec are wanted. */
struct ew_cuda_decode_place {
    uint64_t table;     /* table_bytes, 16-byte aligned */
    uint64_t workspace; /* workspace_bytes, 256-byte aligned; zeroed once, then left alone. Of one
                           context: steps that may run at once share none */
    uint64_t token;     /* i32 [rows]: arg max of the logits, the lowest of equals; or 0 */
    uint64_t fault;     /* u32, the host's: what a wait in vain leaves (step.cuh); or 0 */
};

struct ew_cuda_decode_plan {
    struct ew_step_phase *table; /* the caller's, room for one of each node */
    size_t n_rows, n_phases, table_bytes, workspace_bytes;
    struct ew_cuda_launch launch;
};

/* Fills *out; out->table is set by the caller. UNSUPPORTED says which node and why. Pure. */
ew_status ew_cuda_decode_plan(const struct ew_cuda_decode_node *nodes, size_t n,
                              const struct ew_cuda_chip *chip,
                              const struct ew_cuda_decode_place *place,
                              struct ew_cuda_decode_plan *out, ew_error *err);

/* Where the launch is a step over these logits and lengths, of n sequences: it leaves their
 * likeliest tokens (ew_argmax; runs of a workspace count from 0) in tokens[run % 2 * n], and the
 * inputs of a run that follows: the tokens in next_id[n], the lengths one more. All are device
 * addresses; `tokens`, i32 [2 * n], may be the host's. False: it is no such step, and nothing was
 * changed. */
bool ew_cuda_decode_leads_on(struct ew_cuda_launch *l, uint64_t logits, uint64_t lengths,
                             uint64_t tokens, uint64_t next_id);

/* Where such a launch's input is what this lookup makes of *next_id, and the table is plain: it
 * looks the row up itself, and the lookup need not run. False: nothing was changed. */
bool ew_cuda_decode_looks_up(struct ew_cuda_launch *l, const struct ew_cuda_embed *e);

#endif
