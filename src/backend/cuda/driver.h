/* backend/cuda/driver.h - the CUDA driver as a table of functions, loaded at run time: one binary
 * serves machines with and without a GPU. Types and numbers are the driver's ABI, declared here, so
 * that no CUDA header is needed to build.
 *
 * Errors of the driver are translated in one place (ew_cu_failed). Thread safety: any thread. */
#ifndef EW_BACKEND_CUDA_DRIVER_H
#define EW_BACKEND_CUDA_DRIVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "edgewise/base.h"

#define EW_CU_MIN_VERSION 12000 /* cuLaunchKernelEx, cuGraphInstantiate with flags */

typedef int ew_cu_result; /* CUresult; 0: success */
typedef int ew_cu_device;
typedef uint64_t ew_cu_ptr; /* CUdeviceptr */
typedef void *ew_cu_context, *ew_cu_stream, *ew_cu_event, *ew_cu_module, *ew_cu_function,
    *ew_cu_graph, *ew_cu_graph_exec;

enum { /* CUresult */
       EW_CU_OUT_OF_MEMORY = 2,
       EW_CU_NO_DEVICE = 100,
       EW_CU_INVALID_DEVICE = 101,
       EW_CU_INVALID_IMAGE = 200,
       EW_CU_NO_BINARY_FOR_GPU = 209,
       EW_CU_NOT_READY = 600,
       EW_CU_ILLEGAL_ADDRESS = 700,
       EW_CU_OUT_OF_RESOURCES = 701,
       EW_CU_LAUNCH_TIMEOUT = 702,
       EW_CU_FIRST_STICKY = 710, /* assert, hardware faults, misaligned address ... */
       EW_CU_LAUNCH_FAILED = 719
};
enum { /* CUdevice_attribute */
       EW_CU_ATTR_CLOCK_KHZ = 13,
       EW_CU_ATTR_N_SM = 16,
       EW_CU_ATTR_INTEGRATED = 18,
       EW_CU_ATTR_MEMORY_CLOCK_KHZ = 36,
       EW_CU_ATTR_MEMORY_BUS_BITS = 37,
       EW_CU_ATTR_L2_BYTES = 38,
       EW_CU_ATTR_MAJOR = 75,
       EW_CU_ATTR_MINOR = 76,
       EW_CU_ATTR_COOPERATIVE = 95,
       EW_CU_ATTR_SHARED_OPTIN = 97
};
enum { /* CUlaunchAttributeID */
       EW_CU_LAUNCH_COOPERATIVE = 2,
       EW_CU_LAUNCH_CLUSTER = 4,
       EW_CU_LAUNCH_EARLY_START = 6
};
#define EW_CU_FUNC_SHARED_BYTES        8 /* CUfunction_attribute: dynamic shared memory limit */
#define EW_CU_FUNC_ANY_CLUSTER         14
#define EW_CU_STREAM_NON_BLOCKING      1u
#define EW_CU_EVENT_NO_TIMING          2u
#define EW_CU_CAPTURE_RELAXED          2
#define EW_CU_HOST_REGISTER_DEVICE_MAP 2u
#define EW_CU_HOST_REGISTER_READ_ONLY  8u
#define EW_CU_HOST_ALLOC_PORTABLE      1u
#define EW_CU_MEMORY_HOST              1u
#define EW_CU_TENSOR_MAP_F16           6
#define EW_CU_TENSOR_MAP_BF16          9
#define EW_CU_TENSOR_MAP_L2_256        3
#define EW_CU_TENSOR_MAP_BYTES         128
#define EW_CU_MEMORY_DEVICE            2u

typedef struct ew_cu_launch_attribute { /* CUlaunchAttribute */
    int id;
    uint32_t pad;
    union {
        uint8_t bytes[64];
        int on;
        uint32_t cluster[3];
    } value;
} ew_cu_launch_attribute;

typedef struct ew_cu_launch_config { /* CUlaunchConfig */
    uint32_t grid[3], block[3];
    uint32_t shared_bytes;
    ew_cu_stream stream;
    ew_cu_launch_attribute *attrs;
    uint32_t n_attrs;
} ew_cu_launch_config;

typedef struct ew_cu_copy_2d { /* CUDA_MEMCPY2D */
    size_t src_x, src_y;
    uint32_t src_type;
    const void *src_host;
    ew_cu_ptr src_device;
    void *src_array;
    size_t src_pitch;
    size_t dst_x, dst_y;
    uint32_t dst_type;
    void *dst_host;
    ew_cu_ptr dst_device;
    void *dst_array;
    size_t dst_pitch;
    size_t width, height;
} ew_cu_copy_2d;

/* member, exported name, arguments */
/* clang-format off */
#define EW_CU_FUNCTIONS(X) \
    X(init, "cuInit", (unsigned flags)) \
    X(get_version, "cuDriverGetVersion", (int *version)) \
    X(error_name, "cuGetErrorName", (ew_cu_result r, const char **text)) \
    X(error_text, "cuGetErrorString", (ew_cu_result r, const char **text)) \
    X(device_count, "cuDeviceGetCount", (int *n)) \
    X(device_get, "cuDeviceGet", (ew_cu_device *d, int i)) \
    X(device_name, "cuDeviceGetName", (char *name, int cap, ew_cu_device d)) \
    X(device_attribute, "cuDeviceGetAttribute", (int *v, int attribute, ew_cu_device d)) \
    X(device_memory, "cuDeviceTotalMem_v2", (size_t *bytes, ew_cu_device d)) \
    X(context_retain, "cuDevicePrimaryCtxRetain", (ew_cu_context *c, ew_cu_device d)) \
    X(context_release, "cuDevicePrimaryCtxRelease_v2", (ew_cu_device d)) \
    X(context_push, "cuCtxPushCurrent_v2", (ew_cu_context c)) \
    X(context_pop, "cuCtxPopCurrent_v2", (ew_cu_context *c)) \
    X(synchronize, "cuCtxSynchronize", (void)) \
    X(memory_info, "cuMemGetInfo_v2", (size_t *free_bytes, size_t *total)) \
    X(alloc, "cuMemAlloc_v2", (ew_cu_ptr *p, size_t bytes)) \
    X(free, "cuMemFree_v2", (ew_cu_ptr p)) \
    X(host_alloc, "cuMemHostAlloc", (void **p, size_t bytes, unsigned flags)) \
    X(host_free, "cuMemFreeHost", (void *p)) \
    X(host_register, "cuMemHostRegister_v2", (void *p, size_t bytes, unsigned flags)) \
    X(host_unregister, "cuMemHostUnregister", (void *p)) \
    X(host_device_pointer, "cuMemHostGetDevicePointer_v2", (ew_cu_ptr *d, void *p, unsigned flags)) \
    X(upload, "cuMemcpyHtoDAsync_v2", (ew_cu_ptr to, const void *from, size_t bytes, ew_cu_stream s)) \
    X(download, "cuMemcpyDtoHAsync_v2", (void *to, ew_cu_ptr from, size_t bytes, ew_cu_stream s)) \
    X(copy, "cuMemcpyDtoDAsync_v2", (ew_cu_ptr to, ew_cu_ptr from, size_t bytes, ew_cu_stream s)) \
    X(copy_2d, "cuMemcpy2DAsync_v2", (const ew_cu_copy_2d *c, ew_cu_stream s)) \
    X(fill, "cuMemsetD8Async", (ew_cu_ptr p, unsigned char v, size_t bytes, ew_cu_stream s)) \
    X(stream_create, "cuStreamCreate", (ew_cu_stream *s, unsigned flags)) \
    X(stream_destroy, "cuStreamDestroy_v2", (ew_cu_stream s)) \
    X(stream_synchronize, "cuStreamSynchronize", (ew_cu_stream s)) \
    X(capture_begin, "cuStreamBeginCapture_v2", (ew_cu_stream s, int mode)) \
    X(capture_end, "cuStreamEndCapture", (ew_cu_stream s, ew_cu_graph *g)) \
    X(event_create, "cuEventCreate", (ew_cu_event *e, unsigned flags)) \
    X(event_destroy, "cuEventDestroy_v2", (ew_cu_event e)) \
    X(event_record, "cuEventRecord", (ew_cu_event e, ew_cu_stream s)) \
    X(event_synchronize, "cuEventSynchronize", (ew_cu_event e)) \
    X(event_elapsed, "cuEventElapsedTime", (float *ms, ew_cu_event from, ew_cu_event to)) \
    X(graph_instantiate, "cuGraphInstantiateWithFlags", (ew_cu_graph_exec *x, ew_cu_graph g, unsigned long long flags)) \
    X(graph_launch, "cuGraphLaunch", (ew_cu_graph_exec x, ew_cu_stream s)) \
    X(graph_upload, "cuGraphUpload", (ew_cu_graph_exec x, ew_cu_stream s)) \
    X(graph_exec_destroy, "cuGraphExecDestroy", (ew_cu_graph_exec x)) \
    X(graph_destroy, "cuGraphDestroy", (ew_cu_graph g)) \
    X(module_load, "cuModuleLoadData", (ew_cu_module *m, const void *image)) \
    X(module_unload, "cuModuleUnload", (ew_cu_module m)) \
    X(module_function, "cuModuleGetFunction", (ew_cu_function *f, ew_cu_module m, const char *name)) \
    X(function_set, "cuFuncSetAttribute", (ew_cu_function f, int attribute, int value)) \
    X(function_blocks, "cuOccupancyMaxActiveBlocksPerMultiprocessor", (int *n, ew_cu_function f, int threads, size_t shared_bytes)) \
    X(tensor_map, "cuTensorMapEncodeTiled", (void *map, int dtype, uint32_t rank, void *address, const uint64_t *dims, const uint64_t *strides, const uint32_t *box, const uint32_t *element_strides, int interleave, int swizzle, int l2_promotion, int fill)) \
    X(launch, "cuLaunchKernelEx", (const ew_cu_launch_config *c, ew_cu_function f, void **params, void **extra))
/* clang-format on */

struct ew_cuda_driver {
    void *lib;
    int version; /* 13000: CUDA 13.0 */
#define EW_CU_MEMBER(member, name, args) ew_cu_result(*member) args;
    EW_CU_FUNCTIONS(EW_CU_MEMBER)
#undef EW_CU_MEMBER
};

/* Loads libcuda (path NULL: libcuda.so.1) and initialises it. UNSUPPORTED with one line: there is
 * no driver, it is too old, it lacks a function, or it does not start. */
ew_status ew_cuda_driver_open(struct ew_cuda_driver *d, const char *path, ew_error *err);
void ew_cuda_driver_close(struct ew_cuda_driver *d);

/* The one translation of a driver's result: NO_MEMORY for lack of memory, DEVICE for what else went
 * wrong; "<what>: CUDA_ERROR_... (text)". */
ew_status ew_cu_failed(const struct ew_cuda_driver *d, ew_cu_result r, ew_error *err,
                       const char *fmt, ...) EW_PRINTF(4, 5);
/* True for results after which the context can do nothing more. */
bool ew_cu_is_sticky(ew_cu_result r);

#endif
