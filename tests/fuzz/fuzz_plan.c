/* fuzz_plan.c - an engine file whose checksums are right but whose words are not: load, describe,
 * and run what loads: on the CPU, or on the stand-in driver (tests/fakecuda), whose copies and
 * fills are real and whose kernels do nothing. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "edgewise/engine.h"
#include "base/mem.h"
#include "plan/reader.h"

#define RUN_CAP                                                                                    \
    ((uint64_t)1 << 20) /* bytes of one input or output: larger shapes are legal but slow */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool small(const ew_engine *e)
{
    ew_tensor_info t;

    for (uint32_t i = 0; !ew_engine_get_tensor(e, i, 0, &t); i++) {
        uint64_t n = 8;

        for (uint32_t d = 0; d < t.n_dims; d++)
            if (t.max[d] > 4096 || (n *= t.max[d] > 0 ? (uint64_t)t.max[d] : 1) > RUN_CAP)
                return false;
    }
    return true;
}

static void run(ew_engine *e)
{
    ew_context *c = NULL;
    ew_tensor_info t;
    ew_error err = { 0 };
    void *memory;

    if (!small(e) || ew_context_create(e, NULL, &c, &err))
        return;
    memory = calloc(1, RUN_CAP);
    for (uint32_t i = 0; memory && !ew_engine_get_tensor(e, i, 0, &t); i++)
        if (t.is_input) {
            (void)ew_context_set_shape(c, t.name, t.max, t.n_dims);
            (void)ew_context_set_address(c, t.name, memory);
        } else if (t.dtype == EW_DTYPE_F32) { /* picks: on a device alone */
            if (i % 2)
                (void)ew_context_set_argmax(c, t.name, memory);
            else
                (void)ew_context_set_draw(c, t.name, memory, memory);
        }
    (void)ew_context_run(c);
    ew_context_destroy(c);
    free(memory);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    ew_engine_opts o = EW_ENGINE_OPTS_INIT;
    uint8_t *copy;
    ew_engine *e = NULL;
    ew_error err = { 0 };
    char *json = NULL;

    if (size > (1u << 20))
        return 0;
    copy = ew_mem_alloc_aligned(EW_MEM_MISC, size + 1, 4096);
    if (!copy)
        return 0;
    memcpy(copy, data, size);
    ew_plan_rehash(copy, size);
    o.n_threads = 1;
    if (!ew_engine_load(copy, size, &o, &e, &err)) {
        if (!ew_engine_describe(e, &json, &err))
            ew_mem_free(json);
        run(e);
    }
    ew_engine_destroy(e);
    ew_mem_free_aligned(copy);
    return 0;
}
