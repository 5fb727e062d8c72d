"""What a failed check does to the verdict."""

from __future__ import annotations

import pytest
from test_verdict import AGREES, SOUND

from boltzgen.statistics.check import Check
from boltzgen.statistics.verdict import judge


def check(value, *, is_fatal=True):
    return Check.judged("of something", value, 1.0, "it was seen", "Do that.", is_fatal=is_fatal)


@pytest.mark.parametrize("reference", [None, AGREES])
def test_a_failed_check_of_what_must_hold_fails_the_ensemble_with_words_and_advice(reference):
    verdict = judge(SOUND, reference, [check(0.5), check(2.0)])
    assert verdict.word == "FAILED"
    assert verdict.reasons == ("Check of something: it was seen. Do that.",)


def test_a_check_of_completeness_keeps_an_ensemble_from_ok_and_is_told():
    verdict = judge(SOUND, AGREES, [check(2.0, is_fatal=False)])
    assert verdict.word == "UNVERIFIED"
    assert "Do that." in verdict.reasons[0]
    assert "Do that." in judge(SOUND, None, [check(2.0, is_fatal=False)]).reasons[0]


def test_what_was_passed_or_not_determined_says_nothing():
    assert judge(SOUND, AGREES, [check(1.0), Check.undetermined("other", "no samples")]).word == "OK"
    assert check(1.0).advice == ""


def test_a_value_that_is_no_number_does_not_pass():
    assert check(float("nan")).passed is False
