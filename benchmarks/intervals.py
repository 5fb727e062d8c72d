"""Whether nominal 95 % intervals hold the truth in 95 %: random targets, the project's own error bars."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from random_targets import random_case
from scipy.special import ndtri

from boltzgen.sampling.draw import BoltzmannGenerator
from boltzgen.selftest.check import Row, estimates, learn
from boltzgen.statistics.agreement import FEWEST_VISITS
from boltzgen.statistics.weights import kish_ess

HALF_WIDTH = float(ndtri(0.975))
"""Of an interval, in standard errors."""

FEWEST_SAMPLES, MOST_SAMPLES = 1_000, 20_000


@dataclass(frozen=True)
class Trial:
    """One estimate of one quantity of one target, and how often its state was seen (ESS times its share)."""

    target: int
    repeat: int
    row: Row
    visits: float | None

    @property
    def kind(self) -> str:
        """What is estimated."""
        if self.row.name.startswith("ln Z"):
            return "ln Z"
        if self.visits is None:
            return "averages"
        return "populations" if self.visits >= FEWEST_VISITS else "populations, fewer than ten visits"


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
            ess = kish_ess(samples.log_weight)
            for row in estimates(case, samples):
                p = row.value if row.name.startswith("P(") else None
                found.append(Trial(number, repeat, row, None if p is None else ess * min(p, 1.0 - p)))
        yield found


def coverage_table(found: list[Trial]) -> list[str]:
    """Of each kind: how many intervals there are, how many hold the truth, and on which side the others miss."""
    lines = []
    kinds = ("ln Z", "averages", "populations", "populations, fewer than ten visits")
    for kind in kinds:
        rows = [trial for trial in found if trial.kind == kind]
        z = np.array([trial.row.z for trial in rows if trial.row.z is not None])
        low, high = int(np.sum(z < -HALF_WIDTH)), int(np.sum(z > HALF_WIDTH))
        of_targets = [
            np.mean([abs(t.row.z) <= HALF_WIDTH for t in rows if t.target == k and t.row.z is not None])
            for k in sorted({t.target for t in rows if t.row.z is not None})
        ]
        share = 1.0 - (low + high) / max(len(z), 1)
        spread = np.std(of_targets, ddof=1) / np.sqrt(len(of_targets)) if len(of_targets) > 1 else float("nan")
        lines.append(
            f"{kind:36} {len(z):6} intervals of {len(of_targets):3} targets hold the truth in {100 * share:5.1f} ± "
            f"{100 * spread:.1f} %; {low} estimates too low, {high} too high; rms z {np.sqrt(np.mean(z**2)):.2f}; "
            f"{len(rows) - len(z)} not determined"
        )
    return lines


def intervals(n_targets: int, repeats: int, seed: int) -> None:
    """Print coverage of the first set of samples of each target, and of all sets."""
    found = [trial for some in trials(n_targets, repeats, seed) for trial in some]
    print(f"{n_targets} targets, one set of samples each")
    print("\n".join(coverage_table([trial for trial in found if trial.repeat == 0])))
    print(f"{n_targets} targets, {repeats} sets of samples each")
    print("\n".join(coverage_table(found)))
