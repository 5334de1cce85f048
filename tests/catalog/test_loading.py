"""Loading is cheap, done once, and says what is wrong with a file."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from advisor.catalog import load_catalog
from advisor.catalog.locations import PROFILES
from advisor.errors import InputError


def test_loading_twice_gives_the_same_catalogue() -> None:
    assert load_catalog() is load_catalog()


def test_dates_for_the_record() -> None:
    catalog = load_catalog()
    assert catalog.as_of == "2026-11-22"
    assert catalog.prices_as_of == "2026-10-03"


def test_nothing_heavy_is_imported_for_it() -> None:
    """A new process that reads models, prices and evidence stays clear of the slow packages."""
    program = (
        "import sys; from advisor.catalog import load_catalog; load_catalog().evidence;"
        "print([name for name in sys.modules if name in "
        "('scipy', 'pandas', 'transformers', 'genai_prices', 'numpy', 'jsonschema')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("file", "old", "new", "complaint"),
    [
        (
            "models/qwen.yaml",
            "num_layers: 28",
            "num_layers: many",
            "models qwen.yaml: models.0.num_",
        ),
        (
            "models/qwen.yaml",
            "variant_of: Qwen/Qwen3-235B-A22B",
            "variant_of: Qwen/Q",
            "which no file",
        ),
        (
            "models/phi.yaml",
            "id: microsoft/phi-4",
            "id: Qwen/Qwen3-8B",
            "'Qwen/Qwen3-8B' is given twi",
        ),
        ("accelerators/others.yaml", "mem_bw_gbps", "bandwidth", "accelerators others.yaml: "),
        (
            "prices/gpu_hours.yaml",
            "usd_per_hour: 2.69",
            "usd_per_hour: -1",
            "prices gpu_hours.yaml",
        ),
        ("assumptions.yaml", "low: 0.001", "low: 9", "low <= value <= high is needed"),
        (
            "evidence/sql.yaml",
            "scale: rouge",
            "scale: vibes",
            "evidence sql.yaml: studies.0.datasets",
        ),
        ("workloads/azure-code-2023.yaml", "requests:", "rows:", "workloads azure-code-2023.yaml"),
    ],
)
def test_a_wrong_file_is_named_with_its_field(
    tmp_path: Path, file: str, old: str, new: str, complaint: str
) -> None:
    folder = tmp_path / "profiles"
    shutil.copytree(PROFILES, folder)
    text = (folder / file).read_text()
    assert old in text
    (folder / file).write_text(text.replace(old, new, 1))
    with pytest.raises(InputError) as error:
        catalog = load_catalog(folder)
        assert catalog.evidence and catalog.workloads
    assert complaint in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_part_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "profiles"
    shutil.copytree(PROFILES, folder)
    (folder / "assumptions.yaml").unlink()
    with pytest.raises(InputError, match="assumptions: no file"):
        load_catalog(folder)


def test_models_of_which_only_the_shape_is_known_are_predicted_for_and_not_recommended() -> None:
    catalog = load_catalog()
    assert catalog.known_model("Llama-13B").id == "huggyllama/llama-13b"
    assert catalog.known_accelerator("gh200").id == "GH200"
    with pytest.raises(InputError, match="only its shape is known"):
        catalog.model("huggyllama/llama-13b")
    with pytest.raises(InputError, match="not in the catalogue"):
        catalog.known_model("nobody/no-such-model")


def test_what_the_catalogue_lists_comes_from_the_catalogue() -> None:
    catalog = load_catalog()
    for name, spec in catalog.models.items():
        assert catalog.known_model(name) is catalog.model(name) is spec
