"""The image on the bench: where a latent carries the answer, the patch that is asked about, and where edits act."""

from dataclasses import replace
from typing import Literal

import streamlit as st

from fulcrum.client import Explanation
from fulcrum_ui import bench_state as state
from fulcrum_ui.bench_state import Bench
from fulcrum_ui.parts.card_grid import PATCH, SELECTED
from fulcrum_ui.parts.latent_cards import Known
from fulcrum_ui.parts.patch_canvas import patch_canvas
from fulcrum_ui.parts.words import plain
from fulcrum_ui.pictures import image_url

_MODE, _LIMIT = "debug-mode", "Limit the edit"


def bench_image(why: Explanation, bench: Bench, about: Known, *, acting: bool = True) -> None:
    """The image with its patches, within a fragment. Not `acting`: one looks, and limits no edit."""
    selected = st.session_state.get(SELECTED)
    found = next((a for a in why.latents if a.latent == selected), None)
    brush = acting and st.session_state.get(_MODE) == _LIMIT
    mode: Literal["pick", "brush"] = "brush" if brush else "pick"
    grid = why.attribution.grid
    heat = () if found is None or found.per_token is None else why.heatmap(found.latent).ravel().tolist()
    patch = st.session_state.get(PATCH)
    picked = bench.region if brush else (() if patch is None else (patch,))
    hint = (
        "drag to mark where the edit acts"
        if brush
        else (f"click a patch for its {about.noun}s" if found is None else about.name(found.latent))
    )
    now = patch_canvas(
        "canvas",
        image_url(why.image.id, 768, about.view),
        grid,
        heat=heat,
        picked=picked,
        mode=mode,
        hint=hint,
        alt=why.image.filename,
    )
    if now is not None:
        if brush:
            state.change(lambda b: replace(b, region=now))
        else:
            st.session_state[PATCH] = now[0] if now else None
        st.rerun(scope="fragment")
    if acting:
        st.segmented_control(
            "Click",
            ["Look at a patch", _LIMIT],
            default="Look at a patch",
            key=_MODE,
            label_visibility="collapsed",
            width="stretch",
        )
    if bench.region:
        line = st.columns([3, 2], vertical_alignment="center")
        line[0].caption(f"Edits act in {len(bench.region)} of {grid[0] * grid[1]} patches.")
        if acting:
            line[1].button("Everywhere", on_click=_everywhere, width="stretch")
    if found is not None:
        st.caption(f"Orange patches speak for the answer through this {about.noun}, blue ones against it.")
    st.caption(f"{plain(why.image.filename)} · {why.image.width} × {why.image.height}")


def _everywhere() -> None:
    state.change(lambda b: replace(b, region=()))
