/* kernels/x86/amx_asm.h - amx_tile.h in assembly. The intrinsics of gcc 12 name too little of the
 * memory that they read and write; here every instruction clobbers memory. */
#ifndef EW_KERNELS_AMX_ASM_H
#define EW_KERNELS_AMX_ASM_H

static inline void amx_configure(const struct amx_config *c)
{
    __asm__ volatile("ldtilecfg %0" : : "m"(*c));
}

static inline void amx_release(void)
{
    __asm__ volatile("tilerelease" : : : "memory");
}

#define AMX_ZERO(t) __asm__ volatile("tilezero %%tmm" #t : : : "memory")
#define AMX_LOAD(t, p, stride)                                                                     \
    __asm__ volatile("tileloadd (%0,%1,1), %%tmm" #t : : "r"(p), "r"(stride) : "memory")
#define AMX_LOAD_ONCE(t, p, stride)                                                                \
    __asm__ volatile("tileloaddt1 (%0,%1,1), %%tmm" #t : : "r"(p), "r"(stride) : "memory")
#define AMX_STORE(t, p, stride)                                                                    \
    __asm__ volatile("tilestored %%tmm" #t ", (%0,%1,1)" : : "r"(p), "r"(stride) : "memory")
#define AMX_MUL_BF16(c, x, w)                                                                      \
    __asm__ volatile("tdpbf16ps %%tmm" #w ", %%tmm" #x ", %%tmm" #c : : : "memory")
#define AMX_MUL_INT8(c, x, w)                                                                      \
    __asm__ volatile("tdpbssd %%tmm" #w ", %%tmm" #x ", %%tmm" #c : : : "memory")

#define AMX_MUL_SIGNED_UNSIGNED(c, x, w)                                                           \
    __asm__ volatile("tdpbsud %%tmm" #w ", %%tmm" #x ", %%tmm" #c : : : "memory")
#define AMX_MUL_UNSIGNED_SIGNED(c, x, w)                                                           \
    __asm__ volatile("tdpbusd %%tmm" #w ", %%tmm" #x ", %%tmm" #c : : : "memory")
#define AMX_MUL_UNSIGNED(c, x, w)                                                                  \
    __asm__ volatile("tdpbuud %%tmm" #w ", %%tmm" #x ", %%tmm" #c : : : "memory")

#endif
