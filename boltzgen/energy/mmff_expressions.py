"""MMFF94 written for OpenMM: one custom force for every term, in nm, kJ/mol and radians.

Whoever builds a System and whoever reads one both take the expressions from here, so that a System written by this
package is recognised by its text. The numbers are RDKit's: see :mod:`boltzgen.chemistry.mmff`.
"""

from __future__ import annotations

import math
from typing import NamedTuple

KILOCALORIE = 4.184
"""kJ."""

STRETCH_CUBIC = 20.0
"""−cs in nm⁻¹, where cs = −2 Å⁻¹."""

STRETCH_QUARTIC = 7.0 / 12.0 * STRETCH_CUBIC**2
"""7/12 cs² in nm⁻²."""

BEND_CUBIC = 0.006981317 * 180.0 / math.pi
"""−cb in rad⁻¹: cb is −0.4 rad⁻¹ in the paper, and −0.006981317 per degree, its rounded equal, in RDKit."""

COULOMB = 332.0716 * KILOCALORIE * 0.1
"""1/(4πε₀) in kJ nm/(mol e²), MMFF's own rounding."""

BUFFER = 0.005
"""Added to r in the Coulomb energy, nm."""

SCALE_14 = 0.75
"""Of the Coulomb energy of atoms three bonds apart; their 14-7 energy is not scaled."""


class CustomForm(NamedTuple):
    """A custom force of OpenMM: its class, the atoms in a term, the expression, the names of its parameters."""

    force: str
    n_atoms: int
    expression: str
    parameters: tuple[str, ...]


_WILSON_1 = "asin(sin(angle(p2,p1,p3))*sin(dihedral(p4,p1,p3,p2)))"
_WILSON_2 = "asin(sin(angle(p3,p1,p4))*sin(dihedral(p2,p1,p4,p3)))"
_WILSON_3 = "asin(sin(angle(p4,p1,p2))*sin(dihedral(p3,p1,p2,p4)))"

FORMS = {
    "MMFFBond": CustomForm(
        "CustomBondForce", 2, f"0.5*k*d^2*(1-{STRETCH_CUBIC}*d+{STRETCH_QUARTIC}*d^2); d=r-r0", ("k", "r0")
    ),
    "MMFFAngle": CustomForm("CustomAngleForce", 3, f"0.5*k*d^2*(1-{BEND_CUBIC}*d); d=theta-theta0", ("k", "theta0")),
    "MMFFLinearAngle": CustomForm(
        "CustomCompoundBondForce",
        3,
        "k*(1+cosine); cosine=(r1^2+r2^2-distance(p1,p3)^2)/(2*r1*r2); r1=distance(p1,p2); r2=distance(p3,p2)",
        ("k",),
    ),
    "MMFFStretchBend": CustomForm(
        "CustomCompoundBondForce",
        3,
        "(k1*(distance(p1,p2)-r1)+k2*(distance(p3,p2)-r2))*(angle(p1,p2,p3)-theta0)",
        ("k1", "k2", "r1", "r2", "theta0"),
    ),
    "MMFFOutOfPlane": CustomForm(
        "CustomCompoundBondForce",
        4,
        f"0.5*k*(chi1^2+chi2^2+chi3^2); chi1={_WILSON_1}; chi2={_WILSON_2}; chi3={_WILSON_3}",
        ("k",),
    ),
    "MMFFTorsion": CustomForm(
        "CustomTorsionForce",
        4,
        "0.5*(v1*(1+cos(theta))+v2*(1-cos(2*theta))+v3*(1+cos(3*theta)))",
        ("v1", "v2", "v3"),
    ),
    "MMFFNonbonded": CustomForm(
        "CustomBondForce",
        2,
        f"epsilon*(1.07*rstar/(r+0.07*rstar))^7*(1.12*rstar^7/(r^7+0.12*rstar^7)-2)+{COULOMB}*qq/(r+{BUFFER})",
        ("rstar", "epsilon", "qq"),
    ),
}
"""By the name of the force, which is the name of its torch term in :mod:`boltzgen.energy.mmff` too."""
