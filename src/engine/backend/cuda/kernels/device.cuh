// What kernels need of the device: on a card CUDA's own, elsewhere host.h's.
//
// Everything that is not plain C++ is here, so that the kernels themselves are the same source on both.

#pragma once

#ifdef __CUDACC__

#define DEVICE __device__ __forceinline__
// A kernel by its name, whose blocks have at most so many threads, of which at least so many blocks fit a multiprocessor.
#define KERNEL(name, threads, blocks) extern "C" __global__ void __launch_bounds__(threads, blocks) name
#define PRAGMA(text) _Pragma(#text)
#define UNROLL(n) PRAGMA(unroll (n))
#define UNROLL_ALL _Pragma("unroll")

using Half2 = unsigned;

DEVICE void barrier() { __syncthreads(); }

DEVICE float shuffle_xor(float value, int mask) { return __shfl_xor_sync(0xffffffffu, value, mask); }

DEVICE float as_float(unsigned bits) { return __uint_as_float(bits); }

DEVICE unsigned as_bits(float value) { return __float_as_uint(value); }

// Byte by byte from eight, those of `low` first; each nibble of `which` names one.
DEVICE unsigned bytes(unsigned low, unsigned high, unsigned which) { return __byte_perm(low, high, which); }

// Two numbers rounded to bf16, the first in the lower half.
DEVICE unsigned pack(float first, float second) {
    unsigned pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(second), "f"(first));
    return pair;
}

// An f16 as a single.
DEVICE float widen_f16(unsigned short bits) {
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
    return value;
}

// A single rounded to f16.
DEVICE unsigned short narrow_f16(float value) {
    unsigned short bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
    return bits;
}

// 16 bytes that nobody else will read, past the first cache.
DEVICE uint4 load_once(const void* from) {
    uint4 value;
    asm("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
        : "=r"(value.x), "=r"(value.y), "=r"(value.z), "=r"(value.w)
        : "l"(from));
    return value;
}

// sums += a b for a of 16 rows and 16 columns and b of 16 rows and 8 columns, in the places that m16n8k16 gives a lane.
DEVICE void multiply_add(float (&sums)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

extern __shared__ __align__(16) unsigned char shared_bytes[];

DEVICE unsigned char* shared_memory() { return shared_bytes; }

DEVICE float exponential(float x) { return __expf(x); }

DEVICE float inverse_root(float x) { return rsqrtf(x); }

DEVICE double exponential_of_double(double x) { return exp(x); }

DEVICE double logarithm_of_double(double x) { return log(x); }

// What was there before something was added, all at once.
DEVICE unsigned atomic_add(unsigned* to, unsigned value) { return atomicAdd(to, value); }

#else

#include "host.h"

#define DEVICE inline
#define KERNEL(name, threads, blocks) static void name
#define UNROLL(n)
#define UNROLL_ALL

#define threadIdx (host::current.running->thread)
#define blockIdx (host::current.index)
#define blockDim (host::current.block)
#define gridDim (host::current.grid)

struct uint2 {
    unsigned x, y;
};
struct uint4 {
    unsigned x, y, z, w;
};

inline void barrier() { host::barrier(); }

inline float shuffle_xor(float value, int mask) {
    const unsigned lane = threadIdx.x % host::WARP;
    return host::exchange(value)[lane ^ static_cast<unsigned>(mask)];
}

inline float as_float(unsigned bits) {
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

inline unsigned as_bits(float value) {
    unsigned bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}

inline unsigned bytes(unsigned low, unsigned high, unsigned which) {
    const uint64_t all = uint64_t{high} << 32 | low;
    unsigned result = 0;
    for (int i = 0; i < 4; ++i) result |= static_cast<unsigned>(all >> (which >> 4 * i & 7) * 8 & 0xff) << 8 * i;
    return result;
}

inline unsigned narrow_bf16(float value) {
    const unsigned bits = as_bits(value);
    if (value != value) return 0x7fff;
    return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

inline unsigned pack(float first, float second) { return narrow_bf16(second) << 16 | narrow_bf16(first); }

inline float widen_f16(unsigned short bits) {
    const unsigned exponent = bits >> 10 & 31, fraction = bits & 1023;
    const float size = exponent == 0    ? std::ldexp(static_cast<float>(fraction), -24)
                       : exponent == 31 ? (fraction ? NAN : INFINITY)
                                        : std::ldexp(static_cast<float>(1024 + fraction), static_cast<int>(exponent) - 25);
    return bits & 0x8000 ? -size : size;
}

inline unsigned short narrow_f16(float value) {
    const unsigned sign = as_bits(value) >> 16 & 0x8000u;
    const float size = std::fabs(value);
    if (value != value) return 0x7fff;
    // Halfway between the largest f16 and what would come next.
    if (size >= 65520.0f) return static_cast<unsigned short>(sign | 0x7c00u);
    int exponent = 0;
    std::frexp(size, &exponent);
    // In units of the last place, of which the smallest numbers all have the same.
    const int place = exponent - 11 > -24 ? exponent - 11 : -24;
    const float units = std::nearbyint(std::ldexp(size, -place));
    const unsigned whole = static_cast<unsigned>(units);
    // 1,024 of the 1,024 to 2,048 units are the exponent's, and of the smallest numbers none.
    return static_cast<unsigned short>(sign | (static_cast<unsigned>(place + 24) * 1024 + whole));
}

inline uint4 load_once(const void* from) {
    if (reinterpret_cast<uintptr_t>(from) % 16 != 0) host::fail("16 bytes that are not aligned");
    uint4 value;
    std::memcpy(&value, from, sizeof value);
    return value;
}

inline void multiply_add(float (&sums)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    struct Fragments {
        unsigned a[4], b[2];
    } mine;
    std::memcpy(mine.a, a, sizeof mine.a);
    std::memcpy(mine.b, b, sizeof mine.b);
    const Fragments* all = host::exchange(mine);
    const unsigned lane = threadIdx.x % host::WARP;
    const auto half = [](unsigned pair, unsigned which) { return as_float(which ? pair & 0xffff0000u : pair << 16); };
    for (unsigned i = 0; i < 4; ++i) {
        const unsigned row = lane / 4 + (i >= 2 ? 8 : 0), column = lane % 4 * 2 + i % 2;
        float sum = sums[i];
        for (unsigned k = 0; k < 16; ++k) {
            const unsigned upper = k >= 8 ? 1 : 0, within = k % 8;
            const float left = half(all[row % 8 * 4 + within / 2].a[(row >= 8 ? 1 : 0) + 2 * upper], within % 2);
            sum += left * half(all[column * 4 + within / 2].b[upper], within % 2);
        }
        sums[i] = sum;
    }
}

inline unsigned char* shared_memory() { return host::current.shared.data(); }

inline float exponential(float x) { return std::exp(x); }

inline float inverse_root(float x) { return 1.0f / std::sqrt(x); }

inline double exponential_of_double(double x) { return std::exp(x); }

inline double logarithm_of_double(double x) { return std::log(x); }

// Fibers change places nowhere else, so nothing comes between.
inline unsigned atomic_add(unsigned* to, unsigned value) {
    const unsigned before = *to;
    *to += value;
    return before;
}

#endif

constexpr int WARP_LANES = 32;

// A number of sixteen bits: the upper half of a single.
struct bf16 {
    unsigned short bits;
};

DEVICE float widen(bf16 value) { return as_float(static_cast<unsigned>(value.bits) << 16); }

DEVICE float widen(signed char value) { return static_cast<float>(value); }

DEVICE bf16 narrow(float value) { return bf16{static_cast<unsigned short>(pack(value, 0.0f) & 0xffff)}; }

// The two numbers of a pair.
DEVICE float first_of(unsigned pair) { return as_float(pair << 16); }

DEVICE float second_of(unsigned pair) { return as_float(pair & 0xffff0000u); }

// The sum over a warp's lanes, the same in each.
DEVICE float warp_sum(float value) {
    UNROLL_ALL
    for (int mask = WARP_LANES / 2; mask > 0; mask /= 2) value += shuffle_xor(value, mask);
    return value;
}

// The largest over a warp's lanes, the same in each.
DEVICE float warp_largest(float value) {
    UNROLL_ALL
    for (int mask = WARP_LANES / 2; mask > 0; mask /= 2) {
        const float other = shuffle_xor(value, mask);
        value = other > value ? other : value;
    }
    return value;
}

// Four integers of eight bits as two pairs of bf16, exactly: with another sign bit a byte is the last one of 2^23 + 128 + itself.
DEVICE void bytes_to_pairs(unsigned quants, unsigned& first, unsigned& second) {
    const unsigned biased = quants ^ 0x80808080u;
    float four[4];
    UNROLL_ALL
    for (int i = 0; i < 4; ++i) four[i] = as_float(bytes(biased, 0x4b000000u, 0x7440u | i)) - 8388736.0f;
    first = pack(four[0], four[1]);
    second = pack(four[2], four[3]);
}

// The sum over the lanes before this one.
DEVICE unsigned warp_sum_before(unsigned value) {
    const int lane = threadIdx.x % WARP_LANES;
    unsigned sum = 0;
    UNROLL_ALL
    for (int mask = 1; mask < WARP_LANES; mask *= 2) {
        // Of pairs of groups of `mask` lanes the second one adds what the first has in all.
        const unsigned other = as_bits(shuffle_xor(as_float(value), mask));
        if (lane & mask) sum += other;
        value += other;
    }
    return sum;
}
