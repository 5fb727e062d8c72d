"""What all commands share: their context, their result, and how a stage writes its file."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py

from boltzgen.errors import Interrupted
from boltzgen.progress import Reporter, SilentReporter
from boltzgen.storage.atomic import write_hdf5
from boltzgen.storage.runs import RunDirectory, already_done, fill_provenance, fingerprint, read_provenance

Summary = dict[str, Any]
"""Plain values under the keys that ``--json`` promises."""


@dataclass(frozen=True)
class Context:
    """What surrounds a command: where it reports to, and how it was called. ``max_time`` in seconds."""

    reporter: Reporter = field(default_factory=SilentReporter)
    force: bool = False
    command_line: str = ""
    resume: bool = True
    max_time: float | None = None
    started: float = field(default_factory=time.monotonic)

    @property
    def deadline(self) -> float | None:
        """Time of the monotonic clock at which to stop."""
        return None if self.max_time is None else self.started + self.max_time

    @property
    def seconds(self) -> float:
        """Seconds since the command began."""
        return time.monotonic() - self.started

    def check_deadline(self) -> None:
        """Raise Interrupted (exit 75) once ``--max-time`` is over."""
        if self.deadline is not None and time.monotonic() > self.deadline:
            raise Interrupted("stopped at --max-time. Finished stages are kept; repeat the command to go on.")


@dataclass(frozen=True)
class Result:
    """What a command did, in a run directory or in none: ``summary`` is for programs, ``text`` for people."""

    command: str
    run: Path | None
    skipped: bool
    summary: Summary
    text: str
    exit_code: int = 0


@dataclass(frozen=True)
class StageResult(Result):
    """What was done in a run directory."""

    run: Path


@dataclass(frozen=True)
class Stage:
    """One stage of one run: its identity (settings, parents), its HDF5 file, and how its summary reads."""

    name: str
    directory: RunDirectory
    output: Path
    config: dict[str, Any]
    parents: dict[str, str]
    temperature: float
    seed: int
    context: Context
    describe: Callable[[Summary], str]
    device: str = "cpu"
    dtype: str = "float64"

    @property
    def fingerprint(self) -> str:
        """Equal for equal settings and parents."""
        return fingerprint(self.config, self.parents)

    def is_done(self, *, force: bool | None = None) -> bool:
        """Whether all files are there for the same settings and parents.

        Raises
        ------
        ConflictError
            If the output is there for others, unless forced (default: as the context says).
        """
        force = self.context.force if force is None else force
        if not already_done(self.output, self.fingerprint, force):
            return False
        return all((self.directory.path / name).exists() for name in self._stored()["files"])

    def write(
        self,
        fill: Callable[[h5py.File], None],
        summary: Summary,
        *,
        files: Sequence[Path] = (),
        extra: Mapping[str, Any] | None = None,
        path: Path | None = None,
    ) -> StageResult:
        """Write the HDF5 file in one atomic step, summary and provenance included, and give the result.

        ``files`` are the other files that the stage has written.
        """
        output = path or self.output
        names = [str(file.relative_to(self.directory.path)) for file in (output, *files)]
        summary = {**summary, "seed": self.seed, "temperature": self.temperature, "files": names}

        def fill_all(file: h5py.File) -> None:
            fill(file)
            fill_provenance(
                file,
                stage=self.name,
                command_line=self.context.command_line,
                config=self.config,
                seeds={"seed": self.seed},
                temperature=self.temperature,
                inputs=self.parents,
                device=self.device,
                dtype=self.dtype,
                extra={**(extra or {}), "summary": json.dumps(summary)},
            )

        write_hdf5(output, fill_all)
        return self._result(summary, skipped=False)

    def skipped(self) -> StageResult:
        """The result of a stage that has nothing to do: the stored one."""
        return self._result(self._stored(), skipped=True)

    def _result(self, summary: Summary, *, skipped: bool) -> StageResult:
        path = self.directory.path
        shown = {**summary, "files": [str(path / name) for name in summary["files"]]}
        note = f"{self.output} is there already for the same inputs; --force redoes it.\n" if skipped else ""
        return StageResult(self.name, path, skipped, shown, note + self.describe(shown))

    def _stored(self) -> Summary:
        return stored_summary(self.output)


def stored_summary(path: Path) -> Summary:
    """The summary that a stage left in its file; names of files are relative to the run directory."""
    return json.loads(read_provenance(path).extra["summary"])


@contextmanager
def writing(directory: RunDirectory, *, lock: bool = True) -> Iterator[None]:
    """Make the run directory and hold it for this process; shards are written side by side without a lock."""
    directory.create()
    if not lock:
        yield
        return
    with directory.lock():
        yield
