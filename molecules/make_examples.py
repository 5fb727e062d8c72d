"""Make the example files of this folder that are not peptides in PDB format, from the SMILES of ``panel.smi``.

python molecules/make_examples.py
"""

from __future__ import annotations

import gzip
from pathlib import Path

from openmm import app, unit
from rdkit import Chem
from rdkit.Chem import AllChem

from boltzgen.chemistry.build import build
from boltzgen.chemistry.read import read_input

HERE = Path(__file__).parent
SYBYL_TYPES = {"C": "C.3", "O": "O.3", "H": "H"}
"""Of saturated molecules, the only ones that are written as MOL2 here."""


def panel() -> dict[str, str]:
    """Return the SMILES of ``panel.smi`` by name."""
    return {name: smiles for smiles, name in map(str.split, (HERE / "panel.smi").read_text().splitlines())}


def minimised(smiles: str, name: str) -> Chem.Mol:
    """Return the molecule with hydrogens and one conformer, at a minimum of MMFF94s."""
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    AllChem.EmbedMolecule(mol, randomSeed=1)
    AllChem.MMFFOptimizeMolecule(mol, mmffVariant="MMFF94s", maxIters=5000)
    mol.SetProp("_Name", name)
    return mol


def mol2_text(mol: Chem.Mol) -> str:
    """Return a TRIPOS MOL2 file of a saturated molecule, without charges."""
    positions = mol.GetConformer().GetPositions()
    lines = ["@<TRIPOS>MOLECULE", mol.GetProp("_Name"), f"{mol.GetNumAtoms()} {mol.GetNumBonds()} 1 0 0"]
    lines += ["SMALL", "NO_CHARGES", "", "@<TRIPOS>ATOM"]
    for i, (atom, (x, y, z)) in enumerate(zip(mol.GetAtoms(), positions, strict=True), 1):
        symbol = atom.GetSymbol()
        lines.append(f"{i:7d} {symbol + str(i):<6}{x:10.4f}{y:10.4f}{z:10.4f} {SYBYL_TYPES[symbol]:<5} 1 LIG1 0.0000")
    lines.append("@<TRIPOS>BOND")
    for i, bond in enumerate(mol.GetBonds(), 1):
        lines.append(f"{i:6d} {bond.GetBeginAtomIdx() + 1:5d} {bond.GetEndAtomIdx() + 1:5d} 1")
    return "\n".join(lines) + "\n"


def sdf_text(mol: Chem.Mol, *, v3000: bool = False) -> str:
    """Return one SDF record with the SMILES as a data field."""
    block = Chem.MolToV3KMolBlock(mol) if v3000 else Chem.MolToMolBlock(mol)
    return f"{block}>  <SMILES>\n{Chem.MolToSmiles(Chem.RemoveHs(mol))}\n\n$$$$\n"


def write_gzip(name: str, text: str) -> None:
    """Write a gzip file whose bytes do not depend on the time."""
    (HERE / name).write_bytes(gzip.compress(text.encode(), mtime=0))


def main() -> None:
    """Write all files."""
    smiles = panel()
    made = {
        name: minimised(smiles[name], name) for name in ("aspirin", "ibuprofen", "penicillin_G", "glycerol", "butane")
    }
    conect_both_ways, no_bond_orders = 4, 8  # bits of RDKit's flavor
    (HERE / "aspirin.pdb").write_text(Chem.MolToPDBBlock(made["aspirin"], flavor=conect_both_ways | no_bond_orders))
    (HERE / "ibuprofen.sdf").write_text(sdf_text(made["ibuprofen"]))
    (HERE / "penicillin_G.sdf").write_text(sdf_text(made["penicillin_G"], v3000=True))
    (HERE / "glycerol.mol2").write_text(mol2_text(made["glycerol"]))
    write_gzip("butane.sdf.gz", sdf_text(made["butane"]))
    write_gzip("ace_ala3_nme.pdb.gz", (HERE / "ace_ala3_nme.pdb").read_text())
    peptide = build(read_input(smiles=smiles["ace_pro_nme"]))
    with (HERE / "ace_pro_nme.cif").open("w") as handle:
        app.PDBxFile.writeFile(peptide.topology, peptide.positions * unit.nanometer, handle, keepIds=True)


if __name__ == "__main__":
    main()
