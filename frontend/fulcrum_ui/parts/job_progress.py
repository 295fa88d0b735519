"""A job as it goes: what it does, how far, how fast, and how it ended."""

from collections.abc import Callable

import pandas as pd
import streamlit as st

from fulcrum.client import Client
from fulcrum.domain.errors import FulcrumError
from fulcrum.domain.jobs import FINISHED, JobRecord, JobStanding
from fulcrum_ui import charts, go, troubles
from fulcrum_ui.parts.words import duration, number, plain
from fulcrum_ui.parts.writing import write_button
from fulcrum_ui.visitor import forget

KINDS = {
    "import_dataset": "Import images",
    "index_dataset": "Index a data set",
    "train_sae": "Train an SAE",
    "describe_concepts": "Describe latents",
    "validate_correction": "Validate a correction",
    "sweep_correction": "Dose-response on a data set",
    "suggest_correction": "Search a correction",
    "interact_corrections": "Interactions of corrections",
    "find_experts": "Find experts",
}
STATES = {"queued": "plain", "running": "info", "succeeded": "good", "failed": "bad", "cancelled": "plain"}
_EVERY_S = 1.0


def kind_words(kind: str) -> str:
    """What a job does."""
    return KINDS.get(kind, kind.replace("_", " "))


def watch(client: Client, job_id: str, key: str) -> None:
    """The job, looked at each second until it ends; then the whole page is drawn anew."""
    shown = st.session_state.get(f"job-ended-{key}") == job_id
    st.fragment(_watch, run_every=None if shown else _EVERY_S)(client, job_id, key)


def _watch(client: Client, job_id: str, key: str) -> None:
    try:
        standing = client.jobs.get(job_id)
    except FulcrumError as error:
        troubles.show(error, f"job-{key}")
        return
    show(client, standing, key)
    if standing.job.state in FINISHED and st.session_state.get(f"job-ended-{key}") != job_id:
        st.session_state[f"job-ended-{key}"] = job_id
        forget("datasets", "samples", "known", "evaluations", "descriptions", "map", "latents")
        st.rerun()


def show(client: Client, standing: JobStanding, key: str) -> None:
    """One look at it."""
    job = standing.job
    line = st.columns([5, 1.2], vertical_alignment="center")
    with line[0]:
        _bar(standing)
    with line[1]:
        if job.state in ("queued", "running"):
            if job.cancel_requested:
                st.caption("stopping …")
            elif write_button("Cancel", key=f"cancel-{key}", width="stretch", icon=":material/stop_circle:"):
                _act(client.jobs.cancel, job)
        elif job.state in ("failed", "cancelled") and write_button(
            "Try again", key=f"retry-{key}", width="stretch", icon=":material/refresh:"
        ):
            st.session_state.pop(f"job-ended-{key}", None)
            _act(client.jobs.retry, job)
    if job.error:
        reason, _, words = job.error.partition(": ")
        st.error(plain(words or reason), icon=":material/error:")


def _act(what: Callable[[JobRecord], JobRecord], job: JobRecord) -> None:
    try:
        what(job)
    except FulcrumError as error:
        st.toast(str(error))
    st.rerun()


def _bar(standing: JobStanding) -> None:
    job, progress = standing.job, standing.job.progress
    took = None
    if job.started_at and job.finished_at:
        took = (job.finished_at - job.started_at).total_seconds()
    match job.state:
        case "succeeded":
            reused = (
                f", {job.n_shards_reused} of {job.n_shards} parts known from before"
                if job.n_shards_reused
                else ""
            )
            st.markdown(f":green[:material/check_circle:] Done in {duration(took)}{reused}")
        case "failed":
            st.markdown(":red[:material/error:] Failed")
        case "cancelled":
            st.markdown(":gray[:material/cancel:] Cancelled")
        case "queued" if job.after:
            st.progress(0.0, text="Waits for another job")
        case "queued":
            place = "" if standing.position is None else f", place {standing.position}"
            st.progress(0.0, text=f"In the queue{place}")
        case _ if progress is None or progress.total <= 0:
            st.progress(0.0, text="Begins …")
        case _:
            rate = (
                ""
                if progress.rate_per_s is None
                else f", {number(progress.rate_per_s, 1)} {progress.unit} a second"
            )
            left = "" if progress.eta_s is None else f", {duration(progress.eta_s)} left"
            words = (
                f"{progress.what}: {progress.done:.0f} of {progress.total:.0f} {progress.unit}{rate}{left}"
            )
            st.progress(min(1.0, progress.done / progress.total), text=words[:1].upper() + words[1:])


def log(client: Client, job_id: str) -> None:
    """What it said."""
    lines = list(client.jobs.log(job_id))
    if not lines:
        st.caption("It has not said anything yet.")
        return
    text = "\n".join(
        f"{e.at:%H:%M:%S}  {e.content.get('level', 'info'):<7} {e.content.get('text', '')}"
        for e in lines[-400:]
    )
    st.code(text, language=None, height=280)


def curves(client: Client, job_id: str) -> None:
    """Its curves, where it has some."""
    points = [{"n": e.number, **e.content} for e in client.jobs.metrics(job_id)]
    if not points:
        return
    table = pd.DataFrame(points)
    names = [c for c in table.columns if c not in ("n", "tokens", "step") and table[c].dtype.kind in "fi"]
    x = "tokens" if "tokens" in table else ("step" if "step" in table else "n")
    for start in range(0, len(names), 3):
        for column, name in zip(st.columns(3), names[start : start + 3], strict=False):
            with column:
                one = table[[x, name]].dropna()
                charts.show(charts.curve(one, x, name), one, f"curve-{name}", key=f"curve-{job_id}-{name}")


def link_to_result(job: JobRecord) -> None:
    """Where what it made can be looked at."""
    result = job.result or {}
    spec = job.spec
    if job.state != "succeeded":
        return
    if "evaluation_id" in result:
        go.link(
            "validation", "Look at the evaluation", icon="fact_check", evaluation=str(result["evaluation_id"])
        )
    elif job.kind == "import_dataset":
        go.link(
            "datasets",
            "Look at the data set",
            icon="photo_library",
            dataset=getattr(spec, "dataset_id", None),
        )
    elif job.kind == "describe_concepts":
        go.link("concepts", "Look at the concepts", icon="hub", sae=getattr(spec, "sae_id", None))
    elif "experts_id" in result:
        go.link("experts", "Look at the experts", icon="school", experts=str(result["experts_id"]))
    elif job.kind == "train_sae":
        go.link("models", "Look at the SAE", icon="deployed_code", sae=str(result.get("sae_id", "")))
