/* engine/machine.c - what this process and this machine are doing: memory by subsystem, measured
 * ceilings. */
#include <string.h>

#include "edgewise/engine.h"
#include "base/mem.h"
#include "base/pool.h"
#include "cpu/cpu.h"
#include "kernels/probe.h"

bool ew_memory_get(uint32_t i, const char **name, uint64_t *bytes)
{
    if (i >= EW_MEM_TAG_COUNT)
        return false;
    *name = ew_mem_tag_text((enum ew_mem_tag)i);
    *bytes = ew_mem_tag_bytes((enum ew_mem_tag)i);
    return true;
}

uint64_t ew_memory_n_allocations(void)
{
    return ew_mem_count();
}

/* The processor, what of it cpu_level (NULL: everything) leaves, and threads to measure with, which
 * the caller destroys. */
static ew_status open_probe(uint32_t n_threads, const char *cpu_level, struct ew_cpu_info *cpu,
                            uint32_t *flags, struct ew_pool **pool, ew_error *err)
{
    uint32_t mask;

    if (!ew_cpu_level_mask(cpu_level ? cpu_level : "native", &mask))
        return ew_fail(err, EW_STATUS_INVALID_ARG, "CPU level '%s' is unknown", cpu_level);
    ew_cpu_detect(cpu);
    *flags = cpu->flags & mask;
    return ew_pool_create(n_threads, pool, err);
}

static ew_status probe_result(double read_bytes_per_s, ew_error *err)
{
    return read_bytes_per_s > 0
               ? EW_STATUS_OK
               : ew_fail(err, EW_STATUS_NO_MEMORY, "the bandwidth probe had no memory");
}

ew_status ew_machine_measure_read(uint32_t n_threads, const char *cpu_level, double seconds,
                                  double *bytes_per_s, ew_error *err)
{
    struct ew_cpu_info cpu;
    struct ew_pool *pool = NULL;
    uint32_t flags;

    EW_TRY(open_probe(n_threads, cpu_level, &cpu, &flags, &pool, err));
    *bytes_per_s = ew_probe_read_bandwidth(pool, flags, 0, seconds);
    ew_pool_destroy(pool);
    return probe_result(*bytes_per_s, err);
}

ew_status ew_machine_measure(uint32_t n_threads, const char *cpu_level, ew_machine_info *out,
                             ew_error *err)
{
    struct ew_cpu_info cpu;
    struct ew_pool *pool = NULL;
    const char *with;
    uint32_t flags;

    EW_TRY(open_probe(n_threads, cpu_level, &cpu, &flags, &pool, err));
    memset(out, 0, sizeof(*out));
    memcpy(out->model, cpu.model, sizeof(out->model));
    out->model[sizeof(out->model) - 1] = 0;
    strncat(out->level, ew_cpu_level_text(flags), sizeof(out->level) - 1);
    out->n_cores = cpu.n_cores;
    out->n_threads = ew_pool_threads(pool);
    out->read_bytes_per_s = ew_probe_read_bandwidth(pool, flags, 0, 0.5);
    out->f32_flops_per_s = ew_probe_f32_flops(pool, flags, 0.3);
    out->int8_ops_per_s = ew_probe_int8_ops(pool, flags, 0.3, &with);
    strncat(out->int8_with, with, sizeof(out->int8_with) - 1);
    out->bf16_flops_per_s = ew_probe_bf16_flops(pool, flags, 0.3, &with);
    strncat(out->bf16_with, with, sizeof(out->bf16_with) - 1);
    ew_pool_destroy(pool);
    return probe_result(out->read_bytes_per_s, err);
}
