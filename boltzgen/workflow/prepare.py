"""The command prepare: from a molecule to a target."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import h5py
import torch

from boltzgen.config import Config
from boltzgen.constants import thermal_energy
from boltzgen.errors import InputError
from boltzgen.storage.atomic import atomic_write
from boltzgen.storage.runs import RunDirectory
from boltzgen.storage.trajectory import write_pdb
from boltzgen.storage.tree import put_tree
from boltzgen.target import Target
from boltzgen.workflow.stage import Context, Stage, StageResult, already_there, writing


def prepare(source: str | None, smiles: str | None, run: Path | None, config: Config, context: Context) -> StageResult:
    """Read a molecule, assign its force field, fit its coordinates: ``system.h5``, ``system.pdb``, ``system.xml``."""
    # Imported here: they bring OpenMM and RDKit, which a prepared run does without.
    import openmm

    from boltzgen.chemistry.build import build
    from boltzgen.chemistry.read import read_input
    from boltzgen.coordinates.harmonic import fit_coordinates
    from boltzgen.coordinates.zmatrix import build_zmatrix
    from boltzgen.energy.convert import check_parity, from_openmm
    from boltzgen.training.objectives import PAIR_SOFTENING

    text = read_input(source, smiles)
    directory = RunDirectory(run) if run else RunDirectory.default_for(Path(text.name))
    settings = config.prepare
    stage = Stage(
        "prepare",
        directory.system_h5,
        {"prepare": settings.model_dump(mode="json"), "seed": config.seed},
        {"input": text.sha256},
        settings.temperature,
        config.seed,
        context,
    )
    if directory.path.exists() and stage.is_done():
        return already_there("prepare", directory, directory.system_h5)
    chemical = build(text, settings.force_field, settings.solvent)
    for warning in chemical.warnings:
        context.reporter.warn(warning)
    molecule = chemical.molecule
    potential = from_openmm(chemical.system)
    parity = check_parity(chemical.system, potential, chemical.positions, seed=config.seed)
    if not parity.agrees:
        raise InputError(
            f"the converted energy deviates from OpenMM by {parity.energy:.3g} kJ/mol. Report this molecule."
        )
    zmatrix = build_zmatrix(molecule.atomic_numbers, molecule.bonds, molecule.rigid_bonds)
    counter = {"energies": 0}
    kT = thermal_energy(settings.temperature)
    with writing(directory):
        context.reporter.info(f"{molecule.formula}, {molecule.n_atoms} atoms: minimising conformers")

        def softened(x: torch.Tensor) -> torch.Tensor:
            counter["energies"] += x.shape[-1]
            return potential.batch_last(x, PAIR_SOFTENING) / kT

        fitted = fit_coordinates(
            zmatrix,
            chemical.positions,
            softened,
            molecule.planar_atoms,
            n_conformers=settings.conformers,
            seed=config.seed,
        )
        target = Target(molecule, potential, fitted.coordinates, settings.temperature)

        def fill(file: h5py.File) -> None:
            put_tree(file.create_group("target"), target.to_tree())
            conformers = {"positions": fitted.conformers, "reduced_potential": fitted.reduced_potentials}
            put_tree(file.create_group("conformers"), conformers)
            put_tree(file.create_group("parity"), asdict(parity))

        atomic_write(directory.system_xml, openmm.XmlSerializer.serialize(chemical.system).encode())
        write_pdb(directory.system_pdb, molecule, fitted.conformers[:1])
        stage.write(
            fill,
            {
                "input": text.text,
                "force_field": chemical.force_field,
                "solvent": chemical.solvent,
                "force_field_files": [f"{name} {digest}" for name, digest in chemical.force_field_hashes.items()],
                "stereocentres": chemical.stereocentres,
                "warnings": list(chemical.warnings),
                "smiles": molecule.smiles,
                "formula": molecule.formula,
                "n_energy_evaluations": counter["energies"],
            },
        )
    coordinates = fitted.coordinates
    stereo = ", ".join(f"{atom} {label}" for atom, label in chemical.stereocentres.items()) or "none"
    lines = [
        f"molecule      {molecule.formula}, {molecule.n_atoms} atoms, charge {molecule.charge:+d}",
        f"SMILES        {molecule.smiles}",
        f"stereo        {stereo}",
        f"force field   {chemical.force_field} + {chemical.solvent}, {settings.temperature:g} K",
        f"coordinates   {coordinates.n_torsions} slow torsions ({len(zmatrix.rotors)} of them symmetric rotors), "
        f"{coordinates.n_stiff} stiff",
        "held          stereocentres, and cis or trans of amide bonds (not before proline), as in the input",
        f"energy check  {parity.describe()}",
        f"conformers    {len(fitted.conformers)} distinct minima, lowest u = {fitted.reduced_potentials[0]:.2f} kT",
        f"written       {directory.system_h5}, {directory.system_pdb}, {directory.system_xml}",
    ]
    summary = {
        "formula": molecule.formula,
        "smiles": molecule.smiles,
        "charge": molecule.charge,
        "force_field": chemical.force_field,
        "solvent": chemical.solvent,
        "temperature": settings.temperature,
        "n_atoms": molecule.n_atoms,
        "n_torsions": coordinates.n_torsions,
        "n_stiff": coordinates.n_stiff,
        "parity": asdict(parity),
        "n_energy_evaluations": counter["energies"],
        "n_force_evaluations": counter["energies"],
        "seconds": context.seconds,
        "files": [str(directory.system_h5), str(directory.system_pdb), str(directory.system_xml)],
    }
    return StageResult("prepare", directory.path, False, summary, "\n".join(lines))
