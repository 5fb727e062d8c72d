// What the element-wise parts of the flow share, and the activation of its networks. One lane is one sample; arrays are
// (rows, batch). Definitions, with sources: boltzgen/flow/spline.py.
//
// Adjoints of a map back follow from those of the map itself: with x = f⁻¹(y) and ln |dx/dy| = −ln f'(x), one solves for
// the adjoint of y, and the parameters see it with the sign turned.
#pragma once

#include "program.h"
#include "vmath.h"

namespace BOLTZGEN_ISA {

// The lanes of a row that the batch has; the others repeat the last one, and are not stored.
template <class V> INLINE V load_some(const Scalar<V>* from, int64_t count) {
    if (count >= WIDTH<V>) return load<V>(from);
    V value;
    for (int lane = 0; lane < WIDTH<V>; ++lane) value[lane] = from[lane < count ? lane : count - 1];
    return value;
}

template <class V> INLINE void store_some(Scalar<V>* to, V value, int64_t count) {
    if (count >= WIDTH<V>) return store<V>(to, value);
    for (int lane = 0; lane < count; ++lane) to[lane] = value[lane];
}

// Zero in the lanes that the batch has not.
template <class V> INLINE V only_some(V value, int64_t count) {
    for (int lane = int(count); lane < WIDTH<V>; ++lane) value[lane] = 0;
    return value;
}

template <class V> INLINE Scalar<V> sum_of_lanes(V value) {
    Scalar<V> sum = 0;
    for (int lane = 0; lane < WIDTH<V>; ++lane) sum += value[lane];
    return sum;
}

template <class V> INLINE V sigmoid(V x) { return reciprocal(Scalar<V>(1) + exp(-x)); }

// For x ≥ 0, with small relative error at zero.
template <class V> INLINE V log1p(V x) {
    V shifted = Scalar<V>(1) + x;
    return log(shifted) + (x - (shifted - Scalar<V>(1))) * reciprocal(shifted);
}

// SiLU of W x + b. Forward: values hold W x, and become the result; slopes, unless null, the derivative.
// Adjoint: values hold the adjoint of the result, and become that of W x; the bias has its sum over the batch.
template <class V> static void activate(const Activation<Scalar<V>>& job, const Share& share) {
    typedef Scalar<V> S;
    for (int64_t row = share.begin; row < share.end; ++row) {
        S* values = job.values + row * job.batch;
        S* slopes = job.slopes ? job.slopes + row * job.batch : nullptr;
        if (job.bias_adjoint) {
            V sum{};
            for (int64_t k = 0; k < job.batch; k += WIDTH<V>) {
                const int64_t count = job.batch - k;
                V g = load_some<V>(values + k, count) * load_some<V>(slopes + k, count);
                store_some(values + k, g, count);
                sum += only_some(g, count);
            }
            job.bias_adjoint[row] = sum_of_lanes(sum);
            continue;
        }
        const S bias = job.bias[row];
        for (int64_t k = 0; k < job.batch; k += WIDTH<V>) {
            const int64_t count = job.batch - k;
            V u = load_some<V>(values + k, count) + bias;
            V gate = sigmoid(u), h = u * gate;
            store_some(values + k, h, count);
            if (slopes) store_some(slopes + k, gate + h * (S(1) - gate), count);
        }
    }
}

}  // namespace BOLTZGEN_ISA
