"""From an input to all that the other rooms need: the molecule's record, its OpenMM System, coordinates.

::

    chemical = build(read_input("molecules/alanine_dipeptide.pdb"))
    chemical.molecule.smiles, chemical.system.getNumForces(), chemical.positions.shape
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import openmm
from openmm import app
from rdkit import Chem

from boltzgen.chemistry.forcefield import (
    build_system,
    force_field_files,
    force_field_name,
    net_charge,
    solvent_name,
)
from boltzgen.chemistry.pdb import structure_from_pdb
from boltzgen.chemistry.peptides import structure_from_smiles
from boltzgen.chemistry.perception import planar_atoms, rigid_bonds
from boltzgen.chemistry.read import InputSource
from boltzgen.chemistry.residues import CHI_ATOMS, load_residues
from boltzgen.chemistry.stereo import canonical_smiles, hill_formula, rdkit_molecule, stereocentres
from boltzgen.chemistry.structure import Structure
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
        Canonical names.
    force_field_hashes
        ``{file name: SHA-256}`` of the parameter files.
    stereocentres
        Configuration by centre, such as ``{"CA:ALA2": "S, L"}``.
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
    force_field_hashes: dict[str, str]
    stereocentres: dict[str, str]
    warnings: tuple[str, ...]


def build(source: InputSource, force_field: str = "ff14SB", solvent: str = "obc2") -> ChemicalSystem:
    """Interpret the input as a capped peptide and assign a force field.

    Raises
    ------
    InputError
        If the input is broken or a name is unknown.
    UnsupportedError
        If the molecule is valid but no capped peptide that this force field knows.
    """
    force_field, solvent = force_field_name(force_field), solvent_name(solvent)
    interpret = structure_from_pdb if source.kind == "pdb" else structure_from_smiles
    structure = interpret(source, load_residues())
    topology = structure.topology()
    system = build_system(topology, force_field, solvent)
    mol = rdkit_molecule(structure)
    molecule = _record(structure, mol, system)
    centres = stereocentres(structure, mol, source.where)
    return ChemicalSystem(
        molecule=molecule,
        system=system,
        topology=topology,
        positions=structure.positions,
        source=source,
        force_field=force_field,
        solvent=solvent,
        force_field_hashes=force_field_files(force_field, solvent),
        stereocentres=centres,
        warnings=(*structure.warnings, *_warnings(molecule, structure, centres, solvent)),
    )


def _record(structure: Structure, mol: Chem.Mol, system: openmm.System) -> Molecule:
    planar = planar_atoms(mol)
    return Molecule(
        atomic_numbers=tuple(atom.GetAtomicNum() for atom in mol.GetAtoms()),
        masses=tuple(
            system.getParticleMass(i).value_in_unit(openmm.unit.dalton) for i in range(system.getNumParticles())
        ),
        atom_names=tuple(name for residue in structure.residues for name in residue.names),
        residue_of_atom=tuple(r for r, residue in enumerate(structure.residues) for _ in residue.names),
        residue_names=tuple(residue.template.name for residue in structure.residues),
        residue_numbers=tuple(residue.number for residue in structure.residues),
        bonds=tuple(structure.bonds()),
        rigid_bonds=rigid_bonds(mol, planar),
        planar_atoms=planar,
        torsions=named_torsions(structure),
        smiles=canonical_smiles(mol),
        formula=hill_formula(mol),
        charge=net_charge(system),
    )


def named_torsions(structure: Structure) -> dict[str, tuple[int, int, int, int]]:
    """Return phi, psi, omega and chi by residue, such as ``"phi:ALA2"``.

    IUPAC-IUB convention: omega of residue i turns about the bond from its C to the next N; that of the acetyl
    cap starts at its methyl carbon.
    """
    at = structure.index()
    torsions: dict[str, tuple[int, int, int, int]] = {}
    for r, residue in enumerate(structure.residues):
        start = "CA" if "CA" in residue.names else "CH3"
        end = next((name for name in ("CA", "CH3") if (r + 1, name) in at), "")
        chains: dict[str, tuple[tuple[int, str], ...]] = {
            "phi": ((r - 1, "C"), (r, "N"), (r, "CA"), (r, "C")),
            "psi": ((r, "N"), (r, "CA"), (r, "C"), (r + 1, "N")),
            "omega": ((r, start), (r, "C"), (r + 1, "N"), (r + 1, end)),
        }
        chi = CHI_ATOMS.get(residue.template.name, ())
        for first in range(len(chi) - 3):
            chains[f"chi{first + 1}"] = tuple((r, name) for name in chi[first : first + 4])
        for kind, atoms in chains.items():
            if all(atom in at for atom in atoms):
                a, b, c, d = (at[atom] for atom in atoms)
                torsions[f"{kind}:{residue.label}"] = (a, b, c, d)
    return torsions


def _warnings(molecule: Molecule, structure: Structure, centres: dict[str, str], solvent: str) -> list[str]:
    found = [f"{name} has the D configuration, and keeps it" for name, code in centres.items() if code.endswith("D")]
    for name, atoms in molecule.torsions.items():
        b = np.diff(structure.positions[list(atoms)], axis=0)
        if name.startswith("omega") and np.dot(np.cross(b[0], b[1]), np.cross(b[1], b[2])) > 0:
            found.append(f"{name} is cis in the input, and stays so unless the next residue is proline")
    if "PRO" in molecule.residue_names:
        found.append("saturated ring (proline): only the pucker of the reference structure is sampled")
    if molecule.charge and solvent == "vacuum":
        found.append(f"net charge {molecule.charge:+d} in vacuum: consider an implicit solvent")
    return found
