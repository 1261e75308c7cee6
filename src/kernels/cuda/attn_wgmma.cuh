/* kernels/cuda/attn_wgmma.cuh - the matrix instructions of a warp group (sm_90a) as attention uses
 * them: accumulators as tiles of [n / 8][4], A from shared memory (both operands row-major along k)
 * or from registers (B's rows are k: transposed). Operands in shared memory lie in columns of 64
 * elements, 128 bytes a row, 16-byte chunk c of row r at place c ^ (r % 8); columns begin at
 * multiples of 1024 bytes. */
#ifndef EW_KERNELS_CUDA_ATTN_WGMMA_CUH
#define EW_KERNELS_CUDA_ATTN_WGMMA_CUH

#define EW_F16 (EW_KV == 1)
#include "wgmma.cuh"

/* Bytes of rows that are k-major: 8 rows are 1024 bytes. The same number as ew_wg_tile, written so
 * that this kernel's loop comes out as it was measured. */
EW_DEV unsigned long long wgmma_rows(unsigned shared)
{
    return (unsigned long long)((shared & 0x3ffffu) >> 4) | 1ull << 16 | 64ull << 32 | 1ull << 62;
}

/* Rows that are k themselves: from one column of 64 to the next `column` bytes, from eight rows to
 * the next eight 1024. */
EW_DEV unsigned long long wgmma_columns(unsigned shared, unsigned column)
{
    return (unsigned long long)((shared & 0x3ffffu) >> 4) |
           (unsigned long long)(column >> 4) << 16 | 64ull << 32 | 1ull << 62;
}

EW_DEV void wgmma_n128_ss(float (*d)[4], unsigned long long a, unsigned long long b, bool adds)
{
    ew_wg<128>::ss(d[0], a, b, (int)adds);
}

/* B's rows are k. */
EW_DEV void wgmma_n128_rs(float (*d)[4], const unsigned a[4], unsigned long long b)
{
    asm volatile("wgmma.mma_async.sync.aligned.m64n128k16" EW_WG_TYPE "{" EW_WG_NAMES_64
                 "}, {%64, %65, %66, %67}, %68, 1, 1, 1, 1;"
                 : EW_WG_REGS_64(d[0], 0)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}

EW_DEV void wgmma_n64_rs(float (*d)[4], const unsigned a[4], unsigned long long b)
{
    asm volatile("wgmma.mma_async.sync.aligned.m64n64k16" EW_WG_TYPE "{" EW_WG_NAMES_32
                 "}, {%32, %33, %34, %35}, %36, 1, 1, 1, 1;"
                 : EW_WG_REGS_32(d[0], 0)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}

#endif
