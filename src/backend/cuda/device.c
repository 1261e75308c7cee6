/* backend/cuda/device.c - opening a GPU and its memory. */
#include "backend/cuda/device.h"

#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/mem.h"

#define MIN_SM 80

static int attribute(const struct ew_cuda_device *d, int which)
{
    int v = 0;

    return d->cu.device_attribute(&v, which, d->id) ? 0 : v;
}

static ew_status choose(struct ew_cuda_device *d, ew_error *err)
{
    int n = 0;
    size_t bytes = 0;
    ew_cu_result r = d->cu.device_count(&n);

    if (r)
        return ew_cu_failed(&d->cu, r, err, "CUDA: counting GPUs");
    if (d->index < 0 || d->index >= n)
        return n ? ew_fail(err, EW_STATUS_UNSUPPORTED, "CUDA: no GPU %d on this machine, it has %d",
                           d->index, n)
                 : ew_fail(err, EW_STATUS_UNSUPPORTED, "CUDA: this machine has no GPU");
    r = d->cu.device_get(&d->id, d->index);
    if (!r)
        r = d->cu.device_name(d->name, (int)sizeof(d->name) - 1, d->id);
    if (!r)
        r = d->cu.device_memory(&bytes, d->id);
    if (r)
        return ew_cu_failed(&d->cu, r, err, "CUDA: GPU %d", d->index);
    d->memory_bytes = bytes;
    return EW_STATUS_OK;
}

static ew_status describe(struct ew_cuda_device *d, ew_error *err)
{
    d->chip = (struct ew_cuda_chip){
        .sm = (uint32_t)(attribute(d, EW_CU_ATTR_MAJOR) * 10 + attribute(d, EW_CU_ATTR_MINOR)),
        .n_sm = (uint32_t)attribute(d, EW_CU_ATTR_N_SM),
        .shared_per_block = (uint32_t)attribute(d, EW_CU_ATTR_SHARED_OPTIN),
        .l2_bytes = (uint64_t)attribute(d, EW_CU_ATTR_L2_BYTES)
    };
    d->integrated = attribute(d, EW_CU_ATTR_INTEGRATED) != 0;
    d->peak_bytes_per_s = (uint64_t)attribute(d, EW_CU_ATTR_MEMORY_CLOCK_KHZ) * 1000u * 2u *
                          (uint64_t)attribute(d, EW_CU_ATTR_MEMORY_BUS_BITS) / 8u;
    if (d->chip.sm < MIN_SM)
        return ew_fail(err, EW_STATUS_UNSUPPORTED,
                       "CUDA: GPU %d (%s) is sm_%u; kernels need sm_%d or newer", d->index, d->name,
                       d->chip.sm, MIN_SM);
    if (!d->chip.n_sm || !d->chip.shared_per_block)
        return ew_fail(err, EW_STATUS_DEVICE, "CUDA: GPU %d (%s) does not say what it is", d->index,
                       d->name);
    return EW_STATUS_OK;
}

ew_status ew_cuda_device_open(int index, const char *driver, struct ew_cuda_device **out,
                              ew_error *err)
{
    struct ew_cuda_device *d = ew_mem_calloc(EW_MEM_ENGINE, 1, sizeof(*d));
    void *word = NULL;
    ew_cu_result r;
    ew_status st;

    *out = NULL;
    if (!d)
        return ew_fail(err, EW_STATUS_NO_MEMORY, "CUDA device");
    d->index = index;
    st = ew_cuda_driver_open(&d->cu, driver, err);
    if (!st)
        st = choose(d, err);
    if (!st)
        st = describe(d, err);
    if (!st) {
        r = d->cu.context_retain(&d->context, d->id);
        if (r) {
            d->context = NULL;
            st = ew_cu_failed(&d->cu, r, err, "CUDA: GPU %d (%s): context", index, d->name);
        }
    }
    if (!st)
        st = ew_cuda_host_alloc(d, sizeof(*d->fault), "a kernel's last word", &word, err);
    if (st) {
        ew_cuda_device_close(d);
        return st;
    }
    d->fault = word;
    *d->fault = 0;
    *out = d;
    return EW_STATUS_OK;
}

void ew_cuda_device_close(struct ew_cuda_device *d)
{
    if (!d)
        return;
    ew_cuda_host_free(d, (void *)(uintptr_t)d->fault);
    if (d->context)
        (void)d->cu.context_release(d->id);
    ew_cuda_driver_close(&d->cu);
    ew_mem_free(d);
}

bool ew_cuda_device_parse(const char *text, int *index)
{
    *index = 0;
    if (strcmp(text, "cuda") == 0)
        return true;
    if (strncmp(text, "cuda:", 5) != 0 || !text[5] || strlen(text + 5) > 3)
        return false;
    for (const char *at = text + 5; *at; at++) {
        if (*at < '0' || *at > '9')
            return false;
        *index = *index * 10 + (*at - '0');
    }
    return true;
}

ew_status ew_cuda_device_describe(const char *text, char *out, size_t cap, ew_error *err)
{
    struct ew_cuda_device *d;
    ew_status st;
    int index;

    if (!ew_cuda_device_parse(text, &index))
        return ew_fail(err, EW_STATUS_INVALID_ARG, "device '%s' is none of cpu, cuda, cuda:N",
                       text);
    d = ew_mem_calloc(EW_MEM_ENGINE, 1, sizeof(*d));
    if (!d)
        return ew_fail(err, EW_STATUS_NO_MEMORY, "CUDA device");
    d->index = index;
    st = ew_cuda_driver_open(&d->cu, NULL, err);
    if (!st)
        st = choose(d, err);
    if (!st)
        st = describe(d, err);
    if (!st)
        (void)snprintf(out, cap, "%s sm_%u x%u", d->name, d->chip.sm, d->chip.n_sm);
    ew_cuda_device_close(d);
    return st;
}

void ew_cuda_enter(const struct ew_cuda_device *d)
{
    (void)d->cu.context_push(d->context);
}

void ew_cuda_leave(const struct ew_cuda_device *d)
{
    ew_cu_context was;

    (void)d->cu.context_pop(&was);
}

ew_status ew_cuda_alloc(struct ew_cuda_device *d, size_t bytes, const char *what, ew_cu_ptr *out,
                        ew_error *err)
{
    size_t free_bytes = 0, total = 0;
    ew_cu_result r;

    *out = 0;
    ew_cuda_enter(d);
    r = d->cu.alloc(out, bytes ? bytes : 1);
    if (r)
        (void)d->cu.memory_info(&free_bytes, &total);
    ew_cuda_leave(d);
    if (!r)
        return EW_STATUS_OK;
    *out = 0;
    if (r == EW_CU_OUT_OF_MEMORY)
        return ew_fail(err, EW_STATUS_NO_MEMORY,
                       "CUDA: %s: %zu bytes of device memory; %zu of %zu are free on %s", what,
                       bytes, free_bytes, total, d->name);
    return ew_cu_failed(&d->cu, r, err, "CUDA: %s: %zu bytes of device memory", what, bytes);
}

void ew_cuda_free(struct ew_cuda_device *d, ew_cu_ptr p)
{
    if (!p)
        return;
    ew_cuda_enter(d);
    (void)d->cu.free(p);
    ew_cuda_leave(d);
}

ew_status ew_cuda_host_alloc(struct ew_cuda_device *d, size_t bytes, const char *what, void **out,
                             ew_error *err)
{
    ew_cu_result r;

    *out = NULL;
    ew_cuda_enter(d);
    r = d->cu.host_alloc(out, bytes ? bytes : 1, EW_CU_HOST_ALLOC_PORTABLE);
    ew_cuda_leave(d);
    if (!r)
        return EW_STATUS_OK;
    *out = NULL;
    return ew_cu_failed(&d->cu, r, err, "CUDA: %s: %zu bytes of pinned host memory", what, bytes);
}

void ew_cuda_host_free(struct ew_cuda_device *d, void *p)
{
    if (!p)
        return;
    ew_cuda_enter(d);
    (void)d->cu.host_free(p);
    ew_cuda_leave(d);
}
