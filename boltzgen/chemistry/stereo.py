"""Bond orders, SMILES and chirality of a named peptide chain, from its templates and its coordinates."""

from __future__ import annotations

import numpy as np
from rdkit import Chem
from rdkit.Chem import rdCIPLabeler
from rdkit.Chem.rdMolDescriptors import CalcMolFormula
from rdkit.Geometry import Point3D

from boltzgen.chemistry.residues import FORMAL_CHARGES
from boltzgen.chemistry.structure import Structure
from boltzgen.errors import InputError


def rdkit_molecule(structure: Structure) -> Chem.Mol:
    """Return the molecule with all hydrogens, in the atom order of the structure, chirality taken from 3D.

    Bond orders and formal charges come from the residue templates: deriving them from the element graph is a
    search that grows with the molecule, and coordinates alone do not determine them.
    """
    mol = Chem.RWMol()
    for symbol in structure.elements():
        atom = Chem.Atom(symbol)
        atom.SetNoImplicit(True)
        mol.AddAtom(atom)
    at = structure.index()
    for i, j in structure.bonds():
        mol.AddBond(i, j, Chem.BondType.SINGLE)
    for r, residue in enumerate(structure.residues):
        for a, b in residue.template.double_bonds:
            mol.GetBondBetweenAtoms(at[r, a], at[r, b]).SetBondType(Chem.BondType.DOUBLE)
        if residue.template.name in FORMAL_CHARGES:
            name, charge = FORMAL_CHARGES[residue.template.name]
            mol.GetAtomWithIdx(at[r, name]).SetFormalCharge(charge)
    conformer = Chem.Conformer(mol.GetNumAtoms())
    for i, xyz in enumerate(10.0 * structure.positions):
        conformer.SetAtomPosition(i, Point3D(*map(float, xyz)))
    mol.AddConformer(conformer)
    Chem.SanitizeMol(mol)
    Chem.AssignStereochemistryFrom3D(mol)
    return mol.GetMol()


def canonical_smiles(mol: Chem.Mol) -> str:
    """Return the canonical isomeric SMILES without explicit hydrogens."""
    return Chem.MolToSmiles(Chem.RemoveHs(mol))


def hill_formula(mol: Chem.Mol) -> str:
    """Return the molecular formula in Hill order, with the charge appended if there is one."""
    return CalcMolFormula(mol)


def stereocentres(structure: Structure, mol: Chem.Mol, where: str) -> dict[str, str]:
    """Return the configuration of every stereocentre, such as ``{"CA:ALA2": "S, L"}``.

    L and D come from the geometry about the alpha carbon, so that cysteine (R, L) is right too.

    Raises
    ------
    InputError
        If a centre is flat in the coordinates.
    """
    mol = Chem.Mol(mol)
    rdCIPLabeler.AssignCIPLabels(mol)
    owner = {i: (r, name) for (r, name), i in structure.index().items()}
    found = {}
    for info in Chem.FindPotentialStereo(mol):
        if info.type != Chem.StereoType.Atom_Tetrahedral:
            continue
        r, name = owner[info.centeredOn]
        residue = structure.residues[r]
        atom = mol.GetAtomWithIdx(info.centeredOn)
        if not atom.HasProp("_CIPCode"):
            raise InputError(
                f"{where}: the stereocentre {name} of {residue.label} is flat. Correct the coordinates around it."
            )
        hand = f", {alpha_handedness(structure, r)}" if name == "CA" else ""
        found[f"{name}:{residue.label}"] = atom.GetProp("_CIPCode") + hand
    return found


def alpha_handedness(structure: Structure, residue: int) -> str:
    """Return ``"L"`` or ``"D"``: the sign of (N − CA) · [(C − CA) × (CB − CA)], positive for L."""
    at = structure.index()
    n, c, cb, ca = (structure.positions[at[residue, name]] for name in ("N", "C", "CB", "CA"))
    return "L" if float(np.dot(n - ca, np.cross(c - ca, cb - ca))) > 0 else "D"
