/* use.c - an application that sees the public headers and the library, no more. */
#include <stdio.h>
#include <string.h>

#include "edgewise/build.h"
#include "edgewise/engine.h"
#include "edgewise/eval.h"
#include "edgewise/graph.h"
#include "edgewise/inspect.h"
#include "edgewise/onnx.h"
#include "edgewise/runtime.h"
#include "edgewise/tokenizer.h"

int main(void)
{
    ew_error err;
    ew_runtime *rt = NULL;
    ew_graph *g = NULL;

    err.text[0] = '\0';
    if (ew_runtime_open("there/is/none", NULL, &rt, &err) == EW_STATUS_OK || rt || !err.text[0]) {
        printf("a runtime out of nothing\n");
        return 1;
    }
    if (ew_graph_from_checkpoint("there/is/none", NULL, &g, NULL) == EW_STATUS_OK || g) {
        printf("a graph out of nothing\n");
        return 1;
    }
    ew_runtime_destroy(NULL);
    ew_graph_destroy(NULL);
    ew_engine_destroy(NULL);
    ew_tokenizer_destroy(NULL);
    return strcmp(ew_status_text(EW_STATUS_OK), "ok") != 0;
}
