/* build/tactics.c - which kernel runs each distinct Linear problem. Candidates come from the kernel
 * table alone: a kernel of another kind (quantised, AMX) competes by being in it. */
#include "build/build_impl.h"

#include "backend/cuda/cuda.h"
#include "kernels/cuda/linear.h"

#define FEW_ROWS         8   /* of a batch that decodes together */
#define READ_PER_WRITTEN 4.0 /* tokens of prompts for one of an answer */

/* Rows at the opt shape of each profile: what tactics are timed at; or at the max shape. */
static ew_status rows_at(struct ew_build *b, int which, uint64_t *m_of /* [n_profiles][n_nodes] */)
{
    struct ew_plan *p = &b->plan;

    for (uint32_t i = 0; i < p->n_profiles; i++) {
        struct ew_shapes s;
        struct ew_arena a;
        ew_status st;

        ew_arena_init(&a, EW_MEM_BUILD, 0);
        st = ew_plan_profile_shapes(p, i, which, &a, &s, b->err);
        for (uint32_t k = 0; k < p->n_nodes && !st; k++) {
            const struct ew_plan_node *n = &p->nodes[k];
            const struct ew_type *x;
            uint64_t *m = &m_of[(size_t)i * p->n_nodes + k];
            size_t count;

            *m = 1;
            if (n->op != EW_OP_LINEAR && n->op != EW_OP_MOE)
                continue;
            x = &s.type[n->in[0]];
            if (x->dtype == EW_DTYPE_NONE || x->n_dims < 1 || x->dim[x->n_dims - 1] < 1 ||
                !ew_type_count(x, &count))
                continue;
            *m = count / (size_t)x->dim[x->n_dims - 1];
            if (n->op == EW_OP_MOE) {
                const uint64_t experts = p->tensors[n->in[2]].packed.n_experts;

                *m = (*m * (uint64_t)n->attrs.moe.top_k + experts - 1) / (experts ? experts : 1);
            }
            *m = *m ? *m : 1;
        }
        ew_arena_deinit(&a);
        EW_TRY(st);
    }
    return EW_STATUS_OK;
}

static struct ew_plan_tactic *tactic_of(struct ew_build *b, const struct ew_plan_tensor *t)
{
    struct ew_plan *p = &b->plan;
    struct ew_plan_tactic *k;

    for (uint32_t i = 0; i < p->n_tactics; i++) {
        k = &p->tactics[i];
        if (k->dtype == t->dtype && k->n == t->packed.n && k->k == t->packed.k &&
            k->glu == t->packed.glu && k->x_quant == t->packed.x_quant &&
            ew_quant_format_equal(&k->format, &t->packed.format))
            return k;
    }
    k = &p->tactics[p->n_tactics++];
    *k = (struct ew_plan_tactic){ .dtype = t->dtype,
                                  .format = t->packed.format,
                                  .x_quant = t->packed.x_quant,
                                  .n = t->packed.n,
                                  .k = t->packed.k,
                                  .glu = t->packed.glu };
    k->m = ew_arena_new(&p->arena, uint64_t, p->n_profiles);
    return k->m ? k : NULL;
}

/* One tactic per distinct problem, with the largest m of its uses, at opt shapes by profile and at
 * max shapes in max_m[tactic]. */
static ew_status collect(struct ew_build *b, const uint64_t *m_of, const uint64_t *max_of,
                         uint64_t *max_m)
{
    struct ew_plan *p = &b->plan;

    p->tactics = ew_arena_new(&p->arena, struct ew_plan_tactic, 2ull * p->n_nodes + 1u);
    if (!p->tactics)
        return ew_fail(b->err, EW_STATUS_NO_MEMORY, "tactics");
    for (uint32_t i = 0; i < p->n_nodes; i++)
        for (uint32_t k = 0; k < p->nodes[i].n_in; k++) {
            const uint32_t t = p->nodes[i].in[k];
            struct ew_plan_tactic *tac;

            if (t == EW_PLAN_NONE || !b->consts[t].pack)
                continue;
            tac = tactic_of(b, &p->tensors[t]);
            if (!tac)
                return ew_fail(b->err, EW_STATUS_NO_MEMORY, "tactics");
            tac->n_uses++;
            for (uint32_t pr = 0; pr < p->n_profiles; pr++) {
                const uint64_t m = m_of[(size_t)pr * p->n_nodes + i];
                const uint64_t most = max_of[(size_t)pr * p->n_nodes + i];
                uint64_t *at = &max_m[tac - p->tactics];

                tac->m[pr] = m > tac->m[pr] ? m : tac->m[pr];
                *at = most > *at ? most : *at;
            }
        }
    return EW_STATUS_OK;
}

static bool usable(const struct ew_build *b, const struct ew_linear_kernel *k,
                   const struct ew_plan_tactic *t)
{
    if (b->cuda && !ew_cuda_linear_covers(&b->cuda->chip, k, t))
        return false;
    return (k->cpu_need & ~b->cpu_flags) == 0 &&
           ew_linear_kernel_runs(k, t->dtype, &t->format, (size_t)t->k, t->x_quant);
}

static ew_status candidates(struct ew_build *b, struct ew_plan_tactic *t)
{
    struct ew_plan *p = &b->plan;
    size_t n;
    const struct ew_linear_kernel *const *all =
        b->cuda ? ew_cuda_linear_layouts(&n) : ew_linear_kernels(&n);
    bool fast = false;

    t->candidates = ew_arena_new(&p->arena, struct ew_plan_candidate, n + 1u);
    if (!t->candidates)
        return ew_fail(b->err, EW_STATUS_NO_MEMORY, "tactics");
    for (size_t i = 0; i < n; i++)
        fast = fast || (usable(b, all[i], t) && all[i]->cpu_need);
    for (size_t i = 0; i < n; i++) {
        const bool forced = b->opts.tactic && strcmp(all[i]->name, b->opts.tactic) == 0;

        /* The reference is never the fastest, and timing it at prefill sizes takes seconds. */
        if (!usable(b, all[i], t) || (fast && !all[i]->cpu_need && !forced))
            continue;
        if (forced)
            t->chosen = t->n_candidates;
        else if (!b->opts.tactic ||
                 strcmp(t->candidates[t->chosen].kernel ? t->candidates[t->chosen].kernel : "",
                        b->opts.tactic) != 0)
            t->chosen = t->n_candidates; /* the last one is the best ranked */
        t->candidates[t->n_candidates].kernel = all[i]->name;
        t->candidates[t->n_candidates].ns = ew_arena_new(&p->arena, uint64_t, p->n_profiles);
        if (!t->candidates[t->n_candidates++].ns)
            return ew_fail(b->err, EW_STATUS_NO_MEMORY, "tactics");
    }
    if (t->n_candidates)
        return EW_STATUS_OK;
    char format[64];

    ew_quant_format_text(&t->format, format, sizeof(format));
    if (b->cuda)
        return ew_fail(b->err, EW_STATUS_UNSUPPORTED,
                       "Linear [%llu,%llu] of %s%s: no CUDA kernel runs it on sm_%u",
                       (unsigned long long)t->n, (unsigned long long)t->k,
                       ew_quant_is(&t->format) ? format : ew_dtype_text(t->dtype),
                       t->x_quant ? " with rounded activations" : "", b->cuda->chip.sm);
    return ew_fail(b->err, EW_STATUS_UNSUPPORTED,
                   "Linear [%llu,%llu] of %s: no kernel of CPU level %s runs it",
                   (unsigned long long)t->n, (unsigned long long)t->k,
                   ew_quant_is(&t->format) ? format : ew_dtype_text(t->dtype),
                   ew_cpu_level_text(b->cpu_flags));
}

/* What a candidate costs for each token that is written: that token alone, one of a batch (few_ns;
 * 0 if no profile may hold so many rows), and the tokens of prompts that are read meanwhile. */
static double cost_of(const struct ew_build *b, const struct ew_plan_tactic *t, uint32_t candidate,
                      const uint64_t *few_ns)
{
    double cost = (double)few_ns[candidate] / FEW_ROWS;

    for (uint32_t p = 0; p < b->plan.n_profiles; p++)
        cost += (double)t->candidates[candidate].ns[p] / (double)t->m[p] *
                (t->m[p] < EW_TIME_MANY ? 1.0 : READ_PER_WRITTEN);
    return cost;
}

/* The least cost wins; among those that NOISE does not tell from it the one ranked highest: where
 * memory is the bound, as it is for one row, all kernels read at its speed. */
#define NOISE 1.15
static void choose(const struct ew_build *b, struct ew_plan_tactic *t, const uint64_t *few_ns)
{
    double best = cost_of(b, t, 0, few_ns);

    for (uint32_t c = 1; c < t->n_candidates; c++)
        best = cost_of(b, t, c, few_ns) < best ? cost_of(b, t, c, few_ns) : best;
    for (uint32_t c = 0; c < t->n_candidates; c++)
        if (cost_of(b, t, c, few_ns) <= best * NOISE)
            t->chosen = c;
}

/* Candidates of one tactic; few: a batch is to be timed too. */
static ew_status time_one(struct ew_build *b, struct ew_timing_cache *tc, struct ew_plan_tactic *t,
                          bool few)
{
    uint64_t *few_ns = ew_mem_calloc(EW_MEM_BUILD, t->n_candidates + 1u, sizeof(*few_ns));
    ew_status st = EW_STATUS_OK;

    if (!few_ns)
        return ew_fail(b->err, EW_STATUS_NO_MEMORY, "tactics");
    for (uint32_t c = 0; c < t->n_candidates && !st; c++) {
        const struct ew_linear_kernel *kernel = ew_linear_kernel_find(t->candidates[c].kernel);

        for (uint32_t pr = 0; pr < b->plan.n_profiles && !st; pr++)
            st = ew_time_linear(b, tc, kernel, t, t->m[pr], &t->candidates[c].ns[pr]);
        if (few && t->n_candidates > 1 && !st)
            st = ew_time_linear(b, tc, kernel, t, FEW_ROWS, &few_ns[c]);
    }
    if (!st && (!b->opts.tactic || strcmp(t->candidates[t->chosen].kernel, b->opts.tactic) != 0))
        choose(b, t, few_ns);
    ew_mem_free(few_ns);
    return st;
}

static ew_status time_all(struct ew_build *b, struct ew_timing_cache *tc, const uint64_t *max_m)
{
    struct ew_plan *p = &b->plan;

    for (uint32_t i = 0; i < p->n_tactics; i++) {
        EW_TRY(ew_build_step(b, "time tactics", i, p->n_tactics));
        EW_TRY(time_one(b, tc, &p->tactics[i], max_m[i] >= FEW_ROWS));
    }
    return EW_STATUS_OK;
}

static ew_status fix_kernels(struct ew_build *b)
{
    struct ew_plan *p = &b->plan;
    size_t n;
    const struct ew_attn_kernel *const *attn = ew_attn_kernels(&n);

    const uint32_t flags = b->cuda ? 0 : b->cpu_flags; /* a GPU's engine runs on any CPU */

    for (size_t i = 0; i < n; i++)
        if ((attn[i]->cpu_need & ~flags) == 0)
            p->attention = attn[i];
    p->rowops = ew_rowops_best(flags);
    if (!p->attention)
        return ew_fail(b->err, EW_STATUS_UNSUPPORTED, "no attention kernel for CPU level %s",
                       ew_cpu_level_text(b->cpu_flags));
    p->cpu_need = p->attention->cpu_need | p->rowops->cpu_need;
    for (uint32_t i = 0; i < p->n_tensors; i++) {
        struct ew_plan_tensor *t = &p->tensors[i];
        const struct ew_plan_tactic *tac;

        if (!b->consts[i].pack)
            continue;
        if (b->consts[i].lookup) {
            t->packed.kernel = ew_linear_kernel_find("linear_quant__ref"); /* the compact one */
        } else {
            tac = tactic_of(b, t);
            t->packed.kernel = ew_linear_kernel_find(tac->candidates[tac->chosen].kernel);
        }
        t->packed.expert_bytes = t->packed.kernel->packed_bytes(
            &t->packed.format, (size_t)t->packed.n, (size_t)t->packed.k, t->packed.glu);
        t->bytes = t->packed.expert_bytes * t->packed.n_experts;
        p->cpu_need |= t->packed.kernel->cpu_need;
    }
    return EW_STATUS_OK;
}

static ew_status tactics(struct ew_build *b, uint64_t *m_of, uint64_t *max_of, uint64_t *max_m)
{
    struct ew_timing_cache *tc = NULL;
    ew_status st;

    EW_TRY(rows_at(b, EW_PLAN_OPT, m_of));
    EW_TRY(rows_at(b, EW_PLAN_MAX, max_of));
    EW_TRY(collect(b, m_of, max_of, max_m));
    for (uint32_t i = 0; i < b->plan.n_tactics; i++)
        EW_TRY(candidates(b, &b->plan.tactics[i]));
    if (b->cuda ||
        (b->opts.flags & EW_BUILD_NO_TIMING)) /* a GPU times its kernels by rows, apart */
        return EW_STATUS_OK;
    EW_TRY(ew_timing_cache_open(b->opts.timing_cache, b->opts.logger, &tc, b->err));
    st = time_all(b, tc, max_m);
    if (!st && b->opts.timing_cache)
        st = ew_timing_cache_save(tc, b->opts.timing_cache, b->err);
    ew_timing_cache_close(tc);
    return st;
}

ew_status ew_build_tactics(struct ew_build *b)
{
    const struct ew_plan *p = &b->plan;
    const size_t n = (size_t)p->n_profiles * p->n_nodes;
    uint64_t *m_of;
    ew_status st;

    if (b->opts.tactic && !(b->cuda ? ew_cuda_linear_kernel_find(b->opts.tactic) != NULL ||
                                          strcmp(b->opts.tactic, "cublaslt") == 0 ||
                                          ew_build_is_step_tactic(b->opts.tactic)
                                    : ew_linear_kernel_find(b->opts.tactic) != NULL))
        return ew_fail(b->err, EW_STATUS_INVALID_ARG, "tactic '%s' is not a kernel of this build",
                       b->opts.tactic);
    m_of = ew_mem_calloc(EW_MEM_BUILD, 2 * n + 2ull * p->n_nodes + 1, sizeof(*m_of));
    if (!m_of)
        return ew_fail(b->err, EW_STATUS_NO_MEMORY, "tactics");
    st = tactics(b, m_of, m_of + n, m_of + 2 * n);
    ew_mem_free(m_of);
    return st ? st : fix_kernels(b);
}
