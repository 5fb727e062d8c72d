"""Conversion of an OpenMM System to a torch potential, and the check that both agree."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations
from typing import Any, ClassVar

import numpy as np
import openmm
import torch
from openmm import unit

from boltzgen.constants import COULOMB
from boltzgen.energy.potential import PotentialEnergy
from boltzgen.energy.solvent import GeneralizedBorn
from boltzgen.energy.terms import HarmonicAngle, HarmonicBond, NonbondedPairs, PeriodicTorsion, Term
from boltzgen.errors import UnsupportedError


def from_openmm(system: openmm.System, dtype: torch.dtype = torch.float64) -> PotentialEnergy:
    """Convert an OpenMM System to a batched, differentiable torch energy.

    Forces known: HarmonicBond, HarmonicAngle, PeriodicTorsion, Nonbonded (NoCutoff), GBSAOBC, and the CustomGB of
    OpenMM's ``implicit/{hct,obc1,obc2,gbn,gbn2}.xml`` without salt.

    Raises
    ------
    UnsupportedError
        For constraints, virtual sites, periodic boxes, cutoffs or any other force; the message names it.
    """
    if system.getNumConstraints():
        raise UnsupportedError(
            f"the System has {system.getNumConstraints()} constraints. "
            "Build it with constraints=None and flexible water."
        )
    n = system.getNumParticles()
    if any(system.isVirtualSite(i) for i in range(n)):
        raise UnsupportedError("the System has virtual sites, which have no internal coordinates of their own.")
    if system.usesPeriodicBoundaryConditions():
        raise UnsupportedError("periodic boundary conditions are not supported: build the System without a box.")
    terms: list[Term] = []
    for force in system.getForces():
        if isinstance(force, openmm.CMMotionRemover):
            continue
        kind = type(force).__name__
        if kind not in _CONVERTERS:
            raise UnsupportedError(f"the System has a {kind}, which this version cannot convert.")
        terms.extend(_CONVERTERS[kind](force, n, dtype))
    return PotentialEnergy(terms)


def _rows(count: int, get: Callable[[int], Any]) -> list[list[float]]:
    """Parameters of all interactions of a force in OpenMM's unit system (nm, kJ/mol, radian, e)."""
    system = unit.md_unit_system
    return [
        [v.value_in_unit_system(system) if unit.is_quantity(v) else v for v in get(index)] for index in range(count)
    ]


def _table(rows: list[list[float]], n_index: int) -> tuple[np.ndarray, np.ndarray]:
    array = np.asarray(rows, dtype=np.float64)
    return array[:, :n_index].astype(np.int64), array[:, n_index:]


def _bonds(force: openmm.HarmonicBondForce, n: int, dtype: torch.dtype) -> list[Term]:
    if not force.getNumBonds():
        return []
    atoms, p = _table(_rows(force.getNumBonds(), force.getBondParameters), 2)
    return [HarmonicBond(n, dtype, atoms=atoms, length=p[:, 0], k=p[:, 1])]


def _angles(force: openmm.HarmonicAngleForce, n: int, dtype: torch.dtype) -> list[Term]:
    if not force.getNumAngles():
        return []
    atoms, p = _table(_rows(force.getNumAngles(), force.getAngleParameters), 3)
    return [HarmonicAngle(n, dtype, atoms=atoms, angle=p[:, 0], k=p[:, 1])]


def _torsions(force: openmm.PeriodicTorsionForce, n: int, dtype: torch.dtype) -> list[Term]:
    if not force.getNumTorsions():
        return []
    atoms, p = _table(_rows(force.getNumTorsions(), force.getTorsionParameters), 4)
    used = p[:, 2] != 0.0
    if not used.any():
        return []
    atoms, p = atoms[used], p[used]
    return [PeriodicTorsion(n, dtype, atoms=atoms, periodicity=p[:, 0], phase=p[:, 1], k=p[:, 2])]


def _nonbonded(force: openmm.NonbondedForce, n: int, dtype: torch.dtype) -> list[Term]:
    if force.getNonbondedMethod() != openmm.NonbondedForce.NoCutoff:
        raise UnsupportedError("the NonbondedForce has a cutoff. Build the System with nonbondedMethod=NoCutoff.")
    if force.getNumParticleParameterOffsets() or force.getNumExceptionParameterOffsets():
        raise UnsupportedError("the NonbondedForce has parameter offsets, which this version cannot convert.")
    charge, sigma, epsilon = np.asarray(_rows(n, force.getParticleParameters)).T
    i, j = np.asarray(list(combinations(range(n), 2)), dtype=np.int64).reshape(-1, 2).T
    table = np.stack([charge[i] * charge[j], 0.5 * (sigma[i] + sigma[j]), np.sqrt(epsilon[i] * epsilon[j])], axis=1)
    row_of = {pair: row for row, pair in enumerate(zip(i.tolist(), j.tolist(), strict=True))}
    for a, b, *parameters in _rows(force.getNumExceptions(), force.getExceptionParameters):
        table[row_of[min(int(a), int(b)), max(int(a), int(b))]] = parameters
    active = (table[:, 0] != 0.0) | (table[:, 2] != 0.0)
    if not active.any():
        return []
    qq, s, e = table[active].T
    pairs = np.stack([i, j], axis=1)[active]
    return [NonbondedPairs(n, dtype, atoms=pairs, charge_product=qq, sigma=s, epsilon=e)]


def _gbsa_obc(force: openmm.GBSAOBCForce, n: int, dtype: torch.dtype) -> list[Term]:
    if force.getNonbondedMethod() != openmm.GBSAOBCForce.NoCutoff:
        raise UnsupportedError("the GBSAOBCForce has a cutoff. Build the System with nonbondedMethod=NoCutoff.")
    charge, radius, scale = np.asarray(_rows(n, force.getParticleParameters)).T
    surface = force.getSurfaceAreaEnergy().value_in_unit(unit.kilojoule_per_mole / unit.nanometer**2)
    tau = 1.0 / force.getSoluteDielectric() - 1.0 / force.getSolventDielectric()
    offset = 0.009
    coefficients = np.tile([1.0, 0.8, 4.85], (n, 1))
    per_atom = np.stack([charge, radius - offset, scale * (radius - offset)], axis=1)
    return [_born(n, dtype, per_atom, offset, coefficients, tau, 4.0 * np.pi * surface)]


_NUMBER = r"([-+]?[0-9.]+(?:[eE][-+]?[0-9]+)?)"
_TANH = re.compile(r"tanh\(([^)]*)\)")
_MONOMIAL = re.compile(r"([-+]?[\w.]*?)\*?psi(?:\^([23]))?(?=[-+]|$)")


def _custom_gb(force: openmm.CustomGBForce, n: int, dtype: torch.dtype) -> list[Term]:
    """Recognise OpenMM's own GB models by their expressions; constants are read from the expressions."""
    if force.getNonbondedMethod() != openmm.CustomGBForce.NoCutoff:
        raise UnsupportedError("the CustomGBForce has a cutoff. Build the System with nonbondedMethod=NoCutoff.")
    names = [force.getPerParticleParameterName(i) for i in range(force.getNumPerParticleParameters())]
    computed = {force.getComputedValueParameters(i)[0]: force.getComputedValueParameters(i)[1] for i in range(2)}
    energies = [force.getEnergyTermParameters(i)[0] for i in range(force.getNumEnergyTerms())]
    if names[:3] != ["charge", "or", "sr"] or set(computed) != {"I", "B"} or len(energies) not in (2, 3):
        raise UnsupportedError("the System has a CustomGBForce that is none of hct, obc1, obc2, gbn, gbn2.")
    if "exp(-kappa" in energies[0]:
        raise UnsupportedError("the implicit solvent has salt, which this version cannot convert.")
    rows = np.asarray(_rows(n, lambda index: force.getParticleParameters(index)), dtype=np.float64)
    parameters = dict(zip(names, rows.T, strict=True))
    constant = {
        key: float(value) for key, value in re.findall(rf"(\w+)={_NUMBER}", ";".join([*computed.values(), *energies]))
    }
    tau = 1.0 / constant["soluteDielectric"] - 1.0 / constant["solventDielectric"]
    tau *= float(energies[0].split("*")[1]) / COULOMB  # these expressions carry their own, rounded constant
    surface = next((float(re.match(_NUMBER, e)[1]) for e in energies if "(radius/B)^6" in e), 0.0)  # type: ignore[index]
    coefficients = None
    if match := _TANH.search(computed["B"]):
        coefficients = np.zeros((n, 3))
        for text, power in _MONOMIAL.findall(match[1]):
            coefficients[:, int(power or 1) - 1] = _per_atom(text, parameters, n)
        coefficients[:, 1] *= -1.0  # the formula is written αψ − βψ² + γψ³
    neck = None
    if "neckScale" in constant:
        index = parameters["radindex"].astype(int)
        tables = {
            force.getTabulatedFunctionName(k): force.getTabulatedFunction(k)
            for k in range(force.getNumTabulatedFunctions())
        }
        depth, distance = (_discrete(tables[name])[np.ix_(index, index)] for name in ("getm0", "getd0"))
        neck = (constant["neckScale"], constant["neckCut"], depth, distance)
    per_atom = rows[:, :3]
    return [_born(n, dtype, per_atom, constant["offset"], coefficients, tau, surface, neck)]


def _per_atom(text: str, parameters: dict[str, np.ndarray], n: int) -> np.ndarray:
    """Value of a coefficient such as ``''``, ``-0.8``, ``+4.85`` or ``-beta`` for every atom."""
    sign = -1.0 if text.startswith("-") else 1.0
    name = text.lstrip("+-") or "1"
    return sign * (parameters[name] if name in parameters else np.full(n, float(name)))


def _discrete(function: openmm.Discrete2DFunction) -> np.ndarray:
    x_size, y_size, values = function.getFunctionParameters()
    return np.asarray(values).reshape(y_size, x_size).T


def _born(
    n: int,
    dtype: torch.dtype,
    per_atom: np.ndarray,
    offset: float,
    coefficients: np.ndarray | None,
    tau: float,
    surface: float,
    neck: tuple[float, float, np.ndarray, np.ndarray] | None = None,
) -> GeneralizedBorn:
    charge, reduced, scaled = per_atom.T
    alpha, beta, gamma = (np.zeros((n, 3)) if coefficients is None else coefficients).T
    scale, cutoff, depth, distance = neck or (0.0, 0.0, np.zeros((n, n)), np.zeros((n, n)))
    return GeneralizedBorn(
        n,
        dtype,
        charge=charge,
        reduced_radius=reduced,
        scaled_radius=scaled,
        radius=reduced + offset,
        alpha=alpha,
        beta=beta,
        gamma=gamma,
        rescaled=np.array([int(coefficients is not None)]),
        dielectric=np.array([tau]),
        surface=np.array([surface]),
        neck_scale=np.array([scale]),
        neck_cutoff=np.array([cutoff]),
        neck_depth=depth,
        neck_distance=distance,
    )


_CONVERTERS: dict[str, Callable[[Any, int, torch.dtype], list[Term]]] = {
    "HarmonicBondForce": _bonds,
    "HarmonicAngleForce": _angles,
    "PeriodicTorsionForce": _torsions,
    "NonbondedForce": _nonbonded,
    "GBSAOBCForce": _gbsa_obc,
    "CustomGBForce": _custom_gb,
}


@dataclass(frozen=True)
class Parity:
    """Largest deviations between torch and OpenMM Reference over jittered frames."""

    n_frames: int
    energy: float
    """max |ΔU| in kJ/mol, float64."""
    force: float
    """max |ΔF| in kJ/mol/nm, float64."""
    energy_float32: float
    """max |ΔU| in kJ/mol of the float32 evaluation used in training."""

    TOLERANCE: ClassVar[float] = 1e-4
    """kJ/mol, and tenfold in kJ/mol/nm; a missing or mistaken term is far above, rounding far below."""

    @property
    def agrees(self) -> bool:
        """Whether both are the same function; NaN does not agree."""
        return self.energy < self.TOLERANCE and self.force < 10.0 * self.TOLERANCE


def openmm_energies(system: openmm.System, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Energies ``(n,)`` in kJ/mol and forces ``(n, atoms, 3)`` in kJ/mol/nm on OpenMM's Reference platform."""
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference"))
    energies, forces = [], []
    for frame in positions:
        context.setPositions(frame)
        state = context.getState(getEnergy=True, getForces=True)
        energies.append(state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole))
        forces.append(state.getForces(asNumpy=True).value_in_unit(unit.kilojoule_per_mole / unit.nanometer))
    return np.asarray(energies), np.asarray(forces)


def check_parity(
    system: openmm.System,
    potential: PotentialEnergy,
    positions: np.ndarray,
    *,
    n_frames: int = 20,
    seed: int = 0,
) -> Parity:
    """Compare torch with OpenMM Reference on frames around a structure ``(atoms, 3)`` in nm.

    Frames are displaced by normal noise with standard deviations from 0 to 0.02 nm.
    """
    rng = np.random.default_rng(seed)
    width = np.linspace(0.0, 0.02, n_frames)[:, None, None]
    frames = positions[None] + width * rng.standard_normal((n_frames, *positions.shape))
    reference_energy, reference_force = openmm_energies(system, frames)
    energy, force = potential.energy_and_forces(torch.as_tensor(frames, dtype=torch.float64))
    single = PotentialEnergy.from_tree(potential.to_tree(), torch.float32)
    energy32 = single(torch.as_tensor(frames, dtype=torch.float32)).double()
    return Parity(
        n_frames=n_frames,
        energy=float(np.abs(energy.numpy() - reference_energy).max()),
        force=float(np.abs(force.numpy() - reference_force).max()),
        energy_float32=float(np.abs(energy32.numpy() - reference_energy).max()),
    )
