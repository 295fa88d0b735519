"""From experts to the bench: a correction that sets, damps or transports them, made in one step."""

from dataclasses import dataclass

import streamlit as st

from fulcrum.client import Client
from fulcrum.domain.errors import AlreadyExists, FulcrumError, NotFound
from fulcrum.domain.experts import ExpertRule, Experts, LayerProfile, SteeringMethod, Towards
from fulcrum.domain.jobs import FindExperts
from fulcrum_ui import go, troubles
from fulcrum_ui.parts.words import plain
from fulcrum_ui.parts.writing import write_button
from fulcrum_ui.visitor import remembered


@dataclass(frozen=True)
class _Way:
    """Something that experts can be made to do."""

    label: str
    what: str
    name: str  # of a correction that does it
    method: SteeringMethod
    towards: Towards = "concept"


_WAYS = (
    _Way("Less", "Less of each, the more the better it tells the concept (AurA): of a perfect one nothing is left.", "less {}", "damp"),
    _Way("As without it", "From each what the concept adds to its mean is taken.", "without {}", "transport_mean", "others"),
    _Way("More", "To each what the concept adds to its mean is added.", "more {}", "transport_mean"),
    _Way("As with it", "Each is carried to the mean and spread that it has with the concept.", "as with {}", "transport_gaussian"),
    _Way("By rank", "Each is carried along the line through its sorted responses without and with the concept (Linear-AcT).", "as with {}, by rank", "transport_linear"),
    _Way("Set", "Each is set to its median response to the concept, everywhere: the model answers as if it were there.", "{} set", "set"),
)  # fmt: skip
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
    labels = [way.label for way in _WAYS]
    label = st.segmented_control("What becomes of them", labels, default=labels[0], key=f"steer-way-{place}")
    way = _WAYS[labels.index(label) if label else 0]
    st.caption(way.what)
    strength = st.slider("Strength", 0.05, 2.0, 1.0, 0.05, key=f"steer-strength-{place}", format="%.2f")
    usual = way.name.format(concept) + ("" if strength == 1 else f" × {strength:g}")
    last = st.columns([3, 1.8], vertical_alignment="bottom")
    name = last[0].text_input("Name", max_chars=120, placeholder=usual, key=f"steer-name-{place}")
    if write_button(
        "Make the correction", place=last[1], type="primary", key=f"steer-go-{place}", width="stretch"
    ):
        _make(client, found, concept, way, layer, k, strength, name.strip() or usual)
    _provable(client, found)


def _make(
    client: Client,
    found: Experts,
    concept: str,
    way: _Way,
    layer: str,
    k: int,
    strength: float,
    name: str,
) -> None:
    try:
        with st.spinner("Making the correction …"):
            made = client.experts.correct(
                found.record,
                concept,
                way.method,
                name,
                layer=layer,
                k=k,
                towards=way.towards,
                strength=strength,
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
