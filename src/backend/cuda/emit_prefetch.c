/* backend/cuda/emit_prefetch.c - weights asked into L2 while the kernels before their reader run:
 * with few rows a kernel is over before its reads have got going. */
#include <string.h>

#include "backend/cuda/cuda.h"
#include "kernels/cuda/prefetch.cuh"

#define THREADS    64
#define MAX_BLOCKS 64
#define MAX_BYTES                                                                                  \
    ((size_t)16 << 20) /* of one weight: several must fit into L2 beside each other                \
                        */

static struct ew_cuda_launch make_launch(const void *at, size_t bytes)
{
    const size_t part = bytes < MAX_BYTES ? bytes : MAX_BYTES;
    const struct ew_cuda_prefetch_args a = { (uint64_t)(uintptr_t)at, part & ~(size_t)15 };
    const size_t pieces = (part + EW_CUDA_PREFETCH_PIECE - 1) / EW_CUDA_PREFETCH_PIECE;
    const size_t blocks = (pieces + THREADS - 1) / THREADS;
    struct ew_cuda_launch l = { .spec = { .source = "prefetch", .entry = "ew_prefetch" },
                                .grid = { (uint32_t)(blocks < MAX_BLOCKS ? blocks : MAX_BLOCKS), 1,
                                          1 },
                                .block = { THREADS, 1, 1 },
                                .arg_bytes = sizeof(a) };

    memcpy(l.args, &a, sizeof(a));
    return l;
}

ew_status ew_cuda_note_prefetch(struct ew_step_list *list, const struct ew_emit *e, const void *at,
                                size_t bytes, ew_error *err)
{
    struct ew_cuda *cuda = ew_cuda_of(e);
    const struct ew_cuda_launch l = make_launch(at, bytes);
    struct ew_cuda_prefetch *p;
    struct ew_cuda_step *s;
    void *room;

    if (cuda->see)
        cuda->see(cuda->see_ctx, &l);
    if (!cuda->modules || !e->plan->device.prefetches || !list->n || !bytes)
        return EW_STATUS_OK;
    room = ew_arena_alloc(list->arena, sizeof(*p) + EW_CUDA_ALIGN);
    if (!room)
        return ew_fail(err, EW_STATUS_NO_MEMORY, "launch list");
    p = ew_cuda_aligned(room);
    p->launch = l;
    EW_TRY(ew_cuda_modules_get(cuda->modules, &l, &p->function, err));
    memcpy(&s, &list->steps[list->n - 1].args, sizeof(s)); /* ours, made a moment ago */
    s->prefetch = p;
    return EW_STATUS_OK;
}
