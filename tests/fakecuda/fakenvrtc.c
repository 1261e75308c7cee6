/* fakenvrtc.c - a run-time compiler that makes an empty ELF file of everything, so that CI builds
 * engines for a GPU where there is no CUDA at all. A source that says "#error" does not compile. */
#include "fakenvrtc.h"

#include <stdlib.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))
#define FAKE(type, name, args)                                                                     \
    EXPORT type name args;                                                                         \
    EXPORT type name args

static _Atomic uint64_t n_compiled;

static const char *build = "1";

static const char code[64] = "\177ELF\2\1"; /* of no sections */

FAKE(int, nvrtcVersion, (int *major, int *minor))
{
    *major = 13;
    *minor = 0;
    return 0;
}

FAKE(const char *, nvrtcGetErrorString, (int r))
{
    return r ? "NVRTC_ERROR_FAKE" : "NVRTC_SUCCESS";
}

FAKE(int, nvrtcGetNumSupportedArchs, (int *n))
{
    *n = 4;
    return 0;
}

FAKE(int, nvrtcGetSupportedArchs, (int *archs))
{
    static const int known[4] = { 80, 87, 90, 120 };

    memcpy(archs, known, sizeof(known));
    return 0;
}

FAKE(int, nvrtcCreateProgram,
     (void **p, const char *source, const char *name, int n, const char *const *headers,
      const char *const *names))
{
    (void)name;
    (void)n;
    (void)headers;
    (void)names;
    *p = strdup(source);
    return *p ? 0 : 1;
}

FAKE(int, nvrtcCompileProgram, (void *p, int n, const char *const *options))
{
    (void)n;
    (void)options;
    n_compiled += *(const char *)p != 0; /* an empty one asks for the build */
    return strstr(p, "#error") ? 6 : 0;
}

FAKE(int, nvrtcDestroyProgram, (void **p))
{
    free(*p);
    return 0;
}

FAKE(int, nvrtcGetCUBINSize, (void *p, size_t *n))
{
    (void)p;
    *n = sizeof(code);
    return 0;
}

FAKE(int, nvrtcGetCUBIN, (void *p, char *cubin))
{
    (void)p;
    memcpy(cubin, code, sizeof(code));
    return 0;
}

FAKE(int, nvrtcGetPTXSize, (void *p, size_t *n))
{
    (void)p;
    *n = strlen(build) + 1;
    return 0;
}

FAKE(int, nvrtcGetPTX, (void *p, char *ptx))
{
    (void)p;
    memcpy(ptx, build, strlen(build) + 1);
    return 0;
}

FAKE(int, nvrtcGetProgramLogSize, (void *p, size_t *n))
{
    (void)p;
    *n = 1;
    return 0;
}

FAKE(int, nvrtcGetProgramLog, (void *p, char *log))
{
    (void)p;
    *log = 0;
    return 0;
}

EXPORT uint64_t fakenvrtc_count(void)
{
    return n_compiled;
}

EXPORT void fakenvrtc_build(const char *text)
{
    build = text;
}

EXPORT void fakenvrtc_reset(void)
{
    n_compiled = 0;
}
