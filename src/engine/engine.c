/* engine/engine.c - opening an engine file: map, verify, read, and work out every output's shapes.
 */
#include "engine/engine_impl.h"

#include "backend/cuda/cuda.h"
#include "base/memory.h"
#include "cpu/cpu.h"
#include "plan/reader.h"

/* False: no memory. */
static bool opts_read(struct ew_engine *e, const ew_engine_opts *opts)
{
    ew_engine_opts o = EW_ENGINE_OPTS_INIT;

    if (opts)
        memcpy(&o, opts, opts->struct_size < sizeof(o) ? opts->struct_size : sizeof(o));
    e->n_threads = o.n_threads ? o.n_threads : ew_os_threads();
    if (o.logger) {
        e->logger = *o.logger;
        e->has_logger = true;
    }
    if (o.device)
        e->device_name = ew_mem_strdup(EW_MEM_ENGINE, o.device);
    if (o.profiler)
        e->profiler = ew_mem_strdup(EW_MEM_ENGINE, o.profiler);
    return (!o.device || e->device_name) && (!o.profiler || e->profiler);
}

static struct ew_tensor_info *info_at(const struct ew_engine *e, uint32_t profile, uint32_t i)
{
    return &e->info[(size_t)profile * (e->plan.n_inputs + e->plan.n_outputs) + i];
}

static void info_inputs(struct ew_engine *e, uint32_t profile)
{
    const struct ew_plan *p = &e->plan;

    for (uint32_t i = 0; i < p->n_inputs; i++) {
        const struct ew_plan_tensor *t = &p->tensors[p->inputs[i]];
        const struct ew_plan_range *r = &p->profiles[profile].inputs[i];
        ew_tensor_info *ti = info_at(e, profile, i);

        *ti = (ew_tensor_info){
            .name = t->name, .dtype = t->dtype, .n_dims = (uint32_t)t->n_dims, .is_input = true
        };
        memcpy(ti->min, r->min, sizeof(ti->min));
        memcpy(ti->opt, r->opt, sizeof(ti->opt));
        memcpy(ti->max, r->max, sizeof(ti->max));
    }
}

/* Shapes of the outputs at min, opt and max; -1 where data decides. */
static ew_status info_outputs(struct ew_engine *e, uint32_t profile, enum ew_plan_which which,
                              ew_error *err)
{
    const struct ew_plan *p = &e->plan;
    struct ew_shapes s;
    struct ew_arena a;
    ew_status st;

    ew_arena_init(&a, EW_MEM_ENGINE, 0);
    st = ew_plan_profile_shapes(p, profile, which, &a, &s, err);
    for (uint32_t o = 0; o < p->n_outputs && !st; o++) {
        const struct ew_plan_tensor *t = &p->tensors[p->outputs[o].tensor];
        const struct ew_type *type = &s.type[p->outputs[o].tensor];
        const bool known = type->dtype != EW_DTYPE_NONE;
        ew_tensor_info *ti = info_at(e, profile, p->n_inputs + o);
        int64_t *dims = which == EW_PLAN_MIN ? ti->min : which == EW_PLAN_OPT ? ti->opt : ti->max;

        ti->name = p->outputs[o].name;
        ti->dtype = known ? type->dtype : t->dtype;
        ti->n_dims = (uint32_t)(known ? type->n_dims : t->n_dims);
        ti->alias_of =
            p->outputs[o].alias == EW_PLAN_NONE ? NULL : p->tensors[p->outputs[o].alias].name;
        for (uint32_t d = 0; d < ti->n_dims; d++)
            dims[d] = known ? type->dim[d] : -1;
    }
    e->is_dynamic = e->is_dynamic || (!st && s.needs_data);
    ew_arena_deinit(&a);
    return st;
}

static ew_status info_fill(struct ew_engine *e, ew_error *err)
{
    const struct ew_plan *p = &e->plan;

    e->info = ew_mem_calloc(EW_MEM_ENGINE, (size_t)p->n_profiles * (p->n_inputs + p->n_outputs) + 1,
                            sizeof(*e->info));
    if (!e->info)
        return ew_fail(err, EW_STATUS_NO_MEMORY, "engine tables");
    for (uint32_t i = 0; i < p->n_profiles; i++) {
        info_inputs(e, i);
        EW_TRY(info_outputs(e, i, EW_PLAN_MIN, err));
        EW_TRY(info_outputs(e, i, EW_PLAN_OPT, err));
        EW_TRY(info_outputs(e, i, EW_PLAN_MAX, err));
        if (p->profiles[i].block_bytes > e->block_bytes)
            e->block_bytes = (size_t)p->profiles[i].block_bytes;
    }
    for (uint32_t i = 0; i < p->n_inputs + p->n_outputs; i++) {
        const char *name = info_at(e, 0, i)->name;
        uint32_t taken;

        if (ew_map_find(&e->names, name, strlen(name), &taken))
            continue; /* an input that is an output too goes by its name as an input */
        if (!ew_map_put(&e->names, name, strlen(name), i))
            return ew_fail(err, EW_STATUS_NO_MEMORY, "engine tables");
    }
    return EW_STATUS_OK;
}

static ew_status check_embedding(const struct ew_plan *p, ew_error *err)
{
    const struct ew_plan_tensor *t;

    if (p->embedding == EW_PLAN_NONE)
        return EW_STATUS_OK;
    t = &p->tensors[p->embedding];
    if (t->n_dims != 2 || t->packed.glu || (t->packed.kernel && t->packed.n_experts != 1) ||
        (t->packed.kernel &&
         (t->packed.n != (uint64_t)t->dim[0] || t->packed.k != (uint64_t)t->dim[1])) ||
        (t->dtype != EW_DTYPE_F32 && t->dtype != EW_DTYPE_F16 && t->dtype != EW_DTYPE_BF16))
        return ew_fail(err, EW_STATUS_MALFORMED, "embedding '%s' is not a table of floats",
                       t->name);
    return EW_STATUS_OK;
}

/* The device that the options name, or the first of the kind that the engine was built for. */
static ew_status open_device(struct ew_engine *e, ew_error *err)
{
    const char *name = e->device_name;
    int index = 0;

    if (name && strcmp(name, "none") == 0) {
        e->only_looked_at = true;
        return EW_STATUS_OK;
    }
    const bool is_cuda = name && ew_cuda_device_parse(name, &index);

    if (name && !is_cuda && strcmp(name, "cpu") != 0)
        return ew_fail(err, EW_STATUS_INVALID_ARG, "device '%s' is none of cpu, cuda, cuda:N",
                       name);
    if (!e->plan.device.name)
        return is_cuda
                   ? ew_fail(err, EW_STATUS_MISMATCH,
                             "engine was built for the CPU, not for %s: build it with that", name)
                   : EW_STATUS_OK;
    if (name && !is_cuda)
        return ew_fail(err, EW_STATUS_MISMATCH, "engine was built for %s (sm_%u), not for the CPU",
                       e->plan.device.name, e->plan.device.sm);
    if (e->is_dynamic)
        return ew_fail(err, EW_STATUS_UNSUPPORTED,
                       "shapes depend on data: the CUDA backend runs fixed lists alone");
    e->backend = ew_backend_cuda();
    return ew_cuda_open(&e->plan, index, e->profiler, e->has_logger ? &e->logger : NULL, &e->device,
                        err);
}

static ew_status engine_start(struct ew_engine *e, ew_error *err)
{
    struct ew_cpu_info cpu;
    ew_status st;

    ew_cpu_detect(&cpu);
    st = ew_plan_verify(e->bytes, e->len, e->n_threads, err);
    if (!st)
        st = ew_plan_read(e->bytes, e->len, cpu.flags, &e->plan, err);
    if (!st)
        st = check_embedding(&e->plan, err);
    if (!st)
        st = info_fill(e, err);
    if (!st)
        st = open_device(e, err);
    return st;
}

static struct ew_engine *engine_new(const ew_engine_opts *opts)
{
    struct ew_engine *e = ew_mem_calloc(EW_MEM_ENGINE, 1, sizeof(*e));

    if (!e)
        return NULL;
    ew_plan_init(&e->plan);
    ew_map_init(&e->names, EW_MEM_ENGINE);
    if (!opts_read(e, opts)) {
        ew_engine_destroy(e);
        return NULL;
    }
    e->backend = ew_backend_cpu();
    return e;
}

ew_status ew_engine_open(const char *path, const ew_engine_opts *opts, ew_engine **out,
                         ew_error *err)
{
    struct ew_engine *e;
    ew_status st;

    *out = NULL;
    e = engine_new(opts);
    if (!e)
        return ew_fail(err, EW_STATUS_NO_MEMORY, "engine object");
    st = ew_file_map_open(&e->map, path, err);
    if (!st) {
        e->bytes = e->map.bytes;
        e->len = e->map.len;
        ew_file_map_will_need(&e->map, 0, e->map.len);
        st = engine_start(e, err);
        if (st)
            ew_error_within(err, "%s", path);
    }
    if (st) {
        ew_engine_destroy(e);
        return st;
    }
    *out = e;
    return EW_STATUS_OK;
}

ew_status ew_engine_load(const void *plan, size_t plan_bytes, const ew_engine_opts *opts,
                         ew_engine **out, ew_error *err)
{
    struct ew_engine *e;
    ew_status st;

    *out = NULL;
    if (!plan || (uintptr_t)plan % EW_PLAN_ALIGN)
        return ew_fail(err, EW_STATUS_INVALID_ARG, "plan at %p: must be aligned to %d bytes", plan,
                       EW_PLAN_ALIGN);
    e = engine_new(opts);
    if (!e)
        return ew_fail(err, EW_STATUS_NO_MEMORY, "engine object");
    e->bytes = plan;
    e->len = plan_bytes;
    st = engine_start(e, err);
    if (st) {
        ew_engine_destroy(e);
        return st;
    }
    *out = e;
    return EW_STATUS_OK;
}

void ew_engine_destroy(ew_engine *e)
{
    if (!e)
        return;
    if (e->device)
        e->device->ops->close(e->device);
    ew_mem_free(e->device_name);
    ew_mem_free(e->profiler);
    ew_mem_free(e->info);
    ew_map_deinit(&e->names);
    ew_plan_deinit(&e->plan);
    ew_file_map_close(&e->map);
    ew_mem_free(e);
}

const char *ew_engine_device(const ew_engine *e)
{
    return e->device ? e->device->text : "cpu";
}

const ew_memory *ew_engine_memory(const ew_engine *e)
{
    return e->device ? &e->device->memory : ew_memory_of_host();
}

const char *ew_engine_llm_config(const ew_engine *e)
{
    return e->plan.llm_config;
}

uint32_t ew_engine_n_profiles(const ew_engine *e)
{
    return e->plan.n_profiles;
}

const char *ew_engine_profile_name(const ew_engine *e, uint32_t profile)
{
    return profile < e->plan.n_profiles ? e->plan.profiles[profile].name : NULL;
}

uint32_t ew_engine_n_tensors(const ew_engine *e)
{
    return e->plan.n_inputs + e->plan.n_outputs;
}

ew_status ew_engine_get_tensor(const ew_engine *e, uint32_t i, uint32_t profile,
                               ew_tensor_info *out)
{
    if (i >= ew_engine_n_tensors(e) || profile >= e->plan.n_profiles)
        return EW_STATUS_NOT_FOUND;
    *out = *info_at(e, profile, i);
    return EW_STATUS_OK;
}

/* Experts lie one after the other: a row reads top_k of them. */
static uint64_t input_bytes(const struct ew_plan *p, const struct ew_plan_node *n, uint32_t i)
{
    const struct ew_plan_tensor *t = &p->tensors[n->in[i]];

    if (n->op == EW_OP_MOE && i >= 2 && t->dim[0] > 0 && n->attrs.moe.top_k < t->dim[0])
        return t->bytes / (uint64_t)t->dim[0] * (uint64_t)n->attrs.moe.top_k;
    return t->bytes;
}

uint64_t ew_engine_step_bytes(const ew_engine *e)
{
    const struct ew_plan *p = &e->plan;
    uint64_t sum = 0;

    for (uint32_t n = 0; n < p->n_nodes; n++)
        for (uint32_t i = 0; i < p->nodes[n].n_in; i++)
            if (p->nodes[n].in[i] != EW_PLAN_NONE &&
                p->tensors[p->nodes[n].in[i]].kind == EW_PLAN_CONST)
                sum += input_bytes(p, &p->nodes[n], i);
    return sum;
}

/* Weights of a constant that a row is multiplied with. */
static uint64_t input_macs(const struct ew_plan *p, const struct ew_plan_node *n, uint32_t i)
{
    const struct ew_plan_tensor *t = n->in[i] == EW_PLAN_NONE ? NULL : &p->tensors[n->in[i]];
    uint64_t count = 1;

    if (!t || t->kind != EW_PLAN_CONST || t->n_dims < 2)
        return 0;
    for (int d = 0; d < t->n_dims; d++)
        count *= t->dim[d] > 0 ? (uint64_t)t->dim[d] : 0;
    if (n->op == EW_OP_MOE && t->dim[0] > 0 && n->attrs.moe.top_k < t->dim[0])
        return count / (uint64_t)t->dim[0] * (uint64_t)n->attrs.moe.top_k;
    return count;
}

uint64_t ew_engine_step_macs(const ew_engine *e)
{
    const struct ew_plan *p = &e->plan;
    uint64_t sum = 0;

    for (uint32_t n = 0; n < p->n_nodes; n++) {
        const struct ew_plan_node *node = &p->nodes[n];

        if (node->op == EW_OP_LINEAR || node->op == EW_OP_MATMUL || node->op == EW_OP_GEMM)
            sum += input_macs(p, node, 1);
        if (node->op == EW_OP_MOE) /* up and gate, down */
            sum += input_macs(p, node, 2) + input_macs(p, node, 3);
    }
    return sum;
}

uint32_t ew_engine_embed_rows(const ew_engine *e)
{
    return e->plan.embedding == EW_PLAN_NONE ? 0
                                             : (uint32_t)e->plan.tensors[e->plan.embedding].dim[0];
}

ew_status ew_engine_embed(const ew_engine *e, int32_t id, float *out)
{
    const struct ew_plan_tensor *t;
    size_t k;

    if (e->plan.embedding == EW_PLAN_NONE)
        return EW_STATUS_INVALID_ARG;
    t = &e->plan.tensors[e->plan.embedding];
    if (id < 0 || id >= t->dim[0])
        return EW_STATUS_INVALID_ARG;
    k = (size_t)t->dim[1];
    if (t->packed.kernel)
        t->packed.kernel->unpack_row(out, t->data, &t->packed.format, (size_t)t->packed.n, k,
                                     (size_t)id);
    else
        ew_convert_floats(out, EW_DTYPE_F32,
                          (const uint8_t *)t->data + (size_t)id * k * (ew_dtype_bits(t->dtype) / 8),
                          t->dtype, k);
    return EW_STATUS_OK;
}
