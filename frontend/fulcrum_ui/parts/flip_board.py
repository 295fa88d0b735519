"""The flip board: images by what a correction did to them, each a click away from the bench."""

from itertools import islice
from typing import Any

import streamlit as st

from fulcrum.client import Client
from fulcrum.domain.evaluations import Evaluation, FlipFilter, FlippedImage, Outcome
from fulcrum.domain.records import EvaluationRecord
from fulcrum_ui import go
from fulcrum_ui.bench_state import BENCH_NOTE, of_correction
from fulcrum_ui.parts import image_sets, keeping, looking, moved_latents
from fulcrum_ui.parts.gallery import Items, gallery, ticked, ticked_gallery
from fulcrum_ui.parts.words import number, plain, signed
from fulcrum_ui.parts.writing import refusal
from fulcrum_ui.pictures import sample_url
from fulcrum_ui.visitor import forget, remembered

_OUTCOMES: dict[str, Outcome] = {
    "Broken": "broken",
    "Fixed": "fixed",
    "Moved": "moved",
    "Still wrong": "still_wrong",
    "Still right": "still_right",
}
_CHANGED = "Changed"  # any other answer: fixed, broken, moved, and without a label
_PER_PAGE, _MOST_OF_A_CLASS = 60, 2000
_ALL = "all images"


def changed_of_set(record: EvaluationRecord, name: str) -> dict[str, str]:
    """The address of the flip board with the images of a judged set whose answer is another one."""
    return {"evaluation": record.id, "part": "Flip board", "outcome": _CHANGED, "only": f"set={name}"}


def flip_board(client: Client, found: Evaluation, report: dict[str, Any]) -> None:
    """The page of an evaluation."""
    record = found.record
    line = st.columns([6, 3, 1.8], vertical_alignment="center")
    counts = _counts(report["overall"])
    with line[0]:
        shown = keeping.segments(
            list(counts),
            "outcome",
            "Broken" if counts["Broken"] else "Fixed",
            format_func=lambda o: f"{o} ({number(counts[o])})",
            label_visibility="collapsed",
            width="stretch",
        )
    columns = {g["group"]["name"] for g in [*report.get("groups", ()), *report.get("classes", ())]}
    sets = [f"set={s['name']}" for s in report.get("image_sets", ()) if s["evaluated"]]
    with line[1]:
        where = keeping.choice([_ALL, *sets, *sorted(columns)], "only")
    everything = keeping.switch(
        "Also not judged",
        "unjudged",
        help="Images on which it was found, or that leaked, prove nothing and are left out",
        place=line[2],
    )
    only = () if where == _ALL else (where,)
    _cards(
        client, found, FlipFilter(record.id, _OUTCOMES.get(shown), only, not everything, shown == _CHANGED)
    )


def _counts(overall: dict[str, Any]) -> dict[str, int]:
    """Images of each choice, in their order; in the report those that moved are among the still wrong."""
    n = {k: int(overall.get(k, 0)) for k in (*_OUTCOMES.values(), "changed_unlabelled")}
    n["still_wrong"] -= n["moved"]
    changed = n["broken"] + n["fixed"] + n["moved"] + n["changed_unlabelled"]
    return {_CHANGED: changed} | {words: n[outcome] for words, outcome in _OUTCOMES.items()}


@st.fragment  # a tick runs nothing but this
def _cards(client: Client, found: Evaluation, wanted: FlipFilter) -> None:
    record = found.record
    n = st.session_state.get("flips-shown", _PER_PAGE)
    images: list[FlippedImage] = remembered(
        ("evaluations", record.id, "images", wanted, n),
        lambda: list(
            islice(
                client.evaluations.images(
                    record,
                    outcome=wanted.outcome,
                    where=wanted.where[0] if wanted.where else None,
                    evaluated_only=wanted.evaluated_only,
                    changed_only=wanted.changed_only,
                ),
                n + 1,
            )
        ),
    )
    if not images:
        st.info("No image here. For *broken*, that is good news.")
        return
    bar = st.container()
    to = "open it on the bench with this correction" if refusal() is None else "look at it closer"
    st.caption(f"By change of margin, largest first. Click an image to {to}.")
    moved = moved_latents.captions(found)
    items = [
        (
            f.id,
            sample_url(record.dataset_id, f.id, record.dataset_digest),
            f"{f.base} → {f.corrected}\n{f.label or 'no label'} · margin {signed(f.margin_change)}"
            + (f"\n{', '.join(f.sets)}" if f.sets else "")
            + (f"\n{moved[f.id]}" if f.id in moved else ""),
        )
        for f in images[:n]
    ]
    key = f"flips-{record.id}"
    taken = ticked_gallery(key, items, height=560)
    with bar:
        shown = [i[0] for i in items]
        image_sets.keep_bar(client, record.dataset_id, key, shown, flips=wanted, record=record)
        moved_latents.ask_button(client, found, ticked(key))
    if len(images) > n:
        st.button("More images", on_click=_show, args=(n + _PER_PAGE,))
    if taken is not None:
        _take(client, found, taken, items)


def _show(n: int) -> None:
    st.session_state["flips-shown"] = n


def images_of_cell(client: Client, found: Evaluation, label: str, answer: str) -> None:
    """Images of a label that left an answer, or came to it."""
    st.markdown(f"**{plain(label)}, to or from {plain(answer)}**")
    whole: list[FlippedImage] = remembered(
        ("evaluations", found.record.id, "label", label),
        lambda: list(
            islice(client.evaluations.images(found.record, where=f"class={label}"), _MOST_OF_A_CLASS)
        ),
    )
    moved = [f for f in whole if f.base != f.corrected and answer in (f.base, f.corrected)]
    items = [
        (
            f.id,
            sample_url(found.record.dataset_id, f.id, found.record.dataset_digest),
            f"{f.base} → {f.corrected}\nmargin {signed(f.margin_change)}",
        )
        for f in moved[:_PER_PAGE]
    ]
    taken = gallery("cell-images", items, height=320)
    if taken is not None:
        _take(client, found, taken, items)


def _take(client: Client, found: Evaluation, taken: str, items: Items) -> None:
    """To the bench; or, for who may not ask there, closer."""
    if refusal() is None:
        _to_bench(client, found, taken)
        return
    record, caption = found.record, next(words for id, _, words in items if id == taken)
    looking.look(sample_url(record.dataset_id, taken, record.dataset_digest, 512), caption, taken)


def _to_bench(client: Client, found: Evaluation, sample: str) -> None:
    """The image as it was judged, with the correction that was judged, under its prompts."""
    record, provenance = found.record, found.report.get("provenance", {})
    image = client.datasets.open_image(record.dataset_id, sample, digest=record.dataset_digest)
    version = client.corrections.version(record.correction_id, record.number)
    bench, missing = of_correction(
        version.correction,
        image.id,
        client.corrections.get(record.correction_id).sae_id,
        tuple(provenance.get("class_names", ())),
        tuple(provenance.get("templates", ())),
        f"{record.correction_id}.{record.number}",
    )
    forget("recent")
    if missing is not None:
        st.session_state[BENCH_NOTE] = f"The image is here without the correction: {missing}."
    go.switch("debug", **bench.to_query())
