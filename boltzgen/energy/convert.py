"""Conversion of an OpenMM System to a torch potential."""

from __future__ import annotations

import copy

import openmm
import torch

from boltzgen.energy import convert_builtin, convert_custom, convert_mmff
from boltzgen.energy.convert_builtin import Converter
from boltzgen.energy.openmm import OpenMMEnergy
from boltzgen.energy.potential import PotentialEnergy
from boltzgen.energy.terms import Term
from boltzgen.errors import InputError, UnsupportedError

_CONVERTERS: dict[str, Converter] = {**convert_builtin.CONVERTERS, **convert_custom.CONVERTERS}


def from_openmm(
    system: openmm.System, dtype: torch.dtype = torch.float64, *, fallback: bool = False
) -> PotentialEnergy:
    """Convert an OpenMM System to a batched, differentiable torch energy.

    Every force becomes terms of the same energy at the default values of its global parameters; a CMMotionRemover has
    none. With ``fallback`` the forces that cannot be converted are left to OpenMM, all in one :class:`OpenMMEnergy`,
    which evaluates them sample by sample; the others are converted, and softened, as usual.

    What no energy of free coordinates can stand for is refused either way: constraints and virtual sites, which
    independent internal coordinates do not obey; periodic boundary conditions, as a molecule here has no box; barostats
    and thermostats, which ask for an ensemble of their own; and a PythonForce, which is a program and no data to store.

    Raises
    ------
    InputError
        If OpenMM itself refuses the System.
    UnsupportedError
        For the above and, without ``fallback``, for a force that cannot be converted; the message names it.
    """
    _refuse_what_is_no_energy(system)
    n = system.getNumParticles()
    terms: list[Term] = []
    left: list[openmm.Force] = []
    for force in system.getForces():
        if isinstance(force, openmm.CMMotionRemover):
            continue
        try:
            terms.extend(_convert(force, n, dtype))
        except UnsupportedError as error:
            if not fallback:
                raise UnsupportedError(
                    f"{error} from_openmm(system, fallback=True) leaves it to OpenMM, which is slow."
                ) from error
            left.append(force)
        except (IndexError, openmm.OpenMMException):
            _refuse_what_openmm_refuses(system)
            raise
    _refuse_what_openmm_refuses(system)
    if left:
        terms.append(OpenMMEnergy(n, dtype, system_xml=_system_of(left, system)))
    return PotentialEnergy(terms, n_atoms=n)


def _convert(force: openmm.Force, n: int, dtype: torch.dtype) -> list[Term]:
    kind = type(force).__name__
    terms = convert_mmff.recognise(force, n, dtype)
    if terms is not None:
        return terms
    if kind not in _CONVERTERS:
        raise UnsupportedError(f"the System has a {kind}, which this version cannot convert.")
    return _CONVERTERS[kind](force, n, dtype)


def _refuse_what_is_no_energy(system: openmm.System) -> None:
    if system.getNumConstraints():
        raise UnsupportedError(
            f"the System has {system.getNumConstraints()} constraints. "
            "Build it with constraints=None and flexible water."
        )
    if any(system.isVirtualSite(i) for i in range(system.getNumParticles())):
        raise UnsupportedError("the System has virtual sites, which have no internal coordinates of their own.")
    for force in system.getForces():
        kind = type(force).__name__
        if kind.endswith("Barostat"):
            raise UnsupportedError(f"the System has a {kind}, but pressure has no meaning without a box. Remove it.")
        if kind.endswith("Thermostat"):
            raise UnsupportedError(f"the System has an {kind}, but the temperature is given elsewhere. Remove it.")
        if kind == "PythonForce":
            raise UnsupportedError("the System has a PythonForce, a program, which is never run from a stored System.")
        if force.usesPeriodicBoundaryConditions():
            raise UnsupportedError(
                f"the {kind} uses periodic boundary conditions. Build the System without a box, with "
                "nonbondedMethod=NoCutoff."
            )


def _refuse_what_openmm_refuses(system: openmm.System) -> None:
    """OpenMM checks indices, counts and ranges of parameters when it makes a Context."""
    try:
        openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference"))
    except openmm.OpenMMException as error:
        raise InputError(f"OpenMM refuses the System: {' '.join(str(error).split())}") from error


def _system_of(forces: list[openmm.Force], system: openmm.System) -> str:
    """The XML of a System with the same particles and only these forces."""
    part = openmm.System()
    for index in range(system.getNumParticles()):
        part.addParticle(system.getParticleMass(index))
    for force in forces:
        part.addForce(copy.deepcopy(force))
    return openmm.XmlSerializer.serialize(part)
