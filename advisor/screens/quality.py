"""Quality: what to expect, what it rests on, and what your own labels prove."""

from __future__ import annotations

import streamlit as st

from advisor.screens import scenario
from advisor.screens.formatting import plain
from advisor.screens.search import archive, own, watch
from advisor.screens.sections import (
    quality_certificate,
    quality_evidence,
    quality_headline,
    quality_labelled,
    quality_planning,
    quality_upload,
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

report = analysis.report if analysis and analysis.finished and not analysis.problem else None
names = ["Evidence", "Labels needed"]
if report is not None:
    names = ["Certificate", "Metrics", "Routing", "Calibration", *names]
tabs = dict(
    zip(
        names,
        st.tabs(names, key=f"quality.tab.{len(names)}", on_change="rerun"),
        strict=True,
    )
)
for name, tab in tabs.items():
    if not tab.open:
        continue
    with tab:
        if name == "Certificate" and analysis is not None:
            quality_certificate.draw(analysis, task)
        elif name == "Metrics" and report is not None:
            quality_labelled.metrics(report)
        elif name == "Routing" and report is not None:
            quality_labelled.routing(report.policies)
        elif name == "Calibration" and report is not None:
            quality_labelled.confidence(report.confidence)
        elif name == "Labels needed":
            quality_planning.draw(task)
        elif answer is not None and search.exploration is not None:
            quality_evidence.draw(search.exploration, answer)
        elif not search.finished:
            st.skeleton(height=300)
archive().start(search)
