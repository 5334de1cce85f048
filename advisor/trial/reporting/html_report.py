"""The report of a trial as one HTML file: no scripts, nothing loaded from anywhere."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from html import escape

from advisor.figures import percent
from advisor.trial.reporting.report import Comparison, TrialReport
from advisor.trial.reporting.verdict import RequirementVerdict
from advisor.trial.reporting.wording import ARM_NAMES, MEASURES, endpoint_lines, error_text, shown

STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;
color:#1f2430;background:#fff}
h1{font-size:1.6rem;margin-bottom:.2rem}h2{font-size:1.15rem;margin-top:2rem}
table{border-collapse:collapse;width:100%;margin:.5rem 0}
th,td{text-align:left;padding:.3rem .6rem;border-bottom:1px solid #d9dde5;vertical-align:top}
th{font-weight:600}td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}
.held{color:#0b6b3a}.failed{color:#a11a1a}.undecided{color:#7a5200}
.state{font-weight:700}.muted{color:#5a6272}.scroll{overflow-x:auto}
@media(prefers-color-scheme:dark){body{color:#e7e9ee;background:#14171d}
th,td{border-color:#3a404d}.held{color:#6fd39b}.failed{color:#ff9a9a}.undecided{color:#f0c36a}
.muted{color:#a5adbb}}
"""

BAR_WIDTH, BAR_HEIGHT = 260, 18


def html_report(report: TrialReport) -> str:
    """The whole report as one document."""
    body = "\n".join(_body(report))
    title = escape(f"Live trial: {report.task}")
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{title}</title><style>{STYLE}</style></head>\n<body>\n{body}\n</body></html>\n"
    )


def _body(report: TrialReport) -> Iterator[str]:
    yield f"<h1>Live trial: {escape(report.task)}</h1>"
    yield f'<p class="muted">Trial {escape(report.trial)} · {report.wall_s:.0f} s in all</p>'
    yield f"<p><strong>{escape(_sentence(report.summary))}</strong></p>"
    if report.note:
        yield f"<p>{escape(_sentence(report.note))}</p>"
    yield "<h2>Requirements</h2>"
    yield _table(
        ("Verdict", "Requirement", "Measured (90 % interval)", "Basis"),
        [_verdict_cells(verdict) for verdict in report.verdicts],
    )
    yield from _advice(report)
    yield "<h2>Measured beside projected</h2>"
    yield f"<p>{escape(_when(report))}</p>"
    yield _table(
        ("", "Figure", "Projected (90 % interval)", "Measured (90 % interval)", "Error", ""),
        [_comparison_cells(one) for one in report.comparisons],
        numeric=(4,),
    )
    if report.attributions:
        yield "<h2>What was wrong in the projection</h2>"
        yield "<p>The projected p95 again, with one measured piece swapped in at a time.</p>"
        yield _table(
            ("Piece", "Projected as", "Measured as", "E2E p95", "Change"),
            [
                (
                    escape(one.piece),
                    escape(one.projected_as),
                    escape(one.measured_as),
                    f"{one.e2e_p95_ms:.1f} ms",
                    f"{one.change_ms:+.1f} ms",
                )
                for one in report.attributions
            ],
            numeric=(3, 4),
        )
    yield from _how(report)


def _advice(report: TrialReport) -> Iterator[str]:
    if report.advice is None:
        return
    yield "<h2>What the figures speak for</h2>"
    for advice in (report.advice_before, report.advice):
        if advice is not None:
            yield f"<p>{escape(_sentence(advice.because))}</p>"
    yield f"<p>{escape(_sentence(report.what_changed))}</p>"
    rows = []
    for one in report.advice.options:
        quality = "—" if one.quality is None else f"{percent(one.quality)}"
        latency = "—" if one.e2e_p95_ms is None else f"{one.e2e_p95_ms:.1f} ms"
        cost = one.cost_usd_per_million_requests
        price = "—" if cost is None else f"${cost:,.3g}"
        misses = escape("; ".join(one.misses)) or "meets every requirement"
        rows.append((str(one.architecture), quality, latency, price, misses))
    yield _table(
        ("Architecture", "Quality", "E2E p95", "A million requests", "Misses"),
        rows,
        numeric=(1, 2, 3),
    )


def _how(report: TrialReport) -> Iterator[str]:
    yield "<h2>How it was measured</h2><ul>"
    settings = report.settings
    yield f"<li>Small model: {escape(settings.slm)}. Large model: {escape(settings.llm)}.</li>"
    if report.load is not None:
        load = report.load
        yield (
            f"<li>{load.requests:,} requests at {load.rate_per_s:.1f}/s "
            f"({escape(settings.arrivals)} arrivals), {percent(load.share)} of the "
            f"{load.sustainable_rate_per_s:.1f}/s that the whole was measured to take.</li>"
        )
    if report.threshold is not None:
        chosen = report.threshold
        yield f"<li>Threshold {chosen.threshold:.6g}: {escape(chosen.basis)}.</li>"
    for arm, one in report.measurements.items():
        counts = one.requests
        lag = "" if one.lag is None else f"; sent late by p99 {one.lag.p99_ms:.1f} ms"
        yield (
            f"<li>{ARM_NAMES[arm].capitalize()}: {counts.total:,} scheduled = "
            f"{counts.completed:,} completed + {counts.failed:,} failed + {counts.timed_out:,} "
            f"timed out + {counts.cancelled:,} cancelled{lag}.</li>"
        )
    for split in report.splits:
        yield (
            f"<li>Accuracy on {escape(split.split)} ({split.rows:,} rows): "
            f"small {percent(split.slm)}, large {percent(split.llm)}.</li>"
        )
    for role, found in report.calibration.items():
        yield (
            f"<li>Calibration of {escape(found.model)} ({escape(role)}): {found.requests:,} "
            f"requests one at a time, E2E p50 {found.e2e_p50_ms:.1f} ms, p95 "
            f"{found.e2e_p95_ms:.1f} ms; "
            f"queue: {escape(found.queue)}; sustains {found.sustainable_rate_per_s:.1f}/s.</li>"
        )
    for line in endpoint_lines(report):
        yield f"<li>{escape(line)}</li>"
    yield f"<li>Cost: {escape(report.cost_basis)}.</li></ul>"


def _verdict_cells(verdict: RequirementVerdict) -> tuple[str, ...]:
    basis = escape(verdict.basis)
    if verdict.more_requests:
        basis += f"; {verdict.more_requests:,} more requests would decide"
    measured = verdict.measured
    found = "nothing measured"
    if measured is not None:
        low, high = (shown(verdict.measure, value) for value in (measured.low, measured.high))
        found = f"{shown(verdict.measure, measured.value)} ({low} to {high})"
    state = f'<span class="state {verdict.state}">{verdict.state}</span>'
    return state, escape(verdict.requirement), found, basis


def _comparison_cells(one: Comparison) -> tuple[str, ...]:
    def with_interval(value: float, low: float, high: float) -> str:
        bounds = f"{shown(one.measure, low)} to {shown(one.measure, high)}"
        return f"{shown(one.measure, value)} ({bounds})"

    return (
        ARM_NAMES[one.arm],
        MEASURES[one.measure],
        with_interval(one.projected, one.projected_low, one.projected_high),
        with_interval(one.measured, one.measured_low, one.measured_high),
        error_text(one),
        _bar(one),
    )


def _bar(one: Comparison) -> str:
    """The projected interval as a bar, and the measured figure with its own as a mark on it."""
    values = (one.projected_low, one.projected_high, one.measured_low, one.measured_high)
    low, high = min(values), max(values)
    span = (high - low) or 1.0

    def x(value: float) -> float:
        return 6 + (BAR_WIDTH - 12) * (value - low) / span

    width = max(x(one.projected_high) - x(one.projected_low), 2)
    middle = BAR_HEIGHT / 2
    label = escape(f"{MEASURES[one.measure]}: projected and measured")
    return (
        f'<svg role="img" aria-label="{label}" width="{BAR_WIDTH}" height="{BAR_HEIGHT}">'
        f'<rect x="{x(one.projected_low):.1f}" y="3" width="{width:.1f}" '
        f'height="{BAR_HEIGHT - 6}" fill="#7aa7d9" opacity=".55"/>'
        f'<line x1="{x(one.measured_low):.1f}" x2="{x(one.measured_high):.1f}" y1="{middle}" '
        f'y2="{middle}" stroke="#c2571a" stroke-width="2"/>'
        f'<circle cx="{x(one.measured):.1f}" cy="{middle}" r="4" fill="#c2571a"/></svg>'
    )


def _table(
    header: Sequence[str], rows: Sequence[Sequence[str]], *, numeric: Sequence[int] = ()
) -> str:
    """Cells are HTML already."""

    def cells(tag: str, row: Sequence[str]) -> str:
        classes = [' class="n"' if index in numeric else "" for index in range(len(row))]
        return "".join(f"<{tag}{c}>{cell}</{tag}>" for c, cell in zip(classes, row, strict=True))

    head = f"<thead><tr>{cells('th', header)}</tr></thead>"
    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    return f'<div class="scroll"><table>{head}<tbody>{body}</tbody></table></div>'


def _when(report: TrialReport) -> str:
    written = report.projection_written_epoch_s
    if written is None:
        return "No projection was written."
    text = f"The projection was written at {_utc(written)}"
    began = report.load_began_epoch_s
    return text + ("." if began is None else f", {began - written:.0f} s before the load began.")


def _utc(epoch_s: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(epoch_s))


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".") if text else ""
