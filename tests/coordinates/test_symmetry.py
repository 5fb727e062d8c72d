"""Rotors: which groups are found, and that their images are the same molecule."""

from __future__ import annotations

import math

import pytest
import torch
from fitted_molecules import THERMAL_ENERGY, case, embedded, positions_of, zmatrix_of

from boltzgen.chemistry.perception import planar_atoms
from boltzgen.coordinates.fitting import fit_coordinates
from boltzgen.coordinates.symmetry import cycle_image, random_images

ORDERS = {
    "CC": [3],
    "CC#CC": [3],
    "CC(F)(F)F": [3],
    "C[NH3+]": [3],
    "CS(=O)(=O)[O-]": [3],
    "COP(=O)([O-])[O-]": [3, 3],
    "CC(C)(C)O": [3, 3, 3, 3],
    "C[N+](C)(C)CCO": [3, 3, 3, 3],
    "C[N+](=O)[O-]": [3],
    "O=[N+]([O-])c1ccccc1": [2],
    "CC(=O)[O-]": [3],
    "Oc1ccccc1": [2],
    "Oc1c(C)cccc1C": [2, 3, 3],
    "Oc1c(F)cccc1": [],
    "CC(C)O": [3, 3],
    "CC(=O)O": [3],
    "CC(Cl)(F)F": [3],
}


@pytest.mark.parametrize("smiles", ORDERS)
def test_groups_that_are_found(smiles):
    assert sorted(rotor.order for rotor in zmatrix_of(embedded(smiles)).rotors) == sorted(ORDERS[smiles])


@pytest.mark.parametrize("smiles", ["CC(C)(C)O", "Oc1ccccc1", "Oc1c(C)cccc1C", "O=[N+]([O-])c1ccccc1", "CC(F)(F)F"])
def test_images_are_the_same_molecule(smiles):
    """Equal energies, one latent point, and a density that does not depend on the labelling."""
    made = case(smiles)
    c = made.coordinates
    torsions, stiff = made.latent(40)
    x, log_det = c.to_cartesian(torsions, stiff)
    u = made.potential.batch_last(x)
    for rotor in c.zmatrix.rotors:
        image = cycle_image(x, rotor, torch.ones(40, dtype=torch.int64))
        assert torch.allclose(made.potential.batch_last(image), u, rtol=1e-9)
        assert not torch.allclose(image, x, atol=1e-3)
    image = random_images(x, c.zmatrix.rotors, torch.Generator().manual_seed(3))
    back = c.from_cartesian(image)
    for a, b in zip(back, (torsions, stiff, log_det), strict=True):
        assert torch.allclose(a, b, atol=1e-9, rtol=0.0)


def test_images_are_drawn_evenly():
    made = case("CC(C)(C)O")
    rotors = made.coordinates.zmatrix.rotors
    assert made.coordinates.zmatrix.symmetry_number == 81
    n = 8100
    x = made.conformer.expand(-1, -1, n).contiguous()
    images = random_images(x, rotors, torch.Generator().manual_seed(0))
    key = images[:, 0].round(decimals=5)
    _, counts = torch.unique(key, dim=1, return_counts=True)
    assert len(counts) == 81
    # 81 classes of 100 expected: χ² has mean 80 and standard deviation √160
    chi_square = float(((counts - 100.0) ** 2 / 100.0).sum())
    assert abs(chi_square - 80.0) < 4.0 * math.sqrt(160.0)


def test_arms_of_different_stereo_are_not_exchanged():
    """An E and a Z arm on one nitrogen are alike in the graph only."""
    alike, different = case("C/C=C/CN(C/C=C/C)C=O", 1), case("C/C=C/CN(C/C=C\\C)C=O", 1)
    assert different.coordinates.zmatrix.symmetry_number <= alike.coordinates.zmatrix.symmetry_number
    x, _ = different.coordinates.to_cartesian(*different.latent(50))
    image = random_images(x, different.coordinates.zmatrix.rotors, torch.Generator().manual_seed(0))
    assert torch.isfinite(different.coordinates.from_cartesian(image)[1]).all()


def test_a_force_field_that_tells_equal_atoms_apart_has_no_rotor():
    mol = embedded("CCO")
    zmatrix = zmatrix_of(mol)
    hydrogen = zmatrix.rotors[0].atoms[0]
    potential = case("CCO").potential

    def biased(x):
        return potential.batch_last(x, 200.0) / 2.5 + 50.0 * x[hydrogen].square().sum(0)

    fitted = fit_coordinates(zmatrix, positions_of(mol), biased, n_conformers=1)
    assert len(zmatrix.rotors) == 1
    assert fitted.coordinates.zmatrix.rotors == ()
    assert fitted.coordinates.n_torsions == 2


def test_without_positions_only_groups_of_single_atoms():
    orders = [rotor.order for rotor in zmatrix_of(embedded("CC(C)(C)Oc1ccccc1"), with_positions=False).rotors]
    assert set(orders) == {3}


@pytest.mark.parametrize("smiles", ["Oc1ccccc1", "O=[N+]([O-])c1ccccc1", "CC(F)(F)F"])
def test_partition_function_does_not_depend_on_the_use_of_symmetry(smiles):
    """Windows times images cover configuration space once: ln Z by the base's weights, with and without rotors."""
    made = case(smiles)

    def estimate(zmatrix):
        fitted = fit_coordinates(
            zmatrix,
            made.fitted.conformers[0],
            lambda x: made.potential.batch_last(x, 200.0) / THERMAL_ENERGY,
            planar_atoms(made.mol),
            n_conformers=1,
        )
        [c] = fitted.coordinates.charts
        generator = torch.Generator().manual_seed(1)
        circles = torch.rand(8000, c.n_torsions, generator=generator, dtype=torch.float64)
        stiff = torch.randn(8000, c.n_stiff, generator=generator, dtype=torch.float64)
        x, log_det = c.to_cartesian(2.0 * math.pi * circles - math.pi, stiff)
        log_base = -c.n_torsions * math.log(2.0 * math.pi) - 0.5 * (
            stiff.square().sum(1) + c.n_stiff * math.log(2.0 * math.pi)
        )
        log_weight = -made.potential.batch_last(x) / THERMAL_ENERGY - log_base + log_det
        w = (log_weight - log_weight.max()).exp()
        return float(log_weight.max() + w.mean().log()), float(w.std() / w.mean() / math.sqrt(len(w)))

    zmatrix = made.coordinates.zmatrix
    assert zmatrix.symmetry_number > 1
    (with_rotors, error), (without, other_error) = estimate(zmatrix), estimate(zmatrix.with_rotors(()))
    assert abs(with_rotors - without) < 4.0 * math.hypot(error, other_error)
    assert math.hypot(error, other_error) < 0.15  # far below ln 2
