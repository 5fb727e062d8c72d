"""Every kind of file gives the molecule that it holds, with the force field that fits it."""

from __future__ import annotations

import gzip
import io
from pathlib import Path

import MDAnalysis
import mdtraj
import numpy as np
import openmm
import pytest
from openmm import app
from rdkit import Chem
from rdkit.Chem import rdDistGeom

from boltzgen.chemistry.build import ChemicalSystem, build
from boltzgen.chemistry.external import read_system_file
from boltzgen.chemistry.interpret import Reading
from boltzgen.chemistry.read import InputSource, read_input
from boltzgen.energy import OpenMMEnergy, from_openmm
from boltzgen.errors import EnvironmentProblem, InputError, UnsupportedError
from boltzgen.molecule import Molecule
from boltzgen.storage.trajectory import write_pdb

MOLECULES = Path(__file__).parents[2] / "molecules"
ALANINE = (MOLECULES / "alanine_dipeptide.pdb").read_text()
ASPIRIN = "CC(=O)Oc1ccccc1C(=O)O"
LACTATE = "C[C@H](O)C(=O)[O-]"


def embedded(smiles: str, seed: int = 1) -> Chem.Mol:
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    rdDistGeom.EmbedMolecule(mol, randomSeed=seed)
    return mol


def ligand(smiles: str) -> str:
    lines = Chem.MolToPDBBlock(embedded(smiles)).splitlines()
    return "".join(f"{line.replace('UNL', 'LIG')}\n" for line in lines if line.startswith("HETATM"))


def mol2(mol: Chem.Mol) -> str:
    """A MOL2 file of a molecule without charged groups."""
    kinds = {Chem.HybridizationType.SP3: ".3", Chem.HybridizationType.SP2: ".2", Chem.HybridizationType.SP: ".1"}
    lines = ["@<TRIPOS>MOLECULE", "any", f"{mol.GetNumAtoms()} {mol.GetNumBonds()} 0 0 0", "SMALL", "NO_CHARGES", ""]
    lines += ["@<TRIPOS>ATOM"]
    for atom, (x, y, z) in zip(mol.GetAtoms(), mol.GetConformer().GetPositions(), strict=True):
        kind = atom.GetSymbol() + (kinds.get(atom.GetHybridization(), "") if atom.GetSymbol() in "CNO" else "")
        lines.append(
            f"{atom.GetIdx() + 1} {atom.GetSymbol()}{atom.GetIdx():x} {x:.4f} {y:.4f} {z:.4f} {kind} 1 ANY 0.0"
        )
    lines += ["@<TRIPOS>BOND"]
    for number, bond in enumerate(mol.GetBonds(), 1):
        order = int(bond.GetBondTypeAsDouble())
        lines.append(f"{number} {bond.GetBeginAtomIdx() + 1} {bond.GetEndAtomIdx() + 1} {order}")
    return "\n".join([*lines, ""])


def source(text: str | bytes, folder: Path, name: str = "molecule.txt") -> InputSource:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return read_input(path)


def mmcif() -> str:
    out = io.StringIO()
    pdb = app.PDBFile(io.StringIO(ALANINE))
    app.PDBxFile.writeFile(pdb.topology, pdb.positions, out, keepIds=True)
    return out.getvalue()


def energy(chemical: ChemicalSystem) -> float:
    context = openmm.Context(
        chemical.system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference")
    )
    context.setPositions(chemical.positions)
    return context.getState(energy=True).getPotentialEnergy().value_in_unit(openmm.unit.kilojoule_per_mole)


@pytest.mark.parametrize("ending", ["pdb", "cif", "sdf", "smi", "gz"])
def test_mmcif_is_the_molecule_of_the_pdb_whatever_its_ending(ending: str, tmp_path: Path) -> None:
    reference = build(source(ALANINE, tmp_path, f"any.{ending}"))
    chemical = build(source(mmcif(), tmp_path, f"any.{ending}"))
    assert chemical.source.kind == "mmcif"
    assert chemical.molecule == reference.molecule
    assert np.abs(chemical.positions - reference.positions).max() < 1e-4  # decimals of the file, nm


@pytest.mark.parametrize(
    "smiles", [ASPIRIN, LACTATE, "C/C=C/C#N", "C[C@@H](F)Cl", "O=[N+]([O-])c1ccccc1", "CS(N)(=O)=O", "C[P@](CC)CCC"]
)
@pytest.mark.parametrize("kind", ["sdf", "gzip", "template", "charge"])
def test_files_and_smiles_of_a_molecule_agree(smiles: str, kind: str, tmp_path: Path) -> None:
    mol = embedded(smiles)
    reference = build(read_input(smiles=smiles)).molecule
    reading = Reading()
    if kind in ("sdf", "gzip"):
        text = Chem.MolToMolBlock(mol)
        given = source(gzip.compress(text.encode()) if kind == "gzip" else text, tmp_path, "molecule.pdb")
        assert given.kind == "sdf"
    else:
        given = source(ligand(smiles), tmp_path)
        template = read_input(smiles=smiles) if kind == "template" else None
        reading = Reading(template=template, charge=reference.charge)
    chemical = build(given, reading=reading)
    molecule = chemical.molecule
    assert (molecule.smiles, molecule.formula, molecule.charge) == (
        reference.smiles,
        reference.formula,
        reference.charge,
    )
    assert molecule.atomic_numbers == tuple(atom.GetAtomicNum() for atom in mol.GetAtoms())
    assert molecule.bonds == reference.bonds
    assert np.abs(10.0 * chemical.positions - mol.GetConformer().GetPositions()).max() < 1e-3
    assert (chemical.force_field, chemical.solvent) == ("MMFF94s", "vacuum")
    assert np.isfinite(energy(chemical))
    assert Molecule.from_json(molecule.to_json()) == molecule


@pytest.mark.parametrize("smiles", ["CCCC", "CC(=O)OC", "C/C=C\\CO", "C[C@H](O)CCl"])
def test_mol2_keeps_bonds_stereo_and_names(smiles: str, tmp_path: Path) -> None:
    mol = embedded(smiles)
    chemical = build(source(mol2(mol), tmp_path))
    assert chemical.source.kind == "mol2"
    assert chemical.molecule.smiles == Chem.CanonSmiles(smiles)
    assert chemical.molecule.atom_names[:2] == (
        f"{mol.GetAtomWithIdx(0).GetSymbol()}0",
        f"{mol.GetAtomWithIdx(1).GetSymbol()}1",
    )


def test_a_peptide_in_an_sdf_gets_templates_and_keeps_its_coordinates(tmp_path: Path) -> None:
    reference = build(source(ALANINE, tmp_path))
    mol = embedded("CC(=O)N[C@@H](C)C(=O)NC")
    chemical = build(source(Chem.MolToMolBlock(mol), tmp_path))
    assert (chemical.force_field, chemical.solvent) == ("ff14SB", "obc2")
    assert chemical.molecule.residue_names == reference.molecule.residue_names
    assert chemical.molecule.smiles == reference.molecule.smiles
    distances = [
        np.sort(np.linalg.norm(x[:, None] - x[None], axis=-1).ravel())
        for x in (chemical.positions, mol.GetConformer().GetPositions() / 10.0)
    ]
    assert np.abs(distances[0] - distances[1]).max() < 1e-4


def test_mmff_of_a_peptide_has_its_residues_and_another_energy(tmp_path: Path) -> None:
    chemical = build(source(ALANINE, tmp_path), "mmff94")
    assert chemical.force_field == "MMFF94"
    assert chemical.molecule.residue_names == ("ACE", "ALA", "NME")
    assert "phi:ALA2" in chemical.molecule.torsions
    assert chemical.force_field_reason == "--ff was given"
    assert not any("MMFF" in warning for warning in chemical.warnings)
    with pytest.raises(UnsupportedError, match="no parameters for the solvent obc2"):
        build(chemical.source, "MMFF94s", "obc2")


@pytest.mark.parametrize("name", ["gaff-2.2.20", "openff-2.2.1", "espaloma-0.3.2"])
def test_missing_toolkits_are_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("boltzgen.chemistry.generated._is_installed", lambda package: package == "openmmforcefields")
    with pytest.raises(EnvironmentProblem, match=r"openff\.toolkit") as caught:
        build(read_input(smiles="CCO"), name)
    assert ("espaloma," in str(caught.value)) == name.startswith("espaloma")


def test_names_are_unique_and_torsions_are_of_bonds_that_turn() -> None:
    molecule = build(read_input(smiles="CC(C)Cc1ccc(cc1)[C@@H](C)C(=O)O")).molecule
    assert len(set(molecule.atom_names)) == molecule.n_atoms
    assert max(len(name) for name in molecule.atom_names) <= 4
    assert molecule.residue_names == ("LIG",)
    axes = {frozenset(atoms[1:3]) for atoms in molecule.torsions.values()}
    assert len(axes) == len(molecule.torsions) == 4  # not those of methyl groups and of the acid's hydrogen
    assert axes.isdisjoint(frozenset(pair) for pair in molecule.rigid_bonds)
    butane = build(read_input(smiles="CCCC")).molecule
    assert butane.torsions == {"tor:C1-C2-C3-C4": (0, 1, 2, 3)}


def test_stereo_is_picked_by_the_seed_and_told() -> None:
    given = read_input(smiles="CC=CC(F)C(O)Cl")
    found = {build(given, reading=Reading(stereo="pick", seed=seed)).molecule.smiles for seed in range(8)}
    assert 1 < len(found) <= 8
    first, second = (build(given, reading=Reading(stereo="pick", seed=3)) for _ in range(2))
    assert first.molecule.smiles == second.molecule.smiles
    assert (first.positions == second.positions).all()
    assert set(first.stereocentres) == {"C2=C3", "C4", "C5"}
    assert first.molecule.smiles in first.warnings[0]


def test_of_several_molecules_the_largest_can_be_taken(tmp_path: Path) -> None:
    chemical = build(read_input(smiles=f"[Na+].{LACTATE}"), reading=Reading(largest_fragment=True))
    assert chemical.molecule.smiles == LACTATE
    assert chemical.warnings[0].startswith("molecules left out: 1")
    beside = ALANINE.replace(
        "END", "HETATM   99 ZN    ZN A   9      15.000  15.000  15.000  1.00  0.00          ZN\nEND"
    )
    alone = build(source(beside, tmp_path), reading=Reading(largest_fragment=True))
    assert alone.molecule == build(source(ALANINE, tmp_path)).molecule


def test_the_model_that_is_asked_for_is_read(tmp_path: Path) -> None:
    first, second = (Chem.MolToMolBlock(embedded("CCO", seed)) for seed in (1, 2))
    chemical = build(source(f"{first}$$$$\n{second}$$$$\n", tmp_path), reading=Reading(model=2))
    assert np.abs(chemical.positions - embedded("CCO", 2).GetConformer().GetPositions() / 10.0).max() < 1e-4
    shifted = ALANINE.replace("   2.000", "   2.001").replace("END", "")
    models = f"MODEL 7\n{ALANINE.replace('END', '')}ENDMDL\nMODEL 9\n{shifted}ENDMDL\nEND\n"
    assert "model 2 is used" in build(source(models, tmp_path), reading=Reading(model=2)).warnings[0]


@pytest.mark.parametrize(
    "chain",
    [
        "CC(=O)N[C@@H](Cc1c[nH]cn1)C(=O)N[C@@H](CCCNC(N)=[NH2+])C(=O)NC",
        "CC(=O)N[C@@H](CC(=O)[O-])C(=O)N1CCC[C@H]1C(=O)N[C@@H](Cc1c[nH]c2ccccc12)C(=O)N",
    ],
)
def test_hydrogens_are_added_where_they_belong(chain: str, tmp_path: Path) -> None:
    whole = build(read_input(smiles=chain))
    path = tmp_path / "whole.pdb"
    write_pdb(path, whole.molecule, whole.positions[None])
    bare = "\n".join(
        line for line in path.read_text().splitlines() if not line.startswith("ATOM") or line[76:78] != " H"
    )
    with pytest.raises(InputError, match="--add-hydrogens"):
        build(source(bare, tmp_path))
    chemical = build(source(bare, tmp_path), reading=Reading(add_hydrogens=True))
    assert chemical.molecule == whole.molecule
    n_added = sum(number == 1 for number in whole.molecule.atomic_numbers)
    assert f"hydrogens added: {n_added}" in chemical.warnings
    heavy = [i for i, number in enumerate(whole.molecule.atomic_numbers) if number > 1]
    assert np.abs(chemical.positions[heavy] - whole.positions[heavy]).max() < 1e-4
    assert energy(chemical) < energy(whole) + 500.0


@pytest.mark.parametrize("kind", ["sdf", "pdb"])
def test_hydrogens_of_a_ligand_are_added(kind: str, tmp_path: Path) -> None:
    mol = embedded(LACTATE)
    if kind == "sdf":
        given, reading = source(Chem.MolToMolBlock(Chem.RemoveHs(mol)), tmp_path), Reading(add_hydrogens=True)
    else:
        lines = ligand(LACTATE).splitlines()
        given = source("\n".join(line for line in lines if line[76:78] != " H"), tmp_path)
        reading = Reading(add_hydrogens=True, template=read_input(smiles=LACTATE))
    chemical = build(given, reading=reading)
    assert chemical.molecule.smiles == LACTATE
    assert len(set(chemical.molecule.atom_names)) == chemical.molecule.n_atoms == 11
    assert "hydrogens added: 5" in chemical.warnings


def test_a_system_of_any_tool_is_taken_as_it_is(tmp_path: Path) -> None:
    reference = build(source(ALANINE, tmp_path), "ff96", "obc1")
    path = tmp_path / "system.xml.gz"
    path.write_bytes(gzip.compress(openmm.XmlSerializer.serialize(reference.system).encode()))
    given = read_system_file(path)
    chemical = build(source(ALANINE, tmp_path), reading=Reading(keep_order=True), system_file=given)
    assert chemical.molecule == reference.molecule
    assert energy(chemical) == energy(reference)
    assert (chemical.force_field, chemical.force_field_hashes[given.where]) == ("system", given.sha256)
    with pytest.raises(InputError, match="Leave --ff and --solvent out"):
        build(source(ALANINE, tmp_path), "ff96", system_file=given)


def test_a_smiles_keeps_its_order_for_a_system() -> None:
    chain = "CNC(=O)[C@H](C)NC(C)=O"
    ordered = build(read_input(smiles=chain), "MMFF94s", reading=Reading(keep_order=True))
    mol = Chem.AddHs(Chem.MolFromSmiles(chain))
    assert ordered.molecule.atomic_numbers == tuple(atom.GetAtomicNum() for atom in mol.GetAtoms())


def test_a_force_without_conversion_is_left_to_openmm(tmp_path: Path) -> None:
    chemical = build(read_input(smiles="O"))
    force = openmm.CustomCVForce("d^2")
    bond = openmm.CustomBondForce("r")
    bond.addBond(1, 2)
    force.addCollectiveVariable("d", bond)
    system = openmm.XmlSerializer.deserialize(openmm.XmlSerializer.serialize(chemical.system))
    system.addForce(force)
    path = tmp_path / "system.xml"
    path.write_text(openmm.XmlSerializer.serialize(system))
    given = build(read_input(smiles="O"), reading=Reading(keep_order=True), system_file=read_system_file(path))
    terms = from_openmm(given.system, fallback=True).terms
    assert any(isinstance(term, OpenMMEnergy) for term in terms)


def test_the_pdb_of_a_ligand_opens_elsewhere(tmp_path: Path) -> None:
    chemical = build(read_input(smiles="C[C@](Cl)(Br)C#N"))
    path = tmp_path / "system.pdb"
    write_pdb(path, chemical.molecule, chemical.positions[None])
    assert path.read_text().startswith("HETATM    1  C1  LIG A   1")
    trajectory = mdtraj.load(path)
    assert [atom.element.atomic_number for atom in trajectory.topology.atoms] == list(chemical.molecule.atomic_numbers)
    assert sorted((a.index, b.index) for a, b in trajectory.topology.bonds) == list(chemical.molecule.bonds)
    universe = MDAnalysis.Universe(str(path))
    assert list(universe.atoms.names) == list(chemical.molecule.atom_names)
    assert len(universe.bonds) == len(chemical.molecule.bonds)


@pytest.mark.parametrize("residues", ["mixed", "hydrogens apart"])
def test_atoms_of_mixed_residues_are_one_ligand(residues: str, tmp_path: Path) -> None:
    lines = ligand(ASPIRIN).splitlines()
    if residues == "mixed":
        number = [1 + k % 2 for k in range(len(lines))]
    else:  # hydrogens that are added come last
        lines = [line for line in lines if line[76:78] != " H"]
        number = [1 + (k > 5) for k in range(len(lines))]
    text = "\n".join(f"{line[:22]}{r:4d}{line[26:]}" for line, r in zip(lines, number, strict=True))
    reading = Reading(template=read_input(smiles=ASPIRIN), add_hydrogens=residues != "mixed")
    molecule = build(source(text, tmp_path), reading=reading).molecule
    assert (molecule.residue_names, molecule.n_atoms) == (("LIG",), 21)
    assert len(set(molecule.atom_names)) == 21


@pytest.mark.parametrize("number", ["²", "12345678901", "x"])
def test_a_residue_number_that_fits_no_pdb_file_is_replaced(number: str, tmp_path: Path) -> None:
    text = ligand("CCO").replace("   1    ", f"{number:>4s}    ") if len(number) < 5 else ""
    if not text:
        rows = (line.split() for line in ligand("CCO").splitlines())
        head = "data_x\nloop_\n" + "".join(f"_atom_site.{name}\n" for name in CIF_COLUMNS)
        text = head + "".join(f"HETATM {r[2]} LIG {number} {r[-1]} {' '.join(r[5:8])}\n" for r in rows)
    molecule = build(source(text, tmp_path), reading=Reading(charge=0)).molecule
    assert molecule.residue_numbers == (1,)


CIF_COLUMNS = (
    "group_PDB",
    "auth_atom_id",
    "auth_comp_id",
    "auth_seq_id",
    "type_symbol",
    "Cartn_x",
    "Cartn_y",
    "Cartn_z",
)


def test_mol_blocks_of_old_macs_are_read(tmp_path: Path) -> None:
    given = source(Chem.MolToMolBlock(embedded("CCO")).replace("\n", "\r"), tmp_path)
    assert build(given).molecule.smiles == "CCO"


def test_a_chain_that_closes_on_itself_is_no_peptide_and_ends():
    chemical = build(read_input(None, "CC(=O)N[C@H]1CSSC[C@@H](C(=O)NC)NC1=O"))
    assert chemical.force_field == "MMFF94s"
