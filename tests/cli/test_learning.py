"""Methods and data of training as a shell runs them; budgets of seconds, on butane."""

from __future__ import annotations

import csv
import json
import shutil

import h5py
import mdtraj
import numpy as np
import pytest
from shell_command import shell

from boltzgen.storage.runs import read_provenance

TINY = ("--set", "prepare.conformers=1")
N = 400


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Butane, prepared in new.run, and trained and sampled in own.run."""
    folder = tmp_path_factory.mktemp("learning")
    assert shell("prepare", "--smiles", "CCCC", "-o", "new.run", *TINY, cwd=folder).returncode == 0
    shutil.copytree(folder / "new.run", folder / "own.run")
    assert shell("train", "own.run", "--max-energies", 15_000, cwd=folder).returncode == 0
    assert shell("sample", "own.run", "-n", N, cwd=folder).returncode == 0
    assert shell("reweight", "own.run", cwd=folder).returncode == 0
    return folder


@pytest.fixture(scope="module")
def foreign(folder):
    """The samples as a DCD, which has no names, an atom of each fifth frame left behind by a periodic box."""
    trajectory = mdtraj.load(str(folder / "own.run" / "samples.h5"))
    trajectory.xyz[::5, 0] += 2.0
    trajectory.save(str(folder / "box.dcd"))
    return folder / "box.dcd"


def fresh(folder, name):
    shutil.copytree(folder / "new.run", folder / name)
    return name


def metrics(run):
    with (run / "metrics.csv").open() as stream:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(stream)]


def test_training_on_own_weighted_samples_takes_no_energies(folder):
    run = fresh(folder, "data.run")
    files = ("--data", "own.run/ensemble.h5", "--data", "own.run/samples.h5")
    result = shell("train", run, "--method", "data", *files, "--json", cwd=folder)
    assert result.returncode == 0, result.stderr
    answer = json.loads(result.stdout)
    assert (answer["n_energy_evaluations"], answer["n_force_evaluations"], answer["n_failed"]) == (0, 0, 0)
    assert answer["data"]["frames"] == answer["data"]["frames_inside"] == 2 * N
    assert 1.0 < answer["data"]["ess"] < 2 * N
    assert answer["frames"] <= 10 * 2 * N  # ten draws of each, not the five millions of the preset
    rows = metrics(folder / run)
    held_out = [row["held_out_nll"] for row in rows if np.isfinite(row["held_out_nll"])]
    assert answer["held_out_nll"] == pytest.approx(min(held_out), rel=1e-6)
    assert held_out[0] > min(held_out)
    assert all(np.isnan(row["ess_fraction"]) and row["energies"] == 0 for row in rows)
    assert "taken to be of 300 K" in result.stderr
    parents = read_provenance(folder / run / "flow.h5").parents
    assert set(parents) == {"system.h5", "data 1", "data 2"}
    assert json.loads(shell("train", run, "--method", "data", *files, "--json", cwd=folder).stdout)["skipped"] is True
    other = shell("train", run, "--method", "data", *files[:2], cwd=folder)
    assert other.returncode == 4  # other data are other inputs
    for command in (("sample", run, "-n", N), ("reweight", run), ("analyze", run)):
        assert shell(*command, cwd=folder).returncode == 0, command  # with a history that has no energies
    assert (folder / run / "plots" / "training.png").exists()
    # The frames were drawn with the same seed: the same base noise again would put samples onto what was learnt.
    lengths = []
    for name in ("own.run", run):
        with h5py.File(folder / name / "samples.h5") as file:
            lengths.append(np.linalg.norm(file["coordinates"][:, 0] - file["coordinates"][:, 1], axis=1))
    assert abs(np.corrcoef(*lengths)[0, 1]) < 4.0 / N**0.5


def test_data_and_energies_mix_and_what_is_torn_is_left_out(folder, foreign):
    run = fresh(folder, "mixed.run")
    settings = ("--set", "train.data_weight=0.25")
    arguments = ("--data", foreign, *settings, "--max-energies", 30_000, "--json")
    result = shell("train", run, *arguments, cwd=folder)
    assert result.returncode == 0, result.stderr
    answer = json.loads(result.stdout)
    assert answer["n_energy_evaluations"] == answer["n_force_evaluations"] == answer["frames"] == 30_000
    assert answer["data"]["frames_inside"] == N - N // 5
    assert sum(answer["data"]["outside"].values()) == N // 5
    assert "warning: " in result.stderr
    assert f"{N // 5} of {N} frames lie outside the support and are left out (bond " in result.stderr
    last = metrics(folder / run)[-1]
    for name in (
        "loss_reverse_kl",
        "loss_forward_kl",
        "loss_data",
        "slow_entropy",
        "target_ess_fraction",
        "buffer_ess",
    ):
        assert np.isfinite(last[name]), name
    assert last["seconds_energy"] > 0.0 < last["seconds_flow"]
    assert last["forces"] == last["energies"] == 30_000
    with h5py.File(folder / run / "flow.h5") as file:
        assert len(file["history/loss_data"]) == len(metrics(folder / run))


def test_plain_reverse_kl_with_a_reaction_coordinate(folder):
    run = fresh(folder, "energy.run")
    rc = ("--set", "train.rc=tor:C1-C2-C3-C4", "--set", "train.rc_weight=0.5")
    result = shell("train", run, "--method", "energy", *rc, "--max-energies", 8000, "--json", cwd=folder)
    assert result.returncode == 0, result.stderr
    rows = metrics(folder / run)
    assert {row["temperature"] for row in rows} == {300.0}
    assert all(row["ess_fraction"] == row["target_ess_fraction"] for row in rows)
    assert rows[-1]["replayed"] == 0
    assert all(np.isfinite(row["loss_spread"]) for row in rows)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--method", "data"), "Give --data FILE"),
        (("--data", "none.h5"), "none.h5: no such file"),
        (("--set", "train.rc=tor:C1-C2-C3"), "Did you mean tor:C1-C2-C3-C4?"),
    ],
)
def test_bad_input_is_refused_alike_by_the_plan_and_the_command(folder, arguments, says):
    before = sorted(path.name for path in (folder / "new.run").iterdir())
    for flags in ((), ("--dry-run",)):
        result = shell("train", "new.run", *arguments, *flags, cwd=folder)
        assert result.returncode == 2, result.stderr
        assert (result.stdout, result.stderr.count("\n")) == ("", 1)
        assert result.stderr.startswith("error: ")
        assert says in result.stderr
    assert sorted(path.name for path in (folder / "new.run").iterdir()) in (before, sorted([*before, ".lock"]))


def test_frames_of_which_none_lies_inside_are_refused_with_the_reason(folder):
    trajectory = mdtraj.load(str(folder / "own.run" / "samples.h5"))
    trajectory.xyz *= 10.0  # ångström taken for nanometres
    trajectory.save(str(folder / "units.xtc"))
    result = shell("train", "new.run", "--method", "data", "--data", "units.xtc", cwd=folder)
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert f"0 of {N} frames lie in the support of the coordinates (bond " in result.stderr


def test_the_plan_counts_frames_and_not_energies(folder, foreign):
    arguments = ("--method", "data", "--data", foreign, "--dry-run", "--json")
    of_run = json.loads(shell("train", "new.run", *arguments, cwd=folder).stdout)
    of_input = json.loads(shell("train", "--smiles", "CCCC", "-o", "x.run", *arguments, *TINY, cwd=folder).stdout)
    for plan in (of_run, of_input):
        assert (plan["training_energies"], plan["training_draws"]) == (None, 10 * N)
        assert (plan["training_method"], plan["training_frames"]) == ("data", N)
    text = shell("train", "new.run", *arguments[:-1], cwd=folder).stdout
    assert f"training      data, {10 * N:,} draws of frames on" in text
    assert not (folder / "x.run").exists()
