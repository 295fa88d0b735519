"""Keeping images that somebody ticked: as a slice (a tag) to be judged, or as a list that must keep its answers."""

from collections.abc import Sequence

import streamlit as st

from fulcrum.client import Client
from fulcrum.domain.errors import AlreadyExists, FulcrumError
from fulcrum.domain.evaluations import FlipFilter
from fulcrum.domain.image_sets import ImageSetPurpose
from fulcrum.domain.jobs import ValidateCorrection
from fulcrum.domain.records import EvaluationRecord, ImageSetRecord
from fulcrum_ui import go
from fulcrum_ui.parts.gallery import tick, ticked
from fulcrum_ui.parts.words import number, plain
from fulcrum_ui.parts.writing import write_button
from fulcrum_ui.visitor import forget, remembered

PURPOSES: dict[ImageSetPurpose, str] = {"slice": "Slice or tag", "invariant": "Invariant list"}
_MEANING: dict[ImageSetPurpose, str] = {
    "slice": "A row of the slice table of every validation that is asked to judge it.",
    "invariant": "A gate: a correction fails it as soon as it changes the model's answer on one of these images.",
}
_SHORT_S = 10.0  # a colleague's new set is seen soon
_KEPT = "kept-image-set"


def sets_of(client: Client, dataset_id: str) -> tuple[ImageSetRecord, ...]:
    """The image sets of a data set, newest first."""
    return remembered(
        ("image-sets", dataset_id),
        lambda: tuple(client.image_sets.list(dataset=dataset_id)),
        for_s=_SHORT_S,
    )


def purpose_badge(purpose: ImageSetPurpose) -> tuple[str, str]:
    """Word and kind of a badge."""
    return ("invariant", "info") if purpose == "invariant" else ("slice", "plain")


def keep_bar(
    client: Client,
    dataset_id: str,
    key: str,
    shown: Sequence[str],
    *,
    flips: FlipFilter | None = None,
    record: EvaluationRecord | None = None,
    within: ImageSetRecord | None = None,
) -> None:
    """What can be done with the ticked images of the gallery `key`; `flips` are all that its filter finds, `within` is
    the set whose images it shows.

    Belongs below the gallery in the script, and may stand in a container above it.
    """
    ids = ticked(key)
    line = st.columns([2.6, 1.5, 1.2, 1.9, 0.9], vertical_alignment="center")
    elsewhere = len(set(ids) - set(shown))
    if ids:
        more = f", {number(elsewhere)} of them not shown here" if elsewhere else ""
        line[0].markdown(f"**{number(len(ids))} selected**{more}")
    else:
        line[0].caption("Tick images to keep them as a set.")
    if write_button(
        "Save as set…",
        place=line[1],
        key=f"keep-{key}",
        icon=":material/bookmark_add:",
        type="primary" if ids else "secondary",
        disabled=not ids,
        width="stretch",
    ):
        _begin()
        _keep_dialog(client, dataset_id, ids, None, key, record)
    line[2].button(
        "Select shown",
        key=f"keep-shown-{key}",
        width="stretch",
        help="All images below",
        on_click=tick,
        args=(key, [*ids, *shown]),
    )
    if flips is not None and write_button(
        "Save all of this filter…",
        place=line[3],
        key=f"keep-all-{key}",
        width="stretch",
        help="Also those that are not shown yet",
    ):
        _begin()
        _keep_dialog(client, dataset_id, (), flips, key, record)
    if within is not None and write_button(
        "Take out of this set",
        place=line[3],
        key=f"keep-out-{key}",
        width="stretch",
        disabled=not ids,
        help=f"Out of {within.name}; they stay selected, so that they can be put back",
    ):
        _take_out(client, within, ids)
    if ids:
        line[4].button("Clear", key=f"keep-none-{key}", width="stretch", on_click=tick, args=(key, ()))


def _take_out(client: Client, within: ImageSetRecord, ids: Sequence[str]) -> None:
    forget("image-sets")  # also where somebody else changed it meanwhile
    try:
        inside = set(client.image_sets.images(within))
        out = [i for i in ids if i in inside]
        if not out:
            st.info("None of the selected images is in this set.")
            return
        client.image_sets.update(within, remove=out)
    except FulcrumError as error:
        st.error(plain(str(error)))
        return
    forget("samples")
    st.rerun()


def _begin() -> None:
    """Forgets the last one, so that the dialog asks again."""
    st.session_state.pop(_KEPT, None)


@st.dialog("Keep these images", on_dismiss="rerun")
def _keep_dialog(
    client: Client,
    dataset_id: str,
    ids: tuple[str, ...],
    flips: FlipFilter | None,
    key: str,
    record: EvaluationRecord | None,
) -> None:
    kept: ImageSetRecord | None = st.session_state.get(_KEPT)
    if kept is not None:
        _after(client, kept, record)
        return
    st.caption(_what(ids, flips))
    existing = sets_of(client, dataset_id)
    into: ImageSetRecord | None = None
    if existing:
        into = st.selectbox(
            "Into",
            [None, *existing],
            format_func=lambda s: "a new set" if s is None else f"{s.name} ({PURPOSES[s.purpose].lower()})",
            key=f"keep-into-{key}",
        )
    purpose: ImageSetPurpose = "slice" if into is None else into.purpose
    name = note = ""
    if into is None:
        purpose = (
            st.segmented_control(
                "As",
                list(PURPOSES),
                default="slice",
                format_func=lambda p: PURPOSES[p],
                key=f"keep-as-{key}",
                width="stretch",
            )
            or "slice"
        )
        st.caption(_MEANING[purpose])
        name = st.text_input("Name", max_chars=120, placeholder="stop signs at night", key=f"keep-name-{key}")
        note = st.text_area("Why these", max_chars=2000, height=80, key=f"keep-note-{key}")
    else:
        st.caption(f"{number(into.n_images)} images are in it. {_MEANING[purpose]}")
    if not write_button(
        "Save",
        type="primary",
        disabled=into is None and not name.strip(),
        width="stretch",
        key=f"keep-go-{key}",
    ):
        return
    try:
        if into is None:
            kept = client.image_sets.create(
                dataset_id, name.strip(), ids, purpose=purpose, note=note.strip(), flips=flips
            )
        else:
            kept = client.image_sets.update(into, add=ids, add_flips=flips)
    except AlreadyExists:
        st.error(f"This data set has a set named {plain(repr(name.strip()))} already: take another name.")
    except FulcrumError as error:
        forget("image-sets")  # perhaps somebody else changed the one that is chosen
        st.error(plain(str(error)))
    else:
        forget("image-sets", "samples")
        st.session_state[_KEPT] = kept
        if flips is None:
            tick(key, ())
        st.rerun(scope="fragment")


def _what(ids: tuple[str, ...], flips: FlipFilter | None) -> str:
    if flips is None:
        return f"{number(len(ids))} images."
    any_outcome = "changed in any way" if flips.changed_only else "any outcome"
    outcome = (flips.outcome or any_outcome).replace("_", " ")
    where = f" with {plain(', '.join(flips.where))}" if flips.where else ""
    judged = ", judged or not" if not flips.evaluated_only else ""
    return f"All images of this flip board that are {outcome}{where}{judged}."


def _after(client: Client, kept: ImageSetRecord, record: EvaluationRecord | None) -> None:
    st.success(
        f"**{plain(kept.name)}** holds {number(kept.n_images)} images now.", icon=":material/bookmark_added:"
    )
    go.link("datasets", "Look at them", icon="photo_library", dataset=kept.dataset_id, set=kept.id)
    if record is None:
        return
    look = (
        "It is another look at confirm, and the badge will say so."
        if record.split == "confirm"
        else "Nothing is computed twice; it counts as a look."
        if record.split == "select"
        else "Nothing is computed twice."
    )
    st.caption(f"The question of this evaluation can be asked again with the set. {look}")
    if write_button(
        "Validate again with it", icon=":material/fact_check:", width="stretch", key="keep-again"
    ):
        try:
            job = _asked_again(client, kept, record)
        except FulcrumError as error:
            st.error(plain(str(error)))
            return
        go.write({"job": job})
        st.rerun()


def _asked_again(client: Client, kept: ImageSetRecord, record: EvaluationRecord) -> str:
    """The job of the same question with one set more; those that are gone are left out."""
    spec = client.jobs.get(record.job_id).job.spec
    assert isinstance(spec, ValidateCorrection)  # a flip board is of a validation
    alive = {s.id for s in client.image_sets.list(dataset=record.dataset_id)}
    sets = [s.id for s in spec.image_sets if s.id in alive and s.id != kept.id]
    return client.evaluations.validate(
        spec.correction_id,
        spec.dataset_id,
        where={c.column: c.value for c in spec.where},
        split=spec.split,
        number=spec.number,
        same_cue_legitimate={c.column: c.value for c in spec.same_cue_legitimate},
        specification=spec.specification,
        concept_bank=spec.concept_bank,
        image_sets=[*sets, kept.id],
        n_controls=spec.n_controls,
        task=spec.task,
        seed=spec.seed,
    ).id
