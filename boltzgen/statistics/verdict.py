"""The verdict on an ensemble: one word, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from boltzgen.statistics.check import Check
from boltzgen.statistics.weights import MAX_KHAT, MIN_ESS, WeightSummary

MAX_FAILED_FRACTION = 1e-3
"""From this share of failed energies on, an ensemble fails."""


@dataclass(frozen=True)
class Verdict:
    """``OK``, ``UNVERIFIED`` or ``FAILED``, with the reasons in plain words; empty for ``OK``."""

    word: Literal["OK", "UNVERIFIED", "FAILED"]
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class ReferenceCheck:
    """What an independent reference said, in plain words; all empty where it found nothing wrong.

    Attributes
    ----------
    unconverged
        Why the reference itself cannot be trusted.
    lost
        States of the reference that the flow hardly ever draws.
    off
        Populations that contradict the reference.
    """

    unconverged: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()
    off: tuple[str, ...] = ()


@dataclass(frozen=True)
class ProbeCheck:
    """What challengers from outside the flow said, in plain words; all empty where they found nothing wrong.

    Attributes
    ----------
    lost
        States that the flow hardly ever draws.
    suspected
        States that it may have lost, of which this could not be settled.
    scarce
        States that it draws far too rarely, if with the right weights.
    unexplained
        What else contradicts the flow.
    """

    lost: tuple[str, ...] = ()
    suspected: tuple[str, ...] = ()
    scarce: tuple[str, ...] = ()
    unexplained: tuple[str, ...] = ()


def judge(
    summary: WeightSummary,
    reference: ReferenceCheck | None,
    checks: Sequence[Check] = (),
    *,
    probe: ProbeCheck | None = None,
) -> Verdict:
    """Judge an ensemble by its weights, by checks of itself, and by evidence from outside the flow, if there is any.

    FAILED: ESS below 200, Pareto k̂ of 0.7 or more, at least 0.1 % failed energies; a fatal check is not passed; the
    coverage probe has found a state that the flow has lost; or a converged reference has one, or contradicts a
    population.
    UNVERIFIED: the weights are in order, but nothing from outside the flow has looked for states that it never visits;
    or what did left a doubt; or another check is not passed. Weights cannot see such states: on sixteen double
    wells, a flow that sat in one well of each had an ESS of 61 % and a k̂ of 0.42, while its log Z was wrong by 2.7.
    OK: all is in order, and the coverage probe or a converged reference agrees.
    """
    reasons = _failures(summary) + _unpassed(checks, fatal=True) + _lost(probe)
    converged = reference is not None and not reference.unconverged
    if reference is not None and converged:
        reasons += _contradictions(reference)
    if reasons:
        return Verdict("FAILED", reasons)
    doubts = _unpassed(checks, fatal=False)
    if probe is not None:
        doubts += _doubts(probe)
    elif reference is None:
        doubts += (
            "The weights look sound, but weights alone cannot see a state which the flow never visits, "
            "and no coverage check has been made. Make one: `boltzgen analyze RUN` without --no-probe; or compare with "
            "a replica-exchange run: `boltzgen md RUN`, then `boltzgen analyze RUN --reference RUN/md.h5`.",
        )
    if reference is not None and not converged:
        doubts = _unconverged(reference) + doubts
    return Verdict("UNVERIFIED", doubts) if doubts else Verdict("OK", ())


def _unpassed(checks: Sequence[Check], *, fatal: bool) -> tuple[str, ...]:
    """What checks found that were not passed; one that could not be determined says nothing."""
    return tuple(
        f"Check {check.name}: {check.words}. {check.advice}"
        for check in checks
        if check.passed is False and check.is_fatal == fatal
    )


def _lost(probe: ProbeCheck | None) -> tuple[str, ...]:
    if probe is None or not probe.lost:
        return ()
    return (
        f"The coverage probe found what the flow hardly ever draws: {_listed(probe.lost)}. Train on from the "
        "structures found: `boltzgen train RUN --resume --seed-basins`; or train longer, or hotter: "
        "--set train.start_temperature=1000.",
    )


def _doubts(probe: ProbeCheck) -> tuple[str, ...]:
    doubts = []
    if probe.suspected:
        doubts.append(
            f"The flow may have lost {_listed(probe.suspected)}: its challengers have large weights, and what it "
            "weighs could not be determined. Train on from the structures found: `boltzgen train RUN --resume "
            "--seed-basins`; or settle it by a longer simulation: `boltzgen md RUN`, then `boltzgen analyze RUN "
            "--reference RUN/md.h5`."
        )
    if probe.scarce:
        doubts.append(
            f"The flow draws far too rarely {_listed(probe.scarce)}: the weights make up for it, but few draws stand "
            "behind it, and what lies beside it may be missing. Train on from the structures found: `boltzgen train "
            "RUN --resume --seed-basins`; or train longer."
        )
    doubts += [f"{one} Train longer, or hotter: --set train.start_temperature=1000." for one in probe.unexplained]
    return tuple(doubts)


def _unconverged(reference: ReferenceCheck) -> tuple[str, ...]:
    suspected = _contradictions(reference)
    more = ("What it says against the flow may be true all the same:", *suspected) if suspected else ()
    why = " ".join(reference.unconverged)
    return (f"The weights look sound, but the reference has not converged: {why} Simulate it for longer.", *more)


def _contradictions(reference: ReferenceCheck) -> tuple[str, ...]:
    reasons = []
    if reference.lost:
        reasons.append(
            f"The flow hardly ever draws {_listed(reference.lost)}. Train longer, or with frames of the reference: "
            "train --data."
        )
    if reference.off:
        reasons.append(f"The reference contradicts the population of {_listed(reference.off)}. Train longer.")
    return tuple(reasons)


def _listed(items: tuple[str, ...], most: int = 3) -> str:
    more = f"; and {len(items) - most} more" if len(items) > most else ""
    return "; ".join(items[:most]) + more


def _failures(summary: WeightSummary) -> tuple[str, ...]:
    reasons = []
    if summary.ess < MIN_ESS:
        reasons.append(
            f"The effective sample size is {summary.ess:.1f} of {summary.n_samples}, below {MIN_ESS:.0f}: "
            "too few for an error bar. Draw more samples, or train longer."
        )
    if not summary.khat < MAX_KHAT:
        reasons.append(
            f"Pareto k-hat is {summary.khat:.2f}, not below {MAX_KHAT}: a few large weights rule "
            "the averages, and larger ones are likely still missing. Train longer; "
            "more samples alone seldom help."
        )
    if summary.n_failed >= MAX_FAILED_FRACTION * summary.n_samples:
        reasons.append(
            f"{summary.n_failed} of {summary.n_samples} samples have no finite energy, which is "
            f"{MAX_FAILED_FRACTION:.1%} or more. Train longer; if they stay, check the force field and the "
            "input structure."
        )
    return tuple(reasons)
