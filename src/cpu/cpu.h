/* cpu/cpu.h - what this processor has. Levels are bundles of features that ship together; kernels
 * are chosen by level, and `--cpu=LEVEL` masks them so that a user can bisect a kernel bug. */
#ifndef EW_CPU_H
#define EW_CPU_H

#include <stdbool.h>
#include <stdint.h>

enum ew_cpu_flags {
    EW_CPU_AVX2 = 1u << 0,   /* x86-64-v3: AVX2, FMA, F16C, BMI2 */
    EW_CPU_AVX512 = 1u << 1, /* x86-64-v4: AVX-512 F BW CD DQ VL (implies AVX2) */
    EW_CPU_AVXVNNI = 1u << 2,
    EW_CPU_AVX512VNNI = 1u << 3, /* VNNI on top of AVX512 */
    EW_CPU_AVX512BF16 = 1u << 4,
    EW_CPU_AMX = 1u << 5, /* AMX tile, int8, bf16, and the OS grants it */
    EW_CPU_NEON = 1u << 16,
    EW_CPU_DOTPROD = 1u << 17,
    EW_CPU_I8MM = 1u << 18,
    EW_CPU_BF16 = 1u << 19,
};

struct ew_cpu_info {
    uint32_t flags;     /* enum ew_cpu_flags */
    uint32_t l1d_bytes; /* per core; 0 = unknown */
    uint32_t l2_bytes;
    uint64_t l3_bytes;
    unsigned n_cores; /* usable by this process */
    char vendor[16];
    char model[64];
};

void ew_cpu_detect(struct ew_cpu_info *out);
/* What this build runs on, as engine files name it: "x86_64", "aarch64". */
const char *ew_cpu_arch(void);
/* "ref", "avx2", "avx512", "avx512vnni", "amx", "neon", "dotprod", "i8mm", "native" -> mask of
 * allowed flags. False when the text is unknown. */
bool ew_cpu_level_mask(const char *level, uint32_t *mask);
/* Best level name that `flags` satisfies ("ref" when none). */
const char *ew_cpu_level_text(uint32_t flags);

#endif
