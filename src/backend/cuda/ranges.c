/* backend/cuda/ranges.c - NVTX without its headers. Version 3 has no library of its own: a tool's
 * library is loaded, asks for tables of slots, and puts its functions into those that it wants.
 *
 *   tool: InitializeInjectionNvtx2(export_table)
 *           export_table(1) -> { size, module_table(module, &slots, &n_slots) }
 *           export_table(3) -> { size, version, 0, set_tool_version }
 *         *slots[i] = function, for those of modules 1..6 that it has
 *
 * The functions get no context, so the slots are the process's: there is one set of them, filled
 * once by the first tool that is named, which is never unloaded. */
#include "backend/cuda/ranges.h"

#include <stdatomic.h>
#include <stdint.h>
#include <string.h>

#include "os/os.h"

#define N_MODULES     7 /* 0 is none */
#define MOST_SLOTS    17
#define MODULE_CORE   1
#define SLOT_PUSH     9  /* nvtxRangePushA */
#define SLOT_POP      11 /* nvtxRangePop */
#define TABLE_CALLS   1
#define TABLE_VERSION 3
#define NVTX_VERSION  3

typedef void tool_function(void);

/* Of a module of NVTX 3, slot 0 included, which is nobody's. */
static const unsigned n_slots[N_MODULES] = { 0, 16, 9, 15, 7, 16, 7 };

static tool_function *functions[N_MODULES][MOST_SLOTS];
static tool_function **slots[N_MODULES][MOST_SLOTS];

static int module_table(int module, tool_function ****out, unsigned *n)
{
    if (module < 1 || module >= N_MODULES)
        return 0;
    for (unsigned i = 1; i < n_slots[module]; i++)
        slots[module][i] = &functions[module][i];
    if (out)
        *out = slots[module];
    if (n)
        *n = n_slots[module];
    return 1;
}

static void set_tool_version(uint32_t version)
{
    (void)version;
}

static const struct {
    size_t bytes;
    int (*module_table)(int module, tool_function ****out, unsigned *n);
} calls = { sizeof(calls), module_table };

static const struct {
    size_t bytes;
    uint32_t version, zero;
    void (*set_tool_version)(uint32_t version);
} version_info = { sizeof(version_info), NVTX_VERSION, 0, set_tool_version };

static const void *export_table(uint32_t which)
{
    return which == TABLE_CALLS     ? (const void *)&calls
           : which == TABLE_VERSION ? (const void *)&version_info
                                    : NULL;
}

static void load(const char *path, const ew_logger *logger)
{
    int (*start)(const void *(*export)(uint32_t)) = NULL;
    ew_error err = { 0 };
    void *lib = ew_lib_open(path, &err), *symbol;

    if (!lib) {
        ew_log(logger, EW_LOG_WARN, "profiler: %s", err.text);
        return;
    }
    symbol = ew_lib_symbol(lib, "InitializeInjectionNvtx2");
    memcpy(&start, &symbol, sizeof(symbol));
    if (start && start(export_table))
        return;
    ew_log(logger, EW_LOG_WARN, "profiler: %s takes no NVTX ranges", path);
    memset(functions, 0, sizeof(functions));
    ew_lib_close(lib);
}

/* The first call loads; others wait for it. */
static void load_once(const char *path, const ew_logger *logger)
{
    static atomic_int state; /* 0: not yet, 1: someone does, 2: done */
    int fresh = 0;

    if (atomic_compare_exchange_strong(&state, &fresh, 1)) {
        load(path, logger);
        atomic_store(&state, 2);
    }
    while (atomic_load(&state) != 2)
        ew_thread_yield();
}

static void take_library(struct ew_cuda_ranges *r)
{
    void *push, *pop;

    r->lib = ew_lib_open("libnvToolsExt.so.1", NULL);
    if (!r->lib)
        return;
    push = ew_lib_symbol(r->lib, "nvtxRangePushA");
    pop = ew_lib_symbol(r->lib, "nvtxRangePop");
    if (!push || !pop)
        return;
    memcpy(&r->push, &push, sizeof(push));
    memcpy(&r->pop, &pop, sizeof(pop));
}

void ew_cuda_ranges_open(struct ew_cuda_ranges *r, const char *profiler, const ew_logger *logger)
{
    memset(r, 0, sizeof(*r));
    if (profiler) {
        load_once(profiler, logger);
        if (functions[MODULE_CORE][SLOT_PUSH] && functions[MODULE_CORE][SLOT_POP]) {
            memcpy(&r->push, &functions[MODULE_CORE][SLOT_PUSH], sizeof(r->push));
            memcpy(&r->pop, &functions[MODULE_CORE][SLOT_POP], sizeof(r->pop));
            return;
        }
    }
    take_library(r);
}

void ew_cuda_ranges_close(struct ew_cuda_ranges *r)
{
    if (r->lib)
        ew_lib_close(r->lib);
    memset(r, 0, sizeof(*r));
}
