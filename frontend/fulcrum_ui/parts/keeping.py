"""Choices within a page that stand in its address, so that a reload or a colleague sees the same.

Streamlit's own `bind` would forbid to clear the address when one leaves the view.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from fulcrum_ui import go

_ON = "1"
_ROUND = "_keeping_round"  # choices of another one are made anew


def follow(query: Mapping[str, str | None]) -> None:
    """To another part of this view: all choices become what this address says. A callback."""
    st.session_state[_ROUND] = st.session_state.get(_ROUND, 0) + 1
    go.write(query)


def tabs(names: Sequence[str], key: str) -> Sequence[Any]:
    """Tabs of which only the open one runs; the open one stands in the address under `key`."""
    wanted = st.query_params.get(key)
    default = wanted if wanted in names else names[0]
    state = _state("tabs", key)
    return st.tabs(list(names), default=default, key=state, on_change=_write, args=(key, state))


def segments(names: Sequence[str], key: str, default: str, **options: Any) -> str:
    """One of some words; another than the default stands in the address under `key`."""
    wanted = st.query_params.get(key)
    first, state = wanted if wanted in names else default, _state("segments", key)
    chosen = st.segmented_control(
        key, list(names), default=first, key=state, on_change=_write, args=(key, state), **options
    )
    return str(chosen or default)


def choice(names: Sequence[str], key: str, **options: Any) -> str:
    """One of a list; another than the first stands in the address under `key`."""
    wanted, state = st.query_params.get(key), _state("choice", key)
    return str(
        st.selectbox(
            key,
            list(names),
            names.index(wanted) if wanted in names else 0,
            key=state,
            label_visibility="collapsed",
            on_change=_write,
            args=(key, state, names[0]),
            **options,
        )
    )


def switch(label: str, key: str, *, help: str | None = None, place: DeltaGenerator | None = None) -> bool:
    """Off, or on, which stands in the address under `key`."""
    state = _state("switch", key)
    draw = st.toggle if place is None else place.toggle
    on = st.query_params.get(key) == _ON
    return draw(label, on, key=state, help=help, on_change=_write_switch, args=(key, state))


def _state(kind: str, key: str) -> str:
    return f"{kind}-{key}-{st.session_state.get(_ROUND, 0)}"


def _write_switch(key: str, state: str) -> None:
    if st.session_state.get(state):
        st.query_params[key] = _ON
    else:
        st.query_params.pop(key, None)


def _write(key: str, state: str, left_out: str | None = None) -> None:
    value = st.session_state.get(state)
    if value and value != left_out:
        st.query_params[key] = str(value)
    else:
        st.query_params.pop(key, None)
