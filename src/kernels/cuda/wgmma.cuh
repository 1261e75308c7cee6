// kernels/cuda/wgmma.cuh - matrix instructions of a warpgroup (sm_90a alone): 64 rows of A from
// registers or shared memory, N columns of B from shared memory, both K-major with 128-byte
// swizzle; k = 16. Lane 4g + t of warp w: d[4j..4j+3] are (16w + g, 8j + 2t) (.., + 1) (16w + g +
// 8, 8j + 2t) (.., + 1), and A in registers lies as in mma.cuh.
#ifndef EW_KERNELS_CUDA_WGMMA_CUH
#define EW_KERNELS_CUDA_WGMMA_CUH

#include "copy.cuh"

#if EW_WGMMA
#    ifndef EW_F16
#        define EW_F16 0
#    endif
#    if EW_F16
#        define EW_WG_TYPE ".f32.f16.f16 "
#    else
#        define EW_WG_TYPE ".f32.bf16.bf16 "
#    endif

// Rows of 128 bytes, groups of 8 rows 1024 bytes apart, 1024-byte aligned; + 2 is 16 columns on. The
// high half of such a descriptor is a constant, and costs no instruction where it is written as one.
#    define EW_WG_TILE_HIGH "0x40000040"
EW_DEV uint32_t ew_wg_tile_low(uint32_t shared)
{
    return (shared >> 4 & 0x3fffu) | 1u << 16;
}

EW_DEV uint64_t ew_wg_tile(uint32_t shared)
{
    return (uint64_t)ew_wg_tile_low(shared) | (uint64_t)64 << 32 | (uint64_t)1 << 62;
}

EW_DEV void ew_wg_fence(void)
{
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

EW_DEV void ew_wg_commit(void)
{
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

template <int N> EW_DEV void ew_wg_wait(void)
{
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory");
}

// Results of wgmma may be read: keeps the compiler from moving reads before the wait.
template <int N> EW_DEV void ew_wg_touch(float *d)
{
#    pragma unroll
    for (int i = 0; i < N / 2; i++)
        asm volatile("" : "+f"(d[i])::"memory");
}

// The accumulators of an instruction: "%0,%1,..." in its text, "+f"(d[0]), ... behind it (of
// integers "+r").
#    define EW_WG_NAMES_4 "%0,%1,%2,%3"
#    define EW_WG_NAMES_8 EW_WG_NAMES_4 ",%4,%5,%6,%7"
#    define EW_WG_NAMES_16                                                                         \
        EW_WG_NAMES_8 ","                                                                          \
                      "%8,%9,%10,%11,%12,%13,%14,%15"
#    define EW_WG_NAMES_32                                                                         \
        EW_WG_NAMES_16 ","                                                                         \
                       "%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31"
#    define EW_WG_NAMES_48                                                                         \
        EW_WG_NAMES_32 ","                                                                         \
                       "%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47"
#    define EW_WG_NAMES_64                                                                         \
        EW_WG_NAMES_48 ","                                                                         \
                       "%48,%49,"                                                                  \
                       "%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63"
#    define EW_WG_NAMES_80                                                                         \
        EW_WG_NAMES_64 ","                                                                         \
                       "%64,%65,%66,%67,%68,%69,%70,%71,%72,%73,%74,%75,%76,%77,%78,%79"
#    define EW_WG_NAMES_88 EW_WG_NAMES_80 ",%80,%81,%82,%83,%84,%85,%86,%87"
#    define EW_WG_NAMES_96 EW_WG_NAMES_88 ",%88,%89,%90,%91,%92,%93,%94,%95"
#    define EW_WG_NAMES_128                                                                        \
        EW_WG_NAMES_96 ","                                                                         \
                       "%96,%97,%98,%99,%100,%101,%102,%103,%104,%105,%106,%107,%108,%109,%110,"   \
                       "%111,%112,%113,%114,%115,%116,%117,%118,%119,%120,%121,%122,%123,%124,"    \
                       "%125,%126,%127"
#    define EW_WG_REGS_4(d, i)                                                                     \
        "+f"((d)[i]), "+f"((d)[(i) + 1]), "+f"((d)[(i) + 2]), "+f"((d)[(i) + 3])
#    define EW_WG_REGS_8(d, i)   EW_WG_REGS_4(d, i), EW_WG_REGS_4(d, (i) + 4)
#    define EW_WG_REGS_16(d, i)  EW_WG_REGS_8(d, i), EW_WG_REGS_8(d, (i) + 8)
#    define EW_WG_REGS_32(d, i)  EW_WG_REGS_16(d, i), EW_WG_REGS_16(d, (i) + 16)
#    define EW_WG_REGS_64(d, i)  EW_WG_REGS_32(d, i), EW_WG_REGS_32(d, (i) + 32)
#    define EW_WG_REGS_48(d, i)  EW_WG_REGS_32(d, i), EW_WG_REGS_16(d, (i) + 32)
#    define EW_WG_REGS_88(d, i)  EW_WG_REGS_80(d, i), EW_WG_REGS_8(d, (i) + 80)
#    define EW_WG_REGS_80(d, i)  EW_WG_REGS_64(d, i), EW_WG_REGS_16(d, (i) + 64)
#    define EW_WG_REGS_96(d, i)  EW_WG_REGS_64(d, i), EW_WG_REGS_32(d, (i) + 64)
#    define EW_WG_REGS_128(d, i) EW_WG_REGS_64(d, i), EW_WG_REGS_64(d, (i) + 64)

#    define EW_WG_INTS_4(d, i)                                                                     \
        "+r"((d)[i]), "+r"((d)[(i) + 1]), "+r"((d)[(i) + 2]), "+r"((d)[(i) + 3])
#    define EW_WG_INTS_8(d, i)  EW_WG_INTS_4(d, i), EW_WG_INTS_4(d, (i) + 4)
#    define EW_WG_INTS_16(d, i) EW_WG_INTS_8(d, i), EW_WG_INTS_8(d, (i) + 8)
#    define EW_WG_INTS_32(d, i) EW_WG_INTS_16(d, i), EW_WG_INTS_16(d, (i) + 16)

// A in registers, B a low half; keep = 0: d starts at 0. N columns are R = N / 2 accumulators of
// type C, REGS of them; R1.. are the numbers R + 1.. of the operands behind them. KIND and END: the
// instruction's text between N and the operands, and behind the predicate.
#    define EW_WG_RS(N, R, R1, R2, R3, R4, R5, C, REGS, KIND, END)                                 \
        static __device__ __forceinline__ void rs(C *d, const uint32_t *a, uint32_t b, int keep)   \
        {                                                                                          \
            asm volatile("{\n.reg .pred p;\n.reg .b64 b;\nsetp.ne.b32 p, %" #R5 ", 0;\n"           \
                         "mov.b64 b, {%" #R4 ", " EW_WG_TILE_HIGH "};\n"                           \
                         "wgmma.mma_async.sync.aligned.m64n" #N KIND "{" EW_WG_NAMES_##R           \
                         "}, {%" #R ",%" #R1 ",%" #R2 ",%" #R3 "}, b"                              \
                         ", p" END ";\n}\n"                                                        \
                         : REGS(d, 0)                                                              \
                         : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b), "r"(keep));         \
        }

template <int N> struct ew_wg; // rs; and ss: A in shared memory

#    define EW_WG(N, R, R1, R2, R3, R4, R5)                                                        \
        template <> struct ew_wg<N> {                                                              \
            EW_WG_RS(N, R, R1, R2, R3, R4, R5, float, EW_WG_REGS_##R, "k16" EW_WG_TYPE,            \
                     ", 1, 1, 0")                                                                  \
            static __device__ __forceinline__ void ss(float *d, uint64_t a, uint64_t b, int keep)  \
            {                                                                                      \
                asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %" #R2 ", 0;\n"                     \
                             "wgmma.mma_async.sync.aligned.m64n" #N "k16" EW_WG_TYPE               \
                             "{" EW_WG_NAMES_##R "}, %" #R ", %" #R1 ", p, 1, 1, 0, 0;\n}\n"       \
                             : EW_WG_REGS_##R(d, 0)                                                \
                             : "l"(a), "l"(b), "r"(keep));                                         \
            }                                                                                      \
        };
// The same of 8-bit integers: k = 32, lane 4g + t of warp w has columns 4t..4t+3 and 16 + 4t.. of
// rows 16w + g and 16w + g + 8 in the order of A in registers; sums are integers.
template <int N> struct ew_wg_s8;

#    define EW_WG_S8(N, R, R1, R2, R3, R4, R5)                                                     \
        template <> struct ew_wg_s8<N> {                                                           \
            EW_WG_RS(N, R, R1, R2, R3, R4, R5, int, EW_WG_INTS_##R, "k32.s32.s8.s8 ", "")          \
        };
EW_WG_S8(16, 8, 9, 10, 11, 12, 13)
EW_WG_S8(32, 16, 17, 18, 19, 20, 21)
EW_WG_S8(64, 32, 33, 34, 35, 36, 37)

EW_WG(8, 4, 5, 6, 7, 8, 9)
EW_WG(16, 8, 9, 10, 11, 12, 13)
EW_WG(32, 16, 17, 18, 19, 20, 21)
EW_WG(64, 32, 33, 34, 35, 36, 37)
EW_WG(96, 48, 49, 50, 51, 52, 53)
EW_WG(128, 64, 65, 66, 67, 68, 69)
EW_WG(160, 80, 81, 82, 83, 84, 85)
EW_WG(176, 88, 89, 90, 91, 92, 93)
EW_WG(192, 96, 97, 98, 99, 100, 101)
EW_WG(256, 128, 129, 130, 131, 132, 133)
#endif

#endif
