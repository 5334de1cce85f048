"""Rules across the fields of an answer: a small expression language, evaluated, never executed.

    abs(total - net - tax) < 0.02
    due_date >= issue_date and currency in ["EUR", "USD"]
    all(line.amount > 0 for line in lines)
    matches(iban, "[A-Z]{2}[0-9]{2}[A-Z0-9]{10,30}") if country == "DE" else True

A rule is a Python expression of literals, field names (with dots and [indices]), arithmetic
(+ − * / % //), comparisons, `in`, and / or / not, a conditional, one generator inside all, any,
sum, len, min or max, and the functions below. Nothing else parses: no attribute of Python's own, no
call of anything else, no power, no string formatting. A rule whose fields are missing fails.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from advisor.errors import InputError
from advisor.quality.patterns import full_match

MAX_RULE_CHARACTERS = 2000
MAX_STEPS = 20_000
"""Operations one rule may take on one answer: ten passes over a list of a thousand items."""

MAX_TEXT = 100_000
"""Characters or items that a value made by a rule may have."""

NUMBER_TOLERANCE = 1e-9
"""Relative difference up to which == holds between numbers: 0.1 + 0.2 is 0.3."""


class RuleError(Exception):
    """A rule that cannot be evaluated on an answer, with the reason."""


_OPERATORS: dict[type[ast.AST], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_ALLOWED = (
    ast.Expression, ast.Constant, ast.Name, ast.Load, ast.Attribute, ast.Subscript, ast.List,
    ast.Tuple, ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.And, ast.Or, ast.Not, ast.USub, ast.Compare,
    ast.Eq, ast.NotEq, ast.In, ast.NotIn, ast.IfExp, ast.Call, ast.GeneratorExp, ast.comprehension,
    ast.Store, *_OPERATORS,
)  # fmt: skip


@dataclass(frozen=True)
class Rule:
    """A parsed rule."""

    text: str
    fields: tuple[str, ...]
    """Top-level fields it refers to, sorted."""
    _tree: ast.expr = field(repr=False, compare=False)

    def holds(self, answer: Any) -> bool:
        """Whether the rule holds for an answer (a JSON object).

        Raises:
            RuleError: a field is missing, types do not go together, or it takes too long.
        """
        if not isinstance(answer, dict):
            raise RuleError("the answer is not an object")
        evaluation = _Evaluation(answer)
        try:
            return bool(evaluation.value(self._tree))
        except (TypeError, ValueError, ZeroDivisionError, OverflowError, RecursionError) as error:
            raise RuleError(f"{type(error).__name__}: {error}") from None


def parse_rule(text: str) -> Rule:
    """Parse a rule.

    Raises:
        InputError: not an expression of the language, with what is not.
    """
    if len(text) > MAX_RULE_CHARACTERS:
        raise InputError(f"rule: more than {MAX_RULE_CHARACTERS:,} characters")
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise InputError(f"rule '{text[:80]}': not an expression") from None
    for node in ast.walk(tree):
        _check_node(node, text)
    bound = {
        n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
    }
    called = {
        n.func.id
        for n in ast.walk(tree)
        if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)
    }
    names = [n.id for n in ast.walk(tree) if isinstance(n, ast.Name)]
    fields = sorted(set(names) - bound - called)
    return Rule(text=text, fields=tuple(fields), _tree=tree.body)


def _check_node(node: ast.AST, text: str) -> None:
    def refuse(what: str) -> InputError:
        return InputError(f"rule '{text[:80]}': {what}")

    if not isinstance(node, _ALLOWED):
        raise refuse(f"{type(node).__name__} is not part of the language")
    if isinstance(node, ast.Constant) and not isinstance(
        node.value, str | int | float | bool | None
    ):
        raise refuse(f"a {type(node.value).__name__} is not part of the language")
    if isinstance(node, ast.Call):
        if not isinstance(node.func, ast.Name) or node.func.id not in _FUNCTIONS:
            called = ast.unparse(node.func)
            raise refuse(f"{called}() is unknown; functions: {', '.join(sorted(_FUNCTIONS))}")
        if node.keywords:
            raise refuse(f"{node.func.id}() takes no named arguments")
    if isinstance(node, ast.Attribute) and node.attr.startswith("_"):
        raise refuse(f"field '{node.attr}' begins with an underscore")
    if isinstance(node, ast.GeneratorExp) and (
        len(node.generators) != 1 or not isinstance(node.generators[0].target, ast.Name)
    ):
        raise refuse("a generator has one 'for name in list'")


class _Evaluation:
    """One rule on one answer: names in scope and the steps left."""

    def __init__(self, scope: Mapping[str, Any]) -> None:
        self._scopes: list[Mapping[str, Any]] = [scope]
        self._steps = MAX_STEPS

    def value(self, node: ast.expr) -> Any:
        self._steps -= 1
        if self._steps < 0:
            raise RuleError(f"more than {MAX_STEPS:,} steps")
        match node:
            case ast.Constant():
                return node.value
            case ast.Name():
                return self._named(node.id)
            case ast.Attribute():
                return _item(self.value(node.value), node.attr)
            case ast.Subscript():
                return _item(self.value(node.value), self.value(node.slice))
            case ast.List() | ast.Tuple():
                return [self.value(item) for item in node.elts]
            case ast.UnaryOp():
                operand = self.value(node.operand)
                return not operand if isinstance(node.op, ast.Not) else -operand
            case ast.BinOp():
                return _bounded(_binary(node.op, self.value(node.left), self.value(node.right)))
            case ast.BoolOp():
                wanted = isinstance(node.op, ast.Or)
                return (
                    wanted
                    if any(bool(self.value(v)) is wanted for v in node.values)
                    else not wanted
                )
            case ast.Compare():
                return self._compared(node)
            case ast.IfExp():
                return self.value(node.body if self.value(node.test) else node.orelse)
            case ast.Call(func=ast.Name(id=name)):
                return _FUNCTIONS[name](*(self._argument(argument) for argument in node.args))
        raise RuleError("a generator stands alone only inside all, any, sum, len, min or max")

    def _argument(self, node: ast.expr) -> Any:
        return (
            list(self._generated(node)) if isinstance(node, ast.GeneratorExp) else self.value(node)
        )

    def _generated(self, node: ast.GeneratorExp) -> Iterator[Any]:
        source = node.generators[0]
        items = self.value(source.iter)
        if not isinstance(items, list):
            raise RuleError(f"'{ast.unparse(source.iter)}' is not a list")
        assert isinstance(source.target, ast.Name)
        for item in items:
            self._scopes.append({source.target.id: item})
            try:
                if all(self.value(condition) for condition in source.ifs):
                    yield self.value(node.elt)
            finally:
                self._scopes.pop()

    def _named(self, name: str) -> Any:
        for scope in reversed(self._scopes):
            if name in scope:
                return scope[name]
        raise RuleError(f"field '{name}' is missing")

    def _compared(self, node: ast.Compare) -> bool:
        left = self.value(node.left)
        for op, comparator in zip(node.ops, node.comparators, strict=True):
            right = self.value(comparator)
            if not _holds(op, left, right):
                return False
            left = right
        return True


def _holds(op: ast.cmpop, left: Any, right: Any) -> bool:
    match op:
        case ast.Eq():
            return _equal(left, right)
        case ast.NotEq():
            return not _equal(left, right)
        case ast.In() | ast.NotIn():
            found = (
                left in right
                if isinstance(left, str) and isinstance(right, str)
                else any(_equal(left, item) for item in _as_list(right))
            )
            return found is isinstance(op, ast.In)
    if isinstance(left, bool) or isinstance(right, bool):
        raise RuleError("true and false have no order")
    return bool(_OPERATORS[type(op)](left, right))


def _binary(op: ast.operator, left: Any, right: Any) -> Any:
    for value in (left, right):
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise RuleError(f"{type(value).__name__} in arithmetic")
    if isinstance(left, str) != isinstance(right, str) or (
        isinstance(left, str) and not isinstance(op, ast.Add)
    ):
        raise RuleError("text and numbers do not mix in arithmetic")
    return _OPERATORS[type(op)](left, right)


def _bounded(value: Any) -> Any:
    if isinstance(value, str) and len(value) > MAX_TEXT:
        raise RuleError("a text grows too long")
    if isinstance(value, int) and value.bit_length() > 1024:
        raise RuleError("a number grows too large")
    return value


def _equal(left: Any, right: Any) -> bool:
    numbers = [isinstance(v, int | float) and not isinstance(v, bool) for v in (left, right)]
    if all(numbers):
        return math.isclose(left, right, rel_tol=NUMBER_TOLERANCE, abs_tol=NUMBER_TOLERANCE)
    return type(left) is type(right) and bool(left == right)


def _item(container: Any, key: Any) -> Any:
    if isinstance(container, dict) and isinstance(key, str):
        if key not in container:
            raise RuleError(f"field '{key}' is missing")
        return container[key]
    if isinstance(container, list | str) and isinstance(key, int) and not isinstance(key, bool):
        if not -len(container) <= key < len(container):
            raise RuleError(f"there is no item {key}")
        return container[key]
    raise RuleError(f"{type(container).__name__} has no field {key!r:.40}")


def _as_list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise RuleError(f"{type(value).__name__} is not a list")
    return value


def _numbers(values: Any) -> list[float]:
    items = _as_list(values)
    if any(isinstance(item, bool) or not isinstance(item, int | float) for item in items):
        raise RuleError("the list has items that are not numbers")
    return items


def _day(text: Any) -> str:
    """A date as YYYY-MM-DD, so that dates compare as texts do."""
    try:
        return date.fromisoformat(str(text)[:10]).isoformat()
    except ValueError:
        raise RuleError(f"'{str(text)[:40]}' is not a date (YYYY-MM-DD)") from None


def _extreme(choose: Callable[[list[Any]], Any]) -> Callable[..., Any]:
    def function(*values: Any) -> Any:
        items = _numbers(values[0] if len(values) == 1 else list(values))
        if not items:
            raise RuleError("an empty list has no smallest or largest item")
        return choose(items)

    return function


def _length(value: Any) -> int:
    if not isinstance(value, str | list | dict):
        raise RuleError(f"{type(value).__name__} has no length")
    return len(value)


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "abs": lambda value: abs(_numbers([value])[0]),
    "all": lambda values: all(_as_list(values)),
    "any": lambda values: any(_as_list(values)),
    "date": _day,
    "len": _length,
    "lower": lambda text: str(text).lower(),
    "matches": lambda text, pattern: full_match(str(pattern), str(text)),
    "max": _extreme(max),
    "min": _extreme(min),
    "number": lambda text: float(str(text).replace(",", "")),
    "round": lambda value, digits=0: round(_numbers([value])[0], int(digits)),
    "sum": lambda values: math.fsum(_numbers(values)),
    "unique": lambda values: len({repr(item) for item in _as_list(values)}) == len(values),
}
