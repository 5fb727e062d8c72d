"""Samples of several seeds merged, and weighted for other energies: what must agree does, what must not is refused."""

from __future__ import annotations

import shutil

import h5py
import numpy as np
import openmm
import pytest
from bent_chain import chain_system, prepare_chain

from boltzgen import workflow
from boltzgen.config import resolve_config
from boltzgen.constants import thermal_energy
from boltzgen.errors import ConflictError, InputError
from boltzgen.storage.runs import RunDirectory
from boltzgen.storage.trajectory import read_trajectory

SETTINGS = {"train.max_energies": 60_000, "threads": 1, "sample.n": 4000}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    path = prepare_chain(tmp_path_factory.mktemp("merging"), chain_system())
    config = resolve_config(None, [], SETTINGS)
    workflow.train(str(path), None, path, config, workflow.Context())
    workflow.sample(path, config, workflow.Context())
    return path


@pytest.fixture
def run(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "chain.run")


def sampled(run, seed, **flags):
    config = resolve_config(None, [], {"sample.n": 4000, "sample.add": True, "seed": seed, **flags})
    return workflow.sample(run, config, workflow.Context())


def reweighted(run, force=True, **flags):
    return workflow.reweight(run, resolve_config(None, [], flags), workflow.Context(force=force)).summary


def test_merged_samples_are_worth_the_sum_and_have_one_log_z(run):
    alone = reweighted(run)
    sampled(run, 1)
    sampled(run, 2, **{"sample.n": 2000})
    merged = reweighted(run)
    assert (alone["merged_files"], merged["merged_files"]) == (1, 3)
    assert merged["n_samples"] == 10_000
    # Kish's share of 4,000 samples scatters by about two per cent of itself for weights as tame as these
    assert merged["ess"] == pytest.approx(2.5 * alone["ess"], rel=0.08)
    assert merged["log_z_stderr"] == pytest.approx(alone["log_z_stderr"] / np.sqrt(2.5), rel=0.2)
    assert abs(merged["log_z"] - alone["log_z"]) < 4 * alone["log_z_stderr"]
    stored = read_trajectory(RunDirectory(run).ensemble_h5).log_prob
    parts = [read_trajectory(file).log_prob for file in RunDirectory(run).sample_files()]
    np.testing.assert_array_equal(stored, np.concatenate(parts))
    assert len(np.unique(stored)) == len(stored)  # none comes twice


def test_the_same_seed_is_refused_when_drawn_and_when_copied(run):
    with pytest.raises(InputError, match="seed 0"):
        sampled(run, 0)
    sampled(run, 1)
    shutil.copy(RunDirectory(run).seed_h5(1), RunDirectory(run).seed_h5(2))
    with pytest.raises(ConflictError, match="same seed 1"):
        reweighted(run)


def test_other_densities_are_not_merged(run):
    sampled(run, 1, **{"sample.hot_share": 0.0})
    with pytest.raises(ConflictError, match="different settings"):
        reweighted(run)


def test_samples_of_another_flow_are_not_merged(run):
    sampled(run, 1)
    with h5py.File(run / "flow.h5", "r+") as file:
        file.attrs["touched"] = 1
    with pytest.raises((ConflictError, InputError)):
        reweighted(run)


def written(path, system):
    path.write_text(openmm.XmlSerializer.serialize(system))
    return str(path)


def test_the_own_system_changes_nothing_and_another_has_the_exact_log_z(run, tmp_path):
    own = reweighted(run)
    same = reweighted(run, **{"reweight.system": written(tmp_path / "own.xml", chain_system())})
    assert same["log_z"] == pytest.approx(own["log_z"], abs=1e-4)  # positions are in float32
    shift, extra = 1.7, openmm.CustomTorsionForce("s + k*cos(theta)")
    extra.addGlobalParameter("s", shift)
    extra.addGlobalParameter("k", 2.0)
    extra.addTorsion(0, 1, 2, 3)
    other = reweighted(run, **{"reweight.system": written(tmp_path / "other.xml", chain_system(extra))})
    phi = np.linspace(-np.pi, np.pi, 36_000, endpoint=False)
    kT = thermal_energy(300.0)
    u = sum(k * (1.0 + np.cos(n * phi - phase)) for n, k, phase in ((1, 2.5, 0.6), (3, 6.0, 0.0))) / kT
    more = (shift + 2.0 * np.cos(phi)) / kT
    exact = np.log(np.exp(-u - more).sum() / np.exp(-u).sum())
    assert other["log_z"] - own["log_z"] == pytest.approx(exact, abs=4 * other["log_z_stderr"])
    assert 200 < other["ess"] < own["ess"]
    assert (other["force_field"], other["n_energy_evaluations"]) == ("system", 4000)


def test_the_ensemble_of_another_energy_is_analysed_with_that_energy(run, tmp_path):
    extra = openmm.CustomTorsionForce("2*cos(theta)")
    extra.addTorsion(0, 1, 2, 3)
    reweighted(run, **{"reweight.system": written(tmp_path / "other.xml", chain_system(extra))})
    result = workflow.analyze(run, resolve_config(None, [], {}), workflow.Context())
    assert result.summary["force_field"] == "system"
    assert "under system" in result.text
    assert all(one["passed"] for one in result.summary["checks"].values()), result.summary["checks"]


def test_a_system_of_other_atoms_is_refused_in_one_line(run, tmp_path):
    other = openmm.System()
    for mass in (19.0, 16.0, 19.0):
        other.addParticle(mass)
    with pytest.raises(InputError, match="3 particles, the molecule 4 atoms"):
        reweighted(run, **{"reweight.system": written(tmp_path / "other.xml", other)})
    heavier = chain_system()
    heavier.setParticleMass(1, 32.0)
    with pytest.raises(InputError, match="mass 32"):
        reweighted(run, **{"reweight.system": written(tmp_path / "heavier.xml", heavier)})


def test_a_name_and_a_system_exclude_each_other_and_each_is_work_of_its_own(run, tmp_path):
    xml = written(tmp_path / "own.xml", chain_system())
    with pytest.raises(InputError, match="--system"):
        reweighted(run, **{"reweight.system": xml, "reweight.force_field": "MMFF94"})
    reweighted(run)
    with pytest.raises(ConflictError, match="--force"):
        reweighted(run, force=False, **{"reweight.system": xml})
