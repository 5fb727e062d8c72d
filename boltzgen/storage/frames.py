"""Frames of a molecule from trajectories of other programs, or from our own files with their weights.

HDF5 in MDTraj's convention, which our samples follow, is read here; PDB, DCD and XTC by MDTraj.
"""

from __future__ import annotations

import ctypes
import json
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from boltzgen.errors import InputError, StorageError
from boltzgen.molecule import Molecule
from boltzgen.storage.atomic import open_hdf5, read_array
from boltzgen.storage.trajectory import SYMBOLS

HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
FORMATS = (".h5", ".dcd", ".xtc", ".pdb")


@dataclass(frozen=True)
class ForeignFrames:
    """Positions ``(n, atoms, 3)`` in nm in the atom order of ``system.pdb``, and ``log_weight (n,)``, zero without.

    ``reordered`` says that the atoms of the file were in another order, and were matched by their names.
    """

    positions: np.ndarray
    log_weight: np.ndarray
    weighted: bool
    reordered: bool


@dataclass(frozen=True)
class _Atom:
    symbol: str
    name: str
    residue: int  # counted in the order of appearance


def read_frames(path: Path, molecule: Molecule, temperature: float) -> ForeignFrames:
    """Read all frames of a file, checked to be of the molecule.

    Where the names of the file's atoms, residue by residue, are those of the molecule in another order, they are
    matched by name. DCD and XTC have no names: their atoms must be in the order of ``system.pdb``.

    Raises
    ------
    InputError
        If the file is missing, damaged or of another format, has another number of atoms, another element at some
        place, or weights for a temperature other than ``temperature`` in K.
    StorageError
        If it cannot be read.
    """
    kind = trajectory_kind(path)
    log_weight = None
    if kind == ".h5":
        positions, atoms, log_weight = _read_hdf5(path, temperature)
    else:
        positions, atoms = _read_by_mdtraj(path, kind, molecule)
    order = _matched(path, atoms, molecule)
    n = len(positions)
    if n == 0:
        raise InputError(f"{path}: has no frames. Give a trajectory.")
    weights = np.zeros(n) if log_weight is None else log_weight
    reordered = order != list(range(molecule.n_atoms))
    return ForeignFrames(positions[:, order].astype(np.float64), weights, log_weight is not None, reordered)


def trajectory_kind(path: Path) -> str:
    """One of ``FORMATS``, by content or by ending.

    Raises
    ------
    InputError
        If the file is missing or of another format.
    StorageError
        If it cannot be read.
    """
    if not path.exists():
        raise InputError(f"{path}: no such file. Check the path.")
    if not path.is_file():
        raise InputError(f"{path}: is not a plain file. Give a trajectory.")
    try:
        with path.open("rb") as stream:
            start = stream.read(len(HDF5_SIGNATURE))
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror or error}. Check its permissions.") from error
    if start == HDF5_SIGNATURE:
        return ".h5"
    kind = path.suffix.lower()
    if kind not in FORMATS or kind == ".h5":
        raise InputError(f"{path}: is no trajectory that can be read. Give an .h5, .dcd, .xtc or .pdb file.")
    return kind


def _read_hdf5(path: Path, temperature: float) -> tuple[np.ndarray, list[_Atom], np.ndarray | None]:
    with open_hdf5(path) as file:
        positions, topology = file.get("coordinates"), file.get("topology")
        if not isinstance(positions, h5py.Dataset) or not isinstance(topology, h5py.Dataset) or positions.ndim != 3:
            raise InputError(f"{path}: has no coordinates with a topology. Give a trajectory in MDTraj's HDF5 format.")
        units = positions.attrs.get("units", b"nanometers")
        if units not in (b"nanometers", "nanometers"):
            raise InputError(f"{path}: its coordinates are in {units!r}. Give them in nanometers.")
        weights = file.get("observables/log_weight/value")
        log_weight = None
        if isinstance(weights, h5py.Dataset):
            log_weight = read_array(weights).astype(np.float64)
            made_for = float(weights.attrs.get("temperature", temperature))
            if not np.isclose(made_for, temperature, rtol=1e-6, atol=0.0):
                raise InputError(
                    f"{path}: its weights are for {made_for:g} K, the run is at {temperature:g} K. "
                    f"Reweight with --temperature {temperature:g} first."
                )
        elif isinstance(energies := file.get("observables/reduced_potential/value"), h5py.Dataset):
            made_at = float(energies.attrs.get("temperature", temperature))
            if not np.isclose(made_at, temperature, rtol=1e-6, atol=0.0):
                raise InputError(f"{path}: was simulated at {made_at:g} K, the run is at {temperature:g} K.")
        return read_array(positions), _atoms_of_json(path, read_array(topology)), log_weight


def _atoms_of_json(path: Path, topology: np.ndarray) -> list[_Atom]:
    try:
        chains = json.loads(topology.ravel()[0])["chains"]
        residues = [residue for chain in chains for residue in chain["residues"]]
        atoms = [(int(a["index"]), a["element"], a["name"], k) for k, r in enumerate(residues) for a in r["atoms"]]
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise InputError(f"{path}: its topology cannot be read. Make the file again.") from error
    return [_Atom(str(symbol), str(name), residue) for _, symbol, name, residue in sorted(atoms)]


def _read_by_mdtraj(path: Path, kind: str, molecule: Molecule) -> tuple[np.ndarray, list[_Atom]]:
    import mdtraj  # takes a second, and most trainings have no data

    try:
        with _silent_stdout(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of dummy unit cells: a molecule here has none
            if kind == ".pdb":
                trajectory = mdtraj.load_pdb(str(path), standard_names=False)
            else:
                trajectory = mdtraj.load(str(path), top=_topology(molecule))
    except Exception as error:  # MDTraj raises what its parsers happen to raise
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: cannot be read as a trajectory of {molecule.n_atoms} atoms ({reason}).") from error
    if kind != ".pdb":
        return trajectory.xyz, _atoms_of(molecule)
    atoms = [
        _Atom(atom.element.symbol if atom.element else "?", atom.name, atom.residue.index)
        for atom in trajectory.topology.atoms
    ]
    return trajectory.xyz, atoms


@contextmanager
def _silent_stdout() -> Iterator[None]:
    """Keep what C code prints from stdout, which is for results: MDTraj's DCD reader tells of every file."""
    libc, kept = ctypes.CDLL(None), os.dup(1)
    try:
        with Path(os.devnull).open("wb") as nowhere:
            libc.fflush(None)
            os.dup2(nowhere.fileno(), 1)
            try:
                yield
            finally:
                libc.fflush(None)
                os.dup2(kept, 1)
    finally:
        os.close(kept)


def _topology(molecule: Molecule):  # type: ignore[no-untyped-def]  # MDTraj has no types, and is imported late
    """The topology of the molecule without bonds: a number of atoms."""
    import mdtraj

    topology = mdtraj.Topology()
    chain = topology.add_chain()
    residues = [topology.add_residue(name, chain) for name in molecule.residue_names]
    for number, name, residue in zip(
        molecule.atomic_numbers, molecule.atom_names, molecule.residue_of_atom, strict=True
    ):
        topology.add_atom(name, mdtraj.element.Element.getByAtomicNumber(number), residues[residue])
    return topology


def _atoms_of(molecule: Molecule) -> list[_Atom]:
    columns = zip(molecule.atomic_numbers, molecule.atom_names, molecule.residue_of_atom, strict=True)
    return [_Atom(SYMBOLS[number], name, residue) for number, name, residue in columns]


def _matched(path: Path, atoms: Sequence[_Atom], molecule: Molecule) -> list[int]:
    """Where in the file each atom of the molecule is."""
    wanted = _atoms_of(molecule)
    if len(atoms) != len(wanted):
        raise InputError(f"{path}: has {len(atoms)} atoms, system.pdb {len(wanted)}. Give frames of this molecule.")
    places = {(atom.residue, atom.name): place for place, atom in enumerate(atoms)}
    names = [(atom.residue, atom.name) for atom in wanted]
    order = [places[name] for name in names] if set(places) == set(names) else list(range(len(atoms)))
    for place, (index, atom) in enumerate(zip(order, wanted, strict=True), start=1):
        if atoms[index].symbol != atom.symbol:
            raise InputError(
                f"{path}: atom {place} is {atoms[index].symbol} ({atoms[index].name}), in system.pdb {atom.symbol} "
                f"({atom.name}). Put the atoms in the order of system.pdb, or name them as there."
            )
    return order
