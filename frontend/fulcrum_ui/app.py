"""The script that Streamlit runs for each visitor: who is it, which page, and a page for what goes wrong."""

import importlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import streamlit as st

from fulcrum.domain.errors import FulcrumError
from fulcrum_ui import go, theme, troubles
from fulcrum_ui.visitor import visitor

PAGES = (  # module of views, title, icon; the module's name is the address
    ("home", "Home", "home"),
    ("debug", "Debug", "science"),
    ("concepts", "Concepts", "hub"),
    ("experts", "Experts", "school"),
    ("corrections", "Corrections", "healing"),
    ("validation", "Validation", "fact_check"),
    ("datasets", "Data sets", "photo_library"),
    ("models", "Models & SAEs", "deployed_code"),
    ("jobs", "Jobs", "pending_actions"),
)


def main() -> None:
    """One run."""
    st.set_page_config(page_title="Fulcrum", page_icon=str(Path(__file__).parent / "icon.svg"), layout="wide")
    theme.apply()
    pages = {
        name: st.Page(
            _page(name), title=title, icon=f":material/{icon}:", url_path=name, default=name == "home"
        )
        for name, title, icon in PAGES
    }
    go.remember_pages(pages)
    try:
        visitor()
    except FulcrumError as error:
        st.navigation(list(pages.values()), position="hidden")
        troubles.show(error)
        return
    st.navigation(list(pages.values()), position="top").run()


def _page(name: str) -> Callable[[], None]:
    page = partial(_run, name)
    page.__name__ = name  # type: ignore[attr-defined]  # Streamlit asks for it
    return page


def _run(name: str) -> None:
    go.remember_here(name)
    try:
        importlib.import_module(f"fulcrum_ui.views.{name}").page()
    except FulcrumError as error:
        troubles.show(error)


if __name__ == "__main__":
    main()
