/* kernels/cuda/pointwise.cu - a pointwise program (op/attrs.h) over n elements under broadcasting.
 *
 * EW_PROGRAM is the program as letters, four an instruction: op ('A' is EW_PW_ADD, then in the
 * order of enum ew_pw_op through 'Z' to 'a'), then the registers dst, a, b as hexadecimal digits.
 * Every index into the register file is known to the compiler, so registers are registers.
 * Immediates are in the arguments. EW_INPUTS: how many. EW_FLAT: 1 when every input is dense or
 * one number (stride[k][0] is 1 or 0), else strides over n_dims axes. */
#include "copy.cuh"
#include "rows_args.cuh"

#define TEXT_OF(x) #x
#define TEXT(x)    TEXT_OF(x)

namespace
{

constexpr char program[] = TEXT(EW_PROGRAM);
constexpr int n_instr = (int)sizeof(program) / 4;

__device__ constexpr int digit(char c)
{
    return c <= '9' ? c - '0' : c - 'a' + 10;
}

__device__ constexpr int op_of(char c)
{
    return c >= 'a' ? c - 'a' + 26 : c - 'A';
}

EW_DEV float max_nan(float a, float b)
{
    return isnan(a) || a > b ? a : b;
}

EW_DEV float min_nan(float a, float b)
{
    return isnan(a) || a < b ? a : b;
}

template <int OP> EW_DEV float apply(float a, float b, float imm)
{
    switch (OP) {
    case 0: /* as intrinsics: no fused multiply-add across instructions, each rounds */
        return __fadd_rn(a, b);
    case 1:
        return __fsub_rn(a, b);
    case 2:
        return __fmul_rn(a, b);
    case 3:
        return a / b;
    case 4:
        return max_nan(a, b);
    case 5:
        return min_nan(a, b);
    case 6:
        return powf(a, b);
    case 7:
        return -a;
    case 8:
        return fabsf(a);
    case 9:
        return expf(a);
    case 10:
        return logf(a);
    case 11:
        return sqrtf(a);
    case 12:
        return 1.0f / sqrtf(a);
    case 13:
        return 1.0f / a;
    case 14:
        return 1.0f / (1.0f + expf(-a));
    case 15:
        return tanhf(a);
    case 16:
        return a / (1.0f + expf(-a));
    case 17:
        return 0.5f * a * (1.0f + tanhf(0.79788456080286535588f * (a + 0.044715f * a * a * a)));
    case 18:
        return 0.5f * a * (1.0f + erff(a * 0.70710678118654752440f));
    case 19:
        return erff(a);
    case 20:
        return a > 0 || isnan(a) ? a : 0.0f;
    case 21:
        return (a > 0 ? a : 0.0f) + log1pf(expf(-fabsf(a)));
    case 22:
        return sinf(a);
    case 23:
        return cosf(a);
    case 24:
        return floorf(a);
    case 25:
        return ceilf(a);
    case 26:
        return __fadd_rn(a, imm);
    case 27:
        return __fmul_rn(a, imm);
    case 28:
        return max_nan(a, imm);
    default:
        return min_nan(a, imm);
    }
}

/* Instruction I and those behind it; the value of the last one. */
template <int I> struct run {
    static __device__ __forceinline__ float from(float (&r)[16], const float (&imm)[32])
    {
        constexpr int at = I * 4, dst = digit(program[at + 1]);

        r[dst] =
            apply<op_of(program[at])>(r[digit(program[at + 2])], r[digit(program[at + 3])], imm[I]);
        if constexpr (I + 1 < n_instr)
            return run<I + 1>::from(r, imm);
        else
            return r[dst];
    }
};

} // namespace

extern "C" __global__ void __launch_bounds__(256)
    ew_pointwise(const __grid_constant__ ew_cuda_pointwise_args a)
{
    ew_grid_release();
    ew_grid_wait();
    for (uint64_t u = (uint64_t)blockIdx.x * 256 + threadIdx.x; u < a.count;
         u += (uint64_t)gridDim.x * 256) {
        float r[16] = { 0 };

#if EW_FLAT
#    pragma unroll
        for (int k = 0; k < EW_INPUTS; k++)
            r[k] = ((const float *)a.in[k])[a.stride[k][0] ? u : 0];
#else
        uint32_t at[EW_INPUTS] = { 0 }, rest = (uint32_t)u;

        for (int d = (int)a.n_dims - 1; d >= 0; d--) {
            const uint32_t i = rest % a.dim[d];

            rest /= a.dim[d];
#    pragma unroll
            for (int k = 0; k < EW_INPUTS; k++)
                at[k] += i * a.stride[k][d];
        }
#    pragma unroll
        for (int k = 0; k < EW_INPUTS; k++)
            r[k] = ((const float *)a.in[k])[at[k]];
#endif
        ((float *)a.y)[u] = run<0>::from(r, a.imm);
    }
}
