"""analyze --reference on real files: an honest flow passes, what has lost a state fails, strangers are refused."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import h5py
import mdtraj
import numpy as np
import openmm
import pytest
from bent_chain import TORSION, chain_system, exact_share, prepare_chain, without_samples

from boltzgen import workflow
from boltzgen.analysis.states import TorsionStates
from boltzgen.config import resolve_config
from boltzgen.constants import thermal_energy
from boltzgen.errors import ConflictError, InputError
from boltzgen.storage.atomic import sha256_of
from boltzgen.storage.runs import RunDirectory, read_provenance
from boltzgen.storage.simulation import read_simulation
from boltzgen.storage.trajectory import read_molecule, write_pdb
from boltzgen.storage.tree import get_tree

SIGMAS = 4.0
SHORT = {"md.max_energies": 20_000, "md.ladders": 4, "md.rungs": 3, "md.steps": 10, "threads": 1}
LONG = {"md.max_energies": 1_000_000, "md.ladders": 24, "md.rungs": 4, "md.steps": 25, "md.friction": 5.0, "threads": 1}
TRAINED = {"train.max_energies": 30_000, "threads": 1, "sample.n": 3000}


def config_of(flags):
    return resolve_config(None, [], flags)


def simulated(run, **flags):
    workflow.md(str(run), None, run, config_of(flags), workflow.Context())
    return run / "md.h5"


def sampled(run, **flags):
    """Train, sample and weight."""
    config = config_of(flags)
    workflow.train(str(run), None, run, config, workflow.Context())
    workflow.sample(run, config, workflow.Context())
    workflow.reweight(run, config, workflow.Context())


def analyzed(run, reference, force=False, **flags):
    """Without the probe, unless flags say so."""
    chosen = {"analyze.reference": str(reference)} if reference else {}
    config = config_of({"analyze.probe": False, **flags, **chosen})
    return workflow.analyze(run, config, workflow.Context(force=force))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """The chain with a converged reference, 3 ns in two seconds."""
    run = prepare_chain(tmp_path_factory.mktemp("reference"), chain_system())
    simulated(run, **LONG)
    return run


@pytest.fixture(scope="module")
def honest(prepared):
    run = shutil.copytree(prepared, prepared.parent / "honest.run")
    sampled(run, **TRAINED)
    return run


@pytest.fixture(scope="module")
def passed(honest):
    return analyzed(honest, honest / "md.h5")


def states_of(run):
    with h5py.File(run / "analysis.h5") as file:
        (torsion,) = get_tree(file["analysis/torsions"]).values()
    return TorsionStates.from_tree(torsion["states"])


def test_an_honest_flow_passes_and_both_ensembles_are_the_exact_one(honest, passed):
    summary, reference = passed.summary, passed.summary["reference"]
    assert (summary["verdict"], summary["reasons"]) == ("OK", [])
    states = states_of(honest)
    assert len(reference["populations"]) == len(states.names) == 3
    for k, name in enumerate(states.names):
        exact = exact_share(lambda phi, k=k: states.assign(phi) == k, thermal_energy(300.0))
        (row,) = [row for key, row in reference["populations"].items() if key.endswith(f":{name}")]
        for kind in ("flow", "counted", "mbar"):
            assert abs(row[kind]["value"] - exact) < SIGMAS * row[kind]["stderr"], (name, kind)
            assert row[kind]["stderr"] < 0.04
        energy, error = row["flow"]["free_energy"], row["flow"]["free_energy_stderr"]
        assert abs(energy + np.log(exact / (1.0 - exact))) < SIGMAS * error
        assert abs(row["z"]) < SIGMAS
    assert reference["lost_states"] == []
    assert len(reference["states"]) == 3
    assert reference["states_share"] == pytest.approx(1.0)
    assert not (honest / "lost_states.pdb").exists()


def test_costs_are_those_of_the_files(honest, passed):
    reference = passed.summary["reference"]
    seconds = sum(
        json.loads(read_provenance(honest / name).extra["summary"])["seconds"] for name in ("flow.h5", "samples.h5")
    )
    assert reference["flow_seconds"] == pytest.approx(seconds)
    assert reference["flow_effective_samples_per_second"] == pytest.approx(passed.summary["ess"] / seconds)
    rate = reference["effective_samples"] / reference["seconds"]
    assert reference["effective_samples_at_equal_cost"] == pytest.approx(rate * seconds)


def test_frames_of_the_reference_see_the_same_flow_as_its_samples(passed):
    """For one density q the effective share and the bounds of log Z from samples of p and of q have to agree."""
    reference, summary = passed.summary["reference"], passed.summary
    forward = reference["forward_ess_fraction"]
    reverse_error = 0.05  # of Kish's share of 3000 samples, as ⟨w²⟩ of a flow with weights up to e² scatters
    assert abs(forward["value"] - summary["ess_fraction"]) < SIGMAS * np.hypot(forward["stderr"], reverse_error)
    assert reference["elbo"]["value"] < summary["log_z"] < reference["eubo"]["value"]
    assert reference["gap"]["stderr"] < 0.2 * reference["gap"]["value"]
    assert reference["outside_share"] == 0.0


def test_text_report_and_file_have_both_ensembles(honest, passed):
    page = (honest / "report.html").read_text()
    for text in (passed.text, page):
        for piece in ("replica exchange" if text is page else "24 ladders", "MBAR", "ΔF", "converged"):
            assert piece in text
    name = next(iter(passed.summary["reference"]["populations"]))
    with h5py.File(honest / "analysis.h5") as file:
        tree = get_tree(file["reference"])
    assert (
        tree["populations"][name]["mbar"]["value"] == passed.summary["reference"]["populations"][name]["mbar"]["value"]
    )
    (torsion,) = tree["torsions"].values()
    density = torsion["profile"]["density"]
    assert density.sum() * 2.0 * np.pi / len(density) == pytest.approx(1.0)
    assert json.loads(json.dumps(passed.summary)) == passed.summary


def test_the_command_passes_its_strictest_gate(honest, passed):
    arguments = ["analyze", honest.name, "--no-probe", "--reference", f"{honest.name}/md.h5", "--strict", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "boltzgen", *arguments], cwd=honest.parent, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert (answer["verdict"], answer["skipped"], answer["reference"]["lost_states"]) == ("OK", True, [])


def test_the_reference_is_part_of_what_was_done(honest, passed):
    assert analyzed(honest, honest / "md.h5").skipped
    moved = shutil.copy(honest / "md.h5", honest.parent / "moved.h5")
    assert analyzed(honest, moved).skipped  # known by content
    again = shutil.copytree(honest, honest.parent / "again.run")
    alone = analyzed(again, None)  # without a question: nothing is lost that cannot be had again
    assert (alone.skipped, alone.summary["verdict"]) == (False, "UNVERIFIED")
    with pytest.raises(ConflictError, match="--force"):
        analyzed(again, None, **{"analyze.bins": 36})


def test_samples_without_one_basin_contradict_the_reference(honest, passed, tmp_path):
    run, states = shutil.copytree(honest, tmp_path / "less.run"), states_of(honest)
    rare = int(np.argmin(np.abs(states.minima - 60.0)))
    without_samples(run, lambda angle: states.assign(angle) == rare)
    alone = analyzed(run, None, force=True).summary
    assert alone["verdict"] == "UNVERIFIED"  # the weights of the rest are as good as ever
    summary = analyzed(run, run / "md.h5", force=True).summary
    assert summary["verdict"] == "FAILED"
    assert "contradicts the population of" in summary["reasons"][0]
    rows = summary["reference"]["populations"]
    assert len(rows) == 3  # cut as the reference has it, since the samples show two wells
    name = min(rows, key=lambda name: rows[name]["flow"]["value"])
    assert rows[name]["flow"]["value"] < 0.01 < 0.05 < rows[name]["counted"]["value"]  # other samples near the cuts
    assert rows[name]["z"] < -SIGMAS
    assert name in summary["reasons"][0]


def is_trans(angle):
    return np.abs(np.abs(angle) - np.pi) < 1.0


@pytest.fixture(scope="module")
def one_basin(prepared):
    """A flow that has learnt from frames of one state alone, and samples that are all in it."""
    run = shutil.copytree(prepared, prepared.parent / "basin.run")
    simulation = read_simulation(run / "md.h5")
    (torsion,) = simulation.torsions.values()
    write_pdb(run / "frames.pdb", read_molecule(run / "md.h5"), simulation.positions[is_trans(torsion[..., 0])][:1000])
    flags = {"train.method": "data", "train.data": [str(run / "frames.pdb")], "train.learning_rate": 0.01}
    sampled(run, **{**TRAINED, **flags, "train.max_energies": 150_000})
    without_samples(run, lambda angle: ~is_trans(angle))
    return run


def test_a_flow_that_lost_states_is_caught_with_structures_of_them(one_basin):
    assert analyzed(one_basin, None).summary["verdict"] == "UNVERIFIED"  # its weights see nothing of it
    summary = analyzed(one_basin, one_basin / "md.h5", force=True).summary
    lost = summary["reference"]["lost_states"]
    assert summary["verdict"] == "FAILED"
    assert any("hardly ever draws" in reason for reason in summary["reasons"])
    assert all(one["excess"] > 3.0 for one in lost)
    # The two gauche states, with about 0.28 and 0.12 of the ensemble.
    assert {one["state"].rpartition(":")[2] for one in lost} == {"-sc", "+sc"}
    assert sum(one["share"] for one in lost) == pytest.approx(0.4, abs=0.1)
    path = one_basin / "lost_states.pdb"
    assert str(path) in summary["files"]
    structures = mdtraj.load(str(path))
    assert structures.n_frames == len(lost)
    angles = np.degrees(mdtraj.compute_dihedrals(structures, [[0, 1, 2, 3]])[:, 0])
    for one, angle in zip(lost, angles, strict=True):
        assert np.sign(angle) == (1.0 if one["state"].endswith("+sc") else -1.0)
        assert abs(angle) < 110.0


def test_structures_of_an_earlier_reference_do_not_stay(one_basin):
    analyzed(one_basin, one_basin / "md.h5", force=True)
    analyzed(one_basin, None, force=True)
    assert not (one_basin / "lost_states.pdb").exists()


def test_an_unconverged_reference_of_another_preparation_verifies_nothing(honest, passed, tmp_path):
    before = sha256_of(honest / "analysis.h5")
    run = shutil.copytree(honest, tmp_path / "copy.run")
    other = simulated(prepare_chain(tmp_path, chain_system()), **SHORT)
    result = analyzed(run, other, force=True)
    assert result.summary["verdict"] == "UNVERIFIED"
    assert "has not converged" in result.summary["reasons"][0]
    assert "NOT CONVERGED" in result.text
    assert sha256_of(honest / "analysis.h5") == before


def other_system():
    """A barrier a tenth higher."""
    system = chain_system()
    (torsions,) = [force for force in system.getForces() if isinstance(force, openmm.PeriodicTorsionForce)]
    torsions.setTorsionParameters(1, 0, 1, 2, 3, 3, TORSION[1][2], 1.1 * TORSION[1][1])
    return system


def foreign_force_field(folder):
    return prepare_chain(folder, other_system())


def foreign_temperature(folder):
    return prepare_chain(folder, chain_system(), temperature=350.0)


def foreign_molecule(folder):
    config = config_of({"prepare.conformers": 1})
    return workflow.prepare(None, "OO", folder / "peroxide.run", config, workflow.Context()).run


@pytest.mark.parametrize(
    ("foreign", "says"),
    [
        (foreign_force_field, "force field"),
        (foreign_temperature, "is at 350 K, the ensemble at 300 K"),
        (foreign_molecule, "is of H2O2"),
    ],
)
def test_a_reference_of_something_else_is_refused_in_one_line(honest, tmp_path, foreign, says):
    reference = simulated(foreign(tmp_path), **SHORT)
    with pytest.raises(ConflictError, match=says) as caught:
        analyzed(honest, reference)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 4


@pytest.mark.parametrize("name", ["samples.h5", "system.pdb", "nothing.h5"])
def test_what_is_no_simulation_is_bad_input(honest, name):
    with pytest.raises(InputError) as caught:
        analyzed(honest, RunDirectory(honest).path / name)
    assert "\n" not in str(caught.value)
