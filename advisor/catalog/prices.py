"""What a GPU-hour costs, by provider and date, as in profiles/prices/."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, NonNegativeFloat

from advisor.catalog.dates import Day
from advisor.records import Record

PriceKind = Literal["cloud", "marketplace"]
"""`marketplace`: a private host's ask, volatile, without a service agreement; never a default."""

MARKETPLACES: frozenset[str] = frozenset({"vast"})
"""Providers whose prices are private hosts' asks."""


class GpuPrice(Record):
    """One provider's on-demand list price of one accelerator for an hour."""

    accelerator: str
    """Accelerator id."""
    provider: str
    kind: PriceKind = "cloud"
    usd_per_hour: NonNegativeFloat
    """USD an hour for one accelerator."""
    as_of: Day
    """Date on which the price was listed (YYYY-MM-DD)."""
    source: str
    note: str = ""


class PriceFile(Record):
    """One file of GPU-hour prices: they share a date and a source unless a row says else."""

    as_of: Day
    source: str
    prices: tuple[PriceRow, ...] = Field(min_length=1)

    def rows(self) -> tuple[GpuPrice, ...]:
        """The prices, each with its date and source."""
        return tuple(
            GpuPrice(
                accelerator=row.accelerator,
                provider=row.provider,
                kind=row.kind,
                usd_per_hour=row.usd_per_hour,
                as_of=row.as_of or self.as_of,
                source=row.source or self.source,
                note=row.note,
            )
            for row in self.prices
        )


class PriceRow(Record):
    """One price in a file."""

    accelerator: str
    """Accelerator id."""
    provider: str
    kind: PriceKind = "cloud"
    usd_per_hour: NonNegativeFloat
    """USD an hour for one accelerator."""
    as_of: Day | None = None
    """Date, where it differs from the file's (YYYY-MM-DD)."""
    source: str | None = None
    """Source, where it differs from the file's."""
    note: str = ""


PriceFile.model_rebuild()
