"""``--dry-run`` as a shell runs it: the plan that the command then keeps to, the same refusals, nothing written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from shell_command import shell

PDB = Path(__file__).parents[2] / "molecules" / "alanine_dipeptide.pdb"
TINY = ("--set", "prepare.conformers=1")


def contents(folder):
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with butane prepared in it."""
    folder = tmp_path_factory.mktemp("dry")
    done = shell("prepare", "--smiles", "CCCC", "-o", "butane.run", "--json", *TINY, cwd=folder)
    assert done.returncode == 0, done.stderr
    (folder / "prepared.json").write_text(done.stdout)
    return folder


def plan(folder, *arguments):
    before = contents(folder)
    result = shell(*arguments, "--dry-run", "--json", cwd=folder)
    assert contents(folder) == before
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def test_the_plan_is_what_prepare_then_does(folder):
    found = plan(folder, "prepare", "--smiles", "CCCC", "-o", "other.run", *TINY)
    prepared = json.loads((folder / "prepared.json").read_text())
    for name in (
        *("formula", "smiles", "charge", "stereocentres", "force_field", "force_field_reason", "solvent", "n_atoms"),
        *("n_torsions", "n_rotors", "symmetry_number", "n_stiff", "temperature"),
    ):
        assert found[name] == prepared[name], name
    assert found["done"] == []
    assert found["warnings"][0] == prepared["warnings"][0]


def test_the_plan_of_a_peptide_is_printed_for_people(folder):
    before = contents(folder)
    result = shell("run", PDB, "--dry-run", "--preset", "quick", cwd=folder)
    assert result.returncode == 0, result.stderr
    assert contents(folder) == before
    for words in (
        "C6H12N2O2, 22 atoms, charge +0",
        "CNC(=O)[C@H](C)NC(C)=O",
        "ff14SB + obc2 (residue templates match), 300 K",
        "2 slow torsions, 3 symmetric rotors (symmetry number 27), 55 stiff",
        "274,752 parameters",
        "600,000 energies on",
        "alanine_dipeptide.run/representatives.pdb",
    ):
        assert words in result.stdout, words


def test_a_prepared_run_is_planned_from_what_is_there(folder):
    of_input = plan(folder, "train", "--smiles", "CCCC", "-o", "butane.run", "--time-budget", "90", *TINY)
    of_run = plan(folder, "train", "butane.run", "--time-budget", "90")
    assert of_input["done"] == of_run["done"] == ["prepare"]
    assert of_input["training_energies"] is of_run["training_energies"] is None
    assert of_input["training_seconds"] == of_run["training_seconds"] == 90.0
    for name in ("n_torsions", "n_stiff", "n_parameters", "smiles"):
        assert of_input[name] == of_run[name], name


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("prepare", "broken.pdb"), 2),
        (("train", "--smiles", "C[C@H](F)C(O)Cl", "-o", "x.run"), 2),  # an undefined stereocentre
        (("run", "--smiles", "C[CH2]", "-o", "x.run"), 3),
        (("train", "--smiles", "CCCC", "-o", "butane.run", "--temperature", "350", *TINY), 4),
    ],
)
def test_bad_input_is_refused_as_by_the_command_itself(folder, arguments, code):
    (folder / "broken.pdb").write_text("this is no PDB file\n")
    before = contents(folder)
    dry, real = shell(*arguments, "--dry-run", cwd=folder), shell(*arguments, cwd=folder)
    assert (dry.returncode, dry.stdout) == (code, "")
    assert real.returncode == code
    assert dry.stderr == real.stderr
    assert contents(folder) == before
