"""The task profile: what it accepts, what it refuses and in which words."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor.catalog.locations import PROFILES
from advisor.errors import InputError
from advisor.task import TaskProfile

TASKS = sorted((PROFILES / "tasks").glob("*.yaml"))

MINIMAL = """
name: Minimal
task: {type: classification, output: label, labels: [yes, no, maybe]}
quality: {metric: accuracy, threshold: 0.9}
traffic: {requests_per_day: 86400, input_tokens: 100, output_tokens: {mean: 4, p95: 8}}
"""


def minimal(**overrides: object) -> TaskProfile:
    return TaskProfile.from_yaml(MINIMAL.replace("yes, no", "'yes', 'no'")).with_values(overrides)


@pytest.mark.parametrize("path", TASKS, ids=lambda path: path.stem)
def test_shipped_profiles_read_back_equal(path: Path) -> None:
    profile = TaskProfile.load(path)
    assert TaskProfile.from_mapping(profile.to_mapping()) == profile


def test_eight_example_profiles_ship() -> None:
    assert len([path for path in TASKS if not path.stem.startswith("sandbox")]) == 8


def test_rates_of_a_day() -> None:
    profile = minimal(**{"traffic.peak_to_mean": 3})
    assert profile.traffic.mean_rate_per_s == 1.0
    assert profile.traffic.peak_rate_per_s == 3.0
    assert profile.traffic.requests_per_month == pytest.approx(86_400 * 730.5 / 24)


def test_hourly_rates_are_relative() -> None:
    day = [0.0] * 23 + [5.0]
    profile = minimal(**{"traffic.hourly_rates": day})
    assert profile.traffic.peak_rate_per_s == pytest.approx(24.0)


@given(st.lists(st.floats(0, 1e6), min_size=24, max_size=24).filter(lambda day: sum(day) > 1e-3))
def test_the_peak_is_at_least_the_mean(day: list[float]) -> None:
    traffic = minimal(**{"traffic.hourly_rates": day}).traffic
    assert traffic.peak_rate_per_s >= traffic.mean_rate_per_s * (1 - 1e-12)


def test_samples_are_read_beside_the_profile(tmp_path: Path) -> None:
    (tmp_path / "lengths.txt").write_text("10\n20\n30\n")
    path = tmp_path / "task.yaml"
    path.write_text(
        MINIMAL.replace("yes, no", "'yes', 'no'").replace(
            "input_tokens: 100", "input_tokens: {samples: lengths.txt}"
        )
    )
    profile = TaskProfile.load(path)
    assert profile.traffic.input_tokens.values == (10, 20, 30)
    assert profile.traffic.input_tokens.mean_tokens == 20
    assert TaskProfile.from_mapping(profile.to_mapping()) == profile


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("quality.threshold", 95, "write 0.95"),
        ("quality.threshold", -0.1, "fraction from 0 to 1"),
        ("latency.e2e_p95_ms", "fast", "valid number"),
        ("latency.e2e_p95_ms", 0, "greater than 0"),
        ("traffic.requests_per_day", -5, "greater than 0"),
        ("traffic.requests_per_day", float("nan"), "finite number"),
        ("traffic.input_tokens", {"mean": 100, "p95": 20}, "between the mean"),
        ("traffic.shared_prefix_tokens", 200, "exceeds the mean"),
        ("traffic.hourly_rates", [1, 2], "24"),
        ("task.type", "poetry", "classification"),
        ("task.schema", {"$ref": "https://example.org/s.json"}, "remote reference"),
        ("task.schema", {"items": [{"$ref": "file:///etc/passwd"}]}, "remote reference"),
        ("constraints.data_residency", "moon", "air_gapped"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_accepted(
    field: str, value: object, words: str
) -> None:
    with pytest.raises(InputError) as error:
        minimal(**{field: value})
    message = str(error.value)
    assert field.split(".")[1].split("_")[0] in message
    assert words in message
    assert "\n" not in message


def test_an_unknown_key_is_named_with_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"unknown key 'latency\.p95'; accepted: ttft_p95_ms"):
        minimal(**{"latency.p95": 80})


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"  \n", "is empty"),
        (b"\xff\xfe\x00", "not UTF-8"),
        (b"[1, 2]", "a mapping of keys"),
        (b"a: [1", "not valid YAML"),
        (b"name: a\nname: b", "given twice"),
        (b"!!python/object/apply:os.system ['true']", "not valid YAML"),
        (b"{" * 5000, "nested"),
        (b"[" * 100_000, "nested"),
        (b"x" * 50_000_000, "at most"),
    ],
    ids=["empty", "blank", "binary", "list", "syntax", "twice", "code", "deep", "deeper", "large"],
)
def test_hostile_files_get_one_line(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "task.yaml"
    path.write_bytes(content)
    with pytest.raises(InputError) as error:
        TaskProfile.load(path)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_a_yaml_bomb_is_refused(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 20)]
    path = tmp_path / "bomb.yaml"
    path.write_text("\n".join(lines))
    with pytest.raises(InputError, match="aliases"):
        TaskProfile.load(path)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no file"):
        TaskProfile.load(tmp_path / "none.yaml")
    with pytest.raises(InputError, match="is a folder"):
        TaskProfile.load(tmp_path)
