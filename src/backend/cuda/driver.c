/* backend/cuda/driver.c - loading the driver and translating what it says. */
#include "backend/cuda/driver.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/size.h"
#include "os/os.h"

_Static_assert(sizeof(ew_cu_launch_attribute) == 72, "CUlaunchAttribute");
_Static_assert(sizeof(ew_cu_copy_2d) == 128, "CUDA_MEMCPY2D");

static ew_status load(struct ew_cuda_driver *d, const char *path, ew_error *err)
{
    const struct {
        const char *name;
        size_t at;
    } functions[] = {
#define EW_CU_ENTRY(member, name, args) { name, offsetof(struct ew_cuda_driver, member) },
        EW_CU_FUNCTIONS(EW_CU_ENTRY)
#undef EW_CU_ENTRY
    };
    const char *missing = NULL;

    d->lib = ew_lib_open(path ? path : "libcuda.so.1", NULL);
    if (!d->lib)
        return ew_fail(err, EW_STATUS_UNSUPPORTED,
                       "CUDA: no driver on this machine (%s cannot be loaded)",
                       path ? path : "libcuda.so.1");
    for (size_t i = 0; i < EW_COUNT(functions); i++) {
        void *f = ew_lib_symbol(d->lib, functions[i].name);

        memcpy((char *)d + functions[i].at, &f, sizeof(f));
        if (!f && !missing)
            missing = functions[i].name;
    }
    if (!d->get_version || d->get_version(&d->version))
        return ew_fail(err, EW_STATUS_UNSUPPORTED, "CUDA: %s is no CUDA driver",
                       path ? path : "libcuda.so.1");
    if (d->version < EW_CU_MIN_VERSION)
        return ew_fail(err, EW_STATUS_UNSUPPORTED,
                       "CUDA: the driver offers CUDA %d.%d, at least %d.%d is needed",
                       d->version / 1000, d->version % 1000 / 10, EW_CU_MIN_VERSION / 1000,
                       EW_CU_MIN_VERSION % 1000 / 10);
    if (missing)
        return ew_fail(err, EW_STATUS_UNSUPPORTED, "CUDA: the driver (CUDA %d.%d) has no '%s'",
                       d->version / 1000, d->version % 1000 / 10, missing);
    return EW_STATUS_OK;
}

ew_status ew_cuda_driver_open(struct ew_cuda_driver *d, const char *path, ew_error *err)
{
    ew_cu_result r;
    ew_status st;

    memset(d, 0, sizeof(*d));
    st = load(d, path, err);
    if (!st) {
        r = d->init(0);
        if (r == EW_CU_NO_DEVICE)
            st = ew_fail(err, EW_STATUS_UNSUPPORTED, "CUDA: this machine has no GPU");
        else if (r) {
            (void)ew_cu_failed(d, r, err, "CUDA: the driver does not start");
            st = EW_STATUS_UNSUPPORTED;
            if (err)
                err->status = st;
        }
    }
    if (st)
        ew_cuda_driver_close(d);
    return st;
}

void ew_cuda_driver_close(struct ew_cuda_driver *d)
{
    if (d->lib)
        ew_lib_close(d->lib);
    memset(d, 0, sizeof(*d));
}

ew_status ew_cu_failed(const struct ew_cuda_driver *d, ew_cu_result r, ew_error *err,
                       const char *fmt, ...)
{
    const char *name = NULL, *text = NULL;
    char what[256];
    va_list args;

    va_start(args, fmt);
    (void)vsnprintf(what, sizeof(what), fmt, args);
    va_end(args);
    if (d->error_name(r, &name) || !name)
        name = "unknown error";
    if (d->error_text(r, &text) || !text)
        text = "?";
    return ew_fail(err, r == EW_CU_OUT_OF_MEMORY ? EW_STATUS_NO_MEMORY : EW_STATUS_DEVICE,
                   "%s: %s %d (%s)", what, name, r, text);
}

bool ew_cu_is_sticky(ew_cu_result r)
{
    return r == EW_CU_ILLEGAL_ADDRESS || r == EW_CU_LAUNCH_TIMEOUT ||
           (r >= EW_CU_FIRST_STICKY && r <= EW_CU_LAUNCH_FAILED);
}
