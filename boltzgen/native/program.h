// What a potential is to the kernels: tables of rows, one table per kind of term. Plain data, the same for every
// instruction set; built in Python (boltzgen/energy/program.py), which also says what the parameters of each kind are.
#pragma once

#include <cstdint>

// Raised with every change of this file, so that Python never calls a library that was built from another one.
constexpr int INTERFACE = 3;

enum Kind : int32_t {
    HARMONIC_BOND = 0,
    HARMONIC_ANGLE = 1,
    FOURIER_TORSION = 2,
    NONBONDED_PAIR = 3,
    GENERALIZED_BORN = 4,
    CORRECTION_MAP = 5,
    MMFF_BOND = 6,
    MMFF_ANGLE = 7,
    MMFF_LINEAR_ANGLE = 8,
    MMFF_STRETCH_BEND = 9,
    MMFF_OUT_OF_PLANE = 10,
    MMFF_PAIR = 11,
};

template <class S> struct Table {
    int32_t kind;
    int32_t rows;
    const int32_t* atoms;
    const S* parameters;  // by row
    const S* shared;      // numbers that belong to no row
};

// One call: energies and, unless null, gradients of a batch whose positions lie as (atoms, 3, batch).
template <class S> struct Job {
    int32_t n_atoms;
    int32_t n_tables;
    const Table<S>* tables;
    const S* positions;
    S* energy;
    S* gradient;
    int64_t batch;
    double softening;  // kJ/mol; infinite for none
};

// One thread's share of a job: samples [begin, end), and memory that no other thread uses.
struct Share {
    int64_t begin, end;
    void* workspace;
};

// Internal coordinates to positions, or, where adjoints are given, from adjoints of positions to adjoints of internal
// coordinates. Arrays are (rows, batch).
template <class S> struct Placement {
    int32_t n_atoms;
    const int32_t* rows;  // (n_atoms, 4): atom, bond, angle and torsion reference
    int64_t batch;
    const S *bonds, *angles, *torsions;
    S *positions, *log_volume;
    const S *positions_adjoint, *log_volume_adjoint;  // both null in the forward pass
    S *bonds_adjoint, *angles_adjoint, *torsions_adjoint;
};

// The functions of one instruction set.
struct Kernels {
    const char* name;
    int64_t (*workspace_bytes)(int32_t n_atoms);
    void (*energy_float32)(const Job<float>&, const Share&);
    void (*energy_float64)(const Job<double>&, const Share&);
    int64_t (*placement_bytes)(int32_t n_atoms);
    void (*place_float32)(const Placement<float>&, const Share&);
    void (*place_float64)(const Placement<double>&, const Share&);
    int64_t (*multiply_adds)(int64_t rounds, float* result);
};
