/* kernels/probe.c - the machine's ceilings: read bandwidth, rates of f32 FMA and of dot products.
 * Owns the timing; the inner loops are one table per instruction set (probe_loops.h). */
#include "kernels/probe.h"

#include "base/size.h"
#include "cpu/cpu.h"
#include "kernels/probe_loops.h"
#include "os/os.h"

static uint64_t read_plain(const void *p, size_t bytes)
{
    const uint64_t *w = p;
    uint64_t a = 0, b = 0, c = 0, d = 0;

    for (size_t i = 0; i + 4 <= bytes / 8; i += 4) {
        a ^= w[i];
        b ^= w[i + 1];
        c ^= w[i + 2];
        d ^= w[i + 3];
    }
    return a ^ b ^ c ^ d;
}

static uint64_t fma_plain(uint64_t n)
{
    volatile float seed = 0.5f;
    float acc[16];

    for (int j = 0; j < 16; j++)
        acc[j] = seed;
    const float m = seed;
    for (uint64_t i = 0; i < n; i++)
        for (int j = 0; j < 16; j++)
            acc[j] = acc[j] * m + m;
    float sum = 0;
    for (int j = 0; j < 16; j++)
        sum += acc[j];
    seed = sum;
    return n * 32;
}

static const struct ew_probe_loops plain = { read_plain, fma_plain };

static const struct ew_probe_loops *loops_for(uint32_t cpu_flags)
{
#if defined(__x86_64__)
    if (cpu_flags & EW_CPU_AVX512)
        return &ew_probe_loops__avx512;
    if (cpu_flags & EW_CPU_AVX2)
        return &ew_probe_loops__avx2;
#elif defined(__aarch64__)
    if (cpu_flags & EW_CPU_NEON)
        return &ew_probe_loops__neon;
#else
    (void)cpu_flags;
#endif
    return &plain;
}

/* Best last. */
static const struct ew_probe_dots *const dots[] = {
#if defined(__x86_64__)
    &ew_probe_dots__avx2,
    &ew_probe_dots__avxvnni,
    &ew_probe_dots__avx512vnni,
    &ew_probe_dots__avx512bf16,
    &ew_probe_dots__amx,
#endif
    NULL,
};

#define MAX_THREADS 1024

struct probe_job {
    struct ew_pool *pool;
    uint64_t (*read)(const void *p, size_t bytes);
    uint64_t (*work)(uint64_t n_rounds); /* when bytes is NULL */
    const unsigned char *bytes;
    size_t len;
    uint64_t n_rounds;
    uint64_t ops; /* of one thread and pass */
    uint64_t sink[MAX_THREADS];
};

static void probe_pass(void *arg, unsigned i, unsigned n)
{
    struct probe_job *job = arg;

    if (job->bytes) {
        size_t begin, end;
        ew_split_range(job->len, 4096, i, n, &begin, &end);
        job->sink[i % MAX_THREADS] = job->read(job->bytes + begin, end - begin);
    } else {
        const uint64_t ops = job->work(job->n_rounds);
        if (i == 0)
            job->ops = ops;
    }
}

/* Seconds of the fastest pass within about `seconds`, at least three passes. */
static double best_pass(struct probe_job *job, double seconds)
{
    const uint64_t start = ew_clock_ns();
    double best = 0;

    for (int i = 0; i < 3 || (double)(ew_clock_ns() - start) < seconds * 1e9; i++) {
        const uint64_t t0 = ew_clock_ns();
        ew_pool_run(job->pool, probe_pass, job);
        const double took = (double)(ew_clock_ns() - t0) * 1e-9;
        if (i == 0 || took < best)
            best = took;
    }
    return best > 0 ? best : 1e-9;
}

double ew_probe_read_bandwidth(struct ew_pool *pool, uint32_t cpu_flags, uint64_t bytes,
                               double seconds)
{
    struct probe_job job = { .pool = pool, .read = loops_for(cpu_flags)->read };
    const size_t len = bytes ? (size_t)bytes & ~(size_t)4095 : (size_t)512 << 20;
    unsigned char *p = len ? ew_os_pages_alloc(len, true) : NULL;

    if (!p)
        return 0;
    for (size_t i = 0; i < len; i += 4096) /* real pages, not the shared zero page */
        p[i] = (unsigned char)i;
    job.bytes = p;
    job.len = len;
    const double best = best_pass(&job, seconds);
    ew_os_pages_free(p, len);
    return (double)len / best;
}

static double arithmetic(struct ew_pool *pool, uint64_t (*work)(uint64_t), double seconds)
{
    struct probe_job job = { .pool = pool, .work = work, .n_rounds = 200000 };
    const double best = best_pass(&job, seconds);

    return (double)job.ops * (double)ew_pool_threads(pool) / best;
}

double ew_probe_f32_flops(struct ew_pool *pool, uint32_t cpu_flags, double seconds)
{
    return arithmetic(pool, loops_for(cpu_flags)->fma, seconds);
}

double ew_probe_int8_ops(struct ew_pool *pool, uint32_t cpu_flags, double seconds,
                         const char **with)
{
    const struct ew_probe_dots *best = NULL;

    for (size_t i = 0; dots[i]; i++)
        if (dots[i]->int8 && (cpu_flags & dots[i]->need) == dots[i]->need)
            best = dots[i];
    *with = best ? best->with : "";
    return best ? arithmetic(pool, best->int8, seconds) : 0;
}

double ew_probe_bf16_flops(struct ew_pool *pool, uint32_t cpu_flags, double seconds,
                           const char **with)
{
    const struct ew_probe_dots *best = NULL;

    for (size_t i = 0; dots[i]; i++)
        if (dots[i]->bf16 && (cpu_flags & dots[i]->need) == dots[i]->need)
            best = dots[i];
    *with = best ? best->with : "";
    return best ? arithmetic(pool, best->bf16, seconds) : 0;
}
