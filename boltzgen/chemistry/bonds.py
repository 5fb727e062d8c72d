"""Bond orders for the bare atoms of a PDB or mmCIF file: from a SMILES of the same molecule, or from the net charge."""

from __future__ import annotations

from collections.abc import Sequence

from rdkit import Chem
from rdkit.Chem import rdDetermineBonds
from rdkit.Chem.rdMolDescriptors import CalcMolFormula
from rdkit.Geometry import Point3D
from rdkit.rdBase import BlockLogs

from boltzgen.chemistry.configuration import assign_stereo
from boltzgen.chemistry.graph import check_molecule, with_hydrogens
from boltzgen.chemistry.read import printable
from boltzgen.chemistry.records import AtomRecord
from boltzgen.chemistry.structure import check_geometry, check_size
from boltzgen.errors import InputError, UnsupportedError

MAX_ITERATIONS = 100_000
"""Bond-order assignments that are tried before giving up: the search grows exponentially."""


def molecule_from_template(
    atoms: Sequence[AtomRecord], template: Chem.Mol, where: str, warnings: list[str], *, add_hydrogens: bool = False
) -> Chem.Mol:
    """Return the molecule of the atoms with bond orders and charges of ``template`` (all hydrogens), stereo from 3D.

    Raises
    ------
    InputError
        If the atoms are not those of the template, hydrogens are missing, or the configuration differs.
    UnsupportedError
        For several molecules.
    """
    skeleton = _skeleton(atoms, where)
    missing_hydrogens = not any(atom.element == "H" for atom in atoms)
    if missing_hydrogens and not add_hydrogens and any(a.GetAtomicNum() == 1 for a in template.GetAtoms()):
        raise InputError(f"{where}: no hydrogens. Add them, for example with --add-hydrogens.")
    wanted = Chem.RemoveHs(template) if missing_hydrogens else template
    match = _graph(skeleton).GetSubstructMatch(_graph(wanted))
    # The match is of a part: without a count of the bonds, atoms that touch by mistake would be bonded.
    if len(match) != skeleton.GetNumAtoms() or skeleton.GetNumBonds() != wanted.GetNumBonds():
        raise InputError(
            f"{where}: the atoms are not those of --smiles: {CalcMolFormula(skeleton)} with the bonds that the "
            f"distances say, instead of {CalcMolFormula(wanted)}. Correct one of them."
        )
    mol = Chem.RWMol(skeleton)
    for source, target in enumerate(match):
        atom, model = mol.GetAtomWithIdx(target), wanted.GetAtomWithIdx(source)
        atom.SetFormalCharge(model.GetFormalCharge())
        atom.SetNoImplicit(not missing_hydrogens)
        atom.SetNumExplicitHs(model.GetTotalNumHs() if missing_hydrogens else 0)
    kekulised = Chem.Mol(wanted)
    Chem.Kekulize(kekulised, clearAromaticFlags=True)
    for bond in kekulised.GetBonds():
        i, j = match[bond.GetBeginAtomIdx()], match[bond.GetEndAtomIdx()]
        mol.GetBondBetweenAtoms(i, j).SetBondType(bond.GetBondType())
    Chem.SanitizeMol(mol)
    complete = with_hydrogens(mol.GetMol(), warnings) if missing_hydrogens else mol.GetMol()
    assign_stereo(complete)
    _check_configuration(complete, template, where)
    return complete


def molecule_from_charge(atoms: Sequence[AtomRecord], charge: int, where: str) -> Chem.Mol:
    """Return the molecule of the atoms with the bond orders that distances and the net charge allow, stereo from 3D.

    Raises
    ------
    InputError
        If no assignment has this charge, as when hydrogens are missing.
    UnsupportedError
        For several molecules, and where the search would take too long.
    """
    if not any(atom.element == "H" for atom in atoms):
        # The search would find some other molecule, with multiple bonds in their place.
        raise InputError(f"{where}: no hydrogens. Give the molecule as --smiles, with --add-hydrogens.")
    mol = _skeleton(atoms, where)
    advice = "Check the charge and the hydrogens, or give the molecule as --smiles."
    try:
        with BlockLogs():
            rdDetermineBonds.DetermineBondOrders(
                mol, charge=charge, allowChargedFragments=True, embedChiral=False, maxIterations=MAX_ITERATIONS
            )
            Chem.SanitizeMol(mol)
    except (ValueError, RuntimeError) as error:
        reason = printable(str(error).strip().splitlines()[0], 120)
        raise InputError(f"{where}: no bond orders fit the charge {charge:+d} ({reason}). {advice}") from error
    check_molecule(mol, where)
    if Chem.GetFormalCharge(mol) != charge:
        raise InputError(f"{where}: the bond orders give the charge {Chem.GetFormalCharge(mol):+d}. {advice}")
    assign_stereo(mol)
    return mol


def _skeleton(atoms: Sequence[AtomRecord], where: str) -> Chem.Mol:
    """Single bonds between the atoms whose distance says so, after the checks that a force field does not make."""
    check_size(len(atoms), where)
    mol = Chem.RWMol()
    conformer = Chem.Conformer(len(atoms))
    for i, record in enumerate(atoms):
        atom = Chem.Atom(record.element)
        atom.SetNoImplicit(True)
        mol.AddAtom(atom)
        conformer.SetAtomPosition(i, Point3D(*record.xyz))
    mol.AddConformer(conformer)
    with BlockLogs():
        rdDetermineBonds.DetermineConnectivity(mol, useVdw=False)
    bonds = [(bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()) for bond in mol.GetBonds()]
    check_geometry(
        [atom.GetSymbol() for atom in mol.GetAtoms()],
        bonds,
        conformer.GetPositions() / 10.0,
        [record.label for record in atoms],
        [record.place for record in atoms],
    )
    fragments = Chem.GetMolFrags(mol)
    if len(fragments) > 1:
        apart = atoms[fragments[1][0]]
        raise UnsupportedError(
            f"{apart.place}: {len(fragments)} molecules ({apart.label} is apart from the first), whose relative "
            "position is unbounded. Give one, or --largest-fragment."
        )
    return mol


def _graph(mol: Chem.Mol) -> Chem.Mol:
    """The elements and which of them are bonded, nothing else."""
    graph = Chem.RWMol()
    for atom in mol.GetAtoms():
        graph.AddAtom(Chem.Atom(atom.GetAtomicNum()))
    for bond in mol.GetBonds():
        graph.AddBond(bond.GetBeginAtomIdx(), bond.GetEndAtomIdx(), Chem.BondType.SINGLE)
    return graph.GetMol()


def _check_configuration(mol: Chem.Mol, template: Chem.Mol, where: str) -> None:
    plain, wanted = Chem.RemoveHs(mol), Chem.RemoveHs(template)
    if not plain.HasSubstructMatch(wanted, useChirality=True):
        raise InputError(
            f"{where}: the coordinates have another configuration than --smiles: {Chem.MolToSmiles(plain)}. "
            "Correct one of them."
        )
