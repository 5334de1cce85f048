"""Sliders that several sections share."""

from __future__ import annotations

import streamlit as st

from advisor.screens.formatting import count

LENGTHS = tuple(2**power for power in range(4, 18))
"""Token counts from 16 to 131,072."""

FINE_LENGTHS = (1, *sorted({*LENGTHS, *(3 * 2**power for power in range(3, 16))}))
BATCHES = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)


def token_slider(label: str, key: str, start: int, *, most: int = LENGTHS[-1]) -> int:
    """A count of tokens, in steps of about 1.4 times."""
    options = [length for length in FINE_LENGTHS if length <= most]
    return _on_scale(label, key, options, start, "Tokens; the scale doubles every two steps.")


def batch_slider(label: str, key: str, start: int) -> int:
    """A number of sequences decoded together."""
    return _on_scale(label, key, list(BATCHES), start, "Sequences that decode in the same step.")


def _on_scale(label: str, key: str, options: list[int], start: int, explanation: str) -> int:
    nearest = min(options, key=lambda option: abs(option - start))
    return int(
        st.select_slider(
            label,
            options,
            value=nearest,
            key=key,
            format_func=count,
            help=explanation,
            persist_state="session",
        )
    )
