"""Conversion of OpenMM's custom forces, whose energies are expressions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import openmm
import torch
from openmm import unit

from boltzgen.energy import convert_gb
from boltzgen.energy.convert_builtin import Converter
from boltzgen.energy.custom_bonded import (
    CustomAngle,
    CustomBond,
    CustomBonded,
    CustomCompoundBond,
    CustomExternal,
    CustomTorsion,
)
from boltzgen.energy.custom_gb import ALL_PAIRS, PAIRS, SINGLE, CustomGB
from boltzgen.energy.custom_nonbonded import CustomNonbonded
from boltzgen.energy.expression import Expression, Function
from boltzgen.energy.tabulated import TabulatedFunction
from boltzgen.energy.terms import Term
from boltzgen.errors import UnsupportedError


def _converter(term: type[CustomBonded], interaction: str, named: str) -> Converter:
    """Converter of a force whose methods are called ``getNum{interaction}s``, ``getNumPer{named}Parameters`` ..."""

    def convert(force: Any, n: int, dtype: torch.dtype) -> list[Term]:
        count = getattr(force, f"getNum{interaction}s")()
        if not count:
            return []
        atoms, table = [], []
        for index in range(count):
            *who, parameters = getattr(force, f"get{interaction}Parameters")(index)
            atoms.append(np.ravel(who))
            table.append(parameters)
        names = _names(getattr(force, f"getNumPer{named}Parameters")(), getattr(force, f"getPer{named}ParameterName"))
        converted = term(
            n,
            dtype,
            expression=force.getEnergyFunction(),
            atoms=np.asarray(atoms, dtype=np.int64),
            parameters=_columns(names, table),
            constants=_constants(force),
            functions=_tables(force),
        )
        return [converted]

    return convert


def _nonbonded(force: openmm.CustomNonbondedForce, n: int, dtype: torch.dtype) -> list[Term]:
    """Pairs are listed here: all of them, or those of interaction groups, without exclusions."""
    parameters = _per_particle(force)
    constants, functions = _constants(force), _tables(force)
    for index in range(force.getNumComputedValues()):
        name, text = force.getComputedValueParameters(index)
        parameters[name] = _computed(text, parameters, constants, functions, n)
    has_cutoff = force.getNonbondedMethod() != openmm.CustomNonbondedForce.NoCutoff
    switched = has_cutoff and force.getUseSwitchingFunction()
    pairs = _interacting_pairs(force, n)
    if not len(pairs):
        return []
    term = CustomNonbonded(
        n,
        dtype,
        expression=force.getEnergyFunction(),
        pairs=pairs,
        parameters=parameters,
        constants=constants,
        functions=functions,
        cutoff=force.getCutoffDistance().value_in_unit(unit.nanometer) if has_cutoff else None,
        switching=force.getSwitchingDistance().value_in_unit(unit.nanometer) if switched else None,
    )
    return [term]


def _gb(force: openmm.CustomGBForce, n: int, dtype: torch.dtype) -> list[Term]:
    """The expressions as they are, or the faster term of OpenMM's own models where both agree."""
    generic = convert_gb_as_written(force, n)
    special = convert_gb.recognise_gb(force, n)
    if special is not None and convert_gb.agree(special, generic):
        return [type(special)(n, dtype, **special.arrays())]
    return [CustomGB(n, dtype, **generic.arrays())]


def convert_gb_as_written(force: openmm.CustomGBForce, n: int) -> CustomGB:
    """Convert the expressions of a CustomGBForce as they are, in double precision."""
    kinds = {
        openmm.CustomGBForce.SingleParticle: SINGLE,
        openmm.CustomGBForce.ParticlePair: PAIRS,
        openmm.CustomGBForce.ParticlePairNoExclusions: ALL_PAIRS,
    }
    values = [force.getComputedValueParameters(index) for index in range(force.getNumComputedValues())]
    energies = [force.getEnergyTermParameters(index) for index in range(force.getNumEnergyTerms())]
    has_cutoff = force.getNonbondedMethod() != openmm.CustomGBForce.NoCutoff
    return CustomGB(
        n,
        torch.float64,
        names=[name for name, _, _ in values],
        values=[text for _, text, _ in values],
        value_kinds=[kinds[kind] for _, _, kind in values],
        energies=[text for text, _ in energies],
        energy_kinds=[kinds[kind] for _, kind in energies],
        exclusions=_exclusions(force),
        parameters=_per_particle(force),
        constants=_constants(force),
        functions=_tables(force),
        cutoff=force.getCutoffDistance().value_in_unit(unit.nanometer) if has_cutoff else None,
    )


def _names(count: int, get: Callable[[int], str]) -> list[str]:
    return [get(index) for index in range(count)]


def _columns(names: list[str], table: Sequence[Sequence[float]]) -> dict[str, np.ndarray]:
    values = np.asarray(table, dtype=np.float64).reshape(len(table), len(names))
    return {name: values[:, index].copy() for index, name in enumerate(names)}


def _per_particle(force: Any) -> dict[str, np.ndarray]:
    names = _names(force.getNumPerParticleParameters(), force.getPerParticleParameterName)
    return _columns(names, [force.getParticleParameters(index) for index in range(force.getNumParticles())])


def _constants(force: Any) -> dict[str, float]:
    count = force.getNumGlobalParameters()
    names = _names(count, force.getGlobalParameterName)
    return {name: float(force.getGlobalParameterDefaultValue(index)) for index, name in enumerate(names)}


def _exclusions(force: Any) -> np.ndarray:
    pairs = [force.getExclusionParticles(index) for index in range(force.getNumExclusions())]
    return np.asarray(pairs, dtype=np.int64).reshape(-1, 2)


def _interacting_pairs(force: openmm.CustomNonbondedForce, n: int) -> np.ndarray:
    """Pairs ``(m, 2)``; one that is in several interaction groups comes as often, as in OpenMM."""
    excluded = np.eye(n, dtype=bool)
    exclusions = _exclusions(force)
    excluded[exclusions[:, 0], exclusions[:, 1]] = excluded[exclusions[:, 1], exclusions[:, 0]] = True
    if not force.getNumInteractionGroups():
        return np.argwhere(np.triu(~excluded))
    found = []
    for index in range(force.getNumInteractionGroups()):
        first, second = (np.isin(np.arange(n), atoms) for atoms in force.getInteractionGroupParameters(index))
        pairs = np.outer(first, second) & ~excluded
        twice = pairs & pairs.T & np.tri(n, dtype=bool)
        found.append(np.argwhere(pairs & ~twice))
    return np.concatenate(found)


def _tables(force: Any) -> dict[str, dict[str, Any]]:
    if not hasattr(force, "getNumTabulatedFunctions"):  # custom bonds, angles, torsions and external forces have none
        return {}
    count = force.getNumTabulatedFunctions()
    names = _names(count, force.getTabulatedFunctionName)
    return {name: tabulated(force.getTabulatedFunction(index)) for index, name in enumerate(names)}


def tabulated(function: openmm.TabulatedFunction) -> dict[str, Any]:
    """Arguments of :meth:`TabulatedFunction.from_tree`; in OpenMM's tables the first argument runs fastest."""
    given = function.getFunctionParameters()
    if isinstance(function, openmm.Discrete1DFunction):
        given = [given]  # the only class whose method has a single result
    n_sizes = next(index for index, part in enumerate(given) if isinstance(part, tuple))
    values = np.asarray(given[n_sizes], dtype=np.float64)
    table = np.ascontiguousarray(values.reshape(given[:n_sizes] or len(values), order="F"))
    limits = np.asarray(given[n_sizes + 1 :], dtype=np.float64)
    if not len(limits):
        return {"kind": "discrete", "values": table}
    periodic = bool(function.getPeriodic())
    return {"kind": "continuous", "values": table, "lower": limits[::2], "upper": limits[1::2], "periodic": periodic}


def _computed(
    text: str,
    parameters: dict[str, np.ndarray],
    constants: dict[str, float],
    functions: dict[str, dict[str, Any]],
    n: int,
) -> np.ndarray:
    """Values ``(n,)`` of an expression of the parameters of each atom."""
    tables = {name: TabulatedFunction.from_tree(tree, torch.float64) for name, tree in functions.items()}
    expression = Expression(
        text, [*parameters, *constants], {name: Function(table.arity, table) for name, table in tables.items()}
    )
    values = {name: torch.as_tensor(value) for name, value in {**parameters, **constants}.items()}
    values[""] = torch.zeros(n, dtype=torch.float64)  # tells literals their precision
    return expression(values).broadcast_to(n).numpy().copy()


def _named(kind: str, convert: Converter) -> Converter:
    """The converter, with periodic forces refused and errors that say which force they are about."""

    def named(force: Any, n: int, dtype: torch.dtype) -> list[Term]:
        if force.usesPeriodicBoundaryConditions():
            raise UnsupportedError(f"the {kind} uses periodic boundary conditions. Build the System without a box.")
        try:
            return convert(force, n, dtype)
        except UnsupportedError as error:
            raise UnsupportedError(f"{kind}: {error}") from error

    return named


_BY_EXPRESSION: dict[str, Converter] = {
    "CustomBondForce": _converter(CustomBond, "Bond", "Bond"),
    "CustomAngleForce": _converter(CustomAngle, "Angle", "Angle"),
    "CustomTorsionForce": _converter(CustomTorsion, "Torsion", "Torsion"),
    "CustomExternalForce": _converter(CustomExternal, "Particle", "Particle"),
    "CustomCompoundBondForce": _converter(CustomCompoundBond, "Bond", "Bond"),
    "CustomNonbondedForce": _nonbonded,
    "CustomGBForce": _gb,
}

CONVERTERS: dict[str, Converter] = {
    **{kind: _named(kind, convert) for kind, convert in _BY_EXPRESSION.items()},
    "GBSAOBCForce": convert_gb.convert_gbsa_obc,
}
