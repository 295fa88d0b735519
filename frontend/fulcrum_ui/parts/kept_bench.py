"""The bench of who may read and not ask: the image, the question, what colleagues were told, and where to read on."""

from collections.abc import Sequence
from html import escape
from itertools import islice

import streamlit as st

from fulcrum.client import Client, Explanation, Steering
from fulcrum.domain.errors import NotFound
from fulcrum.domain.records import EvaluationRecord, ImageRecord, SaeRecord
from fulcrum_ui import bench_state as state
from fulcrum_ui import go
from fulcrum_ui.bench_state import Bench
from fulcrum_ui.parts import effect_panel, kept_answers
from fulcrum_ui.parts.bars import banner, prediction_bars, verdict_words
from fulcrum_ui.parts.bench_image import bench_image
from fulcrum_ui.parts.card_grid import card_grid
from fulcrum_ui.parts.choosing import choose_image
from fulcrum_ui.parts.evidence_badges import verdict_badge
from fulcrum_ui.parts.latent_cards import Known, known
from fulcrum_ui.parts.words import ago, badge, edit_words, plain, signed
from fulcrum_ui.parts.writing import refusal
from fulcrum_ui.pictures import image_url
from fulcrum_ui.visitor import SHORT_S, remembered

_LISTED = 3  # evaluations to read on


def page(client: Client, bench: Bench, saes: Sequence[SaeRecord]) -> None:
    """In place of the bench. It asks the engine nothing."""
    if bench.image is None:
        _choose(client)
        return
    try:
        image = remembered(("image", bench.image), lambda: client.images.get(bench.image or ""))
    except NotFound:
        st.warning("The image of this address is not here (any more). Choose another one.")
        _choose(client)
        return
    line = st.columns([6, 1.4], vertical_alignment="center")
    line[0].title("What the model was asked", anchor=False)
    with line[1].popover("Image", icon=":material/image:", width="stretch", help="Another image"):
        choose_image(client, "popover")
    state.write()
    why, tried = kept_answers.find(client, image, saes, bench)
    sae = why.sae if why is not None else next((s for s in saes if s.id == bench.sae), None)
    latents = [a.latent for a in why.latents] if why is not None else [n for n, _ in bench.gains]
    about = known(client, sae.id, latents) if sae is not None else Known({}, {})
    _question(bench, why, sae, about)
    if why is None:
        _unasked(client, bench, image, about)
    else:
        _told(client, bench, why, tried, about)


def _choose(client: Client) -> None:
    st.title("What the model was asked", anchor=False)
    st.write(
        "Choose an image that a colleague worked on: you see what the model was asked about it and what it said."
    )
    choose_image(client, "empty")
    st.divider()
    _needed()
    _read_on(client, None)


def _question(bench: Bench, why: Explanation | None, sae: SaeRecord | None, about: Known) -> None:
    """Classes, SAE and edits, in one line of words."""
    task = None if why is None else why.task
    classes = bench.classes or (() if task is None else task.names)
    templates = (bench.template,) if task is None else task.templates
    rows = []
    if classes:
        rows.append(("Classes", "".join(badge(name) for name in classes[:40])))
        rows.append(("Prompts", escape(" | ".join(templates))))
    if sae is not None:
        rows.append(("SAE", escape(sae.name)))
    if bench.edits:
        edits = "".join(
            badge(edit_words(e, about.label(e.latent), about.noun), "info") for e in bench.edits[:20]
        )
        rows.append(("Edits", edits))
    body = "".join(
        f'<div class="fu-asked"><span class="fu-quiet">{name}</span><div>{value}</div></div>'
        for name, value in rows
    )
    if body:
        st.html(body)


@st.fragment
def _told(client: Client, bench: Bench, why: Explanation, tried: Steering | None, about: Known) -> None:
    """A click here asks nothing: it looks at what was said."""
    left, middle, right = st.columns([2.4, 3.4, 3.2], gap="medium")
    with left:
        bench_image(why, bench, about, acting=False)
    with middle:
        _answer(bench, why, tried)
    with right:
        if tried is None:
            effect_panel.trust(why.attribution, about)
        else:
            effect_panel.unheard(tried.effect, tried.edits, about)
            if tried.effect.controls:
                effect_panel.controls(tried.effect, about)
        _read_on(client, why.image)
        _needed()
    st.divider()
    card_grid(why, bench, about, acting=False)


def _answer(bench: Bench, why: Explanation, tried: Steering | None) -> None:
    before = why.prediction
    if tried is not None:
        banner(*verdict_words(tried.before, tried.after))
        prediction_bars(tried.before, tried.after)
        return
    ahead = f", {signed(before.margin)} ahead of {before.runner_up}" if before.runner_up else ""
    banner(f"The model said {before.top}{ahead}")
    prediction_bars(before)
    if bench.edits:
        st.caption("Nobody has tried these edits on it yet, so what they do is not known.")


def _unasked(client: Client, bench: Bench, image: ImageRecord, about: Known) -> None:
    left, right = st.columns([3, 5], gap="large")
    with left:
        source = escape(image_url(image.id, 768, about.view))
        st.html(f'<img class="fu-picture" src="{source}" alt="{escape(image.filename)}">')
        st.caption(f"{plain(image.filename)} · {image.width} × {image.height} · {ago(image.created_at)}")
    with right:
        with st.container(border=True):
            st.subheader("Nobody has asked this yet", anchor=False)
            st.write(
                "As soon as a colleague who may ask opens this address, the model's answer and the latents that carried it stand here for you, too."
            )
            if (bench.classes or bench.sae) and st.button(
                "What else was asked about this image", icon=":material/history:", key="kept-any"
            ):
                state.change(lambda b: Bench(image=b.image))
                state.write()
                st.rerun()
        _needed()
        _read_on(client, image)


def _needed() -> None:
    st.caption(
        f":material/lock: Asking the model anything new keeps the answer in the project. {refusal() or ''}"
    )


def _read_on(client: Client, image: ImageRecord | None) -> None:
    st.markdown("**Read on**")
    if image is not None:
        go.link("concepts", "Latents that fire in this image", icon="image_search", image=image.id)
    for name, e in remembered(("evaluations", "newest"), lambda: _newest(client), for_s=SHORT_S):
        with st.container(horizontal=True, vertical_alignment="center"):
            words = f"{plain(name)}, on {e.split}"
            go.link("validation", words, icon="fact_check", place=e.id, evaluation=e.id)
            st.html(verdict_badge(e), width="content")
    go.link("corrections", "All corrections", icon="healing")
    go.link("validation", "All evaluations", icon="fact_check")


def _newest(client: Client) -> list[tuple[str, EvaluationRecord]]:
    """Evaluations with the names of their corrections."""
    names = {c.id: c.name for c in client.corrections.list()}
    found = islice(client.evaluations.list(kind="validation"), _LISTED)
    return [(names.get(e.correction_id, "a deleted correction"), e) for e in found]
