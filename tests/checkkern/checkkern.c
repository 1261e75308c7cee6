/* checkkern.c - compares every kernel of every table that this processor can run with the
 * reference.
 *
 *   checkkern [--seed N] [--filter TEXT] [--cpu LEVEL] [--bench] [--threads N]
 *
 * Owns the options, random numbers, guarded memory and reporting; the checks are in check_*.c. */
#include "checkkern.h"

#include <math.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "base/half.h"
#include "cpu/cpu.h"

uint64_t ck_rand(struct ck *c)
{
    uint64_t z = c->rng += 0x9e3779b97f4a7c15u; /* splitmix64 */

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

size_t ck_range(struct ck *c, size_t lo, size_t hi)
{
    return lo + (size_t)(ck_rand(c) % (hi - lo + 1));
}

float ck_normal(struct ck *c)
{
    float sum = 0;

    for (int i = 0; i < 4; i++)
        sum += (float)(ck_rand(c) >> 40) * (1.0f / 16777216.0f);
    return (sum - 2.0f) * 1.7320508f;
}

const char *ck_fill_text(enum ck_fill f)
{
    static const char *const text[CK_FILL_COUNT] = { "normal",   "outliers", "zero",   "equal",
                                                     "denormal", "huge",     "special" };
    return text[f];
}

static float special_value(struct ck *c)
{
    static const float v[] = { NAN, INFINITY, -INFINITY, 0.0f, -0.0f, 1e-40f };

    return v[ck_rand(c) % (sizeof(v) / sizeof(v[0]))];
}

void ck_fill(struct ck *c, float *p, size_t n, enum ck_fill f)
{
    const float equal = ck_normal(c);

    for (size_t i = 0; i < n; i++) {
        const float x = ck_normal(c);
        switch (f) {
        case CK_OUTLIERS:
            p[i] = ck_rand(c) % 50 ? x : x * 1000.0f;
            break;
        case CK_ZERO:
            p[i] = ck_rand(c) & 1 ? 0.0f : -0.0f;
            break;
        case CK_EQUAL:
            p[i] = equal;
            break;
        case CK_DENORMAL:
            p[i] = x * 1e-39f;
            break;
        case CK_HUGE:
            p[i] = x * 1e18f;
            break;
        case CK_SPECIAL:
            p[i] = ck_rand(c) % 40 ? x : special_value(c);
            break;
        default:
            p[i] = x;
            break;
        }
    }
}

#define PAGE ((size_t)4096)

struct ck_mem ck_mem_make(size_t bytes)
{
    const size_t body = (bytes + PAGE - 1) / PAGE * PAGE;
    struct ck_mem m = { .bytes = bytes, .map_bytes = body + 2 * PAGE };

    m.map = mmap(NULL, m.map_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (m.map == MAP_FAILED || mprotect(m.map, PAGE, PROT_NONE) != 0 ||
        mprotect((char *)m.map + PAGE + body, PAGE, PROT_NONE) != 0) {
        perror("checkkern: mmap");
        exit(2);
    }
    m.at = (unsigned char *)m.map + PAGE + body - bytes;
    return m;
}

void ck_mem_drop(struct ck_mem *m)
{
    munmap(m->map, m->map_bytes);
}

void ck_canary_set(void *p, size_t bytes)
{
    memset(p, 0xa5, bytes);
}

bool ck_canary_ok(const void *p, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        if (((const unsigned char *)p)[i] != 0xa5)
            return false;
    return true;
}

void ck_fail(struct ck *c, const char *kernel, const char *fmt, ...)
{
    va_list ap;

    c->n_failures++;
    if (c->n_failures > 40)
        return;
    printf("FAIL %s: ", kernel);
    va_start(ap, fmt);
    vprintf(fmt, ap);
    va_end(ap);
    printf(" (seed %llu)\n", (unsigned long long)c->seed);
}

/* For the handler of crashes: what was running. */
static char running[96];

static void on_crash(int number)
{
    static const char text[] = "CRASH (read or write outside of its memory?) in ";

    if (write(STDOUT_FILENO, text, sizeof(text) - 1) > 0 &&
        write(STDOUT_FILENO, running, strlen(running)) > 0 && write(STDOUT_FILENO, "\n", 1) > 0)
        _exit(128 + number);
    _exit(1);
}

bool ck_wants(struct ck *c, const char *kernel, uint32_t cpu_need)
{
    snprintf(running, sizeof(running), "%s, seed %llu", kernel, (unsigned long long)c->seed);
    fflush(stdout);
    return (cpu_need & ~c->cpu_flags) == 0 && (!c->filter || strstr(kernel, c->filter));
}

bool ck_same_float(float a, float b)
{
    return memcmp(&a, &b, sizeof(a)) == 0 || (isnan(a) && isnan(b));
}

size_t ck_elem_bytes(ew_dtype d)
{
    return d == EW_DTYPE_F32 ? 4 : 2;
}

void ck_from_f32(void *dst, ew_dtype d, const float *src, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (d == EW_DTYPE_F32) {
            memcpy((float *)dst + i, src + i, 4);
            continue;
        }
        const uint16_t h = d == EW_DTYPE_BF16 ? ew_f32_to_bf16(src[i]) : ew_f32_to_f16(src[i]);
        memcpy((uint16_t *)dst + i, &h, 2);
    }
}

float ck_to_f32(const void *src, ew_dtype d, size_t i)
{
    if (d == EW_DTYPE_F32)
        return ((const float *)src)[i];
    const uint16_t h = ((const uint16_t *)src)[i];
    return d == EW_DTYPE_BF16 ? ew_bf16_to_f32(h) : ew_f16_to_f32(h);
}

int main(int argc, char **argv)
{
    struct ew_cpu_info cpu;
    struct ck c = { .seed = (uint64_t)time(NULL), .n_threads = 0 };
    bool wants_bench = false;

    signal(SIGSEGV, on_crash);
    signal(SIGBUS, on_crash);
    signal(SIGILL, on_crash);
    ew_cpu_detect(&cpu);
    c.cpu_flags = cpu.flags;
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : "";
        uint32_t mask;
        if (strcmp(argv[i], "--bench") == 0) {
            wants_bench = true;
        } else if (strcmp(argv[i], "--seed") == 0) {
            c.seed = strtoull(value, NULL, 10);
            i++;
        } else if (strcmp(argv[i], "--threads") == 0) {
            c.n_threads = (unsigned)strtoul(value, NULL, 10);
            i++;
        } else if (strcmp(argv[i], "--filter") == 0) {
            c.filter = value;
            i++;
        } else if (strcmp(argv[i], "--cpu") == 0 && ew_cpu_level_mask(value, &mask)) {
            c.cpu_flags &= mask;
            i++;
        } else {
            fprintf(stderr, "checkkern: unknown option %s %s\n", argv[i], value);
            return 2;
        }
    }
    c.rng = c.seed;
    printf("cpu %s, level %s, %u cores, seed %llu\n", cpu.model, ew_cpu_level_text(c.cpu_flags),
           cpu.n_cores, (unsigned long long)c.seed);
    if (wants_bench)
        return ck_bench(&c);
    ck_linear(&c);
    ck_quant(&c);
    ck_attention(&c);
    ck_rowops(&c);
    printf("%zu checks, %zu failures\n", c.n_checks, c.n_failures);
    return c.n_failures ? 1 : 0;
}
