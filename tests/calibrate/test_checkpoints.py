"""Names of checkpoints that others published again mean a shape that is known."""

import pytest
from calibrate_rows import CATALOG, LOOP, condition

from advisor.calibrate.checkpoints import model_of
from advisor.errors import InputError


@pytest.mark.parametrize(
    ("name", "shape", "weights"),
    [
        ("RedHatAI/Llama-3.3-70B-Instruct-FP8-dynamic", "Llama-3.3-70B-Instruct", "fp8"),
        ("nvidia/Kimi-K2.5-NVFP4", "Kimi-K2.5", "fp4"),
        ("neuralmagic/Meta-Llama-3.1-8B-Instruct-quantized.w4a16", "Llama-3.1-8B-Instruct", "int4"),
        ("Qwen/Qwen3-32B-AWQ", "Qwen3-32B", "int4"),
        ("moonshotai/Kimi-K2-Instruct-0905", "Kimi-K2-Instruct", None),
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


@pytest.mark.parametrize("name", ["Qwen/Qwen3-7B-FP8", "-fp8", "nobody/nothing", "x.json"])
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
