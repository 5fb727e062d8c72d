"""From an input of any kind to one named molecule with coordinates, and whether residue templates match it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from rdkit import Chem

from boltzgen.chemistry.bonds import molecule_from_charge, molecule_from_template
from boltzgen.chemistry.configuration import assign_stereo
from boltzgen.chemistry.embed import embed, positions_of
from boltzgen.chemistry.graph import molecule_from_file, molecule_from_smiles
from boltzgen.chemistry.hydrogens import complete_peptide
from boltzgen.chemistry.names import Names, names_of_molecule, names_of_records, names_of_structure
from boltzgen.chemistry.pdb import structure_from_records, unknown_residue
from boltzgen.chemistry.peptides import NotAPeptide, place_peptide, split_peptide
from boltzgen.chemistry.read import InputSource
from boltzgen.chemistry.records import AtomRecord, largest_component, read_records
from boltzgen.chemistry.residues import load_residues
from boltzgen.chemistry.stereo import settle_stereo
from boltzgen.chemistry.structure import Structure, check_geometry
from boltzgen.errors import InputError, UnsupportedError


@dataclass(frozen=True)
class Reading:
    """How an input is to be understood.

    Attributes
    ----------
    template
        A SMILES of the same molecule, for the bond orders of a PDB or mmCIF file.
    charge
        Net charge in e: finds bond orders without a SMILES, and is checked wherever it is known.
    model
        Which model or molecule of the file, from 1; without it the first model of a PDB file.
    largest_fragment
        Of several molecules take the largest.
    add_hydrogens
        Complete a file without hydrogens.
    stereo
        Whether undefined stereo is refused, or picked with the seed.
    keep_order
        Never put the atoms in the order of residue templates.
    seed
        Of embedding and of the pick.
    """

    template: InputSource | None = None
    charge: int | None = None
    model: int | None = None
    largest_fragment: bool = False
    add_hydrogens: bool = False
    stereo: Literal["declared", "pick"] = "declared"
    keep_order: bool = False
    seed: int = 0


@dataclass(frozen=True)
class Interpreted:
    """One molecule: its graph ``mol`` with all hydrogens and one conformer, and the names of its atoms.

    ``structure`` is there if residue templates match; otherwise ``reason`` says why they do not.
    """

    mol: Chem.Mol
    names: Names
    structure: Structure | None
    reason: str
    warnings: tuple[str, ...]

    @property
    def positions(self) -> np.ndarray:
        """Coordinates ``(atoms, 3)`` in nm."""
        return positions_of(self.mol) if self.structure is None else self.structure.positions


def interpret(source: InputSource, reading: Reading) -> Interpreted:
    """Understand the input as one molecule.

    A PDB or mmCIF file of standard residues is a capped peptide; one of anything else needs ``template`` or ``charge``
    for its bond orders. All other inputs bring these, and are recognised as peptides by their graph.

    Raises
    ------
    InputError
        If the input is broken, incomplete or ambiguous; the message says what to do.
    UnsupportedError
        If it is valid but not one molecule that can be treated.
    """
    warnings: list[str] = []
    if source.kind not in ("pdb", "mmcif"):
        if reading.template is not None:
            raise InputError(f"{source.where}: brings its own bonds. Leave --smiles out.")
        return _from_graph(_read_graph(source, reading, warnings), None, source, reading, warnings)
    atoms, found = read_records(source, reading.model)
    warnings += found
    if reading.largest_fragment:
        atoms = largest_component(atoms, warnings)
    unknown = unknown_residue(atoms)
    if reading.template is not None:
        template = molecule_from_smiles(reading.template, warnings)
        mol = molecule_from_template(atoms, template, source.where, warnings, add_hydrogens=reading.add_hydrogens)
        return _from_graph(mol, atoms, source, reading, warnings)
    if unknown is None:
        return _from_residues(atoms, source, reading, warnings)
    if reading.charge is None:
        raise UnsupportedError(
            f"{unknown.place}: {unknown.residue_label} is no standard amino acid or cap, and the file does not say its "
            "bond orders. Give the whole molecule as --smiles or its net charge as --charge, or leave the residue out."
        )
    mol = molecule_from_charge(atoms, reading.charge, source.where)
    return _from_graph(mol, atoms, source, reading, warnings)


def _read_graph(source: InputSource, reading: Reading, warnings: list[str]) -> Chem.Mol:
    if source.kind == "smiles":
        if reading.model not in (None, 1):
            raise InputError(f"{source.where}: a SMILES has one molecule. Leave --model out.")
        return molecule_from_smiles(source, warnings, largest_fragment=reading.largest_fragment)
    return molecule_from_file(
        source,
        warnings,
        model=reading.model,
        largest_fragment=reading.largest_fragment,
        add_hydrogens=reading.add_hydrogens,
    )


def _from_residues(
    atoms: Sequence[AtomRecord], source: InputSource, reading: Reading, warnings: list[str]
) -> Interpreted:
    residues = load_residues()
    if reading.add_hydrogens:
        structure = complete_peptide(atoms, residues, source.where, warnings)
    else:
        structure = structure_from_records(atoms, residues, source.where)
    mol = structure.to_rdkit()
    _check_charge(mol, reading.charge, source.where)
    return Interpreted(mol, names_of_structure(structure), structure, "", tuple(warnings))


def _from_graph(
    mol: Chem.Mol,
    atoms: Sequence[AtomRecord] | None,
    source: InputSource,
    reading: Reading,
    warnings: list[str],
) -> Interpreted:
    """Recognise a peptide or name the atoms, settle the stereo, and see to the coordinates."""
    where = source.where
    _check_charge(mol, reading.charge, where)
    reason = "the order of the atoms is to be kept"
    if not reading.keep_order:
        try:
            residues, order = split_peptide(mol, load_residues())
        except NotAPeptide as answer:
            reason = str(answer)
        else:
            mol = Chem.RenumberAtoms(mol, order)
            labels = Structure(residues, np.zeros((len(order), 3))).labels()
            mol = _settle_stereo(mol, labels, where, reading, warnings)
            structure = place_peptide(residues, mol, where)
            _check_geometry(structure.to_rdkit(), labels, [where] * len(labels))
            return Interpreted(structure.to_rdkit(), names_of_structure(structure), structure, "", tuple(warnings))
    names = names_of_molecule(mol) if atoms is None else names_of_records(atoms, mol)
    mol = _settle_stereo(mol, names.labels, where, reading, warnings)
    if not mol.GetNumConformers():
        mol = embed(mol, where, reading.seed)
        assign_stereo(mol)
    places = [atom.place for atom in atoms] if atoms is not None and len(atoms) == mol.GetNumAtoms() else None
    _check_geometry(mol, names.labels, places or [where] * mol.GetNumAtoms())
    return Interpreted(mol, names, None, reason, tuple(warnings))


def _settle_stereo(mol: Chem.Mol, labels: Sequence[str], where: str, reading: Reading, warnings: list[str]) -> Chem.Mol:
    """See to what a graph without coordinates leaves open; coordinates leave nothing open."""
    if mol.GetNumConformers():
        return mol
    return settle_stereo(mol, labels, where, warnings, pick=reading.stereo == "pick", seed=reading.seed)


def _check_geometry(mol: Chem.Mol, labels: Sequence[str], places: Sequence[str]) -> None:
    bonds = [(bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()) for bond in mol.GetBonds()]
    check_geometry([atom.GetSymbol() for atom in mol.GetAtoms()], bonds, positions_of(mol), labels, places)


def _check_charge(mol: Chem.Mol, charge: int | None, where: str) -> None:
    formal = Chem.GetFormalCharge(mol)
    if charge is not None and charge != formal:
        raise InputError(f"{where}: the charge is {formal:+d}, --charge says {charge:+d}. Correct one of them.")
