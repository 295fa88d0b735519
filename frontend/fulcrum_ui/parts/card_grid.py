"""The cards of the bench: explained latents by side and order, with buttons that take them up."""

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from fulcrum.client import Explanation
from fulcrum.domain.results import LatentAttribution
from fulcrum.domain.tasks import MarginTarget
from fulcrum_ui import bench_state as state
from fulcrum_ui import go
from fulcrum_ui.bench_state import Bench
from fulcrum_ui.parts.latent_cards import Known, card_html, labels_note

_SIDES = ("For it", "Against it", "Both")
_SORTS = ("Score", "Measured effect")
SELECTED, PATCH, _SORT = "debug-selected", "debug-patch", "debug-sort"  # in the state of the visit


def card_grid(why: Explanation, bench: Bench, about: Known, *, acting: bool = True) -> None:
    """What spoke for the answer or against it, in the whole image or in the patch that was clicked. Not `acting`: cards
    are looked at.
    """
    line = st.columns([4.4, 2.6, 2.6, 1.2], vertical_alignment="center")
    patch = st.session_state.get(PATCH)
    side = line[1].segmented_control(
        "Side", _SIDES, default=_SIDES[0], key="debug-side", label_visibility="collapsed", width="stretch"
    )
    sort = line[2].segmented_control(
        "Sort", _SORTS, default=_SORTS[0], key=_SORT, label_visibility="collapsed", width="stretch"
    )
    many = line[3].toggle("All", key="debug-all", help=f"All {len(why.latents)} explained {about.noun}s")
    target = why.attribution.target
    over = f" over {target.versus}" if isinstance(target, MarginTarget) else ""
    unit = f"{'logit' if over else target.kind} of {target.class_name}{over}"
    way = {_SIDES[0]: "What spoke for", _SIDES[1]: "What spoke against"}.get(
        side or "", "What spoke for or against"
    )
    where = "" if patch is None else f" in patch {patch}"
    line[0].subheader(f"{way} {target.class_name}{where}", anchor=False)
    labels_note(about)
    found = [a for a in _sorted(why, sort or _SORTS[0], patch) if _is_on(side, _share(why, a, patch))]
    if not found:
        st.caption(f"No explained {about.noun} is on this side.")
    per_row = 4
    shown = found if many else found[: 2 * per_row]
    for start in range(0, len(shown), per_row):
        for column, item in zip(st.columns(per_row), shown[start : start + per_row], strict=False):
            with column, st.container(border=True):
                _card(why, item, about, bench, unit, acting)


def _share(why: Explanation, a: LatentAttribution, patch: int | None) -> float:
    """In a patch the score there; else what was measured, which is what the model does, or the score."""
    if patch is not None:
        return 0.0 if a.per_token is None else float(why.heatmap(a.latent).ravel()[patch])
    return a.score if a.measured_effect is None else a.measured_effect


def _is_on(side: str | None, amount: float) -> bool:
    return (side == _SIDES[0] and amount > 0) or (side == _SIDES[1] and amount < 0) or side not in _SIDES[:2]


def _sorted(why: Explanation, sort: str, patch: int | None) -> list[LatentAttribution]:
    if patch is not None:
        there = {a.latent: abs(_share(why, a, patch)) for a in why.latents}
        return sorted((a for a in why.latents if there[a.latent] > 0), key=lambda a: -there[a.latent])
    if sort == _SORTS[1]:
        return sorted(why.latents, key=lambda a: -abs(a.measured_effect or 0.0))
    return list(why.latents)


def _card(
    why: Explanation, found: LatentAttribution, about: Known, bench: Bench, unit: str, acting: bool
) -> None:
    st.html(card_html(why.sae.id, found, about, unit))
    gains = dict(bench.gains)
    latent = found.latent
    if not acting:
        line = st.columns([4.3, 1], gap="small", vertical_alignment="center")
        if about.noun == "latent":
            with line[0]:
                go.link("concepts", "What it stands for", icon="hub", sae=why.sae.id, latent=str(latent))
        _look_button(line[1], latent)
        return
    buttons = st.columns([2.2, 2.1, 1], gap="small")
    if latent in gains:
        buttons[0].button("Restore", key=f"restore-{latent}", on_click=drop, args=(latent,), width="stretch")
    else:
        buttons[0].button(
            "Suppress", key=f"suppress-{latent}", on_click=_take, args=(latent, 0.0), width="stretch"
        )
    buttons[1].button(
        "Amplify",
        key=f"amplify-{latent}",
        on_click=_take,
        args=(latent, 2.0),
        width="stretch",
        disabled=gains.get(latent) == 2.0,
    )
    _look_button(buttons[2], latent)


def _look_button(place: DeltaGenerator, latent: int) -> None:
    selected = st.session_state.get(SELECTED) == latent
    place.button(
        "",
        icon=":material/visibility_off:" if selected else ":material/visibility:",
        key=f"look-{latent}",
        on_click=_look,
        args=(latent,),
        help="Where in the image it carries the answer",
        width="stretch",
        type="primary" if selected else "secondary",
    )


def _take(latent: int, gain: float) -> None:
    state.change(lambda b: b.with_gain(latent, gain))


def _look(latent: int) -> None:
    st.session_state[SELECTED] = None if st.session_state.get(SELECTED) == latent else latent


def drop(latent: int) -> None:
    """Leaves a latent as it was."""
    state.change(lambda b: b.without(latent))
