"""How sure the small model is of its answer, from the log-probabilities of what it wrote.

Only tokens of values count: braces, keys and quotes of a JSON answer are written with probability
near 1 whatever the answer, and averaging over them hides the one digit the model guessed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from advisor.errors import InputError
from advisor.quality.metrics import normalized
from advisor.quality.tokens import Token, field_spans, text_of, tokens_of, within
from advisor.records import Record

UNKNOWN_MARGIN = 5.0
"""Margin in nats where the server returned no alternatives: as if the rivals were unlikely."""


class AnswerConfidence(Record):
    """Scores of one answer; the features of the logistic combination are the first six."""

    weakest_field: float
    """ln of the least joint probability of a field's value tokens."""
    all_fields: float
    """Sum over fields of the ln of their joint probabilities."""
    low_decile: float
    """10 % quantile of the log-probabilities of value tokens."""
    least_margin: float
    """Smallest distance, in nats, to the likeliest other token."""
    fields: int
    tokens: int
    """Value tokens."""
    weakest_token: float
    """Probability of the least likely value token: the score as long as there are few labels."""
    by_field: Mapping[str, float]
    """Joint probability of each field's value."""

    @property
    def features(self) -> tuple[float, ...]:
        """What the logistic model sees; counts as logarithms."""
        return (
            self.weakest_field,
            self.all_fields,
            self.low_decile,
            min(self.least_margin, UNKNOWN_MARGIN),
            math.log(self.fields),
            math.log(self.tokens),
        )


FEATURES = (
    "weakest field",
    "all fields",
    "low decile",
    "least margin",
    "ln fields",
    "ln tokens",
)


def answer_confidence(
    logprobs: Any, *, output: str, required: Sequence[str] | None = None
) -> AnswerConfidence:
    """Confidence of one answer.

    Args:
        logprobs: as the OpenAI API returns them.
        output: json (fields are looked at one by one), or label, sql, text (the whole is one).
        required: paths or leading parts of paths that count; None: every field.

    Raises:
        InputError: no value tokens, log-probabilities in another form, or an answer that was to be
            JSON and is not.
    """
    tokens = tokens_of(logprobs)
    text = text_of(logprobs)
    fields = _value_tokens(tokens, text, output=output, required=required)
    if not fields:
        raise InputError("no value tokens: the answer is empty, or has none of the required fields")
    joint = {path: sum(t.logprob for t in values) for path, values in fields.items()}
    distinct = {id(t): t for values in fields.values() for t in values}.values()
    logs = [t.logprob for t in distinct]
    margins = [t.margin for t in distinct if t.margin is not None]
    return AnswerConfidence(
        weakest_field=min(joint.values()),
        all_fields=sum(joint.values()),
        low_decile=_quantile(logs, 0.1),
        least_margin=min(margins, default=UNKNOWN_MARGIN),
        fields=len(fields),
        tokens=len(logs),
        weakest_token=math.exp(min(logs)),
        by_field={path: math.exp(value) for path, value in joint.items()},
    )


def _quantile(values: Sequence[float], share: float) -> float:
    """Linear between the sorted values, as numpy's: of a dozen it is had sooner without arrays."""
    ordered = sorted(values)
    at = share * (len(ordered) - 1)
    below = math.floor(at)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (at - below) * (ordered[above] - ordered[below])


def logged_confidence(
    text: str | None, logprobs: Any, *, output: str | None = None
) -> AnswerConfidence | None:
    """Confidence of an answer from a log; None where its log-probabilities give none.

    Args:
        output: as `answer_confidence`; None: json where the text looks like it.
    """
    if logprobs is None:
        return None
    looks_json = (text or "").lstrip().startswith(("{", "["))
    try:
        return answer_confidence(logprobs, output=output or ("json" if looks_json else "text"))
    except InputError:
        return None


def label_probability(logprobs: Any, labels: Sequence[str]) -> float:
    """Probability of the chosen label among the labels alone.

    At each token, the probability of those tokens after which some label can still follow is
    shared out again; the product over the tokens of the answer is

        P(label) = Π_t p(chosen_t) / Σ_{token at t that keeps a label possible} p(token),

    which is what decoding constrained to the labels would have said, as far as the returned
    alternatives reach.

    Raises:
        InputError: the answer is none of the labels, or log-probabilities in another form.
    """
    tokens = tokens_of(logprobs)
    text = text_of(logprobs)
    keys = [normalized(label) for label in labels]
    if normalized(text) not in keys:
        raise InputError(f"'{text[:60]}' is none of {len(labels)} labels")
    total, written = 0.0, ""
    for token in tokens:
        rivals = {**token.alternatives, token.text: token.logprob}
        possible = [value for rival, value in rivals.items() if _leads(written + rival, keys)]
        if _leads(written + token.text, keys):
            total += token.logprob - float(np.logaddexp.reduce(possible))
        written += token.text
    return math.exp(min(total, 0.0))


def _leads(text: str, keys: Sequence[str]) -> bool:
    """Whether a label can still follow; leading blanks and quotes do not count."""
    start = " ".join(text.casefold().split()).lstrip(" \"'`")
    return any(key.startswith(start) or start.rstrip(" \"'.`") == key for key in keys)


def _value_tokens(
    tokens: Sequence[Token], text: str, *, output: str, required: Sequence[str] | None
) -> dict[str, tuple[Token, ...]]:
    """Tokens by field path; blank ones and end marks carry no value."""
    if output != "json":
        values = tuple(t for t in tokens if t.text.strip())
        return {"answer": values} if values else {}
    found = {}
    for span in field_spans(text):
        if required is not None and not any(_covers(path, span.path) for path in required):
            continue
        values = within(tokens, span.start, span.end)
        if values:
            found[span.path] = values
    return found


def _covers(path: str, field: str) -> bool:
    return field == path or field.startswith(f"{path}.")


def feature_matrix(answers: Sequence[AnswerConfidence]) -> NDArray[np.float64]:
    """(n, 6)."""
    return np.array([answer.features for answer in answers], dtype=float).reshape(-1, len(FEATURES))
