"""Which language model is searched, and which of its layers."""

from collections.abc import Sequence
from dataclasses import dataclass

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from fulcrum.domain.errors import UnknownModel
from fulcrum.domain.jobs import FindExperts
from fulcrum.domain.language_models import check_language_model
from fulcrum.domain.records import ExpertsRecord, ModelRecord

_ALL, _BY_NAME = "all linear layers", "by name"
_LAYERS: dict[str, tuple[str, ...]] = {
    _ALL: (),
    "of the MLPs": ("mlp",),
    "of attention": ("attention",),
}
_BESIDE_WORDS = 3  # tokens of a text besides its words: begin, end, class


@dataclass(frozen=True)
class LanguageAim:
    """A reference as a search takes it, "" before one is given."""

    reference: str = ""
    layers: tuple[str, ...] = ()

    @staticmethod
    def of(spec: FindExperts) -> "LanguageAim | None":
        """What an earlier search was asked with; None where it was in a tower."""
        return None if spec.language_model is None else LanguageAim(spec.language_model, spec.layers)

    def trouble(self) -> str:
        """Why it cannot be searched, "" when it can."""
        if not self.reference:
            return "Name the language model."
        try:
            check_language_model(self.reference)
        except UnknownModel:
            return "A language model is named folder:NAME/SUB or hf-hub:OWNER/NAME."
        return ""


def choose_language_model(
    place: DeltaGenerator, searches: Sequence[ExpertsRecord], aim: LanguageAim, times: int
) -> LanguageAim:
    """Asks for it, beginning with `aim`; those of earlier searches are offered."""
    known = list(dict.fromkeys([aim.reference, *(s.language_model for s in searches)]))
    offered = [reference for reference in known if reference]
    reference = place.selectbox(
        "Language model",
        offered,
        0 if offered else None,
        placeholder="folder:NAME/SUB or hf-hub:OWNER/NAME",
        accept_new_options=True,
        key=f"draft-language-{times}",
        help="A model of transformers, causal or encoder, on the workers' machine: below a folder that the administrator "
        "named in FULCRUM_WORKER_FOLDERS, or fetched from the hub before. Nothing is fetched, no code of it is run.",
    )
    ways = [*_LAYERS, _BY_NAME]
    first = next((way for way, layers in _LAYERS.items() if layers == aim.layers), _BY_NAME)
    line = st.columns([3, 2], vertical_alignment="bottom")
    way = line[0].selectbox("Its units", ways, ways.index(first), key=f"draft-layers-{times}")
    layers = _LAYERS.get(way, ())
    if way == _BY_NAME:
        names = line[1].text_input(
            "Layers",
            " ".join(aim.layers),
            placeholder="h.3.mlp.*",
            key=f"draft-layer-names-{times}",
            help="Names with * for anything, and a space between two",
        )
        layers = tuple(names.split())
    return LanguageAim((reference or "").strip(), layers)


def shortest_context(models: Sequence[ModelRecord]) -> int | None:
    """Bytes of a sentence that every text tower here reads: no tokenizer makes more tokens than bytes."""
    contexts = [m.info.text_context_length for m in models if m.info is not None]
    return min(contexts) - _BESIDE_WORDS if contexts else None
