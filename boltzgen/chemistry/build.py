"""From an input to all that the other rooms need: the molecule's record, its OpenMM System, coordinates.

::

    chemical = build(read_input("molecules/alanine_dipeptide.pdb"))
    chemical.molecule.smiles, chemical.system.getNumForces(), chemical.positions.shape

Which force field: the one that is asked for; else ff14SB with OBC2 where residue templates match; else MMFF94s in
vacuum, and said so.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import openmm
import rdkit
from openmm import app
from rdkit import Chem
from rdkit.Chem.rdMolDescriptors import CalcMolFormula
from rdkit.rdBase import BlockLogs

from boltzgen.chemistry.external import SystemFile, load_system
from boltzgen.chemistry.forcefield import (
    AUTOMATIC,
    FORCE_FIELDS,
    GENERAL_DEFAULT,
    PEPTIDE_DEFAULT,
    build_system,
    force_field_files,
    force_field_name,
    is_generated,
    net_charge,
    solvent_name,
)
from boltzgen.chemistry.generated import build_generated_system
from boltzgen.chemistry.interpret import Interpreted, Reading, interpret
from boltzgen.chemistry.mmff import VARIANTS as MMFF_VARIANTS
from boltzgen.chemistry.mmff import build_mmff_system
from boltzgen.chemistry.names import Names, peptide_torsions, rotatable_torsions
from boltzgen.chemistry.perception import (
    planar_atoms,
    rigid_bonds,
)
from boltzgen.chemistry.read import InputSource
from boltzgen.chemistry.stereo import peptide_stereo, stereo_labels
from boltzgen.errors import InputError, UnsupportedError
from boltzgen.molecule import Molecule


@dataclass(frozen=True)
class ChemicalSystem:
    """A molecule with its force field.

    Attributes
    ----------
    molecule
        The plain record that the other rooms use.
    system, topology
        OpenMM's: no constraints, no cut-off, no periodic box.
    positions
        Coordinates as read or embedded, (atoms, 3), nm, float64. They are not minimised.
    source
        The input.
    force_field, solvent
        Canonical names; ``"system"`` and ``"as given"`` for a System from another tool.
    force_field_reason
        Why it is this force field.
    force_field_hashes
        ``{name: SHA-256 or version}`` of what the parameters come from.
    stereocentres
        Configuration by centre or double bond, such as ``{"CA:ALA2": "S, L"}`` or ``{"C2=C3": "E"}``.
    warnings
        What the user should know, one sentence each.
    """

    molecule: Molecule
    system: openmm.System
    topology: app.Topology
    positions: np.ndarray
    source: InputSource
    force_field: str
    solvent: str
    force_field_reason: str
    force_field_hashes: dict[str, str]
    stereocentres: dict[str, str]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class _Choice:
    force_field: str
    solvent: str
    reason: str
    hashes: dict[str, str]


def build(
    source: InputSource,
    force_field: str = AUTOMATIC,
    solvent: str = AUTOMATIC,
    reading: Reading | None = None,
    system_file: SystemFile | None = None,
) -> ChemicalSystem:
    """Interpret the input as one molecule and assign a force field, or take the System that is given.

    Raises
    ------
    InputError
        If the input is broken, a name is unknown, or the System is not of this molecule.
    UnsupportedError
        If the molecule is valid but no force field that was asked for knows it.
    EnvironmentProblem
        If the force field needs a toolkit that is not installed.
    """
    force_field, solvent = force_field_name(force_field), solvent_name(solvent)
    with BlockLogs():  # what RDKit would print is in the errors and warnings, or is nothing to a user
        return _build(source, force_field, solvent, reading or Reading(), system_file)


def _build(
    source: InputSource, force_field: str, solvent: str, reading: Reading, system_file: SystemFile | None
) -> ChemicalSystem:
    given = interpret(source, reading)
    topology = _topology(given)
    if system_file is not None:
        if (force_field, solvent) != (AUTOMATIC, AUTOMATIC):
            raise InputError("--system brings its own force field and solvent. Leave --ff and --solvent out.")
        system = load_system(system_file, given.mol, given.names.labels)
        choice = _Choice("system", "as given", "--system was given", {system_file.where: system_file.sha256})
    else:
        choice = _choose(given, force_field, solvent)
        system = _system(given, topology, choice)
    molecule = _record(given, system)
    if given.structure is None:
        stereo = stereo_labels(given.mol, given.names.labels, source.where)
    else:
        stereo = peptide_stereo(given.structure, given.mol, source.where)
    return ChemicalSystem(
        molecule=molecule,
        system=system,
        topology=topology,
        positions=given.positions,
        source=source,
        force_field=choice.force_field,
        solvent=choice.solvent,
        force_field_reason=choice.reason,
        force_field_hashes=choice.hashes,
        stereocentres=stereo,
        warnings=(*given.warnings, *_warnings(given, molecule, choice, system, stereo, force_field == AUTOMATIC)),
    )


def _choose(given: Interpreted, force_field: str, solvent: str) -> _Choice:
    """The cascade: what is asked for, templates, MMFF."""
    reason = "--ff was given"
    if force_field == AUTOMATIC and given.structure is not None:
        force_field, reason = PEPTIDE_DEFAULT, "residue templates match"
    elif force_field == AUTOMATIC:
        force_field, reason = GENERAL_DEFAULT, f"no residue templates match: {given.reason}"
    if force_field in FORCE_FIELDS:
        if given.structure is None:
            raise UnsupportedError(
                f"{force_field} has no residue templates for this molecule: {given.reason}. "
                f"Leave --ff out, or give {GENERAL_DEFAULT}."
            )
        solvent = "obc2" if solvent == AUTOMATIC else solvent
        return _Choice(force_field, solvent, reason, force_field_files(force_field, solvent))
    if force_field in MMFF_VARIANTS:
        if solvent not in (AUTOMATIC, "vacuum"):
            raise UnsupportedError(
                f"{force_field} has no parameters for the solvent {solvent}. Leave --solvent out, or give one "
                "with solvent as --system."
            )
        return _Choice(force_field, "vacuum", reason, {f"RDKit {force_field}": rdkit.__version__})
    solvent = "vacuum" if solvent == AUTOMATIC else solvent
    return _Choice(force_field, solvent, reason, force_field_files("", solvent))


def _system(given: Interpreted, topology: app.Topology, choice: _Choice) -> openmm.System:
    if choice.force_field in MMFF_VARIANTS:
        return build_mmff_system(given.mol, choice.force_field)
    if is_generated(choice.force_field):
        return build_generated_system(given.mol, topology, choice.force_field, choice.solvent)
    system = build_system(topology, choice.force_field, choice.solvent)
    total = net_charge(system)
    if abs(total - Chem.GetFormalCharge(given.mol)) > 1e-3:
        raise UnsupportedError(
            f"the partial charges add up to {total:.4f} e, the formal charges to "
            f"{Chem.GetFormalCharge(given.mol):+d}. Choose another force field."
        )
    return system


def _topology(given: Interpreted) -> app.Topology:
    topology = app.Topology()
    chain = topology.addChain("A")
    residues = [topology.addResidue(name, chain, str(number)) for name, number in given.names.residues]
    atoms = [
        topology.addAtom(name, app.Element.getByAtomicNumber(atom.GetAtomicNum()), residues[r])
        for atom, name, r in zip(given.mol.GetAtoms(), given.names.atoms, given.names.residue_of_atom, strict=True)
    ]
    for i, j in _bonds(given.mol):
        topology.addBond(atoms[i], atoms[j])
    return topology


def _bonds(mol: Chem.Mol) -> tuple[tuple[int, int], ...]:
    pairs = (sorted((bond.GetBeginAtomIdx(), bond.GetEndAtomIdx())) for bond in mol.GetBonds())
    return tuple(sorted((i, j) for i, j in pairs))


def _record(given: Interpreted, system: openmm.System) -> Molecule:
    mol, names = given.mol, given.names
    planar = planar_atoms(mol)
    rigid = rigid_bonds(mol, planar)
    return Molecule(
        atomic_numbers=tuple(atom.GetAtomicNum() for atom in mol.GetAtoms()),
        masses=tuple(
            system.getParticleMass(i).value_in_unit(openmm.unit.dalton) for i in range(system.getNumParticles())
        ),
        atom_names=names.atoms,
        residue_of_atom=names.residue_of_atom,
        residue_names=tuple(name for name, _ in names.residues),
        residue_numbers=tuple(number for _, number in names.residues),
        bonds=_bonds(mol),
        rigid_bonds=rigid,
        planar_atoms=planar,
        torsions=_torsions(given, names, rigid),
        smiles=Chem.MolToSmiles(Chem.RemoveHs(mol)),
        formula=CalcMolFormula(mol),
        charge=Chem.GetFormalCharge(mol),
    )


def _torsions(
    given: Interpreted, names: Names, rigid: tuple[tuple[int, int], ...]
) -> dict[str, tuple[int, int, int, int]]:
    if given.structure is not None:
        return peptide_torsions(given.structure)
    return rotatable_torsions(given.mol, names, rigid)


def _warnings(
    given: Interpreted,
    molecule: Molecule,
    choice: _Choice,
    system: openmm.System,
    stereo: dict[str, str],
    is_automatic: bool,
) -> list[str]:
    found = []
    if is_automatic and choice.force_field == GENERAL_DEFAULT:
        found.append(
            f"{choice.force_field} in {choice.solvent} is the force field, as {choice.reason}. "
            "--ff or --system chooses another"
        )
    found += [f"{name} has the D configuration, and keeps it" for name, code in stereo.items() if code.endswith("D")]
    for name, atoms in molecule.torsions.items():
        b = np.diff(given.positions[list(atoms)], axis=0)
        if name.startswith("omega") and np.dot(np.cross(b[0], b[1]), np.cross(b[1], b[2])) > 0:
            found.append(f"{name} is cis in the input, and stays so unless the next residue is proline")
    if molecule.charge and choice.solvent == "vacuum":
        found.append(f"net charge {molecule.charge:+d} in vacuum: consider an implicit solvent")
    elif choice.solvent == "vacuum" and any(atom.GetFormalCharge() for atom in _lone_charges(given.mol)):
        found.append("charged groups in vacuum attract each other without screening: consider an implicit solvent")
    total = net_charge(system)
    if choice.force_field == "system" and not math.isnan(total) and abs(total - molecule.charge) > 0.01:
        found.append(f"the System's charges add up to {total:+.3f}, the formal charges to {molecule.charge:+d}")
    return found


def _lone_charges(mol: Chem.Mol) -> list[Chem.Atom]:
    """Charged atoms without an opposite charge next to them, as that of a nitro group or an azide has."""
    return [
        atom
        for atom in mol.GetAtoms()
        if atom.GetFormalCharge()
        and not any(n.GetFormalCharge() * atom.GetFormalCharge() < 0 for n in atom.GetNeighbors())
    ]
