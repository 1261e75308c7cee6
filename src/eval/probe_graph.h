/* eval/probe_graph.h - surgery on a checkpoint's graph for probe.c. */
#ifndef EW_EVAL_PROBE_GRAPH_H
#define EW_EVAL_PROBE_GRAPH_H

#include "eval/probe.h"
#include "graph/ir.h"

/* Marks sites and stations as outputs "site_<i>", "seen_<i>", "station_<i>"; with cut adds inputs
 * "given_<i>" and "alone_in_<i>", and outputs "alone_<i>". Fills sites (all but engine tensors) and
 * n_stations. */
ew_status ew_probe_mark(struct ew_graph *g, bool cut, struct ew_probe_site **sites,
                        uint32_t *n_sites, uint32_t *n_stations, ew_error *err);

#endif
