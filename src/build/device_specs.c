/* build/device_specs.c - the distinct kernels that launches ask for, and their compilation on all
 * threads. */
#include <stdio.h>

#include "backend/cuda/cuda.h"
#include "backend/cuda/nvrtc_cache.h"
#include "build/build_impl.h"

void ew_build_specs_init(struct ew_build_specs *s)
{
    memset(s, 0, sizeof(*s));
    ew_map_init(&s->map, EW_MEM_BUILD);
}

void ew_build_specs_deinit(struct ew_build_specs *s)
{
    for (size_t i = 0; i < s->n; i++) {
        ew_mem_free(s->at[i].key);
        ew_mem_free(s->at[i].code);
    }
    ew_mem_free(s->at);
    ew_map_deinit(&s->map);
    memset(s, 0, sizeof(*s));
}

void ew_build_specs_see(void *ctx, const struct ew_cuda_launch *l)
{
    struct ew_build_specs *s = ctx;
    char key[EW_CUDA_DEFINES_CAP + 128];
    int len;
    uint32_t i;
    char *own;

    if (l->product) /* no kernel of ours */
        return;
    len = snprintf(key, sizeof(key), "%s %s", l->spec.source, l->spec.defines);
    if (s->no_memory || ew_map_find(&s->map, key, (size_t)len, &i))
        return;
    if (s->n == s->cap) {
        const size_t cap = s->cap ? s->cap * 2 : 64;
        struct ew_build_spec *more = ew_mem_resize(EW_MEM_BUILD, s->at, cap, sizeof(*more));

        s->no_memory = !more;
        if (!more)
            return;
        s->at = more;
        s->cap = cap;
    }
    own = ew_mem_strdup(EW_MEM_BUILD, key); /* the map keeps no copy */
    s->no_memory = !own || !ew_map_put(&s->map, own, (size_t)len, (uint32_t)s->n);
    if (s->no_memory) {
        ew_mem_free(own);
        return;
    }
    s->at[s->n++] = (struct ew_build_spec){ .source = l->spec.source,
                                            .key = own,
                                            .defines = own + strlen(l->spec.source) + 1,
                                            .entry = l->spec.entry };
}

void ew_build_specs_take(struct ew_build_specs *s, const struct ew_build_specs *from)
{
    for (size_t i = 0; i < s->n; i++)
        for (size_t k = 0; k < from->n && !s->at[i].code; k++) {
            const struct ew_build_spec *f = &from->at[k];

            if (!f->code || strcmp(f->source, s->at[i].source) != 0 ||
                strcmp(f->defines, s->at[i].defines) != 0)
                continue;
            s->at[i].code = ew_mem_alloc(EW_MEM_BUILD, f->bytes);
            if (!s->at[i].code)
                return; /* compiled anew, or fails there */
            memcpy(s->at[i].code, f->code, f->bytes);
            s->at[i].bytes = f->bytes;
        }
}

struct job {
    struct ew_build *b;
    struct ew_build_specs *s;
    size_t next, done;
    uint32_t status; /* the first failure */
    ew_error err;
};

static void fail_once(struct job *j, const ew_error *err)
{
    uint32_t none = 0;

    if (__atomic_compare_exchange_n(&j->status, &none, (uint32_t)err->status, false,
                                    __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
        j->err = *err; /* read after the run */
}

static void compile_body(void *arg, unsigned i, unsigned n)
{
    struct job *j = arg;
    size_t at;

    (void)n;
    while (!__atomic_load_n(&j->status, __ATOMIC_ACQUIRE) &&
           (at = __atomic_fetch_add(&j->next, 1, __ATOMIC_RELAXED)) < j->s->n) {
        struct ew_build_spec *sp = &j->s->at[at];
        struct ew_cuda_spec spec = { .source = sp->source, .entry = sp->entry };
        ew_error err = { 0 };

        memcpy(spec.defines, sp->defines, strlen(sp->defines) + 1);
        if (!sp->code &&
            ew_nvrtc_compile_in(j->b->opts.kernel_cache, j->b->cuda->compiler, &spec,
                                j->b->cuda->chip.sm, &sp->code, &sp->bytes, NULL, &err))
            fail_once(j, &err);
        __atomic_fetch_add(&j->done, 1, __ATOMIC_RELAXED);
        if (i == 0 && /* the caller's thread */
            ew_build_step(j->b, "compile kernels", __atomic_load_n(&j->done, __ATOMIC_RELAXED),
                          j->s->n))
            fail_once(j, j->b->err);
    }
}

ew_status ew_build_specs_compile(struct ew_build *b, struct ew_build_specs *s)
{
    struct job j = { .b = b, .s = s };

    if (s->no_memory)
        return ew_fail(b->err, EW_STATUS_NO_MEMORY, "CUDA kernels");
    ew_pool_run(b->pool, compile_body, &j);
    if (j.status && j.err.status != EW_STATUS_CANCELLED)
        return ew_fail(b->err, (ew_status)j.status, "%s", j.err.text);
    return (ew_status)j.status;
}
