"""The verdict: what fails an ensemble, and that weights alone never pass one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from boltzgen.statistics.verdict import ProbeCheck, ReferenceCheck, judge
from boltzgen.statistics.weights import WeightSummary

SOUND = WeightSummary(
    n_samples=50_000,
    n_failed=49,
    ess=200.0,
    ess_fraction=0.004,
    khat=0.69,
    log_z=1.0,
    log_z_stderr=0.07,
    largest_share=0.01,
    ess_without_largest={1: 210.0},
    clipped_ess=220.0,
)


AGREES = ReferenceCheck()


def test_sound_weights_alone_are_unverified_and_pass_only_with_a_reference_that_agrees():
    unverified = judge(SOUND, None)
    assert unverified.word == "UNVERIFIED"
    assert "never visits" in " ".join(unverified.reasons)
    assert judge(SOUND, AGREES).word == "OK"
    assert judge(SOUND, AGREES).reasons == ()


@pytest.mark.parametrize("finding", [{"lost": ("a:ap",)}, {"off": ("a:ap",)}])
def test_what_a_converged_reference_contradicts_fails_and_is_named(finding):
    verdict = judge(SOUND, ReferenceCheck(**finding))
    assert verdict.word == "FAILED"
    assert "a:ap" in verdict.reasons[0]


@pytest.mark.parametrize("finding", [{}, {"lost": ("a:ap",)}, {"off": ("a:ap",)}])
def test_an_unconverged_reference_neither_passes_nor_fails_but_tells(finding):
    verdict = judge(SOUND, ReferenceCheck(unconverged=("ladders disagree.",), **finding))
    assert verdict.word == "UNVERIFIED"
    assert "ladders disagree." in verdict.reasons[0]
    assert ("a:ap" in " ".join(verdict.reasons)) == bool(finding)


@pytest.mark.parametrize("reference", [None, AGREES])
@pytest.mark.parametrize(
    ("change", "word_in_reason"),
    [
        ({"ess": 199.9}, "effective sample size"),
        ({"khat": 0.7}, "k-hat"),
        ({"khat": float("inf")}, "k-hat"),
        ({"khat": float("nan")}, "k-hat"),
        ({"n_failed": 50}, "no finite energy"),
    ],
)
def test_each_gate_fails_the_ensemble_at_its_threshold(change, word_in_reason, reference):
    verdict = judge(replace(SOUND, **change), reference)
    assert verdict.word == "FAILED"
    assert len(verdict.reasons) == 1
    assert word_in_reason in verdict.reasons[0]


def test_all_failures_are_told_at_once():
    assert len(judge(replace(SOUND, ess=3.0, khat=1.2, n_failed=50_000), None).reasons) == 3


def test_a_probe_that_found_nothing_passes_and_what_it_found_lost_fails_with_what_to_do_next():
    assert judge(SOUND, None, probe=ProbeCheck()).word == "OK"
    failed = judge(SOUND, None, probe=ProbeCheck(lost=("a:ap",)))
    assert failed.word == "FAILED"
    assert "a:ap" in failed.reasons[0]
    assert "--seed-basins" in failed.reasons[0]


@pytest.mark.parametrize("finding", [{"suspected": ("a:ap",)}, {"scarce": ("a:ap",)}, {"unexplained": ("a:ap.",)}])
def test_a_doubt_of_the_probe_leaves_the_ensemble_unverified_also_beside_a_reference(finding):
    for reference in (None, AGREES):
        verdict = judge(SOUND, reference, probe=ProbeCheck(**finding))
        assert verdict.word == "UNVERIFIED"
        assert "a:ap" in verdict.reasons[0]
        assert "Train" in verdict.reasons[0]
