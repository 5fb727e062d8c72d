"""What a worker process runs: it receives coordinates, and answers with the energies and gradients of OpenMM.

Started as a script, by path, so that it imports neither torch nor the package. A connection carries, in this order:

- once, the settings: JSON with ``path`` (of modules) and ``system`` (XML);
- again and again, a block: eight bytes, the first 1 if gradients are wanted, then coordinates ``(n, atoms, 3)`` in nm;
- the answer to it: ``+``, energies ``(n,)`` in kJ/mol and the gradients ``(n, atoms, 3)`` in kJ/mol/nm if wanted; or
  ``-`` and what is wrong with the System, in words. Numbers are float64.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

HEADER = 8
"""Bytes before the coordinates of a block: they stay aligned."""

SMALL = 100
"""Atoms below which OpenMM's Reference platform is faster than its CPU platform."""


class Evaluator:
    """Energies and gradients of one System on the platform that is fastest for it."""

    def __init__(self, system_xml: str) -> None:
        import openmm

        self._openmm = openmm
        self._system = openmm.XmlSerializer.deserialize(system_xml)
        self._shape = (self._system.getNumParticles(), 3)
        self._context = self._new_context()

    def answer(self, block: bytes) -> bytes:
        """The answer to a block. A sample that cannot be computed has energy +inf and gradient zero."""
        import numpy as np

        with_gradient = block[0] == 1
        frames = np.frombuffer(block, offset=HEADER).reshape(-1, *self._shape)
        energy = np.full(len(frames), np.inf)
        gradient = np.zeros((len(frames) if with_gradient else 0, *self._shape))
        for index, frame in enumerate(frames):
            if not np.isfinite(frame).all():
                continue
            state = self.state(frame, with_gradient)
            if state and all(np.isfinite(part).all() for part in state):
                energy[index], gradient[index : index + 1] = state
        return b"+" + energy.tobytes() + gradient.tobytes()

    def state(self, frame: Any, with_gradient: bool) -> tuple[Any, Any] | None:
        """Energy, and gradient or zero, of one frame ``(atoms, 3)``; None if OpenMM raises an exception."""
        unit = self._openmm.unit
        try:
            self._context.setPositions(frame)
            state = self._context.getState(getEnergy=True, getForces=with_gradient)
            energy = state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole)
            if not with_gradient:
                return energy, 0.0
            force = state.getForces(asNumpy=True).value_in_unit(unit.kilojoule_per_mole / unit.nanometer)
            return energy, -force
        except self._openmm.OpenMMException:
            self._context = self._new_context()  # what an exception left behind is not relied on
            return None

    def _new_context(self) -> Any:
        platforms = self._openmm.Platform
        names = {platforms.getPlatform(index).getName() for index in range(platforms.getNumPlatforms())}
        if "CUDA" in names:
            try:
                return self._context_on("CUDA", {"Precision": "double", "DeterministicForces": "true"})
            except self._openmm.OpenMMException:
                pass  # the platform is installed, but there is no such device
        return (
            self._context_on("Reference", {}) if self._shape[0] < SMALL else self._context_on("CPU", {"Threads": "1"})
        )

    def _context_on(self, name: str, properties: dict[str, str]) -> Any:
        mm = self._openmm
        return mm.Context(self._system, mm.VerletIntegrator(0.001), mm.Platform.getPlatformByName(name), properties)


def serve(connection: Connection) -> None:
    """Answer blocks until the other end is closed."""
    settings = json.loads(connection.recv_bytes())
    sys.path[:] = settings["path"]
    evaluator = None
    while True:
        block = connection.recv_bytes()
        try:
            evaluator = evaluator or Evaluator(settings["system"])
            answer = evaluator.answer(block)
        except Exception as error:
            answer = b"-" + f"{type(error).__name__}: {error}".encode()
        connection.send_bytes(answer)


def _end_with(parent: int) -> None:
    """End this process when its parent has ended, however that came about."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(0)


def main(descriptor: int, parent: int) -> None:
    """Serve on an inherited file descriptor; Ctrl-C in the terminal is for the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    with suppress(EOFError, OSError):  # the parent has closed its end
        serve(Connection(descriptor))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
