// Internal coordinates to positions (NeRF: Parsons et al., J. Comput. Chem. 26, 1063 (2005)), the logarithm of their volume
// element, and the adjoint of both; the conventions are in boltzgen/coordinates/internal.py.
#pragma once

#include "program.h"
#include "vmath.h"

namespace BOLTZGEN_ISA {

// Right-handed or not, what matters is u along b → c, m towards d, and k = m × u.
template <class V> struct Frame {
    Vector3<V> u, m, k;
    V inverse_length, inverse_height, overhang;  // 1/|c − b|, 1/distance of d from the axis, (d − c)·u
};

template <class V> INLINE Frame<V> frame(Vector3<V> b, Vector3<V> c, Vector3<V> d) {
    Vector3<V> axis = c - b, v = d - c;
    V inverse_length = rsqrt(dot(axis, axis));
    Vector3<V> u = inverse_length * axis;
    V overhang = dot(v, u);
    Vector3<V> across = v - overhang * u;
    V inverse_height = rsqrt(dot(across, across));
    Vector3<V> m = inverse_height * across;
    return {u, m, cross(m, u), inverse_length, inverse_height, overhang};
}

// Internal coordinates of one row of a block with what follows from them.
template <class V> struct Row {
    V r, sine, cosine, sine_phi, cosine_phi;
};

template <class V> struct Blocks {
    V *bonds, *angles, *torsions, *x, *gx, *g_bonds, *g_angles, *g_torsions;
    Blocks(V* space, int n)
        : bonds(space), angles(space + n), torsions(space + 2 * n), x(space + 3 * n), gx(space + 6 * n), g_bonds(space + 9 * n),
          g_angles(space + 10 * n), g_torsions(space + 11 * n) {}
    static constexpr int ROWS = 12;
};

template <class V> INLINE Row<V> row_of(const Blocks<V>& blocks, int k) {
    Row<V> row{blocks.bonds[k - 1], V{}, V{}, V{}, V{}};
    sincos(blocks.angles[k - 2], row.sine, row.cosine);
    if (k > 2) sincos(blocks.torsions[k - 3], row.sine_phi, row.cosine_phi);
    return row;
}

template <class V> INLINE void set_atom(V* block, int index, Vector3<V> value) {
    block[3 * index] = value.x;
    block[3 * index + 1] = value.y;
    block[3 * index + 2] = value.z;
}

// Places all atoms; returns Σ 2 ln r + Σ ln sin θ.
template <class V> INLINE V place_atoms(int n, const int32_t* rows, Blocks<V>& blocks) {
    const Vector3<V> origin{V{}, V{}, V{}};
    set_atom(blocks.x, rows[0], origin);
    if (n < 2) return V{};
    V log_r = log_or_nan(blocks.bonds[0]), log_sine = V{};
    set_atom(blocks.x, rows[4], {V{}, V{}, blocks.bonds[0]});
    for (int k = 2; k < n; ++k) {
        const int32_t* atoms = rows + 4 * k;
        Row<V> row = row_of(blocks, k);
        log_r += log_or_nan(row.r);
        log_sine += log_or_nan(row.sine);
        V along = row.r * row.cosine, sine = row.r * row.sine;
        if (k == 2) {
            const bool on_root = atoms[1] == rows[0];
            set_atom(blocks.x, atoms[0], {sine, V{}, on_root ? along : blocks.bonds[0] - along});
            continue;
        }
        Vector3<V> b = atom(blocks.x, atoms[1]);
        Frame<V> f = frame(b, atom(blocks.x, atoms[2]), atom(blocks.x, atoms[3]));
        set_atom(blocks.x, atoms[0], b + along * f.u + (sine * row.cosine_phi) * f.m + (sine * row.sine_phi) * f.k);
    }
    return Scalar<V>(2) * log_r + log_sine;
}

// Adjoints of the internal coordinates from those of positions (gx, used up) and of the log volume.
template <class V> INLINE void place_adjoint(int n, const int32_t* rows, Blocks<V>& blocks, V g_volume) {
    typedef Scalar<V> S;
    for (int k = n - 1; k > 1; --k) {
        const int32_t* atoms = rows + 4 * k;
        Row<V> row = row_of(blocks, k);
        Vector3<V> g = atom(blocks.gx, atoms[0]);
        V volume_r = S(2) * g_volume / row.r, volume_theta = g_volume * row.cosine / row.sine;
        if (k == 2) {
            const bool on_root = atoms[1] == rows[0];
            V gz = on_root ? g.z : -g.z;
            blocks.g_bonds[1] = row.sine * g.x + row.cosine * gz + volume_r;
            blocks.g_angles[0] = row.r * (row.cosine * g.x - row.sine * gz) + volume_theta;
            if (!on_root) blocks.gx[3 * rows[4] + 2] += g.z;
            continue;
        }
        Vector3<V> b = atom(blocks.x, atoms[1]);
        Frame<V> f = frame(b, atom(blocks.x, atoms[2]), atom(blocks.x, atoms[3]));
        V gu = dot(g, f.u), gm = dot(g, f.m), gk = dot(g, f.k);
        V outward = row.cosine_phi * gm + row.sine_phi * gk, around = row.cosine_phi * gk - row.sine_phi * gm;
        V sine = row.r * row.sine;
        blocks.g_bonds[k - 1] = row.cosine * gu + row.sine * outward + volume_r;
        blocks.g_angles[k - 2] = row.r * (row.cosine * outward - row.sine * gu) + volume_theta;
        blocks.g_torsions[k - 3] = sine * around;
        // The atom turns with the frame about b: torque q × g in the frame (u, m, k), in which u × m = −k.
        V qu = row.r * row.cosine, qm = sine * row.cosine_phi, qk = sine * row.sine_phi;
        V torque_u = qk * gm - qm * gk, torque_m = qu * gk - qk * gu, torque_k = qm * gu - qu * gm;
        V twist = torque_u * f.inverse_height;
        Vector3<V> on_d = (-twist) * f.k;
        Vector3<V> on_c = f.inverse_length * ((-torque_k) * f.m + (torque_m + twist * f.overhang) * f.k);
        add_to_atom(blocks.gx, atoms[3], on_d);
        add_to_atom(blocks.gx, atoms[2], on_c - on_d);
        add_to_atom(blocks.gx, atoms[1], g - on_c);
    }
    if (n > 1) blocks.g_bonds[0] = blocks.gx[3 * rows[4] + 2] + S(2) * g_volume / blocks.bonds[0];
}

}  // namespace BOLTZGEN_ISA
