/* kernels/cuda/attention_args.cuh - what every attention kernel is told; read by C and CUDA.
 * Addresses are of device memory, 0 for "none"; strides in elements. Meanings: attention.h. */
#ifndef EW_KERNELS_CUDA_ATTENTION_ARGS_CUH
#define EW_KERNELS_CUDA_ATTENTION_ARGS_CUH

#ifndef __CUDACC_RTC__
#    include <stdint.h>
#else
typedef unsigned int uint32_t;
typedef unsigned long long uint64_t;
typedef int int32_t;
typedef long long int64_t;
typedef unsigned short uint16_t;
typedef unsigned char uint8_t;
#endif

#define EW_ATTN_FEW_BLOCKS 64 /* of rows of a kv head, in attention_few.cu: counters */

struct ew_cuda_attn_args {
    uint64_t q, k, v, kv, kv_scale, rope, context_lengths, start_index, mask, pos_id;
    uint64_t q_norm, k_norm, out, out_bf16;
    uint64_t q_hi, q_lo; /* prepared queries [b*s][hq][d]: f32 in q_hi, or two short floats */
    uint64_t part_o;     /* [b*hkv][row tile][split][16][d] f32, of split attention */
    uint64_t part_ml;    /* [b*hkv][row tile][split][16][2] f32: maximum and sum */
    uint64_t counters;   /* [b*hkv][row tile] */
    uint64_t q_stride, k_stride, v_stride, out_stride, rope_batch_stride, mask_words;
    int64_t window; /* <= 0: off */
    uint32_t mode;  /* enum ew_attn_mode */
    uint32_t b, s, hq, hkv, cap, rope_rows, rd;
    uint32_t n_split;
    float q_scale; /* what queries are multiplied with when they are prepared */
    float qk_norm_eps, softcap;
};

/* Of the kernel that reads the cache through the copy engine; the map comes first since it needs 64
 * bytes. */
struct ew_cuda_attn_map_args {
#ifdef __CUDACC__
    alignas(64) unsigned char map[128];
#else
    _Alignas(64) unsigned char map[128];
#endif
    struct ew_cuda_attn_args a;
};

#endif
