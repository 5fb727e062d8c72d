// The C interface of the kernels: chooses the instruction set at run time and shares a batch among threads.
#include <cstdlib>
#include <exception>
#include <memory>
#include <new>
#include <string_view>
#include <thread>

#include "program.h"

#ifdef BOLTZGEN_X86
namespace avx512 { extern const Kernels KERNELS; }
namespace avx2 { extern const Kernels KERNELS; }
#endif
namespace baseline { extern const Kernels KERNELS; }

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace {

constexpr int64_t GRAIN = 16;  // samples: no thread starts inside a vector of any instruction set

const Kernels* find(const char* name) {
    auto is = [name](const char* other) { return name == nullptr || std::string_view(name) == other; };
#ifdef BOLTZGEN_X86
    __builtin_cpu_init();
    const bool v3 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
    const bool v4 = v3 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                    __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
                    __builtin_cpu_supports("avx512cd");
    if (v4 && is("avx512")) return &avx512::KERNELS;
    if (v3 && is("avx2")) return &avx2::KERNELS;
#endif
    return is("baseline") ? &baseline::KERNELS : nullptr;
}

// Runs the shares of a batch side by side; what no thread can be had for runs on this one. No exception leaves.
template <class Run> int shared_among_threads(int64_t batch, int threads, int64_t bytes, Run run) noexcept {
    const int64_t blocks = (batch + GRAIN - 1) / GRAIN;
    if (threads > blocks) threads = int(blocks);
    if (threads < 1) threads = 1;
    std::unique_ptr<void*[]> spaces(new (std::nothrow) void*[threads]());
    std::unique_ptr<std::thread[]> helpers(new (std::nothrow) std::thread[threads]);
    bool enough = spaces && helpers;
    for (int k = 0; enough && k < threads; ++k) {
        spaces[k] = std::aligned_alloc(64, (bytes / 64 + 1) * 64);
        enough = spaces[k] != nullptr;
    }
    if (enough) {
        auto part = [&](int k) {
            const int64_t begin = blocks * k / threads * GRAIN, end = blocks * (k + 1) / threads * GRAIN;
            run(Share{begin, end < batch ? end : batch, spaces[k]});
        };
        int started = 1;
        try {
            for (; started < threads; ++started) helpers[started] = std::thread(part, started);
        } catch (const std::exception&) {
        }
        part(0);
        for (int k = started; k < threads; ++k) part(k);
        for (int k = 1; k < started; ++k) helpers[k].join();
    }
    for (int k = 0; spaces && k < threads; ++k) std::free(spaces[k]);
    return enough ? 0 : 1;
}

}  // namespace

EXPORT int boltzgen_interface() { return INTERFACE; }

// Kernels of an instruction set by name, or the best that this processor has; null if it has not.
EXPORT const Kernels* boltzgen_kernels(const char* name) { return find(name); }

EXPORT const char* boltzgen_instruction_set(const Kernels* kernels) { return kernels->name; }

// Each returns 0, or 1 if there is not enough memory.
EXPORT int boltzgen_energy_float32(const Kernels* kernels, const Job<float>* job, int threads) {
    return shared_among_threads(job->batch, threads, kernels->workspace_bytes(job->n_atoms),
                                [=](const Share& share) { kernels->energy_float32(*job, share); });
}

EXPORT int boltzgen_energy_float64(const Kernels* kernels, const Job<double>* job, int threads) {
    return shared_among_threads(job->batch, threads, kernels->workspace_bytes(job->n_atoms),
                                [=](const Share& share) { kernels->energy_float64(*job, share); });
}

EXPORT int boltzgen_place_float32(const Kernels* kernels, const Placement<float>* job, int threads) {
    return shared_among_threads(job->batch, threads, kernels->placement_bytes(job->n_atoms),
                                [=](const Share& share) { kernels->place_float32(*job, share); });
}

EXPORT int boltzgen_place_float64(const Kernels* kernels, const Placement<double>* job, int threads) {
    return shared_among_threads(job->batch, threads, kernels->placement_bytes(job->n_atoms),
                                [=](const Share& share) { kernels->place_float64(*job, share); });
}

EXPORT int boltzgen_activate_float32(const Kernels* kernels, const Activation<float>* job, int threads) {
    return shared_among_threads(job->rows, threads, 0, [=](const Share& share) { kernels->activate_float32(*job, share); });
}

EXPORT int boltzgen_lines_float32(const Kernels* kernels, const LineMap<float>* job, int threads) {
    return shared_among_threads(job->batch, threads, 0, [=](const Share& share) { kernels->lines_float32(*job, share); });
}

EXPORT int boltzgen_circles_float32(const Kernels* kernels, const CircleMap<float>* job, int threads) {
    return shared_among_threads(job->batch, threads, kernels->circle_bytes(job->n_splines, job->n_bins),
                                [=](const Share& share) { kernels->circles_float32(*job, share); });
}

EXPORT int boltzgen_activate_float64(const Kernels* kernels, const Activation<double>* job, int threads) {
    return shared_among_threads(job->rows, threads, 0, [=](const Share& share) { kernels->activate_float64(*job, share); });
}

EXPORT int boltzgen_lines_float64(const Kernels* kernels, const LineMap<double>* job, int threads) {
    return shared_among_threads(job->batch, threads, 0, [=](const Share& share) { kernels->lines_float64(*job, share); });
}

EXPORT int boltzgen_circles_float64(const Kernels* kernels, const CircleMap<double>* job, int threads) {
    return shared_among_threads(job->batch, threads, kernels->circle_bytes(job->n_splines, job->n_bins),
                                [=](const Share& share) { kernels->circles_float64(*job, share); });
}

// For the arithmetic limit of a core: performs and counts float32 multiply-adds.
EXPORT int64_t boltzgen_multiply_adds(const Kernels* kernels, int64_t rounds, float* result) {
    return kernels->multiply_adds(rounds, result);
}
