"""What an ensemble says of itself beside its surfaces: checks, growth of the ESS, averages, cis shares."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from boltzgen.analysis.averages import Average, ensemble_averages
from boltzgen.analysis.plots import ess_figure
from boltzgen.config import AnalyzeConfig
from boltzgen.statistics.check import Check
from boltzgen.statistics.growth import Growth, ess_growth
from boltzgen.storage.runs import RunDirectory
from boltzgen.storage.trajectory import Frames
from boltzgen.target import Target
from boltzgen.workflow.checks import Checked, check_ensemble


@dataclass(frozen=True)
class Trust:
    """Checks of an ensemble, how its ESS grows, and its averages."""

    checked: Checked
    growth: Growth
    averages: dict[str, Average]

    @property
    def checks(self) -> tuple[Check, ...]:
        """What the verdict is to take into account."""
        return self.checked.checks

    def summary(self) -> dict[str, Any]:
        """Plain values under the keys ``checks``, ``ladder``, ``cis``, ``ess_growth`` and ``averages``."""
        errors = [float(error) if np.isfinite(error) else None for error in self.growth.stderr]
        growth = zip(self.growth.n.tolist(), self.growth.ess_fraction.tolist(), errors, strict=True)
        return {
            **self.checked.summary(),
            "ess_growth": [{"n": n, "ess_fraction": share, "stderr": error} for n, share, error in growth],
            "averages": {name: {**asdict(one.estimate), "unit": one.unit} for name, one in self.averages.items()},
        }

    def figures(self, khat: float) -> dict[str, Figure]:
        """Figures by the stem of the file they are stored under, given k̂ of the weights."""
        return {"ess": ess_figure(self.growth, khat)}


def assess(
    directory: RunDirectory, target: Target, frames: Frames, temperature: float, settings: AnalyzeConfig, seed: int
) -> Trust:
    """Check an ensemble at ``temperature`` in K, whose energy is that of ``target``, and take its averages."""
    averages = ensemble_averages(
        frames.positions,
        frames.log_weight,
        frames.reduced_potential,
        target.molecule,
        temperature,
        n_bootstrap=settings.bootstrap,
        seed=seed,
    )
    return Trust(
        check_ensemble(directory, target, frames, temperature, seed),
        ess_growth(frames.log_weight),
        averages,
    )
