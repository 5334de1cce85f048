"""Is an answer right? One function a metric, each from one answer to a score in 0–1.

Exact match, label accuracy and pass rates say right or wrong; field F1, token F1 and ROUGE-L are
graded. Macro-F1 belongs to a whole set of answers, not to one.
"""

from __future__ import annotations

import json
import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from typing import Any

from advisor.errors import InputError

NUMBER_TOLERANCE = 1e-9
"""Relative difference up to which two numbers are the same."""

MAX_ROUGE_TOKENS = 20_000
"""Texts are compared up to this many words: the longest common subsequence is quadratic."""

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalized(text: str) -> str:
    """Unicode-normal, lower case, single spaces, no outer quotes or full stop."""
    plain = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(plain.split()).strip(" \"'.`")


def exact_match(answer: str, expected: Any) -> float:
    """1 where the answer is the expected one; JSON is compared by value, text by `normalized`."""
    if not isinstance(expected, str):
        return float(_parsed(answer) == _comparable(expected))
    if normalized(answer) == normalized(expected):
        return 1.0
    wanted = _parsed(expected)
    return float(isinstance(wanted, tuple) and _parsed(answer) == wanted)


def field_f1(answer: str, expected: Any) -> float:
    """F1 of the leaves of a JSON answer: right ones over those given and those expected.

    A leaf is a path and a value; the items of a list are matched whatever their order, the best
    pairs first. An answer that is no JSON scores 0; nothing expected and nothing given scores 1.
    """
    wanted = json.loads(expected) if isinstance(expected, str) else expected
    try:
        given = json.loads(answer)
    except (json.JSONDecodeError, RecursionError):
        return 0.0
    total = _leaves(given) + _leaves(wanted)
    return 2 * _shared_leaves(given, wanted) / total if total else 1.0


def token_f1(answer: str, expected: str) -> float:
    """F1 of the words of two texts, without case, punctuation and articles (SQuAD, 1606.05250)."""
    given, wanted = Counter(_words(answer)), Counter(_words(expected))
    if not given or not wanted:
        return float(given == wanted)
    shared = sum((given & wanted).values())
    return 2 * shared / (given.total() + wanted.total())


def rouge_l(answer: str, expected: str) -> float:
    """F-measure of the longest common subsequence of words (Lin 2004, ROUGE-L, β = 1).

    Words are runs of letters and digits in lower case, without stemming.
    """
    given = re.findall(r"\w+", answer.lower())[:MAX_ROUGE_TOKENS]
    wanted = re.findall(r"\w+", expected.lower())[:MAX_ROUGE_TOKENS]
    if not given or not wanted:
        return float(given == wanted)
    return 2 * longest_common_subsequence(given, wanted) / (len(given) + len(wanted))


def macro_f1(answers: Sequence[str], expected: Sequence[str]) -> float:
    """Mean F1 over the labels that occur, in the answers or among the expected ones.

    Raises:
        InputError: no answers, or not one for each expected label.
    """
    if len(answers) != len(expected) or not answers:
        raise InputError(f"macro_f1: {len(answers)} answers for {len(expected)} expected labels")
    pairs = Counter((normalized(a), normalized(e)) for a, e in zip(answers, expected, strict=True))
    given: Counter[str] = Counter()
    wanted: Counter[str] = Counter()
    for (answer, label), count in pairs.items():
        given[answer] += count
        wanted[label] += count
    labels = given.keys() | wanted.keys()
    return sum(2 * pairs[x, x] / (given[x] + wanted[x]) for x in labels) / len(labels)


def longest_common_subsequence(first: Sequence[Hashable], second: Sequence[Hashable]) -> int:
    """Length, bit-parallel: one big-integer addition for each word of `second`.

    Source: Hyyrö 2004, "Bit-parallel LCS-length computation revisited".
    """
    positions: dict[Hashable, int] = {}
    for index, item in enumerate(first):
        positions[item] = positions.get(item, 0) | 1 << index
    mask = (1 << len(first)) - 1
    row = mask
    for item in second:
        matches = row & positions.get(item, 0)
        row = (row + matches | row - matches) & mask
    return len(first) - row.bit_count()


METRICS: dict[str, Callable[[str, Any], float]] = {
    "exact_match": exact_match,
    "accuracy": exact_match,
    "macro_f1": exact_match,
    "field_f1": field_f1,
    "rouge_l": lambda answer, expected: rouge_l(answer, str(expected)),
    "token_f1": lambda answer, expected: token_f1(answer, str(expected)),
}
"""Score of one answer, by metric of a task profile. For macro-F1 each answer is right or wrong.
Execution match needs a database (`advisor.quality.sql_execution`), and a pass rate is whatever the
log says of each answer."""


def _words(text: str) -> list[str]:
    return _ARTICLES.sub(" ", text.casefold().translate(_PUNCTUATION)).split()


def _parsed(text: str) -> Any:
    """A comparable form of a JSON text; the text itself, normalised, where it is none."""
    try:
        return _comparable(json.loads(text))
    except (json.JSONDecodeError, RecursionError):
        return normalized(text)


def _comparable(value: Any) -> Any:
    """Nested tuples in which equal JSON values are equal."""
    if isinstance(value, dict):
        return "object", tuple(sorted((key, _comparable(item)) for key, item in value.items()))
    if isinstance(value, list):
        return "array", tuple(_comparable(item) for item in value)
    if isinstance(value, bool) or value is None:
        return "constant", value
    if isinstance(value, int | float):
        return "number", float(f"{value:.12g}")
    return "string", normalized(str(value))


def _leaves(value: Any) -> int:
    if isinstance(value, dict):
        return sum(_leaves(item) for item in value.values())
    if isinstance(value, list):
        return sum(_leaves(item) for item in value)
    return 1


def _shared_leaves(given: Any, wanted: Any) -> int:
    if isinstance(given, dict) and isinstance(wanted, dict):
        return sum(_shared_leaves(given[key], wanted[key]) for key in given.keys() & wanted.keys())
    if isinstance(given, list) and isinstance(wanted, list):
        return _matched_items(given, wanted)
    if isinstance(given, dict | list) or isinstance(wanted, dict | list):
        return 0
    return int(same_value(given, wanted))


def _matched_items(given: list[Any], wanted: list[Any]) -> int:
    """Shared leaves of two lists: the pairs that share most are taken first."""
    pairs = sorted(
        ((_shared_leaves(g, w), i, j) for i, g in enumerate(given) for j, w in enumerate(wanted)),
        key=lambda pair: -pair[0],
    )
    total, used_given, used_wanted = 0, set(), set()
    for shared, i, j in pairs:
        if i not in used_given and j not in used_wanted:
            used_given.add(i)
            used_wanted.add(j)
            total += shared
    return total


def same_value(first: Any, second: Any) -> bool:
    """Whether two scalars are the same: numbers by value, text by `normalized`."""
    if isinstance(first, bool) or isinstance(second, bool) or first is None or second is None:
        return first is second
    if isinstance(first, int | float) and isinstance(second, int | float):
        return abs(first - second) <= NUMBER_TOLERANCE * max(1.0, abs(first), abs(second))
    if isinstance(first, str) and isinstance(second, str):
        return normalized(first) == normalized(second)
    return False
