"""Whole trials on fake endpoints behind real sockets and the real router."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiohttp import web
from endpoint_fake import FakeEndpoint, serving
from trial_pair import (
    colour_rows,
    colour_task,
    large_answer,
    large_endpoint,
    pair_of,
    small_endpoint,
)

from advisor.cli import main
from advisor.errors import InputError
from advisor.trial.data import read_rows
from advisor.trial.endpoints import Endpoint, check_endpoint
from advisor.trial.exports import compared_trials, export_requests, report_of_trial
from advisor.trial.judging import Price
from advisor.trial.reporting.html_report import html_report
from advisor.trial.reporting.report import TrialReport
from advisor.trial.run import run_trial
from advisor.trial.store import TrialStore

KEY = "sk-very-secret-0123456789"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("trials")


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[FakeEndpoint, FakeEndpoint]]:
    with serving(small_endpoint(0.002)) as small, serving(large_endpoint(0.004)) as large:
        yield small, large


@pytest.fixture(scope="module")
def report(pair: tuple[FakeEndpoint, FakeEndpoint], folder: Path) -> TrialReport:
    """One whole trial with a key, of 150 requests at 30/s."""
    small, large = pair
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ADVISOR_SLM_API_KEY", KEY)
        patch.setenv("ADVISOR_LLM_API_KEY", KEY)
        slm = Endpoint.at(
            "slm", small.base_url, small.model, price=Price(usd_per_request=1e-5), queue="fifo"
        )
        llm = Endpoint.at(
            "llm", large.base_url, large.model, price=Price(usd_per_request=1e-3), queue="fifo"
        )
        return run_trial(
            colour_task(),
            slm=slm,
            llm=llm,
            data=colour_rows(400),
            rate_per_s=30.0,
            requests=150,
            early_stop=False,
            records=folder / "trials.sqlite",
        )


@pytest.mark.live
def test_a_whole_trial_measures_what_the_pair_is(report: TrialReport) -> None:
    """Nine in ten easy: a tenth is handed up, and the large model is right on it."""
    router = report.measurements["router"]
    assert router.requests.completed == router.requests.total == 150
    assert router.escalation_rate is not None and router.quality is not None
    assert router.escalation_rate.value == pytest.approx(0.1, abs=0.06)
    assert router.quality.value == 1.0
    small = report.measurements["slm_only"].quality
    assert small is not None
    assert small.value < router.quality.value
    assert report.threshold is not None
    assert report.threshold.certified
    assert 0.4 < report.threshold.threshold <= 0.97


@pytest.mark.live
def test_the_projection_is_written_before_the_load(report: TrialReport) -> None:
    assert report.projection_written_epoch_s is not None
    assert report.load_began_epoch_s is not None
    assert report.projection_written_epoch_s < report.load_began_epoch_s
    compared = {(one.arm, one.measure) for one in report.comparisons}
    assert {("router", "e2e_p95_ms"), ("router", "escalation_rate"), ("router", "quality"),
            ("llm_only", "cost_usd_per_request")} <= compared  # fmt: skip


@pytest.mark.live
def test_money_is_what_the_two_prices_make_it(report: TrialReport) -> None:
    """e of the answers cost 0.00001 + 0.001, the others 0.00001."""
    router, large = report.measurements["router"], report.measurements["llm_only"]
    assert router.escalation_rate is not None
    assert router.cost_usd_per_request is not None and large.cost_usd_per_request is not None
    expected = 1e-5 + router.escalation_rate.value * 1e-3
    assert router.cost_usd_per_request.value == pytest.approx(expected, rel=1e-6)
    assert large.cost_usd_per_request.value == pytest.approx(1e-3)
    assert report.advice is not None
    assert report.advice.architecture == "hybrid"


@pytest.mark.live
def test_what_was_wrong_is_shown_piece_by_piece(report: TrialReport) -> None:
    pieces = [one.piece for one in report.attributions]
    assert "escalation rate" in pieces
    assert pieces[-1] == "all of them together"


@pytest.mark.live
def test_the_key_is_found_nowhere(
    report: TrialReport, pair: tuple[FakeEndpoint, FakeEndpoint], folder: Path
) -> None:
    small, _ = pair
    assert any(headers.get("Authorization") == f"Bearer {KEY}" for headers in small.seen_headers)
    assert KEY not in report.model_dump_json()
    assert KEY not in html_report(report)
    for file in folder.iterdir():
        assert KEY.encode() not in file.read_bytes(), file.name


@pytest.mark.live
def test_a_trial_comes_out_of_its_store_again(report: TrialReport, folder: Path) -> None:
    import pandas as pd

    with TrialStore(folder / "trials.sqlite") as store:
        summary = store.summary(report.trial)
        assert summary.state == "finished"
        assert all(arm.requests.planned == 0 for arm in summary.arms)
        assert report_of_trial(store, report.trial) == report
        total = sum(arm.requests.total for arm in summary.arms)
        assert export_requests(store, report.trial, folder / "all.csv") == total
        export_requests(store, report.trial, folder / "all.parquet")
        same = list(compared_trials(store, report.trial, report.trial))
    assert all(one == other for _, _, one, other in same)
    as_csv, as_parquet = pd.read_csv(folder / "all.csv"), pd.read_parquet(folder / "all.parquet")
    assert len(as_csv) == len(as_parquet) == total
    assert list(as_csv.columns) == list(as_parquet.columns)
    with TrialStore(folder / "trials.sqlite") as store, pytest.raises(InputError, match=r"\.csv"):
        export_requests(store, report.trial, folder / "all.xlsx")


@pytest.mark.live
def test_the_html_report_stands_alone(report: TrialReport) -> None:
    text = html_report(report)

    assert text.startswith("<!doctype html>")
    assert "<script" not in text
    assert not re.search(r'(src|href)="', text)
    assert f"{report.measurements['router'].requests.total:,} scheduled" in text


@pytest.mark.live
def test_a_trial_that_is_stopped_is_judged_as_it_stands(
    pair: tuple[FakeEndpoint, FakeEndpoint], tmp_path: Path
) -> None:
    slm, llm = pair_of(*pair)
    stop = threading.Event()

    def listen(message: str) -> None:
        if message.startswith("the router: "):
            stop.set()

    report = run_trial(
        colour_task(),
        slm=slm,
        llm=llm,
        data=colour_rows(120),
        rate_per_s=20.0,
        requests=60,
        records=tmp_path / "t.sqlite",
        announce=listen,
        stop=stop,
    )

    assert (report.state, report.note) == ("stopped", "stopped by the user")
    with TrialStore(tmp_path / "t.sqlite") as store:
        (summary,) = store.trials()
        assert summary.state == "stopped"
        router = next(arm for arm in summary.arms if arm.name == "router")
        assert router.requests.planned == 0
        assert router.requests.total == 60


def test_the_spending_cap_ends_a_trial(
    pair: tuple[FakeEndpoint, FakeEndpoint], tmp_path: Path
) -> None:
    small, large = pair
    report = run_trial(
        colour_task(),
        slm=Endpoint("slm", small.base_url, "small", price=Price(usd_per_request=0.01)),
        llm=Endpoint("llm", large.base_url, "large", price=Price(usd_per_request=0.01)),
        data=colour_rows(60),
        rate_per_s=20.0,
        budget_usd=0.05,
        records=tmp_path / "t.sqlite",
    )

    assert report.state == "stopped"
    assert report.note.startswith("the cap of $0.05 is spent")
    assert report.measurements == {}
    assert report.summary == "nothing was measured"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"policy": "both"}, "policy = both: one of cascade"),
        ({"rate_per_s": 0.0}, "rate = 0"),
        ({"load": 3.0}, "load = 3"),
        ({"requests": 0}, "requests = 0"),
        ({"budget_usd": -1.0}, "budget = -1"),
        ({"seed": -1}, "seed = -1: a whole number of at least 0"),
        ({}, "needs the sandbox, or a small and a large endpoint"),
    ],
)
def test_what_cannot_be_run_is_refused_in_one_line(changes: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=re.escape(words)):
        run_trial(colour_task(), **changes)  # type: ignore[arg-type]


async def no_logprobs(
    endpoint: FakeEndpoint, request: web.Request, body: dict[str, object]
) -> web.StreamResponse:
    body.pop("logprobs", None)
    return await endpoint.reply(request, body)


async def refuses(
    endpoint: FakeEndpoint, request: web.Request, body: dict[str, object]
) -> web.StreamResponse:
    return web.json_response({"error": {"message": "no"}}, status=500)


def test_endpoints_are_checked_with_a_remedy_a_line() -> None:
    row, task = colour_rows(1)[0], colour_task()
    with serving(small_endpoint()) as server:
        fit = Endpoint("slm", server.base_url, "small")
        good = check_endpoint(fit, task, row)
        other = check_endpoint(Endpoint("slm", server.base_url, "tiny"), task, row)
        server.behaviour = no_logprobs
        blind = check_endpoint(fit, task, row)
        server.behaviour = refuses
        broken = check_endpoint(fit, task, row)
    gone = check_endpoint(fit, task, row)

    assert [one.severity for one in good] == ["good", "good"]
    assert other[0].text == "model tiny is not listed; the server has small"
    assert "returns no log-probabilities" in blind[-1].text
    assert broken[-1].text.startswith("HTTP 500 to a chat completion")
    assert "cannot be reached" in gone[0].text
    for findings in (other, blind, broken, gone):
        assert findings[-1].severity == "problem"
        assert "\n" not in findings[-1].text


@pytest.mark.live
def test_the_command_prints_one_document_and_says_whether_a_requirement_failed(
    pair: tuple[FakeEndpoint, FakeEndpoint],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    small, large = pair
    data = tmp_path / "rows.jsonl"
    data.write_text(
        "".join(
            json.dumps({"id": row.id, "input": row.text, "expected": row.expected}) + "\n"
            for row in colour_rows(80)
        )
    )
    task = tmp_path / "task.yaml"
    task.write_text(json.dumps(colour_task(**{"latency.e2e_p95_ms": 0.5}).to_mapping()))
    command = [
        "trial", str(task), "--slm", small.base_url, "--slm-model", "small",
        "--llm", large.base_url, "--llm-model", "large", "--llm-price", "1/2",
        "--slm-price", "0.1/0.2", "--data", str(data), "--rate", "40", "--requests", "60",
        "--records", str(tmp_path / "t.sqlite"), "--report", str(tmp_path / "r.html"), "--json",
    ]  # fmt: skip

    code = main(command)

    out, err = capsys.readouterr()
    found = json.loads(out)
    assert code == 1, "half a millisecond is too little for anybody"
    assert {one["measure"]: one["state"] for one in found["verdicts"]}["e2e_p95_ms"] == "failed"
    assert "projection written" in err
    assert (tmp_path / "r.html").read_text().startswith("<!doctype html>")

    store = ["--records", str(tmp_path / "t.sqlite")]
    assert main(["trials", "list", *store]) == 0
    assert found["trial"] in capsys.readouterr().out
    assert main(["trials", "show", found["trial"], *store]) == 0
    assert "FAILED" in capsys.readouterr().out
    assert main(["trials", "compare", found["trial"], found["trial"], *store]) == 0
    assert "router" in capsys.readouterr().out
    assert main(["trials", "delete", found["trial"], *store]) == 0
    assert main(["trials", "show", found["trial"], *store]) == 2
    assert "no trial" in capsys.readouterr().err


def test_rows_are_read_from_csv_and_jsonl_alike(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("input,expected,risk\nhello,red,\nbye,blue,high\n")
    (tmp_path / "rows.jsonl").write_text(
        '{"input": "hello", "expected": "red"}\n\n{"input": "bye", "expected": "blue", '
        '"risk": "high", "outputs": {}}\n'
    )

    from_csv = read_rows(tmp_path / "rows.csv")
    from_json = read_rows(tmp_path / "rows.jsonl")

    assert [(r.text, r.expected, r.risk) for r in from_csv] == [
        (r.text, r.expected, r.risk) for r in from_json
    ]
    for text, words in (
        ("{}", "input must be a text or a list of chat messages"),
        ("[]", "line 1: an object was expected"),
        ("{", "line 1: not JSON"),
        ('{"input": "a", "id": 1}\n{"input": "b", "id": "1"}', "id '1' is given twice"),
    ):
        (tmp_path / "bad.jsonl").write_text(text)
        with pytest.raises(InputError, match=re.escape(words)):
            read_rows(tmp_path / "bad.jsonl")


def test_the_large_answer_of_the_pair_is_the_right_one() -> None:
    assert all(large_answer(row.text) == row.expected for row in colour_rows(30))
