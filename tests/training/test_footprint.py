"""The estimate of memory: it counts what it says, and grows with what makes a training large."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from boltzgen.flow.architecture import Architecture
from boltzgen.flow.generator import Generator
from boltzgen.training.footprint import _saved_bytes, training_memory
from boltzgen.training.method import ANNEALED, DATA, ENERGY
from boltzgen.training.replay import REPLAY_CAPACITY

CPU = torch.device("cpu")


def test_what_is_saved_grows_by_the_sample(dipeptide_target):
    """The extrapolation from a few samples to a part of a batch is that of a straight line."""
    coordinates = dipeptide_target.coordinates
    generator = Generator(Architecture(coordinates.n_torsions, coordinates.n_stiff))
    single = dipeptide_target.to(torch.float32)
    few, more, many = (_saved_bytes(generator, single, n) for n in (16, 32, 512))
    # Buffers that are padded to lanes of the kernels make it straight to a few per cent only.
    assert many == pytest.approx(few + (more - few) / 16 * (512 - 16), rel=0.05)


def test_threads_and_devices_with_larger_parts_take_more(dipeptide_target):
    coordinates = dipeptide_target.coordinates
    architecture = Architecture(coordinates.n_torsions, coordinates.n_stiff)
    one, two, four = (training_memory(dipeptide_target, architecture, CPU, n, draws=1e5) for n in (1, 2, 4))
    assert 1.3 * one < two == four  # a batch has two parts
    assert training_memory(dipeptide_target, architecture, CPU, 4, draws=5e6) > 1.3 * four  # a longer one has more
    weights = 4 * sum(p.numel() for p in Generator(architecture).parameters())
    assert one > 6 * weights


def test_each_method_is_estimated_by_what_it_computes(dipeptide_target):
    architecture = Architecture.of(dipeptide_target.coordinates)
    annealed, energy, data = (
        training_memory(dipeptide_target, architecture, CPU, 1, method) for method in (ANNEALED, ENERGY, DATA)
    )
    assert data < annealed  # no energies
    assert 0.5 * annealed < energy < 2.0 * annealed
    assert training_memory(dipeptide_target, architecture, CPU, 1, replace(ANNEALED, spread=1.0)) > 1.2 * annealed


def test_what_is_remembered_of_other_temperatures_is_counted(dipeptide_target):
    architecture = Architecture.of(dipeptide_target.coordinates)
    all_of_them, one = (
        training_memory(dipeptide_target, architecture, CPU, 1, method)
        for method in (ANNEALED, replace(ANNEALED, hot_share=0.0))
    )
    draw = torch.int64.itemsize + 4 * (architecture.n_torsions + 2)  # a label; torsions, a heat and a log weight
    assert all_of_them - one >= 12 * 0.2 * REPLAY_CAPACITY * draw  # a fifth of the draws at twelve temperatures
