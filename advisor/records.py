"""The base of every record in the package: frozen, and closed to unknown keys."""

from pydantic import BaseModel, ConfigDict


class Record(BaseModel):
    """A value: immutable, compared by content, refusing keys it does not know.

    Attribute docstrings become the descriptions in the JSON Schemas.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
