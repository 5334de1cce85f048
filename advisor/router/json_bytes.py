"""JSON as bytes: what goes over the wire, several times quicker than by the standard library."""

from __future__ import annotations

import json
from typing import Any

import orjson


def decoded(raw: bytes | str) -> Any:
    """What strict JSON (RFC 8259, UTF-8) says.

    Raises:
        ValueError: it is none: NaN, half of a surrogate pair, more than 1,024 levels.
    """
    return orjson.loads(raw)


def decoded_leniently(raw: bytes) -> Any:
    """The same of an upstream that may say NaN or cut an emoji in two.

    Raises:
        ValueError: not JSON even so.
    """
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        pass
    try:
        return json.loads(raw)
    except RecursionError:
        raise ValueError("too many levels") from None


def encoded(value: Any, *, sort_keys: bool = False) -> bytes:
    """Compact JSON; what no JSON can say (NaN) becomes null."""
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS if sort_keys else None)
    except orjson.JSONEncodeError:
        # Half of a surrogate pair, more than 64 bits, more than 254 levels.
        return json.dumps(value, separators=(",", ":"), sort_keys=sort_keys).encode()
