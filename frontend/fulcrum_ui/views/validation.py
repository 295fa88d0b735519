"""Validation: what a correction fixes and what it breaks on a data set; what can be shown is said before it is run."""

from collections.abc import Callable
from html import escape
from itertools import islice
from typing import Literal

import streamlit as st

from fulcrum.client import Client
from fulcrum.domain.errors import FulcrumError, NotFound
from fulcrum.domain.evaluations import Evaluation, EvaluationPlan
from fulcrum.domain.jobs import SplitName
from fulcrum.domain.records import CorrectionRecord, DatasetRecord, EvaluationRecord, ImageSetRecord
from fulcrum_ui import go, troubles
from fulcrum_ui.parts import dose_report, image_sets, job_progress, job_results, report_tabs
from fulcrum_ui.parts.columns import columns_of
from fulcrum_ui.parts.evidence_badges import verdict_badge
from fulcrum_ui.parts.sharing import share
from fulcrum_ui.parts.words import ago, badge, number, plain
from fulcrum_ui.parts.writing import write_button
from fulcrum_ui.visitor import SHORT_S, remembered, visitor

_SPLITS: dict[SplitName, str] = {
    "select": "select: for choosing, each look is counted",
    "confirm": "confirm: once for each version, this is the proof",
    "discover": "discover: where it was found, proves nothing",
}
_PAST = 40
_DOSES = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)


def page() -> None:
    """The page."""
    client = visitor().client
    query = st.query_params
    if query.get("evaluation"):
        _one(client, query["evaluation"])
        return
    st.title("Validation", anchor=False)
    corrections = list(client.corrections.list())
    datasets = [d for d in client.datasets.list() if d.n_images]
    if not corrections:
        st.info("There is no correction to validate yet: make one on the bench.")
        go.link("debug", "To the bench", icon="science")
        return
    if not datasets:
        st.info("A correction is proven on a data set, and there is none with images yet.")
        go.link("datasets", "Import one", icon="photo_library")
        return
    left, right = st.columns([5, 4], gap="large")
    with left:
        tabs = st.tabs(
            ["Validate one", "How do several act together?"], key="validation-new", on_change="rerun"
        )
        with tabs[0]:
            if tabs[0].open:
                _new(client, corrections, datasets)
        with tabs[1]:
            if tabs[1].open:
                _together(client, corrections, datasets)
        job = query.get("job")
        if job:
            _running(client, job)
    with right:
        _past(client, corrections, datasets)


def _new(client: Client, corrections: list[CorrectionRecord], datasets: list[DatasetRecord]) -> None:
    query = st.query_params
    ids = [c.id for c in corrections]
    wanted = query.get("correction", "")
    line = st.columns([3, 1])
    correction = line[0].selectbox(
        "Correction",
        corrections,
        ids.index(wanted) if wanted in ids else 0,
        format_func=lambda c: c.name,
        key="validate-correction",
    )
    version = line[1].selectbox("Version", range(correction.latest, 0, -1), key="validate-version")
    line = st.columns([3, 3])
    dataset = line[0].selectbox(
        "On the data set", datasets, format_func=lambda d: f"{d.name} ({d.n_images})", key="validate-dataset"
    )
    splits = [s for s in _SPLITS if s in dataset.n_by_split]
    split = line[1].selectbox(
        "Split", splits or list(_SPLITS), format_func=lambda s: _SPLITS[s], key="validate-split"
    )
    where, keep = _groups(columns_of(client, dataset))
    sets = _sets(client, dataset, split)
    try:
        plan = client.evaluations.plan(correction, dataset, split=split, number=version)
        _plan(plan, split)
    except FulcrumError as error:
        troubles.show(error, "plan")
        return
    line = st.columns([2, 2, 1.4], vertical_alignment="bottom")
    controls = line[2].number_input(
        "Controls",
        0,
        1000,
        100,
        20,
        key="validate-controls",
        help="Corrections of the same size made of other latents, or units: the gain must exceed theirs",
    )
    if write_button(
        "Validate",
        place=line[0],
        type="primary",
        icon=":material/fact_check:",
        width="stretch",
        key="validate-go",
    ):
        _start(
            lambda: (
                client.evaluations.validate(
                    correction,
                    dataset,
                    where=where,
                    split=split,
                    number=version,
                    same_cue_legitimate=keep,
                    image_sets=sets,
                    n_controls=int(controls),
                ).id
            )
        )
    if split != "confirm" and write_button(
        "Dose-response",
        place=line[1],
        icon=":material/show_chart:",
        width="stretch",
        key="sweep-go",
        help=f"{len(_DOSES)} gains of the whole correction: what is fixed and broken at each",
    ):
        _start(
            lambda: (
                client.evaluations.sweep(
                    correction,
                    dataset,
                    _DOSES,
                    where=where,
                    split="select" if split == "select" else "discover",
                    number=version,
                    n_controls=25,
                ).id
            )
        )


def _groups(columns: dict[str, list[str]]) -> tuple[dict[str, str] | None, dict[str, str] | None]:
    """The failure mode, and images with the same cue where it tells the truth."""
    if not columns:
        st.caption("The images carry no groups: the whole split is the failure mode.")
        return None, None
    line = st.columns(3)
    column = line[0].selectbox(
        "Failure mode: column",
        ["(the whole split)", *columns],
        key="validate-column",
    )
    if column not in columns:
        return None, None
    values = columns[column]
    value = line[1].selectbox("is", values, key=f"validate-value-{column}")
    rest = ["(none)", *(v for v in values if v != value)]
    keep = line[2].selectbox(
        "Same cue, rightly",
        rest,
        key=f"validate-keep-{column}-{value}",
        help="Images with the same cue where it is legitimate, such as a sticker with the right word: they must not break",
    )
    return {column: value}, (None if keep == "(none)" else {column: keep})


def _sets(client: Client, dataset: DatasetRecord, split: SplitName) -> list[ImageSetRecord]:
    """Image sets to judge. Invariant lists are chosen beforehand where the split has images of them: a list without
    one leaves its gate, and with it the verdict, undecided.
    """
    found = image_sets.sets_of(client, dataset.id)
    if not found:
        return []
    here = {s.id: s.n_by_split.get(split, 0) for s in found}
    chosen = st.multiselect(
        "Image sets to judge",
        found,
        [s for s in found if s.purpose == "invariant" and here[s.id]],
        # Without the number of images: a choice is kept by its words, and a gate would be lost with every image.
        format_func=lambda s: f"{s.name} ({s.purpose})",
        key=f"validate-sets-{dataset.id}-{split}",
        help="Each is a row of the slice table; an invariant list is a gate too: no answer on it may change",
    )
    if chosen:
        st.caption(
            " · ".join(f"{plain(s.name)}: {here[s.id]} of {number(s.n_images)} in {split}" for s in chosen)
        )
    if open_gates := [plain(s.name) for s in chosen if s.purpose == "invariant" and not here[s.id]]:
        st.caption(
            f"No image of {', '.join(open_gates)} is in {split}: it cannot be judged there, so leave it out."
        )
    return chosen


def _plan(plan: EvaluationPlan, split: str) -> None:
    with st.container(border=True):
        st.markdown("**What this can show**")
        mde = (
            "no change at all" if plan.mde is None else f"a change of **{100 * plan.mde:.1f} points** or more"
        )
        harm = (
            f"Harm below 1 % can be shown: {number(plan.images_for_harm)} images are needed for it."
            if plan.can_pass_harm
            else f"**Harm below 1 % cannot be shown**: that needs {number(plan.images_for_harm)} images, and here are {number(plan.n)}."
        )
        st.caption(
            f"{number(plan.n)} images show {mde} (80 % power). {harm} At most {number(plan.most_forward_images)} images are run: only those in which the correction acts."
        )
        if split == "confirm" and plan.next_look > 1:
            st.warning(
                f"This version was looked at on confirm {plan.next_look - 1} times already: the badge will say so.",
                icon=":material/visibility:",
            )
        elif split == "select" and plan.n_looks:
            st.caption(f"{plan.n_looks} looks at this split so far; the numbers are corrected for them.")


def _start(ask: Callable[[], str]) -> None:
    """`ask` gives the id of a job."""
    try:
        job = ask()
    except FulcrumError as error:
        troubles.show(error, "start")
        return
    st.query_params["job"] = job
    st.rerun()


def _running(client: Client, job_id: str) -> None:
    with st.container(border=True):
        try:
            job = client.jobs.get(job_id).job
        except NotFound:
            st.caption("The job of this address is not here any more.")
            return
        st.markdown(f"**{job_progress.kind_words(job.kind)}**")
        job_progress.watch(client, job_id, "validation")
        job_progress.link_to_result(job)
        job_results.show(client, job)
        st.caption("You may leave this page: the job goes on.")


def _together(client: Client, corrections: list[CorrectionRecord], datasets: list[DatasetRecord]) -> None:
    st.caption(
        "Two corrections that are harmless alone may break images together. Each pair is run on the same images."
    )
    picked = st.multiselect(
        "Corrections", corrections, format_func=lambda c: c.name, max_selections=8, key="together-corrections"
    )
    line = st.columns(2)
    dataset = line[0].selectbox(
        "On the data set", datasets, format_func=lambda d: d.name, key="together-data"
    )
    split: Literal["discover", "select"] = line[1].selectbox(
        "Split", ["select", "discover"], key="together-split"
    )
    if write_button("Try all pairs", type="primary", disabled=len(picked) < 2, key="together-go"):
        _start(lambda: client.evaluations.interactions(picked, dataset, split=split).id)


def _past(client: Client, corrections: list[CorrectionRecord], datasets: list[DatasetRecord]) -> None:
    st.subheader("Past evaluations", anchor=False)
    names, sets = {c.id: c.name for c in corrections}, {d.id: d.name for d in datasets}
    found = list(islice(client.evaluations.list(), _PAST))
    if not found:
        st.caption("None yet.")
    for e in found:
        with st.container(border=True):
            row = st.columns([5, 1.1], vertical_alignment="center")
            what = verdict_badge(e) if e.kind == "validation" else badge("dose-response", "info")
            row[0].html(
                f"<b>{escape(names.get(e.correction_id, 'a deleted correction'))}</b> {what}<br><span class='fu-quiet'>"
                f"{escape(sets.get(e.dataset_id, 'a deleted data set'))}, {escape(e.split)} · {ago(e.created_at)}</span>"
            )
            with row[1]:
                go.link("validation", "Open", evaluation=e.id)


def _one(client: Client, evaluation_id: str) -> None:
    if st.button("All evaluations", icon=":material/arrow_back:", type="tertiary"):
        go.write({})
        st.rerun()
    try:
        found: Evaluation = remembered(
            ("evaluations", evaluation_id), lambda: client.evaluations.get(evaluation_id), for_s=SHORT_S
        )  # it may become stale meanwhile
    except NotFound:
        st.warning("This evaluation is not here (any more).")
        return
    record = found.record
    name = _name(client, record)
    line = st.columns([6, 1.2], vertical_alignment="center")
    line[0].title(plain(name), anchor=False)
    with line[1]:
        share()
    dataset = next(
        (d.name for d in client.datasets.list() if d.id == record.dataset_id), "a deleted data set"
    )
    look = f", look {record.look}" if record.look else ""
    st.caption(f"Version {record.number} on {dataset}, {record.split}{look} · {ago(record.created_at)}")
    if found.changes:
        changes = "; ".join(f"{c.part} was {c.then[:12]}, is {c.now[:12]}" for c in found.changes)
        st.warning(f"Stale: {changes}. Validate again to know what holds now.", icon=":material/history:")
    if record.kind == "sweep":
        dose_report.sweep(client, found)
        return
    report_tabs.validation(client, found, name, dataset)


def _name(client: Client, record: EvaluationRecord) -> str:
    try:
        return client.corrections.get(record.correction_id).name
    except NotFound:
        return "A deleted correction"
