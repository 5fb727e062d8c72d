"""The verdict on an ensemble: one word, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from boltzgen.statistics.weights import MAX_KHAT, MIN_ESS, WeightSummary

MAX_FAILED_FRACTION = 1e-3
"""From this share of failed energies on, an ensemble fails."""


@dataclass(frozen=True)
class Verdict:
    """``OK``, ``UNVERIFIED`` or ``FAILED``, with the reasons in plain words; empty for ``OK``."""

    word: Literal["OK", "UNVERIFIED", "FAILED"]
    reasons: tuple[str, ...]


def judge(summary: WeightSummary, coverage_checked: bool) -> Verdict:
    """Judge an ensemble by its weights and by whether its coverage was checked.

    FAILED: ESS below 200, Pareto k̂ of 0.7 or more, or at least 0.1 % failed energies.
    UNVERIFIED: the weights are in order, but nothing has looked for states that the flow never visits.
    Weights cannot: on sixteen double wells, a flow that sat in one well of each had an ESS of 61 % and a k̂ of
    0.42, while its log Z was wrong by 2.7. OK: the weights are in order and coverage was checked.
    """
    reasons = _failures(summary)
    if reasons:
        return Verdict("FAILED", reasons)
    if not coverage_checked:
        return Verdict(
            "UNVERIFIED",
            (
                "The weights look sound, but weights alone cannot see a state which the flow never visits, "
                "and no coverage check has been made. Compare the populations with a second training under "
                "another seed, or with a replica-exchange run.",
            ),
        )
    return Verdict("OK", ())


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
