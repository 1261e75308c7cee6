/* plan/reader.c - sections of a verified file into a plan. Checksums keep accidents out; what is
 * checked here keeps out files made by hand: every index, offset, size, dtype and attribute. */
#include "plan/reader.h"

#include "base/json.h"
#include "base/size.h"
#include "cpu/cpu.h"
#include "plan/codec.h"

struct reader {
    const uint8_t *bytes;
    uint64_t off[EW_PLAN_N_SECTIONS], len[EW_PLAN_N_SECTIONS];
    uint32_t cpu_flags;
    struct ew_plan *p;
};

static ew_status bad(ew_error *err, const char *what, uint32_t i)
{
    return ew_fail(err, EW_STATUS_MALFORMED, "%s %u: bytes make no sense", what, i);
}

static ew_status need_cpu(const struct reader *rd, const char *what, uint32_t need, ew_error *err)
{
    if ((need & ~rd->cpu_flags) == 0)
        return EW_STATUS_OK;
    return ew_fail(err, EW_STATUS_MISMATCH,
                   "%s needs CPU level %s, this processor (or --cpu) offers %s", what,
                   ew_cpu_level_text(need), ew_cpu_level_text(rd->cpu_flags));
}

static ew_status read_meta(struct reader *rd, ew_error *err)
{
    const char *text = (const char *)rd->bytes + rd->off[EW_PLAN_META];
    struct ew_plan *p = rd->p;
    const char *arch, *level;
    json_t *json;
    ew_status st;

    EW_TRY(ew_json_parse(text, (size_t)rd->len[EW_PLAN_META], "engine META", &json, err));
    p->meta = ew_arena_strndup(&p->arena, text, (size_t)rd->len[EW_PLAN_META]);
    st = ew_json_get_str_or(json, "arch", "engine META", "", &arch, err);
    if (!st)
        st = ew_json_get_str_or(json, "cpu_level", "engine META", "", &level, err);
    if (!st && strcmp(arch, ew_cpu_arch()) != 0)
        st = ew_fail(err, EW_STATUS_MISMATCH, "engine is for '%s', this machine is '%s'", arch,
                     ew_cpu_arch());
    if (!st) {
        p->cpu_level = ew_arena_strdup(&p->arena, level);
        if (!p->meta || !p->cpu_level)
            st = ew_fail(err, EW_STATUS_NO_MEMORY, "engine META");
    }
    json_decref(json);
    return st;
}

/* False: no such format. */
static bool read_format(struct ew_rd *r, struct ew_quant_format *f)
{
    *f = (struct ew_quant_format){ .code = (ew_dtype)ew_rd_u8(r) };
    if (f->code == EW_DTYPE_NONE)
        return true;
    f->scale = (ew_dtype)ew_rd_u8(r);
    f->group = ew_rd_u32(r);
    f->zero = ew_rd_u8(r);
    return ew_quant_format_ok(f);
}

static ew_status read_packed(struct reader *rd, struct ew_rd *r, struct ew_plan_tensor *t,
                             ew_error *err)
{
    struct ew_packed *w = &t->packed;
    const char *name = ew_rd_str(r, &rd->p->arena);
    size_t bytes;

    w->n = ew_rd_u64(r);
    w->k = ew_rd_u64(r);
    w->n_experts = ew_rd_u64(r);
    w->expert_bytes = ew_rd_u64(r);
    w->glu = ew_rd_u8(r) != 0;
    if (!read_format(r, &w->format) || r->bad || !name)
        return bad(err, "packed weight", 0);
    w->x_quant = ew_rd_u8(r);
    w->kernel = ew_linear_kernel_find(name);
    if (!w->kernel)
        return ew_fail(err, EW_STATUS_MISMATCH,
                       "weight '%s' is packed for kernel '%s', which this build has not", t->name,
                       name);
    EW_TRY(need_cpu(rd, name, w->kernel->cpu_need, err));
    rd->p->cpu_need |= w->kernel->cpu_need;
    if (!w->n || !w->k || !w->n_experts || w->n > INT32_MAX || w->k > INT32_MAX ||
        (w->glu && w->n % 2) || r->bad || w->x_quant >= EW_XQ_COUNT ||
        !ew_linear_kernel_runs(w->kernel, t->dtype, &w->format, (size_t)w->k, w->x_quant) ||
        w->kernel->packed_bytes(&w->format, (size_t)w->n, (size_t)w->k, w->glu) !=
            w->expert_bytes ||
        !ew_size_mul((size_t)w->expert_bytes, (size_t)w->n_experts, &bytes) || bytes != t->bytes)
        return ew_fail(err, EW_STATUS_MALFORMED,
                       "weight '%s': %llu x [%llu,%llu] packed in %llu bytes", t->name,
                       (unsigned long long)w->n_experts, (unsigned long long)w->n,
                       (unsigned long long)w->k, (unsigned long long)t->bytes);
    return EW_STATUS_OK;
}

static ew_status read_const(struct reader *rd, struct ew_rd *r, struct ew_plan_tensor *t,
                            ew_error *err)
{
    const struct ew_type type = ew_type_make(t->dtype, t->n_dims, t->dim);
    size_t bytes;

    t->off = ew_rd_u64(r);
    t->bytes = ew_rd_u64(r);
    if (!ew_type_is_concrete(&type) || !ew_type_bytes(&type, &bytes))
        return ew_fail(err, EW_STATUS_MALFORMED, "constant '%s' has no size", t->name);
    if (t->off % EW_PLAN_ALIGN || t->off > rd->len[EW_PLAN_WEIGHTS] ||
        t->bytes > rd->len[EW_PLAN_WEIGHTS] - t->off)
        return ew_fail(err, EW_STATUS_MALFORMED, "constant '%s': %llu bytes at %llu of %llu",
                       t->name, (unsigned long long)t->bytes, (unsigned long long)t->off,
                       (unsigned long long)rd->len[EW_PLAN_WEIGHTS]);
    t->data = rd->bytes + rd->off[EW_PLAN_WEIGHTS] + t->off;
    if (ew_rd_u8(r))
        return read_packed(rd, r, t, err);
    if (bytes != t->bytes)
        return ew_fail(err, EW_STATUS_MALFORMED, "constant '%s': %llu bytes, its type has %zu",
                       t->name, (unsigned long long)t->bytes, bytes);
    return EW_STATUS_OK;
}

static ew_status read_tensor(struct reader *rd, struct ew_rd *r, uint32_t i, ew_error *err)
{
    struct ew_plan_tensor *t = &rd->p->tensors[i];
    unsigned kind, dtype;

    t->name = ew_rd_str(r, &rd->p->arena);
    kind = ew_rd_u8(r);
    dtype = ew_rd_u8(r);
    t->n_dims = ew_rd_u8(r);
    t->producer = EW_PLAN_NONE;
    if (r->bad || kind > EW_PLAN_CONST || dtype == 0 || dtype >= EW_DTYPE_COUNT ||
        t->n_dims > EW_MAX_DIMS)
        return bad(err, "tensor", i);
    t->kind = (enum ew_plan_kind)kind;
    t->dtype = (ew_dtype)dtype;
    for (int d = 0; d < t->n_dims; d++) {
        t->dim[d] = (int64_t)ew_rd_u64(r);
        if (r->bad || t->dim[d] < -1)
            return bad(err, "tensor", i);
    }
    return t->kind == EW_PLAN_CONST ? read_const(rd, r, t, err) : EW_STATUS_OK;
}

static uint32_t *read_ids(struct reader *rd, struct ew_rd *r, uint32_t *n)
{
    uint32_t *ids;

    *n = ew_rd_count(r, 4);
    ids = ew_arena_new(&rd->p->arena, uint32_t, *n + 1u);
    for (uint32_t i = 0; ids && i < *n; i++)
        ids[i] = ew_rd_u32(r);
    r->bad = r->bad || !ids;
    return ids;
}

static ew_status read_node(struct reader *rd, struct ew_rd *r, uint32_t i, ew_error *err)
{
    struct ew_plan_node *n = &rd->p->nodes[i];
    const char *op = ew_rd_str(r, &rd->p->arena);

    n->name = ew_rd_str(r, &rd->p->arena);
    if (r->bad)
        return bad(err, "node", i);
    n->op = ew_op_find(op);
    if (n->op == EW_OP_NONE)
        return ew_fail(err, EW_STATUS_MISMATCH, "node '%s': op '%s' is unknown to this build",
                       n->name, op);
    n->in = read_ids(rd, r, &n->n_in);
    n->out = read_ids(rd, r, &n->n_out);
    if (r->bad || !ew_rd_attrs(r, n->op, &n->attrs))
        return bad(err, "node", i);
    return EW_STATUS_OK;
}

static ew_status read_kernels(struct reader *rd, struct ew_rd *r, ew_error *err)
{
    struct ew_plan *p = rd->p;
    const char *attention = ew_rd_str(r, &p->arena);
    const char *rows = ew_rd_str(r, &p->arena);
    size_t n;
    const struct ew_rowops *const *all = ew_rowops_all(&n);

    if (r->bad)
        return bad(err, "kernel names", 0);
    p->attention = ew_attn_kernel_find(attention);
    for (size_t i = 0; i < n; i++)
        if (strcmp(all[i]->name, rows) == 0)
            p->rowops = all[i];
    if (!p->attention || !p->rowops)
        return ew_fail(err, EW_STATUS_MISMATCH,
                       "kernel '%s' or row kernels '%s' are not in this build", attention, rows);
    EW_TRY(need_cpu(rd, attention, p->attention->cpu_need, err));
    EW_TRY(need_cpu(rd, rows, p->rowops->cpu_need, err));
    p->cpu_need |= p->attention->cpu_need | p->rowops->cpu_need;
    return EW_STATUS_OK;
}

static ew_status read_graph(struct reader *rd, ew_error *err)
{
    const uint8_t *at = rd->bytes + rd->off[EW_PLAN_GRAPH];
    struct ew_rd r = { at, at + rd->len[EW_PLAN_GRAPH], false };
    struct ew_plan *p = rd->p;

    p->name = ew_rd_str(&r, &p->arena);
    if (ew_rd_u8(&r))
        p->llm_config = ew_rd_str(&r, &p->arena);
    p->n_tensors = ew_rd_count(&r, 7);
    p->tensors = ew_arena_new(&p->arena, struct ew_plan_tensor, p->n_tensors + 1u);
    for (uint32_t i = 0; p->tensors && i < p->n_tensors; i++)
        EW_TRY(read_tensor(rd, &r, i, err));
    p->n_nodes = ew_rd_count(&r, 16);
    p->nodes = ew_arena_new(&p->arena, struct ew_plan_node, p->n_nodes + 1u);
    for (uint32_t i = 0; p->nodes && i < p->n_nodes; i++)
        EW_TRY(read_node(rd, &r, i, err));
    p->inputs = read_ids(rd, &r, &p->n_inputs);
    p->n_outputs = ew_rd_count(&r, 12);
    p->outputs = ew_arena_new(&p->arena, struct ew_plan_output, p->n_outputs + 1u);
    for (uint32_t i = 0; p->outputs && i < p->n_outputs; i++) {
        p->outputs[i].name = ew_rd_str(&r, &p->arena);
        p->outputs[i].tensor = ew_rd_u32(&r);
        p->outputs[i].alias = ew_rd_u32(&r);
    }
    p->embedding = ew_rd_u32(&r);
    if (!p->tensors || !p->nodes || !p->outputs)
        return ew_fail(err, EW_STATUS_NO_MEMORY, "plan tables");
    if (r.bad)
        return ew_fail(err, EW_STATUS_MALFORMED, "a table ends early");
    EW_TRY(read_kernels(rd, &r, err));
    if (r.at != r.end)
        return ew_fail(err, EW_STATUS_MALFORMED, "%zu bytes are left over", (size_t)(r.end - r.at));
    return EW_STATUS_OK;
}

static ew_status read_profile(struct reader *rd, struct ew_rd *r, uint32_t i, ew_error *err)
{
    struct ew_plan *p = rd->p;
    struct ew_plan_profile *pr = &p->profiles[i];
    uint32_t n;

    pr->name = ew_rd_str(r, &p->arena);
    pr->inputs = ew_arena_new(&p->arena, struct ew_plan_range, p->n_inputs + 1u);
    pr->off = ew_arena_new(&p->arena, uint64_t, p->n_tensors + 1u);
    pr->bytes = ew_arena_new(&p->arena, uint64_t, p->n_tensors + 1u);
    if (!pr->inputs || !pr->off || !pr->bytes)
        return ew_fail(err, EW_STATUS_NO_MEMORY, "profile %u", i);
    for (uint32_t k = 0; k < p->n_inputs; k++)
        for (int d = 0; d < p->tensors[p->inputs[k]].n_dims; d++) {
            pr->inputs[k].min[d] = (int64_t)ew_rd_u64(r);
            pr->inputs[k].opt[d] = (int64_t)ew_rd_u64(r);
            pr->inputs[k].max[d] = (int64_t)ew_rd_u64(r);
        }
    pr->block_bytes = ew_rd_u64(r);
    n = ew_rd_count(r, 20);
    for (uint32_t k = 0; k < n; k++) {
        const uint32_t t = ew_rd_u32(r);
        const uint64_t off = ew_rd_u64(r), bytes = ew_rd_u64(r);

        if (r->bad || t >= p->n_tensors || off % EW_PLAN_ALIGN || off > pr->block_bytes ||
            bytes > pr->block_bytes - off)
            return ew_fail(err, EW_STATUS_MALFORMED, "profile '%s': %llu bytes at %llu of %llu",
                           pr->name ? pr->name : "?", (unsigned long long)bytes,
                           (unsigned long long)off, (unsigned long long)pr->block_bytes);
        pr->off[t] = off;
        pr->bytes[t] = bytes;
    }
    return r->bad ? bad(err, "profile", i) : EW_STATUS_OK;
}

static ew_status read_memory(struct reader *rd, ew_error *err)
{
    const uint8_t *at = rd->bytes + rd->off[EW_PLAN_MEMORY];
    struct ew_rd r = { at, at + rd->len[EW_PLAN_MEMORY], false };
    struct ew_plan *p = rd->p;

    p->n_profiles = ew_rd_count(&r, 16);
    if (r.bad || p->n_profiles == 0 || p->n_profiles > 64)
        return ew_fail(err, EW_STATUS_MALFORMED, "%u profiles", p->n_profiles);
    p->profiles = ew_arena_new(&p->arena, struct ew_plan_profile, p->n_profiles);
    if (!p->profiles)
        return ew_fail(err, EW_STATUS_NO_MEMORY, "profiles");
    for (uint32_t i = 0; i < p->n_profiles; i++)
        EW_TRY(read_profile(rd, &r, i, err));
    if (r.at != r.end)
        return ew_fail(err, EW_STATUS_MALFORMED, "%zu bytes are left over", (size_t)(r.end - r.at));
    return EW_STATUS_OK;
}

static uint64_t *read_per_profile(struct reader *rd, struct ew_rd *r)
{
    uint64_t *v = ew_arena_new(&rd->p->arena, uint64_t, rd->p->n_profiles);

    for (uint32_t k = 0; v && k < rd->p->n_profiles; k++)
        v[k] = ew_rd_u64(r);
    r->bad = r->bad || !v;
    return v;
}

static bool read_switches(struct reader *rd, struct ew_rd *r, struct ew_plan_tactic *t)
{
    t->n_switches = ew_rd_count(r, 20);
    t->switches = ew_arena_new(&rd->p->arena, struct ew_plan_switch, t->n_switches + 1u);
    for (uint32_t k = 0; t->switches && k < t->n_switches; k++) {
        t->switches[k].kernel = ew_rd_str(r, &rd->p->arena);
        t->switches[k].max_m = ew_rd_u64(r);
        t->switches[k].ns = ew_rd_u64(r);
        if (r->bad || (k && t->switches[k].max_m <= t->switches[k - 1].max_m))
            return false;
    }
    return t->switches != NULL;
}

/* Code of a device is data here: that it is for this device, the backend sees before it loads it.
 */
static ew_status read_images(struct reader *rd, struct ew_rd *r, const uint8_t *base, ew_error *err)
{
    struct ew_plan *p = rd->p;

    p->n_images = ew_rd_count(r, 16);
    p->images = ew_arena_new(&p->arena, struct ew_plan_image, p->n_images + 1u);
    for (uint32_t i = 0; p->images && i < p->n_images; i++) {
        p->images[i].source = ew_rd_str(r, &p->arena);
        p->images[i].defines = ew_rd_str(r, &p->arena);
        p->images[i].bytes = ew_rd_u64(r);
    }
    if (r->bad || !p->images)
        return bad(err, "table of kernels", 0);
    for (uint32_t i = 0; i < p->n_images; i++) {
        const uint64_t pad = -(uint64_t)(r->at - base) & (EW_PLAN_ALIGN - 1);
        const uint64_t left = (uint64_t)(r->end - r->at);

        if (pad > left || p->images[i].bytes > left - pad)
            return bad(err, "kernel", i);
        p->images[i].code = r->at + pad;
        r->at += pad + p->images[i].bytes;
    }
    return EW_STATUS_OK;
}

static ew_status read_device(struct reader *rd, ew_error *err)
{
    const uint8_t *at = rd->bytes + rd->off[EW_PLAN_KERNELS];
    struct ew_rd r = { at, at + rd->len[EW_PLAN_KERNELS], false };
    struct ew_plan_device *d = &rd->p->device;

    if (ew_rd_u8(&r)) {
        d->name = ew_rd_str(&r, &rd->p->arena);
        d->sm = ew_rd_u32(&r);
        d->n_sm = ew_rd_u32(&r);
        d->shared_per_block = ew_rd_u32(&r);
        d->l2_bytes = ew_rd_u64(&r);
        d->scratch_bytes = ew_rd_u64(&r);
        d->counter_bytes = ew_rd_u64(&r);
        d->cublaslt = ew_rd_u32(&r);
        d->split_norms = ew_rd_u8(&r) != 0;
        for (int i = 0; i < EW_PLAN_STEP_ROWS; i++) {
            d->step[i].one_kernel = ew_rd_u8(&r) != 0;
            d->step[i].graph_ns = ew_rd_u64(&r);
            d->step[i].one_kernel_ns = ew_rd_u64(&r);
        }
        if (r.bad || d->scratch_bytes > SIZE_MAX / 2 || d->counter_bytes > SIZE_MAX / 2)
            return bad(err, "device", 0);
        EW_TRY(read_images(rd, &r, at, err));
    }
    if (r.bad || r.at != r.end)
        return ew_fail(err, EW_STATUS_MALFORMED, "%zu bytes are left over", (size_t)(r.end - r.at));
    return EW_STATUS_OK;
}

static ew_status read_tactics(struct reader *rd, ew_error *err)
{
    const uint8_t *at = rd->bytes + rd->off[EW_PLAN_TACTICS];
    struct ew_rd r = { at, at + rd->len[EW_PLAN_TACTICS], false };
    struct ew_plan *p = rd->p;

    p->n_tactics = ew_rd_count(&r, 30);
    p->tactics = ew_arena_new(&p->arena, struct ew_plan_tactic, p->n_tactics + 1u);
    for (uint32_t i = 0; p->tactics && i < p->n_tactics; i++) {
        struct ew_plan_tactic *t = &p->tactics[i];
        const unsigned dtype = ew_rd_u8(&r);

        if (!read_format(&r, &t->format))
            return bad(err, "tactic", i);
        t->x_quant = ew_rd_u8(&r);
        t->n = ew_rd_u64(&r);
        t->k = ew_rd_u64(&r);
        t->glu = ew_rd_u8(&r) != 0;
        t->n_uses = ew_rd_u32(&r);
        t->m = read_per_profile(rd, &r);
        t->chosen = ew_rd_u32(&r);
        t->n_candidates = ew_rd_count(&r, 4);
        t->candidates = ew_arena_new(&p->arena, struct ew_plan_candidate, t->n_candidates + 1u);
        if (r.bad || !t->candidates || t->chosen >= t->n_candidates || dtype >= EW_DTYPE_COUNT ||
            t->x_quant >= EW_XQ_COUNT)
            return bad(err, "tactic", i);
        t->dtype = (ew_dtype)dtype;
        for (uint32_t c = 0; c < t->n_candidates; c++) {
            t->candidates[c].kernel = ew_rd_str(&r, &p->arena);
            t->candidates[c].ns = read_per_profile(rd, &r);
        }
        if (!read_switches(rd, &r, t))
            return bad(err, "tactic", i);
    }
    if (r.bad || !p->tactics || r.at != r.end)
        return ew_fail(err, EW_STATUS_MALFORMED, "table of %u tactics", p->n_tactics);
    return EW_STATUS_OK;
}

/* Layouts of a device have no kernel that the CPU could run. */
static ew_status check_layouts(const struct ew_plan *p, ew_error *err)
{
    for (uint32_t i = 0; i < p->n_tensors && !p->device.name; i++)
        if (p->tensors[i].packed.kernel && !p->tensors[i].packed.kernel->run)
            return ew_fail(err, EW_STATUS_MALFORMED,
                           "weight '%s' is packed for a GPU (%s), the engine is for the CPU",
                           p->tensors[i].name, p->tensors[i].packed.kernel->name);
    return EW_STATUS_OK;
}

static ew_status within(ew_status st, unsigned s, ew_error *err)
{
    if (st)
        ew_error_within(err, "section %s", ew_plan_section_text(s));
    return st;
}

static ew_status read_all(struct reader *rd, ew_error *err)
{
    EW_TRY(within(read_meta(rd, err), EW_PLAN_META, err));
    EW_TRY(within(read_graph(rd, err), EW_PLAN_GRAPH, err));
    EW_TRY(within(ew_plan_link(rd->p, err), EW_PLAN_GRAPH, err));
    EW_TRY(within(ew_plan_check_packed(rd->p, err), EW_PLAN_GRAPH, err));
    EW_TRY(within(read_memory(rd, err), EW_PLAN_MEMORY, err));
    EW_TRY(within(ew_plan_check_profiles(rd->p, err), EW_PLAN_MEMORY, err));
    EW_TRY(within(read_tactics(rd, err), EW_PLAN_TACTICS, err));
    EW_TRY(within(read_device(rd, err), EW_PLAN_KERNELS, err));
    return within(check_layouts(rd->p, err), EW_PLAN_KERNELS, err);
}

ew_status ew_plan_read(const uint8_t *bytes, size_t len, uint32_t cpu_flags, struct ew_plan *p,
                       ew_error *err)
{
    struct reader rd = { .bytes = bytes, .cpu_flags = cpu_flags, .p = p };
    ew_status st;

    ew_plan_init(p);
    for (unsigned s = 0; s < EW_PLAN_N_SECTIONS; s++)
        if (!ew_plan_section_range(bytes, len, s, &rd.off[s], &rd.len[s]))
            return ew_fail(err, EW_STATUS_MALFORMED, "header makes no sense");
    p->weights_bytes = rd.len[EW_PLAN_WEIGHTS];
    p->weights = bytes + rd.off[EW_PLAN_WEIGHTS];
    st = read_all(&rd, err);
    if (st)
        ew_plan_deinit(p);
    return st;
}
