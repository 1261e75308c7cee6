/* cubins.c - compiled kernels kept in a folder, so that the next run of the program (a tool after
 * the other over the same kernels) compiles nothing. A name hashes all that a kernel is made from.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/hash.h"
#include "base/mem.h"
#include "kernels/cuda/source.h"
#include "state.h"

#define PATH_CAP 4096

/* Of every source, as a header may be in any of them. */
static uint64_t hash_of_sources(void)
{
    size_t n;
    const struct ew_cuda_text *t = ew_cuda_texts(&n);
    uint64_t h = 0;

    for (size_t i = 0; i < n; i++)
        h = ew_hash64(t[i].text, t[i].len, h);
    return h;
}

static bool path_of(char path[PATH_CAP], const char *dir, const struct cc_spec *s, int version)
{
    uint64_t h = hash_of_sources() + (uint64_t)version * 1000 + s->sm;
    int n;

    h = ew_hash64(s->spec.source, strlen(s->spec.source), h);
    h = ew_hash64(s->spec.defines, strlen(s->spec.defines), h);
    n = snprintf(path, PATH_CAP, "%s/%s-%016llx.cubin", dir, s->spec.source, (unsigned long long)h);
    return n > 0 && n < PATH_CAP;
}

bool cc_cubin_load(const char *dir, const struct cc_spec *s, int version, void **cubin,
                   size_t *bytes)
{
    char path[PATH_CAP];
    long n = 0;
    FILE *f;

    *cubin = NULL;
    if (!dir || !path_of(path, dir, s, version) || !(f = fopen(path, "rb")))
        return false;
    if (!fseek(f, 0, SEEK_END) && (n = ftell(f)) > 0 && !fseek(f, 0, SEEK_SET))
        *cubin = ew_mem_alloc(EW_MEM_MISC, (size_t)n);
    if (*cubin && fread(*cubin, 1, (size_t)n, f) != (size_t)n) {
        ew_mem_free(*cubin);
        *cubin = NULL;
    }
    (void)fclose(f);
    *bytes = (size_t)n;
    return *cubin != NULL;
}

void cc_cubin_save(const char *dir, const struct cc_spec *s, int version, const void *cubin,
                   size_t bytes)
{
    char path[PATH_CAP], part[PATH_CAP + 32];
    bool whole;
    FILE *f;

    if (!dir || !path_of(path, dir, s, version))
        return;
    (void)snprintf(part, sizeof(part), "%s.%ld", path, (long)getpid());
    f = fopen(part, "wb");
    if (!f)
        return;
    whole = fwrite(cubin, 1, bytes, f) == bytes;
    if (fclose(f) || !whole || rename(part, path))
        (void)remove(part);
}
