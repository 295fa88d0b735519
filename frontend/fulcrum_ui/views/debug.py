"""Debug: one image, its prediction, the latents that carried it, and what happens when one changes them."""

from dataclasses import replace
from html import escape

import streamlit as st

from fulcrum.client import Client, Explanation, Steering
from fulcrum.domain.errors import FulcrumError, NotFound
from fulcrum.domain.records import DatasetRecord, ImageRecord, SaeRecord
from fulcrum.domain.tasks import Target
from fulcrum_ui import bench_state as state
from fulcrum_ui import go, troubles
from fulcrum_ui.bench_state import BENCH_NOTE, MAX_GAIN, Bench
from fulcrum_ui.parts import effect_panel, held_correction, kept_bench, people, saving
from fulcrum_ui.parts.bars import banner, prediction_bars, verdict_words
from fulcrum_ui.parts.bench_image import bench_image
from fulcrum_ui.parts.card_grid import card_grid, drop
from fulcrum_ui.parts.choosing import choose_image, usable_saes
from fulcrum_ui.parts.expectation import expectation
from fulcrum_ui.parts.latent_cards import Known, known
from fulcrum_ui.parts.suggesting import suggest_panel
from fulcrum_ui.parts.words import plain, signed
from fulcrum_ui.parts.writing import write_button
from fulcrum_ui.visitor import remembered, visitor

N_LATENTS = 24
N_CONTROLS = 20


def page() -> None:
    """The page."""
    who = visitor()
    client = who.client
    bench = state.current()
    if (note := st.session_state.pop(BENCH_NOTE, None)) is not None:
        st.warning(plain(note))
    saes = usable_saes(client)
    if not saes:
        _no_sae()
        return
    bench = held_correction.load(client, bench, saes)
    if not people.may_write(who):
        kept_bench.page(client, bench, saes)
        return
    sae = next((s for s in saes if s.id == bench.sae), saes[0])
    if sae.id != bench.sae:
        # What was edited in an SAE that is gone means nothing for another.
        state.amend(lambda b: b.on_sae(sae.id) if b.sae else replace(b, sae=sae.id))
        bench = state.current()
    if bench.image is None:
        _empty(client)
        return
    try:
        image = remembered(("image", bench.image), lambda: client.images.get(bench.image or ""))
    except NotFound:
        st.warning("The image of this address is not here (any more). Choose another one.")
        _empty(client)
        return
    if not bench.classes:
        bench = _with_default_classes(client, bench)
    _question(client, bench, sae, saes, image)
    if not bench.classes:
        banner("Which classes should it choose between? Write them above, with commas: dog, cat, car.")
        state.write()
        return
    state.write()
    try:
        why = remembered(
            ("explain", image.id, sae.id, bench.classes, bench.template),
            lambda: client.explain(image, bench.task, sae=sae, n_latents=N_LATENTS, per_token=True),
        )
    except FulcrumError as error:
        troubles.show(error, "explain")
        return
    about = known(client, sae.id, [a.latent for a in why.latents])
    _bench(client, why, about)


@st.fragment
def _bench(client: Client, why: Explanation, about: Known) -> None:
    """Image, answer and cards: a click here runs nothing of the page above."""
    state.write()
    bench = state.current()
    left, middle, right = st.columns([2.4, 3.4, 3.2], gap="medium")
    tried: Steering | None = None
    with middle:
        answer = st.container()
        sliders = st.container()
    with left:
        bench_image(why, bench, about)
    with sliders:
        _sliders(bench, about)
    bench = state.current()
    with answer:
        tried = _answer(client, why, bench)
    with right:
        _evidence(client, why, bench, tried, about)
    st.divider()
    card_grid(why, bench, about)


def _question(
    client: Client, bench: Bench, sae: SaeRecord, saes: list[SaeRecord], image: ImageRecord
) -> None:
    line = st.columns([1.2, 5.2, 2.2, 2], vertical_alignment="bottom")
    with line[0].popover("Image", icon=":material/image:", width="stretch", help="Another image"):
        choose_image(client, "popover")
    text = line[1].text_input(
        "Classes",
        ", ".join(bench.classes),
        key=f"classes-{hash(bench.classes)}",
        help="Names, with commas between them",
    )
    template = line[2].text_input(
        "Prompts",
        bench.template,
        key=f"template-{bench.template}",
        help="{} is where the class name goes; several with | between them are averaged",
    )
    chosen = line[3].selectbox(
        "SAE", saes, saes.index(sae), format_func=lambda s: s.name, key=f"sae-{sae.id}"
    )
    classes = state.split_classes(text)
    if classes != bench.classes or chosen.id != sae.id or template != bench.template:
        if not state.are_templates(template):
            st.warning("Each prompt must hold {} exactly once: it is where the class name goes.")
            return
        other = chosen.id != sae.id
        state.change(
            lambda b: replace(b.on_sae(chosen.id) if other else b, classes=classes, template=template)
        )
        st.rerun()


def _with_default_classes(client: Client, bench: Bench) -> Bench:
    """Those of the newest data set that has some: better than an empty line."""
    found: list[DatasetRecord] = list(client.datasets.list())
    names = next((d.class_names for d in found if d.class_names), ())
    if names:
        state.amend(lambda b: replace(b, classes=tuple(names)))
    return state.current()


def _target(why: Explanation) -> Target:
    return why.attribution.target


def _answer(client: Client, why: Explanation, bench: Bench) -> Steering | None:
    before = why.prediction
    if not bench.edits:
        banner(
            f"The model says {before.top}"
            + (f", {signed(before.margin)} ahead of {before.runner_up}" if before.runner_up else "")
        )
        prediction_bars(before)
        return None
    try:
        tried = remembered(
            ("steer", why.image.id, why.sae.id, why.task, bench.edits, bench.scope),
            lambda: client.steer(
                why, list(bench.edits), scope=bench.scope, target=_target(why), n_controls=0
            ),
        )
    except FulcrumError as error:
        troubles.show(error, "steer")
        return None
    banner(*verdict_words(tried.before, tried.after))
    prediction_bars(tried.before, tried.after)
    return tried


def _sliders(bench: Bench, about: Known) -> None:
    line = st.container(horizontal=True, gap="small")  # which wraps where the window is narrow
    line.button(
        "",
        icon=":material/undo:",
        on_click=state.undo,
        disabled=not state.can_undo(),
        key="undo",
        help="Undo (Ctrl+Z)",
        shortcut="Ctrl+Z",
    )
    line.button(
        "",
        icon=":material/redo:",
        on_click=state.redo,
        disabled=not state.can_redo(),
        key="redo",
        help="Redo",
        shortcut="Ctrl+Y",
    )
    line.button("Reset", on_click=_reset, disabled=not (bench.gains or bench.correction), key="reset")
    if write_button(
        "Save correction",
        place=line,
        type="primary",
        disabled=not bench.edits,
        key="save",
        icon=":material/save:",
    ):
        saving.begin()
        saving.save_dialog()
    held_correction.row(bench, about)
    if not bench.gains and bench.held is None:
        st.caption(f"Suppress or amplify a {about.noun} below, and see the answer change here.")
    held = st.container(height=250, border=False) if len(bench.gains) > 5 else st.container()
    for latent, gain in bench.gains:
        row = held.columns([3.2, 5, 0.8], vertical_alignment="center")
        row[0].html(
            f'<div class="fu-num" style="overflow:hidden;text-overflow:ellipsis;white-space:nowrap">{escape(about.name(latent))}</div>'
        )
        key = f"gain-{latent}"
        st.session_state[key] = float(gain)  # undo and links move it too
        row[1].slider(
            f"Gain of {about.name(latent)}",
            0.0,
            MAX_GAIN,
            step=0.05,
            key=key,
            label_visibility="collapsed",
            on_change=_slid,
            args=(latent, key),
            format="×%.2f",
        )
        row[2].button(
            "",
            icon=":material/close:",
            key=f"drop-{latent}",
            on_click=drop,
            args=(latent,),
            type="tertiary",
            help="Leave it as it was",
        )


def _reset() -> None:
    state.change(Bench.without_edits)


def _slid(latent: int, key: str) -> None:
    gain = float(st.session_state[key])
    state.change(lambda b: b.with_gain(latent, gain))


def _evidence(client: Client, why: Explanation, bench: Bench, tried: Steering | None, about: Known) -> None:
    tabs = st.tabs(
        ["Evidence", "Ripple", "Dose", "Suggest", "Expectation"], key="evidence-tab", on_change="rerun"
    )
    latents = tuple(n for n, _ in bench.gains)
    with tabs[0]:
        if tabs[0].open:
            _controls(client, why, bench, tried, about)
    with tabs[1]:
        if tabs[1].open:
            if tried is None:
                st.caption(
                    f"After an edit: the classes and {about.noun}s that moved though nobody touched them."
                )
            else:
                effect_panel.ripple(tried.effect, about)
    with tabs[2]:
        if tabs[2].open:
            gains = {g for _, g in bench.gains}
            if tried is None:
                st.caption("After an edit: the answer over all doses of it.")
            else:
                st.fragment(effect_panel.dose)(
                    client, tried, latents, gains.pop() if len(gains) == 1 else None, about
                )
    with tabs[3]:
        if tabs[3].open:
            st.fragment(suggest_panel)(client, why, about)  # its search keeps nothing else waiting
    with tabs[4]:
        if tabs[4].open:
            expectation(client, why, tried)


def _controls(client: Client, why: Explanation, bench: Bench, tried: Steering | None, about: Known) -> None:
    if tried is None:
        effect_panel.trust(why.attribution, about)
        return
    effect_panel.unheard(tried.effect, bench.edits, about)
    with st.spinner("Controls …"):
        try:
            judged = remembered(
                ("controls", why.image.id, why.sae.id, why.task, bench.edits, bench.scope),
                lambda: client.steer(
                    why, list(bench.edits), scope=bench.scope, target=_target(why), n_controls=N_CONTROLS
                ),
            )
        except FulcrumError as error:
            troubles.show(error, "controls")
            return
    effect_panel.controls(judged.effect, about)


def _empty(client: Client) -> None:
    st.title("Why did the model say that?", anchor=False)
    held_correction.note(state.current())
    st.write(
        "Drop an image on which your model is wrong, or take one from a data set. Nothing leaves this platform."
    )
    choose_image(client, "empty")


def _no_sae() -> None:
    st.title("Almost there", anchor=False)
    st.write(
        "Debugging needs a model and an SAE (a dictionary of its latents). This project has none that is ready."
    )
    go.link("models", "Add a model and an SAE", icon="deployed_code")
