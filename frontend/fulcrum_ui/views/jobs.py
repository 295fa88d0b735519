"""Jobs: what runs, what waits, and how it ended."""

from collections.abc import Mapping
from html import escape
from itertools import islice

import streamlit as st

from fulcrum.client import Client
from fulcrum.domain.errors import NotFound
from fulcrum.domain.jobs import FINISHED, JobRecord
from fulcrum_ui import go
from fulcrum_ui.parts import job_progress, job_results
from fulcrum_ui.parts.job_subjects import names_of, subject
from fulcrum_ui.parts.words import ago, badge, duration, plain
from fulcrum_ui.visitor import Visitor, visitor

_PER_PAGE = 20
_EVERY_S = 2.0
_FILTERS = {"All": None, "Running": "running", "Queued": "queued", "Failed": "failed"}


def page() -> None:
    """The page."""
    who = visitor()
    chosen = st.query_params.get("job")
    if chosen:
        _one(who.client, chosen)
        return
    st.title("Jobs", anchor=False)
    line = st.columns([3, 2, 4], vertical_alignment="center")
    state = line[0].segmented_control(
        "State",
        list(_FILTERS),
        default="All",
        label_visibility="collapsed",
        key="jobs-state",
        width="stretch",
    )
    mine = line[1].toggle("Only mine", key="jobs-mine")
    st.fragment(_list, run_every=_EVERY_S)(who, state or "All", mine)


def _list(who: Visitor, state: str, mine: bool) -> None:
    shown = st.session_state.get("jobs-shown", _PER_PAGE)
    found = list(
        islice(
            who.client.jobs.list(state=_FILTERS[state], created_by=who.user if mine else None),  # type: ignore[arg-type]  # its words
            shown + 1,
        )
    )
    if not found:
        st.info(
            "Nothing here. Imports, validations and training appear in this list, whoever of the project started them."
        )
        return
    names = names_of(who.client)
    for job in found[:shown]:
        _row(job, names)
    if len(found) > shown and st.button("Older ones"):
        st.session_state["jobs-shown"] = shown + _PER_PAGE
        st.rerun(scope="fragment")


def _row(job: JobRecord, names: Mapping[str, str]) -> None:
    about = subject(job.spec, names)
    with st.container(border=True):
        row = st.columns([3, 1.4, 4.4, 1], vertical_alignment="center")
        row[0].html(
            f"<b>{escape(job_progress.kind_words(job.kind))}</b><br>"
            f"<span class='fu-quiet'>{escape(about) + ' · ' if about else ''}{ago(job.created_at)}</span>"
        )
        row[1].html(badge(job.state, job_progress.STATES[job.state]))
        with row[2]:
            progress = job.progress
            if job.state == "running" and progress is not None and progress.total > 0:
                left = "" if progress.eta_s is None else f", {duration(progress.eta_s)} left"
                st.progress(min(1.0, progress.done / progress.total), text=f"{progress.what}{left}")
            elif job.error:
                st.caption(plain(job.error.partition(": ")[2] or job.error))
            elif job.state == "queued":
                st.caption("waits for another job" if job.after else "waits for a worker")
            elif job.started_at and job.finished_at:
                st.caption(f"took {duration((job.finished_at - job.started_at).total_seconds())}")
        if row[3].button("Open", key=f"open-{job.id}", width="stretch"):
            st.query_params["job"] = job.id
            st.rerun()


def _one(client: Client, job_id: str) -> None:
    if st.button("All jobs", icon=":material/arrow_back:", type="tertiary"):
        go.write({})
        st.rerun()
    try:
        job = client.jobs.get(job_id).job
    except NotFound:
        st.warning("This job is not here (any more): finished jobs are kept for a while only.")
        return
    st.title(job_progress.kind_words(job.kind), anchor=False)
    about = subject(job.spec, names_of(client))
    st.caption(f"{plain(about) + ' · ' if about else ''}{job.id} · asked for {ago(job.created_at)}")
    job_progress.watch(client, job_id, "one")
    job_progress.link_to_result(job)
    job_results.show(client, job)
    every = None if job.state in FINISHED else _EVERY_S
    if job.kind != "suggest_correction" or job.state not in FINISHED:  # its path is part of what it found
        st.fragment(job_progress.curves, run_every=every)(client, job_id)
    left, right = st.columns([3, 2], gap="large")
    with left:
        st.subheader("Log", anchor=False)
        st.fragment(job_progress.log, run_every=every)(client, job_id)
    with right:
        st.subheader("What was asked", anchor=False)
        st.json(_plain(job.spec), expanded=1)
        if job.result and job.state in FINISHED:
            st.subheader("What came out", anchor=False)
            st.json(_plain(job.result), expanded=1)


def _plain(value: object) -> object:
    from fulcrum.domain.codec import to_json

    return to_json(value)
