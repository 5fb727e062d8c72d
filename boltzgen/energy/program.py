"""Terms as tables for the compiled kernels (``boltzgen/native/program.h``)."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np
import torch
from numpy.polynomial.chebyshev import poly2cheb
from torch import Tensor

from boltzgen.constants import COULOMB
from boltzgen.energy import mmff, mmff_expressions
from boltzgen.energy.bonded import HarmonicAngle, HarmonicBond, PeriodicTorsion, RBTorsion
from boltzgen.energy.cmap import CMAPTorsion, bicubic_coefficients
from boltzgen.energy.nonbonded import NonbondedPairs
from boltzgen.energy.solvent import PROBE_RADIUS, GeneralizedBorn
from boltzgen.energy.terms import Term
from boltzgen.native import Job, Kernels, Table

Arrays = Mapping[str, np.ndarray]
"""What :meth:`Term.arrays` returns."""

FOURIER_ORDER = 6
"""Highest periodicity of a torsion that the kernels know."""


class _Kind(IntEnum):
    """The kinds of tables, as in ``program.h``."""

    HARMONIC_BOND = 0
    HARMONIC_ANGLE = 1
    FOURIER_TORSION = 2
    NONBONDED_PAIR = 3
    GENERALIZED_BORN = 4
    CORRECTION_MAP = 5
    MMFF_BOND = 6
    MMFF_ANGLE = 7
    MMFF_LINEAR_ANGLE = 8
    MMFF_STRETCH_BEND = 9
    MMFF_OUT_OF_PLANE = 10
    MMFF_PAIR = 11


@dataclass(frozen=True)
class Rows:
    """One table: ``atoms (rows, k)``, ``parameters (rows, p)``, and ``shared`` numbers of a whole term."""

    kind: int
    atoms: np.ndarray
    parameters: np.ndarray
    shared: np.ndarray = field(default_factory=lambda: np.zeros(0))


class Program:
    """The terms of a potential that the kernels know, ready to be evaluated in float32 and float64."""

    def __init__(self, n_atoms: int, tables: Sequence[Rows]) -> None:
        self._n_atoms, self._tables = n_atoms, tuple(tables)
        self._atoms = [np.ascontiguousarray(t.atoms, dtype=np.int32) for t in tables]
        self._numbers: dict[torch.dtype, list[tuple[np.ndarray, np.ndarray]]] = {}
        self._structures: dict[torch.dtype, ctypes.Array[Table]] = {}
        for dtype, kind in ((torch.float32, np.float32), (torch.float64, np.float64)):
            numbers = [(np.ascontiguousarray(t.parameters, kind), np.ascontiguousarray(t.shared, kind)) for t in tables]
            self._numbers[dtype] = numbers  # kept, because the structures hold their addresses
            self._structures[dtype] = (Table * len(tables))(
                *(
                    Table(table.kind, len(parameters), atoms.ctypes.data, parameters.ctypes.data, shared.ctypes.data)
                    for table, atoms, (parameters, shared) in zip(tables, self._atoms, numbers, strict=True)
                )
            )

    def __reduce__(self) -> tuple[type[Program], tuple[int, tuple[Rows, ...]]]:
        return Program, (self._n_atoms, self._tables)

    def evaluate(
        self, kernels: Kernels, x: Tensor, softening: float | None, threads: int, *, with_gradient: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Energies ``(batch,)`` and gradients ``(atoms, 3, batch)``; +inf and zero where they cannot be computed."""
        x = x.contiguous()
        energy = torch.empty(x.shape[-1], dtype=x.dtype)
        gradient = torch.empty_like(x) if with_gradient else None
        if not len(energy):
            return energy, gradient
        job = Job(
            n_atoms=self._n_atoms,
            n_tables=len(self._tables),
            tables=ctypes.addressof(self._structures[x.dtype]),
            positions=x.data_ptr(),
            energy=energy.data_ptr(),
            gradient=None if gradient is None else gradient.data_ptr(),
            batch=x.shape[-1],
            softening=math.inf if softening is None else softening,
        )
        kernels.run("energy_float32" if x.dtype == torch.float32 else "energy_float64", job, threads)
        return energy, gradient


def split_terms(n_atoms: int, terms: Iterable[Term]) -> tuple[Program | None, list[Term]]:
    """Return a program of the terms that the kernels know, and the terms that they do not."""
    terms = list(terms)
    first = {type(term): index for index, term in reversed(list(enumerate(terms)))}
    born, pairs = first.get(GeneralizedBorn), first.get(NonbondedPairs)
    if born is None or (pairs is not None and not _unique(terms[pairs])):
        pairs = None
    tables = [] if born is None else [_born(terms[born], None if pairs is None else terms[pairs])]
    rest: list[Term] = []
    for index, term in enumerate(terms):
        if index in (born, pairs):
            continue
        rows = _rows(term)
        if rows is None:
            rest.append(term)
        else:
            tables.append(rows)
    return (Program(n_atoms, tables) if tables else None), rest


def _rows(term: Term) -> Rows | None:
    translate = _TRANSLATORS.get(type(term))
    return translate(term.arrays()) if translate else None


def _columns(kind: _Kind, *names: str, shared: Sequence[float] = ()) -> Callable[[Arrays], Rows]:
    """Rows whose parameters are the arrays of a term, as they are."""
    return lambda p: Rows(kind, p["atoms"], np.stack([p[name] for name in names], axis=1), np.array(shared))


def _periodic_torsions(p: Arrays) -> Rows | None:
    """k(1 + cos(nφ − φ₀)) as a Fourier series of each quadruple; None if a periodicity is not an integer up to 6."""
    atoms, periodicity, phase, k = p["atoms"], p["periodicity"], p["phase"], p["k"]
    order = np.rint(np.abs(periodicity)).astype(int)
    if (np.abs(periodicity) != order).any() or order.max(initial=0) > FOURIER_ORDER:
        return None
    series = _no_series(len(atoms))
    rows = np.arange(len(atoms))
    series[rows, 0, order] = k * np.cos(phase)
    series[rows, 1, order] = k * np.sin(phase) * np.where(periodicity < 0, -1.0, 1.0)
    series[:, 1, 0] = 0.0
    series[:, 0, 0] += k
    return _fourier(atoms, series)


def _ryckaert_bellemans(p: Arrays) -> Rows:
    """Σ c_n cosⁿ(φ − π) as a Fourier series."""
    series = _no_series(len(p["atoms"]))
    for row, c in enumerate(p["coefficients"]):
        chebyshev = poly2cheb(c * (-1.0) ** np.arange(len(c)))
        series[row, 0, : len(chebyshev)] = chebyshev
    return _fourier(p["atoms"], series)


def _mmff_torsions(p: Arrays) -> Rows:
    """½[V₁(1 + cos φ) + V₂(1 − cos 2φ) + V₃(1 + cos 3φ)]."""
    series = _no_series(len(p["atoms"]))
    series[:, 0, 0] = 0.5 * (p["v1"] + p["v2"] + p["v3"])
    series[:, 0, 1], series[:, 0, 2], series[:, 0, 3] = 0.5 * p["v1"], -0.5 * p["v2"], 0.5 * p["v3"]
    return _fourier(p["atoms"], series)


def _no_series(rows: int) -> np.ndarray:
    """Zero coefficients of cos nφ and sin nφ, ``(rows, 2, 7)``."""
    return np.zeros((rows, 2, FOURIER_ORDER + 1))


def _fourier(atoms: np.ndarray, series: np.ndarray) -> Rows:
    """Rows of unique quadruples, which are the same when read backwards, from ``series (m, 2, 7)``."""
    forwards = (atoms[:, 0] < atoms[:, 3])[:, None]
    unique, index = np.unique(np.where(forwards, atoms, atoms[:, ::-1]), axis=0, return_inverse=True)
    total = np.zeros((len(unique), *series.shape[1:]))
    np.add.at(total, index.reshape(-1), series)
    used = np.abs(total).max(axis=1) > 0.0
    highest = np.where(used, np.arange(FOURIER_ORDER + 1), 1).max(axis=1)
    parameters = np.concatenate([total[:, 0, :], total[:, 1, 1:]], axis=1)
    return Rows(_Kind.FOURIER_TORSION, np.column_stack([unique, highest]), parameters)


def _pair_parameters(p: Arrays) -> np.ndarray:
    """A, B, C of A/r¹² − B/r⁶ + C/r, ``(m, 3)``."""
    s6, four_epsilon = p["sigma"] ** 6, 4.0 * p["epsilon"]
    return np.stack([four_epsilon * s6 * s6, four_epsilon * s6, COULOMB * p["charge_product"]], axis=1)


def _correction_maps(p: Arrays) -> Rows:
    size = p["grid"].shape[-1]
    by_cell = np.moveaxis(bicubic_coefficients(p["grid"]), (0, 1), (-2, -1))
    atoms = np.column_stack([p["atoms"], p["map"]])
    return Rows(_Kind.CORRECTION_MAP, atoms, np.zeros((len(atoms), 0)), np.concatenate([[size], by_cell.reshape(-1)]))


def _mmff_pairs(p: Arrays) -> Rows:
    parameters = np.stack([1.0 / p["rstar"], p["epsilon"], mmff_expressions.COULOMB * p["qq"]], axis=1)
    return Rows(_Kind.MMFF_PAIR, p["atoms"], parameters, np.array([mmff_expressions.BUFFER]))


def _unique(term: Term) -> bool:
    """Whether every pair is listed once: softening is of the sum of a pair, which only then is the same."""
    pairs = np.sort(term.arrays()["atoms"], axis=1)
    return len(np.unique(pairs, axis=0)) == len(pairs)


def _born(term: Term, pairs: Term | None) -> Rows:
    """Generalised Born with Lennard-Jones and Coulomb in the same loop over all pairs."""
    p, n = term.arrays(), term.n_atoms
    i, j = np.triu_indices(n, 1)
    strength = COULOMB * p["dielectric"][0]
    parameters = np.zeros((len(i), 8))
    if pairs is not None:
        row_of = np.zeros((n, n), dtype=np.int64)
        row_of[i, j] = row_of[j, i] = np.arange(len(i))
        a, b = pairs.arrays()["atoms"].T
        parameters[row_of[a, b], :3] = _pair_parameters(pairs.arrays())
    parameters[:, 3] = -strength * p["charge"][i] * p["charge"][j]
    depth, distance = p["neck_depth"], p["neck_distance"]
    parameters[:, 4:] = np.stack([depth[i, j], distance[i, j], depth[j, i], distance[j, i]], axis=1)
    radius = p["radius"]
    by_atom = np.stack(
        [
            p["reduced_radius"],
            p["scaled_radius"],
            radius,
            p["alpha"],
            p["beta"],
            p["gamma"],
            -0.5 * strength * p["charge"] ** 2,
            p["surface"][0] * (radius + PROBE_RADIUS) ** 2 * radius**6,
        ],
        axis=1,
    )
    scalars = np.array([p["rescaled"][0], p["neck_scale"][0], p["neck_cutoff"][0], p["swallowed"][0]], dtype=np.float64)
    return Rows(_Kind.GENERALIZED_BORN, np.zeros((0, 2)), parameters, np.concatenate([by_atom.reshape(-1), scalars]))


_TRANSLATORS: dict[type[Term], Callable[[Arrays], Rows | None]] = {
    HarmonicBond: _columns(_Kind.HARMONIC_BOND, "length", "k"),
    HarmonicAngle: _columns(_Kind.HARMONIC_ANGLE, "angle", "k"),
    PeriodicTorsion: _periodic_torsions,
    RBTorsion: _ryckaert_bellemans,
    CMAPTorsion: _correction_maps,
    NonbondedPairs: lambda p: Rows(_Kind.NONBONDED_PAIR, p["atoms"], _pair_parameters(p)),
    mmff.MMFFBond: _columns(
        _Kind.MMFF_BOND, "k", "r0", shared=(mmff_expressions.STRETCH_CUBIC, mmff_expressions.STRETCH_QUARTIC)
    ),
    mmff.MMFFAngle: _columns(_Kind.MMFF_ANGLE, "k", "theta0", shared=(mmff_expressions.BEND_CUBIC,)),
    mmff.MMFFLinearAngle: _columns(_Kind.MMFF_LINEAR_ANGLE, "k"),
    mmff.MMFFStretchBend: _columns(_Kind.MMFF_STRETCH_BEND, "k1", "k2", "r1", "r2", "theta0"),
    mmff.MMFFOutOfPlane: _columns(_Kind.MMFF_OUT_OF_PLANE, "k"),
    mmff.MMFFTorsion: _mmff_torsions,
    mmff.MMFFNonbonded: _mmff_pairs,
}
"""How each term becomes a table; None if its parameters are out of what the kernels know."""
