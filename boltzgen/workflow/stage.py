"""What all commands share: their context, their result, and how a stage writes its file."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py

from boltzgen.progress import Reporter, SilentReporter
from boltzgen.storage.atomic import write_hdf5
from boltzgen.storage.runs import RunDirectory, already_done, fill_provenance, fingerprint


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
        """Time of the monotonic clock at which to stop with a checkpoint."""
        return None if self.max_time is None else self.started + self.max_time

    @property
    def seconds(self) -> float:
        """Seconds since the command began."""
        return time.monotonic() - self.started


@dataclass(frozen=True)
class StageResult:
    """What a command did: ``summary`` holds the keys that ``--json`` promises, ``text`` is for people."""

    command: str
    run: Path
    skipped: bool
    summary: dict[str, Any]
    text: str
    exit_code: int = 0


@dataclass(frozen=True)
class Stage:
    """The identity of one stage of one run: its settings, its parents, and its output file."""

    name: str
    output: Path
    config: dict[str, Any]
    parents: dict[str, str]
    temperature: float
    seed: int
    context: Context
    device: str = "cpu"

    def is_done(self) -> bool:
        """Whether the output is there for the same settings and parents; ConflictError if it is there for others."""
        return already_done(self.output, fingerprint(self.config, self.parents), self.context.force)

    def write(self, fill: Callable[[h5py.File], None], extra: Mapping[str, Any], path: Path | None = None) -> None:
        """Write an HDF5 file of this stage, provenance included, in one atomic step."""

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
                dtype="float64",
                extra=extra,
            )

        write_hdf5(path or self.output, fill_all)


@contextmanager
def writing(directory: RunDirectory, *, lock: bool = True) -> Iterator[None]:
    """Make the run directory and hold it for this process; shards are written side by side without a lock."""
    directory.create()
    if not lock:
        yield
        return
    with directory.lock():
        yield


def already_there(command: str, directory: RunDirectory, output: Path) -> StageResult:
    """The result of a stage that has nothing to do."""
    text = f"{output} is there already for the same inputs. Nothing to do; --force redoes it."
    return StageResult(command, directory.path, True, {"files": [str(output)]}, text)
