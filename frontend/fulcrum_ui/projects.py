"""The project that a visitor works in: in the address of every page, and kept for the visit.

Who sees one project only is not bothered: nothing stands in the address and nothing can be chosen.
"""

from collections.abc import Sequence

import streamlit as st

from fulcrum.domain.errors import UnknownProject
from fulcrum.domain.records import Project

PARAMETER = "project"
_KEPT, _SEVERAL = "_project", "_several_projects"
_OF_EVERY_PROJECT = {_KEPT, _SEVERAL, "_pages", "_here", "login", "tour"}  # in the state of a visit


def choose(
    asked: str | None, kept: str | None, projects: Sequence[Project], default: str | None
) -> Project | None:
    """What the address asks for, else what was chosen before, else the visitor's own. None: there is no project.

    Raises UnknownProject for an address of a project that the visitor does not see: the lists of another one
    under it would pass for what a colleague meant to show.
    """
    seen = {project.id: project for project in projects}
    if asked is not None:
        if asked not in seen:
            raise UnknownProject(
                f"the address names project {asked[:64]!r}, and you are no member of it: ask for the role, or choose a page above"
            )
        return seen[asked]
    for id in (kept, default):
        if id is not None and id in seen:
            return seen[id]
    return projects[-1] if projects else None


def settle(projects: Sequence[Project], default: str | None) -> Project | None:
    """The project of this run. What the visit remembers of another one is dropped. Raises UnknownProject."""
    kept = st.session_state.get(_KEPT)
    found = choose(st.query_params.get(PARAMETER), kept, projects, default)
    if found is None:
        return None
    if kept not in (None, found.id):
        _forget_visit()
    st.session_state[_KEPT], st.session_state[_SEVERAL] = found.id, len(projects) > 1
    return found


def parameter() -> dict[str, str]:
    """What a link to another view carries."""
    return shared_parameter() if st.session_state.get(_SEVERAL) else {}


def shared_parameter() -> dict[str, str]:
    """What a link for a colleague carries, who may see more projects than the visitor."""
    kept = st.session_state.get(_KEPT)
    return {PARAMETER: kept} if kept else {}


def keep_in_address() -> None:
    """Once in each run, for pages that were reached without it."""
    wanted = parameter().get(PARAMETER)
    if wanted is not None and st.query_params.get(PARAMETER) != wanted:
        st.query_params[PARAMETER] = wanted


def switcher(projects: Sequence[Project], current: Project | None) -> None:
    """A choice in the sidebar, where there is one. Another project starts at its lists: ids belong to the old one."""
    if len(projects) < 2:
        return
    by_name = sorted(projects, key=lambda p: p.name.casefold())
    key = f"project-of-{'' if current is None else current.id}"
    st.sidebar.selectbox(
        "Project",
        by_name,
        None if current is None else by_name.index(current),
        format_func=lambda p: p.name,
        key=key,
        on_change=_switch,
        args=(key,),
    )


def _switch(key: str) -> None:
    chosen: Project = st.session_state[key]
    _forget_visit()
    st.session_state[_KEPT] = chosen.id
    st.query_params.from_dict({PARAMETER: chosen.id})


def _forget_visit() -> None:
    for key in [k for k in st.session_state if k not in _OF_EVERY_PROJECT]:
        del st.session_state[key]
