// Products of a few rows of activations with a matrix of weights, each weight read once.
//
// A warp takes sixteen rows of weights and up to 32 rows of activations through the tensor cores, sums in singles. The columns are
// shared out to the block's warps in one way that depends on nothing but their number, and each row of activations is a column
// of its own there: a row's bits do not depend on how many others there are.
//
// In a step along the columns a lane reads 16 bytes of weights. Which of them it reads is free as long as weights and activations
// agree: the tensor core's column 2t of the first half becomes column 8t here, and so on.

#pragma once

#include "rows.cuh"

constexpr int PRODUCT_WARPS = 8;
constexpr int PRODUCT_THREADS = PRODUCT_WARPS * WARP_LANES;
// Rows of weights of a tile, rows of activations of a tile, columns of a step.
constexpr int TILE_ROWS = 16;
constexpr int TILE_TOKENS = 8;
constexpr int STEP = 32;

// A row of activations per token, of which those beyond `n_rows` are zero.
struct Activations {
    const bf16* rows;
    int n_rows, n_in;
};

// The activations of a step as the tensor core takes them: two halves of sixteen columns. `split` says where a lane's eight
// columns are: side by side, or four in each half of the step.
template <bool split>
DEVICE void load_activations(const Activations& x, int tile, int step, unsigned (&halves)[2][2]) {
    const int lane = threadIdx.x % WARP_LANES, row = tile * TILE_TOKENS + lane / 4;
    uint4 eight{0, 0, 0, 0};
    if (row < x.n_rows) {
        const bf16* from = x.rows + static_cast<size_t>(row) * x.n_in + step * STEP;
        if (split) {
            const uint2 low = *reinterpret_cast<const uint2*>(from + lane % 4 * 4);
            const uint2 high = *reinterpret_cast<const uint2*>(from + 16 + lane % 4 * 4);
            eight = uint4{low.x, low.y, high.x, high.y};
        } else {
            eight = *reinterpret_cast<const uint4*>(from + lane % 4 * 8);
        }
    }
    halves[0][0] = eight.x;
    halves[0][1] = eight.y;
    halves[1][0] = eight.z;
    halves[1][1] = eight.w;
}

// Two numbers beside each other, rounded.
DEVICE void put_pair(bf16* to, float first, float second) { *reinterpret_cast<unsigned*>(to) = pack(first, second); }

// Weights in bf16, row-major, of whole tiles of rows.
struct DenseWeights {
    const bf16* rows;
    int n_in;

    static constexpr bool split = false;
    static constexpr int steps_at_once = 1;

    struct Read {
        uint4 upper, lower;
    };

    DEVICE Read read(int tile, int step) const {
        const int lane = threadIdx.x % WARP_LANES;
        const size_t row = static_cast<size_t>(tile) * TILE_ROWS + lane / 4;
        const bf16* from = rows + row * n_in + step * STEP + lane % 4 * 8;
        return {load_once(from), load_once(from + static_cast<size_t>(8) * n_in)};
    }

    template <int n_tiles>
    DEVICE void multiply(const Read& read, int, const unsigned (&x)[n_tiles][2][2], float (&sums)[n_tiles][4]) const {
        const unsigned a[2][4] = {{read.upper.x, read.lower.x, read.upper.y, read.lower.y},
                                  {read.upper.z, read.lower.z, read.upper.w, read.lower.w}};
        UNROLL_ALL
        for (int tile = 0; tile < n_tiles; ++tile) {
            multiply_add(sums[tile], a[0], x[tile][0]);
            multiply_add(sums[tile], a[1], x[tile][1]);
        }
    }
};

// Weights as integers of eight bits with an f16 scale for each row and `group` columns: Q8_0, and whatever else becomes that.
//
// quants: for each tile and step 512 bytes, 16 a lane: rows lane / 4 and lane / 4 + 8, each the columns 4 (lane % 4) and 16 + 4
// (lane % 4) and the three after each. scales: for each tile, step and group sixteen, one a row.
template <int group>
struct ByteWeights {
    const unsigned char* quants;
    const unsigned short* scales;
    int n_in;

    static constexpr bool split = true;
    static constexpr int steps_at_once = 1;
    static constexpr int groups = STEP / group;

    struct Read {
        uint4 quants;
        float scales[groups][2];
    };

    DEVICE Read read(int tile, int step) const {
        const int lane = threadIdx.x % WARP_LANES;
        const size_t place = static_cast<size_t>(tile) * (n_in / STEP) + step;
        Read read;
        read.quants = load_once(quants + (place * WARP_LANES + lane) * 16);
        UNROLL_ALL
        for (int i = 0; i < groups; ++i) {
            const unsigned short* from = scales + (place * groups + i) * TILE_ROWS + lane / 4;
            read.scales[i][0] = widen_f16(from[0]);
            read.scales[i][1] = widen_f16(from[8]);
        }
        return read;
    }

    // The numbers that a lane has of a step, in bf16: two rows of `out`, which begin at the step's first column.
    DEVICE static void put(const Read& read, int, bf16* const (&out)[2]) {
        const int lane = threadIdx.x % WARP_LANES;
        const unsigned quants[2][2] = {{read.quants.x, read.quants.y}, {read.quants.z, read.quants.w}};
        UNROLL_ALL
        for (int row = 0; row < 2; ++row) {
            UNROLL_ALL
            for (int half = 0; half < 2; ++half) {
                unsigned pairs[2];
                bytes_to_pairs(quants[row][half], pairs[0], pairs[1]);
                const float scale = read.scales[groups == 1 ? 0 : half][row];
                UNROLL_ALL
                for (int i = 0; i < 2; ++i) {
                    put_pair(out[row] + 16 * half + lane % 4 * 4 + 2 * i, scale * first_of(pairs[i]), scale * second_of(pairs[i]));
                }
            }
        }
    }

    template <int n_tiles>
    DEVICE void multiply(const Read& read, int, const unsigned (&x)[n_tiles][2][2], float (&sums)[n_tiles][4]) const {
        unsigned a[2][4];
        bytes_to_pairs(read.quants.x, a[0][0], a[0][2]);
        bytes_to_pairs(read.quants.y, a[1][0], a[1][2]);
        bytes_to_pairs(read.quants.z, a[0][1], a[0][3]);
        bytes_to_pairs(read.quants.w, a[1][1], a[1][3]);
        UNROLL_ALL
        for (int tile = 0; tile < n_tiles; ++tile) {
            UNROLL_ALL
            for (int i = 0; i < groups; ++i) {
                float part[4] = {0.0f, 0.0f, 0.0f, 0.0f};
                multiply_add(part, a[i], x[tile][i]);
                if (groups == 1) multiply_add(part, a[1], x[tile][1]);
                UNROLL_ALL
                for (int j = 0; j < 4; ++j) sums[tile][j] += read.scales[i][j / 2] * part[j];
            }
        }
    }
};

// Weights as integers of four bits, 0 to 15, as Q4_K has them: 256 columns of a row have an f16 scale of scales and one of minima,
// each 32 of them a byte by which it is multiplied. Columns are a multiple of 256.
//
// quants: for each tile and two steps 512 bytes, 16 a lane: of each step four bytes of row lane / 4, four of row lane / 4 + 8; in
// them column pairs as below each other in the two halves of 32 bits, so that they come out as pairs. scales: for each tile and
// 256 columns first, for each two steps, sixteen of four bytes, one a row: a step's scale and minimum, the next one's; then
// sixteen of two f16.
struct NibbleWeights {
    const unsigned char* quants;
    const unsigned* scales;
    int n_in;

    static constexpr bool split = true;
    static constexpr int steps_at_once = 2;
    static constexpr int pairs = 4;

    struct Read {
        uint4 quants;
        // Of row lane / 4 and row lane / 4 + 8.
        unsigned factors[2], units[2];
    };

    DEVICE Read read(int tile, int step) const {
        const int lane = threadIdx.x % WARP_LANES, pair = step / 2;
        const size_t place = static_cast<size_t>(tile) * (n_in / (2 * STEP)) + pair;
        Read read;
        read.quants = load_once(quants + (place * WARP_LANES + lane) * 16);
        const unsigned* block = scales + place / pairs * (pairs + 1) * TILE_ROWS + lane / 4;
        UNROLL_ALL
        for (int i = 0; i < 2; ++i) {
            read.factors[i] = block[pair % pairs * TILE_ROWS + 8 * i];
            read.units[i] = block[pairs * TILE_ROWS + 8 * i];
        }
        return read;
    }

    // 128 + each integer, exactly: the bits of an integer below 16 are the last ones of a bf16 between 128 and 256.
    DEVICE static unsigned widen_nibbles(unsigned quants, int pair) { return (quants >> 4 * pair & 0x000f000fu) | 0x43004300u; }

    DEVICE static void scales_of(const Read& read, int which, float (&scale)[2], float (&minimum)[2]) {
        UNROLL_ALL
        for (int i = 0; i < 2; ++i) {
            const unsigned factors = read.factors[i] >> 16 * which;
            scale[i] = widen_f16(static_cast<unsigned short>(read.units[i] & 0xffff)) * static_cast<float>(factors & 0xff);
            minimum[i] =
                widen_f16(static_cast<unsigned short>(read.units[i] >> 16)) * static_cast<float>(factors >> 8 & 0xff);
        }
    }

    // As for bytes.
    DEVICE static void put(const Read& read, int which, bf16* const (&out)[2]) {
        const int lane = threadIdx.x % WARP_LANES;
        const unsigned quants[2] = {which ? read.quants.z : read.quants.x, which ? read.quants.w : read.quants.y};
        float scale[2], minimum[2];
        scales_of(read, which, scale, minimum);
        UNROLL_ALL
        for (int row = 0; row < 2; ++row) {
            UNROLL_ALL
            for (int i = 0; i < 4; ++i) {
                const unsigned pair = widen_nibbles(quants[row], i);
                put_pair(out[row] + i / 2 * 16 + lane % 4 * 4 + i % 2 * 2,
                         scale[row] * (first_of(pair) - 128.0f) - minimum[row],
                         scale[row] * (second_of(pair) - 128.0f) - minimum[row]);
            }
        }
    }

    template <int n_tiles>
    DEVICE void multiply(const Read& read, int which, const unsigned (&x)[n_tiles][2][2],
                         float (&sums)[n_tiles][4]) const {
        const unsigned upper = which ? read.quants.z : read.quants.x, lower = which ? read.quants.w : read.quants.y;
        unsigned a[2][4];
        UNROLL_ALL
        for (int half = 0; half < 2; ++half) {
            a[half][0] = widen_nibbles(upper, 2 * half);
            a[half][1] = widen_nibbles(lower, 2 * half);
            a[half][2] = widen_nibbles(upper, 2 * half + 1);
            a[half][3] = widen_nibbles(lower, 2 * half + 1);
        }
        float scale[2], minimum[2];
        scales_of(read, which, scale, minimum);
        UNROLL_ALL
        for (int i = 0; i < 2; ++i) minimum[i] += 128.0f * scale[i];
        // The sum of the activations, at the places of the products.
        const unsigned ones[4] = {0x3f803f80u, 0x3f803f80u, 0x3f803f80u, 0x3f803f80u};
        UNROLL_ALL
        for (int tile = 0; tile < n_tiles; ++tile) {
            float part[4] = {0.0f, 0.0f, 0.0f, 0.0f}, all[4] = {0.0f, 0.0f, 0.0f, 0.0f};
            UNROLL_ALL
            for (int half = 0; half < 2; ++half) {
                multiply_add(part, a[half], x[tile][half]);
                multiply_add(all, ones, x[tile][half]);
            }
            UNROLL_ALL
            for (int j = 0; j < 4; ++j) sums[tile][j] += scale[j / 2] * part[j] - minimum[j / 2] * all[j];
        }
    }
};

// The sums of `matrices` tiles of weights with all activations, those of the block's warps together, in shared memory: for each
// matrix and tile of tokens 128 numbers. The first tile is the block's own, each other one `apart` tiles on.
template <int n_matrices, int n_tiles, class Weights>
DEVICE const float* products(const Weights& weights, const Activations& x, int tile, int apart) {
    const int warp = threadIdx.x / WARP_LANES, lane = threadIdx.x % WARP_LANES;
    constexpr int each = n_matrices * n_tiles * 4;
    [[maybe_unused]] constexpr int at_once = n_matrices * n_tiles * Weights::steps_at_once;
    float sums[n_matrices][n_tiles][4] = {};
    const int n_reads = x.n_in / (STEP * Weights::steps_at_once);
    // As many reads on their way at once as the registers have room for.
    UNROLL(at_once > 4 ? 1 : at_once > 2 ? 2 : 4)
    for (int at = warp; at < n_reads; at += PRODUCT_WARPS) {
        const int step = at * Weights::steps_at_once;
        typename Weights::Read read[n_matrices];
        UNROLL_ALL
        for (int i = 0; i < n_matrices; ++i) read[i] = weights.read(tile + i * apart, step);
        UNROLL(at_once > 8 ? 1 : 2)
        for (int which = 0; which < Weights::steps_at_once; ++which) {
            unsigned halves[n_tiles][2][2];
            UNROLL_ALL
            for (int i = 0; i < n_tiles; ++i) load_activations<Weights::split>(x, i, step + which, halves[i]);
            UNROLL_ALL
            for (int i = 0; i < n_matrices; ++i)
                weights.multiply(read[i], which, halves, sums[i]);
        }
    }
    float* parts = reinterpret_cast<float*>(shared_memory());
    UNROLL_ALL
    for (int i = 0; i < n_matrices; ++i) {
        UNROLL_ALL
        for (int j = 0; j < n_tiles; ++j) {
            UNROLL_ALL
            for (int k = 0; k < 4; ++k)
                parts[warp * each * WARP_LANES + ((i * n_tiles + j) * WARP_LANES + lane) * 4 + k] = sums[i][j][k];
        }
    }
    barrier();
    // Each thread sums places of its own, so that the parts of the first warp can take the sums.
    for (int place = threadIdx.x; place < each * WARP_LANES; place += PRODUCT_THREADS) {
        float sum = 0.0f;
        for (int i = 0; i < PRODUCT_WARPS; ++i) sum += parts[i * each * WARP_LANES + place];
        parts[place] = sum;
    }
    barrier();
    return parts;
}

// What becomes of the products.
enum Then {
    // out = products, in singles.
    STORE,
    // out += products, in singles.
    ADD,
    // out = silu(products) * products of a second matrix, in bf16.
    SILU,
};

// out of shape (row of x, row of weights), of which there are `n_out`; its rows are `width` apart. One block a tile of rows. For SILU
// the weights are two matrices of `n_out` rows, one after the other.
template <int n_tiles, Then then, class Weights>
DEVICE void multiply(const Weights& weights, const Activations& x, void* out, int n_out, int width) {
    constexpr int n_matrices = then == SILU ? 2 : 1;
    const int tile = blockIdx.x;
    const float* sums = products<n_matrices, n_tiles>(weights, x, tile, (n_out + TILE_ROWS - 1) / TILE_ROWS);
    constexpr int n_places = n_tiles * 4 * WARP_LANES;
    for (int i = threadIdx.x; i < n_places; i += PRODUCT_THREADS) {
        // Neighbours write neighbours: the row of weights goes fastest.
        const int row = i % TILE_ROWS, token = i / TILE_ROWS;
        const int within = token % TILE_TOKENS, lane = row % 8 * 4 + within / 2;
        const int place = (token / TILE_TOKENS * WARP_LANES + lane) * 4 + row / 8 * 2 + within % 2;
        if (token >= x.n_rows || tile * TILE_ROWS + row >= n_out) continue;
        const size_t to = static_cast<size_t>(token) * width + tile * TILE_ROWS + row;
        if (then == STORE) static_cast<float*>(out)[to] = sums[place];
        if (then == ADD) static_cast<float*>(out)[to] += sums[place];
        if (then == SILU) {
            static_cast<bf16*>(out)[to] = narrow(silu(sums[place]) * sums[n_places + place]);
        }
    }
}

#define PRODUCT(name, weights, n_tiles, then)                                                                         \
    KERNEL(name, PRODUCT_THREADS, 2)                                                                                  \
    (const unsigned char* quants, [[maybe_unused]] const unsigned char* scales, const bf16* x, void* out, int n_rows,  \
     int n_in, int n_out, int width) {                                                                                \
        multiply<n_tiles, then>(weights, Activations{x, n_rows, n_in}, out, n_out, width);                            \
    }
#define EACH_THEN(name, weights, n_tiles)               \
    PRODUCT(store_##name, (weights), n_tiles, STORE)    \
    PRODUCT(add_##name, (weights), n_tiles, ADD)        \
    PRODUCT(silu_##name, (weights), n_tiles, SILU)
#define EACH_WIDTH(name, weights)               \
    EACH_THEN(name##_8, (weights), 1)           \
    EACH_THEN(name##_16, (weights), 2)          \
    EACH_THEN(name##_32, (weights), 4)

EACH_WIDTH(dense, (DenseWeights{reinterpret_cast<const bf16*>(quants), n_in}))
EACH_WIDTH(bytes, (ByteWeights<32>{quants, reinterpret_cast<const unsigned short*>(scales), n_in}))
EACH_WIDTH(small_bytes, (ByteWeights<16>{quants, reinterpret_cast<const unsigned short*>(scales), n_in}))
EACH_WIDTH(nibbles, (NibbleWeights{quants, reinterpret_cast<const unsigned*>(scales), n_in}))

// The weights in bf16, row-major, `out` of shape (row of whole tiles, n_in): for products with more rows of activations than above.
// A warp takes what it reads at once; blocks along x go through the columns, along y through the tiles.
template <class Weights>
DEVICE void widen_weights(const Weights& weights, bf16* out) {
    const int warp = threadIdx.x / WARP_LANES, lane = threadIdx.x % WARP_LANES, tile = blockIdx.y;
    const int at = blockIdx.x * PRODUCT_WARPS + warp;
    if (at >= weights.n_in / (STEP * Weights::steps_at_once)) return;
    const typename Weights::Read read = weights.read(tile, at * Weights::steps_at_once);
    UNROLL_ALL
    for (int which = 0; which < Weights::steps_at_once; ++which) {
        bf16* row = out + (static_cast<size_t>(tile) * TILE_ROWS + lane / 4) * weights.n_in +
                    (at * Weights::steps_at_once + which) * STEP;
        bf16* const rows[2] = {row, row + static_cast<size_t>(8) * weights.n_in};
        Weights::put(read, which, rows);
    }
}

#define WIDEN(name, weights)                                                                               \
    KERNEL(widen_##name, PRODUCT_THREADS, 2)                                                               \
    (const unsigned char* quants, const unsigned char* scales, bf16* out, int n_in) { widen_weights(weights, out); }

WIDEN(bytes, (ByteWeights<32>{quants, reinterpret_cast<const unsigned short*>(scales), n_in}))
WIDEN(small_bytes, (ByteWeights<16>{quants, reinterpret_cast<const unsigned short*>(scales), n_in}))
WIDEN(nibbles, (NibbleWeights{quants, reinterpret_cast<const unsigned*>(scales), n_in}))
