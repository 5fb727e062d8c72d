"""Boltzmann generator: from a molecule to independent, weighted equilibrium samples.

The library face has one entry point::

    import boltzgen

    generator = boltzgen.load("alanine_dipeptide.run")
    samples = generator.sample(1000)
    samples.positions, samples.log_weight
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from boltzgen.sampling.draw import BoltzmannGenerator

__version__ = "0.1.0"

__all__ = ["__version__", "load"]


def load(run: str | Path) -> BoltzmannGenerator:
    """Open a trained run directory: its target, its flow, and ``sample(n)``.

    Raises
    ------
    boltzgen.errors.InputError
        If the directory lacks ``system.h5`` or ``flow.h5``.
    boltzgen.errors.ConflictError
        If they do not belong together.
    """
    from boltzgen.workflow import load_generator  # imported late: torch takes seconds to import

    return load_generator(run)
