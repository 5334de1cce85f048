"""How far predictions are off, in three figures, and what the recommended hardware rests on."""

from __future__ import annotations

from typing import Any

import streamlit as st

from advisor.calibrate.board import Board, accuracy_of, figures_of
from advisor.calibrate.score import KINDS, TPOT
from advisor.catalog import load_catalog
from advisor.catalog.fits import calibration_for, interval_90
from advisor.decide.recommendation import Recommendation, SelfHostedTier
from advisor.screens.formatting import count, percent
from advisor.screens.sections.tables import table, text

ROLES = {"slm": "Small model", "llm": "Large model"}

MEANINGS = {
    "calibrated": "rows of this accelerator",
    "transferred": "rows of its family or vendor",
    "assumed": "no rows of its kind",
}


def accuracy(board: Board) -> None:
    """Median errors of the models that were left out, with what the datasheet alone would miss."""
    figures = figures_of(board, "model")
    st.markdown("**Median error on models that the fit had no rows of**")
    with st.grid(3, min_column_width=220):
        for kind in KINDS:
            one = accuracy_of(figures[figures.kind == kind])
            with st.container(border=True, height="stretch", gap="xxsmall"):
                st.metric(kind, percent(one.median, 1))
                st.caption(
                    f"mean {percent(one.mean, 0)}, 90th percentile {percent(one.p90, 0)}; "
                    f"{percent(one.coverage, 0)} of {count(one.figures)} figures inside their "
                    f"90{chr(160)}% intervals. Datasheet roofline: {percent(one.naive, 0)}."
                )


def recommended(answer: Recommendation, board: Board) -> None:
    """What the latency of the recommended deployments rests on."""
    tiers = answer.chosen.tiers if answer.chosen else {}
    rows = [
        _row(ROLES[role], tier, board)
        for role, tier in tiers.items()
        if isinstance(tier, SelfHostedTier)
    ]
    st.header("Your recommendation")
    if not rows:
        st.caption("It runs no model on accelerators of yours: there is nothing to calibrate.")
        return
    table(
        rows,
        "Calibration of the recommended deployments.",
        {"Basis": text(width="large")},
    )


def _row(role: str, tier: SelfHostedTier, board: Board) -> dict[str, Any]:
    catalog = load_catalog()
    model, accelerator = catalog.model(tier.model), catalog.accelerator(tier.accelerator)
    found = calibration_for(accelerator)
    figures = figures_of(board, "accelerator")
    own = figures[(figures.accelerator == accelerator.id) & (figures.kind == TPOT)]
    return {
        "Tier": role,
        "Model": model.id,
        "Accelerator": accelerator.id,
        "Label": f"{found.label}: {MEANINGS.get(found.label, '')}",
        "Decode, 90 % factor": f"×/÷ {interval_90(1.0, found.decode_log_sd(model))[1]:.2f}",
        "Model has rows": "yes" if model.id in found.known_models else "no",
        "TPOT error, accelerator left out": (
            f"{percent(accuracy_of(own).median, 1)} ({count(len(own))} figures)"
            if len(own)
            else "no rows"
        ),
        "Basis": found.basis,
    }
