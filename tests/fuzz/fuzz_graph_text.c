/* Fuzzing of the text form: any bytes give a graph that verifies and prints to text that reads back
 * to the same text, or an error. The passes must take whatever the parser lets through. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "pass/pass.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct ew_graph *g = NULL, *h = NULL;
    ew_error err = { EW_STATUS_OK, "" };
    char *text = NULL, *again = NULL;

    if (ew_graph_parse((const char *)data, len, &g, &err)) {
        if (!err.text[0])
            abort();
        return 0;
    }
    if (ew_graph_text(g, &text, &err) == EW_STATUS_OK &&
        ew_graph_parse(text, strlen(text), &h, &err) == EW_STATUS_OK) {
        if (ew_graph_text(h, &again, &err) == EW_STATUS_OK && strcmp(text, again) != 0)
            abort();
    }
    if (ew_passes_run(g, 0, NULL, &err) == EW_STATUS_OK && ew_graph_verify(g, &err))
        abort();
    ew_text_free(text);
    ew_text_free(again);
    ew_graph_destroy(g);
    ew_graph_destroy(h);
    return 0;
}
