// A stand-in for libcublas.so: the one product that the program asks for, computed plainly on this machine.

#include <cstdint>
#include <cstring>

namespace {

float widen(uint16_t half) {
    const uint32_t bits = static_cast<uint32_t>(half) << 16;
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

}  // namespace

extern "C" {

int cublasCreate_v2(void** handle) {
    static int the;
    *handle = &the;
    return 0;
}

int cublasDestroy_v2(void*) { return 0; }

int cublasSetStream_v2(void*, void*) { return 0; }

int cublasSetWorkspace_v2(void*, void*, size_t) { return 0; }

// c of shape (n, m), row by row, is b of shape (n, k) times a of shape (m, k) turned round, plus beta times what was there.
int cublasGemmEx(void*, int transposes_a, int transposes_b, int m, int n, int k, const float* alpha, const uint16_t* a,
                 int a_type, int lda, const uint16_t* b, int b_type, int ldb, const float* beta, float* c, int c_type, int ldc,
                 int compute_type, int) {
    const int bf16 = 14, single = 0, in_singles = 68;
    if (transposes_a != 1 || transposes_b != 0 || *alpha != 1.0f) return 15;
    if (a_type != bf16 || b_type != bf16 || c_type != single || compute_type != in_singles) return 15;
    for (int row = 0; row < n; ++row) {
        for (int column = 0; column < m; ++column) {
            float sum = 0.0f;
            for (int i = 0; i < k; ++i) {
                sum += widen(a[static_cast<size_t>(column) * lda + i]) * widen(b[static_cast<size_t>(row) * ldb + i]);
            }
            float& to = c[static_cast<size_t>(row) * ldc + column];
            to = *beta == 0.0f ? sum : *beta * to + sum;
        }
    }
    return 0;
}

}  // extern "C"
