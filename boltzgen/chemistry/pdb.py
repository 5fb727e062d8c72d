"""From PDB text to a named chain: every record is judged here, so that errors name the line and the atom."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np

from boltzgen.chemistry.read import InputSource, printable
from boltzgen.chemistry.residues import AMINO_ACIDS, C_CAPS, HEAVY_ALIASES, N_CAPS, VARIANTS, Residue
from boltzgen.chemistry.structure import PlacedResidue, Structure, check_caps, check_geometry, check_size
from boltzgen.errors import InputError, UnsupportedError

WATERS = {"HOH", "WAT", "H2O", "SOL", "TIP", "TIP3", "TP3", "TIP4", "SPC", "DOD"}
COUNTER_IONS = {"NA", "NA+", "SOD", "K", "K+", "POT", "CL", "CL-", "CLA"}
KNOWN = {*AMINO_ACIDS, *N_CAPS, *C_CAPS, *VARIANTS}
ADD_HYDROGENS = "Add it, for example with PDBFixer or OpenMM's Modeller.addHydrogens."


@dataclass(frozen=True)
class _Atom:
    line: int
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
    def label(self) -> str:
        return f"{self.name} of {self.residue_name}{self.residue_id}"


def structure_from_pdb(source: InputSource, residues: dict[str, Residue]) -> Structure:
    """Interpret PDB text as one capped peptide; the order of the atoms is kept.

    Only the first model is read; waters and sodium, potassium and chloride ions are left out; of alternate
    locations the one with the highest occupancy stays. Each of these is told in ``warnings``.

    Raises
    ------
    InputError
        For broken records, missing or unexpected atoms, uncapped termini, and impossible geometry.
    UnsupportedError
        For other residues and molecules, several chains, and sizes above the limit.
    """
    where = source.where
    atoms, warnings = _read_records(source)
    atoms = _strip_solvent(atoms, warnings)
    if not atoms:
        raise InputError(f"{where}: only water and ions. Give a capped peptide.")
    atoms = _known_residues(atoms, where, warnings)
    atoms = _one_location(atoms, where, warnings)
    check_size(len(atoms), where)
    chains = [list(group) for _, group in groupby(atoms, key=lambda atom: (atom.chain, atom.segment))]
    for chain in chains:
        first, last = chain[0], chain[-1]
        standard = [VARIANTS.get(atom.residue_name, (atom.residue_name,))[0] for atom in (first, last)]
        labels = [f"{atom.residue_name}{atom.residue_id}" for atom in (first, last)]
        check_caps(standard, labels, f"{where}:{first.line}" if standard[0] not in N_CAPS else f"{where}:{last.line}")
    if len(chains) > 1:
        raise UnsupportedError(
            f"{where}:{chains[1][0].line}: {len(chains)} molecules, whose relative position is unbounded. "
            "Give one chain."
        )
    if not any(atom.element == "H" for atom in atoms):
        raise InputError(
            f"{where}: no hydrogens. Add them, for example with PDBFixer or OpenMM's Modeller.addHydrogens."
        )
    groups = groupby(atoms, key=lambda atom: (atom.residue_id, atom.residue_name))
    placed = tuple(_place(list(group), residues, where) for _, group in groups)
    structure = Structure(placed, np.array([atom.xyz for atom in atoms]) / 10.0, tuple(warnings))
    check_geometry(structure, lambda i: f"{where}:{atoms[i].line}")
    return structure


def _read_records(source: InputSource) -> tuple[list[_Atom], list[str]]:
    atoms: list[_Atom] = []
    segment, models = 0, 0
    for number, line in enumerate(source.text.splitlines(), 1):
        record = line[:6].rstrip()
        if record == "MODEL":
            models += 1
        elif record == "TER":
            segment += 1
        elif record in ("ATOM", "HETATM") and models <= 1:
            atoms.append(_parse_atom(line, number, segment, source.where))
    if not atoms:
        raise InputError(f"{source.where}: no ATOM records in the first model. Give one structure.")
    return atoms, [f"models in the file: {models} (only the first is used)"] if models > 1 else []


def _parse_atom(line: str, number: int, segment: int, where: str) -> _Atom:
    here = f"{where}:{number}"
    name, residue_name = line[12:16].strip(), line[17:21].strip()
    residue_id = line[22:27].strip()
    label = printable(f"{name} of {residue_name}{residue_id}")
    if not name or not residue_name:
        raise InputError(f"{here}: an atom without a name or residue name. Check the columns of this line.")
    coordinates = []
    for axis, start in zip("xyz", (30, 38, 46), strict=True):
        field = line[start : start + 8]
        try:
            value = float(field)
        except ValueError:
            value = float("nan")
        if not np.isfinite(value):
            raise InputError(
                f"{here}: the {axis} coordinate of {label} is {printable(field.strip())!r}, no number. "
                "Correct the columns of this line."
            )
        coordinates.append(value)
    element = line[76:78].strip().capitalize() or name.lstrip("0123456789")[:1].upper()
    try:
        occupancy = float(line[54:60])
    except ValueError:
        occupancy = 1.0
    x, y, z = coordinates
    return _Atom(
        *(number, name, element, line[16:17].strip(), residue_name),
        *(line[21:22], residue_id, segment, (x, y, z), occupancy),
    )


def _strip_solvent(atoms: list[_Atom], warnings: list[str]) -> list[_Atom]:
    waters = {(a.chain, a.residue_id) for a in atoms if a.residue_name.upper() in WATERS}
    ions = [a for a in atoms if a.residue_name.upper() in COUNTER_IONS]
    if waters:
        warnings.append(f"water molecules left out: {len(waters)} (the solvent is implicit)")
    if ions:
        warnings.append(f"ions left out: {len(ions)} (the solvent is implicit)")
    return [a for a in atoms if a.residue_name.upper() not in WATERS | COUNTER_IONS]


def _known_residues(atoms: list[_Atom], where: str, warnings: list[str]) -> list[_Atom]:
    # Column 21 is outside the standard three letters and may hold anything unless it is part of the name.
    atoms = [a if a.residue_name in KNOWN else replace(a, residue_name=a.residue_name[:3].strip()) for a in atoms]
    lower = {a.residue_id for a in atoms if a.residue_name not in KNOWN and a.residue_name.upper() in KNOWN}
    if lower:
        warnings.append(f"residue names in lower case: {len(lower)} (read as upper case)")
        atoms = [replace(a, residue_name=a.residue_name.upper()) for a in atoms]
    for atom in atoms:
        shown = printable(f"{atom.residue_name}{atom.residue_id}")
        if atom.residue_name == "CYX":
            raise UnsupportedError(f"{where}:{atom.line}: {shown} is a disulfide bridge. Give a peptide without one.")
        if atom.residue_name not in KNOWN:
            raise UnsupportedError(
                f"{where}:{atom.line}: {shown} is no standard amino acid or cap. "
                "Only capped peptides are supported: remove it, or give another molecule."
            )
        digits = atom.residue_id.removeprefix("-")
        if not (digits.isascii() and digits.isdigit()):
            raise InputError(
                f"{where}:{atom.line}: the residue number of {printable(atom.label)} is no integer. Renumber."
            )
        if atom.element not in ("H", "C", "N", "O", "S"):
            raise UnsupportedError(
                f"{where}:{atom.line}: {printable(atom.label)} has element {printable(atom.element)!r}. "
                "Correct columns 77-78, or give a standard residue."
            )
    return atoms


def _one_location(atoms: list[_Atom], where: str, warnings: list[str]) -> list[_Atom]:
    best: dict[tuple[str, int, str, str, str], _Atom] = {}
    dropped = 0
    for atom in atoms:
        key = (atom.chain, atom.segment, atom.residue_id, atom.residue_name, atom.name)
        if key not in best:
            best[key] = atom
            continue
        if atom.altloc == best[key].altloc:
            raise InputError(f"{where}:{atom.line}: {printable(atom.label)} is there twice. Remove one.")
        dropped += 1
        if atom.occupancy > best[key].occupancy:
            best[key] = atom
    if dropped:
        warnings.append(f"alternate locations left out: {dropped} (the highest occupancy is used)")
    return list(best.values())


def _place(group: list[_Atom], residues: dict[str, Residue], where: str) -> PlacedResidue:
    """Give the atoms of one residue the names of the template that fits best, or say what does not fit."""
    given = group[0].residue_name
    candidates = [residues[name] for name in VARIANTS.get(given, (given,))]
    n_hydrogens = sum(atom.element == "H" for atom in group)

    def misfit(template: Residue) -> tuple[int, int]:
        names = {atom.name for atom in group}
        hydrogens = sum(symbol == "H" for symbol in template.elements.values())
        return abs(hydrogens - n_hydrogens), len(names ^ set(template.elements))

    template = min(candidates, key=misfit)
    names = [_template_name(atom, template) for atom in group]
    _require_heavy_atoms(group, names, template, where)
    names = _place_hydrogens(group, names, template, where)
    return PlacedResidue(template, int(group[0].residue_id), tuple(names))


def _template_name(atom: _Atom, template: Residue) -> str:
    name = atom.name
    if atom.element != "H" and name not in template.elements:
        name = HEAVY_ALIASES.get(template.name, {}).get(name, name)
    return name if template.elements.get(name) == atom.element else ""


def _require_heavy_atoms(group: list[_Atom], names: list[str], template: Residue, where: str) -> None:
    label = f"{group[0].residue_name}{group[0].residue_id}"
    heavy = {name for name, symbol in template.elements.items() if symbol != "H"}
    missing = [name for name in template.elements if name in heavy - set(names)]
    extra = [atom for atom, name in zip(group, names, strict=True) if atom.element != "H" and not name]
    if missing:
        found = f" (unknown there: {printable(', '.join(a.name for a in extra))})" if extra else ""
        raise InputError(
            f"{where}:{group[0].line}: {label} lacks heavy atom {', '.join(missing)}{found}. "
            "Add it, for example with PDBFixer."
        )
    if extra:
        raise InputError(
            f"{where}:{extra[0].line}: {label} has an unexpected atom {printable(extra[0].name)}. "
            "Remove it, or correct its name."
        )
    repeated = [name for name, count in Counter(names).items() if name in heavy and count > 1]
    if repeated:
        raise InputError(f"{where}:{group[0].line}: {label} has {repeated[0]} twice. Correct the atom names.")


def _place_hydrogens(group: list[_Atom], names: list[str], template: Residue, where: str) -> list[str]:
    """Name the hydrogens that no template name fits after the heavy atom that they sit on."""
    label = f"{group[0].residue_name}{group[0].residue_id}"
    free = [name for name, symbol in template.elements.items() if symbol == "H" and name not in names]
    heavy = [(np.array(a.xyz), n) for a, n in zip(group, names, strict=True) if a.element != "H"]
    result = list(names)
    for i, atom in enumerate(group):
        if result[i]:
            continue
        _, neighbour = min((float(np.linalg.norm(x - np.array(atom.xyz))), name) for x, name in heavy)
        fitting = [name for name in free if template.heavy_neighbour(name) == neighbour]
        if not fitting:
            raise InputError(
                f"{where}:{atom.line}: {label} has an unexpected hydrogen {printable(atom.name)} "
                f"on {neighbour}. "
                "Remove it, or correct its name."
            )
        result[i] = fitting[0]
        free.remove(fitting[0])
    if free:
        raise InputError(f"{where}:{group[0].line}: {label} lacks hydrogen {', '.join(free)}. {ADD_HYDROGENS}")
    return result
