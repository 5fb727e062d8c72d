"""What a trained flow lacks of each frequent state of the reference: in its slow coordinates, or in the stiff ones.

    python benchmarks/lost.py table/ala5.run ala5-default-1900s-0

For frames of each joint state of at least 1 %, medians in nats:

all
    ln w of the frame less log Z, by which ``training.py check`` calls a state lost.
slow
    ln p(τ)/q(τ), with p(τ) from ``REDRAWS`` draws of the stiff coordinates at the torsions of the frame.
stiff
    What is left of it: ln w of the frame against the mean weight of those draws.
gap
    ln of the mean weight of those draws less ln w of each.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np
import torch
from checks import cuts_of, frequent_states
from compare import joint_states, partitions
from exchange import Trajectory
from reference import Reference
from trained import Folder, load_samples

import boltzgen
from boltzgen.analysis.coverage import LEAST_SHARE
from boltzgen.coordinates.layout import batch_last
from boltzgen.coordinates.locate import locate
from boltzgen.flow.latents import Slow
from boltzgen.sampling.draw import BoltzmannGenerator
from boltzgen.statistics.weights import normalized_weights

FRAMES, REDRAWS = 40, 48


@torch.no_grad()
def parts(generator: BoltzmannGenerator, frames: np.ndarray, log_z: float, rng: torch.Generator) -> dict[str, float]:
    """Medians over frames ``(n, atoms, 3)`` in nm."""
    target, flow = generator.target, generator.flow
    x = batch_last(frames)
    located = locate(target.coordinates, x)
    slow = Slow(located.label, located.torsions)
    log_slow = flow.log_prob_slow(slow)
    own = located.log_det - target.reduced_potential(x[..., located.inside]) - flow.log_prob_stiff(located.stiff, slow)
    weights = torch.empty(REDRAWS, len(own), dtype=torch.float64)
    of_levers = flow.centre_of_levers(slow)
    for row in weights:
        stiff, log_prob = flow.sample_stiff(slow, rng, of_levers=of_levers)
        drawn, log_det = target.coordinates.to_cartesian(slow.label, slow.torsions, stiff)
        row[:] = log_det - target.reduced_potential(drawn) - log_prob
    mean = torch.logsumexp(weights, dim=0) - math.log(REDRAWS)
    found = {"all": own - log_slow - log_z, "slow": mean - log_slow - log_z, "stiff": own - mean, "gap": mean - weights}
    return {name: value.median().item() for name, value in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, metavar="RUN", help="the prepared run that has a reference")
    parser.add_argument("name", help="of the training")
    options = parser.parse_args()
    torch.set_num_threads(1)
    folder, system = Folder.of(options.run), options.run.stem
    generator = boltzgen.load(folder.trained(options.name))
    reference, trajectory = Reference.load(folder.reference(system)), Trajectory.load(folder.reference(system))
    angles, log_w = load_samples(folder.samples(options.name))
    several, _ = cuts_of(generator.target.molecule, reference)
    by_cut = partitions(several, angles, reference)
    states = joint_states(by_cut, reference, normalized_weights(log_w), LEAST_SHARE) if by_cut else None
    log_z, rng = folder.records("training")[options.name]["log_z"], torch.Generator().manual_seed(0)
    print("| state | share % | all | slow | stiff | gap |\n|---|---|---|---|---|---|")
    for name, share, frames in frequent_states(states, reference, trajectory.positions):
        row = parts(generator, frames[:FRAMES], log_z, rng)
        cells = " | ".join(f"{value:+.2f}" for value in row.values())
        print(f"| {name} | {100 * share:.1f} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
