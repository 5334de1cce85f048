"""Traces in the columns that public ones have."""

from __future__ import annotations

from pathlib import Path

import pytest

from advisor.errors import InputError
from advisor.serving.traces import read_trace

AZURE = """\
TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:17:03.9799600,4808,10
2023-11-16 18:17:04.0319600,3180,8
2023-11-16 18:17:04.0000000,110,27
"""


OWN = """\
{"arrival_s": 5, "input_tokens": 9, "output_tokens": 4}

{"arrival_s": 7.5, "input_tokens": 8, "output_tokens": 3}
"""

MOONCAKE = """\
{"timestamp": 5000, "input_length": 9, "output_length": 4}
{"timestamp": 7500, "input_length": 8, "output_length": 3}
"""

ZONED = """\
time,prompt_tokens,completion_tokens
2024-01-01T00:00:05.000Z,9,4
2024-01-01T01:00:07.500+01:00,8,3
"""


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_azure_columns_and_times(tmp_path: Path) -> None:
    """Seven digits of a second; the rows out of order."""
    trace = read_trace(write(tmp_path, "azure.csv", AZURE))
    assert trace.arrival_s == pytest.approx([0, 0.02004, 0.052], abs=1e-6)
    assert trace.input_tokens.tolist() == [4808, 110, 3180]
    assert trace.output_tokens.tolist() == [10, 27, 8]
    assert trace.cached_tokens.tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("burst.csv", "Timestamp,Model,Request tokens,Response tokens\n5,a,9,4\n7.5,b,8,3\n"),
        ("vidur.csv", "arrived_at,num_prefill_tokens,num_decode_tokens\n5,9,4\n7.5,8,3\n"),
        ("own.jsonl", OWN),
        ("mooncake.jsonl", MOONCAKE),
        ("zoned.csv", ZONED),
    ],
)
def test_columns_of_other_traces(tmp_path: Path, name: str, text: str) -> None:
    trace = read_trace(write(tmp_path, name, text))
    assert trace.arrival_s.tolist() == [0, 2.5]
    assert trace.input_tokens.tolist() == [9, 8]
    assert trace.output_tokens.tolist() == [4, 3]


def test_failed_requests_are_left_out_and_shared_beginnings_hit(tmp_path: Path) -> None:
    text = "time,input_tokens,output_tokens\n0,50,1\n1,50,0\n2,50,7\n"
    trace = read_trace(write(tmp_path, "t.csv", text), shared_prefix_tokens=40)
    assert trace.output_tokens.tolist() == [1, 7]
    assert trace.cached_tokens.tolist() == [0, 32]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "time,input_tokens\n0,1\n", "no column output_tokens"),
        ("a.csv", "when,input_tokens,output_tokens\n0,1,1\n", "no column arrival_s"),
        ("a.csv", "time,input_tokens,output_tokens\nsoon,1,1\n", "row 1: time = 'soon'"),
        ("a.csv", "time,input_tokens,output_tokens\n0,-4,1\n", "row 1: input_tokens = '-4'"),
        ("a.csv", "time,input_tokens,output_tokens\n0,1\n", "row 1: output_tokens = None"),
        ("a.csv", "time,input_tokens,output_tokens\n", "no requests"),
        ("a.csv", "", "no requests"),
        ("a.jsonl", "{\n", "line 1: not JSON"),
        ("a.jsonl", "[1]\n", "line 1: an object"),
        ("a.jsonl", '{"time": 0, "input_tokens": [], "output_tokens": 1}', "input_tokens = []"),
    ],
)
def test_bad_traces_name_what_is_wrong(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        read_trace(write(tmp_path, name, text))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_and_binary_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no file"):
        read_trace(tmp_path / "none.csv")
    binary = tmp_path / "b.csv"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="cannot be read"):
        read_trace(binary)
    with pytest.raises(InputError, match="cannot be read"):
        read_trace(tmp_path)
