"""Result files of load tools: small ones written by hand, with the traps that real ones have."""

import json
from pathlib import Path
from typing import Any

import pytest

from advisor.calibrate.importers import import_results, write_measurements
from advisor.calibrate.measurements import read_measurements
from advisor.errors import InputError
from advisor.predict import predict

HERE = {"accelerator": "H100-SXM", "model": "meta-llama/Llama-3.1-8B", "weights_dtype": "bf16"}

SERVE: dict[str, Any] = {
    "backend": "vllm",
    "model_id": "meta-llama/Llama-3.1-8B",
    "num_prompts": 4,
    "request_rate": 2.5,
    "burstiness": 1.0,
    "max_concurrency": None,
    "completed": 3,
    "total_input_tokens": 1500,
    "total_output_tokens": 300,
    "request_throughput": 2.4,
    "output_throughput": 240.0,
    "mean_ttft_ms": 50.0,
    "median_ttft_ms": 45.0,
    "p99_ttft_ms": 90.0,
    "mean_tpot_ms": 8.0,
    "median_tpot_ms": 7.5,
    "p99_tpot_ms": 9.5,
    "latencies": [0.8, 0.0, 0.9, 1.0],
    "errors": ["", "timeout", "", ""],
}


def written(folder: Path, document: Any, name: str = "run.json") -> Path:
    path = folder / name
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return path


def test_serve_takes_means_lengths_and_the_load(tmp_path: Path) -> None:
    (row,) = import_results(written(tmp_path, SERVE), setup=HERE)
    setup = row.setup
    assert (setup.load, setup.request_rate_per_s, setup.requests) == ("poisson", 2.5, 3)
    assert (setup.input_tokens, setup.output_tokens) == (500, 100)
    assert row.measured["tpot_p50_ms"] == 7.5
    assert row.measured["output_tokens_per_s"] == 240


def test_failed_requests_leave_no_zero_in_the_latencies(tmp_path: Path) -> None:
    """E2E is not among the scalars here: it is taken from the list, without the failed 0.0."""
    (row,) = import_results(written(tmp_path, SERVE), setup=HERE)
    assert row.measured["e2e_mean_ms"] == pytest.approx(900)
    assert row.measured["e2e_p50_ms"] == pytest.approx(900)


@pytest.mark.parametrize(
    ("changes", "load"),
    [
        ({"request_rate": "inf", "max_concurrency": 16}, "closed_loop"),
        ({"request_rate": "inf"}, "burst"),
        ({"request_rate": 3.0, "burstiness": 0.5}, "gamma"),
    ],
)
def test_serve_loads(tmp_path: Path, changes: dict[str, Any], load: str) -> None:
    (row,) = import_results(written(tmp_path, SERVE | changes), setup=HERE)
    assert row.setup.load == load


def test_appended_results_are_one_row_a_line(tmp_path: Path) -> None:
    lines = "\n".join(json.dumps(SERVE | {"request_rate": rate}) for rate in (1.0, 2.0, 4.0))
    rows = import_results(written(tmp_path, lines, "runs.jsonl"), setup=HERE)
    assert [row.setup.request_rate_per_s for row in rows] == [1, 2, 4]
    assert len({row.setup.row_id for row in rows}) == 3


def test_latency_of_a_batch_needs_its_configuration(tmp_path: Path) -> None:
    document = {"avg_latency": 1.5, "latencies": [1.4, 1.6], "percentiles": {"50": 1.5, "99": 1.6}}
    path = written(tmp_path, document)
    with pytest.raises(InputError, match="does not record"):
        import_results(path, setup={"accelerator": "H100-SXM"})
    batch = {"batch_size": 8, "input_tokens": 128, "output_tokens": 128}
    (row,) = import_results(path, setup={**HERE, **batch})
    assert row.setup.load == "static_batch"
    assert row.measured == {"e2e_mean_ms": 1500, "e2e_p50_ms": 1500, "e2e_p99_ms": 1600}


def test_guidellm_means_something_else_by_time_per_output_token(tmp_path: Path) -> None:
    def metric(mean: float) -> dict[str, Any]:
        return {"successful": {"mean": mean, "count": 10, "percentiles": {"p95": 2 * mean}}}

    benchmark = {
        "config": {"strategy": {"type_": "concurrent", "streams": 4}},
        "metrics": {
            "request_latency": metric(1.2),
            "time_to_first_token_ms": metric(60.0),
            "inter_token_latency_ms": metric(9.0),
            "time_per_output_token_ms": metric(9.6),
            "prompt_token_count": metric(512.0),
            "output_token_count": metric(128.0),
        },
    }
    (row,) = import_results(written(tmp_path, {"benchmarks": [benchmark]}), setup=HERE)
    assert row.setup.concurrency == 4
    assert row.measured["tpot_mean_ms"] == 9.0
    assert row.measured["e2e_p95_ms"] == pytest.approx(2400)


def test_aiperf_units_and_incomplete_runs(tmp_path: Path) -> None:
    document: dict[str, Any] = {
        "aiperf_version": "0.13.0",
        "is_complete": True,
        "input_config": {"loadgen": {"concurrency": 8}},
        "request_count": {"unit": "requests", "avg": 80},
        "input_sequence_length": {"unit": "tokens", "avg": 1000},
        "output_sequence_length": {"unit": "tokens", "avg": 200},
        "time_to_first_token": {"unit": "ms", "avg": 70, "p99": 95},
        "inter_token_latency": {"unit": "ms", "avg": 8.5, "p50": 8.4},
        "request_latency": {"unit": "s", "avg": 1.75},
    }
    (row,) = import_results(written(tmp_path, document), setup=HERE)
    assert row.measured["e2e_mean_ms"] == 1750
    assert row.measured["tpot_p50_ms"] == 8.4
    with pytest.raises(InputError, match="not complete"):
        import_results(written(tmp_path, document | {"is_complete": False}), setup=HERE)


def test_inference_perf_is_in_seconds(tmp_path: Path) -> None:
    document = {
        "load_summary": {"count": 60, "requested_rate": 1.0, "achieved_rate": 0.98},
        "successes": {
            "count": 60,
            "latency": {
                "request_latency": {"mean": 0.48, "median": 0.47, "p95": 0.5, "p99": 0.52},
                "time_to_first_token": {"mean": 0.031},
                "time_per_output_token": {"mean": 0.0072},
            },
            "throughput": {"output_tokens_per_sec": 64.0, "requests_per_sec": 1.0},
            "prompt_len": {"mean": 204},
            "output_len": {"mean": 63},
        },
        "failures": {"count": 0},
    }
    (row,) = import_results(written(tmp_path, document), setup=HERE)
    assert row.setup.load == "constant_rate"
    assert row.measured["ttft_mean_ms"] == 31
    assert row.measured["e2e_p50_ms"] == 470


def test_imported_rows_survive_a_file_and_move_a_prediction(tmp_path: Path) -> None:
    """The whole way: a result file, a table of one's own, another prediction than before."""
    slow = SERVE | {"mean_tpot_ms": 15.0, "median_tpot_ms": 15.0}
    rows = import_results(written(tmp_path, slow), setup=HERE)
    table = tmp_path / "mine.csv"
    write_measurements(rows, table)
    own = read_measurements([table])
    assert own[0].setup == rows[0].setup
    assert own[0].measured == rows[0].measured
    before, after = predict(table), predict(table, own=own)
    assert before.tpot_mean_ms[0] < 9
    assert after.tpot_mean_ms[0] > 1.4 * before.tpot_mean_ms[0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "neither JSON"),
        ("[1, 2]", "JSON object"),
        ('{"a": 1}', "not a result file"),
        ("", "is empty"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        import_results(written(tmp_path, text), setup=HERE)


def test_an_unknown_setup_column_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="gpu"):
        import_results(written(tmp_path, SERVE), setup={"gpu": "H100"})
