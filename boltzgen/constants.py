"""Physical constants in the units of the package: nm, kJ/mol, K, e."""

from __future__ import annotations

GAS_CONSTANT = 0.00831446261815324
"""kB in kJ/mol/K (CODATA 2018, exact)."""

COULOMB = 138.93545764438198
"""1/(4 π ε₀) in kJ nm / (mol e²), the value that OpenMM uses."""


def thermal_energy(temperature: float) -> float:
    """Return kT in kJ/mol for a temperature in K."""
    return GAS_CONSTANT * temperature
