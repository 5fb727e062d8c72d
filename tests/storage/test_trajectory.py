"""Foreign readers that see other numbers than ours."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import h5py
import MDAnalysis
import mdtraj
import numpy as np
import pytest
import tables

from boltzgen.constants import GAS_CONSTANT
from boltzgen.errors import InputError
from boltzgen.molecule import Molecule
from boltzgen.storage.atomic import write_hdf5
from boltzgen.storage.trajectory import Frames, fill_trajectory, read_molecule, read_trajectory, write_pdb

FLOAT32_STEP = 2.0**-23  # positions pass through one multiplication by 10 in float32


def test_round_trip(samples_h5: Path, molecule: Molecule, frames: Frames) -> None:
    read = read_trajectory(samples_h5)
    for name in ("positions", "log_prob", "reduced_potential", "log_weight"):
        array, expected = getattr(read, name), getattr(frames, name)
        assert array.dtype == expected.dtype
        np.testing.assert_array_equal(array, expected)
    assert read_molecule(samples_h5) == molecule


def test_mdtraj(samples_h5: Path, molecule: Molecule, frames: Frames) -> None:
    trajectory = mdtraj.load(str(samples_h5))
    np.testing.assert_array_equal(trajectory.xyz, frames.positions)
    np.testing.assert_array_equal(trajectory.time, np.arange(len(frames.positions)))
    atoms = list(trajectory.topology.atoms)
    assert tuple(atom.name for atom in atoms) == molecule.atom_names
    assert tuple(atom.element.number for atom in atoms) == molecule.atomic_numbers
    assert tuple(atom.residue.index for atom in atoms) == molecule.residue_of_atom
    assert tuple(residue.name for residue in trajectory.topology.residues) == molecule.residue_names
    assert tuple((one.index, other.index) for one, other in trajectory.topology.bonds) == molecule.bonds


def test_mdtraj_energies(samples_h5: Path, frames: Frames, temperature: float) -> None:
    with mdtraj.formats.HDF5TrajectoryFile(str(samples_h5)) as file:
        energies = file.read().potentialEnergy
    np.testing.assert_allclose(energies, frames.reduced_potential * GAS_CONSTANT * temperature, rtol=1e-14, atol=0)


def test_mdanalysis(samples_h5: Path, molecule: Molecule, frames: Frames) -> None:
    pdb = samples_h5.with_name("system.pdb")
    write_pdb(pdb, molecule, frames.positions[:1])
    universe = MDAnalysis.Universe(str(pdb), str(samples_h5), format="H5MD")
    assert len(universe.trajectory) == len(frames.positions)
    for index in (0, 1023, 1024, 1099):  # both sides of the border of two chunks
        step = universe.trajectory[index]
        np.testing.assert_allclose(step.positions, frames.positions[index] * 10, rtol=2 * FLOAT32_STEP, atol=0)
        assert step.data["log_weight"] == frames.log_weight[index]
        assert step.data["log_prob"] == frames.log_prob[index]
        assert step.data["reduced_potential"] == frames.reduced_potential[index]
        assert step.time == index
    assert {tuple(sorted(bond)) for bond in universe.bonds.indices} == set(molecule.bonds)


@pytest.mark.filterwarnings("error")
def test_pytables_and_h5py(samples_h5: Path, molecule: Molecule, frames: Frames) -> None:
    with tables.open_file(str(samples_h5)) as file:
        for leaf in file.walk_nodes("/", "Leaf"):  # PyTables warns where it cannot load one
            leaf.read()
        np.testing.assert_array_equal(file.root.connectivity.bonds[:], molecule.bonds)
        np.testing.assert_array_equal(file.root.coordinates[:], frames.positions)
        np.testing.assert_array_equal(file.root.observables.log_weight.value[:], frames.log_weight)
    with h5py.File(samples_h5) as file:
        np.testing.assert_array_equal(file["particles/trajectory/position/value"], frames.positions)
        assert file["particles/trajectory/position/value"] == file["coordinates"], "stored twice"
        weight = file["observables/log_weight/value"]
        assert "log_weight = -reduced_potential - log_prob" in weight.attrs["meaning"]
        assert weight.dtype == np.float64
        assert file["coordinates"].chunks[0] == 1024


def test_writing_needs_neither_pytables_nor_mdtraj() -> None:
    code = "import boltzgen.storage.trajectory, sys; sys.exit(bool({'tables', 'mdtraj', 'torch'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_failed_energies_and_no_frames_at_all(tmp_path: Path, molecule: Molecule, frames: Frames) -> None:
    infinite = np.array([np.inf])
    one = Frames(frames.positions[:1], frames.log_prob[:1], infinite, -infinite, inner=8, refine=3)
    none = Frames(*(column[:0] for column in (frames.positions, frames.log_prob, infinite, infinite)))
    for expected in (one, none):
        path = tmp_path / "samples.h5"
        write_hdf5(path, lambda file, it=expected: fill_trajectory(file, molecule, it, 300.0))
        read = read_trajectory(path)
        np.testing.assert_array_equal(read.log_weight, expected.log_weight)
        assert read.positions.shape == expected.positions.shape
        assert (read.inner, read.refine) == (expected.inner, expected.refine)


def test_large_molecules_keep_chunks_within_the_default_cache(tmp_path: Path, molecule: Molecule) -> None:
    columns = ("atomic_numbers", "masses", "atom_names", "residue_of_atom")
    large = replace(molecule, **{name: getattr(molecule, name) * 15 for name in columns})
    frames = Frames(np.zeros((2000, large.n_atoms, 3), np.float32), *np.zeros((3, 2000)))
    path = tmp_path / "samples.h5"
    write_hdf5(path, lambda file: fill_trajectory(file, large, frames, 300.0))
    with h5py.File(path) as file:
        assert np.prod(file["coordinates"].chunks) * 4 <= 2**20


def test_shapes_that_do_not_match_are_refused(frames: Frames) -> None:
    with pytest.raises(InputError, match="do not belong together"):
        replace(frames, log_weight=frames.log_weight[:-1])


def test_frames_of_another_molecule_are_refused(tmp_path: Path, molecule: Molecule, frames: Frames) -> None:
    other = replace(frames, positions=frames.positions[:, 1:])
    with pytest.raises(InputError, match="11 atoms cannot be of a molecule of 12"):
        write_hdf5(tmp_path / "samples.h5", lambda file: fill_trajectory(file, molecule, other, 300.0))


def test_trajectory_without_weights_is_bad_input(tmp_path: Path, frames: Frames) -> None:
    path = tmp_path / "foreign.h5"
    topology = mdtraj.Topology()
    residue = topology.add_residue("ARG", topology.add_chain())
    for _ in range(frames.positions.shape[1]):
        topology.add_atom("AR", mdtraj.element.argon, residue)
    mdtraj.Trajectory(frames.positions[:3], topology).save_hdf5(str(path))
    with pytest.raises(InputError, match="log_prob"):
        read_trajectory(path)
    with pytest.raises(InputError, match="no molecule"):
        read_molecule(path)


def test_pdb_is_read_as_it_was_meant(tmp_path: Path, molecule: Molecule, frames: Frames) -> None:
    path = tmp_path / "representatives.pdb"
    write_pdb(path, molecule, frames.positions[:3])
    trajectory = mdtraj.load(str(path), standard_names=False)
    np.testing.assert_allclose(trajectory.xyz, frames.positions[:3], rtol=0, atol=0.51e-4)  # PDB: 0.001 Å
    assert tuple(atom.name for atom in trajectory.topology.atoms) == molecule.atom_names
    assert tuple(atom.element.number for atom in trajectory.topology.atoms) == molecule.atomic_numbers
    bonds = {tuple(sorted((one.index, other.index))) for one, other in trajectory.topology.bonds}
    assert bonds == set(molecule.bonds)


@pytest.mark.parametrize("coordinate", [np.nan, np.inf, 1000.0, -100.0])
def test_coordinates_that_would_shift_the_columns_are_refused(
    tmp_path: Path, molecule: Molecule, coordinate: float
) -> None:
    positions = np.full((1, molecule.n_atoms, 3), coordinate)
    with pytest.raises(InputError, match="does not fit"):
        write_pdb(tmp_path / "system.pdb", molecule, positions)
