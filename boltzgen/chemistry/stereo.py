"""Configurations: which are open in an input, which the molecule has, and how an open one is picked."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

import numpy as np
from rdkit import Chem
from rdkit.Chem.EnumerateStereoisomers import EnumerateStereoisomers, StereoEnumerationOptions

from boltzgen.chemistry.embed import configurations
from boltzgen.chemistry.structure import Structure
from boltzgen.errors import InputError

MOST_ISOMERS = 64
"""Configurations that are compared to see whether they are one molecule."""


def require_stereo(mol: Chem.Mol, labels: Sequence[str], where: str) -> None:
    """Raise InputError, naming all of them, if the graph leaves stereocentres or double bonds undefined."""
    undefined = undefined_stereo(mol, labels)
    if undefined:
        raise InputError(
            f"{where}: undefined stereocentre {', '.join(undefined)}. "
            "Say which with @ or @@ (of double bonds with / and \\) in the SMILES, or take one by --stereo pick."
        )


def undefined_stereo(mol: Chem.Mol, labels: Sequence[str]) -> list[str]:
    """Return what messages call the stereocentres and double bonds whose configuration is open.

    None where all configurations are one molecule: those of adamantane, cubane and quinuclidine depend on each other.
    """
    names = [name for name, info in _potential(mol, labels) if info.specified != Chem.StereoSpecified.Specified]
    return names if names and _has_isomers(mol) else []


def _has_isomers(mol: Chem.Mol) -> bool:
    options = StereoEnumerationOptions(onlyUnassigned=True, unique=True, maxIsomers=MOST_ISOMERS)
    isomers = EnumerateStereoisomers(Chem.RemoveHs(mol), options)
    return next(isomers, None) is not None and next(isomers, None) is not None


def pick_stereo(mol: Chem.Mol, seed: int) -> Chem.Mol:
    """Return one stereoisomer that can be embedded, drawn among the open configurations with the seed."""
    options = StereoEnumerationOptions(onlyUnassigned=True, tryEmbedding=True, maxIsomers=1, rand=random.Random(seed))
    picked = next(iter(EnumerateStereoisomers(mol, options)), None)
    if picked is None:
        raise InputError("no stereoisomer of the molecule can be embedded. Declare the stereo in the input.")
    Chem.AssignStereochemistry(picked, cleanIt=True, force=True)
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
    for name, info in _potential(mol, labels):
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


def _potential(mol: Chem.Mol, labels: Sequence[str]) -> Iterator[tuple[str, Chem.StereoInfo]]:
    for info in Chem.FindPotentialStereo(Chem.Mol(mol), cleanIt=True):
        if info.type == Chem.StereoType.Atom_Tetrahedral:
            yield labels[info.centeredOn], info
        elif info.type == Chem.StereoType.Bond_Double:
            bond = mol.GetBondWithIdx(info.centeredOn)
            # RDKit lists the bonds of allenes, whose ends are at right angles: there is no cis or trans.
            if not any(_is_cumulated(atom) for atom in (bond.GetBeginAtom(), bond.GetEndAtom())):
                yield f"{labels[bond.GetBeginAtomIdx()]}={labels[bond.GetEndAtomIdx()]}", info


def _key(mol: Chem.Mol, info: Chem.StereoInfo) -> tuple[int, ...]:
    if info.type == Chem.StereoType.Atom_Tetrahedral:
        return (info.centeredOn,)
    bond = mol.GetBondWithIdx(info.centeredOn)
    i, j = sorted((bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()))
    return i, j


def _is_flat(atom: Chem.Atom) -> bool:
    """Whether three bonds of an atom span less than a tenth of the volume of three that are at right angles."""
    x = atom.GetOwningMol().GetConformer().GetPositions()
    bonds = np.array([x[neighbour.GetIdx()] - x[atom.GetIdx()] for neighbour in atom.GetNeighbors()])
    bonds /= np.linalg.norm(bonds, axis=1, keepdims=True)
    return len(bonds) < 3 or abs(float(np.linalg.det(bonds[:3]))) < 0.1


def _without_cip(mol: Chem.Mol, info: Chem.StereoInfo) -> str:
    """Name a configuration that has no CIP descriptor, such as that of a ring carbon in 1,4-dimethylcyclohexane."""
    if info.type == Chem.StereoType.Atom_Tetrahedral:
        return str(mol.GetAtomWithIdx(info.centeredOn).GetChiralTag()).removeprefix("CHI_TETRAHEDRAL_").lower()
    return str(info.descriptor).removeprefix("Bond_").lower()


def _is_cumulated(atom: Chem.Atom) -> bool:
    return sum(bond.GetBondType() == Chem.BondType.DOUBLE for bond in atom.GetBonds()) > 1 and atom.GetDegree() == 2
