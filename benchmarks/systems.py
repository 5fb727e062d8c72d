"""The systems of the table of trainings, prepared as a user would."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import openmm
from openmm import app
from panel import MOLECULES, read_panel

PANEL = (
    *("ace_pro_nme", "ace_phe_nme", "cyclohexane", "tetrahydrofuran", "camphor"),
    *("beta_D_glucopyranose", "aspirin", "ibuprofen", "zidovudine", "penicillin_G"),
)
"""Rings and side chains, from the files of molecules."""

PUBLISHED_PEPTIDES = {"ala3": 3, "ala5": 5}
"""Ace-Ala_n-Nme in AMBER99SB-ILDN with ``amber99_obc.xml``, as others publish it."""

SYSTEMS = ("ala_ff96", "ala", *PUBLISHED_PEPTIDES, *PANEL, "big")


def prepare_system(name: str, folder: Path) -> None:
    """Make ``folder/name.run``; CalledProcessError if ``boltzgen prepare`` fails."""
    run, dipeptide = folder / f"{name}.run", str(MOLECULES / "alanine_dipeptide.pdb")
    if name == "ala_ff96":
        _prepare(run, dipeptide, "--ff", "ff96", "--solvent", "obc1")
    elif name == "ala":
        _prepare(run, dipeptide)
    elif name in PUBLISHED_PEPTIDES:
        _published_peptide(run, PUBLISHED_PEPTIDES[name])
    elif name == "big":
        _prepare(run, "--smiles", _polyalanine(9))  # 102 atoms
    else:
        panel = read_panel(MOLECULES / "amino_acids.smi") | read_panel(MOLECULES / "panel.smi")
        _prepare(run, "--smiles", panel[name])


def _published_peptide(run: Path, n: int) -> None:
    """In the force field of the papers, without constraints; its atoms are named by a first preparation."""
    first, xml = run.with_suffix(".names.run"), run.with_suffix(".xml")
    _prepare(first, "--smiles", _polyalanine(n), "--ff", "ff99SB-ILDN", "--solvent", "obc2")
    topology = app.PDBFile(str(first / "system.pdb")).topology
    field = app.ForceField("amber99sbildn.xml", "amber99_obc.xml")
    system = field.createSystem(topology, nonbondedMethod=app.NoCutoff, constraints=None)
    xml.write_text(openmm.XmlSerializer.serialize(system))
    _prepare(run, str(first / "system.pdb"), "--system", str(xml))


def _polyalanine(n: int) -> str:
    return "CC(=O)" + "N[C@@H](C)C(=O)" * n + "NC"


def _prepare(run: Path, *arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "boltzgen", "prepare", *arguments, "-o", str(run)], check=True)
