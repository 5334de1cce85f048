"""The measurement format: what is read, what is refused, and that answers stay out of setups."""

from collections import Counter
from pathlib import Path

import pytest
from calibrate_rows import LOOP, STATIC, measurement

from advisor.calibrate.exclusions import EXCLUSIONS, exclusion_of
from advisor.calibrate.measurements import (
    MEASURED_COLUMNS,
    PUBLIC_TABLE,
    Setup,
    parse_setup,
    read_measurements,
    read_rows,
)
from advisor.errors import InputError


def test_the_public_table_is_complete_and_licensed() -> None:
    rows = read_rows(PUBLIC_TABLE)
    assert len(rows) == 1794
    assert len({row["row_id"] for row in rows}) == 1794
    assert {row["licence"] for row in rows} == {"Apache-2.0", "BSD-3-Clause", "MIT"}
    assert len(read_measurements()) == 1794


def test_every_exclusion_has_rows_and_few_of_them() -> None:
    reasons = Counter(found.reason for row in read_measurements() if (found := exclusion_of(row)))
    assert set(reasons) == {one.reason for one in EXCLUSIONS}
    assert sum(reasons.values()) < 0.08 * 1794


def test_a_setup_holds_nothing_that_was_measured() -> None:
    assert not set(Setup.model_fields) & {*MEASURED_COLUMNS, "source", "caveat", "notes"}


def test_blanks_are_none_and_numbers_may_come_from_a_spreadsheet() -> None:
    setup = parse_setup(
        {**LOOP, "concurrency": "16.0", "kv_dtype": " ", "max_num_seqs": float("nan")}
    )
    assert setup.concurrency == 16
    assert setup.kv_dtype is None
    assert setup.max_num_seqs is None


def test_switches_read_as_words() -> None:
    assert parse_setup({**LOOP, "prefix_caching": "on"}).prefix_caching is True
    assert parse_setup({**LOOP, "chunked_prefill": "off"}).chunked_prefill is False


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"batch_size": "eight"}, "batch_size"),
        ({"input_tokens": ""}, "input_tokens"),
        ({"load": "storm"}, "load"),
        ({"weights_dtype": "fp7"}, "weights_dtype"),
        ({"prefix_caching": "perhaps"}, "prefix_caching"),
    ],
)
def test_a_wrong_cell_is_named(changes: dict[str, str], named: str) -> None:
    with pytest.raises(InputError, match=named):
        parse_setup({**STATIC, **changes})


def test_a_measured_value_must_be_positive() -> None:
    assert measurement(STATIC, tpot_mean_ms="7.5").seconds("tpot_mean") == 0.0075
    assert measurement(STATIC).seconds("tpot_mean") is None
    for wrong in ("-1", "0", "fast"):
        with pytest.raises(InputError, match="tpot_mean_ms"):
            measurement(STATIC, tpot_mean_ms=wrong)


def test_files_that_are_no_tables_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        read_rows(tmp_path / "missing.csv")
    path = tmp_path / "other.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="no column model"):
        read_rows(path)


@pytest.mark.parametrize(
    ("stated", "meant"),
    [
        ("awq_marlin", "int4"),
        ("GPTQ-Int4", "int4"),
        ("compressed-tensors w8a8", "int8"),
        ("w8a8-fp8", "fp8"),
        ("nvfp4", "fp4"),
        ("torch.bfloat16", "bf16"),
    ],
)
def test_formats_go_by_many_names(stated: str, meant: str) -> None:
    assert parse_setup({**LOOP, "weights_dtype": stated}).weights_dtype == meant


def test_a_format_that_nobody_knows_is_refused_by_name() -> None:
    with pytest.raises(InputError, match="ternary"):
        parse_setup({**LOOP, "weights_dtype": "ternary"})


def test_loads_versions_and_switches_are_read_as_people_write_them() -> None:
    setup = parse_setup(
        {**LOOP, "load": "Closed-Loop", "engine_version": "vLLM v0.11.0rc2"}
        | {"prefix_caching": "Yes", "chunked_prefill": "disabled", "tensor_parallel": "0"}
    )
    assert (setup.load, setup.engine_version) == ("closed_loop", "v0.11.0rc2")
    assert (setup.prefix_caching, setup.chunked_prefill) == (True, False)
    assert setup.tensor_parallel == parse_setup({**LOOP, "tensor_parallel": ""}).tensor_parallel


def test_expert_parallel_may_be_vllm_s_switch() -> None:
    layout = {"tensor_parallel": "4", "data_parallel": "2"}
    assert parse_setup({**LOOP, **layout, "expert_parallel": "true"}).expert_parallel == 8
    assert parse_setup({**LOOP, **layout, "expert_parallel": "false"}).expert_parallel == 1
