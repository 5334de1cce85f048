"""What a labelled log says of the models, of routing between them, and of the confidence."""

from __future__ import annotations

from typing import Any

import streamlit as st

from advisor.quality.evaluate import ConfidenceReport, EvaluationReport
from advisor.quality.policies import PolicyComparison, PolicyReport
from advisor.screens.formatting import count, interval, milliseconds, percent, plain, usd
from advisor.screens.sections import quality_charts
from advisor.screens.sections.tables import number, table
from advisor.screens.sections.task_fields import named

MODELS = {"slm": "Small model", "llm": "Large model"}


def metrics(report: EvaluationReport) -> None:
    """Each model's score on the log."""
    st.caption(
        f"{count(report.rows)} rows, scored by {named(report.metric).lower()} where the log states "
        "no label. Ranges are 90 % intervals, exact for right or wrong."
    )
    table(
        [
            {
                "Model": MODELS.get(score.model, score.model),
                "Labelled rows": score.labelled,
                "Quality": plain_percent(score.quality) if score.labelled else None,
                "90 % interval": interval(score.low, score.high, percent),
                "Macro-F1": score.macro_f1,
                "Latency p50": _latency(score.latency_p50_ms),
                "Latency p95": _latency(score.latency_p95_ms),
                "Cost per 1,000": None
                if score.cost_usd_mean is None
                else usd(1000 * score.cost_usd_mean),
                "Gate failures": "; ".join(f"{k}: {v:,}" for k, v in score.gate_failures.items())
                or None,
            }
            for score in report.models
        ],
        "Quality, latency and cost of each model on the log.",
        {"Macro-F1": number(format="%.3f"), "Labelled rows": number(format="localized")},
    )
    for note in report.notes:
        st.caption(plain(note))


def plain_percent(value: float) -> str:
    """A score with two decimals: labels count."""
    return percent(value, 2)


def _latency(value_ms: float | None) -> str | None:
    return None if value_ms is None else milliseconds(value_ms)


def routing(found: PolicyComparison | None) -> None:
    """Cost–quality curves of the policies, their measures, and whether routing pays."""
    if found is None:
        st.info("No row is labelled for both models: policies cannot be compared.")
        return
    verdict = plain(f"{found.verdict[:1].upper()}{found.verdict[1:]}.")
    if found.pays:
        st.success(verdict, title="Routing pays")
    else:
        st.warning(verdict, title="Routing does not pay")
    priced = all(policy.cost is not None for policy in found.policies)
    x_title = "Cost per 1,000 requests, USD" if priced else "Large-model calls, % of requests"
    order = [named(policy.name) for policy in found.policies]
    curves = [row for policy in found.policies for row in _curve(policy, priced)]
    st.altair_chart(
        quality_charts.policies(curves, _singles(found, priced), order=order, x_title=x_title),
        alt=f"Quality against {x_title.lower()} of {len(order)} policies; always small reaches "
        f"{percent(found.slm_quality)}, always large {percent(found.llm_quality)}.",
    )
    st.caption(
        f"On {count(found.rows)} rows, learned policies cross-validated. The points are the single "
        "models; the random mix is the line to beat. The best of both answers to every request "
        f"would reach {percent(found.oracle_quality)}, which no policy can exceed."
    )
    table(_measures(found), "APGR and CPT of each policy.", _MEASURES)
    st.caption(
        "PGR is the share of the gap between the models that a policy recovers; APGR its mean over "
        "all shares of large calls (0.5 for the random mix); CPT the least share of large calls "
        "that recovers so much of the gap. Both compare with random routing, not with always "
        "calling the large model."
    )


def _curve(policy: PolicyReport, priced: bool) -> list[dict[str, Any]]:
    across = [1000 * c for c in policy.cost or ()] if priced else [100 * s for s in policy.share]
    return [
        {"policy": named(policy.name), "x": x, "quality": 100 * quality}
        for x, quality in zip(across, policy.quality, strict=True)
    ]


def _singles(found: PolicyComparison, priced: bool) -> list[dict[str, Any]]:
    small = 1000 * (found.slm_cost or 0.0) if priced else 0.0
    large = 1000 * (found.llm_cost or 0.0) if priced else 100.0
    return [
        {"what": "Always small", "x": small, "quality": 100 * found.slm_quality},
        {"what": "Always large", "x": large, "quality": 100 * found.llm_quality},
    ]


def _measures(found: PolicyComparison) -> list[dict[str, Any]]:
    def single(name: str, quality: float, cost: float | None) -> dict[str, Any]:
        shown = None if cost is None else usd(1000 * cost)
        return {"Policy": name, "Quality": plain_percent(quality), "Cost per 1,000": shown}

    rows = [
        single("Always small", found.slm_quality, found.slm_cost),
        single("Always large", found.llm_quality, found.llm_cost),
    ]
    for policy in found.policies:
        at = max(range(len(policy.quality)), key=lambda i: policy.quality[i])
        cost = policy.cost[at] if policy.cost else None
        row = single(named(policy.name), policy.quality[at], cost)
        row["Large calls there"] = percent(policy.share[at])
        row["APGR"] = policy.apgr
        if policy.apgr_low is not None and policy.apgr_high is not None:
            row["APGR, 90 %"] = f"{policy.apgr_low:.3f} – {policy.apgr_high:.3f}"
        for level, share in policy.cpt.items():
            row[f"CPT {level.replace('%', ' %')}"] = "never" if share is None else percent(share)
        rows.append(row)
    return rows


_MEASURES = {
    "Quality": st.column_config.TextColumn(help="Of a policy: the best on its curve."),
    "APGR": number(format="%.3f"),
}


def confidence(found: ConfidenceReport | None) -> None:
    """Whether the confidence ranks, and whether it means what it says."""
    if found is None:
        st.info("The log has no confidences and no log-probabilities.")
        return
    st.caption(
        f"Confidence from {plain(found.source)}, {count(found.rows)} rows; calibration: "
        f"{plain(found.calibration)}, judged on rows it was not fitted on."
    )
    low, high = found.auroc_low, found.auroc_high
    ranking = None if low is None or high is None else f"{low:.3f} – {high:.3f} (90 %)"
    best = None if found.aurc_best is None else f"at best {found.aurc_best:.4f}"
    with st.grid(4, min_column_width=150):
        _measure("AUROC", found.auroc, "ranks right above wrong; 0.5 is chance", ranking)
        _measure("ECE", found.ece, "mean distance from the diagonal; 0 is calibrated")
        _measure("Brier score", found.brier, "mean squared error; 0.25 is always one half")
        _measure("AURC", found.aurc, "mean risk over coverages", best)
    if found.bins:
        st.header("Reliability")
        bins = [
            {"confidence": 100 * stated, "accuracy": 100 * right, "rows": rows}
            for stated, right, rows in found.bins
        ]
        st.altair_chart(
            quality_charts.reliability(bins),
            alt="Share right against calibrated confidence: "
            + "; ".join(f"{b['accuracy']:.0f} % at {b['confidence']:.0f} %" for b in bins),
        )
        st.caption("Bins of equally many rows; the dashed line is perfect calibration.")
    for note in found.notes:
        st.caption(plain(note))


def _measure(title: str, value: float | None, meaning: str, detail: str | None = None) -> None:
    with st.container(border=True, height="stretch", gap="xxsmall"):
        st.metric(title, "–" if value is None else f"{value:.3f}")
        if detail:
            st.caption(detail)
        st.caption(meaning)
