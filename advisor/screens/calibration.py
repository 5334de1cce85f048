"""Calibration: how far predicted latencies were off on what the fit had not seen."""

from __future__ import annotations

from functools import partial

import streamlit as st

from advisor.calibrate.board import load_board
from advisor.screens import scenario
from advisor.screens.background import watch
from advisor.screens.formatting import count
from advisor.screens.search import archive, own
from advisor.screens.sections import (
    calibration_headline,
    calibration_limits,
    calibration_residuals,
    calibration_run,
    calibration_scores,
    calibration_terms,
    calibration_upload,
    tabs,
)

TABS = {
    "Scoreboard": calibration_scores.draw,
    "Predicted and measured": calibration_residuals.draw,
    "Where it is bad": calibration_limits.draw,
    "Terms of the law": calibration_terms.draw,
    "Your rows": calibration_upload.draw,
    "Measure here": calibration_run.draw,
}

st.title("Calibration")
board = load_board()
st.caption(
    f"Latencies are predicted by one law of a step's time, fitted on published measurements of "
    f"vLLM ({board.as_of}), and a simulator of its scheduler. Here {count(len(board.measured_ms))} "
    f"figures of {count(len(board.rows['row_id'].codes))} rows are set beside predictions by "
    "fits that had not seen them."
)
calibration_headline.accuracy(board)
search = own(scenario.current(), scenario.labels())
if search.finished and search.exploration:
    calibration_headline.recommended(search.exploration.answer(), board)
elif not search.finished:
    watch(search, "Simulating your task")
tabs.draw("calibration.tab", {title: partial(draw, board) for title, draw in TABS.items()})
archive().start(search)
