"""A simulated log of two models' answers, to try the evaluation with; no model has written it.

Requests to a support chatbot name one intent, or two of them in one message (30 %). On the first
kind the small model is right in 97.5 % and the large one in 97 %; on the second in 84 % and 96 %.
Whether both are right depends on each other with an odds ratio of 4. The small model's confidence
is binormal, expit(3 + 1.5·z) for a right answer and expit(3 + 1.5·(z − 1.6)) for a wrong one, with
z ~ N(0, 1). Latencies are log-normal; a request costs $0.00002 of the small model and $0.0006 of
the large one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
from scipy import special

from advisor.quality.escalation import llm_right_given

ROWS = 2000
SEED = 7

INTENTS = {
    "card_lost": "my card is lost",
    "invoice_copy": "I need a copy of the invoice",
    "login_problem": "I cannot log in",
    "refund_status": "where is my refund",
    "delivery_status": "when will the parcel arrive",
    "cancel_order": "please cancel the order",
    "address_change": "I have moved",
    "payment_failed": "the payment did not go through",
}
OPENINGS = ("Hello,", "Good morning,", "Quick question:", "Hi there,", "Please help:")
JOINS = ("and also", "and by the way", "and before that")

COMPOUND_SHARE = 0.3
RIGHT = {False: (0.975, 0.97), True: (0.84, 0.96)}
"""(small, large) shares right, by whether two intents are named."""

ODDS_RATIO = 4.0
SEPARATION = 1.6
COST_USD = {"slm": 0.00002, "llm": 0.0006}
LATENCY_MS = {"slm": 35.0, "llm": 420.0}
LATENCY_LOG_SD = 0.3


def simulated_log(rows: int = ROWS, *, seed: int = SEED) -> str:
    """A JSONL log in the form that `advisor.quality.labels.read_log` reads."""
    rng = np.random.default_rng(seed)
    return "".join(json.dumps(row) + "\n" for row in _rows(rows, rng))


def _rows(rows: int, rng: np.random.Generator) -> Iterator[dict[str, Any]]:
    names = list(INTENTS)
    for number in range(1, rows + 1):
        compound = bool(rng.random() < COMPOUND_SHARE)
        first, second = rng.choice(len(names), 2, replace=False)
        text = f"{OPENINGS[rng.integers(len(OPENINGS))]} {INTENTS[names[first]]}"
        if compound:
            text += f" {JOINS[rng.integers(len(JOINS))]} {INTENTS[names[second]]}"
        text += f" (customer {rng.integers(10**5, 10**6)})"
        small, large = RIGHT[compound]
        given_right, given_wrong = llm_right_given(small, large, ODDS_RATIO)
        slm_right = bool(rng.random() < small)
        llm_right = bool(rng.random() < (given_right if slm_right else given_wrong))
        score = 3 + 1.5 * (rng.normal() - (0 if slm_right else SEPARATION))
        yield {
            "id": f"simulated-{number}",
            "input": text,
            "confidence": round(float(special.expit(score)), 6),
            "outputs": {
                model: {
                    "correct": right,
                    "latency_ms": round(LATENCY_MS[model] * _spread(rng), 1),
                    "cost_usd": COST_USD[model],
                }
                for model, right in (("slm", slm_right), ("llm", llm_right))
            },
        }


def _spread(rng: np.random.Generator) -> float:
    return float(np.exp(LATENCY_LOG_SD * rng.normal()))
