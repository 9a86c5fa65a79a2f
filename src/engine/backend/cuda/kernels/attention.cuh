// Attention of single tokens over their keys and values, in parts of SPLIT positions that are joined afterwards.
//
// How the positions are split depends on the context alone, so a row's bits do not depend on its neighbours. Softmax goes along
// with the reading: each part keeps its largest score, the sum of its weights and the weighted sum of its values.

#pragma once

#include "rows.cuh"

constexpr int SPLIT = 256;
// Eight lanes read a position, so a warp reads four at once and a block the sixteen that lie together.
constexpr int LANES_PER_POSITION = 8;
constexpr int ATTENTION_THREADS = BLOCK_POSITIONS * LANES_PER_POSITION;

// `n` numbers from an address that is aligned to them, as singles.
template <int n>
DEVICE void load_numbers(const bf16* from, float (&to)[n]) {
    static_assert(n % 4 == 0);
    UNROLL_ALL
    for (int i = 0; i < n; i += n % 8 == 0 ? 8 : 4) {
        uint4 eight{0, 0, 0, 0};
        if (n % 8 == 0) {
            eight = *reinterpret_cast<const uint4*>(from + i);
        } else {
            const uint2 four = *reinterpret_cast<const uint2*>(from + i);
            eight.x = four.x;
            eight.y = four.y;
        }
        const unsigned pairs[4] = {eight.x, eight.y, eight.z, eight.w};
        UNROLL_ALL
        for (int j = 0; j < (n % 8 == 0 ? 4 : 2); ++j) {
            to[i + 2 * j] = first_of(pairs[j]);
            to[i + 2 * j + 1] = second_of(pairs[j]);
        }
    }
}

// The same from integers of eight bits.
template <int n>
DEVICE void load_numbers(const signed char* from, float (&to)[n]) {
    UNROLL_ALL
    for (int i = 0; i < n; i += 4) {
        unsigned pairs[2];
        bytes_to_pairs(*reinterpret_cast<const unsigned*>(from + i), pairs[0], pairs[1]);
        UNROLL_ALL
        for (int j = 0; j < 2; ++j) {
            to[i + 2 * j] = first_of(pairs[j]);
            to[i + 2 * j + 1] = second_of(pairs[j]);
        }
    }
}

// One part: `parts` of shape (row, head, split, head_dim + 2), of which the last two numbers are the largest score and the sum
// of weights. One block a split, head and row.
template <int head_dim, class Cells>
DEVICE void attend_part(const bf16* queries, const int* positions, const int* tables, const Cells& keys, const Cells& values,
                        float* parts, int n_heads, int n_kv_heads, int table_width, float scale) {
    constexpr int each = head_dim / LANES_PER_POSITION;
    const int split = blockIdx.x, head = blockIdx.y, row = blockIdx.z;
    const int position = positions[row], begin = split * SPLIT;
    if (position < begin) return;
    const int end = position + 1 < begin + SPLIT ? position + 1 : begin + SPLIT;
    const int group = threadIdx.x / LANES_PER_POSITION, lane = threadIdx.x % LANES_PER_POSITION;
    const int kv_head = head / (n_heads / n_kv_heads);
    const CacheShape shape{n_kv_heads, head_dim, table_width};
    const int* table = tables + static_cast<size_t>(row) * table_width;

    float query[each], sum[each];
    load_numbers(queries + (static_cast<size_t>(row) * n_heads + head) * head_dim + lane * each, query);
    UNROLL_ALL
    for (int i = 0; i < each; ++i) sum[i] = 0.0f;
    float largest = -INFINITY, weights = 0.0f;
    for (int first = begin; first < end; first += BLOCK_POSITIONS) {
        const int at = first + group;
        // Lanes beyond the end compute with the last position, so that all take part in the exchange.
        const size_t from = cache_row(table, at < end ? at : end - 1, kv_head, shape);
        float key[each], value[each];
        load_numbers(keys.numbers + from * head_dim + lane * each, key);
        load_numbers(values.numbers + from * head_dim + lane * each, value);
        float score = 0.0f;
        UNROLL_ALL
        for (int i = 0; i < each; ++i) score += query[i] * key[i];
        UNROLL_ALL
        for (int mask = LANES_PER_POSITION / 2; mask > 0; mask /= 2) score += shuffle_xor(score, mask);
        score *= scale * keys.scale(from);
        if (at >= end) continue;
        const float before = largest;
        largest = score > largest ? score : largest;
        const float shrink = exponential(before - largest), weight = exponential(score - largest);
        weights = weights * shrink + weight;
        UNROLL_ALL
        for (int i = 0; i < each; ++i) sum[i] = sum[i] * shrink + weight * values.scale(from) * value[i];
    }

    // The sixteen groups' shares.
    float* shares = reinterpret_cast<float*>(shared_memory());
    float* mine = shares + group * (head_dim + 2);
    UNROLL_ALL
    for (int i = 0; i < each; ++i) mine[lane * each + i] = sum[i];
    if (lane == 0) {
        mine[head_dim] = largest;
        mine[head_dim + 1] = weights;
    }
    barrier();
    float* part = parts + ((static_cast<size_t>(row) * n_heads + head) * gridDim.x + split) * (head_dim + 2);
    float all = -INFINITY;
    for (int i = 0; i < BLOCK_POSITIONS; ++i) {
        const float one = shares[i * (head_dim + 2) + head_dim];
        all = one > all ? one : all;
    }
    for (int i = threadIdx.x; i < head_dim + 1; i += ATTENTION_THREADS) {
        float total = 0.0f;
        for (int j = 0; j < BLOCK_POSITIONS; ++j) {
            const float* share = shares + j * (head_dim + 2);
            // A group without a position has minus infinity, which weighs nothing.
            total += exponential(share[head_dim] - all) * share[i == head_dim ? head_dim + 1 : i];
        }
        part[i == head_dim ? head_dim + 1 : i] = total;
    }
    if (threadIdx.x == 0) part[head_dim] = all;
}

#define ATTEND(name, Cells, head_dim)                                                                                 \
    KERNEL(name##_##head_dim, ATTENTION_THREADS, 8)                                                                   \
    (const bf16* queries, const int* positions, const int* tables, const Cells::Number* keys, const Cells::Number* values, \
     [[maybe_unused]] const unsigned short* key_scales, [[maybe_unused]] const unsigned short* value_scales, float* parts, \
     int n_heads, int n_kv_heads, int table_width, float scale) {                                                     \
        attend_part<head_dim>(queries, positions, tables, KEYS_##Cells, VALUES_##Cells, parts, n_heads, n_kv_heads,   \
                              table_width, scale);                                                                    \
    }
ATTEND(attend_bf16, Halves, 32)
ATTEND(attend_bf16, Halves, 64)
ATTEND(attend_bf16, Halves, 128)
ATTEND(attend_int8, Integers, 32)
ATTEND(attend_int8, Integers, 64)
ATTEND(attend_int8, Integers, 128)
#undef ATTEND

// Joins the parts: out of shape (row, head, head_dim). One block a head and row, one thread a number.
KERNEL(join, 128, 1)(const float* parts, const int* positions, bf16* out, int n_splits, int head_dim) {
    const int head = blockIdx.x, row = blockIdx.y, n_heads = gridDim.x;
    const int position = positions[row];
    if (position < 0) return;
    const int n = position / SPLIT + 1;
    const size_t index = static_cast<size_t>(row) * n_heads + head;
    const float* part = parts + index * n_splits * (head_dim + 2);
    float largest = -INFINITY;
    for (int i = 0; i < n; ++i) {
        const float one = part[i * (head_dim + 2) + head_dim];
        largest = one > largest ? one : largest;
    }
    for (int at = threadIdx.x; at < head_dim; at += blockDim.x) {
        float sum = 0.0f, weights = 0.0f;
        for (int i = 0; i < n; ++i) {
            const float* one = part + i * (head_dim + 2);
            const float share = exponential(one[head_dim] - largest);
            sum += share * one[at];
            weights += share * one[head_dim + 1];
        }
        out[index * head_dim + at] = narrow(sum / weights);
    }
}

// The same without parts and without lanes that share a position: what the above is checked against, and what stands in for it where
// it is wrong. One block a head and row, one thread a number.
template <class Cells>
DEVICE void attend_plainly(const bf16* queries, const int* positions, const int* tables, const Cells& keys,
                           const Cells& values, bf16* out, int n_heads, int n_kv_heads, int head_dim, int table_width,
                           float scale) {
    const int head = blockIdx.x, row = blockIdx.y, at = threadIdx.x;
    const int position = positions[row];
    if (position < 0 || at >= head_dim) return;
    const CacheShape shape{n_kv_heads, head_dim, table_width};
    const int* table = tables + static_cast<size_t>(row) * table_width;
    const size_t first = (static_cast<size_t>(row) * n_heads + head) * head_dim;
    float largest = -INFINITY, weights = 0.0f, sum = 0.0f;
    for (int i = 0; i <= position; ++i) {
        const size_t from = cache_row(table, i, head / (n_heads / n_kv_heads), shape);
        float score = 0.0f;
        for (int j = 0; j < head_dim; ++j) score += widen(queries[first + j]) * widen(keys.numbers[from * head_dim + j]);
        score *= scale * keys.scale(from);
        const float before = largest;
        largest = score > largest ? score : largest;
        const float shrink = exponential(before - largest), weight = exponential(score - largest);
        weights = weights * shrink + weight;
        sum = sum * shrink + weight * values.scale(from) * widen(values.numbers[from * head_dim + at]);
    }
    out[first + at] = narrow(sum / weights);
}

#define ATTEND_PLAINLY(name, Cells)                                                                                   \
    KERNEL(name, 128, 1)                                                                                              \
    (const bf16* queries, const int* positions, const int* tables, const Cells::Number* keys, const Cells::Number* values, \
     [[maybe_unused]] const unsigned short* key_scales, [[maybe_unused]] const unsigned short* value_scales, bf16* out, \
     int n_heads, int n_kv_heads, int head_dim, int table_width, float scale) {                                       \
        attend_plainly(queries, positions, tables, KEYS_##Cells, VALUES_##Cells, out, n_heads, n_kv_heads, head_dim,  \
                       table_width, scale);                                                                           \
    }
ATTEND_PLAINLY(attend_plainly_bf16, Halves)
ATTEND_PLAINLY(attend_plainly_int8, Integers)
#undef ATTEND_PLAINLY
