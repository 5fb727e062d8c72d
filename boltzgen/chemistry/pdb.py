"""From the records of a PDB or mmCIF file to a named peptide chain: errors name the line, the residue and the atom."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import groupby

import numpy as np

from boltzgen.chemistry.read import printable
from boltzgen.chemistry.records import AtomRecord
from boltzgen.chemistry.residues import HEAVY_ALIASES, KNOWN, N_CAPS, VARIANTS, Residue
from boltzgen.chemistry.structure import PlacedResidue, Structure, check_caps, check_geometry, check_size
from boltzgen.errors import InputError, UnsupportedError

ADD_HYDROGENS = "Add it, for example with --add-hydrogens."


def unknown_residue(atoms: Sequence[AtomRecord]) -> AtomRecord | None:
    """Return an atom of the first residue that is no standard amino acid or cap, if there is one."""
    return next((atom for atom in atoms if atom.residue_name not in KNOWN), None)


def structure_from_records(atoms: Sequence[AtomRecord], residues: dict[str, Residue], where: str) -> Structure:
    """Interpret the atoms as one capped peptide of standard residues; their order is kept.

    Raises
    ------
    InputError
        For missing or unexpected atoms, uncapped termini, and impossible geometry.
    UnsupportedError
        For several chains, and sizes above the limit.
    """
    check_atoms(atoms)
    check_size(len(atoms), where)
    check_chain(atoms)
    if not any(atom.element == "H" for atom in atoms):
        raise InputError(f"{where}: no hydrogens. Add them, for example with --add-hydrogens.")
    placed = tuple(_place(group, residues) for group in by_residue(atoms))
    structure = Structure(placed, np.array([atom.xyz for atom in atoms]) / 10.0)
    check_geometry(structure.elements(), structure.bonds(), structure.positions, structure.labels(), place_of(atoms))
    return structure


def check_atoms(atoms: Sequence[AtomRecord]) -> None:
    """Raise an error for residue numbers that are none, and for elements that no peptide has."""
    for atom in atoms:
        digits = atom.residue_id.removeprefix("-")
        if not (digits.isascii() and digits.isdigit()):
            raise InputError(f"{atom.place}: the residue number of {atom.label} is no integer. Renumber.")
        if atom.element not in ("H", "C", "N", "O", "S"):
            raise UnsupportedError(
                f"{atom.place}: {atom.label} has element {printable(atom.element)!r}. "
                "Correct the element, or give a standard residue."
            )


def check_chain(atoms: Sequence[AtomRecord]) -> None:
    """Raise an error unless there is one chain, with caps at both ends."""
    chains = [list(group) for _, group in groupby(atoms, key=lambda atom: (atom.chain, atom.segment))]
    for chain in chains:
        first, last = chain[0], chain[-1]
        standard = [VARIANTS.get(atom.residue_name, (atom.residue_name,))[0] for atom in (first, last)]
        place = first.place if standard[0] not in N_CAPS else last.place
        check_caps(standard, [first.residue_label, last.residue_label], place)
    if len(chains) > 1:
        raise UnsupportedError(
            f"{chains[1][0].place}: {len(chains)} molecules, whose relative position is unbounded. "
            "Give one chain, or --largest-fragment."
        )


def heavy_names(group: Sequence[AtomRecord], template: Residue) -> list[str]:
    """Return the template's names of the heavy atoms of a residue, after checking that all are there.

    Raises
    ------
    InputError
        If one is missing, is there twice, or does not belong.
    """
    names = [_template_name(atom, template) for atom in group]
    _require_heavy_atoms(group, names, template)
    return [name for atom, name in zip(group, names, strict=True) if atom.element != "H"]


def by_residue(atoms: Sequence[AtomRecord]) -> list[list[AtomRecord]]:
    """Return the atoms of each residue, in the order of the file."""
    return [list(group) for _, group in groupby(atoms, key=lambda atom: (atom.residue_id, atom.residue_name))]


def place_of(atoms: Sequence[AtomRecord]) -> list[str]:
    """Return the place in the file of every atom."""
    return [atom.place for atom in atoms]


def _place(group: Sequence[AtomRecord], residues: dict[str, Residue]) -> PlacedResidue:
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
    _require_heavy_atoms(group, names, template)
    names = _place_hydrogens(group, names, template)
    return PlacedResidue(template, int(group[0].residue_id), tuple(names))


def _template_name(atom: AtomRecord, template: Residue) -> str:
    name = atom.name
    if atom.element != "H" and name not in template.elements:
        name = HEAVY_ALIASES.get(template.name, {}).get(name, name)
    return name if template.elements.get(name) == atom.element else ""


def _require_heavy_atoms(group: Sequence[AtomRecord], names: list[str], template: Residue) -> None:
    place, label = group[0].place, group[0].residue_label
    heavy = {name for name, symbol in template.elements.items() if symbol != "H"}
    missing = [name for name in template.elements if name in heavy - set(names)]
    extra = [atom for atom, name in zip(group, names, strict=True) if atom.element != "H" and not name]
    if missing:
        found = f" (unknown there: {printable(', '.join(a.name for a in extra))})" if extra else ""
        raise InputError(
            f"{place}: {label} lacks heavy atom {', '.join(missing)}{found}. Add it, for example with PDBFixer."
        )
    if extra:
        raise InputError(
            f"{extra[0].place}: {label} has an unexpected atom {printable(extra[0].name)}. "
            "Remove it, or correct its name."
        )
    repeated = [name for name, count in Counter(names).items() if name in heavy and count > 1]
    if repeated:
        raise InputError(f"{place}: {label} has {repeated[0]} twice. Correct the atom names.")


def _place_hydrogens(group: Sequence[AtomRecord], names: list[str], template: Residue) -> list[str]:
    """Name the hydrogens that no template name fits after the heavy atom that they sit on."""
    label = group[0].residue_label
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
                f"{atom.place}: {label} has an unexpected hydrogen {printable(atom.name)} on {neighbour}. "
                "Remove it, or correct its name."
            )
        result[i] = fitting[0]
        free.remove(fitting[0])
    if free:
        raise InputError(f"{group[0].place}: {label} lacks hydrogen {', '.join(free)}. {ADD_HYDROGENS}")
    return result
