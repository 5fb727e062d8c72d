"""The commands as a shell runs them, from a PDB file to files that other programs open; budgets of seconds."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import MDAnalysis
import mdtraj
import numpy as np
import pytest
from MDAnalysis.coordinates.H5MD import H5MDReader
from shell_command import shell

import boltzgen
from boltzgen.statistics.weights import kish_ess
from boltzgen.storage.runs import read_provenance

PDB = Path(__file__).parents[2] / "molecules" / "alanine_dipeptide.pdb"
TINY = ("--set", "train.max_energies=20000", "--set", "prepare.conformers=2")
N = 1500


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("shell")


@pytest.fixture(scope="module")
def first(folder):
    """``boltzgen run`` on alanine dipeptide, with a budget far too small for a good flow."""
    return shell("run", PDB, "-o", "ala.run", "-n", N, "--json", *TINY, cwd=folder)


@pytest.fixture(scope="module")
def run(first, folder):
    assert first.returncode == 0, first.stderr
    return folder / "ala.run"


def test_run_prints_one_json_object_with_the_promised_keys(first):
    answer = json.loads(first.stdout)
    assert answer["n_samples"] == N
    assert 1.0 <= answer["ess"] <= N
    assert answer["ess_fraction"] == pytest.approx(answer["ess"] / N)
    assert answer["n_energy_evaluations"] > answer["n_force_evaluations"] > 20_000
    assert answer["n_failed"] == 0
    assert answer["temperature"] == 300.0
    assert answer["verdict"] == "FAILED"  # a tiny budget must not pass
    assert answer["reasons"]
    basins = [v["value"] for name, v in answer["populations"].items() if not name.endswith("phi>0")]
    assert sum(basins) == pytest.approx(1.0, abs=1e-9)
    assert {"khat", "log_z", "log_z_stderr", "seconds", "files"} <= set(answer)


def test_every_file_of_the_contract_is_there(run):
    names = "system.h5 system.pdb system.xml flow.h5 metrics.csv samples.h5 ensemble.h5 analysis.h5 report.html"
    for name in [*names.split(), "representatives.pdb", "plots/ramachandran_ALA2.png", "plots/training.png"]:
        assert (run / name).stat().st_size > 0, name
    assert not (run / "checkpoint.h5").exists()


def test_mdtraj_mdanalysis_and_h5py_read_the_same_samples(run):
    trajectory = mdtraj.load(str(run / "samples.h5"))
    with h5py.File(run / "samples.h5") as file:
        positions = file["coordinates"][:]
        log_weight = file["observables/log_weight/value"][:]
        u = file["observables/reduced_potential/value"][:]
        log_prob = file["observables/log_prob/value"][:]
    assert np.array_equal(trajectory.xyz, positions)
    assert trajectory.topology.n_residues == 3
    assert np.allclose(log_weight, -u - log_prob, rtol=0.0, atol=1e-9)
    universe = MDAnalysis.Universe(str(run / "system.pdb"), str(run / "samples.h5"), format="H5MD")
    assert isinstance(universe.trajectory, H5MDReader)
    assert len(universe.trajectory) == N
    frame = universe.trajectory[7]
    assert np.allclose(frame.positions / 10.0, positions[7], atol=1e-6)  # float32 ångström
    assert frame.data["log_weight"] == pytest.approx(log_weight[7])
    phi = mdtraj.compute_phi(trajectory)[1][:, 0]
    with h5py.File(run / "analysis.h5") as file:
        assert np.allclose(file["analysis/residues/ALA2/phi"][:], phi, atol=1e-4)  # float32 positions
        image = file["images/ramachandran_ALA2"]
        assert image.attrs["CLASS"] == b"IMAGE"
        assert image.shape[2] == 3


def test_doing_it_again_does_nothing_and_other_settings_are_refused(run, folder):
    again = shell("run", PDB, "-o", "ala.run", "-n", N, "--json", *TINY, cwd=folder)
    assert again.returncode == 0
    assert json.loads(again.stdout)["skipped"] is True
    other = shell("sample", "ala.run", "-n", N + 1, cwd=folder)
    assert other.returncode == 4
    assert other.stderr.count("\n") == 1


def test_gate_writes_results_and_exits_7(run, folder):
    result = shell("analyze", "ala.run", "--require-ess", "0.9", "--json", cwd=folder)
    assert result.returncode == 7
    assert json.loads(result.stdout)["verdict"] == "FAILED"


def test_changed_parent_is_refused_by_every_later_stage(run, folder):
    copy = folder / "changed.run"
    shutil.copytree(run, copy)
    shell("prepare", PDB, "-o", "changed.run", "--force", "--temperature", 350, *TINY[2:], cwd=folder)
    for command in ("sample", "reweight", "analyze"):
        result = shell(command, "changed.run", "--force", cwd=folder)
        assert result.returncode == 4, command
        assert "changed" in result.stderr


def test_missing_files_are_made_again_and_moved_runs_know_where_they_are(run, folder):
    moved = folder / "moved.run"
    shutil.copytree(run, moved)
    (moved / "plots" / "energy.png").unlink()
    first = json.loads(shell("analyze", "moved.run", "--json", cwd=folder).stdout)
    again = json.loads(shell("analyze", "moved.run", "--json", cwd=folder).stdout)
    assert (first["skipped"], again["skipped"]) == (False, True)
    assert (moved / "plots" / "energy.png").exists()
    assert again["files"] == first["files"]
    assert all(name.startswith("moved.run/") for name in again["files"])
    assert again["populations"] == first["populations"]


def test_tiny_samples_have_no_error_bars_and_do_not_crash(run, folder):
    copy = folder / "few.run"
    shutil.copytree(run, copy)
    assert shell("sample", "few.run", "-n", 20, "--force", cwd=folder).returncode == 0
    assert shell("reweight", "few.run", "--force", cwd=folder).returncode == 0
    for _ in range(2):
        result = shell("analyze", "few.run", "--json", cwd=folder)
        result = shell("analyze", "few.run", "--force", "--json", cwd=folder) if result.returncode == 4 else result
        answer = json.loads(result.stdout)
        assert answer["khat"] is None
        assert answer["log_z_stderr"] is None
        assert answer["verdict"] == "FAILED"
    assert shell("sample", "few.run", "-n", 4, "--shard", "1/8", cwd=folder).returncode == 2
    assert shell("sample", "few.run", "--shard", "1/8", cwd=folder).returncode == 4


def test_shards_merge_and_reweight_to_other_temperatures(run, folder):
    copy = folder / "shards.run"
    shutil.copytree(run, copy)
    (copy / "samples.h5").unlink()
    for index in (1, 2):
        assert shell("sample", "shards.run", "-n", 301, "--shard", f"{index}/2", cwd=folder).returncode == 0
    result = shell(
        "reweight", "shards.run", "--temperature", 300, "--temperature", 330, "--force", "--json", cwd=folder
    )
    answer = json.loads(result.stdout)
    assert answer["n_samples"] == 301
    with h5py.File(copy / "ensemble.h5") as file:
        cold, hot = (file[f"temperatures/{t}/log_weight"][:] for t in ("300", "330"))
        u = file["observables/reduced_potential/value"][:]
        assert np.allclose(hot - cold, u * (1.0 - 300.0 / 330.0), atol=1e-9)
        assert len(np.unique(file["coordinates"][:, 5], axis=0)) == 301  # the shards differ


def test_redraws_and_bridges_go_through_shards_files_and_reweighting(run, folder):
    copy = folder / "better.run"
    shutil.copytree(run, copy)
    (copy / "samples.h5").unlink()
    arguments = ("sample", "better.run", "-n", 41, "--inner", 3, "--refine", 1)
    answers = [json.loads(shell(*arguments, "--shard", f"{index}/2", "--json", cwd=folder).stdout) for index in (1, 2)]
    assert sum(answer["n_samples"] for answer in answers) == 41
    for answer in answers:
        assert answer["n_energy_evaluations"] == answer["n_force_evaluations"] > 3 * answer["n_samples"]
        assert 0.0 < answer["ess_fraction"] <= 1.0
        assert 0.0 < answer["flow_ess_fraction"] <= 1.0
        assert (answer["inner"], answer["refine"], answer["n_failed"]) == (3, 1, 0)
    reweighted = shell("reweight", "better.run", "--temperature", 330, "--force", cwd=folder)
    assert reweighted.returncode == 0, reweighted.stderr
    with h5py.File(copy / "ensemble.h5") as file:
        u, log_prob, log_weight = (
            file[f"observables/{name}/value"] for name in ("reduced_potential", "log_prob", "log_weight")
        )
        assert (log_prob.attrs["inner"], log_prob.attrs["refine"]) == (3, 1)
        assert "effective" in log_prob.attrs["meaning"]
        assert np.allclose(log_weight[:], -u[:] - log_prob[:], atol=1e-9)
    other = shell("sample", "better.run", "-n", 41, "--inner", 2, "--shard", "1/2", "--force", cwd=folder)
    assert "mean of 2 redraws" in other.stdout
    assert shell("reweight", "better.run", "--force", cwd=folder).returncode == 4  # shards of two estimators


def test_samples_of_several_temperatures_go_through_files_and_reweighting(run, folder):
    copy = folder / "mixed.run"
    shutil.copytree(run, copy)
    several = ("--temperature", 300, "--temperature", 400)
    drawn = shell("sample", "mixed.run", "-n", 500, *several, "--force", "--json", cwd=folder)
    assert json.loads(drawn.stdout)["drawn_at"] == {"300": 0.5, "400": 0.5}
    log_q = []
    for drawn in (run, copy):
        answer = json.loads(shell("reweight", drawn, *several, "--force", "--json", cwd=folder).stdout)
        with h5py.File(drawn / "ensemble.h5") as file:
            cold, hot = (file[f"temperatures/{t}/log_weight"][:] for t in ("300", "400"))
            u = file["observables/reduced_potential/value"][:]
        assert np.allclose(hot - cold, u * (1.0 - 300.0 / 400.0), atol=1e-9)
        assert answer["temperatures"]["400"]["ess"] == pytest.approx(kish_ess(hot))
        log_q.append(-u - cold)
    # Half of the draws are wider by √(4/3) in 53 stiff coordinates, 7.6 nats; of 500 the mean is known to 0.3.
    assert log_q[0].mean() - log_q[1].mean() > 2.0
    for refused in (("--temperature", 299), ("--temperature", 601), ("--temperature", 400, "--inner", 2)):
        result = shell("sample", "mixed.run", *refused, "--force", cwd=folder)
        assert (result.returncode, len(result.stderr.splitlines())) == (2, 1), result.stderr


def test_stopped_training_goes_on_from_its_checkpoint(run, folder):
    arguments = ("train", PDB, "-o", "stop.run", "--set", "train.max_energies=400000", *TINY[2:])
    process = subprocess.Popen(
        [sys.executable, "-m", "boltzgen", *map(str, arguments)], cwd=folder, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 300
    seen = ""
    while "train " not in seen and time.monotonic() < deadline:
        seen = process.stderr.readline()
    process.send_signal(signal.SIGINT)
    _, rest = process.communicate(timeout=120)
    assert process.returncode == 130, rest
    assert (folder / "stop.run" / "checkpoint.h5").exists()
    assert not (folder / "stop.run" / "flow.h5").exists()
    forced = shell(*arguments, "--force", "--max-time", "2s", cwd=folder)
    assert (forced.returncode, "resumed at step" in forced.stderr) == (75, True), forced.stderr
    other = shell("train", "stop.run", "--max-energies", 30_000, cwd=folder)
    assert other.returncode == 4
    stopped = shell(*arguments, "--max-time", "3s", cwd=folder)
    assert stopped.returncode == 75, stopped.stderr
    assert "resumed at step" in stopped.stderr
    assert shell("train", "stop.run", "--no-resume", "--max-energies", 20_000, cwd=folder).returncode == 0
    assert not (folder / "stop.run" / "checkpoint.h5").exists()


def test_library_face_scores_structures_from_anywhere(run):
    generator = boltzgen.load(run)
    samples = generator.sample(64, seed=3)
    assert samples.positions.shape == (64, 22, 3)
    # 1e-6: float64 through a flow of 5 layers and back, with stiff directions of 1e-3 nm
    assert np.allclose(generator.log_prob(samples.positions), samples.log_prob, atol=1e-6)
    assert np.allclose(generator.reduced_potential(samples.positions), samples.reduced_potential, atol=1e-6)
    moved = samples.positions @ np.array([[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]) + 1.0
    assert np.allclose(generator.log_prob(moved), samples.log_prob, atol=1e-6)
    mirrored = samples.positions * np.array([1.0, 1.0, -1.0])
    assert np.all(np.isneginf(generator.log_prob(mirrored)))
    pdb = mdtraj.load(str(run / "system.pdb"))
    assert np.isfinite(generator.log_prob(pdb.xyz)).all()


def test_a_prepared_run_needs_neither_openmm_nor_rdkit(run, folder):
    code = (
        "import sys; sys.modules['openmm'] = None; sys.modules['rdkit'] = None; "
        "import boltzgen; print(boltzgen.load('ala.run').sample(10).log_weight.shape)"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)
    assert result.stdout.strip() == "(10,)", result.stderr


def test_smiles_goes_the_same_road(folder):
    result = shell("prepare", "--smiles", "CC(=O)N[C@@H](C)C(=O)NC", "-o", "smiles.run", "--json", *TINY, cwd=folder)
    answer = json.loads(result.stdout)
    assert (answer["n_torsions"], answer["n_stiff"], answer["n_atoms"]) == (5, 55, 22)
    assert "[C@" in answer["smiles"]
    check = answer["coordinates_check"]
    assert check["in_bounds"]
    assert (check["states_inside"], check["lowest_outside"]) == (check["states"], None)
    assert check["round_trip"] < 1e-12 > check["log_det"]
    stored = json.loads(read_provenance(folder / "smiles.run" / "system.h5").extra["summary"])
    assert stored["coordinates_check"] == check
    assert f"{check['states']} distinct conformers found by ETKDG" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("run", "nowhere.pdb"), "no such file"),
        (("run", "wrong.pdb"), "wrong.pdb"),
        (("prepare", "--smiles", "CC(=O)N[C@@H](C)C(=O)NC)", "-o", "x.run"), "SMILES"),
        (("prepare", "--smiles", "", "-o", "x.run"), "SMILES"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(folder, arguments, word):
    (folder / "wrong.pdb").write_text("this is no PDB file\n")
    result = shell(*arguments, cwd=folder)
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith("error: ")
    assert word in result.stderr
    assert result.stdout == ""
    assert not (folder / "x.run").exists()


def test_read_only_output_is_refused_before_training(folder):
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    locked = folder / "locked"
    locked.mkdir(mode=0o500)
    assert shell("run", PDB, "-o", locked / "x.run", cwd=folder).returncode == 6


def test_a_ligand_goes_all_the_way(folder):
    """Butane as SMILES: its torsion has a profile and populations, its files open elsewhere."""
    result = shell("run", "--smiles", "CCCC", "-o", "butane.run", "-n", N, "--json", *TINY, cwd=folder)
    assert result.returncode == 0, result.stderr
    assert "warning: MMFF94s in vacuum is the force field" in result.stderr
    answer = json.loads(result.stdout)
    populations = answer["populations"]  # which wells so short a training shows is chance, that they are all is not
    assert {name.partition(":")[0] for name in populations} == {"C1-C2-C3-C4"}
    assert sum(state["value"] for state in populations.values()) == pytest.approx(1.0)
    run = folder / "butane.run"
    for name in ("F_C1-C2-C3-C4.csv", "plots/torsion_C1-C2-C3-C4.png", "representatives.pdb"):
        assert (run / name).stat().st_size > 0, name
    trajectory = mdtraj.load(str(run / "samples.h5"))
    assert (trajectory.n_frames, trajectory.topology.n_bonds) == (N, 13)
    universe = MDAnalysis.Universe(str(run / "system.pdb"), str(run / "samples.h5"), format="H5MD")
    assert len(universe.trajectory) == N
