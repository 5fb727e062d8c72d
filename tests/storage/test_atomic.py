"""Failures while writing, and files that must not be trusted."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from boltzgen.errors import BoltzgenError, InputError, StorageError
from boltzgen.storage.atomic import SEAL_LENGTH, atomic_write, open_hdf5, read_array, sha256_of, write_hdf5
from boltzgen.storage.tree import get_tree, put_tree


@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str) -> None:
    path = tmp_path / "flow.h5"
    atomic_write(path, b"old")

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, function, fail)
    with pytest.raises(StorageError, match=r"flow\.h5.*No space left"):
        atomic_write(path, b"new")
    assert path.read_bytes() == b"old"
    assert [item.name for item in tmp_path.iterdir()] == ["flow.h5"]


def test_failure_while_filling_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "flow.h5"
    atomic_write(path, b"old")

    def fill(file: h5py.File) -> None:
        file["half"] = np.ones(1000)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_hdf5(path, fill)
    assert path.read_bytes() == b"old"


def test_missing_folder_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="No such file"):
        atomic_write(tmp_path / "missing" / "flow.h5", b"")


def test_others_may_read_what_the_umask_allows(tmp_path: Path) -> None:
    plain, atomic = tmp_path / "plain", tmp_path / "atomic"
    plain.write_bytes(b"")
    atomic_write(atomic, b"")
    assert atomic.stat().st_mode == plain.stat().st_mode


def test_a_flipped_bit_anywhere_never_changes_what_is_read(tmp_path: Path) -> None:
    path, tree = tmp_path / "flow.h5", {"weights": {"name": "spline" * 50, "scale": 0.5}}
    write_hdf5(path, lambda file: put_tree(file, tree))
    good = path.read_bytes()
    refused, positions = 0, range(0, len(good), 7)
    for position in positions:
        bad = bytearray(good)
        bad[position] ^= 0x10
        path.write_bytes(bad)
        try:
            with open_hdf5(path) as file:
                assert get_tree(file) == tree
        except InputError:
            refused += 1
    # Only a flip in the first 16 bytes of the seal, at most three positions of this stride, goes unseen:
    # it hides the seal and leaves the content alone.
    assert refused >= len(positions) - 3


def test_a_flipped_byte_is_found_without_a_seal(tmp_path: Path) -> None:
    path, data = tmp_path / "flow.h5", np.random.default_rng(0).integers(0, 256, 4000, dtype=np.uint8)
    write_hdf5(path, lambda file: put_tree(file, {"data": data}))
    with open_hdf5(path) as file:
        chunk = file["data"].id.get_chunk_info(0)
    bad = bytearray(path.read_bytes()[:-SEAL_LENGTH])
    bad[chunk.byte_offset + chunk.size // 2] ^= 1
    path.write_bytes(bad)
    with open_hdf5(path) as file, pytest.raises(InputError, match=r"flow\.h5 is damaged \(at /data\)"):
        read_array(file["data"])


def test_a_file_that_another_program_edited_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "flow.h5"
    write_hdf5(path, lambda file: put_tree(file, {"a": 1}))
    with h5py.File(path, "r+") as file:
        file.attrs["note"] = "edited"
    with open_hdf5(path) as file:
        assert get_tree(file) == {"a": 1}


def external_link(file: h5py.File) -> None:
    file["data"] = h5py.ExternalLink("/etc/passwd", "/")


def external_link_in_group(file: h5py.File) -> None:
    file.create_group("a/b")["data"] = h5py.ExternalLink("other.h5", "/x")


def external_storage(file: h5py.File) -> None:
    file.create_dataset("data", (8,), dtype="u1", external=[("/etc/passwd", 0, 8)])


def virtual_dataset(file: h5py.File) -> None:
    layout = h5py.VirtualLayout(shape=(8,), dtype="u1")
    layout[:] = h5py.VirtualSource("other.h5", "x", shape=(8,))
    file.create_virtual_dataset("data", layout)


def other_filter(file: h5py.File) -> None:
    file.create_dataset("data", data=np.ones(100), compression="lzf")


def huge_claim(file: h5py.File) -> None:
    dataset = file.create_dataset("data", (2**38,), dtype="f8", chunks=(1024,), compression="gzip")
    dataset[0] = 1.0


@pytest.mark.parametrize(
    "fill",
    [
        external_link,
        external_link_in_group,
        external_storage,
        virtual_dataset,
        other_filter,
        huge_claim,
    ],
)
def test_crafted_files_are_refused(tmp_path: Path, fill: Callable[[h5py.File], None]) -> None:
    path = tmp_path / "crafted.h5"
    with h5py.File(path, "w") as file:
        fill(file)
    with pytest.raises(InputError, match=r"crafted\.h5 is refused: .*data"), open_hdf5(path):
        pass


def test_links_inside_the_file_are_fine(tmp_path: Path) -> None:
    path = tmp_path / "links.h5"
    with h5py.File(path, "w") as file:
        file["a/data"] = np.ones(3)
        file["hard"], file["soft"], file["dangling"] = (
            file["a"],
            h5py.SoftLink("/a/data"),
            h5py.SoftLink("/nowhere"),
        )
        file["a/type"] = np.dtype("f8")
        file["a/b/loop"] = file["a"]  # must not be followed for ever
    with open_hdf5(path) as file:
        assert file["soft"][2] == 1.0


def text_file(path: Path) -> None:
    path.write_text("ATOM      1  N   ALA A   1")


def empty_file(path: Path) -> None:
    path.touch()


def truncated_file(path: Path) -> None:
    write_hdf5(path, lambda file: put_tree(file, {"data": np.arange(1000)}))
    path.write_bytes(path.read_bytes()[:-1000])


def missing_file(path: Path) -> None:
    pass


def folder(path: Path) -> None:
    path.mkdir()


def pipe(path: Path) -> None:
    os.mkfifo(path)


@pytest.mark.parametrize("make", [text_file, empty_file, truncated_file, missing_file, folder, pipe])
def test_what_is_no_hdf5_file_is_one_line(tmp_path: Path, make: Callable[[Path], None]) -> None:
    path = tmp_path / "input.h5"
    make(path)
    with pytest.raises(InputError, match=r"^[^\n]*input\.h5[^\n]*$"), open_hdf5(path):
        pass


@pytest.mark.skipif(os.geteuid() == 0, reason="permissions do not bind the superuser")
def test_unreadable_file_is_a_storage_error(tmp_path: Path) -> None:
    path = tmp_path / "secret.h5"
    write_hdf5(path, lambda file: put_tree(file, {"a": 1}))
    path.chmod(0)
    with pytest.raises(StorageError, match="Permission"):
        sha256_of(path)


def test_hash_of_a_missing_file_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(BoltzgenError, match="does not exist"):
        sha256_of(tmp_path / "missing")
