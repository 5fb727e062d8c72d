"""Energies and forces a second: compiled kernels and plain torch beside OpenMM, one core.

    OMP_NUM_THREADS=1 python benchmarks/energy.py --repeats 9

Every repeat times OpenMM, the kernels and torch in turn on the same frames, so that a slower machine slows all of
them; the table has medians over the repeats, and the median of the ratios of each repeat.

OpenMM evaluates frame after frame: setPositions, then getState with energy and forces. Its best is the fastest of the
Reference and the CPU platform (one thread), of the System as the force field writes it, and for OBC2 also with the
CustomGBForce replaced by the native GBSAOBCForce.

The arithmetic limit is the time that the multiplications and fused multiply-adds of the pair loops alone need on a
core that does nothing else; the core's rate of them is measured.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import openmm
import torch
from dynamics import native_obc2

from boltzgen.chemistry.build import ChemicalSystem, build
from boltzgen.chemistry.forcefield import build_system
from boltzgen.chemistry.read import read_input
from boltzgen.coordinates.internal import Internal, InternalToCartesian, log_volume
from boltzgen.coordinates.zmatrix import build_zmatrix
from boltzgen.energy import PotentialEnergy, from_openmm
from boltzgen.native import Kernels, kernels

PEPTIDES = {22: "A", 62: "AAAAA", 102: "AAAAAAAAA", 140: "AAGAAGAAGAAGAA"}
"""Capped peptides by number of atoms: 12 in the caps, 10 an alanine, 7 a glycine."""

RESIDUES = {"A": "N[C@@H](C)C(=O)", "G": "NCC(=O)"}

PIPE_OPERATIONS = {"obc2": 130, "vacuum": 24}
"""Vector multiplications and multiply-adds a pair in the compiled float32 loops with gradient (GCC 12, AVX-512)."""


@dataclass(frozen=True)
class Case:
    """One System with frames ``(n, atoms, 3)`` in nm."""

    name: str
    system: openmm.System
    chemical: ChemicalSystem
    solvent: str

    @property
    def positions(self) -> np.ndarray:
        return self.chemical.positions

    def frames(self, n: int) -> np.ndarray:
        width = np.linspace(0.0, 0.02, n)[:, None, None]
        return self.positions + width * np.random.default_rng(0).standard_normal((n, *self.positions.shape))


def peptide(n_atoms: int, solvent: str) -> Case:
    smiles = "CC(=O)" + "".join(RESIDUES[letter] for letter in PEPTIDES[n_atoms]) + "NC"
    chemical = build(read_input(None, smiles))
    system = build_system(chemical.topology, "ff14SB", solvent)
    assert chemical.molecule.n_atoms == n_atoms
    return Case(f"{n_atoms} atoms, {solvent}", system, chemical, solvent)


def openmm_runs(case: Case, n: int) -> dict[str, Callable[[], None]]:
    """Evaluations of ``n`` frames by every platform and System that is a candidate for OpenMM's best."""
    systems = {"": case.system}
    if case.solvent == "obc2":
        systems[" (GBSAOBCForce)"] = native_obc2(case.system, case.chemical.topology)
    frames = case.frames(n)
    runs: dict[str, Callable[[], None]] = {}
    for label, system in systems.items():
        for name in ("Reference", "CPU"):
            properties = {"Threads": "1"} if name == "CPU" else {}
            context = openmm.Context(
                system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName(name), properties
            )

            def run(context: openmm.Context = context) -> None:
                for frame in frames:
                    context.setPositions(frame)
                    state = context.getState(getEnergy=True, getForces=True)
                    state.getPotentialEnergy()
                    state.getForces(asNumpy=True)

            runs[name + label] = run
    return runs


def microseconds(run: Callable[[], object], samples: int) -> float:
    start = time.perf_counter()
    run()
    return 1e6 * (time.perf_counter() - start) / samples


def measure_energy(case: Case, batch: int, repeats: int, compiled: Kernels) -> dict[str, object]:
    n_slow = max(8, min(64, 4000 // case.system.getNumParticles()))
    candidates = openmm_runs(case, n_slow)
    for run in candidates.values():
        run()
    first = {name: min(microseconds(run, n_slow) for _ in range(3)) for name, run in candidates.items()}
    best = min(first, key=first.__getitem__)
    native = from_openmm(case.system)
    single = PotentialEnergy.from_tree(native.to_tree(), torch.float32)
    plain, plain32 = (PotentialEnergy(list(potential.terms), native=False) for potential in (native, single))
    x = torch.as_tensor(case.frames(batch)).permute(1, 2, 0).contiguous()
    x32 = x.float()
    runs = {
        "openmm": (candidates[best], n_slow),
        "kernels": (lambda: native.evaluate(x32), batch),
        "kernels64": (lambda: native.evaluate(x), batch),
        "torch": (lambda: plain32.evaluate(x32), batch),
        "torch64": (lambda: plain.evaluate(x), batch),
    }
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, (run, n) in runs.items():
            times[name].append(microseconds(run, n))
    medians = {name: float(np.median(column)) for name, column in times.items()}
    ratio = {name: float(np.median(np.divide(times["openmm"], times[name]))) for name in runs if name != "openmm"}
    spread = [float(np.percentile(times["kernels"], q)) for q in (25, 75)]
    pairs = case.system.getNumParticles() * (case.system.getNumParticles() - 1) // 2
    limit = pairs * PIPE_OPERATIONS[case.solvent] / (compiled.multiply_add_rate() * 1e-6)
    return {
        "case": case.name,
        "best": best,
        "openmm_candidates": first,
        "us": medians,
        "ratio": ratio,
        "kernels_quartiles": spread,
        "limit_us": limit,
    }


def measure_placement(case: Case, batch: int, repeats: int) -> dict[str, object]:
    """Internal coordinates to positions with log-determinant, and the adjoint of both, float32."""
    molecule = case.chemical.molecule
    geometry = InternalToCartesian(
        build_zmatrix(molecule.atomic_numbers, molecule.bonds, molecule.rigid_bonds, case.positions)
    )
    one = geometry.internal(torch.as_tensor(case.positions)[..., None])
    leaves = [t.float().expand(-1, batch).contiguous().requires_grad_() for t in (one.bonds, one.angles, one.torsions)]

    def plain(internal: Internal) -> tuple[torch.Tensor, torch.Tensor]:
        return geometry.positions(internal), log_volume(internal)

    def run(place: Callable[[Internal], tuple[torch.Tensor, torch.Tensor]]) -> None:
        x, volume = place(Internal(*leaves))
        torch.autograd.grad(x.square().sum() + volume.sum(), leaves)

    times: dict[str, list[float]] = {"kernels": [], "torch": []}
    for _ in range(repeats):
        times["kernels"].append(microseconds(lambda: run(geometry.place), batch))
        times["torch"].append(microseconds(lambda: run(plain), batch))
    medians = {name: float(np.median(column)) for name, column in times.items()}
    return {"case": f"{len(case.positions)} atoms", **medians}


def measure_cuda(case: Case, batch: int, repeats: int) -> float:
    """Energies and forces a second on a GPU, float32."""
    potential = PotentialEnergy.from_tree(from_openmm(case.system).to_tree(), torch.float32).cuda()
    frames = torch.as_tensor(case.frames(1024), dtype=torch.float32, device="cuda")
    x = frames.permute(1, 2, 0).repeat(1, 1, -(-batch // 1024))[..., :batch].contiguous()
    times = []
    for _ in range(repeats + 1):
        torch.cuda.synchronize()
        start = time.perf_counter()
        potential.evaluate(x)
        torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return batch / float(np.median(times[1:]))


def print_energy_table(rows: list[dict[str, object]]) -> None:
    print("\nmicroseconds a sample, energy + force; ratios are OpenMM's best over ours, pair by pair\n")
    print(
        "| system | OpenMM's best | | kernels float32 | ratio | kernels float64 | ratio | torch float32 | ratio "
        "| limit | share of it |\n|" + "---|" * 11
    )
    for row in rows:
        us, ratio, limit = row["us"], row["ratio"], row["limit_us"]
        print(
            f"| {row['case']} | {us['openmm']:.0f} | {row['best']} | {us['kernels']:.2f} | {ratio['kernels']:.0f} "
            f"| {us['kernels64']:.2f} | {ratio['kernels64']:.0f} | {us['torch']:.1f} | {ratio['torch']:.1f} "
            f"| {limit:.2f} | {100 * limit / us['kernels']:.0f} % |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--atoms", type=int, nargs="+", default=list(PEPTIDES), choices=list(PEPTIDES))
    parser.add_argument("--json", action="store_true", help="one JSON object with all figures after the tables")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    compiled = kernels()
    if compiled is None:
        raise SystemExit("the package was built without compiled kernels")
    print(
        f"{platform.processor() or platform.machine()}, {compiled.instruction_set}, one thread, "
        f"OpenMM {openmm.__version__}, torch {torch.__version__}, batch {arguments.batch}, "
        f"{arguments.repeats} repeats, {compiled.multiply_add_rate() / 1e9:.0f}e9 float32 multiply-adds a second"
    )
    cases = [peptide(n, solvent) for n in arguments.atoms for solvent in ("vacuum", "obc2")]
    rows = [measure_energy(case, arguments.batch, arguments.repeats, compiled) for case in cases]
    print_energy_table(rows)
    placements = [measure_placement(case, arguments.batch, arguments.repeats) for case in cases[::2]]
    print("\nmicroseconds a sample, placement of atoms with log-determinant, forward and adjoint, float32\n")
    print("| | kernels | torch |\n|---|---|---|")
    for row in placements:
        print(f"| {row['case']} | {row['kernels']:.2f} | {row['torch']:.1f} |")
    gpu = []
    if torch.cuda.is_available():
        print(f"\nenergies + forces a second on {torch.cuda.get_device_name()}, float32\n")
        print("| | batch | per second |\n|---|---|---|")
        for case in cases[1::2]:
            for batch in (10_000, 100_000, 1_000_000):
                rate = measure_cuda(case, batch, 3)
                gpu.append({"case": case.name, "batch": batch, "per_second": rate})
                print(f"| {case.name} | {batch} | {rate:.3g} |")
    if arguments.json:
        print(json.dumps({"energy": rows, "placement": placements, "cuda": gpu}))


if __name__ == "__main__":
    main()
