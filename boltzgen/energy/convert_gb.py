"""Conversion of generalised-Born forces: GBSAOBCForce, and the CustomGBForce of OpenMM's own models."""

from __future__ import annotations

import re

import numpy as np
import openmm
import torch
from openmm import unit

from boltzgen.constants import COULOMB
from boltzgen.energy.convert_builtin import rows
from boltzgen.energy.solvent import GeneralizedBorn
from boltzgen.energy.terms import Term
from boltzgen.errors import UnsupportedError


def convert_gbsa_obc(force: openmm.GBSAOBCForce, n: int, dtype: torch.dtype) -> list[Term]:
    """Convert the native force: OBC2 with its own rounding of the Coulomb constant."""
    if force.getNonbondedMethod() != openmm.GBSAOBCForce.NoCutoff:
        raise UnsupportedError("the GBSAOBCForce has a cutoff. Build the System with nonbondedMethod=NoCutoff.")
    charge, radius, scale = np.asarray(rows(n, force.getParticleParameters)).T
    surface = force.getSurfaceAreaEnergy().value_in_unit(unit.kilojoule_per_mole / unit.nanometer**2)
    tau = 1.0 / force.getSoluteDielectric() - 1.0 / force.getSolventDielectric()
    offset = 0.009
    coefficients = np.tile([1.0, 0.8, 4.85], (n, 1))
    per_atom = np.stack([charge, radius - offset, scale * (radius - offset)], axis=1)
    return [_born(n, dtype, per_atom, offset, coefficients, tau, 4.0 * np.pi * surface)]


_NUMBER = r"([-+]?[0-9.]+(?:[eE][-+]?[0-9]+)?)"
_TANH = re.compile(r"tanh\(([^)]*)\)")
_MONOMIAL = re.compile(r"([-+]?[\w.]*?)\*?psi(?:\^([23]))?(?=[-+]|$)")


def convert_known_gb(force: openmm.CustomGBForce, n: int, dtype: torch.dtype) -> list[Term]:
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
    table = np.asarray(rows(n, lambda index: force.getParticleParameters(index)), dtype=np.float64)
    parameters = dict(zip(names, table.T, strict=True))
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
    per_atom = table[:, :3]
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
