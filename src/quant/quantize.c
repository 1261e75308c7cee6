/* quant/quantize.c - the order of the work: check, plan, then layer after layer into the output. */
#include "edgewise/quantize.h"

#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/log.h"
#include "cpu/cpu.h"
#include "os/os.h"
#include "quant/quant.h"

static ew_status check_source(struct ew_q_run *r)
{
    const json_t *text = json_object_get(r->config.root, "text_config");
    const json_t *q = json_object_get(r->config.root, "quantization_config");

    if (!q || json_is_null(q))
        q = json_object_get(text, "quantization_config");
    if (q && !json_is_null(q)) {
        const char *method = json_string_value(json_object_get(q, "quant_method"));

        return ew_fail(r->err, EW_STATUS_UNSUPPORTED, "%s: is quantised already (%s)", r->dir,
                       method ? method : "quantization_config");
    }
    return EW_STATUS_OK;
}

/* The fastest f32 kernel that this machine runs. */
static const struct ew_linear_kernel *choose_kernel(void)
{
    const struct ew_linear_kernel *best = NULL;
    struct ew_cpu_info cpu;
    size_t n;
    const struct ew_linear_kernel *const *all = ew_linear_kernels(&n);

    ew_cpu_detect(&cpu);
    for (size_t i = 0; i < n; i++)
        if (all[i]->weight_dtype == EW_DTYPE_F32 && (all[i]->cpu_need & ~cpu.flags) == 0)
            best = all[i];
    return best;
}

/* The group of a head or an embedding must divide too. */
static ew_status check_end(struct ew_q_run *r, struct ew_q_scheme *s, const char *name)
{
    const size_t k = (size_t)r->spec.hidden;
    const struct ew_st_tensor *src = r->head ? r->head : r->embed;

    s->format.scale_dtype = src->type.dtype;
    if (s->format.kind == EW_Q_NONE || k % ew_q_group(&s->format, k) == 0)
        return EW_STATUS_OK;
    return ew_fail(r->err, EW_STATUS_UNSUPPORTED,
                   "tensor '%s': group %zu does not divide its %zu columns", name, s->format.group,
                   k);
}

static ew_status open_run(struct ew_q_run *r)
{
    const ew_quantize_opts *raw = r->options->raw;
    struct ew_q_options *o = r->options;

    EW_TRY(ew_config_load(r->dir, &r->config, r->err));
    EW_TRY(check_source(r));
    EW_TRY(ew_decoder_spec_init(&r->spec, &r->config, raw->logger, r->err));
    EW_TRY(ew_safetensors_open_dir(r->dir, &r->st, r->err));
    EW_TRY(ew_q_find_names(r));
    EW_TRY(check_end(r, &o->lm_head, r->head_name));
    EW_TRY(check_end(r, &o->embedding, "embed_tokens"));
    r->write_head = r->spec.tied_head &&
                    (o->lm_head.format.kind != EW_Q_NONE || o->embedding.format.kind != EW_Q_NONE);
    EW_TRY(ew_pool_create(raw->n_threads, &r->pool, r->err));
    r->kernel = choose_kernel();
    r->report = json_array();
    return ew_q_plan(r);
}

static void close_run(struct ew_q_run *r)
{
    for (size_t i = 0; r->units && i < (size_t)r->spec.n_layers + 2; i++) {
        for (size_t j = 0; j < r->units[i].n_outs; j++)
            ew_mem_free(r->units[i].outs[j].data);
        ew_mem_free(r->units[i].outs);
    }
    json_decref(r->report);
    ew_pool_destroy(r->pool);
    ew_safetensors_close(r->st);
    ew_decoder_spec_deinit(&r->spec);
    ew_config_deinit(&r->config);
    ew_arena_deinit(&r->arena);
}

static ew_status tell(struct ew_q_run *r, uint64_t done)
{
    const ew_progress *p = &r->options->raw->progress;

    if (!p->step || p->step(p->ctx, "quantise layers", done, (uint64_t)r->spec.n_layers))
        return EW_STATUS_OK;
    return ew_fail(r->err, EW_STATUS_CANCELLED, "quantising was cancelled");
}

static ew_status run_all(struct ew_q_run *r, struct ew_q_sink *sink)
{
    EW_TRY(ew_q_ends_run(r, false));
    EW_TRY(ew_q_sink_write(sink, 0));
    for (int64_t i = 0; i < r->spec.n_layers; i++) {
        EW_TRY(tell(r, (uint64_t)i));
        EW_TRY(ew_q_layer_run(r, i));
        EW_TRY(ew_q_sink_write(sink, (size_t)i + 1));
    }
    EW_TRY(tell(r, (uint64_t)r->spec.n_layers));
    EW_TRY(ew_q_ends_run(r, true));
    return ew_q_sink_write(sink, (size_t)r->spec.n_layers + 1);
}

ew_status ew_quantize(const char *checkpoint, const char *out, const ew_quantize_opts *opts,
                      char **json, ew_error *err)
{
    struct ew_q_options options;
    ew_error local = { EW_STATUS_OK, "" };
    struct ew_q_run r = { .options = &options, .dir = checkpoint, .err = err ? err : &local };
    struct ew_q_sink *sink = NULL;
    ew_status s;

    if (json)
        *json = NULL;
    if (!checkpoint || !out || !opts)
        return ew_fail(err, EW_STATUS_INVALID_ARG, "ew_quantize: NULL argument");
    EW_TRY(ew_q_options_parse(opts, &options, err));
    ew_arena_init(&r.arena, EW_MEM_CHECKPOINT, 0);
    s = open_run(&r);
    if (!s)
        s = ew_q_sink_open(&r, out, &sink);
    if (!s)
        s = run_all(&r, sink);
    if (!s)
        s = ew_q_sink_commit(sink);
    else
        ew_q_sink_abort(sink);
    close_run(&r);
    return s;
}
