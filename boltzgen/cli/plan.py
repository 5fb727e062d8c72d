"""What a command line asks for, checked before anything heavy is imported and before anything is written."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boltzgen.errors import ConflictError, InputError, StorageError

if TYPE_CHECKING:
    from boltzgen.config import Config
    from boltzgen.workflow import Context, Result

STAGES = ("prepare", "train", "sample", "reweight", "analyze")

SIGNS_OF_SMILES = frozenset("()[]=#@")
"""Characters that names of files seldom have."""


@dataclass(frozen=True)
class Plan:
    """A checked command: the stages that it runs in the directory `run`, if any, and the function that does it.

    `preview` reads the input and tells what the command would do with it, if it takes a molecule.
    """

    run: Path | None
    stages: tuple[str, ...]
    call: Callable[[Any, Config, Context], Result]  # the first argument is the module boltzgen.workflow
    resume: bool = True
    max_time: float | None = None
    preview: Callable[[Any, Config, Context], Result] | None = None

    def files(self, config: Config) -> list[str]:
        """The files that the command writes where they are not there yet."""
        if self.run is None:
            return []
        samples = "samples.h5"
        if config.sample.shard:
            part, total = (int(number) for number in config.sample.shard.split("/"))
            samples = f"samples-{part:05d}-of-{total:05d}.h5"
        elif config.sample.add:
            samples = f"samples-seed-{config.seed:010d}.h5"
        names = {
            "prepare": ["system.h5", "system.pdb", "system.xml"],
            "train": ["flow.h5", "metrics.csv"],
            "sample": [samples],
            "reweight": ["ensemble.h5"],
            "md": ["md.h5"],
            "analyze": ["analysis.h5", "report.html", "plots/*.png", "*.csv", "representatives.pdb"],
        }
        return [str(self.run / name) for stage in self.stages for name in names[stage]]


def new_run(source: str | None, smiles: str | None, output: Path | None) -> Path:
    """The run directory for a molecule, after checking that the molecule is given and is there.

    Raises
    ------
    boltzgen.errors.InputError
        No molecule, no such file.
    boltzgen.errors.ConflictError
        The output is a file.
    boltzgen.errors.StorageError
        The output cannot be written.
    """
    if source is None and smiles is None:
        raise InputError("no molecule is given. Give a structure file, or --smiles.")
    if source is not None:
        path = Path(source)
        if path.is_dir():
            raise InputError(f"{source}: is a folder. Give a structure file.")
        if not path.exists():
            hint = ", or give a SMILES by --smiles" if set(source) & SIGNS_OF_SMILES else ""
            raise InputError(f"{source}: no such file. Check the path{hint}.")
        if not os.access(path, os.R_OK):
            raise StorageError(f"{source}: cannot be read. Check its permissions.")
    if output is None:
        if source is None:
            raise InputError("--smiles gives the run no name. Add -o NAME.run.")
        output = Path(Path(source.removesuffix(".gz")).stem + ".run")
    _check_writable(output)
    return output


def prepared_or_new(source: str | None, output: Path | None, smiles: str | None) -> tuple[Path, tuple[str, ...]]:
    """The run directory of an INPUT or RUN, and the stages that it needs first; see :func:`new_run`."""
    prepared = source is not None and smiles is None and Path(source).is_dir()
    if prepared and output is not None:
        raise InputError(f"{source}: is a run directory already. Leave -o out.")
    return (Path(str(source)), ()) if prepared else (new_run(source, smiles, output), ("prepare",))


def existing_run(run: Path | None) -> Path:
    """The run directory that was named, after checking that it is there."""
    if run is None:
        raise InputError("no run directory is given. Give one, such as mol.run.")
    if not run.exists():
        raise InputError(f"{run}: no such run directory. Make it with: boltzgen run INPUT.")
    if not run.is_dir():
        raise InputError(f"{run}: is a file. Give a run directory, such as mol.run.")
    return run


def seconds(text: str | None, flag: str) -> float | None:
    """The value of a time flag, in seconds."""
    from boltzgen.config import parse_duration

    if text is None:
        return None
    try:
        value = parse_duration(text)
    except ValueError as error:
        raise InputError(f"{flag} {text}: {error}.") from None
    if not 0 < value < math.inf:
        raise InputError(f"{flag} {text}: must be a time > 0.")
    return float(value)


def _check_writable(run: Path) -> None:
    if run.exists() and not run.is_dir():
        raise ConflictError(f"{run}: is a file. Choose another run directory with -o.")
    if not run.exists() and not run.absolute().parent.is_dir():
        raise StorageError(f"{run}: its parent folder does not exist. Create it first.")
    if not os.access(run if run.exists() else run.absolute().parent, os.W_OK):
        raise StorageError(f"{run}: cannot be written. Choose another run directory with -o.")
