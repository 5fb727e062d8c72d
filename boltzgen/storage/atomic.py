"""Write whole files in one rename, and open HDF5 files without trusting them.

A file is built in memory, written to a temporary name in the same folder and renamed over its final name, so
that a reader sees the old file or the new one and never half of either. An HDF5 file ends in a *seal*, the
SHA-256 of all bytes before it; HDF5 readers ignore bytes after the end that the superblock states, and the
HDF5 library drops them when it changes the file. A worked example::

    write_hdf5(path, lambda file: put_array(file, "energies", energies))
    with open_hdf5(path) as file:
        energies = read_array(file["energies"])
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np

from boltzgen.errors import InputError, StorageError

SEAL = b"boltzgen-sha256:"
"""What the last 80 bytes of a sealed file begin with; the hexadecimal SHA-256 of the rest follows."""

SEAL_LENGTH = len(SEAL) + 64

MAX_CLAIMED_BYTES = 16 * 2**30
"""Largest dataset that may claim far more memory than it takes on disk."""

ALLOWED_FILTERS = (h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32)


def atomic_write(path: Path, data: bytes | memoryview) -> None:
    """Write ``data`` to ``path`` so that the file is complete or, after any failure, as it was before.

    Raises
    ------
    StorageError
        If the disk is full, the folder is missing or read-only, or any other write error.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        try:
            with temporary.open("wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        _sync_folder(path.parent)
    except OSError as error:
        raise StorageError(
            f"{path} cannot be written: {error.strerror or error}. Free space or choose another place."
        ) from error


def write_hdf5(path: Path, fill: Callable[[h5py.File], None]) -> None:
    """Build an HDF5 file in memory with ``fill(file)``, seal it and write it by :func:`atomic_write`.

    HDF5 itself is not safe against a crash, and opening an existing file for writing empties it even when
    another process holds it; in memory neither can happen.

    Raises
    ------
    StorageError
        As :func:`atomic_write`.
    """
    buffer = io.BytesIO()
    # Metadata with checksums, in a form that every HDF5 library since 1.8 can read.
    with h5py.File(buffer, "w", libver=("v108", "v108")) as file:
        fill(file)
    with buffer.getbuffer() as content:
        seal = SEAL + hashlib.sha256(content).hexdigest().encode()
    buffer.seek(0, os.SEEK_END)
    buffer.write(seal)
    atomic_write(path, buffer.getbuffer())


@contextmanager
def open_hdf5(path: Path, max_claimed_bytes: int = MAX_CLAIMED_BYTES) -> Iterator[h5py.File]:
    """Open an HDF5 file read-only, after checking its seal (if it has one) and all that it contains.

    Refused are links and data that live in other files (a crafted file could read any file at hand),
    filters other than gzip, shuffle and fletcher32, and datasets that claim more than ``max_claimed_bytes``
    of memory but take less than a hundredth of it on disk.

    Raises
    ------
    InputError
        If the path is missing, a folder, not HDF5, damaged, or contains something refused.
    StorageError
        If the file cannot be read, for lack of permission for example.
    """
    _check_seal(path)
    try:
        # No HDF5 lock: files are replaced, never changed, and locks fail on some network file systems.
        file = h5py.File(path, "r", locking=False)
    except OSError as error:
        raise InputError(
            f"{path} is not a readable HDF5 file. Check that it is the right file and was copied whole."
        ) from error
    with file:
        try:
            _refuse_unsafe(file, path, max_claimed_bytes)
        except (OSError, RuntimeError, KeyError, UnicodeError) as error:
            raise _damaged(path) from error
        yield file


def read_array(dataset: h5py.Dataset) -> np.ndarray:
    """Read a whole dataset, its chunks verified by their fletcher32 checksums.

    Raises
    ------
    InputError
        If the stored data do not match their checksum.
    """
    try:
        return np.asarray(dataset[()])
    except OSError as error:
        raise _damaged(Path(dataset.file.filename), dataset.name) from error


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of the bytes of a file.

    Raises
    ------
    InputError
        If the path is missing or not a plain file.
    StorageError
        If the file cannot be read.
    """
    with _opened(path) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _sync_folder(folder: Path) -> None:
    """Make a rename in ``folder`` survive a power failure."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _opened(path: Path) -> Iterator[io.BufferedReader]:
    try:
        if path.is_dir():
            raise InputError(f"{path} is a folder. Give a file.")
        if path.exists() and not path.is_file():  # reading a pipe or a device could wait for ever
            raise InputError(f"{path} is not a plain file. Give a file.")
        with path.open("rb") as stream:
            yield stream
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(f"{path} does not exist. Check the path.") from error
    except OSError as error:
        raise StorageError(
            f"{path} cannot be read: {error.strerror or error}. Check its permissions and its disk."
        ) from error


def _check_seal(path: Path) -> None:
    with _opened(path) as stream:
        size = stream.seek(0, os.SEEK_END)
        stream.seek(max(0, size - SEAL_LENGTH))
        seal = stream.read()
        if not seal.startswith(SEAL):  # a file of another program, or one that another program has edited
            return
        stream.seek(0)
        digest, remaining = hashlib.sha256(), size - SEAL_LENGTH
        while remaining and (block := stream.read(min(remaining, 2**20))):
            digest.update(block)
            remaining -= len(block)
    if seal != SEAL + digest.hexdigest().encode():
        raise _damaged(path)


def _damaged(path: Path, where: str = "") -> InputError:
    place = f" (at {where})" if where else ""
    return InputError(f"{path} is damaged{place}: its checksum does not match. Restore it or make it again.")


def _refuse_unsafe(file: h5py.File, path: Path, max_claimed_bytes: int) -> None:
    """Visit every object that hard links reach, once each; soft links lead to nothing else in the file."""
    pending, seen = [file["/"]], set()
    while pending:
        group = pending.pop()
        for name in group:
            where = f"{group.name.rstrip('/')}/{name}"
            kind = group.id.links.get_info(name.encode()).type
            if kind == h5py.h5l.TYPE_SOFT:
                continue
            if kind != h5py.h5l.TYPE_HARD:
                raise _refused(path, where, "is a link to another file")
            item = group[name]
            address = h5py.h5o.get_info(item.id).addr
            if address in seen:
                continue
            seen.add(address)
            if isinstance(item, h5py.Group):
                pending.append(item)
            elif isinstance(item, h5py.Dataset):
                _refuse_unsafe_dataset(item, path, where, max_claimed_bytes)


def _refuse_unsafe_dataset(dataset: h5py.Dataset, path: Path, where: str, max_claimed_bytes: int) -> None:
    properties = dataset.id.get_create_plist()
    if dataset.is_virtual or properties.get_external_count():
        raise _refused(path, where, "keeps its data in another file")
    for index in range(properties.get_nfilters()):
        code, _, _, name = properties.get_filter(index)
        if code not in ALLOWED_FILTERS:
            text = name.decode(errors="replace") or str(code)
            raise _refused(path, where, f"uses the filter {text!r}; allowed are gzip, shuffle, fletcher32")
    claimed = dataset.size * dataset.dtype.itemsize if dataset.shape is not None else 0
    if claimed > max_claimed_bytes and dataset.id.get_storage_size() < claimed / 100:
        raise _refused(path, where, f"claims {claimed / 2**30:.0f} GiB that the file does not hold")


def _refused(path: Path, where: str, reason: str) -> InputError:
    return InputError(f"{path} is refused: {where} {reason}. Use a file from a source that you trust.")
