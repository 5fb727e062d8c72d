"""The command md as a shell runs it, on four atoms."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import pytest
from shell_command import shell

SHORT = ("--set", "md.ladders=4", "--set", "md.rungs=3", "--set", "md.steps=10", "--max-energies", 60_000)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a simulation of hydrogen peroxide, which was prepared on the way."""
    folder = tmp_path_factory.mktemp("md")
    arguments = ("md", "--smiles", "OO", "-o", "hooh.run", "--threads", 1, "--json", *SHORT)
    done = shell(*arguments, "--set", "prepare.conformers=1", cwd=folder)
    assert done.returncode == 0, done.stderr
    (folder / "md.json").write_text(done.stdout)
    return folder


def test_md_prints_one_json_object_with_the_promised_keys(folder):
    answer = json.loads((folder / "md.json").read_text())
    assert {
        *("n_frames", "n_ladders", "temperatures", "nanoseconds", "n_energy_evaluations", "seconds", "acceptance"),
        *("round_trips", "n_failed", "populations", "effective_samples", "effective_samples_per_second", "files"),
        *("burn_in_ps", "converged", "reasons", "seed", "temperature"),
    } <= set(answer)
    assert answer["files"] == ["hooh.run/md.h5"]
    assert answer["n_energy_evaluations"] <= 60_000


def test_an_interrupt_leaves_nothing_behind(folder):
    def contents():
        return {path.name: path.read_bytes() for path in (folder / "hooh.run").iterdir() if path.name != ".lock"}

    before = contents()
    process = subprocess.Popen(
        [sys.executable, "-m", "boltzgen", "md", "hooh.run", "--force", "--threads", "2", "--time-budget", "1h"],
        cwd=folder,
        stderr=subprocess.PIPE,
        text=True,
    )
    for line in process.stderr:
        if "energies" in line:
            break
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.splitlines()[-1] == "error: interrupted."
    assert contents() == before
