// Bonds, angles and torsions; the formulas are in boltzgen/energy/bonded.py.
#pragma once

#include "program.h"
#include "vmath.h"

namespace BOLTZGEN_ISA {

// Positions and gradient of one block of samples, and the energy so far.
template <class V> struct Block {
    const V* x;
    V* g;
    Sum<V> energy;
    Scalar<V> softening;
};

template <class V> INLINE void harmonic_bonds(const Table<Scalar<V>>& table, Block<V>& block) {
    for (int row = 0; row < table.rows; ++row) {
        const int32_t* atoms = table.atoms + 2 * row;
        const Scalar<V>* p = table.parameters + 2 * row;
        Vector3<V> d = atom(block.x, atoms[0]) - atom(block.x, atoms[1]);
        V r2 = dot(d, d), inverse_r = rsqrt(r2), stretch = r2 * inverse_r - p[0];
        block.energy += (Scalar<V>(0.5) * p[1]) * stretch * stretch;
        Vector3<V> force = (p[1] * stretch * inverse_r) * d;
        add_to_atom(block.g, atoms[0], force);
        add_to_atom(block.g, atoms[1], -force);
    }
}

// Angle at the middle atom and its gradient with respect to the ends; zero gradient where the atoms are collinear.
template <class V> struct Angle {
    V theta;
    Vector3<V> first, last;
};

template <class V> INLINE Angle<V> bond_angle(Vector3<V> a, Vector3<V> b) {
    Vector3<V> normal = cross(a, b);
    V sine2 = dot(normal, normal), cosine = dot(a, b), a2 = dot(a, a), b2 = dot(b, b);
    Mask<V> collinear = sine2 < Scalar<V>(1e-24);
    V inverse = select<V>(collinear, V{}, rsqrt(select<V>(collinear, broadcast<V>(1), sine2)));
    V theta = atan2_upper(sine2 * inverse, cosine);
    V along_a = cosine * reciprocal(a2), along_b = cosine * reciprocal(b2);
    return {theta, inverse * (along_a * a - b), inverse * (along_b * b - a)};
}

template <class V> INLINE void harmonic_angles(const Table<Scalar<V>>& table, Block<V>& block) {
    for (int row = 0; row < table.rows; ++row) {
        const int32_t* atoms = table.atoms + 3 * row;
        const Scalar<V>* p = table.parameters + 2 * row;
        Vector3<V> centre = atom(block.x, atoms[1]);
        Angle<V> angle = bond_angle(atom(block.x, atoms[0]) - centre, atom(block.x, atoms[2]) - centre);
        V bend = angle.theta - p[0], slope = p[1] * bend;
        block.energy += Scalar<V>(0.5) * slope * bend;
        Vector3<V> first = slope * angle.first, last = slope * angle.last;
        add_to_atom(block.g, atoms[0], first);
        add_to_atom(block.g, atoms[2], last);
        add_to_atom(block.g, atoms[1], -(first + last));
    }
}

constexpr int FOURIER_ORDER = 6;
constexpr int FOURIER_PARAMETERS = 1 + 2 * FOURIER_ORDER;

// cos φ, sin φ and the gradient of φ; NaN where three atoms are collinear.
template <class V> struct Torsion {
    V cosine, sine;
    Vector3<V> first, second, third, fourth;
};

// Blondel and Karplus, J. Comput. Chem. 17, 1132 (1996).
template <class V> INLINE Torsion<V> torsion(Vector3<V> i, Vector3<V> j, Vector3<V> k, Vector3<V> l) {
    Vector3<V> f = i - j, g = j - k, h = l - k;
    Vector3<V> a = cross(f, g), b = cross(h, g);
    V inverse_g = rsqrt(dot(g, g)), length = dot(g, g) * inverse_g;
    V inverse_a = rsqrt(dot(a, a)), inverse_b = rsqrt(dot(b, b)), scale = inverse_a * inverse_b;
    V cosine = dot(a, b) * scale, sine = dot(cross(b, a), g) * scale * inverse_g;
    Vector3<V> u = (inverse_a * inverse_a) * a, w = (inverse_b * inverse_b) * b;
    V fg = dot(f, g) * inverse_g, hg = dot(h, g) * inverse_g;
    Vector3<V> first = (-length) * u, fourth = length * w;
    Vector3<V> shift = fg * u - hg * w;
    return {cosine, sine, first, shift - first, -(shift + fourth), fourth};
}

// E = c + Σ_n a_n cos nφ + b_n sin nφ: all periodic torsions on the same four atoms in one row; atoms holds a fifth
// number, the highest n.
template <class V> INLINE void fourier_torsions(const Table<Scalar<V>>& table, Block<V>& block) {
    typedef Scalar<V> S;
    for (int row = 0; row < table.rows; ++row) {
        const int32_t* atoms = table.atoms + 5 * row;
        const S* p = table.parameters + FOURIER_PARAMETERS * row;
        const S *a = p + 1, *b = p + 1 + FOURIER_ORDER;
        Torsion<V> t = torsion(atom(block.x, atoms[0]), atom(block.x, atoms[1]), atom(block.x, atoms[2]),
                               atom(block.x, atoms[3]));
        V cosine = t.cosine, sine = t.sine;
        V energy = p[0] + a[0] * cosine + b[0] * sine, slope = b[0] * cosine - a[0] * sine;
        for (int n = 2; n <= atoms[4]; ++n) {
            V next = cosine * t.cosine - sine * t.sine;
            sine = sine * t.cosine + cosine * t.sine;
            cosine = next;
            energy += a[n - 1] * cosine + b[n - 1] * sine;
            slope += S(n) * (b[n - 1] * cosine - a[n - 1] * sine);
        }
        block.energy += energy;
        add_to_atom(block.g, atoms[0], slope * t.first);
        add_to_atom(block.g, atoms[1], slope * t.second);
        add_to_atom(block.g, atoms[2], slope * t.third);
        add_to_atom(block.g, atoms[3], slope * t.fourth);
    }
}

}  // namespace BOLTZGEN_ISA
