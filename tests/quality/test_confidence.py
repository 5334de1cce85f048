"""Confidence from log-probabilities: only what was decided counts."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor.errors import InputError
from advisor.quality.confidence import answer_confidence, feature_matrix, label_probability
from advisor.quality.tokens import field_spans, text_of, tokens_of, within


def logged(*pairs: tuple[str, float], rivals: dict[int, dict[str, float]] | None = None) -> Any:
    return {
        "content": [
            {
                "token": token,
                "logprob": math.log(probability),
                "bytes": list(token.encode()),
                "top_logprobs": [
                    {"token": rival, "logprob": math.log(p)}
                    for rival, p in (rivals or {}).get(k, {}).items()
                ],
            }
            for k, (token, probability) in enumerate(pairs)
        ]
    }


INVOICE = logged(
    ('{"', 0.999),
    ("total", 0.999),
    ('": ', 0.999),
    ("11", 0.9),
    ("9", 0.5),
    (', "', 0.999),
    ("cur", 0.3),
    ('": "', 0.999),
    ("EUR", 0.8),
    ('"}', 0.999),
    rivals={4: {"9": 0.5, "8": 0.4}, 8: {"EUR": 0.8, "USD": 0.1}},
)


def test_keys_quotes_and_braces_do_not_count() -> None:
    """The key 'cur' was a guess at .3 and does not matter; the digit at .5 does."""
    found = answer_confidence(INVOICE, output="json")
    assert found.by_field == pytest.approx({"total": 0.9 * 0.5, "cur": 0.8})
    assert found.weakest_token == pytest.approx(0.5)
    assert found.weakest_field == pytest.approx(math.log(0.45))
    assert found.all_fields == pytest.approx(math.log(0.45 * 0.8))
    assert found.least_margin == pytest.approx(math.log(0.5 / 0.4))
    assert (found.fields, found.tokens) == (2, 3)


def test_only_required_fields_count() -> None:
    found = answer_confidence(INVOICE, output="json", required=["cur"])
    assert found.weakest_token == pytest.approx(0.8)
    with pytest.raises(InputError, match="no value tokens"):
        answer_confidence(INVOICE, output="json", required=["missing"])


def test_a_plain_answer_is_one_field() -> None:
    found = answer_confidence(logged(("re", 0.9), ("fund", 0.8), (" ", 0.1)), output="text")
    assert found.by_field == pytest.approx({"answer": 0.72})
    assert found.weakest_token == pytest.approx(0.8)


def test_characters_split_over_tokens_belong_to_each() -> None:
    """'é€' is 2 + 3 bytes; the second token ends inside the euro sign."""
    raw = "é€x".encode()
    content = [
        {"token": "�", "bytes": list(piece), "logprob": -0.1 * k}
        for k, piece in enumerate((raw[:2], raw[2:4], raw[4:5], raw[5:]))
    ]
    tokens = tokens_of(content)
    assert text_of(content) == "é€x"
    assert [(t.start, t.end) for t in tokens] == [(0, 1), (1, 2), (1, 2), (2, 3)]
    assert [t.logprob for t in within(tokens, 1, 2)] == pytest.approx([-0.1, -0.2])


def test_spans_of_nested_values() -> None:
    text = '{ "a" : [1, {"b\\"c": "x\\\\y"}, ""], "d": null }'
    spans = field_spans(text)
    assert {s.path: text[s.start : s.end] for s in spans} == {
        "a.0": "1",
        'a.1.b"c': "x\\\\y",
        "a.2": '""',
        "d": "null",
    }


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(min_size=1, max_size=4),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
        ),
        max_leaves=8,
    ),
    st.sampled_from([None, 1]),
)
def test_every_scalar_has_its_span(value: Any, indent: int | None) -> None:
    text = json.dumps(value, indent=indent)
    expected = []

    def walk(node: Any) -> None:
        if isinstance(node, dict):
            for item in node.values():
                walk(item)
        elif isinstance(node, list):
            for item in node:
                walk(item)
        else:
            dumped = json.dumps(node)
            expected.append(dumped[1:-1] if isinstance(node, str) else dumped)

    walk(value)
    assert [text[s.start : s.end] for s in field_spans(text)] == expected


def test_a_label_competes_with_labels_only() -> None:
    """'re' leads to refund and return; 'fund' against 'turn'; 'joke' is no label.

    First token: re .5, card .3, joke .2 → .5/.8. Second: fund .6, turn .3 → .6/.9.
    """
    labels = ["refund", "return", "card_lost"]
    answer = logged(
        ("re", 0.5),
        ("fund", 0.6),
        rivals={0: {"re": 0.5, "card": 0.3, "joke": 0.2}, 1: {"fund": 0.6, "turn": 0.3}},
    )
    assert label_probability(answer, labels) == pytest.approx(0.5 / 0.8 * 0.6 / 0.9)
    assert label_probability(logged((" Refund", 0.9)), labels) == pytest.approx(1.0)
    with pytest.raises(InputError, match="none of 3 labels"):
        label_probability(logged(("other", 0.9)), labels)


def test_a_token_that_no_other_label_shares_costs_nothing() -> None:
    answer = logged(("card", 0.9), ("_lost", 0.4), rivals={0: {"card": 0.9}, 1: {"s": 0.5}})
    assert label_probability(answer, ["refund", "card_lost"]) == pytest.approx(1.0)


@pytest.mark.parametrize(
    "logprobs",
    [
        None,
        {},
        {"content": "text"},
        {"content": [1]},
        {"content": [{"logprob": -1}]},
        {"content": [{"token": "x"}]},
        {"content": [{"token": "x", "logprob": math.nan}]},
        {"content": [{"token": "x", "logprob": "low"}]},
    ],
)
def test_other_forms_are_refused(logprobs: Any) -> None:
    with pytest.raises(InputError, match="logprobs"):
        answer_confidence(logprobs, output="text")


def test_an_answer_that_is_no_json_or_empty_has_no_confidence() -> None:
    with pytest.raises(InputError, match="not JSON"):
        answer_confidence(logged(("{", 0.9)), output="json")
    with pytest.raises(InputError, match="no value tokens"):
        answer_confidence({"content": []}, output="text")


def test_features_are_finite_whatever_the_answer() -> None:
    certain = answer_confidence(logged(("x", 1.0)), output="text")
    matrix = feature_matrix([certain, answer_confidence(INVOICE, output="json")])
    assert matrix.shape == (2, 6)
    assert np.isfinite(matrix).all()


@pytest.mark.parametrize("mark", ["</s>", "<|im_end|>", "<｜end▁of▁sentence｜>", "<end_of_turn>"])
def test_the_mark_that_ends_an_answer_is_no_part_of_it(mark: str) -> None:
    """vLLM lists it last; a label or a JSON answer with it would be neither."""
    ended = {"content": [*INVOICE["content"], *logged((mark, 0.01))["content"]]}

    assert answer_confidence(ended, output="json") == answer_confidence(INVOICE, output="json")
    label = logged(("refund", 0.8), (mark, 0.2))
    assert answer_confidence(label, output="label").weakest_token == pytest.approx(0.8)
    assert label_probability(label, ["refund", "order"]) == pytest.approx(1.0)
    assert text_of(logged(("a ", 0.9), ("<b>", 0.9))) == "a <b>"
