"""Jobs of ladders on processes of their own, with one progress, one end and one error.

Ctrl-C goes to the process that was called; the others ignore it, and end with it.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import Pipe, get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from boltzgen.errors import EnvironmentProblem
from boltzgen.workflow.ladders import LadderJob, Simulated, simulate

TELL_EVERY = 0.25
"""Seconds between two reports of a process."""


def simulate_all(jobs: Sequence[LadderJob], report: Callable[[list[int]], None]) -> list[Simulated]:
    """Simulate jobs side by side; ``report`` gets the rounds that each has done.

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
    with _processes(jobs) as connections:
        results: dict[int, Simulated] = {}
        while len(results) < len(jobs):
            for connection in wait([c for k, c in enumerate(connections) if k not in results]):
                assert isinstance(connection, Connection)
                k = connections.index(connection)
                message = _received(connection)
                if isinstance(message, Simulated):
                    results[k] = message
                elif isinstance(message, BaseException):
                    raise message
                else:
                    done[k] = message
            report(done)
        return [results[k] for k in range(len(jobs))]


def _received(connection: Connection) -> int | Simulated | BaseException:
    try:
        message: int | Simulated | BaseException = connection.recv()
    except (EOFError, ConnectionResetError):
        raise EnvironmentProblem(
            "a process of the simulation died. Is there enough memory? Take fewer --threads."
        ) from None
    return message


@contextmanager
def _processes(jobs: Sequence[LadderJob]) -> Iterator[list[Connection]]:
    """A started process for each job, and the connections from which to read; all are ended in the end."""
    # Not forked: the threads of torch and OpenMM do not survive that.
    context = get_context("spawn")
    processes: list[BaseProcess] = []
    connections: list[Connection] = []
    try:
        for job in jobs:
            ours, theirs = Pipe(duplex=False)
            process = context.Process(target=_work, args=(job, theirs), daemon=True)
            with _deaf_to_interrupts():  # inherited from the first instruction on
                process.start()
            theirs.close()
            processes.append(process)
            connections.append(ours)
        yield connections
    finally:
        for one in processes:
            one.terminate()
        for one in processes:
            one.join()


@contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _work(job: LadderJob, connection: Connection) -> None:
    """What a process does. A closed connection, where the parent is gone, ends it."""
    last = 0.0

    def tell(rounds: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last > TELL_EVERY:
            last = now
            connection.send(rounds)

    with suppress(BrokenPipeError):
        try:
            connection.send(simulate(job, tell))
        except BrokenPipeError:
            raise
        except Exception as error:  # raised again where the command was called
            connection.send(error)
