"""Hard gates: what a program can refuse in an answer before anyone uses it.

A failed gate escalates, whatever the confidence; none is a weight in a score (a weighted validator
lets a broken answer pass when the rest looks sure).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from advisor.errors import InputError
from advisor.quality.metrics import normalized
from advisor.quality.patterns import MATCH_TIMEOUT_S, PatternTimeoutError, full_match
from advisor.quality.rules import Rule, RuleError, parse_rule
from advisor.quality.schema_gate import SchemaGate
from advisor.quality.sql_gate import SqlGate
from advisor.records import Record

if TYPE_CHECKING:
    from advisor.task import TaskShape

GateName = Literal["parse", "schema", "label", "pattern", "rule", "sql"]

MAX_ANSWER_CHARACTERS = 1_000_000


class GateFailure(Record):
    """One gate that an answer failed, and why."""

    gate: GateName
    detail: str


class GateReport(Record):
    """What the gates say of one answer."""

    failures: tuple[GateFailure, ...]
    value: Any = None
    """The answer as it may be used: parsed JSON, the label as the task spells it, or the text."""

    @property
    def passed(self) -> bool:
        return not self.failures

    @property
    def cause(self) -> str:
        """Name of the first gate that failed; empty where all passed."""
        return self.failures[0].gate if self.failures else ""


class Gates:
    """The gates of a task.

    Args:
        output: label, json, sql or text.
        labels: the closed set of answers.
        schema: JSON Schema of the answer.
        rules: conditions across its fields (`advisor.quality.rules`).
        pattern: a regular expression that the whole answer must match.
        tables: columns by table that a query may refer to.
        dialect: SQL dialect, by its sqlglot name.

    Raises:
        InputError: a schema, rule or pattern that cannot be used.
    """

    def __init__(
        self,
        *,
        output: Literal["label", "json", "sql", "text"],
        labels: Sequence[str] | None = None,
        schema: Mapping[str, Any] | None = None,
        rules: Sequence[str] = (),
        pattern: str | None = None,
        tables: Mapping[str, Sequence[str]] | None = None,
        dialect: str = "",
    ) -> None:
        self._output = output
        self._labels = {normalized(label): label for label in labels or ()}
        self._schema = SchemaGate(schema) if schema is not None else None
        self._rules: tuple[Rule, ...] = tuple(parse_rule(rule) for rule in rules)
        self._pattern = pattern
        self._tables, self._dialect = tables, dialect
        if pattern is not None:
            full_match(pattern, "")

    @classmethod
    def of_task(
        cls, task: TaskShape, *, tables: Mapping[str, Sequence[str]] | None = None
    ) -> Gates:
        """The gates that a task profile states."""
        return cls(
            output=task.output,
            labels=task.labels if isinstance(task.labels, tuple) else None,
            schema=task.output_schema,
            rules=task.rules,
            tables=tables,
        )

    def check(self, answer: str) -> GateReport:
        """Run every gate that applies; a gate that needs a parsed answer waits for the parser."""
        if len(answer) > MAX_ANSWER_CHARACTERS:
            detail = f"more than {MAX_ANSWER_CHARACTERS:,} characters"
            return GateReport(failures=(GateFailure(gate="parse", detail=detail),))
        try:
            value = self._parsed(answer)
        except _RefusedError as refused:
            return GateReport(failures=(refused.failure,))
        return GateReport(failures=tuple(self._failures(answer, value)), value=value)

    def _parsed(self, answer: str) -> Any:
        match self._output:
            case "json":
                return _strict_json(answer)
            case "label":
                return self._label(answer)
            case _:
                if not answer.strip():
                    raise _RefusedError("parse", "the answer is empty")
                return answer.strip()

    def _label(self, answer: str) -> str:
        text = answer.strip()
        if not text or "\n" in text:
            raise _RefusedError("parse", "one line with a label was expected")
        if not self._labels:
            return text
        label = self._labels.get(normalized(text))
        if label is None:
            raise _RefusedError("label", f"'{text[:60]}' is none of {len(self._labels)} labels")
        return label

    def _failures(self, answer: str, value: Any) -> Iterator[GateFailure]:
        if self._pattern is not None:
            yield from self._pattern_failures(answer.strip())
        if self._schema is not None and self._output == "json":
            for detail in self._schema.problems(value):
                yield GateFailure(gate="schema", detail=detail)
        if self._output == "sql":
            for detail in self._sql.problems(value):
                yield GateFailure(gate="sql", detail=detail)
        for rule in self._rules if self._output == "json" else ():
            yield from _rule_failures(rule, value)

    @cached_property
    def _sql(self) -> SqlGate:
        return SqlGate(self._tables, dialect=self._dialect)

    def _pattern_failures(self, text: str) -> Iterator[GateFailure]:
        assert self._pattern is not None
        try:
            if full_match(self._pattern, text):
                return
            detail = f"does not match {self._pattern[:60]}"
        except PatternTimeoutError:
            detail = f"matching took more than {MATCH_TIMEOUT_S * 1000:g} ms"
        yield GateFailure(gate="pattern", detail=detail)


class _RefusedError(Exception):
    """An answer that no later gate can look at."""

    def __init__(self, gate: GateName, detail: str) -> None:
        super().__init__(detail)
        self.failure = GateFailure(gate=gate, detail=detail)


def _rule_failures(rule: Rule, value: Any) -> Iterator[GateFailure]:
    try:
        if rule.holds(value):
            return
        detail = rule.text
    except (RuleError, InputError) as error:
        detail = f"{rule.text}: {error}"
    yield GateFailure(gate="rule", detail=detail)


def _strict_json(answer: str) -> Any:
    """JSON and nothing around it: no NaN, no key given twice, no text before or after."""

    def no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        value = dict(pairs)
        if len(value) < len(pairs):
            raise _RefusedError("parse", "a key is given twice")
        return value

    def no_constant(name: str) -> Any:
        raise _RefusedError("parse", f"{name} is not JSON")

    try:
        return json.loads(answer, object_pairs_hook=no_twins, parse_constant=no_constant)
    except json.JSONDecodeError as error:
        raise _RefusedError("parse", f"not JSON: {error.msg} at character {error.pos}") from None
    except (RecursionError, ValueError):
        raise _RefusedError("parse", "not usable JSON: too deep, or a number too long") from None
