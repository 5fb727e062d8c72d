"""Forces left to OpenMM: the same numbers, whatever happens to a sample, a process, a thread or the parent."""

from __future__ import annotations

import copy
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import openmm
import pytest
import torch

from boltzgen.energy import OpenMMEnergy, PotentialEnergy, from_openmm
from boltzgen.energy.openmm_worker import Evaluator
from boltzgen.energy.parity import check_parity, openmm_energies
from boltzgen.energy.workers import OpenMMWorkers
from boltzgen.errors import EnvironmentProblem, InputError, UnsupportedError

ENDS_WITHIN = 10.0
"""Seconds in which a process must be gone; it takes one or two."""


@pytest.fixture
def term(dipeptide):
    """All of alanine dipeptide's energy, by OpenMM."""
    return OpenMMEnergy(22, torch.float64, system_xml=openmm.XmlSerializer.serialize(dipeptide.system))


@pytest.fixture(scope="module")
def frames(dipeptide):
    rng = np.random.default_rng(0)
    return dipeptide.positions + 0.01 * rng.standard_normal((40, *dipeptide.positions.shape))


@pytest.fixture(scope="module")
def reference(dipeptide, frames):
    return openmm_energies(dipeptide.system, frames)


def batch_last(frames):
    return torch.as_tensor(frames).permute(1, 2, 0).contiguous()


def alive(pid):
    """Whether a process runs; one that has ended and waits for its parent does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def zombies():
    """Children of this process that have ended and were not waited for."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if state == "Z" and int(parent) == os.getpid():
            found.append(stat.parent.name)
    return found


def wait_until_gone(pids):
    deadline = time.monotonic() + ENDS_WITHIN
    while any(alive(pid) for pid in pids):
        assert time.monotonic() < deadline, f"still running: {pids}"
        time.sleep(0.05)


def centroid_force(n_atoms):
    """A force that no torch term has: a spring between two groups of atoms."""
    force = openmm.CustomCentroidBondForce(2, "0.5*k*distance(g1, g2)^2")
    force.addGlobalParameter("k", 300.0)
    force.addGroup(list(range(n_atoms // 2)))
    force.addGroup(list(range(n_atoms // 2, n_atoms)))
    force.addBond([0, 1], [])
    return force


def test_energies_and_forces_are_openmms_to_the_last_bit(term, frames, reference):
    energy, force = PotentialEnergy([term]).energy_and_forces(torch.as_tensor(frames))
    assert np.array_equal(energy.numpy(), reference[0])
    assert np.array_equal(force.numpy(), reference[1])
    without_forces = PotentialEnergy([term])(torch.as_tensor(frames))
    assert np.array_equal(without_forces.numpy(), reference[0])


def test_gradient_is_the_derivative_of_the_energy(term, frames):
    """Central differences along a random direction; Reference is double precision, so 1e-6 of the slope is left."""
    x = batch_last(frames[:4]).requires_grad_(True)
    direction = torch.as_tensor(np.random.default_rng(1).standard_normal(x.shape))
    weights = torch.tensor([1.0, -2.0, 3.0, 0.5], dtype=torch.float64)
    (gradient,) = torch.autograd.grad((weights * term.energy(x)).sum(), x)
    h = 1e-5
    with torch.no_grad():
        difference = (term.energy(x + h * direction) - term.energy(x - h * direction)) / (2 * h)
    slope = (gradient * direction).sum(dim=(0, 1)) / weights
    assert torch.allclose(difference, slope, rtol=1e-6, atol=1e-6 * float(slope.abs().max()))


def test_only_what_cannot_be_converted_is_left_to_openmm(dipeptide):
    system = copy.deepcopy(dipeptide.system)
    system.addForce(centroid_force(22))
    with pytest.raises(UnsupportedError, match="CustomCentroidBondForce"):
        from_openmm(system)
    potential = from_openmm(system, fallback=True)
    assert [type(term) for term in potential.terms].count(OpenMMEnergy) == 1
    assert len(potential.terms) == len(from_openmm(dipeptide.system).terms) + 1
    parity = check_parity(system, potential, dipeptide.positions)
    assert parity.agrees
    assert parity.energy < 1e-8  # rounding
    clash = torch.as_tensor(dipeptide.positions)[None].clone()
    clash[0, 5] = clash[0, 15]
    assert torch.isfinite(potential(clash, 200.0)).all()  # the converted part is softened as ever


def test_a_system_that_can_be_converted_has_no_part_in_openmm(dipeptide):
    potential = from_openmm(dipeptide.system, fallback=True)
    assert not any(isinstance(term, OpenMMEnergy) for term in potential.terms)


def test_stored_potential_gives_the_same_energies(term, frames):
    potential = PotentialEnergy([term])
    again = PotentialEnergy.from_tree(potential.to_tree())
    x = torch.as_tensor(frames[:3])
    assert torch.equal(again(x), potential(x))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_failed_samples_do_not_touch_their_neighbours(term, frames, reference, dtype):
    """NaN, infinity, overflow and coincident atoms, each between good samples."""
    x = torch.as_tensor(frames[:9]).clone()
    x[1, 4, 2] = torch.nan
    x[3, 4, 2] = torch.inf
    x[5, 4, 2] = 1e200  # 1e400 kJ/mol; in float32 the coordinate is infinite already
    x[7, 4] = x[7, 11]
    bad, good = [1, 3, 5, 7], [0, 2, 4, 6, 8]
    evaluation = PotentialEnergy([term]).to(dtype).evaluate(x.permute(1, 2, 0).to(dtype))
    assert evaluation.n_failed == 4
    assert torch.isposinf(evaluation.energy[bad]).all()
    assert torch.equal(evaluation.gradient[..., bad], torch.zeros(22, 3, 4, dtype=dtype))
    if dtype == torch.float64:
        assert np.array_equal(evaluation.energy[good].numpy(), reference[0][good])
        assert np.array_equal(-evaluation.gradient[..., good].permute(2, 0, 1).numpy(), reference[1][good])
    else:
        # Coordinates are rounded to 6e-8 relative: forces of 2e4 kJ/mol/nm times 3e-8 nm, a few dozen of them.
        assert np.abs(evaluation.energy[good].double().numpy() - reference[0][good]).max() < 1.25e-2


def test_overflow_in_single_precision_is_a_failure(term, frames):
    x = torch.as_tensor(frames[:2], dtype=torch.float32).clone()
    x[1, 4, 2] = 1e30  # 1e65 kJ/mol: finite for OpenMM, not in float32
    evaluation = PotentialEnergy([term]).to(torch.float32).evaluate(x.permute(1, 2, 0))
    assert evaluation.n_failed == 1
    assert torch.equal(evaluation.gradient[..., 1], torch.zeros(22, 3))


def test_exception_of_openmm_leaves_no_old_positions_behind():
    """OpenMM raises on NaN on its CPU platform, used above 100 atoms; such frames do not get there otherwise."""
    system, force = openmm.System(), openmm.NonbondedForce()
    for index in range(120):
        system.addParticle(1.0)
        force.addParticle((-1.0) ** index, 0.3, 0.1)
    system.addForce(force)
    text = openmm.XmlSerializer.serialize(system)
    first, second = np.random.default_rng(2).uniform(0.0, 3.0, (2, 120, 3))
    evaluator = Evaluator(text)
    for bad in (np.full_like(first, np.nan), first[:7]):
        evaluator.state(first, True)
        assert evaluator.state(bad, True) is None
        energy, gradient = evaluator.state(second, True)
        fresh_energy, fresh_gradient = Evaluator(text).state(second, True)
        assert energy == fresh_energy
        assert np.array_equal(gradient, fresh_gradient)


def test_nothing_is_started_before_the_first_energy_and_workers_are_kept(term, frames):
    assert term.workers.process_ids == []
    term.energy(batch_last(frames[:1]))
    first = term.workers.process_ids
    term.energy(batch_last(frames))
    assert first
    assert term.workers.process_ids == first


def test_killed_worker_is_replaced_and_its_block_done_again(term, frames, reference):
    term.energy(batch_last(frames[:1]))
    (pid,) = term.workers.process_ids
    os.kill(pid, signal.SIGKILL)
    assert np.array_equal(term.energy(batch_last(frames)).numpy(), reference[0])
    assert term.workers.process_ids != [pid]
    assert zombies() == []


def test_worker_killed_in_the_middle_of_a_block(term, frames, reference):
    """400 samples take half a second; the worker is killed after 0.1."""
    term.energy(batch_last(frames[:1]))
    (pid,) = term.workers.process_ids
    killer = threading.Timer(0.1, os.kill, (pid, signal.SIGKILL))
    killer.start()
    energy = term.energy(batch_last(np.tile(frames, (10, 1, 1))))
    killer.join()
    assert np.array_equal(energy.numpy(), np.tile(reference[0], 10))
    assert zombies() == []


FRAGILE = """
import os, sys
sys.path[:0] = [{folder!r}]
import openmm_worker as worker

class Fragile(worker.Evaluator):
    def answer(self, block):
        import numpy as np
        if {condition}:
            os.kill(os.getpid(), 9)
        return super().answer(block)

worker.Evaluator = Fragile
worker.main(int(sys.argv[1]), int(sys.argv[2]))
"""


def fragile_workers(dipeptide, condition):
    """Workers that die on a block when the condition on its coordinates holds."""
    import boltzgen.energy

    # `openmm` must be the library in the worker, and not the module of that name beside the worker's file.
    script = FRAGILE.format(folder=boltzgen.energy.__path__[0], condition=condition)
    script = script.replace("import openmm_worker as worker", "import openmm_worker as worker; del sys.path[0]")
    return OpenMMWorkers(openmm.XmlSerializer.serialize(dipeptide.system), (sys.executable, "-P", "-c", script))


def test_sample_that_kills_its_process_twice_is_one_failure_and_no_more(dipeptide, frames, reference):
    workers = fragile_workers(dipeptide, "(np.frombuffer(block, offset=8) == 7.0).any()")
    deadly = frames.copy()
    deadly[13, 0, 0] = 7.0
    energy, gradient = workers.evaluate(deadly, True)
    others = np.arange(len(frames)) != 13
    assert energy[13] == np.inf
    assert not gradient[13].any()
    assert np.array_equal(energy[others], reference[0][others])
    assert np.array_equal(-gradient[others], reference[1][others])
    assert zombies() == []


def test_processes_that_die_again_and_again_are_an_error_and_no_numbers(dipeptide, frames):
    with pytest.raises(EnvironmentProblem, match="died 3 times in a row"):
        fragile_workers(dipeptide, "True").evaluate(frames, True)
    assert zombies() == []


def test_what_openmm_says_against_a_system_is_passed_on(frames):
    """An expression of a variable that is not defined: no sample is to blame."""
    system = openmm.System()
    for _ in range(22):
        system.addParticle(1.0)
    system.addForce(openmm.CustomCentroidBondForce(2, "unheard_of * distance(g1, g2)"))
    with pytest.raises(InputError, match="unheard_of"):
        from_openmm(system, fallback=True)
    potential = PotentialEnergy([OpenMMEnergy(22, torch.float64, system_xml=openmm.XmlSerializer.serialize(system))])
    with pytest.raises(EnvironmentProblem, match="unheard_of"):
        potential(torch.as_tensor(frames[:1]))


def test_several_threads_at_once_get_their_own_answers(term, frames, reference):
    parts = np.array_split(np.arange(len(frames)), 8)
    with ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            energies = list(pool.map(lambda rows: term.energy(batch_last(frames[rows])), parts))
            assert np.array_equal(torch.cat(energies).numpy(), reference[0])
    assert len(term.workers.process_ids) <= max(torch.get_num_threads(), os.cpu_count())


def test_copies_start_their_own_workers(term, frames, reference):
    term.energy(batch_last(frames[:1]))
    for twin in (copy.deepcopy(term), pickle.loads(pickle.dumps(term)), copy.deepcopy(term).to(torch.float32)):
        assert twin.workers.process_ids == []
        assert np.array_equal(twin.energy(batch_last(frames[:2])).numpy(), reference[0][:2])
        assert not set(twin.workers.process_ids) & set(term.workers.process_ids)


def test_forked_child_does_not_talk_to_the_workers_of_its_parent(term, frames, reference):
    term.energy(batch_last(frames[:1]))
    before = term.workers.process_ids
    pid = os.fork()
    if pid == 0:
        good = term.workers.process_ids == [] and np.array_equal(
            term.workers.evaluate(frames[:2], False)[0], reference[0][:2]
        )
        del term.workers
        os._exit(0 if good else 1)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert all(alive(worker) for worker in before)
    assert np.array_equal(term.energy(batch_last(frames)).numpy(), reference[0])
    assert term.workers.process_ids == before


def test_workers_end_with_the_term(term, frames):
    term.energy(batch_last(frames[:1]))
    pids = term.workers.process_ids
    del term.workers
    assert not any(alive(pid) for pid in pids)
    assert zombies() == []


SCRIPT = """
import sys
import torch
from boltzgen.energy import OpenMMEnergy

text, n = open(sys.argv[1]).read(), 22
x = torch.linspace(0.0, 3.0, 3 * n, dtype=torch.float64).sin().reshape(n, 3, 1).repeat(1, 1, 500)
term = OpenMMEnergy(n, torch.float64, system_xml=text)
term.energy(x[..., :1])
print(*term.workers.process_ids, flush=True)
while {condition}:
    term.energy(x)
"""


def start_script(dipeptide, tmp_path, condition):
    """A user's script without a main guard; returns it and the process ids of its workers."""
    system = tmp_path / "system.xml"
    system.write_text(openmm.XmlSerializer.serialize(dipeptide.system))
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(condition=condition))
    process = subprocess.Popen(
        [sys.executable, str(script), str(system)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    return process, [int(pid) for pid in process.stdout.readline().split()]


def test_script_without_main_guard_ends_by_itself_and_leaves_nothing(dipeptide, tmp_path):
    process, pids = start_script(dipeptide, tmp_path, "False")
    assert pids
    assert process.wait(ENDS_WITHIN) == 0
    assert process.stderr.read() == ""
    wait_until_gone(pids)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
def test_no_worker_outlives_its_parent(dipeptide, tmp_path, number):
    process, pids = start_script(dipeptide, tmp_path, "True")
    time.sleep(0.2)
    assert all(alive(pid) for pid in pids)
    process.send_signal(number)
    assert process.wait(ENDS_WITHIN) != 0
    wait_until_gone(pids)
    if number == signal.SIGINT:
        assert process.stderr.read().count("Traceback") == 1  # the parent's own, none of a worker


def test_interrupted_evaluation_leaves_no_stale_answers(term, frames, reference):
    """The answer to an abandoned block must not be taken for the answer to the next."""

    class StopError(Exception):
        pass

    def stop(number, frame):
        raise StopError

    def evaluate_until(delay):
        signal.setitimer(signal.ITIMER_REAL, delay)
        while True:
            term.energy(batch_last(frames[::-1].copy()))

    previous = signal.signal(signal.SIGALRM, stop)
    try:
        for delay in (0.001, 0.01, 0.03):
            with pytest.raises(StopError):
                evaluate_until(delay)
            assert np.array_equal(term.energy(batch_last(frames)).numpy(), reference[0])
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, previous)
    assert zombies() == []


def test_stored_text_that_is_no_such_system_is_refused(dipeptide):
    text = openmm.XmlSerializer.serialize(dipeptide.system)
    for broken in (text[:1000], "<Integrator/>", text.replace("<Particle mass", "<!-- <Particle mass", 1)):
        with pytest.raises(InputError, match="OpenMM System"):
            OpenMMEnergy(22, torch.float64, system_xml=broken)
    with pytest.raises(InputError, match="23 atoms"):
        OpenMMEnergy(23, torch.float64, system_xml=text)


@pytest.mark.parametrize("spelling", ["PythonForce", "&#80;ythonForce"])
def test_stored_program_is_not_run(spelling):
    """A PythonForce is a pickled function; as part of another force, or written otherwise, it stays one."""
    system = openmm.System()
    system.addParticle(1.0)
    outer = openmm.CustomCVForce("p")
    outer.addCollectiveVariable("p", openmm.PythonForce(min))
    system.addForce(outer)
    text = openmm.XmlSerializer.serialize(system).replace('type="PythonForce"', f'type="{spelling}"')
    with pytest.raises(UnsupportedError, match="PythonForce"):
        OpenMMEnergy(1, torch.float64, system_xml=text)
    with pytest.raises(UnsupportedError, match="PythonForce"):
        from_openmm(system, fallback=True)
