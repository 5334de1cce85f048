"""OpenTelemetry: a span for each request and each attempt, and GenAI metrics.

Nothing is imported, let alone sent, unless `telemetry.otlp_endpoint` is configured. Names are those
of the GenAI semantic conventions (status: development), copied rather than depended upon.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from advisor.errors import InputError
from advisor.router.answers import RouteFacts
from advisor.router.requests import RouterRequest
from advisor.router.settings import TelemetrySettings

DURATION_BUCKETS_S = (
    0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92,
)  # fmt: skip
TOKEN_BUCKETS = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576)

OPERATIONS = {"chat": "chat", "completions": "text_completion"}


class RequestTrace:
    """What is traced of one request; this one traces nothing."""

    def headers(self) -> dict[str, str]:
        """Sent along to upstreams."""
        return {}

    def attempted(self, tier: str, model: str, outcome: str, seconds: float) -> None:
        """One attempt has ended."""

    def finished(
        self, facts: RouteFacts, status: int, *, seconds: float, first_token_s: float | None
    ) -> None:
        """The request has."""


class Tracing:
    """No tracing."""

    def begin(self, request: RouterRequest) -> RequestTrace:
        """Start on a request."""
        return RequestTrace()

    def close(self) -> None:
        """Send what is left."""


def open_tracing(settings: TelemetrySettings) -> Tracing:
    """Tracing as configured.

    Raises:
        InputError: it is asked for and its packages are not installed.
    """
    return Tracing() if settings.otlp_endpoint is None else _OtelTracing(settings)


class _OtelTracing(Tracing):
    def __init__(self, settings: TelemetrySettings) -> None:
        try:
            from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.metrics import MeterProvider
            from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
        except ImportError:
            raise InputError(
                "telemetry.otlp_endpoint needs the extra: pip install 'advisor[telemetry]'"
            ) from None
        resource = Resource.create({"service.name": settings.service_name})
        root = settings.otlp_endpoint
        self._spans = TracerProvider(resource=resource)
        exporter = OTLPSpanExporter(endpoint=f"{root}/v1/traces")
        self._spans.add_span_processor(BatchSpanProcessor(exporter))
        reader = PeriodicExportingMetricReader(
            OTLPMetricExporter(endpoint=f"{root}/v1/metrics"),
            export_interval_millis=settings.export_interval_s * 1000,
        )
        self._meters = MeterProvider(resource=resource, metric_readers=[reader])
        self._tracer = self._spans.get_tracer("advisor.router")
        meter = self._meters.get_meter("advisor.router")
        self.duration = meter.create_histogram(
            "gen_ai.client.operation.duration",
            unit="s",
            explicit_bucket_boundaries_advisory=DURATION_BUCKETS_S,
        )
        self.first_chunk = meter.create_histogram(
            "gen_ai.client.operation.time_to_first_chunk",
            unit="s",
            explicit_bucket_boundaries_advisory=DURATION_BUCKETS_S,
        )
        self.tokens = meter.create_histogram(
            "gen_ai.client.token.usage",
            unit="{token}",
            explicit_bucket_boundaries_advisory=TOKEN_BUCKETS,
        )

    def begin(self, request: RouterRequest) -> RequestTrace:
        return _OtelRequest(self, self._tracer, request)

    def close(self) -> None:
        self._spans.shutdown()
        self._meters.shutdown()


class _OtelRequest(RequestTrace):
    def __init__(self, tracing: _OtelTracing, tracer: Any, request: RouterRequest) -> None:
        from opentelemetry.trace import SpanKind, set_span_in_context
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._tracing, self._tracer = tracing, tracer
        self._operation = OPERATIONS[request.endpoint]
        self._propagator = TraceContextTextMapPropagator()
        parent = self._propagator.extract(dict(request.headers))
        self._span = tracer.start_span(
            f"{self._operation} advisor",
            context=parent,
            kind=SpanKind.SERVER,
            attributes={
                "gen_ai.operation.name": self._operation,
                "gen_ai.request.model": str(request.body.get("model", "")),
            },
        )
        self._context = set_span_in_context(self._span)
        self._client_kind = SpanKind.CLIENT

    def headers(self) -> dict[str, str]:
        carrier: dict[str, str] = {}
        self._propagator.inject(carrier, context=self._context)
        return carrier

    def attempted(self, tier: str, model: str, outcome: str, seconds: float) -> None:
        now = time.time_ns()
        attributes = self._attributes(model, outcome)
        span = self._tracer.start_span(
            f"{self._operation} {model}",
            context=self._context,
            kind=self._client_kind,
            start_time=now - round(seconds * 1e9),
            attributes={**attributes, "advisor.tier": tier},
        )
        span.end(end_time=now)
        self._tracing.duration.record(seconds, attributes)

    def finished(
        self, facts: RouteFacts, status: int, *, seconds: float, first_token_s: float | None
    ) -> None:
        self._span.set_attributes(
            {
                "http.response.status_code": status,
                "advisor.route": facts.route,
                "advisor.reason": facts.reason,
                "advisor.escalated": facts.escalated,
            }
        )
        if facts.confidence is not None:
            self._span.set_attribute("advisor.confidence", facts.confidence)
        if facts.bill.usd is not None:
            self._span.set_attribute("advisor.cost_usd", facts.bill.usd)
        for charge in facts.bill.charges:
            common = {"gen_ai.operation.name": self._operation, "advisor.tier": charge.tier}
            for kind, count in (
                ("input", charge.usage.input_tokens),
                ("output", charge.usage.output_tokens),
            ):
                self._tracing.tokens.record(count, {**common, "gen_ai.token.type": kind})
        if first_token_s is not None:
            self._tracing.first_chunk.record(
                first_token_s, {"gen_ai.operation.name": self._operation}
            )
        self._span.end()

    def _attributes(self, model: str, outcome: str) -> Mapping[str, Any]:
        common = {
            "gen_ai.operation.name": self._operation,
            "gen_ai.provider.name": "openai",
            "gen_ai.request.model": model,
        }
        return common if outcome == "ok" else {**common, "error.type": outcome}
