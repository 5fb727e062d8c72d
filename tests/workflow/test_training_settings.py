"""From settings to methods and reaction coordinates, and what is refused."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from boltzgen.config import TrainConfig
from boltzgen.errors import InputError
from boltzgen.flow.architecture import Architecture
from boltzgen.progress import SilentReporter
from boltzgen.storage.atomic import write_hdf5
from boltzgen.storage.trajectory import Frames, fill_trajectory
from boltzgen.training.method import ANNEALED, DATA, ENERGY
from boltzgen.workflow.learning import load_data, method_of, reaction_coordinate
from boltzgen.workflow.train import PRESETS, energy_budget


def test_settings_name_the_method(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.dcd").write_bytes(b"")
    assert method_of(TrainConfig()) == ANNEALED
    assert method_of(TrainConfig(method="energy", data_weight=0.3)) == ENERGY  # no data, no share of theirs
    assert method_of(TrainConfig(method="data", data=("x.dcd",), data_weight=0.3)) == DATA
    mixed = method_of(TrainConfig(data=("x.dcd",), data_weight=0.3, rc="phi:ALA2", rc_weight=2.0))
    assert (mixed.own, mixed.replay, mixed.data, mixed.spread) == (0.7, 0.7, 0.3, 2.0)
    with pytest.raises(InputError, match="Give --data FILE"):
        method_of(TrainConfig(method="data"))


def test_budget_of_data_is_ten_draws_of_each_frame_unless_given(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.dcd").write_bytes(b"")
    data = {"method": "data", "data": ("x.dcd",)}
    plain = Architecture(n_torsions=3, n_stiff=9)
    assert energy_budget(TrainConfig(**data), plain, 1000) == 10_000
    assert energy_budget(TrainConfig(**data), plain, 10**8) == PRESETS["standard"]
    assert energy_budget(TrainConfig(**data, max_energies=5), plain, 1000) == 5
    assert energy_budget(TrainConfig(**data, time_budget=60.0), plain, 1000) is None
    assert energy_budget(TrainConfig(), plain, 1000) == PRESETS["standard"]


def test_a_preset_lasts_as_long_where_draws_take_many_energies():
    plain = Architecture(n_torsions=3, n_stiff=9)
    dear = replace(plain, levers=(1,))

    def points(of: Architecture) -> float:
        return energy_budget(TrainConfig(), of) * (1.0 - of.exchange_share) / of.energies_per_point

    assert points(dear) * dear.cost_of_point == pytest.approx(points(plain), rel=1e-6)
    assert energy_budget(TrainConfig(max_energies=5), dear) == 5


def test_reaction_coordinates_by_name_and_by_atoms(dipeptide):
    molecule = dipeptide.molecule
    phi = reaction_coordinate(TrainConfig(rc="phi:ALA2"), molecule)
    assert phi.atoms == molecule.torsions["phi:ALA2"]
    assert phi.is_circle
    part = reaction_coordinate(TrainConfig(rc="4-6-8-14", rc_range=(0.0, 90.0)), molecule)
    assert (part.atoms, part.low, part.high) == ((4, 6, 8, 14), 0.0, pytest.approx(math.pi / 2))
    assert not part.is_circle
    distance = reaction_coordinate(TrainConfig(rc="0-5", rc_range=(0.3, 0.8)), molecule)
    assert (distance.atoms, distance.low, distance.high) == ((0, 5), 0.3, 0.8)
    assert reaction_coordinate(TrainConfig(), molecule) is None


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"rc": "phi:ALA3"}, "Did you mean phi:ALA2?"),
        ({"rc": "0-1-2-99"}, "must be different atoms from 0 to 21"),
        ({"rc": "0-1-2-2"}, "must be different atoms"),
        ({"rc": "0-1-2"}, "no torsion has this name"),
        ({"rc": "0-5"}, "a distance needs train.rc_range"),
        ({"rc": "0-5", "rc_range": (-0.1, 0.8)}, "a distance needs train.rc_range"),
        ({"rc": "0-5", "rc_range": (0.8, 0.3)}, "must be two numbers, the lower first"),
        ({"rc": "phi:ALA2", "rc_range": (0.0,)}, "must be two numbers, the lower first"),
        ({"rc": "phi:ALA2", "rc_range": (-180.0, 270.0)}, "360 degrees at most"),
    ],
)
def test_a_coordinate_that_is_not_there_is_refused_in_one_line(dipeptide, settings, says):
    with pytest.raises(InputError) as caught:
        reaction_coordinate(TrainConfig(**settings), dipeptide.molecule)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_range_of_no_coordinate_is_refused():
    with pytest.raises(InputError, match="range of no reaction coordinate"):
        method_of(TrainConfig(rc_range=(0.0, 90.0)))


class Notes(SilentReporter):
    def __init__(self):
        self.warnings = []

    def warn(self, message):
        self.warnings.append(message)


def write_frames(path, molecule, positions, log_weight):
    n = len(positions)
    frames = Frames(positions.astype(np.float32), np.zeros(n), -log_weight, log_weight)
    write_hdf5(path, lambda file: fill_trajectory(file, molecule, frames, 300.0))
    return str(path)


def test_files_count_by_their_length_and_few_effective_frames_are_warned_of(dipeptide, dipeptide_target, tmp_path):
    """Unnormalised weights of two files have nothing to do with each other."""
    rng = np.random.default_rng(0)
    positions = dipeptide.positions + rng.normal(0.0, 0.002, (40, *dipeptide.positions.shape))
    one = write_frames(tmp_path / "one.h5", dipeptide.molecule, positions[:30], np.full(30, 500.0))
    two = write_frames(tmp_path / "two.h5", dipeptide.molecule, positions[30:], np.full(10, -500.0))
    notes = Notes()
    data = load_data(TrainConfig(data=(one, two)), dipeptide_target, notes)
    assert data.summary == {"frames": 40, "frames_inside": 40, "ess": pytest.approx(40.0), "outside": {}}
    assert any("40 effective frames, too few" in warning for warning in notes.warnings)


def test_mirror_images_are_named_by_the_stereocentre(dipeptide, dipeptide_target, tmp_path):
    rng = np.random.default_rng(0)
    positions = dipeptide.positions + rng.normal(0.0, 0.002, (20, *dipeptide.positions.shape))
    positions[:5, :, 2] *= -1.0
    path = write_frames(tmp_path / "some.h5", dipeptide.molecule, positions, np.zeros(20))
    notes = Notes()
    data = load_data(TrainConfig(data=(path,)), dipeptide_target, notes)
    assert (data.summary["frames"], data.summary["frames_inside"]) == (20, 15)
    assert all(reason.startswith("torsion ") and "CA" in reason for reason in data.summary["outside"])
    assert any("5 of 20 frames lie outside the support and are left out" in warning for warning in notes.warnings)
    positions[:, :, 2] *= np.where(np.arange(20) < 5, 1.0, -1.0)[:, None]
    path = write_frames(tmp_path / "all.h5", dipeptide.molecule, positions, np.zeros(20))
    with pytest.raises(InputError, match=r"0 of 20 frames lie in the support of the coordinates \(torsion"):
        load_data(TrainConfig(data=(path,)), dipeptide_target, Notes())


def test_frames_without_any_weight_are_refused(dipeptide, dipeptide_target, tmp_path):
    positions = np.repeat(dipeptide.positions[None], 12, axis=0)
    path = write_frames(tmp_path / "none.h5", dipeptide.molecule, positions, np.full(12, -np.inf))
    with pytest.raises(InputError, match="with a weight"):
        load_data(TrainConfig(data=(path,)), dipeptide_target, Notes())
