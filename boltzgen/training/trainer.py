"""The trainer: one loop, energy-only, resumable, that ends with its budget."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from boltzgen.errors import BoltzgenError
from boltzgen.flow.generator import Architecture, Generator
from boltzgen.progress import Progress
from boltzgen.target import Target
from boltzgen.training.annealing import Cooling, Schedule
from boltzgen.training.gradient import GradientWorkers, StepPlan
from boltzgen.training.objectives import Scored
from boltzgen.training.replay import Pool, Replay

GRADIENT_CLIP = 10.0
AVERAGING_STEPS = 50
"""Time constant, in steps, of the moving average of the weights."""

REPLAY_CAPACITY = 100_000
"""Draws that are remembered."""

POOL_REFRESH = 5
"""Steps at one temperature after which the pool of reweighted draws is rebuilt from the replay."""

MAX_SKIPPED_IN_A_ROW = 20

COLUMNS = (
    "step",
    "energies",
    "replayed",
    "seconds",
    "temperature",
    "learning_rate",
    "batch",
    "elbo",
    "log_z",
    "elbo_gap",
    "ess_fraction",
    "tempering",
    "skipped_steps",
    "failed_energies",
)
"""Columns of the history: ``elbo``, ``log_z``, ``elbo_gap`` (nats) and ``ess_fraction`` are of the running batch, with
softened energies, at the current temperature; a small batch flatters ESS."""


@dataclass(frozen=True)
class TrainSettings:
    """Budget and seed of a training run; ``time_budget`` in seconds."""

    max_energies: int | None
    time_budget: float | None = None
    start_temperature: float = 600.0
    learning_rate: float = 3e-3
    seed: int = 0


class Diverged(BoltzgenError):  # noqa: N818  # the training has, nobody erred
    """Too many steps in a row without a finite gradient; ``batch`` holds the draws of the last, as arrays."""

    def __init__(self, message: str, batch: dict[str, Any]) -> None:
        super().__init__(message)
        self.batch = batch


class Trainer:
    """Trains a generator on a target while the temperature falls by a criterion.

    The stiff coordinates learn by reverse KL given the slow ones. These, where the modes are, learn by forward KL on
    the flow's own reweighted draws, which covers modes where reverse KL would drop them. The result is a moving average
    of the weights.
    """

    def __init__(
        self,
        target: Target,
        architecture: Architecture,
        settings: TrainSettings,
        device: torch.device | str = "cpu",
        threads: int = 1,
    ) -> None:
        self.settings = settings
        self.threads = threads
        self.target = target.to(torch.float32, device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            self.generator = Generator(architecture).to(device)
        self.average = copy.deepcopy(self.generator).requires_grad_(False)
        self.optimizer = torch.optim.Adam(self.generator.parameters(), fused=True)
        self.schedule = Schedule(learning_rate=settings.learning_rate)
        start = max(settings.start_temperature, target.temperature)
        self.cooling = Cooling(start, target.temperature)
        self.replay = Replay(REPLAY_CAPACITY)
        self.history: list[dict[str, float]] = []
        self.step = self.energies = self.replayed = 0
        self.skipped_steps = self.failed_energies = 0
        self.seconds = 0.0
        self._pool: Pool | None = None
        self._skipped_in_a_row = 0
        self._steps_at_level = 0

    @property
    def progress(self) -> float:
        """Used share of the budget, 0 to 1: the larger of energies and seconds."""
        settings = self.settings
        by_energies = self.energies / settings.max_energies if settings.max_energies else 0.0
        by_time = self.seconds / settings.time_budget if settings.time_budget else 0.0
        return min(1.0, max(by_energies, by_time))

    def counts(self) -> dict[str, int]:
        """What was spent and what went wrong; every energy of training comes with its forces."""
        return {
            "n_energy_evaluations": self.energies,
            "n_force_evaluations": self.energies,
            "replayed": self.replayed,
            "skipped_steps": self.skipped_steps,
            "n_failed": self.failed_energies,
        }

    def run(
        self,
        report: Callable[[Progress], None],
        keep_on: Callable[[], bool],
        checkpoint: Callable[[], None],
        checkpoint_every: float = 30.0,
    ) -> bool:
        """Train until the budget is used or ``keep_on()`` says no; returns whether training is finished.

        ``checkpoint`` is called every ``checkpoint_every`` seconds and when stopped early.
        """
        workers = GradientWorkers(self.generator, self.target, self.threads)
        last_checkpoint = time.monotonic()
        with workers.active():
            while self.progress < 1.0:
                if not keep_on():
                    checkpoint()
                    return False
                started = time.monotonic()
                self._one_step(workers)
                now = time.monotonic()
                self.seconds += now - started
                self.history[-1]["seconds"] = self.seconds
                report(self._report())
                if now - last_checkpoint > checkpoint_every:
                    checkpoint()
                    last_checkpoint = now
        return True

    def _one_step(self, workers: GradientWorkers) -> None:
        progress = self.progress
        rate = self.schedule.rate(progress, self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        batch = self.schedule.batch(progress)
        if self.settings.max_energies:
            batch = min(batch, self.settings.max_energies - self.energies)
        seed = (self.settings.seed, self.step)
        if self._steps_at_level and self._steps_at_level % POOL_REFRESH == 0:
            self._pool = self.replay.pool() or self._pool
        step = workers.step(StepPlan(batch, self.cooling.temperature, self._pool, seed))
        self.energies += batch
        self.failed_energies += step.n_failed
        self.replayed += batch if self._pool else 0
        for scored in step.scored:
            self.replay.add(scored)
        for parameter, gradient in zip(self.generator.parameters(), step.gradients, strict=True):
            parameter.grad = gradient
        norm = torch.nn.utils.clip_grad_norm_(self.generator.parameters(), GRADIENT_CLIP, foreach=True)
        if bool(torch.isfinite(norm)):
            self.optimizer.step()
            self._skipped_in_a_row = 0
            self._update_average()
        else:
            self._count_skipped(step.scored)
        self.step += 1
        self._record(step.log_weights, batch, rate)
        self._steps_at_level += 1
        if self.cooling.update(self.progress, self.history[-1]["elbo_gap"]):
            # The pool stays until there are as many draws at the new temperature: the torsions change little.
            self.replay.clear()
            self._steps_at_level = 0

    def _count_skipped(self, scored: list[Scored]) -> None:
        self.skipped_steps += 1
        self._skipped_in_a_row += 1
        if self._skipped_in_a_row >= MAX_SKIPPED_IN_A_ROW:
            columns = {
                "label": torch.cat([part.slow.label for part in scored]),
                "torsions": torch.cat([part.slow.torsions for part in scored]),
                "stiff": torch.cat([part.stiff for part in scored]),
                "log_weight": torch.cat([part.log_weight for part in scored]),
            }
            raise Diverged(
                f"training stopped: {MAX_SKIPPED_IN_A_ROW} steps in a row had no finite gradient (step {self.step}). "
                "Begin anew with --no-resume and a smaller train.learning_rate.",
                to_arrays(columns),
            )

    @torch.no_grad()
    def _update_average(self) -> None:
        share = 1.0 / (1.0 + min(0.5 * self.step, AVERAGING_STEPS))
        for mean, value in zip(self.average.parameters(), self.generator.parameters(), strict=True):
            mean.lerp_(value, share)

    def _record(self, log_weights: Tensor, batch: int, rate: float) -> None:
        n = len(log_weights)
        elbo = log_weights.mean().item()
        log_sum = torch.logsumexp(log_weights, 0)
        log_z = log_sum.item() - math.log(max(n, 1))
        ess = (2.0 * log_sum - torch.logsumexp(2.0 * log_weights, 0)).exp().item() / max(n, 1)
        tempering = self._pool.tempering if self._pool else math.nan
        values = (
            self.step, self.energies, self.replayed, self.seconds, self.cooling.temperature, rate, batch,
            elbo, log_z, log_z - elbo, ess, tempering, self.skipped_steps, self.failed_energies,
        )  # fmt: skip
        self.history.append(dict(zip(COLUMNS, (float(v) for v in values), strict=True)))

    def _report(self) -> Progress:
        row, progress = self.history[-1], self.progress
        left = self.seconds * (1.0 - progress) / progress if progress > 0.02 else None
        fields: dict[str, float | int | str] = {
            "energies": self.energies,
            "T": f"{row['temperature']:.0f} K",
            "batch ESS": f"{100 * row['ess_fraction']:.0f} %",
            "gap": f"{row['elbo_gap']:.2f}",
        }
        if self.skipped_steps or self.failed_energies:
            fields |= {"skipped": self.skipped_steps, "failed": self.failed_energies}
        return Progress("train", progress, left, fields)

    def state(self) -> dict[str, Any]:
        """Everything that makes a resumed training the same training, as nested arrays."""
        moments = self.optimizer.state_dict()["state"]
        counters = ("step", "energies", "replayed", "skipped_steps", "failed_energies", "seconds")
        return {
            "generator": to_arrays(self.generator.state_dict()),
            "average": to_arrays(self.average.state_dict()),
            "optimizer": {str(k): to_arrays(moment) for k, moment in moments.items()},
            "counters": {name: getattr(self, name) for name in counters},
            "cooling_level": self.cooling.level,
            "steps_at_level": self._steps_at_level,
            "replay": self.replay.to_tree(),
            "pool": self._pool and self._pool.to_tree(),
            "history": history_columns(self.history),
        }

    def load_state(self, tree: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state` returned."""
        self.generator.load_state_dict(to_tensors(tree["generator"]))
        self.average.load_state_dict(to_tensors(tree["average"]))
        optimizer = self.optimizer.state_dict()
        optimizer["state"] = {int(k): to_tensors(moment) for k, moment in tree["optimizer"].items()}
        self.optimizer.load_state_dict(optimizer)
        for name, value in tree["counters"].items():
            setattr(self, name, value)
        self.cooling.level = int(tree["cooling_level"])
        self._steps_at_level = int(tree["steps_at_level"])
        device = next(self.generator.parameters()).device
        self.replay.load_tree(tree["replay"], device)
        if tree["pool"] is not None:
            self._pool = Pool.from_tree(tree["pool"], device)
        columns = tree["history"]
        n_rows = len(next(iter(columns.values()), []))
        self.history = [{name: float(column[k]) for name, column in columns.items()} for k in range(n_rows)]


def to_arrays(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """A state dictionary as numpy arrays on the CPU."""
    return {name: value.detach().cpu().numpy().copy() for name, value in state.items()}


def to_tensors(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """The inverse of :func:`to_arrays`."""
    return {name: torch.as_tensor(value) for name, value in state.items()}


def history_columns(history: list[dict[str, float]]) -> dict[str, Any]:
    """The history as one float64 array per column."""
    return {name: torch.tensor([row[name] for row in history], dtype=torch.float64).numpy() for name in COLUMNS}
