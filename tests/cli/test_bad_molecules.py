"""Bad input as a shell meets it: the exit code, one line on stderr, nothing written. The long table is in
``tests/chemistry/test_bad_inputs.py``; these rows go through the whole program.
"""

from __future__ import annotations

import gzip
import subprocess
import sys
from pathlib import Path

import pytest

ALANINE = (Path(__file__).parents[2] / "molecules" / "alanine_dipeptide.pdb").read_text()
SHRUNK = "\n".join(
    line[:30] + "".join(f"{0.75 * float(line[k : k + 8]):8.3f}" for k in (30, 38, 46)) + line[54:]
    if line.startswith(("ATOM", "HETATM"))
    else line
    for line in ALANINE.splitlines()
)

ROWS = {
    "not_a_molecule": ("mol.pdb", "Dear Sir,\nyours\n", [], 2, "of no other known kind"),
    "two_molecules": ("mol.smi", "CCO\nCCN\n", [], 2, "a second molecule"),
    "undefined_stereo": ("mol.smi", "CC(O)F\n", [], 2, "undefined stereocentre C2"),
    "salt_in_gzip": ("mol.sdf.gz", gzip.compress(b"[Na+].[Cl-]\n"), [], 3, "--largest-fragment"),
    "strained": ("mol.pdb", SHRUNK, [], 2, "kJ/mol above the minimum next to it"),
    "peptide_force_field": ("mol.smi", "CCCC\n", ["--ff", "ff14SB"], 3, "no residue templates"),
    "no_toolkit": ("mol.smi", "CCCC\n", ["--ff", "openff-0.0.0"], (2, 5), "openff"),
    "python_force": ("mol.smi", "O\n", ["--system", "evil.xml"], 3, "a program, which is never run"),
}


@pytest.mark.parametrize("case", ROWS)
def test_bad_input_is_one_line_and_leaves_nothing_behind(case: str, tmp_path: Path) -> None:
    name, content, flags, code, message = ROWS[case]
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    (tmp_path / "evil.xml").write_text('<System type="System"><Forces><Force type="PythonForce"/></Forces></System>')
    command = [sys.executable, "-m", "boltzgen", "prepare", name, "-q", *flags]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode in (code if isinstance(code, tuple) else (code,)), result.stderr
    assert result.stdout == ""
    (error,) = [line for line in result.stderr.splitlines() if not line.startswith("warning:")]
    assert error.startswith("error: ")
    assert message in error
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "mol.run").exists()
