"""The probe as a part of analyze: an honest flow is OK, a lost state is named, and a training led to it finds it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import h5py
import mdtraj
import numpy as np
import pytest
from bent_chain import chain_system, exact_share, prepare_chain, without_samples

from boltzgen import workflow
from boltzgen.config import resolve_config
from boltzgen.constants import thermal_energy
from boltzgen.errors import ConflictError, InputError
from boltzgen.storage.trajectory import read_molecule, read_trajectory, write_pdb
from boltzgen.storage.tree import get_tree
from boltzgen.workflow.probing import LEAST_ENERGIES, TIME_SHARE, ProbeBudget

TRAINED = {"train.max_energies": 30_000, "threads": 1, "sample.n": 5000}


def config_of(flags):
    return resolve_config(None, [], flags)


def sampled(run, *, train=True, force=False, **flags):
    config, context = config_of({**TRAINED, **flags}), workflow.Context(force=force)
    if train:
        workflow.train(str(run), None, run, config, context)
    workflow.sample(run, config, context)
    workflow.reweight(run, config, context)


def analyzed(run, force=False, **flags):
    return workflow.analyze(run, config_of(flags), workflow.Context(force=force))


@pytest.fixture(scope="module")
def honest(tmp_path_factory):
    run = prepare_chain(tmp_path_factory.mktemp("probing"), chain_system())
    sampled(run)
    return run


@pytest.fixture(scope="module")
def passed(honest):
    return analyzed(honest)


def is_trans(angle):
    return np.abs(np.abs(angle) - np.pi) < 1.0


def torsion_of(path):
    (atoms,) = read_molecule(path).torsions.values()
    return mdtraj.compute_dihedrals(mdtraj.load(str(path)), [atoms])[:, 0]


@pytest.fixture(scope="module")
def one_basin(honest, passed):
    """A flow that has learnt from samples of one state alone, and an ensemble that is all in it."""
    run = shutil.copytree(honest, honest.parent / "basin.run")
    samples = run / "samples.h5"
    kept = read_trajectory(samples).positions[is_trans(torsion_of(samples))][:1500]
    write_pdb(run / "frames.pdb", read_molecule(samples), kept)
    flags = {"train.method": "data", "train.data": [str(run / "frames.pdb")], "train.learning_rate": 0.01}
    sampled(run, force=True, **{**flags, "train.max_energies": 150_000})
    without_samples(run, lambda angle: ~is_trans(angle))
    return run


@pytest.fixture(scope="module")
def failed(one_basin):
    return analyzed(one_basin, force=True)


def test_an_honest_flow_is_ok_without_any_reference(passed):
    summary = passed.summary
    assert (summary["verdict"], summary["reasons"]) == ("OK", [])
    assert [one for one in summary["probe"]["states"] if one["kind"] != "rare"] == []
    assert abs(summary["probe"]["bridged_sigmas"]) < 4.0
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary


def test_without_the_probe_the_best_is_unverified_and_asking_for_it_again_needs_no_force(honest, passed):
    run = shutil.copytree(honest, honest.parent / "without.run")
    alone = analyzed(run, **{"analyze.probe": False})
    assert alone.summary["verdict"] == "UNVERIFIED"
    assert "--no-probe" in alone.summary["reasons"][0]
    again = analyzed(run)
    assert (again.skipped, again.summary["verdict"]) == (False, "OK")
    assert again.summary["probe"]["n_energy_evaluations"] == passed.summary["probe"]["n_energy_evaluations"]
    assert again.summary["probe"]["bridged_log_z"] == passed.summary["probe"]["bridged_log_z"]  # reproducible
    assert analyzed(run).skipped


def test_a_lost_state_fails_the_ensemble_and_is_named_with_torsions_weight_and_structure(one_basin, failed):
    summary = failed.summary
    lost = [one for one in summary["probe"]["states"] if one["kind"] == "lost"]
    assert summary["verdict"] == "FAILED"
    (reason,) = [one for one in summary["reasons"] if "coverage probe" in one]
    assert "--seed-basins" in reason
    assert {one["state"].rpartition(" ")[2] for one in lost} == {"-sc", "+sc"}
    states = wells_of(summary)
    for one in lost:
        exact = exact_share(lambda phi, sign=states[one["state"]]: ~is_trans(phi) & (np.sign(phi) == sign), KT)
        assert abs(one["share"] - exact) < 0.25 * exact  # the cut of the probe is not at ±(π − 1), a matter of 10 %
        (angle,) = one["torsions"].values()
        assert abs(angle) < 110.0
        assert f"{angle:.0f} degrees" in failed.text
        for text in (failed.text, (one_basin / "report.html").read_text()):
            assert one["state"] in text
    structures = mdtraj.load(str(one_basin / "lost_states.pdb"))
    assert structures.n_frames == len(lost)
    with h5py.File(one_basin / "analysis.h5") as file:
        assert len(get_tree(file["lost_states"])["positions"]) > 2 * len(lost)
        assert get_tree(file["probe"])["states"]["0000"]["state"] == lost[0]["state"]


KT = thermal_energy(300.0)


def wells_of(summary):
    """The sign of the torsion of each state that is lost."""
    return {one["state"]: np.sign(next(iter(one["torsions"].values()))) for one in summary["probe"]["states"]}


def test_the_command_fails_its_strictest_gate(one_basin, failed):
    arguments = [sys.executable, "-m", "boltzgen", "analyze", one_basin.name, "--strict", "--json"]
    done = subprocess.run(arguments, cwd=one_basin.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 7, done.stderr
    assert json.loads(done.stdout)["verdict"] == "FAILED"


def test_a_training_led_to_the_lost_basins_finds_them(one_basin, failed, tmp_path):
    run = shutil.copytree(one_basin, tmp_path / "again.run")
    before = json.loads(json.dumps(failed.summary))
    seeding = {"train.seed_basins": True, "train.max_energies": 60_000, "threads": 1}
    result = workflow.train(str(run), None, run, config_of(seeding), workflow.Context())
    assert result.summary["n_energy_evaluations"] == 60_000  # the first training had none
    assert set(result.summary["seeded_with"]) == {
        one["state"] for one in before["probe"]["states"] if one["kind"] == "lost"
    }
    with pytest.raises(ConflictError, match="--force"):
        sampled(run, train=False)
    with pytest.raises(ConflictError, match="changed"):
        workflow.train(str(run), None, run, config_of(seeding), workflow.Context())
    sampled(run, train=False, force=True)
    summary = analyzed(run, force=True).summary
    assert [one for one in summary["probe"]["states"] if one["kind"] == "lost"] == []
    assert summary["verdict"] == "OK"
    assert not (run / "lost_states.pdb").exists()


def test_where_nothing_is_lost_there_is_nothing_to_seed(honest, passed):
    with pytest.raises(InputError, match="no lost state"):
        workflow.train(str(honest), None, honest, config_of({"train.seed_basins": True}), workflow.Context())


def test_the_budget_follows_the_time_of_the_training_and_slow_energies():
    def history(seconds_energy):
        return {"energies": [1e6], "exchange_energies": [0.0], "seconds_energy": [seconds_energy]}

    fast, slow = (ProbeBudget.of(600.0, history(seconds), 22) for seconds in (2.0, 60.0))
    assert fast.energies > 2 * slow.energies
    assert slow.energies < TIME_SHARE * 600.0 / 60e-6
    assert ProbeBudget.of(600.0, history(2.0), 62).energies < fast.energies
    assert ProbeBudget.of(0.1, history(2.0), 22).energies >= 0.5 * LEAST_ENERGIES
