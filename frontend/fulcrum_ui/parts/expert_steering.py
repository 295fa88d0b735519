"""From experts to the bench: a correction that sets, damps or transports them, made in one step."""

import streamlit as st

from fulcrum.client import Client
from fulcrum.domain.errors import AlreadyExists, FulcrumError, NotFound
from fulcrum.domain.experts import ExpertRule, Experts, LayerProfile, SteeringMethod
from fulcrum.domain.jobs import FindExperts
from fulcrum_ui import go, troubles
from fulcrum_ui.parts.words import plain
from fulcrum_ui.parts.writing import write_button
from fulcrum_ui.visitor import remembered

_METHODS: dict[SteeringMethod, tuple[str, str]] = {
    "damp": (
        "less",
        "Less of each, the more the better it tells the concept (AurA): nothing is left of a perfect one.",
    ),
    "set": (
        "set",
        "Each is set to its median response to the concept, everywhere: the model answers as if it were there.",
    ),
    "transport_mean": ("more", "What the concept adds to the mean of each is added."),
    "transport_gaussian": (
        "more, as it spreads",
        "Each is carried to the mean and spread that it has with the concept.",
    ),
}
_IN_NAMES: dict[SteeringMethod, str] = {
    "damp": "less {}",
    "set": "{} set",
    "transport_mean": "more {}",
    "transport_gaussian": "more {}, spread",
}
_MOST, _USUAL = 1_000, 20
STEERED = ("latents", "vision")  # among which a correction can act


def panel(client: Client, found: Experts, concept: str) -> None:
    """What the experts of a concept are made to do, and the way to the bench with it."""
    if found.record.units not in STEERED:
        return
    with st.expander("Steer with these experts", icon=":material/tune:"):
        _form(client, found, concept)


def _form(client: Client, found: Experts, concept: str) -> None:
    place = f"{found.record.id}-{concept}"
    line = st.columns([1.4, 3], vertical_alignment="bottom")
    most = min(_MOST, max(layer.n_units for layer in found.layers))
    k = int(line[0].number_input("Best units", 1, most, min(_USUAL, most), key=f"steer-k-{place}"))
    layer = found.layers[0].name
    if len(found.layers) > 1:
        rule = ExpertRule("top_k", float(k))
        profile: LayerProfile = remembered(
            ("experts", found.record.id, "profile", concept, k),
            lambda: client.experts.profile(found.record, concept, rule),
        )
        shares = {s.layer: s for s in profile.layers}
        names = [layer.name for layer in found.layers]
        richest = max(names, key=lambda n: (shares[n].n_experts, shares[n].max_ap))
        layer = line[1].selectbox("of the layer", names, names.index(richest), key=f"steer-layer-{place}")
        # Not in the list: Streamlit keeps a choice by its words, which must not change with k.
        share = shares[layer]
        st.caption(
            f"{share.n_experts} of the model's best {k} lie there, with an AP of up to {share.max_ap:.2f}"
            + ("." if layer == richest else f"; most, {shares[richest].n_experts}, in {plain(richest)}.")
        )
    method: SteeringMethod = (
        st.segmented_control(
            "What becomes of them",
            list(_METHODS),
            default="damp",
            format_func=lambda m: _METHODS[m][0].capitalize(),
            key=f"steer-method-{place}",
        )
        or "damp"
    )
    st.caption(_METHODS[method][1])
    strength = st.slider("Strength", 0.05, 2.0, 1.0, 0.05, key=f"steer-strength-{place}", format="%.2f")
    usual = _IN_NAMES[method].format(concept) + ("" if strength == 1 else f" × {strength:g}")
    last = st.columns([3, 1.8], vertical_alignment="bottom")
    name = last[0].text_input("Name", max_chars=120, placeholder=usual, key=f"steer-name-{place}")
    if write_button(
        "Make the correction", place=last[1], type="primary", key=f"steer-go-{place}", width="stretch"
    ):
        _make(client, found, concept, method, layer, k, strength, name.strip() or usual)
    _provable(client, found)


def _make(
    client: Client,
    found: Experts,
    concept: str,
    method: SteeringMethod,
    layer: str,
    k: int,
    strength: float,
    name: str,
) -> None:
    try:
        with st.spinner("Making the correction …"):
            made = client.experts.correct(
                found.record, concept, method, name, layer=layer, k=k, strength=strength
            )
    except AlreadyExists:
        st.error(f"There is a correction named {plain(repr(name))} already: take another name.")
    except FulcrumError as error:
        troubles.show(error, "steer-experts")
    else:
        go.switch("debug", correction=made.id, sae=made.sae_id)


def _provable(client: Client, found: Experts) -> None:
    """Images that chose the experts prove nothing about them: better said before than after a validation."""

    def ask() -> str | None:
        try:
            spec = client.jobs.get(found.record.job_id).job.spec
        except NotFound:
            return None
        return spec.split if isinstance(spec, FindExperts) else None

    if remembered(("experts", found.record.id, "split"), ask) is None:
        st.caption(
            ":material/info: This search looked at images of every split. To prove the correction on images that did not choose its units, search on one split."
        )
