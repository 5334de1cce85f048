"""The load on other tools: Locust writes the records that the sender writes, judged alike."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from endpoint_fake import serving
from trial_pair import colour_rows, colour_task, large_endpoint, small_endpoint

from advisor.cli import main
from advisor.errors import InputError
from advisor.router.config import RouterConfig
from advisor.router.settings import PolicySettings, RouterTask, UpstreamSettings
from advisor.trial.importing import import_load
from advisor.trial.load_scripts import LOCUSTFILE
from advisor.trial.plan import LoadPlan
from advisor.trial.router_process import RouterProcess
from advisor.trial.store import TrialStore

LOCUST = os.environ.get("ADVISOR_LOCUST") or shutil.which("locust")


def write_data(folder: Path, count: int) -> tuple[Path, Path]:
    data, task = folder / "rows.jsonl", folder / "task.yaml"
    lines = (
        json.dumps({"id": row.id, "input": row.text, "expected": row.expected})
        for row in colour_rows(count)
    )
    data.write_text("\n".join(lines))
    task.write_text(json.dumps(colour_task().to_mapping()))
    return data, task


def export(folder: Path, url: str, count: int) -> Path:
    data, task = write_data(folder, count)
    out = folder / "load"
    code = main(
        ["trials", "plan", str(task), str(out), "--url", url, "--data", str(data),
         "--rate", "40", "--requests", str(count), "--key-variable", "ADVISOR_LLM_API_KEY"]
    )  # fmt: skip
    assert code == 0
    return out


def test_the_export_is_a_plan_and_two_scripts_without_a_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ADVISOR_LLM_API_KEY", "sk-of-nobody")

    out = export(tmp_path, "http://127.0.0.1:1/v1", 10)

    assert sorted(file.name for file in out.iterdir()) == ["k6.js", "locustfile.py", "plan.json"]
    plan = LoadPlan.read(out / "plan.json")
    assert [one.row_id for one in plan.requests] == [f"row-{n}" for n in range(10)]
    assert plan.api_key_env == "ADVISOR_LLM_API_KEY"
    ast.parse(LOCUSTFILE)
    for file in out.iterdir():
        assert "sk-of-nobody" not in file.read_text()


def test_records_of_another_tool_are_kept_and_judged(tmp_path: Path) -> None:
    """Eight of ten answered, one failed, one without a record: cancelled. One answer is wrong."""
    out = export(tmp_path, "http://127.0.0.1:1/v1", 10)
    rows = colour_rows(10)
    lines = [{"began_epoch_s": 1000.0}]
    for number, row in enumerate(rows[:9]):
        sent_s = number / 10
        ended = {"number": number, "sent_s": sent_s, "end_s": sent_s + 0.1}
        if number == 8:
            lines.append({**ended, "status": "failed", "error": "HTTP 500"})
            continue
        answer = row.expected if number else "blue" if row.expected != "blue" else "red"
        times = {"first_token_s": sent_s + 0.1, "last_token_s": sent_s + 0.1}
        route = {"route": "slm", "reason": "accepted", "confidence": 0.9}
        lines.append({**ended, **times, **route, "status": "completed", "answer": answer})
    (out / "records-0.jsonl").write_text("\n".join(json.dumps(line) for line in lines))

    with TrialStore(tmp_path / "t.sqlite") as store:
        report = import_load(store, colour_task(), rows, out)
        (summary,) = store.trials()

    router = report.measurements["router"]
    assert (router.requests.completed, router.requests.failed) == (8, 1)
    assert router.requests.cancelled == 1
    assert router.quality is not None
    assert router.quality.value == pytest.approx(7 / 9)
    assert summary.state == "finished"
    (out / "records-0.jsonl").write_text('{"number": 99, "status": "completed"}')
    with (
        TrialStore(tmp_path / "t.sqlite") as store,
        pytest.raises(InputError, match="request 99, which the plan does not have"),
    ):
        import_load(store, colour_task(), rows, out)


@pytest.mark.live
@pytest.mark.skipif(LOCUST is None, reason="no locust here (pip install locust)")
def test_locust_sends_the_plan_to_the_router(tmp_path: Path) -> None:
    """60 requests at 40/s through the real router: all on record, escalations among them."""
    with serving(small_endpoint()) as small, serving(large_endpoint()) as large:
        config = RouterConfig(
            task=RouterTask.of_task(colour_task().task),
            slm=UpstreamSettings(base_url=small.base_url, model="small"),
            llm=UpstreamSettings(base_url=large.base_url, model="large"),
            policy=PolicySettings(name="cascade", threshold=0.7),
        )
        with RouterProcess(config) as router:
            out = export(tmp_path, router.base_url, 60)
            done = subprocess.run(
                [str(LOCUST), "-f", str(out / "locustfile.py"), "--headless", "--users", "20",
                 "--spawn-rate", "20", "--run-time", "30s", "--only-summary"],
                capture_output=True, text=True, timeout=120, cwd=tmp_path,
            )  # fmt: skip
    assert (out / "records-0.jsonl").exists(), done.stderr[-2000:]
    with TrialStore(tmp_path / "t.sqlite") as store:
        report = import_load(store, colour_task(), colour_rows(60), out)

    router = report.measurements["router"]
    assert router.requests.completed == 60, done.stderr[-2000:]
    assert router.escalation_rate is not None
    assert router.escalation_rate.value == pytest.approx(0.1)
    assert router.quality is not None
    assert router.quality.value == 1.0
    assert router.lag is not None
    print(f"Locust's send lag: p50 {router.lag.p50_ms:.1f} ms, p99 {router.lag.p99_ms:.1f} ms")
