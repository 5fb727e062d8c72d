"""Nested dictionaries of arrays and plain values as HDF5 groups, and back without loss.

Each value becomes one dataset whose attribute ``kind`` says what it was::

    put_tree(file.create_group("flow"), {"weights": {"net.0.bias": bias}, "depth": 8, "base": "normal"})
    get_tree(file["flow"])["weights"]["net.0.bias"]
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import h5py
import numpy as np

from boltzgen.errors import InputError
from boltzgen.storage.atomic import read_array

CHUNK_BYTES = 2**20
"""Largest chunk: what HDF5 keeps uncompressed in its default cache, so that reading row by row stays fast."""


def put_array(group: h5py.Group, name: str, array: np.ndarray, max_rows: int | None = None) -> h5py.Dataset:
    """Write an array in chunks with gzip-1, shuffle and a fletcher32 checksum.

    Parameters
    ----------
    array
        Any shape ``(n, ...)`` with at least one axis. An array without elements is stored without chunks, as
        there is nothing to check.
    max_rows
        Most entries along the first axis in one chunk; chunks also stay below 1 MiB.
    """
    if array.size == 0:
        return group.create_dataset(name, data=array)
    rows = max(1, CHUNK_BYTES // (array.nbytes // array.shape[0]))
    chunk = (min(rows, array.shape[0], max_rows or rows), *array.shape[1:])
    return group.create_dataset(
        name, data=array, chunks=chunk, compression="gzip", compression_opts=1, shuffle=True, fletcher32=True
    )


def put_tree(group: h5py.Group, tree: Mapping[str, Any]) -> None:
    """Write a nested mapping into an HDF5 group.

    Parameters
    ----------
    tree
        Values are mappings of the same sort, numpy arrays or scalars (boolean, integer, real or complex),
        ``str``, ``int`` (64 bits), ``float``, ``bool``, ``None``, or lists of ``str``. Keys may contain dots.

    Raises
    ------
    TypeError
        If a value is of another type.
    ValueError
        If a key is empty, is ``.`` or contains a slash.
    """
    for key, value in tree.items():
        if key in ("", ".") or "/" in key:
            raise ValueError(f"{key!r} cannot name an HDF5 object")
        if isinstance(value, Mapping):
            put_tree(group.create_group(key), value)
        else:
            kind, array = _encode(key, value)
            put_array(group, key, array).attrs["kind"] = kind


def get_tree(group: h5py.Group) -> dict[str, Any]:
    """Read what :func:`put_tree` wrote, keys in alphabetical order, numpy scalars as arrays of shape ``()``.

    Raises
    ------
    InputError
        If the group holds something else, or its data are damaged.
    """
    return {key: get_tree(item) if isinstance(item, h5py.Group) else _decode(item) for key, item in group.items()}


def _encode(key: str, value: Any) -> tuple[str, np.ndarray]:
    """Return the ``kind`` and an array with an axis: HDF5 has checksums only for chunked data."""
    if isinstance(value, np.ndarray | np.generic):
        array = np.asarray(value)
        if array.dtype.kind not in "biufc":
            raise TypeError(f"{key}: arrays of {array.dtype} cannot be stored")
        return ("array", array) if array.ndim else ("scalar", array.reshape(1))
    if isinstance(value, str):
        return "text", _bytes(value)
    if isinstance(value, bool):
        return "bool", np.array([value])
    if isinstance(value, int):
        return "int", np.array([value], dtype=np.int64)
    if isinstance(value, float):
        return "float", np.array([value], dtype=np.float64)
    if value is None:
        return "none", np.zeros(1, dtype=np.uint8)
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return "texts", _bytes(json.dumps(value))
    raise TypeError(f"{key}: {type(value).__name__} cannot be stored")


def _decode(dataset: h5py.Dataset) -> Any:
    array = read_array(dataset)
    try:
        match dataset.attrs["kind"]:
            case "array":
                return array
            case "scalar":
                return array.reshape(())
            case "text":
                return array.tobytes().decode()
            case "texts":
                return json.loads(array.tobytes())
            case "int" | "float" | "bool":
                return array[0].item()
            case "none":
                return None
            case kind:
                raise ValueError(f"unknown kind {kind}")
    except (KeyError, ValueError, IndexError) as error:
        raise InputError(
            f"{dataset.file.filename}: {dataset.name} is not as boltzgen writes it. Make the file again."
        ) from error


def _bytes(text: str) -> np.ndarray:
    return np.frombuffer(text.encode(), dtype=np.uint8)
