"""A run of four atoms whose torsion has a known density: harmonic bonds and angles, one cosine series, nothing else."""

from __future__ import annotations

from pathlib import Path

import mdtraj
import numpy as np
import openmm

from boltzgen import workflow
from boltzgen.config import resolve_config
from boltzgen.storage.atomic import write_hdf5
from boltzgen.storage.runs import fill_provenance, read_provenance
from boltzgen.storage.trajectory import Frames, fill_trajectory, read_molecule, read_trajectory

TORSION = ((1, 2.5, 0.6), (3, 6.0, 0.0))
"""Periodicity, k in kJ/mol and phase in radians."""


def chain_system(*extra: openmm.Force) -> openmm.System:
    """F–O–O–F: the density of its torsion is ∝ exp(−U(φ)/kT), as bonds and angles do not depend on it."""
    system = openmm.System()
    bonds, angles, torsions = openmm.HarmonicBondForce(), openmm.HarmonicAngleForce(), openmm.PeriodicTorsionForce()
    for mass in (19.0, 16.0, 16.0, 19.0):
        system.addParticle(mass)
    for i in range(3):
        bonds.addBond(i, i + 1, 0.145, 5e4)
    for i in range(2):
        angles.addAngle(i, i + 1, i + 2, 1.85, 400.0)
    for periodicity, k, phase in TORSION:
        torsions.addTorsion(0, 1, 2, 3, periodicity, phase, k)
    for force in (bonds, angles, torsions, *extra):
        system.addForce(force)
    return system


def prepare_chain(folder: Path, system: openmm.System, name: str = "chain.run", temperature: float = 300.0) -> Path:
    """The prepared run."""
    xml = folder / "system.xml"
    xml.write_text(openmm.XmlSerializer.serialize(system))
    config = resolve_config(None, [], {"prepare.system": str(xml), "prepare.temperature": temperature})
    return workflow.prepare(None, "FOOF", folder / name, config, workflow.Context()).run


def exact_share(inside, kT: float) -> float:
    """Probability that the torsion is where ``inside(φ)``, for radians in [−π, π)."""
    phi = np.linspace(-np.pi, np.pi, 36_000, endpoint=False)
    weight = np.exp(-sum(k * (1.0 + np.cos(n * phi - phase)) for n, k, phase in TORSION) / kT)
    return float(weight[inside(phi)].sum() / weight.sum())


def without_samples(run, unwanted):
    """Rewrite the ensemble of a run without the samples where ``unwanted(radians)``; the flow stays as it is."""
    path = run / "ensemble.h5"
    record, molecule, frames = read_provenance(path), read_molecule(path), read_trajectory(path)
    (atoms,) = molecule.torsions.values()
    angle = mdtraj.compute_dihedrals(mdtraj.load(str(path)), [atoms])[:, 0]
    kept = ~unwanted(angle)
    names = ("positions", "log_prob", "reduced_potential", "log_weight")
    rest = Frames(*(getattr(frames, name)[kept] for name in names))

    def fill(file):
        fill_trajectory(file, molecule, rest, record.temperature)
        fill_provenance(
            file,
            **{"stage": record.stage, "command_line": "", "config": record.config, "seeds": record.seeds},
            **{"temperature": record.temperature, "inputs": record.parents, "device": "cpu", "dtype": "float64"},
            extra=record.extra,
        )

    write_hdf5(path, fill)
