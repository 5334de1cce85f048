"""Regular expressions from users, under a time limit."""

from __future__ import annotations

from collections.abc import Callable

import regex

from advisor.errors import InputError

MATCH_TIMEOUT_S = 0.05
"""Time one match may take; (a+)+$ against thirty letters would take minutes."""

MAX_PATTERN_CHARACTERS = 1000


class PatternTimeoutError(ValueError):
    """A match that was given up."""


def compile_pattern(pattern: str) -> regex.Pattern[str]:
    """A compiled pattern.

    Raises:
        InputError: too long, or not a regular expression.
    """
    if len(pattern) > MAX_PATTERN_CHARACTERS:
        raise InputError(f"pattern: more than {MAX_PATTERN_CHARACTERS:,} characters")
    try:
        return regex.compile(pattern)
    except (regex.error, RecursionError, OverflowError) as error:
        raise InputError(f"pattern '{pattern[:60]}': {error}") from None


def full_match(pattern: str, text: str) -> bool:
    """Whether the whole text matches.

    Raises:
        InputError: not a regular expression.
        PatternTimeoutError: the match took too long.
    """
    return _timed(compile_pattern(pattern).fullmatch, pattern, text)


def found_in(pattern: str, text: str) -> bool:
    """Whether the pattern occurs in the text, as JSON Schema's `pattern` asks."""
    return _timed(compile_pattern(pattern).search, pattern, text)


def _timed(method: Callable[..., object], pattern: str, text: str) -> bool:
    try:
        return method(text, timeout=MATCH_TIMEOUT_S) is not None
    except TimeoutError:
        raise PatternTimeoutError(
            f"pattern '{pattern[:60]}' takes longer than {MATCH_TIMEOUT_S * 1000:g} ms"
        ) from None
