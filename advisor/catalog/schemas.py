"""JSON Schemas of the data files, for editors and for people who add to them.

python -m advisor.catalog.schemas            # writes profiles/schemas/*.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from pydantic import BaseModel

from advisor.catalog.accelerators import AcceleratorFile
from advisor.catalog.assumptions import Assumptions
from advisor.catalog.evidence import EvidenceFile
from advisor.catalog.hosted import HostedFile
from advisor.catalog.locations import PROFILES
from advisor.catalog.models import ModelFile
from advisor.catalog.prices import PriceFile
from advisor.catalog.workloads import WorkloadShape

FILES: dict[str, type[BaseModel]] = {
    "models": ModelFile,
    "accelerators": AcceleratorFile,
    "prices": PriceFile,
    "hosted": HostedFile,
    "evidence": EvidenceFile,
    "assumptions": Assumptions,
    "workloads": WorkloadShape,
}
"""Schema name to the record of such a file."""


def schema_text(name: str) -> str:
    """The JSON Schema (draft 2020-12) of one kind of file."""
    schema = FILES[name].model_json_schema()
    document = {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def write_schemas(folder: Path) -> tuple[Path, ...]:
    """Write every schema into a folder; returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = tuple(folder / f"{name}.json" for name in FILES)
    for path in paths:
        path.write_text(schema_text(path.stem), encoding="utf-8")
    return paths


if __name__ == "__main__":
    for written in write_schemas(PROFILES / "schemas"):
        print(written, file=sys.stderr)
