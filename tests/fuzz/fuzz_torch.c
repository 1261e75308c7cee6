/* The reader of torch.save's files on any bytes: as a file, and (the first byte says so) as the
 * pickle alone. Every byte of every tensor that it hands out is read. */
#include <stddef.h>
#include <stdint.h>

#include "checkpoint/safetensors.h"
#include "checkpoint/torch_pickle.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A pickle begins with its protocol; a zip file does not begin with that byte. */
#define PROTO 0x80

static void pickle_only(const uint8_t *data, size_t size)
{
    struct ew_pickle p;

    if (ew_pickle_read((struct ew_str){ (const char *)data, size }, "fuzz", &p, NULL))
        return;
    if (p.result.kind >= EW_PICKLE_MARK)
        __builtin_trap();
    ew_pickle_deinit(&p);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct ew_safetensors *st;
    volatile uint8_t sum = 0;

    if (size > 0 && data[0] == PROTO) {
        pickle_only(data, size);
        return 0;
    }
    if (ew_safetensors_parse_torch(data, size, "fuzz", &st, NULL))
        return 0;
    for (size_t i = 0; i < ew_safetensors_count(st); i++) {
        const struct ew_st_tensor *t = ew_safetensors_at(st, i);
        const uint8_t *bytes = t->data;

        for (size_t k = 0; k < t->bytes; k++)
            sum = (uint8_t)(sum + bytes[k]);
        if (ew_safetensors_find(st, t->name) != t)
            __builtin_trap();
    }
    ew_safetensors_close(st);
    return 0;
}
