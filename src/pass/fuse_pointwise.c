/* pass/fuse_pointwise.c - elementwise f32 ops that are left become Pointwise programs.
 *
 * A group is a root and the producers that only the group reads, all of one shape; other operands
 * are of that shape too or constants of one element. In a language model a single op is worth a
 * program as well. */
#include <string.h>

#include "pass/match.h"
#include "pass/pass.h"

#define MAX_NODES  EW_PW_MAX_INSTR
#define MAX_INPUTS 8
#define LOOK_BACK  256 /* nodes before the root that are considered */
#define NO_REG     0xff

struct group {
    struct ew_node *node[MAX_NODES]; /* reverse order: root first */
    int n_nodes;
    struct ew_value *in[MAX_INPUTS];
    int n_in;
};

static int unary_op(const struct ew_node *n)
{
    switch (n->op) {
    case EW_OP_NEG:
        return EW_PW_NEG;
    case EW_OP_ABS:
        return EW_PW_ABS;
    case EW_OP_EXP:
        return EW_PW_EXP;
    case EW_OP_LOG:
        return EW_PW_LOG;
    case EW_OP_SQRT:
        return EW_PW_SQRT;
    case EW_OP_RECIPROCAL:
        return EW_PW_RECIP;
    case EW_OP_SIGMOID:
        return EW_PW_SIGMOID;
    case EW_OP_TANH:
        return EW_PW_TANH;
    case EW_OP_SWISH:
        return n->attrs.alpha.alpha == 1.0f ? EW_PW_SILU : -1;
    case EW_OP_GELU:
        return n->attrs.gelu.approximate == EW_GELU_TANH ? EW_PW_GELU_TANH : EW_PW_GELU_ERF;
    case EW_OP_ERF:
        return EW_PW_ERF;
    case EW_OP_RELU:
        return EW_PW_RELU;
    case EW_OP_SOFTPLUS:
        return EW_PW_SOFTPLUS;
    case EW_OP_SIN:
        return EW_PW_SIN;
    case EW_OP_COS:
        return EW_PW_COS;
    case EW_OP_FLOOR:
        return EW_PW_FLOOR;
    case EW_OP_CEIL:
        return EW_PW_CEIL;
    default:
        return -1;
    }
}

static int binary_op(const struct ew_node *n)
{
    switch (n->op) {
    case EW_OP_ADD:
        return EW_PW_ADD;
    case EW_OP_SUB:
        return EW_PW_SUB;
    case EW_OP_MUL:
        return EW_PW_MUL;
    case EW_OP_DIV:
        return EW_PW_DIV;
    case EW_OP_POW: /* other exponents are the general kernel's */
        return ew_match_is(n->in[1], 2.0) ? EW_PW_MUL : -1;
    default:
        return -1;
    }
}

static bool is_scalar(const struct ew_value *v)
{
    double x;

    return v->type.dtype == EW_DTYPE_F32 && ew_match_scalar(v, &x);
}

static bool is_member(const struct ew_node *n)
{
    const struct ew_value *y = n->out[0];

    if (n->n_out != 1 || !y || y->type.dtype != EW_DTYPE_F32 || n->n_in < 1 || n->n_in > 2 ||
        (n->n_in == 1 ? unary_op(n) : binary_op(n)) < 0)
        return false;
    for (int i = 0; i < n->n_in; i++) {
        if (ew_match_same_type(n->in[i], y))
            continue;
        if (i == 1 && n->op == EW_OP_POW)
            continue;
        if (!is_scalar(n->in[i]) || n->in[i]->type.n_dims > y->type.n_dims)
            return false;
    }
    return true;
}

/* ---- groups ---- */

static uint32_t uses_in(const struct group *gr, const struct ew_value *v)
{
    uint32_t n = 0;

    for (int k = 0; k < gr->n_nodes; k++)
        for (int i = 0; i < gr->node[k]->n_in; i++)
            n += gr->node[k]->in[i] == v;
    return n;
}

static bool is_made_in(const struct group *gr, const struct ew_value *v)
{
    for (int k = 0; k < gr->n_nodes; k++)
        if (gr->node[k]->out[0] == v)
            return true;
    return false;
}

/* A scalar that becomes an immediate instead of an input. */
static bool is_immediate(const struct ew_node *n, int i)
{
    if (n->op == EW_OP_POW)
        return i == 1;
    return is_scalar(n->in[i]) && !is_scalar(n->in[n->n_in - 1 - i]) &&
           (n->op == EW_OP_ADD || n->op == EW_OP_MUL || (n->op == EW_OP_SUB && i == 1));
}

static bool add_input(struct group *gr, struct ew_value *v)
{
    for (int i = 0; i < gr->n_in; i++)
        if (gr->in[i] == v)
            return true;
    if (gr->n_in == MAX_INPUTS)
        return false;
    gr->in[gr->n_in++] = v;
    return true;
}

/* Inputs of the group as it is, in order of the nodes; false when there are too many. */
static bool collect_inputs(struct group *gr)
{
    gr->n_in = 0;
    for (int k = gr->n_nodes - 1; k >= 0; k--) {
        const struct ew_node *n = gr->node[k];
        for (int i = 0; i < n->n_in; i++)
            if (!is_immediate(n, i) && !is_made_in(gr, n->in[i]) && !add_input(gr, n->in[i]))
                return false;
    }
    return gr->n_in > 0;
}

static bool has_dense_input(const struct group *gr)
{
    for (int i = 0; i < gr->n_in; i++)
        if (ew_match_same_type(gr->in[i], gr->node[0]->out[0]))
            return true;
    return false;
}

static bool grow(struct group *gr, struct ew_node *root)
{
    struct ew_node *n = root->prev;

    gr->node[0] = root;
    gr->n_nodes = 1;
    if (!collect_inputs(gr))
        return false;
    for (int back = 0; n && back < LOOK_BACK && gr->n_nodes < MAX_NODES; n = n->prev, back++) {
        const struct ew_value *v = n->out[0];
        if (!is_member(n) || v->is_output || !ew_match_same_type(v, root->out[0]) ||
            uses_in(gr, v) != v->n_uses)
            continue;
        gr->node[gr->n_nodes++] = n;
        if (collect_inputs(gr))
            continue;
        gr->n_nodes--;
        (void)collect_inputs(gr);
    }
    return has_dense_input(gr);
}

/* ---- programs ---- */

struct regs {
    const struct ew_value *holds[EW_PW_MAX_REGS];
    int n;
};

static uint8_t reg_of(const struct regs *r, const struct ew_value *v)
{
    for (int i = 0; i < EW_PW_MAX_REGS; i++)
        if (r->holds[i] == v)
            return (uint8_t)i;
    return NO_REG;
}

/* Whether node k of the group or a later one reads v. */
static bool is_read_from(const struct group *gr, int k, const struct ew_value *v)
{
    for (; k >= 0; k--)
        for (int i = 0; i < gr->node[k]->n_in; i++)
            if (gr->node[k]->in[i] == v)
                return true;
    return false;
}

/* A free register for the result of node k: operands read for the last time here may give theirs.
 * Inputs keep theirs: the kernel streams them. */
static uint8_t take_reg(const struct group *gr, struct regs *r, int k)
{
    for (int i = gr->n_in; i < EW_PW_MAX_REGS; i++) {
        if (r->holds[i] && is_read_from(gr, k - 1, r->holds[i]))
            continue;
        r->holds[i] = gr->node[k]->out[0];
        return (uint8_t)i;
    }
    return NO_REG;
}

static float scalar_value(const struct ew_value *v)
{
    double x = 0;

    (void)ew_match_scalar(v, &x);
    return (float)x;
}

static bool emit(const struct group *gr, struct regs *r, int k, struct ew_pw_instr *c)
{
    const struct ew_node *n = gr->node[k];
    const int op = n->n_in == 1 ? unary_op(n) : binary_op(n);
    const int imm = n->n_in == 2 ? (is_immediate(n, 1) ? 1 : is_immediate(n, 0) ? 0 : -1) : -1;

    memset(c, 0, sizeof(*c));
    c->op = (uint8_t)op;
    c->a = reg_of(r, n->in[imm == 0 ? 1 : 0]);
    if (n->op == EW_OP_POW) {
        c->b = c->a;
    } else if (imm >= 0) {
        c->op = (uint8_t)(op == EW_PW_MUL ? EW_PW_MUL_IMM : EW_PW_ADD_IMM);
        c->imm = scalar_value(n->in[imm]);
        c->imm = op == EW_PW_SUB ? -c->imm : c->imm;
    } else if (n->n_in == 2) {
        c->b = reg_of(r, n->in[1]);
    }
    c->dst = take_reg(gr, r, k);
    return c->a != NO_REG && c->b != NO_REG && c->dst != NO_REG;
}

static bool write_program(const struct group *gr, struct ew_attr_pointwise *p)
{
    struct regs r = { .n = 0 };

    p->n_instr = 0;
    for (int i = 0; i < gr->n_in; i++)
        r.holds[i] = gr->in[i];
    for (int k = gr->n_nodes - 1; k >= 0; k--)
        if (!emit(gr, &r, k, &p->instr[p->n_instr++]))
            return false;
    return true;
}

ew_status ew_pass_fuse_pointwise(struct ew_graph *g, size_t *n_changes, ew_error *err)
{
    const int min_nodes = g->llm_config ? 1 : 2;

    for (struct ew_node *n = g->tail, *prev; n; n = prev) {
        struct group gr;
        union ew_attrs attrs;
        struct ew_node *fused;
        prev = n->prev;
        if (!is_member(n) || !grow(&gr, n) || gr.n_nodes < min_nodes)
            continue;
        ew_op_attrs_init(EW_OP_POINTWISE, &attrs);
        if (!write_program(&gr, &attrs.pointwise))
            continue;
        EW_TRY(ew_rewrite_node(g, n, EW_OP_POINTWISE, &attrs, gr.in, gr.n_in, &fused, err));
        prev = fused->prev; /* members before it are gone */
        ++*n_changes;
    }
    return EW_STATUS_OK;
}
