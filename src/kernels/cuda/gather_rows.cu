/* kernels/cuda/gather_rows.cu - dst[b][i] = src[b][idx[b][i]]: rows by index.
 *
 * grid (n_idx, n_batch). Macros: EW_IDX (4, 8: bytes of an index), EW_WORD (16, 4, 2, 1: bytes
 * moved at once), EW_EMBED (0: bytes as they are; 1 f32, 2 f16, 3 bf16: to f32, times scale; words
 * are elements then). */
#include "copy.cuh"
#include "rows_args.cuh"

#if EW_IDX == 4
typedef int index_t;
#else
typedef long long index_t;
#endif
#if EW_WORD == 16
typedef uint4 word_t;
#elif EW_WORD == 4
typedef uint32_t word_t;
#elif EW_WORD == 2
typedef uint16_t word_t;
#else
typedef uint8_t word_t;
#endif

extern "C" __global__ void __launch_bounds__(256) ew_gather_rows(const ew_cuda_gather_args a)
{
    const unsigned long long place = (unsigned long long)blockIdx.y * a.n_idx + blockIdx.x;

    ew_grid_release();
    ew_grid_wait();
    long long at = ((const index_t *)a.idx)[place];
#if EW_EMBED
    const bool is_in = at >= 0 && at < (long long)a.n_rows;
    const word_t *const src = (const word_t *)a.src + (is_in ? at : 0) * a.row_words;
    float *const dst = (float *)a.dst + place * a.row_words;

    for (unsigned i = threadIdx.x; i < a.row_words; i += blockDim.x) {
        const word_t v = src[i];
#    if EW_EMBED == 1
        const float f = __uint_as_float(v);
#    elif EW_EMBED == 2
        const float f = ew_f16_f32(v);
#    else
        const float f = ew_bf16_f32(v);
#    endif
        dst[i] = is_in ? f * a.scale : __uint_as_float(0x7fc00000u);
    }
#else
    if (at < 0)
        at += (long long)a.n_rows;
    const bool is_in = at >= 0 && at < (long long)a.n_rows;
    const word_t *const src =
        (const word_t *)a.src + (blockIdx.y * a.n_rows + (is_in ? at : 0)) * a.row_words;
    word_t *const dst = (word_t *)a.dst + place * a.row_words;

    for (unsigned i = threadIdx.x; i < a.row_words; i += blockDim.x)
        dst[i] = is_in ? src[i] : word_t{};
#endif
}
