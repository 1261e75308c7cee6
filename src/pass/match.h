/* pass/match.h - what the passes ask of a graph, and how they replace. */
#ifndef EW_PASS_MATCH_H
#define EW_PASS_MATCH_H

#include "graph/ir.h"

/* The node that makes v, if it is of this op; NULL otherwise. */
struct ew_node *ew_match_node(const struct ew_value *v, ew_op op);
/* The same, and v is used once and is no graph output: it can be swallowed. */
struct ew_node *ew_match_inner(const struct ew_value *v, ew_op op);
/* A constant of one element: its value. */
bool ew_match_scalar(const struct ew_value *v, double *out);
/* Whether v is a constant of one element near x (relative 1e-6). */
bool ew_match_is(const struct ew_value *v, double x);
/* Commutative binary node: the operand that is not `v`; NULL if v is neither, or both. */
struct ew_value *ew_match_other(const struct ew_node *n, const struct ew_value *v);
/* Commutative binary node with a scalar constant: the other operand and the scalar; NULL if there
 * is none. */
struct ew_value *ew_match_with_scalar(const struct ew_node *n, double *scalar);
/* Whole constant vector of n floats (leading dims 1 allowed, contiguous). */
bool ew_match_vector(const struct ew_value *v, int64_t n);
/* dtype and dims equal, symbol by symbol. */
bool ew_match_same_type(const struct ew_value *a, const struct ew_value *b);
/* The activation that the node is (enum ew_act), EW_ACT_NONE if it is none that fused ops know. */
int ew_match_act(const struct ew_node *n);
/* Whether n takes [*from, *to) of the last axis of its input in steps of 1 (Slice), all numbers. */
bool ew_match_slice_last(const struct ew_node *n, int64_t *from, int64_t *to);
/* v as a piece [*from, *to) of the last axis of *source: one output of a Split, or a Slice. */
bool ew_match_piece_last(const struct ew_value *v, struct ew_value **source, int64_t *from,
                         int64_t *to);

/* Whether n's first output may give way to v. */
bool ew_rewrite_can(const struct ew_node *n, const struct ew_value *v);
/* n's first output becomes v everywhere; n, and what only fed it, are removed. */
void ew_rewrite_replace(struct ew_graph *g, struct ew_node *n, struct ew_value *v);
/* Inserts a node of one output before `at`, with its name, then replaces `at` by it. */
ew_status ew_rewrite_node(struct ew_graph *g, struct ew_node *at, ew_op op,
                          const union ew_attrs *attrs, struct ew_value *const *in, int n_in,
                          struct ew_node **out, ew_error *err);
/* A constant vector viewed as [n] (shares the data). */
struct ew_value *ew_rewrite_vector(struct ew_graph *g, struct ew_value *v, int64_t n);
/* Appends the rows of a 2-D constant as parts; false: out of memory or not possible. */
struct ew_weight_list {
    struct ew_weight_part *parts;
    size_t n;
};
/* Whether the weights of two Linears may become one: same x, columns, dtype and format, and x
 * rounded alike. */
bool ew_match_joinable(const struct ew_node *a, const struct ew_node *b);
bool ew_rewrite_rows(struct ew_graph *g, const struct ew_value *w, struct ew_weight_list *list);
/* One f32 bias [rows] from the biases (NULL: zeros) of n_w weights; *out NULL when there is none at
 * all. */
ew_status ew_rewrite_biases(struct ew_graph *g, struct ew_node *const *linears, int n,
                            struct ew_value **out, ew_error *err);

#endif
