"""Requests of the sandbox task and their right answers, drawn from seeds: no file holds them.

A row is drawn from its split, seed and index alone, so any row of any set can be made again. A
fifth of the (intent, item) pairs never occurs in training; held-out rows use only those pairs, in
wording seen in training; unseen-wording rows use trained pairs in wording that never was.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from advisor.errors import InputError
from advisor.trial.sandbox.wording import (
    COUNTS,
    DAYS,
    INTENTS,
    ITEMS,
    PLURALS,
    SEEN,
    TICKET_WORDS,
    UNSEEN,
    VERBS,
    Wording,
)

Split = Literal["train", "held_out", "unseen_wording"]
SPLITS: tuple[Split, ...] = ("train", "held_out", "unseen_wording")

ALL_PAIRS = tuple((intent, item) for intent in INTENTS for item in ITEMS)
HELD_OUT_PAIRS = frozenset(
    (INTENTS[place % len(INTENTS)], item) for place, item in enumerate(ITEMS)
)
"""One intent of each item: 16 of 80 pairs, and each intent at least three times."""

OTHER_SHARE = 0.12
"""Share of rows that are none of the desk's business."""

TICKET_SHARE = 0.08
"""Share of cancellations and reports that quote a ticket number, in the test sets; training has
five times as many, since copying digits is learnt from few rows only slowly."""

HIGH_RISK_SHARE = 0.02
"""Share of rows marked as high risk (whose request the desk wants a large model to read)."""

Choice = TypeVar("Choice")


@dataclass(frozen=True)
class Request:
    """One request and its right answer."""

    text: str
    expected: str
    """JSON without spaces, keys in the order of the schema."""
    risk: str | None = None

    @property
    def pair(self) -> tuple[str, str] | None:
        """(intent, item); None where it is out of scope."""
        answer = json.loads(self.expected)
        return (answer["intent"], answer["item"]) if "item" in answer else None


def request(split: Split, seed: int, index: int) -> Request:
    """The row of a split at an index.

    Raises:
        InputError: no such split.
    """
    if split not in SPLITS:
        raise InputError(f"split '{split}': accepted are {', '.join(SPLITS)}")
    return _Author(_Dice(f"{split}/{seed}/{index}"), split).request()


class _Dice:
    """Draws from `Random.random` alone: the one stream Python promises never to change."""

    def __init__(self, key: str) -> None:
        self._random = random.Random(key).random

    def happens(self, share: float) -> bool:
        return self._random() < share

    def below(self, count: int) -> int:
        return int(self._random() * count)

    def pick(self, choices: Sequence[Choice]) -> Choice:
        return choices[self.below(len(choices))]


class _Author:
    """Writes one request."""

    def __init__(self, dice: _Dice, split: Split) -> None:
        self.dice = dice
        self.training = split == "train"
        self.wording: Wording = UNSEEN if split == "unseen_wording" else SEEN
        held_out = split == "held_out"
        self.pairs = tuple(pair for pair in ALL_PAIRS if (pair in HELD_OUT_PAIRS) == held_out)

    def request(self) -> Request:
        text, answer = self.out_of_scope() if self.dice.happens(OTHER_SHARE) else self.in_scope()
        if self.dice.happens(0.1):
            text = self.misspelt(text)
        if self.dice.happens(0.3):
            text = text[:1].upper() + text[1:] + self.dice.pick((".", "!", "."))
        risk = "high" if self.dice.happens(HIGH_RISK_SHARE) else None
        return Request(text, json.dumps(answer, separators=(",", ":")), risk)

    def in_scope(self) -> tuple[str, dict[str, str | int]]:
        dice = self.dice
        intent, item = dice.pick(self.pairs)
        answer: dict[str, str | int] = {"intent": intent, "item": item}
        count_text = ""
        if intent == "order" or (intent == "book" and dice.happens(0.3)):
            count_text, count = self.count()
        body = [dice.pick(VERBS[intent]), self.thing(item, count_text)]
        when = self.days(intent, answer)
        if intent in ("cancel", "report") and dice.happens(
            5 * TICKET_SHARE if self.training else TICKET_SHARE
        ):
            digits = "".join(str(dice.below(10)) for _ in range(3 + dice.below(3)))
            word = dice.pick(TICKET_WORDS)
            body.append(f"({word} {digits})" if dice.happens(0.5) else f"{word} {digits}")
            answer["ticket"] = digits
        if count_text:
            answer["count"] = count
        return self.sentence(" ".join(body), when), answer

    def thing(self, item: str, count_text: str) -> str:
        """The item, after a slip now and then, with its article or count."""
        dice = self.dice
        name = self.named(item, plural=bool(count_text) and count_text not in ("1", "one"))
        if dice.happens(0.08):
            other = self.named(dice.pick(tuple(ITEMS)), plural=False)
            name = f"{other}, {dice.pick(self.wording.slips)} {name}"
        article = count_text or dice.pick(("a", "the", "my", "our", "the big", "the small", "the"))
        return f"{article} {name}"

    def named(self, item: str, *, plural: bool) -> str:
        name = self.dice.pick(ITEMS[item])
        return PLURALS.get(name, f"{name}s") if plural else name

    def days(self, intent: str, answer: dict[str, str | int]) -> str:
        """The phrase that says when; fills in the days of the answer."""
        dice = self.dice
        if intent == "move":
            first = dice.below(7)
            last = (first + 1 + dice.below(6)) % 7
            answer |= {"day": DAYS[first], "to_day": DAYS[last]}
            start, end = self.day(first), self.day(last)
            return dice.pick(
                (f"from {start} to {end}", f"to {end} instead of {start}", f"{start} to {end}")
            )
        if intent != "book" and dice.happens(0.5):
            return ""
        day = dice.below(7)
        answer["day"] = DAYS[day]
        preposition = "by" if intent == "order" else dice.pick(("on", "for", "this"))
        return f"{preposition} {self.day(day)}"

    def day(self, day: int) -> str:
        """A weekday in words, 0 = Monday: its name, from its neighbours, or after a slip."""
        dice = self.dice
        if dice.happens(0.06):
            return f"{DAYS[dice.below(7)]}, {dice.pick(self.wording.slips)} {DAYS[day]}"
        if dice.happens(0.8):
            return DAYS[day]
        before = ("the day after", "two days after")
        after = ("the day before", "two days before")
        steps = 1 + dice.below(2)
        if dice.happens(0.5):
            return f"{before[steps - 1]} {DAYS[(day - steps) % 7]}"
        return f"{after[steps - 1]} {DAYS[(day + steps) % 7]}"

    def count(self) -> tuple[str, int]:
        dice = self.dice
        if dice.happens(0.5):
            number = 1 + dice.below(12)
            return str(number), number
        words = dice.pick(tuple(COUNTS))
        return words, COUNTS[words]

    def sentence(self, core: str, when: str) -> str:
        """The request with what is said around it."""
        dice, wording = self.dice, self.wording
        opening, ending = self.filled(wording.openings), self.filled(wording.endings)
        if self.training and dice.happens(0.3):
            opening = self.noise()
        if self.training and dice.happens(0.3):
            ending = self.noise()
        parts = [opening, f"{core} {when}"]
        if when and dice.happens(0.2):
            parts = [f"{when},", opening, core]
        parts.append(f", {ending}" if ending and dice.happens(0.5) else ending)
        if dice.happens(0.3):
            aside = self.filled(wording.asides)
            if self.training and dice.happens(0.3):
                aside = f"{self.noise()} {self.mention()} {self.noise()}"
            parts = [f"{aside},", *parts] if dice.happens(0.5) else [*parts, f", {aside}"]
        return tidy(" ".join(parts))

    def out_of_scope(self) -> tuple[str, dict[str, str | int]]:
        """Small talk, questions, wishes the desk cannot grant, noise, or nothing at all."""
        dice, wording = self.dice, self.wording
        kind = dice.below(20)
        if kind == 0:
            text = ""
        elif kind <= 2:
            text = self.noise()
        elif kind <= 9:
            verb = dice.pick(VERBS[dice.pick(INTENTS)])
            made_up = self.training and dice.happens(0.4)
            thing = f"a {self.noise(1)}" if made_up else dice.pick(wording.things)
            when = f"on {self.day(dice.below(7))}" if dice.happens(0.4) else ""
            text = self.sentence(f"{verb} {thing}", when)
        else:
            text = self.filled(wording.outside)
        return tidy(text), {"intent": "other"}

    def filled(self, phrases: Sequence[str]) -> str:
        """One of the phrases, its places filled in."""
        dice = self.dice
        text = dice.pick(phrases)
        if "{" not in text:
            return text
        item = dice.pick(tuple(ITEMS))
        return text.format(
            day=DAYS[dice.below(7)],
            item=self.named(item, plural=False),
            items=self.named(item, plural=True),
            n=2 + dice.below(8),
            name=dice.pick(self.wording.names),
            thing=dice.pick(self.wording.things),
        )

    def mention(self) -> str:
        """A day, item or number that means nothing, between words that mean nothing."""
        dice = self.dice
        kind = dice.below(4)
        if kind == 0:
            return dice.pick(DAYS)
        if kind == 1:
            return f"the {self.named(dice.pick(tuple(ITEMS)), plural=False)}"
        return str(2 + dice.below(8)) if kind == 2 else ""

    def noise(self, words: int | None = None) -> str:
        """Made-up words: what they mean can only be that they mean nothing."""
        dice = self.dice
        return " ".join(self.made_up_word() for _ in range(words or 1 + dice.below(6)))

    def made_up_word(self) -> str:
        """A word of phrases seen in training, or one of syllables that nobody ever wrote."""
        dice = self.dice
        if self.training and dice.happens(0.4):
            known = dice.pick(dice.pick((SEEN.openings, SEEN.endings))[10:]).split()
            return dice.pick(known).strip(":,?") if "{" not in "".join(known) else "so"
        syllables = (
            dice.pick("bcdfghjklmnprstvwz") + dice.pick(("a", "e", "i", "o", "u", "ea", "ou", "ai"))
            + dice.pick(("", "n", "r", "s", "l", "t", "ck", "nd", "st", "ly"))
            for _ in range(1 + dice.below(3))
        )  # fmt: skip
        return "".join(syllables)

    def misspelt(self, text: str) -> str:
        """One long word with two neighbouring letters swapped, or one letter lost."""
        dice = self.dice
        words = text.split(" ")
        places = [place for place, word in enumerate(words) if len(word) > 5 and word.isalpha()]
        if not places:
            return text
        place = dice.pick(places)
        word, at = words[place], 1 + dice.below(len(words[place]) - 3)
        swapped = word[:at] + word[at + 1] + word[at] + word[at + 2 :]
        words[place] = swapped if dice.happens(0.5) else word[:at] + word[at + 1 :]
        return " ".join(words)


def tidy(text: str) -> str:
    """Single spaces, none before a comma, no two commas in a row, none at either end."""
    text = " ".join(text.split()).replace(" ,", ",").replace(",,", ",")
    return text.strip(" ,")
