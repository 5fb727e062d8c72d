"""From SMILES, SDF, MOL and MOL2 text to an RDKit molecule with all hydrogens, after the checks that all share."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise

from rdkit import Chem
from rdkit.Chem import rdForceFieldHelpers
from rdkit.rdBase import BlockLogs

from boltzgen.chemistry.configuration import assign_stereo
from boltzgen.chemistry.read import InputSource, printable
from boltzgen.chemistry.structure import check_size
from boltzgen.errors import InputError, UnsupportedError

BOND_TYPES = {Chem.BondType.SINGLE, Chem.BondType.DOUBLE, Chem.BondType.TRIPLE}


def molecule_from_smiles(source: InputSource, warnings: list[str], *, largest_fragment: bool = False) -> Chem.Mol:
    """Return the molecule of a SMILES with all hydrogens, heavy atoms first, without coordinates.

    Raises
    ------
    InputError
        For SMILES that do not parse, and impossible valences.
    UnsupportedError
        For several molecules (unless ``largest_fragment``), atoms without a force field, and sizes above the limit.
    """
    where = f"{source.where}: {printable(source.text)!r}"
    with BlockLogs():
        mol = Chem.MolFromSmiles(source.text, sanitize=False)
    if mol is None:
        raise InputError(f"{where} is no valid SMILES. Check brackets, ring numbers and element symbols.")
    mol = _checked(mol, where, warnings, largest_fragment=largest_fragment)
    try:
        mol = Chem.AddHs(Chem.RemoveHs(mol))
    except ValueError as error:  # RDKit accepts some bonds that it cannot tell the order of later
        raise InputError(f"{where}: {printable(str(error), 160)}. Correct the molecule.") from error
    check_size(mol.GetNumAtoms(), source.where)
    Chem.AssignStereochemistry(mol, cleanIt=True, force=True)
    return mol


def molecule_from_file(
    source: InputSource,
    warnings: list[str],
    *,
    model: int | None = None,
    largest_fragment: bool = False,
    add_hydrogens: bool = False,
) -> Chem.Mol:
    """Return the molecule of an SDF, MOL or MOL2 file in the order of its atoms, with a conformer if the file is 3D.

    The file must have all hydrogens, or be a drawing (2D), or be completed by ``add_hydrogens``. Of several molecules
    ``model`` (from 1) chooses one.

    Raises
    ------
    InputError
        For damaged files, several molecules, impossible valences and missing hydrogens.
    UnsupportedError
        As :func:`molecule_from_smiles`.
    """
    where = source.where
    mol = _read_block(_one_block(source, model), source)
    mol = _checked(mol, where, warnings, largest_fragment=largest_fragment)
    is_3d = mol.GetNumConformers() > 0 and mol.GetConformer().Is3D()
    n_missing = sum(atom.GetTotalNumHs() for atom in mol.GetAtoms())
    if not is_3d:
        warnings.append("no 3D coordinates in the input: a structure is embedded")
        stereo = Chem.Mol(mol)
        stereo.RemoveAllConformers()
        mol = Chem.AddHs(stereo)
    elif n_missing and not add_hydrogens:
        raise InputError(f"{where}: {n_missing} hydrogens are missing. Add them, for example with --add-hydrogens.")
    elif n_missing:
        mol = with_hydrogens(mol, warnings)
    check_size(mol.GetNumAtoms(), where)
    if is_3d:
        assign_stereo(mol)
    else:
        Chem.AssignStereochemistry(mol, cleanIt=True, force=True)
    return mol


def with_hydrogens(mol: Chem.Mol, warnings: list[str]) -> Chem.Mol:
    """Return the molecule with the hydrogens that it lacks, their positions minimised with MMFF94s if it has types."""
    full = Chem.AddHs(mol, addCoords=True)
    added = full.GetNumAtoms() - mol.GetNumAtoms()
    if not added:  # RDKit cannot minimise what has all atoms fixed
        return full
    warnings.append(f"hydrogens added: {added}")
    properties = rdForceFieldHelpers.MMFFGetMoleculeProperties(full, mmffVariant="MMFF94s")
    if properties is not None:
        field = rdForceFieldHelpers.MMFFGetMoleculeForceField(full, properties)
        for i in range(mol.GetNumAtoms()):
            field.AddFixedPoint(i)
        field.Minimize(maxIts=1000)
    return full


def check_molecule(mol: Chem.Mol, where: str) -> None:
    """Raise UnsupportedError for atoms and bonds that no force field here knows, and for molecules without shape."""
    for atom in mol.GetAtoms():
        reason = _unsupported_atom(atom)
        if reason:
            raise UnsupportedError(f"{where}: atom {atom.GetIdx() + 1} ({atom.GetSymbol()}) {reason}.")
    for bond in mol.GetBonds():
        known = bond.GetBondType() in BOND_TYPES or (bond.GetIsAromatic() and bond.IsInRing())
        if not known:
            i, j = bond.GetBeginAtomIdx() + 1, bond.GetEndAtomIdx() + 1
            raise UnsupportedError(
                f"{where}: the bond of atoms {i} and {j} is {str(bond.GetBondType()).lower()}, which no force field "
                "knows. Draw it as single, double or triple."
            )
    if mol.GetNumAtoms() == 1 and not mol.GetAtomWithIdx(0).GetTotalNumHs():
        raise UnsupportedError(f"{where}: a single atom has no conformations. Give a molecule.")


def _checked(mol: Chem.Mol, where: str, warnings: list[str], *, largest_fragment: bool) -> Chem.Mol:
    if mol.GetNumAtoms() == 0:
        raise InputError(f"{where}: no atoms. Give a molecule.")
    check_size(max(map(len, Chem.GetMolFrags(mol))), where)  # before rings are sought, which may take long
    with BlockLogs():
        problems = [problem.Message() for problem in Chem.DetectChemistryProblems(mol)]
        try:
            Chem.SanitizeMol(mol)
        except ValueError as error:  # it finds more than the list of problems has
            problems.append(str(error))
    if problems:
        raise InputError(f"{where}: {printable(problems[0], 160)}. Correct the molecule.")
    fragments = Chem.GetMolFrags(mol, asMols=True, sanitizeFrags=False)
    if len(fragments) > 1:
        if not largest_fragment:
            raise UnsupportedError(
                f"{where} has several molecules, whose relative position is unbounded. "
                "Give one without salts and solvent, or --largest-fragment."
            )
        mol = max(fragments, key=_size)
        warnings.append(f"molecules left out: {len(fragments) - 1} (the largest fragment is used)")
    check_molecule(mol, where)
    return mol


def _size(mol: Chem.Mol) -> int:
    return mol.GetNumAtoms() + sum(atom.GetTotalNumHs() for atom in mol.GetAtoms())


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


def _one_block(source: InputSource, model: int | None) -> str:
    text = re.sub(r"\r\n?", "\n", source.text)  # RDKit knows nothing of the line ends of old Macs
    if source.kind == "mol2":
        starts = [match.start() for match in re.finditer(r"^@<TRIPOS>MOLECULE", text, re.MULTILINE)]
        blocks = [text[a:b] for a, b in pairwise([*starts, len(text)])]
    else:
        blocks = re.split(r"^\$\$\$\$.*\n?", text, flags=re.MULTILINE)
        blocks = [block for block in blocks if block.strip()]
    if not blocks:
        raise InputError(f"{source.where}: no molecule in the file. Write it again.")
    if len(blocks) > 1 and model is None:
        raise InputError(f"{source.where}: {len(blocks)} molecules. Give one, or choose it with --model N.")
    if model is not None and model > len(blocks):
        raise InputError(f"{source.where}: there is no model {model}; molecules in the file: {len(blocks)}.")
    return blocks[(model or 1) - 1]


def _read_block(block: str, source: InputSource) -> Chem.Mol:
    read: Callable[[], Chem.Mol | None]
    if source.kind == "mol2":
        name, read = "MOL2", lambda: Chem.MolFromMol2Block(block, sanitize=True, removeHs=False)
    else:
        name, read = "MOL", lambda: Chem.MolFromMolBlock(block, sanitize=False, removeHs=False)
    try:
        with BlockLogs():
            mol = read()
    except (RuntimeError, ValueError) as error:
        raise InputError(f"{source.where}: damaged {name} block ({printable(str(error), 120)}).") from error
    if mol is None:
        raise InputError(f"{source.where}: damaged {name} block, or impossible valences. Write the file again.")
    if name == "MOL":
        Chem.AssignChiralTypesFromBondDirs(mol)
    return mol
