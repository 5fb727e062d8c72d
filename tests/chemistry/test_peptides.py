"""The molecule that is built is the molecule that was given: names, bonds, stereo, charges and energy."""

from __future__ import annotations

from pathlib import Path

import mdtraj
import numpy as np
import openmm
import pytest
from openmm import app
from rdkit import Chem
from rdkit.Chem import rdCIPLabeler

from boltzgen.chemistry.build import ChemicalSystem, build
from boltzgen.chemistry.forcefield import FORCE_FIELDS, SOLVENTS
from boltzgen.chemistry.interpret import Reading, interpret
from boltzgen.chemistry.read import InputSource, read_input
from boltzgen.constants import thermal_energy
from boltzgen.molecule import Molecule

MOLECULES = Path(__file__).parents[2] / "molecules"
ALANINE = "CC(=O)N[C@@H](C)C(=O)NC"

SIDE_CHAINS = {
    **{"ALA": "C", "ARG": "CCCNC(N)=[NH2+]", "ASN": "CC(N)=O", "ASP": "CC(=O)[O-]", "ASH": "CC(=O)O"},
    **{"CYS": "CS", "CYM": "C[S-]", "GLN": "CCC(N)=O", "GLU": "CCC(=O)[O-]", "GLH": "CCC(=O)O"},
    **{"HID": "Cc1cnc[nH]1", "HIE": "Cc1c[nH]cn1", "HIP": "Cc1c[nH]c[nH+]1", "ILE": "[C@@H](C)CC"},
    **{"LEU": "CC(C)C", "LYS": "CCCC[NH3+]", "LYN": "CCCCN", "MET": "CCSC", "PHE": "Cc1ccccc1"},
    **{"SER": "CO", "THR": "[C@@H](C)O", "TRP": "Cc1c[nH]c2ccccc12", "TYR": "Cc1ccc(O)cc1", "VAL": "C(C)C"},
}
RESIDUES = {
    **{name: f"CC(=O)N[C@@H]({chain})C(=O)NC" for name, chain in SIDE_CHAINS.items()},
    **{"GLY": "CC(=O)NCC(=O)NC", "PRO": "CC(=O)N1CCC[C@H]1C(=O)NC"},
}
CHARGES = {"ARG": 1, "LYS": 1, "HIP": 1, "ASP": -1, "GLU": -1, "CYM": -1}


def energy(system: openmm.System, positions: np.ndarray) -> float:
    platform = openmm.Platform.getPlatform("Reference")
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), platform)
    context.setPositions(positions)
    return context.getState(energy=True).getPotentialEnergy().value_in_unit(openmm.unit.kilojoule_per_mole)


def write_pdb(chemical: ChemicalSystem, path: Path) -> None:
    with path.open("w") as handle:
        app.PDBFile.writeFile(chemical.topology, chemical.positions * openmm.unit.nanometer, handle, keepIds=True)


@pytest.mark.parametrize("name", RESIDUES)
def test_every_residue_survives_the_way_from_smiles_to_pdb_and_back(name: str, tmp_path: Path) -> None:
    chemical = build(read_input(smiles=RESIDUES[name]))
    molecule = chemical.molecule
    assert molecule.residue_names == ("ACE", name, "NME")
    assert molecule.smiles == Chem.CanonSmiles(RESIDUES[name])
    assert molecule.charge == CHARGES.get(name, 0)
    assert Molecule.from_json(molecule.to_json()) == molecule
    if name != "GLY":
        assert chemical.stereocentres[f"CA:{name}2"].endswith(", L")

    path = tmp_path / f"{name}.pdb"
    write_pdb(chemical, path)
    assert build(read_input(path)).molecule == molecule
    trajectory = mdtraj.load(path)
    assert trajectory.topology.n_bonds == len(molecule.bonds)
    for kind, find in (("phi", mdtraj.compute_phi), ("psi", mdtraj.compute_psi)):
        assert find(trajectory)[0].tolist() == [list(molecule.torsions[f"{kind}:{name}2"])]


def test_smiles_and_pdb_give_the_same_energy(tmp_path: Path) -> None:
    """Tolerance 1e-3 kT: the two Systems may differ in the order of atoms within improper torsions only."""
    records = [line for line in (MOLECULES / "alanine_dipeptide.pdb").read_text().splitlines() if line[76:78].strip()]
    path = tmp_path / "heavy_atoms_first.pdb"
    path.write_text("\n".join(sorted(records, key=lambda line: (line[22:26], line[76:78] == " H"))))
    from_pdb = build(read_input(path))
    from_smiles = build(read_input(smiles="C[C@H](NC(=O)C)C(=O)NC"))
    assert from_smiles.molecule.smiles == from_pdb.molecule.smiles
    assert from_smiles.force_field_hashes == from_pdb.force_field_hashes
    target = interpret(from_pdb.source, Reading()).mol
    query = interpret(from_smiles.source, Reading()).mol
    match = list(target.GetSubstructMatch(query, useChirality=True))
    assert sorted(match) == list(range(22))
    assert match != sorted(match)
    rng = np.random.default_rng(1)
    for _ in range(5):
        positions = from_pdb.positions + rng.normal(0.0, 0.005, from_pdb.positions.shape)
        difference = energy(from_smiles.system, positions[match]) - energy(from_pdb.system, positions)
        assert abs(difference) / thermal_energy(300.0) < 1e-3


def test_smi_file_is_the_same_molecule_as_the_string() -> None:
    from_file = read_input(MOLECULES / "alanine_dipeptide.smi")
    assert (from_file.kind, from_file.text, from_file.name) == ("smiles", ALANINE, "alanine_dipeptide")
    assert from_file.sha256 == read_input(smiles=ALANINE).sha256
    first, second = build(from_file), build(read_input(smiles=ALANINE))
    assert (first.positions == second.positions).all()


def test_force_fields_and_solvents_are_not_mixed_up() -> None:
    """Differences within 8 kJ/mol of published single-point values for another conformer (kJ/mol).

    Alanine dipeptide, OpenMM 8.6: ff14SB vacuum −46.43, hct −92.42, obc1 −97.37, obc2 −96.08, gbn −97.51,
    gbn2 −93.16; ff96 vacuum −77.28. A solvation energy changes by a few kJ/mol from one conformer to the next;
    the order of the solvents and the shifts between them do not.
    """
    source = read_input(MOLECULES / "alanine_dipeptide.pdb")
    values = {}
    for solvent in SOLVENTS:
        chemical = build(source, "ff14SB", solvent)
        values[solvent] = energy(chemical.system, chemical.positions)
    published = {"hct": -45.99, "obc1": -50.94, "obc2": -49.65, "gbn": -51.08, "gbn2": -46.73}
    for solvent, shift in published.items():
        assert abs(values[solvent] - values["vacuum"] - shift) < 8.0
    assert values["gbn"] < values["obc1"] < values["obc2"] < values["gbn2"] < values["hct"] < values["vacuum"]
    ff96 = build(source, "FF96", "OBC1")
    assert (ff96.force_field, ff96.solvent) == ("ff96", "obc1")
    assert abs(energy(ff96.system, ff96.positions) - values["obc1"] + 30.85) < 8.0


@pytest.mark.parametrize("force_field", FORCE_FIELDS)
def test_every_force_field_builds_a_system_that_other_rooms_can_use(force_field: str) -> None:
    chain = "CC(=O)N[C@@H](CCCC[NH3+])C(=O)N[C@@H](Cc1c[nH]c2ccccc12)C(=O)N1CCC[C@H]1C(=O)N"
    chemical = build(read_input(smiles=chain), force_field, "gbn2")
    assert chemical.molecule.residue_names == ("ACE", "LYS", "TRP", "PRO", "NH2")
    assert chemical.molecule.charge == 1
    assert chemical.system.getNumConstraints() == 0
    kinds = {type(force).__name__ for force in chemical.system.getForces()}
    assert "CMMotionRemover" not in kinds
    assert ("CMAPTorsionForce" in kinds) == (force_field == "ff19SB")
    assert not chemical.system.usesPeriodicBoundaryConditions()
    assert FORCE_FIELDS[force_field] in chemical.force_field_hashes


def test_mirror_images_stay_what_they_are(tmp_path: Path) -> None:
    """A mirror image has the same energy, so nothing but the declared chirality tells them apart."""
    by_smiles = build(read_input(smiles="CC(=O)N[C@H](C)C(=O)NC"))
    assert by_smiles.stereocentres == {"CA:ALA2": "R, D"}
    assert any("D configuration" in warning for warning in by_smiles.warnings)
    path = tmp_path / "d.pdb"
    write_pdb(by_smiles, path)
    assert build(read_input(path)).molecule.smiles == by_smiles.molecule.smiles
    cysteine = build(read_input(smiles=RESIDUES["CYS"]))
    assert cysteine.stereocentres == {"CA:CYS2": "R, L"}


@pytest.mark.parametrize(("name", "methyl"), [("VAL", "CG1"), ("LEU", "CD1")])
def test_chi_angles_from_smiles_use_the_iupac_methyl_names(name: str, methyl: str) -> None:
    """The first methyl group is pro-R: with a heavier isotope there, the centre becomes R."""
    interpreted = interpret(read_input(smiles=RESIDUES[name]), Reading())
    mol = interpreted.mol
    at = interpreted.structure.index()
    mol.GetAtomWithIdx(at[1, methyl]).SetIsotope(13)
    Chem.AssignStereochemistryFrom3D(mol)
    rdCIPLabeler.AssignCIPLabels(mol)
    centre = mol.GetAtomWithIdx(at[1, "CB" if name == "VAL" else "CG"])
    assert centre.GetProp("_CIPCode") == "R"


def test_amide_bonds_from_smiles_are_trans() -> None:
    """The embedding leaves the bond before a proline cis in about half of the cases."""
    chemical = build(read_input(smiles="CC(=O)" + "N1CCC[C@H]1C(=O)" * 5 + "NC"))
    omegas = [atoms for name, atoms in chemical.molecule.torsions.items() if name.startswith("omega")]
    assert len(omegas) == 6
    for atoms in omegas:
        b = np.diff(chemical.positions[list(atoms)], axis=0)
        assert np.dot(np.cross(b[0], b[1]), np.cross(b[1], b[2])) < 0


def test_stiff_bonds_are_the_ones_that_do_not_turn() -> None:
    chain = "".join(f"N[C@@H]({SIDE_CHAINS[name]})C(=O)" for name in ("ARG", "TYR", "ASP", "ASN"))
    molecule = build(read_input(smiles=f"CC(=O){chain}N1CCC[C@H]1C(=O)NC")).molecule
    labels = [
        f"{name}:{molecule.residue_names[r]}"
        for name, r in zip(molecule.atom_names, molecule.residue_of_atom, strict=True)
    ]
    rigid = {frozenset((labels[i], labels[j])) for i, j in molecule.rigid_bonds}
    for pair in (
        *(("C:ACE", "N:ARG"), ("NE:ARG", "CZ:ARG"), ("CZ:ARG", "NH1:ARG"), ("CG:ASN", "ND2:ASN")),
        *(("CG:TYR", "CD1:TYR"), ("CA:PRO", "CB:PRO"), ("C:PRO", "N:NME")),
    ):
        assert frozenset(pair) in rigid
    for pair in (
        *(("CZ:TYR", "OH:TYR"), ("CB:TYR", "CG:TYR"), ("CB:ASP", "CG:ASP"), ("CD:ARG", "NE:ARG")),
        *(("N:ARG", "CA:ARG"), ("CA:ARG", "C:ARG"), ("C:ASN", "N:PRO")),
    ):
        assert frozenset(pair) not in rigid
    planar = {labels[i] for i in molecule.planar_atoms}
    assert {"C:ACE", "N:ARG", "CZ:ARG", "NH1:ARG", "NE:ARG", "CG:ASP", "ND2:ASN", "N:PRO"} <= planar
    assert planar.isdisjoint({"OH:TYR", "CB:ASP", "OD1:ASP", "O:ACE"})


def test_a_charge_in_vacuum_is_said() -> None:
    charged = build(read_input(smiles="CC(=O)N1CCC[C@H]1C(=O)N[C@@H](CC(=O)[O-])C(=O)NC"), solvent="vacuum")
    assert "net charge -1 in vacuum" in " / ".join(charged.warnings)


def test_input_text_is_hashed_as_read() -> None:
    source = read_input(MOLECULES / "alanine_dipeptide.pdb")
    assert isinstance(source, InputSource)
    assert source.kind == "pdb"
    assert source.text == (MOLECULES / "alanine_dipeptide.pdb").read_text()
