// MMFF94 and MMFF94s; the formulas are in boltzgen/energy/mmff.py. Torsions are rows of FOURIER_TORSION.
#pragma once

#include "nonbonded.h"

namespace BOLTZGEN_ISA {

// Floor of r² of non-bonded pairs in nm², whose energy is finite at r = 0, and under the roots of Wilson angles.
constexpr double MMFF_FLOOR = 1e-24;

template <class V> INLINE V above_floor(V square) { return maximum(square, broadcast<V>(Scalar<V>(MMFF_FLOOR))); }

// p = (k, r₀), then the cubic and the quartic constant of the force field.
template <class V> INLINE void mmff_bonds(const Table<Scalar<V>>& table, Block<V>& block) {
    typedef Scalar<V> S;
    const S cubic = table.shared[0], quartic = table.shared[1];
    for (int row = 0; row < table.rows; ++row) {
        const int32_t* atoms = table.atoms + 2 * row;
        const S* p = table.parameters + 2 * row;
        Vector3<V> arm = atom(block.x, atoms[0]) - atom(block.x, atoms[1]);
        V r2 = dot(arm, arm), inverse_r = rsqrt(r2), d = r2 * inverse_r - p[1];
        V kd = p[0] * d;
        block.energy += S(0.5) * kd * d * (S(1) + d * (quartic * d - cubic));
        V slope = kd * (S(1) + d * (S(2) * quartic * d - S(1.5) * cubic));
        Vector3<V> force = (slope * inverse_r) * arm;
        add_to_atom(block.g, atoms[0], force);
        add_to_atom(block.g, atoms[1], -force);
    }
}

template <class V> INLINE void add_to_angle(Block<V>& block, const int32_t* atoms, Vector3<V> first, Vector3<V> last) {
    add_to_atom(block.g, atoms[0], first);
    add_to_atom(block.g, atoms[2], last);
    add_to_atom(block.g, atoms[1], -(first + last));
}

// p = (k, θ₀), then the cubic constant.
template <class V> INLINE void mmff_angles(const Table<Scalar<V>>& table, Block<V>& block) {
    typedef Scalar<V> S;
    const S cubic = table.shared[0];
    for (int row = 0; row < table.rows; ++row) {
        const int32_t* atoms = table.atoms + 3 * row;
        const S* p = table.parameters + 2 * row;
        Vector3<V> centre = atom(block.x, atoms[1]);
        Angle<V> angle = bond_angle(atom(block.x, atoms[0]) - centre, atom(block.x, atoms[2]) - centre);
        V d = angle.theta - p[1], kd = p[0] * d;
        block.energy += S(0.5) * kd * d * (S(1) - cubic * d);
        V slope = kd * (S(1) - S(1.5) * cubic * d);
        add_to_angle(block, atoms, slope * angle.first, slope * angle.last);
    }
}

// p = (k).
template <class V> INLINE void mmff_linear_angles(const Table<Scalar<V>>& table, Block<V>& block) {
    typedef Scalar<V> S;
    for (int row = 0; row < table.rows; ++row) {
        const int32_t* atoms = table.atoms + 3 * row;
        const S k = table.parameters[row];
        Vector3<V> centre = atom(block.x, atoms[1]);
        Vector3<V> a = atom(block.x, atoms[0]) - centre, b = atom(block.x, atoms[2]) - centre;
        V inverse_a = rsqrt(dot(a, a)), inverse_b = rsqrt(dot(b, b));
        V scale = inverse_a * inverse_b, cosine = dot(a, b) * scale;
        block.energy += k * (S(1) + cosine);
        Vector3<V> first = (k * scale) * b - (k * cosine * inverse_a * inverse_a) * a;
        Vector3<V> last = (k * scale) * a - (k * cosine * inverse_b * inverse_b) * b;
        add_to_angle(block, atoms, first, last);
    }
}

// p = (k₁, k₂, r₁, r₂, θ₀).
template <class V> INLINE void mmff_stretch_bends(const Table<Scalar<V>>& table, Block<V>& block) {
    typedef Scalar<V> S;
    for (int row = 0; row < table.rows; ++row) {
        const int32_t* atoms = table.atoms + 3 * row;
        const S* p = table.parameters + 5 * row;
        Vector3<V> centre = atom(block.x, atoms[1]);
        Vector3<V> a = atom(block.x, atoms[0]) - centre, b = atom(block.x, atoms[2]) - centre;
        V a2 = dot(a, a), b2 = dot(b, b);
        V inverse_a = rsqrt(a2), inverse_b = rsqrt(b2);
        Angle<V> angle = bond_angle(a, b);
        V stretch = p[0] * (a2 * inverse_a - p[2]) + p[1] * (b2 * inverse_b - p[3]), bend = angle.theta - p[4];
        block.energy += stretch * bend;
        Vector3<V> first = stretch * angle.first + (p[0] * bend * inverse_a) * a;
        Vector3<V> last = stretch * angle.last + (p[1] * bend * inverse_b) * b;
        add_to_angle(block, atoms, first, last);
    }
}

// Adds the term of one Wilson angle χ, of arm c with the plane of a and b: dχ = dT/q − T dM/(2qM), where T = c·(a×b),
// M = |a×b|²|c|² and q = |(a×b)×c|.
template <class V>
INLINE V wilson_angle(Scalar<V> k, Vector3<V> a, Vector3<V> b, Vector3<V> c, V triple, Vector3<V>& ga, Vector3<V>& gb,
                      Vector3<V>& gc) {
    typedef Scalar<V> S;
    Vector3<V> normal = cross(a, b);
    V normal2 = dot(normal, normal), c2 = dot(c, c), product = above_floor(normal2 * c2);
    Vector3<V> in_plane = cross(normal, c);
    V in_plane2 = dot(in_plane, in_plane);
    Mask<V> upright = in_plane2 < S(MMFF_FLOOR);
    V inverse = select<V>(upright, V{}, rsqrt(select<V>(upright, broadcast<V>(1), in_plane2)));
    V size = absolute(triple), chi = atan2_upper(size, in_plane2 * inverse);
    chi = select<V>(triple < S(0), -chi, chi);
    V slope = k * chi * inverse, along = slope * triple * reciprocal(product);
    ga = ga + slope * cross(b, c) - (along * c2) * cross(b, normal);
    gb = gb + slope * cross(c, a) - (along * c2) * cross(normal, a);
    gc = gc + slope * normal - (along * normal2) * c;
    return S(0.5) * k * chi * chi;
}

// p = (k); the centre is the first atom.
template <class V> INLINE void mmff_out_of_planes(const Table<Scalar<V>>& table, Block<V>& block) {
    for (int row = 0; row < table.rows; ++row) {
        const int32_t* atoms = table.atoms + 4 * row;
        const Scalar<V> k = table.parameters[row];
        Vector3<V> centre = atom(block.x, atoms[0]);
        Vector3<V> a = atom(block.x, atoms[1]) - centre, b = atom(block.x, atoms[2]) - centre;
        Vector3<V> c = atom(block.x, atoms[3]) - centre;
        Vector3<V> ga{V{}, V{}, V{}}, gb = ga, gc = ga;
        V triple = dot(c, cross(a, b));
        block.energy += wilson_angle(k, a, b, c, triple, ga, gb, gc);
        block.energy += wilson_angle(k, b, c, a, triple, gb, gc, ga);
        block.energy += wilson_angle(k, c, a, b, triple, gc, ga, gb);
        add_to_atom(block.g, atoms[1], ga);
        add_to_atom(block.g, atoms[2], gb);
        add_to_atom(block.g, atoms[3], gc);
        add_to_atom(block.g, atoms[0], -(ga + gb + gc));
    }
}

// Buffered 14-7 and buffered Coulomb: p = (1/R*, ε, q²/(4πε₀)), then the buffer in nm.
template <class V, bool SOFT> INLINE void mmff_pairs(const Table<Scalar<V>>& table, Block<V>& block) {
    typedef Scalar<V> S;
    const S buffer = table.shared[0];
    over_pairs(table, block, [&](int row, V square) __attribute__((always_inline)) {
        const S* p = table.parameters + 3 * row;
        V r2 = above_floor(square), inverse_r = rsqrt(r2), r = r2 * inverse_r;
        V rho = p[0] * r, rho2 = rho * rho, rho6 = rho2 * rho2 * rho2;
        V shifted = rho + S(0.07), denominator = rho6 * rho + S(0.12), distance = r + buffer;
        V inverse_shifted = reciprocal(shifted), inverse = reciprocal(denominator), inverse_distance = reciprocal(distance);
        V g = S(1.07) * inverse_shifted, g2 = g * g, g7 = g2 * g2 * g2 * g;
        V repulsion = p[1] * g7, well = S(1.12) * inverse - S(2), coulomb = p[2] * inverse_distance;
        V slope = S(-7) * repulsion * p[0] * (well * inverse_shifted + S(1.12) * rho6 * inverse * inverse);
        Pair<V> pair{repulsion * well + coulomb, (slope - coulomb * inverse_distance) * inverse_r};
        if (SOFT) soften(pair, block.softening);
        block.energy += pair.energy;
        return pair.slope;
    });
}

}  // namespace BOLTZGEN_ISA
