"""What else moved inside the model on images of a flip board: asked for a few ticked ones, shown on their cards."""

from collections.abc import Sequence

import streamlit as st

from fulcrum.client import Client
from fulcrum.domain.errors import FulcrumError
from fulcrum.domain.evaluations import Evaluation
from fulcrum.domain.tasks import ClassSet
from fulcrum_ui import troubles
from fulcrum_ui.parts.latent_cards import known
from fulcrum_ui.parts.words import number, signed
from fulcrum_ui.parts.writing import write_button
from fulcrum_ui.visitor import forget, remembered

MOST_ASKED = 6  # each is a steered pass with its re-encoding, and an image that is opened
_SHOWN = 3

Moved = tuple[tuple[int, float], ...]


def captions(found: Evaluation) -> dict[str, str]:
    """A line for each image that was asked about."""
    texts: dict[str, str] = st.session_state.get(_key(found), {})
    return texts


def ask_button(client: Client, found: Evaluation, ids: Sequence[str]) -> None:
    """Asks for the ticked images; the cards show it from the next run of the fragment on."""
    new = [i for i in ids if i not in captions(found)]
    if not ids or not found.report.get("provenance", {}).get("class_names"):
        return
    if not write_button(
        "What moved in them",
        icon=":material/query_stats:",
        key=f"moved-{found.record.id}",
        disabled=not new or len(new) > MOST_ASKED,
        help=f"Latents that nobody edited and whose maximum changed most, for up to {MOST_ASKED} images",
    ):
        return
    try:
        with st.spinner(f"Running {number(len(new))} images …"):
            answers = {sample: _moved(client, found, sample) for sample in new}
            sae = client.corrections.get(found.record.correction_id).sae_id
            about = known(client, sae, sorted({n for m in answers.values() for n, _ in m})) if sae else None
    except FulcrumError as error:
        troubles.show(error, "moved")
        return
    texts = {
        sample: "\n".join(
            f"{about.name(n) if about else f'latent {n}'} {signed(change)}" for n, change in moved
        )
        or "no other latent moved"
        for sample, moved in answers.items()
    }
    forget("recent")  # they were opened
    st.session_state[_key(found)] = captions(found) | texts
    st.rerun(scope="fragment")


def _moved(client: Client, found: Evaluation, sample: str) -> Moved:
    record, provenance = found.record, found.report["provenance"]

    def ask() -> Moved:
        image = client.datasets.open_image(record.dataset_id, sample, digest=record.dataset_digest)
        version = client.corrections.version(record.correction_id, record.number)
        names, templates = provenance["class_names"], provenance.get("templates")
        task = ClassSet(tuple(names), tuple(templates)) if templates else ClassSet(tuple(names))
        sae = client.corrections.get(record.correction_id).sae_id
        tried = client.steer(image, version.correction, task, sae=sae, n_controls=0)
        return tried.effect.diagnostics.moved_latents[:_SHOWN]

    return remembered(("moved", record.id, sample), ask)


def _key(found: Evaluation) -> str:
    return f"moved-latents-{found.record.id}"
