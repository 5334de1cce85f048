"""Names under which others publish a model again: quantised, tuned, dated, kept in a folder."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from pathlib import Path

from advisor.catalog import Catalog
from advisor.catalog.models import ModelSpec, Precision
from advisor.catalog.unlisted import unlisted_models
from advisor.errors import InputError

Core = tuple[str, ...]
"""Parts of a model's name that tell its shape."""

FORMATS: dict[str, Precision] = {
    "fp8": "fp8",
    "fp4": "fp4",
    "nvfp4": "fp4",
    "mxfp4": "fp4",
    "w8a8": "int8",
    "w8a16": "int8",
    "int8": "int8",
    "8bit": "int8",
    "w4a16": "int4",
    "int4": "int4",
    "4bit": "int4",
    "4bits": "int4",
    "bf16": "bf16",
    "fp16": "fp16",
    "awq": "int4",
    "gptq": "int4",
}
"""Parts of a checkpoint's name that tell the format of its weights, the most telling first (GPTQ
makes 8-bit checkpoints too, and says so)."""

_OTHERS = "instruct|chat|it|pt|hf|base|meta|dynamic|kv|quantized|v2|bnb|marlin|block|g128|[0-9]{4}"
_PARTS = re.compile(rf"^({'|'.join(FORMATS)}|{_OTHERS})$")
"""Parts that change no shape: how it was tuned or stored, and dates of releases (`2507`)."""

_SIZE = re.compile(r"^[ae]?([0-9]+x)?[0-9]+(\.[0-9]+)?[bm]$")
"""Parts that tell a number of parameters: `70b`, `8x7b`, `a3b`."""

_VERSION = re.compile(r"^v[0-9]+(\.[0-9]+)*$")

_OTHER_NETWORKS = {"eagle", "eagle3", "medusa", "draft", "speculator", "pruned", "sparse"}
"""Parts of the names of networks that were made for a model, or from it, with another shape."""

_CACHED = re.compile(r"models--([^/]+?)--([^/]+)")
"""A folder of the Hugging Face cache."""


def model_of(name: str, catalog: Catalog, assumed: list[str]) -> tuple[ModelSpec, Precision | None]:
    """The model that a row's name means, and the weights' format where the name tells it.

    A name that the catalogue does not know, `unlisted_models` included, is compared without the
    parts that change no shape (`RedHatAI/Llama-3.3-70B-Instruct-FP8-dynamic` has the shape of
    Llama-3.3-70B-Instruct); then taken for a tuned model whose name holds that of the
    original (`Hermes-3-Llama-3.1-8B`). What it was taken for goes to `assumed`.

    Raises:
        InputError: of no known shape, or of several.
    """
    name = _plain(name)
    try:
        return catalog.known_model(name), None
    except InputError:
        if name.endswith(".json"):
            raise
        known = (*catalog.models.values(), *unlisted_models(catalog.root))
        found = (
            _same_core(_core(name), known, _core)
            or _same_core(_unversioned(name), known, _unversioned)
            or _longest_within(name, known)
        )
        if found is None:
            raise
    assumed.append(f"shape of {found.id}")
    parts = _parts(name)
    return found, next((FORMATS[part] for part in FORMATS if part in parts), None)


def _plain(name: str) -> str:
    """The name without what a path adds to it."""
    cached = _CACHED.search(name)
    if cached:
        return f"{cached[1]}/{cached[2]}"
    stripped = name.strip()
    return stripped if Path(stripped).exists() else stripped.rstrip("/")


def _same_core(
    wanted: Core, known: Sequence[ModelSpec], core_of: Callable[[str], Core]
) -> ModelSpec | None:
    """The model with the same name but for parts that change no shape; None where two differ."""
    alike = [one for one in known if wanted and wanted in _cores(one, core_of)]
    return alike[0] if len({_shape(one) for one in alike}) == 1 else None


def _longest_within(name: str, known: Iterable[ModelSpec]) -> ModelSpec | None:
    """The model whose name, with its size, lies within another: a tuned version of it.

    None where what is left over tells of another size or another network.
    """
    wanted = _core(name)
    best: tuple[int, ModelSpec] | None = None
    for model in known:
        for core in _cores(model, _core):
            if not any(_SIZE.match(part) for part in core) or not _holds(wanted, core):
                continue
            left = [part for part in wanted if part not in core]
            if any(_SIZE.match(part) or part in _OTHER_NETWORKS for part in left):
                continue
            if best is None or len(core) > best[0]:
                best = len(core), model
    return best[1] if best else None


def _holds(whole: Sequence[str], part: Sequence[str]) -> bool:
    """Whether the parts of a name occur in another, in order."""
    rest = iter(whole)
    return all(one in rest for one in part)


def _parts(name: str) -> list[str]:
    last = re.sub(r"(?<=[0-9])_(?=[0-9])", ".", name.rstrip("/").rsplit("/", 1)[-1].lower())
    return re.split(r"[-_.\s]+(?![0-9])|[-_\s]+", last)


def _core(name: str) -> Core:
    """Parts of a name that tell the shape; a version joins what it is of (`llama-3.1`)."""
    core: list[str] = []
    for part in _parts(name):
        if not part or _PARTS.match(part):
            continue
        if core and core[-1].isalpha() and re.match(r"^[0-9]+(\.[0-9]+)?$", part):
            core[-1] += part
        else:
            core.append(part)
    return tuple(core)


def _unversioned(name: str) -> Core:
    """The same without a version of the checkpoint (`mixtral-8x7b`)."""
    return tuple(part for part in _core(name) if not _VERSION.match(part))


@lru_cache(maxsize=2048)
def _cores(model: ModelSpec, core_of: Callable[[str], Core]) -> frozenset[Core]:
    return frozenset(core_of(name) for name in (model.id, *model.aliases)) - {()}


def _shape(model: ModelSpec) -> tuple[object, ...]:
    """What tells two models apart; tables padded a little differently do not."""
    return (
        model.num_layers,
        model.hidden_size,
        model.num_heads,
        model.num_kv_heads,
        model.intermediate_size,
        round(model.vocab_size / 4096),
        model.moe,
    )
