"""Prepare every molecule of a panel as a user would, and judge its coordinates: a Markdown table, a line of summary.

    OMP_NUM_THREADS=1 python benchmarks/panel.py -o panel.runs
    OMP_NUM_THREADS=1 python benchmarks/panel.py -o panel.runs --train 12

Each molecule goes through ``boltzgen prepare --smiles … --json`` in a process of its own. What it wrote is judged here
in float64 on samples of the base: stiff coordinates Gaussian, torsions uniform.

round trip
    Largest |x' − x| of latent → x → latent → x', over all atoms and samples.
log-det
    Largest deviation of ln |det ∂x/∂latent| from autograd: the slogdet of the 3N columns ∂x/∂(translation, rotation,
    latent), which is the volume element without the factor 8π²V, whatever frame the coordinates use. A window that
    stands for k equivalent images counts k times.
finite
    Share of the samples whose energy is a number.
excess
    Median of u − ln |det| above the lowest conformer, less the harmonic ½ kT for each stiff coordinate, divided by
    all degrees of freedom; kT. Zero if stiff coordinates were harmonic and torsions free.
states
    Conformers that ETKDG finds in 50 attempts, minimised in MMFF94s and further apart than 0.2 Å (heavy atoms,
    equivalent ones exchanged); and how many of them lie in the support of the coordinates.

The exit code is 1 if a molecule neither prepares nor is refused as unsupported (exit 3), or a figure is out of bounds.
With ``--train N`` the first N of a varied dozen go through ``boltzgen run --preset quick`` instead.
"""

from __future__ import annotations

import argparse
import difflib
import json
import math
import re
import subprocess
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rdkit import Chem
from rdkit.Chem import rdDistGeom, rdForceFieldHelpers, rdMolAlign
from rdkit.rdBase import BlockLogs

from boltzgen.coordinates.molecular import MolecularCoordinates
from boltzgen.molecule import Molecule
from boltzgen.storage.atomic import open_hdf5
from boltzgen.storage.runs import RunDirectory
from boltzgen.storage.tree import get_tree
from boltzgen.target import Target
from boltzgen.workflow.load import load_target

MOLECULES = Path(__file__).parents[1] / "molecules"
ROUND_TRIP_BOUND = 1e-9
"""nm."""
LOG_DET_BOUND = 1e-8

COLUMNS = (
    *("molecule", "atoms", "slow + rotors + stiff", "force field", "s", "parity kJ/mol", "round trip nm", "log-det"),
    *("finite", "excess kT", "states (inside)"),
)

DOZEN = (
    *("ace_ala_nme", "butane", "cyclohexane", "ace_pro_nme", "ace_phe_nme", "aspirin"),
    *("butanenitrile", "glycerol", "ibuprofen", "tetrahydrofuran", "toluene", "camphor"),
)
"""What ``--train`` takes, from all files of molecules."""


@dataclass(frozen=True)
class Figures:
    """What the head of this file defines."""

    round_trip: float
    log_det: float
    finite: float
    excess: float
    states: int
    states_inside: int

    @property
    def in_bounds(self) -> bool:
        return self.round_trip < ROUND_TRIP_BOUND and self.log_det < LOG_DET_BOUND and self.finite == 1.0


def read_panel(path: Path) -> dict[str, str]:
    """SMILES by name."""
    return {name: smiles for smiles, name in map(str.split, path.read_text().splitlines())}


def chosen(panel: dict[str, str], names: list[str]) -> dict[str, str]:
    """The molecules of these names; a KeyError says what a name may stand for."""
    for name in names:
        if name not in panel:
            nearest = difflib.get_close_matches(name, panel, 1, cutoff=0.0)
            raise KeyError(
                f"--only {name}: no such molecule. Did you mean {nearest[0] if nearest else 'another file'}?"
            )
    return {name: panel[name] for name in names}


def command(name: str, smiles: str, folder: Path, limit: float, *arguments: str) -> dict[str, Any]:
    """One command of boltzgen: its JSON object with the exit code and the seconds that a user waits."""
    line = [sys.executable, "-m", "boltzgen", *arguments, "--smiles", smiles, "-o", str(folder / f"{name}.run")]
    start = time.monotonic()
    try:
        done = subprocess.run([*line, "--json"], capture_output=True, text=True, timeout=limit, check=False)
    except subprocess.TimeoutExpired:
        return {"exit_code": None, "error": f"no end after {limit:g} s", "waited": limit}
    try:
        record = json.loads(done.stdout)
    except json.JSONDecodeError:
        record = {"error": (done.stderr.strip().splitlines() or ["no output"])[-1]}
    return {**record, "exit_code": done.returncode, "waited": time.monotonic() - start}


def base_samples(coordinates: MolecularCoordinates, n: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    torsions = torch.rand(n, coordinates.n_torsions, generator=generator, dtype=torch.float64)
    stiff = torch.randn(n, coordinates.n_stiff, generator=generator, dtype=torch.float64)
    return (2.0 * torsions - 1.0) * math.pi, stiff


def log_images(coordinates: MolecularCoordinates) -> float:
    """ln of the number of equivalent images that one window stands for."""
    return sum(math.log(len(rotor.atoms)) for rotor in coordinates.zmatrix.rotors)


def autograd_log_det(coordinates: MolecularCoordinates, torsions: torch.Tensor, stiff: torch.Tensor) -> float:
    """ln |det ∂x/∂(translation, rotation, latent)| of one sample, images counted; all 3N rows in one batch."""
    n_rows = 3 * coordinates.zmatrix.n_atoms
    latents = [t.expand(n_rows, -1).clone().requires_grad_() for t in (torsions, stiff)]
    x, _ = coordinates.to_cartesian(*latents)
    used = [t for t in latents if t.shape[1]]  # a rigid molecule has no torsions
    rows = torch.autograd.grad(x.permute(2, 0, 1).reshape(n_rows, n_rows).trace(), used)
    one = x[..., 0].detach()
    turn = torch.stack([torch.linalg.cross(axis.expand_as(one), one) for axis in torch.eye(3, dtype=one.dtype)], -1)
    shift = torch.eye(3, dtype=one.dtype).repeat(len(one), 1)
    jacobian = torch.cat([shift, turn.reshape(n_rows, 3), *rows], dim=1)
    return float(torch.linalg.slogdet(jacobian)[1]) + log_images(coordinates)


def embedded_states(molecule: Molecule, reference: np.ndarray, n: int = 50, apart: float = 0.2) -> np.ndarray:
    """Distinct conformers ``(k, atoms, 3)`` in nm of ETKDG, in the atom order and the stereo of a reference structure.

    Every tetrahedral atom is given the handedness that it has in the reference, those with equivalent hydrogens too,
    because internal coordinates tell these apart.
    """
    mol = Chem.AddHs(Chem.MolFromSmiles(molecule.smiles))
    bare, graph = Chem.RWMol(), Chem.RWMol()
    for atom in mol.GetAtoms():
        bare.AddAtom(Chem.Atom(atom.GetAtomicNum()))
    for bond in mol.GetBonds():
        bare.AddBond(bond.GetBeginAtomIdx(), bond.GetEndAtomIdx(), Chem.BondType.SINGLE)
    for number in molecule.atomic_numbers:
        graph.AddAtom(Chem.Atom(number))
    for i, j in molecule.bonds:
        graph.AddBond(i, j, Chem.BondType.SINGLE)
    mol = Chem.RenumberAtoms(mol, bare.GetSubstructMatch(graph))
    Chem.RemoveStereochemistry(mol)
    conformer = Chem.Conformer(mol.GetNumAtoms())
    conformer.SetPositions(10.0 * np.asarray(reference, dtype=np.float64))
    mol.AddConformer(conformer)
    Chem.AssignStereochemistryFrom3D(mol)
    Chem.AssignAtomChiralTagsFromStructure(mol)
    parameters = rdDistGeom.ETKDGv3()
    parameters.randomSeed = 1
    with BlockLogs():
        rdDistGeom.EmbedMultipleConfs(mol, n, parameters)
        if rdForceFieldHelpers.MMFFHasAllMoleculeParams(mol):
            energies = rdForceFieldHelpers.MMFFOptimizeMoleculeConfs(mol, maxIters=2000, mmffVariant="MMFF94s")
        else:
            energies = [(0, 0.0)] * mol.GetNumConformers()
    heavy = Chem.RemoveAllHs(mol)
    chosen: list[int] = []
    for k in sorted(range(mol.GetNumConformers()), key=lambda k: energies[k][1]):
        if all(rdMolAlign.GetBestRMS(heavy, heavy, k, other, maxMatches=1000) > apart for other in chosen):
            chosen.append(k)
    found = [conformer.GetPositions() / 10.0 for conformer in mol.GetConformers()]
    return np.array([relabel_amines(mol, found[k], reference) for k in chosen]).reshape(-1, mol.GetNumAtoms(), 3)


def relabel_amines(mol: Chem.Mol, x: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Exchange the hydrogens of each NH2 that is handed otherwise than in the reference: inverted is relabelled."""
    x = x.copy()
    for atom in mol.GetAtoms():
        heavy = [neighbour.GetIdx() for neighbour in atom.GetNeighbors() if neighbour.GetAtomicNum() > 1]
        hydrogens = [neighbour.GetIdx() for neighbour in atom.GetNeighbors() if neighbour.GetAtomicNum() == 1]
        if atom.GetAtomicNum() == 7 and len(heavy) == 1 and len(hydrogens) == 2:
            hands = [np.linalg.det(y[[*heavy, *hydrogens]] - y[atom.GetIdx()]) for y in (x, reference)]
            if hands[0] * hands[1] < 0:
                x[hydrogens] = x[hydrogens[::-1]]
    return x


def judge(directory: RunDirectory, n: int = 1000, n_slogdet: int = 5) -> Figures:
    """The figures of a prepared run."""
    target: Target = load_target(directory)
    coordinates = target.coordinates
    with open_hdf5(directory.system_h5) as file:
        conformers = torch.as_tensor(get_tree(file["conformers"])["positions"])
    torsions, stiff = base_samples(coordinates, n)
    with torch.no_grad():
        x, log_det = coordinates.to_cartesian(torsions, stiff)
        again, _ = coordinates.to_cartesian(*coordinates.from_cartesian(x)[:2])
        u = target.reduced_potential(x)
        lowest = conformers.permute(1, 2, 0)
        floor = (target.reduced_potential(lowest) - coordinates.from_cartesian(lowest)[2]).min()
    deviations = [
        abs(autograd_log_det(coordinates, torsions[k : k + 1], stiff[k : k + 1]) - float(log_det[k]))
        for k in range(n_slogdet)
    ]
    n_dof = coordinates.n_torsions + coordinates.n_stiff
    finite = torch.isfinite(u)
    above = float((u - log_det)[finite].median() - floor) - 0.5 * coordinates.n_stiff
    states = embedded_states(target.molecule, conformers[0].numpy())
    with torch.no_grad():
        latents = torch.cat(coordinates.from_cartesian(torch.as_tensor(states).permute(1, 2, 0))[:2], dim=1)
    return Figures(
        round_trip=float((again - x).abs().max()),  # NaN stays NaN, and is out of bounds
        log_det=float(np.max(deviations)),
        finite=float(finite.double().mean()),
        excess=above / n_dof,
        states=len(states),
        states_inside=int(torch.isfinite(latents).all(dim=1).sum()),
    )


def prepare_row(name: str, record: dict[str, Any], figures: Figures | None) -> str:
    if figures is None:
        return f"| {name} | exit {record['exit_code']}: {reason(record)} |" + " |" * 8
    parity = record["parity"]
    return (
        f"| {name} | {record['n_atoms']} | {record['n_torsions'] - record['n_rotors']} + {record['n_rotors']} + "
        f"{record['n_stiff']} | {record['force_field']}, {record['solvent']} | {record['waited']:.0f} "
        f"| {parity['energy']:.1e} | {figures.round_trip:.1e} | {figures.log_det:.1e} | {100 * figures.finite:.1f} % "
        f"| {figures.excess:.2f} | {figures.states} ({figures.states_inside}) |"
    )


def reason(record: dict[str, Any]) -> str:
    """The error without the SMILES that it quotes."""
    return re.sub(r"^SMILES: ('[^']*')?:? ?", "", str(record.get("error", "no reason given")).removeprefix("error: "))


def prepare_all(panel: dict[str, str], folder: Path, limit: float) -> list[dict[str, Any]]:
    print(f"| {' | '.join(COLUMNS)} |\n|" + "---|" * len(COLUMNS))
    rows = []
    for name, smiles in panel.items():
        record = command(name, smiles, folder, limit, "prepare")
        figures, fault = None, None
        if record["exit_code"] == 0:
            try:
                figures = judge(RunDirectory(folder / f"{name}.run"))
            except Exception as error:  # whatever breaks here is a finding about this molecule, and is told as one
                fault = f"{type(error).__name__}: {error}"
                record["error"] = f"judging failed, {fault}"
        print(prepare_row(name, record, figures), flush=True)
        rows.append({"name": name, **record, "figures": figures and asdict(figures), "fault": fault})
        rows[-1]["good"] = figures.in_bounds if figures else record["exit_code"] == 3
    return rows


def summarise(rows: list[dict[str, Any]]) -> bool:
    """Print the line of summary; True if nothing is out of bounds."""
    judged = [row["figures"] for row in rows if row["figures"]]
    refusals = Counter(f"exit {row['exit_code']}" for row in rows if row["exit_code"] != 0)
    print(f"\n{len(judged)} of {len(rows)} prepared and judged; refused: {dict(refusals) or 'none'}", end="")
    if judged:
        worst = {key: max(figures[key] for figures in judged) for key in ("round_trip", "log_det", "excess")}
        print(
            f"; worst: round trip {worst['round_trip']:.1e} nm, log-det {worst['log_det']:.1e}, finite "
            f"{100 * min(f['finite'] for f in judged):.1f} %, excess {worst['excess']:.2f} kT (median "
            f"{np.median([f['excess'] for f in judged]):.2f}); {sum(f['states_inside'] for f in judged)} of "
            f"{sum(f['states'] for f in judged)} states inside"
        )
    bad = [row["name"] for row in rows if not row["good"]]
    print(f"\nout of bounds or failed: {', '.join(bad) or 'none'}")
    return not bad


def train_all(panel: dict[str, str], folder: Path, limit: float) -> list[dict[str, Any]]:
    print("| molecule | s | energies | ESS | k̂ | log Z | verdict |\n|" + "---|" * 7)
    rows = []
    for name, smiles in panel.items():
        record = command(name, smiles, folder, limit, "run", "--preset", "quick")
        rows.append({"name": name, **record, "good": record["exit_code"] in (0, 3)})
        if record["exit_code"] != 0:
            print(f"| {name} | exit {record['exit_code']}: {reason(record)} |" + " |" * 5, flush=True)
            continue
        ess, log_z = f"{100 * record['ess_fraction']:.1f} %", f"{record['log_z']:.3f} ± {record['log_z_stderr']:.3f}"
        print(
            f"| {name} | {record['waited']:.0f} | {record['n_energy_evaluations']:,} | {ess} | {record['khat']:.2f} "
            f"| {log_z} | {record['verdict']} |",
            flush=True,
        )
    shares = [row["ess_fraction"] for row in rows if row["exit_code"] == 0]
    if shares:
        median, least = 100 * np.median(shares), 100 * min(shares)
        print(f"\n{len(shares)} of {len(rows)} trained; ESS: median {median:.1f} %, least {least:.1f} %")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--file", type=Path, default=MOLECULES / "panel.smi", help="SMILES and name on each line")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="only these molecules of it")
    parser.add_argument("--train", type=int, default=0, metavar="N", help="train the first N of a dozen instead")
    parser.add_argument("--limit", type=float, default=1800.0, help="seconds that one command may take")
    parser.add_argument("-o", "--output", type=Path, default=Path("panel.run"), help="folder of the run directories")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    panel = read_panel(arguments.file)
    if arguments.train:
        panel |= {**read_panel(MOLECULES / "amino_acids.smi"), **read_panel(MOLECULES / "panel.smi")}
        panel = {name: panel[name] for name in DOZEN[: arguments.train]}
    if arguments.only:
        try:
            panel = chosen(panel, arguments.only)
        except KeyError as error:
            parser.error(error.args[0])
    arguments.output.mkdir(parents=True, exist_ok=True)
    if arguments.train:
        rows = train_all(panel, arguments.output, arguments.limit)
        good = all(row["good"] for row in rows)
    else:
        rows = prepare_all(panel, arguments.output, arguments.limit)
        good = summarise(rows)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1, default=str))
    raise SystemExit(not good)


if __name__ == "__main__":
    main()
