"""A saved correction on the bench: brought there by an address, tried at any strength, taken off again."""

from collections.abc import Sequence
from dataclasses import replace
from html import escape

import streamlit as st

from fulcrum.client import Client
from fulcrum.domain.corrections import Correction
from fulcrum.domain.errors import NotFound
from fulcrum.domain.records import CorrectionRecord, SaeRecord
from fulcrum_ui import bench_state as state
from fulcrum_ui import go
from fulcrum_ui.bench_state import MAX_STRENGTH, Bench, are_templates, holding
from fulcrum_ui.parts.latent_cards import Known
from fulcrum_ui.parts.words import edits_words, plain

_STRENGTH = "held-strength"


def load(client: Client, bench: Bench, saes: Sequence[SaeRecord]) -> Bench:
    """The bench with the content of the correction that its address names; or without it, and a word why."""
    if bench.correction is None or bench.held is not None:
        return bench
    id, _, number = bench.correction.partition(".")
    try:
        record = client.corrections.get(id)
        version = client.corrections.version(id, int(number) if number.isdecimal() else None)
    except NotFound:
        return _without("it is not here (any more)")
    held, missing = holding(version.correction, record.name)
    sae = _sae_of(record, version.correction, saes)
    if held is None or sae is None:
        return _without(missing or "what it edits is not here (any more)")
    task = version.correction.task
    template = "" if task is None else " | ".join(task.templates)

    def opened(b: Bench) -> Bench:
        b = b if b.sae in (None, sae.id) else b.on_sae(sae.id)
        if not b.classes and task is not None and not any("," in name for name in task.names):
            b = replace(b, classes=task.names, template=template if are_templates(template) else b.template)
        return replace(b, sae=sae.id, correction=f"{id}.{version.number}", held=held)

    state.amend(opened)
    return state.current()


def note(bench: Bench) -> None:
    """Where there is no image yet: what will act on it."""
    if bench.held is not None:
        st.info(
            f"**{plain(bench.held.name)}** is on the bench: choose an image to try it on.",
            icon=":material/healing:",
        )


def row(bench: Bench, about: Known) -> None:
    """Name, strength, and a button that takes it off; within the fragment of the bench."""
    held = bench.held
    if held is None or bench.correction is None:
        return
    columns = st.columns([3.2, 5, 0.8], vertical_alignment="center")
    with columns[0]:
        go.link(
            "corrections", plain(held.name), icon="healing", correction=bench.correction.partition(".")[0]
        )
    if held.has_strengths:
        st.session_state[_STRENGTH] = float(bench.strength)  # undo and links move it too
        columns[1].slider(
            f"Strength of {held.name}",
            0.0,
            MAX_STRENGTH,
            step=0.05,
            key=_STRENGTH,
            label_visibility="collapsed",
            on_change=_slid,
            format="%.2f of it",
        )
    columns[2].button(
        "",
        icon=":material/close:",
        key="drop-held",
        on_click=_drop,
        type="tertiary",
        help="Take the correction off the bench",
    )
    words = edits_words(held.edits, about.labels, 3, about.noun)
    st.html(f'<div class="fu-quiet">{escape(words)}</div>')


def _slid() -> None:
    strength = float(st.session_state[_STRENGTH])
    state.change(lambda b: replace(b, strength=strength))


def _drop() -> None:
    state.change(lambda b: replace(b, correction=None, strength=1.0, held=None))


def _without(why: str) -> Bench:
    st.warning(f"The correction of this address is not on the bench: {why}.")
    state.amend(lambda b: replace(b, correction=None, strength=1.0))
    return state.current()


def _sae_of(record: CorrectionRecord, correction: Correction, saes: Sequence[SaeRecord]) -> SaeRecord | None:
    if record.sae_id is not None:
        return next((s for s in saes if s.id == record.sae_id), None)
    wanted = correction.sae_sha256
    return next((s for s in saes if s.info is not None and s.info.weights_sha256 == wanted), None)
