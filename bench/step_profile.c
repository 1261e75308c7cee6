/* step_profile.c - where the time of a one-kernel decode step (kernels/cuda/step.h) goes, for the
 * shapes of Qwen3 with random weights. Needs a GPU and NVRTC, no checkpoint.
 *
 *   step_profile [--shape 0.6b|1.7b|4b|8b] [--int4] [--rows N] [--contexts 1,128,4096] [--trace]
 *                [--with "-DX=1 ..."]... [--device N]
 *
 * Prints a line of milliseconds a step, the least of some series of launches back to back; a line
 * for the planned kernel, or where there are --with for each of those macros added to it
 * (EW_STEP_COPIERS, EW_STEP_BOUND; "" is the planned one). With
 * --trace also what each kind of phase takes in clocks (report_phase; its marks are step_mark's in
 * step_dev.cuh); that kernel is slower than the one that is built. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cuda/device.h"
#include "backend/cuda/nvrtc.h"
#include "backend/cuda/queue.h"
#include "base/mem.h"
#include "base/pool.h"
#include "kernels/cuda/step.h"
#include "op/attrs.h"

#define SERIES   5
#define LAUNCHES 40
#define HEADS_D  128
#define CAP      8192
#define BLOCK    ((size_t)32 << 20) /* bytes of random weights, repeated */
#define MAX_NODE (36 * 7 + 3)
#define MARKS    EW_STEP_MARKS

struct shape {
    const char *name;
    size_t hidden, ffn, hq, hkv, layers, vocab;
};
static const struct shape shapes[] = {
    { "0.6b", 1024, 3072, 16, 8, 28, 151936 },
    { "1.7b", 2048, 6144, 16, 8, 28, 151936 },
    { "4b", 2560, 9728, 32, 8, 36, 151936 },
    { "8b", 4096, 12288, 32, 8, 36, 151936 },
};

#define MAX_WITH 16
struct options {
    const struct shape *shape;
    const char *contexts;
    const char *with[MAX_WITH];
    size_t n_with;
    int device;
    size_t rows; /* sequences */
    bool int4, trace;
};

struct bench {
    const struct options *o;
    struct ew_cuda_device *device;
    struct ew_cuda_queue queue;
    struct ew_nvrtc *compiler;
    ew_cu_ptr random, context, table, workspace, trace;
    ew_cu_ptr kept[36 * 8 + 16];
    size_t n_kept, n_nodes, trace_bytes;
    struct ew_cuda_decode_node nodes[MAX_NODE];
    struct ew_cuda_launch launch;
    struct ew_step_phase phases[MAX_NODE];
    size_t n_phases;
    ew_error err;
};

static void die(const struct bench *b)
{
    (void)fprintf(stderr, "step_profile: %s\n", b->err.text);
    exit(1);
}
static void must(struct bench *b, ew_status st)
{
    if (st)
        die(b);
}

static uint64_t memory(struct bench *b, size_t bytes, bool is_random)
{
    ew_cu_ptr p;

    must(b, ew_cuda_alloc(b->device, bytes + 256, "weights", &p, &b->err));
    b->kept[b->n_kept++] = p;
    for (size_t at = 0; is_random && at < bytes; at += BLOCK)
        must(b, ew_cuda_queue_copy(&b->queue, p + at, b->random,
                                   bytes - at < BLOCK ? bytes - at : BLOCK, &b->err));
    if (!is_random)
        must(b, ew_cuda_queue_fill(&b->queue, p, 0, bytes, &b->err));
    return p;
}

/* Numbers that are small as bf16, and as scales of either kind. */
static void make_random(struct bench *b)
{
    uint8_t *p = malloc(BLOCK);
    uint64_t r = 88172645463325252u;

    if (!p)
        abort();
    for (size_t i = 0; i < BLOCK; i += 2) {
        r ^= r << 13;
        r ^= r >> 7;
        r ^= r << 17;
        p[i] = (uint8_t)r;
        p[i + 1] = b->o->int4 ? (uint8_t)(0x28 | (r >> 8 & 7)) : (uint8_t)((r >> 8 & 0x80) | 0x3b);
    }
    must(b, ew_cuda_alloc(b->device, BLOCK, "random", &b->random, &b->err));
    must(b, ew_cuda_queue_upload(&b->queue, b->random, p, BLOCK, &b->err));
    must(b, ew_cuda_queue_wait(&b->queue, &b->err));
    free(p);
}

/* ---- the decoder ---- */

static void add_linear(struct bench *b, const char *name, bool head, size_t n, size_t k, bool glu,
                       uint64_t x, uint64_t y, uint64_t residual)
{
    const bool quant = b->o->int4;
    const size_t n_out = glu ? n / 2 : n;
    const struct ew_quant_format q4 = { EW_DTYPE_I4, EW_DTYPE_F16, 128, 0 };
    const struct ew_quant_format q8 = { EW_DTYPE_I8, EW_DTYPE_NONE, 0, 0 };
    const struct ew_quant_format none = { 0 };
    const struct ew_quant_format f = !quant ? none : head ? q8 : q4;
    const struct ew_linear_kernel *layout = ew_cuda_linear_layout_find(!quant ? "linear_bf16__cuda"
                                                                       : head ? "linear_q8__cuda"
                                                                              : "linear_q4__cuda");
    const uint64_t w = memory(b, layout->packed_bytes(&f, n, k, glu), true);

    b->nodes[b->n_nodes++] =
        (struct ew_cuda_decode_node){ .kind = EW_CUDA_DECODE_LINEAR,
                                      .name = name,
                                      .layout = layout,
                                      .problem = { .x = x,
                                                   .y = y,
                                                   .w = w,
                                                   .residual = residual,
                                                   .x_stride = k,
                                                   .y_stride = n_out,
                                                   .residual_stride = n_out,
                                                   .m = b->o->rows,
                                                   .n = n,
                                                   .k = k,
                                                   .format = f,
                                                   .act = glu ? EW_ACT_SILU : EW_ACT_NONE,
                                                   .glu = glu,
                                                   .scale = 1 } };
}
static void add_norm(struct bench *b, uint64_t x, uint64_t y, uint64_t w, size_t k)
{
    b->nodes[b->n_nodes++] = (struct ew_cuda_decode_node){ .kind = EW_CUDA_DECODE_NORM,
                                                           .name = "norm",
                                                           .problem = { .x = x,
                                                                        .y = y,
                                                                        .norm_weight = w,
                                                                        .norm_eps = 1e-6f,
                                                                        .x_stride = k,
                                                                        .m = b->o->rows,
                                                                        .k = k } };
}
static void *pointer(uint64_t a)
{
    return (void *)(uintptr_t)a; /* NOLINT(performance-no-int-to-ptr) */
}
static void make_nodes(struct bench *b)
{
    const struct shape *m = b->o->shape;
    const size_t q = m->hq * HEADS_D, kv = m->hkv * HEADS_D, rows = b->o->rows;
    const uint64_t norm = memory(b, m->hidden * 4, true), head_norm = memory(b, HEADS_D * 4, true);
    const uint64_t rope = memory(b, (size_t)CAP * HEADS_D * 4, true);
    const uint64_t n = memory(b, rows * m->hidden * 4, false);
    const uint64_t qkv = memory(b, rows * (q + 2 * kv) * 4, false);
    const uint64_t att = memory(b, rows * q * 4, false), up = memory(b, rows * m->ffn * 4, false);
    const uint64_t h = memory(b, rows * m->hidden * 4, false);
    const uint64_t logits = memory(b, rows * m->vocab * 4, false);
    uint64_t x = memory(b, rows * m->hidden * 4, true);

    for (size_t i = 0; i < m->layers; i++) {
        const uint64_t cache = memory(b, rows * 2 * kv * CAP * 2, true);
        const float *in = pointer(qkv);

        add_norm(b, x, n, norm, m->hidden);
        add_linear(b, "qkv", false, q + 2 * kv, m->hidden, false, n, qkv, 0);
        b->nodes[b->n_nodes++] = (struct ew_cuda_decode_node){
            .kind = EW_CUDA_DECODE_ATTENTION,
            .name = "attention",
            .attention = { .mode = EW_ATTN_DECODE,
                           .b = b->o->rows,
                           .s = 1,
                           .hq = m->hq,
                           .hkv = m->hkv,
                           .d = HEADS_D,
                           .q = in,
                           .k = in + q,
                           .v = in + q + kv,
                           .kv = pointer(cache),
                           .kv_dtype = b->o->int4 ? EW_DTYPE_F16 : EW_DTYPE_BF16,
                           .cap = CAP,
                           .rope = pointer(rope),
                           .rope_rows = CAP,
                           .rd = HEADS_D,
                           .context_lengths = pointer(b->context),
                           .q_norm = pointer(head_norm),
                           .k_norm = pointer(head_norm),
                           .qk_norm_eps = 1e-6f,
                           .scale = 0.08838834764831845f,
                           .out = pointer(att) }
        };
        add_linear(b, "o", false, m->hidden, q, false, att, h, x);
        x = h;
        add_norm(b, h, n, norm, m->hidden);
        add_linear(b, "gate, up", false, 2 * m->ffn, m->hidden, true, n, up, 0);
        add_linear(b, "down", false, m->hidden, m->ffn, false, up, h, h);
    }
    add_norm(b, h, n, norm, m->hidden);
    add_linear(b, "head", true, m->vocab, m->hidden, false, n, logits, 0);
}

static void make_plan(struct bench *b)
{
    struct ew_cuda_decode_plan plan = { .table = b->phases };
    struct ew_cuda_decode_place place = { .token = memory(b, 256, false) };
    struct ew_step_args *args = (void *)b->launch.args;

    must(b, ew_cuda_decode_plan(b->nodes, b->n_nodes, &b->device->chip, &place, &plan, &b->err));
    b->table = memory(b, plan.table_bytes, false);
    b->workspace = memory(b, plan.workspace_bytes, false);
    place.table = b->table;
    place.workspace = b->workspace;
    must(b, ew_cuda_decode_plan(b->nodes, b->n_nodes, &b->device->chip, &place, &plan, &b->err));
    must(b, ew_cuda_queue_upload(&b->queue, b->table, b->phases, plan.table_bytes, &b->err));
    b->launch = plan.launch;
    b->n_phases = plan.n_phases;
    b->trace_bytes = (plan.n_phases + 1) * b->launch.grid[0] * EW_STEP_WARPS * MARKS * 4;
    if (b->o->trace)
        args->trace = b->trace = memory(b, b->trace_bytes, false);
}

/* ---- measuring ---- */

/* The planned kernel with macros added, and its code. */
struct variant {
    const char *with;
    struct ew_cuda_launch launch;
    void *cubin;
    size_t bytes;
    ew_error err;
};
/* Takes -DNAME=number out of the planned macros, where it is; its number, else 0. */
static uint32_t take_macro(char *defines, const char *macro)
{
    char *at = strstr(defines, macro), *end;
    uint32_t n;

    if (!at)
        return 0;
    n = (uint32_t)strtoul(at + strlen(macro), &end, 10);
    memset(at, ' ', (size_t)(end - at));
    return n;
}
static void make_variant(const struct bench *b, struct variant *v)
{
    static const char copiers[] = "-DEW_STEP_COPIERS=";
    struct ew_cuda_launch *l = &v->launch;
    const char *at = strstr(v->with, copiers);
    size_t used;

    *l = b->launch;
    if (at) { /* which is part of the plan */
        const uint32_t was = take_macro(l->spec.defines, copiers);
        const uint32_t is = (uint32_t)strtoul(at + strlen(copiers), NULL, 10);

        l->block[0] += (is - was) * 32;
        l->shared_bytes +=
            is > was ? (is - was) * (uint32_t)(2 * sizeof(struct ew_step_phase) + EW_STEP_KV_BYTES)
                     : 0;
    }
    for (at = v->with; (at = strstr(at, "-D")); at++) {
        const size_t n = strcspn(at, "= ") + 1;
        char macro[64];

        (void)snprintf(macro, sizeof(macro), "%.*s", (int)n, at);
        (void)take_macro(l->spec.defines, macro);
    }
    used = strlen(l->spec.defines);
    (void)snprintf(l->spec.defines + used, sizeof(l->spec.defines) - used, "%s %s",
                   b->o->trace ? " -DEW_STEP_TRACE=1" : "", v->with);
}
struct compiling {
    struct bench *b;
    struct variant *variants;
};
static void compile_one(void *arg, unsigned i, unsigned n)
{
    const struct compiling *c = arg;
    struct variant *v = &c->variants[i];

    (void)n;
    if (i < c->b->o->n_with)
        (void)ew_nvrtc_compile(c->b->compiler, &v->launch.spec, c->b->device->chip.sm, &v->cubin,
                               &v->bytes, NULL, &v->err);
}
static void load(struct bench *b, struct variant *v, ew_cu_module *module, ew_cu_function *f)
{
    const struct ew_cuda_driver *cu = &b->device->cu;

    b->err = v->err;
    if (!v->cubin)
        die(b);
    ew_cuda_enter(b->device);
    must(b, ew_cuda_queue_failed(&b->queue, cu->module_load(module, v->cubin), "load", &b->err));
    must(b, ew_cuda_queue_failed(&b->queue, cu->module_function(f, *module, v->launch.spec.entry),
                                 "function", &b->err));
    must(b,
         ew_cuda_queue_failed(
             &b->queue, cu->function_set(*f, EW_CU_FUNC_SHARED_BYTES, (int)v->launch.shared_bytes),
             "shared memory", &b->err));
    ew_cuda_leave(b->device);
}

static double measure(struct bench *b, const struct ew_cuda_launch *l, ew_cu_function f)
{
    const struct ew_cuda_driver *cu = &b->device->cu;
    ew_cu_event from, to;
    double best = 1e30;

    ew_cuda_enter(b->device);
    must(b, ew_cuda_queue_failed(&b->queue, cu->event_create(&from, 0), "event", &b->err));
    must(b, ew_cuda_queue_failed(&b->queue, cu->event_create(&to, 0), "event", &b->err));
    for (int i = 0; i < SERIES; i++) {
        float ms = 0;

        (void)cu->event_record(from, b->queue.stream);
        for (int j = 0; j < LAUNCHES; j++)
            must(b, ew_cuda_queue_launch(&b->queue, f, l, "step", &b->err));
        (void)cu->event_record(to, b->queue.stream);
        must(b, ew_cuda_queue_wait(&b->queue, &b->err));
        (void)cu->event_elapsed(&ms, from, to);
        if (i && (double)ms / LAUNCHES < best) /* the first warms up */
            best = (double)ms / LAUNCHES;
    }
    (void)cu->event_destroy(from);
    (void)cu->event_destroy(to);
    ew_cuda_leave(b->device);
    return best;
}

/* One trace: clocks of all blocks on one scale. */
struct trace {
    const struct bench *b;
    const uint32_t *marks;
    size_t blocks;
    double *offset;            /* [blocks]: to be added to a block's clocks */
    double *sorted, *of_block; /* [blocks] */
};
/* 0: the block does nothing in the phase. */
static const uint32_t *marks_of(const struct trace *t, size_t phase, size_t block, size_t warp)
{
    return t->marks + ((phase * t->blocks + block) * EW_STEP_WARPS + warp) * MARKS;
}
/* Clocks since the kernel's start; the last mark of the phase where i is MARKS. */
static double time_of(const struct trace *t, size_t phase, size_t block, size_t warp, size_t i)
{
    const uint32_t *at = marks_of(t, phase, block, warp);
    const uint32_t start = marks_of(t, t->b->n_phases, block, 0)[0];

    if (i == MARKS)
        while (i > 0 && !at[--i])
            ;
    if (phase < t->b->n_phases && !at[4]) /* it has nothing to do in the phase */
        return 0;
    return at[i] ? (double)(at[i] - start) + t->offset[block] : 0;
}
static int compare(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;

    return x < y ? -1 : x > y;
}
/* Each block wrote its clock and the global timer when it began and when it ended. */
static void trace_align(struct trace *t)
{
    const uint32_t *one = marks_of(t, t->b->n_phases, 0, 0);
    const double rate = (double)(one[2] - one[0]) / (double)(one[3] - one[1]);

    for (size_t c = 0; c < t->blocks; c++)
        t->offset[c] = (double)(int32_t)(marks_of(t, t->b->n_phases, c, 0)[1] - one[1]) * rate;
    for (size_t c = 0; c < t->blocks; c++)
        t->sorted[c] = time_of(t, t->b->n_phases, c, 0, 2);
    qsort(t->sorted, t->blocks, sizeof(double), compare);
    printf("  %.3f clocks a nanosecond; blocks end after", rate);
    for (size_t i = 0; i <= 8; i++)
        printf(" %.0f", t->sorted[(t->blocks - 1) * i / 8]);
    printf(" clocks\n");
}

struct spread {
    double low, mid, high;
    size_t slowest; /* block */
};
/* Of mark i among the blocks that have it: of warp 0, or the last of all warps. The outermost 32nd
 * of the blocks is left out: clocks of one or two are seen to be microseconds off the timer. */
static struct spread spread_of(const struct trace *t, size_t phase, size_t i, bool all_warps)
{
    struct spread r = { 0 };
    size_t n = 0;

    for (size_t c = 0; c < t->blocks; c++) {
        double v = time_of(t, phase, c, 0, i);

        for (size_t w = 1; w < EW_STEP_WARPS && all_warps; w++) {
            const double u = time_of(t, phase, c, w, i);

            v = u > v ? u : v;
        }
        t->of_block[c] = v;
        if (v > 0)
            t->sorted[n++] = v;
    }
    if (!n)
        return r;
    qsort(t->sorted, n, sizeof(double), compare);
    r.low = t->sorted[n / 32];
    r.mid = t->sorted[n / 2];
    r.high = t->sorted[n - 1 - n / 32];
    while (t->of_block[r.slowest] != r.high)
        r.slowest++;
    return r;
}

/* Means over phases first, first + step ...: how long they take; how much later than the median
 * block the slowest sends its outputs, and where it lost that; from the last output to when blocks
 * have the input of the next phase (first, median, last); the median block's clocks by marks. */
static void report_phase(const struct trace *t, const char *name, size_t first, size_t step,
                         size_t end)
{
    double whole = 0, late = 0, trip[3] = { 0 }, lost[MARKS] = { 0 }, took[MARKS] = { 0 }, n = 0;
    bool has[MARKS] = { false };

    for (size_t p = first; p < end; p += step, n++) {
        const struct spread sent = spread_of(t, p, MARKS, false);
        const struct spread before = spread_of(t, p - 1, MARKS, false);
        const struct spread got = spread_of(t, p + 1, 1, true);
        double last = spread_of(t, p, 0, false).mid;

        whole += sent.high - before.high;
        late += sent.high - sent.mid;
        trip[0] += got.low - sent.high;
        trip[1] += got.mid - sent.high;
        trip[2] += got.high - sent.high;
        for (size_t i = 0; i < MARKS; i++) {
            const struct spread m = spread_of(t, p, i, false);

            if (m.high <= 0)
                continue;
            has[i] = true;
            lost[i] += time_of(t, p, sent.slowest, 0, i) - m.mid;
            took[i] += m.mid - last;
            last = m.mid;
        }
    }
    if (n <= 0)
        return;
    printf("  %-10s %6.0f; slowest late %5.0f (by marks", name, whole / n, late / n);
    for (size_t i = 0; i < MARKS; i++)
        if (has[i])
            printf(" %zu:%.0f", i, lost[i] / n);
    printf(")");
    if (end < t->b->n_phases)
        printf("; trip %.0f %.0f %.0f", trip[0] / n, trip[1] / n, trip[2] / n);
    printf("; took");
    for (size_t i = 1; i < MARKS; i++)
        if (has[i])
            printf(" %zu:%.0f", i, took[i] / n);
    printf("\n");
}
static void report(struct bench *b)
{
    static const char *const names[] = { "qkv", "attention", "o", "gate, up", "down" };
    const size_t end = b->o->shape->layers * 5;
    struct trace t = { .b = b, .blocks = b->launch.grid[0] };
    uint32_t *marks = malloc(b->trace_bytes);

    t.marks = marks;
    t.offset = calloc(t.blocks, sizeof(double));
    t.sorted = calloc(t.blocks, sizeof(double));
    t.of_block = calloc(t.blocks, sizeof(double));
    if (!marks || !t.offset || !t.sorted || !t.of_block)
        abort();
    must(b, ew_cuda_queue_download(&b->queue, marks, b->trace, b->trace_bytes, &b->err));
    must(b, ew_cuda_queue_wait(&b->queue, &b->err));
    trace_align(&t);
    for (size_t i = 0; i < 5; i++)
        report_phase(&t, names[i], 5 + i, 5, end);
    report_phase(&t, "head", end, 1, end + 1);
    free(t.of_block);
    free(t.sorted);
    free(t.offset);
    free(marks);
}

static void run_variant(struct bench *b, struct variant *v)
{
    const struct ew_step_args *args = (const void *)b->launch.args;
    ew_cu_module module;
    ew_cu_function f;
    char *end;

    load(b, v, &module, &f);
    printf("%-5s %s %-24s ring %2u x %5u", b->o->shape->name, b->o->int4 ? "int4" : "bf16", v->with,
           args->n_stages, args->stage_bytes);
    for (const char *at = b->o->contexts; *at; at = *end ? end + 1 : end) {
        const int32_t length = (int32_t)strtol(at, &end, 10);

        if (end == at || length < 1 || length > CAP)
            break;
        for (size_t r = 0; r < b->o->rows; r++)
            must(b, ew_cuda_queue_upload(&b->queue, b->context + 4 * r, &length, 4, &b->err));
        if (b->o->trace)
            must(b, ew_cuda_queue_fill(&b->queue, b->trace, 0, b->trace_bytes, &b->err));
        must(b, ew_cuda_queue_wait(&b->queue, &b->err));
        printf("  %d: %.4f ms", length, measure(b, &v->launch, f));
        if (b->o->trace) {
            printf("\n");
            report(b);
        }
    }
    printf("\n");
    (void)fflush(stdout);
    ew_cuda_enter(b->device);
    (void)b->device->cu.module_unload(module);
    ew_cuda_leave(b->device);
    ew_mem_free(v->cubin);
}

static void run(struct bench *b)
{
    struct variant variants[MAX_WITH] = { 0 };
    struct compiling c = { b, variants };
    struct ew_pool *pool;

    must(b, ew_nvrtc_open(NULL, &b->compiler, &b->err));
    must(b, ew_cuda_device_open(b->o->device, NULL, &b->device, &b->err));
    must(b, ew_cuda_queue_open(b->device, &b->queue, &b->err));
    make_random(b);
    must(b, ew_cuda_alloc(b->device, 256, "context", &b->context, &b->err));
    make_nodes(b);
    make_plan(b);
    for (size_t i = 0; i < b->o->n_with; i++) {
        variants[i].with = b->o->with[i];
        make_variant(b, &variants[i]);
    }
    must(b, ew_pool_create(MAX_WITH, &pool, &b->err));
    ew_pool_run(pool, compile_one, &c);
    ew_pool_destroy(pool);
    for (size_t i = 0; i < b->o->n_with; i++)
        run_variant(b, &variants[i]);
    for (size_t i = 0; i < b->n_kept; i++)
        ew_cuda_free(b->device, b->kept[i]);
    ew_cuda_free(b->device, b->random);
    ew_cuda_free(b->device, b->context);
    ew_cuda_queue_close(&b->queue);
    ew_cuda_device_close(b->device);
    ew_nvrtc_close(b->compiler);
}

int main(int argc, char **argv)
{
    static struct bench b;
    struct options o = { .shape = &shapes[0], .contexts = "1,128,4096", .rows = 1 };

    b.o = &o;
    for (int i = 1; i < argc; i++) {
        const char *v = i + 1 < argc ? argv[i + 1] : "";

        if (strcmp(argv[i], "--int4") == 0) {
            o.int4 = true;
            continue;
        }
        if (strcmp(argv[i], "--trace") == 0) {
            o.trace = true;
            continue;
        }
        if (strcmp(argv[i], "--shape") == 0) {
            for (size_t j = 0; j < sizeof(shapes) / sizeof(*shapes); j++)
                if (strcmp(shapes[j].name, v) == 0)
                    o.shape = &shapes[j];
        } else if (strcmp(argv[i], "--contexts") == 0) {
            o.contexts = v;
        } else if (strcmp(argv[i], "--with") == 0 && o.n_with < MAX_WITH) {
            o.with[o.n_with++] = v;
        } else if (strcmp(argv[i], "--device") == 0) {
            o.device = (int)strtol(v, NULL, 10);
        } else if (strcmp(argv[i], "--rows") == 0) {
            o.rows = strtoul(v, NULL, 10);
        } else {
            (void)fprintf(stderr, "usage: see the top of bench/step_profile.c\n");
            return 2;
        }
        i++;
    }
    if (!o.n_with)
        o.with[o.n_with++] = "";
    run(&b);
    return 0;
}
