"""The catalogue's models: which names they answer to, and whether their shapes can be true."""

from __future__ import annotations

from pathlib import Path

import pytest

from advisor.catalog import Catalog, ModelSpec, load_catalog
from advisor.catalog.models import ModelFile
from advisor.documents import parse_yaml, validate
from advisor.errors import InputError
from advisor.physics.parameters import parameter_count

CATALOG = load_catalog()

MEASURED_MODELS = (
    "BAAI/Aquila-7B",
    "Deci/DeciLM-7B",
    "EleutherAI/gpt-j-6b",
    "MiniMaxAI/MiniMax-M2.5",
    "Qwen/Qwen1.5-7B",
    "Qwen/Qwen3-235B-A22B-FP8",
    "Qwen/Qwen3-32B",
    "bigscience/bloom-7b1",
    "facebook/opt-6.7b",
    "huggyllama/llama-7b",
    "meta-llama/Llama-2-70b-hf",
    "meta-llama/Llama-2-7b-hf",
    "meta-llama/Llama-3.1-70B",
    "meta-llama/Llama-3.1-8B",
    "meta-llama/Llama-3.1-8B-Instruct",
    "meta-llama/Meta-Llama-3-70B",
    "meta-llama/Meta-Llama-3-8B",
    "mistralai/Mistral-7B-v0.1",
    "moonshotai/Kimi-K2.5",
    "nvidia/Llama-3.1-8B-Instruct-FP8",
    "openai/gpt-oss-120b",
)


@pytest.mark.parametrize("name", MEASURED_MODELS)
def test_every_model_with_measurements_resolves(name: str) -> None:
    spec = CATALOG.model(name)
    assert name in (spec.id, *spec.aliases)


def test_fifty_seven_models_and_no_name_twice() -> None:
    names = [name for spec in CATALOG.models.values() for name in (spec.id, *spec.aliases)]
    assert len(names) == len({name.casefold() for name in names})
    assert len(CATALOG.models) == 56  # and Llama-3.1-8B-Instruct under its two names
    assert {CATALOG.model(name).id for name in names} == set(CATALOG.models)


@pytest.mark.parametrize(
    "spec",
    [spec for spec in CATALOG.models.values() if spec.params_total_published_b],
    ids=lambda spec: spec.id,
)
def test_shape_gives_the_published_parameter_count(spec: ModelSpec) -> None:
    """Within 1 %, or the entry says why not."""
    assert spec.params_total_published_b is not None
    error = parameter_count(spec).total / 1e9 / spec.params_total_published_b - 1
    assert (abs(error) <= 0.01) == (spec.count_exception == ""), f"{error:+.2%}"


def test_hand_counted_llama_8b() -> None:
    """Each term by hand: 32 layers of 218.1 M, and 2 x 525.3 M of embedding and head."""
    spec = CATALOG.model("meta-llama/Llama-3.1-8B")
    attention = 2 * 4096 * 32 * 128 + 2 * 4096 * 8 * 128
    feed_forward = 3 * 4096 * 14336
    norms = 32 * 2 * 4096 + 4096
    total = 32 * (attention + feed_forward) + 2 * 128256 * 4096 + norms
    assert total == 8_030_261_248  # as the checkpoint has it
    assert parameter_count(spec).total == total


def test_a_quantised_checkpoint_has_the_shape_of_its_original() -> None:
    original = CATALOG.model("meta-llama/Meta-Llama-3.1-8B-Instruct")
    variant = CATALOG.model("nvidia/Llama-3.1-8B-Instruct-FP8")
    assert variant.variant_of == original.id
    assert (original.published_precision, variant.published_precision) == ("bf16", "fp8")
    differing = {name for name, value in variant if value != getattr(original, name)}
    assert differing == {
        *("id", "aliases", "published_precision", "variant_of", "considered", "source")
    }


def test_formats_that_experts_are_published_in() -> None:
    assert CATALOG.model("openai/gpt-oss-120b").expert_precision == "fp4"
    assert CATALOG.model("moonshotai/Kimi-K2.5").expert_precision == "int4"
    assert CATALOG.model("deepseek-ai/DeepSeek-V3").published_precision == "fp8"


def test_default_tiers_follow_size() -> None:
    """The largest small model is smaller than the smallest large one."""
    sizes = {"slm": 0.0, "llm": float("inf")}
    for spec in CATALOG.models.values():
        total = parameter_count(spec).total
        sizes["slm"] = max(sizes["slm"], total) if spec.role == "slm" else sizes["slm"]
        sizes["llm"] = min(sizes["llm"], total) if spec.role == "llm" else sizes["llm"]
    assert sizes["slm"] < sizes["llm"]


def test_models_considered_unasked_may_be_used_and_follow_instructions() -> None:
    considered = [spec for spec in CATALOG.models.values() if spec.considered]
    assert len(considered) > 30
    assert all("base model" not in spec.note for spec in considered)


@pytest.mark.parametrize("name", ["Qwen/Qwen3-8B", "qwen/qwen3-8b", "qwen3-8b", " Qwen3-8B "])
def test_names_by_id_and_by_last_part_in_any_case(name: str) -> None:
    assert CATALOG.model(name).id == "Qwen/Qwen3-8B"


def test_an_unknown_model_names_its_neighbours_and_the_way_out() -> None:
    with pytest.raises(InputError) as error:
        CATALOG.model("Qwen/Qwen3-9B")
    assert str(error.value) == (
        "model 'Qwen/Qwen3-9B' is not in the catalogue; did you mean Qwen/Qwen3-8B, "
        "Qwen/Qwen3-4B, Qwen/Qwen3-32B, or a path to its config.json?"
    )


def test_a_name_that_can_mean_two_models_lists_them() -> None:
    with pytest.raises(InputError, match="can mean google/gemma-3-1b-it, google/gemma-3-4b-it"):
        CATALOG.model("gemma-3")


def test_a_users_model_joins_the_catalogue_or_replaces_an_entry() -> None:
    mine = CATALOG.model("qwen3-8b").model_copy(update={"id": "me/mine", "aliases": ()})
    shorter = CATALOG.model("qwen3-8b").model_copy(update={"context_window": 8192})
    grown: Catalog = CATALOG.including(models=[mine, shorter])
    assert grown.model("mine") == mine
    assert grown.model("qwen3-8b").context_window == 8192
    assert len(grown.models) == len(CATALOG.models) + 1
    assert CATALOG.model("qwen3-8b").context_window == 40960


TINY = """
models:
  - {id: a/b, family: f, role: slm, num_layers: 2, hidden_size: 8, num_heads: 2, num_kv_heads: 1,
     head_dim: 4, intermediate_size: 16, vocab_size: 10, context_window: 32, license: MIT,
     source: test, as_of: "2026-01-01"}
"""


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (("num_layers: 2", "num_layers: -2"), "models.0.num_layers = -2"),
        (("num_kv_heads: 1", "num_kv_heads: 3"), "num_kv_heads must be at most num_heads"),
        (("license: MIT", "licence: MIT"), "'models.0.license' is missing"),
        (("vocab_size: 10", "vocab_size: ten"), "models.0.vocab_size = 'ten'"),
        (
            ("context_window", "sliding_window: {size: 4, num_sliding_layers: 3}, context_window"),
            "num_sliding_layers must be at most num_layers",
        ),
    ],
)
def test_a_wrong_entry_is_refused_with_its_field(change: tuple[str, str], complaint: str) -> None:
    validate(ModelFile, parse_yaml(TINY, what="models"), what="models")
    with pytest.raises(InputError, match=complaint):
        validate(ModelFile, parse_yaml(TINY.replace(*change), what="models"), what="models")


def test_an_empty_catalogue_folder_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"models: no \*\.yaml in"):
        load_catalog(tmp_path)
