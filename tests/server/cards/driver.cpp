// A stand-in for NVIDIA's driver (libcuda.so): its memory is this machine's, its kernels run on the host.
//
// It lets the whole program run with its backend for cards where there is none. What XVERSE_FAKE_CUDA says, words with commas between
// them, goes wrong: version=12040, cards=0, memory=BYTES, unsupported (no kernels for this card), uncapturable, lost=N (after so many
// launches). Whatever the real driver forbids while launches are recorded is forbidden here.

#include "../../../src/engine/backend/cuda/kernels/kernels.cu"

#include <functional>
#include <map>
#include <string>
#include <tuple>

namespace {

constexpr int OK = 0, INVALID = 1, NO_MEMORY = 2, NOT_INITIALIZED = 3, NO_BINARY = 209, NOT_FOUND = 500, ILLEGAL = 700,
              CAPTURE = 900;

struct Graph {
    std::vector<std::function<void()>> launches;
};

struct State {
    std::map<std::string, long> settings;
    std::map<unsigned long long, size_t> allocations;
    size_t used = 0;
    long n_launched = 0;
    Graph* recording = nullptr;
    void* current = nullptr;
    bool is_started = false;

    State() {
        const char* text = std::getenv("XVERSE_FAKE_CUDA");
        std::string all = text ? text : "";
        while (!all.empty()) {
            const size_t comma = all.find(',');
            const std::string word = all.substr(0, comma);
            const size_t equals = word.find('=');
            settings[word.substr(0, equals)] = equals == std::string::npos ? 1 : std::stol(word.substr(equals + 1));
            all = comma == std::string::npos ? "" : all.substr(comma + 1);
        }
    }

    long get(const char* name, long otherwise) const {
        const auto found = settings.find(name);
        return found == settings.end() ? otherwise : found->second;
    }
    size_t memory() const { return static_cast<size_t>(get("memory", 8l << 30)); }
    bool is_lost() const { return n_launched > get("lost", 1l << 60); }
};

State& state() {
    static State the;
    return the;
}

// What every call on a device does first: one that is lost answers nothing, and some calls are not recorded.
int ready(bool may_be_recorded) {
    if (!state().current) return NOT_INITIALIZED;
    if (state().is_lost()) return ILLEGAL;
    return state().recording && !may_be_recorded ? CAPTURE : OK;
}

template <class... A, size_t... I>
std::tuple<std::decay_t<A>...> copied(void (*)(A...), void** parameters, std::index_sequence<I...>) {
    return {*static_cast<std::decay_t<A>*>(parameters[I])...};
}

template <class... A>
std::function<void()> bound(const char* name, void (*kernel)(A...), host::Dim grid, host::Dim threads, size_t shared,
                            void** parameters) {
    auto values = copied(kernel, parameters, std::index_sequence_for<A...>{});
    return [=]() mutable {
        std::apply(
            [&](auto&... value) {
                void* places[] = {&value...};
                host::launch(name, kernel, grid, threads, shared, places);
            },
            values);
    };
}

struct Function {
    const char* name;
    std::function<void()> (*bind)(host::Dim, host::Dim, size_t, void**);
};

#define FUNCTION(kernel)                                                                                       \
    {#kernel, [](host::Dim grid, host::Dim threads, size_t shared, void** parameters) {                        \
         return bound(#kernel, kernel, grid, threads, shared, parameters);                                     \
     }},
const Function FUNCTIONS[] = {EACH_KERNEL(FUNCTION)};

}  // namespace

extern "C" {

int cuInit(unsigned) {
    state().is_started = true;
    return OK;
}

int cuDriverGetVersion(int* version) {
    *version = static_cast<int>(state().get("version", 13000));
    return OK;
}

int cuGetErrorName(int error, const char** name) {
    *name = error == ILLEGAL ? "CUDA_ERROR_ILLEGAL_ADDRESS" : error == CAPTURE ? "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED" : "CUDA_ERROR_OTHER";
    return OK;
}

int cuGetErrorString(int error, const char** text) {
    *text = error == ILLEGAL ? "an illegal memory access was encountered" : "something else went wrong";
    return OK;
}

int cuDeviceGetCount(int* count) {
    *count = static_cast<int>(state().get("cards", 1));
    return OK;
}

int cuDeviceGet(int* device, int ordinal) {
    *device = ordinal;
    return OK;
}

int cuDeviceGetName(char* name, int size, int) {
    std::snprintf(name, static_cast<size_t>(size), "Fake Card");
    return OK;
}

// Memory pools are not there; of the compute capability both parts are 9 and 0.
int cuDeviceGetAttribute(int* value, int attribute, int) {
    *value = attribute == 75 ? 9 : 0;
    return OK;
}

int cuDevicePrimaryCtxRetain(void** context, int) {
    *context = &state();
    return OK;
}

int cuDevicePrimaryCtxRelease_v2(int) { return OK; }

int cuCtxGetCurrent(void** context) {
    *context = state().current;
    return OK;
}

int cuCtxSetCurrent(void* context) {
    state().current = context;
    return OK;
}

int cuCtxSynchronize() { return ready(false); }

int cuMemGetInfo_v2(size_t* free, size_t* total) {
    *free = state().memory() - state().used;
    *total = state().memory();
    return ready(true);
}

int cuMemAlloc_v2(unsigned long long* address, size_t n_bytes) {
    if (const int error = ready(false)) return error;
    if (n_bytes > state().memory() - state().used) return NO_MEMORY;
    void* bytes = std::aligned_alloc(256, (n_bytes + 255) / 256 * 256);
    std::memset(bytes, 0xff, n_bytes);
    *address = reinterpret_cast<unsigned long long>(bytes);
    state().allocations[*address] = n_bytes;
    state().used += n_bytes;
    return OK;
}

int cuMemFree_v2(unsigned long long address) {
    const auto found = state().allocations.find(address);
    if (found == state().allocations.end()) return INVALID;
    state().used -= found->second;
    std::free(reinterpret_cast<void*>(address));
    state().allocations.erase(found);
    return OK;
}

int cuMemHostAlloc(void** bytes, size_t n_bytes, unsigned) {
    *bytes = std::malloc(n_bytes);
    return ready(false);
}

int cuMemFreeHost(void* bytes) {
    std::free(bytes);
    return OK;
}

int cuMemcpyHtoDAsync_v2(unsigned long long to, const void* from, size_t n_bytes, void*) {
    if (const int error = ready(false)) return error;
    std::memcpy(reinterpret_cast<void*>(to), from, n_bytes);
    return OK;
}

int cuMemcpyDtoHAsync_v2(void* to, unsigned long long from, size_t n_bytes, void*) {
    if (const int error = ready(false)) return error;
    std::memcpy(to, reinterpret_cast<const void*>(from), n_bytes);
    return OK;
}

int cuMemcpyDtoDAsync_v2(unsigned long long to, unsigned long long from, size_t n_bytes, void*) {
    if (const int error = ready(false)) return error;
    std::memcpy(reinterpret_cast<void*>(to), reinterpret_cast<const void*>(from), n_bytes);
    return OK;
}

int cuStreamCreate(void** stream, unsigned) {
    *stream = &state();
    return ready(false);
}

int cuStreamDestroy_v2(void*) { return OK; }

int cuStreamSynchronize(void*) { return ready(false); }

int cuEventCreate(void** event, unsigned) {
    *event = &state();
    return ready(false);
}

int cuEventDestroy_v2(void*) { return OK; }

int cuEventRecord(void*, void*) { return ready(true); }

int cuEventSynchronize(void*) { return ready(false); }

int cuModuleLoadData(void** module, const void* image) {
    // Where several kinds of cards are in one file it begins with this.
    const unsigned char magic[] = {0x50, 0xed, 0x55, 0xba};
    if (state().get("unsupported", 0) || std::memcmp(image, magic, sizeof magic) != 0) return NO_BINARY;
    *module = &state();
    return OK;
}

int cuModuleUnload(void*) { return OK; }

int cuModuleGetFunction(const void** function, void*, const char* name) {
    for (const Function& one : FUNCTIONS) {
        if (std::string_view(one.name) == name) {
            *function = &one;
            return OK;
        }
    }
    return NOT_FOUND;
}

int cuLaunchKernel(const void* function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned threads_x,
                   unsigned threads_y, unsigned threads_z, unsigned shared, void*, void** parameters, void**) {
    if (const int error = ready(true)) return error;
    auto launch = static_cast<const Function*>(function)->bind({grid_x, grid_y, grid_z}, {threads_x, threads_y, threads_z},
                                                                shared, parameters);
    if (state().recording) {
        state().recording->launches.push_back(launch);
    } else {
        ++state().n_launched;
        launch();
    }
    return OK;
}

int cuStreamBeginCapture_v2(void*, int) {
    if (const int error = ready(false)) return error;
    if (state().get("uncapturable", 0)) return CAPTURE;
    state().recording = new Graph;
    return OK;
}

int cuStreamEndCapture(void*, void** graph) {
    *graph = state().recording;
    state().recording = nullptr;
    return *graph ? OK : CAPTURE;
}

int cuGraphInstantiateWithFlags(void** executable, void* graph, unsigned long long) {
    *executable = graph;
    return OK;
}

int cuGraphLaunch(void* executable, void*) {
    if (const int error = ready(false)) return error;
    for (auto& launch : static_cast<Graph*>(executable)->launches) {
        ++state().n_launched;
        launch();
    }
    return OK;
}

int cuGraphExecDestroy(void*) { return OK; }

int cuGraphDestroy(void* graph) {
    delete static_cast<Graph*>(graph);
    return OK;
}

}  // extern "C"
