/* checkmodel.h - whole models of odd shapes on a GPU beside the same models on the CPU in f32. */
#ifndef CHECKMODEL_H
#define CHECKMODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "edgewise/base.h"

struct cm_model {
    const char *name, *config;
    uint32_t cap, in;            /* tokens a row holds; the longest prefill step */
    const char *tactic;          /* of the build; NULL: the default */
    const char *scheme, *method; /* quantised first; NULL: as it is */
    uint32_t group;
    bool asymmetric;
    bool each;   /* also in steps of each number of tokens up to 64, whose kernels differ by it */
    bool routes; /* has experts: at a near tie a token may go to another one */
    ew_dtype kv; /* of both; NONE: f16 */
    uint32_t loose; /* times the divergence of others is fine: a cache that rounds the keys and
                       values themselves turns last bits into steps of its own; 0: 1 */
};
extern const struct cm_model cm_models[];
extern const size_t cm_n_models;

#endif
