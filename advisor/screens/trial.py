"""Live trial: real load on real endpoints, and a verdict beside the projection."""

from __future__ import annotations

import streamlit as st

from advisor.errors import AdvisorError
from advisor.screens.formatting import plain
from advisor.screens.sections import trial_live, trial_past, trial_start, trial_verdict
from advisor.screens.sections.trial_worker import records, stage

st.title("Live trial")
st.caption(
    "Two endpoints are calibrated, what the router in front of them should show is written down, "
    "then it is loaded: measured beside projected, misses included."
)
running = stage().current
if running is not None and not running.finished:
    trial_live.draw(running)
else:
    if running is not None and running.problem:
        st.error(plain(running.problem))
    verdict, start, past = st.container(), st.container(), st.container()
    try:
        with verdict:
            chosen = trial_past.chosen(records(), running.report if running else None)
            if chosen is not None:
                trial_verdict.draw(chosen, records())
        with past:
            trial_past.draw(records())
    except AdvisorError as error:
        verdict.error(plain(str(error)))
    with start:
        trial_start.draw()
