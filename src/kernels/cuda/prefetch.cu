// kernels/cuda/prefetch.cu - asks L2 for a weight that the kernel after next will read. Runs beside the chain of kernels and
// waits for nothing: every thread asks and leaves.
#include "prefetch.cuh"

extern "C" __global__ void ew_prefetch(const ew_cuda_prefetch_args a)
{
    const uint64_t n = (uint64_t)gridDim.x * blockDim.x;
    const uint64_t i = (uint64_t)blockIdx.x * blockDim.x + threadIdx.x;

#if __CUDA_ARCH__ >= 900
    for (uint64_t at = i * EW_CUDA_PREFETCH_PIECE; at < a.bytes; at += n * EW_CUDA_PREFETCH_PIECE) {
        const uint64_t left = a.bytes - at;
        const uint32_t size = (uint32_t)(left < EW_CUDA_PREFETCH_PIECE ? left : EW_CUDA_PREFETCH_PIECE);

        asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(a.at + at), "r"(size) : "memory");
    }
#else
    for (uint64_t at = i * 128; at < a.bytes; at += n * 128)
        asm volatile("prefetch.global.L2 [%0];" ::"l"(a.at + at));
#endif
}
