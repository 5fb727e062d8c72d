// Correction maps of two torsions; the formulas are in boltzgen/energy/cmap.py.
#pragma once

#include "bonded.h"

namespace BOLTZGEN_ISA {

// Signed angle in (−π, π].
template <class V> INLINE V torsion_angle(const Torsion<V>& t) {
    V angle = atan2_upper(absolute(t.sine), t.cosine);
    return select<V>(t.sine < Scalar<V>(0), -angle, angle);
}

// Place of an angle on a grid of a given number of points a turn: the cell of each lane, and the place in the cell.
template <class V> INLINE V place_in_cell(V angle, int size, int32_t (&cell)[WIDTH<V>]) {
    V turns = angle * Scalar<V>(size / 6.283185307179586477), offset;
    for (int lane = 0; lane < WIDTH<V>; ++lane) {
        const Scalar<V> place = turns[lane];
        int32_t whole = place == place ? int32_t(place) : 0;  // NaN has no cell
        whole -= place < Scalar<V>(whole);
        offset[lane] = place - Scalar<V>(whole);
        cell[lane] = (whole + size) % size;
    }
    return offset;
}

template <class V> INLINE void add_torsion(Block<V>& block, const int32_t* atoms, V slope, const Torsion<V>& t) {
    add_to_atom(block.g, atoms[0], slope * t.first);
    add_to_atom(block.g, atoms[1], slope * t.second);
    add_to_atom(block.g, atoms[2], slope * t.third);
    add_to_atom(block.g, atoms[3], slope * t.fourth);
}

// Atoms hold a ninth number, the map; shared numbers are the points a turn, then 16 coefficients a cell.
template <class V> INLINE void correction_maps(const Table<Scalar<V>>& table, Block<V>& block) {
    typedef Scalar<V> S;
    const int size = int(table.shared[0]);
    for (int row = 0; row < table.rows; ++row) {
        const int32_t* atoms = table.atoms + 9 * row;
        Torsion<V> phi = torsion(atom(block.x, atoms[0]), atom(block.x, atoms[1]), atom(block.x, atoms[2]),
                                 atom(block.x, atoms[3]));
        Torsion<V> psi = torsion(atom(block.x, atoms[4]), atom(block.x, atoms[5]), atom(block.x, atoms[6]),
                                 atom(block.x, atoms[7]));
        int32_t i[WIDTH<V>], j[WIDTH<V>];
        V t = place_in_cell(torsion_angle(phi), size, i), u = place_in_cell(torsion_angle(psi), size, j);
        V c[16];
        for (int lane = 0; lane < WIDTH<V>; ++lane) {
            const S* cell = table.shared + 1 + 16 * ((atoms[8] * size + i[lane]) * size + j[lane]);
            for (int k = 0; k < 16; ++k) c[k][lane] = cell[k];
        }
        V energy = V{}, slope_t = V{}, slope_u = V{};
        for (int p = 3; p >= 0; --p) {
            const V* a = c + 4 * p;
            V value = ((a[3] * u + a[2]) * u + a[1]) * u + a[0];
            slope_t = slope_t * t + energy;
            energy = energy * t + value;
            slope_u = slope_u * t + (S(3) * a[3] * u + S(2) * a[2]) * u + a[1];
        }
        block.energy += energy;
        const S scale = S(size / 6.283185307179586477);
        add_torsion(block, atoms, scale * slope_t, phi);
        add_torsion(block, atoms + 4, scale * slope_u, psi);
    }
}

}  // namespace BOLTZGEN_ISA
