"""The script that Streamlit runs for each visitor: who is it, which page, and a page for what goes wrong."""

import importlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import streamlit as st

from fulcrum.domain.errors import FulcrumError, UnknownProject
from fulcrum_ui import go, projects, theme, troubles
from fulcrum_ui.parts import writing
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

_SIDEBAR_PX = 220  # it holds the choice of a project, for those who have one


def main() -> None:
    """One run."""
    st.set_page_config(
        page_title="Fulcrum",
        page_icon=str(Path(__file__).parent / "icon.svg"),
        layout="wide",
        initial_sidebar_state=_SIDEBAR_PX,
    )
    theme.apply()
    pages = {
        name: st.Page(
            _page(name), title=title, icon=f":material/{icon}:", url_path=name, default=name == "home"
        )
        for name, title, icon in PAGES
    }
    go.remember_pages(pages)
    try:
        who = visitor()
    except UnknownProject:
        pass  # the page says it, and the other pages stay within reach
    except FulcrumError as error:
        st.navigation(list(pages.values()), position="hidden")
        troubles.show(error)
        return
    else:
        projects.keep_in_address()
        projects.switcher(who.projects, who.project)
        writing.read_only_mark(who)
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
