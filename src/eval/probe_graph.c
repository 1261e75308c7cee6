/* eval/probe_graph.c - finds projections and the residual stream of a decoder graph by its node
 * names (checkpoint/decoder_graph.c) and makes them visible or replaceable. */
#include "eval/probe_graph.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/mem.h"
#include "base/text.h"

enum { MAX_SITES = 65536 };

struct marker {
    struct ew_graph *g;
    bool cut;
    struct ew_probe_site *sites;
    uint32_t n_sites, n_stations;
    ew_error *err;
};

/* "model.layers.3.mlp.down_proj": 3; -1 for others. */
static int32_t layer_of(const char *name)
{
    static const char prefix[] = "model.layers.";

    if (strncmp(name, prefix, sizeof(prefix) - 1) != 0)
        return -1;
    return (int32_t)strtol(name + sizeof(prefix) - 1, NULL, 10);
}

static bool is_station(const struct ew_node *n)
{
    return n->op == EW_OP_ADD &&
           (ew_ends_with(n->name, ".attn_residual") || ew_ends_with(n->name, ".mlp_residual"));
}

static bool is_site(const struct ew_node *n)
{
    return n->op == EW_OP_LINEAR || n->op == EW_OP_MOE;
}

/* Whether v is the stream (a station or an input of the graph), but for norms and the choice of
 * tokens. */
static bool is_stream(const struct ew_value *v)
{
    const struct ew_node *n = v->producer;

    while (n && (n->op == EW_OP_FUSED_RMS_NORM || n->op == EW_OP_GATHER_ND)) {
        v = n->in[0];
        n = v->producer;
    }
    return n ? is_station(n) : v->is_input;
}

static ew_status show(struct marker *m, struct ew_value *v, const char *what, uint32_t i)
{
    char name[64];

    (void)snprintf(name, sizeof(name), "%s_%u", what, i);
    if (v->is_output || v->is_input) { /* it has a name already, or no producer: show a copy */
        struct ew_node *copy;

        EW_TRY(ew_graph_add_node(m->g, EW_OP_IDENTITY, name, NULL, &v, 1, 1, &copy, m->err));
        v = copy->out[0];
    }
    return ew_graph_add_output(m->g, v, name, m->err);
}

static ew_status add_input(struct marker *m, const struct ew_value *like, const char *what,
                           uint32_t i, struct ew_value **out)
{
    char name[64];

    (void)snprintf(name, sizeof(name), "%s_%u", what, i);
    *out = ew_graph_add_input(m->g, name, &like->type);
    return *out ? EW_STATUS_OK
                : ew_fail(m->err, EW_STATUS_NO_MEMORY, "no memory for input '%s'", name);
}

/* The same projection on an input of its own. */
static ew_status add_alone(struct marker *m, const struct ew_node *n, uint32_t i)
{
    struct ew_value *in[8] = { 0 };
    struct ew_node *twin;
    char name[64];

    if (n->n_in > 8)
        return ew_fail(m->err, EW_STATUS_UNSUPPORTED, "node '%s' has %d inputs", n->name, n->n_in);
    memcpy(in, n->in, (size_t)n->n_in * sizeof(struct ew_value *));
    EW_TRY(add_input(m, n->in[0], "alone_in", i, &in[0]));
    (void)snprintf(name, sizeof(name), "alone_%u", i);
    EW_TRY(ew_graph_add_node(m->g, n->op, name, &n->attrs, in, n->n_in, 1, &twin, m->err));
    return ew_graph_add_output(m->g, twin->out[0], name, m->err);
}

static ew_status mark_site(struct marker *m, struct ew_node *n)
{
    struct ew_probe_site *more;
    const uint32_t i = m->n_sites;

    if (i == MAX_SITES)
        return ew_fail(m->err, EW_STATUS_LIMIT, "a graph of over %d projections", MAX_SITES);
    more = ew_mem_resize(EW_MEM_EVAL, m->sites, i + 1u, sizeof(*more));
    if (!more)
        return ew_fail(m->err, EW_STATUS_NO_MEMORY, "projections of a graph");
    m->sites = more;
    m->n_sites++;
    more[i] = (struct ew_probe_site){ .layer = layer_of(n->name), .alone = !is_stream(n->in[0]) };
    (void)snprintf(more[i].name, sizeof(more[i].name), "%s", n->name);
    more[i].width = (uint32_t)n->out[0]->type.dim[n->out[0]->type.n_dims - 1];
    more[i].input_width = (uint32_t)n->in[0]->type.dim[n->in[0]->type.n_dims - 1];
    EW_TRY(show(m, n->out[0], "site", i));
    if (!more[i].alone)
        return EW_STATUS_OK;
    EW_TRY(show(m, n->in[0], "seen", i));
    return m->cut ? add_alone(m, n, i) : EW_STATUS_OK;
}

static ew_status mark_station(struct marker *m, struct ew_node *n)
{
    struct ew_value *given;

    EW_TRY(show(m, n->out[0], "station", m->n_stations));
    if (m->cut) {
        EW_TRY(add_input(m, n->out[0], "given", m->n_stations, &given));
        ew_graph_replace_uses(m->g, n->out[0], given);
    }
    m->n_stations++;
    return EW_STATUS_OK;
}

static ew_status mark_all(struct marker *m)
{
    struct ew_node *const last = m->g->tail;
    bool done = false;

    /* Sites first: cutting the stream hides that it is one. Nodes that are added come behind. */
    for (struct ew_node *n = m->g->head; n && !done; n = n->next) {
        done = n == last;
        if (is_site(n))
            EW_TRY(mark_site(m, n));
    }
    done = false;
    m->n_stations = 1;
    for (struct ew_node *n = m->g->head; n && !done; n = n->next) {
        done = n == last;
        if (is_station(n))
            EW_TRY(mark_station(m, n));
    }
    if (m->n_sites == 0 || m->n_stations < 3)
        return ew_fail(m->err, EW_STATUS_UNSUPPORTED, "no decoder layers in the graph");
    return ew_graph_verify(m->g, m->err);
}

ew_status ew_probe_mark(struct ew_graph *g, bool cut, struct ew_probe_site **sites,
                        uint32_t *n_sites, uint32_t *n_stations, ew_error *err)
{
    struct marker m = { .g = g, .cut = cut, .err = err };
    const ew_status st = mark_all(&m);

    *sites = NULL;
    if (st) {
        ew_mem_free(m.sites);
        return st;
    }
    *sites = m.sites;
    *n_sites = m.n_sites;
    *n_stations = m.n_stations;
    return EW_STATUS_OK;
}
