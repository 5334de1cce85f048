"""The shipped JSON Schemas are those of the records, and accept what the records accept."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from advisor.catalog.locations import PROFILES
from advisor.documents import read_yaml
from advisor.schemas import DOCUMENTS, schema_text, write_schemas

SHIPPED = PROFILES / "schemas"
PROFILE_FILES = sorted((PROFILES / "tasks").glob("*.yaml"))
DATA_FILES = {
    "models": sorted((PROFILES / "models").glob("*.yaml")),
    "accelerators": sorted((PROFILES / "accelerators").glob("*.yaml")),
    "prices": sorted((PROFILES / "prices").glob("gpu_*.yaml")),
    "hosted": [PROFILES / "prices" / "hosted.yaml"],
    "evidence": sorted((PROFILES / "evidence").glob("*.yaml")),
    "assumptions": [PROFILES / "assumptions.yaml"],
    "workloads": sorted((PROFILES / "workloads").glob("*.yaml")),
}


def profile(name: str = "intent-classification") -> dict[str, Any]:
    path = PROFILES / "tasks" / f"{name}.yaml"
    found: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return found


def problems(document: Any, schema: str = "task") -> list[str]:
    validator = Draft202012Validator(json.loads((SHIPPED / f"{schema}.json").read_text()))
    return [error.json_path for error in validator.iter_errors(document)]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_shipped_schemas_are_current(name: str) -> None:
    assert (SHIPPED / f"{name}.json").read_text(encoding="utf-8") == schema_text(name), (
        "run: python -m advisor.schemas"
    )


def test_writing_makes_one_file_a_document(tmp_path: Path) -> None:
    paths = write_schemas(tmp_path / "new")

    assert [path.stem for path in paths] == list(DOCUMENTS)
    assert all(json.loads(path.read_text())["type"] == "object" for path in paths)
    for path in paths:
        Draft202012Validator.check_schema(json.loads(path.read_text()))


@pytest.mark.parametrize(
    ("name", "path"),
    [(name, path) for name, paths in DATA_FILES.items() for path in paths],
    ids=lambda value: value.name if isinstance(value, Path) else value,
)
def test_every_data_file_obeys_its_schema_and_names_it(name: str, path: Path) -> None:
    validator = Draft202012Validator(json.loads(schema_text(name)))
    assert not list(validator.iter_errors(read_yaml(path, what=name)))
    first = path.read_text().split("\n", 1)[0]
    assert first.startswith("# yaml-language-server: $schema=")
    assert (path.parent / first.partition("$schema=")[2]).resolve() == SHIPPED / f"{name}.json"


@pytest.mark.parametrize("path", PROFILE_FILES, ids=lambda path: path.stem)
def test_every_shipped_profile_fits_its_schema(path: Path) -> None:
    assert problems(yaml.safe_load(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [
        ("latency", "p99_ms", 5),
        ("latency", "e2e_p95_ms", "fast"),
        ("traffic", "requests_per_day", -5),
        ("traffic", "output_tokens", 0),
        ("task", "type", "poetry"),
    ],
)
def test_the_schema_refuses_what_the_profile_refuses(part: str, key: str, value: object) -> None:
    document = profile()
    document[part][key] = value

    assert any(path.startswith(f"$.{part}") for path in problems(document))


def test_descriptions_come_from_the_records() -> None:
    schema = json.loads((SHIPPED / "task.json").read_text())
    quality = schema["$defs"]["QualityTarget"]["properties"]

    assert quality["threshold"]["description"] == "Least quality, a fraction from 0 to 1."
