/* kernels/cuda/sample_draw.cu - one token a row by temperature, top_k, top_p and min_p, as
 * sample/sampler.c draws it. Two launches: many blocks make the maximum and the sum of weights of up
 * to 1024 groups of neighbouring ids, then a block of 1024 a row draws.
 *
 * The vocabulary is never sorted. The k-th largest of the groups' maxima is at most the k-th largest
 * of all, so what reaches it holds the k most likely and lies in few groups; those few are sorted.
 * With top_p alone k is NUCLEUS: enough, or the row is left to the host. Without either the groups'
 * sums are added up in the order of ids, and one group is walked. */
#include "reduce.cuh"
#include "sample_args.cuh"

#define THREADS 1024
#define MAX     1024 /* EW_CUDA_SAMPLE_MAX */
#define NUCLEUS 512

namespace
{

struct draw_params { /* ew_cuda_draw_params */
    double temperature, top_p, min_p;
    uint64_t seed, position;
    uint32_t request;
    int32_t top_k;
};

struct candidate {
    float score;
    int id;
};

struct group {
    double sum; /* of weights beside max, at the row's temperature */
    float max;
    int at; /* the lowest id of max; -1: a NaN is in the group */
};

struct shared {
    struct candidate c[MAX];
    float top[THREADS];
    unsigned list[THREADS], n_list; /* groups that hold candidates */
    double part[THREADS / 32];
    float reduce[33];
    unsigned n;
    int token;
};

EW_DEV double philox_uniform(uint64_t seed, uint32_t request, uint64_t position)
{
    uint32_t c[4] = { (uint32_t)position, (uint32_t)(position >> 32), request, 0x45574B31u };
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);

    for (int round = 0; round < 10; round++) {
        const uint64_t p0 = (uint64_t)0xD2511F53u * c[0], p1 = (uint64_t)0xCD9E8D57u * c[2];
        const uint32_t n0 = (uint32_t)(p1 >> 32) ^ c[1] ^ k0;
        const uint32_t n2 = (uint32_t)(p0 >> 32) ^ c[3] ^ k1;

        c[0] = n0;
        c[1] = (uint32_t)p1;
        c[2] = n2;
        c[3] = (uint32_t)p0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return (double)(((uint64_t)c[0] << 32 | c[1]) >> 11) * 0x1p-53;
}

/* Whether a comes before b: by id, or by score (larger first, lower id on ties). */
EW_DEV bool before(struct candidate a, struct candidate b, bool by_id)
{
    return by_id ? (unsigned)a.id < (unsigned)b.id
                 : a.score > b.score || (a.score == b.score && a.id < b.id);
}

/* Bitonic; n threads-many at most, filled up with what comes last. */
EW_DEV void sort(struct candidate *c, unsigned n, bool by_id)
{
    unsigned size = 2;

    while (size < n)
        size *= 2;
    __syncthreads();
    if (threadIdx.x >= n && threadIdx.x < size)
        c[threadIdx.x] = candidate{ -EW_INFINITY, -1 }; /* the largest id as unsigned */
    for (unsigned k = 2; k <= size; k *= 2)
        for (unsigned j = k / 2; j > 0; j /= 2) {
            const unsigned i = threadIdx.x, other = i ^ j;

            __syncthreads();
            if (i < size && other > i && before(c[other], c[i], by_id) == ((i & k) == 0) &&
                c[i].id != c[other].id) {
                const struct candidate t = c[i];

                c[i] = c[other];
                c[other] = t;
            }
        }
    __syncthreads();
}

/* The k-th largest of the threads' maxima. */
EW_DEV float kth_maximum(struct shared *s, unsigned k)
{
    for (unsigned size = 2; size <= THREADS; size *= 2)
        for (unsigned j = size / 2; j > 0; j /= 2) {
            const unsigned i = threadIdx.x, other = i ^ j;

            __syncthreads();
            if (other > i && (s->top[other] > s->top[i]) == ((i & size) == 0)) {
                const float t = s->top[i];

                s->top[i] = s->top[other];
                s->top[other] = t;
            }
        }
    __syncthreads();
    return s->top[k - 1];
}

EW_DEV float weight(float score, float max, double temperature)
{
    return (float)exp(((double)score - (double)max) / temperature);
}

/* The same to about the last bit, for sums over the whole row. */
EW_DEV float weight_fast(float score, float max, float inv_temperature)
{
    return expf((score - max) * inv_temperature);
}

/* Sum over the block, the same in every thread, in a fixed order. */
EW_DEV double block_sum(double own, struct shared *s)
{
    double all = 0;

#pragma unroll
    for (int o = 16; o > 0; o >>= 1)
        own += __shfl_xor_sync(0xffffffffu, own, o);
    __syncthreads();
    if (threadIdx.x % 32 == 0)
        s->part[threadIdx.x / 32] = own;
    __syncthreads();
    for (unsigned w = 0; w < THREADS / 32; w++)
        all += s->part[w];
    __syncthreads();
    return all;
}

/* What the own group adds to the row's sum. */
EW_DEV double group_weight(const struct group &g, float max, double temperature)
{
    return g.sum > 0 ? g.sum * exp(((double)g.max - (double)max) / temperature) : 0.0;
}

/* Where the running sum of `own` over threads passes the target: false in all threads but that one.
 * *before: the sum of the threads before this one. */
EW_DEV double running_sum(double own, double *all, struct shared *s)
{
    const unsigned warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    double run = own, less = 0;

    *all = 0;
#pragma unroll
    for (int o = 1; o < 32; o <<= 1) {
        const double v = __shfl_up_sync(0xffffffffu, run, o);

        run += lane >= o ? v : 0.0;
    }
    __syncthreads();
    if (lane == 31)
        s->part[warp] = run;
    __syncthreads();
    for (unsigned w = 0; w < THREADS / 32; w++) {
        less += w < warp ? s->part[w] : 0.0;
        *all += s->part[w];
    }
    return less + run - own;
}

/* No top_k, top_p or min_p: the first id whose running sum exceeds u of the total; it is in the
 * first group whose does. */
EW_DEV int draw_from_groups(const float *x, unsigned n, unsigned group_size,
                            const struct group &own, float max, const struct draw_params &p,
                            double u, struct shared *s)
{
    const double weight_of_own = group_weight(own, max, p.temperature);
    const float inv = (float)(1.0 / p.temperature);
    const unsigned lane = threadIdx.x % 32;
    double all, run = running_sum(weight_of_own, &all, s);
    int last = -1;

    if (threadIdx.x == 0)
        s->token = 0x7fffffff;
    __syncthreads();
    if (weight_of_own > 0 && run + weight_of_own > u * all)
        atomicMin(&s->token, (int)threadIdx.x);
    __syncthreads();
    const unsigned g = (unsigned)s->token;
    if (threadIdx.x == g) {
        s->part[0] = run;
        s->part[1] = u * all;
    }
    __syncthreads();
    if (g >= THREADS)
        return -1;
    if (threadIdx.x < 32) {
        const unsigned end = min((g + 1) * group_size, n);
        double before = s->part[0];
        unsigned found = 0;

        for (unsigned i0 = g * group_size; i0 < end && !found; i0 += 32) {
            const unsigned i = i0 + lane;
            const float w = i < end ? weight_fast(x[i], max, inv) : 0.0f;
            double sum = (double)w;

#pragma unroll
            for (int o = 1; o < 32; o <<= 1) {
                const double v = __shfl_up_sync(0xffffffffu, sum, o);

                sum += lane >= o ? v : 0.0;
            }
            const unsigned some = __ballot_sync(0xffffffffu, w > 0.0f);
            found = __ballot_sync(0xffffffffu, w > 0.0f && before + sum > s->part[1]);
            last = found  ? (int)(i0 + __ffs((int)found) - 1)
                   : some ? (int)(i0 + 31 - __clz((int)some))
                          : last; /* rounding left the target at the group's end */
            before += __shfl_sync(0xffffffffu, sum, 31);
        }
        if (lane == 0)
            s->token = last;
    }
    __syncthreads();
    return s->token;
}

/* The same with min_p, which leaves out what is too unlikely: the whole row again. */
EW_DEV int draw_from_row(const float *x, unsigned n, float max, const struct draw_params &p,
                         double u, struct shared *s)
{
    const unsigned per = (n + THREADS - 1) / THREADS;
    const unsigned begin = min(threadIdx.x * per, n), end = min(begin + per, n);
    const float inv = (float)(1.0 / p.temperature);
    double own = 0, run, all;

#pragma unroll 8
    for (unsigned i = begin; i < end; i++) {
        const float w = weight_fast(__ldg(x + i), max, inv);

        own += (double)w < p.min_p ? 0.0 : (double)w;
    }
    if (threadIdx.x == 0)
        s->token = 0x7fffffff;
    run = running_sum(own, &all, s);
    for (unsigned i = begin; i < end && run <= u * all; i++) {
        const float w = weight_fast(x[i], max, inv);

        if ((double)w < p.min_p || w == 0.0f)
            continue;
        run += (double)w;
        if (run > u * all)
            atomicMin(&s->token, (int)i);
    }
    __syncthreads();
    return s->token == 0x7fffffff ? -1 : s->token;
}

/* Thread 0: candidates are weights now, in order of ids, or by likelihood when top_p is on. */
EW_DEV int draw_from_few(const struct candidate *c, unsigned n, const struct draw_params &p,
                         bool is_all, double total, double u)
{
    const bool has_nucleus = p.top_p < 1.0;
    unsigned kept = n;
    double reached = 0, sum = 0, run = 0;

    if (has_nucleus) {
        for (kept = 0; kept < n && (kept == 0 || reached < p.top_p * total); kept++)
            reached += (double)c[kept].score;
        if (kept == n && reached < p.top_p * total && !is_all)
            return -2; /* the nucleus is wider than what was sorted */
    }
    for (unsigned k = 0; k < kept; k++) { /* the least likely of a nucleus first */
        const float w = c[has_nucleus ? kept - 1 - k : k].score;

        sum += (double)w < p.min_p ? 0.0 : (double)w;
    }
    for (unsigned k = 0; k < kept; k++) {
        const struct candidate x = c[has_nucleus ? kept - 1 - k : k];

        if ((double)x.score < p.min_p || x.score == 0.0f)
            continue;
        run += (double)x.score;
        if (run > u * sum)
            return x.id;
    }
    return -1;
}

/* Candidates at or above the threshold, from the groups that have some; false when there are too
 * many. */
EW_DEV bool gather(const float *x, unsigned n, unsigned group_size, const struct group &own,
                   float threshold, struct shared *s)
{
    const unsigned lane = threadIdx.x % 32;

    __syncthreads();
    if (threadIdx.x == 0)
        s->n = s->n_list = 0;
    __syncthreads();
    if (threadIdx.x * group_size < n && own.max >= threshold && own.max > -EW_INFINITY)
        s->list[atomicAdd(&s->n_list, 1u)] = threadIdx.x;
    __syncthreads();
    for (unsigned k = threadIdx.x / 32; k < s->n_list; k += THREADS / 32) {
        const unsigned begin = s->list[k] * group_size, end = min(begin + group_size, n);

#pragma unroll 4
        for (unsigned i = begin + lane; i < end; i += 32) {
            const float v = x[i];

            if (v >= threshold && v > -EW_INFINITY) {
                const unsigned at = atomicAdd(&s->n, 1u);

                if (at < MAX)
                    s->c[at] = candidate{ v, (int)i };
            }
        }
    }
    __syncthreads();
    return s->n <= MAX;
}

/* Scores below it are what min_p leaves out, but for some at the edge. */
EW_DEV float threshold_of_min_p(float max, const struct draw_params &p)
{
    const double reach = p.temperature * log(p.min_p); /* <= 0 */

    return (float)((double)max + reach - 1e-5 * (fabs(reach) + fabs((double)max)));
}

/* From the k most likely and what ties with the last of them, or (k 0) from what min_p leaves.
 * is_all: others have no part in the total. -2: too many, or the nucleus is wider. */
EW_DEV int draw_from_top(const float *x, const ew_cuda_draw_args &a, const struct group &own,
                         float max, const struct draw_params &p, double u, unsigned k, bool is_all,
                         struct shared *s)
{
    const bool has_p = p.top_p < 1.0;
    double total = 0;

    if (k > MAX || !gather(x, a.n, a.group_size, own,
                           k == 0            ? threshold_of_min_p(max, p)
                           : k <= a.n_groups ? kth_maximum(s, k)
                                             : -EW_INFINITY,
                           s))
        return -2;
    unsigned n = s->n;

    if (is_all && k > 0) {
        sort(s->c, n, false);
        if (n > k) { /* what ties with the k-th stays */
            const float threshold = s->c[k - 1].score;

            while (n > k && s->c[n - 1].score < threshold)
                n--;
        }
    }
    if (!is_all)
        total = block_sum(group_weight(own, max, p.temperature), s);
    sort(s->c, n, true);
    if (threadIdx.x < n)
        s->c[threadIdx.x].score = weight(s->c[threadIdx.x].score, max, p.temperature);
    __syncthreads();
    for (unsigned i = 0; is_all && has_p && i < n; i++)
        total += (double)s->c[i].score;
    __syncthreads();
    if (has_p)
        sort(s->c, n, false);
    if (threadIdx.x == 0)
        s->token = draw_from_few(s->c, n, p, is_all, total, u);
    __syncthreads();
    return s->token;
}

/* Maximum of the groups, its lowest index, and whether the row is one that can be drawn from. */
EW_DEV bool look_over(const struct group &own, bool is_there, struct shared *s, float *max,
                      int *best)
{
    bool has_nan = is_there && own.at < 0;

    s->top[threadIdx.x] = is_there ? own.max : -EW_INFINITY;
    *max = ew_block_max(s->top[threadIdx.x], s->reduce);
    if (threadIdx.x == 0)
        s->token = 0x7fffffff;
    has_nan = __syncthreads_or(has_nan);
    if (is_there && own.max == *max)
        atomicMin(&s->token, own.at);
    __syncthreads();
    *best = s->token;
    __syncthreads();
    return !has_nan && *max<EW_INFINITY && * max> - EW_INFINITY;
}

} // namespace

/* grid (groups / 8 of its warps, rows): a warp takes a group after the other. */
extern "C" __global__ void __launch_bounds__(256) ew_sample_groups(const ew_cuda_draw_args a)
{
    const float *const x = (const float *)a.logits + blockIdx.y * a.stride;
    struct group *const out = (struct group *)a.work + (uint64_t)blockIdx.y * a.n_groups;
    const unsigned lane = threadIdx.x % 32, step = gridDim.x * 8;

    ew_grid_release();
    ew_grid_wait();
    const double temperature = ((const struct draw_params *)a.params)[blockIdx.y].temperature;
    const float inv = temperature > 0 ? (float)(1.0 / temperature) : 0.0f;

    for (unsigned g = blockIdx.x * 8 + threadIdx.x / 32; g < a.n_groups; g += step) {
        const unsigned begin = g * a.group_size, end = min(begin + a.group_size, a.n);
        float m = -EW_INFINITY;
        int at = 0x7fffffff;
        bool has_nan = false;
        double sum = 0;

#pragma unroll 8
        for (unsigned i = begin + lane; i < end; i += 32) {
            const float v = x[i];

            has_nan |= v != v;
            at = v > m ? (int)i : at;
            m = v > m ? v : m;
        }
        const float max = ew_warp_max(m);

        at = m == max ? at : 0x7fffffff;
#pragma unroll
        for (int o = 16; o > 0; o >>= 1)
            at = min(at, __shfl_xor_sync(0xffffffffu, at, o));
        has_nan = __any_sync(0xffffffffu, has_nan);
#pragma unroll 8
        for (unsigned i = begin + lane; i < end && max > -EW_INFINITY; i += 32)
            sum += (double)weight_fast(x[i], max, inv);
#pragma unroll
        for (int o = 16; o > 0; o >>= 1)
            sum += __shfl_xor_sync(0xffffffffu, sum, o);
        if (lane == 0)
            out[g] = group{ sum, max, has_nan ? -1 : at };
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, 1) ew_sample_draw(const ew_cuda_draw_args a)
{
    __shared__ struct shared s;
    const float *const x = (const float *)a.logits + blockIdx.x * a.stride;
    const unsigned n = a.n;
    const bool is_there = threadIdx.x < a.n_groups;
    struct group own = { 0.0, -EW_INFINITY, 0x7fffffff };
    float max;
    int best, token = -1;

    ew_grid_release();
    ew_grid_wait();
    const struct draw_params p = ((const struct draw_params *)a.params)[blockIdx.x];

    if (is_there)
        own = ((const struct group *)a.work)[(uint64_t)blockIdx.x * a.n_groups + threadIdx.x];
    const bool is_fine = look_over(own, is_there, &s, &max, &best);
    if (is_fine && p.temperature <= 0.0) {
        token = best;
    } else if (is_fine) {
        const double u = philox_uniform(p.seed, p.request, p.position);

        if (p.top_k > 0 && (unsigned)p.top_k < n) {
            token = draw_from_top(x, a, own, max, p, u, (unsigned)p.top_k, true, &s);
        } else if (p.top_p < 1.0) { /* most nuclei are small */
            token = draw_from_top(x, a, own, max, p, u, NUCLEUS / 8, false, &s);
            if (token == -2)
                token = draw_from_top(x, a, own, max, p, u, NUCLEUS, false, &s);
        } else if (p.min_p > 0.0) {
            token = draw_from_top(x, a, own, max, p, u, 0, true, &s);
            if (token == -2)
                token = draw_from_row(x, n, max, p, u, &s);
        } else {
            token = draw_from_groups(x, n, a.group_size, own, max, p, u, &s);
        }
        token = token == -1 ? best : token; /* rounding left the target at the total */
    }
    if (threadIdx.x == 0)
        ((int *)a.token)[blockIdx.x] = token;
}
