"""Conversion of generalised-Born forces: GBSAOBCForce, and the CustomGBForce of OpenMM's own models."""

from __future__ import annotations

import math
import re

import numpy as np
import openmm
import torch
from openmm import unit

from boltzgen.constants import COULOMB
from boltzgen.energy.convert_builtin import rows
from boltzgen.energy.custom_gb import CustomGB
from boltzgen.energy.solvent import GeneralizedBorn
from boltzgen.energy.terms import Term
from boltzgen.errors import UnsupportedError


def convert_gbsa_obc(force: openmm.GBSAOBCForce, n: int, dtype: torch.dtype) -> list[Term]:
    """Convert the native force: OBC2, with the full descreening integral where an atom swallows another."""
    if force.getNonbondedMethod() != openmm.GBSAOBCForce.NoCutoff:
        raise UnsupportedError("the GBSAOBCForce has a cutoff. Build the System with nonbondedMethod=NoCutoff.")
    charge, radius, scale = np.asarray(rows(n, force.getParticleParameters)).T
    surface = force.getSurfaceAreaEnergy().value_in_unit(unit.kilojoule_per_mole / unit.nanometer**2)
    tau = 1.0 / force.getSoluteDielectric() - 1.0 / force.getSolventDielectric()
    offset = 0.009
    coefficients = np.tile([1.0, 0.8, 4.85], (n, 1))
    per_atom = np.stack([charge, radius - offset, scale * (radius - offset)], axis=1)
    return [_born(n, dtype, per_atom, offset, coefficients, tau, 4.0 * np.pi * surface, swallowed=True)]


_NUMBER = r"([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)"
_SURFACE = re.compile(rf"{_NUMBER}\*\(radius\+0\.14\)\^2\*\(radius/B\)\^6")
_TANH = re.compile(r"tanh\(([^)]*)\)")
_MONOMIAL = re.compile(r"([-+]?[\w.]*?)\*?psi(?:\^([23]))?(?=[-+]|$)")


def recognise_gb(force: openmm.CustomGBForce, n: int) -> GeneralizedBorn | None:
    """Read the parameters of OpenMM's hct, obc1, obc2, gbn or gbn2 from the expressions, in double precision.

    None where they do not look like one of these models without salt or cutoff. What looks like one need not be one,
    for an expression may differ where nothing is read: ask :func:`agree`.
    """
    names = [force.getPerParticleParameterName(i) for i in range(force.getNumPerParticleParameters())]
    values = [force.getComputedValueParameters(i) for i in range(force.getNumComputedValues())]
    energies = [force.getEnergyTermParameters(i)[0] for i in range(force.getNumEnergyTerms())]
    if (
        force.getNonbondedMethod() != openmm.CustomGBForce.NoCutoff
        or names[:3] != ["charge", "or", "sr"]
        or [name for name, _, _ in values] != ["I", "B"]
        or len(energies) not in (2, 3)
        or not (scale := re.match(rf"-0\.5\*{_NUMBER}\*", energies[0]))
    ):
        return None
    descreening, born = (text for _, text, _ in values)
    table = np.asarray(rows(n, force.getParticleParameters), dtype=np.float64).reshape(n, len(names))
    parameters = dict(zip(names, table.T, strict=True))
    literal = {key: float(value) for key, value in re.findall(rf"(\w+)={_NUMBER}", ";".join([descreening, *energies]))}
    if not all(literal.get(name) for name in ("soluteDielectric", "solventDielectric", "offset")):
        return None
    tau = 1.0 / literal["soluteDielectric"] - 1.0 / literal["solventDielectric"]
    tau *= float(scale[1]) / COULOMB  # these expressions carry their own, rounded constant
    surface = next((float(match[1]) for text in energies if (match := _SURFACE.match(text))), 0.0)
    coefficients = None
    if (match := _TANH.search(born)) and (coefficients := _polynomial(match[1], parameters, n)) is None:
        return None
    neck = None
    if "neckScale" in literal:
        if (tables := _neck_tables(force, parameters)) is None or "neckCut" not in literal:
            return None
        neck = (literal["neckScale"], literal["neckCut"], *tables)
    return _born(n, torch.float64, table[:, :3], literal["offset"], coefficients, tau, surface, neck)


def agree(special: GeneralizedBorn, generic: CustomGB, n_frames: int = 8, seed: int = 0) -> bool:
    """Whether two terms have the same energies, to 1e-9 of them, in random geometries.

    The atoms are placed at random on a cubic grid, each displaced from its point by up to a quarter of the grid's
    spacing, which goes from 0.16 to 2 nm: some pairs are as close as 0.08 nm in the first frame, and all are far apart
    in the last. A large molecule may be undefined in the densest frames, where Born radii of HCT turn negative: there
    both terms must be so, and at least half of the frames must have an energy.
    """
    rng = np.random.default_rng(seed)
    n = special.n_atoms
    edge = math.ceil(n ** (1.0 / 3.0))
    grid = np.stack(np.unravel_index(np.arange(edge**3), (edge, edge, edge)), axis=1)
    places = np.stack([rng.permutation(grid)[:n] for _ in range(n_frames)])
    spacing = np.geomspace(0.16, 2.0, n_frames)[:, None, None]
    frames = spacing * (places + rng.uniform(-0.25, 0.25, places.shape))
    x = torch.as_tensor(frames.transpose(1, 2, 0).copy())
    with torch.no_grad():
        energy, reference = special.energy(x), generic.energy(x)
    same = torch.isclose(energy, reference, rtol=1e-9, atol=0.0, equal_nan=True)
    return bool(same.all()) and 2 * int(torch.isfinite(reference).sum()) >= n_frames


def _polynomial(text: str, parameters: dict[str, np.ndarray], n: int) -> np.ndarray | None:
    """Coefficients ``(n, 3)`` of αψ − βψ² + γψ³, or None if it is no such polynomial."""
    monomials = list(_MONOMIAL.finditer(text))
    if "".join(match[0] for match in monomials) != text:
        return None
    coefficients = np.zeros((n, 3))
    for match in monomials:
        sign = -1.0 if match[1].startswith("-") else 1.0
        name = match[1].lstrip("+-") or "1"
        value = parameters[name] if name in parameters else _float(name)
        if value is None:
            return None
        coefficients[:, int(match[2] or 1) - 1] = sign * value
    return coefficients * np.array([1.0, -1.0, 1.0])


def _float(text: str) -> float | None:
    return float(text) if re.fullmatch(_NUMBER, text) else None


def _neck_tables(
    force: openmm.CustomGBForce, parameters: dict[str, np.ndarray]
) -> tuple[np.ndarray, np.ndarray] | None:
    """Depths m₀ and distances d₀ of all pairs of atoms, ``(n, n)``, or None if the force has no such tables."""
    tables = {
        force.getTabulatedFunctionName(k): force.getTabulatedFunction(k)
        for k in range(force.getNumTabulatedFunctions())
    }
    if "radindex" not in parameters or not tables.keys() >= {"getm0", "getd0"}:
        return None
    index = np.rint(parameters["radindex"]).astype(int)
    found = []
    for name in ("getm0", "getd0"):
        if not isinstance(tables[name], openmm.Discrete2DFunction):
            return None
        x_size, y_size, values = tables[name].getFunctionParameters()
        if index.min() < 0 or index.max() >= min(x_size, y_size):
            return None
        found.append(np.asarray(values).reshape(y_size, x_size).T[np.ix_(index, index)])
    return found[0], found[1]


def _born(
    n: int,
    dtype: torch.dtype,
    per_atom: np.ndarray,
    offset: float,
    coefficients: np.ndarray | None,
    tau: float,
    surface: float,
    neck: tuple[float, float, np.ndarray, np.ndarray] | None = None,
    *,
    swallowed: bool = False,
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
        swallowed=np.array([int(swallowed)]),
        dielectric=np.array([tau]),
        surface=np.array([surface]),
        neck_scale=np.array([scale]),
        neck_cutoff=np.array([cutoff]),
        neck_depth=depth,
        neck_distance=distance,
    )
