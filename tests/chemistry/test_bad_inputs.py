"""Bad input ends in one line with the right exit code, never in a wrong molecule."""

from __future__ import annotations

import gzip
import io
from pathlib import Path

import openmm
import pytest
from openmm import app
from rdkit import Chem
from rdkit.Chem import rdDistGeom, rdMolTransforms

from boltzgen.chemistry import read
from boltzgen.chemistry.build import build
from boltzgen.chemistry.external import read_system_file
from boltzgen.chemistry.interpret import Reading
from boltzgen.chemistry.read import read_input
from boltzgen.errors import BoltzgenError

ALANINE = (Path(__file__).parents[2] / "molecules" / "alanine_dipeptide.pdb").read_text()
LINES = ALANINE.splitlines()
CA_LINE = next(i for i, line in enumerate(LINES) if line[12:16] == " CA ")


def with_ca(start: int, text: str) -> str:
    changed = LINES[CA_LINE][:start] + text + LINES[CA_LINE][start + len(text) :]
    return "\n".join([*LINES[:CA_LINE], changed, *LINES[CA_LINE + 1 :]])


def after_ca(*extra: str) -> str:
    return "\n".join([*LINES[: CA_LINE + 1], *extra, *LINES[CA_LINE + 1 :]])


def without(*, name: str = "", residue: str = "", element: str = "") -> str:
    def goes(line: str) -> bool:
        if not line.startswith(("ATOM", "HETATM")):
            return False
        return (not name or line[12:16].strip() == name) and residue in line[17:20] and element in line[76:78]

    return "\n".join(line for line in LINES if not goes(line))


def moved(residue: str, shift: float, chain: str = "A") -> str:
    return "\n".join(
        f"{line[:21]}{chain}{line[22:30]}{float(line[30:38]) + shift:8.3f}{line[38:]}"
        if line.startswith(("ATOM", "HETATM")) and residue in line[17:20]
        else line
        for line in LINES
    )


def atom_line(name: str, residue: str, number: int, element: str) -> str:
    position = "  10.000" * 3
    return f"HETATM   99 {name:4s} {residue:3s} A{number:4d}    {position}  1.00  0.00          {element:>2s}"


def at_the_origin(text: str) -> str:
    zero = "   0.000" * 3
    lines = text.splitlines()
    return "\n".join(line[:30] + zero + line[54:] if line.startswith(("ATOM", "HETATM")) else line for line in lines)


def ethanol() -> Chem.Mol:
    mol = Chem.AddHs(Chem.MolFromSmiles("CCO"))
    rdDistGeom.EmbedMolecule(mol, randomSeed=1)
    return mol


def as_mmcif(text: str, path: str = "") -> str:
    """What OpenMM writes for a PDB file."""
    handle, out = io.StringIO(text), io.StringIO()
    pdb = app.PDBFile(handle)
    app.PDBxFile.writeFile(pdb.topology, pdb.positions, out, keepIds=True)
    return out.getvalue()


D_ALANINE = "CC(=O)N[C@H](C)C(=O)NC"
MMCIF = as_mmcif(ALANINE)
LIGAND = "".join(
    f"{line[:22]}   9{line[26:]}\n".replace("UNL", "LIG")
    for line in Chem.MolToPDBBlock(ethanol()).splitlines()
    if line.startswith("HETATM")
)
BARE = "\n".join(line for line in LIGAND.splitlines() if line[76:78] != " H")


def narrow_dichloromethane() -> str:
    """Dichloromethane whose chlorines lie within the distance of a bond."""
    mol = Chem.AddHs(Chem.MolFromSmiles("ClCCl"))
    rdDistGeom.EmbedMolecule(mol, randomSeed=1)
    rdMolTransforms.SetAngleDeg(mol.GetConformer(), 0, 1, 2, 80.0)
    return Chem.MolToPDBBlock(mol)


BAD_PDB = {
    "empty": ("", 2, "is empty"),
    "no_atoms": ("REMARK nothing\nEND\n", 2, "no ATOM records"),
    "binary": (b"\x89HDF\r\n\0\0", 2, "binary"),
    "damaged_gzip": (gzip.compress(ALANINE.encode())[:50], 2, "damaged gzip"),
    "mmcif_without_coordinates": ("data_X\nloop_\n_atom_site.group_PDB\nATOM\n", 2, "no column Cartn_x"),
    "mmcif_unfinished": (MMCIF[:-30], 2, "row 22 of the atoms is incomplete"),
    "mmcif_nan": (MMCIF.replace(" 0.2570 ", " 0.x570 ", 1), 2, "the x coordinate of N of ALA2 is '0.x570'"),
    "no_such_model": (ALANINE, 2, "there is no model 3", Reading(model=3)),
    "wrong_charge": (ALANINE, 2, "--charge says +1", Reading(charge=1)),
    "other_smiles": (ALANINE, 2, "not those of --smiles", Reading(template=read_input(smiles="CCO"))),
    "mirror_smiles": (ALANINE, 2, "another configuration", Reading(template=read_input(smiles=D_ALANINE))),
    "ligand_that_touches_itself": (
        narrow_dichloromethane(),
        2,
        "not those of --smiles",
        Reading(template=read_input(smiles="ClCCl")),
    ),
    "ligand_without_bonds": (LIGAND, 3, "--smiles or its net charge as --charge"),
    "ligand_without_hydrogens": (BARE, 2, "no hydrogens. Give the molecule as --smiles", Reading(charge=0)),
    "ligand_of_another_charge": (LIGAND, 2, "no bond orders fit the charge", Reading(charge=3)),
    "ligand_and_peptide": (ALANINE.replace("END", LIGAND), 3, "LIG9 is no standard amino acid"),
    "all_at_the_origin": (at_the_origin(ALANINE), 2, "0.00 Å apart"),
    "element": (ALANINE.replace("           C", "          Xx"), 2, "has element 'Xx'"),
    "truncated": (ALANINE[: ALANINE.index("TER") - 45], 2, "HH33 of NME3"),
    "text_in_column": (with_ca(30, "   abc  "), 2, f":{CA_LINE + 1}: the x coordinate of CA of ALA2"),
    "nan": (with_ca(38, "     nan"), 2, "the y coordinate of CA of ALA2 is 'nan'"),
    "coincident": (with_ca(30, LINES[CA_LINE + 2][30:54]), 2, "0.00 Å apart"),
    "torn": (moved("NME", 20.0), 2, "the bond from C of ALA2 to N of NME3"),
    "no_hydrogens": (without(element="H"), 2, "no hydrogens"),
    "missing_hydrogen": (without(name="HB1"), 2, "ALA2 lacks hydrogen HB1"),
    "missing_heavy_atom": (without(name="CB"), 2, "ALA2 lacks heavy atom CB"),
    "unexpected_atom": (after_ca(atom_line("CG", "ALA", 2, "C")), 2, "unexpected atom CG"),
    "unexpected_hydrogen": (after_ca(atom_line("HX", "ALA", 2, "H")), 2, "unexpected hydrogen HX"),
    "atom_twice": (after_ca(LINES[CA_LINE]), 2, "CA of ALA2 is there twice"),
    "no_n_cap": (without(residue="ACE"), 2, "starts with ALA2, an uncapped terminus"),
    "no_c_cap": (without(residue="NME"), 2, "ends with ALA2, an uncapped terminus"),
    "unknown_residue": (ALANINE.replace("ALA", "LIG"), 3, "LIG2 is no standard amino acid or cap"),
    "terminal_colours": (ALANINE.replace("ALA", "\x1b[3"), 3, "?[32 is no standard"),
    "metal": (after_ca(atom_line("ZN", " ZN", 9, "ZN")), 3, "ZN9 is no standard amino acid"),
    "disulfide": (ALANINE.replace("ALA", "CYX"), 3, "CYX2 is no standard amino acid"),
    "two_molecules": (ALANINE + moved("", 20.0, chain="B"), 3, "2 molecules"),
}

BAD_SMILES = {
    "empty": ("", 2, "empty SMILES"),
    "blank": ("  ", 2, "empty SMILES"),
    "space": ("CC O", 2, "character 3"),
    "newline": ("CC(=O)N[C@@H](C)C(=O)NC\n", 2, "character 24"),
    "cyrillic": ("CC\N{CYRILLIC CAPITAL LETTER O}", 2, "U+041E"),
    "syntax": ("CC(=O", 2, "no valid SMILES"),
    "valence": ("CC(C)(C)(C)C", 2, "greater than permitted"),
    "valence_found_late": ("CN1C=NC2=C1C(=O)N(C)C(=O)No2C", 2, "greater than permitted"),
    "aromatic_bond_outside_a_ring": ("CC:O", 3, "is aromatic, which no force field knows"),
    "bond_of_any_order": ("CC(=O)Oc1cc~Nc1C(=O)O", 2, "Can't kekulize"),
    "dative_bond": ("[NH3]->B", 3, "is dative"),
    "salt": ("[Na+].[Cl-]", 3, "--largest-fragment"),
    "lone_ion": ("[Na+].[Cl-]", 3, "a single atom", Reading(largest_fragment=True)),
    "undefined_alpha": ("CC(=O)NC(C)C(=O)NC", 2, "undefined stereocentre CA of ALA2"),
    "undefined_beta": ("CC(=O)N[C@@H](C(C)O)C(=O)NC", 2, "undefined stereocentre CB of THR2"),
    "undefined_centres": ("CC(O)C(F)Cl", 2, "undefined stereocentre C2, C3. "),
    "undefined_double_bond": ("CC=CC", 2, "undefined stereocentre C2=C3. "),
    "dummy": ("*C(=O)N[C@@H](C)C(=O)NC", 3, "dummy atom"),
    "isotope": ("[13CH3]C(=O)N[C@@H](C)C(=O)NC", 3, "isotope"),
    "atom_map": ("[CH3:1]C", 3, "atom map"),
    "radical": ("[CH2]C(=O)N[C@@H](C)C(=O)NC", 3, "radical"),
    "single_atom": ("[He]", 3, "a single atom"),
    "no_mmff_type": ("CB(O)O", 3, "MMFF94s has no parameters for B2"),
    "metal": ("C[Zn]C", 3, "MMFF94s"),
    "too_large": ("C" * 600, 3, "the limit is 200"),
    "too_long": ("C(" * 5000, 3, "the limit is 5,000"),
    "wrong_charge": ("CCO", 2, "--charge says -1", Reading(charge=-1)),
    "second_smiles": ("CCO", 2, "Leave --smiles out", Reading(template=read_input(smiles="CCO"))),
}

NO_TEMPLATE = {
    "free_amine": ("[NH3+][C@@H](C)C(=O)NC", "uncapped terminus at the start"),
    "free_acid": ("CC(=O)N[C@@H](C)C(=O)[O-]", "uncapped terminus at the end"),
    "benzene": ("c1ccccc1", "C6H6 is no capped peptide"),
    "neutral_lysine_amide": ("CC(=O)N[C@@H](CCCNC)C(=O)NC", "charge state"),
    "branched": ("CC(=O)N[C@@H](CC(=O)N[C@@H](C)C(=O)NC)C(=O)NC", "branched or closed"),
    "cyclic": ("O=C1N[C@@H](C)C(=O)N[C@@H](C)C(=O)N[C@@H]1C", "branched or closed"),
}

SDF = Chem.MolToMolBlock(ethanol())
MOL2 = """@<TRIPOS>MOLECULE
water
3 2 0 0 0
SMALL
NO_CHARGES

@<TRIPOS>ATOM
1 O   0.0000 0.0000 0.0000 O.3 1 WAT 0.0
2 H1  0.9572 0.0000 0.0000 H   1 WAT 0.0
3 H2 -0.2400 0.9266 0.0000 H   1 WAT 0.0
@<TRIPOS>BOND
1 1 2 1
2 1 3 1
"""

BAD_FILES = {
    "sdf_cut": (SDF[:300], 2, "damaged MOL block"),
    "sdf_text_in_column": (SDF.replace(SDF.splitlines()[4][:10], "    abcdef", 1), 2, "damaged MOL block"),
    "sdf_nan": (SDF.replace(SDF.splitlines()[4][:10], "       nan", 1), 2, "damaged MOL block"),
    "sdf_several": (f"{SDF}$$$$\n{SDF}$$$$\n", 2, "2 molecules. Give one, or choose it with --model"),
    "sdf_no_such_model": (f"{SDF}$$$$\n", 2, "there is no model 2", Reading(model=2)),
    "sdf_without_hydrogens": (Chem.MolToMolBlock(Chem.RemoveHs(ethanol())), 2, "6 hydrogens are missing"),
    "sdf_overlap": (SDF.replace(SDF.splitlines()[5][:30], SDF.splitlines()[4][:30], 1), 2, "0.00 Å apart"),
    "sdf_salt": (Chem.MolToMolBlock(Chem.MolFromSmiles("C[NH3+].[Cl-]")), 3, "--largest-fragment"),
    "sdf_query": (Chem.MolToMolBlock(Chem.MolFromSmiles("C*")), 3, "dummy atom"),
    "sdf_drawing": (Chem.MolToMolBlock(Chem.MolFromSmiles("CC(F)Cl")), 2, "undefined stereocentre C2"),
    "mol2_cut": (MOL2[:200], 2, "damaged MOL2 block"),
    "mol2_without_molecule": (MOL2.replace("@<TRIPOS>MOLECULE", "@<TRIPOS>COMMENT"), 2, "no molecule in the file"),
    "mol2_several": (MOL2 * 2, 2, "2 molecules"),
    "prose": ("This is not a molecule.\n", 2, "of no other known kind"),
    "html": ("<html>\n<body>404</body>\n</html>\n", 2, "of no other known kind"),
}

BAD_SMI = {
    "second_molecule": ("CC(=O)N[C@@H](C)C(=O)NC\nCC\n", 2, ":2: a second molecule"),
    "smiles_with_a_space": ("CC O\n", 2, "reads as another SMILES"),
}


def assert_one_line(caught: pytest.ExceptionInfo[BoltzgenError], code: int, message: str) -> None:
    text = str(caught.value)
    assert caught.value.exit_code == code
    assert message in text
    assert text.isprintable()
    assert text.endswith(".")


def refused(path: Path | None, smiles: str | None, row: tuple) -> None:
    _, code, message, *reading = row
    with pytest.raises(BoltzgenError) as caught:
        build(read_input(path, smiles), reading=reading[0] if reading else Reading())
    assert_one_line(caught, code, message)


@pytest.mark.parametrize("case", BAD_PDB)
def test_bad_pdb_is_not_taken_for_a_molecule(case: str, tmp_path: Path) -> None:
    content = BAD_PDB[case][0]
    path = tmp_path / f"{case}.pdb"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    refused(path, None, BAD_PDB[case])


@pytest.mark.parametrize("case", BAD_SMILES)
def test_bad_smiles_is_not_taken_for_another_molecule(case: str) -> None:
    refused(None, BAD_SMILES[case][0], BAD_SMILES[case])


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_sdf_and_mol2_are_not_taken_for_a_molecule(case: str, tmp_path: Path) -> None:
    path = tmp_path / "molecule.dat"
    path.write_text(BAD_FILES[case][0])
    refused(path, None, BAD_FILES[case])


@pytest.mark.parametrize("case", NO_TEMPLATE)
def test_without_templates_an_amber_force_field_says_why_and_the_default_is_mmff(case: str) -> None:
    smiles, reason = NO_TEMPLATE[case]
    with pytest.raises(BoltzgenError) as caught:
        build(read_input(smiles=smiles), "ff14SB")
    assert_one_line(caught, 3, reason)
    chemical = build(read_input(smiles=smiles))
    assert (chemical.force_field, chemical.solvent) == ("MMFF94s", "vacuum")
    assert reason in chemical.force_field_reason
    assert chemical.warnings[0].startswith("MMFF94s in vacuum is the force field")


def test_a_gzip_bomb_stops_at_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read, "SIZE_LIMIT", 2**20)
    path = tmp_path / "bomb.pdb"
    path.write_bytes(gzip.compress(b" " * 2**24))
    with pytest.raises(BoltzgenError) as caught:
        read_input(path)
    assert_one_line(caught, 2, "larger than 1 MiB")


PLAIN = openmm.System()
for mass in (15.999, 1.008, 1.008):
    PLAIN.addParticle(mass)
XML = openmm.XmlSerializer.serialize(PLAIN)

BAD_SYSTEMS = {
    "no_xml": ("ATOM", 2, "no valid XML"),
    "other_xml": ("<svg/>", 2, "no System"),
    "entity": (f'<!DOCTYPE a [<!ENTITY b "c">]>{XML}', 2, "document type"),
    "python": (XML.replace("<Forces/>", '<Forces><Force type="PythonForce"/></Forces>'), 3, "PythonForce"),
    "unknown_force": (XML.replace("<Forces/>", '<Forces><Force type="Magic"/></Forces>'), 2, "cannot read it"),
    "particles": (XML.replace('<Particle mass="1.008"/>', "", 1), 2, "has 2 particles, the molecule 3 atoms"),
    "order": (XML.replace("15.999", "@").replace("1.008", "15.999", 1).replace("@", "1.008"), 2, "particle 1"),
    "masses": (XML.replace('"1.008"', '"3.024"', 1), 2, "particle 2 has mass 3.024, but H1"),
}


@pytest.mark.parametrize("case", BAD_SYSTEMS)
def test_system_of_something_else_is_refused(case: str, tmp_path: Path) -> None:
    text, code, message = BAD_SYSTEMS[case]
    path = tmp_path / "system.xml"
    path.write_text(text)
    with pytest.raises(BoltzgenError) as caught:
        build(read_input(smiles="O"), reading=Reading(keep_order=True), system_file=read_system_file(path))
    assert_one_line(caught, code, message)


@pytest.mark.parametrize("case", BAD_SMI)
def test_smi_file_with_more_than_one_molecule_is_refused(case: str, tmp_path: Path) -> None:
    text, code, message = BAD_SMI[case]
    path = tmp_path / "two.smi"
    path.write_text(text)
    with pytest.raises(BoltzgenError) as caught:
        read_input(path)
    assert_one_line(caught, code, message)


def test_rdkit_prints_nothing_beside_the_error(capfd: pytest.CaptureFixture[str]) -> None:
    refused(None, "[C@SP1](F)(Cl)(Br)I", ("", 2, "undefined stereocentre C1"))
    assert capfd.readouterr() == ("", "")


def test_missing_file_folder_and_no_input_are_bad_usage(tmp_path: Path) -> None:
    for arguments, message in (
        ((tmp_path / "none.pdb",), "no such file"),
        ((tmp_path,), "is a folder"),
        ((), "need one molecule"),
        (("a.pdb", "CC"), "need one molecule"),
    ):
        with pytest.raises(BoltzgenError) as caught:
            read_input(*arguments)
        assert_one_line(caught, 2, message)


@pytest.mark.parametrize(
    ("force_field", "solvent", "nearest"),
    [("ff14", "obc2", "ff14SB"), ("ff14SB", "obc", "obc1"), ("ff99SB-NMR", "obc2", "ff99SB-ILDN")],
)
def test_unknown_names_get_the_nearest_known(force_field: str, solvent: str, nearest: str) -> None:
    with pytest.raises(BoltzgenError) as caught:
        build(read_input(smiles="CC(=O)N[C@@H](C)C(=O)NC"), force_field, solvent)
    assert_one_line(caught, 2, f"{nearest}")


USABLE_PDB = {
    "gzip": (gzip.compress(ALANINE.encode()), ""),
    "windows_line_ends": (ALANINE.replace("\n", "\r\n").encode(), ""),
    "latin1_remark": (b"REMARK \xe9\n" + ALANINE.encode(), ""),
    "tiny_box": (b"CRYST1    1.000    1.000    1.000  90.00  90.00  90.00 P 1\n" + ALANINE.encode(), ""),
    "lower_case": (ALANINE.replace("ALA", "ala").encode(), "lower case"),
    "water": (after_ca(atom_line("O", "HOH", 9, "O")).encode(), "water molecules left out: 1"),
    "ion": (after_ca(atom_line("NA", "NA", 9, "NA")).encode(), "ions left out: 1"),
    "two_models": (f"MODEL 1\n{ALANINE}ENDMDL\nMODEL 2\n{ALANINE}ENDMDL\n".encode(), "models in the file: 2"),
    "other_names": (
        ALANINE.replace(" CH3 NME", " C   NME").replace("HH31", "1HH3").replace(" HB1", " HX ").encode(),
        "",
    ),
}


@pytest.mark.parametrize("case", USABLE_PDB)
def test_harmless_peculiarities_change_nothing_but_a_warning(case: str, tmp_path: Path) -> None:
    content, warning = USABLE_PDB[case]
    path = tmp_path / "molecule.pdb"
    path.write_bytes(content)
    plain = tmp_path / "plain.pdb"
    plain.write_text(ALANINE)
    odd, reference = build(read_input(path)), build(read_input(plain))
    assert odd.molecule == reference.molecule
    assert (odd.positions == reference.positions).all()
    assert warning in " / ".join(odd.warnings)
    assert len(odd.warnings) == len(reference.warnings) + bool(warning)


def test_alternate_location_with_the_highest_occupancy_is_kept(tmp_path: Path) -> None:
    line = LINES[CA_LINE]
    minor = line[:16] + "A" + line[17:30] + "   9.000" + line[38:54] + "  0.40" + line[60:]
    major = line[:16] + "B" + line[17:54] + "  0.60" + line[60:]
    path = tmp_path / "altloc.pdb"
    path.write_text("\n".join([*LINES[:CA_LINE], minor, major, *LINES[CA_LINE + 1 :]]))
    chemical = build(read_input(path))
    ca = chemical.molecule.atom_names.index("CA")
    assert chemical.positions[ca, 0] == pytest.approx(float(line[30:38]) / 10.0, abs=1e-12)
    assert "alternate locations left out: 1" in chemical.warnings[0]
