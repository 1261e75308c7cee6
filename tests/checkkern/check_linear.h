/* check_linear.h - what the checks of plain and of quantised linear kernels share: a problem, and
 * the judge of a kernel on it. */
#ifndef CHECK_LINEAR_H
#define CHECK_LINEAR_H

#include "checkkern.h"
#include "kernels/linear.h"

struct ck_shape {
    size_t m, n, k, x_pad, y_pad, n_parts;
    bool glu, transposed, has_bias, has_residual, in_place;
    int act;
    float scale, softcap;
    enum ck_fill fill;
};

struct ck_problem {
    struct ck_shape s;
    const struct ew_quant_format *format; /* NULL: plain weights */
    size_t n_out;
    float *w, *x, *bias, *residual; /* w [n][k] as the kernel should see it, x [m][k + x_pad] */
    const float *x_seen;            /* x as the kernel should see it: x, or x rounded */
    struct ck_mem x_mem, bias_mem, residual_mem;
    float x_error;      /* of the kernel under test */
    unsigned char *raw; /* unpacked plain weights */
    struct ew_weight_part parts[3];
};

/* Shape number i of a series: every eighth has many rows, every third is glu. */
struct ck_shape ck_random_shape(struct ck *c, size_t i);
/* Memory for everything but raw and parts; fills x, bias and residual. p->s is set. */
void ck_problem_vectors(struct ck *c, struct ck_problem *p);
/* x as a kernel of this kind (enum ew_x_quant, ROW or without scale) rounds it; to be freed. */
float *ck_round_x(const struct ck_problem *p, int x_quant);
void ck_problem_drop(struct ck_problem *p);
/* Packs, runs in several ways, compares with double and with itself. */
void ck_problem_check(struct ck *c, const struct ew_linear_kernel *kern,
                      const struct ck_problem *p);

#endif
