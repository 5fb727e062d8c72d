"""The trainer: one loop for all methods, resumable, that ends with its budget."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from boltzgen.errors import BoltzgenError, InputError
from boltzgen.flow.architecture import Architecture
from boltzgen.flow.generator import Generator
from boltzgen.progress import Progress
from boltzgen.random_streams import Purpose, random_stream
from boltzgen.target import AnyTarget
from boltzgen.training.annealing import GAP_LIMIT, GAP_OF_TORSION, SHARE_OF_DEAR, Cooling, Schedule
from boltzgen.training.budget import ENOUGH, STEPS_TO_JUDGE, Budget
from boltzgen.training.challengers import Challengers, can_propose
from boltzgen.training.counters import Counters
from boltzgen.training.gradient import GradientWorkers, Sources
from boltzgen.training.held_out import HeldOut
from boltzgen.training.history import COLUMNS, batch_figures, history_columns, history_rows, shown_figures
from boltzgen.training.memory import Memory
from boltzgen.training.method import ANNEALED, Method
from boltzgen.training.objectives import Scored
from boltzgen.training.optimizer import Optimizer
from boltzgen.training.rounds import Rounds
from boltzgen.training.step import StepGradient, StepPlan
from boltzgen.training.weights import to_arrays, to_tensors

GRADIENT_CLIP = 10.0
AVERAGING_STEPS = 50
"""Time constant, in steps, of the moving average of the weights."""

SLOW_STEPS = 3
"""Steps of the slow coordinates alone, on earlier draws, after each step whose draws take many energies."""

MAX_SKIPPED_IN_A_ROW = 20

JUDGE_EVERY = 100
"""Steps after which it is measured anew where the flow is thin."""


@dataclass(frozen=True)
class TrainSettings:
    """Method, budget and seed of a training run; ``time_budget`` in seconds.

    ``max_energies`` counts draws of frames where the method evaluates no energies. ``exchange_share`` of the energies,
    by default that of the architecture, is spent on challengers by replica exchange, if the budget is large enough for
    some rounds of it.
    """

    max_energies: int | None
    time_budget: float | None = None
    start_temperature: float = 600.0
    exchange_share: float | None = None
    learning_rate: float = 3e-3
    seed: int = 0
    method: Method = ANNEALED


class Diverged(BoltzgenError):  # noqa: N818  # the training has, nobody erred
    """Too many steps in a row without a finite gradient; ``batch`` holds the draws of the last, as arrays."""

    def __init__(self, message: str, batch: dict[str, Any]) -> None:
        super().__init__(message)
        self.batch = batch


class Trainer:
    """Trains a generator on a target by the losses that a method names.

    With the method ``ANNEALED`` the stiff coordinates learn by reverse KL given the slow ones. These, where the modes
    are, learn by forward KL on the flow's own reweighted draws, which covers modes where reverse KL would drop them,
    while the temperature falls by a criterion. The result is a moving average of the weights; of a training on data
    alone the one that was best on held-out frames.
    """

    def __init__(
        self,
        target: AnyTarget,
        architecture: Architecture,
        settings: TrainSettings,
        device: torch.device | str = "cpu",
        threads: int = 1,
        sources: Sources | None = None,
    ) -> None:
        self.settings, self.method = settings, settings.method
        self.threads = threads
        data, coordinate = (sources.data, sources.coordinate) if sources else (None, None)
        self.sources = Sources(data.to(torch.float32, device) if data else None, coordinate)
        self.target = target.to(torch.float32, device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(random_stream(Purpose.WEIGHTS, settings.seed).initial_seed())
            self.generator = Generator(architecture).attach(self.target).to(device)
        self.average = copy.deepcopy(self.generator).requires_grad_(False)
        self.optimizer = Optimizer(self.generator)
        of_batch = SHARE_OF_DEAR if architecture.levers else 1.0
        self.schedule = Schedule(learning_rate=settings.learning_rate, share=of_batch)
        start = max(settings.start_temperature if self.method.cools else 0.0, target.temperature)
        limit = max(GAP_LIMIT, GAP_OF_TORSION * target.coordinates.n_slow)
        self.cooling = Cooling(start, target.temperature, gap_limit=limit)
        if not self.method.cools:
            self.cooling.level = self.cooling.levels
        self.memory = Memory(self.cooling, self.method, settings.seed)
        self.challengers: Challengers | None = None
        share = architecture.exchange_share if settings.exchange_share is None else settings.exchange_share
        if self.method.challengers and share and can_propose(self.target):
            self.challengers = Challengers(self.target, settings.seed)
        self.counters = Counters()
        from_data = self.method.learns_from_data_alone
        cost = architecture.energies_per_point
        self.budget = Budget(self.counters, settings.max_energies, settings.time_budget, cost=cost, of_frames=from_data)
        self.rounds = Rounds(self.budget, share if self.challengers else 0.0)
        held_out = self.sources.data.held_out if self.sources.data else None
        self.held_out = HeldOut(held_out, best_wins=from_data)
        self.history: list[dict[str, float]] = []
        learns_from_draws_alone = self.method.replay and not (self.method.data or self.method.spread)
        self._slow_steps = SLOW_STEPS if architecture.levers and learns_from_draws_alone else 0
        self._skipped_in_a_row = 0

    def begin_from(self, flow: Generator, basins: torch.Tensor) -> None:
        """Go on from a trained flow, at the target's temperature, with structures ``(atoms, 3, n)`` to lead draws.

        Raises
        ------
        InputError
            If the method proposes nothing, or no structure is in the support of the coordinates.
        """
        if not self.method.challengers or not can_propose(self.target):
            raise InputError("basins can seed no training of this method, or without a torsion that turns.")
        self.generator.load_state_dict(flow.state_dict())
        self.average.load_state_dict(flow.state_dict())
        self.cooling.level = self.cooling.levels
        if self.challengers is None:
            self.challengers = Challengers(self.target, self.settings.seed)
        device = next(self.generator.parameters()).device
        self.challengers.add_seeds(basins.to(device, torch.float32))

    @property
    def finished(self) -> bool:
        """Whether the budget is used, or data alone have nothing more to teach."""
        # A flow that closes in on each frame of a few ends without a finite density elsewhere.
        collapsed = self.held_out.best is not None and self._skipped_in_a_row >= MAX_SKIPPED_IN_A_ROW
        progress = self.budget.progress
        return progress >= 1.0 or self.held_out.is_past_best(progress) or collapsed

    @property
    def result(self) -> Generator:
        """The trained flow: the averaged weights, of data alone those with the lowest held-out loss."""
        if self.held_out.best is None:
            return self.average
        chosen = copy.deepcopy(self.average)
        chosen.load_state_dict(self.held_out.best.weights)
        return chosen

    @property
    def hottest(self) -> float:
        """The highest temperature in K that the flow has learnt and not forgotten."""
        return self.cooling.start if self.method.hot_share else self.cooling.final

    def counts(self) -> dict[str, int]:
        """What was spent and what went wrong; every energy of training comes with its forces."""
        counters = self.counters
        return {
            "n_energy_evaluations": counters.energies,
            "n_force_evaluations": counters.forces,
            "n_exchange_energies": self.challengers.energies if self.challengers else 0,
            "replayed": counters.replayed,
            "frames": counters.frames,
            "skipped_steps": counters.skipped_steps,
            "n_failed": counters.failed_energies,
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
        workers = GradientWorkers(self.generator, self.target, self.threads, self.method, self.sources)
        counted = last_checkpoint = time.monotonic()
        with workers.active():
            while not self.finished:
                if not keep_on():
                    checkpoint()
                    return False
                self._one_step(workers)
                now = time.monotonic()
                self.counters.seconds += now - counted  # the last checkpoint, too
                counted = now
                self.history[-1]["seconds"] = self.counters.seconds
                report(self._report())
                if now - last_checkpoint > checkpoint_every:
                    checkpoint()
                    last_checkpoint = now
        return True

    def _one_step(self, workers: GradientWorkers) -> None:
        started = time.perf_counter()
        self._challenge()
        exchanged = time.perf_counter() - started
        counters, memory = self.counters, self.memory
        counters.seconds_exchange += exchanged
        progress = self.budget.progress
        rate = self.schedule.rate(progress, counters.step)
        batch = self.budget.affordable(self.schedule.batch(progress, self.rounds.expected_draws))
        memory.refresh(counters.step)
        challengers = self.challengers if self.challengers and self.challengers.n_structures else None
        seed = (self.settings.seed, counters.step)
        heat = memory.heat(self.cooling.level)
        waited = -time.perf_counter()
        visits = self._slow_steps > 0
        plan = StepPlan(batch, heat, memory.hot, memory.pools, seed, challengers, visits, memory.visited)
        step = workers.step(plan)
        waited += time.perf_counter()
        redraws = self.generator.architecture.redraws
        counters.add_step(step, batch, self.method, redraws, replays=bool(memory.pools))
        memory.add(step.scored, step.visited)
        if self._move(step, rate):
            waited += self._move_slow(workers, plan, rate, step.losses)
            self._update_average()
        counters.step += 1
        held_out = self.held_out.judge(self.average, self.budget.progress)
        counters.add_energies(self.generator.take_energies())
        counters.seconds_other += time.perf_counter() - started - waited - exchanged
        self._record(step, batch, rate, held_out)
        self.cooling.update(self.budget.progress, self.history[-1]["elbo_gap"])
        self._end_if_enough()

    def _challenge(self) -> None:
        """Let replica exchange go on when its share of the energies is due, and judge its structures now and then."""
        challengers = self.challengers
        if challengers is None:
            return
        before = challengers.energies
        goes_on = self.rounds.is_due(before)
        if goes_on:
            challengers.go_on(self.rounds.length, keep=self.rounds.is_burnt_in(before))
            self.counters.add_energies(challengers.energies - before)
        is_time = goes_on or self.counters.step % JUDGE_EVERY == 0
        if is_time and self.cooling.finished and self.memory.is_current:
            challengers.judge(self.average, self.memory.pools[0].log_z)

    def _move_slow(self, workers: GradientWorkers, plan: StepPlan, rate: float, losses: dict[str, float]) -> float:
        """Move the slow coordinates further, adding to ``losses``; returns the seconds of the gradients."""
        seconds = 0.0
        for number in range(1, 1 + (self._slow_steps if plan.pools else 0)):
            started = time.perf_counter()
            step = workers.slow_step(plan, number)
            seconds += time.perf_counter() - started
            self.counters.add_slow_step(step, plan.batch)
            losses |= step.losses
            self._move(step, rate)
        return seconds

    def _move(self, step: StepGradient, rate: float) -> bool:
        """Move the weights along a gradient, or skip the step if it is not finite; whether they moved."""
        for parameter, gradient in zip(self.generator.parameters(), step.gradients, strict=True):
            parameter.grad = gradient
        norm = torch.nn.utils.clip_grad_norm_(self.generator.parameters(), GRADIENT_CLIP, foreach=True)
        if bool(torch.isfinite(norm)):
            self.optimizer.step(rate)
            self._skipped_in_a_row = 0
            return True
        self._count_skipped(step.scored)
        return False

    def _end_if_enough(self) -> None:
        """End early where draws at the target's temperature are as good as independent samples.

        Not while the flow is thin at more than the rest of what replica exchange has found, for what it never draws it
        does not miss.
        """
        if self.cooling.steps < STEPS_TO_JUDGE or not self.cooling.finished:
            return
        if self.challengers and self.challengers.rounds and not self.challengers.thin <= 1.0 - ENOUGH:
            return  # NaN as long as there are no structures
        self.budget.end_if_enough([row["target_ess_fraction"] for row in self.history[-STEPS_TO_JUDGE:]])

    def _count_skipped(self, scored: list[Scored]) -> None:
        self.counters.skipped_steps += 1
        self._skipped_in_a_row += 1
        if self._skipped_in_a_row >= MAX_SKIPPED_IN_A_ROW and self.held_out.best is None:
            draws = [{**vars(part.slow), "stiff": part.stiff, "log_weight": part.log_weight} for part in scored]
            columns = {name: torch.cat([part[name] for part in draws]) for name in (draws[0] if draws else ())}
            raise Diverged(
                f"training stopped: {MAX_SKIPPED_IN_A_ROW} steps in a row had no finite gradient "
                f"(step {self.counters.step}). Begin anew with --no-resume and a smaller train.learning_rate.",
                to_arrays(columns),
            )

    @torch.no_grad()
    def _update_average(self) -> None:
        share = 1.0 / (1.0 + min(0.5 * self.counters.step, AVERAGING_STEPS))
        for mean, value in zip(self.average.parameters(), self.generator.parameters(), strict=True):
            mean.lerp_(value, share)

    def _record(self, step: StepGradient, batch: int, rate: float, held_out: float) -> None:
        losses = {f"loss_{name}": value for name, value in step.losses.items()}
        pool = self.memory.pools[0] if self.memory.pools else None
        row = {
            **dict.fromkeys(COLUMNS, math.nan),
            **{name: float(value) for name, value in vars(self.counters).items()},
            **batch_figures(step.own, self.cooling.temperature, self.target.temperature),
            **losses,
            "temperature": self.cooling.temperature,
            "learning_rate": rate,
            "batch": float(batch),
            "held_out_nll": held_out,
            "exchange_energies": float(self.challengers.energies if self.challengers else 0),
            "challengers": float(self.challengers.n_structures if self.challengers else 0),
            "thin": self.challengers.thin if self.challengers else math.nan,
            "tempering": pool.tempering if pool else math.nan,
            "buffer_ess": pool.ess_fraction if pool else math.nan,
        }
        self.history.append(row)

    def _report(self) -> Progress:
        progress = self.budget.progress
        left = self.counters.seconds * (1.0 - progress) / progress if progress > 0.02 else None
        return Progress("train", progress, left, shown_figures(self.history[-1]))

    def state(self) -> dict[str, Any]:
        """Everything that makes a resumed training the same training, as nested arrays."""
        return {
            "generator": to_arrays(self.generator.state_dict()),
            "average": to_arrays(self.average.state_dict()),
            "optimizer": self.optimizer.to_tree(),
            "counters": dict(vars(self.counters)),
            "cooling_level": self.cooling.level,
            "steps_at_level": self.cooling.steps,
            "skipped_in_a_row": self._skipped_in_a_row,
            "needed": self.budget.needed,
            **self.held_out.to_tree(),
            **self.memory.to_tree(),
            "challengers": self.challengers and self.challengers.to_tree(),
            "history": history_columns(self.history),
        }

    def load_state(self, tree: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state` returned."""
        self.generator.load_state_dict(to_tensors(tree["generator"]))
        self.average.load_state_dict(to_tensors(tree["average"]))
        self.optimizer.load_tree(tree["optimizer"])
        for name, value in tree["counters"].items():
            setattr(self.counters, name, value)
        self.cooling.level, self.cooling.steps = int(tree["cooling_level"]), int(tree["steps_at_level"])
        self._skipped_in_a_row = int(tree["skipped_in_a_row"])
        self.budget.needed = float(tree["needed"])
        device = next(self.generator.parameters()).device
        self.held_out.load_tree(tree, device)
        self.memory.load_tree(tree, device)
        if self.challengers:
            self.challengers.load_tree(tree["challengers"])
        self.history = history_rows(tree["history"])
