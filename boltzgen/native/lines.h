// Maps of the line, sinh-arcsinh and affine, and their adjoints.
#pragma once

#include "flow.h"

namespace BOLTZGEN_ISA {

// tanh and its derivative, which is small where 1 − tanh² cancels.
template <class V> INLINE V tanh(V x, V& slope) {
    V e = exp(Scalar<V>(2) * x), share = reciprocal(e + Scalar<V>(1));
    slope = Scalar<V>(4) * (e * share) * share;
    return Scalar<V>(1) - Scalar<V>(2) * share;
}

template <class V> INLINE V with_sign_of(V magnitude, V sign) {
    const Mask<V> top = Mask<V>{} + (typename Traits<V>::Integer(1) << (8 * sizeof(Scalar<V>) - 1));
    return from_bits<V>(as_bits(magnitude) | (as_bits(sign) & top));
}

// asinh x = ln(1 + u + u²/(1 + r)), u = |x|, r = √(1 + x²)
template <class V> INLINE V asinh(V x, V root) {
    V u = absolute(x);
    return with_sign_of(log1p(u + u * (u * reciprocal(Scalar<V>(1) + root))), x);
}

// sinh x by its Taylor series within ±1, where eˣ − e⁻ˣ cancels.
INLINE Float sinh_small(Float x) {
    static constexpr float series[] = {1.0f / 362880.0f, 1.0f / 5040.0f, 1.0f / 120.0f, 1.0f / 6.0f};
    Float z = x * x;
    return x + x * z * polynomial(z, series);
}

INLINE Double sinh_small(Double x) {
    static constexpr double series[] = {1.0 / 355687428096000.0, 1.0 / 1307674368000.0, 1.0 / 6227020800.0, 1.0 / 39916800.0,
                                        1.0 / 362880.0,          1.0 / 5040.0,          1.0 / 120.0,        1.0 / 6.0};
    Double z = x * x;
    return x + x * z * polynomial(z, series);
}

template <class V> INLINE V sinh(V x) {
    V e = exp(x);
    return select<V>(absolute(x) < Scalar<V>(1), sinh_small(x), Scalar<V>(0.5) * (e - reciprocal(e)));
}

// y = a + eᵇ sinh(eᶜ asinh(x) + e) with softly bounded parameters.
template <class V> struct SinhArcsinh {
    static constexpr int N_PARAMETERS = 4;
    V a, b, c, e, slope_b, slope_c, slope_e;  // bounded, and the derivatives of the bounds

    INLINE_MEMBER explicit SinhArcsinh(const V* parameters) {
        typedef Scalar<V> S;
        a = parameters[0];
        b = S(3) * tanh(parameters[1] * S(1.0 / 3.0), slope_b);
        c = tanh(parameters[2], slope_c);
        e = S(2) * tanh(parameters[3] * S(0.5), slope_e);
    }

    // y and ln |dy/dx|
    INLINE_MEMBER V forward(V x, V& log_slope) const {
        typedef Scalar<V> S;
        V x2 = S(1) + x * x;
        V y = sinh(exp(c) * asinh(x, sqrt(x2)) + e);
        log_slope = b + c + S(0.5) * log_or_nan((S(1) + y * y) * reciprocal(x2));
        return a + exp(b) * y;
    }

    // x and ln |dx/dy|
    INLINE_MEMBER V inverse(V y, V& log_slope) const {
        typedef Scalar<V> S;
        V z = (y - a) * exp(-b);
        V z2 = S(1) + z * z;
        V x = sinh((asinh(z, sqrt(z2)) - e) * exp(-c));
        log_slope = S(0.5) * log_or_nan((S(1) + x * x) * reciprocal(z2)) - b - c;
        return x;
    }

    // Adjoints of the input (returned) and of the parameters, from those of the result and of the log slope.
    INLINE_MEMBER V adjoint(V input, V g_result, V g_log, bool back, V* g_parameters) const {
        typedef Scalar<V> S;
        const V power = exp(c), scale = exp(b);
        V x = input, root = sqrt(S(1) + x * x), y, cosh, angle;  // angle = eᶜ asinh(x)
        if (back) {
            y = (input - a) * exp(-b), cosh = sqrt(S(1) + y * y), angle = asinh(y, cosh) - e;
            x = sinh(angle * exp(-c)), root = sqrt(S(1) + x * x);
        } else {
            angle = power * asinh(x, root), y = sinh(angle + e), cosh = sqrt(S(1) + y * y);
        }
        V tanh = y * reciprocal(cosh), shrink = reciprocal(root);
        V w_slope = power * shrink;                           // d(asinh of y)/dx
        V log_slope_x = tanh * w_slope - x * shrink * shrink;  // d(log slope)/dx
        V steep = scale * cosh;
        V g_y = g_result, g_l = g_log, g_x{};
        if (back) {
            g_x = (g_result - g_log * log_slope_x) * reciprocal(steep * w_slope);
            g_y = -g_x, g_l = -g_log;
        }
        V g_w = g_y * steep + g_l * tanh;
        if (!back) g_x = g_y * steep * w_slope + g_l * log_slope_x;
        g_parameters[0] = g_y;
        g_parameters[1] = (g_y * scale * y + g_l) * slope_b;
        g_parameters[2] = (g_w * angle + g_l) * slope_c;
        g_parameters[3] = g_w * slope_e;
        return g_x;
    }
};

// y = a + eᵇ x
template <class V> struct Affine {
    static constexpr int N_PARAMETERS = 2;
    V a, b;

    INLINE_MEMBER explicit Affine(const V* parameters) : a(parameters[0]), b(parameters[1]) {}

    INLINE_MEMBER V forward(V x, V& log_slope) const {
        log_slope = b;
        return a + exp(b) * x;
    }

    INLINE_MEMBER V inverse(V y, V& log_slope) const {
        log_slope = -b;
        return (y - a) * exp(-b);
    }

    INLINE_MEMBER V adjoint(V input, V g_result, V g_log, bool back, V* g_parameters) const {
        V scale = exp(back ? -b : b), g_x = g_result * scale;
        g_parameters[0] = back ? -g_x : g_result;
        g_parameters[1] = back ? g_x * (a - input) - g_log : g_x * input + g_log;
        return g_x;
    }
};

// Row after row: a row of the batch is contiguous, and the sums of the log slopes stay in the cache.
template <class V, class Map> static void map_rows(const LineMap<Scalar<V>>& job, const Share& share) {
    typedef Scalar<V> S;
    constexpr int n = Map::N_PARAMETERS;
    const int64_t batch = job.batch, size = share.end - share.begin;
    const bool adjoint = job.result_adjoint != nullptr;
    for (int64_t k = 0; k < job.n_kept; ++k) {
        const int64_t at = job.kept[k] * batch + share.begin;
        memcpy((adjoint ? job.input_adjoint : job.result) + at, (adjoint ? job.result_adjoint : job.input) + at, size * sizeof(S));
    }
    if (!adjoint) memset(job.log_slope + share.begin, 0, size * sizeof(S));
    for (int64_t row = 0; row < job.n_moved; ++row) {
        const int64_t from = job.moved[row] * batch;
        V sums[n]{};
        for (int64_t k = share.begin; k < share.end; k += WIDTH<V>) {
            const int64_t count = share.end - k;
            V parameters[n], point = load_some<V>(job.input + from + k, count);
            for (int p = 0; p < n; ++p) {
                const int64_t at = p * job.n_moved + row;
                parameters[p] = load_some<V>(job.parameters + at * batch + k, count) + job.bias[at];
            }
            const Map map(parameters);
            if (adjoint) {
                V g = load_some<V>(job.result_adjoint + from + k, count), g_log = load_some<V>(job.log_slope_adjoint + k, count);
                V g_parameters[n];
                store_some(job.input_adjoint + from + k, map.adjoint(point, g, g_log, job.inverse, g_parameters), count);
                for (int p = 0; p < n; ++p) {
                    store_some(job.parameters_adjoint + (p * job.n_moved + row) * batch + k, g_parameters[p], count);
                    sums[p] += only_some(g_parameters[p], count);
                }
                continue;
            }
            V log_slope, result = job.inverse ? map.inverse(point, log_slope) : map.forward(point, log_slope);
            store_some(job.result + from + k, result, count);
            store_some(job.log_slope + k, load_some<V>(job.log_slope + k, count) + log_slope, count);
        }
        for (int p = 0; adjoint && p < n; ++p) job.bias_adjoint[p * job.n_moved + row] = sum_of_lanes(sums[p]);
    }
}

template <class V> static void map_lines(const LineMap<Scalar<V>>& job, const Share& share) {
    job.affine ? map_rows<V, Affine<V>>(job, share) : map_rows<V, SinhArcsinh<V>>(job, share);
}

}  // namespace BOLTZGEN_ISA
