"""Dates in the data files: text, whether or not the YAML has quotes around them."""

from __future__ import annotations

import datetime as dt
from typing import Annotated

from pydantic import BeforeValidator, Field


def _as_text(value: object) -> object:
    return value.isoformat() if isinstance(value, dt.date) else value


Day = Annotated[str, BeforeValidator(_as_text), Field(pattern=r"^\d{4}-\d{2}-\d{2}$")]
"""A day as YYYY-MM-DD; YAML reads an unquoted one as a date, which is taken as well."""
