"""Hydrogens for a peptide whose file lacks them: as many as the residue templates have, where RDKit puts them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from rdkit import Chem

from boltzgen.chemistry.graph import with_hydrogens
from boltzgen.chemistry.pdb import by_residue, check_atoms, check_chain, heavy_names, structure_from_records
from boltzgen.chemistry.records import AtomRecord
from boltzgen.chemistry.residues import VARIANTS, Residue
from boltzgen.chemistry.structure import PlacedResidue, Structure
from boltzgen.errors import InputError

DEFAULTS = {"HIS": "HIE", "HSE": "HIE", "HSD": "HID", "HSP": "HIP"}
"""Templates of the names of histidine that are no templates themselves."""


def complete_peptide(
    atoms: Sequence[AtomRecord], residues: dict[str, Residue], where: str, warnings: list[str]
) -> Structure:
    """Return the peptide with all hydrogens; where any is missing all are placed anew, in the states of pH 7.

    Their positions are minimised with MMFF94s, the heavy atoms stay. The chosen histidines are told in ``warnings``.

    Raises
    ------
    InputError, UnsupportedError
        As :func:`~boltzgen.chemistry.pdb.structure_from_records`.
    """
    if any(atom.element == "H" for atom in atoms):
        try:
            return structure_from_records(atoms, residues, where)
        except InputError:
            warnings.append("hydrogens of the input are incomplete, and all placed anew")
    heavy = [atom for atom in atoms if atom.element != "H"]
    check_atoms(heavy)
    check_chain(heavy)
    groups = by_residue(heavy)
    templates = [_template(group, residues) for group in groups]
    names = [heavy_names(group, template) for group, template in zip(groups, templates, strict=True)]
    bare = Structure(
        tuple(
            PlacedResidue(_without_hydrogens(template), int(group[0].residue_id), tuple(own))
            for group, template, own in zip(groups, templates, names, strict=True)
        ),
        np.array([atom.xyz for atom in heavy]) / 10.0,
    )
    for residue in bare.residues:
        if residue.template.name in ("HIE", "HID", "HIP"):
            warnings.append(f"histidine {residue.number} is taken as {residue.template.name}")
    return _with_template_names(with_hydrogens(_open_valences(bare.to_rdkit()), warnings), bare, templates)


def _template(group: Sequence[AtomRecord], residues: dict[str, Residue]) -> Residue:
    given = DEFAULTS.get(group[0].residue_name, group[0].residue_name)
    return residues[given if given in residues else VARIANTS[given][0]]


def _without_hydrogens(template: Residue) -> Residue:
    elements = {name: symbol for name, symbol in template.elements.items() if symbol != "H"}
    bonds = tuple(pair for pair in template.bonds if set(pair) <= set(elements))
    return Residue(template.name, elements, bonds, template.external)


def _open_valences(mol: Chem.Mol) -> Chem.Mol:
    """Let hydrogens be missing, where the molecule was built as if there were none."""
    for atom in mol.GetAtoms():
        atom.SetNoImplicit(False)
        atom.SetNumRadicalElectrons(0)
    mol.UpdatePropertyCache()
    return mol


def _with_template_names(mol: Chem.Mol, bare: Structure, templates: Sequence[Residue]) -> Structure:
    x = mol.GetConformer().GetPositions() / 10.0
    at = bare.index()
    placed, positions = [], []
    for r, template in enumerate(templates):
        hydrogens = {
            name: iter(sorted(n.GetIdx() for n in mol.GetAtomWithIdx(at[r, name]).GetNeighbors() if _is_hydrogen(n)))
            for name in bare.residues[r].names
        }
        for name, symbol in template.elements.items():
            atom = at[r, name] if symbol != "H" else next(hydrogens[template.heavy_neighbour(name)])
            positions.append(x[atom])
        placed.append(PlacedResidue(template, bare.residues[r].number, tuple(template.elements)))
    return Structure(tuple(placed), np.array(positions))


def _is_hydrogen(atom: Chem.Atom) -> bool:
    return atom.GetAtomicNum() == 1
