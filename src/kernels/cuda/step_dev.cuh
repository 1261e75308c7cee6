/* kernels/cuda/step_dev.cuh - what the phases of step.cu share: shared memory, packets, copies and
 * their barriers, tensor core products. Device only. */
#ifndef EW_KERNELS_CUDA_STEP_DEV_CUH
#define EW_KERNELS_CUDA_STEP_DEV_CUH

#include "step.cuh"

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
#    define EW_STEP_BULK 1
#else
#    define EW_STEP_BULK 0
#endif
#ifndef EW_STEP_COPIERS
#    define EW_STEP_COPIERS 2 /* warps that copy, as step.c says */
#endif
#define EW_STEP_THREADS ((EW_STEP_WARPS + EW_STEP_COPIERS) * 32)
#ifndef EW_STEP_FLIGHT
#    define EW_STEP_FLIGHT 1 /* a copying warp has one stage under way; 0: all there are */
#endif
#ifndef EW_STEP_TRACE
#    define EW_STEP_TRACE 0
#endif
/* What a step would take: 1 nobody waits for packets, 2 nothing is copied, 4 nothing is multiplied
 * (plain weights). Sums of them; the outputs mean nothing then. */
#ifndef EW_STEP_BOUND
#    define EW_STEP_BOUND 0
#endif
#ifndef EW_STEP_POLL_LIMIT
#    define EW_STEP_POLL_LIMIT (1u << 24)
#endif

/* What a model has (step.c makes them); code that nothing uses only fills the instruction cache:
 * 230 KB of it made every phase four times as slow. */
#ifndef EW_STEP_KINDS
#    define EW_STEP_KINDS 15 /* 1 << enum ew_step_kind of the phases there are */
#endif
#ifndef EW_STEP_PLAINS
#    define EW_STEP_PLAINS 7 /* enum ew_step_plain of the phases there are */
#endif
#ifndef EW_STEP_TURNS
#    define EW_STEP_TURNS 0xf0f /* 1 << turns of quantised phases: of q4, of q8 times 256 */
#endif
#ifndef EW_STEP_W_F16
#    define EW_STEP_W_F16 0 /* plain weights: f16, else bf16 */
#endif
#ifndef EW_STEP_SCALE_F16
#    define EW_STEP_SCALE_F16 1 /* scales of groups: f16, else bf16 */
#endif
#define EW_STEP_PAIR_F16 EW_STEP_W_F16 /* of a packet's pair of numbers */
#ifndef EW_STEP_KV_F16
#    define EW_STEP_KV_F16 0 /* cache: f16, else bf16 */
#endif
#ifndef EW_STEP_ACT
#    define EW_STEP_ACT 1 /* enum ew_act of the phases that have one */
#endif
#ifndef EW_STEP_BIAS
#    define EW_STEP_BIAS 0
#endif
#ifndef EW_STEP_SOFTCAP
#    define EW_STEP_SOFTCAP 0
#endif

#ifndef EW_STEP_ROWS
#    define EW_STEP_ROWS 1 /* or 8: sequences at once, at most (step_rows.cu) */
#endif

#define EW_DEV   static __device__ __forceinline__
#define EW_ALL   0xffffffffu
#define STEP_INF __uint_as_float(0x7f800000u)

#define STEP_COLS 1024 /* of a part of a linear's stage, at most */

/* Where a block stands in attention. */
struct step_kv {
    uint32_t head, split, splits; /* split >= splits: nothing to do */
    uint32_t first, pos;          /* oldest position seen; the new one */
    uint32_t begin, end, blocks;  /* blocks of this split; all */
    uint32_t window;              /* what it was made for */
    uint32_t q, g;                /* first of its query heads; how many */
    uint32_t row;                 /* step_rows.cu: the sequence */
};
static_assert(sizeof(struct step_kv) == EW_STEP_KV_BYTES, "step.cuh says so");

struct step {
    const struct ew_step_args *a;
    uint32_t ring, full, empty; /* shared addresses */
    uint32_t stage, parity;     /* next of the ring */
    char *x;                    /* input of a linear phase */
    char *attention;            /* struct step_attn */
    char *entries;   /* of the table: this warp's copies of this phase's and of the next one's */
    float *red;      /* [2][RED_ROWS][WARPS] */
    float *sums;     /* [2][WARPS]: of squares of the input, as red */
    uint32_t seq;    /* of what this phase writes */
    uint32_t in_seq; /* of what it reads */
    uint32_t phase, context;
    uint32_t turn;   /* of the copying warps: stages until this one's next */
    uint64_t policy; /* of copies */
    uint32_t flight; /* and its last stage: which, and its parity << 8 */
    uint32_t cta, n_cta;
    uint32_t half;      /* of red and sums; turns after each use */
    uint32_t g, splits; /* query heads of a kv head; the most splits of the positions */
    struct step_kv *kv; /* this warp's, in shared memory: registers are scarce */
    uint32_t odd;       /* step_rows.cu: which of the two sets of words are this step's */
};

/* Number of the sequence's kv head. */
EW_DEV uint32_t step_unit(const struct step *s, const struct step_kv *v)
{
    return EW_STEP_ROWS > 1 ? v->row * s->a->hkv + v->head : v->head;
}
EW_DEV uint32_t smem_of(const void *p)
{
    return (uint32_t)__cvta_generic_to_shared(p);
}
EW_DEV float f32_of(uint32_t u)
{
    return __uint_as_float(u);
}

/* Where this warp is in its phase, for bench/step_profile.c: 0 begins, 1 has its packets, 2 its
 * input, 3 its first stage, 4 has multiplied, 5 is past the barrier, 6 has sent its outputs, 7 has
 * merged (attention). */
EW_DEV void step_mark(const struct step *s, uint32_t i)
{
#if EW_STEP_TRACE
    uint32_t now;

    asm volatile("mov.u32 %0, %%clock;" : "=r"(now)::"memory");
    if (threadIdx.x % 32 == 0)
        ((volatile uint32_t *)
             s->a->trace)[((s->phase * s->n_cta + s->cta) * EW_STEP_WARPS + threadIdx.x / 32) *
                              EW_STEP_MARKS +
                          i] = now;
#else
    (void)s;
    (void)i;
#endif
}

/* This block's clock and the time of all blocks, behind the marks of the last phase: i 0 at the
 * start, 2 at the end. */
EW_DEV void step_time(const struct step *s, uint32_t i)
{
#if EW_STEP_TRACE
    uint32_t now, time = 0, was;

    if (threadIdx.x)
        return;
    asm volatile("mov.u32 %0, %%globaltimer_lo;" : "=r"(was)::"memory");
    for (time = was; time == was;) /* it goes by steps */
        asm volatile("mov.u32 %0, %%globaltimer_lo;" : "=r"(time)::"memory");
    asm volatile("mov.u32 %0, %%clock;" : "=r"(now)::"memory");
    volatile uint32_t *at = (volatile uint32_t *)s->a->trace +
                            (s->a->n_phases * s->n_cta + s->cta) * EW_STEP_WARPS * EW_STEP_MARKS +
                            i;
    at[0] = now;
    at[1] = time;
#else
    (void)s;
    (void)i;
#endif
}

/* ---- barriers of the ring ---- */
EW_DEV void bar_init(uint32_t bar, uint32_t count)
{
    asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(bar), "r"(count) : "memory");
}
EW_DEV void bar_init_done(void)
{
#if EW_STEP_BULK
    asm volatile("fence.mbarrier_init.release.cluster; fence.proxy.async;" ::: "memory");
#endif
}
EW_DEV void bar_arrive(uint32_t bar)
{
    asm volatile("{ .reg .b64 t; mbarrier.arrive.shared.b64 t, [%0]; }" ::"r"(bar) : "memory");
}
EW_DEV bool bar_try(uint32_t bar, uint32_t parity)
{
    uint32_t ok;
#if EW_STEP_BULK
    asm volatile("{ .reg .pred p; mbarrier.try_wait.parity.shared.b64 p, [%1], %2; "
                 "selp.u32 %0, 1, 0, p; }"
                 : "=r"(ok)
                 : "r"(bar), "r"(parity)
                 : "memory");
#else
    asm volatile("{ .reg .pred p; mbarrier.test_wait.parity.shared.b64 p, [%1], %2; "
                 "selp.u32 %0, 1, 0, p; }"
                 : "=r"(ok)
                 : "r"(bar), "r"(parity)
                 : "memory");
#endif
    return ok;
}
static __device__ __noinline__ void step_gave_up(const struct step *s)
{
    *(volatile uint32_t *)s->a->fault = EW_STEP_FAULT(s->phase, s->cta, threadIdx.x / 32);
    __threadfence_system();
    __trap();
}
EW_DEV void bar_wait(const struct step *s, uint32_t bar, uint32_t parity)
{
    uint32_t n = 0;

    while (!bar_try(bar, parity))
        if (++n > EW_STEP_POLL_LIMIT)
            step_gave_up(s);
}
/* The warps that compute. */
EW_DEV void sync_warps(void)
{
    asm volatile("bar.sync 1, %0;" ::"n"(EW_STEP_WARPS * 32) : "memory");
}

/* ---- the ring ---- */
EW_DEV void ring_next(struct step *s)
{
    if (++s->stage == s->a->n_stages) {
        s->stage = 0;
        s->parity ^= 1;
    }
}
EW_DEV uint32_t ring_at(const struct step *s)
{
    return s->ring + s->stage * s->a->stage_bytes;
}
EW_DEV void ring_wait_full(const struct step *s)
{
    if (!(EW_STEP_BOUND & 2))
        bar_wait(s, s->full + 8 * s->stage, s->parity);
}
/* A warp is done with the stage: each lane says so of what it has read. One lane behind a
 * __syncwarp would do and takes as long, but compute-sanitizer does not follow that. */
EW_DEV void ring_release(struct step *s)
{
    bar_arrive(s->empty + 8 * s->stage);
    ring_next(s);
}

/* One lane of a warp that is together. The compiler knows that it is one; of `lane == 0` it does
 * not, and makes a loop over lanes around each bulk copy. */
EW_DEV bool elect_lane(void)
{
#if EW_STEP_BULK
    uint32_t mine;

    asm volatile("{ .reg .pred p; elect.sync _|p, 0xffffffff; selp.u32 %0, 1, 0, p; }"
                 : "=r"(mine));
    return mine;
#else
    return threadIdx.x % 32 == 0;
#endif
}
/* ---- copies: the copying warps take the stages in turns ---- */
/* Copies that are asked for all at once keep L2 from answering for packets: a warp waits for its
 * stage before. It releases that one too, so that nobody fills it anew before it was seen full. */
EW_DEV void copy_wait(struct step *s)
{
#if EW_STEP_FLIGHT
    const uint32_t at = 8 * (s->flight & 255);

    if (s->flight != EW_ALL) {
        bar_wait(s, s->full + at, s->flight >> 8);
        if (elect_lane())
            bar_arrive(s->empty + at);
    }
    s->flight = s->stage | s->parity << 8;
#else
    (void)s;
#endif
}
/* True when the next stage is this warp's; then it is empty. False: passed over. */
EW_DEV bool copy_begin(struct step *s, uint32_t bytes)
{
    const bool mine = s->turn == 0;

    s->turn = s->turn ? s->turn - 1 : EW_STEP_COPIERS - 1;
    if (!mine) {
        ring_next(s);
        return false;
    }
    copy_wait(s);
    bar_wait(s, s->empty + 8 * s->stage, s->parity ^ 1);
#if EW_STEP_BULK
    if (threadIdx.x % 32 == 0)
        asm volatile(
            "mbarrier.arrive.expect_tx.shared.b64 _, [%0], %1;" ::"r"(s->full + 8 * s->stage),
            "r"(bytes)
            : "memory");
#else
    (void)bytes;
#endif
    return true;
}
/* n <= 8 runs of `bytes` (a multiple of 16). */
EW_DEV void copy_runs(const struct step *s, uint32_t to, uint32_t to_stride, uint64_t from,
                      uint32_t from_stride, uint32_t n, uint32_t bytes)
{
#if EW_STEP_BULK
    if (elect_lane()) {
#    pragma unroll
        for (uint32_t i = 0; i < 8; i++) {
            if (i < n)
                asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes"
                             ".L2::cache_hint [%0], [%1], %2, [%3], %4;" ::"r"(to),
                             "l"(from), "r"(bytes), "r"(s->full + 8 * s->stage), "l"(s->policy));
            to += to_stride;
            from += from_stride;
        }
    }
#else
    for (uint32_t i = 0; i < n; i++) {
        for (uint32_t j = threadIdx.x % 32 * 16; j < bytes; j += 512)
            asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to + j), "l"(from + j));
        to += to_stride;
        from += from_stride;
    }
#endif
}
EW_DEV void copy_run(const struct step *s, uint32_t to, uint64_t from, uint32_t bytes)
{
#if EW_STEP_BULK
    if (elect_lane())
        asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes"
                     ".L2::cache_hint [%0], [%1], %2, [%3], %4;" ::"r"(to),
                     "l"(from), "r"(bytes), "r"(s->full + 8 * s->stage), "l"(s->policy));
#else
    for (uint32_t j = threadIdx.x % 32 * 16; j < bytes; j += 512)
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to + j), "l"(from + j));
#endif
}
EW_DEV void copy_end(struct step *s)
{
#if !EW_STEP_BULK
    asm volatile("cp.async.mbarrier.arrive.noinc.shared.b64 [%0];" ::"r"(s->full + 8 * s->stage)
                 : "memory");
#endif
    ring_next(s);
}
EW_DEV uint64_t copy_policy(void)
{
    uint64_t policy = 0;

#if EW_STEP_BULK
    asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
#endif
    return policy;
}
EW_DEV void prefetch_l2(uint64_t at)
{
    asm volatile("prefetch.global.L2 [%0];" ::"l"(at));
}
/* A vector beside the weights, by one of the copying warps of all blocks; at 0: there is none. */
EW_DEV void prefetch_vector(const struct step *s, uint64_t at, uint32_t bytes)
{
    const uint32_t lines = (bytes + 127) / 128;

    if (!at || threadIdx.x != EW_STEP_WARPS * 32)
        return;
#pragma unroll 1
    for (uint32_t i = s->cta; i < lines; i += s->n_cta)
        prefetch_l2(at + (uint64_t)i * 128);
}

/* ---- the table. Each warp walks it with copies of its own in shared memory: an entry that comes
 * from L2 when it is needed takes a thousand clocks of every phase ---- */
EW_DEV void entry_ask(const struct step *s, uint32_t phase)
{
    const uint32_t lane = threadIdx.x % 32, bytes = (uint32_t)sizeof(struct ew_step_phase);
    const uint32_t to = smem_of(s->entries) + (phase & 1) * bytes + lane * 16;
    const uint64_t from = s->a->table + (uint64_t)phase * bytes + lane * 16;

    if (phase >= s->a->n_phases || lane * 16 >= bytes)
        return;
    if (!EW_STEP_BULK && threadIdx.x / 32 >= EW_STEP_WARPS) /* or it would wait for its stages */
        *(uint4 *)(s->entries + (phase & 1) * bytes + lane * 16) = *(const uint4 *)from;
    else
        asm volatile("cp.async.ca.shared.global [%0], [%1], 16;" ::"r"(to), "l"(from) : "memory");
}
/* The entry of a phase that was asked for; the one before is read no more, and the next is asked
 * for in its place. */
EW_DEV const struct ew_step_phase *entry_take(const struct step *s, uint32_t phase)
{
    asm volatile("cp.async.wait_all;" ::: "memory");
    __syncwarp();
    entry_ask(s, phase + 1);
    return (const struct ew_step_phase *)(s->entries + (phase & 1) * sizeof(struct ew_step_phase));
}

/* ---- packets ---- */
struct two_packets {
    uint64_t a, b;
};
EW_DEV struct two_packets packets_load(uint64_t at)
{
    struct two_packets p;

    asm volatile("ld.relaxed.gpu.global.v2.u64 {%0, %1}, [%2];" : "=l"(p.a), "=l"(p.b) : "l"(at));
    return p;
}
EW_DEV uint64_t packet_load(uint64_t at)
{
    uint64_t p;

    asm volatile("ld.relaxed.gpu.global.u64 %0, [%1];" : "=l"(p) : "l"(at));
    return p;
}
EW_DEV void packet_store_bits(uint64_t at, uint32_t v, uint32_t seq)
{
    asm volatile("st.relaxed.gpu.global.u64 [%0], %1;" ::"l"(at), "l"((uint64_t)seq << 32 | v));
}
EW_DEV void packet_store(uint64_t at, float v, uint32_t seq)
{
    packet_store_bits(at, __float_as_uint(v), seq);
}
/* Two packets in one store; `at` is a multiple of 16. */
EW_DEV void packets_store(uint64_t at, float v, float w, uint32_t seq)
{
    asm volatile("st.relaxed.gpu.global.v2.u64 [%0], {%1, %2};" ::"l"(at),
                 "l"((uint64_t)seq << 32 | __float_as_uint(v)),
                 "l"((uint64_t)seq << 32 | __float_as_uint(w)));
}
EW_DEV bool packet_is(uint64_t p, uint32_t seq)
{
    return EW_STEP_BOUND & 1 || (uint32_t)(p >> 32) == seq;
}
EW_DEV float packet_value(uint64_t p)
{
    return f32_of((uint32_t)p);
}
/* The two at `at`, waiting for them; p is what was read of them so far. */
EW_DEV float2 packets_wait(const struct step *s, uint64_t at, struct two_packets p, uint32_t seq)
{
    uint32_t n = 0;

    while (!packet_is(p.a, seq) || !packet_is(p.b, seq)) {
        p = packets_load(at);
        if (++n > EW_STEP_POLL_LIMIT)
            step_gave_up(s);
    }
    return make_float2(packet_value(p.a), packet_value(p.b));
}
EW_DEV float packet_wait(const struct step *s, uint64_t at, uint64_t p, uint32_t seq)
{
    uint32_t n = 0;

    while (!packet_is(p, seq)) {
        p = packet_load(at);
        if (++n > EW_STEP_POLL_LIMIT)
            step_gave_up(s);
    }
    return packet_value(p);
}

/* ---- 16-bit floats ---- */
EW_DEV uint32_t bf16x2_of(float lo, float hi)
{
    uint32_t r;

    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(hi), "f"(lo));
    return r;
}
EW_DEV uint32_t f16x2_of(float lo, float hi)
{
    uint32_t r;

    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(hi), "f"(lo));
    return r;
}
EW_DEV float2 bf16x2_get(uint32_t v)
{
    return make_float2(f32_of(v << 16), f32_of(v & 0xffff0000u));
}
EW_DEV float2 f16x2_get(uint32_t v)
{
    float2 r;

    asm("{ .reg .f16 a, b; mov.b32 {a, b}, %2; cvt.f32.f16 %0, a; cvt.f32.f16 %1, b; }"
        : "=f"(r.x), "=f"(r.y)
        : "r"(v));
    return r;
}
template <bool F16> EW_DEV uint32_t half2_of(float lo, float hi)
{
    return F16 ? f16x2_of(lo, hi) : bf16x2_of(lo, hi);
}
template <bool F16> EW_DEV float2 half2_get(uint32_t v)
{
    return F16 ? f16x2_get(v) : bf16x2_get(v);
}

/* ---- pairs ---- */
static_assert(EW_STEP_COPIES % 2 == 0, "odd threads send odd copies");
/* Where this block reads the vector at `in`, a packet number. */
EW_DEV uint64_t pairs_at(const struct step *s, uint32_t in)
{
    return s->a->workspace + ((uint64_t)in + s->cta % EW_STEP_COPIES * s->a->copy) * 8;
}
/* Sends a packet of a vector: to `at`, and every by-th copy from there on. */
EW_DEV void pair_send(const struct step *s, uint64_t at, float v, float w, uint32_t seq,
                      uint32_t by)
{
    const uint32_t pair = half2_of<EW_STEP_PAIR_F16>(v, w);

#pragma unroll
    for (uint32_t i = 0; i < EW_STEP_COPIES; i += by)
        packet_store_bits(at + (uint64_t)(i * s->a->copy) * 8, pair, seq);
}
EW_DEV float2 pair_value(uint64_t p)
{
    return half2_get<EW_STEP_PAIR_F16>((uint32_t)p);
}

/* ---- products ---- */
template <bool F16>
EW_DEV void mma16(float c[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0,
                  uint32_t b1)
{
    if (F16)
        asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
            "{%8,%9}, {%0,%1,%2,%3};"
            : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
            : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
    else
        asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
            "{%8,%9}, {%0,%1,%2,%3};"
            : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
            : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}
EW_DEV void mma8(int c[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0,
                 uint32_t b1)
{
    asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
        "{%0,%1,%2,%3};"
        : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}
/* a: unsigned. */
EW_DEV void mma8u(int c[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0,
                  uint32_t b1)
{
    asm("mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
        "{%0,%1,%2,%3};"
        : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}
EW_DEV uint4 lds128(uint32_t at)
{
    uint4 v;

    asm volatile("ld.shared.v4.u32 {%0,%1,%2,%3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "r"(at));
    return v;
}
EW_DEV uint2 lds64(uint32_t at)
{
    uint2 v;

    asm volatile("ld.shared.v2.u32 {%0,%1}, [%2];" : "=r"(v.x), "=r"(v.y) : "r"(at));
    return v;
}
EW_DEV uint32_t lds32(uint32_t at)
{
    uint32_t v;

    asm volatile("ld.shared.u32 %0, [%1];" : "=r"(v) : "r"(at));
    return v;
}
EW_DEV void sts32(uint32_t at, uint32_t v)
{
    asm volatile("st.shared.u32 [%0], %1;" ::"r"(at), "r"(v));
}
EW_DEV void sts64(uint32_t at, uint32_t a, uint32_t b)
{
    asm volatile("st.shared.v2.u32 [%0], {%1, %2};" ::"r"(at), "r"(a), "r"(b));
}
EW_DEV float warp_sum(float v)
{
    for (int d = 16; d; d >>= 1)
        v += __shfl_xor_sync(EW_ALL, v, d);
    return v;
}

/* This warp's part of the sum of squares; step_inv_rms has the rest behind the next barrier. */
EW_DEV void step_sum_store(struct step *s, const struct ew_step_phase *ph, float sum)
{
    if (!(ph->flags & EW_STEP_NORM))
        return;
    sum = warp_sum(sum);
    if (threadIdx.x % 32 == 0)
        s->sums[s->half * EW_STEP_WARPS + threadIdx.x / 32] = sum;
}

/* What a step that follows finds of a sequence in place of this one's inputs. */
EW_DEV void step_leave(const struct step *s, uint32_t row, int token, uint32_t epoch)
{
    const uint32_t rows = EW_STEP_ROWS > 1 ? s->a->sequences : 1;
    int32_t *to = (int32_t *)s->a->token;

    if (!s->a->next_id) {
        to[row] = token;
        return;
    }
    to[(epoch & 1) * rows + row] = token;
    ((int32_t *)s->a->next_id)[row] = token;
    ((int32_t *)s->a->context_lengths)[row] += 1; /* every block has read it: it sent its best */
}

/* A kernel's shared memory in its parts (`red` and `sums` floats of a warp, for two uses in turn),
 * and where its ring, its table and its block begin. */
EW_DEV void step_parts(struct step *s, const struct ew_step_args *a, char *at, uint32_t x_bytes,
                       uint32_t red, uint32_t sums)
{
    s->a = a;
    s->ring = smem_of(at);
    at += a->n_stages * a->stage_bytes;
    s->x = at;
    at += x_bytes;
    s->attention = at;
    at += a->attention_bytes;
    s->red = (float *)at;
    at += 2 * red * EW_STEP_WARPS * 4;
    s->sums = (float *)at;
    at += 2 * sums * EW_STEP_WARPS * 4;
    s->entries = at + threadIdx.x / 32 * 2 * sizeof(struct ew_step_phase);
    at += EW_STEP_THREADS / 32 * 2 * sizeof(struct ew_step_phase);
    s->kv = (struct step_kv *)at + threadIdx.x / 32;
    at += EW_STEP_THREADS / 32 * EW_STEP_KV_BYTES;
    s->full = smem_of(at);
    s->empty = s->full + EW_STEP_MAX_STAGES * 8;
    s->stage = s->parity = s->half = 0;
    s->flight = EW_ALL;
    s->cta = blockIdx.x;
    s->n_cta = gridDim.x;
    s->phase = 0;
}
/* The ring's barriers; all threads. */
EW_DEV void step_ring_begin(struct step *s)
{
    if (threadIdx.x == 0) {
#pragma unroll 1
        for (uint32_t i = 0; i < s->a->n_stages; i++) {
            bar_init(s->full + 8 * i, EW_STEP_BULK ? 1 : 32);
            bar_init(s->empty + 8 * i, EW_STEP_WARPS * 32 + EW_STEP_FLIGHT);
        }
        bar_init_done();
    }
    __syncthreads();
    s->turn = threadIdx.x / 32 - EW_STEP_WARPS;
    s->policy = copy_policy();
}
#endif
