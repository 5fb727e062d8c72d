"""The declared stereo is the support: wide deviations never leave it."""

from __future__ import annotations

import math

import pytest
import torch
from fitted_molecules import Case, case

from boltzgen.coordinates.internal import dihedral

CENTRES = {
    "alcohol": "CC[C@](C)(O)F",
    "two centres": "C[C@H](O)[C@@H](C)F",
    "sulfoxide": "CC[S@](=O)C",
    "phosphonate": "CCO[P@](=O)(C)OC",
    "ring": "C[C@H]1CCC[C@@H](O)C1",
    "cyclopropane, cis": "C[C@@H]1C[C@@H]1F",
    "spiro": "C1C[C@@]2(CO1)CCCN2",
    "fused": "C1CC[C@@H]2CCC[C@H]2C1",
    "camphor": "CC1(C)[C@@H]2CC[C@@]1(C)C(=O)C2",
    "glucose": "OC[C@H]1O[C@@H](O)[C@H](O)[C@@H](O)[C@@H]1O",
}


def wide(made: Case, n: int, angle: float, torsion: float, seed: int = 0) -> torch.Tensor:
    """Positions of deviations drawn with the given standard deviations, far beyond the thermal ones."""
    c = made.coordinates
    torsions, _ = made.latent(n, seed)
    generator = torch.Generator().manual_seed(seed)
    d = torch.randn(c.n_stiff, n, generator=generator, dtype=torch.float64)
    kinds = [
        kind
        for k in range(1, c.zmatrix.n_atoms)
        for kind, first in (("bond", 1), ("angle", 2), ("torsion", 3))
        if k >= first and not (kind == "torsion" and k in c.zmatrix.slow)
    ]
    scale = torch.tensor([{"bond": 0.01, "angle": angle, "torsion": torsion}[kind] for kind in kinds])
    centre = c.deviations(torch.zeros(1, c.n_stiff, dtype=torch.float64))
    return c.from_deviations(torsions, centre + scale[:, None] * d)[0]


def turn_about_parent(made: Case, x: torch.Tensor, centre: int) -> torch.Tensor:
    """Sign of the cyclic order of a centre's neighbours, seen along the bond from the atom that places it."""
    z = made.coordinates.zmatrix
    row = {int(a): k for k, a in enumerate(z.atom)}[centre]
    parent = int(z.bond[row]) if row else int(z.atom[1])
    others = [a.GetIdx() for a in made.mol.GetAtomWithIdx(centre).GetNeighbors() if a.GetIdx() != parent]
    first, *rest = others
    offsets = [torch.remainder(dihedral(x[[k]], x[[centre]], x[[parent]], x[[first]])[0], 2.0 * math.pi) for k in rest]
    return (offsets[-1] - offsets[0]).sign() if len(offsets) == 2 else (math.pi - offsets[0]).sign()


def signed_volume(made: Case, x: torch.Tensor, centre: int) -> torch.Tensor:
    """Sign of the volume spanned by the unit bond vectors of a centre."""
    neighbours = [a.GetIdx() for a in made.mol.GetAtomWithIdx(centre).GetNeighbors()]
    v = x[neighbours] - x[centre]
    v = v / v.norm(dim=1, keepdim=True)
    edges = v[1:] - v[0] if len(neighbours) == 4 else v
    return (torch.linalg.cross(edges[0], edges[1], dim=0) * edges[2]).sum(0).sign()


def stereocentres(made: Case) -> list[int]:
    return [a.GetIdx() for a in made.mol.GetAtoms() if a.GetChiralTag().name.startswith("CHI_TETRA")]


@pytest.mark.parametrize("name", ["alcohol", "two centres", "sulfoxide", "phosphonate", "ring"])
def test_substituents_never_change_sides(name):
    """Torsions anywhere in their supports, angles far out: the order about the axis is a matter of the map.

    A centre with three ring neighbours or two in a ring of three may have one of them placed from another atom of the
    ring; there the map alone does not hold it, see the next test.
    """
    made = case(CENTRES[name])
    x = wide(made, 2000, angle=0.5, torsion=5.0)
    assert stereocentres(made)
    for centre in stereocentres(made):
        assert bool((turn_about_parent(made, x, centre) == turn_about_parent(made, made.conformer, centre)).all())


@pytest.mark.parametrize("name", CENTRES)
def test_chirality_at_twice_the_thermal_width(name):
    """Ring centres that are joined to a ring from several sides hold by energy alone: so at 2σ in every coordinate."""
    made = case(CENTRES[name])
    torsions, stiff = made.latent(4000)
    x, _ = made.coordinates.to_cartesian(torsions, 2.0 * stiff)
    for centre in stereocentres(made):
        assert bool((signed_volume(made, x, centre) == signed_volume(made, made.conformer, centre)).all())


@pytest.mark.parametrize(("smiles", "sign"), [("C/C=C/C", -1.0), ("C/C=C\\C", 1.0), ("C/C=C/C=C\\C", -1.0)])
def test_double_bonds_stay_cis_or_trans(smiles, sign):
    made = case(smiles)
    x = wide(made, 2000, angle=0.5, torsion=5.0)
    torsion = dihedral(x[[0]], x[[1]], x[[2]], x[[3]])[0]
    assert (sign * torsion.cos()).min() > -0.05  # the support is π/2 about the minimum, which is not exactly planar


def test_allenes_keep_their_axial_chirality():
    """The torsion of the far end about the axis, towards the near end, never changes sign."""
    made = case("CC=C=CC")
    reference = dihedral(*(made.conformer[[k]] for k in (0, 2, 3, 4)))[0]
    assert 1.0 < reference.abs().item() < 2.2
    x = wide(made, 2000, angle=0.3, torsion=5.0)
    assert bool((dihedral(*(x[[k]] for k in (0, 2, 3, 4)))[0].sign() == reference.sign()).all())


def test_a_flat_nitrogen_passes_through_the_plane():
    """Aniline's hydrogens are on both sides of the ring: no side is kept where there is none."""
    made = case("Nc1ccccc1")
    x = wide(made, 500, angle=0.05, torsion=0.5)
    nitrogen = next(a.GetIdx() for a in made.mol.GetAtoms() if a.GetAtomicNum() == 7)
    sides = signed_volume(made, x, nitrogen)
    assert 0.2 < (sides > 0).double().mean().item() < 0.8
