/* The safetensors reader on any bytes; every byte of every tensor that it hands out is read. */
#include <stddef.h>
#include <stdint.h>

#include "checkpoint/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct ew_safetensors *st;
    volatile uint8_t sum = 0;

    if (ew_safetensors_parse(data, size, "fuzz", &st, NULL))
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
