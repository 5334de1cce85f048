"""Quality: what to expect, what it rests on, and what your own labels prove."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import streamlit as st

from advisor.screens import scenario
from advisor.screens.background import watch
from advisor.screens.formatting import plain
from advisor.screens.search import archive, own
from advisor.screens.sections import (
    quality_certificate,
    quality_evidence,
    quality_headline,
    quality_labelled,
    quality_planning,
    quality_upload,
    tabs,
)

st.title("Quality")
task = scenario.current()
st.caption(
    f"{plain(task.name)}: the quality that its recommendation is expected to reach, the published "
    "scores and labels behind that, and the escalation threshold that your labels certify."
)
headline, status = st.container(), st.container()
analysis = quality_upload.draw(task)
search = own(task, scenario.labels())
answer = search.exploration.answer() if search.finished and search.exploration else None
with headline:
    if answer is not None:
        quality_headline.draw(answer, task)
    elif search.problem:
        st.error(plain(search.problem))
with status:
    if not search.finished:
        watch(search, "Simulating")

parts: dict[str, Callable[[], None]] = {}
if analysis and analysis.finished and not analysis.problem and analysis.report:
    report = analysis.report
    parts = {
        "Certificate": partial(quality_certificate.draw, analysis, task),
        "Metrics": partial(quality_labelled.metrics, report),
        "Routing": partial(quality_labelled.routing, report.policies),
        "Calibration": partial(quality_labelled.confidence, report.confidence),
    }


def evidence() -> None:
    if answer is not None and search.exploration is not None:
        quality_evidence.draw(search.exploration, answer)
    elif not search.finished:
        st.skeleton(height=300)


parts |= {"Evidence": evidence, "Labels needed": partial(quality_planning.draw, task)}
tabs.draw(f"quality.tab.{len(parts)}", parts)
archive().start(search)
