"""Worker processes that evaluate a System with OpenMM, and what happens when they die.

The processes are started from the file of :mod:`boltzgen.energy.openmm_worker`, not forked and not spawned by
multiprocessing: nothing of the parent is inherited or imported again, and a script needs no main guard.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import threading
import weakref
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import wait
from pathlib import Path

import numpy as np
import torch

from boltzgen.energy.openmm_worker import HEADER
from boltzgen.errors import EnvironmentProblem

BLOCK = 64
"""Most samples that a worker is given at a time; smaller batches are spread over the workers."""

DEATHS_PER_WORKER = 3
"""Deaths in a row, per worker, at which evaluation is given up."""

WORKER = (sys.executable, "-P", str(Path(__file__).with_name("openmm_worker.py")))
"""``-P``: the folder of the script, which has a module named openmm, stays out of the path of modules."""


class OpenMMWorkers:
    """Evaluates samples on processes that are started when first needed and then kept.

    There are as many as torch has threads, and at least one for each thread that evaluates at the same time, up to the
    number of cores. A copy, made by copying, pickling or forking, starts processes of its own. They end with
    this object, or with the process that started them, even if that is killed.
    """

    def __init__(self, system_xml: str, command: Sequence[str] = WORKER) -> None:
        self._arguments = (system_xml, tuple(command))
        self._team = _Team(*self._arguments)

    def __reduce__(self) -> tuple[type[OpenMMWorkers], tuple[str, Sequence[str]]]:
        return OpenMMWorkers, self._arguments

    def evaluate(self, frames: np.ndarray, with_gradient: bool) -> tuple[np.ndarray, np.ndarray]:
        """Energies ``(n,)`` in kJ/mol and gradients ``(n, atoms, 3)`` in kJ/mol/nm, or zeros if these are not wanted.

        Frames ``(n, atoms, 3)`` in nm are float64 and contiguous. A sample on which OpenMM fails, or on which a process
        died twice, has energy +inf and gradient zero.

        Raises
        ------
        EnvironmentProblem
            If OpenMM cannot evaluate this System at all, or if processes die again and again.
        """
        if self._team.pid != os.getpid():
            self._team = _Team(*self._arguments)
        return self._team.evaluate(frames, with_gradient)

    @property
    def process_ids(self) -> list[int]:
        """Of the processes that run now."""
        return [worker.process.pid for worker in self._team.workers] if self._team.pid == os.getpid() else []


@dataclass(frozen=True)
class _Block:
    start: int
    stop: int
    last_try: bool = False

    @property
    def rows(self) -> slice:
        return slice(self.start, self.stop)

    def after_death(self) -> list[_Block]:
        """What to try when its process has died: every sample by itself, once."""
        return [] if self.last_try else [_Block(row, row + 1, last_try=True) for row in range(self.start, self.stop)]


class _Worker:
    """One process, and whose it is at the moment: an object that stands for the evaluation, or None."""

    def __init__(self, system_xml: str, command: Sequence[str]) -> None:
        self.owner: object | None = None
        self.connection, other = Pipe()
        try:
            self.process = subprocess.Popen(
                [*command, str(other.fileno()), str(os.getpid())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[other.fileno()],
                process_group=0,  # Ctrl-C in the terminal is for the parent
                env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            )
        except OSError as error:
            raise EnvironmentProblem(f"no process can be started for OpenMM: {error}.") from error
        finally:
            other.close()
        self.send(json.dumps({"path": [str(folder) for folder in sys.path], "system": system_xml}).encode())

    def send(self, message: bytes) -> None:
        """Send a message. That the process is dead shows when its answer is awaited."""
        with suppress(BrokenPipeError, ConnectionResetError):
            self.connection.send_bytes(message)

    def receive(self) -> bytes | None:
        """The answer, or None if the process is dead."""
        try:
            return self.connection.recv_bytes()
        except (EOFError, ConnectionResetError):
            return None

    def end(self) -> None:
        """Kill the process, which has nothing to save, and wait for it."""
        self.connection.close()
        self.process.kill()
        self.process.wait()


class _Team:
    """The workers of one process; ``owner`` of each says which evaluation, if any, may use it."""

    def __init__(self, system_xml: str, command: Sequence[str]) -> None:
        self.pid = os.getpid()
        self.workers: list[_Worker] = []
        self._system_xml, self._command = system_xml, command
        self._changed = threading.Condition()
        self._deaths_in_a_row = self._most = 0
        weakref.finalize(self, _end_all, self.workers, self.pid)

    def evaluate(self, frames: np.ndarray, with_gradient: bool) -> tuple[np.ndarray, np.ndarray]:
        """See :meth:`OpenMMWorkers.evaluate`."""
        result = np.full(len(frames), np.inf), np.zeros_like(frames)
        blocks = deque(_split(len(frames)))
        given: dict[_Worker, _Block] = {}
        caller = object()
        try:
            while blocks or given:
                while blocks and (worker := self._take(caller, patient=not given)):
                    given[worker] = blocks.popleft()
                    worker.send(int(with_gradient).to_bytes(HEADER, "little") + frames[given[worker].rows].tobytes())
                ready = wait([worker.connection for worker in given])
                for worker in [worker for worker in given if worker.connection in ready]:
                    block, answer = given.pop(worker), worker.receive()
                    if answer is None:
                        self._bury(worker)
                        blocks.extend(block.after_death())
                    else:
                        _store(answer, block.rows, *result)
                        self._release(worker)
        finally:
            self._dismiss(caller)
        return result

    def _take(self, caller: object, patient: bool) -> _Worker | None:
        """A worker for the caller; None if all are busy, unless it is patient."""
        most = max(torch.get_num_threads(), (os.cpu_count() or 1) if patient else 1)
        with self._changed:
            while True:
                worker = self._idle()
                if worker is None and len(self.workers) < most:
                    self._start()
                    worker = self._idle()
                if worker:
                    worker.owner = caller
                if worker or not patient:
                    return worker
                self._changed.wait()

    def _idle(self) -> _Worker | None:
        return next((worker for worker in self.workers if worker.owner is None), None)

    def _start(self) -> None:
        """Start a worker, in a thread: there no signal's exception can come between the process and its entry."""
        problems: list[EnvironmentProblem] = []

        def start() -> None:
            try:
                self.workers.append(_Worker(self._system_xml, self._command))
                self._most = max(self._most, len(self.workers))
            except EnvironmentProblem as problem:
                problems.append(problem)

        thread = threading.Thread(target=start)
        thread.start()
        thread.join()
        if problems:
            raise problems[0]

    def _release(self, worker: _Worker) -> None:
        with self._changed:
            self._deaths_in_a_row = 0
            worker.owner = None
            self._changed.notify()

    def _bury(self, worker: _Worker) -> None:
        with self._changed:
            self._remove(worker)
            self._deaths_in_a_row += 1
            if self._deaths_in_a_row >= DEATHS_PER_WORKER * self._most:
                raise EnvironmentProblem(
                    f"the processes that evaluate with OpenMM died {self._deaths_in_a_row} times in a row "
                    f"(the last with exit status {worker.process.returncode}). Is there enough memory?"
                )

    def _dismiss(self, caller: object) -> None:
        """End the workers that an interrupted evaluation left in the middle of a block, with their stale answers."""
        with self._changed:
            for worker in [worker for worker in self.workers if worker.owner is caller]:
                self._remove(worker)

    def _remove(self, worker: _Worker) -> None:
        self.workers.remove(worker)
        worker.end()
        self._changed.notify()


def _split(n: int) -> list[_Block]:
    size = min(BLOCK, max(1, math.ceil(n / torch.get_num_threads())))
    return [_Block(start, min(n, start + size)) for start in range(0, n, size)]


def _store(answer: bytes, rows: slice, energy: np.ndarray, gradient: np.ndarray) -> None:
    if answer[:1] == b"-":
        problem = " ".join(answer[1:].decode().split())
        raise EnvironmentProblem(f"OpenMM cannot evaluate this System: {problem}")
    numbers = np.frombuffer(answer, offset=1)
    n = len(energy[rows])
    energy[rows] = numbers[:n]
    if len(numbers) > n:
        gradient[rows] = numbers[n:].reshape(gradient[rows].shape)


def _end_all(workers: list[_Worker], pid: int) -> None:
    if pid == os.getpid():
        for worker in workers:
            worker.end()
