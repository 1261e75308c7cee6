/* kernels/x86/probe_avx2.c - the probe loops of this level. */
#include "kernels/x86/vec_avx2.h"

#include "kernels/probe_loops.h"
#include "kernels/simd/probe_tmpl.inc"

const struct ew_probe_loops ew_probe_loops__avx2 = { read_streams, fma_chains };
