// Rational-quadratic splines of the circle with rotations, and their adjoints.
#pragma once

#include "flow.h"

namespace BOLTZGEN_ISA {

// x on the circle [−π, π)
template <class V> INLINE V wrap(V x) {
    typedef Scalar<V> S;
    constexpr S turn = S(6.283185307179586477);
    V turns = (x * S(0.15915494309189533577) + Traits<V>::round_magic) - Traits<V>::round_magic;
    V y = x - turns * turn;
    y = select<V>(y >= S(3.141592653589793238), y - turn, y);
    return select<V>(y < S(-3.141592653589793238), y + turn, y);
}

// The bin of a circular rational-quadratic spline that a point lies in; lanes may be in different bins.
template <class V> struct SplineBin {
    typedef Scalar<V> S;
    static constexpr S minimum_bin = S(1e-3), minimum_slope = S(1e-3), turn = S(6.283185307179586477);

    V index{};                             // of the bin
    V x0{}, w{}, y0{}, h{}, d0{}, d1{};    // left end and width, lower end and height, slopes at both ends
    V raw0{}, raw1{};                      // unnormalised slopes, shifted
    V scale_x{}, scale_y{};                // of e^(unnormalised) to sizes
    V before_x{}, inside_x{}, before_y{}, inside_y{};  // shares of the softmax in the bins before, and in this one

    // parameters: K widths, K heights, K slopes; exponentials of the first 2 K go into the workspace.
    INLINE_MEMBER SplineBin(const V* parameters, int n, V point, bool by_y, V* exponentials) {
        const V factor_x = normalise(parameters, n, exponentials), factor_y = normalise(parameters + n, n, exponentials + n);
        const S spread = turn * (S(1) - minimum_bin * S(n));
        scale_x = factor_x * spread, scale_y = factor_y * spread;
        const S least = turn * minimum_bin, pi = S(0.5) * turn;
        V right = broadcast<V>(-pi), top = right, low_x = V{}, low_y = V{};
        for (int k = 0; k < n; ++k) {
            V width = exponentials[k] * scale_x + least, height = exponentials[n + k] * scale_y + least;
            V next = parameters[2 * n + (k + 1 < n ? k + 1 : 0)];
            Mask<V> beyond = k ? point >= (by_y ? top : right) : Mask<V>{} - 1;
            index = select<V>(beyond, broadcast<V>(S(k)), index);
            x0 = select<V>(beyond, right, x0), w = select<V>(beyond, width, w);
            y0 = select<V>(beyond, top, y0), h = select<V>(beyond, height, h);
            raw0 = select<V>(beyond, parameters[2 * n + k], raw0), raw1 = select<V>(beyond, next, raw1);
            before_x = select<V>(beyond, low_x, before_x), inside_x = select<V>(beyond, exponentials[k], inside_x);
            before_y = select<V>(beyond, low_y, before_y), inside_y = select<V>(beyond, exponentials[n + k], inside_y);
            right += width, top += height, low_x += exponentials[k], low_y += exponentials[n + k];
        }
        before_x *= factor_x, inside_x *= factor_x, before_y *= factor_y, inside_y *= factor_y;
        raw0 += S(0.54132485461291810), raw1 += S(0.54132485461291810);  // softplus⁻¹(1)
        d0 = slope(raw0), d1 = slope(raw1);
    }

    INLINE_MEMBER static V normalise(const V* parameters, int n, V* exponentials) {
        V largest = parameters[0], sum{};
        for (int k = 1; k < n; ++k) largest = maximum(parameters[k], largest);
        for (int k = 0; k < n; ++k) sum += exponentials[k] = exp(parameters[k] - largest);
        return S(1) / sum;
    }

    INLINE_MEMBER static V slope(V raw) {
        return minimum_slope + (S(1) - minimum_slope) * (maximum(raw, V{}) + log1p(exp(-absolute(raw))));
    }

    // y and ln dy/dx
    INLINE_MEMBER V forward(V x, V& log_slope) const {
        return at((x - x0) / w, log_slope);
    }

    INLINE_MEMBER V at(V t, V& log_slope) const {
        V s = h / w, curvature = d0 + d1 - S(2) * s;
        V rest = S(1) - t, q = t * rest, denominator = s + curvature * q;
        V ratio = s / denominator;
        log_slope = log_or_nan((d1 * t * t + S(2) * s * q + d0 * rest * rest) * ratio * ratio);
        return y0 + h * (s * t * t + d0 * q) / denominator;
    }

    // x and ln dx/dy
    INLINE_MEMBER V inverse(V y, V& log_slope) const {
        V t = solve(y);
        at(t, log_slope);
        log_slope = -log_slope;
        return x0 + w * t;
    }

    // (x − x0)/w of a given result: the root in [0, 1] of the quadratic that the bin inverts
    INLINE_MEMBER V solve(V point) const {
        V s = h / w, curvature = d0 + d1 - S(2) * s, y = point - y0;
        V a = h * (s - d0) + y * curvature, b = h * d0 - y * curvature, c = -s * y;
        V discriminant = b * b - S(4) * a * c;
        discriminant = select<V>(discriminant < S(0), V{}, discriminant);
        return S(2) * c / (-b - sqrt(discriminant));
    }

    // Adjoints of the input (returned) and of the 3 K parameters, from those of the result and of the log slope.
    INLINE_MEMBER V adjoint(V input, V g_result, V g_log, bool back, const V* exponentials, int n, V* g_parameters) const {
        V over_w = S(1) / w, s = h * over_w, curvature = d0 + d1 - S(2) * s, t = back ? solve(input) : (input - x0) * over_w;
        V rest = S(1) - t, q = t * rest, q_t = S(1) - S(2) * t;
        V inverse_d = S(1) / (s + curvature * q), numerator = (s * t * t + d0 * q) * inverse_d;
        V slope_m = d1 * t * t + S(2) * s * q + d0 * rest * rest, over_m = S(1) / slope_m;
        // of y, by each variable: h (N_v − D_v N/D)/D; of the log slope: M_v/M − 2 D_v/D
        V steep = h * inverse_d, two_d = S(2) * inverse_d;
        V d_t = curvature * q_t, d_s = S(1) - S(2) * q;
        V y_t = steep * (S(2) * s * t + d0 * q_t - numerator * d_t);
        V l_t = S(2) * (d1 * t + s * q_t - d0 * rest) * over_m - two_d * d_t;
        V g_y = g_result, g_l = g_log, g_x = V{};
        if (back) {
            g_x = (g_result - g_log * l_t * over_w) / (y_t * over_w);
            g_y = -g_x, g_l = -g_log;
        }
        V g_t = g_y * y_t + g_l * l_t;
        if (!back) g_x = g_t * over_w;
        V g_s = g_y * steep * (t * t - numerator * d_s) + g_l * (S(2) * q * over_m - two_d * d_s + S(2) / s);
        V common = g_y * steep * q, shared = common * numerator + g_l * two_d * q;
        V g_d0 = common - shared + g_l * rest * rest * over_m, g_d1 = g_l * t * t * over_m - shared;
        V g_h = g_y * numerator + g_s * over_w, g_w = -(g_s * s + g_t * t) * over_w, g_x0 = -g_t * over_w;
        const S spread = turn * (S(1) - minimum_bin * S(n));
        softmax_adjoint(exponentials, n, scale_x, g_x0, g_w, spread, before_x, inside_x, g_parameters);
        softmax_adjoint(exponentials + n, n, scale_y, g_y, g_h, spread, before_y, inside_y, g_parameters + n);
        g_d0 *= (S(1) - minimum_slope) * sigmoid(raw0), g_d1 *= (S(1) - minimum_slope) * sigmoid(raw1);
        const V following = select<V>(index == S(n - 1), V{}, index + S(1));
        for (int k = 0; k < n; ++k)
            g_parameters[2 * n + k] = select<V>(index == S(k), g_d0, V{}) + select<V>(following == S(k), g_d1, V{});
        return g_x;
    }

    // The left end is the sum of the sizes of the bins before.
    INLINE_MEMBER void softmax_adjoint(const V* exponentials, int n, V scale, V g_end, V g_size, S spread, V before, V inside,
                                       V* g_parameters) const {
        const V mean = spread * (g_end * before + g_size * inside), share = scale * (S(1) / spread);
        for (int k = 0; k < n; ++k) {
            V g = select<V>(index > S(k), g_end, select<V>(index == S(k), g_size, V{}));
            g_parameters[k] = exponentials[k] * share * (g * spread - mean);
        }
    }
};

static int64_t circle_bytes(int32_t n_splines, int32_t n_bins) {
    return VECTOR_BYTES * (3 * int64_t(3 * n_bins + 1) * n_splines + 2 * n_bins + n_splines + 1);
}

// Splines of the circle in turn, each followed by a rotation by π times its last parameter.
template <class V> static void map_circles(const CircleMap<Scalar<V>>& job, const Share& share) {
    typedef Scalar<V> S;
    const S pi = S(3.141592653589793238);
    const int n = job.n_bins, each = 3 * n + 1, rows = job.n_splines * each;
    V* parameters = static_cast<V*>(share.workspace);
    V* g_parameters = parameters + rows;
    V* sums = g_parameters + rows;
    V* exponentials = sums + rows;
    V* points = exponentials + 2 * n;
    for (int row = 0; row < rows; ++row) sums[row] = V{};
    for (int64_t k = share.begin; k < share.end; k += WIDTH<V>) {
        const int64_t count = share.end - k;
        for (int row = 0; row < rows; ++row) parameters[row] = load_some<V>(job.parameters + row * job.batch + k, count) + job.bias[row];
        V x = load_some<V>(job.input + k, count), sum{}, log_slope;
        for (int step = 0; step < job.n_splines; ++step) {
            const V* own = parameters + each * (job.inverse ? job.n_splines - 1 - step : step);
            if (job.inverse) x = wrap(x - pi * own[each - 1]);
            points[step] = x;
            if (job.result_adjoint && step + 1 == job.n_splines) break;
            const SplineBin<V> bin(own, n, x, job.inverse, exponentials);
            x = job.inverse ? bin.inverse(x, log_slope) : bin.forward(x, log_slope);
            if (!job.inverse) x = wrap(x + pi * own[each - 1]);
            sum += log_slope;
        }
        if (!job.result_adjoint) {
            store_some(job.result + k, x, count);
            store_some(job.log_slope + k, sum, count);
            continue;
        }
        V g = load_some<V>(job.result_adjoint + k, count), g_log = load_some<V>(job.log_slope_adjoint + k, count);
        for (int step = job.n_splines - 1; step >= 0; --step) {
            const int at = each * (job.inverse ? job.n_splines - 1 - step : step);
            if (!job.inverse) g_parameters[at + each - 1] = pi * g;
            const SplineBin<V> bin(parameters + at, n, points[step], job.inverse, exponentials);
            g = bin.adjoint(points[step], g, g_log, job.inverse, exponentials, n, g_parameters + at);
            if (job.inverse) g_parameters[at + each - 1] = -pi * g;
        }
        store_some(job.input_adjoint + k, g, count);
        for (int row = 0; row < rows; ++row) {
            store_some(job.parameters_adjoint + row * job.batch + k, g_parameters[row], count);
            sums[row] += only_some(g_parameters[row], count);
        }
    }
    for (int row = 0; job.result_adjoint && row < rows; ++row) job.bias_adjoint[row] = sum_of_lanes(sums[row]);
}

}  // namespace BOLTZGEN_ISA
