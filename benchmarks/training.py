"""Train on a prepared run and judge the flow on fresh samples: one line per run, for tables and ablations.

    boltzgen prepare molecules/alanine_dipeptide.pdb
    python benchmarks/training.py alanine_dipeptide.run --energies 1e6 --seeds 0 1 2

ESS is unclipped, in float64, on ``--samples`` fresh samples; "without" leaves the largest 1, 3, 10 and 30 weights out.
The gap is log Z minus the ELBO of those samples, in nats.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from boltzgen.analysis.torsions import dihedral, is_positive_phi, ramachandran_pairs
from boltzgen.flow.generator import Architecture
from boltzgen.sampling.draw import BoltzmannGenerator
from boltzgen.statistics.free_energy import weighted_probability
from boltzgen.statistics.weights import summarize_weights
from boltzgen.storage.runs import RunDirectory
from boltzgen.training.trainer import Trainer, TrainSettings
from boltzgen.workflow.load import load_target


def judge(generator: BoltzmannGenerator, n: int) -> str:
    """One line about ``n`` fresh samples."""
    samples = generator.sample(n, seed=12345)
    weights = summarize_weights(samples.log_weight)
    gap = weights.log_z - samples.log_weight.mean()
    _, phi_atoms, _ = ramachandran_pairs(generator.target.molecule.torsions)[0]
    positive = is_positive_phi(dihedral(samples.positions, phi_atoms))
    population = weighted_probability(positive, samples.log_weight, np.random.default_rng(0), 200)
    without = " ".join(f"{100 * ess / n:.1f}" for ess in weights.ess_without_largest.values())
    return (
        f"ESS {100 * weights.ess_fraction:.1f} % (without {without}), k {weights.khat:.2f}, gap {gap:.3f}, "
        f"log Z {weights.log_z:.4f}, phi>0 {population.value:.4f} ± {population.stderr or np.nan:.4f} "
        f"(flow {positive.mean():.4f})"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--energies", type=float, default=1e6)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    parser.add_argument("--batches", type=int, nargs=2, metavar="N", help="batch sizes, early and late")
    parser.add_argument("--samples", type=int, default=100_000)
    for name in ("n_bins", "torsion_hidden", "stiff_hidden", "n_couplings"):
        parser.add_argument("--" + name.replace("_", "-"), type=int, default=getattr(Architecture, name))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    target = load_target(RunDirectory(arguments.run))
    sizes = {name: getattr(arguments, name) for name in ("n_bins", "torsion_hidden", "stiff_hidden", "n_couplings")}
    architecture = Architecture.of(target.coordinates, **sizes)
    for seed in arguments.seeds:
        settings = TrainSettings(int(arguments.energies), learning_rate=arguments.learning_rate, seed=seed)
        trainer = Trainer(target, architecture, settings, threads=arguments.threads)
        if arguments.batches:
            starts = [start for start, _ in trainer.schedule.batches]
            trainer.schedule = replace(trainer.schedule, batches=tuple(zip(starts, arguments.batches, strict=True)))
        trainer.run(lambda progress: None, lambda: True, lambda: None)
        line = judge(BoltzmannGenerator(target, trainer.average), arguments.samples)
        print(f"seed {seed}: {trainer.energies:.2e} energies, {trainer.seconds:.0f} s, {line}", flush=True)


if __name__ == "__main__":
    main()
