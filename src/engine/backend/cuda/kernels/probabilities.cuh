// Log-probabilities under the unmodified distribution: of one token of each row, and of the likeliest.
//
// One block a row. The mass is summed in doubles, in an order that depends on nothing but the vocabulary; the likeliest are found one
// after the other, which takes a look at all logits each.

#pragma once

#include "sample.cuh"

constexpr int TELL_THREADS = 1024;
constexpr int TELL_WARPS = TELL_THREADS / WARP_LANES;
constexpr int MOST_TOP = 20;

// What is to be told of a row, as the host writes it.
struct Telling {
    // Negative for the one that was drawn.
    int token;
    // How many of the likeliest, at most MOST_TOP; negative for a row of which nothing is told.
    int n_top;
};

// Natural logarithms, likeliest first.
struct Told {
    float logprob;
    unsigned top_ids[MOST_TOP];
    float top_logprobs[MOST_TOP];
};

struct TellMemory {
    double masses[TELL_THREADS];
    float largest[TELL_WARPS];
    unsigned keys[TELL_WARPS], ids[TELL_WARPS];
};

// A token in the order of the logits, of equal ones the lower id first.
struct Ranked {
    unsigned key, id;

    DEVICE bool is_before(const Ranked& other) const { return key > other.key || (key == other.key && id < other.id); }
};

// Told where there are no more tokens.
constexpr unsigned NO_ID = 0xffffffffu;

// The first of the warp's, the same in each lane.
DEVICE Ranked first_of_warp(Ranked mine) {
    UNROLL_ALL
    for (int mask = WARP_LANES / 2; mask > 0; mask /= 2) {
        const Ranked other{as_bits(shuffle_xor(as_float(mine.key), mask)), as_bits(shuffle_xor(as_float(mine.id), mask))};
        if (other.is_before(mine)) mine = other;
    }
    return mine;
}

// For each row of `logits`, of shape (row, vocabulary), what `tellings` asks for.
KERNEL(tell, TELL_THREADS, 1)
(const float* logits, const Telling* tellings, const int* drawn, Told* told, int vocabulary) {
    const int row = blockIdx.x, thread = threadIdx.x, warp = thread / WARP_LANES, lane = thread % WARP_LANES;
    const Telling telling = tellings[row];
    if (telling.n_top < 0) return;
    const float* mine = logits + static_cast<size_t>(row) * vocabulary;
    TellMemory& memory = *reinterpret_cast<TellMemory*>(shared_memory());

    float largest = -INFINITY;
    for (int id = thread; id < vocabulary; id += TELL_THREADS) largest = mine[id] > largest ? mine[id] : largest;
    largest = warp_largest(largest);
    if (lane == 0) memory.largest[warp] = largest;
    barrier();
    for (int i = 0; i < TELL_WARPS; ++i) largest = memory.largest[i] > largest ? memory.largest[i] : largest;

    double mass = 0.0;
    for (int id = thread; id < vocabulary; id += TELL_THREADS) {
        mass += exponential_of_double(static_cast<double>(mine[id]) - static_cast<double>(largest));
    }
    memory.masses[thread] = mass;
    barrier();
    for (int half = TELL_THREADS / 2; half > 0; half /= 2) {
        if (thread < half) memory.masses[thread] += memory.masses[thread + half];
        barrier();
    }
    // What is no number anywhere makes this none, and all that is told.
    const double log_mass = static_cast<double>(largest) + logarithm_of_double(memory.masses[0]);

    Told& out = told[row];
    if (thread == 0) {
        const int token = telling.token < 0 ? drawn[row] : telling.token;
        const bool is_known = token >= 0 && token < vocabulary;
        out.logprob = is_known ? static_cast<float>(static_cast<double>(mine[token]) - log_mass) : -INFINITY;
    }
    Ranked last{0, 0};
    for (int place = 0; place < telling.n_top; ++place) {
        Ranked best{0, NO_ID};
        for (int id = thread; id < vocabulary; id += TELL_THREADS) {
            // Zeros are equal whatever their sign.
            const Ranked one{ordered(mine[id] + 0.0f), static_cast<unsigned>(id)};
            if ((place == 0 || last.is_before(one)) && one.is_before(best)) best = one;
        }
        best = first_of_warp(best);
        if (lane == 0) {
            memory.keys[warp] = best.key;
            memory.ids[warp] = best.id;
        }
        barrier();
        for (int i = 0; i < TELL_WARPS; ++i) {
            const Ranked other{memory.keys[i], memory.ids[i]};
            if (other.is_before(best)) best = other;
        }
        barrier();
        last = best;
        if (thread == 0) {
            out.top_ids[place] = best.id;
            if (best.id != NO_ID) out.top_logprobs[place] = static_cast<float>(static_cast<double>(mine[best.id]) - log_mass);
        }
    }
}
