"""The cases of the self-test: those of a minute, and the longer list."""

from __future__ import annotations

from functools import partial

from boltzgen.models.wells import Wells
from boltzgen.selftest import modelled, springs
from boltzgen.selftest.case import Case
from boltzgen.selftest.harmonic import cold_methanol

Maker = partial[Case]

QUICK_SAMPLES, SAMPLES = 20_000, 50_000

QUICK: tuple[Maker, ...] = (
    partial(springs.diatomic, 10_000),
    partial(springs.water, 20_000),
    partial(springs.formyl_fluoride, 30_000),
    partial(springs.polymer, 50_000),
    partial(cold_methanol, 60_000),
    partial(modelled.xy_ring, 8, 1.0, 60_000),
    partial(modelled.double_well, 60_000),
    partial(modelled.mueller_brown, 15.0, 60_000),
    partial(modelled.mixture, 60_000),
    partial(modelled.lennard_jones, 1.0, 40_000),
    partial(modelled.square_well, 1.0, 40_000),
)
"""Cheap and telling ones first."""

LONGER: tuple[Maker, ...] = (
    partial(modelled.xy_ring, 4, 1.0, 100_000),
    partial(modelled.xy_ring, 8, 0.5, 100_000),
    partial(modelled.xy_ring, 8, 2.0, 400_000),
    partial(modelled.wells, "flat double well", Wells(1, 0.25, -3.0, 1.0), 0.0, 100_000),
    partial(modelled.many_well, 2, 100_000),
    partial(modelled.many_well, 4, 150_000),
    partial(modelled.many_well, 16, 300_000),
    partial(modelled.mueller_brown, 10.0, 300_000),
    partial(modelled.mueller_brown, 40.0, 100_000),
    partial(modelled.lennard_jones, 0.7, 100_000),
)
"""What the full self-test has beside the quick ones."""


def cases(*, quick: bool) -> tuple[Maker, ...]:
    """How to make each case; making one may take a second."""
    return QUICK if quick else QUICK + LONGER


def call_of(make: Maker) -> str:
    """What makes the case, for a name when it fails to."""
    return f"{make.func.__name__}{make.args}"
