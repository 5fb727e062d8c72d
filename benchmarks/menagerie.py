"""Systems for the zoo of damaged flows: a trained generator, its basins, and how the draws of a basin are shifted."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from damaged import Map, Members, Shifted, branch_of, turned
from numpy.typing import NDArray

import boltzgen
from boltzgen.analysis.torsions import BASINS, assign_basins, dihedral, is_positive_phi, ramachandran_pairs
from boltzgen.coordinates.layout import batch_last
from boltzgen.models.wells import Wells
from boltzgen.sampling.draw import BoltzmannGenerator
from boltzgen.selftest.check import learn
from boltzgen.selftest.modelled import many_well
from boltzgen.storage.atomic import open_hdf5
from boltzgen.storage.runs import RunDirectory
from boltzgen.storage.tree import get_tree
from boltzgen.target import Target
from boltzgen.workflow.probing import ProbeBudget
from boltzgen.workflow.stage import stored_summary

LEAST_SHARE = 0.01
"""Of the ensemble, from which on a basin counts."""

SHIFT = math.radians(40.0)
"""By which the torsions of a basin are turned."""

WELL_SHIFT = 1.0
"""By which a well of a model is moved: more than its width, 0.2, and less than the way to the other, 3.5."""

BARRIER = -0.0417
"""Of the many-well, between its wells."""


@dataclass(frozen=True)
class Basin:
    """A state that is to be damaged, and its share of the ensemble."""

    name: str
    share: float
    members: Members
    forth: Map | None
    back: Map | None

    @property
    def shifted(self) -> Shifted | None:
        """The damage of moving it, if there is a way."""
        return Shifted(self.members, self.forth, self.back) if self.forth and self.back else None


@dataclass(frozen=True)
class System:
    """A trained generator with its basins; of a molecule, conformers and what its probe may cost.

    ``seconds`` of its training.
    """

    name: str
    generator: BoltzmannGenerator
    basins: tuple[Basin, ...]
    seconds: float
    conformers: NDArray | None = None
    budget: ProbeBudget | None = None


Labels = Callable[[NDArray], NDArray[np.intp]]
"""A state for each structure."""


def basins_of(
    generator: BoltzmannGenerator,
    labels: Labels,
    name: Callable[[int], str],
    move: Callable[[NDArray, float], NDArray] | None,
    samples: int = 100_000,
) -> tuple[Basin, ...]:
    """States of at least :data:`LEAST_SHARE`, the largest first, by weighted samples of the honest flow."""
    drawn = generator.sample(samples, seed=[99, 1])
    state = labels(drawn.positions)
    w = np.exp(drawn.log_weight - drawn.log_weight.max())
    shares = np.bincount(state, w) / w.sum()
    found = []
    for k in np.argsort(-shares):
        if shares[k] >= LEAST_SHARE:
            members = partial(_in_state, labels, int(k))
            maps = (partial(move, by=1.0), partial(move, by=-1.0)) if move else (None, None)
            found.append(Basin(name(int(k)), float(shares[k]), members, *maps))
    return tuple(found)


def _in_state(labels: Labels, state: int, positions: NDArray) -> NDArray[np.bool_]:
    return labels(positions) == state


def many_wells(blocks: int, energies: int, seed: int) -> System:
    """2ⁿ wells; a shift moves the first coordinate inwards or out."""
    case = many_well(blocks, energies)
    started = time.process_time()
    generator = learn(case, seed, 1, lambda progress: None)
    seconds = time.process_time() - started
    powers = 1 << np.arange(blocks)
    right = Wells(1, 1.0, -6.0, -0.5).population(BARRIER)

    def labels(x: NDArray) -> NDArray[np.intp]:
        return (x[:, :, 0] > BARRIER) @ powers

    def move(x: NDArray, by: float) -> NDArray:
        moved = np.array(x, dtype=np.float64)
        moved[:, 0, 0] += by * WELL_SHIFT
        return moved

    def exact(k: int) -> float:
        rights = int(k).bit_count()
        return (1.0 - right) ** rights * right ** (blocks - rights)

    shares = sorted(((exact(k), k) for k in range(2**blocks)), reverse=True)
    basins = tuple(
        Basin(
            "".join("LR"[(k >> b) & 1] for b in range(blocks)),
            share,
            partial(_in_state, labels, k),
            partial(move, by=1.0),
            partial(move, by=-1.0),
        )
        for share, k in shares
        if share >= LEAST_SHARE
    )
    return System(f"many-well {2 * blocks}-D", generator, basins, seconds)


def peptide(name: str, run: Path) -> System:
    """Joint Ramachandran basins of all residues; a shift turns φ and ψ of the first residue."""
    generator = boltzgen.load(str(run))
    target = generator.target
    assert isinstance(target, Target)
    pairs = ramachandran_pairs(target.molecule.torsions)
    powers = len(BASINS) ** np.arange(len(pairs))

    def labels(x: NDArray) -> NDArray[np.intp]:
        return np.stack([assign_basins(dihedral(x, phi), dihedral(x, psi)) for _, phi, psi in pairs], axis=1) @ powers

    def named(k: int) -> str:
        return ", ".join(BASINS[(k // int(power)) % len(BASINS)] for power in powers)

    turn = _turn(target, [pairs[0][1], pairs[0][2]])
    basins = basins_of(generator, labels, named, turn)
    extra = []
    if len(pairs) == 1:
        _, phi, _ = pairs[0]
        drawn = generator.sample(100_000, seed=[99, 2])
        w = np.exp(drawn.log_weight - drawn.log_weight.max())
        states: dict[str, Members] = {
            "phi > 0": lambda x: is_positive_phi(dihedral(x, phi)),
            "C7ax": lambda x: labels(x) == BASINS.index("C7ax"),
        }
        for title, members in states.items():
            share = float(w @ members(drawn.positions) / w.sum())
            extra.append(Basin(title, share, members, partial(turn, by=1.0), partial(turn, by=-1.0)))
    return _system(name, run, generator, (*basins, *extra))


def ring(name: str, run: Path) -> System:
    """Shapes of the ring joined with the wells, 120° wide, of the slow torsions, whose first a shift turns."""
    generator = boltzgen.load(str(run))
    target = generator.target
    assert isinstance(target, Target)
    z = target.coordinates.zmatrix
    slow = z.slow[: len(z.slow) - len(z.rotors)]
    torsions = [tuple(int(column[row]) for column in (z.torsion, z.angle, z.bond, z.atom)) for row in slow]
    powers = 3 ** np.arange(len(torsions))

    def labels(x: NDArray) -> NDArray[np.intp]:
        shape = target.coordinates.assign(batch_last(x)).numpy().astype(np.intp)
        wells = [np.floor(np.mod(dihedral(x, atoms), 2.0 * np.pi) / (2.0 * np.pi / 3.0)) for atoms in torsions]
        joint = sum((np.minimum(w, 2).astype(np.intp) * p for w, p in zip(wells, powers, strict=True)), np.intp(0))
        return shape * 3 ** len(torsions) + joint

    def named(k: int) -> str:
        rest = [("+sc", "ap", "-sc")[(k // int(p)) % 3] for p in powers]
        return ", ".join([f"shape {k // 3 ** len(torsions) + 1}", *rest])

    move = _turn(target, torsions[:1]) if torsions else None
    return _system(name, run, generator, basins_of(generator, labels, named, move))


def _turn(target: Target, torsions: Sequence[Sequence[int]]) -> Callable[[NDArray, float], NDArray]:
    """Turn some bonds, each by :data:`SHIFT`; backwards in the opposite order."""
    turns = [((atoms[1], atoms[2]), branch_of(target.molecule.bonds, (atoms[1], atoms[2]))) for atoms in torsions]

    def move(x: NDArray, by: float) -> NDArray:
        for axis, branch in turns if by > 0.0 else reversed(turns):
            x = turned(x, axis, branch, by * SHIFT)
        return x

    return move


def _system(name: str, run: Path, generator: BoltzmannGenerator, basins: tuple[Basin, ...]) -> System:
    """With what ``analyze`` reads from the files of a run."""
    directory = RunDirectory(run)
    training = stored_summary(directory.flow_h5)
    with open_hdf5(directory.system_h5) as file:
        conformers = get_tree(file["conformers"])["positions"]
    with open_hdf5(directory.flow_h5) as file:
        history = get_tree(file["history"])
    budget = ProbeBudget.of(training["seconds"], history, generator.target.coordinates.shape[0])
    return System(name, generator, basins, training["seconds"], conformers, budget)
