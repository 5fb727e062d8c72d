"""The run directory, and the record in each of its HDF5 files of what made it.

A stage asks whether its output is already there, works, and writes the output with its provenance::

    run = RunDirectory.default_for(Path("mol.pdb"))
    run.create()
    parents = {"mol.pdb": sha256_of(Path("mol.pdb"))}
    if not already_done(run.system_h5, fingerprint(config, parents), force=False):
        with run.lock():
            write_hdf5(run.system_h5, fill)  # fill(file) calls fill_provenance(file, ...)
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TextIO

import h5py

from boltzgen import __version__
from boltzgen.constants import COULOMB, GAS_CONSTANT, thermal_energy
from boltzgen.errors import ConflictError, InputError, StorageError
from boltzgen.native import instruction_set
from boltzgen.storage.atomic import open_hdf5, sha256_of
from boltzgen.storage.tree import get_tree, put_tree

FORMAT = "boltzgen-sampler"
SCHEMA_VERSION = 4

LIBRARIES = "arviz-stats h5py mdtraj numpy openmm openmmforcefields pymbar rdkit scipy torch"


class _Member:
    """A file of a run directory, as its path."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, run: RunDirectory, owner: type[RunDirectory]) -> Path:
        return run.path / self.name


@dataclass(frozen=True)
class RunDirectory:
    """The folder of one run: the paths of its files, its samples, its lock.

    The files are those of the table in ``docs/format.md``, each an attribute with an underscore for the dot,
    such as ``run.system_h5``. None needs to exist.
    """

    path: Path

    @classmethod
    def default_for(cls, input_path: Path) -> RunDirectory:
        """Name the run of an input file: ``any/where/mol.pdb`` and ``mol.pdb.gz`` give ``mol.run``, here."""
        return cls(Path(Path(input_path.name.removesuffix(".gz")).stem + ".run"))

    system_h5 = _Member("system.h5")
    system_pdb = _Member("system.pdb")
    system_xml = _Member("system.xml")
    flow_h5 = _Member("flow.h5")
    metrics_csv = _Member("metrics.csv")
    checkpoint_h5 = _Member("checkpoint.h5")
    samples_h5 = _Member("samples.h5")
    ensemble_h5 = _Member("ensemble.h5")
    analysis_h5 = _Member("analysis.h5")
    report_html = _Member("report.html")
    plots = _Member("plots")
    lost_states_pdb = _Member("lost_states.pdb")
    md_h5 = _Member("md.h5")
    log_txt = _Member("log.txt")

    def shard_h5(self, index: int, count: int) -> Path:
        """Name one shard of the samples, ``index`` from 1 to ``count``."""
        return self.path / f"samples-{index:05d}-of-{count:05d}.h5"

    def seed_h5(self, seed: int) -> Path:
        """Name samples that were drawn beside others, under a seed of their own."""
        return self.path / f"samples-seed-{seed:010d}.h5"

    def sample_files(self) -> list[Path]:
        """List the files that together hold the samples: ``samples.h5`` or all shards in order, then those of seeds.

        Raises
        ------
        InputError
            If there are none, if shards are missing, or if it is unclear which files belong together.
        """
        pattern = re.compile(r"samples-\d{5}-of-(\d{5})\.h5")
        shards = [match for path in self.path.glob("samples-*.h5") if (match := pattern.fullmatch(path.name))]
        counts = {int(match[1]) for match in shards}
        kinds = len(counts) + self.samples_h5.exists()
        added = sorted(self.path.glob("samples-seed-*.h5"))
        if kinds == 0 and added:
            return added
        if kinds == 0:
            raise InputError(f"{self.path} holds no samples. Run `boltzgen sample {self.path}` first.")
        if kinds > 1:
            raise InputError(f"{self.path} holds several sets of samples. Keep one and move the others away.")
        if not counts:
            return [self.samples_h5, *added]
        count = counts.pop()
        files = [self.shard_h5(index, count) for index in range(1, count + 1)]
        missing = [file.name for file in files if not file.exists()]
        if missing:
            listed = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
            raise InputError(f"{self.path} lacks {listed}. Sample the missing shards first.")
        return files + added

    def create(self) -> None:
        """Make the folder if it is missing and see that files can be made in it.

        Raises
        ------
        StorageError
            If the parent folder is missing, something else has the name, or the folder is read-only.
        """
        try:
            self.path.mkdir(exist_ok=True)
            with tempfile.TemporaryFile(dir=self.path):
                pass
        except OSError as error:
            raise StorageError(
                f"{self.path} cannot be used for output: {error.strerror or error}. Choose another with -o."
            ) from error

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run directory for this process alone; the system releases it if the process dies.

        Raises
        ------
        ConflictError
            If another live process holds it.
        StorageError
            If the lock file cannot be made, or the file system has no locks.
        """
        with _locked(self.path / ".lock"):
            yield


@dataclass(frozen=True)
class Provenance:
    """What made a file. ``parents`` maps the name of each input to its SHA-256; ``kT`` is in kJ/mol."""

    path: Path
    schema_version: int
    package_version: str
    stage: str
    created_utc: str
    command_line: str
    config: dict[str, Any]
    parents: dict[str, str]
    fingerprint: str
    seeds: dict[str, int]
    temperature: float
    kT: float  # noqa: N815 - the symbol of the field
    device: str
    dtype: str
    libraries: dict[str, str]
    extra: dict[str, Any]


def fingerprint(config: Mapping[str, Any], parents: Mapping[str, str]) -> str:
    """SHA-256 of a resolved configuration, seeds included, and of the hashes of its inputs.

    Equal fingerprints mean that the work would be done again for the same result.
    """
    text = json.dumps({"config": config, "parents": parents}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def fill_provenance(
    file: h5py.File,
    *,
    stage: str,
    command_line: str,
    config: Mapping[str, Any],
    seeds: Mapping[str, int],
    temperature: float,
    inputs: Mapping[str, str],
    device: str,
    dtype: str,
    extra: Mapping[str, Any],
) -> None:
    """Write the group ``/boltzgen`` with all that is needed to make the file again.

    Parameters
    ----------
    config
        The resolved configuration of the stage, seeds included, of JSON types.
    temperature
        K.
    inputs
        File name (without folders) of each parent and its SHA-256.
    extra
        What else the stage wants to record, as :func:`~boltzgen.storage.tree.put_tree` takes it; kept in
        ``/boltzgen/extra``.
    """
    group = file.require_group("boltzgen")
    attributes: dict[str, str | int | float] = {
        "format": FORMAT,
        "schema_version": SCHEMA_VERSION,
        "package_version": __version__,
        "stage": stage,
        "created_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "command_line": command_line,
        "config": json.dumps(config),
        "parents": json.dumps(inputs),
        "fingerprint": fingerprint(config, inputs),
        "seeds": json.dumps(seeds),
        "temperature": float(temperature),
        "kT": thermal_energy(temperature),
        "gas_constant": GAS_CONSTANT,
        "coulomb_constant": COULOMB,
        "device": device,
        "dtype": dtype,
        "libraries": json.dumps(_library_versions()),
    }
    for name, value in attributes.items():
        group.attrs[name] = value
    put_tree(group.create_group("extra"), extra)


def read_provenance(path: Path) -> Provenance:
    """Read what made a file.

    Raises
    ------
    InputError
        If the file is missing, damaged, of another program, or of a newer version of this format.
    StorageError
        If it cannot be read.
    """
    with open_hdf5(path) as file:
        group = file.get("boltzgen")
        if not isinstance(group, h5py.Group) or group.attrs.get("format") != FORMAT:
            raise InputError(f"{path} was not written by boltzgen. Give a file of a run directory.")
        try:
            schema = int(group.attrs["schema_version"])
            if schema > SCHEMA_VERSION:
                raise InputError(f"{path} has format version {schema}, newer than {SCHEMA_VERSION}. Update boltzgen.")
            if schema < SCHEMA_VERSION:
                raise InputError(f"{path} has format version {schema}, which is no longer read. Make the run anew.")
            return _provenance(path, group)
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise InputError(f"{path} has an incomplete provenance record. Make the file again.") from error


def check_parent(child: Provenance, parent_path: Path) -> None:
    """See that a parent file is the one from which the child was made.

    Raises
    ------
    ConflictError
        If the parent has changed since, or is no parent of the child.
    InputError
        If the parent is missing.
    """
    expected = child.parents.get(parent_path.name)
    if expected is None:
        raise ConflictError(f"{child.path} was not made from {parent_path}. Give the files of one run.")
    if sha256_of(parent_path) != expected:
        raise ConflictError(
            f"{parent_path} has changed since {child.path} was made from it. "
            f"Restore it, or redo the stage {child.stage} with --force."
        )


def already_done(path: Path, fingerprint: str, force: bool) -> bool:
    """Tell whether an output exists for the same configuration and inputs.

    Raises
    ------
    ConflictError
        If it exists for others.
    InputError
        If the existing file is damaged or was not written by boltzgen.
    """
    if force or not path.exists():
        return False
    if read_provenance(path).fingerprint == fingerprint:
        return True
    raise ConflictError(
        f"{path} exists for other inputs or settings. Replace it with --force, or work in another run directory."
    )


def _locked(path: Path) -> TextIO:
    """Open a file that no other process has locked, lock it, and leave this process's number in it."""
    try:
        stream = path.open("a+")
        try:
            fcntl.flock(stream.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            stream.close()
            raise
        stream.truncate(0)
        stream.write(f"{os.getpid()}\n")
        stream.flush()
    except BlockingIOError as error:
        holder = path.read_text().strip()
        who = f" (process {holder})" if holder.isdigit() else ""
        raise ConflictError(
            f"{path.parent} is in use by another run{who}. Wait for it, or work in another run directory."
        ) from error
    except OSError as error:
        raise StorageError(
            f"{path} cannot be locked: {error.strerror or error}. Work in another run directory."
        ) from error
    return stream


def _library_versions() -> dict[str, str]:
    """Versions of Python and of the libraries that are installed, without importing them, and the compiled kernels."""
    versions = {"python": platform.python_version(), "kernels": instruction_set()}
    for name in LIBRARIES.split():
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


def _provenance(path: Path, group: h5py.Group) -> Provenance:
    names = {field.name for field in fields(Provenance)} - {"path", "extra"}
    values = {name: group.attrs[name] for name in names}
    for name in ("schema_version", "temperature", "kT"):
        values[name] = values[name].item()
    for name in ("config", "parents", "seeds", "libraries"):
        values[name] = json.loads(values[name])
    return Provenance(path=path, extra=get_tree(group["extra"]), **values)
