"""What an edit did beyond the prediction: against controls, in other classes and latents, over doses."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import streamlit as st

from fulcrum.client import Client, Steering
from fulcrum.domain.edits import Edit, Scale
from fulcrum.domain.errors import FulcrumError
from fulcrum.domain.results import Attribution, Effect
from fulcrum.domain.tasks import MarginTarget
from fulcrum_ui import charts, troubles
from fulcrum_ui.parts.latent_cards import Known
from fulcrum_ui.parts.words import number, p_value, plain, signed
from fulcrum_ui.visitor import remembered

_MOST_SILENT = 8
GAINS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 3.0)


def trust(attribution: Attribution, about: Known) -> None:
    """How far the scores of latents say what the model does."""
    target = attribution.target
    words = (
        f"{target.class_name} over {target.versus}" if isinstance(target, MarginTarget) else target.class_name
    )
    st.markdown(f"**How far to trust the scores** (target: {words})")
    agreement, interaction = attribution.rank_agreement, attribution.interaction_share
    if agreement is not None:
        st.caption(
            f"Rank agreement of scores with measured effects: **{number(agreement)}**. "
            + (
                "Near 1: the order of the cards is what the model really does."
                if agreement > 0.8
                else "Low: sort by measured effect, and trust only what you try."
            )
        )
    if interaction is not None:
        st.caption(
            f"{number(100 * interaction, 0)} % of their joint effect is interaction: {about.noun}s do not simply add up."
        )


def controls(effect: Effect, about: Known) -> None:
    """Is it more than any push of this size would do?"""
    if not effect.controls or effect.target_before is None or effect.target_after is None:
        st.caption("No controls were drawn.")
        return
    change = effect.target_after - effect.target_before
    draws = pd.concat(
        pd.DataFrame({"kind": _kind(c.kind, about), "change": c.target_changes}) for c in effect.controls
    )
    charts.show(charts.controls_strip(draws, change), draws, "controls")
    for c in effect.controls:
        n = len(c.target_changes)
        st.caption(
            f"This edit moves the target by **{signed(change)}**. {n} pushes of the same size along {_kind(c.kind, about)}: "
            f"{signed(float(np.min(c.target_changes)))} to {signed(float(np.max(c.target_changes)))}, "
            f"{c.n_flipped} of them flip the answer too; {p_value(c.p_value)}."
        )


def _kind(kind: str, about: Known) -> str:
    return "random directions" if kind == "random_directions" else f"other {about.noun}s"


def ripple(effect: Effect, about: Known) -> None:
    """What else moved: classes and latents that nobody touched."""
    before, after = effect.before, effect.after
    delta = np.asarray(after.probs, dtype=float) - np.asarray(before.probs, dtype=float)
    order = np.argsort(-np.abs(delta), kind="stable")[:6]
    classes = pd.DataFrame(
        {
            "class": [before.class_names[i] for i in order],
            "change": [f"{signed(100 * delta[i], 1)} %" for i in order],
        }
    )
    moved = pd.DataFrame(
        {
            about.noun: [about.name(n) for n, _ in effect.diagnostics.moved_latents[:8]],
            "change of its maximum": [signed(float(v)) for _, v in effect.diagnostics.moved_latents[:8]],
        }
    )
    left, right = st.columns(2)
    left.dataframe(classes, hide_index=True, width="stretch")
    right.dataframe(moved, hide_index=True, width="stretch")
    reached = float(np.mean(np.asarray(effect.diagnostics.relative_change) > 0))
    st.caption(
        f"The edit reached {100 * reached:.0f} % of the tokens and moved them by at most "
        f"{100 * float(np.max(effect.diagnostics.relative_change)):.1f} % of their length."
    )


def unheard(effect: Effect, edits: Sequence[Edit], about: Known) -> None:
    """An edit that did nothing must not pass for one that did."""
    silent = [
        e.latent
        for e, fired in zip(edits, effect.diagnostics.fired, strict=False)
        if not fired and isinstance(e, Scale)
    ]
    if silent:
        more = f" and {len(silent) - _MOST_SILENT} more" if len(silent) > _MOST_SILENT else ""
        names = ", ".join(about.name(n) for n in silent[:_MOST_SILENT]) + more
        st.warning(
            f"Silent here, so scaling it changes nothing: {plain(names)}.", icon=":material/volume_off:"
        )


def dose(client: Client, tried: Steering, latents: tuple[int, ...], at: float | None, about: Known) -> None:
    """The answer over gains of the edited latents, as they come in."""
    if not latents:
        st.caption(f"Suppress or amplify a {about.noun} first; then its whole dose-response is a click away.")
        return
    key = ("dose", tried.image.id, tried.sae.id, tried.task, latents)
    if not st.toggle("Compute the dose-response", key=f"dose-{hash(key)}"):
        st.caption(f"{len(GAINS)} gains of all {len(latents)} edited {about.noun}s together, one batch.")
        return
    try:
        curve = remembered(
            key, lambda: client.sweep(tried.image, latents, tried.task, gains=GAINS, sae=tried.sae).result()
        )
    except FulcrumError as error:
        troubles.show(error, "dose")
        return
    response = curve.response
    shown = np.argsort(-np.ptp(response.logits, axis=0), kind="stable")[:5]
    logits = np.asarray(response.logits, dtype=float)
    probs = np.exp(logits - logits.max(axis=1, keepdims=True))
    probs /= probs.sum(axis=1, keepdims=True)
    table = pd.DataFrame(
        [
            {
                "gain": float(g),
                "class": response.class_names[c],
                "probability": float(probs[i, c]),
                "logit": float(logits[i, c]),
            }
            for i, g in enumerate(response.gains)
            for c in shown
        ]
    )
    charts.show(
        charts.dose_curve(table, "gain", "probability", "class", at=at, flips=response.flip_interval),
        table,
        "dose-response",
    )
    words = "monotone" if response.monotone else "not monotone"
    flip = response.flip_interval
    st.caption(
        f"The target is {words} in the gain. "
        + (
            f"The answer flips between {min(flip):.2g} and {max(flip):.2g}."
            if flip
            else "The answer does not flip in this range."
        )
    )
