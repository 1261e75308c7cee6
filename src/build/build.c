/* build/build.c - the stages of a build in order, and the two places its bytes can go. */
#include "build/build_impl.h"

#include "base/json.h"
#include "base/log.h"
#include "base/size.h"
#include "os/os.h"
#include "pass/pass.h"
#include "plan/codec.h"

ew_status ew_build_step(struct ew_build *b, const char *stage, uint64_t done, uint64_t total)
{
    if (b->opts.progress.step && !b->opts.progress.step(b->opts.progress.ctx, stage, done, total))
        return ew_fail(b->err, EW_STATUS_CANCELLED, "build cancelled at '%s', %llu of %llu", stage,
                       (unsigned long long)done, (unsigned long long)total);
    return EW_STATUS_OK;
}

ew_status ew_build_meta(struct ew_build *b)
{
    const ew_build_opts *o = &b->opts;
    struct ew_plan *p = &b->plan;
    json_t *j =
        json_pack("{s:s,s:s,s:s,s:s,s:s,s:s,s:s,s:i,s:{s:I,s:I,s:I,s:I,s:s,s:s}}", "name", p->name,
                  "edgewise", EW_VERSION_STRING, "arch", ew_cpu_arch(), "cpu_level",
                  ew_cpu_level_text(p->cpu_need), "cpu_vendor", b->cpu.vendor, "cpu_model",
                  b->cpu.model, "device", p->device.name ? p->device.name : "cpu", "n_threads",
                  (int)ew_pool_threads(b->pool), "options", "flags", (json_int_t)o->flags,
                  "max_batch", (json_int_t)o->max_batch, "max_input_len",
                  (json_int_t)o->max_input_len, "max_kv_len", (json_int_t)o->max_kv_len, "kv_dtype",
                  ew_dtype_text(o->kv_dtype), "cpu_level", o->cpu_level ? o->cpu_level : "native");
    char *text = ew_plan_json_text(j, JSON_COMPACT | JSON_SORT_KEYS, EW_MEM_BUILD);

    json_decref(j);
    p->meta = text ? ew_arena_strdup(&p->arena, text) : NULL;
    ew_mem_free(text);
    return p->meta ? EW_STATUS_OK : ew_fail(b->err, EW_STATUS_NO_MEMORY, "engine META");
}

static ew_status start(struct ew_build *b, struct ew_graph *g, const ew_build_opts *opts,
                       ew_error *err)
{
    const ew_build_opts none = EW_BUILD_OPTS_INIT;
    uint32_t mask;

    memset(b, 0, sizeof(*b));
    b->opts = none;
    if (opts)
        memcpy(&b->opts, opts,
               opts->struct_size < sizeof(b->opts) ? opts->struct_size : sizeof(b->opts));
    b->graph = g;
    b->err = err;
    ew_plan_init(&b->plan);
    ew_cpu_detect(&b->cpu);
    if (!ew_cpu_level_mask(b->opts.cpu_level ? b->opts.cpu_level : "native", &mask))
        return ew_fail(err, EW_STATUS_INVALID_ARG, "CPU level '%s' is unknown", b->opts.cpu_level);
    b->cpu_flags = b->cpu.flags & mask;
    EW_TRY(ew_build_device_open(b));
    return ew_pool_create(b->opts.n_threads, &b->pool, err);
}

/* An fp8 cache with scales of 1 loses what lies past 448 and below 2^-9. */
static void warn_no_kv_scales(const struct ew_build *b)
{
    for (const struct ew_node *n = b->graph->head; n; n = n->next) {
        if (n->op != EW_OP_KV_ATTENTION || n->in[3]->type.dtype != EW_DTYPE_F8E4M3 ||
            (n->n_in > 12 && n->in[12]))
            continue;
        ew_log(b->opts.logger, EW_LOG_WARN,
               "node '%s': an fp8 cache, but the model has no k_scale and v_scale: 1.0 is taken",
               n->name);
        return; /* the others will be like it */
    }
}

static bool has_f32_cache(const struct ew_graph *g)
{
    for (const struct ew_node *n = g->head; n; n = n->next)
        if (n->op == EW_OP_KV_ATTENTION && n->in[3]->type.dtype == EW_DTYPE_F32)
            return true;
    return false;
}

static ew_status prepare(struct ew_build *b)
{
    EW_TRY(ew_build_step(b, "optimise graph", 0, 1));
    if (b->cuda && b->opts.kv_dtype == EW_DTYPE_NONE && has_f32_cache(b->graph))
        b->opts.kv_dtype = EW_DTYPE_F16;
    if (b->opts.kv_dtype != EW_DTYPE_NONE)
        EW_TRY(ew_pass_set_kv_dtype(b->graph, b->opts.kv_dtype, b->err));
    warn_no_kv_scales(b);
    EW_TRY(ew_passes_run(b->graph, b->opts.flags & EW_BUILD_NO_FUSION ? EW_PASSES_NO_FUSION : 0,
                         b->opts.logger, b->err));
    EW_TRY(ew_graph_verify(b->graph, b->err));
    EW_TRY(ew_build_flatten(b));
    EW_TRY(ew_build_profiles(b));
    EW_TRY(ew_build_tactics(b));
    EW_TRY(ew_plan_check_packed(&b->plan, b->err));
    EW_TRY(ew_build_step(b, "plan memory", 0, 1));
    EW_TRY(ew_build_memory_plan(b));
    EW_TRY(ew_build_place_weights(b));
    if (b->cuda)
        EW_TRY(ew_build_device_kernels(b));
    return ew_build_meta(b);
}

static ew_status write_out(struct ew_build *b, const struct ew_plan_sink *sink)
{
    struct ew_plan_writer *w = NULL;
    ew_status st = ew_plan_writer_open(&b->plan, sink, &w, b->err);

    if (st)
        return st;
    st = ew_build_weights(b, w);
    if (st) {
        ew_plan_writer_abandon(w);
        return st;
    }
    return ew_plan_writer_close(w, b->err);
}

static void finish(struct ew_build *b)
{
    ew_pool_destroy(b->pool);
    ew_build_device_close(b);
    ew_mem_free(b->consts);
    ew_plan_deinit(&b->plan);
}

static ew_status file_write(void *ctx, const void *bytes, size_t len, ew_error *err)
{
    return ew_file_writer_write(ctx, bytes, len, err);
}

static ew_status file_patch(void *ctx, const void *bytes, size_t len, uint64_t off, ew_error *err)
{
    return ew_file_writer_pwrite(ctx, bytes, len, off, err);
}

ew_status ew_build_file(ew_graph *g, const ew_build_opts *opts, const char *path, ew_error *err)
{
    struct ew_file_writer *file = NULL;
    struct ew_build b;
    ew_status st = start(&b, g, opts, err);

    if (!st)
        st = prepare(&b);
    if (!st)
        st = ew_file_writer_open(&file, path, err);
    if (!st) {
        const struct ew_plan_sink sink = { file, file_write, file_patch };

        st = write_out(&b, &sink);
        if (st)
            ew_file_writer_abort(file);
        else
            st = ew_file_writer_commit(file, err);
    }
    if (!st)
        ew_log(b.opts.logger, EW_LOG_INFO, "%s: %llu bytes of weights", path,
               (unsigned long long)b.plan.weights_bytes);
    finish(&b);
    return st;
}

/* Memory sink: page-aligned, grown by doubling. */
struct mem_sink {
    uint8_t *bytes;
    size_t len, cap;
};

static ew_status mem_write(void *ctx, const void *bytes, size_t len, ew_error *err)
{
    struct mem_sink *m = ctx;
    size_t need;

    if (!ew_size_add(m->len, len, &need))
        return ew_fail(err, EW_STATUS_LIMIT, "engine in memory");
    if (need > m->cap) {
        const size_t cap = need > m->cap * 2 ? ew_align_up(need, EW_PLAN_PAGE) : m->cap * 2;
        uint8_t *more = ew_mem_alloc_aligned(EW_MEM_BUILD, cap, EW_PLAN_PAGE);

        if (!more)
            return ew_fail(err, EW_STATUS_NO_MEMORY, "engine of %zu bytes in memory", cap);
        if (m->len)
            memcpy(more, m->bytes, m->len);
        ew_mem_free_aligned(m->bytes);
        m->bytes = more;
        m->cap = cap;
    }
    memcpy(m->bytes + m->len, bytes, len);
    m->len = need;
    return EW_STATUS_OK;
}

static ew_status mem_patch(void *ctx, const void *bytes, size_t len, uint64_t off, ew_error *err)
{
    struct mem_sink *m = ctx;

    if (off > m->len || len > m->len - off)
        return ew_fail(err, EW_STATUS_INVALID_ARG, "patch at %llu of %zu", (unsigned long long)off,
                       m->len);
    memcpy(m->bytes + off, bytes, len);
    return EW_STATUS_OK;
}

ew_status ew_build_memory(ew_graph *g, const ew_build_opts *opts, void **bytes, size_t *n_bytes,
                          ew_error *err)
{
    struct mem_sink m = { 0 };
    const struct ew_plan_sink sink = { &m, mem_write, mem_patch };
    struct ew_build b;
    ew_status st = start(&b, g, opts, err);

    *bytes = NULL;
    *n_bytes = 0;
    if (!st)
        st = prepare(&b);
    if (!st)
        st = write_out(&b, &sink);
    finish(&b);
    if (st) {
        ew_mem_free_aligned(m.bytes);
        return st;
    }
    *bytes = m.bytes;
    *n_bytes = m.len;
    return EW_STATUS_OK;
}

void ew_plan_free(void *bytes)
{
    ew_mem_free_aligned(bytes);
}
