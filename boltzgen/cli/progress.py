"""Progress as people read it, on stderr: a live bar on a terminal, else a plain line every few seconds."""

from __future__ import annotations

import math
import os
import re
import sys
import time
import unicodedata
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, TextIO

from boltzgen.progress import Progress

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import TaskID


_ESCAPE_SEQUENCE = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\))")


def printable(text: str, *, one_line: bool = False) -> str:
    """`text` without what could drive a terminal: control and format characters, and lone surrogates."""
    text = _ESCAPE_SEQUENCE.sub("", text)
    if one_line:
        text = " ".join(text.split())
    return "".join(char for char in text if char in "\n\t" or unicodedata.category(char) not in ("Cc", "Cf", "Cs"))


def write(text: str, stream: TextIO | None) -> None:
    """Print a line. A reader that has gone away (``| head``) is no error, nor a reason to lose work."""
    if stream is None:  # closed when the program was started
        return
    try:
        print(text, file=stream, flush=True)
    except BrokenPipeError:
        # Python flushes once more at exit: let that go nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def duration(seconds: float) -> str:
    """``2h05m``, ``3m10s`` or ``12s``."""
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 60}m{whole % 60:02d}s" if whole >= 60 else f"{whole}s"


class RichReporter:
    """A `boltzgen.progress.Reporter` for people. Use it as a context manager, which closes the bar.

    Parameters
    ----------
    quiet : only warnings
    color : False removes colour; the variable NO_COLOR does too
    interval : seconds between lines where there is no terminal
    stream : stderr by default
    clock : monotonic seconds
    """

    def __init__(
        self,
        *,
        quiet: bool = False,
        color: bool = True,
        interval: float = 5.0,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        stream = stream or sys.stderr  # None when it was closed before the program began
        self._quiet = quiet
        self._clock = clock
        self._view: _View = _Bar(stream, color) if stream and _is_live(stream) else _Lines(stream, interval, clock)
        self._rates = _Rates(clock)
        self._started: dict[str, float] = {}

    def __enter__(self) -> RichReporter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._view.close()

    def info(self, message: str) -> None:
        """Show a line, unless quiet."""
        if not self._quiet:
            self._view.say(printable(message))

    def warn(self, message: str) -> None:
        """Show a warning, always."""
        self._view.say(f"warning: {printable(message, one_line=True)}", style="yellow")

    def progress(self, progress: Progress) -> None:
        """Move the bar, or print a line if the last one is old enough."""
        if self._quiet:
            return
        self._started.setdefault(progress.stage, self._clock())
        fraction = min(max(progress.fraction, 0.0), 1.0) if math.isfinite(progress.fraction) else 0.0
        left = progress.seconds_left
        known = left is not None and math.isfinite(left)
        self._view.move(
            printable(progress.stage, one_line=True),
            fraction,
            "  ".join(self._rates.describe(progress)),
            f"{duration(left)} left" if left is not None and known else "",
        )

    def done(self, stage: str) -> None:
        """Close the stage's bar with the time it took."""
        if stage in self._started:
            took = self._clock() - self._started.pop(stage)
            self._view.finish(printable(stage, one_line=True), f"done in {duration(took)}")


class _Rates:
    """Fields as text, counters with their mean rate in this process (a resumed count starts above 0)."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._first: dict[tuple[str, str], tuple[float, int]] = {}

    def describe(self, progress: Progress) -> list[str]:
        return [
            printable(f"{name} {self._value(progress.stage, name, value)}", one_line=True)
            for name, value in progress.fields.items()
        ]

    def _value(self, stage: str, name: str, value: float | int | str) -> str:
        if isinstance(value, str):
            return value
        if isinstance(value, float):
            return f"{value:.3g}"
        now = self._clock()
        start, first = self._first.setdefault((stage, name), (now, value))
        if now - start < 1 or value <= first:
            return f"{value:,}"
        rate = (value - first) / (now - start)
        return f"{value:,} ({f'{rate:,.0f}' if rate >= 100 else f'{rate:.2g}'}/s)"


class _View(Protocol):
    def say(self, message: str, style: str = "") -> None: ...

    def move(self, stage: str, fraction: float, details: str, left: str) -> None: ...

    def finish(self, stage: str, summary: str) -> None: ...

    def close(self) -> None: ...


class _Lines:
    """Plain lines, rare enough for a batch log."""

    def __init__(self, stream: TextIO | None, interval: float, clock: Callable[[], float]) -> None:
        self._stream = stream
        self._interval = interval
        self._clock = clock
        self._last: tuple[str, float] | None = None

    def say(self, message: str, style: str = "") -> None:
        write(message, self._stream)

    def move(self, stage: str, fraction: float, details: str, left: str) -> None:
        now = self._clock()
        if self._last and self._last[0] == stage and now - self._last[1] < self._interval:
            return
        self._last = (stage, now)
        self.say("  ".join(part for part in (f"{stage} {fraction:4.0%}", details, left) if part))

    def finish(self, stage: str, summary: str) -> None:
        self._last = None
        self.say(f"{stage} {summary}")

    def close(self) -> None:
        pass


class _Bar:
    """A live bar for each stage, by rich."""

    def __init__(self, stream: TextIO, color: bool) -> None:
        from rich.console import Console  # imported late, as it slows `--help` down
        from rich.progress import BarColumn, TaskProgressColumn, TextColumn
        from rich.progress import Progress as Bars

        self._console: Console = Console(file=stream, no_color=None if color else True, force_terminal=True)
        self._bars = Bars(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            TaskProgressColumn(),
            TextColumn("{task.fields[details]}", markup=False),
            TextColumn("{task.fields[left]}", markup=False),
            console=self._console,
            refresh_per_second=4,
        )
        self._tasks: dict[str, TaskID] = {}

    def say(self, message: str, style: str = "") -> None:
        self._console.print(message, style=style or None, markup=False, highlight=False, emoji=False, soft_wrap=True)

    def move(self, stage: str, fraction: float, details: str, left: str) -> None:
        if stage not in self._tasks:
            self._bars.start()
            self._tasks[stage] = self._bars.add_task(stage, total=1.0, details="", left="")
        self._bars.update(self._tasks[stage], completed=fraction, details=details, left=left)

    def finish(self, stage: str, summary: str) -> None:
        self._bars.update(self._tasks.pop(stage), completed=1.0, left=summary)

    def close(self) -> None:
        self._bars.stop()


def _is_live(stream: TextIO) -> bool:
    return stream.isatty() and os.environ.get("TERM", "dumb") not in ("dumb", "unknown")
