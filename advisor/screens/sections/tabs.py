"""Tabs that stay where they were put while another page is shown."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import streamlit as st


def draw(key: str, parts: Mapping[str, Callable[[], None]]) -> None:
    """Tabs by title; only the open one is drawn.

    Streamlit forgets which tab was open once a page is left; `key` is where it is found again.
    """
    kept = f"{key}.kept"
    if key not in st.session_state and st.session_state.get(kept) in parts:
        st.session_state[key] = st.session_state[kept]
    tabs = st.tabs(list(parts), key=key, on_change="rerun")
    for (title, part), tab in zip(parts.items(), tabs, strict=True):
        if tab.open:
            st.session_state[kept] = title
            with tab:
                part()
