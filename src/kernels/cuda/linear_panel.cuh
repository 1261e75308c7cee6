// kernels/cuda/linear_panel.cuh - where the panels of quantised weights lie (linear.h): 16 rows
// each, of gate x up 8 of either. Macros: EW_CODE, EW_GLU.
#ifndef EW_KERNELS_CUDA_LINEAR_PANEL_CUH
#define EW_KERNELS_CUDA_LINEAR_PANEL_CUH

#include "linear_epilogue.cuh"

#if EW_CODE
// The last one again behind the end.
EW_DEV const char *ew_panel_at(const ew_args &a, uint32_t panel)
{
    const uint32_t last = (a.n_out + (EW_GLU ? 7 : 15)) / (EW_GLU ? 8 : 16) - 1;

    return (const char *)a.w + (size_t)(panel < last ? panel : last) * a.row_bytes;
}
#endif

// Scales of a panel's rows; 0: plain weights have none.
EW_DEV const float *ew_panel_scales(const ew_args &a, uint32_t panel)
{
#if EW_CODE
    return (const float *)(ew_panel_at(a, panel) + a.row_scales_at);
#else
    return 0;
#endif
}

#endif
