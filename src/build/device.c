/* build/device.c - a build for a GPU: which one, and the order of its stages. Packing, profiles and
 * the memory plan are the CPU's. */
#include "backend/cuda/cuda.h"
#include "build/build_impl.h"

ew_status ew_build_device_open(struct ew_build *b)
{
    const char *name = b->opts.device;
    struct ew_plan_device *d = &b->plan.device;
    int index;

    if (!name || strcmp(name, "cpu") == 0)
        return EW_STATUS_OK;
    if (!ew_cuda_device_parse(name, &index))
        return ew_fail(b->err, EW_STATUS_INVALID_ARG, "device '%s' is none of cpu, cuda, cuda:N",
                       name);
    EW_TRY(ew_cuda_bare(index, true, &b->cuda, b->err));
    if (!ew_nvrtc_supports(b->cuda->compiler, b->cuda->chip.sm))
        return ew_fail(b->err, EW_STATUS_UNSUPPORTED,
                       "CUDA: this NVRTC (CUDA %d.%d) makes no code for sm_%u",
                       ew_nvrtc_version(b->cuda->compiler) / 1000,
                       ew_nvrtc_version(b->cuda->compiler) % 1000 / 10, b->cuda->chip.sm);
    d->name = ew_arena_strdup(&b->plan.arena, b->cuda->device->name);
    d->sm = b->cuda->chip.sm;
    d->n_sm = b->cuda->chip.n_sm;
    d->shared_per_block = b->cuda->chip.shared_per_block;
    d->l2_bytes = b->cuda->chip.l2_bytes;
    return d->name ? EW_STATUS_OK : ew_fail(b->err, EW_STATUS_NO_MEMORY, "CUDA device");
}

void ew_build_device_close(struct ew_build *b)
{
    ew_cuda_close(b->cuda);
    b->cuda = NULL;
}

/* Compiled code goes into the plan; the specs lose it. */
static ew_status keep_images(struct ew_build *b, struct ew_build_specs *s)
{
    struct ew_plan *p = &b->plan;

    p->images = ew_arena_new(&p->arena, struct ew_plan_image, s->n + 1u);
    if (!p->images)
        return ew_fail(b->err, EW_STATUS_NO_MEMORY, "CUDA kernels");
    for (size_t i = 0; i < s->n; i++) {
        struct ew_plan_image *m = &p->images[i];
        void *code = ew_arena_alloc(&p->arena, s->at[i].bytes ? s->at[i].bytes : 1);

        m->source = ew_arena_strdup(&p->arena, s->at[i].source);
        m->defines = ew_arena_strdup(&p->arena, s->at[i].defines);
        if (!code || !m->source || !m->defines)
            return ew_fail(b->err, EW_STATUS_NO_MEMORY, "CUDA kernels");
        memcpy(code, s->at[i].code, s->at[i].bytes);
        m->code = code;
        m->bytes = s->at[i].bytes;
    }
    p->n_images = (uint32_t)s->n;
    return EW_STATUS_OK;
}

static ew_status time_step(struct ew_build *b)
{
    struct ew_plan *p = &b->plan;

    for (uint32_t i = 0; i < p->n_images; i++) {
        const struct ew_cuda_image image = { p->images[i].source, p->images[i].defines,
                                             p->images[i].code, (size_t)p->images[i].bytes };

        EW_TRY(ew_cuda_modules_add(b->cuda->modules, &image, b->err));
    }
    return ew_build_time_step(b);
}

static ew_status switches(struct ew_build *b, struct ew_build_specs *s)
{
    const bool timed = !(b->opts.flags & EW_BUILD_NO_TIMING);
    struct ew_timing_cache *tc = NULL;
    ew_status st;

    EW_TRY(ew_timing_cache_open(b->opts.timing_cache, b->opts.logger, &tc, b->err));
    st = ew_build_switches(b, tc, timed, s);
    if (!st && timed && b->opts.timing_cache)
        st = ew_timing_cache_save(tc, b->opts.timing_cache, b->err);
    ew_timing_cache_close(tc);
    return st;
}

ew_status ew_build_device_kernels(struct ew_build *b)
{
    struct ew_build_specs s, timed;
    ew_status st;

    /* First of all what cannot run is refused; only then anything is compiled or timed. */
    ew_build_specs_init(&s);
    st = ew_build_dry_opt(b, &s);
    ew_build_specs_deinit(&s);
    ew_build_specs_init(&timed);
    if (!st)
        st = switches(b, &timed);
    ew_build_specs_init(&s);
    if (!st)
        st = ew_build_dry_all(b, &s);
    ew_build_specs_take(&s, &timed);
    if (!st)
        st = ew_build_specs_compile(b, &s);
    if (!st)
        st = keep_images(b, &s);
    if (!st && (!(b->opts.flags & EW_BUILD_NO_TIMING) ||
                (b->opts.tactic && ew_build_is_step_tactic(b->opts.tactic))))
        st = time_step(b);
    ew_build_device_close(b); /* its table of kernels borrows code of `timed` */
    ew_build_specs_deinit(&timed);
    ew_build_specs_deinit(&s);
    return st;
}
