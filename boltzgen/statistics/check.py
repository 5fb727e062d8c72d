"""One check of an ensemble: a number, its bound, and what it means in words."""

from __future__ import annotations

from dataclasses import dataclass

from scipy.special import ndtri

FALSE_ALARM = 1e-4
"""Chance that a check of an ensemble that is right is failed, all its tests together."""


@dataclass(frozen=True)
class Check:
    """What one check found.

    Attributes
    ----------
    name
        What it is called in every output.
    value
        The number that is judged, most often the worst |z|; None where it could not be determined.
    bound
        What the value must not exceed.
    passed
        Whether it does not; None where there is no value.
    words
        What was found, in one sentence.
    advice
        What to do next, where the check has failed; else empty.
    is_fatal
        Whether an ensemble that fails it is wrong, and not only incomplete.
    """

    name: str
    value: float | None
    bound: float
    passed: bool | None
    words: str
    advice: str = ""
    is_fatal: bool = True

    @classmethod
    def judged(cls, name: str, value: float, bound: float, words: str, advice: str, *, is_fatal: bool = True) -> Check:
        """A check of a value that was determined; a NaN does not pass."""
        passed = bool(value <= bound)
        return cls(name, float(value), float(bound), passed, words, "" if passed else advice, is_fatal)

    @classmethod
    def undetermined(cls, name: str, why: str) -> Check:
        """A check of which nothing can be said."""
        return cls(name, None, 0.0, None, f"not determined: {why}")


def largest_fair_score(n_tests: int, false_alarm: float = FALSE_ALARM) -> float:
    """The |z| that the largest of so many normal deviates exceeds with this chance at most (Bonferroni)."""
    return float(-ndtri(false_alarm / (2.0 * max(n_tests, 1))))
