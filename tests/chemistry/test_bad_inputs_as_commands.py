"""The tables of bad input, through the whole program: exit code, one line on stderr, nothing else said or written.

The rows run ``main`` in this process, where torch and RDKit are loaded already; what a shell adds is in
``tests/cli/test_bad_molecules.py``, which starts a process for each of its rows.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import pytest
import torch
from rdkit import Chem
from test_bad_inputs import ALANINE, BAD_FILES, BAD_PDB, BAD_SMI, BAD_SMILES, BAD_SYSTEMS, USABLE_PDB

from boltzgen.chemistry.interpret import Reading
from boltzgen.cli.app import main


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable:
    """Run a command line in an empty folder; what it returns is the exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str, str]:
        capfd.readouterr()
        monkeypatch.setattr(sys, "argv", ["boltzgen", *arguments])
        with pytest.raises(SystemExit) as stop:
            main()
        return stop.value.code, *capfd.readouterr()

    return run


def contents(folder: Path) -> dict[str, bytes | None]:
    return {str(path): path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))}


def refused(shell: Callable, arguments: list[str], code: int, message: str) -> None:
    before = contents(Path.cwd())
    found, out, err = shell(*arguments)
    assert (found, out) == (code, ""), err
    errors = [line for line in err.splitlines() if not line.startswith("warning: ")]
    assert len(errors) == 1, err
    assert errors[0].startswith("error: ")
    assert message in errors[0]
    assert contents(Path.cwd()) == before


def flags(row: tuple) -> list[str]:
    """The command line's way of saying what a row gives as Reading."""
    reading: Reading = row[3] if len(row) > 3 else Reading()
    given = {"--model": reading.model, "--charge": reading.charge}
    given["--smiles"] = reading.template.text if reading.template else None
    found = [f"{flag}={value}" for flag, value in given.items() if value is not None]
    return found + (["--largest-fragment"] if reading.largest_fragment else [])


FILE_ROWS = {
    **{f"pdb_{case}": ("mol.pdb", row) for case, row in BAD_PDB.items()},
    **{f"file_{case}": ("mol.dat", row) for case, row in BAD_FILES.items()},
    **{f"smi_{case}": ("mol.smi", row) for case, row in BAD_SMI.items()},
}


@pytest.mark.parametrize("case", FILE_ROWS)
def test_bad_file_is_one_line_and_writes_nothing(case: str, shell: Callable) -> None:
    name, row = FILE_ROWS[case]
    content, code, message, *_ = row
    Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
    refused(shell, ["prepare", name, "-q", *flags(row)], code, message)


@pytest.mark.parametrize(
    "case", [case for case in BAD_SMILES if case != "second_smiles"]
)  # that would be another usage
def test_bad_smiles_is_one_line_and_writes_nothing(case: str, shell: Callable) -> None:
    smiles, code, message, *_ = BAD_SMILES[case]
    refused(shell, ["prepare", f"--smiles={smiles}", "-o", "mol.run", "-q", *flags(BAD_SMILES[case])], code, message)


@pytest.mark.parametrize("case", BAD_SYSTEMS)
def test_bad_system_is_one_line_and_writes_nothing(case: str, shell: Callable) -> None:
    text, code, message = BAD_SYSTEMS[case]
    Path("system.xml").write_text(text)
    refused(shell, ["prepare", "--smiles=O", "--system=system.xml", "-o", "mol.run", "-q"], code, message)


PATH_ROWS = {
    "missing": (["none.pdb"], 2, "none.pdb: no such file"),
    "folder": (["folder"], 2, "folder: is a folder"),
    "longer_than_paths_are": (
        ["C" * 5000],
        2,
        "too long for a file name. Give a shorter path, or a SMILES as --smiles",
    ),
    "device": (["/dev/null"], 2, "is not a regular file"),
    "no_parent": (["mol.pdb", "-o", "none/mol.run"], 6, "parent folder does not exist"),
    "output_is_a_file": (["mol.pdb", "-o", "mol.pdb"], 4, "is a file"),
    "output_longer_than_paths_are": (["mol.pdb", "-o", "x" * 5000], 2, "too long for a file name"),
    "no_molecule": ([], 2, "no molecule is given"),
    "smiles_beside_sdf": (["ethanol.sdf", "--smiles=CCO"], 2, "Leave --smiles out"),
    "charge_is_no_number": (["mol.pdb", "--charge=x"], 2, "prepare.charge"),
    "model_zero": (["mol.pdb", "--model=0"], 2, "prepare.model"),
    "temperature_nan": (["mol.pdb", "--temperature=nan"], 2, "prepare.temperature"),
    "unknown_force_field": (["mol.pdb", "--ff=ff14"], 2, "ff14SB"),
    "unknown_key": (["mol.pdb", "--set=prepare.solvnt=hct"], 2, "prepare.solvent"),
}


@pytest.mark.parametrize("case", PATH_ROWS)
def test_bad_paths_and_flags_are_one_line_and_write_nothing(case: str, shell: Callable) -> None:
    Path("folder").mkdir()
    Path("mol.pdb").write_text(ALANINE)
    Path("ethanol.sdf").write_text(Chem.MolToMolBlock(Chem.MolFromSmiles("CCO")))
    arguments, code, message = PATH_ROWS[case]
    refused(shell, ["prepare", *arguments, "-q"], code, message)


@pytest.mark.parametrize("mode", ["unreadable", "read_only_folder"])
def test_what_permissions_forbid_is_exit_6(mode: str, shell: Callable) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may read and write everywhere")
    Path("mol.pdb").write_text(ALANINE)
    Path("locked").mkdir(mode=0o500)
    if mode == "unreadable":
        Path("mol.pdb").chmod(0)
    found, out, err = shell("prepare", "mol.pdb", "-o", "locked/mol.run", "-q")
    assert (found, out, err.count("\n")) == (6, "", 1)


def test_a_path_in_any_alphabet_is_fine(shell: Callable) -> None:
    Path("分子 Å.pdb").write_bytes(USABLE_PDB["windows_line_ends"][0])
    code, _, err = shell("prepare", "分子 Å.pdb", "-q", "--set=prepare.conformers=1")
    assert (code, err) == (0, "")
    assert Path("分子 Å.run/system.h5").is_file()


@pytest.fixture(scope="module")
def water(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("water")
    command = [sys.executable, "-m", "boltzgen", "prepare", "--smiles=O", "-o", "mol.run", "-q"]
    subprocess.run(command, cwd=folder, check=True, timeout=120, capture_output=True)
    return folder / "mol.run"


def flipped(path: Path) -> None:
    """One bit of the stored positions changes."""
    with h5py.File(path) as file:
        place = file["conformers/positions"].id.get_chunk_info(0).byte_offset
    data = bytearray(path.read_bytes())
    data[place + 5] ^= 1
    path.write_bytes(bytes(data))


def newer(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file["boltzgen"].attrs["schema_version"] = 99


def foreign(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["data"] = [1.0]


def pickled(path: Path) -> None:
    torch.save({"weights": Path("code")}, path)


RUN_ROWS: dict[str, tuple[Callable[[Path], None], str, list[str], int, str]] = {
    "other_program": (foreign, "system.h5", ["train", "mol.run"], 2, "was not written by boltzgen"),
    "newer_schema": (newer, "system.h5", ["train", "mol.run"], 2, "has format version 99, newer than"),
    "no_hdf5": (lambda path: path.write_text("text"), "system.h5", ["train", "mol.run"], 2, "system.h5"),
    "flipped": (flipped, "system.h5", ["train", "mol.run"], 2, "damaged"),
    "pickled_checkpoint": (pickled, "checkpoint.h5", ["train", "mol.run"], 2, "checkpoint.h5"),
    "pickled_flow": (pickled, "flow.h5", ["sample", "mol.run"], 2, "flow.h5"),
    "no_flow": (lambda path: None, "flow.h5", ["sample", "mol.run"], 2, "flow.h5"),
    "other_molecule": (lambda path: None, "", ["prepare", "--smiles=CCO", "-o", "mol.run"], 4, "--force"),
}


@pytest.mark.parametrize("case", RUN_ROWS)
def test_files_of_something_else_are_one_line_and_stay_as_they_are(case: str, shell: Callable, water: Path) -> None:
    damage, name, arguments, code, message = RUN_ROWS[case]
    shutil.copytree(water, "mol.run")
    damage(Path("mol.run") / name)
    Path("mol.run/.lock").unlink()  # whoever looks leaves the number of its process
    before = contents(Path.cwd())
    found, out, err = shell(*arguments, "-q")
    assert (found, out, err.count("\n")) == (code, "", 1), err
    assert err.startswith("error: ")
    assert message in err
    assert "weights_only" not in err  # torch's advice would run the code in a pickle
    assert {k: v for k, v in contents(Path.cwd()).items() if k in before} == before
