"""Force fields that openmmforcefields makes for one molecule: GAFF, those of Open Force Field, Espaloma.

They need toolkits that no package index for pip has complete; conda-forge has them. Nothing is imported before it is
asked for.
"""

from __future__ import annotations

import importlib
import importlib.util
import shutil

import openmm
from openmm import app
from rdkit import Chem

from boltzgen.chemistry.forcefield import create_system, force_field_files
from boltzgen.errors import EnvironmentProblem, InputError, UnsupportedError


def build_generated_system(mol: Chem.Mol, topology: app.Topology, force_field: str, solvent: str) -> openmm.System:
    """Return the System of a molecule whose atoms and bonds are those of the topology.

    Raises
    ------
    EnvironmentProblem
        If a toolkit is missing; the message names all that are.
    InputError
        If there is no such version of the force field.
    UnsupportedError
        If it has no parameters for the molecule.
    """
    missing = missing_toolkits(force_field)
    if missing:
        raise EnvironmentProblem(
            f"--ff {force_field} needs {', '.join(missing)}, which is not installed here. Install it from conda-forge, "
            "or give a System of any tool as --system."
        )
    toolkit = importlib.import_module("openff.toolkit")
    generators = importlib.import_module("openmmforcefields.generators")
    kind = next(cls for start, cls in _GENERATORS.items() if force_field.startswith(start))
    generator_class = getattr(generators, kind)
    if force_field not in generator_class.INSTALLED_FORCEFIELDS:
        known = ", ".join(generator_class.INSTALLED_FORCEFIELDS)
        raise InputError(f"unknown force field {force_field!r}. Known: {known}.")
    molecule = toolkit.Molecule.from_rdkit(mol, allow_undefined_stereo=True, hydrogens_are_explicit=True)
    definition = app.ForceField(*force_field_files("", solvent))
    definition.registerTemplateGenerator(generator_class(molecules=molecule, forcefield=force_field).generator)
    try:
        return create_system(definition, topology)
    except Exception as error:  # each toolkit has its own
        raise UnsupportedError(f"{force_field} cannot be applied to this molecule: {error!s:.160}") from error


def missing_toolkits(force_field: str) -> list[str]:
    """Return the names of the packages and programs that the force field needs and that are not here."""
    needed = ["openff.toolkit", "openmmforcefields"] + (["espaloma"] if force_field.startswith("espaloma") else [])
    missing = [name for name in needed if not _is_installed(name)]
    if not force_field.startswith("espaloma") and shutil.which("antechamber") is None:
        missing.append("AmberTools (antechamber)")
    return missing


_GENERATORS = {
    "gaff": "GAFFTemplateGenerator",
    "openff": "SMIRNOFFTemplateGenerator",
    "smirnoff": "SMIRNOFFTemplateGenerator",
    "espaloma": "EspalomaTemplateGenerator",
}


def _is_installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # of the parent of a dotted name
        return False
