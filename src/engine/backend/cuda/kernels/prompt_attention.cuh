// Attention of many tokens of a sequence at once, by the tensor cores, the softmax along with the reading.
//
// A block takes up to 64 consecutive tokens of one head, a warp sixteen of them. Keys and values are read from where they lie, 32
// positions at a time, by all warps of the block at about the same time. Nothing is shared but the caches.
//
// Which of a head's numbers a lane reads is free as long as those who meet agree, so every read is of 16 bytes (of 8 with heads of
// 32): a lane's numbers of a query or key lie side by side, and value number `each * n + j` is column n of the j-th tile.

#pragma once

#include "attention.cuh"

constexpr int TILE_QUERIES = 64;
constexpr int QUERY_WARPS = TILE_QUERIES / 16;
// Positions that are read at a time.
constexpr int KEYS_AT_ONCE = 32;

// Sixteen bits of each of two words: those at `upper` or below.
DEVICE unsigned pair_of(unsigned first, unsigned second, bool upper) {
    return bytes(first, second, upper ? 0x7632u : 0x5410u);
}

// 2 n numbers side by side, as pairs; their address is aligned to them.
template <int n>
DEVICE void load_pairs(const bf16* from, unsigned (&to)[n]) {
    static_assert(n == 2 || n == 4);
    if (n == 4) {
        const uint4 eight = *reinterpret_cast<const uint4*>(from);
        const unsigned words[4] = {eight.x, eight.y, eight.z, eight.w};
        UNROLL_ALL
        for (int i = 0; i < n; ++i) to[i] = words[i];
    } else {
        const uint2 four = *reinterpret_cast<const uint2*>(from);
        to[0] = four.x;
        to[1] = four.y;
    }
}

template <int n>
DEVICE void load_pairs(const signed char* from, unsigned (&to)[n]) {
    UNROLL_ALL
    for (int i = 0; i < n; i += 2) bytes_to_pairs(*reinterpret_cast<const unsigned*>(from + 2 * i), to[i], to[i + 1]);
}

// `tiles` of shape (tile, 2): the first row and how many there are; rows of a tile have consecutive positions, and the last
// one's table has the blocks of all. queries and out of shape (row, head, head_dim). One block a head and tile.
template <int head_dim, class Cells>
DEVICE void attend_tile(const bf16* queries, const int* positions, const int* tables, const int* tiles, const Cells& keys,
                        const Cells& values, bf16* out, int n_heads, int n_kv_heads, int table_width, float scale) {
    constexpr int steps = head_dim / 32;
    // Numbers of a value that a lane reads at once, and how often it does.
    constexpr int each = head_dim >= 64 ? 8 : 4, reads = head_dim / (8 * each);
    const int head = blockIdx.x, first_row = tiles[2 * blockIdx.y], n_rows = tiles[2 * blockIdx.y + 1];
    const int warp = threadIdx.x / WARP_LANES, lane = threadIdx.x % WARP_LANES;
    const int first = positions[first_row];
    const int* table = tables + static_cast<size_t>(first_row + n_rows - 1) * table_width;
    const int kv_head = head / (n_heads / n_kv_heads);
    const CacheShape shape{n_kv_heads, head_dim, table_width};
    // This lane's two rows of the tile.
    const int rows[2] = {warp * 16 + lane / 4, warp * 16 + lane / 4 + 8};
    if (warp * 16 >= n_rows) return;

    unsigned query[steps][2][4];
    UNROLL_ALL
    for (int step = 0; step < steps; ++step) {
        uint4 read[2] = {{0, 0, 0, 0}, {0, 0, 0, 0}};
        UNROLL_ALL
        for (int i = 0; i < 2; ++i) {
            if (rows[i] >= n_rows) continue;
            const bf16* from = queries + (static_cast<size_t>(first_row + rows[i]) * n_heads + head) * head_dim;
            read[i] = *reinterpret_cast<const uint4*>(from + step * 32 + lane % 4 * 8);
        }
        const unsigned halves[2][4] = {{read[0].x, read[1].x, read[0].y, read[1].y},
                                       {read[0].z, read[1].z, read[0].w, read[1].w}};
        UNROLL_ALL
        for (int i = 0; i < 8; ++i) query[step][i / 4][i % 4] = halves[i / 4][i % 4];
    }

    float sums[reads][each][4] = {};
    float largest[2] = {-INFINITY, -INFINITY}, weights[2] = {0.0f, 0.0f};
    // What the warp's last token sees.
    const int last_row = warp * 16 + 15 < n_rows ? warp * 16 + 15 : n_rows - 1;
    const int end = first + last_row + 1;
    for (int begin = 0; begin < end; begin += KEYS_AT_ONCE) {
        float scores[KEYS_AT_ONCE / 8][4] = {};
        UNROLL_ALL
        for (int tile = 0; tile < KEYS_AT_ONCE / 8; ++tile) {
            const int at = begin + tile * 8 + lane / 4;
            // Beyond the end the last position is read, and masked below.
            const auto* from =
                keys.numbers + cache_row(table, at < end ? at : end - 1, kv_head, shape) * head_dim + lane % 4 * 8;
            UNROLL_ALL
            for (int step = 0; step < steps; ++step) {
                unsigned pairs[4];
                load_pairs(from + step * 32, pairs);
                const unsigned lower[2] = {pairs[0], pairs[1]}, upper[2] = {pairs[2], pairs[3]};
                multiply_add(scores[tile], query[step][0], lower);
                multiply_add(scores[tile], query[step][1], upper);
            }
        }
        // This lane's scores are of these rows of the cache.
        float value_scales[KEYS_AT_ONCE / 8][2];
        UNROLL_ALL
        for (int tile = 0; tile < KEYS_AT_ONCE / 8; ++tile) {
            UNROLL_ALL
            for (int j = 0; j < 2; ++j) {
                const int at = begin + tile * 8 + lane % 4 * 2 + j;
                const size_t from = cache_row(table, at < end ? at : end - 1, kv_head, shape);
                const float key_scale = scale * keys.scale(from);
                scores[tile][j] *= key_scale;
                scores[tile][2 + j] *= key_scale;
                value_scales[tile][j] = values.scale(from);
            }
        }
        UNROLL_ALL
        for (int i = 0; i < 2; ++i) {
            const int seen = first + rows[i];
            float most = largest[i];
            UNROLL_ALL
            for (int tile = 0; tile < KEYS_AT_ONCE / 8; ++tile) {
                UNROLL_ALL
                for (int j = 0; j < 2; ++j) {
                    float& score = scores[tile][2 * i + j];
                    score = begin + tile * 8 + lane % 4 * 2 + j <= seen ? score : -INFINITY;
                    most = score > most ? score : most;
                }
            }
            UNROLL_ALL
            for (int mask = 1; mask < 4; mask *= 2) {
                const float other = shuffle_xor(most, mask);
                most = other > most ? other : most;
            }
            const float shrink = exponential(largest[i] - most);
            largest[i] = most;
            weights[i] *= shrink;
            UNROLL_ALL
            for (int tile = 0; tile < KEYS_AT_ONCE / 8; ++tile) {
                UNROLL_ALL
                for (int j = 0; j < 2; ++j) {
                    float& score = scores[tile][2 * i + j];
                    score = exponential(score - most);
                    weights[i] += score;
                    score *= value_scales[tile][j];
                }
            }
            UNROLL_ALL
            for (int part = 0; part < reads; ++part) {
                UNROLL_ALL
                for (int tile = 0; tile < each; ++tile) {
                    sums[part][tile][2 * i] *= shrink;
                    sums[part][tile][2 * i + 1] *= shrink;
                }
            }
        }
        UNROLL_ALL
        for (int block = 0; block < KEYS_AT_ONCE / BLOCK_POSITIONS; ++block) {
            const float(&left)[4] = scores[2 * block];
            const float(&right)[4] = scores[2 * block + 1];
            const unsigned shares[4] = {pack(left[0], left[1]), pack(left[2], left[3]), pack(right[0], right[1]),
                                        pack(right[2], right[3])};
            const typename Cells::Number* from[4];
            UNROLL_ALL
            for (int i = 0; i < 4; ++i) {
                const int at = begin + block * BLOCK_POSITIONS + lane % 4 * 2 + i / 2 * 8 + i % 2;
                from[i] =
                    values.numbers + cache_row(table, at < end ? at : end - 1, kv_head, shape) * head_dim + lane / 4 * each;
            }
            UNROLL_ALL
            for (int part = 0; part < reads; ++part) {
                unsigned numbers[4][each / 2];
                UNROLL_ALL
                for (int i = 0; i < 4; ++i) load_pairs(from[i] + part * 8 * each, numbers[i]);
                UNROLL_ALL
                for (int tile = 0; tile < each; ++tile) {
                    const unsigned b[2] = {pair_of(numbers[0][tile / 2], numbers[1][tile / 2], tile % 2),
                                           pair_of(numbers[2][tile / 2], numbers[3][tile / 2], tile % 2)};
                    multiply_add(sums[part][tile], shares, b);
                }
            }
        }
    }

    UNROLL_ALL
    for (int i = 0; i < 2; ++i) {
        float all = weights[i];
        UNROLL_ALL
        for (int mask = 1; mask < 4; mask *= 2) all += shuffle_xor(all, mask);
        if (rows[i] >= n_rows) continue;
        bf16* to = out + (static_cast<size_t>(first_row + rows[i]) * n_heads + head) * head_dim + lane % 4 * 2 * each;
        UNROLL_ALL
        for (int part = 0; part < reads; ++part) {
            UNROLL_ALL
            for (int j = 0; j < 2; ++j) {
                UNROLL_ALL
                for (int tile = 0; tile < each; tile += 2) {
                    *reinterpret_cast<unsigned*>(to + part * 8 * each + j * each + tile) =
                        pack(sums[part][tile][2 * i + j] / all, sums[part][tile + 1][2 * i + j] / all);
                }
            }
        }
    }
}

#define ATTEND_TILE(name, Cells, head_dim)                                                                             \
    KERNEL(name##_##head_dim, QUERY_WARPS * WARP_LANES, 2)                                                             \
    (const bf16* queries, const int* positions, const int* tables, const int* tiles, const Cells::Number* keys,        \
     const Cells::Number* values, [[maybe_unused]] const unsigned short* key_scales,                                   \
     [[maybe_unused]] const unsigned short* value_scales, bf16* out, int n_heads, int n_kv_heads, int table_width,     \
     float scale) {                                                                                                    \
        attend_tile<head_dim>(queries, positions, tables, tiles, KEYS_##Cells, VALUES_##Cells, out, n_heads, n_kv_heads, \
                              table_width, scale);                                                                     \
    }
ATTEND_TILE(attend_tile_bf16, Halves, 32)
ATTEND_TILE(attend_tile_bf16, Halves, 64)
ATTEND_TILE(attend_tile_bf16, Halves, 128)
ATTEND_TILE(attend_tile_int8, Integers, 32)
ATTEND_TILE(attend_tile_int8, Integers, 64)
ATTEND_TILE(attend_tile_int8, Integers, 128)
#undef ATTEND_TILE
