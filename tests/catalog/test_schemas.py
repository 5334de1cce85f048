"""The JSON Schemas that editors use are those of the records, and every shipped file obeys them."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

from advisor.catalog.locations import PROFILES
from advisor.catalog.schemas import FILES, schema_text, write_schemas
from advisor.documents import read_yaml

SHIPPED = {
    "models": sorted((PROFILES / "models").glob("*.yaml")),
    "accelerators": sorted((PROFILES / "accelerators").glob("*.yaml")),
    "prices": sorted((PROFILES / "prices").glob("gpu_*.yaml")),
    "hosted": [PROFILES / "prices" / "hosted.yaml"],
    "evidence": sorted((PROFILES / "evidence").glob("*.yaml")),
    "assumptions": [PROFILES / "assumptions.yaml"],
    "workloads": sorted((PROFILES / "workloads").glob("*.yaml")),
}


@pytest.mark.parametrize("name", FILES)
def test_schemas_are_current(name: str) -> None:
    """If this fails: python -m advisor.catalog.schemas."""
    assert (PROFILES / "schemas" / f"{name}.json").read_text() == schema_text(name)


@pytest.mark.parametrize(
    ("name", "path"),
    [(name, path) for name, paths in SHIPPED.items() for path in paths],
    ids=lambda value: value.name if isinstance(value, Path) else value,
)
def test_every_shipped_file_obeys_its_schema_and_names_it(name: str, path: Path) -> None:
    validator = jsonschema.Draft202012Validator(json.loads(schema_text(name)))
    assert not list(validator.iter_errors(read_yaml(path, what=name)))
    assert path.read_text().startswith("# yaml-language-server: $schema=")
    named = path.read_text().split("\n", 1)[0].partition("$schema=")[2]
    assert (path.parent / named).resolve() == (PROFILES / "schemas" / f"{name}.json").resolve()


def test_schemas_are_written_where_asked(tmp_path: Path) -> None:
    written = write_schemas(tmp_path / "new")
    assert {path.stem for path in written} == set(FILES)
    for path in written:
        jsonschema.Draft202012Validator.check_schema(json.loads(path.read_text()))
