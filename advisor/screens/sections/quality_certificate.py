"""An escalation threshold with a guarantee, or why there is none and what it would take."""

from __future__ import annotations

import numpy as np
import streamlit as st

from advisor.quality.evaluate import EvaluationReport
from advisor.quality.pairs import Pairs
from advisor.quality.threshold import Certificate, Start, certify
from advisor.screens.formatting import count, interval, percent, plain, significant
from advisor.screens.labelled import LogAnalysis
from advisor.screens.sections import quality_charts
from advisor.task import TaskProfile

NAMES: dict[Start, str] = {
    "both": "Both ends",
    "llm": "Large model",
    "slm": "Small model",
    "pilot": "Pilot rows",
}

MEANINGS: dict[Start, str] = {
    "both": "“Accept all” and “escalate all” share the risk: for when it is not known which model "
    "is the better one.",
    "llm": "From “escalate all” down to less and less: the large model must clear the target by "
    "itself.",
    "slm": "One question only: does the small model alone reach the target? Then nothing but gate "
    "failures goes up.",
    "pilot": "Every fourth row chooses where to start, the others prove it: for models that are "
    "each below the target and together above it.",
}


def draw(analysis: LogAnalysis, task: TaskProfile) -> None:
    """The certificate in words, then the risk–coverage curve with its point."""
    if analysis.pairs is None or analysis.report is None:
        st.info("No row is labelled for both models: no threshold can be certified.")
        return
    start: Start = st.segmented_control(
        "Thresholds are tested from",
        list(NAMES),
        default="both",
        required=True,
        format_func=lambda name: NAMES[name],
        key="quality.start",
        persist_state="session",
        help="Decide before you look at the labels: trying all four and taking the best one "
        "would void the guarantee.",
    )
    st.caption(MEANINGS[start])
    pairs = analysis.pairs
    found = certify(
        pairs.confidence,
        pairs.slm_correct,
        pairs.llm_correct,
        pairs.gate_passed,
        target=task.quality.threshold,
        confidence_level=task.quality.confidence,
        start=start,
    )
    _words(found)
    _curve(found, pairs, analysis.report)


def _words(found: Certificate) -> None:
    sure, target = percent(found.confidence_level), percent(found.target)
    quality = found.quality
    seen = f"{percent(quality.value, 2)} ({interval(quality.low, quality.high, percent)})"
    with st.container(border=True):
        if found.certified and found.threshold is not None and found.escalation_rate is not None:
            st.badge("Certified", color="green", icon=":material/verified:")
            st.markdown(
                f"## {plain(f'Quality of at least {target} with {sure} confidence')}\n"
                f"Hand up every answer with a confidence below **{_threshold(found)}**: "
                f"**{percent(found.escalation_rate)}** of the requests go to the large model."
            )
        else:
            st.badge("Not certified", color="orange", icon=":material/help:")
            st.markdown(f"## {plain(f'{target} with {sure} confidence is not proven')}")
            st.markdown(_missing(found))
        st.caption(
            f"{plain(found.reason[:1].upper() + found.reason[1:])}. Observed: {seen}, an exact "
            f"90 % interval, on {count(found.rows)} rows."
        )
        for warning in found.warnings:
            st.markdown(f":orange[:material/warning: {plain(warning)}]")


def _threshold(found: Certificate) -> str:
    assert found.threshold is not None
    if found.escalation_rate == 0 or found.threshold <= 0:
        return f"{significant(found.threshold)} (none)"
    return "any (all of them)" if found.threshold > 1 else significant(found.threshold, 4)


def _missing(found: Certificate) -> str:
    """How many more labels."""
    if found.rows_needed is None:
        return (
            "More labels would not help: what is observed does not exceed the target. A better "
            "model, or a lower target, would."
        )
    more = found.rows_needed - found.rows
    if more <= 0:
        return "A few more labels may do: as many as there are would, had they fallen evenly."
    return (
        f"**{count(more)} more labels** ({count(found.rows_needed)} in all) would prove it, if the "
        "observed quality is the true one."
    )


def _curve(found: Certificate, pairs: Pairs, report: EvaluationReport) -> None:
    st.header("Risk and coverage")
    confidence = report.confidence
    if confidence is None or len(confidence.coverage) < 2:
        st.caption("The log has no confidences that tell the rows apart: there is no curve.")
        return
    curve = [
        {"coverage": 100 * c, "risk": 100 * r, "series": "Small model's answers"}
        for c, r in zip(confidence.coverage, confidence.risk, strict=True)
    ]
    point = _point(found, pairs)
    at = ""
    if point:
        shares = f"{point['coverage']:.1f} %, of which {point['risk']:.2f} % are wrong"
        at = f" The certified threshold accepts {shares}."
    st.altair_chart(
        quality_charts.risk_coverage(curve, point),
        alt=f"Share of wrong answers among the accepted, from {curve[0]['risk']:.2f} % to "
        f"{curve[-1]['risk']:.2f} % when all are accepted.{at}",
    )
    st.caption(
        "The most confident answers first: the small model's errors among those it keeps. The "
        "certificate is about the hybrid as a whole, with the large model's answers to the rest."
    )


def _point(found: Certificate, pairs: Pairs) -> dict[str, float | str] | None:
    """The certified threshold on the curve, in percent."""
    if found.threshold is None:
        return None
    known = ~np.isnan(pairs.confidence)
    accepted = known & (pairs.confidence >= found.threshold)
    if not accepted.any():
        return None
    return {
        "coverage": 100 * float(accepted.sum() / known.sum()),
        "risk": 100 * float(np.mean(pairs.slm_correct[accepted] < 0.5)),
        "threshold": _threshold(found),
    }
