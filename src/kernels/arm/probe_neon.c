/* kernels/arm/probe_neon.c - the probe loops of this level. */
#include "kernels/arm/vec_neon.h"

#include "kernels/probe_loops.h"
#include "kernels/simd/probe_tmpl.inc"

const struct ew_probe_loops ew_probe_loops__neon = { read_streams, fma_chains };
