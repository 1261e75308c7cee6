/* kernels/cuda/sample_draw.cu - one token a row by temperature, top_k, top_p and min_p, as
 * sample/sampler.c draws it; a block of 1024 a row.
 *
 * The vocabulary is never sorted. The k-th largest of the threads' own maxima is at most the k-th
 * largest of all, so what reaches it holds the k most likely; those few are sorted. With top_p
 * alone k is NUCLEUS: enough, or the row is left to the host. Without either the whole row is added
 * up in the order of ids and walked. */
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

struct shared {
    struct candidate c[MAX];
    float top[THREADS];
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

/* Calls f(value, index) for every value of the row that this thread looks at, many loads at once.
 */
template <class F> EW_DEV void for_row(const float *x, unsigned n, F f)
{
    for (unsigned i = threadIdx.x; i < n; i += 8 * THREADS) {
        float v[8];

#pragma unroll
        for (int j = 0; j < 8; j++)
            v[j] = i + j * THREADS < n ? __ldg(x + i + j * THREADS) : -EW_INFINITY;
#pragma unroll
        for (int j = 0; j < 8; j++)
            if (i + j * THREADS < n)
                f(v[j], i + j * THREADS);
    }
}

/* Sum of the weights of the whole row. */
EW_DEV double sum_of_row(const float *x, unsigned n, float max, double temperature,
                         struct shared *s)
{
    const float inv = (float)(1.0 / temperature);
    double own = 0, all = 0;

    for_row(x, n, [&](float v, unsigned) { own += (double)weight_fast(v, max, inv); });
#pragma unroll
    for (int o = 16; o > 0; o >>= 1)
        own += __shfl_xor_sync(0xffffffffu, own, o);
    if (threadIdx.x % 32 == 0)
        s->part[threadIdx.x / 32] = own;
    __syncthreads();
    for (unsigned w = 0; w < THREADS / 32; w++)
        all += s->part[w];
    __syncthreads();
    return all;
}

/* No top_k and no top_p: the first id whose running sum exceeds u of the total. min_p leaves out
 * what is too unlikely. */
EW_DEV int draw_from_row(const float *x, unsigned n, float max, const struct draw_params &p,
                         double u, struct shared *s)
{
    const unsigned per = (n + THREADS - 1) / THREADS;
    const unsigned begin = min(threadIdx.x * per, n), end = min(begin + per, n);
    const unsigned warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const float inv = (float)(1.0 / p.temperature);
    double own = 0, run, less = 0, all = 0;

#pragma unroll 8
    for (unsigned i = begin; i < end; i++) {
        const float w = weight_fast(__ldg(x + i), max, inv);

        own += (double)w < p.min_p ? 0.0 : (double)w;
    }
    run = own;
#pragma unroll
    for (int o = 1; o < 32; o <<= 1) {
        const double v = __shfl_up_sync(0xffffffffu, run, o);

        run += lane >= o ? v : 0.0;
    }
    if (lane == 31)
        s->part[warp] = run;
    if (threadIdx.x == 0)
        s->token = 0x7fffffff;
    __syncthreads();
    for (unsigned w = 0; w < THREADS / 32; w++) {
        less += w < warp ? s->part[w] : 0.0;
        all += s->part[w];
    }
    run = less + run - own;
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

/* Candidates at or above the threshold, sorted by id; false when there are too many. */
EW_DEV bool gather(const float *x, unsigned n, float threshold, struct shared *s)
{
    __syncthreads();
    if (threadIdx.x == 0)
        s->n = 0;
    __syncthreads();
    for (unsigned i = threadIdx.x; i < n; i += THREADS)
        if (x[i] >= threshold && x[i] > -EW_INFINITY) {
            const unsigned at = atomicAdd(&s->n, 1u);

            if (at < MAX)
                s->c[at] = candidate{ x[i], (int)i };
        }
    __syncthreads();
    return s->n <= MAX;
}

/* Maximum, its lowest index, and whether the row is one that can be drawn from. */
EW_DEV bool look_over(const float *x, unsigned n, struct shared *s, float *max, int *best)
{
    float own = -EW_INFINITY;
    int at = 0x7fffffff;
    bool has_nan = false;

    for_row(x, n, [&](float v, unsigned i) {
        has_nan |= v != v;
        if (v > own) {
            own = v;
            at = (int)i;
        }
    });
    s->top[threadIdx.x] = own;
    *max = ew_block_max(own, s->reduce);
    if (threadIdx.x == 0)
        s->token = 0x7fffffff;
    has_nan = __syncthreads_or(has_nan);
    if (own == *max)
        atomicMin(&s->token, at);
    __syncthreads();
    *best = s->token;
    __syncthreads();
    return !has_nan && *max<EW_INFINITY && * max> - EW_INFINITY;
}

} // namespace

extern "C" __global__ void __launch_bounds__(THREADS, 1) ew_sample_draw(const ew_cuda_draw_args a)
{
    __shared__ struct shared s;
    const float *const x = (const float *)a.logits + blockIdx.x * a.stride;
    const unsigned n = a.n;
    float max;
    int best, token = -1;
    double total = 0;

    ew_grid_release();
    ew_grid_wait();
    const struct draw_params p = ((const struct draw_params *)a.params)[blockIdx.x];

    const bool is_fine = look_over(x, n, &s, &max, &best);
    if (is_fine && p.temperature <= 0.0) {
        token = best;
    } else if (is_fine) {
        const double u = philox_uniform(p.seed, p.request, p.position);
        const bool has_k = p.top_k > 0 && (unsigned)p.top_k < n, has_p = p.top_p < 1.0;

        if (has_k || has_p) {
            const unsigned k = has_k ? (unsigned)p.top_k : NUCLEUS;
            bool is_few = k <= MAX;

            if (is_few && n > THREADS)
                is_few = gather(x, n, kth_maximum(&s, k), &s);
            else if (is_few)
                is_few = gather(x, n, -EW_INFINITY, &s);
            if (is_few) {
                unsigned n_few = s.n;

                sort(s.c, n_few, false);
                if (has_k && n_few > k) { /* what ties with the k-th stays */
                    const float threshold = s.c[k - 1].score;

                    while (n_few > k && s.c[n_few - 1].score < threshold)
                        n_few--;
                }
                if (!has_k) /* of all, not of the few */
                    total = sum_of_row(x, n, max, p.temperature, &s);
                sort(s.c, n_few, true);
                if (threadIdx.x < n_few)
                    s.c[threadIdx.x].score = weight(s.c[threadIdx.x].score, max, p.temperature);
                __syncthreads();
                for (unsigned i = 0; has_k && i < n_few; i++)
                    total += (double)s.c[i].score;
                __syncthreads();
                if (has_p)
                    sort(s.c, n_few, false);
                if (threadIdx.x == 0)
                    s.token = draw_from_few(s.c, n_few, p, has_k, total, u);
                __syncthreads();
                token = s.token;
            } else {
                token = -2;
            }
        } else {
            token = draw_from_row(x, n, max, p, u, &s);
        }
        token = token == -1 ? best : token; /* rounding left the target at the total */
    }
    if (threadIdx.x == 0)
        ((int *)a.token)[blockIdx.x] = token;
}
