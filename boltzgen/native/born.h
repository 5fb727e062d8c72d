// Generalised Born fused with Lennard-Jones and Coulomb: all pairs i < j, three passes over them. The formulas are in
// boltzgen/energy/solvent.py.
//
//   1. distances, Lennard-Jones and Coulomb, descreening integrals I and their slopes dI/dr
//   2. Born radii of each atom, then screened Coulomb of each pair with its slopes in r and in the Born radii
//   3. the chain dE/dI · dI/dr, and forces
#pragma once

#include "nonbonded.h"

namespace BOLTZGEN_ISA {

// Numbers of each pair: A, B, C of nonbonded_pair, −τ q_i q_j/(4πε₀), then m₀ and d₀ of the neck onto i and onto j.
constexpr int BORN_PAIR = 8;
// Numbers of each atom: ρ̃, s, ρ, α, β, γ, −½ τ q²/(4πε₀), A (ρ + 0.14)² ρ⁶.
constexpr int BORN_ATOM = 8;

// What is added to the descreening integral: the neck of the GBn models, or the part of OpenMM's GBSAOBCForce where one atom
// swallows another.
enum Extra { NONE, NECK, SWALLOWED };

// Numbers that all share.
template <class S> struct BornShared {
    const S* atoms;
    S neck_scale, neck_cutoff;
    bool rescaled;
    Extra extra;

    explicit BornShared(const Table<S>& table, int n_atoms) {
        atoms = table.shared;
        const S* rest = table.shared + BORN_ATOM * n_atoms;
        rescaled = rest[0] != 0;
        neck_scale = rest[1];
        neck_cutoff = rest[2];
        extra = neck_scale != 0 ? NECK : rest[3] != 0 ? SWALLOWED : NONE;
    }
};

// Vectors in the workspace, beyond positions and gradient.
template <class V> struct BornSpace {
    V *integral, *inverse, *slope, *log_slope;  // by atom: I, then 1/B, dB/dI, dE/d ln B
    V* pairs;                                   // by pair: dE/dr over r, dI_i/dr over r, dI_j/dr over r

    BornSpace(V* space, int n_atoms)
        : integral(space), inverse(space + n_atoms), slope(space + 2 * n_atoms), log_slope(space + 3 * n_atoms),
          pairs(space + 4 * n_atoms) {}
};

template <class V> struct Descreening {
    V value, slope;  // I and dI/dr
};

// ½[1/L − 1/U + ¼(r − s²/r)(1/U² − 1/L²) + ½ ln(L/U)/r]. The slope with respect to the limits U and L vanishes, except
// through L = s − r, where atom j swallows atom i.
template <class V, Extra EXTRA> INLINE Descreening<V> descreening(V r, V inverse_r, Scalar<V> reduced, Scalar<V> scaled) {
    typedef Scalar<V> S;
    V upper = r + scaled, difference = r - scaled;
    V lower = maximum(absolute(difference), broadcast<V>(reduced));
    V inverse = reciprocal(upper * lower), u = lower * inverse, l = upper * inverse;
    V squares = u * u - l * l, ratio = (scaled * scaled) * inverse_r;
    V logarithm = S(0.25) * inverse_r * log(u * lower);
    V value = S(0.5) * (l - u) + S(0.125) * (r - ratio) * squares + logarithm;
    V slope = S(0.125) * (S(1) + ratio * inverse_r) * squares - logarithm * inverse_r;
    Mask<V> swallowed = difference < -reduced;
    if (EXTRA == SWALLOWED)
        value += select<V>(swallowed, S(1) / reduced - l, V{});  // its slope cancels that of L
    else
        slope += select<V>(swallowed, l * l, V{});
    Mask<V> outside = upper <= reduced;
    return {select<V>(outside, V{}, value), select<V>(outside, V{}, slope)};
}

template <class V>
INLINE void add_neck(Descreening<V>& d, V r, Scalar<V> cutoff, Scalar<V> depth, Scalar<V> distance) {
    typedef Scalar<V> S;
    V x = r - distance, x2 = x * x, x4 = x2 * x2;
    V inverse = reciprocal(S(1) + S(100) * x2 + S(3e5) * x4 * x2);
    V value = depth * inverse;
    V slope = -value * inverse * x * (S(200) + S(18e5) * x4);
    Mask<V> near = r < cutoff;
    d.value += select<V>(near, value, V{});
    d.slope += select<V>(near, slope, V{});
}

template <class V, bool SOFT, bool GRADIENT, Extra EXTRA>
INLINE void descreen(const Table<Scalar<V>>& table, const BornShared<Scalar<V>>& shared, int n, Block<V>& block,
                     BornSpace<V>& space) {
    typedef Scalar<V> S;
    for (int i = 0; i < n; ++i) space.integral[i] = V{};
    int row = 0;
    for (int i = 0; i < n; ++i) {
        Vector3<V> xi = atom(block.x, i);
        const S* pi = shared.atoms + BORN_ATOM * i;
        V integral = space.integral[i];
        for (int j = i + 1; j < n; ++j, ++row) {
            const S* p = table.parameters + BORN_PAIR * row;
            const S* pj = shared.atoms + BORN_ATOM * j;
            Vector3<V> d = xi - atom(block.x, j);
            V r2 = dot(d, d);
            Mask<V> below{};
            if (SOFT) below = floor_r2(r2);
            V inverse_r = rsqrt(r2), r = r2 * inverse_r;
            Pair<V> pair = nonbonded_pair(inverse_r, p);
            if (SOFT) soften(pair, block.softening);
            block.energy += pair.energy;
            Descreening<V> onto_i = descreening<V, EXTRA>(r, inverse_r, pi[0], pj[1]);
            Descreening<V> onto_j = descreening<V, EXTRA>(r, inverse_r, pj[0], pi[1]);
            if (EXTRA == NECK) {
                S cutoff = pi[2] + pj[2] + shared.neck_cutoff;
                add_neck(onto_i, r, cutoff, shared.neck_scale * p[4], p[5]);
                add_neck(onto_j, r, cutoff, shared.neck_scale * p[6], p[7]);
            }
            integral += onto_i.value;
            space.integral[j] += onto_j.value;
            if (GRADIENT) {
                V over_r = SOFT ? select<V>(below, V{}, inverse_r) : inverse_r;
                V* stored = space.pairs + 3 * row;
                stored[0] = SOFT ? select<V>(below, V{}, pair.slope) : pair.slope;
                stored[1] = onto_i.slope * over_r;
                stored[2] = onto_j.slope * over_r;
            }
        }
        space.integral[i] = integral;
    }
}

// Born radii, and the terms of single atoms: ½ of the self-interaction and the surface.
template <class V>
INLINE void born_radii(const BornShared<Scalar<V>>& shared, int n, Block<V>& block, BornSpace<V>& space) {
    typedef Scalar<V> S;
    for (int i = 0; i < n; ++i) {
        const S* p = shared.atoms + BORN_ATOM * i;
        V integral = space.integral[i], inverse, slope;  // slope: −d(1/B)/dI
        if (shared.rescaled) {
            V psi = integral * p[0];
            V t = tanh(psi * (p[3] + psi * (psi * p[5] - p[4])));
            inverse = S(1) / p[0] - t * (S(1) / p[2]);
            slope = (S(1) - t * t) * (p[3] + psi * (S(3) * psi * p[5] - S(2) * p[4])) * (p[0] / p[2]);
        } else {
            inverse = S(1) / p[0] - integral;
            slope = broadcast<V>(1);
        }
        V inverse2 = inverse * inverse, own = p[6] * inverse, surface = p[7] * inverse2 * inverse2 * inverse2;
        block.energy += own + surface;
        space.inverse[i] = inverse;
        space.slope[i] = slope / inverse;  // d ln B/dI
        space.log_slope[i] = -own - S(6) * surface;
    }
}

template <class V, bool SOFT, bool GRADIENT>
INLINE void screened_coulomb(const Table<Scalar<V>>& table, int n, Block<V>& block, BornSpace<V>& space) {
    typedef Scalar<V> S;
    int row = 0;
    for (int i = 0; i < n; ++i) {
        Vector3<V> xi = atom(block.x, i);
        V inverse_i = space.inverse[i], log_slope = space.log_slope[i];
        for (int j = i + 1; j < n; ++j, ++row) {
            S charge = table.parameters[BORN_PAIR * row + 3];
            Vector3<V> d = xi - atom(block.x, j);
            V r2 = dot(d, d);
            Mask<V> below{};
            if (SOFT) below = floor_r2(r2);
            V inverse_bb = inverse_i * space.inverse[j], bb = reciprocal(inverse_bb);
            V decay = exp(S(-0.25) * r2 * inverse_bb);
            V inverse_f = rsqrt(r2 + bb * decay);
            V energy = charge * inverse_f;
            block.energy += energy;
            if (GRADIENT) {
                V slope = energy * inverse_f * inverse_f;
                V born = S(-0.5) * slope * decay * (bb + S(0.25) * r2);
                log_slope += born;
                space.log_slope[j] += born;
                V radial = slope * (S(0.25) * decay - S(1));
                space.pairs[3 * row] += SOFT ? select<V>(below, V{}, radial) : radial;
            }
        }
        space.log_slope[i] = log_slope;
    }
}

template <class V> INLINE void pair_forces(int n, Block<V>& block, BornSpace<V>& space) {
    for (int i = 0; i < n; ++i) space.slope[i] *= space.log_slope[i];  // dE/dI
    int row = 0;
    for (int i = 0; i < n; ++i) {
        Vector3<V> xi = atom(block.x, i), total = {V{}, V{}, V{}};
        V chain_i = space.slope[i];
        for (int j = i + 1; j < n; ++j, ++row) {
            const V* stored = space.pairs + 3 * row;
            V slope = stored[0] + chain_i * stored[1] + space.slope[j] * stored[2];
            Vector3<V> force = slope * (xi - atom(block.x, j));
            total = total + force;
            add_to_atom(block.g, j, -force);
        }
        add_to_atom(block.g, i, total);
    }
}

template <class V, bool SOFT, bool GRADIENT>
INLINE void generalized_born(const Table<Scalar<V>>& table, int n, Block<V>& block, V* workspace) {
    BornShared<Scalar<V>> shared(table, n);
    BornSpace<V> space(workspace, n);
    switch (shared.extra) {
        case NECK: descreen<V, SOFT, GRADIENT, NECK>(table, shared, n, block, space); break;
        case SWALLOWED: descreen<V, SOFT, GRADIENT, SWALLOWED>(table, shared, n, block, space); break;
        case NONE: descreen<V, SOFT, GRADIENT, NONE>(table, shared, n, block, space); break;
    }
    born_radii(shared, n, block, space);
    screened_coulomb<V, SOFT, GRADIENT>(table, n, block, space);
    if (GRADIENT) pair_forces(n, block, space);
}

}  // namespace BOLTZGEN_ISA
