"""The command prepare: from a molecule to a target."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import torch

from boltzgen.config import Config, PrepareConfig
from boltzgen.constants import thermal_energy
from boltzgen.errors import ConflictError
from boltzgen.storage.atomic import atomic_write
from boltzgen.storage.runs import RunDirectory
from boltzgen.storage.trajectory import write_pdb
from boltzgen.storage.tree import put_tree
from boltzgen.target import Target
from boltzgen.training.objectives import PAIR_SOFTENING
from boltzgen.workflow.energy import CheckedEnergy, checked_energy
from boltzgen.workflow.stage import Context, Stage, StageResult, Summary, writing
from boltzgen.workflow.summary import prepare_text

if TYPE_CHECKING:
    from boltzgen.chemistry.build import ChemicalSystem
    from boltzgen.coordinates.harmonic import Fitted
    from boltzgen.energy.parity import Parity


@dataclass(frozen=True)
class _Prepared:
    """A target with what was found on the way to it."""

    target: Target
    parity: Parity
    fitted: Fitted
    n_energies: int


def prepare(
    source: str | None,
    smiles: str | None,
    run: Path | None,
    config: Config,
    context: Context,
    *,
    keep_same: bool = False,
) -> StageResult:
    """Read a molecule, assign its force field, fit its coordinates: ``system.h5``, ``system.pdb``, ``system.xml``.

    ``smiles`` is the molecule or, beside ``source``, where the bond orders of a PDB or mmCIF file come from. With
    ``keep_same`` a run that is prepared in the same way already is kept even under ``--force``, so that a later stage
    that is forced can go on from its checkpoint.
    """
    # Imported here: they bring OpenMM and RDKit, which a prepared run does without.
    from boltzgen.chemistry.build import build
    from boltzgen.chemistry.external import read_system_file
    from boltzgen.chemistry.interpret import Reading
    from boltzgen.chemistry.read import read_input

    settings = config.prepare
    text = read_input(source, None if source else smiles)
    template = read_input(smiles=smiles) if source and smiles is not None else None
    system_file = read_system_file(settings.system) if settings.system else None
    parents = {"input": text, "smiles": template, "system": system_file}
    directory = RunDirectory(run) if run else RunDirectory.default_for(Path(text.name))
    stage = Stage(
        "prepare",
        directory,
        directory.system_h5,
        {"prepare": settings.model_dump(mode="json", exclude={"system"}), "seed": config.seed},
        {name: parent.sha256 for name, parent in parents.items() if parent is not None},
        settings.temperature,
        config.seed,
        context,
        prepare_text,
    )
    if _is_prepared(stage, keep_same):
        return stage.skipped()
    reading = Reading(
        template=template,
        charge=settings.charge,
        model=settings.model,
        largest_fragment=settings.largest_fragment,
        add_hydrogens=settings.add_hydrogens,
        stereo=settings.stereo,
        keep_order=system_file is not None,
        seed=config.seed,
    )
    chemical = build(text, settings.force_field, settings.solvent, reading, system_file)
    for warning in chemical.warnings:
        context.reporter.warn(warning)
    energy = checked_energy(chemical, config.seed, context.reporter)
    with writing(directory):
        context.reporter.info(f"{chemical.molecule.formula}, {chemical.molecule.n_atoms} atoms: minimising conformers")
        prepared = _fit(chemical, energy, settings, config.seed)
        return _store(stage, chemical, prepared)


def _is_prepared(stage: Stage, keep_same: bool) -> bool:
    if not keep_same:
        return stage.is_done()
    try:
        return stage.is_done(force=False)
    except ConflictError:
        if stage.context.force:
            return False
        raise


def _fit(chemical: ChemicalSystem, energy: CheckedEnergy, settings: PrepareConfig, seed: int) -> _Prepared:
    """Fit the coordinates."""
    from boltzgen.coordinates.harmonic import fit_coordinates
    from boltzgen.coordinates.zmatrix import build_zmatrix

    molecule, potential = chemical.molecule, energy.potential
    kT = thermal_energy(settings.temperature)
    n_energies = energy.n_energies

    def softened(x: torch.Tensor) -> torch.Tensor:
        nonlocal n_energies
        n_energies += x.shape[-1]
        return potential.batch_last(x, PAIR_SOFTENING) / kT

    zmatrix = build_zmatrix(molecule.atomic_numbers, molecule.bonds, molecule.rigid_bonds, chemical.positions)
    fitted = fit_coordinates(
        zmatrix,
        chemical.positions,
        softened,
        molecule.planar_atoms,
        n_conformers=settings.conformers,
        seed=seed,
    )
    target = Target(molecule, potential, fitted.coordinates, settings.temperature)
    return _Prepared(target, energy.parity, fitted, n_energies)


def _store(stage: Stage, chemical: ChemicalSystem, prepared: _Prepared) -> StageResult:
    import openmm

    molecule, directory, fitted = chemical.molecule, stage.directory, prepared.fitted

    def fill(file: h5py.File) -> None:
        put_tree(file.create_group("target"), prepared.target.to_tree())
        conformers = {"positions": fitted.conformers, "reduced_potential": fitted.reduced_potentials}
        put_tree(file.create_group("conformers"), conformers)
        put_tree(file.create_group("parity"), asdict(prepared.parity))

    atomic_write(directory.system_xml, openmm.XmlSerializer.serialize(chemical.system).encode())
    write_pdb(directory.system_pdb, molecule, fitted.conformers[:1])
    extra: dict[str, Any] = {
        "input": chemical.source.text,
        "force_field_files": [f"{name} {digest}" for name, digest in chemical.force_field_hashes.items()],
        "warnings": list(chemical.warnings),
    }
    files = (directory.system_pdb, directory.system_xml)
    return stage.write(fill, _summary(chemical, prepared, stage.context), files=files, extra=extra)


def _summary(chemical: ChemicalSystem, prepared: _Prepared, context: Context) -> Summary:
    molecule, coordinates = chemical.molecule, prepared.fitted.coordinates
    return {
        "formula": molecule.formula,
        "smiles": molecule.smiles,
        "charge": molecule.charge,
        "stereocentres": chemical.stereocentres,
        "force_field": chemical.force_field,
        "force_field_reason": chemical.force_field_reason,
        "solvent": chemical.solvent,
        "n_atoms": molecule.n_atoms,
        "n_torsions": coordinates.n_torsions,
        "n_rotors": len(coordinates.zmatrix.rotors),
        "symmetry_number": coordinates.zmatrix.symmetry_number,
        "n_stiff": coordinates.n_stiff,
        "n_conformers": len(prepared.fitted.conformers),
        "lowest_u": float(prepared.fitted.reduced_potentials[0]),
        "parity": asdict(prepared.parity),
        "warnings": list(chemical.warnings),
        "n_energy_evaluations": prepared.n_energies,
        "n_force_evaluations": prepared.n_energies,
        "seconds": context.seconds,
    }
