"""Controls for the headline inputs, beside the recommendation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args

import streamlit as st

from advisor.errors import InputError
from advisor.screens import scenario
from advisor.screens.formatting import count, milliseconds, percent, plain
from advisor.screens.sections import examples
from advisor.screens.sections.task_fields import named
from advisor.task import DataResidency, TaskProfile

LATENCIES_MS = (20, 30, 40, 60, 80, 100, 150, 200, 300, 500, 800, 1000, 1500, 2000, 3000, 5000,
                8000, 15_000, 30_000, 60_000)  # fmt: skip
VOLUMES = tuple(step * 10**power for power in range(3, 9) for step in (1, 2, 5))
PEAKS = (1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10)
QUALITIES = tuple(
    percent_ / 1000
    for percent_ in (*range(500, 900, 20), *range(900, 980, 5), *range(980, 1000, 2))
)

FORM = Path(__file__).parent.parent / "task.py"

_ANCHOR, _SEEN = "headline.anchor", "headline.seen"


def draw() -> TaskProfile:
    """Draw the controls and return the task with what they now say."""
    task = scenario.current()
    is_new = st.session_state.get(_SEEN) != task
    if is_new:
        st.session_state[_ANCHOR] = task
    for key in scenario.HEADLINE:
        # Streamlit forgets what controls say while another page is shown.
        if is_new or f"headline.{key}" not in st.session_state:
            st.session_state[f"headline.{key}"] = value_of(task, key)
    anchor: TaskProfile = st.session_state[_ANCHOR]
    examples.pick("Task")
    changed = {
        key: value for key, value in _controls(anchor).items() if value != value_of(task, key)
    }
    try:
        task = task.with_values(changed) if changed else task
    except InputError as error:
        st.markdown(f":red[{plain(str(error))}]")
    st.session_state[_SEEN] = task
    scenario.change(task)
    st.page_link(FORM, label="All fields of the task", icon=":material/tune:")
    return task


def value_of(task: TaskProfile, key: str) -> Any:
    """A headline value of a task, as its control shows it."""
    part, _, name = key.partition(".")
    value = getattr(getattr(task, part), name)
    if key == "traffic.peak_to_mean":
        return value or 1.0
    return float(value) if isinstance(value, int | float) else value


def _controls(anchor: TaskProfile) -> dict[str, Any]:
    values: dict[str, Any] = {}

    def scale(
        key: str, label: str, steps: Sequence[float], show: Callable[[Any], str], help: str
    ) -> None:
        values[key] = st.select_slider(
            label, _options(anchor, key, steps), key=f"headline.{key}", format_func=show, help=help
        )

    scale(
        "quality.threshold",
        f"Least quality ({named(anchor.quality.metric).lower()})",
        QUALITIES,
        percent,
        "The score that must be reached.",
    )
    scale(
        "latency.e2e_p95_ms",
        "E2E p95",
        LATENCIES_MS,
        _bound,
        "95 of 100 requests must be answered in full within this time.",
    )
    scale(
        "latency.ttft_p95_ms",
        "TTFT p95",
        LATENCIES_MS,
        _bound,
        "95 of 100 requests must show their first token within this time. An answer that is "
        "checked before it is shown has its first token when it is complete.",
    )
    scale(
        "traffic.requests_per_day",
        "Requests a day",
        VOLUMES,
        count,
        "Mean over the month.",
    )
    if anchor.traffic.hourly_rates is None:
        scale(
            "traffic.peak_to_mean",
            "Peak to mean",
            PEAKS,
            lambda ratio: f"{ratio:g} times",
            "Rate of the busiest hour over the mean rate: what the fleet is sized for.",
        )
    values["constraints.data_residency"] = st.selectbox(
        "Data residency",
        get_args(DataResidency),
        key="headline.constraints.data_residency",
        format_func=named,
        help="Where the data may go; all but the first rule out hosted APIs.",
    )
    return values


def _options(anchor: TaskProfile, key: str, steps: Sequence[float]) -> list[float | None]:
    """The steps of a scale with the anchor's own value among them; bounds end with none."""
    own = value_of(anchor, key)
    options: list[float | None] = sorted({*map(float, steps), *([own] if own is not None else [])})
    return [*options, None] if key.startswith("latency.") else options


def _bound(value_ms: float | None) -> str:
    return "no bound" if value_ms is None else milliseconds(value_ms)
