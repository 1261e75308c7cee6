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
    ew_q_calib_close(r);
    ew_mem_free(r->kv_max);
    json_decref(r->report);
    ew_pool_destroy(r->pool);
    ew_safetensors_close(r->st);
    ew_decoder_spec_deinit(&r->spec);
    ew_config_deinit(&r->config);
    ew_arena_deinit(&r->arena);
}

void ew_q_report(struct ew_q_run *r, const struct ew_q_unit *u, const char *module, size_t count,
                 double error, double gain)
{
    const size_t len = strlen(module);
    double bits = 0;
    json_t *o;

    for (size_t i = 0; i < u->n_outs; i++) {
        size_t bytes;

        if (strncmp(u->outs[i].name, module, len) == 0 &&
            strncmp(u->outs[i].name + len, ".weight", 7) == 0 &&
            ew_type_bytes(&u->outs[i].type, &bytes))
            bits += 8 * (double)bytes;
    }
    r->quantised_weights += (double)count;
    r->quantised_bits += bits;
    o = json_pack("{s:s, s:f}", "module", module, "bits_per_weight", bits / (double)count);
    if (error >= 0)
        json_object_set_new(o, "relative_error", json_real(error));
    if (gain < 1)
        json_object_set_new(o, "scaling_gain", json_real(gain));
    json_array_append_new(r->report, o);
}

/* Whether anything that was asked for looks at a text. */
static bool needs_text(const struct ew_q_run *r)
{
    if (r->options->kv == EW_Q_FP8)
        return true;
    for (int64_t l = 0; l < r->spec.n_layers; l++)
        for (size_t m = 0; m < r->layers[l].n_modules; m++) {
            const struct ew_q_scheme *s = &r->layers[l].modules[m].scheme;

            if (s->format.kind != EW_Q_NONE && (s->smooth || s->method != EW_Q_RTN))
                return true;
        }
    return false;
}

static ew_status start_calibration(struct ew_q_run *r)
{
    const size_t n = (size_t)(r->spec.n_layers * 2 * r->spec.n_kv_heads);

    if (!needs_text(r))
        return EW_STATUS_OK;
    if (r->options->kv == EW_Q_FP8) {
        r->kv_max = ew_mem_calloc(EW_MEM_CHECKPOINT, n, sizeof(*r->kv_max));
        if (!r->kv_max)
            return ew_fail(r->err, EW_STATUS_NO_MEMORY, "no memory for the cache's scales");
    }
    return ew_q_calib_open(r);
}

static ew_status summary(const struct ew_q_run *r, double seconds, char **json)
{
    const double weights = r->quantised_weights > 0 ? r->quantised_weights : 1;
    json_t *o = json_pack("{s:s, s:I, s:f, s:I, s:f, s:I, s:O}", "scheme", r->options->raw->scheme,
                          "quantised_weights", (json_int_t)r->quantised_weights, "bits_per_weight",
                          r->quantised_bits / weights, "calibration_tokens",
                          (json_int_t)r->n_tokens, "seconds", seconds, "peak_memory_bytes",
                          (json_int_t)ew_os_peak_rss_bytes(), "modules", r->report);
    char *text = o ? json_dumps(o, JSON_INDENT(4) | JSON_REAL_PRECISION(6)) : NULL;

    *json = text ? ew_mem_strdup(EW_MEM_MISC, text) : NULL;
    free(text); /* jansson's own */
    json_decref(o);
    return *json ? EW_STATUS_OK : ew_fail(r->err, EW_STATUS_NO_MEMORY, "no memory for a summary");
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
    EW_TRY(start_calibration(r));
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
    const uint64_t t0 = ew_clock_ns();
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
    if (!s && json) /* before the folder has its name: what follows that must not fail */
        s = summary(&r, (double)(ew_clock_ns() - t0) / 1e9, json);
    if (!s)
        s = ew_q_sink_commit(sink);
    else
        ew_q_sink_abort(sink);
    if (s && json) {
        ew_mem_free(*json);
        *json = NULL;
    }
    close_run(&r);
    return s;
}
