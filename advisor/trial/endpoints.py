"""The two endpoints of a trial, and whether they are fit for one."""

from __future__ import annotations

import asyncio
import email.utils
import json
import math
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import aiohttp

from advisor.decide.recommendation import Role
from advisor.errors import InputError
from advisor.quality.decodable import decodable
from advisor.router.addresses import checked_url
from advisor.router.settings import PolicySettings
from advisor.task import TaskProfile
from advisor.trial.data import TrialRow
from advisor.trial.judging import Price
from advisor.trial.projecting.service import Queue

CHECK_TIMEOUT_S = 20.0

MOST_CLOCK_SKEW_S = 2.0
"""A Date header counts whole seconds; more than two of difference is a wrong clock."""

NO_LOGPROBS = (
    "returns no log-probabilities, so nothing says which answers to hand up: serve the small model "
    "with logprobs (vLLM does), or trial with --policy llm_only"
)
NOT_JSON = (
    "its answer is not JSON, although a schema was asked for: turn on structured outputs in the "
    "server, or say so in the prompt"
)

KEY_VARIABLES: Mapping[Role, str] = {"slm": "ADVISOR_SLM_API_KEY", "llm": "ADVISOR_LLM_API_KEY"}
SHARED_KEY_VARIABLE = "OPENAI_API_KEY"


@dataclass(frozen=True)
class Endpoint:
    """One OpenAI-compatible server and the model asked there."""

    role: Role
    base_url: str
    """Up to and including /v1."""
    model: str
    api_key_env: str | None = None
    """Environment variable with the key; None: no key is sent."""
    price: Price | None = None
    """None: unknown."""
    queue: Queue = "sharing"
    metrics_url: str | None = None
    """Prometheus page of the server, where it has one."""
    request_extras: Mapping[str, Any] = field(default_factory=dict)
    """Added to every request, e.g. `temperature`."""

    @classmethod
    def at(
        cls, role: Role, base_url: str, model: str, *, option: str | None = None, **given: Any
    ) -> Endpoint:
        """An endpoint by URL, with the key from the environment where there is one.

        Args:
            option: what an error names; None: `--slm` or `--llm`.

        Raises:
            InputError: a URL that is none, holds a key, or may not be called.
        """
        try:
            url = checked_url(base_url)
        except ValueError as error:
            raise InputError(f"{option or f'--{role}'}: {error}") from None
        variable = next(
            (name for name in (KEY_VARIABLES[role], SHARED_KEY_VARIABLE) if os.environ.get(name)),
            None,
        )
        root = url.removesuffix("/v1")
        return cls(role, url, model, api_key_env=variable, metrics_url=f"{root}/metrics", **given)

    def with_key_in(self, variable: str) -> Endpoint:
        """The endpoint with its key in a variable that only the trial's own processes have."""
        return replace(self, api_key_env=variable)


@dataclass(frozen=True)
class EndpointFinding:
    """One thing about an endpoint, with its remedy where something is wrong."""

    role: Role
    severity: Literal["good", "note", "problem"]
    text: str


RISK_HEADER = "x-advisor-risk"
"""Carries a row's risk to the router; nothing else reads it."""


def risk_headers(row: TrialRow) -> dict[str, str]:
    """Headers that tell the router of a row's risk."""
    return {RISK_HEADER: row.risk} if row.risk else {}


def body_of(row: TrialRow, task: TaskProfile, *, logprobs: bool) -> dict[str, Any]:
    """The chat completion that asks a row.

    The answer may have three times the tokens that the task calls long, and at least 16. Of its
    schema, what a server can decode by is sent along.
    """
    longest = math.ceil(3 * task.traffic.output_tokens.high_tokens)
    body: dict[str, Any] = {
        "messages": list(row.messages),
        "max_tokens": max(longest, 16),
        "temperature": 0,
    }
    schema = task.task.output_schema
    if task.task.output == "json" and schema is not None:
        body["response_format"] = {
            "type": "json_schema",
            "json_schema": {"name": "answer", "schema": decodable(schema)},
        }
    if logprobs:
        body |= {"logprobs": True, "top_logprobs": PolicySettings().top_logprobs}
    return body


def check_endpoint(
    endpoint: Endpoint,
    task: TaskProfile,
    row: TrialRow,
    *,
    keys: Mapping[str, str] | None = None,
) -> tuple[EndpointFinding, ...]:
    """Ask an endpoint what a trial will need of it: two requests in all.

    Args:
        row: what is asked.
        keys: values of environment variables that are not in the environment.

    A finding of severity problem means that the trial cannot be run.
    """
    key = {**os.environ, **(keys or {})}.get(endpoint.api_key_env or "", "")
    return asyncio.run(_Check(endpoint, task, row, key).findings())


class _Check:
    def __init__(self, endpoint: Endpoint, task: TaskProfile, row: TrialRow, key: str) -> None:
        self.endpoint, self.task, self.row, self.key = endpoint, task, row, key
        self.found: list[EndpointFinding] = []

    def say(self, severity: Literal["good", "note", "problem"], text: str) -> None:
        text = " ".join(text.split())
        if self.key:
            text = text.replace(self.key, "[key]")
        self.found.append(EndpointFinding(self.endpoint.role, severity, text[:300]))

    async def findings(self) -> tuple[EndpointFinding, ...]:
        url, model = self.endpoint.base_url, self.endpoint.model
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        timeout = aiohttp.ClientTimeout(total=CHECK_TIMEOUT_S)
        try:
            async with aiohttp.ClientSession(headers=headers, timeout=timeout) as session:
                if await self._reached(session):
                    await self._answers(session)
        except TimeoutError:
            self.say("problem", f"{url} did not answer within {CHECK_TIMEOUT_S:g} s: is it busy?")
        except aiohttp.ClientConnectorDNSError as error:
            self.say("problem", f"{error.host} cannot be resolved: check the URL")
        except (aiohttp.ClientError, OSError) as error:
            self.say("problem", f"{url} cannot be reached ({error}): is {model} served there?")
        return tuple(self.found)

    async def _reached(self, session: aiohttp.ClientSession) -> bool:
        """Whether the server is there, lets us in, and lists the model."""
        endpoint = self.endpoint
        begin = time.time()
        async with session.get(f"{endpoint.base_url}/models", allow_redirects=False) as response:
            middle = (begin + time.time()) / 2
            if response.status in (401, 403):
                variables = f"{KEY_VARIABLES[endpoint.role]} or {SHARED_KEY_VARIABLE}"
                self.say("problem", f"HTTP {response.status}: set {variables} to a valid key")
                return False
            self._check_clock(response.headers.get("Date"), middle)
            listed = _model_ids(await response.text()) if response.status == 200 else None
        if listed is None:
            self.say(
                "note", f"{endpoint.base_url}/models lists nothing: the model is taken as it is"
            )
        elif endpoint.model not in listed:
            known = ", ".join(sorted(listed)[:5]) or "nothing"
            self.say("problem", f"model {endpoint.model} is not listed; the server has {known}")
            return False
        else:
            self.say("good", f"reachable, and lists {endpoint.model}")
        return True

    def _check_clock(self, date: str | None, now_s: float) -> None:
        if date is None:
            return
        try:
            skew_s = email.utils.parsedate_to_datetime(date).timestamp() + 0.5 - now_s
        except ValueError:
            return
        if abs(skew_s) > MOST_CLOCK_SKEW_S:
            self.say(
                "note",
                f"its clock is {skew_s:+.0f} s off this one: compare no times of its logs with "
                "those here (run NTP on both)",
            )

    async def _answers(self, session: aiohttp.ClientSession) -> None:
        """Whether it answers, with what a trial needs."""
        endpoint = self.endpoint
        body = {**body_of(self.row, self.task, logprobs=endpoint.role == "slm"),
                **endpoint.request_extras, "model": endpoint.model}  # fmt: skip
        url = f"{endpoint.base_url}/chat/completions"
        async with session.post(url, json=body, allow_redirects=False) as response:
            text = await response.text()
        if response.status != 200:
            self.say("problem", f"HTTP {response.status} to a chat completion: {text[:160]}")
            return
        try:
            choice = json.loads(text)["choices"][0]
            content = choice["message"]["content"]
        except (ValueError, LookupError, TypeError):
            self.say("problem", "the answer is no chat completion: an OpenAI-compatible server "
                     "was expected")  # fmt: skip
            return
        for severity, line in self._of_answer(choice, content):
            self.say(severity, line)

    def _of_answer(
        self, choice: Mapping[str, Any], content: Any
    ) -> Iterator[tuple[Literal["good", "note", "problem"], str]]:
        if self.endpoint.role == "slm":
            logprobs = choice.get("logprobs") or {}
            if logprobs.get("content"):
                yield "good", "returns log-probabilities"
            else:
                yield "problem", NO_LOGPROBS
        if self.task.task.output == "json":
            try:
                json.loads(content)
                yield "good", "answers in JSON"
            except (ValueError, TypeError):
                yield "note", NOT_JSON


def _model_ids(text: str) -> set[str] | None:
    try:
        return {str(one["id"]) for one in json.loads(text)["data"]}
    except (ValueError, LookupError, TypeError):
        return None
