"""Coordinates across chemistry: round trip, log-determinant, stereo, and the untrained base, one line a molecule.

::

    python benchmarks/coordinates.py                # all
    python benchmarks/coordinates.py caffeine azide # those whose name contains one of these

MMFF94s in vacuum at 300 K. Columns: atoms; slow torsions (of them rotors, with the symmetry number); linear rows;
conformers averaged; seconds to fit. ``trip``: largest distance in nm after alignment, x → internal → x, of the
conformers and 20 samples. ``log det``: largest deviation from the determinant of the autograd Jacobian, three samples.
``kept``: share of 2,000 samples of twice the thermal width in which no tetrahedral centre changes its hand. Of 2,000
samples of the base (uniform torsions, Gaussian stiff coordinates): share of finite energies; median and lower quartile
of (u − u_min)/f − ½, the energy above equipartition per degree of freedom, in kT; ESS of the base itself, unclipped.
"""

from __future__ import annotations

import math
import sys
import time
from dataclasses import dataclass

import numpy as np
import torch
from rdkit import Chem, RDLogger
from rdkit.Chem import rdDistGeom

from boltzgen.chemistry.mmff import build_mmff_system
from boltzgen.chemistry.perception import planar_atoms, rigid_bonds
from boltzgen.constants import thermal_energy
from boltzgen.coordinates.fitting import Fitted, fit_coordinates
from boltzgen.coordinates.internal import log_volume
from boltzgen.coordinates.molecular import MolecularCoordinates
from boltzgen.coordinates.zmatrix import build_zmatrix
from boltzgen.energy import from_openmm
from boltzgen.energy.potential import PotentialEnergy
from boltzgen.errors import BoltzgenError

MOLECULES = {
    "water": "O",
    "methane": "C",
    "ammonia": "N",
    "hydrogen cyanide": "C#N",
    "nitrous oxide": "[N-]=[N+]=O",
    "acetylene": "C#C",
    "ethane": "CC",
    "methanol": "CO",
    "hydrogen peroxide": "OO",
    "n-butane": "CCCC",
    "acetonitrile": "CC#N",
    "penta-1,3-diyne": "CC#CC#C",
    "2-butyne": "CC#CC",
    "1,3-dimethylallene": "CC=C=CC",
    "ethyl azide": "CCN=[N+]=[N-]",
    "methyl isocyanate": "CN=C=O",
    "malononitrile": "N#CCC#N",
    "cumulene": "C=C=C=C",
    "diphenylacetylene": "c1ccccc1C#Cc1ccccc1",
    "cyclopropane": "C1CC1",
    "propylene oxide": "CC1CO1",
    "cyclopentane": "C1CCCC1",
    "cyclohexane": "C1CCCCC1",
    "benzene": "c1ccccc1",
    "naphthalene": "c1ccc2ccccc2c1",
    "norbornane": "C1CC2CCC1C2",
    "cubane": "C12C3C4C1C5C2C3C45",
    "adamantane": "C1C2CC3CC1CC(C2)C3",
    "[1.1.1]propellane": "C1C23CC2C13",
    "trans-decalin": "C1CC[C@@H]2CCCC[C@H]2C1",
    "spiro[4.5]decane": "C1CCC2(C1)CCCCC2",
    "camphor": "CC1(C)[C@@H]2CC[C@@]1(C)C(=O)C2",
    "caffeine": "Cn1cnc2c1c(=O)n(C)c(=O)n2C",
    "testosterone": "C[C@]12CC[C@H]3[C@H]([C@@H]1CC[C@@H]2O)CCC4=CC(=O)CC[C@]34C",
    "cyclododecane": "C1CCCCCCCCCCC1",
    "18-crown-6": "C1COCCOCCOCCOCCOCCO1",
    "N-methylmethanesulfonamide": "CS(=O)(=O)NC",
    "dimethyl phosphate": "COP(=O)([O-])OC",
    "glycerol": "OCC(O)CO",
    "glucose": "OC[C@H]1O[C@@H](O)[C@H](O)[C@@H](O)[C@@H]1O",
    "ibuprofen": "CC(C)Cc1ccc(cc1)[C@H](C)C(=O)O",
    "aspirin": "CC(=O)Oc1ccccc1C(=O)O",
    "t-butanol": "CC(C)(C)O",
    "trifluoroacetone": "CC(=O)C(F)(F)F",
    "nitrobenzene": "c1ccccc1[N+](=O)[O-]",
    "biphenyl": "c1ccccc1-c1ccccc1",
    "stilbene, trans": "c1ccccc1/C=C/c1ccccc1",
    "2-butene, cis": "C/C=C\\C",
    "N-methylpiperidine": "CN1CCCCC1",
    "proline, capped": "CC(=O)N1CCC[C@H]1C(=O)NC",
    "erythronolide": "CC[C@H]1OC(=O)[C@H](C)[C@@H](O)[C@H](C)[C@@H](O)[C@](C)(O)C[C@@H](C)C(=O)[C@H](C)"
    "[C@@H](O)[C@]1(C)O",
}

N_SAMPLES = 2000


@dataclass(frozen=True)
class Molecule:
    """A molecule with its energy and coordinates."""

    mol: Chem.Mol
    potential: PotentialEnergy
    fitted: Fitted
    thermal_energy: float

    @property
    def coordinates(self) -> MolecularCoordinates:
        return self.fitted.coordinates


def prepare(smiles: str) -> Molecule:
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    if rdDistGeom.EmbedMolecule(mol, randomSeed=7):
        raise SystemExit(f"{smiles}: no conformer found")
    positions = 0.1 * mol.GetConformer().GetPositions()
    potential, kT = from_openmm(build_mmff_system(mol)), thermal_energy(300.0)
    planar = planar_atoms(mol)
    numbers = tuple(atom.GetAtomicNum() for atom in mol.GetAtoms())
    bonds = tuple((bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()) for bond in mol.GetBonds())
    zmatrix = build_zmatrix(numbers, bonds, rigid_bonds(mol, planar), positions)
    fitted = fit_coordinates(zmatrix, positions, lambda x: potential.batch_last(x, 200.0) / kT, planar)
    return Molecule(mol, potential, fitted, kT)


def draw(c: MolecularCoordinates, n: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    circles = torch.rand(n, c.n_torsions, generator=generator, dtype=torch.float64)
    return math.pi * (2.0 * circles - 1.0), torch.randn(n, c.n_stiff, generator=generator, dtype=torch.float64)


def aligned_distance(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a - a.mean(0), b - b.mean(0)
    u, _, vt = np.linalg.svd(a.T @ b)
    rotation = u @ np.diag([1.0, 1.0, np.sign(np.linalg.det(u @ vt))]) @ vt
    return float(np.abs(a @ rotation - b).max())


def round_trip(m: Molecule, x: torch.Tensor) -> float:
    c = m.coordinates
    structures = torch.cat([x[..., :20], torch.as_tensor(m.fitted.conformers).permute(1, 2, 0)], dim=-1)
    structures = c.canonical_images(structures)
    again, _ = c.to_cartesian(*c.from_cartesian(structures)[:2])
    pairs = zip(structures.permute(2, 0, 1).numpy(), again.permute(2, 0, 1).numpy(), strict=True)
    return max(aligned_distance(a, b) for a, b in pairs)


def log_det_error(c: MolecularCoordinates, torsions: torch.Tensor, stiff: torch.Tensor) -> float:
    n_t = c.n_torsions

    def to_internal(v: torch.Tensor) -> torch.Tensor:
        values = c.geometry.internal(c.to_cartesian(v[None, :n_t], v[None, n_t:])[0])
        return torch.cat([values.bonds, values.angles, values.torsions])[:, 0]

    worst = 0.0
    for k in range(3):
        jacobian = torch.autograd.functional.jacobian(to_internal, torch.cat([torsions[k], stiff[k]]))
        x, log_det = c.to_cartesian(torsions[k : k + 1], stiff[k : k + 1])
        expected = torch.linalg.slogdet(jacobian)[1] + log_volume(c.geometry.internal(x))[0]
        worst = max(worst, abs(expected + math.log(c.zmatrix.symmetry_number) - log_det[0]).item())
    return worst


def share_of_kept_hands(m: Molecule, torsions: torch.Tensor, stiff: torch.Tensor) -> float:
    x, _ = m.coordinates.to_cartesian(torsions, 2.0 * stiff)
    reference = torch.as_tensor(m.fitted.conformers[0])[..., None]
    kept = torch.ones(x.shape[-1], dtype=torch.bool)
    for atom in m.mol.GetAtoms():
        neighbours = [a.GetIdx() for a in atom.GetNeighbors()]
        if len(neighbours) == 4:
            kept &= hand(x, atom.GetIdx(), neighbours) == hand(reference, atom.GetIdx(), neighbours)
    return float(kept.double().mean())


def hand(x: torch.Tensor, centre: int, neighbours: list[int]) -> torch.Tensor:
    v = x[neighbours] - x[centre]
    v = v / v.norm(dim=1, keepdim=True)
    a, b, c = v[1:] - v[0]
    return (torch.linalg.cross(a, b, dim=0) * c).sum(0).sign()


def base_ess(u: torch.Tensor, stiff: torch.Tensor, log_det: torch.Tensor) -> float:
    log_weight = torch.where(torch.isfinite(u), -u + 0.5 * stiff.square().sum(1) + log_det, -math.inf)
    return float((2.0 * torch.logsumexp(log_weight, 0) - torch.logsumexp(2.0 * log_weight, 0)).exp() / len(u))


def line(name: str, smiles: str) -> str:
    start = time.monotonic()
    try:
        m = prepare(smiles)
    except BoltzgenError as error:
        return f"{name:27s} {error}"
    seconds = time.monotonic() - start
    c, z = m.coordinates, m.coordinates.zmatrix
    torsions, stiff = draw(c, N_SAMPLES)
    x, log_det = c.to_cartesian(torsions, stiff)
    u = m.potential.batch_last(x) / m.thermal_energy
    finite = torch.isfinite(u)
    excess = (u[finite] - m.fitted.reduced_potentials[0]) / z.n_internal - 0.5
    return (
        f"{name:27s} {z.n_atoms:3d} {c.n_torsions:3d} ({len(z.rotors)}, {z.symmetry_number:4d}) "
        f"{int(z.linear.sum()):2d} {len(m.fitted.conformers)} {seconds:5.1f} s  trip {round_trip(m, x):.0e}  "
        f"log det {log_det_error(c, torsions, stiff):.0e}  kept {share_of_kept_hands(m, torsions, stiff):.4f}  "
        f"finite {finite.double().mean():.3f}  excess {excess.median():6.3f} {excess.quantile(0.25):6.3f}  "
        f"ESS {base_ess(u, stiff, log_det):.4f}"
    )


def main(wanted: list[str]) -> None:
    RDLogger.DisableLog("rdApp.*")
    torch.set_num_threads(1)
    for name, smiles in MOLECULES.items():
        if not wanted or any(part in name for part in wanted):
            print(line(name, smiles), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
