"""From a molecular graph to a named capped peptide, if it is one.

The backbone amide bonds (N–Cα–C(=O)–N) are cut, and no others; every fragment is then recognised as a residue
template by its element graph, so the atoms get their standard names whatever the order in the input.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from rdkit import Chem
from rdkit.Chem import rdDistGeom
from rdkit.Chem.rdMolDescriptors import CalcMolFormula
from rdkit.Chem.rdMolTransforms import GetDihedralRad, SetDihedralRad
from rdkit.rdBase import BlockLogs

from boltzgen.chemistry.configuration import has_declared_stereo
from boltzgen.chemistry.embed import is_sound, positions_of
from boltzgen.chemistry.read import printable
from boltzgen.chemistry.residues import C_CAPS, N_CAPS, Residue
from boltzgen.chemistry.structure import PlacedResidue, Structure
from boltzgen.errors import UnsupportedError

EMBEDDING_ATTEMPTS = 20
_BACKBONE = Chem.MolFromSmarts("[NX3][CX4][CX3](=[OX1])[NX3]")
_LAST_AMIDE = Chem.MolFromSmarts("[CX3](=[OX1])[NX3][CX4][CX3](=[OX1])")
_FREE_AMINE = Chem.MolFromSmarts("[NX3H2,NX4H3+][CX4][CX3](=[OX1])")
_FREE_ACID = Chem.MolFromSmarts("[NX3,NX4+][CX4][CX3](=[OX1])[OX1-,OX2H]")


class NotAPeptide(Exception):  # noqa: N818  # an answer, not an error
    """The molecule is no capped peptide of residues with templates; the message says why."""


def split_peptide(mol: Chem.Mol, residues: dict[str, Residue]) -> tuple[tuple[PlacedResidue, ...], list[int]]:
    """Return the residues from N to C, and the atoms of ``mol`` (all hydrogens) in the order of their templates.

    Raises
    ------
    NotAPeptide
        With the reason.
    """
    placed, order = [], []
    for number, fragment in enumerate(_backbone_fragments(mol), 1):
        template, atoms = _recognise(mol, fragment, residues)
        placed.append(PlacedResidue(template, number, tuple(template.elements)))
        order += atoms
    if placed[0].template.name not in N_CAPS or placed[-1].template.name not in C_CAPS:
        raise NotAPeptide("the ends of the chain are no caps that the templates know")
    return tuple(placed), order


def place_peptide(residues: tuple[PlacedResidue, ...], mol: Chem.Mol, where: str) -> Structure:
    """Return the peptide with the coordinates of ``mol`` (in template order) or, without any, embedded ones.

    Embedded amide bonds are trans; the embedding is reproducible.

    Raises
    ------
    UnsupportedError
        If no structure is found.
    """
    structure = Structure(residues, np.zeros((mol.GetNumAtoms(), 3)))
    has_coordinates = mol.GetNumConformers() > 0
    placed = replace(structure, positions=positions_of(mol)) if has_coordinates else _embed(mol, structure, where)
    return _name_methyls(placed)


def _backbone_fragments(mol: Chem.Mol) -> list[list[int]]:
    """Cut the backbone amide bonds; return the atoms of each residue, from N to C."""
    cut = {(c, n) for *_, c, _, n in mol.GetSubstructMatches(_BACKBONE)}
    cut |= {(c, n) for c, _, n, *_ in mol.GetSubstructMatches(_LAST_AMIDE)}
    for pattern, end, cap in (
        (_FREE_AMINE, "start", "acetyl cap (ACE)"),
        (_FREE_ACID, "end", "N-methyl amide (NME) or amide cap"),
    ):
        if mol.HasSubstructMatch(pattern):
            raise NotAPeptide(f"uncapped terminus at the {end} of the chain, which an {cap} would close")
    if not cut:
        raise NotAPeptide(f"{CalcMolFormula(mol)} is no capped peptide")
    pieces = Chem.RWMol(mol)
    for c, n in cut:
        pieces.RemoveBond(c, n)
    fragments = [list(fragment) for fragment in Chem.GetMolFrags(pieces)]
    home = {atom: f for f, fragment in enumerate(fragments) for atom in fragment}
    following = {home[c]: home[n] for c, n in cut}
    start = set(following) - set(following.values())
    chain = sorted(start)
    while chain and chain[-1] in following and len(chain) <= len(fragments):
        chain.append(following[chain[-1]])
    if len(start) != 1 or len(following) != len(cut) or len(chain) != len(fragments):
        raise NotAPeptide("the peptide chain is branched or closed")
    return [fragments[f] for f in chain]


def _recognise(mol: Chem.Mol, fragment: list[int], residues: dict[str, Residue]) -> tuple[Residue, list[int]]:
    """Find the template with the element graph of the fragment; return it and the atoms in template order."""
    local = {atom: k for k, atom in enumerate(fragment)}
    pairs = [(b.GetBeginAtomIdx(), b.GetEndAtomIdx()) for b in mol.GetBonds()]
    bonds = [(local[i], local[j]) for i, j in pairs if i in local and j in local]
    outward = {i if i in local else j for i, j in pairs if (i in local) != (j in local)}
    symbols = [mol.GetAtomWithIdx(i).GetSymbol() for i in fragment]
    target = _element_graph(symbols, bonds)
    for template in residues.values():
        if sorted(template.elements.values()) != sorted(symbols) or len(template.bonds) != len(bonds):
            continue
        names = list(template.elements)
        query = _element_graph(
            list(template.elements.values()), [(names.index(a), names.index(b)) for a, b in template.bonds]
        )
        for match in target.GetSubstructMatches(query, uniquify=False, maxMatches=1000):
            atoms = [fragment[i] for i in match]
            if {names[k] for k, atom in enumerate(atoms) if atom in outward} == set(template.external):
                return template, atoms
    # AddHs appended the hydrogens, so the heavy atoms keep their indices when they are removed again.
    heavy = [i for i in fragment if mol.GetAtomWithIdx(i).GetAtomicNum() > 1]
    shown = Chem.MolFragmentToSmiles(Chem.RemoveHs(mol), heavy)
    raise NotAPeptide(
        f"the residue {printable(shown)} is no standard amino acid in a charge state that the templates know"
    )


def _element_graph(symbols: list[str], bonds: list[tuple[int, int]]) -> Chem.Mol:
    graph = Chem.RWMol()
    for symbol in symbols:
        graph.AddAtom(Chem.Atom(symbol))
    for i, j in bonds:
        graph.AddBond(i, j, Chem.BondType.SINGLE)
    return graph.GetMol()


def _embed(mol: Chem.Mol, structure: Structure, where: str) -> Structure:
    """Return the structure with the chirality of the SMILES and all amide bonds trans."""
    at = structure.index()
    amides = [
        (at[r, "CA" if (r, "CA") in at else "CH3"], at[r, "C"], at[r + 1, "N"], at[r + 1, partner])
        for r in range(len(structure.residues) - 1)
        for partner in ("CA", "CH3")
        if (r + 1, partner) in at
    ]
    for seed in range(1, EMBEDDING_ATTEMPTS + 1):
        trial = Chem.Mol(mol)
        with BlockLogs():  # it complains about charged nitrogens, which the embedding handles well
            # Random start coordinates: the default start fails for chains of some twenty residues.
            failed = rdDistGeom.EmbedMolecule(trial, randomSeed=seed, useRandomCoords=True) != 0
        if failed:
            continue
        for amide in amides:
            if abs(GetDihedralRad(trial.GetConformer(), *amide)) < np.pi / 2:
                SetDihedralRad(trial.GetConformer(), *amide, np.pi)
        if has_declared_stereo(trial, mol) and is_sound(trial):
            return replace(structure, positions=positions_of(trial))
    raise UnsupportedError(
        f"{where}: no 3D structure found in {EMBEDDING_ATTEMPTS} attempts. Give a file with coordinates."
    )


def _name_methyls(structure: Structure) -> Structure:
    """Exchange the methyl groups of valine and leucine so that CG1 and CD1 are pro-R (IUPAC-IUB 1970)."""
    at = structure.index()
    x = structure.positions.copy()
    for r, residue in enumerate(structure.residues):
        if residue.template.name not in ("VAL", "LEU"):
            continue
        letter, before, centre = ("G", "CA", "CB") if residue.template.name == "VAL" else ("D", "CB", "CG")
        first, second = ([at[r, f"C{letter}{k}"], *(at[r, f"H{letter}{k}{h}"] for h in (1, 2, 3))] for k in (1, 2))
        origin = x[at[r, centre]]
        volume = np.dot(x[at[r, before]] - origin, np.cross(x[first[0]] - origin, x[second[0]] - origin))
        if volume > 0:
            x[first + second] = x[second + first]
    return replace(structure, positions=x)
