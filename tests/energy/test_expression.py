"""OpenMM's expression language in torch, against OpenMM itself."""

from __future__ import annotations

import copy
import math

import numpy as np
import openmm
import pytest
import torch

from boltzgen.energy.convert_custom import tabulated
from boltzgen.energy.expression import Expression, Function
from boltzgen.energy.tabulated import Continuous, TabulatedFunction
from boltzgen.errors import UnsupportedError

POINT = (0.3, 0.7, -1.1)
ROUNDING = 1e-12
"""Relative to 1 or the value: a handful of operations in float64."""


def openmm_value(text, point=POINT, functions=None):
    """Energy and its gradient by OpenMM of an expression of x1, y1, z1."""
    force = openmm.CustomCompoundBondForce(1, text)
    for name, function in (functions or {}).items():
        force.addTabulatedFunction(name, function)
    force.addBond([0], [])
    system = openmm.System()
    system.addParticle(1.0)
    system.addForce(force)
    context = openmm.Context(system, openmm.VerletIntegrator(1.0), openmm.Platform.getPlatformByName("Reference"))
    context.setPositions([point])
    state = context.getState(getEnergy=True, getForces=True)
    return state.getPotentialEnergy()._value, -np.asarray(state.getForces()[0]._value)


def torch_value(text, point=POINT, functions=None):
    x = torch.tensor(point, dtype=torch.float64, requires_grad=True)
    value = Expression(text, ["x1", "y1", "z1"], functions)(dict(zip(["x1", "y1", "z1"], x, strict=True)))
    gradient = torch.autograd.grad(value, x)[0].numpy() if value.requires_grad else np.zeros(3)
    return value.item(), gradient


def assert_same(text, point=POINT):
    value, gradient = torch_value(text, point)
    expected, slope = openmm_value(text, point)
    assert value == pytest.approx(expected, rel=ROUNDING, abs=ROUNDING)
    assert gradient == pytest.approx(slope, rel=1e-11, abs=1e-11)


@pytest.mark.parametrize(
    "text",
    [
        "-x1^2",
        "-2^2",
        "2^-x1",
        "2^-2^2",
        "2^3^2",
        "x1^-y1^2*3",
        "2*-x1",
        "x1--y1",
        "- - x1",
        "-x1-y1",
        "-x1*y1",
        "x1-y1-z1",
        "1/z1/x1",
        "x1/y1*z1",
        "-(x1)^2",
        "1e-3*x1 + 1.5E+2 - .5 + 1.",
        " ( x1 + 2 ) * ( y1 ) ",
    ],
)
def test_precedence_is_that_of_openmm(text):
    assert_same(text)


@pytest.mark.parametrize(
    "text",
    [
        "a; a=b; b=2*x1",
        "a; a=1+a; a=2*x1",
        "x1; x1=3*y1",
        "a*b; a=b^2+c; b=sin(c); c=x1*y1",
        "a; a = x1; ; ",
        "$a+a.b; $a=2; a.b=x1",
    ],
)
def test_definitions_are_read_from_the_last(text):
    assert_same(text)


ELEMENTARY = ["sqrt", "exp", "log", "sin", "cos", "sec", "csc", "tan", "cot", "asin", "acos", "atan"]
OTHER = ["sinh", "cosh", "tanh", "erf", "erfc", "step", "delta", "square", "cube", "recip", "abs", "floor", "ceil"]


@pytest.mark.parametrize("name", [*ELEMENTARY, *OTHER])
def test_every_function_agrees_in_value_and_slope(name):
    for argument in ("x1", "y1", "x1*y1"):
        assert_same(f"{name}({argument})")
    if name not in ("sqrt", "log", "asin", "acos"):
        assert_same(f"{name}(z1)")


@pytest.mark.parametrize(
    "text",
    [
        "atan2(z1,x1)",
        "min(x1,y1)+min(y1,x1)",
        "max(x1,y1)+max(z1,x1)",
        "select(x1-x1,x1,y1)",
        "select(z1,x1,y1)",
        "step(0)+delta(0)+step(0-1)",
        "x1^0.5+y1^-1.3+2.5^x1+x1^y1",
        "x1^0+z1^0",
        "x1^1+z1^1",
        "x1^(1/2)+z1^(5-2)+z1^(2*-1)+z1^--2",
        "(-x1)^3*1/3",
    ],
)
def test_functions_of_several_arguments_and_powers_agree(text):
    assert_same(text)


@pytest.mark.parametrize("exponent", [-7, -3, -2, -1, 1, 2, 3, 4, 5, 6, 9, 12])
def test_integer_powers_of_negative_numbers_agree(exponent):
    assert_same(f"z1^{exponent}")


def test_an_integer_power_in_a_parameter_keeps_its_slope():
    x = torch.tensor([-1.5, 2.0], dtype=torch.float64, requires_grad=True)
    value = Expression("x^n", ["x", "n"])({"x": x, "n": torch.tensor(3.0, dtype=torch.float64)})
    (slope,) = torch.autograd.grad(value.sum(), x)
    assert torch.allclose(value, x**3, rtol=ROUNDING)
    assert torch.allclose(slope, 3.0 * x.detach() ** 2, rtol=ROUNDING)


@pytest.mark.parametrize(
    ("text", "x", "value", "slope"),
    [
        ("select(step(x-1), x^2, 1/x^12)", 1.5, 2.25, 3.0),
        ("select(step(x-1), x^2, 1/x^12)", 0.0, math.inf, None),
        ("select(step(x-1), 0, x^2); y=1/x", 0.0, 0.0, 0.0),
        ("select(step(x-1), 1/(x-1), x)", 1.0 - 1e-9, 1.0 - 1e-9, 1.0),
        ("select(x, 1/x, 5)", 0.0, 5.0, 0.0),
        ("select(x, sqrt(x)*log(x), 5*x)", 0.0, 0.0, 5.0),
        ("select(step(-x), x, sqrt(x))", -2.0, -2.0, 1.0),
        ("select(step(-x), x, select(step(x-1), x, sqrt(x)))", -2.0, -2.0, 1.0),
        ("select(delta(x), 3*x, x^-2)", 0.0, 0.0, 3.0),
        ("min(1/x^12, 5*x + 1)", 0.0, 1.0, 5.0),
        ("max(-1/x^12, 5*x + 1)", 0.0, 1.0, 5.0),
        ("min(5*x + 1, 1/x^12)", 0.0, 1.0, 5.0),
        ("select(delta(x), 3*x, y*z); y=1/x; z=sin(x)", 0.0, 0.0, 3.0),
        ("select(delta(x), 3*x, y) + x; y=exp(1/x)", 0.0, 0.0, 4.0),
    ],
)
def test_no_slope_leaks_from_the_branch_not_taken(text, x, value, slope):
    leaf = torch.tensor([x, 0.5], dtype=torch.float64, requires_grad=True)
    result = Expression(text, ["x"])({"x": leaf})
    (gradient,) = torch.autograd.grad(result.sum(), leaf)
    assert result[0].item() == value
    if slope is not None:
        assert gradient[0].item() == slope
    assert torch.isfinite(gradient[1])  # the other sample keeps its own


def test_min_and_max_do_not_hide_what_cannot_be_computed():
    x = torch.tensor(-1.0, dtype=torch.float64)
    for text in ("min(log(x), 3)", "max(3, log(x))", "min(x, log(x))"):
        assert Expression(text, ["x"])({"x": x}).isnan()


def test_equal_subexpressions_are_evaluated_once():
    calls = []

    def counted(x):
        calls.append(x)
        return x.square()

    functions = {"f": Function(1, counted)}
    x = torch.tensor(2.0, dtype=torch.float64)
    assert Expression("a*a + f(x+1) + b; b=f(x+1)/a; a=f(1+x)", ["x"], functions)({"x": x}).item() == 81 + 9 + 1
    assert len(calls) == 2


def test_second_derivatives_exist_beside_a_singular_branch():
    x = torch.tensor([0.0, 2.0], dtype=torch.float64, requires_grad=True)
    value = Expression("select(step(x-1), x^3, min(x^2, 1/x))", ["x"])({"x": x})
    (first,) = torch.autograd.grad(value.sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x)
    assert torch.equal(second, torch.tensor([2.0, 12.0], dtype=torch.float64))


@pytest.mark.parametrize(
    ("text", "what", "position"),
    [
        ("+x1", "unexpected +", 0),
        ("2-+3", "unexpected +", 2),
        ("2 x1", "unexpected text", 1),
        ("1..2", "unexpected text", 2),
        ("2e", "unexpected text", 1),
        ("sin (x1)", "unknown variable sin", 0),
        ("sin(x1,y1)", "sin takes 1 arguments", 0),
        ("x1*foo(x1)", "unknown function foo", 3),
        ("x1 + bar", "unknown variable bar", 5),
        ("a; b=2; a=b", "unknown variable b", 10),
        ("a; a=", "unexpected end", 5),
        ("x1; y", "without a name", 3),
        ("x1; =3", "without a name", 3),
        ("", "unexpected end", 0),
        ("(x1", "not closed", 3),
        ("x1)", "unexpected text", 2),
        ("x1,y1", "unexpected text", 2),
        ("x1*", "unexpected end", 3),
        ("x1 = 3", "unexpected text", 2),
        ("__import__('os')", "unknown function __import__", 0),
    ],
)
def test_what_does_not_parse_is_said_with_its_position(text, what, position):
    with pytest.raises(UnsupportedError) as error:
        Expression(text, ["x1", "y1"])
    assert what in str(error.value)
    assert f'"{text}"' in str(error.value)
    assert f"position {position}." in str(error.value)


def test_a_function_that_hides_a_standard_one_is_refused():
    with pytest.raises(UnsupportedError, match="sin"):
        Expression("sin(x)", ["x"], {"sin": Function(1, torch.cos)})


def continuous(dimensions, periodic, rng):
    """A random OpenMM table, and its limits."""
    shape = rng.integers(4 if periodic else 2, 7, size=dimensions).tolist()
    values = rng.normal(size=shape)
    if periodic:
        for axis in range(dimensions):
            ends = np.moveaxis(values, axis, 0)
            ends[-1] = ends[0]
    lower = rng.normal(size=dimensions)
    upper = lower + rng.uniform(0.5, 2.0, size=dimensions)
    kind = (openmm.Continuous1DFunction, openmm.Continuous2DFunction, openmm.Continuous3DFunction)[dimensions - 1]
    sizes = shape if dimensions > 1 else []
    limits = np.stack([lower, upper], axis=1).ravel().tolist()
    return kind(*sizes, values.ravel(order="F").tolist(), *limits, periodic), lower, upper


def assert_table_agrees(function, points):
    """Value and slope at points ``(m, dimensions)``."""
    tree = tabulated(function)
    table = TabulatedFunction.from_tree(tree, torch.float64)
    text = "f({})".format(",".join(["x1", "y1", "z1"][: table.arity]))
    for point in points:
        full = [*point, 0.0, 0.0][:3]
        expected, slope = openmm_value(text, full, {"f": copy.deepcopy(function)})
        value, gradient = torch_value(text, full, {"f": Function(table.arity, table)})
        assert value == pytest.approx(expected, abs=1e-9)
        assert gradient == pytest.approx(slope, abs=1e-8)


@pytest.mark.parametrize("periodic", [False, True])
@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_splines_agree_inside_and_outside_their_range(dimensions, periodic):
    rng = np.random.default_rng(dimensions)
    for _ in range(3):
        function, lower, upper = continuous(dimensions, periodic, rng)
        inside = rng.uniform(lower, upper, (6, dimensions))
        around = rng.uniform(2 * lower - upper, 2 * upper - lower, (6, dimensions))
        assert_table_agrees(function, [*inside, *around])


def test_a_spline_of_two_points_is_a_line_up_to_its_ends():
    table = Continuous(np.array([1.0, 3.0]), np.array([0.0]), np.array([0.5]), False, torch.float64)
    points = torch.tensor([-1e-9, 0.0, 0.25, 0.5, 0.5 + 1e-9, math.inf, math.nan], dtype=torch.float64)
    assert torch.allclose(
        table(points), torch.tensor([0.0, 1.0, 2.0, 3.0, 0.0, 0.0, math.nan], dtype=torch.float64), equal_nan=True
    )


@pytest.mark.parametrize("periodic", [False, True])
def test_a_wall_in_a_spline_does_not_disturb_the_rest(periodic):
    values = np.random.default_rng(0).normal(size=60)
    values[:3] = [1e12, 1e9, 1e5]
    values[-1] = values[0] if periodic else values[-1]
    function = openmm.Continuous1DFunction(values.tolist(), 0.0, 59.0, periodic)
    assert_table_agrees(function, np.linspace(30.2, 40.2, 5)[:, None])


def test_lookup_tables_agree():
    rng = np.random.default_rng(0)
    sizes = (3, 2, 4)
    values = rng.normal(size=24).tolist()
    tables = [
        openmm.Discrete1DFunction(values[:3]),
        openmm.Discrete2DFunction(*sizes[:2], values[:6]),
        openmm.Discrete3DFunction(*sizes, values),
    ]
    for dimensions, function in enumerate(tables, start=1):
        assert_table_agrees(function, rng.uniform(-0.4, np.asarray(sizes) - 0.6, (12, 3))[:, :dimensions])


def test_float32_and_float64_give_results_of_their_own_precision():
    expression = Expression("select(step(x-1), 0.1, 1/3)*min(x, 0.7)^2", ["x"])
    for dtype in (torch.float32, torch.float64):
        assert expression({"x": torch.tensor([0.5, 2.0], dtype=dtype)}).dtype == dtype
