/* kernels/cuda/step.c - a chain of nodes as the table of phases that step.cu interprets. */
#include "kernels/cuda/step.h"

#include <assert.h>
#include <string.h>

#include "base/mem.h"
#include "base/size.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/linear_plan.h"
#include "op/attrs.h"
#include "tensor/tensor.h"

_Static_assert(sizeof(struct ew_step_phase) == 160, "step.cuh says so");
_Static_assert(sizeof(struct ew_step_args) <= EW_CUDA_ARGS_CAP, "arguments of a launch");

#define STEP_SOURCE    "step"
#define ROWS_SOURCE    "step_rows"
#define WORKSPACE_HEAD 256   /* bytes: epoch, fault where nobody asks for it */
#define SLOTS          14    /* places for vectors, taken in turn: see choose_blocks */
#define MAX_BACK       4     /* phases that a residual is kept */
#define MAX_K          16384 /* columns */
#define MAX_CHUNK      1024u /* columns of a stage: step_dev.cuh's STEP_COLS */
#define COPIERS        2     /* warps: more of them ask too much of L2, one issues too slowly */
#define MAX_TURNS      3u    /* of panels with code of their own, of MAX_CHUNK columns each */
#define ROUND          4u    /* turns of a round in step_rows.cu */
#define PAD            64u   /* bytes between planes of an input: other banks */
#define SMALL          131072 /* bytes of shared memory that sums of 64 outputs leave too little of */

/* What a phase is to the graph. */
struct link {
    const struct ew_cuda_decode_node *node;
    uint64_t in, out; /* addresses there of what packets carry here */
    size_t n_out;
    size_t kept;  /* RESIDUAL: the phase whose input it adds */
    bool is_kept; /* what it reads is a residual of a later one */
};

struct planner {
    const struct ew_cuda_chip *chip;
    struct ew_step_phase *table;
    struct link *links;
    size_t n;                               /* phases */
    uint32_t rows;                          /* sequences, one token each */
    const struct ew_cuda_decode_node *norm; /* not yet taken by a linear */
    uint64_t current;                       /* what the last phase made, or the first reads */
    uint64_t x;                             /* of the first phase */
    const struct ew_attn_args *attention;   /* the first */
    uint32_t kinds, plains, act;
    uint32_t turns; /* of quantised phases, as EW_STEP_TURNS */
    uint32_t unit;  /* columns that share a scale, 128 at most; the least of all phases */
    int w_f16, scale_f16, kv_f16; /* -1: none yet */
    bool has_bias, has_softcap;
    size_t x_bytes;
    uint32_t blocks, splits;
    uint32_t copiers, flight; /* warps that copy; step_dev.cuh's FLIGHT */
    uint32_t red_rows;        /* of several sequences: outputs reduced at once */
    uint32_t most;            /* parts of a stage: choose_chunk */
    struct ew_step_args args;
    ew_error *err;
};

static ew_status refuse(const struct planner *p, const struct ew_cuda_decode_node *n,
                        const char *why)
{
    return ew_fail(p->err, EW_STATUS_UNSUPPORTED, "one kernel a step: node '%s': %s",
                   n->name ? n->name : "?", why);
}

/* The kernel is compiled for one such type. */
static bool one_type(int *have, bool f16)
{
    if (*have < 0)
        *have = f16;
    return *have == (int)f16;
}

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

/* ---- nodes to phases ---- */

static struct ew_step_phase *next_phase(struct planner *p, const struct ew_cuda_decode_node *node,
                                        uint64_t in, uint64_t out, size_t n_out)
{
    struct ew_step_phase *ph = &p->table[p->n];

    memset(ph, 0, sizeof(*ph));
    p->links[p->n] = (struct link){ node, in, out, n_out, 0, false };
    p->n++;
    p->current = out;
    return ph;
}

/* The last phase adds the input of phase i. */
static ew_status keep_input(struct planner *p, const struct ew_cuda_decode_node *node, size_t i)
{
    struct ew_step_phase *last = &p->table[p->n - 1];

    if (p->n - 1 - i > MAX_BACK)
        return refuse(p, node, "its residual is from too many linears before it");
    if (p->table[i].k != p->links[p->n - 1].n_out)
        return refuse(p, node, "its residual is of another size");
    if (i && p->table[i - 1].kind == EW_STEP_ATTENTION)
        return refuse(p, node, "its residual is what attention made"); /* pairs alone */
    if (p->rows > 1 && last->flags & EW_STEP_GLU)
        return refuse(p, node, "a residual behind a gate for more than one row");
    p->links[i].is_kept = true;
    p->links[p->n - 1].kept = i;
    last->flags |= EW_STEP_RESIDUAL;
    last->kept_back = (uint32_t)(p->n - 1 - i);
    return EW_STATUS_OK;
}

/* Where the vector at `address` was last read, unless it was overwritten since. */
static ew_status keep(struct planner *p, const struct ew_cuda_decode_node *node, uint64_t address)
{
    for (size_t i = p->n; i-- > 0;) {
        if (p->links[i].in == address && p->table[i].kind != EW_STEP_ATTENTION)
            return keep_input(p, node, i);
        if (i && p->links[i - 1].out == address)
            break;
    }
    return refuse(p, node, "its residual is no input of a linear before it");
}

static ew_status quant_kind(struct planner *p, const struct ew_cuda_decode_node *node,
                            struct ew_step_phase *ph)
{
    const struct ew_cuda_linear_problem *l = &node->problem;
    const struct ew_cuda_panel panel = ew_cuda_panel_of(&l->format, l->k);
    const bool wide = l->format.code == EW_DTYPE_I8;
    const uint32_t group = panel.units ? l->format.group : 0;

    if (l->format.code != EW_DTYPE_I4 && !wide)
        return refuse(p, node, "codes other than i4 and i8");
    if (l->format.zero)
        return refuse(p, node, "zero points");
    if (group && (group < 32 || group > 1024 || (group & (group - 1))))
        return refuse(p, node, "groups other than 32, 64, 128 ... 1024 columns");
    if (group && (wide ? group < 64 : false))
        return refuse(p, node, "groups of less than 64 columns of 8-bit codes");
    if (group && l->format.scale != EW_DTYPE_F16 && l->format.scale != EW_DTYPE_BF16)
        return refuse(p, node, "scales other than f16 and bf16");
    if (group && !one_type(&p->scale_f16, l->format.scale == EW_DTYPE_F16))
        return refuse(p, node, "scales of f16 and of bf16 in one step");
    if (group && l->k % group)
        return refuse(p, node, "a last group that is short");
    if (l->k % 64 || panel.bytes > UINT32_MAX)
        return refuse(p, node, "columns that are no multiple of 64");
    ph->kind = wide ? EW_STEP_Q8 : EW_STEP_Q4;
    ph->stride = (uint32_t)panel.bytes;
    ph->scales_at = (uint32_t)panel.scales_at;
    for (uint32_t g = group; g > 1; g >>= 1)
        ph->group_log2++;
    if (group && group < p->unit)
        p->unit = group;
    /* step_linear_quant.cuh: two digits; of 128 columns a scale and up to four sums */
    if (p->rows == 1)
        p->x_bytes = larger(p->x_bytes,
                            2 * (ew_align_up(l->k, 128) + PAD) + ew_align_up(l->k, 128) / 128 * 20);
    return EW_STATUS_OK;
}

static ew_status linear_kind(struct planner *p, const struct ew_cuda_decode_node *node,
                             struct ew_step_phase *ph)
{
    const struct ew_cuda_linear_problem *l = &node->problem;

    if (l->k > MAX_K || l->n > UINT32_MAX / 2)
        return refuse(p, node, "more than 16384 columns");
    if (l->m != p->rows)
        return refuse(p, node, "another number of rows than the first");
    if (ew_quant_is(&l->format))
        return quant_kind(p, node, ph);
    if (!node->layout ||
        (node->layout->weight_dtype != EW_DTYPE_BF16 && node->layout->weight_dtype != EW_DTYPE_F16))
        return refuse(p, node, "plain weights other than bf16 and f16");
    if (!one_type(&p->w_f16, node->layout->weight_dtype == EW_DTYPE_F16))
        return refuse(p, node, "weights of f16 and of bf16 in one step");
    if (l->k % 64)
        return refuse(p, node, "columns that are no multiple of 64");
    ph->kind = EW_STEP_PLAIN16;
    ph->stride = (uint32_t)l->k * 2;
    p->plains |= l->k == MAX_CHUNK  ? EW_STEP_WHOLE
                 : l->k < MAX_CHUNK ? EW_STEP_SHORT
                                    : EW_STEP_PARTS;
    if (p->rows == 1)
        p->x_bytes = larger(p->x_bytes, l->k * 2);
    return EW_STATUS_OK;
}

static ew_status add_linear(struct planner *p, const struct ew_cuda_decode_node *node)
{
    const struct ew_cuda_linear_problem *l = &node->problem;
    const struct ew_cuda_linear_problem *norm = p->norm ? &p->norm->problem : NULL;
    const bool is_normed = norm && norm->y == l->x;
    const uint64_t in = is_normed ? norm->x : l->x;
    struct ew_step_phase *ph;

    if (in != p->current)
        return refuse(p, node, "it reads something else than the node before it made");
    if (is_normed && (norm->k != l->k || l->norm_weight))
        return refuse(p, node, "a norm over other rows, or two norms");
    ph = next_phase(p, node, in, l->y, l->glu ? l->n / 2 : l->n);
    EW_TRY(linear_kind(p, node, ph));
    ph->w = l->w;
    ph->n = (uint32_t)l->n;
    ph->k = (uint32_t)l->k;
    ph->inv_k = 1.0f / (float)l->k;
    ph->bias = l->bias;
    ph->scale = l->scale;
    ph->softcap = l->softcap;
    ph->act = (uint32_t)l->act;
    ph->norm = is_normed ? norm->norm_weight : l->norm_weight;
    ph->eps = is_normed ? norm->norm_eps : l->norm_eps;
    ph->flags = (l->glu ? EW_STEP_GLU : 0) | (ph->norm ? EW_STEP_NORM : 0);
    p->kinds |= 1u << ph->kind;
    if (p->rows > 1 && ph->norm && ph->kind != EW_STEP_PLAIN16 && p->n > 1 &&
        (ph - 1)->kind == EW_STEP_ATTENTION)
        return refuse(p, node, "a norm of what attention made for more than one row");
    p->has_bias = p->has_bias || l->bias;
    p->has_softcap = p->has_softcap || l->softcap != 0;
    p->norm = NULL;
    if (ph->w % 16 || ph->bias % 4 || ph->norm % 16)
        return refuse(p, node, "weights that are not aligned");
    if (l->act != EW_ACT_NONE && p->act != EW_ACT_NONE && p->act != ph->act)
        return refuse(p, node, "two kinds of activation in one step");
    if (l->act != EW_ACT_NONE)
        p->act = ph->act;
    return l->residual ? keep(p, node, l->residual) : EW_STATUS_OK;
}

static ew_status attention_ok(struct planner *p, const struct ew_cuda_decode_node *node)
{
    const struct ew_attn_args *a = &node->attention;
    const struct ew_attn_args *first = p->attention ? p->attention : a;

    if (a->mode != EW_ATTN_DECODE || a->b != p->rows || a->s != 1)
        return refuse(p, node, "attention other than one token of each sequence");
    if (a->rope && a->rope_batch_stride > UINT32_MAX)
        return refuse(p, node, "RoPE tables of more than 2^32 numbers");
    if ((a->d != 64 && a->d != 128) || !a->hkv || a->hq % a->hkv || a->hq / a->hkv > 8)
        return refuse(p, node, "heads other than 64 or 128 wide, 8 queries a key at most");
    if (a->hq != first->hq || a->hkv != first->hkv || a->d != first->d ||
        a->context_lengths != first->context_lengths)
        return refuse(p, node, "attention of other sizes than the first");
    if (a->kv_dtype != EW_DTYPE_F16 && a->kv_dtype != EW_DTYPE_BF16)
        return refuse(p, node, "a cache other than f16 or bf16");
    if (!one_type(&p->kv_f16, a->kv_dtype == EW_DTYPE_F16))
        return refuse(p, node, "caches of f16 and of bf16 in one step");
    if (a->qk_norm_full && (a->q_norm || a->k_norm))
        return refuse(p, node, "a norm over all heads of the queries");
    if (a->k != a->q + a->hq * a->d || a->v != a->k + a->hkv * a->d)
        return refuse(p, node, "queries, keys and values that are not one vector");
    if (a->rope && (a->rd > a->d || a->rd % 2 || !a->rd || a->rope_rows < a->cap))
        return refuse(p, node, "RoPE wider than a head, or a table shorter than the cache");
    if (a->cap > INT32_MAX || !a->cap || a->window > INT32_MAX)
        return refuse(p, node, "a cache of more than 2^31 positions");
    return EW_STATUS_OK;
}

static ew_status add_attention(struct planner *p, const struct ew_cuda_decode_node *node)
{
    const struct ew_attn_args *a = &node->attention;
    struct ew_step_phase *ph;

    EW_TRY(attention_ok(p, node));
    if (ew_cuda_address(a->q) != p->current || !p->n)
        return refuse(p, node, "it reads something else than the node before it made");
    if (!p->attention)
        p->attention = a;
    ph = next_phase(p, node, p->current, ew_cuda_address(a->out), a->hq * a->d);
    ph->kind = EW_STEP_ATTENTION;
    ph->w = ew_cuda_address(a->kv);
    ph->norm = ew_cuda_address(a->q_norm);
    ph->bias = ew_cuda_address(a->k_norm);
    ph->rope = ew_cuda_address(a->rope);
    ph->eps = a->qk_norm_eps;
    ph->scale = a->scale;
    ph->softcap = a->softcap;
    ph->n = a->rope ? (uint32_t)a->rope_batch_stride : 0;
    ph->rd = a->rope ? (uint32_t)a->rd : 0;
    ph->cap = (uint32_t)a->cap;
    ph->window = a->window > 0 ? (uint32_t)a->window : 0;
    p->kinds |= 1u << EW_STEP_ATTENTION;
    p->has_softcap = p->has_softcap || a->softcap != 0;
    if (ph->w % 16)
        return refuse(p, node, "a cache that is not aligned");
    return EW_STATUS_OK;
}

static ew_status add_node(struct planner *p, const struct ew_cuda_decode_node *node)
{
    switch (node->kind) {
    case EW_CUDA_DECODE_LINEAR:
        return add_linear(p, node);
    case EW_CUDA_DECODE_ATTENTION:
        return add_attention(p, node);
    case EW_CUDA_DECODE_NORM:
        if (p->norm)
            return refuse(p, node, "a norm of a norm");
        if (node->problem.x != p->current || node->problem.residual || !node->problem.norm_weight)
            return refuse(p, node, "a norm of something else than the node before it made");
        p->norm = node;
        return EW_STATUS_OK;
    case EW_CUDA_DECODE_SAME:
        if (p->norm || node->problem.x != p->current || !p->n)
            return refuse(p, node, "a copy of something else than the node before it made");
        p->current = node->problem.y;
        p->links[p->n - 1].out = p->current;
        return EW_STATUS_OK;
    }
    return refuse(p, node, "an unknown kind");
}

/* ---- phases to blocks, stages, packets ---- */

static bool is_panels(const struct ew_step_phase *ph)
{
    return ph->kind == EW_STEP_Q4 || ph->kind == EW_STEP_Q8;
}

/* What blocks share: pairs of outputs of plain linears, panels of quantised ones. */
static uint32_t n_units(const struct ew_step_phase *ph)
{
    if (ph->kind == EW_STEP_PLAIN16)
        return ew_cuda_div_up(ph->flags & EW_STEP_GLU ? ph->n / 2 : ph->n, 2);
    return ph->flags & EW_STEP_GLU ? ew_cuda_div_up(ph->n / 2, 8) : ew_cuda_div_up(ph->n, 16);
}

/* Units of the linear that has most of them, of n phases from `first` on; at least 1. */
static uint32_t most_units(const struct planner *p, size_t first, size_t n)
{
    uint32_t most = 1;

    for (size_t i = first; i < first + n; i++)
        if (p->table[i].kind != EW_STEP_ATTENTION)
            most = (uint32_t)larger(most, n_units(&p->table[i]));
    return most;
}

/* A place is written again SLOTS phases later, and read for MAX_BACK phases after the first that
 * reads it. By then every block has read it: between the last reader and the writer lies a linear
 * in which each block has outputs, and whoever writes has, itself or through others, waited for all
 * of them. So any WINDOW phases in a row must have such a linear.
 *
 * Block 0 counts the steps when it is done, and another that has not yet read which step this is
 * would wait for what the next one sends. So there must be such a linear before the last phase too,
 * for whose outputs nobody waits; block 0 has some of those (share_out). */
#define WINDOW (SLOTS - 1 - MAX_BACK)
static ew_status choose_blocks(struct planner *p)
{
    uint32_t blocks = p->chip->n_sm, most = most_units(p, 0, p->n - 1);

    blocks = blocks < most ? blocks : most;
    for (size_t i = 0; i + WINDOW <= p->n; i++) {
        most = most_units(p, i, WINDOW);
        blocks = blocks < most ? blocks : most;
    }
    if (p->attention && blocks < p->attention->hkv)
        return ew_fail(p->err, EW_STATUS_UNSUPPORTED,
                       "one kernel a step: %u blocks for %zu heads of keys", blocks,
                       p->attention->hkv);
    p->blocks = blocks;
    p->splits = p->attention ? blocks / ((uint32_t)p->attention->hkv * p->rows) : 0;
    if (p->splits > EW_STEP_KV_SPLITS)
        p->splits = EW_STEP_KV_SPLITS;
    if (p->splits < 1)
        p->splits = 1; /* blocks have several units of attention then */
    return EW_STATUS_OK;
}

/* Where a panel has the scales of its rows. */
static uint32_t panel_rows_at(const struct planner *p, size_t i)
{
    const struct ew_cuda_linear_problem *l = &p->links[i].node->problem;

    return p->table[i].kind == EW_STEP_PLAIN16
               ? 0
               : (uint32_t)ew_cuda_panel_of(&l->format, l->k).row_scales_at;
}

/* Columns and bytes of a part, for stages of `most` parts. Plain: full parts and one rest, since
 * the kernel has a faster way for full ones. Panels: as many columns as fit, with their scales. */
static void choose_chunk(struct ew_step_phase *ph, uint32_t most, uint32_t panel_rows_at,
                         uint32_t gap)
{
    const uint32_t code = ph->kind == EW_STEP_Q4 ? 8 : 16;
    const size_t all = ew_align_up(ph->k, 128);

    if (ph->kind == EW_STEP_PLAIN16) {
        ph->chunk = ph->k < MAX_CHUNK ? ph->k : MAX_CHUNK;
        ph->part_bytes = 8 * (ph->chunk * 2 + gap);
        return;
    }
    ph->chunk = most * MAX_CHUNK * 16 / code;
    ph->part_bytes = (uint32_t)ew_align_up(
        (size_t)ph->chunk * code + (ph->group_log2 ? ph->chunk >> ph->group_log2 << 5 : 0) + 64,
        128);
    if (ph->k <= ph->chunk) { /* whole panels */
        ph->chunk = (uint32_t)all;
        ph->part_bytes = ph->stride;
        ph->row_scales_at = panel_rows_at;
    } else {
        const uint32_t rest = ph->k - (ph->k - 1) / ph->chunk * ph->chunk;

        ph->row_scales_at = ph->chunk * code + (ph->group_log2 ? rest >> ph->group_log2 << 5 : 0);
    }
}

/* A stage of `most` plain parts or blocks of the cache, or the largest part of a panel; a little
 * more where that makes room for one more panel. */
static size_t stage_of(struct planner *p, uint32_t most)
{
    size_t stage = p->attention ? most * EW_STEP_KV_BLOCK * p->attention->d * 2 : 0, all;

    for (size_t i = 0; i < p->n; i++) {
        struct ew_step_phase *ph = &p->table[i];

        if (ph->kind == EW_STEP_ATTENTION)
            continue;
        choose_chunk(ph, most, panel_rows_at(p, i), p->rows > 1 ? EW_STEP_ROWS_GAP : 0);
        stage = larger(stage, (ph->kind == EW_STEP_PLAIN16 ? most : 1) * (size_t)ph->part_bytes);
    }
    all = stage;
    for (size_t i = 0; i < p->n; i++) {
        const size_t part = p->table[i].part_bytes;

        if (is_panels(&p->table[i]))
            all = larger(all, (stage + part / 4) / part * part);
    }
    return ew_align_up(all, 128);
}

static void set_stages(struct planner *p, size_t stage, size_t n)
{
    p->args.stage_bytes = (uint32_t)stage;
    p->args.n_stages = (uint32_t)n;
    /* never 4: see step_attn.cuh */
    p->args.kv_batch = p->attention && 2 * EW_STEP_KV_BLOCK * p->attention->d * 2 <= stage ? 2 : 1;
    p->turns = 0;
    for (size_t i = 0; i < p->n; i++) {
        struct ew_step_phase *ph = &p->table[i];

        if (ph->kind != EW_STEP_ATTENTION)
            ph->batch = (uint32_t)(stage / ph->part_bytes);
        if (!is_panels(ph))
            continue;
        ph->turns = ew_cuda_div_up(ph->k, MAX_CHUNK);
        if (p->rows > 1 && ph->turns > MAX_TURNS && ph->turns % ROUND)
            p->turns |= 1u << (ROUND + (ph->kind == EW_STEP_Q8 ? 8 : 0)); /* a rest */
        if (ph->turns > MAX_TURNS || (p->rows == 1 && ph->chunk < ph->k))
            ph->turns = 0;
        p->turns |= 1u << (ph->turns + (ph->kind == EW_STEP_Q8 ? 8 : 0));
    }
}

static void share_out(struct planner *p)
{
    uint32_t first = 0;

    for (size_t i = 0; i < p->n; i++) {
        struct ew_step_phase *ph = &p->table[i];

        if (ph->kind == EW_STEP_ATTENTION)
            continue;
        ph->share = n_units(ph) / p->blocks;
        ph->extra = n_units(ph) % p->blocks;
        if (ph->kind == EW_STEP_PLAIN16)
            continue;
        /* whoever has one panel more in this phase has one less in the next; see choose_blocks for
         * a last one that has less panels than there are blocks */
        ph->first = i + 1 == p->n && !ph->share ? 0 : first;
        first = (first + ph->extra) % p->blocks;
    }
}

/* Places of the vectors, in packets: each has room for pairs, then for singles. */
static size_t place_packets(struct planner *p)
{
    const struct ew_attn_args *a = p->attention;
    size_t slot = p->table[0].k, singles, partial, at;

    for (size_t i = 0; i + 1 < p->n; i++)
        slot = larger(slot, p->links[i].n_out);
    singles = ew_align_up(ew_cuda_div_up(slot, 2), 16);
    p->args.copy = (uint32_t)singles;
    singles *= EW_STEP_COPIES;
    slot = singles + ew_align_up(slot, 16);
    partial = a ? ew_align_up(a->hkv * p->splits * (a->hq / a->hkv) * (a->d + 2), 16) : 0;
    p->args.x_singles = (uint32_t)((SLOTS - 1) * slot + singles);
    for (size_t i = 0; i < p->n; i++) {
        struct ew_step_phase *ph = &p->table[i], *next = ph + 1;
        const size_t place = i % SLOTS * slot, before = (i + SLOTS - 1) % SLOTS * slot;
        const bool has_next = i + 1 < p->n, feeds = has_next && next->kind == EW_STEP_ATTENTION;

        ph->out = (uint32_t)place;
        ph->singles = (uint32_t)(place + singles);
        ph->in = (uint32_t)(ph->kind == EW_STEP_ATTENTION ? before + singles : before);
        if (has_next && !feeds)
            ph->flags |= EW_STEP_PAIRS;
        if (feeds || (has_next && p->links[i + 1].is_kept))
            ph->flags |= EW_STEP_SINGLES;
        if (ph->flags & EW_STEP_RESIDUAL)
            ph->kept = (uint32_t)((p->links[i].kept + SLOTS - 1) % SLOTS * slot + singles);
        /* two, in turn: no block is a whole layer ahead of another */
        ph->partial = (uint32_t)(SLOTS * slot + i % 2 * partial);
    }
    at = SLOTS * slot + 2 * partial;
    p->args.best = (uint32_t)at;
    return at + 2 * (size_t)p->blocks;
}

/* The same for several sequences: words of step_rows.cuh, in units of 8 bytes, twice; of each
 * vector its own. */
static size_t place_words(struct planner *p)
{
    const struct ew_attn_args *a = p->attention;
    const size_t x_pairs = ew_cuda_div_up(p->table[0].k, 32) * 64, x = p->rows * p->table[0].k;
    const size_t x_squares = x_pairs + ew_align_up(x / 2, 16);
    size_t at = x_squares, partial, in = 0, in_singles = x_pairs;
    size_t singles[MAX_BACK + 1]; /* of the inputs of the last phases */

    p->args.x_singles = (uint32_t)x_pairs;
    if (is_panels(&p->table[0]) && p->table[0].flags & EW_STEP_NORM) {
        p->table[0].squares_in = (uint32_t)x_squares;
        p->table[0].n_squares = p->table[0].k / 2;
        at += ew_align_up(x / 4, 16);
    }
    for (size_t i = 0; i < p->n; i++) {
        struct ew_step_phase *ph = &p->table[i], *next = ph + 1;
        const bool has_next = i + 1 < p->n, feeds = has_next && next->kind == EW_STEP_ATTENTION;

        singles[i % (MAX_BACK + 1)] = in_singles;
        assert(!(ph->flags & EW_STEP_RESIDUAL && ph->flags & EW_STEP_GLU)); /* rows_kept */
        ph->in = (uint32_t)(ph->kind == EW_STEP_ATTENTION ? in_singles : in);
        if (ph->flags & EW_STEP_RESIDUAL)
            ph->kept = (uint32_t)singles[p->links[i].kept % (MAX_BACK + 1)];
        if (has_next && !feeds)
            ph->flags |= EW_STEP_PAIRS;
        if (has_next && is_panels(next))
            ph->flags |= EW_STEP_PANELS;
        if (feeds || (has_next && p->links[i + 1].is_kept))
            ph->flags |= EW_STEP_SINGLES;
        if (has_next && is_panels(next) && next->flags & EW_STEP_NORM) {
            const uint32_t each = is_panels(ph) ? 8 : 2;

            ph->rope = next->norm;
            ph->squares = next->squares_in = (uint32_t)at;
            next->n_squares = (uint32_t)p->links[i].n_out / each;
            at += ew_align_up(p->rows * next->n_squares / 2, 16);
        }
        ph->out = (uint32_t)(in = at);
        if (ph->flags & EW_STEP_PAIRS)
            at += ew_cuda_div_up((uint32_t)p->links[i].n_out, 32) * 64;
        ph->singles = (uint32_t)(in_singles = at);
        if (ph->flags & EW_STEP_SINGLES)
            at += ew_align_up(ew_cuda_div_up((uint32_t)(p->rows * p->links[i].n_out), 2), 16);
    }
    p->args.turn = (uint32_t)at;
    at *= 2;
    partial = a ? ew_align_up(a->hkv * p->rows * p->splits * (a->hq / a->hkv) * (a->d + 2), 16) : 0;
    for (size_t i = 0; i < p->n; i++)
        p->table[i].partial = (uint32_t)(at + i % 2 * partial); /* in turn, as above */
    p->args.best = (uint32_t)(at + 2 * partial);
    return at + 2 * partial + 2 * (size_t)p->blocks * EW_CUDA_DECODE_ROWS;
}

/* Query heads of a kv head, rounded up to what kernels are compiled for. */
static uint32_t heads_of(const struct ew_attn_args *a)
{
    const size_t g = a ? a->hq / a->hkv : 1;

    return g <= 1 ? 1 : g <= 2 ? 2 : g <= 4 ? 4 : 8;
}

static size_t attention_bytes(const struct ew_attn_args *a)
{
    const size_t g = heads_of(a);

    const size_t warps = EW_STEP_WARPS;

    /* step_attn.cuh's struct step_attn */
    return (g + 2) * a->d * 4 + 2 * g * (a->d * 2 + 16) + warps * EW_STEP_KV_TILE * g * 4 +
           warps * g * 8 + ew_align_up(g * 4, 16) + warps * g * a->d * 4;
}

/* The ring takes what is left of a block's shared memory. */
static ew_status choose_shared(struct planner *p, uint32_t *shared)
{
    const bool rows_of_panels = p->rows > 1 && p->kinds & (1u << EW_STEP_Q4 | 1u << EW_STEP_Q8);
    size_t fixed, sums;

    if (rows_of_panels)
        p->x_bytes = EW_STEP_WARPS * ROUND * 64 * (128 / p->unit); /* panel_start */
    p->args.x_bytes = (uint32_t)ew_align_up(p->x_bytes, 128);
    if (p->attention)
        p->args.attention_bytes = (uint32_t)ew_align_up(attention_bytes(p->attention), 128);
    /* sums of outputs and of squares, of each sequence */
    p->red_rows = EW_STEP_RED_ROWS;
    if (rows_of_panels)
        p->red_rows = p->chip->shared_per_block > SMALL ? 48 : 16; /* one stage more than with 64 */
    else if (p->rows > 1 && p->chip->shared_per_block <= SMALL)
        p->red_rows = 8;
    sums = p->rows > 1 ? p->red_rows / 8 * EW_STEP_ROWS_TILE + EW_CUDA_DECODE_ROWS
                       : EW_STEP_RED_ROWS + 1;
    fixed = p->args.x_bytes + p->args.attention_bytes + 2 * sums * EW_STEP_WARPS * 4 +
            EW_STEP_MAX_STAGES * 16 +
            (EW_STEP_WARPS + p->copiers) * (2 * sizeof(struct ew_step_phase) + EW_STEP_KV_BYTES);
    /* two parts or two blocks of the cache a stage: waiting costs as much as multiplying one */
    for (uint32_t most = 2; most >= 1; most--) {
        const size_t stage = stage_of(p, most);
        const size_t stages =
            fixed < p->chip->shared_per_block ? (p->chip->shared_per_block - fixed) / stage : 0;

        if (stages < p->copiers)
            continue;
        p->most = most;
        set_stages(p, stage, stages < EW_STEP_MAX_STAGES ? stages : EW_STEP_MAX_STAGES);
        *shared = (uint32_t)(fixed + p->args.n_stages * stage);
        return EW_STATUS_OK;
    }
    return ew_fail(p->err, EW_STATUS_UNSUPPORTED,
                   "one kernel a step: %zu bytes of vectors beside the ring in %u of shared memory",
                   fixed, p->chip->shared_per_block);
}

/* Whether copying warps hold back. Copies delay packets on their way through L2; where blocks have
 * much more of a phase than the ring holds, memory alone is waited for. */
static void choose_flight(struct planner *p)
{
    const size_t ring = (size_t)p->args.n_stages * p->args.stage_bytes;
    size_t bytes = 0, n = 0;

    for (size_t i = 0; i + 1 < p->n; i++)
        if (p->table[i].kind == EW_STEP_PLAIN16) {
            bytes += (size_t)p->table[i].n * p->table[i].stride;
            n++;
        }
    p->flight = !n || bytes / n / p->blocks <= ring;
}

static void fill_launch(struct planner *p, uint32_t shared, struct ew_cuda_launch *l)
{
    const struct ew_attn_args *a = p->attention;
    const uint32_t grid[3] = { p->blocks, 1, 1 };
    const bool one = p->rows == 1;

    if (one)
        ew_cuda_launch_fill(l, STEP_SOURCE, "ew_step", grid, (EW_STEP_WARPS + p->copiers) * 32,
                            &p->args, sizeof(p->args),
                            "-DEW_STEP_KINDS=%u -DEW_STEP_PLAINS=%u -DEW_STEP_G=%u -DEW_STEP_D=%u "
                            "-DEW_STEP_W_F16=%d "
                            "-DEW_STEP_SCALE_F16=%d -DEW_STEP_KV_F16=%d -DEW_STEP_ACT=%u "
                            "-DEW_STEP_BIAS=%d -DEW_STEP_SOFTCAP=%d -DEW_STEP_COPIERS=%u "
                            "-DEW_STEP_UNIT=%u -DEW_STEP_TURNS=%u -DEW_STEP_FLIGHT=%u",
                            p->kinds, p->plains, heads_of(a), a ? (unsigned)a->d : 128u,
                            p->w_f16 > 0, p->scale_f16 > 0, p->kv_f16 > 0, p->act, p->has_bias,
                            p->has_softcap, p->copiers, p->unit, p->turns, p->flight);
    else
        ew_cuda_launch_fill(l, ROWS_SOURCE, "ew_step_rows", grid, (EW_STEP_WARPS + p->copiers) * 32,
                            &p->args, sizeof(p->args),
                            "-DEW_STEP_KINDS=%u -DEW_STEP_PLAINS=%u -DEW_STEP_G=%u -DEW_STEP_D=%u "
                            "-DEW_STEP_W_F16=%d "
                            "-DEW_STEP_SCALE_F16=%d -DEW_STEP_KV_F16=%d "
                            "-DEW_STEP_ACT=%u -DEW_STEP_BIAS=%d -DEW_STEP_SOFTCAP=%d "
                            "-DEW_STEP_COPIERS=%u -DEW_STEP_RED_ROWS=%u "
                            "-DEW_STEP_MOST=%u "
                            "-DEW_STEP_UNIT=%u -DEW_STEP_TURNS=%u -DEW_STEP_FLIGHT=%u",
                            p->kinds, p->plains, heads_of(a), a ? (unsigned)a->d : 128u,
                            p->w_f16 > 0, p->scale_f16 > 0, p->kv_f16 > 0, p->act, p->has_bias,
                            p->has_softcap, p->copiers, p->red_rows, p->most, p->unit, p->turns,
                            p->flight);
    l->shared_bytes = shared;
    l->cooperative = true;
    l->early_start = false;
}

/* What lies in memory has no gaps between the rows of several sequences. */
static ew_status rows_ok(struct planner *p, const struct ew_cuda_decode_node *first,
                         const struct ew_cuda_decode_node *last)
{
    if (p->rows == 1)
        return EW_STATUS_OK;
    if (first->problem.x_stride != p->table[0].k)
        return refuse(p, first, "gaps between rows of its input");
    if (last->problem.y_stride != p->table[p->n - 1].n)
        return refuse(p, last, "gaps between rows of its output");
    return EW_STATUS_OK;
}

/* Rows of the first linear. */
static uint32_t rows_of(const struct ew_cuda_decode_node *nodes, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (nodes[i].kind == EW_CUDA_DECODE_LINEAR)
            return nodes[i].problem.m > EW_CUDA_DECODE_ROWS ? 0 : (uint32_t)nodes[i].problem.m;
    return 1;
}

static ew_status plan_chain(struct planner *p, const struct ew_cuda_decode_node *nodes, size_t n)
{
    p->current = p->x = n ? nodes[0].problem.x : 0;
    p->rows = rows_of(nodes, n);
    if (!p->rows)
        return ew_fail(p->err, EW_STATUS_UNSUPPORTED, "one kernel a step: more than %d rows",
                       EW_CUDA_DECODE_ROWS);
    for (size_t i = 0; i < n; i++)
        EW_TRY(add_node(p, &nodes[i]));
    if (!p->n || p->norm || p->table[p->n - 1].kind == EW_STEP_ATTENTION)
        return ew_fail(p->err, EW_STATUS_UNSUPPORTED,
                       "one kernel a step: the last node is no linear");
    if (p->x % 16)
        return refuse(p, &nodes[0], "an input that is not aligned");
    p->table[p->n - 1].flags |= EW_STEP_HEAD;
    if (p->table[p->n - 1].flags & EW_STEP_GLU)
        return refuse(p, &nodes[n - 1], "the last linear has a gate");
    return rows_ok(p, &nodes[0], &nodes[n - 1]);
}

ew_status ew_cuda_decode_plan(const struct ew_cuda_decode_node *nodes, size_t n,
                              const struct ew_cuda_chip *chip,
                              const struct ew_cuda_decode_place *place,
                              struct ew_cuda_decode_plan *out, ew_error *err)
{
    struct planner p = { .chip = chip, .table = out->table, .err = err };
    size_t packets;
    uint32_t shared = 0;
    ew_status st;

    p.w_f16 = p.scale_f16 = p.kv_f16 = -1;
    p.unit = 128;
    p.links = ew_mem_calloc(EW_MEM_PLAN, n ? n : 1, sizeof(*p.links));
    if (!p.links)
        return ew_fail(err, EW_STATUS_NO_MEMORY, "one kernel a step: plan");
    st = plan_chain(&p, nodes, n);
    p.copiers = COPIERS;
    if (!st)
        st = choose_blocks(&p);
    if (!st)
        st = choose_shared(&p, &shared);
    if (!st) {
        share_out(&p);
        packets = p.rows > 1 ? place_words(&p) : place_packets(&p);
        p.args.sequences = p.rows;
        p.args.table = place->table;
        p.args.epoch = place->workspace;
        p.args.fault = place->fault ? place->fault : place->workspace + 4;
        p.args.workspace = place->workspace + WORKSPACE_HEAD;
        p.args.x = p.x;
        p.args.logits = p.links[p.n - 1].out;
        p.args.token = place->token;
        p.args.context_lengths = p.attention ? ew_cuda_address(p.attention->context_lengths)
                                             : p.args.epoch; /* read all the same, used by none */
        p.args.n_phases = (uint32_t)p.n;
        p.args.n_x = p.table[0].k;
        p.args.hq = p.attention ? (uint32_t)p.attention->hq : 1;
        p.args.hkv = p.attention ? (uint32_t)p.attention->hkv : 1;
        choose_flight(&p);
        fill_launch(&p, shared, &out->launch);
        out->n_rows = p.rows;
        out->n_phases = p.n;
        out->table_bytes = p.n * sizeof(*p.table);
        out->workspace_bytes = WORKSPACE_HEAD + packets * 8;
    }
    ew_mem_free(p.links);
    return st;
}

bool ew_cuda_decode_leads_on(struct ew_cuda_launch *l, uint64_t logits, uint64_t lengths,
                             uint64_t tokens, uint64_t next_id)
{
    struct ew_step_args a;

    if (l->arg_bytes != sizeof(a) ||
        (strcmp(l->spec.source, STEP_SOURCE) && strcmp(l->spec.source, ROWS_SOURCE)))
        return false;
    memcpy(&a, l->args, sizeof(a));
    if (!logits || a.logits != logits || !lengths || a.context_lengths != lengths)
        return false;
    a.token = tokens;
    a.next_id = next_id;
    memcpy(l->args, &a, sizeof(a));
    return true;
}

bool ew_cuda_decode_looks_up(struct ew_cuda_launch *l, const struct ew_cuda_embed *e)
{
    struct ew_step_args a;

    if (l->arg_bytes != sizeof(a) || strcmp(l->spec.source, STEP_SOURCE))
        return false;
    memcpy(&a, l->args, sizeof(a));
    if (!a.next_id || a.next_id != ew_cuda_address(e->ids) || a.x != ew_cuda_address(e->dst) ||
        e->n_ids != 1 || e->n != a.n_x || e->format || e->n_rows > INT32_MAX ||
        ew_cuda_address(e->table) % 8)
        return false;
    if (e->dtype != EW_DTYPE_F32 && e->dtype != EW_DTYPE_F16 && e->dtype != EW_DTYPE_BF16)
        return false;
    a.rows = ew_cuda_address(e->table);
    a.n_rows = (uint32_t)e->n_rows;
    a.row_type = e->dtype == EW_DTYPE_F32 ? 0 : e->dtype == EW_DTYPE_F16 ? 1 : 2;
    a.row_scale = e->scale;
    memcpy(l->args, &a, sizeof(a));
    return true;
}
