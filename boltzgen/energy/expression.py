"""OpenMM's expressions as batched, differentiable torch functions.

::

    energy = Expression("k*(r-r0)^2*s; s=select(step(r-r0), 1, softness)", ["r", "k", "r0", "softness"])
    energy({"r": r, "k": k, "r0": r0, "softness": softness})       # tensors of shapes that broadcast
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from boltzgen.energy.expression_syntax import NEGATE, Call, Node, Number, Variable, arguments_of, in_order, parse
from boltzgen.errors import UnsupportedError


@dataclass(frozen=True)
class Function:
    """An elementwise function of ``arity`` tensors."""

    arity: int
    rule: Callable[..., Tensor]


class Expression:
    """A function of named tensors, given by a text in the language of OpenMM's custom forces.

    The syntax is that of :func:`boltzgen.energy.expression_syntax.parse`; the functions are sqrt exp log sin cos sec
    csc tan cot asin acos atan atan2 sinh cosh tanh erf erfc step delta square cube recip min max abs floor ceil select,
    and those given. step(x) is 1 where x ≥ 0, delta(x) where x = 0, and select(x, a, b) is a where x ≠ 0.

    Equal subexpressions are evaluated once. Integer powers are products, so that they and their gradients are right for
    negative bases. The gradient is that of the branch taken: ``select``, ``min`` and ``max`` evaluate a branch that may
    be singular on variables whose gradient is cut off where the other branch is taken, so that an infinite slope there
    never becomes 0·∞. As in OpenMM, a product with ``step`` has no such protection. Nothing is simplified: ``0*log(x)``
    is NaN at x < 0, where OpenMM drops the product.

    Raises
    ------
    UnsupportedError
        If the text is no expression, or names a variable or function that is not given; with the position. If a given
        function has the name of a standard one.
    """

    def __init__(self, text: str, variables: Collection[str], functions: Mapping[str, Function] | None = None) -> None:
        for name in functions or {}:
            if name in _FUNCTIONS:
                raise UnsupportedError(f'the expression "{text}" gives the name {name} to a function of its own.')
        self.text = text
        self._functions = {**_FUNCTIONS, **(functions or {})}
        self._root = parse(text, variables, {name: function.arity for name, function in self._functions.items()})
        nodes = in_order(self._root, arguments_of)
        self.calls = tuple(node for node in nodes if isinstance(node, Call))
        self.variables = frozenset(node.name for node in nodes if isinstance(node, Variable))
        self._regular: set[Node] = set()
        for node in nodes:
            if _is_regular(node) and self._regular.issuperset(arguments_of(node)):
                self._regular.add(node)
        guarded = {branch for call in self.calls for branch in _branches(call)} - self._regular
        self._steps = {root: in_order(root, self._needs) for root in {self._root, *guarded}}

    def __call__(self, values: Mapping[str, Tensor]) -> Tensor:
        """Evaluate on tensors whose shapes broadcast, at least one, all of one precision and device."""
        return self._run(self._root, values, {})

    def _needs(self, node: Node) -> Iterable[Node]:
        """Nodes evaluated before this one; a singular branch of ``select`` is left to :meth:`_branch`."""
        if isinstance(node, Call) and node.function == "select":
            return [node.arguments[0], *(branch for branch in node.arguments[1:] if branch in self._regular)]
        return arguments_of(node)

    def _run(self, root: Node, values: Mapping[str, Tensor], known: Mapping[Node, Tensor]) -> Tensor:
        done = dict(known)
        for node in self._steps[root]:
            if node not in done:
                done[node] = self._value(node, values, done)
        return done[root]

    def _value(self, node: Node, values: Mapping[str, Tensor], done: Mapping[Node, Tensor]) -> Tensor:
        if isinstance(node, Number):
            return next(iter(values.values())).new_full((), node.value)
        if isinstance(node, Variable):
            return values[node.name]
        if node.function == "select":
            condition, first, second = node.arguments
            live = done[condition] != 0.0
            return torch.where(live, self._branch(first, live, values, done), self._branch(second, ~live, values, done))
        if node.function in ("min", "max"):
            first, second = node.arguments
            low, high = (done[first], done[second]) if node.function == "min" else (done[second], done[first])
            first_value = self._branch(first, low <= high, values, done)
            second_value = self._branch(second, low >= high, values, done)
            return self._functions[node.function].rule(first_value, second_value)
        arguments = [done[argument] for argument in node.arguments]
        if node.function == "^" and isinstance(exponent := node.arguments[1], Number):
            return constant_power(arguments[0], exponent.value)
        return self._functions[node.function].rule(*arguments)

    def _branch(self, branch: Node, live: Tensor, values: Mapping[str, Tensor], done: Mapping[Node, Tensor]) -> Tensor:
        """Value of a branch whose gradient is zero, never NaN, where it is not live."""
        if branch in self._regular:
            return done[branch]
        guarded = {name: gradient_where(live, value) for name, value in values.items() if name in self.variables}
        constants = {node: value for node, value in done.items() if not value.requires_grad}
        return self._run(branch, guarded or values, constants)


def gradient_where(live: Tensor, value: Tensor) -> Tensor:
    """Return ``value``, through which gradients pass only where ``live``: elsewhere they become zero, even from NaN."""
    if not value.requires_grad:
        return value
    if value.ndim > live.ndim:  # points (m, 3, batch) and a condition (m, batch)
        live = live.unsqueeze(-2)
    return torch.where(live, value, value.detach())


def constant_power(base: Tensor, exponent: float) -> Tensor:
    """Return base^exponent; exponents that are integers of 32 bits by repeated squaring, of 1/base if negative."""
    if not exponent.is_integer() or abs(exponent) >= 2**31:
        return base.pow(exponent)
    if exponent == 0.0:
        return torch.ones_like(base)
    return _natural_power(base if exponent > 0.0 else base.reciprocal(), int(abs(exponent)))


def _natural_power(base: Tensor, exponent: int) -> Tensor:
    if exponent == 1:
        return base
    root = _natural_power(base, exponent // 2)
    return root * root * base if exponent % 2 else root * root


def _branches(call: Call) -> tuple[Node, ...]:
    return {"select": call.arguments[1:], "min": call.arguments, "max": call.arguments}.get(call.function, ())


def _is_regular(node: Node) -> bool:
    """Whether the node and its gradient are finite wherever its arguments are."""
    if not isinstance(node, Call):
        return True
    if node.function == "^":
        exponent = node.arguments[1]
        return isinstance(exponent, Number) and exponent.value >= 0.0 and exponent.value.is_integer()
    if node.function == "/":
        return isinstance(node.arguments[1], Number)
    return node.function in _REGULAR


def _sec(x: Tensor) -> Tensor:
    return torch.cos(x).reciprocal()


def _csc(x: Tensor) -> Tensor:
    return torch.sin(x).reciprocal()


def _cot(x: Tensor) -> Tensor:
    return torch.tan(x).reciprocal()


def _step(x: Tensor) -> Tensor:
    return (x >= 0.0).to(x.dtype)


def _delta(x: Tensor) -> Tensor:
    return (x == 0.0).to(x.dtype)


def _cube(x: Tensor) -> Tensor:
    return x * x * x


_FUNCTIONS: dict[str, Function] = {
    "+": Function(2, torch.add),
    "-": Function(2, torch.sub),
    "*": Function(2, torch.mul),
    "/": Function(2, torch.div),
    "^": Function(2, torch.pow),
    NEGATE: Function(1, torch.neg),
    "sqrt": Function(1, torch.sqrt),
    "exp": Function(1, torch.exp),
    "log": Function(1, torch.log),
    "sin": Function(1, torch.sin),
    "cos": Function(1, torch.cos),
    "sec": Function(1, _sec),
    "csc": Function(1, _csc),
    "tan": Function(1, torch.tan),
    "cot": Function(1, _cot),
    "asin": Function(1, torch.asin),
    "acos": Function(1, torch.acos),
    "atan": Function(1, torch.atan),
    "atan2": Function(2, torch.atan2),
    "sinh": Function(1, torch.sinh),
    "cosh": Function(1, torch.cosh),
    "tanh": Function(1, torch.tanh),
    "erf": Function(1, torch.erf),
    "erfc": Function(1, torch.erfc),
    "step": Function(1, _step),
    "delta": Function(1, _delta),
    "square": Function(1, torch.square),
    "cube": Function(1, _cube),
    "recip": Function(1, torch.reciprocal),
    "min": Function(2, torch.minimum),
    "max": Function(2, torch.maximum),
    "abs": Function(1, torch.abs),
    "floor": Function(1, torch.floor),
    "ceil": Function(1, torch.ceil),
    "select": Function(3, torch.where),
}

_REGULAR = frozenset(
    f"+ - * {NEGATE} sin cos tanh atan erf erfc step delta square cube min max abs floor ceil select".split()
)
