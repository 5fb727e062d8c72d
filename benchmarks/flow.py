"""Cost of the flow in a training step: with compiled kernels and in plain torch, one thread.

    OMP_NUM_THREADS=1 python benchmarks/flow.py --repeats 9

What a part of a step does without its energies: draw slow coordinates, draw stiff ones given them with the gradient of
a function of both, and the gradient of the log-density of slow coordinates. Every repeat times both in turn, so that a
slower machine slows both; the table has medians over the repeats, and the median of the ratios of each repeat.

Given a prepared run, whole steps of training are timed in the same way.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch

from boltzgen.flow import compiled
from boltzgen.flow.architecture import Architecture
from boltzgen.flow.generator import Generator
from boltzgen.native import kernels
from boltzgen.storage.runs import RunDirectory
from boltzgen.training.gradient import GradientWorkers
from boltzgen.training.trainer import Trainer, TrainSettings
from boltzgen.workflow.load import load_target

SIZES = {22: (7, 53), 32: (6, 84), 62: (17, 163)}
"""Slow torsions and stiff coordinates of capped peptides (Ala, Phe, Ala₅) by number of atoms."""


@contextmanager
def plain_torch() -> Iterator[None]:
    with patch.object(compiled, "kernels", lambda: None):
        yield


def flow_part(generator: Generator, n: int) -> Callable[[], None]:
    parameters = list(generator.parameters())
    rng = torch.Generator().manual_seed(0)

    def run() -> None:
        with torch.no_grad():
            slow, _ = generator.sample_slow(n, rng)
        stiff, log_conditional = generator.sample_stiff(slow, rng)
        loss = (0.5 * stiff.square().sum(1) + log_conditional).mean() - generator.log_prob_slow(slow).mean()
        torch.autograd.grad(loss, parameters, materialize_grads=True)

    return run


def paired(run: Callable[[], object], samples: int, repeats: int, calls: int) -> tuple[float, float, float]:
    """Medians of microseconds a sample with kernels and without, and of their ratio."""
    times = np.zeros((repeats + 1, 2))
    for row in times:
        for k in range(2):
            start = time.perf_counter()
            for _ in range(calls):
                if k:
                    with plain_torch():
                        run()
                else:
                    run()
            row[k] = 1e6 * (time.perf_counter() - start) / (calls * samples)
    times = times[1:]  # the first warms up
    return *np.median(times, axis=0), float(np.median(times[:, 1] / times[:, 0]))


def training_step(path: Path) -> tuple[Callable[[], None], int]:
    """A step of training with a pool, at the first batch size."""
    target = load_target(RunDirectory(path))
    trainer = Trainer(target, Architecture.of(target.coordinates), TrainSettings(10**9, exchange_share=0.0))
    workers = GradientWorkers(trainer.generator, trainer.target, 1, trainer.method)
    for _ in range(6):
        trainer._one_step(workers)
    return lambda: trainer._one_step(workers), int(trainer.history[-1]["batch"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="*", help="prepared runs")
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--calls", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found = kernels()
    if found is None:
        raise SystemExit("the package was built without compiled kernels")
    print(
        f"{platform.processor() or platform.machine()}, {found.instruction_set}, one thread, "
        f"torch {torch.__version__}, float32, batch {arguments.batch}, {arguments.repeats} repeats\n\n"
        "microseconds a sample, forward and backward\n"
    )
    print("| | kernels | torch | ratio |\n|---|---|---|---|")
    for n_atoms, (n_torsions, n_stiff) in SIZES.items():
        torch.manual_seed(0)
        run = flow_part(Generator(Architecture(n_torsions, n_stiff)), arguments.batch)
        row = paired(run, arguments.batch, arguments.repeats, arguments.calls)
        print("| flow, {} atoms ({}, {}) | {:.1f} | {:.1f} | {:.2f} |".format(n_atoms, n_torsions, n_stiff, *row))
    for path in arguments.runs:
        step, batch = training_step(path)
        row = paired(step, batch, arguments.repeats, 1)
        print("| step of {}, batch {} | {:.1f} | {:.1f} | {:.2f} |".format(path.stem, batch, *row))


if __name__ == "__main__":
    main()
