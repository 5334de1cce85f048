"""A deployment: one model, in one number format, on one layout of accelerators."""

from __future__ import annotations

from typing import Any, Self

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from advisor.catalog.accelerators import AcceleratorSpec
from advisor.catalog.models import WEIGHT_BYTES, ModelSpec, Precision
from advisor.errors import InputError
from advisor.records import Record


class Speculation(Record):
    """Speculative decoding: a draft proposes tokens, one step of the model checks them all."""

    draft_tokens: PositiveInt
    """Tokens proposed a step."""
    acceptance: float = Field(ge=0, lt=1)
    """Probability that a proposed token is accepted, given that those before it were."""
    draft_layers: NonNegativeInt = 1
    """Layers of the target's shape run for each proposed token: 1 for EAGLE and MTP heads, 0 for
    n-gram look-up."""

    @property
    def tokens_per_step(self) -> float:
        """Tokens a step emits: Σ aⁱ, i = 0…k: (1 − a^{k+1})/(1 − a) (arXiv 2211.17192)."""
        return (1 - self.acceptance ** (self.draft_tokens + 1)) / (1 - self.acceptance)


class Deployment(Record):
    """What runs: one engine, on `tensor_parallel` x `data_parallel` x `pipeline_parallel`
    accelerators.

    With data parallelism each rank schedules requests of its own and holds a copy of the attention
    weights; the experts of a routed model are spread over all ranks of a stage. A pipeline holds
    consecutive layers on each stage and keeps as many batches in flight as it has stages: each of
    those batches passes all stages in turn, and the others use the stages that it has left.
    """

    model: ModelSpec
    accelerator: AcceleratorSpec
    weights_dtype: Precision
    """Format of the quantised linears; embeddings and the LM head stay in 16 bit."""
    kv_dtype: Precision = "bf16"
    """Format of the KV cache; 16 bit unless asked otherwise, as in vLLM."""
    tensor_parallel: PositiveInt = 1
    expert_parallel: PositiveInt = 1
    """Groups that whole experts are dealt to; within a group each expert is cut into slices."""
    data_parallel: PositiveInt = 1
    pipeline_parallel: PositiveInt = 1
    """Stages, each of consecutive layers."""
    speculative: Speculation | None = None

    @model_validator(mode="before")
    @classmethod
    def _sixteen_bit_cache_follows_the_weights(cls, values: Any) -> Any:
        if isinstance(values, dict) and "kv_dtype" not in values:
            weights = values.get("weights_dtype")
            return {**values, "kv_dtype": "fp16" if weights == "fp16" else "bf16"}
        return values

    @model_validator(mode="after")
    def _can_exist(self) -> Self:
        t, model = self.tensor_parallel, self.model
        if t > self.accelerator.max_per_node:
            raise ValueError(
                f"tensor_parallel {t}: at most {self.accelerator.max_per_node} "
                f"{self.accelerator.id} are joined in one node"
            )
        if model.num_heads % t:
            raise ValueError(
                f"tensor_parallel {t} does not divide the {model.num_heads} heads of {model.id}"
            )
        if self.kv_dtype in ("int4", "fp4"):
            raise ValueError(f"kv_dtype {self.kv_dtype}: bf16, fp16, fp8 or int8")
        if model.moe is None and self.expert_parallel > 1:
            raise ValueError(f"expert_parallel {self.expert_parallel}: {model.id} has no experts")
        if model.moe and self.stage_ranks % self.expert_parallel:
            raise ValueError(
                f"expert_parallel {self.expert_parallel} does not divide the "
                f"{self.stage_ranks} ranks of tensor_parallel x data_parallel"
            )
        if model.moe and self.expert_parallel > model.moe.num_experts:
            raise ValueError(
                f"expert_parallel {self.expert_parallel}: {model.id} has "
                f"{model.moe.num_experts} experts"
            )
        if self.pipeline_parallel > model.num_layers:
            raise ValueError(
                f"pipeline_parallel {self.pipeline_parallel}: {model.id} has "
                f"{model.num_layers} layers"
            )
        return self

    @property
    def stage_ranks(self) -> int:
        """Accelerators of one pipeline stage."""
        return self.tensor_parallel * self.data_parallel

    @property
    def ranks(self) -> int:
        """Accelerators in all."""
        return self.stage_ranks * self.pipeline_parallel

    @property
    def expert_dtype(self) -> Precision:
        """Format of the expert weights."""
        model = self.model
        native = (model.published_precision, model.expert_precision)
        if model.expert_precision and self.weights_dtype in (*native, "bf16", "fp16"):
            return model.expert_precision
        return self.weights_dtype

    @property
    def linear_dtype(self) -> Precision:
        """Format of the linears that are not experts.

        A four-bit mixture of experts keeps its attention in 16 bit (gpt-oss, Kimi-K2 and NVIDIA's
        NVFP4 checkpoints quantise the experts alone).
        """
        if self.model.moe and self.weights_dtype in ("int4", "fp4"):
            return "bf16"
        if self.model.expert_precision and self.weights_dtype == self.model.expert_precision:
            return "bf16"
        return self.weights_dtype

    @property
    def kv_element_bytes(self) -> float:
        """Bytes of one cached element."""
        return WEIGHT_BYTES[self.kv_dtype]


def compute_dtype(accelerator: AcceleratorSpec, weights_dtype: Precision) -> Precision:
    """Format in which products with weights of a format are computed on an accelerator.

    Weight-only formats (INT4 everywhere, FP4 or FP8 where the chip has no such units) are expanded
    to 16 bit in registers first (Marlin, arXiv 2408.11743).
    """
    if weights_dtype in ("fp8", "int8", "fp4") and accelerator.computes(weights_dtype):
        return weights_dtype
    return "bf16"


def require_layout(deployment: Deployment, n_accelerators: int) -> None:
    """Raise InputError unless a deployment occupies exactly so many accelerators."""
    if deployment.ranks != n_accelerators:
        raise InputError(
            f"n_accelerators {n_accelerators} contradicts tensor_parallel "
            f"{deployment.tensor_parallel} x data_parallel {deployment.data_parallel}"
        )
