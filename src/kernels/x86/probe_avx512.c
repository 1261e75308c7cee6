/* kernels/x86/probe_avx512.c - the probe loops of this level. */
#include "kernels/x86/vec_avx512.h"

#include "kernels/probe_loops.h"
#include "kernels/simd/probe_tmpl.inc"

const struct ew_probe_loops ew_probe_loops__avx512 = { read_streams, fma_chains };
