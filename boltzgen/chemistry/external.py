"""A System from any tool, given as the XML that OpenMM serialises: checked before OpenMM reads it, and after."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import openmm
from rdkit import Chem

from boltzgen.chemistry.read import printable, read_text
from boltzgen.energy.openmm import has_python_force
from boltzgen.errors import InputError, UnsupportedError

MASS_TOLERANCE = 0.1
"""Largest difference between a particle's mass and that of its element, in dalton: tools round differently."""


@dataclass(frozen=True)
class SystemFile:
    """The text of a serialised System, its SHA-256, and what messages call it."""

    text: str
    sha256: str
    where: str


def read_system_file(path: str | Path) -> SystemFile:
    """Read a serialised System, plain or gzip; nothing in it is executed.

    Raises
    ------
    InputError
        If it is no System in XML.
    UnsupportedError
        If it has a PythonForce, which is a program.
    """
    where = printable(str(path), limit=200)
    advice = "Give a System that openmm.XmlSerializer has written."
    text = read_text(Path(path), advice)
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise InputError(f"{where}: has a document type, which no System has. {advice}")
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise InputError(f"{where}: is no valid XML ({error}). {advice}") from error
    if root.tag != "System" and root.get("type") != "System":
        raise InputError(f"{where}: is XML, but no System. {advice}")
    if has_python_force(root):
        raise UnsupportedError(
            f"{where}: has a PythonForce, a program, which is never run from a file. Express it as a custom force."
        )
    return SystemFile(text, hashlib.sha256(text.encode()).hexdigest(), where)


def load_system(file: SystemFile, mol: Chem.Mol, labels: Sequence[str]) -> openmm.System:
    """Return the System after checking that its particles are the atoms of the molecule, in the same order.

    Raises
    ------
    InputError
        If OpenMM cannot read it, or the number or masses of its particles are others.
    """
    try:
        system = openmm.XmlSerializer.deserialize(file.text)
    except Exception as error:  # OpenMM raises its own and SWIG's
        raise InputError(f"{file.where}: OpenMM cannot read it ({printable(str(error), 160)}).") from error
    if not isinstance(system, openmm.System):
        raise InputError(f"{file.where}: is no System. Give one that openmm.XmlSerializer has written.")
    n_atoms = mol.GetNumAtoms()
    if system.getNumParticles() != n_atoms:
        raise InputError(
            f"{file.where}: has {system.getNumParticles()} particles, the molecule {n_atoms} atoms. "
            "Give the structure from which the System was made."
        )
    for i, atom in enumerate(mol.GetAtoms()):
        mass = system.getParticleMass(i).value_in_unit(openmm.unit.dalton)
        if abs(mass - atom.GetMass()) > MASS_TOLERANCE:
            raise InputError(
                f"{file.where}: particle {i + 1} has mass {mass:.3f}, but {labels[i]} of the molecule is "
                f"{atom.GetSymbol()} with {atom.GetMass():.3f}. The atoms must be the same, in the same order, "
                "with plain masses."
            )
    return system
