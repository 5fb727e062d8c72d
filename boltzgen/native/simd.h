// Vectors of samples: one lane is one sample, so that every force-field term is written once, as scalar code.
//
// The width follows the instruction set that this file is compiled for (kernels.cpp is compiled several times). No standard
// library templates here: their instantiations could be merged by the linker with ones of another instruction set.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#endif
#if !defined(__AVX512F__) && !defined(__AVX2__)
#include <cmath>
#endif

#define INLINE static inline __attribute__((always_inline))
#define INLINE_MEMBER inline __attribute__((always_inline))

namespace BOLTZGEN_ISA {

#if defined(__AVX512F__)
constexpr int VECTOR_BYTES = 64;
#elif defined(__AVX2__)
constexpr int VECTOR_BYTES = 32;
#else
constexpr int VECTOR_BYTES = 16;
#endif

typedef float Float __attribute__((vector_size(VECTOR_BYTES)));
typedef double Double __attribute__((vector_size(VECTOR_BYTES)));
typedef int32_t Int32 __attribute__((vector_size(VECTOR_BYTES)));
typedef int64_t Int64 __attribute__((vector_size(VECTOR_BYTES)));

// Scalar, integer and constants that belong to a vector type.
template <class V> struct Traits;

template <> struct Traits<Float> {
    typedef float Scalar;
    typedef Int32 Mask;
    typedef int32_t Integer;
    static constexpr int mantissa = 23;
    static constexpr float round_magic = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
    static constexpr float exp_low = -87.0f, exp_high = 88.0f;
    static constexpr float ln2_high = 0.693359375f, ln2_low = -2.12194440e-4f;
};

template <> struct Traits<Double> {
    typedef double Scalar;
    typedef Int64 Mask;
    typedef int64_t Integer;
    static constexpr int mantissa = 52;
    static constexpr double round_magic = 6755399441055744.0;  // 1.5 * 2^52
    static constexpr double exp_low = -708.0, exp_high = 709.0;
    static constexpr double ln2_high = 6.93145751953125e-1, ln2_low = 1.42860682030941723212e-6;
};

template <class V> using Scalar = typename Traits<V>::Scalar;
template <class V> using Mask = typename Traits<V>::Mask;
template <class V> constexpr int WIDTH = VECTOR_BYTES / sizeof(Scalar<V>);

template <class V> INLINE V load(const Scalar<V>* from) {
    V value;
    memcpy(&value, from, sizeof(V));
    return value;
}

template <class V> INLINE void store(Scalar<V>* to, V value) { memcpy(to, &value, sizeof(V)); }

template <class V> INLINE V broadcast(Scalar<V> value) { return value - V{}; }

template <class V> INLINE V select(Mask<V> condition, V yes, V no) { return condition ? yes : no; }

template <class V> INLINE V maximum(V a, V b) { return a > b ? a : b; }

template <class V> INLINE V absolute(V x) {
    Mask<V> bits;
    memcpy(&bits, &x, sizeof(V));
    bits &= ~(Mask<V>{} + (typename Traits<V>::Integer(1) << (8 * sizeof(Scalar<V>) - 1)));
    memcpy(&x, &bits, sizeof(V));
    return x;
}

template <class V> INLINE Mask<V> as_bits(V x) {
    Mask<V> bits;
    memcpy(&bits, &x, sizeof(V));
    return bits;
}

template <class V> INLINE V from_bits(Mask<V> bits) {
    V x;
    memcpy(&x, &bits, sizeof(V));
    return x;
}

template <class M> INLINE bool any(M mask) {
    M zero{};
    return memcmp(&mask, &zero, sizeof(M)) != 0;
}

// Estimates of 12 to 14 bits with one Newton step: about one unit in the last place of float32, several times faster
// than division. float64 divides.
#if defined(__AVX512F__)
INLINE bool any(Int32 mask) { return _mm512_test_epi32_mask((__m512i)mask, (__m512i)mask) != 0; }
INLINE bool any(Int64 mask) { return _mm512_test_epi64_mask((__m512i)mask, (__m512i)mask) != 0; }
INLINE Float sqrt(Float x) { return (Float)_mm512_sqrt_ps((__m512)x); }
INLINE Double sqrt(Double x) { return (Double)_mm512_sqrt_pd((__m512d)x); }
INLINE Float reciprocal_estimate(Float x) { return (Float)_mm512_rcp14_ps((__m512)x); }
INLINE Float rsqrt_estimate(Float x) { return (Float)_mm512_rsqrt14_ps((__m512)x); }
#elif defined(__AVX2__)
INLINE bool any(Int32 mask) { return _mm256_movemask_epi8((__m256i)mask) != 0; }
INLINE bool any(Int64 mask) { return _mm256_movemask_epi8((__m256i)mask) != 0; }
INLINE Float sqrt(Float x) { return (Float)_mm256_sqrt_ps((__m256)x); }
INLINE Double sqrt(Double x) { return (Double)_mm256_sqrt_pd((__m256d)x); }
INLINE Float reciprocal_estimate(Float x) { return (Float)_mm256_rcp_ps((__m256)x); }
INLINE Float rsqrt_estimate(Float x) { return (Float)_mm256_rsqrt_ps((__m256)x); }
#else
template <class V> INLINE V sqrt(V x) {
    for (int lane = 0; lane < WIDTH<V>; ++lane) x[lane] = ::sqrt(x[lane]);
    return x;
}
INLINE Float reciprocal(Float x) { return 1.0f / x; }
INLINE Float rsqrt(Float x) { return 1.0f / sqrt(x); }
#endif
#if defined(__AVX512F__) || defined(__AVX2__)
INLINE Float reciprocal(Float x) {
    Float y = reciprocal_estimate(x);
    return y * (2.0f - x * y);
}
INLINE Float rsqrt(Float x) {
    Float y = rsqrt_estimate(x);
    return y * (1.5f - 0.5f * x * y * y);
}
#endif
INLINE Double reciprocal(Double x) { return 1.0 / x; }
INLINE Double rsqrt(Double x) { return 1.0 / sqrt(x); }

// A sum whose rounding errors are carried along (Kahan): energies of 1e4 kJ/mol come from terms that cancel.
template <class V> struct Sum {
    V value, excess;

    INLINE_MEMBER void operator+=(V term) {
        V corrected = term - excess, total = value + corrected;
        excess = (total - value) - corrected;
        value = total;
    }
};

template <class V> struct Vector3 {
    V x, y, z;
};

template <class V> INLINE Vector3<V> operator-(Vector3<V> a, Vector3<V> b) { return {a.x - b.x, a.y - b.y, a.z - b.z}; }
template <class V> INLINE Vector3<V> operator+(Vector3<V> a, Vector3<V> b) { return {a.x + b.x, a.y + b.y, a.z + b.z}; }
template <class V> INLINE Vector3<V> operator-(Vector3<V> a) { return {-a.x, -a.y, -a.z}; }
template <class V> INLINE Vector3<V> operator*(V s, Vector3<V> a) { return {s * a.x, s * a.y, s * a.z}; }
template <class V> INLINE V dot(Vector3<V> a, Vector3<V> b) { return a.x * b.x + a.y * b.y + a.z * b.z; }
template <class V> INLINE Vector3<V> cross(Vector3<V> a, Vector3<V> b) {
    return {a.y * b.z - a.z * b.y, a.z * b.x - a.x * b.z, a.x * b.y - a.y * b.x};
}

// Positions or gradients of one block of samples: three vectors an atom.
template <class V> INLINE Vector3<V> atom(const V* block, int index) {
    const V* row = block + 3 * index;
    return {row[0], row[1], row[2]};
}
template <class V> INLINE void add_to_atom(V* block, int index, Vector3<V> value) {
    V* row = block + 3 * index;
    row[0] += value.x;
    row[1] += value.y;
    row[2] += value.z;
}

}  // namespace BOLTZGEN_ISA
