"""The trainer: one loop for all methods, resumable, that ends with its budget."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from boltzgen.errors import BoltzgenError
from boltzgen.flow.generator import Architecture, Generator
from boltzgen.progress import Progress
from boltzgen.target import AnyTarget
from boltzgen.training.annealing import Cooling, Schedule
from boltzgen.training.challengers import BURN_IN, FEWEST_ROUNDS, LEAST_ROUND, MOST_ROUNDS, Challengers, can_propose
from boltzgen.training.data import held_out_loss
from boltzgen.training.gradient import GradientWorkers, Sources, StepGradient, StepPlan
from boltzgen.training.history import COLUMNS, batch_figures, history_columns, history_rows, shown_figures
from boltzgen.training.method import ANNEALED, Method
from boltzgen.training.objectives import Scored
from boltzgen.training.optimizer import Optimizer
from boltzgen.training.replay import Pool, Replay
from boltzgen.training.weights import Best, to_arrays, to_tensors

GRADIENT_CLIP = 10.0
AVERAGING_STEPS = 50
"""Time constant, in steps, of the moving average of the weights."""

REPLAY_CAPACITY = 100_000
"""Draws that are remembered."""

POOL_REFRESH = 5
"""Steps at one temperature after which the pool of reweighted draws is rebuilt from the replay."""

MAX_SKIPPED_IN_A_ROW = 20

FIRST_GUESS_OF_SPEED = 10_000.0
"""Draws a second that are expected of a budget in seconds until ``STEPS_TO_TELL_SPEED`` steps have been timed."""

STEPS_TO_TELL_SPEED = 20

ENOUGH = 0.98
"""Effective share of recent draws above which a training has nothing left to gain."""

STEPS_TO_JUDGE = 50
"""Steps over which that is seen."""

LAST_PHASE = 0.8
"""Progress at which the largest batches begin: where a training goes on that has learnt enough before."""

COUNTERS = (
    *("step", "energies", "forces", "replayed", "frames", "skipped_steps", "failed_energies"),
    *("seconds", "seconds_energy", "seconds_flow", "seconds_exchange", "seconds_other"),
)
"""Attributes of the trainer that only grow, each also a column of the history."""

LAST_ROUND = 0.95
"""Progress after which nothing can be learnt from further challengers."""

JUDGE_EVERY = 100
"""Steps after which it is measured anew where the flow is thin."""

HELD_OUT_EVERY = 0.02
"""Share of the budget after which held-out frames are looked at again."""

PATIENCE = 0.3
"""Share of the budget without a better held-out loss after which learning from data alone ends."""


@dataclass(frozen=True)
class TrainSettings:
    """Method, budget and seed of a training run; ``time_budget`` in seconds.

    ``max_energies`` counts draws of frames where the method evaluates no energies. ``exchange_share`` of the energies
    is spent on challengers by replica exchange, if the budget is large enough for some rounds of it.
    """

    max_energies: int | None
    time_budget: float | None = None
    start_temperature: float = 600.0
    exchange_share: float = 1 / 3
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
            torch.manual_seed(settings.seed)
            self.generator = Generator(architecture).to(device)
        self.average = copy.deepcopy(self.generator).requires_grad_(False)
        self.optimizer = Optimizer(self.generator)
        self.schedule = Schedule(learning_rate=settings.learning_rate)
        start = max(settings.start_temperature if self.method.cools else 0.0, target.temperature)
        self.cooling = Cooling(start, target.temperature)
        if not self.method.cools:
            self.cooling.level = self.cooling.levels
        self.replay = Replay(REPLAY_CAPACITY)
        self.history: list[dict[str, float]] = []
        self.step = self.energies = self.forces = self.replayed = self.frames = 0
        self.skipped_steps = self.failed_energies = 0
        self.seconds = self.seconds_energy = self.seconds_flow = self.seconds_exchange = self.seconds_other = 0.0
        self.challengers: Challengers | None = None
        if self.method.challengers and settings.exchange_share and can_propose(self.target):
            self.challengers = Challengers(self.target, settings.seed)
        self.best: Best | None = None
        self._pools: tuple[Pool, ...] = ()
        self._hot: float | None = None
        self._skipped_in_a_row = 0
        self._steps_at_level = 0
        self._judged_at = 0.0
        self.needed = 1.0

    @property
    def progress(self) -> float:
        """Used share of the budget, or of what is left of it by :meth:`_stop_if_enough`, 0 to 1."""
        return min(1.0, self._used / self.needed)

    @property
    def _used(self) -> float:
        """Used share of the whole budget: the larger of energies and seconds."""
        settings = self.settings
        by_energies = self._spent / settings.max_energies if settings.max_energies else 0.0
        by_time = self.seconds / settings.time_budget if settings.time_budget else 0.0
        return max(by_energies, by_time)

    @property
    def finished(self) -> bool:
        """Whether the budget is used, or data alone have nothing more to teach."""
        if self.best is None:
            return self.progress >= 1.0
        # A flow that closes in on each frame of a few ends without a finite density elsewhere.
        collapsed = self._skipped_in_a_row >= MAX_SKIPPED_IN_A_ROW
        return self.progress >= 1.0 or self.progress - self.best.progress > PATIENCE or collapsed

    @property
    def result(self) -> Generator:
        """The trained flow: the averaged weights, of data alone those with the lowest held-out loss."""
        if self.best is None:
            return self.average
        chosen = copy.deepcopy(self.average)
        chosen.load_state_dict(self.best.weights)
        return chosen

    @property
    def _spent(self) -> int:
        """What ``max_energies`` counts."""
        return self.frames if self.method.learns_from_data_alone else self.energies

    @property
    def hottest(self) -> float:
        """The highest temperature in K that the flow has learnt and not forgotten."""
        return self.cooling.start if self.method.hot_share else self.cooling.final

    @property
    def _expected_energies(self) -> float:
        """How many energies the budget is good for, as far as the speed until now tells."""
        settings = self.settings
        expected = settings.max_energies or math.inf
        if settings.time_budget:
            speed = self._spent / self.seconds if self._knows_speed else FIRST_GUESS_OF_SPEED
            expected = min(expected, speed * settings.time_budget)
        return expected

    @property
    def _knows_speed(self) -> bool:
        return self.step >= STEPS_TO_TELL_SPEED

    @property
    def _round_of_exchange(self) -> float:
        """Energies of a round of replica exchange; 0 where the budget is too small for enough of them."""
        in_all = self.settings.exchange_share * self._expected_energies if self.challengers else 0.0
        return max(LEAST_ROUND, in_all / MOST_ROUNDS) if in_all >= FEWEST_ROUNDS * LEAST_ROUND else 0.0

    @property
    def _expected_draws(self) -> float:
        """How many draws the budget is good for, replica exchange aside."""
        share = self.settings.exchange_share if self._round_of_exchange else 0.0
        return (1.0 - share) * self._expected_energies

    def counts(self) -> dict[str, int]:
        """What was spent and what went wrong; every energy of training comes with its forces."""
        return {
            "n_energy_evaluations": self.energies,
            "n_force_evaluations": self.forces,
            "n_exchange_energies": self.challengers.energies if self.challengers else 0,
            "replayed": self.replayed,
            "frames": self.frames,
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
        workers = GradientWorkers(self.generator, self.target, self.threads, self.method, self.sources)
        last_checkpoint = time.monotonic()
        with workers.active():
            while not self.finished:
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
        started = time.perf_counter()
        self._challenge()
        exchanged = time.perf_counter() - started
        self.seconds_exchange += exchanged
        progress = self.progress
        rate = self.schedule.rate(progress, self.step)
        batch = self.schedule.batch(progress, self._expected_draws)
        if self.settings.max_energies:
            batch = min(batch, self.settings.max_energies - self._spent)
        seed = (self.settings.seed, self.step)
        if self._steps_at_level % POOL_REFRESH == 0:
            self._refresh()
        challengers = self.challengers if self.challengers and self.challengers.n_structures else None
        waited = -time.perf_counter()
        step = workers.step(StepPlan(batch, self._heat(self.cooling.level), self._hot, self._pools, seed, challengers))
        waited += time.perf_counter()
        self._count(step, batch)
        for parameter, gradient in zip(self.generator.parameters(), step.gradients, strict=True):
            parameter.grad = gradient
        norm = torch.nn.utils.clip_grad_norm_(self.generator.parameters(), GRADIENT_CLIP, foreach=True)
        if bool(torch.isfinite(norm)):
            self.optimizer.step(rate)
            self._skipped_in_a_row = 0
            self._update_average()
        else:
            self._count_skipped(step.scored)
        self.step += 1
        held_out = self._judge_by_held_out()
        self.seconds_other += time.perf_counter() - started - waited - exchanged
        self._record(step, batch, rate, held_out)
        self._steps_at_level += 1
        if self.cooling.update(self.progress, self.history[-1]["elbo_gap"]):
            self._steps_at_level = 0
        self._stop_if_enough()

    def _stop_if_enough(self) -> None:
        """Use no more of the budget than what a last phase of small steps takes, where more would not pay.

        That is where draws at the target's temperature are worth ``ENOUGH`` of as many independent samples, on average
        over some steps, and the flow is thin at no more than the rest of what replica exchange has found.
        """
        if self._steps_at_level < STEPS_TO_JUDGE or not self.cooling.finished or self.progress >= LAST_PHASE:
            return
        if self.challengers and self.challengers.rounds and not self.challengers.thin <= 1.0 - ENOUGH:
            return  # what the flow never draws it does not miss; NaN as long as there are no structures
        recent = [row["target_ess_fraction"] for row in self.history[-STEPS_TO_JUDGE:]]
        if min(recent) >= 0.9 * ENOUGH and math.fsum(recent) >= ENOUGH * len(recent):
            self.needed = self._used / LAST_PHASE

    def _challenge(self) -> None:
        """Let replica exchange go on when its share of the energies is due, and judge its structures now and then."""
        challengers, share = self.challengers, self.settings.exchange_share
        if challengers is None:
            return
        length = self._round_of_exchange
        is_due = challengers.energies < share * self.energies and self.progress < LAST_ROUND
        is_known = self._knows_speed or not self.settings.time_budget  # a round by a guess may take half of the time
        has_gone_on = is_due and is_known and length > 0.0
        if has_gone_on:
            before = challengers.energies
            burnt_in = before > BURN_IN * share * self._expected_energies
            challengers.go_on(length, keep=burnt_in)
            self.energies += challengers.energies - before
            self.forces += challengers.energies - before
        is_time = has_gone_on or self.step % JUDGE_EVERY == 0
        # Before the first refresh the pools are those of the temperature before.
        if is_time and self.cooling.finished and self._pools and self._steps_at_level > POOL_REFRESH:
            challengers.judge(self.average, self._pools[0].log_z)

    def _heat(self, level: int) -> float:
        """ln T/T₀ of a level, as draws in single precision have it."""
        return torch.tensor(self.cooling.heat(level), dtype=torch.float32).item()

    def _refresh(self) -> None:
        """Choose another temperature that has been passed, and gather what is remembered of it and of the current.

        The pools stay until there are draws at a new temperature: the torsions change little.
        """
        if self.method.hot_share and self.cooling.level:
            rng = np.random.default_rng((self.settings.seed, self.step))
            self._hot = self._heat(int(rng.integers(self.cooling.level)))
        if self.method.replay and self._steps_at_level:
            heats = [self._heat(self.cooling.level)] + ([] if self._hot is None else [self._hot])
            self._pools = tuple(pool for pool in map(self.replay.pool, heats) if pool)

    def _count(self, step: StepGradient, batch: int) -> None:
        n = batch if self.method.own else 0
        self.energies += n
        self.forces += n  # the stiff coordinates always have a gradient through the energy
        self.failed_energies += step.n_failed
        self.replayed += batch if self._pools else 0
        self.frames += batch if self.method.data else 0
        self.seconds_energy += step.seconds_energy
        self.seconds_flow += step.seconds_flow
        if self.method.replay:
            for scored in step.scored:
                self.replay.add(scored)

    def _judge_by_held_out(self) -> float:
        """−E ln q(x) of held-out frames now and then, else NaN; remembers the best weights if data are all there is."""
        if self.sources.data is None or (self.progress < min(1.0, self._judged_at + HELD_OUT_EVERY)):
            return math.nan
        self._judged_at = self.progress
        loss = held_out_loss(self.average, self.sources.data.held_out)
        better = math.isfinite(loss) and (self.best is None or loss < self.best.loss)
        if self.method.learns_from_data_alone and better:
            weights = {name: value.clone() for name, value in self.average.state_dict().items()}
            self.best = Best(loss, self.progress, weights)
        return loss

    def _count_skipped(self, scored: list[Scored]) -> None:
        self.skipped_steps += 1
        self._skipped_in_a_row += 1
        if self._skipped_in_a_row >= MAX_SKIPPED_IN_A_ROW and self.best is None:
            draws = [{**vars(part.slow), "stiff": part.stiff, "log_weight": part.log_weight} for part in scored]
            columns = {name: torch.cat([part[name] for part in draws]) for name in (draws[0] if draws else ())}
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

    def _record(self, step: StepGradient, batch: int, rate: float, held_out: float) -> None:
        losses = {f"loss_{name}": value for name, value in step.losses.items()}
        pool = self._pools[0] if self._pools else None
        row = {
            **dict.fromkeys(COLUMNS, math.nan),
            **{name: float(getattr(self, name)) for name in COUNTERS},
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
        progress = self.progress
        left = self.seconds * (1.0 - progress) / progress if progress > 0.02 else None
        return Progress("train", progress, left, shown_figures(self.history[-1]))

    def state(self) -> dict[str, Any]:
        """Everything that makes a resumed training the same training, as nested arrays."""
        return {
            "generator": to_arrays(self.generator.state_dict()),
            "average": to_arrays(self.average.state_dict()),
            "optimizer": self.optimizer.to_tree(),
            "counters": {name: getattr(self, name) for name in COUNTERS},
            "best": self.best and self.best.to_tree(),
            "cooling_level": self.cooling.level,
            "steps_at_level": self._steps_at_level,
            "skipped_in_a_row": self._skipped_in_a_row,
            "judged_at": self._judged_at,
            "needed": self.needed,
            "replay": self.replay.to_tree(),
            "pools": {str(k): pool.to_tree() for k, pool in enumerate(self._pools)},
            "hot": self._hot,
            "challengers": self.challengers and self.challengers.to_tree(),
            "history": history_columns(self.history),
        }

    def load_state(self, tree: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state` returned."""
        self.generator.load_state_dict(to_tensors(tree["generator"]))
        self.average.load_state_dict(to_tensors(tree["average"]))
        self.optimizer.load_tree(tree["optimizer"])
        for name, value in tree["counters"].items():
            setattr(self, name, value)
        self.cooling.level = int(tree["cooling_level"])
        self._steps_at_level = int(tree["steps_at_level"])
        self._skipped_in_a_row = int(tree["skipped_in_a_row"])
        self._judged_at = float(tree["judged_at"])
        self.needed = float(tree["needed"])
        device = next(self.generator.parameters()).device
        self.replay.load_tree(tree["replay"], device)
        self._pools = tuple(Pool.from_tree(tree["pools"][key], device) for key in sorted(tree["pools"]))
        self._hot = tree["hot"]
        if self.challengers:
            self.challengers.load_tree(tree["challengers"])
        if tree["best"] is not None:
            self.best = Best.from_tree(tree["best"], device)
        self.history = history_rows(tree["history"])
