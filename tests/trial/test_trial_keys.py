"""A key in the environment is sent to its endpoint and found nowhere else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from endpoint_fake import FakeEndpoint, serving
from trial_pair import exported_load, large_endpoint, small_endpoint, write_data

from advisor.trial.store import TrialStore

pytestmark = pytest.mark.live

KEYS = {
    "ADVISOR_SLM_API_KEY": "sk-small-0123456789abcdef",
    "ADVISOR_LLM_API_KEY": "sk-large-fedcba9876543210",
}


async def repeats_the_key(endpoint: FakeEndpoint, request: web.Request, body: Any) -> Any:
    """Every 40th request is refused with the key in the message, as some servers do."""
    if len(endpoint.seen) % 40 == 0:
        given = request.headers.get("Authorization", "")
        error = {"error": {"message": f"Incorrect API key provided: {given}"}}
        return web.json_response(error, status=401)
    return await endpoint.reply(request, body)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything that a trial with keys leaves behind: records, report, output, exports, plans."""
    folder = tmp_path_factory.mktemp("keys")
    data, task = write_data(folder, 150)
    small, large = small_endpoint(), large_endpoint()
    small.behaviour = large.behaviour = repeats_the_key
    environment = {**os.environ, **KEYS, "ADVISOR_TRIALS": str(folder / "trials.sqlite")}

    def advisor(*words: str, name: str) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "advisor", *words],
            capture_output=True, text=True, env=environment, cwd=folder, check=False,
        )  # fmt: skip
        assert done.returncode in (0, 1), done.stderr
        (folder / f"{name}.out").write_text(done.stdout)
        (folder / f"{name}.err").write_text(done.stderr)

    with serving(small), serving(large):
        advisor(
            *("trial", str(task), "--data", str(data), "--no-early-stop", "--requests", "100"),
            *("--slm", small.base_url, "--slm-model", "small", "--rate", "40", "--json"),
            *("--llm", large.base_url, "--llm-model", "large", "--report", "report.html"),
            name="trial",
        )
        seen = {header.get("Authorization") for header in small.seen_headers}
        above = {header.get("Authorization") for header in large.seen_headers}
    assert seen == {f"Bearer {KEYS['ADVISOR_SLM_API_KEY']}"}
    assert above == {f"Bearer {KEYS['ADVISOR_LLM_API_KEY']}"}
    with TrialStore(folder / "trials.sqlite") as store:
        (trial,) = store.trials()
        assert any("[key]" in str(one.error) for one in store.requests(trial.id, "slm_only"))
    advisor("trials", "show", trial.id, name="show")
    for name in ("all.csv", "all.parquet"):
        advisor("trials", "export", trial.id, name, name=name)
    exported_load(folder, "http://127.0.0.1:1/v1", 10)
    return folder


def test_no_file_holds_a_key(folder: Path) -> None:
    files = [file for file in folder.rglob("*") if file.is_file()]
    kinds = {file.suffix for file in files}
    assert {".sqlite", ".html", ".out", ".err", ".csv", ".parquet", ".json", ".py"} <= kinds
    for file in files:
        content = file.read_bytes()
        for key in KEYS.values():
            assert key.encode() not in content, file.name


def test_the_page_of_the_trial_holds_no_key(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The screen with the trial's verdict, keys in the environment: no element carries one."""
    from streamlit.testing.v1 import AppTest

    monkeypatch.setenv("ADVISOR_TRIALS", str(folder / "trials.sqlite"))
    for name, key in KEYS.items():
        monkeypatch.setenv(name, key)
    page = Path(__file__).parents[2] / "advisor" / "screens" / "trial.py"
    app = AppTest.from_file(str(page), default_timeout=60).run()

    assert not app.exception
    sent = str(app.main) + "".join(str(getattr(one, "proto", "")) for one in app.main)
    assert "Live trial" in sent
    for key in KEYS.values():
        assert key not in sent
