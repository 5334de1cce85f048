"""Names under which others publish a model again: quantised, tuned, dated."""

from __future__ import annotations

import re

from advisor.catalog import Catalog
from advisor.catalog.models import ModelSpec, Precision
from advisor.errors import InputError

FORMATS: dict[str, Precision] = {
    "fp8": "fp8",
    "fp4": "fp4",
    "nvfp4": "fp4",
    "mxfp4": "fp4",
    "w8a8": "int8",
    "int8": "int8",
    "awq": "int4",
    "gptq": "int4",
    "int4": "int4",
    "w4a16": "int4",
    "4bit": "int4",
    "bf16": "bf16",
    "fp16": "fp16",
}
"""Parts of a checkpoint's name that tell the format of its weights."""

_OTHERS = "instruct|chat|it|hf|base|meta|dynamic|kv|quantized|v2|bnb|marlin|block|g128|[0-9]{4}"
_PARTS = re.compile(rf"^({'|'.join(FORMATS)}|{_OTHERS})$")
"""Parts that change no shape: how it was tuned or stored, and dates of releases (`2507`)."""


def model_of(name: str, catalog: Catalog, assumed: list[str]) -> tuple[ModelSpec, Precision | None]:
    """The model that a row's name means, and the weights' format where the name tells it.

    A name that the catalogue does not know is compared without the parts that change no shape
    (`RedHatAI/Llama-3.3-70B-Instruct-FP8-dynamic` has the shape of Llama-3.3-70B-Instruct), and
    what it was taken for goes to `assumed`.

    Raises:
        InputError: of no known shape, or of several.
    """
    try:
        return catalog.model(name), None
    except InputError:
        if name.endswith(".json"):
            raise
        wanted = _core(name)
        alike = [one for one in catalog.models.values() if wanted and wanted == _core(one.id)]
        if len({_shape(one) for one in alike}) != 1:
            raise
    assumed.append(f"shape of {alike[0].id}")
    told = [FORMATS[part] for part in _parts(name) if part in FORMATS]
    return alike[0], told[0] if told else None


def _parts(name: str) -> list[str]:
    return re.split(r"[-_.]+(?![0-9])|[-_]+", name.rsplit("/", 1)[-1].lower())


def _core(name: str) -> str:
    return "-".join(part for part in _parts(name) if not _PARTS.match(part))


def _shape(model: ModelSpec) -> tuple[object, ...]:
    return (
        model.num_layers,
        model.hidden_size,
        model.num_heads,
        model.num_kv_heads,
        model.intermediate_size,
        model.vocab_size,
        model.moe,
    )
