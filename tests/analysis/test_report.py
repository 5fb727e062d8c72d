"""The report: nothing from a file becomes markup, and tables say what they hold."""

from __future__ import annotations

import csv
import io
import re

import numpy as np

from boltzgen.analysis.report import html_report, profile_csv, representatives, surface_csv
from boltzgen.statistics.free_energy import Estimate, Profile
from boltzgen.statistics.verdict import Verdict

EVIL = "<script>alert('\"x\"')</script>&"


def test_every_text_of_the_report_is_escaped():
    page = html_report(
        EVIL,
        {EVIL: EVIL},
        Verdict("FAILED", (EVIL,)),
        {EVIL: Estimate(0.5, None)},
        {EVIL: 'plots/"><script>.png'},
        {EVIL: {EVIL: [EVIL]}},
    )
    assert "<script" not in page
    assert page.count("&lt;script&gt;") >= 9
    assert 'src="plots/%22%3E%3Cscript%3E.png"' in page
    assert re.findall(r"(?:src|href)=\"([^\"]*)", page) == ["plots/%22%3E%3Cscript%3E.png"]


def test_report_tells_verdict_numbers_and_undetermined_errors():
    page = html_report(
        "Alanine dipeptide",
        {"effective samples": 41234, "log Z error": None, "k-hat": 0.123456789},
        Verdict("UNVERIFIED", ("No coverage check has been made.",)),
        {"ALA2:PII": Estimate(0.41234, 0.00321), "ALA2:phi>0": Estimate(0.0, None)},
        {},
        {},
    )
    text = re.sub(r"<[^>]+>", " ", page)
    for piece in (
        "UNVERIFIED",
        "No coverage check",
        "41,234",
        "0.123457",
        "0.4123",
        "0.0032",
        "undetermined",
    ):
        assert piece in text
    assert "Plots" not in text


def test_representatives_are_the_lowest_frames_that_have_weight():
    labels = np.array(["PII", "beta", "PII", "beta", "C7ax", "beta"])
    energies = np.array([3.0, 1.0, 2.0, -5.0, np.inf, 0.5])
    log_w = np.array([0.0, 0.0, 0.0, -np.inf, -np.inf, 0.0])
    assert representatives(labels, log_w, energies) == {"PII": 2, "beta": 5}


def test_surface_table_pairs_angles_with_their_own_values():
    surface = np.array([[0.0, np.inf], [1.5, 2.5]])
    rows = list(csv.DictReader(io.StringIO(surface_csv([-np.pi, 0, np.pi], surface + 1, surface))))
    found = {(float(r["phi_degrees"]), float(r["psi_degrees"])): float(r["reweighted_kT"]) for r in rows}
    assert found == {(-90, -90): 0.0, (-90, 90): np.inf, (90, -90): 1.5, (90, 90): 2.5}
    assert float(rows[2]["raw_kT"]) == 2.5


def test_profile_table_has_nan_for_an_undetermined_band():
    centers, values = np.radians([-90.0, 90.0]), np.array([0.0, 1.25])
    raw = Profile(centers, values + 1, None, None, np.exp(-values))
    with_band = Profile(centers, values, values - 0.5, values + 0.5, np.exp(-values))
    rows = list(csv.DictReader(io.StringIO(profile_csv(raw, with_band))))
    assert [float(v) for v in rows[1].values()] == [90.0, 2.25, 1.25, 0.75, 1.75]
    assert next(csv.DictReader(io.StringIO(profile_csv(raw, raw))))["lower_95_kT"] == "nan"
