"""Frames of other programs: units, order of atoms, weights, and refusals that say what is wrong."""

from __future__ import annotations

import json
from dataclasses import replace

import h5py
import mdtraj
import numpy as np
import pytest

from boltzgen.errors import InputError
from boltzgen.storage.atomic import write_hdf5
from boltzgen.storage.frames import read_frames
from boltzgen.storage.trajectory import Frames, fill_trajectory, write_pdb


@pytest.fixture(scope="module")
def molecule(dipeptide):
    return dipeptide.molecule


@pytest.fixture(scope="module")
def positions(dipeptide):
    rng = np.random.default_rng(0)
    return dipeptide.positions[None] + rng.normal(0.0, 0.01, (7, *dipeptide.positions.shape))


@pytest.fixture
def trajectory(molecule, positions, tmp_path):
    write_pdb(tmp_path / "top.pdb", molecule, positions[:1])
    topology = mdtraj.load_pdb(str(tmp_path / "top.pdb"), standard_names=False).topology
    return mdtraj.Trajectory(positions, topology)


def own_file(path, molecule, positions, temperature=300.0):
    n = len(positions)
    u = np.linspace(-5.0, 5.0, n)
    frames = Frames(positions.astype(np.float32), np.zeros(n), u, -u)
    write_hdf5(path, lambda file: fill_trajectory(file, molecule, frames, temperature))
    return path


@pytest.mark.parametrize(("name", "precision"), [("x.h5", 1e-6), ("x.dcd", 1e-6), ("x.xtc", 5.1e-4), ("x.pdb", 5.1e-5)])
def test_every_format_gives_nanometres(trajectory, molecule, positions, tmp_path, name, precision):
    """Precisions: float32; xtc keeps 0.001 nm, PDB 0.0001 nm. DCD and PDB are in ångström."""
    trajectory.save(str(tmp_path / name))
    frames = read_frames(tmp_path / name, molecule, 300.0)
    assert np.abs(frames.positions - positions).max() < precision
    assert not frames.weighted
    assert not frames.reordered
    assert np.array_equal(frames.log_weight, np.zeros(7))


@pytest.mark.parametrize("name", ["x.h5", "x.pdb"])
def test_atoms_in_another_order_are_matched_by_their_names(trajectory, molecule, positions, tmp_path, name):
    """Also hydrogens, which the elements alone would not tell apart."""
    topology, order = mdtraj.Topology(), []
    chain = topology.add_chain()
    for residue in trajectory.topology.residues:
        copy = topology.add_residue(residue.name, chain, resSeq=residue.resSeq + 10)
        for atom in reversed(list(residue.atoms)):
            topology.add_atom(atom.name, atom.element, copy)
            order.append(atom.index)
    mdtraj.Trajectory(trajectory.xyz[:, order], topology).save(str(tmp_path / name))
    frames = read_frames(tmp_path / name, molecule, 300.0)
    assert frames.reordered
    assert np.abs(frames.positions - positions).max() < 5.1e-5


def test_weights_come_along_and_must_be_for_the_temperature_of_the_run(molecule, positions, tmp_path):
    path = own_file(tmp_path / "own.h5", molecule, positions)
    frames = read_frames(path, molecule, 300.0)
    assert frames.weighted
    assert np.array_equal(frames.log_weight, np.linspace(5.0, -5.0, 7))
    with pytest.raises(InputError, match=r"weights are for 300 K, the run is at 310 K"):
        read_frames(path, molecule, 310.0)


def test_the_first_atom_that_differs_is_named(molecule, positions, tmp_path):
    other = replace(
        molecule,
        atomic_numbers=(*molecule.atomic_numbers[:4], 16, *molecule.atomic_numbers[5:]),
        atom_names=(*molecule.atom_names[:4], "SX", *molecule.atom_names[5:]),
    )
    path = own_file(tmp_path / "other.h5", other, positions)
    with pytest.raises(InputError, match=rf"atom 5 is S \(SX\), in system.pdb \w+ \({molecule.atom_names[4]}\)"):
        read_frames(path, molecule, 300.0)


def test_another_number_of_atoms_is_refused_whatever_the_format(trajectory, molecule, tmp_path):
    fewer = trajectory.atom_slice(range(20))
    for name in ("x.h5", "x.pdb", "x.dcd", "x.xtc"):
        fewer.save(str(tmp_path / name))
        with pytest.raises(InputError) as caught:
            read_frames(tmp_path / name, molecule, 300.0)
        assert "22" in str(caught.value)
        assert "\n" not in str(caught.value)


def test_what_is_no_trajectory_is_refused_in_one_line(trajectory, molecule, tmp_path):
    (tmp_path / "folder.h5").mkdir()
    (tmp_path / "text.h5").write_text("no HDF5")
    (tmp_path / "text.dcd").write_text("no DCD")
    (tmp_path / "text.xtc").write_text("no XTC")
    (tmp_path / "empty.pdb").write_text("")
    (tmp_path / "x.txt").write_text("x")
    trajectory.save(str(tmp_path / "whole.dcd"))
    (tmp_path / "cut.dcd").write_bytes((tmp_path / "whole.dcd").read_bytes()[:150])
    with h5py.File(tmp_path / "bare.h5", "w") as file:
        file["x"] = 1
    with h5py.File(tmp_path / "odd.h5", "w") as file:
        file["coordinates"] = np.zeros((1, 22, 3))
        file["topology"] = np.array([json.dumps({"chains": 3}).encode()])
    for name in (
        *("none.h5", "folder.h5", "text.h5", "text.dcd", "text.xtc", "empty.pdb", "x.txt", "cut.dcd", "bare.h5"),
        "odd.h5",
    ):
        with pytest.raises(InputError) as caught:
            read_frames(tmp_path / name, molecule, 300.0)
        assert name in str(caught.value)
        assert "\n" not in str(caught.value)


def test_coordinates_in_other_units_are_refused(molecule, positions, trajectory, tmp_path):
    trajectory.save(str(tmp_path / "x.h5"))
    with h5py.File(tmp_path / "x.h5", "r+") as file:
        file["coordinates"].attrs["units"] = np.bytes_("angstroms")
    with pytest.raises(InputError, match="in nanometers"):
        read_frames(tmp_path / "x.h5", molecule, 300.0)
