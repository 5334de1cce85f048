"""Reading pairs from CSV."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from advisor.errors import InputError
from advisor.quality.pairs import read_pairs


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "pairs.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_columns_in_any_order_and_words_for_right_and_wrong(tmp_path: Path) -> None:
    pairs = read_pairs(
        written(
            tmp_path,
            "\ufeffllm_correct,Confidence,note,slm_correct,gate_passed\n"
            "true,0.5,x,no,1\n"
            "\n"
            "1,,y,yes,0\n",
        )
    )
    assert pairs.llm_correct.tolist() == [1, 1]
    assert pairs.slm_correct.tolist() == [0, 1]
    assert pairs.gate_passed.tolist() == [1, 0]
    assert pairs.confidence[0] == 0.5 and math.isnan(pairs.confidence[1])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("confidence,slm_correct\n", "column 'llm_correct' is missing"),
        ("confidence,slm_correct,llm_correct\n", "a header but no rows"),
        ("confidence,slm_correct,llm_correct\n.5,1\n", "line 2: too few columns"),
        (
            "confidence,slm_correct,llm_correct\n.5,1,1\n.5,maybe,1\n",
            "line 3: slm_correct = 'maybe'",
        ),
        ("confidence,slm_correct,llm_correct\n.5,,1\n", "line 2: slm_correct is missing"),
    ],
)
def test_bad_files_are_one_clear_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        read_pairs(written(tmp_path, text))
    assert message in str(caught.value)


def test_no_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no file"):
        read_pairs(tmp_path / "none.csv")
    with pytest.raises(InputError, match="folder"):
        read_pairs(tmp_path)
