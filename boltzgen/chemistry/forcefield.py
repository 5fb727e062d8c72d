"""The names of force fields and solvents, and AMBER protein force fields as OpenMM Systems."""

from __future__ import annotations

import difflib
import hashlib

import openmm
from openmm import app

from boltzgen.chemistry.mmff import VARIANTS as MMFF_VARIANTS
from boltzgen.chemistry.residues import DATA
from boltzgen.errors import InputError, UnsupportedError

AUTOMATIC = "auto"
PEPTIDE_DEFAULT = "ff14SB"
GENERAL_DEFAULT = "MMFF94s"

FORCE_FIELDS = {
    "ff14SB": "amber14/protein.ff14SB.xml",
    "ff19SB": "amber19/protein.ff19SB.xml",
    "ff96": "amber96.xml",
    "ff99SB": "amber99sb.xml",
    "ff99SB-ILDN": "amber99sbildn.xml",
    "ff03": "amber03.xml",
}
"""AMBER force fields of peptides, and their files."""

GENERATED = ("gaff-", "openff-", "smirnoff99frosst-", "espaloma")
"""How the names of force fields begin that openmmforcefields makes for one molecule."""

SOLVENTS = {
    "vacuum": None,
    **{name: f"implicit/{name}.xml" for name in ("hct", "obc1", "obc2", "gbn", "gbn2")},
}


def force_field_name(name: str) -> str:
    """Return the canonical spelling of a force-field name; raise InputError with the nearest known ones."""
    if name.lower().startswith(GENERATED):
        return name.lower()
    return _canonical(name, [AUTOMATIC, *FORCE_FIELDS, *MMFF_VARIANTS], "force field")


def is_generated(name: str) -> bool:
    """Whether openmmforcefields makes the force field of this name."""
    return name.startswith(GENERATED)


def solvent_name(name: str) -> str:
    """Return the canonical spelling of a solvent name; raise InputError with the nearest known ones."""
    return _canonical(name, [AUTOMATIC, *SOLVENTS], "solvent")


def force_field_files(force_field: str, solvent: str) -> dict[str, str]:
    """Return ``{file in OpenMM's data folder: hexadecimal SHA-256}`` for the files that define the energy."""
    files = [FORCE_FIELDS.get(force_field), SOLVENTS[solvent]]
    return {name: hashlib.sha256((DATA / name).read_bytes()).hexdigest() for name in files if name}


def build_system(topology: app.Topology, force_field: str, solvent: str) -> openmm.System:
    """Assign parameters: all bonds flexible, no cut-off, no constraints, no remover of centre-of-mass motion.

    Raises
    ------
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
    return create_system(definition, topology)


def create_system(definition: app.ForceField, topology: app.Topology) -> openmm.System:
    """Return the System of free coordinates that all Boltzmann generators here need."""
    return definition.createSystem(
        topology, nonbondedMethod=app.NoCutoff, constraints=None, rigidWater=False, removeCMMotion=False
    )


def net_charge(system: openmm.System) -> float:
    """Return the sum of the partial charges in e; NaN without a NonbondedForce."""
    nonbonded = next((force for force in system.getForces() if isinstance(force, openmm.NonbondedForce)), None)
    if nonbonded is None:
        return float("nan")
    charges = (nonbonded.getParticleParameters(i)[0] for i in range(nonbonded.getNumParticles()))
    return sum(charge.value_in_unit(openmm.unit.elementary_charge) for charge in charges)


def _canonical(name: str, known: list[str], what: str) -> str:
    by_lower = {entry.lower(): entry for entry in known}
    if name.lower() in by_lower:
        return by_lower[name.lower()]
    near = difflib.get_close_matches(name.lower(), by_lower, n=2, cutoff=0.4)
    hint = f"Did you mean {' or '.join(by_lower[key] for key in near)}?" if near else "Choose another."
    raise InputError(f"unknown {what} {name!r}. {hint} Known: {', '.join(known)}.")
