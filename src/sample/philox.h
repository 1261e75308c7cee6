/* sample/philox.h - Philox4x32-10 (Salmon et al., SC'11): random numbers as a pure function of key
 * and counter, so that a token's draw depends on (seed, request, position) and on nothing that ran
 * before or beside it. */
#ifndef EW_SAMPLE_PHILOX_H
#define EW_SAMPLE_PHILOX_H

#include <stdint.h>

static inline void ew_philox4x32(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4])
{
    uint32_t c[4] = { counter[0], counter[1], counter[2], counter[3] };
    uint32_t k0 = key[0], k1 = key[1];

    for (int round = 0; round < 10; round++) {
        const uint64_t p0 = (uint64_t)0xD2511F53u * c[0];
        const uint64_t p1 = (uint64_t)0xCD9E8D57u * c[2];
        const uint32_t n0 = (uint32_t)(p1 >> 32) ^ c[1] ^ k0;
        const uint32_t n2 = (uint32_t)(p0 >> 32) ^ c[3] ^ k1;

        c[0] = n0;
        c[1] = (uint32_t)p1;
        c[2] = n2;
        c[3] = (uint32_t)p0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    for (int i = 0; i < 4; i++)
        out[i] = c[i];
}

/* Uniform in [0, 1), 53 bits. */
static inline double ew_philox_uniform(uint64_t seed, uint32_t request, uint64_t position)
{
    const uint32_t counter[4] = { (uint32_t)position, (uint32_t)(position >> 32), request,
                                  0x45574B31u };
    const uint32_t key[2] = { (uint32_t)seed, (uint32_t)(seed >> 32) };
    uint32_t r[4];

    ew_philox4x32(counter, key, r);
    return (double)(((uint64_t)r[0] << 32 | r[1]) >> 11) * 0x1p-53;
}

#endif
