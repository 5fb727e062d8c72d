"""Configurations: which are open in an input, which the molecule has, and how an open one is picked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from rdkit import Chem

from boltzgen.chemistry.configuration import FLAT, bond_volume, configurations
from boltzgen.chemistry.isomers import drawn_isomer, only_isomer
from boltzgen.chemistry.structure import Structure
from boltzgen.errors import InputError


def settle_stereo(
    mol: Chem.Mol, labels: Sequence[str], where: str, warnings: list[str], *, pick: bool, seed: int
) -> Chem.Mol:
    """Return the molecule, which has no coordinates, with all configurations set.

    What is open is set where rings leave a single choice, or drawn with the seed and told in ``warnings`` if ``pick``.

    Raises
    ------
    InputError
        If stereocentres or double bonds are undefined, naming all of them, or none of the choices can be embedded.
    """
    undefined = [info for info in _potential(mol) if info.specified != Chem.StereoSpecified.Specified]
    if not undefined:
        return mol
    settled = only_isomer(mol, undefined)
    if settled is not None:
        return settled
    names = ", ".join(_name(mol, info, labels) for info in undefined)
    if not pick:
        raise InputError(
            f"{where}: undefined stereocentre {names}. "
            "Say which with @ or @@ (of double bonds with / and \\) in the SMILES, or take one by --stereo pick."
        )
    picked = drawn_isomer(mol, seed)
    if picked is None:
        raise InputError(f"{where}: no stereoisomer of the molecule can be embedded. Declare the stereo in the input.")
    warnings.append(f"stereo picked with seed {seed} for {names}: {Chem.MolToSmiles(Chem.RemoveHs(picked))}")
    return picked


def stereo_labels(mol: Chem.Mol, labels: Sequence[str], where: str) -> dict[str, str]:
    """Return the configuration of every stereocentre and double bond in 3D, such as ``{"C3": "R", "C5=C6": "E"}``.

    Raises
    ------
    InputError
        If a stereocentre is flat in the coordinates.
    """
    codes = configurations(mol)
    found = {}
    for info in _potential(mol):
        name = _name(mol, info, labels)
        if info.specified == Chem.StereoSpecified.Specified:
            found[name] = codes.get(_key(mol, info)) or _without_cip(mol, info)
        elif info.type == Chem.StereoType.Atom_Tetrahedral and _is_flat(mol.GetAtomWithIdx(info.centeredOn)):
            raise InputError(f"{where}: the stereocentre {name} is flat. Correct the coordinates around it.")
    return found


def peptide_stereo(structure: Structure, mol: Chem.Mol, where: str) -> dict[str, str]:
    """Return the same for the stereocentres of a peptide, such as ``{"CA:ALA2": "S, L"}``.

    L and D come from the geometry about the alpha carbon, so that cysteine (R, L) is right too.

    Raises
    ------
    InputError
        If a centre is flat in the coordinates.
    """
    atom_of = {f"{name} of {structure.residues[r].label}": (r, name) for r, name in structure.index()}
    found = {}
    for label, code in stereo_labels(mol, structure.labels(), where).items():
        if label in atom_of:
            r, name = atom_of[label]
            hand = f", {alpha_handedness(structure, r)}" if name == "CA" else ""
            found[f"{name}:{structure.residues[r].label}"] = code + hand
    return found


def alpha_handedness(structure: Structure, residue: int) -> str:
    """Return ``"L"`` or ``"D"``: the sign of (N − CA) · [(C − CA) × (CB − CA)], positive for L."""
    at = structure.index()
    n, c, cb, ca = (structure.positions[at[residue, name]] for name in ("N", "C", "CB", "CA"))
    return "L" if float(np.dot(n - ca, np.cross(c - ca, cb - ca))) > 0 else "D"


def _potential(mol: Chem.Mol) -> Iterator[Chem.StereoInfo]:
    for info in Chem.FindPotentialStereo(Chem.Mol(mol), cleanIt=True):
        if info.type == Chem.StereoType.Atom_Tetrahedral:
            yield info
        elif info.type == Chem.StereoType.Bond_Double:
            bond = mol.GetBondWithIdx(info.centeredOn)
            # RDKit lists the bonds of allenes, whose ends are at right angles: there is no cis or trans.
            if not any(_is_cumulated(atom) for atom in (bond.GetBeginAtom(), bond.GetEndAtom())):
                yield info


def _name(mol: Chem.Mol, info: Chem.StereoInfo, labels: Sequence[str]) -> str:
    """What messages call a stereocentre or double bond."""
    if info.type == Chem.StereoType.Atom_Tetrahedral:
        return labels[info.centeredOn]
    bond = mol.GetBondWithIdx(info.centeredOn)
    return f"{labels[bond.GetBeginAtomIdx()]}={labels[bond.GetEndAtomIdx()]}"


def _key(mol: Chem.Mol, info: Chem.StereoInfo) -> tuple[int, ...]:
    if info.type == Chem.StereoType.Atom_Tetrahedral:
        return (info.centeredOn,)
    bond = mol.GetBondWithIdx(info.centeredOn)
    i, j = sorted((bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()))
    return i, j


def _is_flat(atom: Chem.Atom) -> bool:
    return atom.GetDegree() < 3 or abs(bond_volume(atom)) < FLAT


def _without_cip(mol: Chem.Mol, info: Chem.StereoInfo) -> str:
    """Name a configuration that has no CIP descriptor, such as that of a ring carbon in 1,4-dimethylcyclohexane."""
    if info.type == Chem.StereoType.Atom_Tetrahedral:
        return str(mol.GetAtomWithIdx(info.centeredOn).GetChiralTag()).removeprefix("CHI_TETRAHEDRAL_").lower()
    return str(info.descriptor).removeprefix("Bond_").lower()


def _is_cumulated(atom: Chem.Atom) -> bool:
    return sum(bond.GetBondType() == Chem.BondType.DOUBLE for bond in atom.GetBonds()) > 1 and atom.GetDegree() == 2
