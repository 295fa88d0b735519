"""Buttons that change or start something in the project: who may not press one sees why, and what to do about it."""

from typing import Any

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from fulcrum.domain.records import Role
from fulcrum_ui.parts import people
from fulcrum_ui.visitor import Visitor, visitor

_AS = {"viewer": "look at this project as a viewer"}  # the others do more than that


def refusal(needed: Role = "analyst") -> str | None:
    """Why the visitor may not do what takes the role `needed`, and what they can do; None where they may."""
    mine = people.missing_role(visitor(), needed)
    if mine is None:
        return None
    here = _AS.get(mine, f"work in this project as {_article(mine)} {mine}")
    return f"You {here}: an administrator can give you the role {needed}."


def write_button(
    label: str,
    *,
    place: DeltaGenerator | None = None,
    needed: Role = "analyst",
    disabled: bool = False,
    help: str | None = None,
    **options: Any,
) -> bool:
    """`st.button`, or that of `place`, for what takes a role; `options` are Streamlit's."""
    no = refusal(needed)
    draw = st.button if place is None else place.button
    return draw(label, disabled=disabled or no is not None, help=no or help, **options)


def write_submit(label: str, *, needed: Role = "analyst", **options: Any) -> bool:
    """The button of a form, as `write_button`."""
    no = refusal(needed)
    return st.form_submit_button(label, disabled=no is not None, help=no, **options)


def read_only_mark(who: Visitor) -> None:
    """A quiet word in the corner of all pages, for those who may change nothing there. Once in each run."""
    if not people.may_write(who):
        st.html(
            '<div class="fu-role" role="note" title="You see everything in this project and change nothing. An '
            'administrator can give you the role analyst.">Viewer: reading only</div>'
        )


def _article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"
