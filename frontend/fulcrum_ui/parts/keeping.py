"""Choices within a page that stand in its address, so that a reload or a colleague sees the same.

Streamlit's own `bind` would forbid to clear the address when one leaves the view.
"""

from collections.abc import Sequence
from typing import Any

import streamlit as st


def tabs(names: Sequence[str], key: str) -> Sequence[Any]:
    """Tabs of which only the open one runs; the open one stands in the address under `key`."""
    wanted = st.query_params.get(key)
    default = wanted if wanted in names else names[0]
    return st.tabs(
        list(names), default=default, key=f"tabs-{key}", on_change=_write, args=(key, f"tabs-{key}")
    )


def segments(names: Sequence[str], key: str, default: str, **options: Any) -> str:
    """One of some words; another than the default stands in the address under `key`."""
    wanted = st.query_params.get(key)
    first = wanted if wanted in names else default
    chosen = st.segmented_control(
        key,
        list(names),
        default=first,
        key=f"segments-{key}",
        on_change=_write,
        args=(key, f"segments-{key}"),
        **options,
    )
    return str(chosen or default)


def choice(names: Sequence[str], key: str, **options: Any) -> str:
    """One of a list; another than the first stands in the address under `key`."""
    wanted = st.query_params.get(key)
    return str(
        st.selectbox(
            key,
            list(names),
            names.index(wanted) if wanted in names else 0,
            key=f"choice-{key}",
            label_visibility="collapsed",
            on_change=_write,
            args=(key, f"choice-{key}", names[0]),
            **options,
        )
    )


def _write(key: str, state: str, left_out: str | None = None) -> None:
    value = st.session_state.get(state)
    if value and value != left_out:
        st.query_params[key] = str(value)
    else:
        st.query_params.pop(key, None)
