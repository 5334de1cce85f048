"""The sandbox task: rows come from seeds alone, and test sets hold what training never saw."""

import json
import random
import re
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor.errors import InputError
from advisor.quality.gates import Gates
from advisor.trial.sandbox import rows, sandbox_task
from advisor.trial.sandbox.requests import (
    ALL_PAIRS,
    HELD_OUT_PAIRS,
    SPLITS,
    Split,
    request,
    tidy,
)
from advisor.trial.sandbox.wording import DAYS, INTENTS, ITEMS, SEEN, UNSEEN

SEEDS = st.integers(0, 10**6)


def drawn(split: Split, count: int, seed: int = 7) -> list[tuple[str, dict[str, object]]]:
    made = (request(split, seed, index) for index in range(count))
    return [(row.text, json.loads(row.expected)) for row in made]


def test_rows_of_a_seed_are_these() -> None:
    """Written down once: another Python, machine or day gives the same."""
    assert [request("held_out", 0, index).text for index in range(3)] == [
        "my boss asked me to reserve the big handset this saturday, for elena",
        "good afternoon, i wish to order eleven displays by saturday, same as before",
        "my boss asked me to cancel the badge as soon as you can",
    ]
    assert [request("held_out", 0, index).expected for index in range(3)] == [
        '{"intent":"book","item":"phone","day":"saturday"}',
        '{"intent":"order","item":"monitor","day":"saturday","count":11}',
        '{"intent":"cancel","item":"badge"}',
    ]


@given(st.sampled_from(SPLITS), SEEDS, st.integers(0, 10**6))
def test_a_row_does_not_depend_on_what_was_drawn_before(
    split: Split, seed: int, index: int
) -> None:
    first = request(split, seed, index)
    random.seed(0)
    request("train", seed, index + 1)

    assert request(split, seed, index) == first


def test_pairs_held_out_are_a_fifth_and_never_trained() -> None:
    assert len(HELD_OUT_PAIRS) == len(ALL_PAIRS) / 5
    assert {intent for intent, _ in HELD_OUT_PAIRS} == set(INTENTS)
    assert {item for _, item in HELD_OUT_PAIRS} == set(ITEMS)

    for split in SPLITS:
        pairs = {request(split, 1, index).pair for index in range(2000)} - {None}
        expected = HELD_OUT_PAIRS if split == "held_out" else set(ALL_PAIRS) - HELD_OUT_PAIRS
        assert pairs == expected


def test_unseen_wording_shares_no_phrase_with_training() -> None:
    for part in ("openings", "endings", "asides", "slips", "outside", "things", "names"):
        assert not set(getattr(SEEN, part)) & set(getattr(UNSEEN, part)), part

    known = {word for text, _ in drawn("train", 4000) for word in re.findall(r"[a-z']+", text)}
    unknown = [
        sum(word not in known for word in re.findall(r"[a-z']+", text.lower()))
        for text, _ in drawn("unseen_wording", 500)
    ]
    assert sum(count > 0 for count in unknown) / len(unknown) > 0.7


@pytest.mark.parametrize("split", SPLITS)
def test_every_right_answer_passes_the_gates(split: Split) -> None:
    gates = Gates.of_task(sandbox_task().task)

    for text, answer in drawn(split, 400):
        report = gates.check(json.dumps(answer))
        assert report.passed, (text, answer, report.failures)


def test_the_gates_can_refuse() -> None:
    """Each refused for one reason, so that the schema and the rule have work to do."""
    gates = Gates.of_task(sandbox_task().task)

    refused = {
        '{"intent":"order","item":"desk"}': "schema",
        '{"intent":"other","item":"desk"}': "schema",
        '{"intent":"book","item":"desk"}': "schema",
        '{"intent":"report","item":"desk","ticket":"12"}': "schema",
        '{"intent":"cancel","item":"desk","count":2}': "schema",
        '{"intent":"move","item":"desk","day":"monday","to_day":"monday"}': "rule",
        '{"intent":"book","item":"desk","day":"monday}': "parse",
    }
    assert {answer: gates.check(answer).cause for answer in refused} == refused


def test_days_said_by_their_neighbours_are_the_right_ones() -> None:
    """Slowly: walk the week from the day that is named."""
    steps = {"the day after": 1, "two days after": 2, "the day before": -1, "two days before": -2}
    phrases = {
        f"{words} {start}": DAYS[(DAYS.index(start) + move) % 7]
        for (words, move), start in product(steps.items(), DAYS)
    }
    checked = 0
    for text, answer in drawn("held_out", 3000):
        found = [phrase for phrase in phrases if f" {phrase}" in f" {text}"]
        longest = [p for p in found if not any(p != q and p in q for q in found)]
        if len(longest) == 1 and answer["intent"] not in ("move", "other"):
            assert phrases[longest[0]] == answer["day"], text
            checked += 1
    assert checked > 200


def test_out_of_scope_requests_are_there_and_say_nothing_else() -> None:
    answers = drawn("held_out", 2000)
    outside = [text for text, answer in answers if answer["intent"] == "other"]

    assert len(outside) / len(answers) == pytest.approx(0.12, abs=0.03)
    assert "" in outside
    assert all(len(answer) == 1 for _, answer in answers if answer["intent"] == "other")


@given(st.text(alphabet="ab ,", max_size=30))
def test_tidy_text_has_no_loose_commas(text: str) -> None:
    tidied = tidy(text)

    assert "  " not in tidied
    assert " ," not in tidied
    assert tidied == tidied.strip(" ,")


def test_rows_are_labelled_and_begin_alike() -> None:
    few, many = rows("unseen_wording", 5, 3), rows("unseen_wording", 50, 3)

    assert many[:5] == few
    assert len({row.id for row in many}) == 50
    assert all(row.expected["intent"] == row.type for row in many)
    assert {row.risk for row in rows("held_out", 400, 0)} == {None, "high"}


@pytest.mark.parametrize(
    ("arguments", "named"),
    [(("test", 5, 0), "accepted are train, held_out"), (("held_out", -1, 0), "n = -1"),
     (("held_out", 1, -2), "seed = -2")],
)  # fmt: skip
def test_rows_refuse_what_they_cannot_draw(arguments: tuple[Split, int, int], named: str) -> None:
    with pytest.raises(InputError, match=named):
        rows(*arguments)
