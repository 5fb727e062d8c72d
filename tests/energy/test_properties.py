"""Random expressions and random Systems agree with OpenMM; runs repeat, as the examples are drawn without a seed."""

from __future__ import annotations

import math
from itertools import combinations, pairwise

import numpy as np
import openmm
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from boltzgen.energy import PotentialEnergy, from_openmm
from boltzgen.energy.expression import Expression
from boltzgen.energy.parity import openmm_energies

DOUBLE = 2.5e-6
"""kJ/mol: 1e-6 kT; rounding of sums of about 1e5 is 1e-11 in either program."""

RELATIVE = 1e-6
"""Of the largest force."""

# Functions whose arguments are kept where all is finite and smooth: OpenMM never ends on a constant that is NaN, and
# a step may be taken either way at its very edge.
CALLS = [
    *("sin({0})", "cos({0})", "tan(sin({0}))", "sec(sin({0}))", "csc(2+sin({0}))", "cot(2+cos({0}))"),
    *("asin(0.9*sin({0}))", "acos(0.9*cos({0}))", "atan({0})", "atan2({0},1+square({1}))"),
    *("exp(sin({0}))", "log(1+abs({0}))", "sqrt(1+abs({0}))", "sinh(sin({0}))", "cosh(cos({0}))", "tanh({0})"),
    *("erf({0})", "erfc({0})", "square(sin({0}))", "cube(cos({0}))", "recip(2+sin({0}))", "abs({0})"),
    *("floor({0}+0.1234567)", "ceil({0}-0.7654321)", "step({0}-0.3141592)", "delta(2+sin({0}))"),
    *("min({0},{1})", "max({0},{1})", "min(1/abs({0}+4.56),{1})", "select(step({0}+0.2718281),{1},{0})"),
    *("select(step(x-0.5),sqrt(x-0.5)*{0},{1})", "select(delta({0}+0.55),1/({0}+0.55)-{1},log(2+sin({1})))"),
    *("(1+abs({0}))^tanh({1})", "(2+sin({0}))^-1.7", "(2+cos({0}))^-3", "sin({0})^4*cos({1})^5", "2^sin({0})"),
]
OPERATORS = ["{0}+{1}", "{0}-{1}", "{0}*{1}", "-{0}", "- {0} * -{1}", "({0})", "{0}/(1+square({1}))", "({0}-{1})/3"]
POWERS = ["{0}^2", "-{0}^3", "{0}^2^2", "2^-{0}", "{0}^1", "{0}^0", "(2+{0})^-2"]
NAMES = ["a", "b1", "c_d"]


def filled(templates, part):
    return st.builds(lambda template, *parts: template.format(*parts), st.sampled_from(templates), part, part)


def texts(names):
    atom = st.sampled_from([*names, "1.5", "0.25", ".75", "2e-1"])
    leaf = atom | filled(POWERS, st.sampled_from(["x", "y", "z"]))
    return st.recursive(leaf, lambda part: filled(CALLS, part) | filled(OPERATORS, part), max_leaves=6)


@st.composite
def expressions(draw):
    """An expression and definitions, each of which uses only those after it."""
    definitions = [f"{name}={draw(texts(['x', 'y', 'z', *NAMES[k + 1 :]]))}" for k, name in enumerate(NAMES)]
    return "; ".join([draw(texts(["x", "y", "z", *NAMES])), *definitions])


@settings(max_examples=250, derandomize=True, deadline=None, database=None)
@given(expressions(), st.tuples(*[st.floats(-1.5, 1.5, width=32).filter(lambda v: abs(v) > 1e-3)] * 3))
def test_random_expressions_agree(text, point):
    force = openmm.CustomExternalForce(text)
    force.addParticle(0, [])
    system = openmm.System()
    system.addParticle(1.0)
    system.addForce(force)
    energy, forces = openmm_energies(system, np.array([[point]]))
    x = torch.tensor(point, dtype=torch.float64, requires_grad=True)
    value = Expression(text, "xyz")(dict(zip("xyz", x, strict=True)))
    slope = torch.autograd.grad(value, x)[0].numpy() if value.requires_grad else np.zeros(3)
    # Rounding of at most some hundred operations on numbers of up to 1e4.
    assert value.item() == pytest.approx(energy[0], rel=1e-9, abs=1e-9)
    assert -slope == pytest.approx(forces[0, 0], rel=1e-8, abs=1e-8)


class Draw:
    """Random atoms and interactions of a small System."""

    def __init__(self, n_atoms, seed):
        self.rng = np.random.default_rng(seed)
        self.n = n_atoms
        lattice = np.stack(np.unravel_index(self.rng.permutation(8)[:n_atoms], (2, 2, 2)), axis=1)
        self.positions = 0.22 * lattice + self.rng.uniform(-0.05, 0.05, (n_atoms, 3))

    def groups(self, size):
        """Up to four groups of atoms in random order, none of which is nearly straight."""
        chosen = [self.rng.permutation(group) for group in combinations(range(self.n), size)]
        self.rng.shuffle(chosen)
        return [group.tolist() for group in chosen if self.is_bent(group)][:4]

    def is_bent(self, group):
        steps = np.diff(self.positions[group], axis=0)
        steps /= np.linalg.norm(steps, axis=1)[:, None]
        return all(np.linalg.norm(np.cross(u, v)) > 0.3 for u, v in pairwise(steps))

    def number(self, low, high):
        return float(self.rng.uniform(low, high))

    def one_of(self, *options):
        return options[self.rng.integers(len(options))]


def harmonic_bonds(draw):
    force = openmm.HarmonicBondForce()
    for i, j in draw.groups(2):
        force.addBond(i, j, draw.number(0.1, 0.3), draw.number(10, 3e4))
    return force


def harmonic_angles(draw):
    force = openmm.HarmonicAngleForce()
    for group in draw.groups(3):
        force.addAngle(*group, draw.number(1.5, math.pi), draw.number(10, 500))
    return force


def periodic_torsions(draw):
    force = openmm.PeriodicTorsionForce()
    for group in draw.groups(4):
        for periodicity in (1, 2, 3):
            force.addTorsion(*group, periodicity, draw.number(-math.pi, math.pi), draw.number(-10, 20))
    return force


def nonbonded(draw):
    force = openmm.NonbondedForce()
    for _ in range(draw.n):
        force.addParticle(draw.number(-1, 1), draw.number(0.1, 0.3), draw.one_of(0.0, draw.number(0, 1)))
    for i, j in draw.groups(2):
        force.addException(i, j, draw.one_of(0.0, draw.number(-1, 1)), 0.2, draw.one_of(0.0, draw.number(0, 1)))
    return force


def custom_bonds(draw):
    force = openmm.CustomBondForce(
        draw.one_of("k*(r-a)^2*(1-a*r+7/3*r^3)", "k*(1-exp(-3*(r-a)))^2", "k*max(0,r-a)^3+k/(r+a)")
    )
    force.addPerBondParameter("k")
    force.addGlobalParameter("a", draw.number(0.1, 0.3))
    for group in draw.groups(2):
        force.addBond(*group, [draw.number(1, 1e3)])
    return force


def custom_angles(draw):
    force = openmm.CustomAngleForce(draw.one_of("k*(theta-a)^2*(1-0.4*theta)", "k*(1+cos(2*theta))", "k*tan(theta/4)"))
    force.addPerAngleParameter("k")
    force.addPerAngleParameter("a")
    for group in draw.groups(3):
        force.addAngle(*group, [draw.number(1, 100), draw.number(1, 3)])
    return force


def custom_torsions(draw):
    force = openmm.CustomTorsionForce(
        draw.one_of(
            "0.5*k*(1+cos(theta))+a*(1-cos(2*theta))", "k*sin(theta-a)^3", "select(step(theta-a),k,a)*cos(theta)"
        )
    )
    force.addPerTorsionParameter("k")
    force.addPerTorsionParameter("a")
    for group in draw.groups(4):
        force.addTorsion(*group, [draw.number(-5, 5), draw.number(-3, 3)])
    return force


def custom_external(draw):
    force = openmm.CustomExternalForce(draw.one_of("k*((x-a)^2+y^2+z^2)", "k*x*y*exp(-z^2)", "k*max(x,y)*abs(z+a)"))
    force.addPerParticleParameter("k")
    force.addPerParticleParameter("a")
    for index in draw.rng.permutation(draw.n)[:3].tolist():
        force.addParticle(index, [draw.number(-50, 50), draw.number(0, 1)])
    return force


def custom_compound_bonds(draw):
    force = openmm.CustomCompoundBondForce(
        3,
        draw.one_of(
            "k*(distance(p1,p2)-a)*(angle(p1,p2,p3)-2)",
            "k*(distance(p1,p2)-distance(p2,p3))^2+x1*y2*z3*a",
            "k*pointdistance(x1,y1,z1,(x2+x3)/2,(y2+y3)/2,(z2+z3)/2)^a",
        ),
    )
    force.addPerBondParameter("k")
    force.addPerBondParameter("a")
    for group in draw.groups(3):
        force.addBond(group, [draw.number(-50, 50), draw.number(0.1, 0.3)])
    return force


def custom_nonbonded(draw):
    force = openmm.CustomNonbondedForce(
        draw.one_of("f((q1+q2)/(r+0.1))", "q1*q2*f(r)/r", "abs(q1*q2)*(1/r^9-2/(r+0.1)^6)/1e4+f(3*r)")
    )
    force.addPerParticleParameter("q")
    force.addTabulatedFunction("f", openmm.Continuous1DFunction(draw.rng.normal(size=7).tolist(), 0.0, 2.0))
    for _ in range(draw.n):
        force.addParticle([draw.number(-1, 1)])
    for pair in draw.groups(2)[:2]:
        force.addExclusion(*pair)
    if draw.one_of(True, False):
        force.addInteractionGroup(range(draw.n - 1), range(1, draw.n))
    if draw.one_of(True, False):
        force.setNonbondedMethod(openmm.CustomNonbondedForce.CutoffNonPeriodic)
        force.setCutoffDistance(0.31)
        force.setUseSwitchingFunction(draw.one_of(True, False))
        force.setSwitchingDistance(0.2)
    return force


def custom_gb(draw):
    force = openmm.CustomGBForce()
    force.addPerParticleParameter("q")
    force.addPerParticleParameter("s")
    pairs, all_pairs, single = force.ParticlePair, force.ParticlePairNoExclusions, force.SingleParticle
    text = draw.one_of("s2*exp(-r/s1)", "select(step(r-s2),log(r/s1)/r,r*q2)", "max(s1,abs(r-s2))^2*q2")
    force.addComputedValue("I", text, draw.one_of(pairs, all_pairs))
    force.addComputedValue("B", "s/(1+tanh(I)^2)+x*y", single)
    force.addEnergyTerm(draw.one_of("q^2/(B^2+1)", "I*B+z", "s*B^3"), single)
    text = draw.one_of("q1*q2/sqrt(r^2+B1^2*B2^2)", "(I1+I2)*r", "min(I1*I2,r)")
    force.addEnergyTerm(text, draw.one_of(pairs, all_pairs))
    for _ in range(draw.n):
        force.addParticle([draw.number(-1, 1), draw.number(0.1, 0.2)])
    for pair in draw.groups(2)[:2]:
        force.addExclusion(*pair)
    if draw.one_of(True, False):
        force.setNonbondedMethod(openmm.CustomGBForce.CutoffNonPeriodic)
        force.setCutoffDistance(0.31)
    return force


def ryckaert_bellemans(draw):
    force = openmm.RBTorsionForce()
    for group in draw.groups(4):
        force.addTorsion(*group, *draw.rng.uniform(-5, 5, 6).tolist())
    return force


def correction_maps(draw):
    force = openmm.CMAPTorsionForce()
    size = draw.one_of(3, 6, 24)
    force.addMap(size, draw.rng.uniform(-5, 5, size * size).tolist())
    for group in draw.groups(4):
        force.addTorsion(0, *group, *group[::-1])
    return force


def native_born(draw):
    force = openmm.GBSAOBCForce()
    for _ in range(draw.n):
        force.addParticle(draw.number(-1, 1), draw.number(0.05, 0.4), draw.number(0.5, 1.0))
    return force


BUILT_IN = [
    *(harmonic_bonds, harmonic_angles, periodic_torsions, nonbonded, ryckaert_bellemans, correction_maps, native_born),
]
CUSTOM = [
    *(custom_bonds, custom_angles, custom_torsions, custom_external, custom_compound_bonds),
    *(custom_nonbonded, custom_gb),
]


def system_of(draw, forces):
    system = openmm.System()
    for _ in range(draw.n):
        system.addParticle(12.0)
    for force in forces:
        system.addForce(force(draw))
    return system


systems = st.tuples(
    st.builds(Draw, st.integers(3, 7), st.integers(0, 2**32 - 1)),
    # A force of a built-in kind may come twice; custom ones would disagree about their global parameters.
    st.tuples(
        st.lists(st.sampled_from(BUILT_IN), min_size=1, max_size=4),
        st.lists(st.sampled_from(CUSTOM), max_size=3, unique=True),
    ).map(lambda parts: [*parts[0], *parts[1]]),
)


@settings(max_examples=150, derandomize=True, deadline=None, database=None)
@given(systems)
def test_random_systems_agree(drawn):
    draw, forces = drawn
    system = system_of(draw, forces)
    energy, force = openmm_energies(system, draw.positions[None])
    converted = from_openmm(system)
    for potential in (converted, PotentialEnergy(list(converted.terms), n_atoms=draw.n, native=False)):
        ours, our_force = potential.energy_and_forces(torch.as_tensor(draw.positions)[None])
        assert ours.item() == pytest.approx(energy[0], abs=DOUBLE)
        assert np.abs(our_force.numpy() - force).max() <= RELATIVE * max(1.0, np.abs(force).max())


@settings(max_examples=60, derandomize=True, deadline=None, database=None)
@given(systems, st.sampled_from(["NaN", "infinite", "coincident", "far"]))
def test_nothing_is_ever_nan_in_random_systems(drawn, fault):
    draw, forces = drawn
    potential = from_openmm(system_of(draw, forces))
    x = torch.as_tensor(draw.positions)[:, :, None].repeat(1, 1, 2)
    if fault == "coincident":
        x[1, :, 1] = x[0, :, 1]
    else:
        x[0, draw.rng.integers(3), 1] = {"NaN": math.nan, "infinite": math.inf, "far": 1e200}[fault]
    energy, gradient = potential.evaluate(x)
    failed = torch.isinf(energy)
    assert not torch.isnan(energy).any()
    assert (energy[failed] > 0.0).all()
    assert torch.isfinite(gradient).all()
    assert not gradient[:, :, failed].any()
    assert not failed[0]
    alone = potential.evaluate(x[:, :, :1].contiguous())
    assert torch.allclose(energy[:1], alone.energy, rtol=1e-12, atol=1e-12)
