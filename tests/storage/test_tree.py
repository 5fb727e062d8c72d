"""Values that change on their way through a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from boltzgen.errors import InputError
from boltzgen.storage.atomic import open_hdf5, write_hdf5
from boltzgen.storage.tree import get_tree, put_array, put_tree

TREE = {
    "weights": {
        "couplings.0.net.0.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
        "couplings.0.net.0.bias": np.array([np.nan, -np.inf, -0.0]),
        "more than one chunk": np.arange(300_000, dtype=np.float64).reshape(-1, 2),
        "no rows": np.zeros((0, 3), dtype=np.float16),
        "byte order": np.array([1, 2], dtype=">i4"),
        "complex": np.array([1 + 2j], dtype=np.complex64),
        "mask": np.array([[True], [False]]),
        "random state": np.arange(256, dtype=np.uint8),
        "zero-dimensional": np.array(7, dtype=np.int16),
        "empty group": {},
    },
    "text": "Å³ and\ntwo lines\0",
    "empty text": "",
    "names": ["phi:ALA2", "ψ", ""],
    "no names": [],
    "integer": -(2**63),
    "float": 0.1,
    "true": True,
    "false": False,
    "none": None,
}


def assert_same(left: object, right: object) -> None:
    assert type(left) is type(right)
    if isinstance(left, dict):
        assert left.keys() == right.keys()
        for key in left:
            assert_same(left[key], right[key])
    elif isinstance(left, np.ndarray):
        assert left.dtype == right.dtype
        assert left.shape == right.shape
        assert left.tobytes() == right.tobytes()
    else:
        assert left == right


def test_values_and_types_survive(tmp_path: Path) -> None:
    path = tmp_path / "tree.h5"
    write_hdf5(path, lambda file: put_tree(file.create_group("tree"), TREE))
    with open_hdf5(path) as file:
        assert_same(get_tree(file["tree"]), TREE)


def test_everything_with_content_has_a_checksum(tmp_path: Path) -> None:
    path = tmp_path / "tree.h5"
    write_hdf5(path, lambda file: put_tree(file, TREE))
    without: list[str] = []
    with open_hdf5(path) as file:
        file.visititems(
            lambda name, item: without.append(name) if not getattr(item, "fletcher32", True) and item.size else None
        )
    assert without == []


@pytest.mark.parametrize("key", ["a/b", "", "."])
def test_keys_that_hdf5_would_read_as_paths_are_refused(tmp_path: Path, key: str) -> None:
    with pytest.raises(ValueError, match="cannot name"):
        write_hdf5(tmp_path / "tree.h5", lambda file: put_tree(file, {key: 1}))


@pytest.mark.parametrize("value", [object(), [1, 2], np.array(["text"]), Path("x")])
def test_other_types_are_refused_with_their_key(tmp_path: Path, value: object) -> None:
    with pytest.raises(TypeError, match="culprit"):
        write_hdf5(tmp_path / "tree.h5", lambda file: put_tree(file, {"culprit": value}))


def test_foreign_group_is_bad_input(tmp_path: Path) -> None:
    path = tmp_path / "tree.h5"
    write_hdf5(path, lambda file: put_array(file, "plain", np.ones(3)))
    with open_hdf5(path) as file, pytest.raises(InputError, match="/plain"):
        get_tree(file)
