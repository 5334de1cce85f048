"""Whether a small model's answer may be given out: hard gates first, then its confidence."""

from __future__ import annotations

import json
import math
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from advisor.errors import InputError
from advisor.quality.confidence import answer_confidence, label_probability
from advisor.quality.schema_gate import SchemaGate
from advisor.router.refusals import invalid
from advisor.router.requests import Endpoint, RouterRequest
from advisor.router.settings import PolicySettings, RouterTask, Score

LOOK_AT_RIVALS: frozenset[Score] = frozenset({"label_probability", "logistic"})
"""Scores that need the likeliest other tokens; the rest do with those that were written."""

MAX_SCHEMAS = 256
"""Clients' schemas that are kept ready."""


@dataclass(frozen=True)
class Verdict:
    """What the gates and the threshold say of an answer."""

    cause: str
    """Why it is handed up: gate_…, low_confidence, no_confidence; empty where it is accepted."""
    checked: bool
    """Whether there was anything to check it by."""
    confidence: float | None = None

    @property
    def accepted(self) -> bool:
        """Whether it may be given out."""
        return not self.cause

    @property
    def passed_gates(self) -> bool:
        """Whether no hard gate refused it."""
        return not self.cause.startswith("gate_")


class GateStep:
    """The gates of one task, those that requests bring with them, and the confidence score."""

    def __init__(self, task: RouterTask, policy: PolicySettings) -> None:
        self._task, self._policy = task, policy
        self._gates = task.gates() if task.is_gated else None
        self._schemas: OrderedDict[str, SchemaGate] = OrderedDict()

    def check_request(self, request: RouterRequest) -> None:
        """Prepare the gates that a request brings.

        Raises:
            RefusedError: a schema that cannot be used.
        """
        wanted = _wanted_schema(request)
        if wanted is not None:
            self._schema_gate(wanted, "response_format")
        for name, schema in _tools(request).items():
            self._schema_gate(schema, f"tools: {name}")

    def judge(
        self, request: RouterRequest, body: Mapping[str, Any], *, threshold: float | None
    ) -> Verdict:
        """Judge every choice of an answer; the least sure one counts."""
        checked, confidence = threshold is not None, None
        for choice in body["choices"]:
            cause, gated = self._gate(request, choice)
            checked |= gated
            if cause:
                return Verdict(cause=f"gate_{cause}", checked=True)
        if threshold is None:
            return Verdict(cause="", checked=checked)
        for choice in body["choices"]:
            score = self._confidence(request.endpoint, choice)
            if score is None:
                return Verdict(cause="no_confidence", checked=True)
            confidence = score if confidence is None else min(confidence, score)
        sure = confidence is not None and confidence >= threshold
        cause = "" if sure else "low_confidence"
        return Verdict(cause=cause, checked=True, confidence=confidence)

    def _gate(self, request: RouterRequest, choice: Mapping[str, Any]) -> tuple[str, bool]:
        """Cause of refusal, and whether anything was checked."""
        if request.endpoint == "completions":
            return self._gate_text(request, choice["text"])
        message = choice["message"]
        if message.get("refusal"):
            return "refusal", True
        calls = message.get("tool_calls")
        if calls:
            return self._gate_calls(request, calls)
        content = message.get("content")
        return self._gate_text(request, content if isinstance(content, str) else "")

    def _gate_text(self, request: RouterRequest, text: str) -> tuple[str, bool]:
        gated = self._gates is not None
        if self._gates is not None:
            report = self._gates.check(text)
            if not report.passed:
                return report.cause, True
        kind = (request.body.get("response_format") or {}).get("type")
        if kind in ("json_object", "json_schema"):
            gated = True
            try:
                value = json.loads(text)
            except (ValueError, RecursionError):
                return "parse", True
            schema = _wanted_schema(request)
            if schema is not None and self._schema_gate(schema, "response_format").problems(value):
                return "schema", True
        if not gated and not text.strip():
            return "parse", True
        return "", gated

    def _gate_calls(self, request: RouterRequest, calls: Any) -> tuple[str, bool]:
        tools = _tools(request)
        for call in calls if isinstance(calls, list) else ():
            function = call.get("function") if isinstance(call, dict) else None
            name = function.get("name") if isinstance(function, dict) else None
            if not isinstance(function, dict) or name not in tools:
                return "tool", True
            try:
                arguments = json.loads(function.get("arguments") or "{}")
            except (ValueError, TypeError, RecursionError):
                return "tool", True
            if self._schema_gate(tools[name], name).problems(arguments):
                return "tool", True
        return "", True

    def _confidence(self, endpoint: Endpoint, choice: Mapping[str, Any]) -> float | None:
        logprobs = choice.get("logprobs")
        if logprobs is None:
            return None
        try:
            if endpoint == "completions":
                logprobs = _chat_form(logprobs)
            score = self._score(logprobs)
        except InputError:
            return None
        calibration = self._policy.calibration
        return score if calibration is None else float(calibration.apply(score))

    def _score(self, logprobs: Any) -> float:
        policy = self._policy
        if policy.score == "weakest_token" and self._task.kind != "json":
            return weakest_token(logprobs)
        if policy.score == "label_probability":
            return label_probability(logprobs, self._task.labels or ())
        found = answer_confidence(logprobs, output=self._task.kind)
        if policy.score == "logistic" and policy.logistic is not None:
            return float(policy.logistic.apply([found.features])[0])
        if policy.score == "weakest_field":
            return min(found.by_field.values())
        return found.weakest_token

    def _schema_gate(self, schema: Mapping[str, Any], where: str) -> SchemaGate:
        key = json.dumps(schema, sort_keys=True)
        gate = self._schemas.get(key)
        if gate is None:
            try:
                gate = self._schemas[key] = SchemaGate(schema)
            except InputError as error:
                raise invalid(f"{where}: {error}", param=where.partition(":")[0]) from None
            while len(self._schemas) > MAX_SCHEMAS:
                self._schemas.popitem(last=False)
        self._schemas.move_to_end(key)
        return gate


def weakest_token(logprobs: Any) -> float:
    """Probability of the least likely token that is not blank.

    `AnswerConfidence.weakest_token` of an answer that is one value, at a tenth of its cost.

    Raises:
        InputError: no such token, or log-probabilities in another form than OpenAI's.
    """
    try:
        logs = [
            min(float(item["logprob"]), 0.0)
            for item in logprobs["content"]
            if _text_of_token(item).strip()
        ]
    except (KeyError, TypeError, AttributeError, ValueError):
        raise InputError("logprobs: content with token and logprob was expected") from None
    if not logs or any(math.isnan(value) for value in logs):
        raise InputError("logprobs: no token with a probability")
    return math.exp(min(logs))


def _text_of_token(item: Mapping[str, Any]) -> str:
    stated = item.get("bytes")
    if isinstance(stated, list):
        return bytes(stated).decode("utf-8", "replace")
    text: str = item["token"]
    return text


def _wanted_schema(request: RouterRequest) -> Mapping[str, Any] | None:
    schema = request.at("response_format.json_schema.schema")
    return schema if isinstance(schema, dict) else None


def _tools(request: RouterRequest) -> dict[str, Mapping[str, Any]]:
    """Schema of the arguments by function."""
    tools = request.body.get("tools")
    found: dict[str, Mapping[str, Any]] = {}
    for tool in tools if isinstance(tools, list) else ():
        function = tool.get("function") if isinstance(tool, dict) else None
        if isinstance(function, dict) and isinstance(function.get("name"), str):
            parameters = function.get("parameters")
            found[function["name"]] = parameters if isinstance(parameters, dict) else {}
    return found


def _chat_form(logprobs: Any) -> dict[str, Any]:
    """{tokens, token_logprobs, top_logprobs} of the older endpoint as {content: […]}.

    Raises:
        InputError: another form.
    """
    try:
        return {"content": list(_chat_tokens(logprobs))}
    except (KeyError, TypeError, AttributeError):
        raise InputError("logprobs: tokens and token_logprobs were expected") from None


def _chat_tokens(logprobs: Any) -> Iterator[dict[str, Any]]:
    tops = logprobs.get("top_logprobs") or [None] * len(logprobs["tokens"])
    for token, value, top in zip(
        logprobs["tokens"], logprobs["token_logprobs"], tops, strict=False
    ):
        rivals = [{"token": text, "logprob": p} for text, p in (top or {}).items()]
        yield {"token": token, "logprob": value, "top_logprobs": rivals}


def with_logprobs(request: RouterRequest, policy: PolicySettings) -> dict[str, Any]:
    """The body for the small model, asking for what a confidence needs."""
    body = {k: v for k, v in request.body.items() if k not in ("stream", "stream_options")}
    if request.endpoint == "chat":
        body["logprobs"] = True
        asked = request.body.get("top_logprobs")
        # One all the same: llama.cpp takes none at all to mean no log-probabilities.
        most = policy.top_logprobs
        wanted = most if policy.score in LOOK_AT_RIVALS else min(most, 1)
        body["top_logprobs"] = max(asked if isinstance(asked, int) else 0, wanted)
    elif not request.wants_logprobs:
        body["logprobs"] = policy.top_logprobs
    return body


def without_logprobs(body: Mapping[str, Any], request: RouterRequest) -> dict[str, Any]:
    """The answer as the client asked for it."""
    if request.wants_logprobs:
        return dict(body)
    choices = [{**choice, "logprobs": None} for choice in body["choices"]]
    return {**body, "choices": choices}
