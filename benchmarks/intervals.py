"""Whether nominal 95 % intervals hold the truth in 95 %: random targets, the project's own error bars."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from random_targets import random_case
from scipy.special import ndtri

from boltzgen.sampling.draw import BoltzmannGenerator
from boltzgen.selftest.check import Row, estimates, learn
from boltzgen.statistics.weights import pareto_smooth

HALF_WIDTH = float(ndtri(0.975))
"""Of an interval, in standard errors."""

KINDS = ("ln Z", "averages", "populations")

SHAPES = (-np.inf, 0.3, 0.5, 0.7)
"""Bounds of k̂ between which intervals of ln Z are told apart."""

FEWEST_SAMPLES, MOST_SAMPLES = 1_000, 20_000


@dataclass(frozen=True)
class Trial:
    """One estimate of one quantity of one target, from weights of a Pareto shape."""

    target: int
    repeat: int
    row: Row
    khat: float

    @property
    def kind(self) -> str:
        """What is estimated."""
        if self.row.name.startswith("ln Z"):
            return "ln Z"
        return "populations" if self.row.name.startswith("P(") else "averages"


def trials(n_targets: int, repeats: int, seed: int) -> Iterator[list[Trial]]:
    """Those of each target: one training, some sets of samples, half of the targets without hotter draws."""
    for number in range(n_targets):
        case = random_case(number, seed)
        rng = np.random.default_rng([seed, number, 1])
        generator = learn(case, int(rng.integers(2**31)), 1, lambda progress: None)
        if rng.random() < 0.5:
            generator = BoltzmannGenerator(case.target, generator.flow)
        n = int(np.exp(rng.uniform(np.log(FEWEST_SAMPLES), np.log(MOST_SAMPLES))))
        found = []
        for repeat in range(repeats):
            samples = generator.sample(n, seed=[seed, number, repeat])
            khat = pareto_smooth(samples.log_weight)[0]
            found += [Trial(number, repeat, row, khat) for row in estimates(case, samples)]
        yield found


def coverage_table(found: list[Trial]) -> list[str]:
    """Of each kind: how many intervals there are, how many hold the truth, and on which side the others miss."""
    lines = [_line(kind, [trial for trial in found if trial.kind == kind]) for kind in KINDS]
    for low, high in pairwise(SHAPES):
        rows = [trial for trial in found if trial.kind == "ln Z" and low <= trial.khat < high]
        lines.append(_line(f"ln Z, k̂ from {low:g} to {high:g}", rows))
    return lines


def _line(kind: str, rows: list[Trial]) -> str:
    scores: dict[int, list[float]] = {}
    for trial in rows:
        if trial.row.z is not None:
            scores.setdefault(trial.target, []).append(trial.row.z)
    z = np.array([score for some in scores.values() for score in some])
    if len(scores) < 2:
        return f"{kind:24} {len(z)} intervals, {len(rows) - len(z)} not determined"
    # Intervals of one target are not independent: the error is that of the mean over targets.
    of_targets = np.array([np.sum(np.abs(some) <= HALF_WIDTH) for some in scores.values()])
    counts = np.array([len(some) for some in scores.values()])
    share = of_targets.sum() / counts.sum()
    error = np.std(of_targets - share * counts, ddof=1) / counts.mean() / np.sqrt(len(counts))
    return (
        f"{kind:24} {len(z):5} intervals of {len(scores):3} targets hold the truth in {100 * share:5.1f} ± "
        f"{100 * error:.1f} %; {np.sum(z < -HALF_WIDTH)} estimates too low, {np.sum(z > HALF_WIDTH)} too high; rms z "
        f"{np.sqrt(np.mean(z**2)):.2f}; {len(rows) - len(z)} not determined"
    )


def intervals(n_targets: int, repeats: int, seed: int) -> None:
    """Print coverage of the first set of samples of each target, and of all sets."""
    found = [trial for some in trials(n_targets, repeats, seed) for trial in some]
    print(f"{n_targets} targets, one set of samples each")
    print("\n".join(coverage_table([trial for trial in found if trial.repeat == 0])))
    print(f"{n_targets} targets, {repeats} sets of samples each")
    print("\n".join(coverage_table(found)))
