"""Atoms of PDB and mmCIF files as plain records, each with its place in the file, and without solvent."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np
from openmm.app.internal.pdbx.reader.PdbxReader import PdbxReader
from rdkit import Chem
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from boltzgen.chemistry.read import InputSource, printable
from boltzgen.chemistry.residues import KNOWN
from boltzgen.chemistry.structure import covalent_radius
from boltzgen.errors import InputError

WATERS = {"HOH", "WAT", "H2O", "SOL", "TIP", "TIP3", "TP3", "TIP4", "SPC", "DOD"}
COUNTER_IONS = {"NA", "NA+", "SOD", "K", "K+", "POT", "CL", "CL-", "CLA"}
ELEMENTS = frozenset(Chem.GetPeriodicTable().GetElementSymbol(number) for number in range(1, 119))
TWO_LETTERS = {"CL", "BR", "SI", "SE", "ZN", "FE", "MG", "LI"}
"""Elements that are told from an atom name where the element column is blank and the residue is no amino acid."""


@dataclass(frozen=True)
class AtomRecord:
    """One atom of a file; ``place`` is what messages call its line, ``xyz`` is in ångström."""

    place: str
    name: str
    element: str
    altloc: str
    residue_name: str
    chain: str
    residue_id: str
    segment: int
    xyz: tuple[float, float, float]
    occupancy: float

    @property
    def residue_label(self) -> str:
        """Name and number of the residue, such as ``ALA2``."""
        return printable(f"{self.residue_name}{self.residue_id}")

    @property
    def label(self) -> str:
        """What messages call the atom, such as ``CA of ALA2``."""
        return printable(f"{self.name} of {self.residue_label}")


def read_records(source: InputSource, model: int | None = None) -> tuple[list[AtomRecord], list[str]]:
    """Return the atoms of one model (counted from 1) without solvent, and warnings.

    Waters and sodium, potassium and chloride ions are left out; of alternate locations the one with the highest
    occupancy stays; residue names in lower case are read as upper case. Each of these is told in the warnings.

    Raises
    ------
    InputError
        For broken records, a model that is not there, and files without atoms besides solvent.
    """
    models = _pdb_models(source) if source.kind == "pdb" else _mmcif_models(source)
    models = [atoms for atoms in models if atoms]
    if not models:
        raise InputError(f"{source.where}: no ATOM records. Give one structure.")
    if model is not None and model > len(models):
        raise InputError(f"{source.where}: there is no model {model}; models in the file: {len(models)}.")
    warnings = []
    if len(models) > 1:
        used = "only the first is used, --model N chooses another" if model is None else f"model {model} is used"
        warnings.append(f"models in the file: {len(models)} ({used})")
    atoms = _strip_solvent(models[(model or 1) - 1], warnings)
    if not atoms:
        raise InputError(f"{source.where}: only water and ions. Give a molecule.")
    for atom in atoms:
        if atom.element not in ELEMENTS:
            raise InputError(f"{atom.place}: {atom.label} has element {printable(atom.element)!r}. Correct it.")
    return _one_location(_upper_case(atoms, warnings), warnings), warnings


def largest_component(atoms: Sequence[AtomRecord], warnings: list[str]) -> list[AtomRecord]:
    """Return the atoms of the largest molecule, bonds being distances below 1.3 times the covalent radii."""
    x = np.array([atom.xyz for atom in atoms]) / 10.0
    radius = np.array([covalent_radius(atom.element) for atom in atoms])
    i, j = cKDTree(x).query_pairs(2.6 * radius.max(), output_type="ndarray").T
    bonded = np.linalg.norm(x[i] - x[j], axis=1) < 1.3 * (radius[i] + radius[j])
    graph = coo_array((np.ones(bonded.sum()), (i[bonded], j[bonded])), shape=(len(atoms), len(atoms)))
    count, component = connected_components(graph, directed=False)
    if count > 1:
        warnings.append(f"molecules left out: {count - 1} (the largest fragment is used)")
    largest = int(np.argmax(np.bincount(component)))
    return [atom for atom, label in zip(atoms, component, strict=True) if label == largest]


def _pdb_models(source: InputSource) -> list[list[AtomRecord]]:
    models: list[list[AtomRecord]] = [[]]
    segment = 0
    for number, line in enumerate(source.text.splitlines(), 1):
        record = line[:6].rstrip()
        if record == "MODEL":
            models.append([])
        elif record == "TER":
            segment += 1
        elif record in ("ATOM", "HETATM"):
            models[-1].append(_parse_pdb_line(line, f"{source.where}:{number}", segment))
    return models


def _parse_pdb_line(line: str, place: str, segment: int) -> AtomRecord:
    name, residue_name, residue_id = line[12:16].strip(), line[17:21].strip(), line[22:27].strip()
    # Column 21 is outside the standard three letters and may hold anything unless it is part of the name.
    if residue_name.upper() not in KNOWN | WATERS | COUNTER_IONS:
        residue_name = residue_name[:3].strip()
    fields = [line[start : start + 8] for start in (30, 38, 46)]
    label = f"{name} of {residue_name}{residue_id}"
    return AtomRecord(
        place=place,
        name=_required(name, place),
        element=_element(line[76:78], line[12:16], residue_name),
        altloc=line[16:17].strip(),
        residue_name=_required(residue_name, place),
        chain=line[21:22],
        residue_id=residue_id,
        segment=segment,
        xyz=_coordinates(fields, label, place),
        occupancy=_occupancy(line[54:60]),
    )


def _mmcif_models(source: InputSource) -> list[list[AtomRecord]]:
    """The table ``atom_site``, by model; columns of the author are preferred, as in the PDB file of the same entry."""
    blocks: list = []
    try:
        PdbxReader(io.StringIO(source.text)).read(blocks)
    except Exception as error:  # the reader lets all kinds escape
        raise InputError(f"{source.where}: damaged mmCIF ({printable(str(error))}). Write the file again.") from error
    tables = [table for block in blocks if (table := block.getObj("atom_site")) is not None]
    if not tables:
        raise InputError(f"{source.where}: the mmCIF file has no atoms. Give one structure.")
    columns = {name.removeprefix("_atom_site."): k for k, name in enumerate(tables[0].getAttributeList())}
    missing = [name for name in ("Cartn_x", "Cartn_y", "Cartn_z") if name not in columns]
    if missing:
        raise InputError(f"{source.where}: the table of atoms has no column {missing[0]}. Write the file again.")
    models: dict[str, list[AtomRecord]] = {}
    for number, row in enumerate(tables[0].getRowList(), 1):
        if len(row) != len(columns):
            raise InputError(f"{source.where}: row {number} of the atoms is incomplete. Write the file again.")
        # "." and "?" stand for what does not apply and what is unknown.
        values = {name: "" if row[k] in (".", "?") else row[k] for name, k in columns.items()}
        models.setdefault(values.get("pdbx_PDB_model_num", ""), []).append(
            _parse_mmcif_row(values, f"{source.where}: atom {printable(values.get('id', '') or str(number))}")
        )
    return list(models.values())


def _parse_mmcif_row(values: dict[str, str], place: str) -> AtomRecord:
    def column(name: str) -> str:
        return values.get(f"auth_{name}") or values.get(f"label_{name}", "")

    name, residue_name = column("atom_id"), column("comp_id")
    residue_id = column("seq_id") + values.get("pdbx_PDB_ins_code", "")
    fields = [values[f"Cartn_{axis}"] for axis in "xyz"]
    return AtomRecord(
        place=place,
        name=_required(name, place),
        element=_element(values.get("type_symbol", ""), f" {name}", residue_name),
        altloc=values.get("label_alt_id", ""),
        residue_name=_required(residue_name, place),
        chain=values.get("label_asym_id") or values.get("auth_asym_id", ""),
        residue_id=residue_id,
        segment=0,
        xyz=_coordinates(fields, f"{name} of {residue_name}{residue_id}", place),
        occupancy=_occupancy(values.get("occupancy", "")),
    )


def _required(text: str, place: str) -> str:
    if not text:
        raise InputError(f"{place}: an atom without a name or residue name. Check the columns of this line.")
    return text


def _coordinates(fields: list[str], label: str, place: str) -> tuple[float, float, float]:
    values = []
    for axis, field in zip("xyz", fields, strict=True):
        try:
            value = float(field)
        except ValueError:
            value = float("nan")
        if not np.isfinite(value):
            raise InputError(
                f"{place}: the {axis} coordinate of {printable(label)} is {printable(field.strip())!r}, no number. "
                "Correct the columns of this line."
            )
        values.append(value)
    x, y, z = values
    return x, y, z


def _element(field: str, name: str, residue_name: str) -> str:
    """The element column, or else what the name says: its columns 13 and 14 hold the element."""
    if field.strip():
        return field.strip().capitalize()
    if residue_name.upper() not in KNOWN and name.strip()[:2].upper() in TWO_LETTERS and name[:1].strip():
        return name.strip()[:2].capitalize()
    return name.strip().lstrip("0123456789")[:1].upper()


def _occupancy(field: str) -> float:
    try:
        return float(field)
    except ValueError:
        return 1.0


def _strip_solvent(atoms: list[AtomRecord], warnings: list[str]) -> list[AtomRecord]:
    waters = {(a.chain, a.residue_id) for a in atoms if a.residue_name.upper() in WATERS}
    # An ion is alone in its residue: a ligand may have the same name.
    sizes = {key: len(list(group)) for key, group in groupby(atoms, key=_residue)}
    ions = {key for key, size in sizes.items() if size == 1 and key[2].upper() in COUNTER_IONS}
    if waters:
        warnings.append(f"water molecules left out: {len(waters)} (the solvent is implicit)")
    if ions:
        warnings.append(f"ions left out: {len(ions)} (the solvent is implicit)")
    return [a for a in atoms if a.residue_name.upper() not in WATERS and _residue(a) not in ions]


def _residue(atom: AtomRecord) -> tuple[str, str, str, int]:
    return atom.chain, atom.residue_id, atom.residue_name, atom.segment


def _upper_case(atoms: list[AtomRecord], warnings: list[str]) -> list[AtomRecord]:
    lower = {a.residue_id for a in atoms if a.residue_name not in KNOWN and a.residue_name.upper() in KNOWN}
    if lower:
        warnings.append(f"residue names in lower case: {len(lower)} (read as upper case)")
    return [replace(a, residue_name=a.residue_name.upper()) if a.residue_name.upper() in KNOWN else a for a in atoms]


def _one_location(atoms: list[AtomRecord], warnings: list[str]) -> list[AtomRecord]:
    best: dict[tuple[str, str, str, int, str], AtomRecord] = {}
    dropped = 0
    for atom in atoms:
        key = (*_residue(atom), atom.name)
        if key not in best:
            best[key] = atom
            continue
        if atom.altloc == best[key].altloc:
            raise InputError(f"{atom.place}: {atom.label} is there twice. Remove one.")
        dropped += 1
        if atom.occupancy > best[key].occupancy:
            best[key] = atom
    if dropped:
        warnings.append(f"alternate locations left out: {dropped} (the highest occupancy is used)")
    return list(best.values())
