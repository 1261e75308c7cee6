/* backend/cuda/nvrtc_cache.c - see nvrtc_cache.h.
 *
 * A file "<source>-<hash>.cubin": magic, bytes of code, hash of the code, code. The name hashes the
 * compiler's build, its options (the chip and the macros are in them) and the text of every source
 * and header, as any may be in any. The driver is not in it: what is kept is the chip's own code,
 * of which a driver compiles nothing. */
#include "backend/cuda/nvrtc_cache.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/hash.h"
#include "base/mem.h"
#include "kernels/cuda/source.h"
#include "os/os.h"

#define MAX_BYTES ((size_t)64 << 20)

struct head {
    char magic[8];
    uint64_t bytes, hash;
};
static const char magic[8] = { 'E', 'W', 'C', 'U', 'B', 'I', 'N', '1' };

static bool path_of(char path[4096], const char *dir, const struct ew_nvrtc *c,
                    const struct ew_cuda_spec *spec, uint32_t sm)
{
    char options[EW_NVRTC_OPTIONS_CAP], name[160];
    const uint64_t build = ew_nvrtc_build(c);
    size_t n;
    const struct ew_cuda_text *all = ew_cuda_texts(&n);
    struct ew_hash128 h = ew_hash128(&build, sizeof(build), 0);

    if (!build)
        return false;
    ew_nvrtc_options(options, spec, sm);
    h = ew_hash128(options, strlen(options), h.lo ^ h.hi);
    h = ew_hash128(spec->source, strlen(spec->source), h.lo ^ h.hi);
    for (size_t i = 0; i < n; i++)
        h = ew_hash128(all[i].text, all[i].len, h.lo ^ h.hi);
    (void)snprintf(name, sizeof(name), "%.100s-%016" PRIx64 "%016" PRIx64 ".cubin", spec->source,
                   h.hi, h.lo);
    return ew_path_join(path, 4096, dir, name);
}

static bool load(const char *path, void **cubin, size_t *n_bytes)
{
    struct head head;
    char *text = NULL;
    size_t len = 0;
    bool good;

    if (!ew_path_is_file(path) || ew_file_read(path, MAX_BYTES, &text, &len, NULL))
        return false;
    good = len > sizeof(head);
    if (good) {
        memcpy(&head, text, sizeof(head));
        good = memcmp(head.magic, magic, sizeof(magic)) == 0 && head.bytes == len - sizeof(head) &&
               head.hash == ew_hash64(text + sizeof(head), len - sizeof(head), 0);
    }
    *cubin = good ? ew_mem_alloc(EW_MEM_BUILD, len - sizeof(head)) : NULL;
    if (*cubin) {
        *n_bytes = len - sizeof(head);
        memcpy(*cubin, text + sizeof(head), *n_bytes);
    }
    ew_mem_free(text);
    return *cubin != NULL;
}

/* Under its name when it is whole. */
static void save(const char *path, const void *cubin, size_t n_bytes)
{
    struct head head = { .bytes = n_bytes, .hash = ew_hash64(cubin, n_bytes, 0) };
    struct ew_file_writer *w = NULL;

    memcpy(head.magic, magic, sizeof(magic));
    if (ew_file_writer_open(&w, path, NULL))
        return;
    if (ew_file_writer_write(w, &head, sizeof(head), NULL) ||
        ew_file_writer_write(w, cubin, n_bytes, NULL))
        ew_file_writer_abort(w);
    else
        (void)ew_file_writer_commit(w, NULL);
}

ew_status ew_nvrtc_compile_in(const char *dir, struct ew_nvrtc *c, const struct ew_cuda_spec *spec,
                              uint32_t sm, void **cubin, size_t *n_bytes, char **log, ew_error *err)
{
    char path[4096];
    const bool keeps = dir && !ew_dir_make(dir, NULL) && path_of(path, dir, c, spec, sm);

    if (log)
        *log = NULL;
    if (keeps && load(path, cubin, n_bytes))
        return EW_STATUS_OK;
    EW_TRY(ew_nvrtc_compile(c, spec, sm, cubin, n_bytes, log, err));
    if (keeps)
        save(path, *cubin, *n_bytes);
    return EW_STATUS_OK;
}
