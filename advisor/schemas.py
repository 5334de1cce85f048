"""JSON Schemas of the data files and of what goes in and comes out, for editors and programmes.

python -m advisor.schemas            # writes profiles/schemas/*.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode

from advisor.catalog.accelerators import AcceleratorFile
from advisor.catalog.assumptions import Assumptions
from advisor.catalog.evidence import EvidenceFile
from advisor.catalog.hosted import HostedFile
from advisor.catalog.locations import PROFILES
from advisor.catalog.models import ModelFile
from advisor.catalog.prices import PriceFile
from advisor.catalog.workloads import WorkloadShape
from advisor.decide.recommendation import Recommendation
from advisor.router.config import RouterConfig
from advisor.task import TaskProfile

DOCUMENTS: dict[str, tuple[type[BaseModel], JsonSchemaMode]] = {
    "models": (ModelFile, "validation"),
    "accelerators": (AcceleratorFile, "validation"),
    "prices": (PriceFile, "validation"),
    "hosted": (HostedFile, "validation"),
    "evidence": (EvidenceFile, "validation"),
    "assumptions": (Assumptions, "validation"),
    "workloads": (WorkloadShape, "validation"),
    "task": (TaskProfile, "validation"),
    "router": (RouterConfig, "validation"),
    "recommendation": (Recommendation, "serialization"),
}
"""Schema name to the record, and whether it is read or written."""


def schema_text(name: str) -> str:
    """The JSON Schema (draft 2020-12) of one kind of document."""
    record, mode = DOCUMENTS[name]
    schema = record.model_json_schema(mode=mode)
    if record is TaskProfile:
        _admit_plain_numbers(schema["$defs"]["Traffic"]["properties"])
    document = {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _admit_plain_numbers(traffic: dict[str, Any]) -> None:
    """Token counts may be one number, which the record reads as a mean."""
    for field in ("input_tokens", "output_tokens"):
        traffic[field] = {"anyOf": [{"type": "number", "exclusiveMinimum": 0}, traffic[field]]}


def write_schemas(folder: Path) -> tuple[Path, ...]:
    """Write every schema into a folder; returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = tuple(folder / f"{name}.json" for name in DOCUMENTS)
    for path in paths:
        path.write_text(schema_text(path.stem), encoding="utf-8")
    return paths


if __name__ == "__main__":
    for written in write_schemas(PROFILES / "schemas"):
        print(written, file=sys.stderr)
