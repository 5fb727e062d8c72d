"""Weights of states against integrals: of a common well, of a rare one, and from frames that do not suffice."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from one_torsion import KT, OneTorsion

from boltzgen.analysis.torsions import dihedral
from boltzgen.probe.weight import weigh_state

SIGMAS = 4.0
TERMS = ((3, 0.0, 10.0), (1, 1.0, 4.0))
WELLS = {"trans": (lambda phi: np.abs(phi) > 2.0 * np.pi / 3.0), "gauche": (lambda phi: (phi > 0) & (phi < 2.09))}


@pytest.fixture(scope="module")
def triple():
    """Three wells of different depth, with barriers of 8 kT."""
    return OneTorsion(*TERMS)


def exact_log_z(system, inside):
    phi = np.linspace(-np.pi, np.pi, 72_001)
    density = np.exp(-sum(k * (1.0 + np.cos(n * phi - phase)) for n, phase, k in TERMS) / KT)
    return system.log_z + np.log(density[inside(phi)].sum() / density.sum())


def structures(system, n, inside):
    x = system.draw(4000, seed=1).permute(2, 0, 1).numpy()
    return x[inside(dihedral(x, (0, 1, 2, 3)))][:n]


@pytest.mark.parametrize("name", list(WELLS))
def test_the_weight_of_a_well_is_its_integral_whatever_its_share_of_the_structures(triple, name):
    inside = WELLS[name]
    x = structures(triple, 40, inside)

    def contains(positions):
        return inside(dihedral(positions, (0, 1, 2, 3)))

    weighed = weigh_state(triple.target, x, np.arange(40), contains, torch.Generator().manual_seed(0))
    assert weighed.log_z.stderr < 0.1
    assert abs(weighed.log_z.value - exact_log_z(triple, inside)) < SIGMAS * weighed.log_z.stderr


def test_a_state_that_dynamics_leaves_at_once_is_not_weighed(triple):
    x = structures(triple, 20, WELLS["trans"])
    none = weigh_state(triple.target, x, np.arange(20), lambda p: np.zeros(len(p), bool), torch.Generator())
    assert none.log_z.stderr is None
