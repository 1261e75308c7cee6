// kernels/cuda/copy.cuh - moving data: streaming loads, asynchronous copies into shared memory,
// barriers that count bytes, and overlap with the launch before (programmatic dependent launch).
#ifndef EW_KERNELS_CUDA_COPY_CUH
#define EW_KERNELS_CUDA_COPY_CUH

#include "half.cuh"

#ifdef __CUDA_ARCH__
#    define EW_SM (__CUDA_ARCH__ / 10)
#else
#    define EW_SM 0
#endif
// wgmma and setmaxnreg: the "a" target of sm_90 alone.
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
#    define EW_WGMMA 1
#else
#    define EW_WGMMA 0
#endif

EW_DEV uint32_t ew_shared(const void *p)
{
    return (uint32_t)__cvta_generic_to_shared(p);
}

// Weights: read once, by nobody else; keep them out of L1.
EW_DEV uint4 ew_load_stream(const void *p)
{
    uint4 v;
    asm volatile("ld.global.nc.L1::no_allocate.L2::128B.v4.u32 {%0,%1,%2,%3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(p));
    return v;
}

// Everything before is done and visible: first thing before data of another launch is touched.
EW_DEV void ew_grid_wait(void)
{
#if EW_SM >= 90
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// Blocks of the next launch may start (they wait for our end themselves).
EW_DEV void ew_grid_release(void)
{
#if EW_SM >= 90
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

// 16 bytes into shared memory; `bytes` < 16 fills the rest with zeros (0: reads nothing).
EW_DEV void ew_cp_async16(uint32_t shared, const void *p, uint32_t bytes)
{
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(shared), "l"(p),
                 "r"(bytes)
                 : "memory");
}

// 4, 8 or 16 bytes into shared memory.
template <int BYTES> EW_DEV void ew_cp_async(uint32_t shared, const void *p)
{
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2;" ::"r"(shared), "l"(p), "n"(BYTES)
                 : "memory");
}

EW_DEV void ew_cp_async_commit(void)
{
    asm volatile("cp.async.commit_group;" ::: "memory");
}

template <int N> EW_DEV void ew_cp_async_wait(void)
{
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

// Clusters (sm_90 and later).
EW_DEV uint32_t ew_cluster_rank(void)
{
    uint32_t r = 0;
#if EW_SM >= 90
    asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(r));
#endif
    return r;
}

EW_DEV void ew_cluster_sync(void)
{
#if EW_SM >= 90
    asm volatile("barrier.cluster.arrive.release.aligned;\n"
                 "barrier.cluster.wait.acquire.aligned;" ::
                     : "memory");
#endif
}

EW_DEV void ew_cluster_arrive(void)
{
#if EW_SM >= 90
    asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
#endif
}

EW_DEV void ew_cluster_wait(void)
{
#if EW_SM >= 90
    asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
#endif
}

// The float at our shared address `shared` in block `rank` of the cluster.
EW_DEV float ew_cluster_load(uint32_t shared, uint32_t rank)
{
    float v = 0;
#if EW_SM >= 90
    uint32_t at;
    asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(at) : "r"(shared), "r"(rank));
    asm volatile("ld.shared::cluster.f32 %0, [%1];" : "=f"(v) : "r"(at) : "memory");
#endif
    return v;
}

EW_DEV float4 ew_cluster_load4(uint32_t shared, uint32_t rank)
{
    float4 v = make_float4(0, 0, 0, 0);
#if EW_SM >= 90
    uint32_t at;
    asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(at) : "r"(shared), "r"(rank));
    asm volatile("ld.shared::cluster.v4.f32 {%0, %1, %2, %3}, [%4];"
                 : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w)
                 : "r"(at)
                 : "memory");
#endif
    return v;
}

#if EW_SM >= 90
// Barriers in shared memory that also count bytes of bulk copies.
EW_DEV void ew_mbar_init(uint32_t bar, uint32_t count)
{
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(bar), "r"(count) : "memory");
}

EW_DEV void ew_mbar_init_fence(void)
{
    asm volatile("fence.mbarrier_init.release.cluster;\n"
                 "fence.proxy.async.shared::cta;" ::
                     : "memory");
}

// What this thread wrote to shared memory is seen by wgmma and the copy engine.
EW_DEV void ew_async_fence(void)
{
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

EW_DEV void ew_mbar_expect(uint32_t bar, uint32_t bytes)
{
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(bar), "r"(bytes)
                 : "memory");
}

EW_DEV void ew_mbar_arrive(uint32_t bar)
{
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(bar) : "memory");
}

EW_DEV void ew_mbar_wait(uint32_t bar, uint32_t parity)
{
    asm volatile("{\n"
                 ".reg .pred p;\n"
                 "again:\n"
                 "mbarrier.try_wait.parity.shared::cta.b64 p, [%0], %1;\n"
                 "@!p bra again;\n"
                 "}" ::"r"(bar),
                 "r"(parity)
                 : "memory");
}

// Linear copy by the copy engine: sizes and addresses are multiples of 16.
EW_DEV void ew_bulk_load(uint32_t shared, const void *p, uint32_t bytes, uint32_t bar)
{
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes "
                 "[%0], [%1], %2, [%3];" ::"r"(shared),
                 "l"(p), "r"(bytes), "r"(bar)
                 : "memory");
}

// A map is asked for: the first box does not wait for it.
EW_DEV void ew_map_ahead(const void *map)
{
    asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}

// Into the L2 cache alone: a multiple of 16 bytes, 16-byte aligned.
EW_DEV void ew_bulk_ahead(const void *p, uint32_t bytes)
{
    asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(p), "r"(bytes) : "memory");
}

// A box of a tensor map: column x, row y.
EW_DEV void ew_box_load(uint32_t shared, const void *map, uint32_t x, uint32_t y, uint32_t bar)
{
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes "
                 "[%0], [%1, {%2, %3}], [%4];" ::"r"(shared),
                 "l"(map), "r"(x), "r"(y), "r"(bar)
                 : "memory");
}

// The same into every block of the cluster that has a bit in `blocks`: to the same place, counted
// by the same barrier of each.
EW_DEV void ew_box_load_shared(uint32_t shared, const void *map, uint32_t x, uint32_t y,
                               uint32_t bar, uint16_t blocks)
{
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes"
                 ".multicast::cluster [%0], [%1, {%2, %3}], [%4], %5;" ::"r"(shared),
                 "l"(map), "r"(x), "r"(y), "r"(bar), "h"(blocks)
                 : "memory");
}

// Arrives at the barrier that block `rank` of the cluster has where ours is.
EW_DEV void ew_mbar_arrive_at(uint32_t bar, uint32_t rank)
{
    uint32_t at;
    asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(at) : "r"(bar), "r"(rank));
    asm volatile("mbarrier.arrive.shared::cluster.b64 _, [%0];" ::"r"(at) : "memory");
}

// Of a map of four dimensions.
EW_DEV void ew_box_load4(uint32_t shared, const void *map, uint32_t x, uint32_t y, uint32_t z,
                         uint32_t u, uint32_t bar)
{
    asm volatile("cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes "
                 "[%0], [%1, {%2, %3, %4, %5}], [%6];" ::"r"(shared),
                 "l"(map), "r"(x), "r"(y), "r"(z), "r"(u), "r"(bar)
                 : "memory");
}
#endif

#endif
