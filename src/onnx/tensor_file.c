/* onnx/tensor_file.c - see tensor_file.h. */
#include "onnx/tensor_file.h"

#include <string.h>

#include "onnx/onnx_int.h"

#define MAX_FILE_BYTES ((size_t)1 << 30)

static ew_status read_copy(const Onnx__TensorProto *t, struct ew_arena *arena, struct ew_type *type,
                           void **data, ew_error *err)
{
    const void *src;
    size_t bytes;

    EW_TRY(ew_onnx_tensor_read(t, NULL, arena, type, &src, err));
    if (!ew_type_bytes(type, &bytes))
        return ew_fail(err, EW_STATUS_MALFORMED, "tensor is too large");
    *data = ew_arena_alloc(arena, bytes + 1);
    if (!*data)
        return ew_fail(err, EW_STATUS_NO_MEMORY, "no memory for %zu bytes", bytes);
    memcpy(*data, src, bytes);
    return EW_STATUS_OK;
}

ew_status ew_onnx_tensor_load(const char *path, struct ew_arena *arena, struct ew_type *type,
                              void **data, ew_error *err)
{
    ProtobufCMessage *message = NULL;
    struct ew_file_map map;
    ew_status st;

    EW_TRY(ew_file_map_open(&map, path, err));
    if (map.len > MAX_FILE_BYTES)
        st = ew_fail(err, EW_STATUS_LIMIT, "tensor file of %zu bytes", map.len);
    else
        st = ew_onnx_unpack(map.bytes, map.len, &onnx__tensor_proto__descriptor, "ONNX tensor",
                            &message, err);
    if (!st)
        st = read_copy((const Onnx__TensorProto *)message, arena, type, data, err);
    ew_onnx_message_free(message);
    ew_file_map_close(&map);
    if (st)
        ew_error_within(err, "%s", path);
    return st;
}
