"""The compiled kernels against the definitions in plain torch, for every instruction set of this processor."""

from __future__ import annotations

import copy
import math
import pickle
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from rdkit import Chem
from rdkit.Chem import AllChem

import boltzgen.native
from boltzgen.chemistry.forcefield import build_system
from boltzgen.chemistry.mmff import build_mmff_system
from boltzgen.coordinates.internal import Internal, InternalToCartesian, log_volume
from boltzgen.coordinates.zmatrix import build_zmatrix
from boltzgen.energy import PotentialEnergy, from_openmm
from boltzgen.energy.bonded import RBTorsion
from boltzgen.energy.cmap import CMAPTorsion
from boltzgen.energy.program import Program, Rows, split_terms
from boltzgen.energy.terms import Term
from boltzgen.errors import EnvironmentProblem, SlowPathWarning
from boltzgen.native import load

pytestmark = pytest.mark.skipif(load() is None, reason="built without compiled kernels")

INSTRUCTION_SETS = [name for name in ("avx512", "avx2", "baseline") if load(name)]

SOLVENTS = ("vacuum", "hct", "obc2", "gbn", "gbn2")

# Rounding of one part in 2^53 or 2^24: in energies of terms of up to 1e4 kJ/mol that cancel, some tens of times; in
# gradients of bond lengths of 0.15 nm times force constants of 3e5 kJ/mol/nm², and of the largest gradients.
ENERGY_TOLERANCE = {torch.float64: 1e-9, torch.float32: 2e-2}
GRADIENT_TOLERANCE = {torch.float64: 1e-9, torch.float32: 0.1}
RELATIVE_TOLERANCE = {torch.float64: 1e-11, torch.float32: 1e-5}


def _frames(positions: np.ndarray, n: int, seed: int = 0) -> torch.Tensor:
    """Frames ``(atoms, 3, n)`` jittered by up to 0.02 nm."""
    noise = np.random.default_rng(seed).standard_normal((n, *positions.shape))
    return torch.as_tensor(positions + np.linspace(0.0, 0.02, n)[:, None, None] * noise).permute(1, 2, 0).contiguous()


@pytest.fixture(scope="module")
def potentials(dipeptide):
    """Terms of every kind with a structure: solvents, correction maps, Ryckaert-Bellemans torsions, MMFF."""
    n, positions = len(dipeptide.positions), dipeptide.positions
    found = {name: (from_openmm(build_system(dipeptide.topology, "ff14SB", name)), positions) for name in SOLVENTS}
    rng = np.random.default_rng(0)
    quadruples = np.array([[4, 6, 8, 14], [6, 8, 14, 16], [8, 14, 16, 18], [14, 8, 6, 4]])
    rb = RBTorsion(n, torch.float64, atoms=quadruples, coefficients=rng.normal(size=(4, 6)))
    maps = CMAPTorsion(
        n,
        torch.float64,
        atoms=np.concatenate([quadruples[:2], quadruples[1:3]], axis=1),
        map=np.array([1, 0]),
        grid=rng.normal(size=(2, 24, 24)),
    )
    found["torsions"] = (PotentialEnergy([rb, maps]), positions)
    for name, smiles in {"mmff": "CC(C)(C)OC(=O)Nc1ccc(S(=O)(=O)N)cc1", "mmff linear": "CC#CC(=O)N=[N+]=[N-]"}.items():
        molecule = Chem.AddHs(Chem.MolFromSmiles(smiles))
        AllChem.EmbedMolecule(molecule, randomSeed=7)
        found[name] = (from_openmm(build_mmff_system(molecule)), molecule.GetConformer().GetPositions() / 10.0)
    return found


def _assert_agree(terms: list[Term], x: torch.Tensor, softening: float | None, instruction_set: str) -> None:
    program, rest = split_terms(len(x), terms)
    assert not rest, "a term that the kernels should know was left to torch"
    compiled = load(instruction_set)
    expected = PotentialEnergy(terms, native=False).evaluate(x.double(), softening)
    energy, gradient = program.evaluate(compiled, x, softening, 1, with_gradient=True)
    alone, nothing = program.evaluate(compiled, x, softening, 1, with_gradient=False)
    assert nothing is None
    assert expected.n_failed == 0
    assert (energy - expected.energy).abs().max() < ENERGY_TOLERANCE[x.dtype]
    assert (alone - expected.energy).abs().max() < ENERGY_TOLERANCE[x.dtype]
    scale = expected.gradient.abs().amax(dim=(0, 1))
    bound = GRADIENT_TOLERANCE[x.dtype] + RELATIVE_TOLERANCE[x.dtype] * scale
    assert ((gradient - expected.gradient).abs().amax(dim=(0, 1)) / bound).max() < 1.0


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("softening", [None, 20.0])
@pytest.mark.parametrize("instruction_set", INSTRUCTION_SETS)
@pytest.mark.parametrize("name", [*SOLVENTS, "torsions", "mmff", "mmff linear"])
def test_energy_and_gradient_of_every_kernel(potentials, name, instruction_set, softening, dtype):
    potential, positions = potentials[name]
    _assert_agree(list(potential.terms), _frames(positions, 50).to(dtype), softening, instruction_set)


@pytest.mark.parametrize("instruction_set", INSTRUCTION_SETS)
def test_softened_clashes(dipeptide, instruction_set):
    """Wide jitter: pairs far above the threshold, at the floor of r, and atoms inside the spheres of others."""
    x = torch.as_tensor(dipeptide.positions)[..., None] + 0.1 * torch.randn(
        22, 3, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    x[5, :, 0] = x[15, :, 0] + 1e-3  # below the floor, where bonded terms alone have a gradient
    _assert_agree(list(from_openmm(dipeptide.system).terms), x, 200.0, instruction_set)


@pytest.mark.parametrize("n", [0, 1, 7, 16, 17, 33])
def test_a_batch_of_any_size(dipeptide, n):
    potential = from_openmm(dipeptide.system)
    x = _frames(dipeptide.positions, 40)
    whole, part = potential.evaluate(x), potential.evaluate(x[..., :n].contiguous())
    assert torch.equal(part.energy, whole.energy[:n])
    assert torch.equal(part.gradient, whole.gradient[..., :n])


def test_threads_change_nothing(dipeptide):
    program, _ = split_terms(22, from_openmm(dipeptide.system).terms)
    x = _frames(dipeptide.positions, 100).float()
    one = program.evaluate(load(), x, None, 1, with_gradient=True)
    for threads in (2, 3, 50):
        several = program.evaluate(load(), x, None, threads, with_gradient=True)
        assert torch.equal(one[0], several[0])
        assert torch.equal(one[1], several[1])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("native", [True, False])
def test_failures_are_infinite_and_stay_alone(dipeptide, dtype, native):
    terms = PotentialEnergy.from_tree(from_openmm(dipeptide.system).to_tree(), dtype).terms
    potential = PotentialEnergy(list(terms), native=native)
    good = _frames(dipeptide.positions, 20).to(dtype)
    x = good.clone()
    x[3, :, 1] = x[9, :, 1]
    x[4, 0, 5] = math.nan
    x[4, 1, 7] = math.inf
    x[..., 11] *= 1e30 if dtype == torch.float32 else 1e200  # overflows r²
    x[..., 13] = 0.0
    failed = [1, 5, 7, 11, 13]
    rest = [k for k in range(20) if k not in failed]
    result = potential.evaluate(x)
    assert result.n_failed == len(failed)
    assert torch.isposinf(result.energy[failed]).all()
    assert torch.equal(result.gradient[..., failed], torch.zeros_like(x[..., failed]))
    assert torch.equal(result.energy[rest], potential.evaluate(good).energy[rest])
    assert torch.isposinf(potential.batch_last(x)[failed]).all()
    leaf = x.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(potential.batch_last(leaf)[rest].sum(), leaf)
    assert torch.isfinite(gradient).all()


def test_autograd_takes_the_analytic_gradient(dipeptide):
    potential = from_openmm(dipeptide.system)
    x = _frames(dipeptide.positions, 5).requires_grad_(True)
    weights = torch.arange(1.0, 6.0, dtype=torch.float64)
    (gradient,) = torch.autograd.grad((weights * potential.batch_last(x)).sum(), x)
    (expected,) = torch.autograd.grad((weights * potential.definition(x)).sum(), x)
    assert torch.allclose(gradient, expected, rtol=0.0, atol=1e-8)


def test_an_unknown_kind_is_never_left_out_of_the_sum():
    program = Program(2, [Rows(999, np.zeros((1, 2)), np.zeros((1, 2)))])
    energy, gradient = program.evaluate(load(), torch.zeros(2, 3, 4), None, 1, with_gradient=True)
    assert torch.isposinf(energy).all()
    assert not gradient.any()


def test_a_copied_or_pickled_potential_owns_its_tables(dipeptide):
    potential = from_openmm(dipeptide.system)
    x = _frames(dipeptide.positions, 5)
    expected = potential.evaluate(x).energy
    copies = [copy.deepcopy(potential), pickle.loads(pickle.dumps(potential))]
    del potential
    for other in copies:
        assert torch.equal(other.evaluate(x).energy, expected)


def test_a_periodicity_that_the_kernels_do_not_know_stays_in_torch(dipeptide):
    from boltzgen.energy.bonded import PeriodicTorsion

    for periodicity in (7.0, 1.5):
        one = {"periodicity": np.array([periodicity]), "phase": np.array([0.3]), "k": np.array([2.0])}
        term = PeriodicTorsion(22, torch.float64, atoms=np.array([[4, 6, 8, 14]]), **one)
        mixed = PotentialEnergy([*from_openmm(dipeptide.system).terms, term])
        x = _frames(dipeptide.positions, 5)
        assert split_terms(22, [term])[1] == [term]
        assert torch.allclose(mixed.evaluate(x).energy, mixed.definition(x), rtol=0.0, atol=1e-9)


@pytest.mark.parametrize("instruction_set", INSTRUCTION_SETS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_placement_and_its_adjoint(dipeptide, instruction_set, dtype, monkeypatch):
    molecule = dipeptide.molecule
    geometry = InternalToCartesian(build_zmatrix(molecule.atomic_numbers, molecule.bonds, molecule.rigid_bonds))
    rng = torch.Generator().manual_seed(0)
    one = geometry.internal(torch.as_tensor(dipeptide.positions)[..., None])
    widths = ((one.bonds, 3e-3), (one.angles, 0.1), (one.torsions, 2.0))
    leaves = [
        (t + width * torch.randn(len(t), 37, generator=rng, dtype=torch.float64)).to(dtype).requires_grad_()
        for t, width in widths
    ]
    on_x = torch.randn(22, 3, 37, generator=rng, dtype=torch.float64).to(dtype)
    on_volume = torch.randn(37, generator=rng, dtype=torch.float64).to(dtype)

    def adjoint(x: torch.Tensor, volume: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return torch.autograd.grad((x * on_x).sum() + (volume * on_volume).sum(), leaves)

    internal = Internal(*leaves)
    expected = geometry.positions(internal), log_volume(internal)
    monkeypatch.setattr("boltzgen.coordinates.internal.kernels", lambda: load(instruction_set))
    found = geometry.place(internal)
    tolerance = (
        1e-12 if dtype == torch.float64 else 1e-4
    )  # ln of 62 factors; lengths of 1 nm after a chain of rotations
    for a, b in zip((*found, *adjoint(*found)), (*expected, *adjoint(*expected)), strict=True):
        assert (a - b).abs().max() < tolerance * max(1.0, float(b.detach().abs().max()))


def test_threads_do_not_change_placement(dipeptide):
    molecule = dipeptide.molecule
    geometry = InternalToCartesian(build_zmatrix(molecule.atomic_numbers, molecule.bonds, molecule.rigid_bonds))
    internal = geometry.internal(_frames(dipeptide.positions, 100))
    one = geometry.place(internal)
    torch.set_num_threads(3)
    try:
        several = geometry.place(internal)
    finally:
        torch.set_num_threads(1)
    assert torch.equal(one[0], several[0])
    assert torch.equal(one[1], several[1])


def test_placement_does_not_make_up_numbers(dipeptide):
    """A bond that is zero, negative or NaN, and an angle outside (0, π), have no log volume."""
    molecule = dipeptide.molecule
    geometry = InternalToCartesian(build_zmatrix(molecule.atomic_numbers, molecule.bonds, molecule.rigid_bonds))
    one = geometry.internal(torch.as_tensor(dipeptide.positions)[..., None])
    bonds, angles = one.bonds.repeat(1, 6), one.angles.repeat(1, 6)
    bonds[3, 0], bonds[0, 1], bonds[5, 2], angles[2, 3], angles[4, 4] = 0.0, -0.1, math.nan, -0.5, 4.0
    _, volume = geometry.place(Internal(bonds, angles, one.torsions.repeat(1, 6)))
    assert not torch.isfinite(volume[:5]).any()
    assert torch.isfinite(volume[5])


def test_without_the_library_torch_computes_and_says_so_once(dipeptide, monkeypatch):
    monkeypatch.setattr(boltzgen.native, "load", lambda _: None)
    boltzgen.native.kernels.cache_clear()
    try:
        potential = from_openmm(dipeptide.system)
        x = _frames(dipeptide.positions, 3)
        with pytest.warns(SlowPathWarning, match="C\\+\\+ compiler"):
            energy = potential.evaluate(x).energy
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert torch.equal(potential.evaluate(x).energy, energy)
        monkeypatch.setenv("BOLTZGEN_KERNELS", "avx2")
        boltzgen.native.kernels.cache_clear()
        with pytest.raises(EnvironmentProblem, match="avx2"):
            boltzgen.native.kernels()
    finally:
        boltzgen.native.kernels.cache_clear()


def test_the_environment_chooses_the_instruction_set():
    code = "import boltzgen.native as n; k = n.kernels(); print(k and k.instruction_set)"
    for choice in (*INSTRUCTION_SETS, "none"):
        done = subprocess.run(
            [sys.executable, "-c", code], env={"BOLTZGEN_KERNELS": choice}, capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == {"none": "None"}.get(choice, choice)
