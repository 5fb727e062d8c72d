"""From a SMILES string to a named capped peptide with coordinates.

The backbone amide bonds (N–Cα–C(=O)–N) are cut, and no others; every fragment is then recognised as a residue
template by its element graph, so the atoms get their standard names whatever the order in the SMILES.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from rdkit import Chem
from rdkit.Chem import rdCIPLabeler, rdDistGeom
from rdkit.Chem.rdMolDescriptors import CalcMolFormula
from rdkit.Chem.rdMolTransforms import GetDihedralRad, SetDihedralRad
from rdkit.rdBase import BlockLogs

from boltzgen.chemistry.read import InputSource, printable
from boltzgen.chemistry.residues import Residue
from boltzgen.chemistry.structure import PlacedResidue, Structure, check_caps, check_geometry, check_size
from boltzgen.errors import InputError, UnsupportedError

EMBEDDING_ATTEMPTS = 20
_BACKBONE = Chem.MolFromSmarts("[NX3][CX4][CX3](=[OX1])[NX3]")
_LAST_AMIDE = Chem.MolFromSmarts("[CX3](=[OX1])[NX3][CX4][CX3](=[OX1])")
_FREE_AMINE = Chem.MolFromSmarts("[NX3H2,NX4H3+][CX4][CX3](=[OX1])")
_FREE_ACID = Chem.MolFromSmarts("[NX3,NX4+][CX4][CX3](=[OX1])[OX1-,OX2H]")


def structure_from_smiles(source: InputSource, residues: dict[str, Residue]) -> Structure:
    """Build a capped peptide from SMILES; its amide bonds are trans, the embedding is reproducible.

    Raises
    ------
    InputError
        For SMILES that do not parse, undefined stereocentres and uncapped termini.
    UnsupportedError
        For anything that is no linear capped peptide of standard residues, and for sizes above the limit.
    """
    mol = _parse(source)
    fragments = _backbone_fragments(mol, source.where)
    placed, order = [], []
    for number, fragment in enumerate(fragments, 1):
        template, atoms = _recognise(mol, fragment, residues, source.where)
        placed.append(PlacedResidue(template, number, tuple(template.elements)))
        order += atoms
    names = [residue.template.name for residue in placed]
    check_caps(names, [residue.label for residue in placed], source.where)
    mol = Chem.RenumberAtoms(mol, order)
    structure = Structure(tuple(placed), np.zeros((len(order), 3)))
    _require_stereo(mol, structure, source.where)
    return _name_methyls(_embed(mol, structure, source.where))


def _parse(source: InputSource) -> Chem.Mol:
    shown = f"{source.where}: {printable(source.text)!r}"
    with BlockLogs():
        mol = Chem.MolFromSmiles(source.text, sanitize=False)
        if mol is None:
            raise InputError(f"{shown} is no valid SMILES. Check brackets, ring numbers and element symbols.")
        problems = Chem.DetectChemistryProblems(mol)
        if problems:
            raise InputError(f"{shown}: {printable(problems[0].Message(), 160)}. Correct the SMILES.")
        Chem.SanitizeMol(mol)
    if mol.GetNumAtoms() == 0:
        raise InputError(f"{source.where}: empty SMILES. Give a molecule.")
    if len(Chem.GetMolFrags(mol)) > 1:
        raise UnsupportedError(f"{shown} has several molecules. Give one, without salts and solvent.")
    for atom in mol.GetAtoms():
        reason = _unsupported_atom(atom)
        if reason:
            raise UnsupportedError(f"{shown}: atom {atom.GetIdx() + 1} ({atom.GetSymbol()}) {reason}.")
    mol = Chem.AddHs(Chem.RemoveHs(mol))
    check_size(mol.GetNumAtoms(), source.where)
    if any(len(ring) > 6 for ring in mol.GetRingInfo().AtomRings()):
        raise UnsupportedError(f"{shown} has a ring of more than six atoms. Give a peptide without large rings.")
    Chem.AssignStereochemistry(mol, cleanIt=True, force=True)
    return mol


def _unsupported_atom(atom: Chem.Atom) -> str | None:
    if atom.GetAtomicNum() == 0:
        return "is a dummy atom, which has no force field. Replace it"
    if atom.GetIsotope():
        return "is an isotope, which the force field does not know. Remove the mass number"
    if atom.GetAtomMapNum():
        return "carries an atom map number. Remove it"
    if atom.GetNumRadicalElectrons():
        return "is a radical, which has no force field. Add the hydrogens"
    return None


def _backbone_fragments(mol: Chem.Mol, where: str) -> list[list[int]]:
    """Cut the backbone amide bonds; return the atoms of each residue, from N to C."""
    cut = {(c, n) for *_, c, _, n in mol.GetSubstructMatches(_BACKBONE)}
    cut |= {(c, n) for c, _, n, *_ in mol.GetSubstructMatches(_LAST_AMIDE)}
    for pattern, end, cap in (
        (_FREE_AMINE, "start", "acetyl cap (ACE)"),
        (_FREE_ACID, "end", "N-methyl amide (NME) or amide cap"),
    ):
        if mol.HasSubstructMatch(pattern):
            raise InputError(f"{where}: uncapped terminus at the {end} of the chain. Add an {cap}.")
    if not cut:
        raise UnsupportedError(
            f"{where}: {CalcMolFormula(mol)} is no capped peptide, and nothing else is supported. "
            "Give one such as CC(=O)N[C@@H](C)C(=O)NC."
        )
    pieces = Chem.RWMol(mol)
    for c, n in cut:
        pieces.RemoveBond(c, n)
    fragments = [list(fragment) for fragment in Chem.GetMolFrags(pieces)]
    home = {atom: f for f, fragment in enumerate(fragments) for atom in fragment}
    following = {home[c]: home[n] for c, n in cut}
    start = set(following) - set(following.values())
    chain = sorted(start)
    while chain and chain[-1] in following:
        chain.append(following[chain[-1]])
    if len(start) != 1 or len(following) != len(cut) or len(chain) != len(fragments):
        raise UnsupportedError(f"{where}: the peptide chain is branched or closed. Give a linear capped peptide.")
    return [fragments[f] for f in chain]


def _recognise(
    mol: Chem.Mol, fragment: list[int], residues: dict[str, Residue], where: str
) -> tuple[Residue, list[int]]:
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
    raise UnsupportedError(
        f"{where}: the residue {printable(shown)} is no standard amino acid in a charge state "
        "that the force field knows. Give another."
    )


def _element_graph(symbols: list[str], bonds: list[tuple[int, int]]) -> Chem.Mol:
    graph = Chem.RWMol()
    for symbol in symbols:
        graph.AddAtom(Chem.Atom(symbol))
    for i, j in bonds:
        graph.AddBond(i, j, Chem.BondType.SINGLE)
    return graph.GetMol()


def _require_stereo(mol: Chem.Mol, structure: Structure, where: str) -> None:
    labels = structure.labels()
    undefined = [
        labels[info.centeredOn]
        for info in Chem.FindPotentialStereo(mol)
        if info.type == Chem.StereoType.Atom_Tetrahedral and info.specified != Chem.StereoSpecified.Specified
    ]
    if undefined:
        raise InputError(
            f"{where}: undefined stereocentre {', '.join(undefined)}. Say which with @ or @@ in the SMILES."
        )


def _embed(mol: Chem.Mol, structure: Structure, where: str) -> Structure:
    """Return the structure with the chirality of the SMILES and all amide bonds trans."""
    wanted = _cip_codes(mol)
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
        placed = replace(structure, positions=trial.GetConformer().GetPositions() / 10.0)
        Chem.AssignStereochemistryFrom3D(trial)
        if _cip_codes(trial) == wanted and _is_sound(placed):
            return placed
    raise UnsupportedError(
        f"{where}: no 3D structure found in {EMBEDDING_ATTEMPTS} attempts. Give a PDB file with coordinates."
    )


def _cip_codes(mol: Chem.Mol) -> dict[int, str]:
    labelled = Chem.Mol(mol)
    rdCIPLabeler.AssignCIPLabels(labelled)
    return {a.GetIdx(): a.GetProp("_CIPCode") for a in labelled.GetAtoms() if a.HasProp("_CIPCode")}


def _is_sound(structure: Structure) -> bool:
    try:
        check_geometry(structure, lambda _: "")
    except InputError:
        return False
    return True


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
