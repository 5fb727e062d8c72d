// All kernels for one instruction set; compiled once for each with -DBOLTZGEN_ISA=name and matching flags.
#include "born.h"
#include "circles.h"
#include "cmap.h"
#include "coordinates.h"
#include "lines.h"
#include "mmff.h"

namespace BOLTZGEN_ISA {

static int64_t workspace_bytes(int32_t n_atoms) {
    int64_t n = n_atoms, pairs = n * (n - 1) / 2;
    return VECTOR_BYTES * (6 * n + 4 * n + 3 * pairs + 1);
}

template <class V, bool SOFT, bool GRADIENT>
static void evaluate_tables(const Job<Scalar<V>>& job, Block<V>& block, V* workspace) {
    for (int k = 0; k < job.n_tables; ++k) {
        const Table<Scalar<V>>& table = job.tables[k];
        switch (table.kind) {
            case HARMONIC_BOND: harmonic_bonds(table, block); break;
            case HARMONIC_ANGLE: harmonic_angles(table, block); break;
            case FOURIER_TORSION: fourier_torsions(table, block); break;
            case NONBONDED_PAIR: nonbonded_pairs<V, SOFT>(table, block); break;
            case GENERALIZED_BORN: generalized_born<V, SOFT, GRADIENT>(table, job.n_atoms, block, workspace); break;
            case CORRECTION_MAP: correction_maps(table, block); break;
            case MMFF_BOND: mmff_bonds(table, block); break;
            case MMFF_ANGLE: mmff_angles(table, block); break;
            case MMFF_LINEAR_ANGLE: mmff_linear_angles(table, block); break;
            case MMFF_STRETCH_BEND: mmff_stretch_bends(table, block); break;
            case MMFF_OUT_OF_PLANE: mmff_out_of_planes(table, block); break;
            case MMFF_PAIR: mmff_pairs<V, SOFT>(table, block); break;
            default: block.energy += broadcast<V>(Scalar<V>(__builtin_nan("")));  // never a sum with a term left out
        }
    }
}

// A block of WIDTH samples from the batch; the last one is filled up with its last sample.
template <class V> static void read_block(const Scalar<V>* from, int rows, int64_t batch, int count, V* to) {
    constexpr int width = WIDTH<V>;
    for (int row = 0; row < rows; ++row, from += batch) {
        if (count == width) {
            to[row] = load<V>(from);
        } else {
            for (int lane = 0; lane < width; ++lane) to[row][lane] = from[lane < count ? lane : count - 1];
        }
    }
}

template <class V> static void write_row(V value, int count, Scalar<V>* to) {
    if (count == WIDTH<V>) {
        store<V>(to, value);
    } else {
        for (int lane = 0; lane < count; ++lane) to[lane] = value[lane];
    }
}

// Samples whose coordinates, energy or gradient are not finite have energy +inf and gradient zero.
template <class V> static Mask<V> failures(const Block<V>& block, int rows) {
    V probe = Scalar<V>(0) * block.energy.value;
    for (int row = 0; row < rows; ++row) probe += Scalar<V>(0) * block.g[row] + Scalar<V>(0) * block.x[row];
    return probe != Scalar<V>(0);  // NaN, as 0 · inf is
}

template <class V> static void evaluate(const Job<Scalar<V>>& job, const Share& share) {
    typedef Scalar<V> S;
    const int rows = 3 * job.n_atoms;
    V* x = static_cast<V*>(share.workspace);
    V* g = x + rows;
    V* workspace = g + rows;
    const bool soft = job.softening < 1e300;
    for (int64_t begin = share.begin; begin < share.end; begin += WIDTH<V>) {
        const int count = share.end - begin < WIDTH<V> ? int(share.end - begin) : WIDTH<V>;
        read_block<V>(job.positions + begin, rows, job.batch, count, x);
        for (int row = 0; row < rows; ++row) g[row] = V{};
        Block<V> block{x, g, {V{}, V{}}, soft ? S(job.softening) : S(0)};
        if (job.gradient) {
            soft ? evaluate_tables<V, true, true>(job, block, workspace) : evaluate_tables<V, false, true>(job, block, workspace);
        } else {
            soft ? evaluate_tables<V, true, false>(job, block, workspace) : evaluate_tables<V, false, false>(job, block, workspace);
        }
        const Mask<V> failed = failures(block, rows);
        write_row<V>(select<V>(failed, broadcast<V>(S(__builtin_inf())), block.energy.value), count, job.energy + begin);
        if (!job.gradient) continue;
        for (int row = 0; row < rows; ++row)
            write_row<V>(select<V>(failed, V{}, g[row]), count, job.gradient + row * job.batch + begin);
    }
}

static int64_t placement_bytes(int32_t n_atoms) { return VECTOR_BYTES * Blocks<Double>::ROWS * int64_t(n_atoms); }

template <class V> static void write_rows(const V* from, int rows, int64_t batch, int count, Scalar<V>* to) {
    for (int row = 0; row < rows; ++row) write_row<V>(from[row], count, to + row * batch);
}

template <class V> static void place(const Placement<Scalar<V>>& job, const Share& share) {
    const int n = job.n_atoms;
    Blocks<V> blocks(static_cast<V*>(share.workspace), n);
    for (int64_t begin = share.begin; begin < share.end; begin += WIDTH<V>) {
        const int count = share.end - begin < WIDTH<V> ? int(share.end - begin) : WIDTH<V>;
        read_block<V>(job.bonds + begin, n - 1, job.batch, count, blocks.bonds);
        read_block<V>(job.angles + begin, n - 2, job.batch, count, blocks.angles);
        read_block<V>(job.torsions + begin, n - 3, job.batch, count, blocks.torsions);
        V log_volume = place_atoms(n, job.rows, blocks);
        if (!job.positions_adjoint) {
            write_rows<V>(blocks.x, 3 * n, job.batch, count, job.positions + begin);
            write_row<V>(log_volume, count, job.log_volume + begin);
            continue;
        }
        V volume_adjoint;
        read_block<V>(job.positions_adjoint + begin, 3 * n, job.batch, count, blocks.gx);
        read_block<V>(job.log_volume_adjoint + begin, 1, job.batch, count, &volume_adjoint);
        place_adjoint(n, job.rows, blocks, volume_adjoint);
        write_rows<V>(blocks.g_bonds, n - 1, job.batch, count, job.bonds_adjoint + begin);
        write_rows<V>(blocks.g_angles, n - 2, job.batch, count, job.angles_adjoint + begin);
        write_rows<V>(blocks.g_torsions, n - 3, job.batch, count, job.torsions_adjoint + begin);
    }
}

// Independent chains of multiply-adds: what the core can do at most. Returns their number, and a value that depends on all.
static int64_t multiply_adds(int64_t rounds, float* result) {
    constexpr int chains = 12;
    Float sums[chains];
    for (int k = 0; k < chains; ++k) sums[k] = broadcast<Float>(float(k));
    const Float factor = broadcast<Float>(result[0]), term = broadcast<Float>(result[1]);
    for (int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 12
        for (int k = 0; k < chains; ++k) sums[k] = sums[k] * factor + term;
    }
    for (int k = 0; k < chains; ++k) result[0] += sums[k][0];
    return rounds * chains * WIDTH<Float>;
}

#define STRING(name) #name
#define EXPANDED_STRING(name) STRING(name)

extern const Kernels KERNELS;
const Kernels KERNELS = {
    EXPANDED_STRING(BOLTZGEN_ISA),
    workspace_bytes,
    evaluate<Float>,
    evaluate<Double>,
    placement_bytes,
    place<Float>,
    place<Double>,
    activate<Float>,
    activate<Double>,
    map_lines<Float>,
    map_lines<Double>,
    circle_bytes,
    map_circles<Float>,
    map_circles<Double>,
    multiply_adds,
};

}  // namespace BOLTZGEN_ISA
