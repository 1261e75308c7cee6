/* kernels/cuda/step.cuh - the table a persistent decode kernel (step.cu) interprets: one entry a
 * phase, in device memory, written once when a context is made. Shared by C and CUDA.
 *
 * Vectors go from phase to phase as packets of 8 bytes: a number (low) and a sequence (high), so
 * that whoever reads a number knows whether it is this step's. There is no other barrier. What a
 * linear reads is a pair of 16-bit floats a packet (f16 where the plain weights are, else bf16);
 * what attention reads, partial sums, and the residual stream that a block adds to its own outputs
 * are one f32 a packet. */
#ifndef EW_KERNELS_CUDA_STEP_CUH
#define EW_KERNELS_CUDA_STEP_CUH

#ifdef __CUDACC_RTC__
typedef unsigned char uint8_t;
typedef unsigned short uint16_t;
typedef unsigned int uint32_t;
typedef int int32_t;
typedef unsigned long long uint64_t;
#else
#    include <stdint.h>
#endif

#define EW_STEP_WARPS 8 /* that compute */
#ifndef EW_STEP_COPIES
#    define EW_STEP_COPIES 4 /* of a vector of pairs: all blocks ask for the same lines of L2 */
#endif
#ifndef EW_STEP_RED_ROWS
#    define EW_STEP_RED_ROWS 64 /* outputs reduced at once */
#endif
#define EW_STEP_KV_BLOCK   64 /* positions of a block of the cache */
#define EW_STEP_KV_TILE    16 /* of them a warp takes at once */
#define EW_STEP_KV_SPLIT   4  /* blocks before their work is shared by more blocks of threads */
#define EW_STEP_KV_SPLITS  64 /* blocks of threads for one kv head, at most */
#define EW_STEP_MAX_STAGES 48
#define EW_STEP_KV_BYTES   48 /* step_dev.cuh's struct step_kv */
#define EW_STEP_MARKS      8  /* of a phase and warp: struct ew_step_args, trace */
#define EW_STEP_ROWS_TILE  72 /* sums of 8 outputs and 8 sequences */
#define EW_STEP_ROWS_GAP   64 /* bytes between rows of weights in step_rows.cu's stages */

enum ew_step_kind { EW_STEP_PLAIN16 = 0, EW_STEP_Q4, EW_STEP_Q8, EW_STEP_ATTENTION };

enum ew_step_flags {
    EW_STEP_PAIRS = 1,    /* output: pairs at `out` */
    EW_STEP_SINGLES = 2,  /* output: f32 at `singles` (both: a linear and a residual read it) */
    EW_STEP_RESIDUAL = 4, /* add to the output what an earlier phase left at `kept` */
    EW_STEP_GLU = 8,      /* rows are gate, then up */
    EW_STEP_HEAD = 16,    /* output: f32 logits, and their arg max */
    EW_STEP_NORM = 32,    /* RMS norm of the input, weight `norm` */
    EW_STEP_PANELS = 64   /* step_rows.cu: pairs are for panels (step_rows.cuh) */
};

/* Ways of phases with plain weights, by their columns. */
enum ew_step_plain {
    EW_STEP_WHOLE = 1, /* as many as a part has at most */
    EW_STEP_SHORT = 2, /* fewer */
    EW_STEP_PARTS = 4  /* more */
};

/* Who waited in vain: never 0. */
#define EW_STEP_FAULT(phase, block, warp) (((phase) + 1) | (block) << 12 | (warp) << 24)
#define EW_STEP_FAULT_PHASE(fault)        (((fault)&0xfffu) - 1)
#define EW_STEP_FAULT_BLOCK(fault)        ((fault) >> 12 & 0xfffu)
#define EW_STEP_FAULT_WARP(fault)         ((fault) >> 24)

/* 160 bytes. In step_rows.cu `in`, `out`, `singles` and `kept` are words (step_rows.cuh) in units
 * of 8 bytes, and `partial` is for each sequence. */
struct ew_step_phase {
    uint64_t w;    /* linear: weights; attention: cache of this layer [2][hkv][cap][d] */
    uint64_t norm; /* linear: f32 [k]; attention: f32 [d] of q, or 0 */
    uint64_t bias; /* linear: f32 [n] or 0; attention: f32 [d], norm of k, or 0 */
    uint64_t rope; /* attention: f32 [rows][rd], or 0; PANELS: weights of the reader's norm, or 0 */
    uint32_t kind, flags;
    uint32_t in, out; /* packets, from the start of the workspace */
    uint32_t singles, kept;
    uint32_t kept_back; /* RESIDUAL: phases since the one whose input is kept */
    float eps, scale, softcap;
    uint32_t act; /* enum ew_act */
    /* linear */
    uint32_t n, k;  /* rows of w (glu: both halves), columns; attention of several sequences: n is
                       how far their tables of rope lie apart, in floats */
    uint32_t chunk; /* columns of a part: of what a stage has of a tile */
    uint32_t batch; /* parts of a stage, at most */
    uint32_t part_bytes;               /* of a stage */
    uint32_t stride;                   /* bytes of a row (plain) or a panel */
    uint32_t scales_at, row_scales_at; /* in a panel; in the stage that has the last part of one */
    uint32_t turns;      /* panels: of STEP_COLS columns, up to 3; 0: more, or, in step.cu,
                            parts of panels */
    uint32_t group_log2; /* of columns a scale serves; 0: row scales alone */
    uint32_t first;      /* block that has the first tile (panels) */
    uint32_t share,
        extra; /* pairs of outputs (plain) or panels a block has; blocks with one more */
    float inv_k;
    /* attention */
    uint32_t rd, cap;
    uint32_t window;  /* 0: none */
    uint32_t partial; /* packets: [hkv * splits][g * (d + 2)] */
    /* step_rows.cu, words: sums of squares of the pairs at `out`, where there is a norm behind
     * them; of those at `in`, so many of a sequence */
    uint32_t squares, squares_in, n_squares;
};

struct ew_step_args {
    uint64_t table;     /* struct ew_step_phase [n_phases] */
    uint64_t workspace; /* packets; zeroed once */
    uint64_t epoch;     /* u32, zeroed with the workspace */
    uint64_t x;       /* f32 [n_x]: the first phase's input, sent as packets of both kinds first */
    uint64_t logits;  /* f32 [n] of HEAD, or 0 */
    uint64_t token;   /* i32 [sequences]: arg max of HEAD (ew_argmax's), or 0; with next_id twice
                         that, in turn */
    uint64_t next_id; /* i32 [sequences]: the same, for a step that follows, whose context_lengths
                         this one leaves too (one more); or 0 */
    uint64_t rows; /* [n_rows][n_x], of which row *next_id times row_scale is x; or 0: x is there */
    uint64_t context_lengths; /* i32 [sequences]: with this token */
    uint64_t fault;           /* u32: EW_STEP_FAULT of a wait that gave up */
    uint64_t trace; /* clocks, of a kernel compiled with EW_STEP_TRACE: u32 [n_phases + 1][blocks]
                       [WARPS][MARKS] */
    uint32_t n_phases, n_stages, stage_bytes;
    uint32_t x_bytes;          /* of shared memory: the input of a linear phase */
    uint32_t attention_bytes;  /* of shared memory: step_attn.cuh's struct step_attn */
    uint32_t best;             /* packets of HEAD: 2 a block */
    uint32_t hq, hkv;          /* of every attention phase */
    uint32_t n_x, x_singles;   /* packets: where x goes as f32 */
    uint32_t kv_batch;         /* blocks of the cache a stage has: 1 or 2 */
    uint32_t copy;             /* packets from one copy of a vector of pairs to the next */
    uint32_t n_rows, row_type; /* 0 f32, 1 f16, 2 bf16 */
    float row_scale;
    /* step_rows.cu */
    uint32_t sequences; /* 2 to 8 */
    uint32_t turn; /* from the words of one step to those of the next, which has them in turn */
};

#endif
