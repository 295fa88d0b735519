"""Latents as cards: name, score and measured effect, where they fire elsewhere, and buttons to act."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import streamlit as st

from fulcrum.client import Client
from fulcrum.domain.concepts import LatentCard
from fulcrum.domain.errors import NotFound
from fulcrum.domain.models import ResizeMode
from fulcrum.domain.results import LatentAttribution
from fulcrum_ui.parts.label_review import mark
from fulcrum_ui.parts.words import Noun, latent_name, noun_of, percent, signed
from fulcrum_ui.pictures import example_url
from fulcrum_ui.visitor import SHORT_S, remembered

N_EXAMPLES = 4


@dataclass(frozen=True)
class Known:
    """What the platform knows about some latents beside one explanation."""

    labels: dict[int, str]
    cards: dict[int, LatentCard]  # empty where no data set was described yet
    view: ResizeMode = "shortest"  # how its model sees an image
    noun: Noun = "latent"

    def name(self, latent: int) -> str:
        """'sticker (12)', 'latent 12', or 'unit 12'."""
        return latent_name(latent, self.label(latent), self.noun)

    def label(self, latent: int) -> str | None:
        """What people say, else what a program found."""
        card = self.cards.get(latent)
        return self.labels.get(latent) or (card.summary.label if card else None)

    def mark(self, latent: int) -> str:
        """A quiet sign that a reviewer confirmed the name, as HTML."""
        card = self.cards.get(latent)
        return mark(card.summary.label_review) if card else ""


def known(client: Client, sae_id: str, latents: Sequence[int]) -> Known:
    """Labels and examples; an SAE that was never described has none of the latter."""

    def ask() -> Known:
        labels = client.concepts.labels(sae_id)
        try:
            cards = client.latents.cards(sae_id, list(latents)[:100], n_examples=N_EXAMPLES)
        except NotFound:
            cards = ()
        return Known(labels, {c.summary.latent: c for c in cards}, view, noun)

    view, noun = _always(client, sae_id)
    if not latents:
        return Known({}, {}, view, noun)
    return remembered(("known", sae_id, tuple(latents)), ask, for_s=SHORT_S)


def view_of(client: Client, sae_id: str) -> ResizeMode:
    """How the model of an SAE sees an image."""
    return _always(client, sae_id)[0]


def _always(client: Client, sae_id: str) -> tuple[ResizeMode, Noun]:
    """What never changes about an SAE."""

    def ask() -> tuple[ResizeMode, Noun]:
        sae = client.saes.get(sae_id)
        info = client.models.get(sae.model_id).info
        return "shortest" if info is None else info.resize_mode, noun_of(sae)

    return remembered(("view", sae_id), ask)


def crops(sae_id: str, card: LatentCard, view: ResizeMode) -> str:
    """Four examples with heatmaps, as HTML; they load when they come into view."""
    images = "".join(
        f'<img loading="lazy" src="{escape(example_url(sae_id, card.summary.latent, rank, example, view))}" '
        f'alt="example {rank + 1} of latent {card.summary.latent}" title="activation {example.value:.2f}">'
        for rank, example in enumerate(card.examples[:N_EXAMPLES])
    )
    return f'<div class="fu-crops">{images}</div>'


def card_html(sae_id: str, found: LatentAttribution, about: Known, unit: str) -> str:
    """The part of a card that is looked at."""
    name = escape(about.name(found.latent))
    effect = found.measured_effect
    way = "" if effect is None else ("fu-info" if effect > 0 else "fu-bad")
    card = about.cards.get(found.latent)
    rate = f"<span>fires on {percent(card.summary.image_rate)} of images</span>" if card else ""
    return (
        f'<div class="fu-card-head"><b title="{name}">{name}</b>{about.mark(found.latent)}</div>'
        f'<div class="fu-scores fu-num"><span>score <b>{signed(found.score)}</b></span>'
        f'<span class="{way}" title="{escape(unit)} with it minus without it, by running the model">'
        f"measured <b>{signed(effect)}</b></span></div>"
        f'<div class="fu-scores fu-quiet">{rate}<span>{found.n_tokens_active} tokens here</span></div>'
        + (crops(sae_id, card, about.view) if card else "")
    )


def labels_note(about: Known) -> None:
    """What to do where nothing is described yet."""
    if not about.cards and about.noun == "latent":  # units of a layer are not described
        st.caption(
            "No examples yet: describe this SAE on a data set under **Models & SAEs**, and each latent shows the images "
            "on which it fires."
        )
