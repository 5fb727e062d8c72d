"""OpenMM's generalised-Born models by the fast path, and everything else as it is written."""

from __future__ import annotations

import copy

import numpy as np
import openmm
import pytest
import torch
from openmm import app, unit
from openmm.app.internal.customgbforces import GBSAHCTForce

from boltzgen.chemistry.forcefield import build_system
from boltzgen.energy import PotentialEnergy, convert_gb, from_openmm
from boltzgen.energy.convert_custom import convert_gb_as_written
from boltzgen.energy.parity import openmm_energies

DOUBLE = 2.5e-6
"""kJ/mol: 1e-6 kT; rounding of sums of about 1e3 is 1e-12."""

RELATIVE = 1e-6
"""Of the largest force."""

MODELS = ["hct", "obc1", "obc2", "gbn", "gbn2"]


def gb_of(system):
    """A copy, which outlives the System."""
    return copy.deepcopy(next(force for force in system.getForces() if isinstance(force, openmm.CustomGBForce)))


def system_with(force):
    system = openmm.System()
    for _ in range(force.getNumParticles()):
        system.addParticle(12.0)
    system.addForce(force)
    return system


def kinds(potential):
    return [type(term).__name__ for term in potential.terms]


def assert_same_function(system, potential, positions):
    frames = positions + 0.01 * np.random.default_rng(0).standard_normal((4, *positions.shape))
    energy, force = openmm_energies(system, frames)
    ours, our_force = potential.energy_and_forces(torch.as_tensor(frames))
    assert np.abs(ours.numpy() - energy).max() < DOUBLE
    assert np.abs(our_force.numpy() - force).max() < RELATIVE * np.abs(force).max()


def assert_converted(force, molecule, kind):
    """The force becomes one term of this kind, which is the same function."""
    system = system_with(force)
    potential = from_openmm(system)
    assert kinds(potential) == [kind]
    assert_same_function(system, potential, molecule.positions)


@pytest.mark.parametrize("model", MODELS)
def test_openmms_own_models_take_the_fast_path(dipeptide, model):
    system = build_system(dipeptide.topology, "ff14SB", model)
    assert "GeneralizedBorn" in kinds(from_openmm(system))
    assert "CustomGB" not in kinds(from_openmm(system))


@pytest.mark.parametrize("model", MODELS)
def test_the_expressions_of_openmms_own_models_agree(dipeptide, model):
    force = gb_of(build_system(dipeptide.topology, "ff14SB", model))
    term = convert_gb_as_written(force, force.getNumParticles())
    assert_same_function(system_with(force), PotentialEnergy([term]), dipeptide.positions)


def edit_value(index, old, new):
    def edit(force):
        name, text, kind = force.getComputedValueParameters(index)
        assert old in text
        force.setComputedValueParameters(index, name, text.replace(old, new), kind)

    return edit


def edit_energy(index, old, new):
    def edit(force):
        text, kind = force.getEnergyTermParameters(index)
        assert old in text
        force.setEnergyTermParameters(index, text.replace(old, new), kind)

    return edit


def with_exclusions(force):
    text, _ = force.getEnergyTermParameters(2)
    force.setEnergyTermParameters(2, text, force.ParticlePair)
    force.addExclusion(0, 1)


def with_cutoff(force):
    force.setNonbondedMethod(force.CutoffNonPeriodic)
    force.setCutoffDistance(0.6)


EDITS = {
    "descreening": edit_value(0, "0.25*(r-sr2^2/r)", "0.26*(r-sr2^2/r)"),
    "condition": edit_value(0, "step(r+sr2-or1)", "step(r+sr2-2*or1)"),
    "neck": edit_value(0, "0.3*1000000", "0.31*1000000"),
    "polynomial": edit_value(1, "gamma*psi^3", "gamma*psi^3+0.01*psi^4"),
    "coefficient": edit_value(1, "alpha*psi", "alpha*0.99*psi"),
    "radius": edit_value(1, "radius=or+offset", "radius=or+2*offset"),
    "self energy": edit_energy(0, "charge^2", "charge^2*1.001"),
    "surface": edit_energy(1, "(radius/B)^6", "(radius/B)^7"),
    "pair energy": edit_energy(2, "(4*B1*B2)", "(4.01*B1*B2)"),
    "salt": edit_energy(2, "1/solventDielectric", "exp(-1.3*f)/solventDielectric"),
    "exclusions": with_exclusions,
    "cutoff": with_cutoff,
}


@pytest.mark.parametrize("name", EDITS)
def test_an_edited_model_is_taken_as_it_is_written(dipeptide, name):
    force = gb_of(build_system(dipeptide.topology, "ff14SB", "gbn2"))
    EDITS[name](force)
    assert_converted(force, dipeptide, "CustomGB")


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"implicitSolventKappa": 0.9}, "CustomGB"),
        ({"nonbondedMethod": app.CutoffNonPeriodic, "nonbondedCutoff": 0.6 * unit.nanometer}, "CustomGB"),
        ({"sasaMethod": None, "soluteDielectric": 2.0, "solventDielectric": 40.0}, "GeneralizedBorn"),
    ],
    ids=["salt", "cutoff", "no surface term"],
)
@pytest.mark.parametrize("model", ["obc2", "gbn2"])
def test_options_of_openmms_own_models_agree(dipeptide, model, options, kind):
    field = app.ForceField("amber14/protein.ff14SB.xml", f"implicit/{model}.xml")
    assert_converted(gb_of(field.createSystem(dipeptide.topology, constraints=None, **options)), dipeptide, kind)


def test_other_constants_in_the_same_form_keep_the_fast_path(dipeptide):
    force = gb_of(build_system(dipeptide.topology, "ff14SB", "obc2"))
    edit_value(1, "4.85*psi^3", "4.95*psi^3")(force)
    for index in range(3):
        edit_energy(index, "solventDielectric=78.5", "solventDielectric=60")(force)
    edit_energy(1, "28.3919551", "20.5")(force)
    assert_converted(force, dipeptide, "GeneralizedBorn")


@pytest.mark.parametrize(
    "parameter",
    [
        *("charge", "reduced_radius", "scaled_radius", "radius", "alpha", "beta", "gamma", "dielectric", "surface"),
        *("neck_scale", "neck_cutoff", "neck_depth", "neck_distance"),
    ],
)
def test_a_fast_path_gone_wrong_is_noticed(dipeptide, monkeypatch, parameter):
    """Wrong by 1e-6 in one parameter; the cutoff of the neck, which only moves a small step, by 1e-2."""
    right = convert_gb.recognise_gb
    error = 1e-2 if parameter == "neck_cutoff" else 1e-6

    def wrong(force, n):
        term = right(force, n)
        arrays = term.arrays()
        return type(term)(n, torch.float64, **{**arrays, parameter: arrays[parameter] * (1.0 + error)})

    monkeypatch.setattr(convert_gb, "recognise_gb", wrong)
    assert "CustomGB" in kinds(from_openmm(build_system(dipeptide.topology, "ff14SB", "gbn2")))


def test_a_molecule_too_large_for_the_densest_frames_keeps_the_fast_path():
    """400 atoms in a cube of 1.3 nm have no HCT energy, which must not be taken for a disagreement."""
    force = GBSAHCTForce(SA="ACE")
    rng = np.random.default_rng(0)
    for _ in range(400):
        force.addParticle([rng.normal(), rng.uniform(0.12, 0.17), rng.uniform(0.7, 0.9)])
    force.finalize()
    special, generic = convert_gb.recognise_gb(force, 400), convert_gb_as_written(force, 400)
    assert convert_gb.agree(special, generic)
    undefined = {**special.arrays(), "charge": np.full(400, np.nan)}
    assert not convert_gb.agree(type(special)(400, torch.float64, **undefined), generic)


def test_the_recogniser_leaves_alone_what_it_does_not_know():
    unknown = openmm.CustomGBForce()
    assert convert_gb.recognise_gb(unknown, 0) is None
    for name in ("charge", "or", "sr"):
        unknown.addPerParticleParameter(name)
    unknown.addParticle([0.1, 0.1, 0.1])
    unknown.addComputedValue("I", "r; neckScale=1", unknown.ParticlePair)
    unknown.addComputedValue("B", "1/(1/or-tanh(beta*psi+1)); psi=I", unknown.SingleParticle)
    unknown.addEnergyTerm("-0.5*138*B; soluteDielectric=0; solventDielectric=1; offset=1", unknown.SingleParticle)
    unknown.addEnergyTerm("B1*B2", unknown.ParticlePair)
    assert convert_gb.recognise_gb(unknown, 1) is None
    unknown.setEnergyTermParameters(
        0, "-0.5*138*B; soluteDielectric=2; solventDielectric=1; offset=1", unknown.SingleParticle
    )
    assert convert_gb.recognise_gb(unknown, 1) is None
