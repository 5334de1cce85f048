"""A measurement file of one's own: how far the predictions of its rows are off."""

from __future__ import annotations

import streamlit as st

from advisor.calibrate.board import Board
from advisor.calibrate.own import OwnScore
from advisor.calibrate.score import summarize, table_of
from advisor.screens.background import watch
from advisor.screens.formatting import count, percent, plain
from advisor.screens.measured import MAX_MB, Scoring, bench
from advisor.screens.sections import calibration_charts
from advisor.screens.sections.calibration_scores import FORMATS
from advisor.screens.sections.tables import table

UPLOAD, _FILE = "calibration.upload", "calibration.file"

COLUMNS = {
    "median_error": "Median",
    "mean_error": "Mean",
    "p90_error": "90th percentile",
    "bias": "Bias",
    "coverage": "Inside 90 %",
    "naive_median_error": "Roofline",
    "affine_median_error": "Affine",
}

GROUPS = {
    "Latency": ("metric",),
    "Model and accelerator": ("model", "accelerator"),
    "Load": ("load",),
}

FORMAT = """\
A CSV file in the measurement format (`calibration/README.md`): a row a measured condition, with
`row_id`, `engine`, `model`, `accelerator`, `load`, its size, lengths, and measured latencies such
as `tpot_mean_ms`. `advisor calibrate import` makes one from result files of `vllm bench`, GuideLLM,
AIPerf and inference-perf.
"""


def draw(_: Board) -> None:
    """The upload, and its score once there is one."""
    with st.popover("Upload measurements", icon=":material/upload:"):
        st.file_uploader(
            f"Measurements (CSV, at most {MAX_MB} MB)",
            type=["csv"],
            key=_FILE,
            max_upload_size=MAX_MB,
            on_change=_take,
            help="It stays on the machine that this app runs on.",
        )
    upload: tuple[str, bytes] | None = st.session_state.get(UPLOAD)
    if upload is None:
        st.markdown(FORMAT)
        return
    scoring = bench().scoring(*upload)
    if not scoring.finished:
        watch(scoring, "Scoring the rows")
    elif scoring.problem or scoring.score is None:
        st.markdown(f":red[:material/error: {plain(scoring.problem or 'no score')}]")
        st.markdown(FORMAT)
    else:
        _score(scoring, scoring.score)


def _take() -> None:
    file = st.session_state.get(_FILE)
    st.session_state[UPLOAD] = (file.name, file.getvalue()) if file is not None else None


def _score(scoring: Scoring, score: OwnScore) -> None:
    figures = table_of(score.pairs)
    size, inside = figures.error.abs(), percent(float(figures.inside.mean()), 0)
    st.markdown(
        f"**{plain(scoring.name)}**: predictions are off by {percent(float(size.median()), 1)} "
        f"(median of {count(len(figures))} figures of {count(score.rows)} rows); {inside} of what "
        f"was measured lies inside the 90{chr(160)}% intervals."
    )
    for reason, lost in score.left_out.items():
        st.markdown(f":orange[:material/info:] {count(lost)} rows not predicted: {plain(reason)}")
    by = st.segmented_control(
        "Group by",
        list(GROUPS),
        default="Latency",
        required=True,
        key="calibration.upload.by",
        persist_state="session",
    )
    names = GROUPS[str(by)]
    rows = [
        {name.capitalize(): row[name] for name in names}
        | {title: 100 * row[column] for column, title in COLUMNS.items()}
        | {"Figures": int(row["figures"])}
        for row in summarize(score.pairs, names).to_dict("records")
    ]
    table(rows, f"Errors of {scoring.name} by {str(by).lower()}.", FORMATS)
    st.altair_chart(
        calibration_charts.scatter(figures),
        alt=f"Predicted against measured latencies of {scoring.name}.",
    )
