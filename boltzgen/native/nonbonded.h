// Lennard-Jones and Coulomb pairs; the formulas are in boltzgen/energy/nonbonded.py.
#pragma once

#include "bonded.h"

namespace BOLTZGEN_ISA {

// Floor of r² in nm² in softened energies, see MINIMUM_DISTANCE.
constexpr double MINIMUM_R2 = 1e-4;

template <class V> struct Pair {
    V energy, slope;  // slope is dE/dr divided by r
};

// Above the threshold E₀ a pair has E₀(1 + ln(E/E₀)).
template <class V> INLINE void soften(Pair<V>& pair, Scalar<V> threshold) {
    Mask<V> above = pair.energy > threshold;
    if (any(above)) {
        V ratio = select<V>(above, pair.energy * (Scalar<V>(1) / threshold), broadcast<V>(1));
        pair.energy = select<V>(above, threshold * (Scalar<V>(1) + log(ratio)), pair.energy);
        pair.slope = pair.slope * reciprocal(ratio);
    }
}

// E = A/r¹² − B/r⁶ + C/r with p = (A, B, C).
template <class V> INLINE Pair<V> nonbonded_pair(V inverse_r, const Scalar<V>* p) {
    typedef Scalar<V> S;
    V inverse_r2 = inverse_r * inverse_r, inverse_r6 = inverse_r2 * inverse_r2 * inverse_r2;
    V repulsion = p[0] * inverse_r6 * inverse_r6, dispersion = p[1] * inverse_r6, coulomb = p[2] * inverse_r;
    return {repulsion - dispersion + coulomb, (S(6) * dispersion - S(12) * repulsion - coulomb) * inverse_r2};
}

// Squared distance with its floor; true lanes of the mask are at the floor, and have no gradient.
template <class V> INLINE Mask<V> floor_r2(V& r2) {
    Mask<V> below = r2 < Scalar<V>(MINIMUM_R2);
    r2 = select<V>(below, broadcast<V>(MINIMUM_R2), r2);
    return below;
}

// Calls slope(row, r²), which is dE/dr divided by r, for every listed pair, and adds the forces. Rows of the same first atom
// that follow each other keep it in registers.
template <class V, class F> INLINE void over_pairs(const Table<Scalar<V>>& table, Block<V>& block, F slope) {
    for (int row = 0; row < table.rows;) {
        const int32_t first = table.atoms[2 * row];
        Vector3<V> x = atom(block.x, first), total = {V{}, V{}, V{}};
        for (; row < table.rows && table.atoms[2 * row] == first; ++row) {
            const int32_t second = table.atoms[2 * row + 1];
            Vector3<V> d = x - atom(block.x, second), force = slope(row, dot(d, d)) * d;
            total = total + force;
            add_to_atom(block.g, second, -force);
        }
        add_to_atom(block.g, first, total);
    }
}

template <class V, bool SOFT> INLINE void nonbonded_pairs(const Table<Scalar<V>>& table, Block<V>& block) {
    over_pairs(table, block, [&](int row, V r2) __attribute__((always_inline)) {
        Mask<V> below{};
        if (SOFT) below = floor_r2(r2);
        Pair<V> pair = nonbonded_pair(rsqrt(r2), table.parameters + 3 * row);
        if (SOFT) soften(pair, block.softening);
        block.energy += pair.energy;
        return SOFT ? select<V>(below, V{}, pair.slope) : pair.slope;
    });
}

}  // namespace BOLTZGEN_ISA
