"""Frames of a molecule as one file that MDTraj, MDAnalysis, PyTables and h5py read.

The file is at once MDTraj-HDF5 (Pande 1.1) and H5MD 1.1: both names of an array are hard links to one
dataset. ``docs/format.md`` specifies it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np

from boltzgen import __version__
from boltzgen.constants import thermal_energy
from boltzgen.errors import InputError
from boltzgen.molecule import Molecule
from boltzgen.storage.atomic import atomic_write, open_hdf5, read_array
from boltzgen.storage.tree import get_tree, put_array, put_tree

FRAMES_PER_CHUNK = 1024

_SYMBOLS = (
    "X H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se Br "
    "Kr Rb Sr Y Zr Nb Mo Tc Ru Rh Pd Ag Cd In Sn Sb Te I Xe Cs Ba La Ce Pr Nd Pm Sm Eu Gd Tb Dy Ho Er "
    "Tm Yb Lu Hf Ta W Re Os Ir Pt Au Hg Tl Pb Bi Po At Rn Fr Ra Ac Th Pa U Np Pu Am Cm Bk Cf Es Fm Md "
    "No Lr Rf Db Sg Bh Hs Mt Ds Rg Cn Nh Fl Mc Lv Ts Og"
)
SYMBOLS = tuple(_SYMBOLS.split())
"""Element symbols by atomic number."""


@dataclass(frozen=True)
class Frames:
    """Samples of one molecule with their weights.

    Attributes
    ----------
    positions
        nm, float32, shape ``(n, N, 3)``.
    log_prob
        Natural logarithm of the density that drew each sample, float64, shape ``(n,)``.
    reduced_potential
        u = U/kT, float64, shape ``(n,)``.
    log_weight
        -u - log_prob, unnormalised, float64, shape ``(n,)``.
    inner, refine
        Redraws behind each sample, and bridges over which each was annealed. Unless they are 1 and 0, ``log_prob`` is
        effective: what makes the formula of ``log_weight`` right, and no density.

    Raises
    ------
    InputError
        If the shapes do not match.
    """

    positions: np.ndarray
    log_prob: np.ndarray
    reduced_potential: np.ndarray
    log_weight: np.ndarray
    inner: int = field(default=1, kw_only=True)
    refine: int = field(default=0, kw_only=True)

    def __post_init__(self) -> None:
        n = len(self.positions)
        columns = (self.log_prob, self.reduced_potential, self.log_weight)
        if self.positions.shape[2:] != (3,) or any(column.shape != (n,) for column in columns):
            shapes = ", ".join(str(array.shape) for array in (self.positions, *columns))
            raise InputError(f"Frames of shapes {shapes} do not belong together. Make the file again.")


def fill_trajectory(file: h5py.File, molecule: Molecule, frames: Frames, temperature: float) -> None:
    """Write frames, weights and topology into an empty HDF5 file.

    Parameters
    ----------
    temperature
        K; turns the reduced potential into ``/potentialEnergy`` in kJ/mol.

    Raises
    ------
    InputError
        If the frames are of another number of atoms than the molecule.
    """
    if frames.positions.shape[1] != molecule.n_atoms:
        raise InputError(
            f"Frames of {frames.positions.shape[1]} atoms cannot be of a molecule of {molecule.n_atoms}. "
            "Give the files of one run."
        )
    index = np.arange(len(frames.positions), dtype=np.float32)
    meaning = "sample index; the samples are independent and have no physical time"
    fill_frames(file, molecule, frames.positions, frames.reduced_potential, index, meaning, temperature)
    _fill_weights(file, frames, temperature)


def fill_frames(
    file: h5py.File,
    molecule: Molecule,
    positions: np.ndarray,
    reduced_potential: np.ndarray,
    time: np.ndarray,
    meaning_of_time: str,
    temperature: float,
) -> None:
    """Write what every trajectory of ours has: frames, energies, topology, the molecule.

    ``positions (n, N, 3)`` in nm, ``reduced_potential (n,)`` at ``temperature`` in K, ``time (n,)`` in ps.
    """
    _fill_mdtraj(file, molecule, positions, time, meaning_of_time)
    energy = _put_frames(file, "potentialEnergy", reduced_potential.astype(np.float64) * thermal_energy(temperature))
    energy.attrs["units"], energy.attrs["unit"] = np.bytes_("kilojoules_per_mole"), "kJ mol-1"
    _fill_h5md(file, molecule)
    put_observable(
        file, "reduced_potential", reduced_potential.astype(np.float64), "U/kT at the attribute temperature, in K"
    ).attrs["temperature"] = float(temperature)
    put_tree(file.require_group("boltzgen"), {"molecule": molecule.to_json()})


def put_observable(file: h5py.File, name: str, values: np.ndarray, meaning: str) -> h5py.Dataset:
    """Write one number for each frame as an observable of H5MD."""
    group = file.create_group(f"observables/{name}")
    group["step"], group["time"] = file["particles/trajectory/position/step"], file["time"]
    dataset = _put_frames(group, "value", values)
    dataset.attrs["meaning"] = meaning
    return dataset


def read_trajectory(path: Path) -> Frames:
    """Read the frames and weights of a file that :func:`fill_trajectory` filled.

    Raises
    ------
    InputError
        If the file is missing, damaged, or has no samples with weights in it.
    StorageError
        If it cannot be read.
    """
    with open_hdf5(path) as file:
        return Frames(
            positions=_column(file, "coordinates", np.float32),
            log_prob=_column(file, "observables/log_prob/value", np.float64),
            reduced_potential=_column(file, "observables/reduced_potential/value", np.float64),
            log_weight=_column(file, "observables/log_weight/value", np.float64),
            inner=_number(file["observables/log_prob/value"], "inner", 1),
            refine=_number(file["observables/log_prob/value"], "refine", 0),
        )


def read_molecule(path: Path) -> Molecule:
    """Read the molecule of a boltzgen file.

    Raises
    ------
    InputError
        If the file is missing, damaged, or names no molecule.
    StorageError
        If it cannot be read.
    """
    with open_hdf5(path) as file:
        group = file.get("boltzgen")
        if not isinstance(group, h5py.Group) or "molecule" not in group:
            raise InputError(f"{path} names no molecule. Give a file that boltzgen wrote.")
        text = get_tree(group)["molecule"]
    try:
        return Molecule.from_json(text)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(f"{path}: its molecule cannot be read. Make the file again.") from error


def write_pdb(path: Path, molecule: Molecule, positions: np.ndarray) -> None:
    """Write structures as a PDB file, one MODEL each, with a CONECT record for every bond.

    Parameters
    ----------
    positions
        nm, shape ``(F, N, 3)``. PDB keeps 0.0001 nm.

    Raises
    ------
    InputError
        If a coordinate does not fit the columns of PDB, or there are more than 99,999 atoms.
    StorageError
        If the file cannot be written.
    """
    angstrom = np.asarray(positions, dtype=np.float64) * 10.0
    fits = (angstrom > -999.9995) & (angstrom < 9999.9995)  # a NaN compares as false
    if molecule.n_atoms > 99_999 or not fits.all():
        raise InputError(f"{path}: the structure does not fit the columns of a PDB file. Use the HDF5 file.")
    lines: list[str] = []
    for number, model in enumerate(angstrom, start=1):
        atoms = [*_atom_records(molecule, model), "TER"]
        lines += [f"MODEL     {number:4d}", *atoms, "ENDMDL"] if len(angstrom) > 1 else atoms
    lines += [*_conect_records(molecule), "END"]
    atomic_write(path, "".join(f"{line}\n" for line in lines).encode())


def _fill_mdtraj(file: h5py.File, molecule: Molecule, positions: np.ndarray, time: np.ndarray, meaning: str) -> None:
    # MDTraj's own files have fixed-length byte strings here, and variable-length ones break its reader.
    for name, text in {
        "conventions": "Pande",
        "conventionVersion": "1.1",
        "program": "boltzgen-sampler",
        "programVersion": __version__,
        "application": "boltzgen-sampler",
    }.items():
        file.attrs[name] = np.bytes_(text)
    coordinates = _put_frames(file, "coordinates", positions.astype(np.float32))
    coordinates.attrs["units"], coordinates.attrs["unit"] = np.bytes_("nanometers"), "nm"
    times = _put_frames(file, "time", time.astype(np.float32))
    times.attrs["units"], times.attrs["unit"] = np.bytes_("picoseconds"), "ps"
    times.attrs["meaning"] = meaning
    put_array(file, "topology", np.array([_topology_json(molecule)], dtype=np.bytes_))


def _fill_h5md(file: h5py.File, molecule: Molecule) -> None:
    h5md = file.create_group("h5md")
    h5md.attrs["version"] = np.array([1, 1], dtype=np.int32)
    h5md.create_group("author").attrs["name"] = "boltzgen-sampler"
    creator = h5md.create_group("creator")
    creator.attrs["name"], creator.attrs["version"] = "boltzgen-sampler", __version__
    particles = file.create_group("particles/trajectory")
    box = particles.create_group("box")
    box.attrs["dimension"] = np.int32(3)
    box.attrs["boundary"] = np.array([b"none"] * 3)
    position = particles.create_group("position")
    position["value"], position["time"] = file["coordinates"], file["time"]
    _put_frames(position, "step", np.arange(len(file["time"]), dtype=np.int64))
    put_array(particles, "species", np.array(molecule.atomic_numbers, dtype=np.int32))
    put_array(particles, "mass", np.array(molecule.masses, dtype=np.float64)).attrs["unit"] = "u"
    bonds = np.array(molecule.bonds, dtype=np.int32).reshape(-1, 2)
    # Without the reference to the particles that H5MD allows here: PyTables could not load the dataset.
    put_array(file.create_group("connectivity"), "bonds", bonds)


def _fill_weights(file: h5py.File, frames: Frames, temperature: float) -> None:
    plain = frames.inner == 1 and frames.refine == 0
    for name, values, meaning in (
        (
            "log_weight",
            frames.log_weight,
            "natural logarithm, unnormalised: log_weight = -reduced_potential - log_prob",
        ),
        (
            "log_prob",
            frames.log_prob,
            "natural logarithm of the density that drew the sample, in nm"
            if plain
            else "effective: -reduced_potential - log_weight, of a weight that is averaged or annealed",
        ),
    ):
        put_observable(file, name, values.astype(np.float64), meaning).attrs["temperature"] = float(temperature)
    density = file["observables/log_prob/value"]
    density.attrs["inner"], density.attrs["refine"] = np.int64(frames.inner), np.int64(frames.refine)


def _put_frames(group: h5py.Group, name: str, array: np.ndarray) -> h5py.Dataset:
    return put_array(group, name, array, max_rows=FRAMES_PER_CHUNK)


def _column(file: h5py.File, name: str, dtype: type) -> np.ndarray:
    dataset = file.get(name)
    if not isinstance(dataset, h5py.Dataset) or dataset.dtype != dtype:
        raise InputError(
            f"{file.filename} holds no weighted samples: /{name} is missing or of another type. "
            "Give a samples file that boltzgen wrote."
        )
    return read_array(dataset)


def _number(dataset: h5py.Dataset, name: str, default: int) -> int:
    """An attribute that files of older versions lack."""
    value = dataset.attrs.get(name, default)
    if not isinstance(value, int | np.integer):
        raise InputError(
            f"{dataset.file.filename}: the attribute {name} of {dataset.name} is no integer. Make the file again."
        )
    return int(value)


def _topology_json(molecule: Molecule) -> str:
    """The topology in the JSON form of MDTraj's HDF5 format."""
    atoms: list[list[dict[str, str | int]]] = [[] for _ in molecule.residue_names]
    for index, residue in enumerate(molecule.residue_of_atom):
        symbol = SYMBOLS[molecule.atomic_numbers[index]]
        atoms[residue].append({"index": index, "name": molecule.atom_names[index], "element": symbol})
    names_and_numbers = zip(molecule.residue_names, molecule.residue_numbers, strict=True)
    residues = [
        {"index": index, "name": name, "resSeq": number, "segmentID": "", "atoms": atoms[index]}
        for index, (name, number) in enumerate(names_and_numbers)
    ]
    return json.dumps(
        {
            "chains": [{"index": 0, "chain_id": "A", "residues": residues}],
            "bonds": [list(pair) for pair in molecule.bonds],
        }
    )


def _atom_records(molecule: Molecule, angstrom: np.ndarray) -> Iterator[str]:
    # PDB keeps ATOM for the residues of chains.
    record = "ATOM  " if len(molecule.residue_names) > 1 else "HETATM"
    for index, (x, y, z) in enumerate(angstrom):
        name, residue = molecule.atom_names[index], molecule.residue_of_atom[index]
        symbol = SYMBOLS[molecule.atomic_numbers[index]].upper()
        # Symbols of one letter stand in the second of the four columns, unless the name needs all four.
        label = f" {name:<3s}" if len(name) < 4 and len(symbol) == 1 else f"{name:<4.4s}"
        yield (
            f"{record}{index + 1:5d} {label} {molecule.residue_names[residue]:>3.3s} "
            f"A{molecule.residue_numbers[residue] % 10_000:4d}    {x:8.3f}{y:8.3f}{z:8.3f}  1.00  0.00"
            f"          {symbol:>2s}"
        )


def _conect_records(molecule: Molecule) -> Iterator[str]:
    neighbours: list[list[int]] = [[] for _ in range(molecule.n_atoms)]
    for i, j in molecule.bonds:
        neighbours[i].append(j + 1)
        neighbours[j].append(i + 1)
    for index, serials in enumerate(neighbours, start=1):
        for start in range(0, len(serials), 4):
            partners = sorted(serials)[start : start + 4]
            yield f"CONECT{index:5d}" + "".join(f"{partner:5d}" for partner in partners)
