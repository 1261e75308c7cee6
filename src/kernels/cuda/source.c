/* kernels/cuda/source.c - finding embedded texts; the table itself is generated. */
#include "kernels/cuda/source.h"

#include <string.h>

extern const struct ew_cuda_text ew_cuda_text_table[]; /* ends with name NULL */

const struct ew_cuda_text *ew_cuda_texts(size_t *n)
{
    *n = 0;
    while (ew_cuda_text_table[*n].name)
        ++*n;
    return ew_cuda_text_table;
}

const struct ew_cuda_text *ew_cuda_text_find(const char *name)
{
    for (const struct ew_cuda_text *t = ew_cuda_text_table; t->name; t++)
        if (strcmp(t->name, name) == 0)
            return t;
    return NULL;
}

const char *ew_cuda_source_find(const char *source)
{
    const size_t len = strlen(source);

    for (const struct ew_cuda_text *t = ew_cuda_text_table; t->name; t++)
        if (strncmp(t->name, source, len) == 0 && strcmp(t->name + len, ".cu") == 0)
            return t->text;
    return NULL;
}
