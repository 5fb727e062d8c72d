"""Amides: which bonds are one, and how often they are cis."""

from __future__ import annotations

import numpy as np
import pytest

from boltzgen.analysis.census import amide_torsions, cis_shares


def built(smiles):
    from boltzgen.chemistry.build import build
    from boltzgen.chemistry.read import read_input

    return build(read_input(smiles=smiles)).molecule


def test_amides_of_a_peptide_have_their_names(dipeptide):
    assert sorted(amide_torsions(dipeptide.molecule)) == ["omega:ACE1", "omega:ALA2"]


@pytest.mark.parametrize(
    ("smiles", "count"),
    [("CC(=O)NC", 1), ("CC(=O)N(C)C", 1), ("O=CNC", 1), ("CC(=O)N", 0), ("O=C1CCCN1", 0), ("CC(=O)OC", 0), ("CNC", 0)],
)
def test_an_amide_has_one_end_oxygen_two_sides_and_is_in_no_ring(smiles, count):
    assert len(amide_torsions(built(smiles))) == count


def test_the_cis_share_is_that_of_the_weights(dipeptide):
    molecule = dipeptide.molecule
    trans = np.asarray(dipeptide.positions)
    (a, b, c, d) = molecule.torsions["omega:ALA2"]
    cis = trans.copy()
    cis[d] = trans[b] + (trans[c] - trans[b]) + (trans[a] - trans[b])  # on the side of the first atom
    positions = np.stack([cis] * 300 + [trans] * 700)
    log_w = np.zeros(1000)
    log_w[:300] = np.log(2.0)
    share = cis_shares(molecule, positions, log_w, np.random.default_rng(0))["omega:ALA2"]
    assert share.value == pytest.approx(600 / 1300)
