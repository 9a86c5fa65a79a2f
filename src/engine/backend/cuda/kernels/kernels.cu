// All kernels, and for the host the way to call one by its name.

#include "attention.cuh"
#include "probabilities.cuh"
#include "product.cuh"
#include "prompt_attention.cuh"
#include "rows.cuh"
#include "sample.cuh"

#ifndef __CUDACC__

#define EACH_PRODUCT(X, name)                                         \
    X(store_##name##_8) X(store_##name##_16) X(store_##name##_32)     \
    X(add_##name##_8) X(add_##name##_16) X(add_##name##_32)           \
    X(silu_##name##_8) X(silu_##name##_16) X(silu_##name##_32)
#define EACH_ATTENTION(X, cells)                                                                \
    X(rotate_and_append_##cells) X(attend_plainly_##cells)                                      \
    X(attend_##cells##_32) X(attend_##cells##_64) X(attend_##cells##_128)                       \
    X(attend_tile_##cells##_32) X(attend_tile_##cells##_64) X(attend_tile_##cells##_128)
#define EACH_KERNEL(X)                                                                          \
    X(embed) X(rms_norm) X(silu_multiply) X(join) X(widen_bytes) X(widen_small_bytes)           \
    X(widen_nibbles) X(sample) X(advance) X(tell) EACH_ATTENTION(X, bf16) EACH_ATTENTION(X, int8)                  \
    EACH_PRODUCT(X, dense) EACH_PRODUCT(X, bytes) EACH_PRODUCT(X, small_bytes) EACH_PRODUCT(X, nibbles)

// Runs a kernel to its end, its blocks' threads in one of several orders; whether there is one of that name.
extern "C" bool xverse_launch(const char* name, const unsigned (&grid)[3], const unsigned (&block)[3], size_t shared,
                              void** parameters, unsigned order) {
    const host::Dim blocks{grid[0], grid[1], grid[2]}, threads{block[0], block[1], block[2]};
    host::order = order;
#define LAUNCH(kernel)                                                         \
    if (std::string_view(name) == #kernel) {                                   \
        host::launch(#kernel, kernel, blocks, threads, shared, parameters);    \
        return true;                                                           \
    }
    EACH_KERNEL(LAUNCH)
#undef LAUNCH
    return false;
}

#endif
