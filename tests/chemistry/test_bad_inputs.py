"""Bad input ends in one line with the right exit code, never in a wrong molecule."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from boltzgen.chemistry.build import build
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


BAD_PDB = {
    "empty": ("", 2, "is empty"),
    "no_atoms": ("REMARK nothing\nEND\n", 2, "no ATOM records"),
    "binary": (b"\x89HDF\r\n\0\0", 2, "binary"),
    "damaged_gzip": (gzip.compress(ALANINE.encode())[:50], 2, "damaged gzip"),
    "mmcif": ("data_X\nloop_\n_atom_site.group_PDB\nATOM 1 N N\n", 3, "mmCIF"),
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
    "unknown_residue": (ALANINE.replace("ALA", "LIG"), 3, "LIG2 is no standard amino acid"),
    "terminal_colours": (ALANINE.replace("ALA", "\x1b[3"), 3, "?[32 is no standard"),
    "metal": (after_ca(atom_line("ZN", " ZN", 9, "ZN")), 3, "ZN9 is no standard amino acid"),
    "disulfide": (ALANINE.replace("ALA", "CYX"), 3, "disulfide"),
    "two_molecules": (ALANINE + moved("", 20.0, chain="B"), 3, "2 molecules"),
}

BAD_SMILES = {
    "empty": ("", 2, "empty SMILES"),
    "space": ("CC O", 2, "character 3"),
    "newline": ("CC(=O)N[C@@H](C)C(=O)NC\n", 2, "character 24"),
    "cyrillic": ("CC\N{CYRILLIC CAPITAL LETTER O}", 2, "U+041E"),
    "syntax": ("CC(=O", 2, "no valid SMILES"),
    "valence": ("CC(C)(C)(C)C", 2, "greater than permitted"),
    "fragments": ("[Na+].[Cl-]", 3, "several molecules"),
    "undefined_alpha": ("CC(=O)NC(C)C(=O)NC", 2, "undefined stereocentre CA of ALA2"),
    "undefined_beta": ("CC(=O)N[C@@H](C(C)O)C(=O)NC", 2, "undefined stereocentre CB of THR2"),
    "no_n_cap": ("[NH3+][C@@H](C)C(=O)NC", 2, "uncapped terminus at the start"),
    "no_c_cap": ("CC(=O)N[C@@H](C)C(=O)[O-]", 2, "uncapped terminus at the end"),
    "not_a_peptide": ("c1ccccc1", 3, "C6H6 is no capped peptide"),
    "neutral_arginine": ("CC(=O)N[C@@H](CCCNC(N)=N)C(=O)NC", 3, "charge state"),
    "branched": ("CC(=O)N[C@@H](CC(=O)N[C@@H](C)C(=O)NC)C(=O)NC", 3, "branched or closed"),
    "large_ring": ("O=C1N[C@@H](C)C(=O)N[C@@H](C)C(=O)N[C@@H]1C", 3, "ring of more than six"),
    "dummy": ("*C(=O)N[C@@H](C)C(=O)NC", 3, "dummy atom"),
    "isotope": ("[13CH3]C(=O)N[C@@H](C)C(=O)NC", 3, "isotope"),
    "radical": ("[CH2]C(=O)N[C@@H](C)C(=O)NC", 3, "radical"),
    "too_large": ("C" * 600, 3, "the limit is 200"),
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


@pytest.mark.parametrize("case", BAD_PDB)
def test_bad_pdb_is_not_taken_for_a_molecule(case: str, tmp_path: Path) -> None:
    content, code, message = BAD_PDB[case]
    path = tmp_path / f"{case}.pdb"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(BoltzgenError) as caught:
        build(read_input(path))
    assert_one_line(caught, code, message)


@pytest.mark.parametrize("case", BAD_SMILES)
def test_bad_smiles_is_not_taken_for_another_molecule(case: str) -> None:
    text, code, message = BAD_SMILES[case]
    with pytest.raises(BoltzgenError) as caught:
        build(read_input(smiles=text))
    assert_one_line(caught, code, message)


@pytest.mark.parametrize("case", BAD_SMI)
def test_smi_file_with_more_than_one_molecule_is_refused(case: str, tmp_path: Path) -> None:
    text, code, message = BAD_SMI[case]
    path = tmp_path / "two.smi"
    path.write_text(text)
    with pytest.raises(BoltzgenError) as caught:
        read_input(path)
    assert_one_line(caught, code, message)


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
