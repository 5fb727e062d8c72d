"""The molecule of a prepared run once more, under another force field."""

from __future__ import annotations

from pathlib import Path

from boltzgen.chemistry.build import ChemicalSystem, build
from boltzgen.chemistry.external import SystemFile
from boltzgen.chemistry.forcefield import AUTOMATIC
from boltzgen.chemistry.interpret import Reading
from boltzgen.chemistry.pdb import unknown_residue
from boltzgen.chemistry.read import read_input
from boltzgen.chemistry.records import read_records
from boltzgen.errors import ConflictError
from boltzgen.molecule import Molecule


def rebuild(
    structure: Path,
    molecule: Molecule,
    force_field: str = AUTOMATIC,
    solvent: str = AUTOMATIC,
    system_file: SystemFile | None = None,
) -> ChemicalSystem:
    """Assign a force field to the molecule of a run, or take the System that is given.

    ``structure`` is the run's ``system.pdb``, in the order of ``molecule``; bond orders of what is no peptide come from
    the molecule's SMILES.

    Raises
    ------
    InputError
        If a name is unknown, or the System is not of this molecule.
    UnsupportedError
        If the force field does not know the molecule.
    ConflictError
        If the atoms or bonds come out as others than the run's.
    """
    source = read_input(structure)
    is_peptide = unknown_residue(read_records(source, None)[0]) is None
    template = None if is_peptide else read_input(smiles=molecule.smiles)
    reading = Reading(template=template, keep_order=not is_peptide)
    chemical = build(source, force_field, solvent, reading, system_file)
    own = chemical.molecule
    if (own.atomic_numbers, own.bonds) != (molecule.atomic_numbers, molecule.bonds):
        raise ConflictError(
            f"{structure}: under this force field its atoms have another order, or other bonds, than in the run. "
            "Prepare a run with it."
        )
    return chemical
