"""Evidence: everything the projections rest on, with its source and date."""

from __future__ import annotations

import streamlit as st

from advisor.screens.sections import assumptions, tables, tabs, workloads

TABS = {
    "Quality": tables.quality,
    "Calibration": tables.calibration,
    "Assumptions": assumptions.draw,
    "Models": tables.models,
    "Accelerators": tables.accelerators,
    "GPU prices": tables.gpu_prices,
    "Hosted prices": tables.hosted_prices,
    "Workloads": workloads.draw,
    "Notices": tables.notices,
}

st.title("Evidence")
st.caption(
    "What is measured, what is published and what is assumed: the data behind every figure, with "
    "sources and dates. All of it lies in files that you can edit."
)
tabs.draw("evidence.tab", TABS)
