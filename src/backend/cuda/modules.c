/* backend/cuda/modules.c - the table of compiled kernels. */
#include "backend/cuda/modules.h"

#include <string.h>

#include "base/error.h"
#include "base/mem.h"
#include "os/os.h"

#define DEFAULT_SHARED (48u << 10) /* what a kernel may have without asking */

/* ELF of 64 bits: where a section's or a segment's record says where it lies; 8 and 24 bytes on,
 * how long it is. */
#define ELF_HEADER     64
#define ELF_SECTION_AT 24
#define ELF_SEGMENT_AT 8
#define ELF_NO_BITS    8 /* type of a section that takes no room */

struct module {
    struct ew_cuda_image image;
    char *own_defines; /* of an image that was compiled here */
    void *own_cubin;
    ew_cu_module loaded;
};

struct function {
    size_t module;
    const char *entry;
    ew_cu_function f;
    uint32_t shared_bytes;
};

struct ew_cuda_modules {
    struct ew_cuda_device *device;
    struct ew_nvrtc *compiler;
    struct ew_cublaslt *library;
    struct ew_mutex *lock;
    struct module *modules;
    size_t n_modules;
    struct function *functions;
    size_t n_functions;
};

ew_status ew_cuda_modules_open(struct ew_cuda_device *d, struct ew_nvrtc *compiler,
                               struct ew_cuda_modules **out, ew_error *err)
{
    struct ew_cuda_modules *m = ew_mem_calloc(EW_MEM_ENGINE, 1, sizeof(*m));

    *out = NULL;
    if (m)
        m->lock = ew_mutex_create();
    if (!m || !m->lock) {
        ew_mem_free(m);
        return ew_fail(err, EW_STATUS_NO_MEMORY, "CUDA kernels");
    }
    m->device = d;
    m->compiler = compiler;
    *out = m;
    return EW_STATUS_OK;
}

void ew_cuda_modules_close(struct ew_cuda_modules *m)
{
    if (!m)
        return;
    for (size_t i = 0; i < m->n_modules; i++) {
        if (m->modules[i].loaded) {
            ew_cuda_enter(m->device);
            (void)m->device->cu.module_unload(m->modules[i].loaded);
            ew_cuda_leave(m->device);
        }
        ew_mem_free(m->modules[i].own_defines);
        ew_mem_free(m->modules[i].own_cubin);
    }
    ew_mem_free(m->modules);
    ew_mem_free(m->functions);
    ew_mutex_destroy(m->lock);
    ew_mem_free(m);
}

void ew_cuda_modules_set_library(struct ew_cuda_modules *m, struct ew_cublaslt *library)
{
    m->library = library;
}

static ew_status add(struct ew_cuda_modules *m, const struct ew_cuda_image *image,
                     struct module **out, ew_error *err)
{
    struct module *more =
        ew_mem_resize(EW_MEM_ENGINE, m->modules, m->n_modules + 1, sizeof(*m->modules));

    if (!more)
        return ew_fail(err, EW_STATUS_NO_MEMORY, "CUDA kernels");
    m->modules = more;
    *out = &m->modules[m->n_modules++];
    **out = (struct module){ .image = *image };
    return EW_STATUS_OK;
}

ew_status ew_cuda_modules_add(struct ew_cuda_modules *m, const struct ew_cuda_image *image,
                              ew_error *err)
{
    struct module *added;
    ew_status st;

    ew_mutex_lock(m->lock);
    st = add(m, image, &added, err);
    ew_mutex_unlock(m->lock);
    return st;
}

/* Index of the image of a spec; n_modules: none. */
static size_t find_module(const struct ew_cuda_modules *m, const struct ew_cuda_spec *s)
{
    size_t i = 0;

    while (i < m->n_modules && (strcmp(m->modules[i].image.source, s->source) != 0 ||
                                strcmp(m->modules[i].image.defines, s->defines) != 0))
        i++;
    return i;
}

static ew_status compile(struct ew_cuda_modules *m, const struct ew_cuda_spec *s, ew_error *err)
{
    struct ew_cuda_image image = { .source = s->source };
    struct module *added;
    char *defines;
    void *cubin;
    ew_status st;

    if (!m->compiler)
        return ew_fail(err, EW_STATUS_NOT_FOUND,
                       "kernel '%s' (%s) is not in the engine: it was built for other shapes",
                       s->entry, s->defines);
    EW_TRY(ew_nvrtc_compile(m->compiler, s, m->device->chip.sm, &cubin, &image.n_bytes, NULL, err));
    defines = ew_mem_strdup(EW_MEM_ENGINE, s->defines);
    image.cubin = cubin;
    image.defines = defines;
    st = defines ? add(m, &image, &added, err) : ew_fail(err, EW_STATUS_NO_MEMORY, "CUDA kernels");
    if (st) {
        ew_mem_free(defines);
        ew_mem_free(cubin);
        return st;
    }
    added->own_defines = defines;
    added->own_cubin = cubin;
    return EW_STATUS_OK;
}

/* n bytes of a little-endian number. */
static uint64_t number(const uint8_t *at, int n)
{
    uint64_t v = 0;

    while (n-- > 0)
        v = v << 8 | at[n];
    return v;
}

/* Whether n records of `bytes` each lie in the image from `at` on, and what each points to: from,
 * length at these places of a record. */
static bool are_inside(const struct ew_cuda_image *image, uint64_t at, uint64_t n, uint64_t bytes,
                       int from, int length)
{
    const uint8_t *const base = image->cubin;

    if (at > image->n_bytes || n * bytes > image->n_bytes - at || (n && bytes < 40))
        return false;
    for (uint64_t i = 0; i < n; i++) {
        const uint8_t *r = base + at + i * bytes;
        const bool is_nothing = from == ELF_SECTION_AT && number(r + 4, 4) == ELF_NO_BITS;
        const uint64_t off = number(r + from, 8), len = number(r + length, 8);

        if (!is_nothing && (off > image->n_bytes || len > image->n_bytes - off))
            return false;
    }
    return true;
}

/* A driver is told no length and believes what an image says of itself; an image from a file may
 * say anything. So it is seen to that headers, sections and segments of the ELF file lie in it. */
static bool is_whole(const struct ew_cuda_image *image)
{
    const uint8_t *h = image->cubin;

    if (image->n_bytes < ELF_HEADER || memcmp(h, "\177ELF\2\1", 6) != 0)
        return false;
    if (!number(h + 60, 2) && number(h + 40, 8))
        return false; /* more sections than the header can say */
    return are_inside(image, number(h + 32, 8), number(h + 56, 2), number(h + 54, 2),
                      ELF_SEGMENT_AT, ELF_SEGMENT_AT + 24) &&
           are_inside(image, number(h + 40, 8), number(h + 60, 2), number(h + 58, 2),
                      ELF_SECTION_AT, ELF_SECTION_AT + 8);
}

static ew_status load(struct ew_cuda_modules *m, size_t i, const struct ew_cuda_spec *s,
                      ew_cu_function *out, ew_error *err)
{
    struct module *mod = &m->modules[i];
    const struct ew_cuda_driver *cu = &m->device->cu;
    ew_cu_result r = 0;

    if (!mod->loaded && !is_whole(&mod->image))
        return ew_fail(err, EW_STATUS_MALFORMED, "CUDA: kernel '%s' (%s) is no whole cubin",
                       s->entry, s->defines);
    ew_cuda_enter(m->device);
    if (!mod->loaded) {
        r = cu->module_load(&mod->loaded, mod->image.cubin);
        if (r)
            mod->loaded = NULL;
    }
    if (!r)
        r = cu->module_function(out, mod->loaded, s->entry);
    ew_cuda_leave(m->device);
    return r ? ew_cu_failed(cu, r, err, "CUDA: loading kernel '%s' (%s)", s->entry, s->defines)
             : EW_STATUS_OK;
}

/* Entry of the table for a spec, made when it is not there. */
static ew_status find(struct ew_cuda_modules *m, const struct ew_cuda_spec *s,
                      struct function **out, ew_error *err)
{
    size_t mod = find_module(m, s);
    struct function *more;
    ew_cu_function f;

    for (size_t i = 0; mod < m->n_modules && i < m->n_functions; i++)
        if (m->functions[i].module == mod && strcmp(m->functions[i].entry, s->entry) == 0) {
            *out = &m->functions[i];
            return EW_STATUS_OK;
        }
    if (mod == m->n_modules)
        EW_TRY(compile(m, s, err));
    EW_TRY(load(m, mod, s, &f, err));
    more = ew_mem_resize(EW_MEM_ENGINE, m->functions, m->n_functions + 1, sizeof(*m->functions));
    if (!more)
        return ew_fail(err, EW_STATUS_NO_MEMORY, "CUDA kernels");
    m->functions = more;
    *out = &m->functions[m->n_functions++];
    **out = (struct function){ mod, s->entry, f, DEFAULT_SHARED };
    return EW_STATUS_OK;
}

static ew_status raise_shared(struct ew_cuda_modules *m, struct function *f,
                              const struct ew_cuda_launch *l, ew_error *err)
{
    const struct ew_cuda_driver *cu = &m->device->cu;
    ew_cu_result r;

    if (l->shared_bytes > m->device->chip.shared_per_block)
        return ew_fail(err, EW_STATUS_UNSUPPORTED,
                       "kernel '%s' wants %u bytes of shared memory, a block of %s has %u",
                       l->spec.entry, l->shared_bytes, m->device->name,
                       m->device->chip.shared_per_block);
    ew_cuda_enter(m->device);
    r = cu->function_set(f->f, EW_CU_FUNC_SHARED_BYTES, (int)l->shared_bytes);
    ew_cuda_leave(m->device);
    if (r)
        return ew_cu_failed(cu, r, err, "CUDA: kernel '%s': %u bytes of shared memory",
                            l->spec.entry, l->shared_bytes);
    f->shared_bytes = l->shared_bytes;
    return EW_STATUS_OK;
}

static ew_status get_product(struct ew_cuda_modules *m, const struct ew_cuda_launch *l,
                             ew_cu_function *out, ew_error *err)
{
    struct ew_cublaslt_plan *plan = NULL;
    struct ew_cuda_product p;

    if (!m->library)
        return ew_fail(err, EW_STATUS_NOT_FOUND, "a product needs cuBLASLt, which is not loaded");
    memcpy(&p, l->args, sizeof(p));
    EW_TRY(ew_cublaslt_plan(m->library, &p, &plan, err));
    *out = plan;
    return EW_STATUS_OK;
}

ew_status ew_cuda_modules_get(struct ew_cuda_modules *m, const struct ew_cuda_launch *l,
                              ew_cu_function *out, ew_error *err)
{
    struct function *f = NULL;
    ew_status st;

    if (l->product)
        return get_product(m, l, out, err);
    ew_mutex_lock(m->lock);
    st = find(m, &l->spec, &f, err);
    if (!st && l->shared_bytes > f->shared_bytes)
        st = raise_shared(m, f, l, err);
    if (!st && l->cluster > 8) {
        ew_cuda_enter(m->device);
        (void)m->device->cu.function_set(f->f, EW_CU_FUNC_ANY_CLUSTER, 1);
        ew_cuda_leave(m->device);
    }
    if (!st)
        *out = f->f;
    ew_mutex_unlock(m->lock);
    return st;
}

bool ew_cuda_modules_image(struct ew_cuda_modules *m, size_t i, struct ew_cuda_image *out)
{
    bool there;

    ew_mutex_lock(m->lock);
    there = i < m->n_modules;
    if (there)
        *out = m->modules[i].image;
    ew_mutex_unlock(m->lock);
    return there;
}
