"""MMFF94 and MMFF94s for any organic molecule: from RDKit's parameters to an OpenMM System."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Any

import openmm
from rdkit import Chem
from rdkit.Chem import rdForceFieldHelpers
from rdkit.Chem.rdMolDescriptors import CalcMolFormula

from boltzgen.energy.mmff_expressions import FORMS, KILOCALORIE, SCALE_14
from boltzgen.errors import InputError, UnsupportedError

VARIANTS = ("MMFF94", "MMFF94s")

MDYNE_ANGSTROM = 143.9325 * KILOCALORIE
"""1 mdyn Å, MMFF's unit of force constants times length squared, in kJ/mol; MMFF's own rounding."""

LINEAR_TYPES = frozenset({4, 42, 53, 60, 61})
"""MMFF types of atoms that are linear centres: alkyne, nitrile, allene, azide, isonitrile, diazonium."""

Row = tuple[Sequence[int], Sequence[float]]
"""Atoms and parameters of one interaction."""


def build_mmff_system(mol: Chem.Mol, variant: str = "MMFF94s") -> openmm.System:
    """Return a System whose energy is RDKit's MMFF energy, term by term, without cutoff.

    Every term is a custom force whose expression, named parameters and units (nm, kJ/mol, radians, e) stand in the
    System itself, so that its XML is complete: any OpenMM evaluates it without RDKit. The forces are named
    MMFFBond, MMFFAngle, MMFFLinearAngle, MMFFStretchBend, MMFFOutOfPlane, MMFFTorsion and MMFFNonbonded
    (:mod:`boltzgen.energy.mmff` has their formulas); a force without interactions is left out. Atoms keep their order;
    masses are those of RDKit, isotopes included. The dielectric constant is 1. All pairs three bonds apart or more
    interact, those of different fragments too (RDKit leaves these out unless ``ignoreInterfragInteractions=False``).

    Parameters
    ----------
    mol:
        A sanitised molecule with all hydrogens as atoms; it needs no conformer and is not changed.
    variant:
        ``"MMFF94"`` or ``"MMFF94s"``; the latter has flatter trigonal nitrogens, as in time-averaged structures.

    Raises
    ------
    InputError
        If hydrogens are missing, the molecule has no atoms, or the variant is unknown.
    UnsupportedError
        If RDKit has no MMFF parameters for an atom; for radicals, whose electrons MMFF does not know; and if the MMFF
        charges do not add up to the formal charge (CO₂, phosphonium, carbanions), for then the atoms are mistyped.

    Notes
    -----
    Sources: Halgren, J. Comput. Chem. 17, 490, 520, 553, 587, 616 (1996), MMFF94; 20, 720 (1999), MMFF94s; the
    parameters and their empirical rules are those of Tosco, Stiefl, Landrum, J. Cheminform. 6, 37 (2014).
    """
    if variant not in VARIANTS:
        raise InputError(f"unknown MMFF variant {variant!r}. Known: {', '.join(VARIANTS)}.")
    mol = Chem.Mol(mol)
    _check(mol)
    properties = rdForceFieldHelpers.MMFFGetMoleculeProperties(mol, mmffVariant=variant)
    if properties is None:
        raise UnsupportedError(f"{variant} has no parameters for {_untyped_atoms(mol)}. Choose another force field.")
    charges = [properties.GetMMFFPartialCharge(i) for i in range(mol.GetNumAtoms())]
    _check_charge(sum(charges), Chem.GetFormalCharge(mol), variant)
    rows = {
        "MMFFBond": _bonds(mol, properties),
        "MMFFAngle": _angles(mol, properties),
        "MMFFLinearAngle": _linear_angles(mol, properties),
        "MMFFStretchBend": _stretch_bends(mol, properties),
        "MMFFOutOfPlane": _out_of_plane(mol, properties),
        "MMFFTorsion": _torsions(mol, properties),
        "MMFFNonbonded": _pairs(mol, properties, charges),
    }
    system = openmm.System()
    for atom in mol.GetAtoms():
        system.addParticle(atom.GetMass())
    for name, interactions in rows.items():
        force = _custom_force(name, [*interactions])
        if force is not None:
            system.addForce(force)
    return system


def _check(mol: Chem.Mol) -> None:
    if not mol.GetNumAtoms():
        raise InputError("the molecule has no atoms.")
    bare = [atom for atom in mol.GetAtoms() if atom.GetTotalNumHs()]
    if bare:
        raise InputError(f"hydrogens are missing on {_labels(bare)}. Add all hydrogens.")
    radicals = [atom for atom in mol.GetAtoms() if atom.GetNumRadicalElectrons()]
    if radicals:
        raise UnsupportedError(f"MMFF has no parameters for the unpaired electrons of {_labels(radicals)}.")


def _check_charge(total: float, formal: int, variant: str) -> None:
    if abs(total - formal) > 1e-6:
        raise UnsupportedError(
            f"the {variant} charges add up to {round(total, 3) + 0.0:+.3f}, the formal charges to {formal:+d}: "
            "RDKit mistypes an atom. Choose another force field."
        )


def _labels(atoms: Sequence[Chem.Atom]) -> str:
    return ", ".join(f"{atom.GetSymbol()}{atom.GetIdx() + 1}" for atom in atoms)


def _untyped_atoms(mol: Chem.Mol) -> str:
    """Atoms that have no MMFF type even where all their heavy neighbours are plain carbons."""
    kekulised = Chem.Mol(mol)
    Chem.Kekulize(kekulised, clearAromaticFlags=True)
    untyped = [
        atom
        for atom in kekulised.GetAtoms()
        if not rdForceFieldHelpers.MMFFHasAllMoleculeParams(Chem.AddHs(_capped(atom)))
    ]
    return f"{_labels(untyped)} of {CalcMolFormula(mol)}" if untyped else CalcMolFormula(mol)


def _capped(atom: Chem.Atom) -> Chem.Mol:
    capped = Chem.RWMol()
    centre = Chem.Atom(atom.GetAtomicNum())
    centre.SetFormalCharge(atom.GetFormalCharge())
    centre.SetNoImplicit(True)
    capped.AddAtom(centre)
    for bond in atom.GetBonds():
        is_hydrogen = bond.GetOtherAtom(atom).GetAtomicNum() == 1
        capped.AddBond(0, capped.AddAtom(Chem.Atom(1 if is_hydrogen else 6)), bond.GetBondType())
    Chem.SanitizeMol(capped)
    return capped.GetMol()


def _bonds(mol: Chem.Mol, properties: Any) -> Iterator[Row]:
    for bond in mol.GetBonds():
        atoms = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()
        _, k, r0 = properties.GetMMFFBondStretchParams(mol, *atoms)
        yield atoms, (100.0 * MDYNE_ANGSTROM * k, 0.1 * r0)


def _centred(mol: Chem.Mol) -> Iterator[tuple[int, int, int]]:
    """Yield every pair of neighbours of an atom, the atom in the middle."""
    for centre in mol.GetAtoms():
        for a, b in combinations([atom.GetIdx() for atom in centre.GetNeighbors()], 2):
            yield a, centre.GetIdx(), b


def _angles(mol: Chem.Mol, properties: Any) -> Iterator[Row]:
    for atoms in _centred(mol):
        if properties.GetMMFFAtomType(atoms[1]) not in LINEAR_TYPES:
            _, k, theta0 = properties.GetMMFFAngleBendParams(mol, *atoms)
            yield atoms, (MDYNE_ANGSTROM * k, math.radians(theta0))


def _linear_angles(mol: Chem.Mol, properties: Any) -> Iterator[Row]:
    for atoms in _centred(mol):
        if properties.GetMMFFAtomType(atoms[1]) in LINEAR_TYPES:
            yield atoms, (MDYNE_ANGSTROM * properties.GetMMFFAngleBendParams(mol, *atoms)[1],)


def _stretch_bends(mol: Chem.Mol, properties: Any) -> Iterator[Row]:
    for atoms in _centred(mol):
        found = properties.GetMMFFStretchBendParams(mol, *atoms)
        if found is None:  # a linear centre, or force constants of zero
            continue
        i, j, k = atoms
        r1, r2 = properties.GetMMFFBondStretchParams(mol, i, j)[2], properties.GetMMFFBondStretchParams(mol, j, k)[2]
        theta0 = properties.GetMMFFAngleBendParams(mol, i, j, k)[2]
        force_constants = 10.0 * MDYNE_ANGSTROM * found[1], 10.0 * MDYNE_ANGSTROM * found[2]
        yield atoms, (*force_constants, 0.1 * r1, 0.1 * r2, math.radians(theta0))


def _out_of_plane(mol: Chem.Mol, properties: Any) -> Iterator[Row]:
    for centre in mol.GetAtoms():
        if centre.GetDegree() != 3:
            continue
        a, b, c = (atom.GetIdx() for atom in centre.GetNeighbors())
        k = properties.GetMMFFOopBendParams(mol, a, centre.GetIdx(), b, c)
        if k:
            yield (centre.GetIdx(), a, b, c), (MDYNE_ANGSTROM * k,)


def _torsions(mol: Chem.Mol, properties: Any) -> Iterator[Row]:
    for bond in mol.GetBonds():
        j, k = bond.GetBeginAtom(), bond.GetEndAtom()
        if not (_turns(j) and _turns(k)):
            continue
        for first in j.GetNeighbors():
            for last in k.GetNeighbors():
                atoms = first.GetIdx(), j.GetIdx(), k.GetIdx(), last.GetIdx()
                if len(set(atoms)) < 4:
                    continue
                found = properties.GetMMFFTorsionParams(mol, *atoms)
                if found is not None:
                    yield atoms, [KILOCALORIE * v for v in found[1:]]


def _turns(atom: Chem.Atom) -> bool:
    """Whether RDKit has torsions about the bonds of this atom: bent, and with another neighbour."""
    bent = atom.GetHybridization() in (Chem.HybridizationType.SP2, Chem.HybridizationType.SP3)
    return bent and all(bond.GetBondType() != Chem.BondType.TRIPLE for bond in atom.GetBonds())


def _pairs(mol: Chem.Mol, properties: Any, charges: Sequence[float]) -> Iterator[Row]:
    distance = Chem.GetDistanceMatrix(mol)
    for i, j in combinations(range(mol.GetNumAtoms()), 2):
        if distance[i, j] < 3:
            continue
        _, _, rstar, epsilon = properties.GetMMFFVdWParams(i, j)
        scale = SCALE_14 if distance[i, j] == 3 else 1.0
        yield (i, j), (0.1 * rstar, KILOCALORIE * epsilon, scale * charges[i] * charges[j])


def _custom_force(name: str, rows: Sequence[Row]) -> openmm.Force | None:
    if not rows:
        return None
    form = FORMS[name]
    if form.force == "CustomCompoundBondForce":
        force = openmm.CustomCompoundBondForce(form.n_atoms, form.expression)
        add_parameter, add = force.addPerBondParameter, force.addBond
    elif form.force == "CustomBondForce":
        force = openmm.CustomBondForce(form.expression)
        add_parameter, add = force.addPerBondParameter, lambda atoms, values: force.addBond(*atoms, values)
    elif form.force == "CustomAngleForce":
        force = openmm.CustomAngleForce(form.expression)
        add_parameter, add = force.addPerAngleParameter, lambda atoms, values: force.addAngle(*atoms, values)
    else:
        force = openmm.CustomTorsionForce(form.expression)
        add_parameter, add = force.addPerTorsionParameter, lambda atoms, values: force.addTorsion(*atoms, values)
    force.setName(name)
    for parameter in form.parameters:
        add_parameter(parameter)
    for atoms, values in rows:
        add(atoms, values)
    return force
