/* fakeinject.c - the library of a tool that takes NVTX ranges, as a profiler loads one: it counts
 * what is pushed and remembers the last names. It wants every slot of NVTX 3 to be there. */
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))
#define NAMES  64

typedef void function(void);
struct calls {
    size_t bytes;
    int (*module_table)(int module, function ****slots, unsigned *n);
};
struct version {
    size_t bytes;
    uint32_t version, zero;
    void (*set)(uint32_t version);
};

EXPORT int InitializeInjectionNvtx2(const void *(*export_table)(uint32_t which));
EXPORT const char *fakeinject_name(unsigned i); /* i of all; of the last NAMES */
EXPORT unsigned fakeinject_count(void);
EXPORT int fakeinject_depth(void);

static char names[NAMES][96];
static unsigned n_names;
static int depth;

static int push(const char *name)
{
    (void)snprintf(names[n_names++ % NAMES], sizeof(names[0]), "%s", name);
    return depth++;
}

static int pop(void)
{
    return --depth;
}

static int put(function **slot, const void *f)
{
    memcpy(slot, f, sizeof(*slot));
    return 1;
}

EXPORT int InitializeInjectionNvtx2(const void *(*export_table)(uint32_t which))
{
    static const unsigned sizes[] = { 0, 16, 9, 15, 7, 16, 7 };
    int (*const p_push)(const char *) = push;
    int (*const p_pop)(void) = pop;
    const struct calls *c = export_table(1);
    const struct version *v = export_table(3);
    function ***slots;
    unsigned n;

    if (!c || c->bytes < sizeof(*c) || !v || v->bytes < sizeof(*v) || v->version != 3 ||
        export_table(99) || c->module_table(7, &slots, &n))
        return 0;
    v->set(3);
    for (int m = 1; m < 7; m++) {
        if (!c->module_table(m, &slots, &n) || n != sizes[m] || slots[0])
            return 0;
        for (unsigned i = 1; i < n; i++)
            if (!slots[i])
                return 0;
    }
    return c->module_table(1, &slots, &n) && put(slots[9], &p_push) && put(slots[11], &p_pop);
}

EXPORT const char *fakeinject_name(unsigned i)
{
    return names[i % NAMES];
}

EXPORT unsigned fakeinject_count(void)
{
    return n_names;
}

EXPORT int fakeinject_depth(void)
{
    return depth;
}
