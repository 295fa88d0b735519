"""From page to page: every link carries what the other page needs in its address."""

from collections.abc import Mapping
from typing import Any

import streamlit as st

from fulcrum_ui import projects

_PAGES, _HERE = "_pages", "_here"


def remember_pages(pages: Mapping[str, Any]) -> None:
    """Once in each run: the pages by their name in the address."""
    st.session_state[_PAGES] = dict(pages)


def remember_here(name: str) -> None:
    """Once in each run: the page that is shown."""
    st.session_state[_HERE] = name


def link(
    name: str,
    label: str,
    *,
    icon: str | None = None,
    help: str | None = None,
    place: str = "",
    **query: str | None,
) -> None:
    """A link to a page. `place` tells apart links of one page to the same view of it."""
    asked = {k: v for k, v in query.items() if v} | projects.parameter()
    shown = None if icon is None else f":material/{icon}:"
    if name == st.session_state.get(_HERE):
        # Streamlit's own link to the page that is shown leaves the address as it was, and a reload would lose the view.
        key = f"go-{place}-{label}-{sorted(asked.items())}"
        st.button(label, key=key, icon=shown, help=help, type="tertiary", on_click=write, args=(asked,))
        return
    st.page_link(st.session_state[_PAGES][name], label=label, icon=shown, help=help, query_params=asked)


def write(query: Mapping[str, str | None]) -> None:
    """Puts another view of this page into the address, in the same project."""
    wanted = {k: v for k, v in query.items() if v} | projects.parameter()
    if dict(st.query_params) != wanted:
        st.query_params.from_dict(wanted)


def switch(name: str, **query: str | None) -> None:
    """Goes there now."""
    asked = {k: v for k, v in query.items() if v} | projects.parameter()
    st.switch_page(st.session_state[_PAGES][name], query_params=asked)
