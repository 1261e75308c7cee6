/* eval/probe.h - a checkpoint as a graph whose insides can be read and replaced.
 *
 * The graph is that of the checkpoint before any fusion. *Sites* are its projections (Linear, Moe);
 * *stations* are the values of the residual stream: what goes into layer 0, what is behind the
 * attention and the MLP of every layer. Every station but the first, and the output of every site,
 * is an output of the engine.
 *
 * A probe that is cut takes its stations from outside: the first as embeddings, each later one
 * as an input that stands in for what the model computed. So every half of a layer works on what
 * the caller gives, whatever the halves before it did. Projections whose input is not the stream
 * itself (through a norm) are there twice: as part of their half, and alone on an input of the
 * caller's.
 *
 * Runs one window from position 0 in a single step; owns the engine and its buffers. */
#ifndef EW_EVAL_PROBE_H
#define EW_EVAL_PROBE_H

#include "edgewise/build.h"
#include "edgewise/engine.h"
#include "runtime/llm.h"
#include "runtime/rope_tables.h"

struct ew_probe_site {
    char name[128];
    int32_t layer; /* -1: outside */
    uint32_t width;
    bool alone;              /* has an input of its own */
    uint32_t input_width;    /* of that */
    int out;                 /* engine tensor: output as part of its half */
    int in_seen;             /* alone: engine tensor that shows its input */
    int in_given, out_alone; /* alone and cut: its own input, the output for it */
};

struct ew_probe_tensor {
    const char *name;
    ew_tensor_info info;
    void *data;
    size_t bytes;
    int token_axis; /* dim that is the number of tokens; -1: none */
};

struct ew_probe {
    ew_engine *engine;
    void *plan;
    ew_context *ctx;
    struct ew_llm_config config;
    struct ew_rope_tables *rope;
    struct ew_probe_site *sites;
    uint32_t n_sites, n_layers, window, hidden, vocab;
    bool cut;
    int *stations; /* [n_stations] engine tensor that shows it; the first is inputs_embeds */
    int *given;    /* [n_stations] cut: the input that replaces it; given[0] = inputs_embeds */
    uint32_t n_stations;
    int logits;
    struct ew_probe_tensor *tensors;
    uint32_t n_tensors, n_ready; /* n_ready: whose data is there */
};

/* build: sizes and flags that do not matter here are replaced. window >= 2. */
ew_status ew_probe_open(struct ew_probe *p, const char *dir, const struct ew_build_opts *build,
                        uint32_t window, bool cut, ew_error *err);
void ew_probe_close(struct ew_probe *p);
/* f32 contents of a tensor. */
static inline float *ew_probe_data(const struct ew_probe *p, int tensor)
{
    return p->tensors[tensor].data;
}
/* Embeddings of the ids into the first station. */
ew_status ew_probe_embed(struct ew_probe *p, const int32_t *ids, uint32_t n, ew_error *err);
/* One step of n tokens, 2 <= n <= window, over what the inputs hold. */
ew_status ew_probe_run(struct ew_probe *p, uint32_t n, ew_error *err);

#endif
