"""From the names that a user gives to an OpenMM System: AMBER protein force fields and implicit solvents."""

from __future__ import annotations

import difflib
import hashlib

import openmm
from openmm import app

from boltzgen.chemistry.residues import DATA
from boltzgen.errors import InputError, UnsupportedError

FORCE_FIELDS = {
    "ff14SB": "amber14/protein.ff14SB.xml",
    "ff19SB": "amber19/protein.ff19SB.xml",
    "ff96": "amber96.xml",
    "ff99SB": "amber99sb.xml",
    "ff99SB-ILDN": "amber99sbildn.xml",
    "ff03": "amber03.xml",
}
SOLVENTS = {
    "vacuum": None,
    **{name: f"implicit/{name}.xml" for name in ("hct", "obc1", "obc2", "gbn", "gbn2")},
}


def force_field_name(name: str) -> str:
    """Return the canonical spelling of a force-field name; raise InputError with the nearest known ones."""
    return _canonical(name, list(FORCE_FIELDS), "force field")


def solvent_name(name: str) -> str:
    """Return the canonical spelling of a solvent name; raise InputError with the nearest known ones."""
    return _canonical(name, list(SOLVENTS), "solvent")


def force_field_files(force_field: str, solvent: str) -> dict[str, str]:
    """Return ``{file in OpenMM's data folder: hexadecimal SHA-256}`` for the files that define the energy."""
    files = [FORCE_FIELDS[force_field_name(force_field)], SOLVENTS[solvent_name(solvent)]]
    return {name: hashlib.sha256((DATA / name).read_bytes()).hexdigest() for name in files if name}


def build_system(topology: app.Topology, force_field: str, solvent: str) -> openmm.System:
    """Assign parameters: all bonds flexible, no cut-off, no constraints, no remover of centre-of-mass motion.

    Raises
    ------
    InputError
        If a name is unknown.
    UnsupportedError
        If the force field has no parameters for a residue.
    """
    definition = app.ForceField(*force_field_files(force_field, solvent))
    unmatched = definition.getUnmatchedResidues(topology)
    if unmatched:
        residue = unmatched[0]
        raise UnsupportedError(
            f"{force_field} has no parameters for {residue.name}{residue.id}. "
            "Choose another force field, or another residue."
        )
    return definition.createSystem(
        topology, nonbondedMethod=app.NoCutoff, constraints=None, rigidWater=False, removeCMMotion=False
    )


def net_charge(system: openmm.System) -> int:
    """Return the net charge in units of e.

    Raises
    ------
    UnsupportedError
        If the partial charges do not add up to an integer within 1e-3.
    """
    nonbonded = next(force for force in system.getForces() if isinstance(force, openmm.NonbondedForce))
    total = sum(
        nonbonded.getParticleParameters(i)[0].value_in_unit(openmm.unit.elementary_charge)
        for i in range(system.getNumParticles())
    )
    if abs(total - round(total)) > 1e-3:
        raise UnsupportedError(f"the partial charges add up to {total:.4f} e, no integer. Choose another force field.")
    return round(total)


def _canonical(name: str, known: list[str], what: str) -> str:
    by_lower = {entry.lower(): entry for entry in known}
    if name.lower() in by_lower:
        return by_lower[name.lower()]
    near = difflib.get_close_matches(name.lower(), by_lower, n=2, cutoff=0.4)
    hint = f"Did you mean {' or '.join(by_lower[key] for key in near)}?" if near else "Choose another."
    raise InputError(f"unknown {what} {name!r}. {hint} Known: {', '.join(known)}.")
