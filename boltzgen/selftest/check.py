"""A case through training, samples and weights, held against what is known of it."""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from boltzgen.coordinates.protocol import Coordinates
from boltzgen.coordinates.quality import autograd_log_det, base_samples
from boltzgen.errors import Interrupted
from boltzgen.flow.architecture import Architecture
from boltzgen.flow.generator import Generator
from boltzgen.progress import Progress
from boltzgen.sampling.draw import BoltzmannGenerator, Samples
from boltzgen.selftest.case import Array, Case
from boltzgen.statistics.free_energy import weighted_probability
from boltzgen.statistics.weights import (
    errors_are_determined,
    log_weights_at,
    normalized_weights,
    summarize_weights,
)
from boltzgen.target import AnyTarget, Target
from boltzgen.training.trainer import Trainer, TrainSettings

MAX_Z = 4.0
"""Standard errors; of right answers one in 16,000 is further off."""

MAX_LOG_Z_ERROR = 0.05

SAME_LOG_PROB = 1e-6
"""Largest |Δ ln q| of samples as they were drawn and as they are found by their positions. Measured: 1e-9 and less."""

SAME_ENERGY = 1e-7
"""Largest |Δu|/(1 + |u|) of the energy with samples and of the one that is written down a second time."""

SAME_FORMULA = 1e-9
"""Largest |ln w + u + ln q|/(1 + |u|)."""

SAME_VOLUME = 1e-7
"""Largest deviation of ln |det| of the coordinates from the derivatives of the map. Measured: 1e-10 and less."""

N_VOLUMES = 3

SOME = 500
"""Samples that are looked at one by one."""

HOT_SHARE = 0.2
"""Share of the samples that are drawn a little hotter, as ``boltzgen sample`` does."""

BATCHES = ((0.0, 256), (0.9, 1024))
"""(progress from which, batch size): trainings are short, and need many small steps more than little noise."""


@dataclass(frozen=True)
class Row:
    """One comparison: of what is sampled, ``z`` standard errors off, or None where no error bar is determined.

    Where rounding alone makes a difference, ``value`` is that difference, and to be below ``limit``; an effective share
    is to be above ``least``. ``error`` says why a case has ended without any: what was raised, and where.
    """

    case: str
    name: str
    value: float
    exact: float
    stderr: float | None
    z: float | None
    is_met: bool
    limit: float | None = None
    least: float | None = None
    error: str | None = None


@dataclass(frozen=True)
class CaseResult:
    """All comparisons of a case, ESS as a share of the samples, and seconds."""

    rows: tuple[Row, ...]
    ess_fraction: float
    khat: float
    seconds: float


def attempt_case(
    name: str, make: Callable[[], Case], n: int, seed: int, threads: int, report: Callable[[Progress], None]
) -> CaseResult:
    """Make a case and run it; an error in either is a failed check of it, and no end of the others."""
    started = time.monotonic()
    try:
        return run_case(make(), n, seed, threads, report)
    except Interrupted:
        raise
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        why = f"{type(error).__name__}: {error} ({last.filename}:{last.lineno})"
        row = Row(name, "ends without an error", math.nan, math.nan, None, None, False, error=why)
        return CaseResult((row,), 0.0, math.inf, time.monotonic() - started)


def run_case(case: Case, n: int, seed: int, threads: int, report: Callable[[Progress], None]) -> CaseResult:
    """Train on a case, draw ``n`` samples, and compare."""
    started = time.monotonic()
    generator = learn(case, seed, threads, report)
    samples = generator.sample(n, seed=[seed, 1])
    weights = summarize_weights(samples.log_weight)
    has_learnt = weights.ess_fraction > case.least_ess
    learnt = Row(case.name, "effective share", weights.ess_fraction, 1.0, None, None, has_learnt, least=case.least_ess)
    rows = (*compare(case, generator, samples), *_estimators(case, generator.flow, seed), learnt)
    return CaseResult(rows, weights.ess_fraction, weights.khat, time.monotonic() - started)


def learn(case: Case, seed: int, threads: int, report: Callable[[Progress], None]) -> BoltzmannGenerator:
    """Train on a case; draws are at its temperature and, for :data:`HOT_SHARE`, a little hotter."""
    target = case.target
    settings = TrainSettings(
        max_energies=case.energies, start_temperature=case.start * target.temperature, seed=seed, exchange_share=0.0
    )
    trainer = Trainer(
        target, Architecture.of(target.coordinates, relaxes=True, **case.sizes), settings, threads=threads
    )
    trainer.schedule = replace(trainer.schedule, batches=BATCHES)
    trainer.run(report, lambda: True, lambda: None)
    hot = target.temperature * math.exp(math.sqrt(0.8 / (target.coordinates.n_torsions + target.coordinates.n_stiff)))
    shares = {target.temperature: 1.0 - HOT_SHARE, min(hot, trainer.hottest): HOT_SHARE}
    return BoltzmannGenerator(target, trainer.result, temperatures=shares)


def compare(case: Case, generator: BoltzmannGenerator, samples: Samples) -> list[Row]:
    """Samples against what is known."""
    rows = estimates(case, samples)
    again = np.logaddexp.reduce(samples.log_weight) - math.log(len(samples.log_weight))
    rows.append(_same(case.name, "ln Z = ln mean w", np.asarray([rows[0].value - again]), SAME_FORMULA))
    x, log_weight = samples.positions.astype(np.float64), samples.log_weight
    finite = np.isfinite(log_weight)
    u, log_prob = samples.reduced_potential[finite], samples.log_prob[finite]
    formula = (log_weight[finite] + u + log_prob) / (1.0 + np.abs(u))
    rows.append(_same(case.name, "ln w = −u − ln q", formula, SAME_FORMULA))
    some = np.flatnonzero(finite)[:SOME]
    u = case.energy(x[some])
    rows.append(_same(case.name, "u again", (u - samples.reduced_potential[some]) / (1.0 + np.abs(u)), SAME_ENERGY))
    rows.append(_same(case.name, "ln q again", generator.log_prob(x[some]) - samples.log_prob[some], SAME_LOG_PROB))
    rows.append(_same(case.name, "ln |det| by autograd", _volume_errors(case.target), SAME_VOLUME))
    return rows


def estimates(case: Case, samples: Samples) -> list[Row]:
    """ln Z, first, and all else that has an error bar."""
    rows = [_log_z(case.name, "ln Z", samples.log_weight, case.log_z)]
    for temperature, exact in case.other_temperatures.items():
        other = log_weights_at(samples.reduced_potential, samples.log_prob, case.target.temperature, temperature)
        rows.append(_log_z(case.name, f"ln Z at {temperature:g} K", other, exact))
    x, log_weight = samples.positions.astype(np.float64), samples.log_weight
    if case.mean_u is not None:
        rows.append(_mean(case.name, "<u>", samples.reduced_potential, case.mean_u, log_weight))
    return rows + [_mean(case.name, mean.name, mean.of(x), mean.exact, log_weight) for mean in case.means]


def _estimators(case: Case, flow: Generator, seed: int) -> list[Row]:
    """ln Z and ⟨u⟩ of redraws and of annealed draws."""
    rows = []
    for inner, refine, n in case.estimators:
        samples = BoltzmannGenerator(case.target, flow).sample(
            n, inner=inner, refine=refine, seed=[seed, inner, refine]
        )
        name = f"{inner} redraws" if refine == 0 else f"{refine} bridges"
        rows.append(_log_z(case.name, f"ln Z, {name}", samples.log_weight, case.log_z))
        if case.mean_u is not None:
            mean = _mean(case.name, f"<u>, {name}", samples.reduced_potential, case.mean_u, samples.log_weight)
            rows.append(mean)
    return rows


def _volume_errors(target: AnyTarget) -> Array:
    """ln |det| of a few base points less what the derivatives of positions by latents give, ``(n,)``."""
    coordinates = target.coordinates
    label, torsions, stiff = base_samples(coordinates, N_VOLUMES, 0)
    _, log_det = coordinates.to_cartesian(label, torsions, stiff)
    errors = []
    for k in range(N_VOLUMES):
        latent = label[[k]], torsions[[k]], stiff[[k]]
        if isinstance(target, Target):
            expected = autograd_log_det(target.coordinates, *latent)
        else:
            expected = square_log_det(coordinates, *latent)
        errors.append(log_det[k].item() - expected)
    return np.asarray(errors)


def square_log_det(coordinates: Coordinates, label: Tensor, torsions: Tensor, stiff: Tensor) -> float:
    """ln |det ∂x/∂latent| of one sample ``(1, ·)`` of a model, which has as many components as latents."""

    def flat(latent: Tensor) -> Tensor:
        split = latent[None].split([coordinates.n_torsions, coordinates.n_stiff], dim=1)
        return coordinates.to_cartesian(label, *split)[0].flatten()

    jacobian = torch.autograd.functional.jacobian(flat, torch.cat([torsions, stiff], dim=1)[0])
    return torch.linalg.slogdet(jacobian)[1].item()


def _log_z(case: str, name: str, log_weight: Array, exact: float) -> Row:
    weights = summarize_weights(log_weight)
    exact = float(exact)  # plain numbers: rows are printed as JSON
    error, stderr = weights.log_z - exact, weights.log_z_stderr
    z = None if stderr is None else error / max(stderr, 1e-12)
    is_met = z is not None and abs(z) < MAX_Z and abs(error) < MAX_LOG_Z_ERROR
    return Row(case, name, weights.log_z, exact, stderr, z, is_met)


def _mean(case: str, name: str, values: Array, exact: float, log_weight: Array) -> Row:
    """A weighted mean; of what is true or false by the function that populations come from."""
    summary = summarize_weights(log_weight)
    exact = float(exact)
    if values.dtype == bool:
        population = weighted_probability(values, log_weight, np.random.default_rng(0))
        value, stderr = population.value, population.stderr
    else:
        w = normalized_weights(log_weight)
        w, f = w[w > 0.0], values[w > 0.0]  # what has no weight need not be finite
        value = float(w @ f)
        determined = errors_are_determined(summary.ess, summary.khat)
        stderr = float(np.sqrt(np.square(w * (f - value)).sum())) if determined else None
    z = None if stderr is None else (value - exact) / max(stderr, 1e-12)
    return Row(case, name, value, exact, stderr, z, z is not None and abs(z) < MAX_Z)


def _same(case: str, name: str, difference: Array, limit: float) -> Row:
    """The largest of differences that are rounding alone, NaN and infinity included."""
    largest = float(np.abs(difference).max()) if len(difference) else math.inf
    return Row(case, name, largest, 0.0, None, None, largest < limit, limit)
