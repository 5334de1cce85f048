"""Names that benchmarks give accelerators mean one that is known."""

import json
from pathlib import Path

import pytest
from calibrate_rows import CATALOG, STATIC, condition
from jsonschema import Draft202012Validator

from advisor.calibrate.machines import accelerator_of
from advisor.catalog.locations import PROFILES
from advisor.catalog.unlisted import unlisted_accelerators
from advisor.documents import read_yaml
from advisor.errors import InputError

UNLISTED = unlisted_accelerators(PROFILES)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("H100", "H100-SXM"),
        ("NVIDIA H100 NVL 94GB", "H100-NVL"),
        ("H100-SXM5-80GB", "H100-SXM"),
        ("8xH100", "H100-SXM"),
        ("A100", "A100-80GB-SXM"),
        ("A100-SXM4-40GB", "A100-40GB-SXM"),
        ("A100-PCIe-80GB", "A100-80GB-PCIe"),
        ("A100-PCIE-40GB", "A100-40GB-PCIe"),
        ("H200-SXM-141GB", "H200-SXM"),
        ("GB200-NVL72", "GB200-per-GPU"),
        ("RTX4090", "RTX-4090"),
        ("RTX 6000 Ada Generation", "RTX-6000-Ada"),
        ("RTX PRO 6000 Blackwell", "RTX-PRO-6000-Blackwell-Server"),
        ("V100-16GB", "V100-16GB-SXM"),
        ("AMD MI300X OAM", "MI300X"),
    ],
)
def test_words_memory_and_count_tell_which(name: str, meant: str) -> None:
    assumed: list[str] = []
    assert accelerator_of(name, CATALOG, assumed).id == meant
    assert assumed == [f"accelerator={meant}"]


@pytest.mark.parametrize("name", ["H100-SXM", "h200", "NVIDIA A10", "GH200-480GB", "T4"])
def test_a_known_name_is_not_an_assumption(name: str) -> None:
    assumed: list[str] = []
    accelerator_of(name, CATALOG, assumed)
    assert assumed == []


@pytest.mark.parametrize("name", ["A100-20GB", "H300", "NVIDIA", "8x", "Abacus"])
def test_other_machines_are_not_guessed(name: str) -> None:
    with pytest.raises(InputError):
        accelerator_of(name, CATALOG, [])


def test_unlisted_accelerators_answer_to_names_of_their_own() -> None:
    listed = [name for one in CATALOG.accelerators.values() for name in (one.id, *one.aliases)]
    names = [name for one in UNLISTED for name in (one.id, *one.aliases)]
    folded = [name.casefold() for name in (*listed, *names)]
    assert len(folded) == len(set(folded))
    for one in UNLISTED:
        assert all(
            accelerator_of(name, CATALOG, []).id == one.id for name in (one.id, *one.aliases)
        )
        assert one.id not in CATALOG.accelerators
        assert one.source


def test_a_row_says_which_part_it_was_taken_for() -> None:
    assert "accelerator=A100-80GB-SXM" in condition(STATIC, accelerator="A100").assumed


@pytest.mark.parametrize("path", sorted((PROFILES / "accelerators" / "unlisted").glob("*.yaml")))
def test_unlisted_files_obey_the_schema_that_they_name(path: Path) -> None:
    first = path.read_text().split("\n", 1)[0]
    schema = path.parent / first.partition("$schema=")[2]
    validator = Draft202012Validator(json.loads(schema.read_text()))
    assert not list(validator.iter_errors(read_yaml(path, what="accelerators")))
