/* check_backend.c - the harness and the backend themselves, with a kernel that copies: arguments by
 * value, grids with a tail, clusters, early start, dynamic shared memory above 48 KiB. */
#include <stdlib.h>
#include <string.h>

#include "checkcuda.h"
#include "kernels/cuda/copy_words.cuh"

static struct ew_cuda_launch copy_launch(uint64_t to, uint64_t from, size_t n)
{
    const struct ew_cuda_copy_args args = { to, from, n };
    struct ew_cuda_launch l = { .spec = { .source = "copy_words", .entry = "ew_copy_words" },
                                .grid = { (uint32_t)(n + 255) / 256, 1, 1 },
                                .block = { 256, 1, 1 },
                                .arg_bytes = sizeof(args) };

    memcpy(l.args, &args, sizeof(args));
    return l;
}

CC_FAMILY(backend)
{
    static const size_t sizes[] = { 1, 255, 257, 100000 };
    static const char *const ways[] = { "plain", "cluster", "early", "shared", "cooperative" };

    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
        for (int way = 0; way < 5; way++) {
            const size_t n = sizes[i];
            struct ew_cuda_launch l;
            uint32_t *words;
            uint64_t from, to;

            if ((way == 1 || way == 2) && cc_chip(c)->sm < 90)
                continue;
            if (!cc_begin(c, "copy %s n%zu", ways[way], n))
                continue;
            words = calloc(n, sizeof(*words));
            if (!words)
                abort();
            for (size_t k = 0; k < n; k++)
                words[k] = (uint32_t)cc_rand(c);
            from = cc_input(c, words, n * sizeof(*words));
            to = cc_output(c, n * sizeof(*words));
            l = copy_launch(to, from, n);
            if (way == 1) {
                l.cluster = 2;
                l.grid[0] = (l.grid[0] + 1) / 2 * 2;
            }
            l.early_start = way == 2;
            l.shared_bytes = way == 3 ? 80u << 10 : 0;
            l.cooperative = way == 4;
            if (cc_launch(c, &l, 1)) {
                cc_equal(c, "copy", cc_download(c, to), words, n * sizeof(*words));
                cc_bench(c, &l, 1, (double)n * 8, 0);
            }
            cc_end(c);
            free(words);
        }
}
