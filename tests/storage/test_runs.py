"""Outputs that are mixed up, overwritten or used by two processes at once."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import pytest

from boltzgen.constants import GAS_CONSTANT
from boltzgen.errors import ConflictError, InputError, StorageError
from boltzgen.storage.atomic import sha256_of, write_hdf5
from boltzgen.storage.runs import (
    SCHEMA_VERSION,
    RunDirectory,
    already_done,
    check_parent,
    fill_provenance,
    fingerprint,
    read_provenance,
)

CONFIG: dict[str, Any] = {"seed": 3, "temperature": 300.0, "flow": {"layers": 8, "name": "ψ"}, "budget": None}


@pytest.fixture
def parent(tmp_path: Path) -> Path:
    path = tmp_path / "system.h5"
    path.write_bytes(b"a parent")
    return path


@pytest.fixture
def child(tmp_path: Path, parent: Path) -> Path:
    path = tmp_path / "flow.h5"

    def fill(file: h5py.File) -> None:
        fill_provenance(
            file,
            stage="train",
            command_line="boltzgen train mol.run --seed 3",
            config=CONFIG,
            seeds={"train": 2**63 + 1},
            temperature=300.0,
            inputs={parent.name: sha256_of(parent)},
            device="cpu",
            dtype="float32",
            extra={"input": "ATOM\n" * 20_000, "n_energies": 5},
        )

    write_hdf5(path, fill)
    return path


def test_provenance_survives(child: Path, parent: Path) -> None:
    provenance = read_provenance(child)
    assert provenance.config == CONFIG
    assert provenance.parents == {"system.h5": sha256_of(parent)}
    assert provenance.seeds == {"train": 2**63 + 1}
    assert provenance.extra == {"input": "ATOM\n" * 20_000, "n_energies": 5}
    assert provenance.kT == GAS_CONSTANT * 300.0
    assert (provenance.stage, provenance.device, provenance.dtype) == ("train", "cpu", "float32")
    assert provenance.command_line == "boltzgen train mol.run --seed 3"
    assert {"python", "numpy", "h5py", "torch", "kernels"} <= provenance.libraries.keys()
    assert provenance.created_utc.endswith("+00:00")


def test_changed_or_foreign_parent_is_a_conflict(child: Path, parent: Path) -> None:
    provenance = read_provenance(child)
    check_parent(provenance, parent)
    other = parent.with_name("other.h5")
    other.write_bytes(parent.read_bytes())
    with pytest.raises(ConflictError, match="not made from"):
        check_parent(provenance, other)
    parent.write_bytes(b"another parent")
    with pytest.raises(ConflictError, match="changed since"):
        check_parent(provenance, parent)


def test_work_is_skipped_only_for_equal_inputs(child: Path, parent: Path) -> None:
    parents = {parent.name: sha256_of(parent)}
    same = fingerprint(dict(reversed(CONFIG.items())), parents)
    assert already_done(child, same, force=False)
    assert not already_done(child, same, force=True)
    assert not already_done(child.with_name("missing.h5"), same, force=False)
    for other in (fingerprint({**CONFIG, "seed": 4}, parents), fingerprint(CONFIG, {parent.name: "0" * 64})):
        with pytest.raises(ConflictError, match="--force"):
            already_done(child, other, force=False)


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({}, "was not written by boltzgen"),
        ({"format": "another program", "schema_version": 2}, "was not written by boltzgen"),
        ({"format": "boltzgen-sampler", "schema_version": SCHEMA_VERSION + 1}, "newer"),
        ({"format": "boltzgen-sampler", "schema_version": 3}, "format version 3, which is no longer read"),
        ({"format": "boltzgen-sampler"}, "incomplete"),
        ({"format": "boltzgen-sampler", "schema_version": SCHEMA_VERSION, "config": "{"}, "incomplete"),
    ],
)
def test_other_files_are_bad_input(tmp_path: Path, attributes: dict[str, Any], message: str) -> None:
    path = tmp_path / "flow.h5"
    with h5py.File(path, "w") as file:
        file.create_group("boltzgen").attrs.update(attributes)
    with pytest.raises(InputError, match=message):
        read_provenance(path)


HOLD = """
import sys, time
from pathlib import Path
from boltzgen.storage.runs import RunDirectory
with RunDirectory(Path(sys.argv[1])).lock():
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_live_run_keeps_others_out_and_a_killed_one_does_not(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(ConflictError, match=f"process {holder.pid}"), run.lock():
            pass
        holder.send_signal(signal.SIGKILL)
    with run.lock():
        pass
    with run.lock():  # released at the end of the block, not only at death
        pass


def test_an_error_of_the_work_is_not_taken_for_one_of_the_lock(tmp_path: Path) -> None:
    with pytest.raises(BrokenPipeError), RunDirectory(tmp_path).lock():
        raise BrokenPipeError


def test_default_name_is_in_the_current_folder() -> None:
    for name in ("data/1abc.model.pdb", "1abc.model.pdb.gz"):
        assert RunDirectory.default_for(Path(name)).path == Path("1abc.model.run")
    assert RunDirectory(Path("mol.run")).system_h5 == Path("mol.run/system.h5")


@pytest.mark.parametrize("name", ["missing/mol.run", "file", "file/mol.run"])
def test_unusable_output_is_found_before_work_starts(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot be used for output"):
        RunDirectory(tmp_path / name).create()


def test_create_leaves_an_existing_run_alone(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "mol.run")
    run.create()
    run.log_txt.write_text("before")
    run.create()
    assert [path.name for path in run.path.iterdir()] == ["log.txt"]


def test_shards_count_only_when_complete(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    with pytest.raises(InputError, match="holds no samples"):
        run.sample_files()
    run.shard_h5(1, 3).touch()
    run.shard_h5(3, 3).touch()
    with pytest.raises(InputError, match=r"lacks samples-00002-of-00003\.h5"):
        run.sample_files()
    run.shard_h5(2, 3).touch()
    assert run.sample_files() == [run.shard_h5(index, 3) for index in (1, 2, 3)]
    run.shard_h5(1, 4).touch()
    with pytest.raises(InputError, match="several sets"):
        run.sample_files()


def test_one_file_of_samples(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    run.samples_h5.touch()
    assert run.sample_files() == [run.samples_h5]
