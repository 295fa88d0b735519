"""Alternatives to choose from: the smallest edits that bring about the wanted answer."""

from dataclasses import replace

import streamlit as st

from fulcrum.client import Client, Explanation
from fulcrum.domain.edits import Scale
from fulcrum.domain.errors import FulcrumError
from fulcrum.domain.results import Suggestion
from fulcrum_ui import bench_state as state
from fulcrum_ui import troubles
from fulcrum_ui.parts.latent_cards import Known
from fulcrum_ui.parts.words import edit_words, signed
from fulcrum_ui.parts.writing import write_button
from fulcrum_ui.visitor import remembered

_SHOWN, _TAKEN = 6, "suggestion-taken"


def suggest_panel(client: Client, why: Explanation, about: Known) -> None:
    """Which answer was wanted, and what would give it."""
    if st.session_state.pop(_TAKEN, False):
        st.rerun()  # the whole bench, not just this panel
    others = [c for c in why.task.names if c != why.prediction.top]
    if not others:
        st.caption("With one class there is nothing else to want.")
        return
    usual = why.prediction.runner_up
    line = st.columns([3, 1.4], vertical_alignment="bottom")
    wanted = line[0].selectbox(
        "It should have said", others, others.index(usual) if usual in others else 0, key="wanted"
    )
    key = ("suggest", why.image.id, why.sae.id, why.task, wanted)
    if write_button("Search", place=line[1], key="suggest-go", width="stretch", icon=":material/search:"):
        st.session_state["suggested"] = key
    if st.session_state.get("suggested") != key:
        st.caption(
            f"Searches for the smallest sets of {about.noun}s whose suppression gives that answer, and verifies each by running the model."
        )
        return
    try:
        with st.spinner("Searching …"):
            found = remembered(key, lambda: client.suggest(why, wanted).result())
    except FulcrumError as error:
        troubles.show(error, "suggest")
        return
    if not found.items:
        st.info(
            f"No small set of {about.noun}s makes it say {wanted}. The reason may lie elsewhere than in this layer."
        )
        return
    for number, item in enumerate(found.items[:_SHOWN]):
        _one(number, item, about)


def _one(number: int, item: Suggestion, about: Known) -> None:
    row = st.columns([5, 1.3], vertical_alignment="center")
    words = ", ".join(edit_words(e, about.label(e.latent), about.noun) for e in item.edits)
    dose = (
        ""
        if item.dose_interval is None
        else f"; flips at a gain between {min(item.dose_interval):g} and {max(item.dose_interval):g}"
    )
    row[0].markdown(
        f"{'✓' if item.flips else '○'} {words}  \n"
        f":gray[margin {signed(item.margin_before)} → {signed(item.margin_after)}{dose}{'; minimal' if item.minimal else ''}]"
    )
    row[1].button("Use", key=f"use-{number}", on_click=_use, args=(item,), width="stretch")


def _use(item: Suggestion) -> None:
    gains = tuple((e.latent, e.gain) for e in item.edits if isinstance(e, Scale))
    state.change(lambda b: replace(b.without_edits(), gains=gains))
    st.session_state[_TAKEN] = True
