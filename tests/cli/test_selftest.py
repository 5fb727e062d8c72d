"""The command selftest: one object, a verdict, exit 7 if an answer is wrong."""

from __future__ import annotations

import json
import sys
from functools import partial

import pytest

from boltzgen.cli import app
from boltzgen.selftest import catalog, springs


@pytest.fixture
def one_case(monkeypatch):
    monkeypatch.setattr(catalog, "QUICK", (partial(springs.diatomic, 5000),))


def run(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["boltzgen", "selftest", "--quick", "--threads", "1", *arguments])
    with pytest.raises(SystemExit) as ended:
        app.main()
    return ended.value.code, capsys.readouterr()


def test_right_answers_exit_0_with_one_object(one_case, monkeypatch, capsys):
    code, printed = run(monkeypatch, capsys, "--json", "--seed", "1")
    record = json.loads(printed.out)
    assert code == 0
    assert record["verdict"] == "OK"
    assert record["run"] is None
    assert record["seed"] == 1
    assert record["n_checks"] == len(record["cases"]["diatomic"]["checks"])
    assert "all" in printed.err


def test_a_wrong_answer_exits_7_and_is_named(monkeypatch, capsys):
    right = springs.diatomic(5000)
    wrong = type(right)(**{**vars(right), "log_z": right.log_z + 0.1})
    monkeypatch.setattr(catalog, "QUICK", (partial(lambda: wrong),))
    code, printed = run(monkeypatch, capsys)
    assert code == 7
    assert "failed: diatomic, ln Z" in printed.out
