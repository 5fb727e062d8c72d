"""The command md in one process: exact populations, its file in other programs, and what must not be written."""

from __future__ import annotations

import json
import shutil

import h5py
import MDAnalysis
import mdtraj
import numpy as np
import openmm
import pytest
import torch
from bent_chain import chain_system, exact_share, prepare_chain

from boltzgen import workflow
from boltzgen.analysis.states import TorsionStates
from boltzgen.config import resolve_config
from boltzgen.constants import thermal_energy
from boltzgen.errors import ConflictError, EnvironmentProblem, InputError
from boltzgen.progress import SilentReporter
from boltzgen.storage.frames import read_frames
from boltzgen.storage.runs import RunDirectory
from boltzgen.storage.simulation import read_simulation
from boltzgen.storage.tree import get_tree
from boltzgen.workflow.ladders import Simulated, ThinnedFrames, joined
from boltzgen.workflow.load import load_target
from boltzgen.workflow.processes import simulate_all

SIGMAS = 4.0
SHORT = {"md.max_energies": 40_000, "md.ladders": 4, "md.rungs": 3, "md.steps": 10, "threads": 1}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return prepare_chain(tmp_path_factory.mktemp("md"), chain_system())


@pytest.fixture(scope="module")
def result(prepared):
    """24 ladders of 4 temperatures, 50 ps each after the burn-in; 0.5 MiB of frames."""
    run = shutil.copytree(prepared, prepared.parent / "long.run")
    flags = {"md.max_energies": 3_100_000, "md.ladders": 24, "md.rungs": 4, "md.steps": 25, "md.friction": 5.0}
    return simulate(run, **flags, threads=1)


def simulate(run, reporter=None, force=False, **flags):
    config = resolve_config(None, [], {name.replace("__", "."): value for name, value in flags.items()})
    return workflow.md(
        str(run), None, run, config, workflow.Context(reporter=reporter or SilentReporter(), force=force)
    )


def fresh(prepared, tmp_path):
    return shutil.copytree(prepared, tmp_path / "fresh.run")


def test_populations_are_exact_by_counting_and_by_mbar(result):
    summary = result.summary
    with h5py.File(result.run / "md.h5") as file:
        (tree,) = get_tree(file["replica_exchange/states"]).values()
    states = TorsionStates.from_tree(tree)
    assert len(states.names) == 3
    assert len(summary["populations"]) == 3
    for k, name in enumerate(states.names):
        exact = exact_share(lambda phi, k=k: states.assign(phi) == k, thermal_energy(300.0))
        found = next(value for key, value in summary["populations"].items() if key.endswith(f":{name}"))
        assert abs(found["value"] - exact) < SIGMAS * found["stderr"], name
        assert abs(found["mbar"]["value"] - exact) < SIGMAS * found["mbar"]["stderr"], name
        assert found["stderr"] < 0.02
        assert found["mbar"]["asymptotic_stderr"] < 0.02
    assert summary["converged"], summary["reasons"]


def test_the_summary_has_what_is_promised(result):
    summary = result.summary
    assert summary["n_frames"] == 24 * (summary["n_frames"] // 24) > 10_000
    assert (summary["n_ladders"], len(summary["temperatures"]), len(summary["acceptance"])) == (24, 4, 3)
    assert (summary["temperatures"][0], summary["temperatures"][-1]) == (300.0, pytest.approx(1000.0))
    assert 3_000_000 < summary["n_energy_evaluations"] <= 3_100_000
    assert summary["nanoseconds"] == pytest.approx(2e-6 * summary["n_energy_evaluations"], rel=0.02)
    assert summary["round_trips"] > 24
    assert summary["n_failed"] == 0
    assert summary["kept_share"] == 1.0
    assert 24 < summary["effective_samples"] <= summary["n_frames"]
    assert summary["effective_samples_per_second"] == pytest.approx(summary["effective_samples"] / summary["seconds"])
    assert json.loads(json.dumps(summary)) == summary
    assert "MBAR" in result.text


def test_other_programs_read_the_frames_ladder_by_ladder(result):
    path, n = result.run / "md.h5", result.summary["n_frames"]
    simulation = read_simulation(path)
    trajectory = mdtraj.load(str(path))
    assert trajectory.n_frames == n
    np.testing.assert_array_equal(trajectory.xyz, simulation.positions.reshape(n, 4, 3))
    length = n // 24
    np.testing.assert_allclose(trajectory.time.reshape(24, length), np.tile(simulation.times, (24, 1)), rtol=1e-5)
    angles = mdtraj.compute_dihedrals(trajectory, [[0, 1, 2, 3]])[:, 0]
    (torsion,) = simulation.torsions.values()
    apart = np.angle(np.exp(1j * (angles - torsion[..., 0].reshape(-1))))
    assert np.abs(apart).max() < 1e-4  # float32 positions
    universe = MDAnalysis.Universe(str(result.run / "system.pdb"), str(path), format="H5MD")
    step = universe.trajectory[length + 3]
    assert step.data["ladder"] == 1
    assert step.data["kept"] == 1
    np.testing.assert_allclose(step.positions, 10.0 * simulation.positions[1, 3], rtol=1e-6)
    universe.trajectory.close()


def test_energies_are_those_of_the_frames(result):
    simulation, target = read_simulation(result.run / "md.h5"), load_target(RunDirectory(result.run))
    x = torch.as_tensor(simulation.positions[0], dtype=torch.float64).permute(1, 2, 0).contiguous()
    # float32 dynamics: bonds of 5e4 kJ/mol/nm² and positions of 1e-8 nm at 0.01 nm from the minimum.
    np.testing.assert_allclose(
        simulation.reduced_potentials[0], target.reduced_potential(x).numpy(), rtol=1e-4, atol=1e-3
    )
    u = simulation.energies.mean(axis=(0, 1)) / [thermal_energy(t) for t in simulation.temperatures]
    assert np.all(np.diff(simulation.energies.mean(axis=(0, 1))) > 0.0)
    # Five harmonic coordinates give 5/2 kT at each temperature; the torsion adds 0.3 to 1.5 kT.
    assert np.all((u > 2.5) & (u < 4.5))


def test_frames_are_data_for_training_at_their_temperature_alone(result):
    molecule = load_target(RunDirectory(result.run)).molecule
    frames = read_frames(result.run / "md.h5", molecule, 300.0)
    assert (len(frames.positions), frames.weighted) == (result.summary["n_frames"], False)
    with pytest.raises(InputError, match="simulated at 300 K, the run is at 350 K"):
        read_frames(result.run / "md.h5", molecule, 350.0)


def test_doing_it_again_does_nothing_and_other_settings_are_refused(prepared, tmp_path):
    run = fresh(prepared, tmp_path)
    first = simulate(run, **SHORT)
    again = simulate(run, **SHORT)
    assert (first.skipped, again.skipped) == (False, True)
    assert {**again.summary, "files": 0} == {**json.loads(json.dumps(first.summary)), "files": 0}
    with pytest.raises(ConflictError, match="--force"):
        simulate(run, **{**SHORT, "seed": 1})
    before = read_simulation(run / "md.h5")
    assert not simulate(run, **{**SHORT, "seed": 1}, force=True).skipped
    assert not np.array_equal(read_simulation(run / "md.h5").positions, before.positions)
    simulate(run, **SHORT, force=True)
    np.testing.assert_array_equal(read_simulation(run / "md.h5").positions, before.positions)
    assert workflow.info(run / "md.h5").summary["contents"]["md.h5"]["stage"] == "md"


def test_short_simulations_are_no_reference(prepared, tmp_path):
    result = simulate(fresh(prepared, tmp_path), **{**SHORT, "md.max_energies": 10_000})
    assert result.summary["converged"] is False
    assert "NOT CONVERGED" in result.text
    assert result.summary["reasons"][0] in result.text


def test_processes_share_the_ladders(prepared, tmp_path):
    run = fresh(prepared, tmp_path)
    result = simulate(run, **{**SHORT, "threads": 2, "md.ladders": 5})
    assert (result.summary["n_ladders"], result.summary["threads"]) == (5, 2)
    positions = read_simulation(run / "md.h5").positions
    assert len(np.unique(positions[:, -1, 0, 0])) == 5


class Interrupting(SilentReporter):
    def progress(self, progress):
        if progress.fields["energies"]:
            raise KeyboardInterrupt


@pytest.mark.parametrize("budget", [{}, {"md.time_budget": 600}])
def test_an_interrupt_leaves_no_file_and_no_lock(prepared, tmp_path, budget):
    run = fresh(prepared, tmp_path)
    before = sorted(path.name for path in run.iterdir())
    with pytest.raises(KeyboardInterrupt):
        simulate(run, Interrupting(), **{**SHORT, **budget})
    assert sorted({path.name for path in run.iterdir()} - {".lock"}) == sorted(set(before) - {".lock"})
    with RunDirectory(run).lock():
        pass


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ({"md.highest_temperature": 300.0}, "is not above the 300 K of the run"),
        ({"md.max_energies": 1000}, "is too little for 4 ladders"),
        ({"md.timestep": 9.0}, "md.timestep"),
    ],
)
def test_what_cannot_be_simulated_is_refused_in_one_line(prepared, tmp_path, flags, says):
    run = fresh(prepared, tmp_path)
    with pytest.raises(InputError, match=says) as caught:
        simulate(run, **{**SHORT, **flags})
    assert "\n" not in str(caught.value)
    assert not (run / "md.h5").exists()


def test_energies_left_to_openmm_are_simulated_too(tmp_path):
    spring = openmm.CustomCentroidBondForce(2, "0.5*300*(distance(g1, g2) - 0.2)^2")
    spring.addGroup([0, 1])
    spring.addGroup([2, 3])
    spring.addBond([0, 1], [])
    run = prepare_chain(tmp_path, chain_system(spring))
    result = simulate(run, **{**SHORT, "md.max_energies": 15_000, "md.rungs": 2, "md.steps": 5})
    assert result.summary["n_failed"] == 0
    assert result.summary["n_frames"] > 100


def test_processes_that_die_are_an_error(prepared):
    from boltzgen.workflow.ladders import LadderJob

    job = LadderJob(
        prepared, np.zeros((4, 3, 4)), np.zeros((4, 3)), (300.0, 400.0), 2.0, 1.0, 10, 0.2, 100, 0, 10, None
    )
    with pytest.raises(EnvironmentProblem, match="died"):
        simulate_all([job, job], lambda rounds: None, ["false"])


def part(every, length, ladders, first):
    energies = np.zeros((length, 2, ladders)) + every * np.arange(first, first + length)[:, None, None]
    counts = np.ones(1)
    return Simulated(
        {"energies": energies, "positions": np.zeros((length, ladders, 4, 3))},
        *(every, 5, 100, counts, counts, np.zeros(ladders), np.zeros(ladders, dtype=bool), 0),
    )


def test_parts_of_processes_are_joined_at_equal_times():
    """Frames of one process every round, of another every second: the numbers of the rounds are the energies."""
    together = joined([part(1, 9, 3, first=1), part(2, 4, 2, first=1)])
    assert together.every == 2
    assert together.frames["energies"].shape == (4, 2, 5)
    assert together.frames["positions"].shape == (4, 5, 4, 3)
    np.testing.assert_array_equal(together.frames["energies"][:, 0, 0], [2, 4, 6, 8])
    np.testing.assert_array_equal(together.frames["energies"][:, 0, 4], [2, 4, 6, 8])


def test_frames_stay_few_and_evenly_spaced():
    frames = ThinnedFrames(most=10)
    for number in range(1, 1001):
        if frames.wants(number):
            frames.add({"number": np.array(number)})
    kept = frames.stacked()["number"]
    assert 5 <= len(kept) <= 10
    np.testing.assert_array_equal(kept, frames.every * np.arange(1, len(kept) + 1))
