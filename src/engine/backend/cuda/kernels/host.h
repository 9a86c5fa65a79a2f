// The device on the host: runs the kernels' own source without a card, so that their logic is tested everywhere.
//
// Blocks run one after the other. A block's threads are fibers that change places only where the device would make them wait:
// at a barrier, or where a warp's lanes exchange something. The order in which they run can be changed, and no kernel's result
// may depend on it. A thread that waits for one that ended, which hangs a card, ends the process with a message here.
//
// Mirrors what CUDA says of __syncthreads, __shfl_xor_sync, mma.sync.m16n8k16 and cp.async; speed and memory order it does not.

#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#if !defined(__x86_64__)
#error "fibers change places with x86-64 instructions; on other machines the kernels are tested on a card only"
#endif

namespace host {

struct Dim {
    unsigned x = 1, y = 1, z = 1;
};

constexpr unsigned WARP = 32;
constexpr size_t STACK_BYTES = 128 << 10;

// One thread of a block.
struct Fiber {
    void* stack_pointer = nullptr;
    // Only what a thread uses of it is ever touched.
    std::unique_ptr<char[]> stack;
    Dim thread;
    unsigned index = 0;
    bool ended = false;
    // Barriers and exchanges that it has come to.
    unsigned long barriers = 0, exchanges = 0;
};

// What the lanes of a warp give each other; two, so that the next exchange does not overwrite what is still read.
struct Warp {
    struct Exchange {
        unsigned char bytes[WARP][64];
        unsigned arrived = 0;
    } exchange[2];
    unsigned long done = 0;
};

struct Block {
    std::vector<Fiber> fibers;
    std::vector<Warp> warps;
    std::vector<unsigned char> shared;
    Dim grid, block, index;
    unsigned arrived = 0;
    unsigned long barriers_done = 0;
    bool progress = false;
    void* scheduler = nullptr;
    Fiber* running = nullptr;
    void (*entry)(void*) = nullptr;
    void* argument = nullptr;
    const char* kernel = "";
};

inline thread_local Block current;
inline thread_local unsigned order = 0;

// Saves where this fiber is and goes on where another one was.
extern "C" void xverse_fiber_switch(void** save, void* load);
asm(R"(
.text
.p2align 4
.weak xverse_fiber_switch
.type xverse_fiber_switch, @function
xverse_fiber_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size xverse_fiber_switch, .-xverse_fiber_switch
)");

inline void yield() {
    xverse_fiber_switch(&current.running->stack_pointer, current.scheduler);
}

[[noreturn]] inline void fail(const char* what) {
    std::fprintf(stderr, "kernel %s, block (%u, %u, %u): %s\n", current.kernel, current.index.x, current.index.y,
                 current.index.z, what);
    std::abort();
}

inline void barrier() {
    Block& block = current;
    const unsigned long mine = ++block.running->barriers;
    block.progress = true;
    if (++block.arrived == block.fibers.size()) {
        block.arrived = 0;
        ++block.barriers_done;
    }
    while (block.barriers_done < mine) yield();
}

// Each lane gives a value and gets those of all lanes of its warp.
template <class T>
inline const T* exchange(const T& value) {
    static_assert(sizeof(T) <= 64 && std::is_trivially_copyable_v<T>);
    Block& block = current;
    Fiber& fiber = *block.running;
    Warp& warp = block.warps[fiber.index / WARP];
    const unsigned long mine = ++fiber.exchanges;
    auto& slot = warp.exchange[mine % 2];
    static thread_local T all[2][1 << 10];
    T* row = all[mine % 2] + fiber.index / WARP * WARP;
    row[fiber.index % WARP] = value;
    block.progress = true;
    if (++slot.arrived == WARP) {
        slot.arrived = 0;
        ++warp.done;
    }
    while (warp.done < mine) yield();
    return row;
}

inline void start() {
    current.entry(current.argument);
    current.running->ended = true;
    current.progress = true;
    for (;;) yield();
}

inline void prepare(Fiber& fiber) {
    if (!fiber.stack) fiber.stack.reset(new char[STACK_BYTES]);
    auto top = reinterpret_cast<uintptr_t>(fiber.stack.get() + STACK_BYTES) & ~uintptr_t{63};
    void** stack = reinterpret_cast<void**>(top) - 8;
    for (int i = 0; i < 6; ++i) stack[i] = nullptr;
    stack[6] = reinterpret_cast<void*>(&start);
    stack[7] = nullptr;
    fiber.stack_pointer = stack;
    fiber.ended = false;
    fiber.barriers = fiber.exchanges = 0;
}

// In which place the n-th of `count` fibers runs.
inline unsigned place(unsigned n, unsigned count) {
    switch (order) {
        case 0: return n;
        case 1: return count - 1 - n;
        // 7919 is odd and no multiple of any block's size, so every thread has its turn.
        default: return static_cast<unsigned>((n * 7919ul + order) % count);
    }
}

inline void run_block() {
    Block& block = current;
    const unsigned count = static_cast<unsigned>(block.fibers.size());
    block.arrived = 0;
    block.barriers_done = 0;
    for (Warp& warp : block.warps) warp = Warp{};
    // What was not written is no number.
    std::memset(block.shared.data(), 0xff, block.shared.size());
    for (Fiber& fiber : block.fibers) prepare(fiber);
    for (unsigned left = count; left > 0;) {
        block.progress = false;
        for (unsigned n = 0; n < count; ++n) {
            Fiber& fiber = block.fibers[place(n, count)];
            if (fiber.ended) continue;
            block.running = &fiber;
            xverse_fiber_switch(&block.scheduler, fiber.stack_pointer);
            if (fiber.ended) --left;
        }
        if (!block.progress && left > 0) fail("threads wait for each other, or for one that has ended");
    }
    if (block.arrived != 0) fail("a thread waits at a barrier that others did not come to");
}

template <class... A>
struct Call {
    void (*kernel)(A...);
    void** parameters;

    template <size_t... I>
    void call(std::index_sequence<I...>) {
        kernel(*static_cast<std::decay_t<A>*>(parameters[I])...);
    }
    static void entry(void* self) { static_cast<Call*>(self)->call(std::index_sequence_for<A...>{}); }
};

template <class... A>
inline void launch(const char* name, void (*kernel)(A...), Dim grid, Dim threads, size_t shared, void** parameters) {
    Block& block = current;
    const unsigned count = threads.x * threads.y * threads.z;
    if (count == 0 || count > 1024 || count % WARP != 0) fail("a block has whole warps, at most 32");
    block.kernel = name;
    block.fibers.resize(count);
    block.warps.resize(count / WARP);
    block.shared.resize(shared);
    block.grid = grid;
    block.block = threads;
    for (unsigned i = 0; i < count; ++i) {
        block.fibers[i].index = i;
        block.fibers[i].thread = {i % threads.x, i / threads.x % threads.y, i / threads.x / threads.y};
    }
    Call<A...> call{kernel, parameters};
    block.entry = &Call<A...>::entry;
    block.argument = &call;
    for (unsigned z = 0; z < grid.z; ++z)
        for (unsigned y = 0; y < grid.y; ++y)
            for (unsigned x = 0; x < grid.x; ++x) {
                block.index = {x, y, z};
                run_block();
            }
}

}  // namespace host
