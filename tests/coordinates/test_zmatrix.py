"""The Z-matrix of a graph: references, slow torsions, and what is refused."""

from __future__ import annotations

import numpy as np
import openmm
import pytest
import torch
from fitted_molecules import THERMAL_ENERGY, case, embedded, positions_of, zmatrix_of
from openmm import unit

from boltzgen.coordinates.fitting import fit_coordinates
from boltzgen.coordinates.zmatrix import build_zmatrix
from boltzgen.energy import from_openmm
from boltzgen.errors import UnsupportedError

VARIED = [
    "CC#CC#CC",
    "CCN=[N+]=[N-]",
    "N#CCC#N",
    "CC(C)=C=C(C)C#N",
    "CSC#N",
    "C12C3C4C1C5C2C3C45",
    "C1C2CC3CC1CC(C2)C3",
    "C1CCC2(C1)CCCCC2",
    "Cn1cnc2c1c(=O)n(C)c(=O)n2C",
    "C[C@]12CC[C@H]3[C@H]([C@@H]1CC[C@@H]2O)CCC4=CC(=O)CC[C@]34C",
    "C1COCCOCCOCCOCCOCCO1",
    "C1C23CC2C13",
]


@pytest.mark.parametrize("smiles", VARIED)
def test_references_are_well_conditioned(smiles):
    """No reference angle within 15° of 0 or π, no direction across an axis from an atom within 0.03 nm of it."""
    mol = embedded(smiles)
    z, x = zmatrix_of(mol), positions_of(mol)

    def angle(a, b, c):
        u, v = x[a] - x[b], x[c] - x[b]
        return np.degrees(np.arccos(np.clip(u @ v / np.linalg.norm(u) / np.linalg.norm(v), -1, 1)))

    placed = set()
    for k in range(z.n_atoms):
        a, b, c, d = (int(column[k]) for column in (z.atom, z.bond, z.angle, z.torsion))
        assert {b, c, d} - {-1} <= placed
        placed.add(a)
        if k > 1 and not z.linear[k]:
            assert 15.0 < angle(a, b, c) < 165.0
        if k > 2:
            assert len({a, b, c, d}) == 4
            assert np.linalg.norm(x[d] - x[c]) * np.sin(np.radians(angle(d, c, b))) > 0.03
            assert mol.GetBondBetweenAtoms(a, b) is not None


@pytest.mark.parametrize(
    ("smiles", "n_slow"),
    [
        ("CC#CC", 1),
        ("C=C=C", 0),
        ("N#CCC#N", 0),
        ("CCN=[N+]=[N-]", 2),
        ("C1CCCCC1", 0),
        ("c1ccccc1-c1ccccc1", 1),
        ("C=CC=C", 1),
        ("CC(=O)NC", 2),
        ("CN(C)C=O", 3),
        ("CNC=O", 2),
        ("Nc1ccccc1", 1),
        ("CCCC", 3),
        ("CC(=O)Oc1ccccc1C(=O)O", 5),
    ],
)
def test_every_rotatable_bond_has_one_slow_torsion(smiles, n_slow):
    """Triple bonds and the bonds in line with them turn once; rings, double bonds and amides not at all."""
    assert len(zmatrix_of(embedded(smiles)).slow) == n_slow


def test_rings_are_placed_before_their_substituents():
    """Methylcyclohexane, from its methyl group: no substituent is a reference of a ring atom beyond the first."""
    mol = embedded("CC1CCCCC1")
    order = [int(a) for a in zmatrix_of(mol).atom]
    ring = [order.index(a.GetIdx()) for a in mol.GetAtoms() if a.IsInRing()]
    ring_hydrogens = [
        order.index(a.GetIdx()) for a in mol.GetAtoms() if a.GetAtomicNum() == 1 and a.GetNeighbors()[0].IsInRing()
    ]
    assert max(ring) < min(ring_hydrogens)


def test_a_ring_closes_on_both_neighbours():
    """The last atom of benzene's ring: its bond to one neighbour, its direction to the other."""
    mol = embedded("c1ccccc1")
    z = zmatrix_of(mol)
    closing = [
        k
        for k in range(3, z.n_atoms)
        if mol.GetBondBetweenAtoms(int(z.bond[k]), int(z.angle[k])) is None
        and mol.GetBondBetweenAtoms(int(z.atom[k]), int(z.angle[k])) is not None
    ]
    assert len(closing) == 1


@pytest.mark.parametrize(("numbers", "bonds"), [((8,), ()), ((11, 17), ()), ((6, 6, 6, 6), ((0, 1), (2, 3)))])
def test_what_has_no_internal_coordinates_is_refused(numbers, bonds):
    with pytest.raises(UnsupportedError):
        build_zmatrix(numbers, bonds)


def line_system(n: int) -> openmm.System:
    """Two or three atoms in line, harmonic in bonds and in the angle about π."""
    system = openmm.System()
    bonds, angles = openmm.HarmonicBondForce(), openmm.HarmonicAngleForce()
    for _ in range(n):
        system.addParticle(12.0)
    for k in range(n - 1):
        bonds.addBond(k, k + 1, 0.12, 4e5)
    for k in range(n - 2):
        angles.addAngle(k, k + 1, k + 2, np.pi * unit.radian, 300.0)
    system.addForce(bonds)
    system.addForce(angles)
    return system


@pytest.mark.parametrize("n", [2, 3])
def test_two_and_three_atoms_in_line(n):
    """N₂ and CO₂: harmonic, so that the ESS of the untrained base is near one; its weights give the exact Z."""
    potential = from_openmm(line_system(n))
    positions = np.array([[0.0, 0.0, 0.12 * k] for k in range(n)])
    zmatrix = build_zmatrix((6,) * n, tuple((k, k + 1) for k in range(n - 1)), (), positions)
    fitted = fit_coordinates(zmatrix, positions, lambda x: potential.batch_last(x, 200.0) / THERMAL_ENERGY)
    [c] = fitted.coordinates.charts
    assert (c.n_torsions, c.n_stiff) == (0, zmatrix.n_internal)
    z = torch.randn(20_000, c.n_stiff, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x, log_det = c.to_cartesian(z[:, :0], z)
    _, back, _ = c.from_cartesian(x)
    assert torch.allclose(back, z, atol=1e-9)
    log_normal = -0.5 * (z.square().sum(1) + c.n_stiff * np.log(2.0 * np.pi))
    w = (-potential.batch_last(x) / THERMAL_ENERGY - log_normal + log_det).exp()
    assert float(w.sum() ** 2 / w.square().sum() / len(w)) > 0.98
    sigma_2 = THERMAL_ENERGY / 4e5
    exact = (np.sqrt(2.0 * np.pi * sigma_2) * (0.12**2 + sigma_2)) ** (n - 1)
    if n == 3:
        theta = np.linspace(0.0, np.pi, 200_001)
        density = np.sin(theta) * np.exp(-150.0 / THERMAL_ENERGY * (theta - np.pi) ** 2)
        exact *= np.trapezoid(density, theta)
    standard_error = float(w.std() / np.sqrt(len(w)))
    assert abs(float(w.mean()) - exact) < 4.0 * standard_error + 1e-6 * exact


def test_a_group_that_straightens_while_minimised_is_refused():
    """A Z-matrix made for a bent nitrile: the torsion behind the straight angle would be undefined."""
    made = case("N#CC")
    bent = zmatrix_of(embedded("N#CC"), with_positions=False)
    with pytest.raises(UnsupportedError, match="in line"):
        fit_coordinates(bent, positions_of(made.mol), lambda x: made.potential.batch_last(x, 200.0) / THERMAL_ENERGY)
