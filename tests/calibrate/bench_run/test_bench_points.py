"""Points on disk: whole lines, at once, and found again."""

import errno
import os
from pathlib import Path

import pytest
from bench_points import FACTS, MACHINE, point, shape

from advisor.calibrate.bench.points import PointFile, read_points
from advisor.errors import InputError


def test_a_point_is_on_disk_when_append_returns(tmp_path: Path) -> None:
    path = tmp_path / "points.jsonl"
    store = PointFile(path)
    store.append(point(shape("decode", 1, 64)))

    assert path.read_text(encoding="utf-8").count("\n") == 1
    assert read_points(path) == store.points


def test_points_of_another_engine_do_not_count(tmp_path: Path) -> None:
    store = PointFile(tmp_path / "points.jsonl")
    store.append(point(shape("decode", 1, 64)))
    busier = FACTS.model_copy(update={"machine": MACHINE.model_copy(update={"load_average": 9.0})})
    newer = FACTS.model_copy(update={"vllm_version": "0.33.0"})

    assert store.has(shape("decode", 1, 64), FACTS)
    assert store.has(shape("decode", 1, 64), busier), "the machine's state is not its identity"
    assert not store.has(shape("decode", 1, 64), newer)
    assert not store.has(shape("decode", 2, 64), FACTS)


def test_a_line_cut_off_by_an_interruption_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "points.jsonl"
    PointFile(path).append(point(shape("decode", 1, 64)))
    with path.open("a", encoding="utf-8") as file:
        file.write('{"shape": {"kind": "dec')

    store = PointFile(path)
    store.append(point(shape("prefill", prompt=32)))

    assert [one.shape.kind for one in read_points(path)] == ["decode", "prefill"]


def test_a_full_disk_is_one_line_and_keeps_what_was_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "points.jsonl"
    store = PointFile(path)
    store.append(point(shape("decode", 1, 64)))
    before = path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        InputError, match=r"No space left on device; its 1 measured points are kept"
    ):
        store.append(point(shape("decode", 2, 64)))

    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"latency": 3}\n', "line 1 of .* is not a point"),
        ("", "holds no point"),
    ],
)
def test_a_file_of_something_else_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "points.jsonl"
    path.write_text(text, encoding="utf-8")

    with pytest.raises(InputError, match=message):
        read_points(path)


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")

    with pytest.raises(InputError, match="cannot be written"):
        PointFile(tmp_path / "file" / "points.jsonl")


def test_no_empty_file_stays_where_nothing_was_measured(tmp_path: Path) -> None:
    store = PointFile(tmp_path / "new" / "run.jsonl")

    assert len(store) == 0
    assert not store.path.exists()
