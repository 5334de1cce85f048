"""Measured beside projected, what was wrong in the projection, and what the figures speak for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from advisor.decide.recommendation import Architecture
from advisor.figures import percent
from advisor.task import TaskProfile
from advisor.trial.projecting.cascade import Pieces, Rows, play
from advisor.trial.projecting.expectation import Expectation
from advisor.trial.projecting.projection import RUNS, Figure, LoadProjection
from advisor.trial.records import RequestRecord
from advisor.trial.reporting.measured import ArmMeasurement, Measured
from advisor.trial.reporting.report import Advice, ArchitectureFigures, Attribution, Comparison

UNITS = {
    "e2e_p50_ms": "ms",
    "e2e_p95_ms": "ms",
    "ttft_p95_ms": "ms",
    "tpot_p95_ms": "ms",
    "accepted_e2e_p95_ms": "ms",
    "escalated_e2e_p95_ms": "ms",
    "escalation_rate": "share",
    "quality": "share",
    "cost_usd_per_request": "USD",
}
"""Figures that are compared, with their units."""

ARCHITECTURES: Mapping[str, Architecture] = {
    "slm_only": "slm",
    "llm_only": "llm",
    "router": "hybrid",
}
"""What each arm is an example of."""


def comparisons(
    projections: Mapping[str, LoadProjection], measurements: Mapping[str, ArmMeasurement]
) -> tuple[Comparison, ...]:
    """Every figure that was both projected and measured."""
    return tuple(
        comparison
        for arm, projection in projections.items()
        if arm in measurements
        for comparison in _of_arm(arm, projection, measurements[arm])
    )


def _of_arm(
    arm: str, projection: LoadProjection, measurement: ArmMeasurement
) -> Iterator[Comparison]:
    for name, unit in UNITS.items():
        projected: Figure | None = getattr(projection, name)
        measured: Measured | None = getattr(measurement, name)
        if projected is None or measured is None:
            continue
        difference = projected.value - measured.value
        if unit != "share":
            if measured.value == 0:
                continue
            difference /= measured.value
        yield Comparison(
            arm=arm,
            measure=name,
            unit=unit,
            projected=projected.value,
            projected_low=projected.low,
            projected_high=projected.high,
            measured=measured.value,
            measured_low=measured.low,
            measured_high=measured.high,
            error=difference,
            inside=projected.low <= measured.value <= projected.high,
        )


@dataclass(frozen=True)
class UnderLoad:
    """What the router's arm showed of each piece of its projection; None: it does not show."""

    small_speed: float | None
    """Time the small endpoint's engine took for a request, over that in calibration."""
    large_speed: float | None
    router_hold_s: float | None
    sent_s: Sequence[float]
    """When requests were really sent."""
    escalation_rate: float | None
    output_tokens: float | None
    """Of the large model's answers, mean."""
    pace: float | None
    """Of the core time that everything wanted of this machine, the share that others left."""


def attributions(
    expected: Expectation, scheduled_s: Sequence[float], seen: UnderLoad
) -> tuple[Attribution, ...]:
    """The projected p95 again, with each measured piece swapped in by itself, then with all."""
    pieces = expected.pieces
    base = _p95_ms(pieces, scheduled_s, expected.seed)

    def attribution(
        piece: str, projected_as: str, measured_as: str, e2e_p95_ms: float
    ) -> Attribution:
        return Attribution(
            piece=piece,
            projected_as=projected_as,
            measured_as=measured_as,
            e2e_p95_ms=e2e_p95_ms,
            change_ms=e2e_p95_ms - base,
        )

    found, together = [], pieces
    for swap in _swaps(expected, pieces, seen):
        value = _p95_ms(swap.pieces(pieces), scheduled_s, expected.seed)
        together = swap.pieces(together)
        found.append(attribution(swap.piece, swap.projected_as, swap.measured_as, value))
    sent = sorted(seen.sent_s)
    lag_ms = 1e3 * float(np.mean(np.array(sent) - np.array(sorted(scheduled_s)[: len(sent)])))
    late = f"{lag_ms:.1f} ms late on average"
    if len(sent) < len(scheduled_s):
        late += f", the first {len(sent):,} of {len(scheduled_s):,}"
    value = _p95_ms(pieces, sent, expected.seed)
    found.append(attribution("times of sending", "as scheduled", late, value))
    value = _p95_ms(together, sent, expected.seed)
    found.append(attribution("all of them together", f"{base:.1f} ms", f"{value:.1f} ms", value))
    return tuple(found)


@dataclass(frozen=True)
class _Swap:
    """One piece as it was measured."""

    piece: str
    projected_as: str
    measured_as: str
    small: float = 1.0
    large: float = 1.0
    decode: float = 1.0
    hold_s: float | None = None
    pace: float = 1.0
    threshold: tuple[Expectation, float] | None = None

    def pieces(self, pieces: Pieces) -> Pieces:
        """The pieces with this one swapped in."""
        rows = pieces.rows
        first_s = rows.large_first_s * self.large
        decode_s = (rows.large_s - rows.large_first_s) * self.large * self.decode
        escalate = rows.escalate
        if self.threshold is not None:
            expected, threshold = self.threshold
            escalate = expected.paired.escalated(threshold)
        changed = Rows(
            small_s=rows.small_s * self.small,
            large_first_s=first_s,
            large_s=first_s + decode_s,
            large_tokens=rows.large_tokens,
            escalate=escalate,
        )
        hold_s = pieces.router_hold_s if self.hold_s is None else self.hold_s
        cores = pieces.cores and replace(pieces.cores, machine=pieces.cores.machine.at(self.pace))
        return replace(pieces, rows=changed, router_hold_s=hold_s, cores=cores)


def _swaps(expected: Expectation, pieces: Pieces, seen: UnderLoad) -> Iterator[_Swap]:
    if seen.small_speed is not None:
        as_projected = expected.speed("slm")
        yield _Swap(
            "speed of the small model's engine",
            f"{as_projected:.2f} times that of its calibration",
            f"{seen.small_speed:.2f} times",
            small=seen.small_speed / as_projected,
        )
    if seen.large_speed is not None:
        as_projected = expected.speed("llm")
        yield _Swap(
            "speed of the large model's engine",
            f"{as_projected:.2f} times that of its calibration",
            f"{seen.large_speed:.2f} times",
            large=seen.large_speed / as_projected,
        )
    if seen.output_tokens is not None:
        mean = (
            float(pieces.rows.large_tokens[pieces.rows.escalate].mean())
            if (pieces.rows.escalate.any())
            else float(pieces.rows.large_tokens.mean())
        )
        yield _Swap(
            "output length of the large model",
            f"{mean:.1f} tokens",
            f"{seen.output_tokens:.1f} tokens",
            decode=seen.output_tokens / mean,
        )
    if seen.escalation_rate is not None:
        rate = float(pieces.rows.escalate.mean())
        threshold = _threshold_for(expected, seen.escalation_rate)
        yield _Swap(
            "escalation rate",
            f"{percent(rate)}",
            f"{percent(seen.escalation_rate)}",
            threshold=(expected, threshold),
        )
    if seen.router_hold_s is not None:
        yield _Swap(
            "router's core time",
            f"{1e3 * pieces.router_hold_s:.2f} ms",
            f"{1e3 * seen.router_hold_s:.2f} ms",
            hold_s=seen.router_hold_s,
        )
    rehearsed = expected.rehearsals.get("router")
    if seen.pace is not None and rehearsed is not None and rehearsed.pace and pieces.cores:
        yield _Swap(
            "other work on this machine",
            f"took {percent(1 - rehearsed.pace)} of the core time wanted",
            f"{percent(1 - seen.pace)}",
            pace=seen.pace / rehearsed.pace,
        )


def _threshold_for(expected: Expectation, rate: float) -> float:
    """The threshold at which the calibration rows escalate as often as was measured."""
    order = np.sort(np.nan_to_num(expected.paired.confidence, nan=0.0))
    rates = np.array([expected.paired.escalated(float(one)).mean() for one in order])
    return float(order[int(np.abs(rates - rate).argmin())])


def _p95_ms(pieces: Pieces, sent_s: Sequence[float], seed: int) -> float:
    played = play(pieces, np.asarray(sent_s), runs=RUNS, seed=seed)
    return float(1e3 * np.median(np.quantile(played.e2e_s, 0.95, axis=1)))


def mean_output_tokens(records: Sequence[RequestRecord]) -> float | None:
    """Of the large model's answers; None where it gave none or does not say."""
    counts = [r.output_tokens for r in records if r.route == "llm" and r.output_tokens]
    return float(np.mean(counts)) if counts else None


def advise(
    task: TaskProfile,
    figures: Mapping[str, LoadProjection] | Mapping[str, ArmMeasurement],
    *,
    basis: str,
) -> Advice:
    """The architecture that meets every requirement at the least cost, by the values alone."""
    options = tuple(
        _option(task, ARCHITECTURES[arm], one)
        for arm, one in figures.items()
        if arm in ARCHITECTURES
    )
    meeting = [option for option in options if option.meets]
    if not meeting:
        best = max(options, key=lambda option: option.quality or 0.0, default=None)
        nearest = f"; {best.architecture} has the best quality" if best else ""
        return Advice(
            architecture=None,
            because=f"{basis}: none of the three meets every requirement{nearest}",
            options=options,
        )
    priced = all(option.cost_usd_per_million_requests is not None for option in meeting)
    chosen = min(
        meeting,
        key=lambda o: (o.cost_usd_per_million_requests or 0.0) if priced else (o.e2e_p95_ms or 0.0),
    )
    why = "costs least" if priced else "is fastest (no prices are known)"
    others = (
        f" of the {len(meeting)} that meet every requirement"
        if len(meeting) > 1
        else (" and alone meets every requirement")
    )
    because = f"{basis}: {chosen.architecture} {why}{others}"
    return Advice(architecture=chosen.architecture, because=because, options=options)


def _option(
    task: TaskProfile, architecture: Architecture, figures: LoadProjection | ArmMeasurement
) -> ArchitectureFigures:
    misses = tuple(_misses(task, figures))
    cost = figures.cost_usd_per_request
    known = figures.quality is not None and figures.e2e_p95_ms is not None
    return ArchitectureFigures(
        architecture=architecture,
        quality=figures.quality.value if figures.quality else None,
        e2e_p95_ms=figures.e2e_p95_ms.value if figures.e2e_p95_ms else None,
        cost_usd_per_million_requests=1e6 * cost.value if cost else None,
        meets=not misses if known else None,
        misses=misses,
    )


def _misses(task: TaskProfile, figures: LoadProjection | ArmMeasurement) -> Iterator[str]:
    quality = figures.quality
    if quality is not None and quality.value < task.quality.threshold:
        yield f"quality {percent(quality.value)} < {percent(task.quality.threshold)}"
    for name, bound_ms in task.latency.bounds.items():
        found = getattr(figures, name)
        if found is not None and found.value > bound_ms:
            yield f"{name.split('_')[0].upper()} p95 {found.value:.1f} ms > {bound_ms:g} ms"
    rate = figures.escalation_rate
    limit = task.constraints.max_escalation_rate
    if rate is not None and rate.value > limit:
        yield f"escalation {percent(rate.value)} > {percent(limit)}"
    budget, cost = task.constraints.budget_usd_per_month, figures.cost_usd_per_request
    if budget is not None and cost is not None:
        month = cost.value * task.traffic.requests_per_month
        if month > budget:
            yield f"${month:,.0f} a month > ${budget:,.0f}"
