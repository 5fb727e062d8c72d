"""Nearness to the edge of the support: 0 at the centre, 1 at the edge, named by its atoms, least over the charts."""

from __future__ import annotations

import torch
from fitted_molecules import case, two_puckers

from boltzgen.coordinates.edge import edge_atoms, edge_distance


def test_a_stiff_torsion_driven_outwards_comes_to_the_edge_and_is_named():
    fitted = case("CC(=O)NC").fitted
    atlas, chart = fitted.coordinates, fitted.coordinates.charts[0]
    torsions = torch.zeros(1, chart.n_torsions, dtype=torch.float64)
    d = chart.deviations(torch.zeros(1, chart.n_stiff, dtype=torch.float64))
    x, _ = chart.from_deviations(torsions, d)
    assert edge_distance(atlas, x)[0].item() < 0.7
    for row, atoms in enumerate(chart.stiff_torsions):
        # The place of this torsion among the deviations, which go by atom: its own are the last of its atom.
        place = int(torch.nonzero(chart._to_chain == len(d) - len(chart.stiff_torsions) + row)[0, 0])
        moved = d.clone()
        moved[place] += 2.5  # rad; the widest support has a half-width of π/2, and tanh(2.5 · 2/π) = 0.92
        y, _ = chart.from_deviations(torsions, moved)
        excess = chart.support_excess(y)[row].item()
        nearness, found = edge_distance(atlas, y)
        assert nearness.item() >= excess > 0.9
        if nearness.item() == excess:
            assert edge_atoms(atlas)[int(found)] == atoms


def test_of_several_charts_the_one_that_holds_a_structure_best_counts():
    atlas = two_puckers("C1CCCCC1").coordinates
    assert atlas.n_charts > 1
    d = torch.zeros(atlas.n_charts, atlas.n_stiff, dtype=torch.float64)
    x, _ = atlas.to_cartesian(torch.arange(atlas.n_charts), d[:, :0], d)
    alone = torch.stack([chart.support_excess(chart.canonical_images(x)).amax(0) for chart in atlas.charts])
    assert alone.max() > 0.95  # in the wrong chart a pucker lies at or beyond the edge
    assert edge_distance(atlas, x)[0].max() < 0.7


def test_angles_count_with_their_limits_and_atoms_all_in_line_have_none():
    straight = case("C#N").fitted
    x = torch.as_tensor(straight.conformers[:1]).permute(1, 2, 0)
    assert edge_distance(straight.coordinates, x)[0].item() < 0.7
    water = case("O").fitted
    x = torch.as_tensor(water.conformers[:1]).permute(1, 2, 0)
    nearness, row = edge_distance(water.coordinates, x)
    assert 0.1 < nearness.item() < 0.25  # 104° is 14° of 90° from a right angle
    assert len(edge_atoms(water.coordinates)[int(row)]) == 3
