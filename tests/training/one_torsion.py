"""A target whose ln Z, exact draws and optimum are known."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import openmm
import torch

from boltzgen.constants import thermal_energy
from boltzgen.coordinates.fitting import fit_coordinates
from boltzgen.coordinates.internal import Internal
from boltzgen.coordinates.locate import locate
from boltzgen.coordinates.zmatrix import build_zmatrix
from boltzgen.energy import from_openmm
from boltzgen.flow.architecture import Architecture
from boltzgen.flow.latents import Slow
from boltzgen.molecule import Molecule
from boltzgen.target import Target
from boltzgen.training.data import DataSet, LatentFrames
from boltzgen.training.gradient import Sources
from boltzgen.training.objectives import score
from boltzgen.training.trainer import Trainer, TrainSettings

KT = thermal_energy(300.0)
K_BOND, R0 = 250_000.0, 0.15
K_ANGLE, THETA0 = 450.0, 1.95


class OneTorsion:
    """Four atoms in a chain with harmonic bonds and angles and ``torsion`` = (periodicity, phase, k in kJ/mol) terms.

    All coordinates are independent, so ln Z is a sum of integrals and exact draws are draws of one number each.
    """

    def __init__(self, *torsion):
        self.torsion = torsion
        system = openmm.System()
        for _ in range(4):
            system.addParticle(12.0)
        bonds, angles, torsions = openmm.HarmonicBondForce(), openmm.HarmonicAngleForce(), openmm.PeriodicTorsionForce()
        for k in range(3):
            bonds.addBond(k, k + 1, R0, K_BOND)
        for k in range(2):
            angles.addAngle(k, k + 1, k + 2, THETA0, K_ANGLE)
        for n, phase, strength in torsion:
            torsions.addTorsion(0, 1, 2, 3, n, phase, strength)
        for force in (bonds, angles, torsions):
            system.addForce(force)
        potential = from_openmm(system)
        positions = np.array([[0.0, 0.0, 0.0], [0.15, 0.0, 0.0], [0.2, 0.14, 0.0], [0.25, 0.14, 0.09]])
        zmatrix = build_zmatrix((6,) * 4, ((0, 1), (1, 2), (2, 3)), (), positions)
        fitted = fit_coordinates(zmatrix, positions, lambda x: potential.batch_last(x, 200.0) / KT)
        names = {"torsions": {"phi": (0, 1, 2, 3)}, "smiles": "", "formula": "", "charge": 0}
        residue = {"residue_of_atom": (0,) * 4, "residue_names": ("MOL",), "residue_numbers": (1,)}
        molecule = Molecule(
            atomic_numbers=(6,) * 4,
            masses=(12.0,) * 4,
            atom_names=("X0", "X1", "X2", "X3"),
            bonds=((0, 1), (1, 2), (2, 3)),
            rigid_bonds=(),
            planar_atoms=(),
            **residue,
            **names,
        )
        self.target = Target(molecule, potential, fitted.coordinates, 300.0)
        self.architecture = Architecture.of(fitted.coordinates, stiff_hidden=16, n_couplings=2)
        r, theta = np.linspace(0.12, 0.18, 4001), np.linspace(1.2, 2.7, 4001)
        phi = np.linspace(-math.pi, math.pi, 7201)
        self._densities = [
            (r, r**2 * np.exp(-0.5 * K_BOND * (r - R0) ** 2 / KT)),
            (theta, np.sin(theta) * np.exp(-0.5 * K_ANGLE * (theta - THETA0) ** 2 / KT)),
            (phi, np.exp(-sum(k * (1 + np.cos(n * phi - phase)) for n, phase, k in torsion) / KT)),
        ]
        log_integrals = [math.log(np.trapezoid(p, x)) for x, p in self._densities]
        self.log_z = sum(n * value for n, value in zip((3, 2, 1), log_integrals, strict=True))

    def draw(self, n, seed, keep=None):
        """Exact draws ``(atoms, 3, n)``, of those torsions alone for which ``keep(phi)`` holds."""
        rng = np.random.default_rng(seed)
        r, theta, phi = (
            self._columns(density, shape, rng)
            for density, shape in zip(self._densities, ((3, n), (2, n), (1, 8 * n)), strict=True)
        )
        phi = phi[0][keep(phi[0]) if keep else slice(None)][None, :n]
        z = self.target.coordinates.zmatrix
        assert sorted(z.atom.tolist()) == [0, 1, 2, 3]
        internal = Internal(*(torch.as_tensor(np.ascontiguousarray(v)) for v in (r, theta, phi)))
        return self.target.coordinates.charts[0].geometry.positions(internal)

    @staticmethod
    def _columns(density, shape, rng):
        """Draws from a density on a fine grid, by its inverse integral."""
        x, p = density
        integral = np.concatenate([[0.0], np.cumsum(0.5 * (p[1:] + p[:-1]) * np.diff(x))])
        return np.interp(rng.random(shape), integral / integral[-1], x)

    def frames(self, n, seed, keep=None):
        located = locate(self.target.coordinates, self.draw(n, seed, keep))
        assert located.inside.all()
        weights = torch.full((n,), 1.0 / n, dtype=torch.float64)
        return LatentFrames(Slow(located.label, located.torsions), located.stiff, located.log_det, weights)

    def train(self, method, *, start=None, data=None, coordinate=None, **settings):
        sources = Sources(DataSet.of(data) if data else None, coordinate)
        settings = TrainSettings(**{"max_energies": 100_000, "method": method, **settings})
        trainer = Trainer(self.target, self.architecture, settings, sources=sources)
        trainer.schedule = replace(trainer.schedule, batches=((0.0, 256), (0.8, 1024)))  # many small steps
        if start is not None:
            trainer.generator.load_state_dict(start.state_dict())
            trainer.average.load_state_dict(start.state_dict())
        assert trainer.run(lambda progress: None, lambda: True, lambda: None)
        return trainer

    def reverse_kl(self, flow):
        """KL(q‖p) in nats, and its standard error: ln Z is known."""
        with torch.no_grad():
            drawn = score(flow, self.target.to(torch.float32), 20_000, torch.Generator().manual_seed(1))
        return (self.log_z - drawn.log_weight.double().mean()).item(), drawn.log_weight.std().item() / 20_000**0.5

    def log_z_error(self, flow):
        """Error of the estimate of ln Z from 20,000 weights in its own standard errors."""
        with torch.no_grad():
            drawn = score(flow, self.target.to(torch.float32), 20_000, torch.Generator().manual_seed(2))
        w = (drawn.log_weight.double() - self.log_z).exp()
        return ((w.mean() - 1.0) / (w.std() / len(w) ** 0.5)).item()

    @staticmethod
    def share_above_zero(flow):
        with torch.no_grad():
            slow, _ = flow.sample_slow(20_000, torch.Generator().manual_seed(3))
        return (slow.torsions[:, 0] > 0).double().mean().item()
