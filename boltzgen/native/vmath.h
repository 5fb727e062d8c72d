// Elementary functions of vectors, to about two units in the last place, by range reduction and polynomials
// (coefficients of Moshier's Cephes library, and of the Taylor series for float64 exp).
#pragma once

#include "simd.h"

namespace BOLTZGEN_ISA {

template <class V, int N> INLINE V polynomial(V x, const Scalar<V> (&coefficients)[N]) {
    V value = broadcast<V>(coefficients[0]);
    for (int k = 1; k < N; ++k) value = value * x + coefficients[k];
    return value;
}

template <class V> struct Coefficients;

template <> struct Coefficients<Float> {
    static constexpr float exp[] = {1.9875691500e-4f, 1.3981999507e-3f, 8.3334519073e-3f, 4.1665795894e-2f,
                                    1.6666665459e-1f, 5.0000001201e-1f, 1.0f, 1.0f};
    static constexpr float log[] = {7.0376836292e-2f, -1.1514610310e-1f, 1.1676998740e-1f, -1.2420140846e-1f, 1.4249322787e-1f,
                                    -1.6668057665e-1f, 2.0000714765e-1f, -2.4999993993e-1f, 3.3333331174e-1f};
    static constexpr float sin[] = {-1.9515295891e-4f, 8.3321608736e-3f, -1.6666654611e-1f};
    static constexpr float cos[] = {2.443315711809948e-5f, -1.388731625493765e-3f, 4.166664568298827e-2f};
    static constexpr float half_pi[] = {1.5703125f, 4.837512969970703125e-4f, 7.549789948768648e-8f};
    static constexpr float atan[] = {8.05374449538e-2f, -1.38776856032e-1f, 1.99777106478e-1f, -3.33329491539e-1f};
};

template <> struct Coefficients<Double> {
    static constexpr double exp[] = {1.0 / 6227020800.0, 1.0 / 479001600.0, 1.0 / 39916800.0, 1.0 / 3628800.0, 1.0 / 362880.0,
                                     1.0 / 40320.0, 1.0 / 5040.0, 1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0};
    static constexpr double sin[] = {1.58962301576546568060e-10, -2.50507477628578072866e-8, 2.75573136213857245213e-6,
                                     -1.98412698295895385996e-4, 8.33333333332211858878e-3, -1.66666666666666307295e-1};
    static constexpr double cos[] = {-1.13585365213876817300e-11, 2.08757008419747316778e-9, -2.75573141792967388112e-7,
                                     2.48015872888517045348e-5, -1.38888888888730564116e-3, 4.16666666666665929218e-2};
    static constexpr double half_pi[] = {1.57079625129699707031, 7.54978941586159635336e-8, 5.39030285815811842600e-15};
};

template <class V> INLINE V exp(V x) {
    typedef Traits<V> T;
    x = select<V>(x < T::exp_low, broadcast<V>(T::exp_low), x);
    x = select<V>(x > T::exp_high, broadcast<V>(T::exp_high), x);
    V shifted = x * Scalar<V>(1.4426950408889634) + T::round_magic;
    V k = shifted - T::round_magic;
    V r = x - k * T::ln2_high - k * T::ln2_low;
    Mask<V> power = (as_bits(shifted) - as_bits(broadcast<V>(T::round_magic))) << T::mantissa;
    return from_bits<V>(as_bits(polynomial(r, Coefficients<V>::exp)) + power);
}

// x = m 2^e with m in [sqrt(1/2), sqrt(2)): returns m − 1 and e. Zero, negative and infinite arguments are not treated.
template <class V> INLINE V split(V x, V& exponent) {
    typedef Traits<V> T;
    Mask<V> bits = as_bits(x);
    Mask<V> e = (bits - as_bits(broadcast<V>(Scalar<V>(0.70710678118654752440)))) >> T::mantissa;
    exponent = __builtin_convertvector(e, V);
    return from_bits<V>(bits - (e << T::mantissa)) - Scalar<V>(1);
}

INLINE Float log(Float x) {
    Float e, f = split(x, e);
    Float z = f * f;
    Float y = f * z * polynomial(f, Coefficients<Float>::log) + e * Traits<Float>::ln2_low - 0.5f * z;
    return f + y + e * Traits<Float>::ln2_high;
}

INLINE Double log(Double x) {
    Double e, f = split(x, e);
    Double s = f / (2.0 + f), z = s * s;
    // ln((1+s)/(1−s)) = 2 atanh s
    static constexpr double series[] = {1.479819860511658591e-1, 1.531383769920937332e-1, 1.818357216161805012e-1,
                                        2.222219843214978396e-1, 2.857142874366239149e-1, 3.999999999940941908e-1,
                                        6.666666666666735130e-1};
    Double half = 0.5 * f * f;
    Double y = s * (half + z * polynomial(z, series)) + e * Traits<Double>::ln2_low;
    return f - (half - y) + e * Traits<Double>::ln2_high;
}

// ln x, and NaN unless 0 < x < infinity.
template <class V> INLINE V log_or_nan(V x) {
    Mask<V> regular = (x > Scalar<V>(0)) & (x < Scalar<V>(__builtin_inf()));
    return select<V>(regular, log(x), broadcast<V>(Scalar<V>(__builtin_nan(""))));
}

// For arguments within 1e5 of zero: beyond, the reduction to a quarter turn has too few digits.
template <class V> INLINE void sincos(V x, V& sine, V& cosine) {
    typedef Traits<V> T;
    V shifted = x * Scalar<V>(0.63661977236758134308) + T::round_magic;
    V k = shifted - T::round_magic;
    Mask<V> quadrant = as_bits(shifted) - as_bits(broadcast<V>(T::round_magic));
    V r = x - k * Coefficients<V>::half_pi[0] - k * Coefficients<V>::half_pi[1] - k * Coefficients<V>::half_pi[2];
    V z = r * r;
    V s = r + r * z * polynomial(z, Coefficients<V>::sin);
    V c = Scalar<V>(1) - Scalar<V>(0.5) * z + z * z * polynomial(z, Coefficients<V>::cos);
    Mask<V> swap = (quadrant & 1) != 0;
    V a = select<V>(swap, c, s), b = select<V>(swap, s, c);
    sine = select<V>((quadrant & 2) != 0, -a, a);
    cosine = select<V>(((quadrant + 1) & 2) != 0, -b, b);
}

// For |x| up to tan(π/8).
INLINE Float atan_small(Float x) {
    Float z = x * x;
    return x + x * z * polynomial(z, Coefficients<Float>::atan);
}

INLINE Double atan_small(Double x) {
    static constexpr double p[] = {-8.750608600031904122785e-1, -1.615753718733365076637e1, -7.500855792314704667340e1,
                                   -1.228866684490136173410e2, -6.485021904942025371773e1};
    static constexpr double q[] = {1.0, 2.485846490142306297962e1, 1.650270098316988542046e2, 4.328810604912902668951e2,
                                   4.853903996359136964868e2, 1.945506571482613964425e2};
    Double z = x * x;
    return x + x * z * (polynomial(z, p) / polynomial(z, q));
}

// Angle in [0, π] of a vector with y ≥ 0; 0 for the zero vector. One division, by the larger side or by the sum of both.
template <class V> INLINE V atan2_upper(V y, V x) {
    typedef Scalar<V> S;
    V width = absolute(x);
    Mask<V> steep = y > width;
    V large = select<V>(steep, y, width), small = select<V>(steep, width, y);
    Mask<V> middle = small > S(0.41421356237309504880) * large;
    V angle = atan_small(select<V>(middle, small - large, small) / select<V>(middle, small + large, large));
    angle = select<V>(middle, angle + S(0.78539816339744830962), angle);
    angle = select<V>(large == S(0), V{}, angle);
    angle = select<V>(steep, S(1.57079632679489661923) - angle, angle);
    return select<V>(x < S(0), S(3.14159265358979323846) - angle, angle);
}

template <class V> INLINE V tanh(V x) {
    return Scalar<V>(1) - Scalar<V>(2) / (exp(Scalar<V>(2) * x) + Scalar<V>(1));
}

}  // namespace BOLTZGEN_ISA
