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
from boltzgen.workflow.conformers import search_conformers
from boltzgen.workflow.coordinates_check import CoordinatesCheck, check_coordinates
from boltzgen.workflow.energy import CheckedEnergy, checked_energy
from boltzgen.workflow.stage import Context, Stage, StageResult, Summary, writing
from boltzgen.workflow.summary import prepare_text

if TYPE_CHECKING:
    from boltzgen.chemistry.build import ChemicalSystem
    from boltzgen.chemistry.external import SystemFile
    from boltzgen.chemistry.interpret import Reading
    from boltzgen.chemistry.read import InputSource
    from boltzgen.coordinates.atlas import Atlas
    from boltzgen.coordinates.fitting import Fitted
    from boltzgen.coordinates.molecular import MolecularCoordinates
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
    request = open_request(source, smiles, run, config, context)
    stage = request.stage
    if is_prepared(stage, keep_same):
        return stage.skipped()
    chemical = request.build()
    for warning in chemical.warnings:
        context.reporter.warn(warning)
    energy = checked_energy(chemical, config.seed, context.reporter)
    with writing(stage.directory):
        context.reporter.info(f"{chemical.molecule.formula}, {chemical.molecule.n_atoms} atoms: minimising conformers")
        prepared = _fit(chemical, energy, config.prepare, config.seed)
        n_basins, n_charts = prepared.fitted.n_basins, prepared.target.coordinates.n_charts
        if n_basins > n_charts:
            context.reporter.warn(f"only the lowest {n_charts} of {n_basins} shapes of rings found are sampled")
        check = check_coordinates(prepared.target, energy.potential, prepared.fitted.conformers, config.seed)
        for warning in check.warnings:
            context.reporter.warn(warning)
        return _store(stage, chemical, prepared, check)


@dataclass(frozen=True)
class Request:
    """What is to be prepared, read but not interpreted, and the stage that does it."""

    stage: Stage
    text: InputSource
    reading: Reading
    system_file: SystemFile | None
    settings: PrepareConfig

    def build(self) -> ChemicalSystem:
        """Interpret the input and assign the force field."""
        from boltzgen.chemistry.build import build

        return build(self.text, self.settings.force_field, self.settings.solvent, self.reading, self.system_file)


def open_request(source: str | None, smiles: str | None, run: Path | None, config: Config, context: Context) -> Request:
    """Read all input files of ``prepare``, see there."""
    # Imported here: they bring OpenMM and RDKit, which a prepared run does without.
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
    return Request(stage, text, reading, system_file, settings)


def is_prepared(stage: Stage, keep_same: bool) -> bool:
    """Whether the run is there for the same input and settings; with ``keep_same`` even under ``--force``."""
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
    from boltzgen.coordinates.fitting import fit_coordinates
    from boltzgen.coordinates.zmatrix import build_zmatrix

    molecule, potential = chemical.molecule, energy.potential
    kT = thermal_energy(settings.temperature)
    n_energies = energy.n_energies

    def softened(x: torch.Tensor) -> torch.Tensor:
        nonlocal n_energies
        n_energies += x.shape[-1]
        return potential.batch_last(x, PAIR_SOFTENING) / kT

    search = search_conformers(molecule, chemical.positions, potential, settings.embeddings, seed)
    n_energies += search.n_energies
    zmatrix = build_zmatrix(molecule.atomic_numbers, molecule.bonds, molecule.rigid_bonds, chemical.positions)
    fitted = fit_coordinates(
        zmatrix,
        chemical.positions,
        softened,
        molecule.planar_atoms,
        conformers=search.positions,
        n_conformers=settings.conformers,
        seed=seed,
    )
    target = Target(molecule, potential, fitted.coordinates, settings.temperature)
    return _Prepared(target, energy.parity, fitted, n_energies)


def _store(stage: Stage, chemical: ChemicalSystem, prepared: _Prepared, check: CoordinatesCheck) -> StageResult:
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
        "warnings": [*chemical.warnings, *check.warnings],
    }
    files = (directory.system_pdb, directory.system_xml)
    return stage.write(fill, _summary(chemical, prepared, check, stage.context), files=files, extra=extra)


def describe(chemical: ChemicalSystem, coordinates: Atlas | MolecularCoordinates) -> Summary:
    """The molecule, its force field and its degrees of freedom."""
    molecule = chemical.molecule
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
        "warnings": list(chemical.warnings),
    }


def _summary(chemical: ChemicalSystem, prepared: _Prepared, check: CoordinatesCheck, context: Context) -> Summary:
    return {
        **describe(chemical, prepared.fitted.coordinates),
        "n_charts": prepared.fitted.coordinates.n_charts,
        "n_conformers": len(prepared.fitted.conformers),
        "lowest_u": float(prepared.fitted.reduced_potentials[0]),
        "parity": asdict(prepared.parity),
        "coordinates_check": check.summary(),
        "warnings": [*chemical.warnings, *check.warnings],
        "n_energy_evaluations": prepared.n_energies + check.n_energies,
        "n_force_evaluations": prepared.n_energies + check.states.n_energies,
        "seconds": context.seconds,
    }
