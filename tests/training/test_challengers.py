"""Replica exchange finds what the flow lacks, tells what it does not lack, and the flow learns it."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from one_torsion import OneTorsion
from resuming import assert_same_when_resumed
from torch.utils._python_dispatch import TorchDispatchMode

from boltzgen.coordinates.charts import wrap
from boltzgen.flow.generator import Generator
from boltzgen.flow.latents import Slow
from boltzgen.training.budget import STEPS_TO_JUDGE
from boltzgen.training.challengers import KERNEL_WIDTH, KERNELS, LEAST_ROUND, Challengers
from boltzgen.training.gradient import VISITS, GradientWorkers
from boltzgen.training.method import ANNEALED, DATA
from boltzgen.training.replay import Pool
from boltzgen.training.step import StepPlan
from boltzgen.training.structures import THINNEST, Structures
from boltzgen.training.trainer import Trainer, TrainSettings

MOSTLY_EXCHANGE = {"max_energies": 800_000, "exchange_share": 0.9}
"""80,000 draws of the flow: the rounds are as short as they may be."""


@pytest.fixture(scope="module")
def double():
    """Two equal wells at ±π/2 with barriers of 12 kT between."""
    return OneTorsion((2, 0.0, 15.0))


@pytest.fixture(scope="module")
def one_sided(double):
    """A flow that knows the left well alone."""
    return double.train(DATA, data=double.frames(5000, seed=2, keep=lambda phi: phi < 0)).result


@pytest.fixture(scope="module")
def both_sided(double):
    return double.train(ANNEALED, max_energies=200_000).result


def challengers_like(challengers, double):
    """Others with the same structures, which no flow was asked about."""
    others, found = Challengers(double.target.to(torch.float32), seed=0), challengers._structures
    others._structures = Structures.unjudged(found.slow, found.stiff, found.log_det, found.u)
    return others


def challengers_of(target):
    challengers = Challengers(target.to(torch.float32), seed=0)
    for k in range(20):
        challengers.go_on(LEAST_ROUND, keep=k >= 8)
    return challengers


@pytest.fixture(scope="module")
def challengers(double):
    return challengers_of(double.target)


def test_a_flow_is_thin_in_a_lost_well_and_not_in_a_known_one(double, challengers, one_sided, both_sided):
    challengers.judge(both_sided, double.log_z)
    assert challengers.thin < 0.02
    challengers.judge(one_sided, double.log_z)
    torsions = challengers._structures.slow.torsions[:, 0]
    share = (torsions > 0).double().mean().item()
    assert 0.2 < share < 0.8  # random torsions begin in both
    assert challengers.thin == pytest.approx(share, abs=0.05)


def test_proposals_have_their_density(challengers):
    """Against a histogram of many, and its integral."""
    rng = torch.Generator().manual_seed(0)
    lead = challengers.propose(4000, rng)
    assert lead.torsions.abs().max() <= math.pi
    edges = torch.linspace(-math.pi, math.pi, 25)
    counts = torch.histogram(lead.torsions[:, 0].double(), edges.double()).hist
    # E_q[1/q] over the bins where draws are is the length of these
    lengths = torch.stack(
        [
            (-lead.log_prob[(lead.torsions[:, 0] >= a) & (lead.torsions[:, 0] < b)]).exp().sum()
            for a, b in pairwise(edges)
        ]
    )
    dense = counts > 300
    assert dense.sum() >= 4
    assert torch.allclose(lengths[dense] / 4000, torch.full((int(dense.sum()),), 2.0 * math.pi / 24), rtol=0.3)


def test_visits_are_structures_as_they_are(double, challengers):
    """Half are of those that were given, however few."""
    known = challengers._structures.slow.torsions
    visits = challengers_like(challengers, double).visit(500, torch.Generator().manual_seed(0))
    assert torch.isin(visits.torsions, known).all()
    assert 0.2 < (visits.torsions > 0).double().mean() < 0.8
    seeded = challengers_like(challengers, double)
    seeded.add_seeds(double.draw(10, seed=7).float())
    mixed = seeded.visit(501, torch.Generator().manual_seed(0)).torsions
    assert torch.isin(mixed, known).sum() == 250


def test_structures_that_a_flow_lacks_are_visited_more_often(double, challengers, one_sided):
    """By √(p/q), and no more than e⁴ times as often as where it lacks nothing."""
    judged = challengers_like(challengers, double)
    before = (judged.visit(4000, torch.Generator().manual_seed(0)).torsions[:, 0] > 0).double().mean()
    judged.judge(one_sided, double.log_z)
    structures = judged._structures
    lost = structures.slow.torsions[:, 0] > 0
    log_q = one_sided.log_prob(structures.slow, structures.stiff).detach()
    excess = (structures.log_det - structures.u - log_q).double() - double.log_z
    assert torch.allclose(structures.excess.double(), excess, atol=1e-3)
    assert 0.2 < before < 0.8
    chances = (0.5 * excess.clamp(max=THINNEST)).exp()
    expected = (chances[lost].sum() / chances.sum()).item()
    found = (judged.visit(4000, torch.Generator().manual_seed(0)).torsions[:, 0] > 0).double().mean().item()
    assert expected > 0.9
    assert abs(found - expected) < 0.03
    stored = Structures.from_tree(structures.to_tree(), "cpu")
    assert all(torch.equal(getattr(stored, name), getattr(structures, name)) for name in ("u", "excess"))


def test_a_judgement_with_centres_at_hand_is_the_same_and_takes_no_energies(double, challengers):
    architecture = replace(double.architecture, levers=(1,), relaxation=4)
    generator = Generator(architecture).attach(double.target.to(torch.float32)).eval()
    first = challengers_like(challengers, double)._structures.judged(generator, 0.0)
    assert generator.take_energies() >= len(first)
    again = first.judged(generator, 0.0)
    assert generator.take_energies() == 0
    assert torch.equal(again.excess, first.excess)
    assert torch.equal(again.centre, first.centre)
    one = Structures.latest([challengers_like(challengers, double)._structures], 1)
    one.judged(generator, 0.0)
    of_one = generator.take_energies()
    with_one = Structures.latest([first, one], len(first) + 1).judged(generator, 0.0)
    assert generator.take_energies() == of_one
    assert torch.equal(with_one.centre[:-1], first.centre)


@pytest.mark.parametrize("visits", [False, True])
def test_draws_are_led_by_structures_or_visit_them(double, challengers, visits):
    target = double.target.to(torch.float32)
    generator = Generator(double.architecture).attach(target)
    plan = StepPlan(400, 0.0, None, (), (0, 0), challengers, visits=visits)
    step = GradientWorkers(generator, target, 1, ANNEALED).step(plan)
    n_visits = int(VISITS * 400) if visits else 0
    n_led = 0 if visits else int(ANNEALED.challengers * 400)
    assert sum(map(len, step.visited)) == n_visits
    assert [len(scored) for scored in step.scored] == [n for n in (n_led, 400 - n_led - n_visits) if n]


class LargestTensor(TorchDispatchMode):
    """Elements of the largest result of any operation."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            self.elements = max(self.elements, result.numel())
        return result


def test_the_density_of_proposals_is_right_and_small_for_several_torsions(dipeptide_target):
    """All kernels around one structure are one Gaussian; an array of all kernels and torsions would fill a GPU."""
    challengers = Challengers(dipeptide_target.to(torch.float32), seed=0)
    centre = torch.tensor([[3.1, -1.0, 0.0, 0.0, 0.0]])  # the first beside the seam, the last three are rotors
    slow = Slow(torch.zeros(1, dtype=torch.int64), centre)
    challengers._structures = Structures.unjudged(slow, torch.zeros(1, 1), torch.zeros(1), torch.zeros(1))
    with LargestTensor() as largest:
        lead = challengers.propose(400, torch.Generator().manual_seed(0))
    z = wrap(lead.torsions - centre[:, :2]) / KERNEL_WIDTH
    assert (lead.torsions[:, 0] < 0).any()
    expected = -0.5 * z.square().sum(1) - 2.0 * math.log(KERNEL_WIDTH * math.sqrt(2.0 * math.pi))
    assert torch.allclose(lead.log_prob, expected, atol=1e-4)  # float32 angles near π over a width of 0.2
    assert largest.elements <= 400 * KERNELS


def test_structures_are_of_the_temperature_of_the_target(double, challengers):
    """⟨u⟩ against exact draws: both wells are alike, so the barrier between them does not matter."""
    u = challengers._structures.u.double()
    exact = double.target.reduced_potential(double.draw(20_000, seed=5))
    error = 2.0 * u.std().item() / len(u) ** 0.5  # structures 0.5 ps apart are correlated
    assert abs(u.mean().item() - exact.mean().item()) < 4.0 * error
    assert error < 0.3


def test_the_flow_learns_a_well_that_it_never_drew(double, one_sided):
    """Without cooling and without broad draws nothing else could show it the well."""
    blind = replace(ANNEALED, cools=False, broad_share=0.0)
    without = double.train(replace(blind, challengers=0.0), start=one_sided, max_energies=20_000)
    with_them = double.train(blind, start=one_sided, **MOSTLY_EXCHANGE)
    assert double.share_above_zero(without.result) < 0.02
    assert 0.2 < double.share_above_zero(with_them.result) < 0.6  # half is right; there is no time to get there


def test_energies_of_exchange_are_counted_within_the_budget(double):
    trainer = double.train(ANNEALED, **MOSTLY_EXCHANGE)
    counts = trainer.counts()
    assert counts["n_energy_evaluations"] == counts["n_force_evaluations"] == 800_000
    assert 0.7 * 800_000 < counts["n_exchange_energies"] < 0.9 * 800_000 + 2 * LEAST_ROUND
    last = trainer.history[-1]
    assert last["exchange_energies"] == counts["n_exchange_energies"]
    assert last["challengers"] > 100


def test_short_trainings_have_no_exchange(double):
    assert double.train(ANNEALED, max_energies=50_000).counts()["n_exchange_energies"] == 0


@pytest.mark.parametrize(("levers", "asked", "share"), [((), None, 1 / 3), ((1,), None, 0.6), ((1,), 0.1, 0.1)])
def test_exchange_has_a_larger_share_where_draws_are_dear(double, levers, asked, share):
    architecture = replace(double.architecture, levers=levers)
    trainer = Trainer(double.target, architecture, TrainSettings(10**7, exchange_share=asked))
    assert trainer.rounds.share == share


@pytest.mark.parametrize("dear", [False, True])
def test_resumed_training_goes_on_with_its_challengers(double, dear):
    """Visits are made where draws are dear alone."""
    architecture = replace(double.architecture, levers=(1,), relaxation=4) if dear else double.architecture
    budget = {"max_energies": 1_200_000, "exchange_share": 0.7} if dear else MOSTLY_EXCHANGE
    settings = TrainSettings(method=ANNEALED, **budget)

    def trainer():
        return Trainer(double.target, architecture, settings)

    _, broken, _ = assert_same_when_resumed(trainer, lambda trainer: trainer.budget.progress < 0.7)
    assert (broken.memory.visited is not None) == dear
    assert broken.challengers.n_structures > 0


def test_training_ends_early_when_there_is_nothing_left_to_gain(double):
    trainer = double.train(ANNEALED, max_energies=600_000, exchange_share=0.0)
    assert trainer.finished
    assert trainer.counters.energies < 500_000
    assert double.reverse_kl(trainer.result)[0] < 0.02


@pytest.mark.parametrize(("thin", "ends"), [(math.nan, False), (0.3, False), (0.001, True)])
def test_a_training_that_lacks_what_exchange_found_does_not_end_early(double, thin, ends):
    """Draws of a flow that has lost a well are as good as independent ones of the other."""
    trainer = Trainer(double.target, double.architecture, TrainSettings(5_000_000))
    trainer.cooling.level, trainer.cooling.steps = trainer.cooling.levels, STEPS_TO_JUDGE
    trainer.counters.energies, trainer.history = 1_000_000, STEPS_TO_JUDGE * [{"target_ess_fraction": 0.99}]
    trainer.challengers.rounds, trainer.challengers.thin = 5, thin
    trainer._end_if_enough()
    assert (trainer.budget.needed < 1.0) == ends


def test_what_is_replayed_is_counted_without_the_led_draws(double, monkeypatch):
    drawn = []

    def draw(pool, n, rng):
        drawn.append(n)
        return draw_of_pool(pool, n, rng)

    draw_of_pool = Pool.resample
    monkeypatch.setattr(Pool, "resample", draw)
    trainer = double.train(ANNEALED, **MOSTLY_EXCHANGE)
    assert trainer.history[-1]["challengers"] > 100
    assert trainer.counters.replayed == sum(drawn)
