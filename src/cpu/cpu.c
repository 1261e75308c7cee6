/* cpu/cpu.c - asks the processor what it has (cpuid and xgetbv on x86, the kernel's
 * auxiliary vector on AArch64) and names the levels.
 * Owns detection and level names; it does not choose kernels. */
#include "cpu/cpu.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/size.h"
#include "os/os.h"

#if defined(__x86_64__)
#    include <cpuid.h>
#elif defined(__aarch64__)
#    include <sys/auxv.h>
#endif

#define LEVEL_AVX2       ((uint32_t)EW_CPU_AVX2)
#define LEVEL_AVX512     (LEVEL_AVX2 | EW_CPU_AVX512)
#define LEVEL_AVX512VNNI (LEVEL_AVX512 | EW_CPU_AVXVNNI | EW_CPU_AVX512VNNI | EW_CPU_AVX512BF16)
#define LEVEL_AMX        (LEVEL_AVX512VNNI | EW_CPU_AMX)
#define LEVEL_NEON       ((uint32_t)EW_CPU_NEON)
#define LEVEL_DOTPROD    (LEVEL_NEON | EW_CPU_DOTPROD)
#define LEVEL_I8MM       (LEVEL_DOTPROD | EW_CPU_I8MM | EW_CPU_BF16)

/* Best last. `need` is what the CPU must have for the name, `mask` what the name allows. */
static const struct level {
    const char *name;
    uint32_t need;
    uint32_t mask;
} levels[] = {
    { "ref", 0, 0 },
    { "avx2", LEVEL_AVX2, LEVEL_AVX2 },
    { "avx512", LEVEL_AVX512, LEVEL_AVX512 },
    { "avx512vnni", LEVEL_AVX512 | EW_CPU_AVX512VNNI, LEVEL_AVX512VNNI },
    { "amx", LEVEL_AVX512 | EW_CPU_AVX512VNNI | EW_CPU_AMX, LEVEL_AMX },
    { "neon", LEVEL_NEON, LEVEL_NEON },
    { "dotprod", LEVEL_DOTPROD, LEVEL_DOTPROD },
    { "i8mm", LEVEL_DOTPROD | EW_CPU_I8MM, LEVEL_I8MM },
};

const char *ew_cpu_arch(void)
{
#if defined(__x86_64__)
    return "x86_64";
#elif defined(__aarch64__)
    return "aarch64";
#else
    return "unknown";
#endif
}

bool ew_cpu_level_mask(const char *level, uint32_t *mask)
{
    if (strcmp(level, "native") == 0) {
        *mask = UINT32_MAX;
        return true;
    }
    for (size_t i = 0; i < EW_COUNT(levels); i++) {
        if (strcmp(level, levels[i].name) == 0) {
            *mask = levels[i].mask;
            return true;
        }
    }
    return false;
}

const char *ew_cpu_level_text(uint32_t flags)
{
    const char *best = levels[0].name;

    for (size_t i = 1; i < EW_COUNT(levels); i++)
        if ((levels[i].need & ~flags) == 0)
            best = levels[i].name;
    return best;
}

#if defined(__x86_64__)

/* Bits of CPUID that the levels ask for; names as in the vendors' manuals. */
enum {
    L1_ECX_FMA = 1u << 12,
    L1_ECX_OSXSAVE = 1u << 27,
    L1_ECX_AVX = 1u << 28,
    L1_ECX_F16C = 1u << 29,
    L7_EBX_BMI1 = 1u << 3,
    L7_EBX_AVX2 = 1u << 5,
    L7_EBX_BMI2 = 1u << 8,
    L7_EBX_AVX512F = 1u << 16,
    L7_EBX_AVX512DQ = 1u << 17,
    L7_EBX_AVX512CD = 1u << 28,
    L7_EBX_AVX512BW = 1u << 30,
    L7_ECX_AVX512VNNI = 1u << 11,
    L7_EDX_AMX_BF16 = 1u << 22,
    L7_EDX_AMX_TILE = 1u << 24,
    L7_EDX_AMX_INT8 = 1u << 25,
    L71_EAX_AVXVNNI = 1u << 4,
    L71_EAX_AVX512BF16 = 1u << 5,
};
#    define L7_EBX_AVX512VL (1u << 31)

static bool has_all(uint32_t word, uint32_t bits)
{
    return (word & bits) == bits;
}

/* What state the operating system saves on a task switch. */
static uint64_t read_xcr0(void)
{
    uint32_t lo, hi;

    __asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
    return (uint64_t)hi << 32 | lo;
}

static uint32_t detect_flags(void)
{
    const uint64_t xcr0_avx = 0x6, xcr0_avx512 = 0xe6, xcr0_amx = 0x60000;
    uint32_t a, b, c, d, b7, c7, d7, a71 = 0, flags = 0;

    if (!__get_cpuid(1, &a, &b, &c, &d) || !has_all(c, L1_ECX_OSXSAVE | L1_ECX_AVX))
        return 0;
    const uint64_t xcr0 = read_xcr0();
    if ((xcr0 & xcr0_avx) != xcr0_avx || !__get_cpuid_count(7, 0, &a, &b7, &c7, &d7))
        return 0;
    if (a >= 1) {
        uint32_t b71, c71, d71;
        __get_cpuid_count(7, 1, &a71, &b71, &c71, &d71);
    }
    if (!has_all(c, L1_ECX_FMA | L1_ECX_F16C) ||
        !has_all(b7, L7_EBX_AVX2 | L7_EBX_BMI1 | L7_EBX_BMI2))
        return 0;
    flags |= EW_CPU_AVX2;
    if (has_all(a71, L71_EAX_AVXVNNI))
        flags |= EW_CPU_AVXVNNI;
    if ((xcr0 & xcr0_avx512) != xcr0_avx512 ||
        !has_all(b7, L7_EBX_AVX512F | L7_EBX_AVX512DQ | L7_EBX_AVX512CD | L7_EBX_AVX512BW |
                         L7_EBX_AVX512VL))
        return flags;
    flags |= EW_CPU_AVX512;
    if (has_all(c7, L7_ECX_AVX512VNNI))
        flags |= EW_CPU_AVX512VNNI;
    if (has_all(a71, L71_EAX_AVX512BF16))
        flags |= EW_CPU_AVX512BF16;
    if ((xcr0 & xcr0_amx) == xcr0_amx &&
        has_all(d7, L7_EDX_AMX_TILE | L7_EDX_AMX_INT8 | L7_EDX_AMX_BF16) && ew_os_grant_amx())
        flags |= EW_CPU_AMX;
#    ifdef EW_EMULATE_AMX
    flags |= EW_CPU_AMX;
#    endif
    return flags;
}

/* Deterministic cache parameters: leaf 4 (Intel) and 0x8000001d (AMD) have one layout. */
static void detect_caches(struct ew_cpu_info *out)
{
    const bool is_amd =
        strcmp(out->vendor, "AuthenticAMD") == 0 || strcmp(out->vendor, "HygonGenuine") == 0;
    const uint32_t leaf = is_amd ? 0x8000001du : 4u;

    for (uint32_t i = 0; i < 8; i++) {
        uint32_t a, b, c, d;
        if (!__get_cpuid_count(leaf, i, &a, &b, &c, &d) || (a & 31) == 0)
            return;
        const uint64_t bytes =
            (uint64_t)((b >> 22) + 1) * ((b >> 12 & 0x3ff) + 1) * ((b & 0xfff) + 1) * (c + 1ull);
        const uint32_t type = a & 31, level = a >> 5 & 7;
        if (type == 2) /* instructions */
            continue;
        if (level == 1)
            out->l1d_bytes = (uint32_t)bytes;
        else if (level == 2)
            out->l2_bytes = (uint32_t)bytes;
        else if (level == 3)
            out->l3_bytes = bytes;
    }
}

static void detect_names(struct ew_cpu_info *out)
{
    uint32_t a, r[4];

    if (__get_cpuid(0, &a, &r[0], &r[2], &r[1])) {
        memcpy(out->vendor, r, 12); /* ebx, edx, ecx */
        out->vendor[12] = '\0';
    }
    if (!__get_cpuid(0x80000000u, &a, &r[1], &r[2], &r[3]) || a < 0x80000004u)
        return;
    for (uint32_t i = 0; i < 3; i++) {
        __get_cpuid(0x80000002u + i, &r[0], &r[1], &r[2], &r[3]);
        memcpy(out->model + 16 * i, r, 16);
    }
    out->model[48] = '\0';
    for (size_t len = strlen(out->model); len > 0 && out->model[len - 1] == ' '; len--)
        out->model[len - 1] = '\0';
}

#elif defined(__aarch64__)

/* Bits of AT_HWCAP and AT_HWCAP2 (Linux, arm64 ELF hwcaps). */
enum {
    HW_ASIMD = 1u << 1,
    HW_CPUID = 1u << 11, /* programs may read the identification registers */
    HW_ASIMDDP = 1u << 20,
    HW2_I8MM = 1u << 13,
    HW2_BF16 = 1u << 14,
};

/* A level is a bundle: i8mm without dotprod, which no processor has, would count for nothing. */
static uint32_t detect_flags(void)
{
    const unsigned long hw = getauxval(AT_HWCAP), hw2 = getauxval(AT_HWCAP2);
    uint32_t flags = 0;

    if (!(hw & HW_ASIMD))
        return 0;
    flags |= EW_CPU_NEON;
    if (hw & HW_ASIMDDP)
        flags |= EW_CPU_DOTPROD;
    if (hw2 & HW2_I8MM)
        flags |= EW_CPU_I8MM;
    if (hw2 & HW2_BF16)
        flags |= EW_CPU_BF16;
    return flags;
}

/* Implementer and part of the core that this runs on (MIDR_EL1): no processor tells its name. */
static void detect_names(struct ew_cpu_info *out)
{
    static const struct {
        unsigned code;
        char name[12];
    } makers[] = { { 0x41, "ARM" },      { 0x42, "Broadcom" },  { 0x43, "Cavium" },
                   { 0x46, "Fujitsu" },  { 0x48, "HiSilicon" }, { 0x4e, "NVIDIA" },
                   { 0x51, "Qualcomm" }, { 0x61, "Apple" },     { 0x6d, "Microsoft" },
                   { 0xc0, "Ampere" } };
    uint64_t midr;

    if (!(getauxval(AT_HWCAP) & HW_CPUID))
        return;
    __asm__("mrs %0, MIDR_EL1" : "=r"(midr));
    const unsigned maker = (unsigned)(midr >> 24 & 0xff), part = (unsigned)(midr >> 4 & 0xfff);
    snprintf(out->vendor, sizeof(out->vendor), "0x%02x", maker);
    for (size_t i = 0; i < EW_COUNT(makers); i++)
        if (makers[i].code == maker)
            snprintf(out->vendor, sizeof(out->vendor), "%s", makers[i].name);
    snprintf(out->model, sizeof(out->model), "%s part 0x%03x r%up%u", out->vendor, part,
             (unsigned)(midr >> 20 & 0xf), (unsigned)(midr & 0xf));
}

#else

static uint32_t detect_flags(void)
{
    return 0;
}

#endif

/* "32K", "1024K", "32M" as Linux writes them. */
static uint64_t parse_cache_bytes(const char *text)
{
    uint64_t n = 0;

    for (; *text >= '0' && *text <= '9' && n < (1u << 30); text++)
        n = n * 10 + (uint64_t)(*text - '0');
    return *text == 'K' ? n << 10 : *text == 'M' ? n << 20 : n;
}

/* For what the instruction set did not tell. */
static void read_system_caches(struct ew_cpu_info *out)
{
    static const char dir[] = "/sys/devices/system/cpu/cpu0/cache";

    for (int i = 0; i < 8; i++) {
        char path[128], *size = NULL, *level = NULL, *type = NULL;
        size_t len;
        snprintf(path, sizeof(path), "%s/index%d/size", dir, i);
        const bool has_size = !ew_file_read(path, 4096, &size, &len, NULL);
        snprintf(path, sizeof(path), "%s/index%d/level", dir, i);
        const bool has_level = !ew_file_read(path, 4096, &level, &len, NULL);
        snprintf(path, sizeof(path), "%s/index%d/type", dir, i);
        const bool has_type = !ew_file_read(path, 4096, &type, &len, NULL);
        if (has_size && has_level && has_type && type[0] != 'I') {
            const uint64_t bytes = parse_cache_bytes(size);
            if (level[0] == '1' && out->l1d_bytes == 0)
                out->l1d_bytes = (uint32_t)bytes;
            else if (level[0] == '2' && out->l2_bytes == 0)
                out->l2_bytes = (uint32_t)bytes;
            else if (level[0] == '3' && out->l3_bytes == 0)
                out->l3_bytes = bytes;
        }
        ew_mem_free(size);
        ew_mem_free(level);
        ew_mem_free(type);
    }
}

void ew_cpu_detect(struct ew_cpu_info *out)
{
    memset(out, 0, sizeof(*out));
    out->flags = detect_flags();
#if defined(__x86_64__)
    detect_names(out);
    detect_caches(out);
#elif defined(__aarch64__)
    detect_names(out);
#endif
    if (out->l1d_bytes == 0 || out->l2_bytes == 0)
        read_system_caches(out);
    out->n_cores = ew_os_cores();
}
