"""Two fake models for a labelling task: the large one is always right, the small one is not sure of
the hard requests and wrong on them."""

from __future__ import annotations

import json
from pathlib import Path

from endpoint_fake import FakeEndpoint

from advisor.cli import main
from advisor.router.config import RouterConfig
from advisor.router.settings import PolicySettings, RouterTask, UpstreamSettings
from advisor.task import TaskProfile
from advisor.trial.data import TrialRow
from advisor.trial.endpoints import Endpoint

LABELS = ("red", "green", "blue")

TASK = """
name: colours
task: {type: classification, output: label, labels: [red, green, blue]}
quality: {metric: exact_match, threshold: 0.9}
latency: {e2e_p95_ms: 2000}
traffic: {requests_per_day: 864000, input_tokens: 8, output_tokens: 1}
"""

HARD_EVERY = 10
"""One request of so many is hard."""


def colour_task(**changes: object) -> TaskProfile:
    return TaskProfile.from_yaml(TASK).with_values(changes)


def colour_rows(count: int) -> list[TrialRow]:
    rows = []
    for number in range(count):
        kind = "hard" if number % HARD_EVERY == 3 else "easy"
        label = LABELS[number % 3]
        text = f"{kind} request {number} about {label}"
        message = {"role": "user", "content": text}
        rows.append(TrialRow(id=f"row-{number}", messages=(message,), expected=label))
    return rows


def large_answer(text: str) -> str:
    return text.rsplit(" ", 1)[1]


def small_answer(text: str) -> str:
    right = large_answer(text)
    return LABELS[(LABELS.index(right) + 1) % 3] if text.startswith("hard") else right


def small_confidence(text: str) -> float:
    return 0.4 if text.startswith("hard") else 0.97


def small_endpoint(service_s: float = 0.0) -> FakeEndpoint:
    return FakeEndpoint(
        answer=small_answer, confidence=small_confidence, service_s=service_s, model="small"
    )


def large_endpoint(service_s: float = 0.0) -> FakeEndpoint:
    return FakeEndpoint(answer=large_answer, service_s=service_s, model="large")


def pair_of(small: FakeEndpoint, large: FakeEndpoint) -> tuple[Endpoint, Endpoint]:
    return (
        Endpoint("slm", small.base_url, small.model, queue="fifo"),
        Endpoint("llm", large.base_url, large.model, queue="fifo"),
    )


def router_config(small: FakeEndpoint, large: FakeEndpoint) -> RouterConfig:
    """The cascade over the pair: what the small one is not sure of is handed up."""
    return RouterConfig(
        task=RouterTask.of_task(colour_task().task),
        slm=UpstreamSettings(base_url=small.base_url, model="small"),
        llm=UpstreamSettings(base_url=large.base_url, model="large"),
        policy=PolicySettings(name="cascade", threshold=0.7),
    )


def write_data(folder: Path, count: int) -> tuple[Path, Path]:
    """Rows as JSONL, and the task profile."""
    data, task = folder / "rows.jsonl", folder / "task.yaml"
    lines = (
        json.dumps({"id": row.id, "input": row.text, "expected": row.expected})
        for row in colour_rows(count)
    )
    data.write_text("\n".join(lines))
    task.write_text(json.dumps(colour_task().to_mapping()))
    return data, task


def exported_load(folder: Path, url: str, count: int) -> Path:
    """The load of the colour rows for other tools, in a folder of its own."""
    data, task = write_data(folder, count)
    out = folder / "load"
    code = main(
        ["trials", "plan", str(task), str(out), "--url", url, "--data", str(data),
         "--rate", "40", "--requests", str(count), "--key-variable", "ADVISOR_LLM_API_KEY"]
    )  # fmt: skip
    assert code == 0
    return out
