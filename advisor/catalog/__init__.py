"""Typed, validated access to the data in profiles/."""

from advisor.catalog.accelerators import AcceleratorSpec
from advisor.catalog.assumptions import Adaptation, Assumption, Assumptions, QuantizationEffect
from advisor.catalog.catalog import Catalog, load_catalog
from advisor.catalog.evidence import EvidenceRow
from advisor.catalog.hosted import HostedModel, TokenRates
from advisor.catalog.models import (
    PRECISIONS,
    WEIGHT_BYTES,
    FullAttention,
    LatentAttention,
    MixtureOfExperts,
    ModelSpec,
    Precision,
    SlidingWindow,
)
from advisor.catalog.prices import GpuPrice
from advisor.catalog.workloads import ArrivalShape, LengthShape, WorkloadShape

__all__ = [
    "PRECISIONS",
    "WEIGHT_BYTES",
    "AcceleratorSpec",
    "Adaptation",
    "ArrivalShape",
    "Assumption",
    "Assumptions",
    "Catalog",
    "EvidenceRow",
    "FullAttention",
    "GpuPrice",
    "HostedModel",
    "LatentAttention",
    "LengthShape",
    "MixtureOfExperts",
    "ModelSpec",
    "Precision",
    "QuantizationEffect",
    "SlidingWindow",
    "TokenRates",
    "WorkloadShape",
    "load_catalog",
]
