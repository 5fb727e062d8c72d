"""Structures from anywhere: latents where they lie in the support, and a name for what left it elsewhere."""

from __future__ import annotations

import math

import pytest
import torch
from fitted_molecules import case

from boltzgen.coordinates.locate import locate
from boltzgen.coordinates.symmetry import random_images


@pytest.fixture(scope="module")
def drawn(dipeptide_target):
    """Latents and positions, with equivalent hydrogens in a random order."""
    atlas = dipeptide_target.coordinates
    rng = torch.Generator().manual_seed(0)
    torsions = 2.0 * math.pi * torch.rand(200, atlas.n_torsions, generator=rng, dtype=torch.float64) - math.pi
    stiff = torch.randn(200, atlas.n_stiff, generator=rng, dtype=torch.float64)
    x, log_det = atlas.to_cartesian(torch.zeros(200, dtype=torch.int64), torsions, stiff)
    return torsions, stiff, log_det, random_images(x, atlas.zmatrix.rotors, rng)


def test_latents_come_back_from_any_labelling(dipeptide_target, drawn):
    torsions, stiff, log_det, x = drawn
    located = locate(dipeptide_target.coordinates, x)
    assert located.inside.all()
    assert located.outside == {}
    # float64 through trigonometric functions and a Cholesky factor of entries 1e-3
    assert torch.allclose(located.torsions, torsions, atol=1e-8)
    assert torch.allclose(located.stiff, stiff, atol=1e-8)
    assert torch.allclose(located.log_det, log_det, atol=1e-8)


def test_methyls_numbered_the_other_way_round_are_the_same_structures(dipeptide_target, drawn):
    atlas = dipeptide_target.coordinates
    x = drawn[3].clone()
    _, second, third = atlas.zmatrix.rotors[0].atoms
    x[[second, third], :, :50] = x[[third, second], :, :50]
    located = locate(atlas, x)
    assert located.inside.all()
    slow = located.torsions[:, : atlas.n_torsions - len(atlas.zmatrix.rotors)]
    assert torch.allclose(slow, drawn[0][:, : slow.shape[1]], atol=1e-8)
    assert torch.allclose(located.torsions[50:], drawn[0][50:], atol=1e-8)


def test_what_left_the_support_is_named_and_the_rest_keeps_its_rows(dipeptide_target, drawn):
    atlas, names = dipeptide_target.coordinates, dipeptide_target.molecule.atom_names
    x = drawn[3].clone()
    x[:, 2, 3] *= -1.0  # the mirror image
    x[5, 0, 7] += 0.5  # an atom torn off
    x[0, 1, 11] = math.nan
    located = locate(atlas, x)
    assert (~located.inside).nonzero()[:, 0].tolist() == [3, 7, 11]
    assert len(located.stiff) == 197
    assert torch.allclose(located.torsions[3:6], drawn[0][4:7], atol=1e-8)
    assert sorted(kind for kind, _ in located.outside) == ["bond", "position", "torsion"]
    assert set(located.outside.values()) == {1}
    atoms = dict(located.outside)
    (torsion,) = (value for kind, value in atoms if kind == "torsion")
    assert names[torsion[1]] == "CA"  # an offset about the stereocentre
    (bond,) = (value for kind, value in atoms if kind == "bond")
    assert 5 in bond


def test_a_cis_amide_is_told_by_its_torsion(dipeptide_target, drawn):
    """All that hangs on the far side of the bond C–N is turned by half a turn."""
    molecule = dipeptide_target.molecule
    x = drawn[3][..., :1].clone()
    bond = next(b for b in molecule.rigid_bonds if {molecule.atom_names[a] for a in b} == {"C", "N"})
    a, b = bond
    side, pending = {b}, [b]
    while pending:
        atom = pending.pop()
        for i, j in molecule.bonds:
            for here, there in ((i, j), (j, i)):
                if here == atom and there != a and there not in side:
                    side.add(there)
                    pending.append(there)
    axis = (x[b] - x[a]) / (x[b] - x[a]).norm()
    rows = sorted(side)
    arm = x[rows] - x[b]
    x[rows] = x[b] + 2.0 * (arm * axis).sum(1, keepdim=True) * axis - arm
    located = locate(dipeptide_target.coordinates, x)
    ((kind, atoms),) = located.outside
    assert kind == "torsion"
    assert set(atoms[1:3]) == set(bond)


def test_each_basin_of_a_ring_gets_its_own_label():
    atlas = case("CC1CCCCC1", 1).fitted.coordinates
    label = torch.arange(atlas.n_charts).repeat_interleave(5)
    circles = torch.zeros(len(label), atlas.n_torsions, dtype=torch.float64)
    x, log_det = atlas.to_cartesian(label, circles, torch.zeros(len(label), atlas.n_stiff, dtype=torch.float64))
    located = locate(atlas, x)
    assert located.inside.all()
    assert torch.equal(located.label, label)
    assert torch.allclose(located.log_det, log_det, atol=1e-8)
