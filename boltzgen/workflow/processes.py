"""Jobs of ladders on processes of their own, with one progress, one end and one error.

As those of :mod:`boltzgen.energy.workers` they are neither forked nor spawned by multiprocessing.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path

from boltzgen.errors import EnvironmentProblem
from boltzgen.workflow.ladders import LadderJob, Simulated, simulate

TELL_EVERY = 0.25
"""Seconds between two reports of a process."""

WORKER = (sys.executable, "-P", str(Path(__file__).with_name("ladder_worker.py")))


def simulate_all(
    jobs: Sequence[LadderJob], report: Callable[[list[int]], None], command: Sequence[str] = WORKER
) -> list[Simulated]:
    """Simulate jobs side by side, one of them alone in this process; ``report`` gets the rounds that each has done.

    Raises
    ------
    EnvironmentProblem
        If a process dies.
    Exception
        What a job raised.
    """
    done = [0] * len(jobs)
    if len(jobs) == 1:

        def tell(rounds: int) -> None:
            done[0] = rounds
            report(done)

        return [simulate(jobs[0], tell)]
    results: dict[int, Simulated] = {}
    with _processes(jobs, command) as connections:
        while len(results) < len(jobs):
            for connection in wait([c for k, c in enumerate(connections) if k not in results]):
                assert isinstance(connection, Connection)
                k, message = connections.index(connection), _received(connection)
                if isinstance(message, Simulated):
                    results[k] = message
                elif isinstance(message, BaseException):
                    raise message
                else:
                    done[k] = message
            report(done)
    return [results[k] for k in range(len(jobs))]


def work(connection: Connection) -> None:
    """What a process does: it receives a job, and sends rounds done as integers, then the result or what it raised.

    A closed connection, where the parent is gone, ends it.
    """
    job: LadderJob = connection.recv()
    last = 0.0

    def tell(rounds: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last > TELL_EVERY:
            last = now
            connection.send(rounds)

    try:
        connection.send(simulate(job, tell))
    except ConnectionError:
        raise
    except Exception as error:  # raised again where the command was called
        connection.send(error)


def _received(connection: Connection) -> int | Simulated | BaseException:
    try:
        message: int | Simulated | BaseException = connection.recv()
    except (EOFError, ConnectionError):
        raise EnvironmentProblem(
            "a process of the simulation died. Is there enough memory? Take fewer --threads."
        ) from None
    return message


@contextmanager
def _processes(jobs: Sequence[LadderJob], command: Sequence[str]) -> Iterator[list[Connection]]:
    """A started process for each job, and the connections from which to read; all are ended in the end."""
    processes: list[subprocess.Popen[bytes]] = []
    connections: list[Connection] = []
    try:
        for _ in jobs:
            ours, theirs = Pipe()
            try:
                process = subprocess.Popen(
                    [*command, str(theirs.fileno())],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                    process_group=0,  # Ctrl-C in the terminal is for the parent
                    env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
                )
            except OSError as error:
                raise EnvironmentProblem(f"no process can be started for the simulation: {error}.") from error
            finally:
                theirs.close()
            processes.append(process)
            connections.append(ours)
        for connection, job in zip(connections, jobs, strict=True):
            try:
                connection.send(sys.path)
                connection.send(job)
            except ConnectionError:
                continue  # that it is dead shows when its answer is awaited
        yield connections
    finally:
        for connection in connections:
            connection.close()
        for process in processes:
            process.kill()
        for process in processes:
            process.wait()
