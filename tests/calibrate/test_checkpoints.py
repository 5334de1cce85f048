"""Names of checkpoints that others published again mean a shape that is known."""

import json
from pathlib import Path

import pytest
from calibrate_rows import CATALOG, LOOP, condition
from jsonschema import Draft202012Validator

from advisor.calibrate.checkpoints import model_of
from advisor.catalog.locations import PROFILES
from advisor.catalog.models import ModelSpec
from advisor.catalog.unlisted import unlisted_models
from advisor.documents import read_yaml
from advisor.errors import InputError
from advisor.physics.parameters import parameter_count


@pytest.mark.parametrize(
    ("name", "shape", "weights"),
    [
        ("RedHatAI/Llama-3.3-70B-Instruct-FP8-dynamic", "Llama-3.3-70B-Instruct", "fp8"),
        ("nvidia/Kimi-K2.5-NVFP4", "Kimi-K2.5", "fp4"),
        ("neuralmagic/Meta-Llama-3.1-8B-Instruct-quantized.w4a16", "Llama-3.1-8B-Instruct", "int4"),
        ("Qwen/Qwen3-32B-AWQ", "Qwen3-32B", "int4"),
        ("moonshotai/Kimi-K2-Instruct-0905", "Kimi-K2-Instruct", None),
        ("Qwen/Qwen2.5-7B-Instruct-GPTQ-Int8", "Qwen2.5-7B-Instruct", "int8"),
        ("unsloth/Llama-3.2-1B-Instruct-bnb-4bit", "Llama-3.2-1B-Instruct", "int4"),
        ("amd/Llama-3.3-70B-Instruct-MXFP4-Preview", "Llama-3.3-70B-Instruct", "fp4"),
        ("Qwen/Qwen2.5-32B-Instruct-AWQ", "Qwen2.5-32B", "int4"),
        ("llama2-70b", "Llama-2-70b-hf", None),
        ("mixtral-8x7b", "Mixtral-8x7B-v0.1", None),
        ("/models/Llama-3.1-8B-Instruct/", "Llama-3.1-8B-Instruct", None),
        ("~/hub/models--Qwen--Qwen3-32B-FP8/snapshots/0e9e39f2", "Qwen3-32B", "fp8"),
        ("NousResearch/Hermes-3-Llama-3.1-8B", "Llama-3.1-8B-Instruct", None),
        ("allenai/Llama-3.1-Tulu-3-70B", "Llama-3.1-70B", None),
    ],
)
def test_tuning_storage_and_dates_change_no_shape(
    name: str, shape: str, weights: str | None
) -> None:
    assumed: list[str] = []
    model, told = model_of(name, CATALOG, assumed)
    assert model.id.endswith(shape)
    assert told == weights
    assert assumed == [f"shape of {model.id}"]


def test_a_name_of_the_catalogue_is_itself() -> None:
    assumed: list[str] = []
    model, told = model_of("nvidia/Llama-3.1-8B-Instruct-FP8", CATALOG, assumed)
    assert (model.id, told, assumed) == ("nvidia/Llama-3.1-8B-Instruct-FP8", None, [])


@pytest.mark.parametrize(
    "name",
    [
        "Qwen/Qwen3-7B-FP8",
        "-fp8",
        "nobody/nothing",
        "x.json",
        "yuhuili/EAGLE-LLaMA3.1-Instruct-8B",
        "meta-llama/Llama-3.2-11B-Vision-Instruct",
        "nvidia/Llama-3.1-Minitron-4B-Width-Base",
        "someone/Llama-3.1-8B-merged-12B",
    ],
)
def test_other_shapes_are_not_guessed(name: str) -> None:
    with pytest.raises(InputError):
        model_of(name, CATALOG, [])


def test_the_format_in_a_name_fills_a_blank_and_never_overrides() -> None:
    name = "RedHatAI/Llama-3.3-70B-Instruct-FP8-dynamic"
    blank = condition(LOOP, model=name, weights_dtype="", tensor_parallel="2")
    assert blank.deployment.weights_dtype == "fp8"
    assert "weights_dtype=fp8" in blank.assumed
    stated = condition(LOOP, model=name, weights_dtype="bf16", tensor_parallel="4")
    assert stated.deployment.weights_dtype == "bf16"


UNLISTED = unlisted_models(PROFILES)


@pytest.mark.parametrize("spec", UNLISTED, ids=lambda spec: spec.id)
def test_an_unlisted_shape_gives_the_published_parameter_count(spec: ModelSpec) -> None:
    """Within 1 % of what its maker states."""
    if spec.params_total_published_b:
        total_b = parameter_count(spec).total / 1e9
        assert total_b == pytest.approx(spec.params_total_published_b, rel=0.01)
    assert not spec.considered
    assert spec.source


def test_no_unlisted_model_has_a_name_of_another() -> None:
    """Nor of one in the catalogue, which would hide it."""
    listed = [name for spec in CATALOG.models.values() for name in (spec.id, *spec.aliases)]
    names = [name for spec in UNLISTED for name in (spec.id, *spec.aliases)]
    folded = [name.casefold() for name in (*listed, *names)]
    assert len(folded) == len(set(folded))
    assert all(model_of(name, CATALOG, [])[0].id == spec.id for spec, name in _pairs())


def _pairs() -> list[tuple[ModelSpec, str]]:
    return [(spec, name) for spec in UNLISTED for name in (spec.id, *spec.aliases)]


def test_unlisted_models_are_predicted_for_and_never_recommended() -> None:
    mixtral = condition(LOOP, model="mistralai/Mixtral-8x7B-Instruct-v0.1", tensor_parallel="2")
    assert mixtral.deployment.model.moe is not None
    assert "mistralai/Mixtral-8x7B-v0.1" not in CATALOG.models


@pytest.mark.parametrize("path", sorted((PROFILES / "models" / "unlisted").glob("*.yaml")))
def test_unlisted_files_obey_the_schema_that_they_name(path: Path) -> None:
    first = path.read_text().split("\n", 1)[0]
    schema = path.parent / first.partition("$schema=")[2]
    validator = Draft202012Validator(json.loads(schema.read_text()))
    assert not list(validator.iter_errors(read_yaml(path, what="models")))
