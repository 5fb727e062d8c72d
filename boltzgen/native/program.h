// What a potential is to the kernels: tables of rows, one table per kind of term. Plain data, the same for every
// instruction set; built in Python (boltzgen/energy/program.py), which also says what the parameters of each kind are.
#pragma once

#include <cstdint>

// Raised with every change of this file, so that Python never calls a library that was built from another one.
constexpr int INTERFACE = 4;

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

// SiLU of W x + b, or its adjoint where there is a bias adjoint. Arrays are (rows, batch), bias (rows).
template <class S> struct Activation {
    int64_t rows, batch;
    const S* bias;
    S *values, *slopes, *bias_adjoint;
};

// Maps of the rows `moved` of (rows, batch), sinh-arcsinh or affine, or, where adjoints are given, their adjoints; rows
// `kept` are copied. Parameters are (4 or 2, n_moved, batch) to which a bias (4 or 2, n_moved) is added, log_slope (batch)
// is the sum over rows. The adjoint of the bias is a sum over the batch: one thread.
template <class S> struct LineMap {
    int64_t n_kept, n_moved, batch;
    const int64_t *kept, *moved;
    int32_t affine, inverse;
    const S *input, *parameters, *bias;
    S *result, *log_slope;
    const S *result_adjoint, *log_slope_adjoint;  // both null in the forward pass
    S *input_adjoint, *parameters_adjoint, *bias_adjoint;
};

// Circular splines with rotations, or their adjoints, as above. Parameters are (n_splines (3 n_bins + 1), batch).
template <class S> struct CircleMap {
    int32_t n_splines, n_bins;
    int64_t batch, inverse;
    const S *input, *parameters, *bias;
    S *result, *log_slope;
    const S *result_adjoint, *log_slope_adjoint;  // both null in the forward pass
    S *input_adjoint, *parameters_adjoint, *bias_adjoint;
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
    void (*activate_float32)(const Activation<float>&, const Share&);  // shares of the rows
    void (*activate_float64)(const Activation<double>&, const Share&);
    void (*lines_float32)(const LineMap<float>&, const Share&);
    void (*lines_float64)(const LineMap<double>&, const Share&);
    int64_t (*circle_bytes)(int32_t n_splines, int32_t n_bins);
    void (*circles_float32)(const CircleMap<float>&, const Share&);
    void (*circles_float64)(const CircleMap<double>&, const Share&);
    int64_t (*multiply_adds)(int64_t rounds, float* result);
};
