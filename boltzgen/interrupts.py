"""Stopping a long computation politely: signals and the time limit of a queue."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType

from boltzgen.errors import Interrupted

EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGUSR1: 75}


class Interrupts:
    """While active, SIGINT, SIGTERM and SIGUSR1 ask for a stop after the current step instead of killing it.

    A second SIGINT stops at once, as Python does. ``deadline`` is a time of the monotonic clock, or None.
    Outside the main thread signals are left alone.
    """

    def __init__(self, deadline: float | None = None) -> None:
        self._deadline = deadline
        self._received: signal.Signals | None = None
        self._interrupted = False
        self._previous: dict[signal.Signals, object] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            for number in EXIT_CODES:
                self._previous[number] = signal.signal(number, self._receive)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what signal.signal returned

    @property
    def signalled(self) -> bool:
        """Whether a signal came."""
        return self._received is not None

    def keep_on(self) -> bool:
        """Whether nobody has asked to stop."""
        return self._received is None and (self._deadline is None or time.monotonic() < self._deadline)

    def error(self) -> Interrupted:
        """The error that says why the computation stopped and how to go on."""
        if self._received is None:
            return Interrupted("stopped at --max-time with a checkpoint. Repeat the command to go on.", 75)
        code = EXIT_CODES[self._received]
        return Interrupted(f"stopped by {self._received.name} with a checkpoint. Repeat the command to go on.", code)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT:
            if self._interrupted:
                raise KeyboardInterrupt
            self._interrupted = True
        self._received = signal.Signals(number)


@contextmanager
def stop_on_signals() -> Iterator[None]:
    """Turn SIGTERM and SIGUSR1 into Interrupted, so that they end a command as an error does; SIGINT does already."""

    def stop(number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        raise Interrupted(
            f"stopped by {name}. Finished stages are kept; repeat the command to go on.",
            EXIT_CODES[signal.Signals(number)],
        )

    previous = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGUSR1)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
