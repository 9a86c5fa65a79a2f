// Drawing a token: repetition penalty, temperature, top-k, softmax, top-p, draw, in the original's order.
//
// One block a row. The scores are looked at twice from memory at least: for how many there are of each upper part of their bits,
// and to collect those that may be among the `top_k` largest; while too many fall into one part it is looked at by its lower bits.
// What is collected is ranked and summed in doubles, so that the draw is the one that the host makes.

#pragma once

#include "device.cuh"

constexpr int SAMPLE_THREADS = 1024;
// Candidates that a row may have; where ties make more, the host draws.
constexpr int MOST_CANDIDATES = 1024;
constexpr int BINS = 2048;
constexpr int HOST_DRAWS = -1, NOT_A_NUMBER = -2;

// How a row is drawn, as the host writes it.
struct DrawSettings {
    float temperature, penalty, top_p;
    // From 1 to MOST_CANDIDATES, or 0 for a row that draws nothing.
    int top_k;
    unsigned seed[2], index[2];
};

// Philox4x32-10: the first word for a counter and a key.
DEVICE unsigned philox(const unsigned (&counter)[2], const unsigned (&key)[2]) {
    unsigned words[4] = {counter[0], counter[1], 0, 0}, keys[2] = {key[0], key[1]};
    for (int round = 0; round < 10; ++round) {
        const unsigned long long a = 0xD2511F53ull * words[0], b = 0xCD9E8D57ull * words[2];
        const unsigned next[4] = {static_cast<unsigned>(b >> 32) ^ words[1] ^ keys[0], static_cast<unsigned>(b),
                                  static_cast<unsigned>(a >> 32) ^ words[3] ^ keys[1], static_cast<unsigned>(a)};
        for (int i = 0; i < 4; ++i) words[i] = next[i];
        keys[0] += 0x9E3779B9u;
        keys[1] += 0xBB67AE85u;
    }
    return words[0];
}

// Bits that are in the order of the numbers.
DEVICE unsigned ordered(float score) {
    const unsigned bits = as_bits(score);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

DEVICE float from_ordered(unsigned key) { return as_float(key & 0x80000000u ? key & 0x7fffffffu : ~key); }

// A row's scores: what was seen is made less likely once.
struct Scores {
    const float* logits;
    const unsigned* seen;
    float penalty;

    DEVICE float at(int id) const {
        const float logit = logits[id];
        if (!(seen[id / 32] >> id % 32 & 1)) return logit;
        return logit < 0.0f ? logit * penalty : logit / penalty;
    }
};

struct SampleMemory {
    unsigned bins[BINS];
    unsigned ids[MOST_CANDIDATES], keys[MOST_CANDIDATES];
    unsigned ranked[MOST_CANDIDATES];
    double weights[MOST_CANDIDATES];
    unsigned n_candidates, chosen_bin, above, largest, is_bad;
};

// In which bin, from the highest down, the `wanted`-th lies, and how many are in those above it; by the first warp.
DEVICE void choose_bin(SampleMemory& memory, unsigned wanted) {
    const int lane = threadIdx.x;
    if (lane >= WARP_LANES) return;
    constexpr int each = BINS / WARP_LANES;
    const int highest = BINS - 1 - lane * each;
    unsigned mine = 0;
    for (int i = 0; i < each; ++i) mine += memory.bins[highest - i];
    unsigned before = warp_sum_before(mine);
    if (before < wanted && wanted <= before + mine) {
        for (int i = 0; i < each; ++i) {
            const unsigned count = memory.bins[highest - i];
            if (before + count >= wanted) {
                memory.chosen_bin = static_cast<unsigned>(highest - i);
                memory.above = before;
                return;
            }
            before += count;
        }
    }
}

// Draws for each row, from `logits` of shape (row, vocabulary), a token into `drawn`, and marks it as seen. `slots` says which row
// of `seen`, of shape (slot, words of 32 bits), is a row's.
KERNEL(sample, SAMPLE_THREADS, 1)
(const float* logits, const DrawSettings* settings, const int* slots, unsigned* seen, int* drawn, int vocabulary, int seen_words) {
    const int row = blockIdx.x, thread = threadIdx.x;
    const DrawSettings draw = settings[row];
    if (draw.top_k == 0) return;
    unsigned* mine = seen + static_cast<size_t>(slots[row]) * seen_words;
    const Scores scores{logits + static_cast<size_t>(row) * vocabulary, mine, draw.penalty};
    SampleMemory& memory = *reinterpret_cast<SampleMemory*>(shared_memory());
    const bool is_greedy = !(draw.temperature > 0.0f);
    const unsigned top_k = is_greedy || draw.top_k > vocabulary ? (is_greedy ? 1u : static_cast<unsigned>(vocabulary))
                                                                : static_cast<unsigned>(draw.top_k);
    if (thread == 0) memory.is_bad = memory.n_candidates = 0;

    // The key of the k-th largest, from its highest bits down: eleven, eleven and ten of them.
    unsigned key = 0, wanted = top_k;
    for (int shift = 21; shift >= 0; shift -= shift == 21 ? 11 : 10) {
        for (int i = thread; i < BINS; i += SAMPLE_THREADS) memory.bins[i] = 0;
        barrier();
        const int n_bits = shift == 0 ? 10 : 11;
        for (int id = thread; id < vocabulary; id += SAMPLE_THREADS) {
            const float score = scores.at(id);
            if (score != score) memory.is_bad = 1;
            const unsigned bits = ordered(score);
            if (shift < 21 && bits >> (shift + n_bits) != key >> (shift + n_bits)) continue;
            atomic_add(&memory.bins[bits >> shift & ((1u << n_bits) - 1)], 1u);
        }
        barrier();
        choose_bin(memory, wanted);
        barrier();
        key |= memory.chosen_bin << shift;
        wanted -= memory.above;
        const unsigned in_bin = memory.bins[memory.chosen_bin];
        barrier();
        // All of this part can be collected.
        if (top_k - wanted + in_bin <= MOST_CANDIDATES) break;
    }
    if (memory.is_bad) {
        if (thread == 0) drawn[row] = NOT_A_NUMBER;
        return;
    }

    for (int id = thread; id < vocabulary; id += SAMPLE_THREADS) {
        const unsigned bits = ordered(scores.at(id));
        if (bits < key) continue;
        const unsigned place = atomic_add(&memory.n_candidates, 1u);
        if (place < MOST_CANDIDATES) {
            memory.ids[place] = static_cast<unsigned>(id);
            memory.keys[place] = bits;
        }
    }
    barrier();
    const unsigned n = memory.n_candidates;
    if (n > MOST_CANDIDATES) {
        if (thread == 0) drawn[row] = HOST_DRAWS;
        return;
    }
    // Each candidate's rank: largest first, of equal ones the lower id first.
    for (unsigned i = thread; i < n; i += SAMPLE_THREADS) {
        unsigned rank = 0;
        for (unsigned j = 0; j < n; ++j) {
            const unsigned other = memory.keys[j];
            rank += other > memory.keys[i] || (other == memory.keys[i] && memory.ids[j] < memory.ids[i]);
        }
        memory.ranked[rank] = i;
    }
    barrier();
    const float largest = from_ordered(memory.keys[memory.ranked[0]]);
    const float least = from_ordered(memory.keys[memory.ranked[top_k - 1]]);
    for (unsigned i = thread; i < n; i += SAMPLE_THREADS) {
        const double score = from_ordered(memory.keys[memory.ranked[i]]);
        memory.weights[i] = is_greedy ? 1.0 : exponential_of_double((score - static_cast<double>(largest)) / static_cast<double>(draw.temperature));
    }
    barrier();
    if (thread != 0) return;
    if (!(largest - largest == 0.0f)) {
        drawn[row] = NOT_A_NUMBER;
        return;
    }
    // Ties with the last one stay; where the draw is greedy the first alone.
    unsigned n_kept = 0;
    double mass = 0.0;
    while (n_kept < n && (is_greedy ? n_kept < 1 : from_ordered(memory.keys[memory.ranked[n_kept]]) >= least)) {
        mass += memory.weights[n_kept++];
    }
    if (!is_greedy && draw.top_p < 1.0f) {
        const double enough = static_cast<double>(draw.top_p) * mass;
        double reached = 0.0;
        unsigned kept = 0;
        while (kept < n_kept) {
            reached += memory.weights[kept++];
            if (reached >= enough) break;
        }
        n_kept = kept;
        mass = reached;
    }
    const double uniform = static_cast<double>(philox(draw.index, draw.seed) >> 8) / 16777216.0;
    const double aim = uniform * mass;
    double passed = 0.0;
    unsigned last = 0;
    for (unsigned i = 0; i < n_kept; ++i) {
        passed += memory.weights[i];
        last = memory.ids[memory.ranked[i]];
        if (passed > aim) break;
    }
    drawn[row] = static_cast<int>(last);
    mine[last / 32] |= 1u << last % 32;
}

// Makes of each row that has drawn the row of its next step: the token, one position on, the next draw. A row that has not takes no
// part in that step. One thread a row.
KERNEL(advance, WARP_LANES, 1)(const int* drawn, DrawSettings* settings, unsigned* ids, int* positions, int n_rows) {
    const int row = blockIdx.x * blockDim.x + threadIdx.x;
    if (row >= n_rows) return;
    DrawSettings& draw = settings[row];
    if (draw.top_k == 0 || drawn[row] < 0) {
        draw.top_k = 0;
        positions[row] = -1;
        return;
    }
    ids[row] = static_cast<unsigned>(drawn[row]);
    positions[row] += 1;
    draw.index[0] += 1;
    if (draw.index[0] == 0) draw.index[1] += 1;
}
