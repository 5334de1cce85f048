"""The published scores behind the prior of the chosen models, with weights and links."""

from __future__ import annotations

import re
from collections.abc import Iterator

import streamlit as st

from advisor.catalog import load_catalog
from advisor.decide import Exploration
from advisor.decide.candidates import TierChoice
from advisor.decide.recommendation import Architecture, Recommendation, Role
from advisor.screens.formatting import count, interval, plain
from advisor.screens.sections import figures
from advisor.screens.sections.tables import number, table, text
from advisor.screens.sections.task_fields import named

ROLES: dict[Role, str] = {"slm": "Small model", "llm": "Large model"}

_ARXIV = re.compile(r"\d{4}\.\d{4,5}(v\d+)?")


def draw(exploration: Exploration, answer: Recommendation) -> None:
    """A table for each of the two models."""
    st.caption(
        "Each projection is that of a hierarchical model of all published scores of its kind. The "
        "rows below move it most; scores that vendors report, or that were not read in the source "
        "itself, count for half. A weight is a row's share of all that moves the projection."
    )
    for role, choice in _choices(exploration, answer):
        _model(role, choice)


def _choices(exploration: Exploration, answer: Recommendation) -> Iterator[tuple[Role, TierChoice]]:
    """The chosen tiers; a role that is not chosen is taken from its own best candidate."""
    best = {one.architecture: one for one in exploration.confirmed}
    chosen = [best[answer.architecture]] if answer.architecture in best else []
    for role in ROLES:
        others: tuple[Architecture, ...] = (role, "hybrid")
        own = [best[one] for one in others if one in best]
        tiers = [one.tiers[role] for one in (*chosen, *own) if role in one.tiers]
        if tiers:
            yield role, tiers[0].choice


def _model(role: Role, choice: TierChoice) -> None:
    quality = choice.quality
    st.header(ROLES[role])
    width = interval(quality.low, quality.high, figures.quality)
    shown = f"{figures.quality(quality.median)} ({width})"
    st.markdown(f"**{plain(choice.title)}**: {plain(shown)}")
    labels = f" Your {count(quality.labels)} labels are in it." if quality.labels else ""
    st.caption(f"{plain(quality.note[:1].upper() + quality.note[1:])}.{labels}")
    rows = {row.id: row for row in load_catalog().evidence}
    weights = dict(zip(quality.evidence_ids, quality.evidence_weights, strict=False))
    cited = [rows[name] for name in quality.evidence_ids if name in rows]
    if not cited:
        st.caption("No published row is near: the prior alone speaks.")
        return
    table(
        [
            {
                "Weight": weights.get(row.id),
                "Model": row.model,
                "Score": row.score,
                "Metric": row.metric,
                "Data set": row.dataset,
                "Adaptation": named(row.adaptation),
                "Parameters, billions": row.params_b,
                "By a vendor": row.vendor_reported,
                "Source": row.source,
                "Link": _link(row.url),
                "Year": row.year,
            }
            for row in cited
        ],
        f"Published scores that weigh most for {choice.title}, with sources.",
        {
            "Weight": number(format="percent"),
            "Score": number(format="percent"),
            "Year": number(format="%d"),
            "Parameters, billions": number(format="%.1f"),
            "Link": st.column_config.LinkColumn(display_text="open"),
            "Source": text(width="medium"),
        },
    )


def _link(stated: str) -> str | None:
    """An address to open; an arXiv id becomes one."""
    if stated.startswith(("https://", "http://")):
        return stated
    found = _ARXIV.search(stated)
    return f"https://arxiv.org/abs/{found.group()}" if found else None
