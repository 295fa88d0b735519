"""Corrections: what was saved, in which versions, and what is known about each."""

import json
from collections.abc import Callable
from html import escape

import pandas as pd
import streamlit as st

from fulcrum.client import Client
from fulcrum.domain.codec import to_json
from fulcrum.domain.corrections import Correction
from fulcrum.domain.errors import FulcrumError, NotFound
from fulcrum.domain.records import CorrectionRecord, CorrectionVersion, EvaluationRecord
from fulcrum_ui import go, troubles
from fulcrum_ui.bench_state import holding
from fulcrum_ui.parts.choosing import usable_saes
from fulcrum_ui.parts.columns import columns_of
from fulcrum_ui.parts.evidence_badges import STATE_KINDS, evidence, verdict_badge
from fulcrum_ui.parts.latent_cards import known
from fulcrum_ui.parts.words import Noun, ago, badge, edit_words, percent, plain, signed
from fulcrum_ui.parts.writing import write_button
from fulcrum_ui.visitor import forget, visitor

_CHECKED = 4  # newest evaluations that are asked whether they are stale


def page() -> None:
    """The page."""
    client = visitor().client
    chosen = st.query_params.get("correction")
    if chosen:
        _one(client, chosen)
        return
    st.title("Corrections", anchor=False)
    found = list(client.corrections.list())
    if not found:
        st.info(
            "A correction is a change of latents that helped on an image, kept under a name. Make one on the bench, then prove it on a data set."
        )
        go.link("debug", "To the bench", icon="science")
        _search(client)
        return
    evaluations = list(client.evaluations.list(kind="validation"))
    search = st.text_input(
        "Search",
        placeholder="Search names and reasons",
        label_visibility="collapsed",
        key="correction-search",
    ).lower()
    for record in found:
        if search in record.name.lower() or search in record.description.lower():
            _row(record, [e for e in evaluations if e.correction_id == record.id])
    _search(client)


def _search(client: Client) -> None:
    """One correction for a whole failure, searched on the images where it was seen."""
    datasets = [d for d in client.datasets.list() if d.n_images]
    saes = usable_saes(client)
    if not datasets or not saes:
        return
    with st.expander("Search a correction for a whole failure", icon=":material/travel_explore:"):
        line = st.columns(2)
        dataset = line[0].selectbox("Images", datasets, format_func=lambda d: d.name, key="search-data")
        sae = line[1].selectbox("SAE", saes, format_func=lambda s: s.name, key="search-sae")
        columns = columns_of(client, dataset)
        if not columns:
            st.info("The images carry no groups by which a failure could be named.")
            return
        asked = st.columns([2, 2, 2], vertical_alignment="bottom")
        column = asked[0].selectbox("The failure: column", list(columns), key="search-column")
        values = columns[column]
        value = asked[1].selectbox("is", values, key=f"search-value-{column}")
        loss = asked[2].number_input("Loss allowed on others, points", 0.0, 20.0, 1.0, 0.5, key="search-loss")
        if write_button("Search", type="primary", key="search-go"):
            try:
                job = client.evaluations.suggest(dataset, sae, {column: value}, max_clean_loss=loss / 100)
            except FulcrumError as error:
                troubles.show(error, "search")
                return
            go.switch("jobs", job=job.id)
        st.caption("Greedy, on the discover split only: what it finds is proven on images that it never saw.")


def _row(record: CorrectionRecord, evaluations: list[EvaluationRecord]) -> None:
    with st.container(border=True):
        row = st.columns([4, 3.6, 1.6, 1], vertical_alignment="center")
        reason = (
            f"<br><span class='fu-quiet'>{escape(record.description[:160])}</span>"
            if record.description
            else ""
        )
        row[0].html(
            f"<b>{escape(record.name)}</b> <span class='fu-quiet'>version {record.latest}</span>{reason}"
        )
        newest = [e for e in evaluations if e.number == record.latest]
        row[1].html(evidence(newest) or "<span class='fu-quiet'>never tried on a data set</span>")
        row[2].html(
            badge(record.state.replace("_", " "), STATE_KINDS.get(record.state, "plain"))
            + f"<br><span class='fu-quiet'>{ago(record.created_at)}</span>"
        )
        if row[3].button("Open", key=f"open-{record.id}", width="stretch"):
            st.query_params["correction"] = record.id
            st.rerun()


def _one(client: Client, correction_id: str) -> None:
    if st.button("All corrections", icon=":material/arrow_back:", type="tertiary"):
        go.write({})
        st.rerun()
    try:
        record = client.corrections.get(correction_id)
    except NotFound:
        st.warning("This correction is not here (any more).")
        return
    versions = list(client.corrections.versions(record))
    line = st.columns([5, 1.5, 1.3, 1.3], vertical_alignment="center")
    line[0].title(plain(record.name), anchor=False)
    with line[1]:
        go.link("validation", "Validate", icon="fact_check", correction=record.id)
    newest = versions[0]
    line[2].download_button(
        "Take home",
        lambda: client.corrections.export(record),
        file_name=f"{_file_name(record.name)}.json",
        mime="application/json",
        icon=":material/download:",
        width="stretch",
        help="A file for `fulcrum steer --correction` and `fulcrum validate -c`",
        on_click="ignore",
    )
    with line[3].popover("More", width="stretch"):
        _more(client, record)
    st.html(badge(record.state.replace("_", " "), STATE_KINDS.get(record.state, "plain")))
    if record.description:
        st.write(plain(record.description))
    left, right = st.columns([3, 3], gap="large")
    with left:
        number = st.selectbox(
            "Version",
            [v.number for v in versions],
            key="version",
            format_func=lambda n: f"Version {n}" + (" (newest)" if n == newest.number else ""),
        )
        version = next(v for v in versions if v.number == number)
        if holding(version.correction, record.name)[0] is not None:
            go.link("debug", "Try it on an image", icon="science", correction=f"{record.id}.{number}")
        _content(client, record, version)
        _difference(client, record, versions, version)
    with right:
        st.subheader("What is known about it", anchor=False)
        _evidence(client, record)


def _content(client: Client, record: CorrectionRecord, version: CorrectionVersion) -> None:
    correction = version.correction
    about = (
        known(client, record.sae_id, [e.latent for e in correction.edits][:100]) if record.sae_id else None
    )
    shown = [
        edit_words(e, about.label(e.latent), about.noun) if about else edit_words(e)
        for e in correction.edits[:60]
    ]
    more = len(correction.edits) - len(shown)
    st.caption(f"{len(correction.edits)} edits" + (f", the first {len(shown)}" if more > 0 else ""))
    st.html(
        "<div style='display:flex;flex-wrap:wrap;gap:0.35rem'>"
        + " ".join(badge(text) for text in shown)
        + "</div>"
    )
    scope = {"all": "everywhere", "cls": "in the CLS token", "patches": "in the patches"}.get(
        correction.scope.kind, f"in {len(correction.scope.patches)} patches"
    )
    st.caption(
        f"Acts {scope}"
        + (f", under {len(correction.conditions)} conditions" if correction.conditions else "")
        + f", at {correction.hook_point}."
    )
    if version.note:
        st.caption(f"Note: {plain(version.note)}")
    origin = correction.origin
    found = {
        "manual": "by hand",
        "image_search": "by a search on an image",
        "group_search": "by a search on a failure group",
        "expert_search": "by a search for experts",
    }
    on = f" on {len(origin.image_sha256)} images" if len(origin.image_sha256) > 1 else ""
    st.caption(
        f"Found {found.get(origin.kind, origin.kind)}{on} · {ago(version.created_at)} · `{version.sha256[:12]}`"
    )
    with st.expander("As it is hashed"):
        st.code(json.dumps(to_json(correction), indent=1)[:20000], language="json", height=300)


def _difference(
    client: Client, record: CorrectionRecord, versions: list[CorrectionVersion], version: CorrectionVersion
) -> None:
    """Against another version of it, or the newest of another correction."""
    own = {f"version {v.number}": v for v in versions if v.number != version.number}
    others = {c.name: c for c in client.corrections.list() if c.id != record.id and c.sae_id == record.sae_id}
    if not own and not others:
        return
    against = st.selectbox(
        "Compare with", ["", *own, *others], format_func=lambda n: n or "nothing", key="diff"
    )
    if not against:
        return
    other = own[against] if against in own else client.corrections.version(others[against])
    noun = known(client, record.sae_id, ()).noun if record.sae_id else "latent"
    lines = difference(other.correction, version.correction, noun)
    if not lines:
        st.caption("Same edits; the difference, if any, is in scope, conditions or task.")
        return
    st.dataframe(pd.DataFrame(lines), hide_index=True, width="stretch")


def difference(old: Correction, new: Correction, noun: Noun = "latent") -> list[dict[str, str]]:
    """A line for each latent that is edited otherwise."""
    before, after = ({e.latent: e for e in c.edits} for c in (old, new))
    lines = []
    for latent in sorted({*before, *after}):
        a, b = before.get(latent), after.get(latent)
        if a != b:
            lines.append(
                {
                    noun: str(latent),
                    "before": edit_words(a, noun=noun) if a else "untouched",
                    "after": edit_words(b, noun=noun) if b else "untouched",
                }
            )
    return lines


def _evidence(client: Client, record: CorrectionRecord) -> None:
    found = list(client.evaluations.list(correction=record))
    if not found:
        st.info("Nothing yet: one image proves nothing about others.")
        go.link("validation", "Validate it on a data set", icon="fact_check", correction=record.id)
        return
    datasets = {d.id: d.name for d in client.datasets.list()}
    for number, e in enumerate(found[:30]):
        with st.container(border=True):
            row = st.columns([4, 1], vertical_alignment="center")
            what = verdict_badge(e) if e.kind == "validation" else badge("dose-response", "info")
            row[0].html(
                f"{what} <span class='fu-quiet'>version {e.number} on {escape(datasets.get(e.dataset_id, 'a deleted data set'))}, {escape(e.split)}"
                f"{f', look {e.look}' if e.look else ''} · {ago(e.created_at)}</span><br>{_numbers(e)}"
            )
            with row[1]:
                go.link("validation", "Open", evaluation=e.id)
            if number < _CHECKED and (changes := client.evaluations.get(e).changes):
                st.caption(f":material/history: Stale: {', '.join(c.part for c in changes)} changed since.")


def _numbers(e: EvaluationRecord) -> str:
    numbers = e.numbers
    parts = []
    if isinstance(numbers.get("target_net"), int | float):
        parts.append(f"failure mode {signed(100 * numbers['target_net'], 1)} points")
    if isinstance(numbers.get("nfr_upper"), int | float):
        parts.append(f"broken at most {percent(numbers['nfr_upper'], 2)}")
    return f"<span class='fu-num'>{escape(', '.join(parts))}</span>"


def _more(client: Client, record: CorrectionRecord) -> None:
    name = st.text_input("Name", record.name, max_chars=120, key="correction-name")
    reason = st.text_area("Why", record.description, max_chars=2000, key="correction-why")
    if write_button("Save", key="correction-save", width="stretch"):
        _do(lambda: client.corrections.update(record, name=name.strip(), description=reason.strip()))
    if write_button("Delete", key="correction-delete", width="stretch", icon=":material/delete:"):
        try:
            client.corrections.delete(record)
        except FulcrumError as error:
            troubles.show(error, "delete")
            return
        go.write({})
        st.rerun()


def _do(what: Callable[[], object]) -> None:
    try:
        what()
    except FulcrumError as error:
        troubles.show(error, "correction")
        return
    forget("evaluations")
    st.rerun()


def _file_name(name: str) -> str:
    return "".join(c if c.isalnum() or c in "-_" else "-" for c in name)[:80] or "correction"
