/* backend/cuda/stream.h - the device's operations on streams (backend/device.h). */
#ifndef EW_BACKEND_CUDA_STREAM_H
#define EW_BACKEND_CUDA_STREAM_H

#include "backend/device.h"

const struct ew_device_ops *ew_cuda_device_ops(void);
/* cuda.c: its `close`. */
void ew_cuda_close_device(struct ew_device *d);

#endif
