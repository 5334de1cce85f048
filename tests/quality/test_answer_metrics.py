"""Scores of single answers, computed by hand."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor.errors import InputError
from advisor.quality.metrics import (
    exact_match,
    field_f1,
    longest_common_subsequence,
    macro_f1,
    rouge_l,
    token_f1,
)


@pytest.mark.parametrize(
    ("answer", "expected", "score"),
    [
        (" Card_Lost. ", "card_lost", 1),
        ("card lost", "card_lost", 0),
        ('{"b": 1, "a": 2.0}', '{"a": 2, "b": 1}', 1),
        ('{"a": [1, 2]}', {"a": [1, 2]}, 1),
        ('{"a": [2, 1]}', {"a": [1, 2]}, 0),
        ('{"a": true}', {"a": 1}, 0),
        ("not json", {"a": 1}, 0),
        ("12", "12.0", 1),
        ("twelve", "12", 0),
        ("42", 42, 1),
    ],
)
def test_exact_match(answer: str, expected: object, score: float) -> None:
    assert exact_match(answer, expected) == score


def test_field_f1_counts_leaves() -> None:
    """3 given, 4 expected, 2 right: F1 = 2·2/(3 + 4)."""
    expected = {"name": "Ann", "total": 10, "lines": [{"sku": "a"}, {"sku": "b"}]}
    assert field_f1('{"name": "ann", "total": 11, "lines": [{"sku": "b"}]}', expected) == (
        pytest.approx(4 / 7)
    )
    assert field_f1("{}", expected) == 0
    assert field_f1("{}", {}) == 1
    assert field_f1("oops", expected) == 0


def test_items_of_a_list_are_matched_whatever_their_order() -> None:
    given_lines = '{"lines": [{"a": 2, "b": 2}, {"a": 1, "b": 1}]}'
    wanted = {"lines": [{"a": 1, "b": 1}, {"a": 2, "b": 2}]}
    assert field_f1(given_lines, wanted) == 1
    assert field_f1('{"lines": [{"a": 1, "b": 1}, {"a": 1, "b": 1}]}', wanted) == 0.5


def test_token_f1_as_squad_has_it() -> None:
    """'the cat sat' has cat, sat; 'a cat sat down!' has cat, sat, down: 2·2/(2 + 3)."""
    assert token_f1("the cat sat", "a cat sat down!") == pytest.approx(0.8)
    assert token_f1("", "") == 1
    assert token_f1("x", "") == 0


def test_rouge_l_of_lins_example() -> None:
    """'police kill the gunman' against 'police killed the gunman': 3 of 4 words in order."""
    assert rouge_l("police kill the gunman", "police killed the gunman") == pytest.approx(0.75)
    assert rouge_l("the gunman kill police", "police killed the gunman") == pytest.approx(0.5)


@given(st.text("abc", max_size=30), st.text("abc", max_size=30))
def test_the_bit_parallel_subsequence_is_the_textbook_one(first: str, second: str) -> None:
    table = [[0] * (len(second) + 1) for _ in range(len(first) + 1)]
    for i, a in enumerate(first):
        for j, b in enumerate(second):
            table[i + 1][j + 1] = (
                table[i][j] + 1 if a == b else max(table[i][j + 1], table[i + 1][j])
            )
    assert longest_common_subsequence(first, second) == table[-1][-1]


def test_macro_f1_weighs_labels_alike() -> None:
    """a: 2·2/(3 + 2) = .8; b: 2·1/(1 + 2) = 2/3."""
    assert macro_f1(["a", "a", "a", "b"], ["a", "a", "b", "b"]) == pytest.approx((0.8 + 2 / 3) / 2)
    with pytest.raises(InputError, match="2 answers for 1"):
        macro_f1(["a", "b"], ["a"])
    with pytest.raises(InputError, match="0 answers"):
        macro_f1([], [])


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(JSON_VALUES)
def test_an_answer_always_agrees_with_itself(value: object) -> None:
    text = json.dumps(value)
    assert field_f1(text, text) == 1
    if not isinstance(value, str):
        assert exact_match(text, value) == 1
