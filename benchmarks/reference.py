"""Series of torsions from independent chains at one temperature, what of them a flow can give, and populations.

``training.py reference`` and ``replica_exchange.py`` write such files, ``compare.py`` reads them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rdkit import Chem

from boltzgen.analysis.torsions import dihedral
from boltzgen.molecule import Molecule
from boltzgen.target import Target

OTHER = "another part of the support"


@dataclass(frozen=True)
class Reference:
    """Unweighted series at ``temperature`` in K.

    ``torsions``: radians ``(chains, frames)``, by names as in ``Molecule.torsions``, ring torsions as ``ring:…``.
    ``outside (chains, frames)``: 0 where the flow can give the frame, else 1 + the index of the reason in ``reasons``.
    """

    temperature: float
    torsions: dict[str, np.ndarray]
    outside: np.ndarray
    reasons: tuple[str, ...]

    def save(self, path: Path, **others: Any) -> None:
        """One npz file, with ``others`` beside the series."""
        np.savez_compressed(
            path,
            **others,
            temperature=self.temperature,
            outside=self.outside,
            reasons=np.array(self.reasons, dtype=str),
            **{f"torsion {name}": values for name, values in self.torsions.items()},
        )

    @classmethod
    def load(cls, path: Path) -> Reference:
        stored = np.load(path)
        torsions = {key.removeprefix("torsion "): stored[key] for key in stored.files if key.startswith("torsion ")}
        return cls(float(stored["temperature"]), torsions, stored["outside"], tuple(stored["reasons"].tolist()))

    def in_blocks(self, blocks: int) -> Reference:
        """Each chain cut into ``blocks`` consecutive ones, for errors from few long chains."""
        length = self.outside.shape[1] // blocks

        def cut(values: np.ndarray) -> np.ndarray:
            return values[:, : blocks * length].reshape(-1, length)

        torsions = {name: cut(values) for name, values in self.torsions.items()}
        return Reference(self.temperature, torsions, cut(self.outside), self.reasons)

    def population(self, inside: np.ndarray) -> tuple[float, float]:
        """Share of the frames in the support that are ``inside (chains, frames)``, with its standard error.

        A ratio of sums over chains, with the error of its linearised residuals. A state that no chain visits or
        leaves gets the error 1/chains: each is worth one independent frame at least.
        """
        kept = self.outside == 0
        counts, hits = kept.sum(axis=1), (inside & kept).sum(axis=1)
        value = hits.sum() / counts.sum()
        residuals = (hits - value * counts) / counts.mean()
        error = residuals.std(ddof=1) / np.sqrt(len(residuals)) if 0 < value < 1 else 1 / len(residuals)
        return float(value), float(error)

    def left_out(self) -> str:
        """How many frames are outside the support, and why."""
        counts = np.bincount(self.outside.reshape(-1), minlength=1 + len(self.reasons))[1:]
        named = ", ".join(f"{reason} {n}" for reason, n in zip(self.reasons, counts.tolist(), strict=True) if n)
        return f"{counts.sum()} of {self.outside.size} frames are outside the flow's support and left out. {named}"


class Recorder:
    """Collects torsions and reasons from batches of positions, one frame of all chains at a time."""

    def __init__(self, target: Target, structure: np.ndarray) -> None:
        """``structure (atoms, 3)`` nm: with the configuration that the target holds."""
        self.target = target
        self.torsions = target.molecule.torsions | ring_torsions(target.molecule)
        self.landmarks = Landmarks(target.molecule, structure)
        self.reasons: list[str] = []
        self._torsions: dict[str, list[np.ndarray]] = {name: [] for name in self.torsions}
        self._outside: list[np.ndarray] = []

    def __call__(self, x: torch.Tensor) -> None:
        """Take positions ``(atoms, 3, chains)`` in nm."""
        x = x.double()
        frames = x.permute(2, 0, 1).numpy()
        for name, atoms in self.torsions.items():
            self._torsions[name].append(dihedral(frames, atoms).astype(np.float32))
        outside = np.zeros(len(frames), dtype=np.int16)
        lost = np.flatnonzero(~in_support(self.target, x))
        for index, reason in zip(lost, self.landmarks.reasons(frames[lost]), strict=True):
            if reason not in self.reasons:
                self.reasons.append(reason)
            outside[index] = 1 + self.reasons.index(reason)
        self._outside.append(outside)

    def reference(self, temperature: float, kept: np.ndarray) -> Reference:
        """All that was taken, of the chains ``kept (chains,)``."""
        torsions = {name: np.array(values).T[kept] for name, values in self._torsions.items()}
        return Reference(temperature, torsions, np.array(self._outside).T[kept], tuple(self.reasons))


def in_support(target: Target, x: torch.Tensor) -> np.ndarray:
    """Whether the coordinates reach positions ``(atoms, 3, batch)`` in float64."""
    return target.coordinates.is_in_support(x).numpy()


def ring_torsions(molecule: Molecule) -> dict[str, tuple[int, ...]]:
    """Torsions about the bonds of rings that pucker: of five atoms or more, two bonded ones not planar."""
    graph = Chem.RWMol()
    for number in molecule.atomic_numbers:
        graph.AddAtom(Chem.Atom(number))
    for i, j in molecule.bonds:
        graph.AddBond(i, j, Chem.BondType.SINGLE)
    found = {}
    for ring in map(tuple, Chem.GetSymmSSSR(graph)):
        chains = [(ring + ring)[k : k + 4] for k in range(len(ring))]
        if len(ring) >= 5 and any(not {b, c} & set(molecule.planar_atoms) for _, b, c, _ in chains):
            for atoms in chains:
                found["ring:" + "-".join(molecule.atom_names[i] for i in atoms)] = atoms
    return found


class Landmarks:
    """What a molecule must do to leave the support of its coordinates, as names."""

    def __init__(self, molecule: Molecule, structure: np.ndarray) -> None:
        neighbours = molecule.neighbours
        self.names = molecule.atom_names
        in_ring = {frozenset(atoms[1:3]) for atoms in ring_torsions(molecule).values()}
        self.bonds = [
            (next(k for k in neighbours[i] if k != j), i, j, next(k for k in neighbours[j] if k != i))
            for i, j in molecule.rigid_bonds
            if frozenset((i, j)) not in in_ring and min(len(neighbours[i]), len(neighbours[j])) > 1
        ]
        self.centres = [
            (i, *near[:3]) for i, near in enumerate(neighbours) if len(near) > 2 and i not in molecule.planar_atoms
        ]
        self.trans = [dihedral(structure[None], bond) for bond in self.bonds]
        self.hands = [self._hand(structure[None], centre) for centre in self.centres]

    def reasons(self, frames: np.ndarray) -> list[str]:
        """Turned rigid bonds and inverted centres of frames ``(n, atoms, 3)``, as against the structure."""
        found: list[list[str]] = [[] for _ in frames]
        for bond, angle in zip(self.bonds, self.trans, strict=True):
            for k in np.flatnonzero(np.cos(dihedral(frames, bond) - angle) < 0):
                found[k].append(f"{self.names[bond[1]]}-{self.names[bond[2]]} turned")
        for centre, hand in zip(self.centres, self.hands, strict=True):
            for k in np.flatnonzero(self._hand(frames, centre) != hand):
                found[k].append(f"{self.names[centre[0]]} inverted")
        return [" and ".join(names) or OTHER for names in found]

    @staticmethod
    def _hand(frames: np.ndarray, centre: tuple[int, ...]) -> np.ndarray:
        """Sign of the volume that three bonds of an atom span."""
        return np.sign(np.linalg.det(frames[:, centre[1:]] - frames[:, centre[:1]]))
