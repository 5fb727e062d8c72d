"""Batched Langevin dynamics: its speed beside OpenMM's.

    python benchmarks/dynamics.py speed molecules/alanine_dipeptide.pdb --solvents vacuum obc2

Every engine runs in turn, ``--repeats`` times, each on one thread of the same core; medians are printed with the lowest
and highest, so that a busy machine shows.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import openmm
import torch
from openmm import app
from openmm.app.internal.customgbforces import GBSAOBC2Force

from boltzgen.chemistry.build import ChemicalSystem, build
from boltzgen.chemistry.read import read_input
from boltzgen.dynamics.langevin import Langevin, Walkers, repartition_hydrogen_masses
from boltzgen.dynamics.minimise import minimise
from boltzgen.energy import from_openmm
from boltzgen.molecule import Molecule

DTYPES = {"float32": torch.float32, "float64": torch.float64}
TEMPERATURE, FRICTION = 300.0, 1.0  # K, 1/ps


@dataclass(frozen=True)
class Speed:
    """ns per minute of one engine: one number per repetition."""

    system: str
    engine: str
    timestep: float
    hydrogen_mass: float | None
    molecules: int
    ns_per_minute: list[float]

    def line(self, reference: Speed) -> str:
        """One row of the table; the ratio is the median of those within each repetition."""
        ratios = [a / b for a, b in zip(self.ns_per_minute, reference.ns_per_minute, strict=True)]
        middle, low, high = median(self.ns_per_minute), min(self.ns_per_minute), max(self.ns_per_minute)
        step = 6e4 * self.timestep / (1e3 * middle)  # µs per step of one molecule
        hydrogen = f"{self.hydrogen_mass:g}" if self.hydrogen_mass else "-"
        return (
            f"{self.system:<8} {self.engine:<26} {self.timestep:>4g} {hydrogen:>4} {self.molecules:>6} {step:>9.2f} "
            f"{middle:>10.3f} ({low:.3f} to {high:.3f}) {median(ratios):>9.1f}"
        )


def hardware() -> str:
    """The processor and what computes on it."""
    names = [
        line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    ]
    versions = f"Python {platform.python_version()}, torch {torch.__version__}, OpenMM {openmm.__version__}"
    return f"{len(names)} x {names[0]}, {torch.backends.cpu.get_cpu_capability()}; {versions}; one thread"


def masses_of(molecule: Molecule, hydrogen_mass: float | None) -> torch.Tensor:
    masses = torch.tensor(molecule.masses, dtype=torch.float64)
    return repartition_hydrogen_masses(masses, molecule.bonds, hydrogen_mass) if hydrogen_mass else masses


def starts(chemical: ChemicalSystem, batch: int, dtype: torch.dtype) -> torch.Tensor:
    """The relaxed structure ``(atoms, 3, batch)``, in nm."""
    x = torch.as_tensor(chemical.positions, dtype=torch.float64)[..., None]
    return minimise(from_openmm(chemical.system), x).positions.to(dtype).repeat(1, 1, batch)


def batched(
    chemical: ChemicalSystem, timestep: float, hydrogen_mass: float | None, options: argparse.Namespace
) -> Langevin:
    dtype, rng = DTYPES[options.dtype], torch.Generator().manual_seed(options.seed)
    potential, masses = from_openmm(chemical.system, dtype), masses_of(chemical.molecule, hydrogen_mass)
    walkers = Walkers.thermal(potential, starts(chemical, options.batch, dtype), masses, TEMPERATURE, rng)
    return Langevin(potential, walkers, masses, TEMPERATURE, friction=FRICTION, timestep=timestep, generator=rng)


def native_obc2(system: openmm.System, topology: app.Topology) -> openmm.System:
    """The System with the CustomGBForce of OBC2 as OpenMM's own, faster GBSAOBCForce: same energy to 1e-3 kJ/mol."""
    fast = openmm.XmlSerializer.clone(system)
    kinds = [type(force) for force in fast.getForces()]
    nonbonded, force = fast.getForce(kinds.index(openmm.NonbondedForce)), openmm.GBSAOBCForce()
    force.setSolventDielectric(78.5)  # of implicit/obc2.xml; the default of this force is 78.3
    for i, (radius, scale) in enumerate(GBSAOBC2Force.getStandardParameters(topology)):
        force.addParticle(nonbonded.getParticleParameters(i)[0], radius, scale)
    fast.removeForce(kinds.index(openmm.CustomGBForce))
    fast.addForce(force)
    return fast


def openmm_context(
    system: openmm.System, chemical: ChemicalSystem, name: str, timestep: float, masses: torch.Tensor, seed: int
) -> openmm.Context:
    """One molecule under OpenMM's Langevin dynamics on one thread, at rest in its minimum."""
    copy = openmm.XmlSerializer.clone(system)
    for i, mass in enumerate(masses.tolist()):
        copy.setParticleMass(i, mass)
    integrator = openmm.LangevinMiddleIntegrator(TEMPERATURE, FRICTION, 1e-3 * timestep)
    integrator.setRandomNumberSeed(seed + 1)
    properties = {"Threads": "1"} if name == "CPU" else {}
    context = openmm.Context(copy, integrator, openmm.Platform.getPlatform(name), properties)
    context.setPositions(starts(chemical, 1, torch.float64)[..., 0].numpy())
    context.setVelocitiesToTemperature(TEMPERATURE, seed + 1)
    return context


def nanoseconds_per_minute(step: Callable[[int], None], timestep: float, molecules: int, seconds: float) -> float:
    """Run for about ``seconds`` (a tenth to find the number of steps) and return the simulated time per minute."""
    n, elapsed = 1, 0.0
    while elapsed < 0.1 * seconds:
        n *= 2
        started = time.perf_counter()
        step(n)
        elapsed = time.perf_counter() - started
    n = max(1, round(n * seconds / elapsed))
    started = time.perf_counter()
    step(n)
    return 60.0 * n * molecules * timestep * 1e-6 / (time.perf_counter() - started)


def speed(options: argparse.Namespace) -> None:
    table: list[Speed] = []
    header = f"{'system':<8} {'engine':<26} {'fs':>4} {'m_H':>4} {'batch':>6} {'us/step':>9} {'ns/min':>10} (range)"
    print(f"{header}, times the fastest OpenMM", flush=True)
    for solvent in options.solvents:
        chemical = build(read_input(options.input), options.ff, solvent)
        for timestep, hydrogen_mass in ((1.0, None), (options.timestep, options.hydrogen_mass)):
            masses = masses_of(chemical.molecule, hydrogen_mass)
            langevin = batched(chemical, timestep, hydrogen_mass, options)
            systems = {"OpenMM Reference": chemical.system, "OpenMM CPU": chemical.system}
            if solvent == "obc2":
                systems["OpenMM Reference, own OBC2"] = native_obc2(chemical.system, chemical.topology)
            steps: dict[str, Callable[[int], None]] = {}
            for engine, system in systems.items():
                name = "CPU" if "CPU" in engine else "Reference"
                context = openmm_context(system, chemical, name, timestep, masses, options.seed)
                # The last state is asked for, lest a platform put work off.
                steps[engine] = lambda n, c=context: (c.getIntegrator().step(n), c.getState(energy=True))
            steps[f"batched, {options.dtype}"] = langevin.run
            rates: dict[str, list[float]] = {engine: [] for engine in steps}
            for _ in range(options.repeats):
                for engine, step in steps.items():
                    molecules = 1 if engine in systems else options.batch
                    rates[engine].append(nanoseconds_per_minute(step, timestep, molecules, options.seconds))
            if langevin.walkers.n_failed:
                raise SystemExit(f"{langevin.walkers.n_failed} walkers failed in {solvent} at {timestep:g} fs.")
            rows = [
                Speed(solvent, engine, timestep, hydrogen_mass, 1 if engine in systems else options.batch, values)
                for engine, values in rates.items()
            ]
            best = max(rows[: len(systems)], key=lambda row: median(row.ns_per_minute))
            print("\n".join(row.line(best) for row in rows), flush=True)
            table += rows
    if options.json:
        record = {"command": sys.argv, "hardware": hardware(), "seed": options.seed, "rows": [asdict(r) for r in table]}
        options.json.write_text(json.dumps(record, indent=1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    command = parser.add_subparsers(required=True).add_parser("speed")
    command.add_argument("input", type=Path, help="capped peptide as PDB or .smi")
    command.add_argument("--ff", default="ff14SB")
    command.add_argument("--solvents", nargs="+", default=["vacuum", "obc2"])
    command.add_argument("--dtype", choices=DTYPES, default="float32")
    command.add_argument("--timestep", type=float, default=4.0, help="fs, with heavy hydrogens; 1 without")
    command.add_argument("--hydrogen-mass", type=float, default=3.0, help="dalton")
    command.add_argument("--batch", type=int, default=1024)
    command.add_argument("--repeats", type=int, default=5)
    command.add_argument("--seconds", type=float, default=5.0, help="of each engine in each repetition")
    command.add_argument("--seed", type=int, default=0)
    command.add_argument("--json", type=Path, help="write all repetitions here")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"python {' '.join(sys.argv)}\nseed {options.seed}; {hardware()}", flush=True)
    speed(options)


if __name__ == "__main__":
    main()
