"""Reference populations of a capped peptide by replica exchange, to compare weighted ensembles with.

Langevin dynamics of one molecule on OpenMM's Reference platform, one thread, at geometrically spaced temperatures with
exchanges between neighbours, for several independent seeds. Errors are the scatter of batch means: after its burn-in,
each seed's series at the lowest temperature is cut into blocks. Masses do not change a configurational distribution,
so heavy hydrogens may buy a longer time step.

    python benchmarks/replica_exchange.py molecules/alanine_dipeptide.pdb --time 1 --seeds 2 -o reference.npz
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import openmm
from openmm import app, unit
from openmm.app.internal.customgbforces import GBSAOBC2Force
from reference import Reference

from boltzgen.analysis.torsions import BASINS, assign_basins, dihedral, is_positive_phi, ramachandran_pairs
from boltzgen.chemistry.build import ChemicalSystem, build
from boltzgen.chemistry.read import read_input
from boltzgen.constants import GAS_CONSTANT
from boltzgen.molecule import Molecule

PLATFORM = openmm.Platform.getPlatform("Reference")
Series = dict[str, np.ndarray]
"""phi, psi (radians), walker and cis (whether an amide bond is), each (frames, temperatures); swap acceptance."""


def energy_of(context: openmm.Context) -> float:
    return context.getState(energy=True).getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole)


def with_native_obc2(system: openmm.System, topology: app.Topology, positions: np.ndarray) -> openmm.System:
    """Replace the CustomGBForce of OBC2 by the equivalent GBSAOBCForce, 12 to 28 times faster on Reference.

    The energies of both are compared on distorted structures; RuntimeError above 1e-3 kJ/mol.
    """
    fast = openmm.XmlSerializer.clone(system)
    kinds = [type(force) for force in fast.getForces()]
    nonbonded = fast.getForce(kinds.index(openmm.NonbondedForce))
    native = openmm.GBSAOBCForce()
    native.setSolventDielectric(78.5)  # of implicit/obc2.xml; the default of this force is 78.3
    for i, (radius, scale) in enumerate(GBSAOBC2Force.getStandardParameters(topology)):
        native.addParticle(nonbonded.getParticleParameters(i)[0], radius, scale)
    fast.removeForce(kinds.index(openmm.CustomGBForce))
    fast.addForce(native)
    contexts = [openmm.Context(s, openmm.VerletIntegrator(0.001), PLATFORM) for s in (system, fast)]
    rng = np.random.default_rng(0)
    worst = 0.0
    for _ in range(20):
        distorted = positions + rng.normal(0.0, 0.01, positions.shape)
        for context in contexts:
            context.setPositions(distorted)
        worst = max(worst, abs(energy_of(contexts[0]) - energy_of(contexts[1])))
    if worst > 1e-3:
        raise RuntimeError(f"native OBC2 differs from the System by {worst:.2e} kJ/mol")
    print(f"native OBC2 force: largest energy difference {worst:.1e} kJ/mol on 20 distorted structures")
    return fast


def run_seed(
    system: openmm.System, chemical: ChemicalSystem, temperatures: np.ndarray, seed: int, arguments: argparse.Namespace
) -> Series:
    """Run all walkers from one structure; temperatures, not coordinates, are exchanged between them."""
    n = len(temperatures)
    rng = np.random.default_rng(seed)
    beta = 1.0 / (GAS_CONSTANT * temperatures)
    contexts = []
    for k, temperature in enumerate(temperatures):
        integrator = openmm.LangevinMiddleIntegrator(temperature, 1.0, arguments.timestep * 1e-3)
        integrator.setRandomNumberSeed(1 + seed * n + k)
        contexts.append(openmm.Context(system, integrator, PLATFORM))
        contexts[k].setPositions(chemical.positions)
        openmm.LocalEnergyMinimizer.minimize(contexts[k])
        contexts[k].setVelocitiesToTemperature(float(temperature), 1 + seed * n + k)
    _, phi, psi = ramachandran_pairs(chemical.molecule.torsions)[0]
    omegas = [atoms for name, atoms in chemical.molecule.torsions.items() if name.startswith("omega")]
    n_frames = round(arguments.time * 1e6 / arguments.timestep) // arguments.swap
    series = {name: np.empty((n_frames, n)) for name in ("phi", "psi", "walker", "cis")}
    walker = np.arange(n)
    accepted = np.zeros(n - 1)
    started = last = time.monotonic()
    for frame in range(n_frames):
        x = np.empty((n, *chemical.positions.shape))
        for k in range(n):
            context = contexts[walker[k]]
            context.getIntegrator().step(arguments.swap)
            x[k] = context.getState(positions=True).getPositions(asNumpy=True).value_in_unit(unit.nanometer)
        series["phi"][frame], series["psi"][frame] = dihedral(x, phi), dihedral(x, psi)
        series["cis"][frame] = np.any([np.abs(dihedral(x, omega)) < np.pi / 2 for omega in omegas], axis=0)
        series["walker"][frame] = walker
        for k in range(frame % 2, n - 1, 2):
            pair = [contexts[w] for w in walker[[k, k + 1]]]
            if np.log(rng.random()) < (beta[k] - beta[k + 1]) * (energy_of(pair[0]) - energy_of(pair[1])):
                accepted[k] += 2.0 / n_frames
                walker[[k, k + 1]] = walker[[k + 1, k]]
                for context, old, new in zip(pair, temperatures[[k, k + 1]], temperatures[[k + 1, k]], strict=True):
                    context.getIntegrator().setTemperature(new)
                    velocities = context.getState(velocities=True).getVelocities(asNumpy=True)
                    context.setVelocities(velocities * np.sqrt(new / old))
        if time.monotonic() - last > 20.0 or frame == n_frames - 1:
            last = time.monotonic()
            rate = (frame + 1) * arguments.swap * arguments.timestep * 1e-6 / (last - started) * 60.0
            positive = is_positive_phi(series["phi"][: frame + 1, 0]).mean()
            done = f"{(frame + 1) / n_frames:4.0%}, {n * rate:.2f} ns/min for all replicas"
            print(f"seed {seed}: {done}, phi>0 {positive:.4f}", flush=True)
    return {**series, "acceptance": accepted}


def passages(position: np.ndarray) -> int:
    """Count changes of sign in a series whose zeros mean neither end."""
    visited = position[position != 0]
    return int((np.diff(visited) != 0).sum())


def side(phi: np.ndarray) -> np.ndarray:
    """Return 1 for 20° < phi < 120°, −1 for −160° < phi < −20°, else 0: passing over 180° is no transition."""
    degrees = np.degrees(phi)
    return ((degrees > 20) & (degrees < 120)).astype(int) - ((degrees > -160) & (degrees < -20))


STATES = ("phi>0", *BASINS)


def block_means(runs: list[Series], blocks: int) -> np.ndarray:
    """Populations of STATES at the lowest temperature, (runs, blocks, states), the first tenth of each run left out.

    Frames with a cis amide bond are left out: the ensembles to compare with keep their amide bonds trans.
    """
    means = []
    for run in runs:
        kept = slice(len(run["phi"]) // 10, None)
        phi, psi = (run[name][kept, 0][run["cis"][kept, 0] == 0] for name in ("phi", "psi"))
        basins = assign_basins(phi, psi)[:, None] == np.arange(len(BASINS))
        inside = np.column_stack([is_positive_phi(phi), basins])
        means.append([block.mean(axis=0) for block in np.array_split(inside, blocks)])
    return np.array(means)


def reference_of(runs: list[Series], molecule: Molecule, temperature: float) -> Reference:
    """The series at the lowest temperature, for ``compare.py``, the first tenth of each run left out."""
    label = ramachandran_pairs(molecule.torsions)[0][0]

    def lowest(name: str) -> np.ndarray:
        return np.stack([run[name][len(run[name]) // 10 :, 0] for run in runs])

    torsions = {f"{name}:{label}": lowest(name) for name in ("phi", "psi")}
    return Reference(temperature, torsions, lowest("cis").astype(np.int16), ("cis amide",))


def batch_error(table: np.ndarray) -> np.ndarray:
    """Standard error of the mean of each state, from the scatter of all blocks (runs, blocks, states)."""
    pooled = table.reshape(-1, table.shape[-1])
    return pooled.std(axis=0, ddof=1) / np.sqrt(len(pooled))


def report(runs: list[Series], temperatures: np.ndarray, blocks: int) -> None:
    """Print the populations at the lowest temperature with their errors, and how well the walkers mixed."""
    table = block_means(runs, blocks)
    batch = batch_error(table)
    seeds = table.mean(axis=1).std(axis=0, ddof=1) / np.sqrt(len(runs)) if len(runs) > 1 else batch * np.nan
    print(
        f"\nat {temperatures[0]:g} K: population ± standard error from {len(runs) * blocks} blocks (from seeds alone)"
    )
    for s, name in enumerate(STATES):
        print(f"  {name:8s} {table[..., s].mean():.5f} ± {batch[s]:.5f} ({seeds[s]:.5f})")
    walks = [
        (run["phi"][run["walker"] == w], np.argmax(run["walker"] == w, axis=1))
        for run in runs
        for w in range(len(temperatures))
    ]
    ends = [(rung == 0).astype(int) - (rung == len(temperatures) - 1) for _, rung in walks]
    print(f"phi transitions at {temperatures[0]:g} K: {sum(passages(side(run['phi'][:, 0])) for run in runs)}")
    print(f"phi transitions of the walkers at any temperature: {sum(passages(side(phi)) for phi, _ in walks)}")
    print(f"round trips through the temperatures: {sum(passages(end) // 2 for end in ends)}")
    print(f"frames with a cis amide at {temperatures[0]:g} K: {sum(int(run['cis'][:, 0].sum()) for run in runs)}")
    print("swap acceptance: " + " ".join(f"{a:.2f}" for a in np.mean([run["acceptance"] for run in runs], axis=0)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("input", type=Path, help="capped peptide as PDB or .smi; system.pdb of a run with --system")
    parser.add_argument("--system", type=Path, help="take this system.xml, not a new System")
    parser.add_argument("--ff", default="ff14SB")
    parser.add_argument("--solvent", default="obc2")
    parser.add_argument("--temperatures", nargs=3, default=[300, 600, 6], metavar=("MIN", "MAX", "N"), type=float)
    parser.add_argument("--time", type=float, default=1.0, help="ns per replica and seed")
    parser.add_argument("--timestep", type=float, default=1.0, help="fs")
    parser.add_argument("--hydrogen-mass", type=float, help="dalton; a longer time step needs about 4")
    parser.add_argument("--swap", type=int, default=500, help="steps between exchanges")
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--seeds", type=int, default=4, help="number of independent runs")
    parser.add_argument("--blocks", type=int, default=4, help="blocks per seed for the errors")
    parser.add_argument("-o", "--output", type=Path, default=Path("replica_exchange.npz"))
    arguments = parser.parse_args()
    chemical = build(read_input(arguments.input), arguments.ff, arguments.solvent)
    system = openmm.XmlSerializer.deserialize(arguments.system.read_text()) if arguments.system else chemical.system
    if arguments.solvent == "obc2":
        system = with_native_obc2(system, chemical.topology, chemical.positions)
    for i, number in enumerate(chemical.molecule.atomic_numbers):
        if arguments.hydrogen_mass and number == 1:
            system.setParticleMass(i, arguments.hydrogen_mass)
    low, high, count = arguments.temperatures
    temperatures = np.geomspace(low, high, int(count))
    print("temperatures " + " ".join(f"{t:.0f}" for t in temperatures) + " K")
    runs: list[Series] = []
    for seed in range(arguments.seed, arguments.seed + arguments.seeds):
        runs.append(run_seed(system, chemical, temperatures, seed, arguments))
        reference_of(runs, chemical.molecule, float(low)).save(arguments.output)
    report(runs, temperatures, arguments.blocks)


if __name__ == "__main__":
    main()
