// What is done to single rows: embedding, norm, rotary positions.
//
// The residual stream is in singles, what products read in bf16. A row whose position is negative fills a batch up and is left
// alone.

#pragma once

#include "device.cuh"

// The rows of the embedding table that the tokens name: x of shape (row, hidden). One block a row.
KERNEL(embed, 256, 1)(const unsigned* ids, const int* positions, const bf16* table, float* x, int hidden) {
    const int row = blockIdx.x;
    if (positions[row] < 0) return;
    const bf16* from = table + static_cast<size_t>(ids[row]) * hidden;
    for (int i = threadIdx.x; i < hidden; i += blockDim.x) x[static_cast<size_t>(row) * hidden + i] = widen(from[i]);
}

DEVICE float silu(float x) { return x / (1.0f + exponential(-x)); }

// RMSNorm: x / sqrt(mean(x²) + epsilon) * weight, x and out of shape (row, hidden). One block a row; row `rows[i]` of x, where
// that is given, becomes row i of out.
KERNEL(rms_norm, 256, 1)(const float* x, const float* weight, const int* rows, bf16* out, int hidden, float epsilon) {
    const int row = blockIdx.x, from = rows ? rows[row] : row;
    const int warp = threadIdx.x / WARP_LANES, n_warps = blockDim.x / WARP_LANES;
    float* sums = reinterpret_cast<float*>(shared_memory());
    x += static_cast<size_t>(from) * hidden;
    out += static_cast<size_t>(row) * hidden;
    float sum = 0.0f;
    for (int i = threadIdx.x; i < hidden; i += blockDim.x) sum += x[i] * x[i];
    sum = warp_sum(sum);
    if (threadIdx.x % WARP_LANES == 0) sums[warp] = sum;
    barrier();
    sum = 0.0f;
    for (int i = 0; i < n_warps; ++i) sum += sums[i];
    const float scale = inverse_root(sum / static_cast<float>(hidden) + epsilon);
    for (int i = threadIdx.x; i < hidden; i += blockDim.x) out[i] = narrow(weight[i] * (x[i] * scale));
}

// Where a token's keys and values are: blocks of 16 positions, in each the heads, in each the positions.
struct CacheShape {
    int n_kv_heads, head_dim, table_width;
};

constexpr int BLOCK_POSITIONS = 16;

// Keys or values of a layer in bf16.
struct Halves {
    using Number = bf16;
    bf16* numbers;

    DEVICE float scale(size_t) const { return 1.0f; }
};

// Keys or values of a layer as integers of eight bits, with an f16 scale for each head's at a position.
struct Integers {
    using Number = signed char;
    signed char* numbers;
    unsigned short* scales;

    DEVICE float scale(size_t row) const { return widen_f16(scales[row]); }
};

DEVICE size_t cache_row(const int* table, int position, int kv_head, CacheShape shape) {
    const size_t block = table[position / BLOCK_POSITIONS];
    return (block * shape.n_kv_heads + kv_head) * BLOCK_POSITIONS + position % BLOCK_POSITIONS;
}

DEVICE float fabs_of(float x) { return x < 0.0f ? -x : x; }

DEVICE signed char rounded_to_byte(float x, float unit) {
    const float quotient = unit > 0.0f ? x / unit : 0.0f;
    const float bounded = quotient > 127.0f ? 127.0f : quotient < -127.0f ? -127.0f : quotient;
    // To the nearest, halves to even: the last bits of 3 * 2^22 + x are x's.
    return static_cast<signed char>(static_cast<int>(as_bits(bounded + 12582912.0f) << 9) >> 9);
}

// Two numbers of each of a block's threads below `half`, `half` apart, into a row of keys or values.
DEVICE void keep(const Halves& to, size_t row, int half, float first, float second) {
    const int at = threadIdx.x;
    if (at >= half) return;
    to.numbers[row * 2 * half + at] = narrow(first);
    to.numbers[row * 2 * half + half + at] = narrow(second);
}

DEVICE void keep(const Integers& to, size_t row, int half, float first, float second) {
    const int at = threadIdx.x, warp = at / WARP_LANES, n_warps = blockDim.x / WARP_LANES;
    float* largest = reinterpret_cast<float*>(shared_memory());
    const float mine = at < half ? (fabs_of(first) > fabs_of(second) ? fabs_of(first) : fabs_of(second)) : 0.0f;
    const float of_warp = warp_largest(mine);
    if (at % WARP_LANES == 0) largest[warp] = of_warp;
    barrier();
    float all = 0.0f;
    for (int i = 0; i < n_warps; ++i) all = largest[i] > all ? largest[i] : all;
    const unsigned short scale = narrow_f16(all / 127.0f);
    const float unit = widen_f16(scale);
    if (at == 0) to.scales[row] = scale;
    if (at >= half) return;
    to.numbers[row * 2 * half + at] = rounded_to_byte(first, unit);
    to.numbers[row * 2 * half + half + at] = rounded_to_byte(second, unit);
}

// Turns queries and keys by their positions (NeoX style), and puts keys and values into the cache.
//
// qkv of shape (row, queries then keys then values), cosines and sines of shape (position, head_dim / 2), tables of shape
// (row, table_width), queries of shape (row, head, head_dim). One block a row and head: first the heads of queries, then those of
// keys, then those of values; a head has at most twice as many numbers as a block has threads.
template <class Cells>
DEVICE void rotate_and_append(const float* qkv, const int* positions, const int* tables, const float* cosines,
                              const float* sines, bf16* queries, const Cells& keys, const Cells& values, int n_heads,
                              int n_kv_heads, int head_dim, int table_width) {
    const int row = blockIdx.y, head = blockIdx.x, half = head_dim / 2, at = threadIdx.x;
    const int position = positions[row];
    if (position < 0) return;
    const int n_all = n_heads + 2 * n_kv_heads;
    const float* from = qkv + (static_cast<size_t>(row) * n_all + head) * head_dim;
    const bool turned = head < n_heads + n_kv_heads;
    float first = 0.0f, second = 0.0f;
    if (at < half) {
        const float a = from[at], b = from[at + half];
        const float cosine = turned ? cosines[static_cast<size_t>(position) * half + at] : 1.0f;
        const float sine = turned ? sines[static_cast<size_t>(position) * half + at] : 0.0f;
        first = a * cosine - b * sine;
        second = b * cosine + a * sine;
    }
    if (head < n_heads) {
        keep(Halves{queries}, static_cast<size_t>(row) * n_heads + head, half, first, second);
        return;
    }
    const CacheShape shape{n_kv_heads, head_dim, table_width};
    const int* table = tables + static_cast<size_t>(row) * table_width;
    const size_t to = cache_row(table, position, (head - n_heads) % n_kv_heads, shape);
    if (turned) {
        keep(keys, to, half, first, second);
    } else {
        keep(values, to, half, first, second);
    }
}

#define ROTATE(name, Cells)                                                                                           \
    KERNEL(name, 128, 1)                                                                                              \
    (const float* qkv, const int* positions, const int* tables, const float* cosines, const float* sines, bf16* queries, \
     Cells::Number* keys, Cells::Number* values, [[maybe_unused]] unsigned short* key_scales,                         \
     [[maybe_unused]] unsigned short* value_scales, int n_heads, int n_kv_heads, int head_dim, int table_width) {     \
        rotate_and_append(qkv, positions, tables, cosines, sines, queries, KEYS_##Cells, VALUES_##Cells, n_heads,     \
                          n_kv_heads, head_dim, table_width);                                                         \
    }
// Both in terms of the kernels' arguments.
#define KEYS_Halves (Halves{const_cast<bf16*>(keys)})
#define VALUES_Halves (Halves{const_cast<bf16*>(values)})
#define KEYS_Integers (Integers{const_cast<signed char*>(keys), const_cast<unsigned short*>(key_scales)})
#define VALUES_Integers (Integers{const_cast<signed char*>(values), const_cast<unsigned short*>(value_scales)})
ROTATE(rotate_and_append_bf16, Halves)
ROTATE(rotate_and_append_int8, Integers)
#undef ROTATE

// silu of the gates times what goes up: gate_up of shape (row, gates then ups), out of shape (row, ffn). As many blocks a row as
// there are 1,024 numbers in it.
KERNEL(silu_multiply, 256, 1)(const float* gate_up, bf16* out, int ffn) {
    const int row = blockIdx.y;
    const float* gates = gate_up + static_cast<size_t>(row) * 2 * ffn;
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < ffn; i += gridDim.x * blockDim.x) {
        out[static_cast<size_t>(row) * ffn + i] = narrow(silu(gates[i]) * gates[ffn + i]);
    }
}
