/* fuzz_onnx.c - libFuzzer target of the ONNX importer: any bytes as a model file give a graph or
 * one error, and a graph verifies. Seeds: tests/fuzz/corpus/onnx. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "edgewise/onnx.h"
#include "graph/ir.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static char path[64];
    ew_graph *g = NULL;
    ew_error err = { 0 };

    if (!path[0])
        (void)snprintf(path, sizeof(path), "/dev/shm/fuzz_onnx.%ld", (long)getpid());
    FILE *f = fopen(path, "wb");
    if (!f)
        abort();
    if (fwrite(data, 1, size, f) != size || fclose(f))
        abort();
    const ew_status st = ew_graph_from_onnx(path, &g, &err);
    if ((st == EW_STATUS_OK) != (g != NULL) || (st && !err.text[0]))
        abort();
    if (g && ew_graph_verify(g, &err)) {
        fprintf(stderr, "%s\n", err.text);
        abort();
    }
    ew_graph_destroy(g);
    (void)unlink(path);
    return 0;
}
