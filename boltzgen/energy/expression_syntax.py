"""The syntax of OpenMM's expressions: text to a graph of numbers, variables and calls."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import NoReturn

from boltzgen.errors import UnsupportedError

NEGATE = "-1*"
"""Name of the minus sign as a function of one argument; no text can call it."""


@dataclass(frozen=True, eq=False)
class Number:
    """A literal."""

    value: float


@dataclass(frozen=True, eq=False)
class Variable:
    """A quantity whose value is given at the evaluation."""

    name: str


@dataclass(frozen=True, eq=False)
class Call:
    """A function of other nodes; operators are functions called ``+ - * / ^`` and :data:`NEGATE`."""

    function: str
    arguments: tuple[Node, ...]


Node = Number | Variable | Call
"""Part of an expression. Nodes are compared by identity: equal parts of one expression are one node."""


def parse(text: str, variables: Collection[str], arities: Mapping[str, int]) -> Node:
    """Parse an expression, given the names of its variables and the numbers of arguments of its functions.

    Grammar, as of OpenMM's parser: ``sum; name = sum; name = sum ...`` where a definition may use those after it, and

    - sum: product, then any of ``+ product`` and ``- product``
    - product: signed, then any of ``* signed`` and ``/ signed``
    - signed: ``- signed``, or value, or ``value ^ signed``
    - value: number, variable, definition, ``function(sum, ...)`` or ``(sum)``

    so ``-x^2`` is −(x²), ``2^-x^2`` is 2^(−(x²)) and ``2^3^2`` is 2⁹. There is no unary plus.

    Raises
    ------
    UnsupportedError
        If the text does not parse or names something unknown; with the text and the position.
    """
    return _Parser(text, frozenset(variables), arities).parse()


def in_order(root: Node, needs: Callable[[Node], Iterable[Node]]) -> list[Node]:
    """All nodes that a node needs, itself last, each after those that it needs."""
    order: dict[Node, None] = {}
    stack = [(root, False)]
    while stack:
        node, ready = stack.pop()
        if ready:
            order[node] = None
        elif node not in order:
            stack.append((node, True))
            stack.extend((needed, False) for needed in needs(node))
    return list(order)


def arguments_of(node: Node) -> tuple[Node, ...]:
    """Arguments of a call; none of another node."""
    return node.arguments if isinstance(node, Call) else ()


_TOKEN = re.compile(
    r"\s*(?:(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)"
    r"|(?P<function>[^\s()+\-*/^,]+)\("
    r"|(?P<name>[^\s()+\-*/^,]+)"
    r"|(?P<symbol>[-+*/^(),]))"
)


_ARITHMETIC: dict[str, Callable[..., float]] = {
    NEGATE: operator.neg,
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
}


class _Parser:
    def __init__(self, text: str, variables: frozenset[str], arities: Mapping[str, int]) -> None:
        self.text = text
        self.variables = variables
        self.arities = arities
        self.definitions: dict[str, Node] = {}
        self.nodes: dict[tuple[object, ...], Node] = {}
        self.position = 0
        self.end = len(text)

    def parse(self) -> Node:
        starts = [0, *(match.end() for match in re.finditer(";", self.text))]
        ends = [*(start - 1 for start in starts[1:]), len(self.text)]
        for start, end in reversed(list(zip(starts[1:], ends[1:], strict=True))):
            name, equals, _ = self.text[start:end].partition("=")
            if equals and name.strip():
                self.definitions[name.strip()] = self._part(start + len(name) + 1, end)
            elif equals or name.strip():
                self._fail("a definition without a name", start)
        return self._part(0, ends[0])

    def _part(self, start: int, end: int) -> Node:
        self.position, self.end = start, end
        node = self._sum()
        if self._peek() is not None:
            self._fail("unexpected text", self.position)
        return node

    def _sum(self) -> Node:
        node = self._product()
        while symbol := self._accept("+-"):
            node = self._call(symbol, node, self._product())
        return node

    def _product(self) -> Node:
        node = self._signed()
        while symbol := self._accept("*/"):
            node = self._call(symbol, node, self._signed())
        return node

    def _signed(self) -> Node:
        if self._accept("-"):
            return self._call(NEGATE, self._signed())
        base = self._value()
        return self._call("^", base, self._signed()) if self._accept("^") else base

    def _value(self) -> Node:
        token = self._peek()
        if token is None:
            self._fail("unexpected end", self.position)
        start, self.position = token.start(token.lastgroup or 0), token.end()
        if token["number"]:
            return self._number(float(token["number"]))
        if token["name"]:
            return self._named(token["name"], start)
        if token["function"]:
            return self._function(token["function"], start)
        if token["symbol"] != "(":
            self._fail(f"unexpected {token['symbol']}", start)
        node = self._sum()
        self._close()
        return node

    def _named(self, name: str, start: int) -> Node:
        if name in self.definitions:
            return self.definitions[name]
        if name not in self.variables:
            self._fail(f"unknown variable {name}", start)
        return self._share(("variable", name), Variable(name))

    def _function(self, name: str, start: int) -> Node:
        if name not in self.arities:
            self._fail(f"unknown function {name}", start)
        arguments = [self._sum()]
        while self._accept(","):
            arguments.append(self._sum())
        self._close()
        if len(arguments) != self.arities[name]:
            self._fail(f"{name} takes {self.arities[name]} arguments, not {len(arguments)}", start)
        return self._call(name, *arguments)

    def _close(self) -> None:
        if not self._accept(")"):
            self._fail("a parenthesis is not closed", self.position)

    def _accept(self, symbols: str) -> str:
        """Take the next token if it is one of the symbols, and return it; otherwise the empty string."""
        token = self._peek()
        if token is None or not token["symbol"] or token["symbol"] not in symbols:
            return ""
        self.position = token.end()
        return token["symbol"]

    def _peek(self) -> re.Match[str] | None:
        return _TOKEN.match(self.text, self.position, self.end)

    def _call(self, function: str, *arguments: Node) -> Node:
        """A call; arithmetic on literals is done here, so that the exponents of ``x^-2`` and ``x^(1/2)`` are known."""
        literals = [node.value for node in arguments if isinstance(node, Number)]
        if function in _ARITHMETIC and len(literals) == len(arguments) and (function != "/" or literals[1] != 0.0):
            return self._number(_ARITHMETIC[function](*literals))
        return self._share((function, *arguments), Call(function, arguments))

    def _number(self, value: float) -> Node:
        return self._share(("number", value), Number(value))

    def _share(self, key: tuple[object, ...], node: Node) -> Node:
        return self.nodes.setdefault(key, node)

    def _fail(self, what: str, position: int) -> NoReturn:
        raise UnsupportedError(f'cannot convert the expression "{self.text}": {what} at position {position}.')
