"""From page to page: every link carries what the other page needs in its address."""

from collections.abc import Mapping
from typing import Any

import streamlit as st

_PAGES = "_pages"


def remember_pages(pages: Mapping[str, Any]) -> None:
    """Once in each run: the pages by their name in the address."""
    st.session_state[_PAGES] = dict(pages)


def link(
    name: str, label: str, *, icon: str | None = None, help: str | None = None, **query: str | None
) -> None:
    """A link to a page."""
    st.page_link(
        st.session_state[_PAGES][name],
        label=label,
        icon=None if icon is None else f":material/{icon}:",
        help=help,
        query_params={k: v for k, v in query.items() if v},
    )


def switch(name: str, **query: str | None) -> None:
    """Goes there now."""
    st.switch_page(st.session_state[_PAGES][name], query_params={k: v for k, v in query.items() if v})
