/* The CUDA backend on the stand-in driver (tests/fakecuda), which runs no kernel but those that are
 * played here: draws, arg max, and the one kernel of a step, whose token tells what it read. */
#ifndef EW_TEST_CUDA_PLAYED_H
#define EW_TEST_CUDA_PLAYED_H

#include "engine_fixture.h"

#include "backend/cuda/driver.h"
#include "edgewise/runtime.h"
#include "engine/engine_impl.h"
#include "fakecuda.h"
#include "kernels/cuda/sample_args.cuh"
#include "kernels/cuda/sample_cuda.h"
#include "kernels/cuda/step.h"
#include "runtime/rt.h"
#include "sample/sampler.h"

#define TINY   EW_SOURCE_DIR "/models/tiny"
#define N_ROWS 3
#define N_OUT  12

static struct {
    struct ew_sampler sampler;
    uint64_t n_draws, n_argmax, n_steps;
    uint64_t leave_every; /* every so many draws are left to the host; 0: none */
} played;

static void *at(uint64_t address)
{
    return (void *)(uintptr_t)address;
}

/* The same scores in every step: what comes of them depends on a row's draw alone. */
static void fill_scores(float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        x[i] = 3.0f * noise((uint32_t)i);
}

static int32_t play_draw(const float *x, uint32_t n, const struct ew_cuda_draw_params *d)
{
    const struct ew_sample_params p = { .greedy = d->temperature <= 0,
                                        .temperature = d->temperature,
                                        .top_p = d->top_p,
                                        .min_p = d->min_p,
                                        .top_k = d->top_k,
                                        .repetition = 1.0,
                                        .seed = d->seed };
    const struct ew_history none = { 0 };
    int32_t token = -1;
    ew_error err = { 0 };

    if (!played.sampler.vocab)
        MUST(ew_sampler_init(&played.sampler, n, &err));
    if (d->temperature > 0 && played.leave_every && ++played.n_draws % played.leave_every == 0)
        return EW_DRAW_LEFT;
    assert_int_equal(
        ew_sampler_draw(&played.sampler, x, &p, &none, d->request, d->position, &token, NULL), 0);
    return token;
}

/* A token that tells what the step read: its id and its length. */
static int32_t step_token(int32_t id, int32_t length)
{
    return (id * 31 + length) % 997;
}

/* One step in one kernel that leads on to the next. */
static void play_step(const struct ew_step_args *a)
{
    uint32_t *epoch = at(a->epoch);
    int32_t *id = at(a->next_id), *length = at(a->context_lengths);

    played.n_steps++;
    if (!id)
        return;                   /* the host wants logits */
    assert_non_null(at(a->rows)); /* the lookup is its own */
    *id = step_token(*id, *length);
    ((int32_t *)at(a->token))[(*epoch)++ % 2] = *id;
    ++*length;
}

/* The same of several rows, whose lookup is a step of its own. */
static void play_step_rows(const struct ew_step_args *a)
{
    uint32_t *epoch = at(a->epoch);
    int32_t *id = at(a->next_id), *length = at(a->context_lengths), *token = at(a->token);

    played.n_steps++;
    if (!id)
        return;
    token += (*epoch)++ % 2 * a->sequences;
    for (uint32_t r = 0; r < a->sequences; r++) {
        token[r] = id[r] = step_token(id[r], length[r]);
        length[r]++;
    }
}

static void on_launch(void *ctx, const char *entry, const unsigned grid[3], const void *args)
{
    (void)ctx;
    if (strcmp(entry, "ew_sample_draw") == 0) {
        const struct ew_cuda_draw_args *a = args;
        const struct ew_cuda_draw_params *d = at(a->params);

        for (unsigned r = 0; r < grid[0]; r++) {
            float *x = (float *)at(a->logits) + r * a->stride;

            fill_scores(x, a->n);
            ((int32_t *)at(a->token))[r] = play_draw(x, a->n, &d[r]);
        }
    } else if (strcmp(entry, "ew_sample_argmax") == 0) {
        const struct ew_cuda_argmax_args *a = args;

        played.n_argmax++;
        for (unsigned r = 0; r < grid[1]; r++) {
            float *x = (float *)at(a->logits) + r * a->stride;

            fill_scores(x, a->n);
            ((int32_t *)at(a->token))[r] = ew_argmax(x, a->n);
        }
    } else if (strcmp(entry, "ew_step") == 0) {
        play_step(args);
    } else if (strcmp(entry, "ew_step_rows") == 0) {
        play_step_rows(args);
    }
}

/* An engine of models/tiny in dir. flags: of the build, besides no timing. */
static void build_tiny(const char *dir, uint32_t flags)
{
    ew_build_opts o = EW_BUILD_OPTS_INIT;
    ew_error err = { 0 };

    o.device = "cuda";
    o.flags = EW_BUILD_NO_TIMING | flags;
    o.n_threads = 2;
    o.max_batch = 4;
    o.max_kv_len = 256;
    o.max_input_len = 64;
    MUST(ew_model_build(TINY, dir, &o, false, &err));
}

static ew_runtime *open_played(const char *dir)
{
    ew_runtime_opts ro = EW_RUNTIME_OPTS_INIT;
    ew_runtime *rt = NULL;
    ew_error err = { 0 };

    fakecuda_reset();
    fakecuda_on_launch(on_launch, NULL);
    MUST(ew_runtime_open(dir, &ro, &rt, &err));
    memset(&played, 0, sizeof(played));
    return rt;
}

static void close_played(ew_runtime *rt)
{
    ew_runtime_destroy(rt);
    ew_sampler_deinit(&played.sampler);
    fakecuda_on_launch(NULL, NULL);
    assert_int_equal(fakecuda_live(), 0);
}

#endif
